//! The energy of a network's filters per cosine frequency, layer by layer (the motivating figure of
//! Lukasik et al. 2023: adversarial training moves filters to low frequencies).
//!
//! The basis maps are orthogonal, so the energy of a filter splits exactly:
//! `‖w‖² = Σ over (k, l) of C[k, l]² · ‖B[k, l]‖²`. A share is the part of a layer's energy that one
//! frequency holds; it does not depend on how the basis is scaled.

use serde::{Deserialize, Serialize};

use super::{Analysis, Findings};
use crate::evaluate::record::Record;
use crate::evaluate::subject::{provenance, with_warnings};
use crate::formats::csv::Csv;
use crate::method::filter_frequency::high_frequencies;
use crate::network::LoadedNetwork;
use crate::nn::Model;
use crate::nn::convolution::Convolution;
use crate::nn::layer::visit_convolutions;
use crate::plot::{Axis, Bar, BarPlot, BarSeries, Block, Cell, HeatMap, HeatPanel, Section, Table};
use crate::spectral::dct::DctBasis;
use crate::{Error, Result};

/// Sections of its page.
pub const SECTIONS: [&str; 1] = ["filters"];

/// Measures the filters of each network, which needs no images; each has the label it is shown under.
///
/// # Errors
/// [`Error::Model`] for a network without convolutions of 3×3 or larger.
pub fn run(models: &[(String, LoadedNetwork)]) -> Result<Analysis<FilterSpectrum>> {
    let mut findings = Findings::new("Filter frequencies");
    let mut spectra = Vec::new();
    for (label, loaded) in models {
        let spectrum = FilterSpectrum::measure(label, &loaded.network.model)?;
        let share = spectrum.high_share();
        findings
            .lines
            .push(format!("{label}: {:.2} % of the filter energy is high-frequency", 100.0 * share));
        let mut record = Record::scalar("filter_high_frequency_share", share);
        record.extra.insert("label".into(), label.clone().into());
        findings.records.push(with_warnings(record.with_provenance(&provenance(loaded)), &loaded.warnings));
        spectra.push(spectrum);
    }
    let findings = findings.table("filters", csv(&spectra)).section(SECTIONS[0], section(&spectra));
    Ok(Analysis { results: spectra, findings })
}

/// How one layer's energy spreads over the frequencies of its kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerEnergy {
    /// PyTorch's module name.
    pub layer: String,
    /// Rows of the kernel.
    pub height: usize,
    /// Columns of the kernel.
    pub width: usize,
    /// ‖w‖² of all its filters.
    pub energy: f64,
    /// The part of it at horizontal frequency k and vertical frequency l, in the order `k·height + l`.
    /// The parts sum to 1; all are 0 where every filter is 0.
    pub shares: Vec<f64>,
}

/// The filter energies of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilterSpectrum {
    /// The model's name in plots.
    pub label: String,
    /// Its convolutions of 3×3 and larger, in module order.
    pub layers: Vec<LayerEnergy>,
}

impl LayerEnergy {
    fn of(convolution: &Convolution) -> Result<Self> {
        let (coefficients, basis) = convolution.coefficients()?;
        let coefficients: Vec<f64> =
            coefficients.detach().to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1()?;
        let area = basis.dct.height() * basis.dct.width();
        let mut energies = vec![0.0; area];
        for filter in coefficients.chunks_exact(area) {
            energies.iter_mut().zip(filter).for_each(|(energy, c)| *energy += c * c);
        }
        for (energy, map) in energies.iter_mut().zip(basis.dct.maps().chunks_exact(area)) {
            *energy *= map.iter().map(|v| v * v).sum::<f64>();
        }
        let energy: f64 = energies.iter().sum();
        let scale = if energy > 0.0 { energy.recip() } else { 0.0 };
        Ok(Self {
            layer: convolution.name.clone(),
            height: basis.dct.height(),
            width: basis.dct.width(),
            energy,
            shares: energies.into_iter().map(|e| e * scale).collect(),
        })
    }

