//! Learned Fourier masks compared: how their energy spreads over rings and sectors, how masks of two
//! models differ, how alike the masks of images are. How masks are learned, and what is told about them, is in
//! [`data_set`] and [`per_image`].

pub mod data_set;
mod family;
mod images_file;
mod page;
mod paired;
pub mod per_image;
mod seen;

pub use family::Learned;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{frequency_axes, radius_axis};
use crate::evaluate::subject::Subject;
use crate::formats::csv::Csv;
use crate::method::fourier_mask::{EpochLog, Mask};
use crate::outputs::{self, Kind};
use crate::plot::{
    Axis, Bar, BarPlot, BarSeries, Cell, ColorMap, HeatMap, HeatPanel, LinePlot, NumberFormat, PngImage,
    Section, Series, Table,
};
use crate::spectral::bands::{self, BandMasks};
use crate::{Error, Job, Result, differences, files};

/// Rings and sectors of the paper's figures.
pub const BANDS: usize = 32;

/// The file that says whose masks a folder holds.
const BELONGS: &str = "belongs.json";

/// Why several networks are refused.
const ONE_MODEL: &str = "masks per class are learned for one model at a time; name one --weights";

/// A mask and where its energy is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaskProfile {
    /// The model, class or training variant.
    pub label: String,
    /// Rows of the mask.
    pub height: usize,
    /// Columns of the mask.
    pub width: usize,
    /// Even part, centered.
    pub centered: Vec<f32>,
    /// ‖M‖₁ / (height · width).
    pub relative_l1: f64,
    /// Share of entries above 1e-8.
    pub support: f64,
    /// L2 norm in each ring from the center outwards, after division by the whole norm.
    pub radial: Vec<f64>,
    /// L2 norm in each sector, counter-clockwise from the horizontal axis.
    pub angular: Vec<f64>,
}

impl MaskProfile {
    /// Measures the even part of `mask` in [`BANDS`] rings and sectors.
    pub fn new(label: impl Into<String>, mask: &Mask) -> Result<Self> {
        let centered = mask.centered();
        let (radial, angular) = BandMasks::new(mask.height, mask.width, BANDS)?.energies(&centered);
        Ok(Self {
            label: label.into(),
            height: mask.height,
            width: mask.width,
            centered,
            relative_l1: mask.relative_l1(),
            support: mask.support(super::bands::KEPT),
            radial,
            angular,
        })
    }

    /// Mean frequency of the mask's energy, in cycles per image: small for masks of low frequencies.
    pub fn centroid(&self) -> f64 {
        let (mut weighted, mut total) = (0.0, 0.0);
        for (p, value) in self.centered.iter().enumerate() {
            let row = (p / self.width) as f64 - (self.height / 2) as f64;
            let column = (p % self.width) as f64 - (self.width / 2) as f64;
            let energy = f64::from(*value).powi(2);
            (weighted, total) = (weighted + energy * row.hypot(column), total + energy);
        }
        if total > 0.0 { weighted / total } else { 0.0 }
    }

    /// The mask as an image: centered even part, black 0 to bright 1.
    pub fn picture(&self) -> PngImage {
        picture(&self.centered, self.height, self.width)
    }
}

/// A centered mask as an image: black 0 to bright 1.
pub fn picture(centered: &[f32], height: usize, width: usize) -> PngImage {
    PngImage::heat(centered, height, width, ColorMap::Magma, Some([0.0, 1.0]))
}

/// Centered differences of all pairs (later minus earlier), plain.
pub fn differences(profiles: &[MaskProfile]) -> Result<Vec<(String, Vec<f32>)>> {
    let mut all = Vec::new();
    for (index, first) in profiles.iter().enumerate() {
        for second in &profiles[index + 1..] {
            if (first.height, first.width) != (second.height, second.width) {
                return Err(Error::config(format!(
                    "the masks of {} and {} differ in size: {}x{} and {}x{}",
                    first.label, second.label, first.height, first.width, second.height, second.width
                )));
            }
            let values = second.centered.iter().zip(&first.centered).map(|(b, a)| b - a).collect();
            all.push((format!("{} − {}", second.label, first.label), values));
        }
    }
    Ok(all)
}

