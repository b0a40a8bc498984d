//! Fourier maps of what corruptions change: the mean amplitude spectrum of corrupted − clean images per corruption and
//! severity, with JaFR's low-frequency bias (official `analyze_cifar10c_fourier.py`). No network takes part.

use super::{Analysis, Findings, frequency_axes};
use crate::corruption::Corruption;
use crate::data::Batch;
use crate::evaluate::corruptions::CorruptedSet;
use crate::evaluate::record::{Provenance, Record};
use crate::formats::csv::Csv;
use crate::method::Jafr;
use crate::plot::{Axis, Cell, ColorMap, HeatMap, HeatPanel, LinePlot, Section, Series, Table};
use crate::spectral::bands;
use crate::spectral::statistics::SpectrumStatistics;
use crate::{Error, Job, Result};

/// Sections of its page.
pub const SECTIONS: [&str; 1] = ["corruption_spectra"];
/// What progress is told.
const STAGE: &str = "corruptions";

/// What one corruption changes at one severity.
#[derive(Clone, Debug)]
pub struct CorruptionSpectrum {
    /// The corruption.
    pub corruption: Corruption,
    /// 1 to 5.
    pub severity: u8,
    /// Spectra of corrupted − clean, pixels in [0, 1].
    pub differences: SpectrumStatistics,
    /// JaFR's bias (sum, exponents ±1) of their mean amplitude: the larger, the lower the frequencies.
    pub low_frequency_bias: f64,
}

/// Measures every corruption of the set at every severity.
///
/// # Errors
/// Without the clean images; [`Error::Interrupted`] after a stop; if images cannot be read or differ in size.
pub fn run(set: &CorruptedSet, job: &Job) -> Result<Analysis<CorruptionSpectrum>> {
    let clean = set.source.clean().ok_or_else(|| {
        Error::config(
            "what a corruption changes is known only beside the clean images: name them with --clean-data",
        )
    })?;
    let provenance = set.provenance(&Provenance {
        data: set.data.name.clone(),
        split: set.data.split.to_string(),
        ..Provenance::default()
    });
    let (indices, size) = (set.data.indices(), job.batch_size.max(1));
    let [height, width, channels] = clean.first_shape()?;
    let total = set.corruptions.len() * set.severities.len() * indices.len();
    let mut findings = Findings::new("What corruptions change");
    let mut spectra = Vec::new();
    for &corruption in &set.corruptions {
        for &severity in &set.severities {
            let corrupted = set.source.dataset(corruption, severity)?;
            let mut differences = SpectrumStatistics::new(height, width, channels);
            for part in indices.chunks(size) {
                let done = spectra.len() * indices.len() + differences.images();
                job.report(STAGE, done, total, corruption.name());
                job.interrupt.check(super::NOTHING_WRITTEN)?;
                let [after, before] = [&corrupted, clean].map(|images| Batch::of(images.as_ref(), part));
                differences.add_tensor(&(after?.images - before?.images)?)?;
            }
            let level = severity.level();
            let bias = Jafr::default().bias_of_amplitudes(differences.mean_amplitude(), height, width)?;
            let data_sha256 = corrupted.fingerprint().to_owned();
            let mut record = Record::scalar("corruption_low_frequency_bias", bias)
                .under_corruption(corruption.name(), level)
                .with_provenance(&Provenance { data_sha256, ..provenance.clone() });
            record.total = Some(indices.len() as u64);
            set.source.describe(&mut record, corruption, [height, width, channels]);
            findings.records.push(record);
            spectra.push(CorruptionSpectrum {
                corruption,
                severity: level,
                differences,
                low_frequency_bias: bias,
            });
        }
    }
    job.report(STAGE, total, total, "");
    for corruption in by_bias(&spectra) {
        let of = of_corruption(&spectra, corruption);
        let biases: Vec<String> = of.iter().map(|s| format!("{:.2}", s.low_frequency_bias)).collect();
        findings.lines.push(format!("{corruption}: low-frequency bias {}", biases.join(", ")));
    }
    let findings =
        findings.table("corruption_spectra", csv(&spectra)).section(SECTIONS[0], section(&spectra));
    Ok(Analysis { results: spectra, findings })
}

fn of_corruption(spectra: &[CorruptionSpectrum], corruption: Corruption) -> Vec<&CorruptionSpectrum> {
    spectra.iter().filter(|spectrum| spectrum.corruption == corruption).collect()
}

