//! Makes freshly initialized layers under PyTorch's names.

use candle_core::{DType, Device, Tensor};
use rand::Rng;
use rand_distr::StandardNormal;

use bandwise_kernels::ConvConfig;

use super::batch_norm::BatchNorm;
use super::convolution::{Convolution, Filters};
use super::layer::{Activation, Layer, PadShortcut, Pool, Residual, Stage};
use super::linear::Linear;
use super::parameter::{Parameter, Role};
use super::plan::Plan;
use crate::Result;
use crate::random::{self, Stream};

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
    /// What is made of a tensor.
    filling: Filling,
}

/// What a [`Builder`] makes of a tensor.
enum Filling {
    /// Its random initial values.
    Drawn,
    /// Zeros, for weights that are about to be overwritten.
    Zeros,
    /// Nothing: its name and shape are noted.
    Planned(Plan),
}

/// The initial values of a tensor.
#[derive(Clone, Copy)]
enum Start {
    /// Uniform in ± this bound.
    Uniform(f64),
    /// Normal with mean 0 and this deviation.
    Normal(f64),
    /// This number.
    Constant(f64),
}

impl Builder {
    /// A builder of freshly initialized layers.
    pub fn new(initialization: Initialization, random: Stream, dtype: DType, device: &Device) -> Self {
        Self { initialization, random, dtype, device: device.clone(), filling: Filling::Drawn }
    }

    /// A builder of layers full of zeros, whose weights are still to be read.
    pub(crate) fn zeros(dtype: DType, device: &Device) -> Self {
        let random = random::stream(0, &[]);
        Self { filling: Filling::Zeros, ..Self::new(Initialization::PyTorch, random, dtype, device) }
    }

    /// A builder that allocates nothing but the [`Plan`] of what it builds.
    pub(crate) fn planning() -> Self {
        let nothing = Self::zeros(DType::F32, &Device::Cpu);
        Self { filling: Filling::Planned(Plan::default()), ..nothing }
    }

    /// The plan of a builder that made one.
    pub(crate) fn into_plan(self) -> Plan {
        match self.filling {
            Filling::Planned(plan) => plan,
            Filling::Drawn | Filling::Zeros => Plan::default(),
        }
    }

    /// A named tensor with its initial values.
    fn parameter(&mut self, name: String, role: Role, shape: &[usize], start: Start) -> Result<Parameter> {
        if let Filling::Planned(plan) = &mut self.filling {
            plan.note(&name, shape, role != Role::Buffer)?;
            return Parameter::new(name, role, &Tensor::zeros(0, self.dtype, &self.device)?);
        }
        let values = match (&self.filling, start) {
            (Filling::Zeros, _) => Tensor::zeros(shape, self.dtype, &self.device)?,
            (_, Start::Uniform(bound)) => self.uniform(shape, bound)?,
            (_, Start::Normal(deviation)) => self.normal(shape, deviation)?,
            (_, Start::Constant(value)) => {
                Tensor::full(value, shape, &Device::Cpu)?.to_dtype(self.dtype)?.to_device(&self.device)?
            }
        };
        Parameter::new(name, role, &values)
    }

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
        channels: [usize; 2],
        kernel: usize,
        config: ConvConfig,
        bias: bool,
    ) -> Result<Layer> {
        self.rectangular_convolution(name, channels, [kernel, kernel], config, bias)
    }

    /// A convolution with every option and a kernel of any height and width.
    pub fn rectangular_convolution(
        &mut self,
        name: &str,
        [inputs, outputs]: [usize; 2],
        [height, width]: [usize; 2],
        config: ConvConfig,
        bias: bool,
    ) -> Result<Layer> {
        let area = height * width;
        let (fan_in, fan_out) = (inputs / config.groups * area, outputs / config.groups * area);
        let shape = [outputs, inputs / config.groups, height, width];
        let start = match self.initialization {
            Initialization::PyTorch => Start::Uniform((fan_in as f64).powf(-0.5)),
            Initialization::HeFanIn => Start::Normal((2.0 / fan_in as f64).sqrt()),
            Initialization::HeFanOut => Start::Normal((2.0 / fan_out as f64).sqrt()),
        };
        let weight = self.parameter(format!("{name}.weight"), Role::Weight, &shape, start)?;
        let bias = if bias { Some(self.bias(name, outputs, fan_in)?) } else { None };
        Ok(Layer::Convolution(Convolution {
            name: name.into(),
            filters: Filters::Plain { weight },
            bias,
            config,
        }))
    }

    /// Batch norm: scale 1, shift 0, running mean 0 and variance 1.
    pub fn batch_norm(&mut self, name: &str, channels: usize, relu: bool) -> Result<Layer> {
        let mut part = |suffix: &str, role, value| {
            self.parameter(format!("{name}.{suffix}"), role, &[channels], Start::Constant(value))
        };
        Ok(Layer::BatchNorm(BatchNorm {
            name: name.into(),
            gamma: part("weight", Role::Affine, 1.0)?,
            beta: part("bias", Role::Affine, 0.0)?,
            mean: part("running_mean", Role::Buffer, 0.0)?,
            variance: part("running_var", Role::Buffer, 1.0)?,
            epsilon: 1e-5,
            momentum: 0.1,
            relu,
        }))
    }

    /// A fully connected layer.
    pub fn linear(&mut self, name: &str, inputs: usize, outputs: usize, bias: bool) -> Result<Layer> {
        self.linear_of_shape(name, &[outputs, inputs], bias)
    }

    /// A fully connected layer whose weight `[outputs, inputs, …]` may have axes of length one.
    fn linear_of_shape(&mut self, name: &str, shape: &[usize], bias: bool) -> Result<Layer> {
        let (outputs, inputs) = (shape[0], shape[1]);
        let start = match self.initialization {
            Initialization::PyTorch => Start::Uniform((inputs as f64).powf(-0.5)),
            Initialization::HeFanIn | Initialization::HeFanOut => Start::Normal((2.0 / inputs as f64).sqrt()),
        };
        let weight = self.parameter(format!("{name}.weight"), Role::Weight, shape, start)?;
        let bias = if bias { Some(self.bias(name, outputs, inputs)?) } else { None };
        Ok(Layer::Linear(Linear { name: name.into(), weight, bias }))
    }

    /// A 1×1 convolution with bias on maps that are already averaged, `[batch, channels]`.
    pub fn pointwise(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<Layer> {
        self.linear_of_shape(name, &[outputs, inputs, 1, 1], true)
    }

    fn bias(&mut self, name: &str, size: usize, fan_in: usize) -> Result<Parameter> {
        let bound =
            if self.initialization == Initialization::HeFanOut { 0.0 } else { (fan_in as f64).powf(-0.5) };
        self.parameter(format!("{name}.bias"), Role::Affine, &[size], Start::Uniform(bound))
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

/// A stage with nothing plugged in behind it.
pub fn stage(name: &str, channels: usize, layers: Vec<Layer>) -> Layer {
    Layer::Stage(Stage { name: name.into(), layers, channels, post_block: None })
}

/// ResNet's shortcut "A".
pub fn pad_shortcut(stride: usize, channels: usize) -> Layer {
    Layer::PadShortcut(PadShortcut { stride, channels })
}
