//! Every operator on a CUDA device against the CPU: values and gradients, in f32. Without a device (or in a build
//! without the `cudnn` feature) the tests say so and stop.

mod common;

use bandwise_kernels::*;
use candle_core::{DType, Device, Result, Tensor, Var};
use common::{random, values};

/// The first CUDA device, if there is one.
fn device() -> Option<Device> {
    match Device::new_cuda(0) {
        Ok(device) => Some(device),
        Err(reason) => {
            eprintln!("SKIPPED: no CUDA device ({reason})");
            None
        }
    }
}

/// ‖a − b‖ / ‖b‖.
fn relative(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (values(a), values(b));
    let norm = b.iter().map(|b| b * b).sum::<f64>().sqrt();
    a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt() / norm.max(1e-12)
}

/// The value of `f` and the gradients of Σ f · direction, on one device.
fn run(
    device: &Device,
    inputs: &[Tensor],
    f: &dyn Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<(Tensor, Vec<Tensor>)> {
    let on_device = |t: &Tensor| Var::from_tensor(&t.to_dtype(DType::F32)?.to_device(device)?);
    let variables = inputs.iter().map(on_device).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors)?;
    let direction = random(y.dims(), 7).to_dtype(DType::F32)?.to_device(device)?;
    let gradients = (&y * &direction)?.sum_all()?.backward()?;
    let of = |t: &Tensor| gradients.get(t).expect("each input has a gradient").to_device(&Device::Cpu);
    let found = tensors.iter().map(of).collect::<Result<_>>()?;
    Ok((y.to_device(&Device::Cpu)?, found))
}

