//! What a network will hold, before anything is allocated: names and shapes of its tensors.
//!
//! A plan answers two questions that need no numbers: does a file of weights fit (and which architecture
//! does it fit), and is the network of a size that can be built at all.

use candle_core::Shape;

use super::architecture::ModelShape;
use crate::{Error, Result};

/// A network of more learned values than this is refused: 2 GiB of weights in single precision. Training holds them
/// about four times: weights, gradients, the optimizer's moments, a checkpoint on its way.
pub const MAX_PARAMETERS: u64 = 1 << 29;
/// Most classes, input channels, and channels of the first stage that a network may have.
pub const LARGEST_SIZE: usize = 1 << 24;

/// Names and shapes of a network's parameters and buffers, in PyTorch's order.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    tensors: Vec<(String, Shape)>,
    parameters: u64,
    /// Channels that leave each stage.
    pub(crate) stages: Vec<usize>,
}

impl Plan {
    /// Names and shapes, in PyTorch's order; blocks that are plugged in come last.
    pub fn tensors(&self) -> &[(String, Shape)] {
        &self.tensors
    }

    /// Number of learned values.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Notes a tensor.
    ///
    /// # Errors
    /// If the network would hold more than [`MAX_PARAMETERS`] learned values.
    pub(crate) fn note(&mut self, name: &str, shape: &[usize], learned: bool) -> Result<()> {
        let count = shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size as u64));
        let total = count.and_then(|count| self.parameters.checked_add(count));
        let Some(total) = total.filter(|&total| total <= MAX_PARAMETERS) else {
            return Err(Error::config(format!(
                "a network with a tensor {name} of {} would hold more than {MAX_PARAMETERS} parameters; are its width, \
                 depth and number of classes right?",
                shape.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
            )));
        };
        if learned {
            self.parameters = total;
        }
        self.tensors.push((name.to_owned(), Shape::from(shape)));
        Ok(())
    }

    /// Replaces tensors one by one: `change` gives another name and a shape of as many numbers, or `None`.
    pub(crate) fn rename(&mut self, change: impl Fn(&str, &[usize]) -> Option<(String, Vec<usize>)>) {
        for (name, shape) in &mut self.tensors {
            if let Some((other, dims)) = change(name, shape.dims()) {
                (*name, *shape) = (other, Shape::from(dims));
            }
        }
    }
}

impl ModelShape {
    /// Refuses sizes that no network has.
    pub(crate) fn check(&self) -> Result<()> {
        for (what, size) in [
            ("number of classes", Some(self.classes)),
            ("number of input channels", Some(self.channels)),
            ("width", self.width),
        ] {
            if let Some(size) = size.filter(|size| !(1..=LARGEST_SIZE).contains(size)) {
                return Err(Error::config(format!(
                    "a model's {what} must lie between 1 and {LARGEST_SIZE}, not {size}"
                )));
            }
        }
        Ok(())
    }
}
