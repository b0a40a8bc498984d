//! What `bandwise data info` prints.

use rayon::prelude::*;
use serde::Serialize;

use super::Dataset;
use crate::spectral::bands::radial_mean;
use crate::spectral::statistics::SpectrumStatistics;
use crate::{Error, Result};

/// Images per parallel task. Sums are added in the order of the tasks, so that the thread count
/// changes no digit.
const TASK: usize = 64;
/// The mean spectrum is that of at most so many images.
const SPECTRUM_IMAGES: usize = 1000;

/// Numbers about a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statistics {
    /// The data set's name.
    pub name: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// All images in it.
    pub images: usize,
    /// The classes' names.
    pub class_names: Vec<String>,
    /// Images per class, over all images.
    pub class_counts: Vec<usize>,
    /// Images that were read for the numbers below.
    pub images_read: usize,
    /// Smallest height and width, in pixels.
    pub smallest: [usize; 2],
    /// Largest height and width, in pixels.
    pub largest: [usize; 2],
    /// Mean pixel per channel, in `[0, 1]`; every pixel counts the same.
    pub mean: Vec<f64>,
    /// Standard deviation of the pixels per channel.
    pub std: Vec<f64>,
    /// Mean amplitude `|F|` in rings of 0, 1, 2, … cycles per image, over the first 1000 of the images
    /// read and their channels; `None` if their sizes differ.
    pub radial_amplitude: Option<Vec<f64>>,
}

impl Statistics {
    /// Reads the first `limit` images (all, if `None`).
    pub fn of(dataset: &dyn Dataset, limit: Option<usize>) -> Result<Self> {
        let mut class_counts = vec![0; dataset.num_classes()];
        for index in 0..dataset.len() {
            class_counts[dataset.label(index)? as usize] += 1;
        }
        let images_read = limit.map_or(dataset.len(), |limit| limit.min(dataset.len()));
        if images_read == 0 {
            return Err(Error::config(format!("{}: there are no images", dataset.name())));
        }
        let indices: Vec<usize> = (0..images_read).collect();
        let tasks: Vec<Sums> = indices
            .par_chunks(TASK)
            .map(|task| task.iter().try_fold(Sums::default(), |sums, &index| sums.add_image(dataset, index)))
            .collect::<Result<_>>()?;
        let sums =
            tasks.into_iter().try_fold(Sums::default(), |sums, task| sums.add(task, dataset.name()))?;
        let mean: Vec<f64> = sums.sum.iter().map(|sum| sum / sums.pixels).collect();
        let variance =
            sums.squares.iter().zip(&mean).map(|(squares, mean)| squares / sums.pixels - mean * mean);
        Ok(Self {
            name: dataset.name().to_owned(),
            fingerprint: dataset.fingerprint().to_owned(),
            images: dataset.len(),
            class_names: dataset.class_names().to_vec(),
            class_counts,
            images_read,
            smallest: sums.smallest,
            largest: sums.largest,
            std: variance.map(|variance| variance.max(0.0).sqrt()).collect(),
            radial_amplitude: match sums.smallest == sums.largest {
                true => Some(radial_amplitude(dataset, images_read.min(SPECTRUM_IMAGES), mean.len())?),
                false => None,
            },
            mean,
        })
    }
}

/// The mean amplitude of the first `count` images, which are all of one size, ring by ring.
fn radial_amplitude(dataset: &dyn Dataset, count: usize, channels: usize) -> Result<Vec<f64>> {
    let [height, width, _] = dataset.first_shape()?;
    let mut spectrum = SpectrumStatistics::new(height, width, channels);
    let indices: Vec<usize> = (0..count).collect();
    for task in indices.chunks(TASK) {
        let images: Vec<Vec<f32>> =
            task.par_iter().map(|&index| Ok(dataset.get(index)?.0.pixels)).collect::<Result<_>>()?;
        spectrum.add(&images.concat())?;
    }
    Ok(radial_mean(&spectrum.mean_amplitude(), height, width))
}

/// Sums over some images.
struct Sums {
    pixels: f64,
    sum: Vec<f64>,
    squares: Vec<f64>,
    smallest: [usize; 2],
    largest: [usize; 2],
}

impl Default for Sums {
    fn default() -> Self {
        Self { pixels: 0.0, sum: Vec::new(), squares: Vec::new(), smallest: [usize::MAX; 2], largest: [0; 2] }
    }
}

impl Sums {
    fn add_image(self, dataset: &dyn Dataset, index: usize) -> Result<Self> {
        let (image, _) = dataset.get(index)?;
        let mut own = Self {
            pixels: (image.height * image.width) as f64,
            sum: vec![0.0; image.channels],
            squares: vec![0.0; image.channels],
            smallest: [image.height, image.width],
            largest: [image.height, image.width],
        };
        for pixel in image.pixels.chunks_exact(image.channels) {
            for (channel, &value) in pixel.iter().enumerate() {
                own.sum[channel] += f64::from(value);
                own.squares[channel] += f64::from(value).powi(2);
            }
        }
        self.add(own, dataset.name())
    }

    fn add(mut self, other: Self, name: &str) -> Result<Self> {
        if self.sum.is_empty() {
            return Ok(other);
        }
        if self.sum.len() != other.sum.len() {
            return Err(Error::config(format!("{name}: there are both gray and color images")));
        }
        self.pixels += other.pixels;
        self.sum.iter_mut().zip(other.sum).for_each(|(a, b)| *a += b);
        self.squares.iter_mut().zip(other.squares).for_each(|(a, b)| *a += b);
        for axis in 0..2 {
            self.smallest[axis] = self.smallest[axis].min(other.smallest[axis]);
            self.largest[axis] = self.largest[axis].max(other.largest[axis]);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::array::{ArrayDataset, Pixels, numbered_classes};
    use std::path::Path;

    #[test]
    fn mean_deviation_and_counts_are_right() {
        let pixels = Pixels::Floats(vec![0.0, 0.5, 1.0, 0.5, 0.0, 0.5, 1.0, 0.5]);
        let labels = vec![2, 2];
        let set =
            ArrayDataset::new("x", Path::new("x"), pixels, [1, 4, 1], labels, numbered_classes(3)).unwrap();
        let statistics = Statistics::of(&set, None).unwrap();
        assert_eq!(statistics.class_counts, [0, 0, 2]);
        assert_eq!((statistics.mean[0], statistics.largest), (0.5, [1, 4]));
        assert!((statistics.std[0] - 0.125f64.sqrt()).abs() < 1e-12);
        assert_eq!(Statistics::of(&set, Some(1)).unwrap().images_read, 1);
        // |F| of (0, ½, 1, ½) and of (0, ½, 1, ½) again: 2, 1, 0, with 1 in two places of ring 1.
        let rings = statistics.radial_amplitude.unwrap();
        assert!(rings.iter().zip([2.0, 1.0, 0.0]).all(|(a, b)| (a - b).abs() < 1e-9), "{rings:?}");
    }
}