    /// The part of the energy at the frequencies that the penalty `high` counts (for a 3×3 kernel those with
    /// a 2 in either index).
    pub fn high_share(&self) -> f64 {
        let high = DctBasis::rectangular(self.height, self.width).map(|basis| high_frequencies(&basis));
        self.shares
            .iter()
            .zip(high.unwrap_or_default())
            .filter_map(|(share, high)| high.then_some(share))
            .sum()
    }
}

impl FilterSpectrum {
    /// Measures every convolution whose smaller kernel side is at least 3, decomposed or plain.
    ///
    /// # Errors
    /// If there is none.
    pub fn measure(label: impl Into<String>, model: &Model) -> Result<Self> {
        let mut convolutions = Vec::new();
        visit_convolutions(&model.layers, &mut |convolution| convolutions.push(convolution));
        convolutions.retain(|convolution| convolution.kernel().0.min(convolution.kernel().1) >= 3);
        if convolutions.is_empty() {
            return Err(Error::model(
                "the model has no convolution of 3×3 or larger whose filters could be analyzed",
            ));
        }
        let layers = convolutions.into_iter().map(LayerEnergy::of).collect::<Result<_>>()?;
        Ok(Self { label: label.into(), layers })
    }

    /// For every kernel size the mean of the shares over its layers (each layer counts the same), the
    /// smallest kernel first; `energy` is the sum.
    pub fn overall(&self) -> Vec<LayerEnergy> {
        let mut sizes: Vec<(usize, usize)> = self.layers.iter().map(|l| (l.height, l.width)).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes.into_iter().map(|(height, width)| self.mean_of(height, width)).collect()
    }

    fn mean_of(&self, height: usize, width: usize) -> LayerEnergy {
        let layers: Vec<_> = self.layers.iter().filter(|l| (l.height, l.width) == (height, width)).collect();
        let mut shares = vec![0.0; height * width];
        for layer in &layers {
            shares.iter_mut().zip(&layer.shares).for_each(|(mean, s)| *mean += s / layers.len() as f64);
        }
        let energy = layers.iter().map(|layer| layer.energy).sum();
        LayerEnergy { layer: format!("mean of {} layers", layers.len()), height, width, energy, shares }
    }

    /// The mean of [`LayerEnergy::high_share`] over all layers.
    pub fn high_share(&self) -> f64 {
        self.layers.iter().map(LayerEnergy::high_share).sum::<f64>() / self.layers.len().max(1) as f64
    }
}

/// One line per model, layer and frequency.
pub fn csv(models: &[FilterSpectrum]) -> String {
    let columns = ["model", "layer", "height", "width", "horizontal", "vertical", "share", "layer_energy"];
    let mut csv = Csv::new(&columns);
    for model in models {
        for LayerEnergy { layer, height, width, energy, shares } in &model.layers {
            for (frequency, share) in shares.iter().enumerate() {
                let (k, l) = (frequency / height, frequency % height);
                csv.row(&[&model.label, layer, height, width, &k, &l, share, energy]);
            }
        }
    }
    csv.into_text()
}

/// The models side by side, as a part of a report.
pub fn section(models: &[FilterSpectrum]) -> Section {
    let mut section = Section::new("Filter frequencies").text(
        "The energy of all filters, split over the frequencies of a cosine basis (0 is constant; the last row and \
         column flip sign from pixel to pixel). **High** frequencies are those that filter frequency \
         regularization penalizes: for 3×3 kernels the last row and column. Every layer counts the same.",
    );
    section = section.table(summary(models));
    for (height, width) in kernel_sizes(models) {
        section = section.heat_map(overall_map(models, height, width));
    }
    section = section.bar_plot(high_shares(models));
    let layers = models.iter().map(|model| Block::Table(layer_table(model))).collect();
    section.details("Every layer and frequency", layers)
}

