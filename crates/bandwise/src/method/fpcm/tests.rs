//! FPCM against the official implementation.

use candle_core::{DType, Tensor, Var};

use super::*;
use crate::golden;
use crate::nn::Mode;

/// The official epoch as progress: the published schedule counts to 120.
pub(crate) fn pass(mode: Mode, epoch: f64) -> ForwardContext<'static> {
    ForwardContext { mode, progress: epoch / 120.0, ..ForwardContext::eval() }
}

pub(crate) fn nhwc(x: &Tensor) -> Tensor {
    x.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
}

pub(crate) fn config(kind: &str) -> FpcmConfig {
    if kind.starts_with("wrn") { FpcmConfig::wide_resnet() } else { FpcmConfig::default() }
}

fn builder() -> Builder {
    let random = random::stream(0, &[]);
    Builder::new(Initialization::PyTorch, random, DType::F32, &Device::Cpu)
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_fpcm_blocks() {
    let folder = golden::folder();
    let json = golden::json(&folder, "case2_fpcm.json");
    let tensors = golden::tensors(&folder, "case2_fpcm_blocks.safetensors");
    let close = |ours: &Tensor, key: &str| {
        let theirs = &tensors[key];
        let ours = ours.reshape(theirs.shape()).unwrap();
        let largest = golden::values(theirs).into_iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let error = golden::max_abs_difference(&ours, theirs);
        assert!(error <= 2e-6 * largest, "{key}: {error} of {largest}");
    };
    for case in json["blocks"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let stem = name.rsplit_once('.').unwrap().0;
        let epoch = golden::number(&case["epoch"]);
        for dtype in [DType::F32, DType::F64] {
            let load = |key: &str| nhwc(&tensors[&format!("{stem}.{key}")]).to_dtype(dtype).unwrap();
            let (x, up) = (load("x"), load("up"));
            let channels = x.dim(3).unwrap();
            let mut builder = builder();
            builder.dtype = dtype;
            let block =
                Fpcm::new(&config(case["kind"].as_str().unwrap()), 1, channels, &mut builder).unwrap();
            block.weight.set(&tensors[&format!("{stem}.proj_w")].to_dtype(dtype).unwrap()).unwrap();
            block.bias.set(&tensors[&format!("{stem}.proj_b")].to_dtype(dtype).unwrap()).unwrap();

            let positions = x.dim(1).unwrap() * x.dim(2).unwrap();
            let cutoff = block.cutoff(positions, epoch / 120.0);
            assert!((cutoff - golden::number(&case["D0"])).abs() < 1e-9, "{name}: D0 {cutoff}");
            let filter = golden::values(&tensors[&format!("{name}.filter_f64")]);
            let errors = gaussian(positions, cutoff).into_iter().zip(&filter).map(|(a, b)| (a - b).abs());
            let error = errors.fold(0.0, f64::max);
            assert!(error < 1e-6, "{name}: filter {error}");

            let x = Var::from_tensor(&x).unwrap();
            let signal = DualTensor::plain(x.as_tensor().clone());
            let y = block.forward(&signal, &pass(Mode::Train, epoch)).unwrap().value;
            close(&y.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap(), &format!("{name}.y"));
            let gradients = (y * up).unwrap().sum_all().unwrap().backward().unwrap();
            let slope = gradients.get(&x).unwrap().permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
            close(&slope, &format!("{name}.gx"));
            // Sums over images and positions whose terms cancel: the reference's own float32 is off by more than half
            // of the tolerance, which leaves no room for the rounding of another float32 sum.
            if dtype == DType::F64 {
                close(gradients.get(block.weight.var()).unwrap(), &format!("{name}.gw"));
                close(gradients.get(block.bias.var()).unwrap(), &format!("{name}.gb"));
            }
        }
    }
}

#[test]
fn the_block_is_differentiable_forwards_and_works_on_any_map() {
    for (projection, filter, side) in [
        (Projection::Depthwise, Filter::Flattened, (5, 7)),
        (Projection::Full, Filter::Radial, (6, 5)),
        (Projection::Full, Filter::Flattened, (1, 3)),
    ] {
        let config = FpcmConfig { projection, filter, ..FpcmConfig::default() };
        let mut builder = builder();
        builder.dtype = DType::F64;
        let block = Fpcm::new(&config, 1, 3, &mut builder).unwrap();
        let shape = [2, side.0, side.1, 3];
        let (x, t) = (builder.normal(&shape, 1.0).unwrap(), builder.normal(&shape, 1.0).unwrap());
        let at = |step: f64| {
            let moved = (&x + (&t * step).unwrap()).unwrap();
            block.forward(&DualTensor::plain(moved), &ForwardContext::train(0.3)).unwrap().value
        };
        let difference = ((at(1e-6) - at(-1e-6)).unwrap() / 2e-6).unwrap();
        let dual =
            block.forward(&DualTensor::dual(x.clone(), t.clone()), &ForwardContext::train(0.3)).unwrap();
        assert!(golden::relative_l2(&dual.tangent.unwrap(), &difference) < 1e-7);
    }
}

/// One operator against its composition, values and all gradients, for maps of any size and any number of channels.
#[test]
fn the_fused_block_equals_its_parts() {
    for (projection, height, width, channels) in
        [(Projection::Depthwise, 5, 7, 3), (Projection::Full, 1, 3, 2), (Projection::Full, 8, 8, 37)]
    {
        let config = FpcmConfig { projection, ..FpcmConfig::default() };
        let mut builder = builder();
        builder.dtype = DType::F64;
        let block = Fpcm::new(&config, 1, channels, &mut builder).unwrap();
        let x = Var::from_tensor(&builder.normal(&[3, height, width, channels], 1.0).unwrap()).unwrap();
        let up = builder.normal(&[3, height, width, channels], 1.0).unwrap();
        let gradients = |y: Tensor| {
            let gradients = (&y * &up).unwrap().sum_all().unwrap().backward().unwrap();
            let of = |var: &Var| gradients.get(var).unwrap().clone();
            [y.detach(), of(&x), of(block.weight.var()), of(block.bias.var())]
        };
        let signal = DualTensor::plain(x.as_tensor().clone());
        let fused = gradients(block.forward(&signal, &pass(Mode::Train, 45.0)).unwrap().value);
        let omega = block.omega(&signal).unwrap();
        let parts = gradients(block.mixed(&signal, &omega, 45.0 / 120.0).unwrap().value);
        for (fused, parts) in fused.iter().zip(&parts) {
            assert!(golden::relative_l2(fused, parts) < 1e-12);
        }
    }
}

/// ω stays between its bounds, the published ones by default, and a forced ω is the same for every image and channel:
/// 1 gives the low part alone, ½ half the map.
#[test]
fn omega_can_be_bounded_and_forced() {
    let mut builder = builder();
    builder.dtype = DType::F64;
    let x = DualTensor::plain((builder.normal(&[5, 4, 6, 3], 1.0).unwrap() * 30.0).unwrap());
    let omega = |config: &FpcmConfig, builder: &mut Builder| {
        let block = Fpcm::new(config, 1, 3, builder).unwrap();
        golden::values(&block.omega(&x).unwrap().value)
    };
    for (lowest, highest) in [(0.5, 1.0), (0.0, 0.5), (0.2, 0.3)] {
        let config = FpcmConfig { omega_min: lowest, omega_max: highest, ..FpcmConfig::default() };
        config.validate().unwrap();
        let found = omega(&config, &mut builder);
        assert!(found.iter().all(|omega| (lowest..=highest).contains(omega)), "{found:?}");
        let spread =
            found.iter().fold(0.0f64, |a, &b| a.max(b)) - found.iter().fold(1.0f64, |a, &b| a.min(b));
        assert!(spread > 0.2 * (highest - lowest), "{found:?}");
    }
    for filter in [Filter::Flattened, Filter::Radial] {
        for (forced, rest) in [(1.0, 0.0), (0.5, 0.5)] {
            let config = FpcmConfig { filter, omega: Some(forced), ..FpcmConfig::default() };
            assert_eq!(omega(&config, &mut builder), vec![forced; 15]);
            let block = Fpcm::new(&config, 1, 3, &mut builder).unwrap();
            let y = block.forward(&x, &ForwardContext::train(0.5)).unwrap().value;
            let low = block.low_pass(&x.value, 0.5).unwrap();
            let high = (&x.value - &low).unwrap();
            let expected = ((low * forced).unwrap() + (high * rest).unwrap()).unwrap();
            assert!(golden::relative_l2(&y, &expected) < 1e-12, "{filter:?} {forced}");
        }
    }
    for (omega_min, omega_max) in [(0.6, 0.5), (-0.1, 1.0), (0.0, 1.5), (f64::NAN, 1.0)] {
        let config = FpcmConfig { omega_min, omega_max, ..FpcmConfig::default() };
        assert!(config.validate().unwrap_err().to_string().contains("omega_min"));
    }
    assert!(FpcmConfig { omega: Some(2.0), ..FpcmConfig::default() }.validate().is_err());
}

/// Official: `P div 2 + (P div 8 − P div 2)·epoch / 120` in a run of any length; here also tied to the run's own.
#[test]
fn the_schedule_counts_to_120_or_to_the_run_s_end() {
    let as_published = FpcmConfig { schedule_epochs: Some(120), ..FpcmConfig::default() };
    let block = Fpcm::new(&as_published, 1, 1, &mut builder()).unwrap();
    for (epoch, epochs) in [(1, 30), (30, 30), (120, 120)] {
        let cutoff = block.cutoff(1024, as_published.progress(epoch, epochs));
        assert_eq!(cutoff, 512.0 + (128.0 - 512.0) * epoch as f64 / 120.0, "epoch {epoch} of {epochs}");
    }
    assert_eq!(block.cutoff(1024, FpcmConfig::default().progress(30, 30)), 128.0);
    assert_eq!(as_published.progress(150, 150), 1.0);
    assert!(FpcmConfig { schedule_epochs: Some(0), ..FpcmConfig::default() }.validate().is_err());
}