fn compare(what: &str, inputs: &[Tensor], tolerance: f64, f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let Some(device) = device() else { return };
    let (expected, expected_gradients) = run(&Device::Cpu, inputs, &f).unwrap();
    let (y, gradients) = run(&device, inputs, &f).unwrap();
    assert!(relative(&y, &expected) < tolerance, "{what}: value {:.1e}", relative(&y, &expected));
    for (index, (found, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
        let off = relative(found, expected);
        assert!(off < tolerance, "{what}: gradient of input {index} {off:.1e}");
    }
}

/// kernel, stride, padding, dilation, groups, in, out
const CONVOLUTIONS: [[usize; 7]; 7] = [
    [3, 1, 1, 1, 1, 16, 32],
    [3, 2, 1, 1, 1, 16, 32],
    [1, 2, 0, 1, 1, 16, 32],
    [3, 1, 2, 2, 1, 8, 8],
    [3, 1, 1, 1, 4, 16, 32],
    [5, 1, 2, 1, 24, 24, 24],
    [3, 1, 1, 1, 1, 3, 64],
];

#[test]
fn convolutions() {
    for [kernel, stride, padding, dilation, groups, inputs, outputs] in CONVOLUTIONS {
        let x = random(&[3, 9, 8, inputs], 1);
        let w = random(&[outputs, inputs / groups, kernel, kernel], 2);
        for (precision, tolerance) in
            [(Precision::F32, 1e-5), (Precision::F32Fast, 5e-3), (Precision::Bf16, 3e-2)]
        {
            let config = ConvConfig { stride, padding, dilation, groups, precision };
            let what = format!("{kernel}×{kernel}, stride {stride}, groups {groups}, {precision:?}");
            compare(&what, &[x.clone(), w.clone()], tolerance, |t| conv2d(&t[0], &t[1], &config));
        }
    }
}

#[test]
fn frozen_convolutions_with_bias_residual_and_relu() {
    let config = ConvConfig { padding: 1, ..ConvConfig::default() };
    let (w, bias) = (random(&[32, 16, 3, 3], 2), random(&[32], 3));
    for (add, relu) in [(false, false), (true, true)] {
        let inputs = [random(&[2, 8, 8, 16], 1), random(&[2, 8, 8, 32], 4)];
        compare("frozen", &inputs, 1e-5, |t| {
            let here = |p: &Tensor| p.to_dtype(DType::F32)?.to_device(t[0].device());
            let frozen = FrozenConv2d::new(&here(&w)?, Some(&here(&bias)?), &config)?;
            let y = frozen.forward(&t[0], add.then_some(&t[1]), relu)?;
            // Without a residual the second input counts all the same.
            if add { Ok(y) } else { y + &t[1] }
        });
    }
}

#[test]
fn batch_norms() {
    let inputs = [random(&[4, 6, 5, 24], 1), random(&[24], 2), random(&[24], 3), random(&[4, 6, 5, 24], 4)];
    for relu in [false, true] {
        compare("batch norm, train", &inputs, 1e-4, |t| {
            Ok(batch_norm_train(&t[0], &t[1], &t[2], 1e-5, Some(&t[3]), relu)?.0)
        });
        compare("batch norm, eval", &inputs, 1e-5, |t| {
            let here = |p: Tensor| p.to_dtype(DType::F32)?.to_device(t[0].device());
            let (mean, variance) = (here(random(&[24], 5))?, here(random(&[24], 6).sqr()?)?);
            batch_norm_eval(&t[0], &t[1], &t[2], &mean, &variance, 1e-3, Some(&t[3]), relu)
        });
    }
    compare("batch norm, tangent", &[inputs[0].clone(), inputs[3].clone(), inputs[1].clone()], 1e-4, |t| {
        batch_norm_train_tangent(&t[0], &t[1], &t[2], 1e-5)
    });
}

#[test]
fn running_statistics() {
    let Some(device) = device() else { return };
    let x = (random(&[4, 6, 5, 24], 1) + 50.0).unwrap().to_dtype(DType::F32).unwrap();
    let (gamma, beta) =
        (random(&[24], 2).to_dtype(DType::F32).unwrap(), random(&[24], 3).to_dtype(DType::F32).unwrap());
    let on = |device: &Device| {
        let [x, gamma, beta] = [&x, &gamma, &beta].map(|t| t.to_device(device).unwrap());
        batch_norm_train(&x, &gamma, &beta, 1e-5, None, false).unwrap().1
    };
    let (expected, found) = (on(&Device::Cpu), on(&device));
    assert!(relative(&found.mean.to_device(&Device::Cpu).unwrap(), &expected.mean) < 1e-5);
    assert!(relative(&found.variance.to_device(&Device::Cpu).unwrap(), &expected.variance) < 1e-4);
    assert_eq!(found.count, expected.count);
}

#[test]
fn pooling_and_elementwise_steps() {
    let x = random(&[3, 9, 8, 10], 1);
    let inputs = std::slice::from_ref(&x);
    for (kernel, stride, padding) in [(2, 2, 0), (3, 2, 1)] {
        compare("max pooling", inputs, 1e-6, |t| max_pool2d(&t[0], kernel, stride, padding));
        compare("average pooling", inputs, 1e-6, |t| avg_pool2d(&t[0], kernel, stride, padding));
    }
    compare("global average", inputs, 1e-6, |t| global_avg_pool(&t[0]));
    compare("relu", inputs, 1e-7, |t| relu(&t[0]));
}

#[test]
fn attack_steps() {
    let Some(device) = device() else { return };
    let shape = [3, 9, 8, 3];
    let origin = random(&shape, 1).abs().unwrap();
    let x = (&origin + (random(&shape, 2) * 0.03).unwrap()).unwrap().clamp(0.0, 1.0).unwrap();
    let gradient = random(&shape, 3);
    let on = |device: &Device| {
        let [x, gradient, origin] =
            [&x, &gradient, &origin].map(|t| t.to_dtype(DType::F32).unwrap().to_device(device).unwrap());
        sign_step(&x, &gradient, &origin, 0.01, 0.03).unwrap().to_device(&Device::Cpu).unwrap()
    };
    assert!(relative(&on(&device), &on(&Device::Cpu)) < 1e-6);
}
