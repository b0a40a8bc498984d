//! Makes freshly initialised layers under PyTorch's names.

use candle_core::{DType, Device, Tensor};
use rand::Rng;
use rand_distr::StandardNormal;

use bandwise_kernels::ConvConfig;

use super::batch_norm::BatchNorm;
use super::convolution::{Convolution, Filters};
use super::layer::{Activation, Layer, PadShortcut, Pool, Residual, Stage};
use super::linear::Linear;
use super::parameter::{Parameter, Role};
use crate::Result;
use crate::random::Stream;

/// How weights start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initialization {
    /// PyTorch's default: uniform in ±1/√fan-in, biases too.
    PyTorch,
    /// Normal with σ² = 2/fan-in; biases as PyTorch's default.
    HeFanIn,
    /// Convolutions normal with σ² = 2/fan-out, linear layers normal with σ² = 2/fan-in, biases zero.
    HeFanOut,
}

/// Builds layers; holds what they share.
pub struct Builder {
    /// How weights start.
    pub initialization: Initialization,
    /// Where they come from.
    pub random: Stream,
    /// Type of all tensors.
    pub dtype: DType,
    /// Where all tensors live.
    pub device: Device,
}

impl Builder {
    /// A bias-free `kernel`×`kernel` convolution.
    pub fn convolution(
        &mut self,
        name: &str,
        channels: [usize; 2],
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<Layer> {
        let config = ConvConfig { stride, padding, ..ConvConfig::default() };
        self.convolution_with(name, channels, kernel, config, false)
    }

    /// A convolution with every option.
    pub fn convolution_with(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        config: ConvConfig,
        bias: bool,
    ) -> Result<Layer> {
        let area = kernel * kernel;
        let (fan_in, fan_out) = (inputs / config.groups * area, outputs / config.groups * area);
        let shape = [outputs, inputs / config.groups, kernel, kernel];
        let values = match self.initialization {
            Initialization::PyTorch => self.uniform(&shape, (fan_in as f64).powf(-0.5))?,
            Initialization::HeFanIn => self.normal(&shape, (2.0 / fan_in as f64).sqrt())?,
            Initialization::HeFanOut => self.normal(&shape, (2.0 / fan_out as f64).sqrt())?,
        };
        let weight = Parameter::new(format!("{name}.weight"), Role::Weight, &values)?;
        let bias = if bias { Some(self.bias(name, outputs, fan_in)?) } else { None };
        Ok(Layer::Convolution(Convolution {
            name: name.into(),
            filters: Filters::Plain { weight },
            bias,
            config,
        }))
    }

    /// Batch norm: scale 1, shift 0, running mean 0 and variance 1.
    pub fn batch_norm(&self, name: &str, channels: usize, relu: bool) -> Result<Layer> {
        let ones = Tensor::ones(channels, self.dtype, &self.device)?;
        let zeros = ones.zeros_like()?;
        let part = |suffix: &str, role, value| Parameter::new(format!("{name}.{suffix}"), role, value);
        Ok(Layer::BatchNorm(BatchNorm {
            name: name.into(),
            gamma: part("weight", Role::Affine, &ones)?,
            beta: part("bias", Role::Affine, &zeros)?,
            mean: part("running_mean", Role::Buffer, &zeros)?,
            variance: part("running_var", Role::Buffer, &ones)?,
            epsilon: 1e-5,
            momentum: 0.1,
            relu,
        }))
    }

    /// A fully connected layer.
    pub fn linear(&mut self, name: &str, inputs: usize, outputs: usize, bias: bool) -> Result<Layer> {
        let shape = [outputs, inputs];
        let values = match self.initialization {
            Initialization::PyTorch => self.uniform(&shape, (inputs as f64).powf(-0.5))?,
            _ => self.normal(&shape, (2.0 / inputs as f64).sqrt())?,
        };
        let weight = Parameter::new(format!("{name}.weight"), Role::Weight, &values)?;
        let bias = if bias { Some(self.bias(name, outputs, inputs)?) } else { None };
        Ok(Layer::Linear(Linear { name: name.into(), weight, bias }))
    }

    /// A 1×1 convolution with bias on maps that are already averaged, `[batch, channels]`.
    pub fn pointwise(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<Layer> {
        let mut layer = self.linear(name, inputs, outputs, true)?;
        if let Layer::Linear(linear) = &mut layer {
            let weight = linear.weight.tensor().reshape((outputs, inputs, 1, 1))?;
            linear.weight = Parameter::new(linear.weight.name(), Role::Weight, &weight)?;
        }
        Ok(layer)
    }

    fn bias(&mut self, name: &str, size: usize, fan_in: usize) -> Result<Parameter> {
        let bound =
            if self.initialization == Initialization::HeFanOut { 0.0 } else { (fan_in as f64).powf(-0.5) };
        let values = self.uniform(&[size], bound)?;
        Parameter::new(format!("{name}.bias"), Role::Affine, &values)
    }

    /// Uniform in ±`bound`.
    pub fn uniform(&mut self, shape: &[usize], bound: f64) -> Result<Tensor> {
        self.values(shape, |random| (random.random::<f64>() * 2.0 - 1.0) * bound)
    }

    /// Normal with mean 0 and the given deviation.
    pub fn normal(&mut self, shape: &[usize], deviation: f64) -> Result<Tensor> {
        self.values(shape, |random| random.sample::<f64, _>(StandardNormal) * deviation)
    }

    fn values(&mut self, shape: &[usize], mut draw: impl FnMut(&mut Stream) -> f64) -> Result<Tensor> {
        let count = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|_| draw(&mut self.random)).collect();
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.dtype)?.to_device(&self.device)?)
    }
}

/// A ReLU.
pub fn relu() -> Layer {
    Layer::Activation(Activation::Relu)
}

/// Max pooling with stride = window.
pub fn max_pool(kernel: usize) -> Layer {
    Layer::Pool(Pool { maximum: true, kernel, stride: kernel, padding: 0 })
}

/// Average pooling with stride = window.
pub fn average_pool(kernel: usize) -> Layer {
    Layer::Pool(Pool { maximum: false, kernel, stride: kernel, padding: 0 })
}

/// A residual block.
pub fn residual(main: Vec<Layer>, shortcut: Vec<Layer>, relu: bool) -> Layer {
    Layer::Residual(Residual { main, shortcut, relu })
}

/// A stage with an empty socket.
pub fn stage(name: &str, channels: usize, layers: Vec<Layer>) -> Layer {
    Layer::Stage(Stage { name: name.into(), layers, channels, socket: None })
}

/// ResNet's shortcut "A".
pub fn pad_shortcut(stride: usize, channels: usize) -> Layer {
    Layer::PadShortcut(PadShortcut { stride, channels })
}