/// Differences brought to `[−½, ½]` together, as published: smallest to −½, largest to ½ (so 0 is not in
/// general no difference).
pub fn rescaled(differences: &[(String, Vec<f32>)]) -> Vec<(String, Vec<f32>)> {
    let all = || differences.iter().flat_map(|(_, values)| values.iter().copied());
    let (low, high) = (all().fold(f32::INFINITY, f32::min), all().fold(f32::NEG_INFINITY, f32::max));
    let span = if high > low { high - low } else { 1.0 };
    let scale = |values: &Vec<f32>| values.iter().map(|v| (v - low) / span - 0.5).collect();
    differences.iter().map(|(label, values)| (label.clone(), scale(values))).collect()
}

/// Cosine of the angle between two masks of one size; 0 if one of them is empty.
pub fn similarity(first: &Mask, second: &Mask) -> f64 {
    cosine(&first.even().values, &second.even().values)
}

fn cosine(first: &[f32], second: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let norm = (dot(first, first) * dot(second, second)).sqrt();
    if norm > 0.0 { dot(first, second) / norm } else { 0.0 }
}

/// Mean similarity of the masks of images within and between classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassSimilarity {
    /// Mean cosine of all pairs of one class with another (or itself, without an image with itself),
    /// `[classes · classes]`; NaN where there is no pair.
    pub matrix: Vec<f64>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Mean over pairs of the same class.
    pub within: f64,
    /// Mean over pairs of different classes.
    pub between: f64,
}

impl ClassSimilarity {
    /// Measures all pairs.
    pub fn new(masks: &[Mask], labels: &[u32], classes: &[String]) -> Self {
        let count = classes.len();
        let (mut sums, mut pairs) = (vec![0.0; count * count], vec![0.0; count * count]);
        let even: Vec<Vec<f32>> = masks.iter().map(|m| m.even().values).collect();
        for (i, first) in even.iter().enumerate() {
            for (j, second) in even.iter().enumerate().skip(i + 1) {
                let value = cosine(first, second);
                let (a, b) = (labels[i] as usize, labels[j] as usize);
                if a >= count || b >= count {
                    continue;
                }
                for cell in if a == b { vec![a * count + b] } else { vec![a * count + b, b * count + a] } {
                    sums[cell] += value;
                    pairs[cell] += 1.0;
                }
            }
        }
        let mean = |same: bool| {
            let cells = (0..count * count).filter(|c| (c / count.max(1) == c % count.max(1)) == same);
            let (sum, total) = cells.fold((0.0, 0.0), |(s, t), c| (s + sums[c], t + pairs[c]));
            sum / total
        };
        let matrix = sums.iter().zip(&pairs).map(|(s, p)| s / p).collect();
        Self { matrix, classes: classes.to_vec(), within: mean(true), between: mean(false) }
    }

    /// The matrix as color.
    pub fn heat_map(&self) -> HeatMap {
        let count = self.classes.len();
        let values = self.matrix.iter().map(|v| *v as f32).collect();
        let map = HeatMap::new("Similarity of masks by class", Axis::new("mean cosine"))
            .panel(HeatPanel::new("", count, count, values))
            .caption(format!("Mean within classes {:.4}, between classes {:.4}.", self.within, self.between));
        map.annotated(self.classes.clone(), self.classes.clone())
    }
}

/// `mask,band,kind,energy`.
pub fn csv(profiles: &[MaskProfile]) -> String {
    let mut csv = Csv::new(&["mask", "kind", "band", "energy"]);
    for profile in profiles {
        for (kind, energies) in [("radial", &profile.radial), ("angular", &profile.angular)] {
            for (band, energy) in energies.iter().enumerate() {
                csv.row(&[&profile.label, &kind, &band, energy]);
            }
        }
    }
    csv.into_text()
}

