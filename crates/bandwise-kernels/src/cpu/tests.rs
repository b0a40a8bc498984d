//! Every path of this machine against the portable one, and the same bits for any number of threads.

#[cfg(target_arch = "x86_64")]
use std::sync::LazyLock;

#[cfg(target_arch = "x86_64")]
use super::bf16::Bf16Kernels;
use super::conv_weight::weight_gradient;
use super::depthwise;
use super::detect::Detected;
#[cfg(target_arch = "x86_64")]
use super::detect::find_f32;
use super::gather::{Epilogue, gather};
use super::gather_plan::{Direction, GatherPlan};
use super::kernel::Kernels;
use super::pack::pack;
use super::strategy::Strategy;
use super::winograd;
use super::winograd_kernel::WinogradWeights;
use crate::algorithm::Algorithm;
use crate::element::Element;
use crate::geometry::{ConvConfig, Geometry};
use crate::memory::produce;
use crate::precision::Precision;

fn values<T: Element>(count: usize, seed: u64) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        T::from_f64((state >> 40) as f64 / (1u64 << 23) as f64 - 1.0)
    };
    (0..count).map(next).collect()
}

/// Forward (with bias, residual and ReLU), data gradient (behind a ReLU) and weight gradient of one path by direct sums.
fn run<T: Element>(kernels: &'static Kernels<T>, geometry: &Geometry) -> [Vec<T>; 3] {
    let length = |shape: [usize; 4]| shape.iter().product::<usize>();
    let (inputs, outputs) = (length(geometry.input_shape()), length(geometry.output_shape()));
    let (x, w) = (values::<T>(inputs, 1), values::<T>(length(geometry.weight_shape()), 2));
    let (dy, residual) = (values::<T>(outputs, 3), values::<T>(outputs, 4));
    let bias = values::<T>(geometry.out_channels, 5);
    let bf16 = kernels.bf16.as_ref().filter(|_| geometry.config.precision == Precision::Bf16);
    let plan = GatherPlan::forward(geometry);
    let packed = pack(kernels, bf16, &w, geometry, &plan, Direction::Forward);
    let epilogue = Epilogue { bias: Some(&bias), residual: Some(&residual), relu: true, relu_mask: None };
    let (inner, outer) = (geometry.in_channels, geometry.out_channels);
    // SAFETY: the forward plan writes every output, the data plans together every input.
    let (y, dx) = unsafe {
        let y = produce(outputs, |y| gather(kernels, &plan, &x, inner, &packed, epilogue, y, outer));
        let behind_relu = Epilogue { relu_mask: Some(&x), ..Epilogue::NONE };
        let dx = produce(inputs, |dx| {
            for plan in GatherPlan::data(geometry) {
                let packed = pack(kernels, bf16, &w, geometry, &plan, Direction::Data);
                gather(kernels, &plan, &dy, outer, &packed, behind_relu, dx, inner);
            }
        });
        (y, dx)
    };
    [y, dx, weight_gradient(kernels, bf16, geometry, &x, &dy)]
}

/// Forward (with bias, residual and ReLU), data gradient (behind a ReLU) and weight gradient of one path by Winograd's filtering.
fn run_winograd(kernels: &'static Kernels<f32>, geometry: &Geometry) -> [Vec<f32>; 3] {
    let length = |shape: [usize; 4]| shape.iter().product::<usize>();
    let (inputs, outputs) = (length(geometry.input_shape()), length(geometry.output_shape()));
    let (x, w) = (values::<f32>(inputs, 1), values::<f32>(length(geometry.weight_shape()), 2));
    let (dy, residual) = (values::<f32>(outputs, 3), values::<f32>(outputs, 4));
    let bias = values::<f32>(geometry.out_channels, 5);
    let Strategy::Winograd(chosen) = Strategy::of(kernels, geometry) else { panic!("not a suitable shape") };
    let weights = |direction| WinogradWeights::new(kernels, chosen, &w, geometry, direction);
    let epilogue = Epilogue { bias: Some(&bias), residual: Some(&residual), relu: true, relu_mask: None };
    let y = winograd::forward(kernels, geometry, &weights(Direction::Forward), &x, epilogue);
    let mirrored = winograd::mirrored(geometry);
    let behind_relu = Epilogue { relu_mask: Some(&x), ..Epilogue::NONE };
    let dx = winograd::forward(kernels, &mirrored, &weights(Direction::Data), &dy, behind_relu);
    [y, dx, winograd::weight_gradient(kernels, chosen, geometry, &x, &dy)]
}

