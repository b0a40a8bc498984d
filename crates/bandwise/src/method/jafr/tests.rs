//! JaFR and GradAlign against reference values (true double backward in PyTorch), in float32 and float64.

use std::collections::HashMap;

use bandwise_kernels::ConvConfig;
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use super::*;
use crate::golden;
use crate::method::grad_align::{GradAlign, cosines};
use crate::method::input_gradient::{InputGradient, Penalty, penalty_gradients};
use crate::nn::build::{Builder, Initialization, average_pool, residual};
use crate::nn::layer::Activation;
use crate::nn::{ForwardContext, Layer, Model, ModelShape};
use crate::random;

type Tensors = HashMap<String, Tensor>;

fn jafr(entry: &Value) -> Jafr {
    let number = |key: &str, default: f64| entry.get(key).map_or(default, golden::number);
    Jafr {
        lambda: number("lambda_", 1.0),
        reduction: serde_json::from_value(entry["reduce_type"].clone()).unwrap(),
        max_pow: number("max_pow", 1.0),
        temperature: number("temperature", 1.0),
        ignore_dc: entry.get("ignore_first_basis").is_some_and(|v| v.as_bool().unwrap()),
        per_image: false,
        warmup: 0,
    }
}

fn value(x: &Tensor) -> f64 {
    crate::method::input_gradient::scalar(x).unwrap()
}

/// One of the reference networks; its kind and all sizes follow from the names and shapes of its weights.
struct Net<'a> {
    prefix: String,
    tensors: &'a Tensors,
    builder: Builder,
    side: usize,
}

impl Net<'_> {
    fn dims(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(&format!("{}/{name}.weight", self.prefix)).map(Tensor::dims)
    }

    fn convolution(&mut self, name: &str, stride: usize) -> Layer {
        let &[outputs, inputs, kernel, _] = self.dims(name).unwrap() else { panic!("{name}") };
        let bias = self.tensors.contains_key(&format!("{}/{name}.bias", self.prefix));
        let config = ConvConfig { stride, padding: kernel / 2, ..ConvConfig::default() };
        self.builder.convolution_with(name, [inputs, outputs], kernel, config, bias).unwrap()
    }

    fn norm(&mut self, name: &str) -> Layer {
        self.builder.batch_norm(name, self.dims(name).unwrap()[0], true).unwrap()
    }

    /// Pooling to the grid that the linear layer expects, and that layer.
    fn head(&mut self, channels: usize, side: usize) -> Vec<Layer> {
        let &[outputs, inputs] = self.dims("fc").unwrap() else { panic!("fc") };
        let grid = ((inputs / channels) as f64).sqrt() as usize;
        let linear = self.builder.linear("fc", inputs, outputs, true).unwrap();
        vec![average_pool(side / grid), Layer::Flatten, linear]
    }

    fn layers(&mut self) -> Vec<Layer> {
        if self.dims("short").is_some() {
            let main = vec![
                self.norm("bn1"),
                self.convolution("conv1", 2),
                self.norm("bn2"),
                self.convolution("conv2", 1),
            ];
            let shortcut = vec![self.convolution("short", 2)];
            let channels = self.dims("conv2").unwrap()[0];
            let mut layers = vec![self.convolution("conv0", 1), residual(main, shortcut, false)];
            layers.extend(self.head(channels, self.side / 2));
            return layers;
        }
        let channels = self.dims("conv2").unwrap()[0];
        let (mut layers, side) = if self.dims("bn1").is_some() {
            let convolutions = [self.convolution("conv1", 1), self.convolution("conv2", 2)];
            let [first, second] = convolutions;
            (vec![first, self.norm("bn1"), second, self.norm("bn2")], self.side / 2)
        } else {
            let tanh = || Layer::Activation(Activation::Tanh);
            (vec![self.convolution("conv1", 1), tanh(), self.convolution("conv2", 1), tanh()], self.side)
        };
        layers.extend(self.head(channels, side));
        layers
    }

    fn model(prefix: &str, tensors: &Tensors, dtype: DType) -> Model {
        let side = tensors["x"].dim(2).unwrap();
        let random = random::stream(0, &[]);
        let builder = Builder::new(Initialization::PyTorch, random, dtype, &Device::Cpu);
        let mut net = Net { prefix: prefix.into(), tensors, builder, side };
        let layers = net.layers();
        let (channels, classes) = (tensors["x"].dim(1).unwrap(), net.dims("fc").unwrap()[0]);
        let shape = ModelShape { channels, classes, width: None };
        let model = Model::from_layers(layers, shape, None, dtype, &Device::Cpu).unwrap();
        for parameter in model.parameters() {
            parameter.set(&tensors[&format!("{prefix}/{}", parameter.name())]).unwrap();
        }
        model
    }
}