/// Masks, their energies and their differences, side by side.
pub fn section(profiles: &[MaskProfile]) -> Result<Section> {
    let first = profiles.first().ok_or_else(|| Error::config("there are no masks to show"))?;
    let (x, y) = frequency_axes(first.height, first.width);
    let map = HeatMap::new("Fourier masks", Axis::new("gain").range(0.0, 1.0))
        .colors(ColorMap::Magma)
        .axes(x, y)
        .caption("Even part, zero frequency in the center: what a frequency is multiplied by.");
    let map = profiles
        .iter()
        .fold(map, |map, p| map.panel(HeatPanel::new(&*p.label, p.height, p.width, p.centered.clone())));
    let table = Table::new(
        "Sparsity",
        &["mask", "‖M‖₁ / ‖M₀‖₁", "entries above 10⁻⁸", "mean frequency of its energy (cycles per image)"],
    );
    let table = profiles.iter().fold(table, |table, p| {
        table.row(vec![
            Cell::text(&*p.label),
            Cell::percent(p.relative_l1),
            Cell::percent(p.support),
            Cell::formatted(p.centroid(), NumberFormat::Fixed(1)),
        ])
    });
    let reach = (first.height as f64 / 2.0).hypot(first.width as f64 / 2.0);
    let whole = MaskProfile::new("", &Mask::ones(first.height, first.width))?;
    let curves = |title: &str, axis: &str, scale: f64, energies: &dyn Fn(&MaskProfile) -> Vec<f64>| {
        let plot = LinePlot::new(title, Axis::new(axis), Axis::new("‖M in the band‖₂ / ‖M‖₂"));
        let plot = plot.caption(ENERGY_CAPTION);
        let plot = profiles.iter().enumerate().fold(plot, |plot, (color, p)| {
            let energies = energies(p);
            let points = energies.iter().enumerate();
            let points =
                points.map(|(i, e)| [(i as f64 + 0.5) * scale / energies.len() as f64, *e]).collect();
            plot.series(Series::new(&*p.label, points).color(color))
        });
        let even = energies(&whole);
        let points = even.iter().enumerate();
        let points = points.map(|(i, e)| [(i as f64 + 0.5) * scale / even.len() as f64, *e]).collect();
        plot.series(Series::new("a mask of ones", points).color(profiles.len()).dashed())
    };
    let section = Section::new("Fourier masks")
        .text("Which input frequencies each network needs in order to answer as it does (Karantzas et al. 2022).")
        .heat_map(map)
        .table(table)
        .line_plot(mean_gains(profiles))
        .line_plot(curves("Radial energy", "frequency (cycles per image)", reach, &|p| p.radial.clone()))
        .line_plot(curves("Angular energy", "direction (°)", 360.0, &|p| p.angular.clone()));
    let differences = differences(profiles)?;
    if differences.is_empty() || differences.len() > 10 {
        return Ok(section);
    }
    let largest = differences.iter().flat_map(|(_, v)| v).fold(0.0f32, |m, v| m.max(v.abs()));
    let map =
        HeatMap::new("Differences", Axis::new("difference").range(f64::from(-largest), f64::from(largest)))
            .colors(ColorMap::Diverging);
    let (x, y) = frequency_axes(first.height, first.width);
    let map = map.axes(x, y);
    let map = differences.into_iter().fold(map, |map, (label, values)| {
        map.panel(HeatPanel::new(label, first.height, first.width, values))
    });
    Ok(section.heat_map(map))
}

const ENERGY_CAPTION: &str = "The paper's measure, for comparing masks: rings and sectors differ in area, so that even a \
    mask of ones (dashed) has a peak. No shares: norms do not add up, and sectors overlap.";

/// The mean of each mask over rings: what is kept of a frequency, whatever the ring's area.
fn mean_gains(profiles: &[MaskProfile]) -> LinePlot {
    let plot = LinePlot::new("Mean gain by frequency", radius_axis(), Axis::new("mean of M").range(0.0, 1.0))
        .caption("What the mask keeps of each frequency, averaged over directions.");
    profiles.iter().enumerate().fold(plot, |plot, (color, p)| {
        let values: Vec<f64> = p.centered.iter().map(|v| f64::from(*v)).collect();
        let back = bands::unshift(&values, p.height, p.width);
        let means = bands::radial_mean(&back, p.height, p.width);
        let points = means.iter().enumerate().map(|(radius, mean)| [radius as f64, *mean]).collect();
        plot.series(Series::new(&*p.label, points).color(color))
    })
}

/// How learning of data-set masks went.
pub fn learning_section(histories: &[(&str, &[EpochLog])]) -> Section {
    let plot = |title: &str, axis: Axis, value: &dyn Fn(&EpochLog) -> f64| {
        let plot = LinePlot::new(title, Axis::integers("epoch"), axis);
        histories.iter().enumerate().fold(plot, |plot, (color, (label, history))| {
            let points = history.iter().map(|log| [log.epoch as f64, value(log)]).collect();
            plot.series(Series::new(*label, points).color(color))
        })
    };
    Section::new("Learning the masks")
        .line_plot(plot("Relative L1 norm", Axis::percent("‖M‖₁ / ‖M₀‖₁"), &|l| l.relative_l1))
        .line_plot(plot("Masked accuracy", Axis::percent("accuracy through the mask"), &|l| {
            l.masked_accuracy
        }))
        .line_plot(plot("Invariance", Axis::new("mean (CE masked − CE clean)²").log(), &|l| l.invariance))
}

