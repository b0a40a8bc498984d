//! What the masks of single images show, and what the networks make of it: the images x and x_A, seen through a mask (M(x))
//! and through what it leaves out (M′(x)), as in the paper's figures.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::family::{Chosen, Family, Learned};
use super::per_image::{ImageMasksConfig, SECTIONS};
use super::picture;
use crate::analyze::Findings;
use crate::analyze::bands::KEPT;
use crate::evaluate::record::Record;
use crate::evaluate::statistics::wilson_interval;
use crate::formats::csv::Csv;
use crate::method::fourier_mask::{Baseline, Mask, masked_predictions};
use crate::plot::{Cell, ImageGrid, PngImage, Section, Table};
use crate::spectral::fourier::filter2;
use crate::{Job, Result};

/// The attacked images.
const ATTACKED: &str = "x_A";
/// Images of each family that are shown.
const SHOWN: usize = 8;

/// A set of images that the networks judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Seen {
    Whole,
    Masked,
    Complement,
}

impl Seen {
    const ALL: [Self; 3] = [Self::Whole, Self::Masked, Self::Complement];

    /// As in the paper's figures; `x` is `x` or `x_A`.
    fn of(self, x: &str) -> String {
        match self {
            Self::Whole => x.to_string(),
            Self::Masked => format!("M({x})"),
            Self::Complement => format!("M′({x})"),
        }
    }
}

/// The section, and a record per set.
pub(super) fn report(
    mut findings: Findings,
    config: &ImageMasksConfig,
    families: &[Family],
    all: &[Learned],
    chosen: &Chosen,
    job: &Job,
) -> Result<Findings> {
    let mut images = vec![("x", &chosen.clean.images)];
    images.extend(chosen.adversarial.as_ref().map(|pixels| (ATTACKED, pixels)));
    let sets: Vec<(Seen, &str)> =
        Seen::ALL.iter().flat_map(|seen| images.iter().map(|(name, _)| (*seen, *name))).collect();
    let mut columns = vec!["masks".to_string()];
    columns.extend(sets.iter().map(|(seen, name)| seen.of(name)));
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut table = Table::new("Accuracy of what is seen", &columns);
    let mut csv = Csv::new(&["masks", "set", "correct", "images"]);
    let mut section = Section::new("Images through their masks");
    let mut empty = 0;
    for (family, learned) in families.iter().zip(all) {
        let masks = Masks::new(&learned.masks, &chosen.clean.images)?;
        empty += masks.empty;
        let mut row = vec![Cell::text(&*learned.label)];
        for (seen, name) in &sets {
            let (_, pixels) = images.iter().find(|(other, _)| other == name).unwrap_or(&images[0]);
            let predicted = masks.predictions(*seen, family, pixels, job.batch_size)?;
            let right: Vec<bool> =
                predicted.iter().zip(&chosen.clean.label_values).map(|(p, l)| p == l).collect();
            let (correct, count) = (right.iter().filter(|right| **right).count() as u64, right.len() as u64);
            let share = correct as f64 / count as f64;
            row.push(Cell::percent(share).with_interval(Some(wilson_interval(correct, count))));
            csv.row(&[&learned.label, &seen.of(name), &correct, &count]);
            let mut record = Record::accuracy(&right);
            record.metric = "accuracy_through_masks".into();
            record.extra.insert("set".into(), seen.of(name).into());
            let attack = config.attack.as_ref().filter(|_| *name == ATTACKED);
            findings.records.push(family.sign(record, attack, config.seed));
        }
        table = table.row(row);
        section = section.images(masks.grid(family, learned, &images, chosen)?);
    }
    let caption = "Share of images whose true class is found: of the images as they are, through their masks (M), and \
                   with everything removed that the mask keeps (M′, entries above 10⁻⁸); x_A are the attacked images.";
    let empty = match empty {
        0 => String::new(),
        count => format!(
            " {count} of the masks keep every frequency: their complement is empty, an image of one color."
        ),
    };
    section.blocks.insert(0, crate::plot::Block::Table(table.caption(format!("{caption}{empty}"))));
    Ok(findings.table("seen", csv.into_text()).section(SECTIONS[1], section))
}

