//! A mask over the spectrum of an image.

use std::path::Path;

use candle_core::{Device, Tensor};

use crate::formats::npy::{self, Data};
use crate::spectral::bands;
use crate::spectral::fourier::filter2;
use crate::{Error, Result, outputs};

/// Gains over the spectrum, un-shifted `[height, width]`: the mean sits at `[0, 0]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mask {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Row after row; learned masks lie in `[0, 1]`.
    pub values: Vec<f32>,
}

impl Mask {
    /// A mask of these values.
    ///
    /// # Panics
    /// If their number is not `height · width`.
    pub fn new(height: usize, width: usize, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), height * width);
        Self { height, width, values }
    }

    /// The mask that changes nothing.
    pub fn ones(height: usize, width: usize) -> Self {
        Self::new(height, width, vec![1.0; height * width])
    }

    /// From a tensor `[height, width]`.
    pub fn from_tensor(values: &Tensor) -> Result<Self> {
        let (height, width) = values.dims2()?;
        Ok(Self::new(height, width, values.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?))
    }

    /// As a tensor `[height, width]`.
    pub fn tensor(&self, device: &Device) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.values.clone(), (self.height, self.width), device)?)
    }

    /// `‖M‖₁ / (height · width)`: the share of the spectrum that is kept, 1 for the mask of ones.
    pub fn relative_l1(&self) -> f64 {
        self.values.iter().map(|v| f64::from(v.abs())).sum::<f64>() / self.values.len().max(1) as f64
    }

    /// Share of the entries above `threshold`.
    pub fn support(&self, threshold: f32) -> f64 {
        self.values.iter().filter(|v| **v > threshold).count() as f64 / self.values.len().max(1) as f64
    }

    /// `(M(u, v) + M(−u, −v)) / 2`, the part that acts on real images.
    pub fn even(&self) -> Self {
        let (height, width) = (self.height, self.width);
        let opposite = |p: usize| (height - p / width) % height * width + (width - p % width) % width;
        let values = (0..height * width).map(|p| 0.5 * (self.values[p] + self.values[opposite(p)])).collect();
        Self { height, width, values }
    }

    /// The even part with the mean in the center `[height / 2, width / 2]`, for images and bands.
    pub fn centered(&self) -> Vec<f32> {
        bands::shift(&self.even().values, self.height, self.width)
    }

    /// Everything that the mask lets through removed: 0 where the mask is above `threshold` (the paper's
    /// 1e-8), 1 elsewhere.
    pub fn complement(&self, threshold: f32) -> Self {
        let values = self.even().values.iter().map(|v| if *v > threshold { 0.0 } else { 1.0 }).collect();
        Self { height: self.height, width: self.width, values }
    }

    /// Images `[batch, height, width, channels]` seen through the mask.
    pub fn apply(&self, images: &Tensor) -> Result<Tensor> {
        filter2(&images.detach(), &self.tensor(images.device())?)
    }

    /// Writes `[height, width]` float32, un-shifted, as `.npy`.
    pub fn write_npy(&self, path: &Path) -> Result<()> {
        outputs::replace(path, &npy::encode_floats(&[self.height, self.width], &self.values))
    }

    /// Reads the masks of a `.npy` file: one for `[height, width]`, several for `[n, height, width]`.
    pub fn read_npy(path: &Path) -> Result<Vec<Self>> {
        let array = npy::read(path)?;
        let wanted = "a file of masks holds floats of shape [height, width] or [n, height, width]";
        let Data::Floats(values) = array.data else {
            return Err(Error::format(path, format!("{wanted}, found whole numbers")));
        };
        let (height, width) = match array.shape[..] {
            [height, width] | [_, height, width] if height * width > 0 => (height, width),
            _ => return Err(Error::format(path, format!("{wanted}, found {:?}", array.shape))),
        };
        if let Some(value) = values.iter().find(|value| !(0.0..=1.0).contains(*value)) {
            return Err(Error::format(
                path,
                format!("the gains of masks lie in [0, 1], and here is {value}"),
            ));
        }
        Ok(values.chunks_exact(height * width).map(|v| Self::new(height, width, v.to_vec())).collect())
    }

    /// Writes masks of one size as `[n, height, width]` float32.
    pub fn write_all_npy(path: &Path, masks: &[Self]) -> Result<()> {
        let (height, width) = masks.first().map_or((0, 0), |m| (m.height, m.width));
        let values: Vec<f32> = masks.iter().flat_map(|m| m.values.iter().copied()).collect();
        outputs::replace(path, &npy::encode_floats(&[masks.len(), height, width], &values))
    }
}