/// The mean of masks of one size, un-shifted; `None` without masks.
pub fn mean(masks: &[Mask]) -> Option<Mask> {
    let first = masks.first()?;
    let mut sum = vec![0.0f32; first.values.len()];
    for mask in masks {
        sum.iter_mut().zip(&mask.values).for_each(|(s, v)| *s += v / masks.len() as f32);
    }
    Some(Mask::new(first.height, first.width, sum))
}

/// One mask for each of `models` networks: as many files (`mask.npy`, `masks.npy`) as networks, or one for all; of a file
/// with the masks of many images their mean. No files, no masks.
///
/// # Errors
/// [`Error::Config`] for another number of files; if one cannot be read or holds no mask.
pub fn one_for_each(files: &[PathBuf], models: usize, job: &Job) -> Result<Vec<Mask>> {
    if files.len() > 1 && files.len() != models {
        let count = files.len();
        return Err(Error::config(format!(
            "{models} --weights and {count} --mask: name one for all, or one for each"
        )));
    }
    let mut masks = Vec::new();
    for file in files {
        let found = Mask::read_npy(file)?;
        if found.len() > 1 {
            let count = found.len();
            job.note(&format!("{}: {count} masks of single images; their mean is used", file.display()));
        }
        masks.push(mean(&found).ok_or_else(|| Error::format(file, "there is no mask in it"))?);
    }
    if masks.len() == 1 {
        masks = vec![masks.remove(0); models];
    }
    Ok(masks)
}

/// Writes a mask as an image: even part, centered.
fn write_image(path: &Path, mask: &Mask) -> Result<()> {
    let png = picture(&mask.centered(), mask.height, mask.width).bytes().unwrap_or_default();
    outputs::replace(path, &png)
}

/// Refuses a folder with files of others under the names of masks, and removes what killed processes have left in it.
fn prepare(folder: &Path) -> Result<()> {
    for (name, kind) in [
        ("mask.npy", Kind::Npy),
        ("masks.npy", Kind::Npy),
        ("mask.png", Kind::Png),
        ("state.safetensors", Kind::Safetensors),
    ] {
        outputs::check(&folder.join(name), &kind)?;
    }
    ["", "pictures", "sections", "figures"]
        .iter()
        .try_for_each(|part| files::remove_leftovers(&folder.join(part)).map(drop))
}

/// Writes down whose masks the folder is for, before anything else is in it.
///
/// # Errors
/// [`Error::Config`] if it is another one's; the first difference is named.
fn claim(folder: &Path, subjects: &[Subject], settings: Value) -> Result<()> {
    let of = |subject: &Subject| {
        let provenance = &subject.provenance;
        json!({ "label": subject.label, "weights": provenance.weights_sha256, "data": provenance.data_sha256,
            "precision": provenance.precision, "images": subject.count() })
    };
    let belongs = json!({ "networks": subjects.iter().map(of).collect::<Vec<_>>(), "settings": settings });
    let path = folder.join(BELONGS);
    let refuse = |why: &str| {
        Err(Error::config(format!(
            "{} belongs to other masks: {why}; choose another folder, or repeat its settings to go on",
            folder.display()
        )))
    };
    if !path.is_file() {
        if folder.join("sections/masks.json").exists() {
            return refuse("it does not say to which");
        }
        return files::write_atomic(&path, belongs.to_string().as_bytes());
    }
    let found: Value = serde_json::from_slice(&files::read(&path)?).map_err(|_| {
        Error::format(&path, "expected what `bandwise mask` writes there; choose another folder")
    })?;
    match differences::between(("the folder", &found), ("the command", &belongs)) {
        None => Ok(()),
        Some(difference) => refuse(&difference),
    }
}

/// A label as part of a folder's name.
fn file_name(label: &str) -> String {
    label.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}

/// How often values lie where, in classes of equal width named by their middle; `None` if all are the same.
pub fn histogram(title: &str, axis: &str, values: &[f64], bins: usize) -> Option<BarPlot> {
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    if low >= high {
        return None;
    }
    let width = (high - low) / bins as f64;
    let mut counts = vec![0.0; bins];
    for value in values {
        counts[(((value - low) / width) as usize).min(bins - 1)] += 1.0;
    }
    let digits = (-width.log10()).ceil().max(0.0) as usize;
    let names = (0..bins).map(|b| format!("{:.digits$}", low + (b as f64 + 0.5) * width)).collect();
    let bars = BarSeries::new(axis, counts.into_iter().map(Bar::new).collect());
    Some(BarPlot::new(title, Axis::new("images"), names).series(bars))
}
