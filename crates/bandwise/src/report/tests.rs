//! The page as a whole.

use super::*;

const HOSTILE: &str = "<script>alert('x')</script>\"><img src=x onerror=y>&";

/// One of everything, with hostile text wherever text goes.
fn everything() -> Report {
    let h = || HOSTILE.to_string();
    let line = LinePlot::new(h(), Axis::new(h()), Axis::new(h()))
        .series(Series::new(h(), vec![[0.0, 1.0], [1.0, 2.0]]).band(vec![[0.5, 1.5], [1.5, 2.5]]))
        .caption(h());
    let bars = BarPlot::new(h(), Axis::percent(h()), vec![h()])
        .series(BarSeries::new(h(), vec![Bar::with_interval(0.5, [0.4, 0.6])]))
        .reference(0.1, h());
    let heat = HeatMap::new(h(), Axis::new(h()))
        .panel(HeatPanel::new(h(), 1, 2, vec![0.0, 1.0]))
        .annotated(vec![h()], vec![h(), h()]);
    let images =
        ImageGrid::new(h(), &[HOSTILE]).row(h(), vec![PngImage::from_pixels(&[0.5], 1, 1, 1).caption(h())]);
    let section = Section::new(h())
        .text(h())
        .warning(h())
        .facts(Facts::new().fact(h(), h()))
        .table(Table::new(h(), &[HOSTILE]).row(vec![Cell::text(h())]).caption(h()))
        .line_plot(line)
        .bar_plot(bars)
        .heat_map(heat)
        .images(images)
        .details(h(), vec![Block::Text { text: h() }]);
    Report::new(h()).subtitle(h()).section(section.clone()).section(section)
}

#[test]
fn text_from_outside_is_harmless_everywhere() {
    let html = everything().to_html();
    for forbidden in ["<script", "<img src=x", "onerror=y>"] {
        assert!(!html.contains(forbidden), "{forbidden} came through");
    }
    assert!(html.matches("&lt;script&gt;").count() > 20);
}

#[test]
fn the_page_is_self_contained() {
    let html = everything().to_html();
    // Namespace names are no addresses; everything that is fetched is a data URL or a place in the page.
    for attribute in ["src=\"", "href=\""] {
        for (at, _) in html.match_indices(attribute) {
            let target = &html[at + attribute.len()..];
            assert!(target.starts_with("data:") || target.starts_with('#'), "{}", &target[..40]);
        }
    }
    assert!(!html.contains("url(") && !html.contains("@import"));
}

#[test]
fn sections_survive_json_with_their_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sections/one.json");
    let section = everything().sections()[0].clone();
    section.write_json(&path).unwrap();
    assert_eq!(Section::read_json(&path).unwrap(), vec![section.clone()]);
    std::fs::write(&path, serde_json::to_vec(&[&section, &section]).unwrap()).unwrap();
    assert_eq!(Section::read_json(&path).unwrap().len(), 2);
}

#[test]
fn a_broken_section_file_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.json");
    std::fs::write(&path, "{\"heading\": \"a\",\n \"blocks\": [{\"kind\": \"hologram\"}]}").unwrap();
    let message = Section::read_json(&path).unwrap_err().to_string();
    assert!(message.contains("broken.json") && message.contains("line 2"), "{message}");
    assert!(message.contains("hologram"), "{message}");
}

#[test]
fn figures_are_written_as_files() {
    let folder = tempfile::tempdir().unwrap();
    let files = everything().write_figures(folder.path()).unwrap();
    let count = |extension: &str| files.iter().filter(|f| f.extension().unwrap() == extension).count();
    assert_eq!((count("svg"), count("csv"), count("png")), (6, 8, 2));
    assert!(files.iter().all(|f| f.is_file()));
    assert!(
        std::fs::read(files.iter().find(|f| f.extension().unwrap() == "png").unwrap())
            .unwrap()
            .starts_with(b"\x89PNG")
    );
}

#[test]
fn titles_become_file_names() {
    assert_eq!(file_stem("Accuracy under PGD, ε = 8/255"), "accuracy-under-pgd-8-255");
    assert_eq!(file_stem("../../etc"), "etc");
    assert_eq!(file_stem("…"), "figure");
}