/// One network in one mode and number type, with its reference values.
struct Case<'a> {
    /// `NET.MODE.DTYPE.`
    key: String,
    entry: &'a Value,
    tensors: &'a Tensors,
    model: Model,
    images: Tensor,
    labels: Tensor,
    pass: ForwardContext<'static>,
    double: bool,
}

impl<'a> Case<'a> {
    fn new(name: &str, entry: &'a Value, tensors: &'a Tensors, labels: &Tensor) -> Self {
        let (mode, dtype) = (entry["mode"].as_str().unwrap(), entry["dtype"].as_str().unwrap());
        let double = dtype == "f64";
        let number_type = if double { DType::F64 } else { DType::F32 };
        Self {
            key: format!("{name}.{mode}.{dtype}."),
            entry,
            tensors,
            model: Net::model(name, tensors, number_type),
            images: pixels(&tensors["x"], number_type),
            labels: labels.clone(),
            pass: if mode == "train" {
                ForwardContext::batch_statistics(0.0)
            } else {
                ForwardContext::eval()
            },
            double,
        }
    }

    fn expected(&self, name: &str) -> &Tensor {
        &self.tensors[&format!("{}{name}", self.key)]
    }

    fn list(&self, name: &str) -> &Vec<Value> {
        self.entry[name].as_array().unwrap()
    }

    fn check(&self, what: &str, actual: f64, expected: f64, tolerance: f64) {
        let error = (actual - expected).abs();
        assert!(error <= tolerance, "{}{what}: {actual} against {expected}", self.key);
    }

    /// Compares the gradients of all parameters with the tensors `NET.MODE.DTYPE.TAG.grad.PARAMETER`;
    /// false if there are none for this case.
    fn check_gradients(&self, tag: &str, gradients: &GradStore) -> bool {
        let normed = self.model.parameters().iter().any(|p| p.name().contains("running"));
        let mut compared = false;
        for (name, var) in self.model.trainable() {
            let key = format!("{}{tag}.grad.{name}", self.key);
            let Some(expected) = self.tensors.get(&key) else { continue };
            compared = true;
            let actual = gradients.get(&var).cloned().unwrap_or_else(|| var.zeros_like().unwrap());
            // A convolution's bias in front of batch statistics has no effect, so its gradient is 0.
            if normed && self.key.contains(".train.") && name.starts_with("conv") && name.ends_with(".bias") {
                assert!(golden::max_abs_difference(&actual, expected) < 1e-5, "{key}");
            } else {
                let error = golden::relative_l2(&actual, expected);
                assert!(error < if self.double { 1e-8 } else { 1e-3 }, "{key}: {error}");
            }
        }
        compared
    }

    fn gradient_at(&self, images: &Tensor) -> InputGradient {
        InputGradient::of(&self.model, images, &self.labels, &self.pass).unwrap()
    }

    fn penalty_gradients(&self, images: &Tensor, direction: &Tensor) -> GradStore {
        penalty_gradients(&self.model, images, &self.labels, direction, &self.pass).unwrap()
    }
}

/// NCHW to NHWC.
fn pixels(images: &Tensor, dtype: DType) -> Tensor {
    images.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap().to_dtype(dtype).unwrap()
}

