//! Batch norm, pooling, ReLU and the sign step: definitions and gradients.

mod common;

use bandwise_kernels::*;
use candle_core::{DType, Device, Tensor, Var};
use common::{check_gradients, difference, random, values};
use proptest::prelude::*;

const EPSILON: f64 = 1e-5;

/// Batch norm by its definition, from candle's operators.
fn definition(x: &Tensor, gamma: &Tensor, beta: &Tensor) -> (Tensor, Vec<f64>, Vec<f64>) {
    let channels = gamma.dims()[0];
    let flat = x.reshape(((), channels)).unwrap();
    let mean = flat.mean_keepdim(0).unwrap();
    let centered = flat.broadcast_sub(&mean).unwrap();
    let variance = centered.sqr().unwrap().mean_keepdim(0).unwrap();
    let normal = centered.broadcast_div(&(&variance + EPSILON).unwrap().sqrt().unwrap()).unwrap();
    let y = normal.broadcast_mul(gamma).unwrap().broadcast_add(beta).unwrap();
    (y.reshape(x.shape()).unwrap(), values(&mean), values(&variance))
}

fn single(t: &Tensor) -> Tensor {
    t.to_dtype(DType::F32).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn batch_norm_train_is_its_definition(
        b in 1usize..4, h in 1usize..6, c in 1usize..40, flat in any::<bool>(), relu in any::<bool>(),
        add in any::<bool>(), seed in 0u64..1000,
    ) {
        let shape: Vec<usize> = if flat { vec![b + 1, c] } else { vec![b, h, h + 1, c] };
        // a large mean must not cost accuracy
        let x = (random(&shape, seed) + 50.0).unwrap();
        let (gamma, beta) = (random(&[c], seed + 1), random(&[c], seed + 2));
        let residual = random(&shape, seed + 3);
        let (expected, mean, variance) = definition(&x, &gamma, &beta);
        let expected = if add { (expected + &residual).unwrap() } else { expected };
        let expected = if relu { expected.relu().unwrap() } else { expected };
        let (y, statistics) =
            batch_norm_train(&x, &gamma, &beta, EPSILON, add.then_some(&residual), relu).unwrap();
        prop_assert!(difference(&y, &expected) < 1e-9);
        prop_assert!(values(&statistics.mean).iter().zip(&mean).all(|(a, b)| (a - b).abs() < 1e-11));
        prop_assert!(values(&statistics.variance).iter().zip(&variance).all(|(a, b)| (a - b).abs() < 1e-11));
        prop_assert_eq!(statistics.count, x.elem_count() / c);
        let run = |t: &[Tensor]| {
            Ok(batch_norm_train(&t[0], &t[1], &t[2], EPSILON, add.then(|| &t[3]), relu)?.0)
        };
        let mut inputs = vec![x, gamma, beta];
        if add { inputs.push(residual); }
        check_gradients(&inputs, run, 2e-4);
    }

    #[test]
    fn batch_norm_eval_is_affine(c in 1usize..40, relu in any::<bool>(), add in any::<bool>(), seed in 0u64..1000) {
        let x = random(&[2, 3, 2, c], seed);
        let (gamma, beta, mean) = (random(&[c], seed + 1), random(&[c], seed + 2), random(&[c], seed + 3));
        let variance = random(&[c], seed + 4).sqr().unwrap();
        let residual = random(&[2, 3, 2, c], seed + 5);
        let deviation = (&variance + EPSILON).unwrap().sqrt().unwrap();
        let expected = x.broadcast_sub(&mean).unwrap().broadcast_div(&deviation).unwrap();
        let expected = expected.broadcast_mul(&gamma).unwrap().broadcast_add(&beta).unwrap();
        let expected = if add { (expected + &residual).unwrap() } else { expected };
        let expected = if relu { expected.relu().unwrap() } else { expected };
        let run = |t: &[Tensor]| {
            batch_norm_eval(&t[0], &t[1], &t[2], &mean, &variance, EPSILON, add.then(|| &t[3]), relu)
        };
        let mut inputs = vec![x, gamma, beta];
        if add { inputs.push(residual); }
        prop_assert!(difference(&run(&inputs).unwrap(), &expected) < 1e-10);
        check_gradients(&inputs, run, 1e-4);
    }

    #[test]
    fn batch_norm_tangent_is_the_directional_derivative(c in 1usize..20, seed in 0u64..1000) {
        let shape = [2, 3, 4, c];
        let (x, tangent) = (random(&shape, seed), random(&shape, seed + 1));
        let (gamma, beta) = (random(&[c], seed + 2), random(&[c], seed + 3));
        let at = |delta: f64| {
            let moved = (&x + (&tangent * delta).unwrap()).unwrap();
            batch_norm_train(&moved, &gamma, &beta, EPSILON, None, false).unwrap().0
        };
        let expected = ((at(1e-6) - at(-1e-6)).unwrap() / 2e-6).unwrap();
        let found = batch_norm_train_tangent(&x, &tangent, &gamma, EPSILON).unwrap();
        prop_assert!(difference(&found, &expected) < 1e-7);
        check_gradients(&[x, tangent, gamma], |t| batch_norm_train_tangent(&t[0], &t[1], &t[2], EPSILON), 1e-5);
    }

    #[test]
    fn pooling_gradients_are_finite_differences(
        h in 3usize..9, w in 3usize..9, c in 1usize..5, k in 1usize..4, s in 1usize..4, p in 0usize..2, seed in 0u64..1000,
    ) {
        let p = p.min(k / 2);
        let x = random(&[2, h, w, c], seed);
        check_gradients(std::slice::from_ref(&x), |t| max_pool2d(&t[0], k, s, p), 1e-5);
        check_gradients(std::slice::from_ref(&x), |t| avg_pool2d(&t[0], k, s, p), 1e-7);
        check_gradients(std::slice::from_ref(&x), |t| global_avg_pool(&t[0]), 1e-7);
        check_gradients(std::slice::from_ref(&x), |t| max_pool2d_tangent(&x, &t[0], k, s, p), 1e-7);
        // the tangent along x itself is the pooled value: pooling is homogeneous
        let pooled = max_pool2d(&x, k, s, p).unwrap();
        prop_assert!(difference(&pooled, &max_pool2d_tangent(&x, &x, k, s, p).unwrap()) == 0.0);
        if p == 0 {
            let channels_first = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
            let expected = channels_first.max_pool2d_with_stride(k, s).unwrap().permute((0, 2, 3, 1)).unwrap();
            prop_assert!(difference(&pooled, &expected) == 0.0);
            let expected = channels_first.avg_pool2d_with_stride(k, s).unwrap().permute((0, 2, 3, 1)).unwrap();
            prop_assert!(difference(&avg_pool2d(&x, k, s, p).unwrap(), &expected) < 1e-12);
        }
    }

    #[test]
    fn sign_step_stays_in_the_ball(n in 1usize..2000, seed in 0u64..1000) {
        let origin = random(&[n], seed).abs().unwrap();
        let x = (&origin + (random(&[n], seed + 1) * 0.03).unwrap()).unwrap().clamp(0.0, 1.0).unwrap();
        let gradient = random(&[n], seed + 2);
        let (step, epsilon) = (0.01, 0.03);
        let moved = (&x + (gradient.sign().unwrap() * step).unwrap()).unwrap();
        let offset = (moved - &origin).unwrap().clamp(-epsilon, epsilon).unwrap();
        let expected = (&origin + offset).unwrap().clamp(0.0, 1.0).unwrap();
        let found = sign_step(&x, &gradient, &origin, step, epsilon).unwrap();
        prop_assert!(difference(&found, &expected) < 1e-15);
    }
}