/// Masks and their complements, one per image.
struct Masks {
    masks: Tensor,
    complements: Tensor,
    /// Complements in which nothing is left.
    empty: usize,
}

impl Masks {
    fn new(masks: &[Mask], like: &Tensor) -> Result<Self> {
        let complements: Vec<Mask> = masks.iter().map(|mask| mask.complement(KEPT)).collect();
        let empty = complements.iter().filter(|mask| mask.values.iter().all(|value| *value == 0.0)).count();
        let stack = |masks: &[Mask]| -> Result<Tensor> {
            let tensors: Vec<Tensor> =
                masks.iter().map(|mask| mask.tensor(like.device())).collect::<Result<_>>()?;
            Ok(Tensor::stack(&tensors, 0)?)
        };
        Ok(Self { masks: stack(masks)?, complements: stack(&complements)?, empty })
    }

    fn predictions(
        &self,
        seen: Seen,
        family: &Family,
        pixels: &Tensor,
        batch_size: usize,
    ) -> Result<Vec<u32>> {
        let images = family.view.enter(pixels)?;
        match seen {
            Seen::Whole => Ok(Baseline::measure(&family.view, &images, None, batch_size)?.predictions),
            Seen::Masked => masked_predictions(&family.view, &images, &self.masks, batch_size),
            Seen::Complement => masked_predictions(&family.view, &images, &self.complements, batch_size),
        }
    }

    /// The paper's figure: the images, the mask, and what is seen through it and its complement.
    fn grid(
        &self,
        family: &Family,
        learned: &Learned,
        images: &[(&str, &Tensor)],
        chosen: &Chosen,
    ) -> Result<ImageGrid> {
        let mut columns: Vec<String> = images.iter().map(|(name, _)| name.to_string()).collect();
        columns.push("M".into());
        columns.extend(images.iter().map(|(name, _)| Seen::Masked.of(name)));
        columns.push("M′".into());
        columns.extend(images.iter().map(|(name, _)| Seen::Complement.of(name)));
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let mut grid = ImageGrid::new(format!("Images through the masks of {}", learned.label), &columns);
        let classes = &chosen.clean.classes;
        for (row, line) in learned.lines.iter().enumerate().take(SHOWN) {
            let pixels = |image: &Tensor| -> Result<PngImage> {
                let (height, width, channels) = image.dims3()?;
                let values = image.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
                Ok(PngImage::from_pixels(&values, height, width, channels))
            };
            let through = |masks: &Tensor, image: &Tensor| -> Result<PngImage> {
                let one = family.view.enter(&image.unsqueeze(0)?)?;
                let filtered = filter2(&one.contiguous()?, &masks.get(row)?)?;
                pixels(&family.view.leave(&filtered)?.squeeze(0)?)
            };
            let mask = &learned.masks[row];
            let complement = mask.complement(KEPT);
            let mut shown = Vec::new();
            for (_, set) in images {
                shown.push(pixels(&set.get(row)?)?);
            }
            shown.push(picture(&mask.centered(), mask.height, mask.width));
            for (_, set) in images {
                shown.push(through(&self.masks, &set.get(row)?)?);
            }
            shown.push(picture(&complement.centered(), mask.height, mask.width));
            for (_, set) in images {
                shown.push(through(&self.complements, &set.get(row)?)?);
            }
            let class = classes.get(line.label as usize).map_or("", |class| class);
            let open = if line.converged { "" } else { " *" };
            grid = grid.row(format!("{} {class}{open}", line.image), shown);
        }
        Ok(grid.caption(
            "Spectra have zero frequency in the center. Pixels beyond [0, 1] are cut off. * the mask has not converged.",
        ))
    }
}