/// Root of the mean square difference over that of the values.
fn relative(found: &[f32], expected: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let difference = square(&mut found.iter().zip(expected).map(|(&a, b)| f64::from(a) - b));
    (difference / square(&mut expected.iter().copied())).sqrt()
}

#[test]
fn winograd_is_as_exact_as_the_direct_sum() {
    let (direct, reference) = (f32::paths(), f64::kernels());
    for (x, padding) in [([2, 8, 8, 64], 1), ([3, 7, 5, 48], 0), ([1, 3, 9, 32], 2), ([2, 9, 6, 16], 1)] {
        let config = ConvConfig { padding, ..Default::default() };
        let exact = |config| ConvConfig { precision: Precision::F32Fast, ..config };
        let w = [80, x[3], 3, 3];
        let geometry = Geometry::new(&x, &w, &config).unwrap();
        let larger = Geometry::new(&x, &w, &exact(config)).unwrap();
        let expected = run(reference, &geometry);
        for path in direct {
            let plain = run(path, &geometry);
            let (two, four) = (run_winograd(path, &geometry), run_winograd(path, &larger));
            for i in 0..3 {
                let [plain, two, four] =
                    [&plain[i], &two[i], &four[i]].map(|found| relative(found, &expected[i]));
                assert!(plain < 8e-7, "{} direct {i}: {plain:e} for {geometry:?}", path.name);
                assert!(two < 4e-7, "{} F(2, 3) {i}: {two:e} for {geometry:?}", path.name);
                assert!(four < 4e-6, "{} F(4, 3) {i}: {four:e} for {geometry:?}", path.name);
            }
        }
    }
}

fn shapes() -> Vec<Geometry> {
    let config = |stride, padding, dilation, groups| ConvConfig {
        stride,
        padding,
        dilation,
        groups,
        ..Default::default()
    };
    let case = |x: [usize; 4], w: [usize; 4], config| Geometry::new(&x, &w, &config).unwrap();
    vec![
        case([2, 9, 7, 3], [21, 3, 3, 3], config(1, 1, 1, 1)),
        case([2, 9, 7, 3], [48, 3, 3, 3], config(2, 1, 1, 1)),
        case([2, 6, 7, 32], [4, 32, 5, 5], config(1, 2, 1, 1)),
        case([3, 8, 8, 40], [50, 40, 3, 3], config(2, 1, 1, 1)),
        case([2, 8, 8, 33], [17, 33, 1, 1], config(2, 0, 1, 1)),
        case([1, 10, 9, 12], [24, 4, 3, 3], config(1, 2, 2, 3)),
        case([2, 6, 6, 24], [24, 1, 3, 3], config(1, 1, 1, 24)),
        case([9, 16, 16, 16], [64, 16, 3, 3], config(1, 1, 1, 1)),
    ]
}

fn compare<T: Element>(paths: &'static [Kernels<T>], tolerance: f64) {
    let (reference, others) = paths.split_last().expect("a portable path");
    for geometry in shapes() {
        let expected = run(reference, &geometry);
        for path in others {
            for (which, (found, expected)) in run(path, &geometry).iter().zip(&expected).enumerate() {
                let scale = expected.iter().map(|v| v.to_f64().abs()).fold(1.0, f64::max);
                let differences = found.iter().zip(expected).map(|(a, b)| (a.to_f64() - b.to_f64()).abs());
                let worst = differences.fold(0.0, f64::max);
                assert!(
                    worst <= tolerance * scale,
                    "{}, result {which}: {worst} for {geometry:?}",
                    path.name
                );
            }
        }
    }
}

#[test]
fn all_single_precision_paths_agree() {
    compare(f32::paths(), 3e-6);
}

