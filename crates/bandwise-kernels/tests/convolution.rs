//! Convolution against the definition, gradients against finite differences, frozen against plain.

mod common;

use bandwise_kernels::{ConvConfig, FrozenConv2d, conv2d};
use candle_core::{DType, Tensor, Var};
use common::{check_gradients, difference, naive_conv2d, random};
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Case {
    x: [usize; 4],
    w: [usize; 4],
    config: ConvConfig,
}

fn cases() -> impl Strategy<Value = Case> {
    let shape = (1usize..4, 1usize..12, 1usize..12, 1usize..4, 1usize..20, 1usize..40);
    let kernel = (1usize..4, 1usize..4, 1usize..4, 0usize..3, 1usize..3, any::<bool>());
    (shape, kernel).prop_filter_map("kernel fits", |(shape, kernel)| {
        let (batch, height, width, groups, inner, outer) = shape;
        let (kh, kw, stride, padding, dilation, depthwise) = kernel;
        let inner = if depthwise { 1 } else { inner };
        let groups = if depthwise { groups * 5 } else { groups };
        let outer = if depthwise { 1 + outer % 2 } else { outer };
        let fits = |size: usize, k: usize| size + 2 * padding > dilation * (k - 1);
        (fits(height, kh) && fits(width, kw)).then(|| Case {
            x: [batch, height, width, groups * inner],
            w: [groups * outer, inner, kh, kw],
            config: ConvConfig { stride, padding, dilation, groups, ..Default::default() },
        })
    })
}