/// The corruptions, those that change the lowest frequencies first.
fn by_bias(spectra: &[CorruptionSpectrum]) -> Vec<Corruption> {
    let mean = |corruption: Corruption| {
        let of = of_corruption(spectra, corruption);
        of.iter().map(|s| s.low_frequency_bias).sum::<f64>() / of.len() as f64
    };
    let mut order: Vec<Corruption> = Vec::new();
    for spectrum in spectra {
        if !order.contains(&spectrum.corruption) {
            order.push(spectrum.corruption);
        }
    }
    order.sort_by(|a, b| mean(*b).total_cmp(&mean(*a)));
    order
}

/// `corruption,severity,row,column,amplitude`: signed frequencies in cycles per image, mean amplitude over images and
/// channels.
pub fn csv(spectra: &[CorruptionSpectrum]) -> String {
    let mut csv = Csv::new(&["corruption", "severity", "row", "column", "amplitude"]);
    for spectrum in spectra {
        let (height, width) = spectrum.differences.size();
        for (index, amplitude) in spectrum.differences.mean_amplitude().into_iter().enumerate() {
            let row = bands::signed_frequency(index / width, height);
            let column = bands::signed_frequency(index % width, width);
            csv.row(&[&spectrum.corruption, &spectrum.severity, &row, &column, &amplitude]);
        }
    }
    csv.into_text()
}

/// Maps, and the bias by severity.
pub fn section(spectra: &[CorruptionSpectrum]) -> Section {
    let images = spectra.first().map_or(0, |spectrum| spectrum.differences.images());
    let order = by_bias(spectra);
    let mut section = Section::new("What corruptions change").text(format!(
        "Fourier amplitudes of corrupted − clean images (pixels in [0, 1]), mean over {images} images and their \
         channels. The bias is JaFR\u{2019}s: the larger, the lower the frequencies; a common factor of \
         all amplitudes hardly changes it. Corruptions \
         that change the lowest frequencies come first."
    ));
    section = section.table(table(spectra, &order)).line_plot(biases(spectra, &order));
    order.iter().fold(section, |section, &corruption| section.heat_map(maps(spectra, corruption)))
}

fn table(spectra: &[CorruptionSpectrum], order: &[Corruption]) -> Table {
    let severities: Vec<u8> = (1..=5).filter(|level| spectra.iter().any(|s| s.severity == *level)).collect();
    let mut columns = vec!["corruption".to_owned(), "family".to_owned()];
    columns.extend(severities.iter().map(|severity| format!("severity {severity}")));
    order.iter().fold(Table::new("Low-frequency bias", &columns), |table, &corruption| {
        let of = of_corruption(spectra, corruption);
        let mut row = vec![Cell::text(readable(corruption)), Cell::text(corruption.family())];
        row.extend(severities.iter().map(|level| {
            let found = of.iter().find(|spectrum| spectrum.severity == *level);
            found.map_or_else(Cell::empty, |spectrum| Cell::number(spectrum.low_frequency_bias))
        }));
        table.row(row)
    })
}

fn biases(spectra: &[CorruptionSpectrum], order: &[Corruption]) -> LinePlot {
    let plot = LinePlot::new(
        "Low-frequency bias by severity",
        Axis::integers("severity"),
        Axis::new("low-frequency bias"),
    )
    .full_width();
    order.iter().enumerate().fold(plot, |plot, (color, &corruption)| {
        let points = of_corruption(spectra, corruption);
        let points = points.iter().map(|s| [f64::from(s.severity), s.low_frequency_bias]).collect();
        plot.series(Series::new(readable(corruption), points).color(color))
    })
}

fn maps(spectra: &[CorruptionSpectrum], corruption: Corruption) -> HeatMap {
    let title = format!("What {} changes", readable(corruption));
    let map = HeatMap::new(title, Axis::new("mean |F|").log()).colors(ColorMap::Magma).full_width();
    let map = map.caption("Zero frequency in the middle. One color scale for all severities.");
    of_corruption(spectra, corruption).into_iter().fold(map, |map, spectrum| {
        let (height, width) = spectrum.differences.size();
        let values = bands::shift(&spectrum.differences.mean_amplitude(), height, width);
        let values = values.into_iter().map(|amplitude| amplitude as f32).collect();
        let (x, y) = frequency_axes(height, width);
        let label = format!("severity {}", spectrum.severity);
        map.axes(x, y).panel(HeatPanel::new(label, height, width, values))
    })
}