#[test]
fn all_double_precision_paths_agree() {
    compare(f64::paths(), 1e-14);
}

#[test]
fn depthwise_is_a_grouped_convolution_on_all_paths() {
    for (x, kernel, stride) in [([2, 9, 8, 21], 3, 1), ([3, 8, 8, 64], 5, 2), ([1, 30, 40, 80], 3, 1)] {
        let config = ConvConfig { padding: kernel / 2, stride, groups: x[3], ..Default::default() };
        let geometry = Geometry::new(&x, &[x[3], 1, kernel, kernel], &config).unwrap();
        let expected = run(f64::kernels(), &geometry);
        let channels = geometry.in_channels;
        let (inputs, outputs) = (expected[1].len(), expected[0].len());
        let (x, w) = (values::<f32>(inputs, 1), values::<f32>(expected[2].len(), 2));
        let (dy, residual) = (values::<f32>(outputs, 3), values::<f32>(outputs, 4));
        let bias = values::<f32>(channels, 5);
        let epilogue = Epilogue { bias: Some(&bias), residual: Some(&residual), relu: true, relu_mask: None };
        let weights = depthwise::pack(&geometry, &w);
        for path in f32::paths() {
            let forward = [GatherPlan::forward(&geometry)];
            let y = depthwise::run(path, &forward, &x, &weights, channels, epilogue);
            let behind_relu = Epilogue { relu_mask: Some(&x), ..Epilogue::NONE };
            let dx = depthwise::run(path, &GatherPlan::data(&geometry), &dy, &weights, channels, behind_relu);
            let dw = depthwise::weight_gradient(path, &geometry, &x, &dy);
            for (i, found) in [y, dx, dw].iter().enumerate() {
                let error = relative(found, &expected[i]);
                assert!(error < 1e-6, "{} {i}: {error:e} for {geometry:?}", path.name);
            }
        }
    }
}

#[test]
fn bf16_rounds_factors_only() {
    for (x, w, stride) in [([3, 8, 8, 64], [96, 64, 3, 3], 1), ([3, 8, 8, 64], [32, 64, 3, 3], 2)] {
        let config = ConvConfig { padding: 1, stride, precision: Precision::Bf16, ..Default::default() };
        let geometry = Geometry::new(&x, &w, &config).unwrap();
        let expected = run(f64::kernels(), &geometry);
        for path in f32::paths() {
            let found = match stride {
                1 => run_winograd(path, &geometry),
                _ => run(path, &geometry),
            };
            for i in 0..3 {
                let error = relative(&found[i], &expected[i]);
                // two factors rounded to eight bits; sums would lose far more
                assert!(error < 6e-3, "{} {i}: {error:e} for {geometry:?}", path.name);
                let paired = path.bf16.is_some();
                assert!(!paired || error > 1e-4, "{} {i} did not use bf16", path.name);
            }
        }
    }
}

/// The paths of matrix units, with products by AVX-512 where the machine has none.
#[test]
#[cfg(target_arch = "x86_64")]
fn split_factors_are_near_single_precision() {
    static UNIT: LazyLock<Option<Kernels<f32>>> = LazyLock::new(|| {
        let best = find_f32().remove(0);
        let bf16 = best.bf16.map(|bf16| Bf16Kernels { matrix_unit: true, ..bf16 });
        bf16.is_some().then_some(Kernels { bf16, ..best })
    });
    let Some(unit) = UNIT.as_ref() else { return };
    for (x, padding) in [([2, 8, 8, 64], 1), ([3, 7, 5, 96], 0), ([5, 12, 12, 32], 1)] {
        for (precision, least, most) in [(Precision::F32Fast, 0.0, 2e-5), (Precision::Bf16, 1e-4, 6e-3)] {
            let config = ConvConfig { padding, precision, ..Default::default() };
            let geometry = Geometry::new(&x, &[96, x[3], 3, 3], &config).unwrap();
            let expected = run(f64::kernels(), &geometry);
            for (i, found) in run_winograd(unit, &geometry).iter().enumerate() {
                let error = relative(found, &expected[i]);
                assert!((least..most).contains(&error), "{precision:?} {i}: {error:e} for {geometry:?}");
            }
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for geometry in shapes() {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(f32::kernels(), &geometry))
        };
        let one = with(1);
        assert!(with(2) == one && with(5) == one, "{geometry:?}");
    }
    let config = ConvConfig { padding: 1, ..Default::default() };
    let geometry = Geometry::new(&[6, 16, 16, 64], &[64, 64, 3, 3], &config).unwrap();
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run_winograd(f32::kernels(), &geometry))
    };
    let one = with(1);
    assert!(with(2) == one && with(5) == one, "Winograd");
}

