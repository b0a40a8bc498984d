//! Gradient spectra of several models as a section of a report: maps, profiles, numbers.

use super::super::{frequency_axes, radius_axis};
use super::{GradientSpectrum, image_bias};
use crate::Result;
use crate::formats::csv::Csv;
use crate::plot::{Axis, Cell, ColorMap, HeatMap, HeatPanel, LinePlot, Section, Series, Table};
use crate::spectral::bands;
use crate::spectral::statistics::SpectrumStatistics;

/// The spectra of `models` (name and measurement) and of the images they were measured on.
///
/// # Errors
/// If a low-frequency bias cannot be computed.
pub fn section(models: &[(String, GradientSpectrum)], images: &SpectrumStatistics) -> Result<Section> {
    let count = images.images();
    let explanation = format!(
        "Fourier amplitudes of the gradient of the cross-entropy with respect to the input, averaged over {count} \
         images and their channels: the frequencies that a small change of the image has to have in order to \
         change the loss most. The bias is JaFR's: the larger, the lower the frequencies."
    );
    Ok(Section::new("Input gradients in the frequency domain")
        .text(explanation)
        .table(numbers(models, images)?)
        .heat_map(maps(models, false))
        .heat_map(maps(models, true))
        .heat_map(image_map(images))
        .line_plot(profiles(models))
        .line_plot(relative_profiles(models, images)))
}

/// One line per model and frequency (signed, in cycles per image): mean amplitude, mean ln(1 + amplitude), and
/// mean amplitude of the gradients divided by their norms.
pub fn csv(models: &[(String, GradientSpectrum)]) -> String {
    let mut csv = Csv::new(&["model", "row", "column", "amplitude", "log1p_amplitude", "unit_amplitude"]);
    for (name, spectrum) in models {
        let (height, width) = spectrum.amplitudes.size();
        let (raw, log1p) = (spectrum.amplitudes.mean_amplitude(), spectrum.amplitudes.mean_log1p_amplitude());
        for (index, unit) in spectrum.unit.mean_amplitude().into_iter().enumerate() {
            let row = bands::signed_frequency(index / width, height);
            let column = bands::signed_frequency(index % width, width);
            csv.row(&[name, &row, &column, &raw[index], &log1p[index], &unit]);
        }
    }
    csv.into_text()
}

fn numbers(models: &[(String, GradientSpectrum)], images: &SpectrumStatistics) -> Result<Table> {
    let columns = ["model", "low-frequency bias", "mean norm", "amplitude below a quarter of Nyquist"];
    let mut table = Table::new("Input gradients", &columns);
    for (name, spectrum) in models {
        table = table.row(vec![
            Cell::text(name),
            number(spectrum.low_frequency_bias()?),
            number(Some(spectrum.mean_norm()).filter(|norm| norm.is_finite())),
            Cell::percent(low_share(&spectrum.unit)),
        ]);
    }
    let bias = number(Some(image_bias(images)?));
    Ok(table.row(vec![
        Cell::text("the images themselves"),
        bias,
        Cell::empty(),
        Cell::percent(low_share(images)),
    ]))
}

fn number(value: Option<f64>) -> Cell {
    value.map_or(Cell::text("none"), Cell::number)
}

/// Share of the summed amplitude at frequencies with at most a quarter of the largest radius along an axis.
fn low_share(spectrum: &SpectrumStatistics) -> f64 {
    let (height, width) = spectrum.size();
    let limit = height.min(width) as f64 / 8.0;
    let amplitudes = spectrum.mean_amplitude();
    let radii = bands::radii(height, width);
    let low: f64 = amplitudes.iter().zip(radii).filter(|(_, r)| *r <= limit).map(|(a, _)| a).sum();
    low / amplitudes.iter().sum::<f64>().max(f64::MIN_POSITIVE)
}

fn maps(models: &[(String, GradientSpectrum)], log1p: bool) -> HeatMap {
    let (title, value) = match log1p {
        false => ("Mean amplitude of the input gradient", Axis::new("mean |F|").log()),
        true => ("Mean log amplitude of the input gradient", Axis::new("mean ln(1 + |F|)")),
    };
    let map = HeatMap::new(title, value).colors(ColorMap::Magma);
    let map = match models.first().map(|(_, spectrum)| spectrum.amplitudes.size()) {
        Some((height, width)) => on_axes(map, height, width),
        None => map,
    };
    let caption = "Zero frequency in the middle, high frequencies outside. One color scale for all.";
    models.iter().fold(map.caption(caption), |map, (name, spectrum)| {
        let values = match log1p {
            false => spectrum.amplitudes.mean_amplitude(),
            true => spectrum.amplitudes.mean_log1p_amplitude(),
        };
        map.panel(panel(name, &values, spectrum.amplitudes.size()))
    })
}

fn image_map(images: &SpectrumStatistics) -> HeatMap {
    let map =
        HeatMap::new("Mean amplitude of the images", Axis::new("mean |F|").log()).colors(ColorMap::Magma);
    let (height, width) = images.size();
    on_axes(map, height, width).panel(panel("images", &images.mean_amplitude(), images.size()))
}

fn panel(name: &str, values: &[f64], (height, width): (usize, usize)) -> HeatPanel {
    let values = bands::shift(values, height, width).iter().map(|v| *v as f32).collect();
    HeatPanel::new(name, height, width, values)
}

fn profiles(models: &[(String, GradientSpectrum)]) -> LinePlot {
    let plot =
        LinePlot::new("Radial profile of the input gradient", radius_axis(), Axis::new("mean |F|").log());
    models.iter().enumerate().fold(plot, |plot, (index, (name, spectrum))| {
        let points = profile(&spectrum.amplitudes, 1.0);
        plot.series(Series::new(name, points).color(index))
    })
}

/// Profiles of unit-norm gradients and of the images, each divided by its mean, so that shapes compare.
fn relative_profiles(models: &[(String, GradientSpectrum)], images: &SpectrumStatistics) -> LinePlot {
    let relative = |spectrum: &SpectrumStatistics| {
        let amplitudes = spectrum.mean_amplitude();
        let mean = amplitudes.iter().sum::<f64>() / amplitudes.len().max(1) as f64;
        profile(spectrum, if mean > 0.0 { mean } else { 1.0 })
    };
    let value = Axis::new("mean |F| / its mean").log();
    let mut plot = LinePlot::new("Shape of the spectra", radius_axis(), value)
        .caption("Every gradient is divided by its norm first, so that all images count alike.");
    for (index, (name, spectrum)) in models.iter().enumerate() {
        plot = plot.series(Series::new(name, relative(&spectrum.unit)).color(index));
    }
    plot.series(Series::new("images", relative(images)).color(models.len()).dashed())
}

fn profile(spectrum: &SpectrumStatistics, divisor: f64) -> Vec<[f64; 2]> {
    let (height, width) = spectrum.size();
    let means = bands::radial_mean(&spectrum.mean_amplitude(), height, width);
    means.iter().enumerate().map(|(radius, mean)| [radius as f64, mean / divisor]).collect()
}

fn on_axes(map: HeatMap, height: usize, width: usize) -> HeatMap {
    let (x, y) = frequency_axes(height, width);
    map.axes(x, y)
}
