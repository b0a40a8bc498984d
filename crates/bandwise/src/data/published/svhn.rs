//! Street View House Numbers, cropped digits: `train_32x32.mat`, `test_32x32.mat`.
//!
//! `X` is `[32, 32, 3, n]` with the first axis fastest; `y` holds 1 to 9, and 10 for the digit 0.

use std::sync::Arc;

use super::super::Dataset;
use super::super::array::{ArrayDataset, Pixels, numbered_classes};
use super::super::spec::Request;
use super::locate;
use crate::formats::mat;
use crate::{Error, Result};

/// `svhn:DIR`
pub(in super::super) fn open(request: &Request) -> Result<Arc<dyn Dataset>> {
    let file = format!("{}_32x32.mat", request.split);
    let path = locate(request.path, "svhn", &file)?.join(&file);
    let variables = mat::read(&path)?;
    let images = mat::find(&variables, "X", &path)?;
    let labels = mat::find(&variables, "y", &path)?;
    let bad = |reason: String| Error::format(&path, reason);
    let (&[height, width, channels, count], mat::Values::Bytes(pixels)) = (&images.shape[..], &images.values)
    else {
        return Err(bad(format!("`X` must be bytes of [height, width, 3, n], found {:?}", images.shape)));
    };
    let labels = labels.values.to_indices().filter(|labels| labels.iter().all(|l| (0..=10).contains(l)));
    let labels = labels.ok_or_else(|| bad("`y` must hold labels from 1 to 10".into()))?;
    if labels.len() != count {
        return Err(bad(format!("{} labels do not fit {count} images", labels.len())));
    }
    let labels = labels.into_iter().map(|label| label as u32 % 10).collect();
    let pixels = Pixels::Bytes(row_major(pixels, [height, width, channels]));
    let shape = [height, width, channels];
    let name = format!("svhn ({})", request.split);
    Ok(Arc::new(ArrayDataset::new(name, &path, pixels, shape, labels, numbered_classes(10))?))
}

/// From rows fastest to channels fastest, image by image.
fn row_major(pixels: &[u8], [height, width, channels]: [usize; 3]) -> Vec<u8> {
    let mut result = vec![0; pixels.len()];
    let length = (height * width * channels).max(1);
    for (target, source) in result.chunks_exact_mut(length).zip(pixels.chunks_exact(length)) {
        for channel in 0..channels {
            for column in 0..width {
                for row in 0..height {
                    target[(row * width + column) * channels + channel] =
                        source[row + height * (column + width * channel)];
                }
            }
        }
    }
    result
}