#[test]
fn single_precision_batch_norm_follows_double() {
    let shape = [4, 16, 16, 48];
    let (x, residual, dy) = (random(&shape, 1), random(&shape, 2), random(&shape, 5));
    let (gamma, beta) = (random(&[48], 3), random(&[48], 4));
    let run = |convert: fn(&Tensor) -> Tensor| {
        let v: Vec<Var> =
            [&x, &residual, &gamma, &beta].iter().map(|t| Var::from_tensor(&convert(t)).unwrap()).collect();
        let (y, _) = batch_norm_train(&v[0], &v[2], &v[3], EPSILON, Some(&v[1]), true).unwrap();
        let store = (&y * convert(&dy)).unwrap().sum_all().unwrap().backward().unwrap();
        let mut all = vec![y];
        all.extend(v.iter().map(|v| store.get(v).unwrap().clone()));
        all
    };
    for (i, (a, b)) in run(single).iter().zip(run(Tensor::clone)).enumerate() {
        // gamma and beta gradients sum a thousand values
        let tolerance = if i >= 3 { 1e-4 } else { 1e-5 };
        assert!(difference(a, &b) < tolerance, "output {i}: {}", difference(a, &b));
    }
}

#[test]
fn relu_has_no_gradient_at_zero_and_keeps_nan() {
    let x = Var::from_slice(&[-1.0f32, 0.0, 2.0], 3, &Device::Cpu).unwrap();
    let store = relu(x.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
    assert_eq!(store.get(&x).unwrap().to_vec1::<f32>().unwrap(), [0.0, 0.0, 1.0]);
    let nan = Tensor::new(&[f32::NAN], &Device::Cpu).unwrap();
    assert!(relu(&nan).unwrap().to_vec1::<f32>().unwrap()[0].is_nan());
}

#[test]
fn relu_tangent_masks_by_the_value() {
    let y = Tensor::new(&[0.0f64, 3.0, 0.5], &Device::Cpu).unwrap();
    let tangent = Tensor::new(&[5.0f64, -1.0, 2.0], &Device::Cpu).unwrap();
    assert_eq!(values(&relu_tangent(&y, &tangent).unwrap()), [0.0, -1.0, 2.0]);
    check_gradients(&[tangent], |t| relu_tangent(&y, &t[0]), 1e-9);
}

#[test]
fn equal_maxima_send_the_gradient_to_the_first() {
    let x = Var::from_tensor(&Tensor::ones((1, 2, 2, 1), DType::F32, &Device::Cpu).unwrap()).unwrap();
    let store = max_pool2d(x.as_tensor(), 2, 2, 0).unwrap().sum_all().unwrap().backward().unwrap();
    assert_eq!(store.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(), [1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn sign_of_zero_gradient_does_not_move() {
    let x = Tensor::new(&[0.5f32], &Device::Cpu).unwrap();
    let zero = Tensor::new(&[0.0f32], &Device::Cpu).unwrap();
    assert_eq!(sign_step(&x, &zero, &x, 0.1, 0.2).unwrap().to_vec1::<f32>().unwrap(), [0.5]);
}

#[test]
fn wrong_shapes_are_errors() {
    let x = random(&[2, 4, 4, 3], 1);
    let c = random(&[4], 2);
    assert!(batch_norm_train(&x, &c, &c, EPSILON, None, false).is_err());
    assert!(max_pool2d(&x, 5, 1, 0).is_err());
    assert!(max_pool2d(&x, 2, 1, 2).is_err());
    assert!(relu_tangent(&x, &c).is_err());
    assert!(sign_step(&x, &x, &c, 0.1, 0.1).is_err());
}
