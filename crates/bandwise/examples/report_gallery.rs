//! Every kind of plot and image that a report can hold, on one page.
//!
//! All numbers are made up: the gallery shows how reports look, not what was measured.
//!
//! `cargo run -p bandwise --example report_gallery -- OUTPUT_FOLDER`

use std::path::PathBuf;

use bandwise::evaluate::statistics::wilson_interval;
use bandwise::report::*;

const SIDE: usize = 32;

fn main() -> bandwise::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "gallery".into()));
    let report = Report::new("Gallery of plots and pictures")
        .subtitle("All numbers are made up: this page shows what a report of `bandwise` is made of.")
        .section(facts())
        .section(curves())
        .section(accuracies())
        .section(spectra())
        .section(pictures());
    report.write(&folder.join("report.html"))?;
    let figures = report.write_figures(&folder.join("figures"))?;
    println!("{} and {} figure files", folder.join("report.html").display(), figures.len());
    Ok(())
}

fn facts() -> Section {
    let facts = Facts::new()
        .fact("Model", "resnet9")
        .fact("Data", "synthetic:shape=0.9,texture=1.0")
        .fact("Objective", "fgsm, epsilon 8/255, random start")
        .fact("Schedule", "one-cycle, peak 0.2, 12 epochs")
        .fact("Weights SHA-256", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
        .fact("Device", "cpu, f32");
    let learned = Block::Facts(Facts::new().fact("train.batch_size", 128).fact("train.momentum", 0.9));
    Section::new("What was trained")
        .text("Two networks of **the same architecture** saw the same images; one of them under attack.")
        .facts(facts)
        .note("Intervals are 95 % Wilson intervals over the test images.")
        .details("Complete configuration", vec![learned])
}

fn curves() -> Section {
    let epochs = 1..=30;
    let curve = |rate: f64, floor: f64| -> Vec<[f64; 2]> {
        epochs.clone().map(|e| [f64::from(e), floor + 2.3 * (-rate * f64::from(e)).exp()]).collect()
    };
    let band = |points: &[[f64; 2]]| points.iter().map(|p| [p[1] * 0.9, p[1] * 1.1]).collect();
    let robust = curve(0.12, 0.4);
    let loss = LinePlot::new("Loss", Axis::new("epoch"), Axis::new("cross-entropy"))
        .series(Series::new("plain, training", curve(0.3, 0.05)).color(0).dashed())
        .series(Series::new("plain, validation", curve(0.3, 0.2)).color(0))
        .series(Series::new("robust, validation", robust.clone()).band(band(&robust)).color(1))
        .caption("The band spans the 95 % interval over five seeds.");
    let rate = (0..=300).map(|i| f64::from(i) / 10.0);
    let rate = rate.map(|e| [e, 1e-4 + 0.2 * (1.0 - (e / 15.0 - 1.0).abs())]).collect();
    let rate = LinePlot::new("Learning rate", Axis::new("epoch"), Axis::new("learning rate").log())
        .series(Series::new("", rate));
    let strength = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0];
    let accuracy = |scale: f64| -> Vec<[f64; 2]> {
        strength.iter().map(|e| [*e, 0.92 / (1.0 + (e / scale).powi(2))]).collect()
    };
    let epsilon = LinePlot::new(
        "Accuracy against attack strength",
        Axis::new("ε (1/255, L∞)"),
        Axis::percent("robust accuracy").range(0.0, 1.0),
    )
    .series(Series::new("plain", accuracy(1.2)))
    .series(Series::new("adversarially trained", accuracy(7.0)))
    .series(Series::new("frequency-regularized", accuracy(3.0)))
    .series(Series::new("FPCM", accuracy(5.0)))
    .full_width();
    Section::new("Curves")
        .text("Loss and learning rate over training, and the accuracy that attacks leave.")
        .line_plot(loss)
        .line_plot(rate)
        .line_plot(epsilon)
}

fn accuracies() -> Section {
    let models = ["plain", "adversarially trained", "frequency-regularized"];
    let table = [
        ("none", [930, 851, 915]),
        ("fgsm, ε = 8/255", [210, 560, 334]),
        ("pgd-10, ε = 8/255", [2, 482, 120]),
    ]
    .into_iter()
    .fold(
        Table::new("Accuracy under attack", &["attack", models[0], models[1], models[2]]),
        |table, (name, counts)| {
            let most = counts.iter().max().copied();
            let cells = counts.iter().map(|c| {
                let cell = Cell::percent(*c as f64 / 1000.0).with_interval(Some(wilson_interval(*c, 1000)));
                cell.best(Some(*c) == most)
            });
            table.row(std::iter::once(Cell::text(name)).chain(cells).collect())
        },
    )
    .caption("1000 images; best of each row in bold.");
    let splits = ["same distribution", "shape only", "texture only", "cue conflict: shape"];
    let counts = [[930, 310, 880, 90], [850, 620, 510, 460], [910, 540, 700, 320]];
    let cues = BarPlot::new(
        "Cue splits",
        Axis::percent("accuracy").range(0.0, 1.0),
        splits.map(String::from).to_vec(),
    );
    let cues = models.iter().zip(counts).fold(cues, |plot, (model, counts)| {
        let bar = |c: u64| Bar::with_interval(c as f64 / 1000.0, wilson_interval(c, 1000));
        plot.series(BarSeries::new(*model, counts.map(bar).to_vec()))
    });
    let cues = cues.reference(0.1, "chance").full_width();
    let noise = [
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "defocus_blur",
        "glass_blur",
        "motion_blur",
        "fog",
        "jpeg_compression",
    ];
    let noise_plot = BarPlot::new("Corruptions", Axis::percent("accuracy"), noise.map(String::from).to_vec());
    let noise_plot = models.iter().enumerate().fold(noise_plot, |plot, (m, model)| {
        let bars =
            (0..noise.len()).map(|i| Bar::new(0.5 + 0.3 * ((i * (m + 1)) as f64).sin().abs())).collect();
        plot.series(BarSeries::new(*model, bars))
    });
    let grid = HeatMap::new("Corruption × severity", Axis::percent("accuracy").range(0.0, 1.0))
        .panel(HeatPanel::new("", 4, 5, (0..20).map(|i| 0.95 - 0.04 * i as f32).collect()))
        .annotated(
            noise[..4].iter().map(ToString::to_string).collect(),
            (1..=5).map(|s| s.to_string()).collect(),
        );
    Section::new("Accuracies").table(table).bar_plot(cues).bar_plot(noise_plot).heat_map(grid)
}

