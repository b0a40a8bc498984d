//! The architectures: which layers stand where, one file per family.

pub mod cifar_resnet;
pub mod efficientnet;
pub mod efficientnet_pytorch;
pub mod preact_resnet;
pub mod resnet;
pub mod resnet9;
pub mod small_cnn;
pub mod vgg;
pub mod wide_resnet;

use super::build::Builder;
use super::layer::Layer;
use crate::Result;

/// What every architecture needs to know.
#[derive(Clone, Copy, Debug)]
pub struct ModelShape {
    /// Channels of the input images.
    pub channels: usize,
    /// Number of classes.
    pub classes: usize,
    /// Channels of the first stage; `None` for the published width.
    pub width: Option<usize>,
}

/// Builds the layers of one architecture.
pub type BuildFn = Box<dyn Fn(&mut Builder, ModelShape) -> Result<Vec<Layer>>>;