fn kernel_sizes(models: &[FilterSpectrum]) -> Vec<(usize, usize)> {
    let mut sizes: Vec<_> =
        models.iter().flat_map(|m| m.layers.iter().map(|l| (l.height, l.width))).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

fn summary(models: &[FilterSpectrum]) -> Table {
    let mut table = Table::new("High-frequency share of filter energy", &["model", "high share", "layers"]);
    for model in models {
        table = table.row(vec![
            Cell::text(&model.label),
            Cell::percent(model.high_share()),
            Cell::number(model.layers.len() as f64),
        ]);
    }
    table
}

/// One panel per model: rows are vertical, columns horizontal frequencies.
fn overall_map(models: &[FilterSpectrum], height: usize, width: usize) -> HeatMap {
    let title = format!("Energy per frequency, {height}×{width} kernels");
    let numbers = |count: usize| (0..count).map(|i| i.to_string()).collect();
    let mut map = HeatMap::new(title, Axis::percent("share of energy"))
        .axes(Axis::new("horizontal frequency"), Axis::new("vertical frequency"))
        .annotated(numbers(height), numbers(width))
        .caption("Mean over the layers of this kernel size.");
    for model in models.iter().filter(|m| m.layers.iter().any(|l| (l.height, l.width) == (height, width))) {
        let shares = model.mean_of(height, width).shares;
        let value = |row: usize, column: usize| shares[column * height + row] as f32;
        let values = (0..height * width).map(|cell| value(cell / width, cell % width)).collect();
        map = map.panel(HeatPanel::new(&model.label, height, width, values));
    }
    map
}

/// The layers of all models from input to output: a layer stands behind all that precede it in any model. Where networks
/// contradict each other, the first one counts.
fn layer_order(models: &[FilterSpectrum]) -> Vec<&String> {
    let mut rest: Vec<Vec<&String>> =
        models.iter().map(|model| model.layers.iter().map(|layer| &layer.layer).collect()).collect();
    let mut order: Vec<&String> = Vec::new();
    loop {
        rest.iter_mut().for_each(|layers| layers.retain(|layer| !order.contains(layer)));
        let fronts: Vec<&String> = rest.iter().filter_map(|layers| layers.first().copied()).collect();
        let ready =
            |front: &&&String| !rest.iter().any(|layers| layers.iter().skip(1).any(|later| later == *front));
        let Some(next) = fronts.iter().find(ready).or(fronts.first()) else { return order };
        order.push(next);
    }
}

fn high_shares(models: &[FilterSpectrum]) -> BarPlot {
    let names = layer_order(models);
    let groups = names.iter().map(|name| name.to_string()).collect();
    let mut plot =
        BarPlot::new("High-frequency share per layer", Axis::percent("high-frequency energy"), groups)
            .caption("Layers from input to output.")
            .full_width();
    for model in models {
        let of = |name: &&String| model.layers.iter().find(|layer| layer.layer == **name);
        let bar = |name| of(name).map_or_else(Bar::missing, |layer| Bar::new(layer.high_share()));
        plot = plot.series(BarSeries::new(&model.label, names.iter().map(bar).collect()));
    }
    plot
}

/// Layers as rows, `k,l` as columns (of the model's largest kernel; smaller kernels leave cells empty).
fn layer_table(model: &FilterSpectrum) -> Table {
    let height = model.layers.iter().map(|l| l.height).max().unwrap_or(0);
    let width = model.layers.iter().map(|l| l.width).max().unwrap_or(0);
    let frequencies: Vec<(usize, usize)> =
        (0..width).flat_map(|k| (0..height).map(move |l| (k, l))).collect();
    let mut columns = vec!["layer".to_string()];
    columns.extend(frequencies.iter().map(|(k, l)| format!("{k},{l}")));
    let mut table =
        Table::new(format!("{}: share per frequency (horizontal, vertical)", model.label), &columns);
    for layer in &model.layers {
        let mut row = vec![Cell::text(&layer.layer)];
        row.extend(frequencies.iter().map(|&(k, l)| {
            let inside = k < layer.width && l < layer.height;
            if inside { Cell::percent(layer.shares[k * layer.height + l]) } else { Cell::empty() }
        }));
        table = table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::nn::ModelShape;

    /// A small CNN whose filters are all one basis map, but for a tenth of its energy in another.
    fn model(main: usize, other: usize) -> Model {
        let shape = ModelShape { channels: 3, classes: 10, width: Some(2) };
        let model = Model::new("smallcnn", shape, None, 0, DType::F64, &Device::Cpu).unwrap();
        let basis = DctBasis::new(3).unwrap();
        let unit = |frequency: usize| -> Vec<f64> {
            let map = &basis.maps()[frequency * 9..][..9];
            let norm = map.iter().map(|v| v * v).sum::<f64>().sqrt();
            map.iter().map(|v| v / norm).collect()
        };
        let filter: Vec<f64> =
            unit(main).iter().zip(unit(other)).map(|(a, b)| a * 0.9f64.sqrt() + b * 0.1f64.sqrt()).collect();
        for parameter in model.parameters().into_iter().filter(|p| p.tensor().rank() == 4) {
            let count = parameter.tensor().elem_count() / 9;
            parameter.set(&Tensor::new(filter.repeat(count), &Device::Cpu).unwrap()).unwrap();
        }
        model
    }

    #[test]
    fn energy_is_found_where_it_was_put() {
        // 7 = (horizontal 2, vertical 1) is high, 1 = (0, 1) is low.
        let spectrum = FilterSpectrum::measure("a", &model(1, 7)).unwrap();
        for layer in spectrum.layers.iter().chain(&spectrum.overall()) {
            assert!((layer.shares[1] - 0.9).abs() < 1e-12 && (layer.shares[7] - 0.1).abs() < 1e-12);
            assert!((layer.shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
        assert!((spectrum.high_share() - 0.1).abs() < 1e-12);
        assert!((FilterSpectrum::measure("b", &model(7, 1)).unwrap().high_share() - 0.9).abs() < 1e-12);
    }

    #[test]
    fn layers_of_networks_of_unequal_depth_run_from_input_to_output() {
        let spectrum = |names: &[&str]| FilterSpectrum {
            label: String::new(),
            layers: names
                .iter()
                .map(|name| LayerEnergy {
                    layer: (*name).into(),
                    height: 3,
                    width: 3,
                    energy: 1.0,
                    shares: vec![0.0; 9],
                })
                .collect(),
        };
        let shallow = spectrum(&["conv1", "layer1.0", "layer2.0", "layer3.0"]);
        let deep =
            spectrum(&["conv1", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1"]);
        let models = [shallow.clone(), deep.clone()];
        let expected: Vec<&String> = deep.layers.iter().map(|layer| &layer.layer).collect();
        assert_eq!(layer_order(&models), expected);
        assert_eq!(layer_order(&[deep.clone(), shallow.clone()]), expected);
        // Two orders that contradict each other still give every layer once.
        let mirrored = FilterSpectrum { layers: deep.layers.iter().rev().cloned().collect(), ..deep.clone() };
        assert_eq!(layer_order(&[deep.clone(), mirrored]).len(), 7);
    }

    #[test]
    fn models_stand_side_by_side() {
        let models = [("plain", 7, 1), ("a, b", 1, 7)]
            .map(|(label, main, other)| FilterSpectrum::measure(label, &model(main, other)).unwrap());
        let layers = models[0].layers.len();
        let text = csv(&models);
        assert_eq!(text.lines().count(), 1 + 2 * layers * 9);
        assert!(text.lines().all(|line| line.starts_with("model,")
            || line.starts_with("plain,")
            || line.starts_with("\"a, b\",")));
        let map = overall_map(&models, 3, 3);
        // Row 1 (vertical 1), column 2 (horizontal 2).
        assert!((map.panels[0].values[5] - 0.9).abs() < 1e-6 && (map.panels[1].values[5] - 0.1).abs() < 1e-6);
        let page = serde_json::to_string(&section(&models)).unwrap();
        assert!(page.contains("High-frequency share per layer") && page.contains("horizontal frequency"));
    }
}