fn spectra() -> Section {
    let spectrum = |exponent: f32| -> Vec<f32> {
        grid(SIDE)
            .map(|(y, x)| {
                let half = SIDE as f32 / 2.0;
                1.0 / (1.0 + (y - half).hypot(x - half)).powf(exponent)
            })
            .collect()
    };
    let frequency = || Axis::new("cycles per pixel").range(-0.5, 0.5);
    let maps = HeatMap::new("Amplitude of the input gradient", Axis::new("mean amplitude").log())
        .panel(HeatPanel::new("plain", SIDE, SIDE, spectrum(0.8)))
        .panel(HeatPanel::new("adversarially trained", SIDE, SIDE, spectrum(2.0)))
        .panel(HeatPanel::new("frequency-regularized", SIDE, SIDE, spectrum(1.4)))
        .colors(ColorMap::Magma)
        .axes(frequency(), frequency())
        .caption("Centered spectra on one color scale.");
    let difference = spectrum(0.8).iter().zip(spectrum(1.4)).map(|(a, b)| b - 0.5 * a).collect();
    let difference = HeatMap::new("Difference", Axis::new("amplitude"))
        .panel(HeatPanel::new("", SIDE, SIDE, difference))
        .colors(ColorMap::Diverging)
        .axes(frequency(), frequency());
    let energies = (0..9).map(|i| (i as f32 * -0.4).exp()).collect();
    let energies = HeatMap::new("Filter energy per DCT frequency", Axis::new("energy"))
        .panel(HeatPanel::new("", 3, 3, energies))
        .axes(Axis::new("horizontal frequency"), Axis::new("vertical frequency"));
    Section::new("Spectra")
        .text("Energies on logarithmic and signed scales.")
        .heat_map(maps)
        .heat_map(difference)
        .heat_map(energies)
}

fn pictures() -> Section {
    let columns = ["original", "adversarial", "perturbation × 16", "amplitude spectrum"];
    let mut images = ImageGrid::new("Pictures and their adversarial versions", &columns);
    for (row, label) in ["disc, stripes", "ring, checks", "cross, dots"].into_iter().enumerate() {
        let original: Vec<f32> = grid(SIDE).flat_map(|(y, x)| color_at(row, y, x)).collect();
        let noise = |i: usize| if (i * 2_654_435_761) >> 7 & 1 == 0 { 8.0 / 255.0 } else { -8.0 / 255.0 };
        let perturbation: Vec<f32> = (0..original.len()).map(noise).collect();
        let adversarial: Vec<f32> = original.iter().zip(&perturbation).map(|(a, b)| a + b).collect();
        let spectrum: Vec<f32> =
            grid(SIDE).map(|(y, x)| -((y - 16.0).hypot(x - 16.0 + row as f32) + 1.0).ln()).collect();
        images = images.row(
            label,
            vec![
                PngImage::from_pixels(&original, SIDE, SIDE, 3).caption("disc 98 %"),
                PngImage::from_pixels(&adversarial, SIDE, SIDE, 3).caption("cross 71 %"),
                PngImage::signed(&perturbation, SIDE, SIDE, 3, None),
                PngImage::heat(&spectrum, SIDE, SIDE, ColorMap::Magma, None),
            ],
        );
    }
    Section::new("Pictures").images(images.caption("Perturbations are scaled so that gray is no change."))
}

fn grid(side: usize) -> impl Iterator<Item = (f32, f32)> {
    (0..side * side).map(move |i| ((i / side) as f32, (i % side) as f32))
}

fn color_at(row: usize, y: f32, x: f32) -> [f32; 3] {
    let radius = (y - 14.0).hypot(x - 17.0);
    let inside =
        [radius < 9.0, (6.0..11.0).contains(&radius), (y - 14.0).abs() < 4.0 || (x - 17.0).abs() < 4.0][row];
    let texture = [0.1 * (x * 1.4).sin(), 0.1 * (x * 2.0).sin() * (y * 2.0).sin(), 0.08 * (x + y).cos()][row];
    let base = if inside { [0.85, 0.45, 0.2] } else { [0.25, 0.4, 0.55] };
    base.map(|v| v + texture)
}