fn readable(corruption: Corruption) -> String {
    corruption.name().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::data::{DataSpec, Split};
    use crate::evaluate::corruptions::CorruptionsConfig;
    use crate::method::input_gradient::scalar;
    use crate::plot::Block;

    fn set(corruptions: &[&str]) -> CorruptedSet {
        let config = serde_json::json!({"corruption": {"corruptions": corruptions, "severities": [1, 4]}});
        let config: CorruptionsConfig = serde_json::from_value(config).unwrap();
        let data: DataSpec = "synthetic:test_count=12".parse().unwrap();
        config.open(&data, Split::Test, Some(10)).unwrap()
    }

    #[test]
    fn amplitudes_and_bias_are_those_of_the_differences() {
        let set = set(&["gaussian_noise", "fog"]);
        let found = run(&set, &Job { batch_size: 4, ..Job::default() }).unwrap();
        assert_eq!(found.results.len(), 4);
        for spectrum in &found.results {
            // Another way: JaFR's own map of all differences at once, and one coefficient by hand.
            let severity = set.severities.iter().find(|s| s.level() == spectrum.severity).unwrap();
            let corrupted = set.source.dataset(spectrum.corruption, *severity).unwrap();
            let indices = set.data.indices();
            let images = |of: &dyn crate::data::Dataset| {
                Batch::of(of, &indices).unwrap().images.to_dtype(DType::F64).unwrap()
            };
            let difference =
                (images(corrupted.as_ref()) - images(set.source.clean().unwrap().as_ref())).unwrap();
            let bias = scalar(&Jafr::default().bias(&difference).unwrap()).unwrap();
            assert!((bias - spectrum.low_frequency_bias).abs() < 1e-4 * bias.abs(), "{bias}");
            let (count, height, width, channels) = difference.dims4().unwrap();
            let values = difference.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let mut sum = 0.0;
            for plane in 0..count * channels {
                let (image, channel) = (plane / channels, plane % channels);
                let (mut re, mut im) = (0.0, 0.0);
                for place in 0..height * width {
                    let (row, column) = ((place / width) as f64, (place % width) as f64);
                    let turn = 2.0 * row / height as f64 + 3.0 * column / width as f64;
                    let (sine, cosine) = (std::f64::consts::TAU * turn).sin_cos();
                    let value = values[(image * height * width + place) * channels + channel];
                    (re, im) = (re + value * cosine, im + value * sine);
                }
                sum += f64::hypot(re, im);
            }
            let mean = spectrum.differences.mean_amplitude()[2 * width + 3];
            let expected = sum / (count * channels) as f64;
            assert!((mean - expected).abs() < 1e-5 * expected.max(1e-3), "{mean} {expected}");
        }
        let bias = |corruption: Corruption| of_corruption(&found.results, corruption)[1].low_frequency_bias;
        assert!(bias(Corruption::Fog) > bias(Corruption::GaussianNoise));
        let record = &found.findings.records[1];
        assert_eq!((record.corruption.as_deref(), record.severity), (Some("gaussian_noise"), Some(4)));
        assert!(record.provenance.data_sha256.len() > 10 && record.extra.contains_key("official_protocol"));
        let (_, section) = &found.findings.sections[0];
        let maps: Vec<&HeatMap> = section
            .blocks
            .iter()
            .filter_map(|block| if let Block::HeatMap(map) = block { Some(map) } else { None })
            .collect();
        assert_eq!((maps.len(), maps[0].panels.len(), maps[0].title.as_str()), (2, 2, "What fog changes"));
        assert!(maps[0].x.label.contains("cycles per image"));
        let (_, csv) = &found.findings.tables[0];
        assert!(csv.lines().count() == 1 + 4 * 32 * 32 && csv.contains("\nfog,4,-16,3,"), "{}", &csv[..200]);
    }

    #[test]
    fn a_stop_writes_nothing() {
        let job = Job::default();
        job.interrupt.raise();
        assert!(run(&set(&["fog"]), &job).unwrap_err().to_string().contains("nothing was written"));
    }
}