/// Calls `check` for every network, mode and number type of the folder.
fn each_case(check: impl Fn(&Case)) {
    let folder = golden::folder();
    let list = golden::json(&folder, "case3_jafr.json");
    let tensors = golden::tensors(&folder, "case3_jafr.safetensors");
    let labels: Vec<u32> = serde_json::from_value(list["labels"].clone()).unwrap();
    let labels = Tensor::new(labels, &Device::Cpu).unwrap();
    for (name, net) in list.as_object().unwrap() {
        for entry in net.get("cases").and_then(Value::as_array).into_iter().flatten() {
            check(&Case::new(name, entry, &tensors, &labels));
        }
    }
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_input_gradients_and_maps() {
    each_case(|case| {
        let found = case.gradient_at(&case.images);
        let tight = if case.double { 1e-8 } else { 1e-5 };
        let close = |what: &str, actual: &Tensor| {
            let error = golden::relative_l2(actual, case.expected(what));
            assert!(error < tight, "{}{what}: {error}", case.key);
        };
        close("logits", &found.logits);
        close("J", &found.gradient.permute((0, 3, 1, 2)).unwrap());
        close("fourier_map", &amplitude_map(&found.gradient).unwrap());
        case.check("ce", value(&found.loss), golden::number(&case.entry["ce"]), tight);
    });
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_low_frequency_biases() {
    each_case(|case| {
        let gradient = case.gradient_at(&case.images).gradient;
        let map = low_frequencies(&amplitude_map(&gradient).unwrap()).unwrap();
        let biases = case.list("bias_values").iter().chain(case.list("bias_values_scaled_map"));
        for entry in biases {
            let expected = golden::number(&entry["bias"]);
            let scaled = (&map * entry.get("scale").map_or(1.0, golden::number)).unwrap();
            let settings = jafr(entry);
            let actual = value(&settings.bias_of_map(&scaled).unwrap());
            assert!(actual.is_finite(), "{}{entry}", case.key);
            // Where the direct formula overflows in float32 the reference has infinity.
            let expected = if expected.is_finite() {
                expected
            } else {
                let same = Jafr { reduction: Reduction::SumLog, ..settings.clone() };
                value(&same.bias_of_map(&scaled).unwrap()) - settings.temperature.ln()
            };
            let tolerance = match (case.double, settings.reduction) {
                (true, _) => 1e-8 * expected.abs().max(1.0),
                (false, Reduction::Sum) => 1e-4,
                (false, _) => 1e-4 * expected.abs().max(1.0),
            };
            case.check(&entry.to_string(), actual, expected, tolerance);
        }
    });
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_gradients_of_the_total_loss() {
    each_case(|case| {
        let mut compared = 0;
        for entry in case.list("totals") {
            let settings = jafr(entry);
            let mut clean = case.gradient_at(&case.images);
            let penalty = settings.penalty(&clean.gradient).unwrap();
            let total = value(&clean.loss) + penalty.value;
            let tolerance = if case.double { 1e-8 } else { 1e-4 } * (1.0 + penalty.value.abs());
            let expected = golden::number(&entry["total"]);
            assert!(total.is_finite(), "{}{entry}", case.key);
            // Where the direct formula overflows in float32 the reference has infinity.
            if expected.is_finite() {
                case.check(&entry.to_string(), total, expected, tolerance);
            }
            clean.parameters.extend(case.penalty_gradients(&case.images, &penalty.derivative)).unwrap();
            compared += usize::from(case.check_gradients(entry["tag"].as_str().unwrap(), &clean.parameters));
        }
        assert!(compared > 0, "{}: nothing to compare with", case.key);
    });
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_grad_align() {
    each_case(|case| {
        let moved = (&case.images + pixels(&case.tensors["delta_uniform"], case.images.dtype())).unwrap();
        let (clean, at_moved) = (case.gradient_at(&case.images).gradient, case.gradient_at(&moved).gradient);
        for (tag, detach_clean) in [("gradalign_detach0", false), ("gradalign_detach1", true)] {
            let Some(entry) = case.entry.get(tag) else { continue };
            let lambda = golden::number(&entry["lambda_"]);
            let settings = GradAlign { lambda, detach_clean, ..GradAlign::default() };
            let tolerance = if case.double { 1e-10 } else { 1e-5 };
            let ours = golden::values(&cosines(&clean, &at_moved).unwrap());
            for (ours, theirs) in ours.iter().zip(entry["cos"].as_array().unwrap()) {
                case.check(tag, *ours, golden::number(theirs), tolerance);
            }
            let (first, second) = settings.penalty(&clean, &at_moved).unwrap();
            case.check(tag, second.value, golden::number(&entry["reg"]), tolerance);
            let mut gradients = case.penalty_gradients(&moved, &second.derivative);
            if let Some(first) = first {
                gradients.extend(case.penalty_gradients(&case.images, &first.derivative)).unwrap();
            }
            case.check_gradients(tag, &gradients);
        }
    });
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_direct_maps() {
    let folder = golden::folder();
    let tensors = golden::tensors(&folder, "case3_jafr.safetensors");
    for entry in golden::json(&folder, "case3_jafr.json")["direct_maps"].as_array().unwrap() {
        let name = format!("map_{}", entry["map"]);
        let settings = jafr(entry);
        let found = Penalty::of(&tensors[&name], |map| settings.bias_of_map(map)).unwrap();
        let expected = golden::number(&entry["bias_f64"]);
        assert!((found.value - expected).abs() < 1e-9 * expected.abs().max(1.0), "{entry}");
        let reduction = entry["reduce_type"].as_str().unwrap();
        let gradient = &tensors[&format!("{name}.grad_{reduction}_p{}", entry["max_pow"])];
        let error = golden::relative_l2(&found.derivative, gradient);
        assert!(error < 1e-8, "{entry}: {error}");
    }
}

#[test]
fn biases_survive_float32_where_the_products_overflow() {
    for (scale, reduction) in [(1e6, Reduction::Sum), (1e-20, Reduction::Sum), (1e6, Reduction::Product)] {
        let values: Vec<f64> = (0..33 * 17).map(|i| scale * (1.0 + (i as f64 * 0.7).sin())).collect();
        let map = Tensor::from_vec(values, (33, 17), &Device::Cpu).unwrap();
        let settings = Jafr { reduction, max_pow: 4.0, ..Jafr::default() };
        let exact = Penalty::of(&map, |map| settings.bias_of_map(map)).unwrap();
        let single = map.to_dtype(DType::F32).unwrap();
        let ours = Penalty::of(&single, |map| settings.bias_of_map(map)).unwrap();
        assert!(
            (ours.value - exact.value).abs() < 1e-4 * exact.value.abs(),
            "{} {}",
            ours.value,
            exact.value
        );
        assert!(golden::relative_l2(&ours.derivative, &exact.derivative) < 1e-3, "{scale}");
    }
}

#[test]
fn amplitudes_of_a_zero_gradient_have_a_finite_derivative() {
    let zero = Tensor::zeros((2, 8, 6, 3), DType::F32, &Device::Cpu).unwrap();
    let penalty = Jafr::default().penalty(&zero).unwrap();
    assert!(penalty.value.is_finite());
    assert!(golden::values(&penalty.derivative).iter().all(|v| *v == 0.0));
}

#[test]
fn the_bias_prefers_low_frequencies() {
    let map = |slope: f64| {
        let values = (0..9 * 7).map(|i| (slope * (i / 7 + i % 7) as f64).exp()).collect();
        Tensor::from_vec(values, (9, 7), &Device::Cpu).unwrap()
    };
    for reduction in [Reduction::Sum, Reduction::SumLog, Reduction::Product] {
        let settings = Jafr { reduction, ..Jafr::default() };
        let [falling, flat, rising] =
            [-0.3, 0.0, 0.3].map(|slope| value(&settings.bias_of_map(&map(slope)).unwrap()));
        assert!(falling > flat + 0.1 && flat > rising + 0.1, "{reduction:?}: {falling}, {flat}, {rising}");
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    assert!(Jafr { temperature: 0.0, ..Jafr::default() }.validate().is_err());
    assert!(Jafr { lambda: f64::NAN, ..Jafr::default() }.validate().is_err());
    assert!(Jafr { lambda: -0.001, ..Jafr::default() }.validate().is_ok());
    assert!(toml::from_str::<Jafr>("lamda = 0.1").is_err());
    assert_eq!(toml::from_str::<Jafr>("reduction = \"sumlog\"").unwrap().reduction, Reduction::SumLog);
}
