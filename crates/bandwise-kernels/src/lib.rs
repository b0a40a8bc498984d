//! The hot operators of Bandwise: convolution, batch norm, pooling and the attack's elementwise step.
//!
//! Every operator is one public function on candle tensors, with a handwritten gradient that candle's
//! `backward` calls. Activations are `[batch, height, width, channels]`, convolution weights keep PyTorch's
//! `[out, in / groups, kernel height, kernel width]`. On the CPU the operators run on this crate's own kernels
//! (chosen at run time, see [`capabilities`]); on CUDA (feature `cudnn`) on cuDNN and kernels of ours; on other devices
//! they are composed of candle's operators.
//!
//! Results on the CPU have the same bits for any number of threads: work is cut by shape alone, and partial
//! sums are added in a fixed order.
//!
//! The crate knows nothing of networks, robustness or spectra.

mod algorithm;
mod backend;
mod batch_norm;
mod batch_norm_tangent;
mod capabilities;
mod composed;
mod conv;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod element;
mod elementwise;
mod frozen;
mod frozen_graph;
mod geometry;
mod memory;
mod pool;
mod precision;

pub use algorithm::Algorithm;
pub use backend::has_cpu_kernels;
pub use batch_norm::{BatchStatistics, batch_norm_eval, batch_norm_train, batch_norm_train_tangent};
pub use capabilities::{Capabilities, capabilities};
pub use conv::{algorithm, conv2d};
pub use elementwise::{relu, relu_tangent, sign_step};
pub use frozen::FrozenConv2d;
pub use frozen_graph::{FrozenGraph, Value};
pub use geometry::ConvConfig;
pub use pool::{avg_pool2d, global_avg_pool, max_pool2d, max_pool2d_tangent};
pub use precision::{Precision, UnknownPrecision};