/// Gradients of input and weight under the output gradient `dy`.
fn gradients(x: &Tensor, w: &Tensor, dy: &Tensor, config: &ConvConfig) -> [Tensor; 2] {
    let (x, w) = (Var::from_tensor(x).unwrap(), Var::from_tensor(w).unwrap());
    let y = conv2d(x.as_tensor(), w.as_tensor(), config).unwrap();
    let store = (y * dy).unwrap().sum_all().unwrap().backward().unwrap();
    [store.get(&x).unwrap().clone(), store.get(&w).unwrap().clone()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn forward_follows_the_definition(case in cases(), seed in 0u64..1000) {
        let (x, w) = (random(&case.x, seed), random(&case.w, seed + 1));
        let expected = naive_conv2d(&x, &w, &case.config);
        prop_assert!(difference(&conv2d(&x, &w, &case.config).unwrap(), &expected) < 1e-12);
        let (x, w) = (x.to_dtype(DType::F32).unwrap(), w.to_dtype(DType::F32).unwrap());
        prop_assert!(difference(&conv2d(&x, &w, &case.config).unwrap(), &expected) < 2e-5);
    }

    #[test]
    fn single_precision_gradients_follow_double(case in cases(), seed in 0u64..1000) {
        let (x, w) = (random(&case.x, seed), random(&case.w, seed + 1));
        let dy = random(conv2d(&x, &w, &case.config).unwrap().dims(), seed + 2);
        let expected = gradients(&x, &w, &dy, &case.config);
        let single = |t: &Tensor| t.to_dtype(DType::F32).unwrap();
        let found = gradients(&single(&x), &single(&w), &single(&dy), &case.config);
        prop_assert!(difference(&found[0], &expected[0]) < 5e-5);
        prop_assert!(difference(&found[1], &expected[1]) < 2e-4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn gradients_are_finite_differences(case in cases(), seed in 0u64..1000) {
        let (x, w) = (random(&case.x, seed), random(&case.w, seed + 1));
        check_gradients(&[x, w], |inputs| conv2d(&inputs[0], &inputs[1], &case.config), 1e-7);
    }

    #[test]
    fn frozen_is_the_plain_chain(case in cases(), seed in 0u64..1000, relu in any::<bool>(), add in any::<bool>()) {
        let (x, w) = (random(&case.x, seed), random(&case.w, seed + 1));
        let bias = random(&case.w[..1], seed + 2);
        let plain = conv2d(&x, &w, &case.config).unwrap().broadcast_add(&bias).unwrap();
        let residual = random(plain.dims(), seed + 3);
        let plain = if add { (plain + &residual).unwrap() } else { plain };
        let plain = if relu { plain.relu().unwrap() } else { plain };
        let frozen = FrozenConv2d::new(&w, Some(&bias), &case.config).unwrap();
        let run = |x: &Tensor, r: &Tensor| frozen.forward(x, add.then_some(r), relu);
        prop_assert!(difference(&run(&x, &residual).unwrap(), &plain) < 1e-12);
        match add {
            true => check_gradients(&[x, residual], |inputs| run(&inputs[0], &inputs[1]), 1e-6),
            false => check_gradients(&[x], |inputs| run(&inputs[0], &residual), 1e-6),
        }
    }
}

#[test]
fn inputs_and_gradients_may_be_strided() {
    let config = ConvConfig { padding: 1, ..Default::default() };
    let x = Var::from_tensor(&random(&[2, 3, 6, 5], 1)).unwrap();
    let w = Var::from_tensor(&random(&[4, 3, 3, 3], 2)).unwrap();
    let strided = x.as_tensor().permute((0, 2, 3, 1)).unwrap();
    let y = conv2d(&strided, w.as_tensor(), &config).unwrap();
    let expected = naive_conv2d(&strided, w.as_tensor(), &config);
    assert!(difference(&y, &expected) < 1e-12);
    let dy = random(&[4, 2, 6, 5], 3);
    let store = (y.permute((3, 0, 1, 2)).unwrap() * &dy).unwrap().sum_all().unwrap().backward().unwrap();
    let plain =
        gradients(&strided.contiguous().unwrap(), w.as_tensor(), &dy.permute((1, 2, 3, 0)).unwrap(), &config);
    let dx = store.get(&x).unwrap().permute((0, 2, 3, 1)).unwrap();
    assert!(difference(&dx, &plain[0]) < 1e-12);
    assert!(difference(store.get(&w).unwrap(), &plain[1]) < 1e-12);
}

#[test]
fn untracked_arguments_get_no_gradient() {
    let x = Var::from_tensor(&random(&[1, 4, 4, 2], 1)).unwrap();
    let w = random(&[3, 2, 3, 3], 2);
    let y = conv2d(x.as_tensor(), &w, &ConvConfig::default()).unwrap();
    let store = y.sum_all().unwrap().backward().unwrap();
    assert!(store.get(&x).is_some());
    assert!(store.get(&w).is_none());
}

#[test]
fn wrong_shapes_are_errors() {
    let x = random(&[1, 4, 4, 2], 1);
    let message =
        |w: &[usize], config: ConvConfig| conv2d(&x, &random(w, 2), &config).unwrap_err().to_string();
    assert!(message(&[3, 3, 3, 3], ConvConfig::default()).contains("2 channels"));
    assert!(message(&[3, 2, 5, 5], ConvConfig::default()).contains("does not fit"));
    assert!(message(&[3, 2, 3, 3], ConvConfig { stride: 0, ..Default::default() }).contains("stride"));
    let padded = |padding| ConvConfig { padding, ..Default::default() };
    assert!(message(&[3, 2, 3, 3], padded(usize::MAX / 2 + 1)).contains("does not fit"));
    assert!(message(&[3, 2, 3, 3], padded(1 << 40)).contains("too large"));
    assert!(
        message(&[3, 2, 3, 3], ConvConfig { groups: usize::MAX, ..Default::default() }).contains("groups")
    );
    assert!(
        conv2d(&x, &random(&[3, 2, 3, 3], 1).to_dtype(DType::F32).unwrap(), &ConvConfig::default()).is_err()
    );
}

#[test]
fn a_stride_beyond_the_image_leaves_one_pixel() {
    let config = ConvConfig { stride: usize::MAX / 4, padding: 1, ..Default::default() };
    let (x, w) = (random(&[2, 4, 5, 3], 1), random(&[4, 3, 3, 3], 2));
    assert!(difference(&conv2d(&x, &w, &config).unwrap(), &naive_conv2d(&x, &w, &config)) < 1e-12);
    check_gradients(&[x, w], |inputs| conv2d(&inputs[0], &inputs[1], &config), 1e-7);
}

#[test]
fn frozen_weights_serve_other_image_sizes() {
    let config = ConvConfig { stride: 2, padding: 1, ..Default::default() };
    let w = random(&[5, 3, 3, 3], 1);
    let frozen = FrozenConv2d::new(&w, None, &config).unwrap();
    for size in [1, 4, 7] {
        let x = random(&[2, size, size, 3], 2);
        assert!(
            difference(&frozen.forward(&x, None, false).unwrap(), &naive_conv2d(&x, &w, &config)) < 1e-12
        );
        check_gradients(&[x], |inputs| frozen.forward(&inputs[0], None, false), 1e-7);
    }
}
