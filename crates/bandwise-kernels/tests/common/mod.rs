//! Naive float64 references and finite differences that the operators are compared with.
#![allow(dead_code)]

use bandwise_kernels::ConvConfig;
use candle_core::{DType, Device, Result, Tensor, Var};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Normal-ish values in [-1, 1], f64.
pub fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = StdRng::seed_from_u64(seed);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

pub fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest absolute difference.
pub fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// The definition of convolution, seven loops in f64.
pub fn naive_conv2d(x: &Tensor, w: &Tensor, config: &ConvConfig) -> Tensor {
    let (batch, height, width, channels) = x.dims4().unwrap();
    let (out, inner, kh, kw) = w.dims4().unwrap();
    let ConvConfig { stride, padding, dilation, groups, .. } = *config;
    let oh = (height + 2 * padding - dilation * (kh - 1) - 1) / stride + 1;
    let ow = (width + 2 * padding - dilation * (kw - 1) - 1) / stride + 1;
    let (xs, ws) = (values(x), values(w));
    let mut result = Vec::with_capacity(batch * oh * ow * out);
    for b in 0..batch {
        for y in 0..oh {
            for z in 0..ow {
                for o in 0..out {
                    let mut sum = 0.0;
                    for i in 0..inner {
                        let channel = o / (out / groups) * inner + i;
                        for ky in 0..kh {
                            for kx in 0..kw {
                                let iy = (y * stride + ky * dilation) as isize - padding as isize;
                                let ix = (z * stride + kx * dilation) as isize - padding as isize;
                                if iy >= 0 && ix >= 0 && (iy as usize) < height && (ix as usize) < width {
                                    let pixel = (b * height + iy as usize) * width + ix as usize;
                                    sum += xs[pixel * channels + channel]
                                        * ws[((o * inner + i) * kh + ky) * kw + kx];
                                }
                            }
                        }
                    }
                    result.push(sum);
                }
            }
        }
    }
    Tensor::from_vec(result, (batch, oh, ow, out), &Device::Cpu).unwrap()
}

/// Compares the gradients of `Σ f(inputs) · direction` by candle's backward with central differences, in f64.
pub fn check_gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>, tolerance: f64) {
    let variables: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors).unwrap();
    let direction = random(y.dims(), 99);
    let loss = |inputs: &[Tensor]| -> f64 {
        let y = f(inputs).unwrap();
        (y * &direction).unwrap().sum_all().unwrap().to_scalar().unwrap()
    };
    let gradients = (y * &direction).unwrap().sum_all().unwrap().backward().unwrap();
    for (which, input) in inputs.iter().enumerate() {
        let gradient = gradients.get(&tensors[which]).map(values);
        let gradient = gradient.unwrap_or_else(|| panic!("input {which} has no gradient"));
        let base = values(input);
        let step = 1e-5;
        let stride = (base.len() / 24).max(1);
        for i in (0..base.len()).step_by(stride) {
            let at = |delta: f64| {
                let mut moved = base.clone();
                moved[i] += delta;
                let mut all: Vec<Tensor> = inputs.to_vec();
                all[which] = Tensor::from_vec(moved, input.dims(), &Device::Cpu).unwrap();
                loss(&all)
            };
            let (above, here, below) = (at(step), at(0.0), at(-step));
            let expected = (above - below) / (2.0 * step);
            if (above - 2.0 * here + below).abs() / step > tolerance * (1.0 + expected.abs()) {
                continue; // a kink of ReLU or max lies inside the step: no derivative to compare with
            }
            assert!(
                (expected - gradient[i]).abs() <= tolerance * (1.0 + expected.abs()),
                "input {which}, element {i}: finite difference {expected}, gradient {}",
                gradient[i]
            );
        }
    }
}