/// Forward pass and data gradient of the first `images` images.
fn first_images(
    kernels: &'static Kernels<f32>,
    shape: [usize; 4],
    images: usize,
    config: ConvConfig,
) -> [Vec<f32>; 2] {
    let [_, height, width, channels] = shape;
    let geometry = Geometry::new(&[images, height, width, channels], &[64, channels, 3, 3], &config).unwrap();
    let [y, dx, _] = match Strategy::of(kernels, &geometry) {
        Strategy::Winograd(_) => run_winograd(kernels, &geometry),
        _ => run(kernels, &geometry),
    };
    [y, dx]
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    for precision in [Precision::F32, Precision::F32Fast, Precision::Bf16] {
        for (shape, stride) in
            [([7, 8, 8, 64], 1), ([9, 5, 7, 32], 1), ([23, 4, 4, 96], 1), ([5, 9, 9, 64], 2)]
        {
            let config = ConvConfig { padding: 1, stride, precision, ..Default::default() };
            for path in f32::paths() {
                let all = first_images(path, shape, shape[0], config);
                for images in [1, 2, 3, shape[0] - 1] {
                    let some = first_images(path, shape, images, config);
                    for (some, all) in some.iter().zip(&all) {
                        assert!(
                            *some == all[..some.len()],
                            "{}, {precision:?}: {images} of {shape:?}, stride {stride}",
                            path.name
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_algorithm_follows_from_weights_and_machine() {
    let best = f32::kernels();
    let plain = f32::paths().last().expect("a portable path");
    let name = |kernels, weight: [usize; 4], config: ConvConfig| {
        Strategy::<f32>::choose(kernels, weight, &config).algorithm(weight[1] * config.groups)
    };
    let with = |precision| ConvConfig { padding: 1, precision, ..Default::default() };
    let weight = [64, 64, 3, 3];
    assert_eq!(name(plain, weight, with(Precision::F32)), Algorithm::WinogradF2x3);
    assert_eq!(name(plain, weight, with(Precision::Bf16)), Algorithm::WinogradF2x3);
    assert_eq!(name(plain, weight, with(Precision::F32Fast)), Algorithm::WinogradF4x3);
    assert_eq!(name(plain, [512, 512, 3, 3], with(Precision::F32Fast)), Algorithm::WinogradF2x3);
    assert_eq!(name(plain, [64, 3, 3, 3], with(Precision::F32Fast)), Algorithm::Direct);
    let depthwise = ConvConfig { groups: 64, ..with(Precision::F32) };
    assert_eq!(name(plain, [64, 1, 3, 3], depthwise), Algorithm::Depthwise);
    let strided = |precision| ConvConfig { stride: 2, ..with(precision) };
    assert_eq!(name(plain, weight, strided(Precision::Bf16)), Algorithm::Direct);
    if let Some(bf16) = &best.bf16 {
        let unit = bf16.matrix_unit;
        let (products, split) = match unit {
            true => (Algorithm::AmxBf16, Algorithm::AmxBf16x3),
            false => (Algorithm::Avx512Bf16, Algorithm::WinogradF4x3),
        };
        assert_eq!(name(best, weight, with(Precision::Bf16)), products);
        assert_eq!(name(best, weight, with(Precision::F32Fast)), split);
        assert_eq!(name(best, weight, strided(Precision::Bf16)), Algorithm::Avx512Bf16);
        assert_eq!(name(best, [64, 3, 3, 3], strided(Precision::Bf16)), Algorithm::Direct);
    }
}
