use candle_core::{DType, Device, Tensor, Var};
use proptest::prelude::*;

use super::transform::{inverse_spectrum, spectrum};
use super::*;
use crate::golden;

fn nhwc(tensor: &Tensor) -> Tensor {
    tensor.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
}

fn random(shape: &[usize], dtype: DType) -> Tensor {
    use rand::Rng;
    let mut stream = crate::random::stream(7, &[shape.len() as u64]);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| stream.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_filters_and_their_gradients() {
    let folder = golden::folder();
    let tensors = golden::tensors(&folder, "case4_masks.safetensors");
    let mut seen = 0;
    for (name, y) in &tensors {
        let Some(prefix) = name.strip_suffix(".y") else { continue };
        let x = Var::from_tensor(&nhwc(&tensors[&format!("{prefix}.x")])).unwrap();
        let mask = &tensors[&format!("{prefix}.mask")];
        let (_, _, height, width) = mask.dims4().unwrap();
        let mask = Var::from_tensor(&mask.reshape((height, width)).unwrap()).unwrap();
        let ours = filter2(&x, &mask).unwrap();
        assert!(golden::relative_l2(&ours, &nhwc(y)) < 1e-5, "{name}");
        let from_spectra = ImageSpectra::new(&x).unwrap().filter(&mask).unwrap();
        assert!(golden::relative_l2(&from_spectra, &nhwc(y)) < 1e-5, "{name}");
        let Some(up) = tensors.get(&format!("{prefix}.up")) else { continue };
        let expected = tensors[&format!("{prefix}.gmask")].reshape((height, width)).unwrap();
        let gradients = (ours * nhwc(up)).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(golden::relative_l2(gradients.get(&mask).unwrap(), &expected) < 1e-5);
        let grad_x = nhwc(&tensors[&format!("{prefix}.gx")]);
        assert!(golden::relative_l2(gradients.get(&x).unwrap(), &grad_x) < 1e-5);
        let gradients = (from_spectra * nhwc(up)).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(golden::relative_l2(gradients.get(&mask).unwrap(), &expected) < 1e-5);
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn operators_agree_with_fourier_matrices() {
    for (shape, dtype, tolerance) in [
        ([3, 6, 8, 3], DType::F32, 1e-6),
        ([2, 5, 7, 2], DType::F64, 1e-13),
        ([1, 1, 9, 1], DType::F64, 1e-13),
    ] {
        let x = random(&shape, dtype);
        let (re, im) = dft2(&x).unwrap();
        let (re_m, im_m) = matrix::dft2(&x).unwrap();
        assert!(golden::max_abs_difference(&re, &re_m) < 100.0 * tolerance);
        assert!(golden::max_abs_difference(&im, &im_m) < 100.0 * tolerance);
        // Not Hermitian: both must take the real part.
        let (re, im) = (random(&shape, dtype), (random(&shape, dtype) * 0.5).unwrap().roll(1, 2).unwrap());
        let (a, b) = (idft2(&re, &im).unwrap(), matrix::idft2(&re, &im).unwrap());
        assert!(golden::max_abs_difference(&a, &b) < tolerance);
    }
}

/// Gradients of `Σ up·f(v)` by the operators against those of the Fourier-matrix form.
#[test]
fn backward_is_the_adjoint() {
    let shape = [2, 6, 5, 3];
    let x = Var::from_tensor(&random(&shape, DType::F64)).unwrap();
    let up = random(&[2, 2, 6, 5, 3], DType::F64);
    let loss = |(re, im): (Tensor, Tensor)| {
        ((re * up.get(0).unwrap()).unwrap() + (im * up.get(1).unwrap()).unwrap()).unwrap().sum_all().unwrap()
    };
    let ours = loss(dft2(&x).unwrap()).backward().unwrap();
    let theirs = loss(matrix::dft2(&x).unwrap()).backward().unwrap();
    assert!(golden::relative_l2(ours.get(&x).unwrap(), theirs.get(&x).unwrap()) < 1e-12);

    let im = Var::from_tensor(&random(&[2, 6, 5, 3], DType::F64).roll(2, 1).unwrap()).unwrap();
    let loss = |y: Tensor| (y * up.get(0).unwrap()).unwrap().sum_all().unwrap();
    let ours = loss(idft2(&x, &im).unwrap()).backward().unwrap();
    let theirs = loss(matrix::idft2(&x, &im).unwrap()).backward().unwrap();
    for variable in [&x, &im] {
        assert!(golden::relative_l2(ours.get(variable).unwrap(), theirs.get(variable).unwrap()) < 1e-12);
    }
}

#[test]
fn per_image_masks_equal_one_filter_per_image() {
    for channels in [1, 3, 4] {
        let x = Var::from_tensor(&random(&[3, 6, 5, channels], DType::F64)).unwrap();
        let masks = Var::from_tensor(&random(&[3, 6, 5], DType::F64)).unwrap();
        let up = random(&[3, 6, 5, channels], DType::F64);
        let together = filter2(&x, &masks).unwrap();
        let spectra = ImageSpectra::new(&x).unwrap().filter(&masks).unwrap();
        let gradients = (&together * &up).unwrap().sum_all().unwrap().backward().unwrap();
        let spectra_gradients = (&spectra * &up).unwrap().sum_all().unwrap().backward().unwrap();
        for i in 0..3 {
            let image = Var::from_tensor(&x.narrow(0, i, 1).unwrap()).unwrap();
            let mask = Var::from_tensor(&masks.get(i).unwrap()).unwrap();
            let (re, im) = matrix::dft2(&image).unwrap();
            let gain = mask.unsqueeze(2).unwrap();
            let alone =
                matrix::idft2(&re.broadcast_mul(&gain).unwrap(), &im.broadcast_mul(&gain).unwrap()).unwrap();
            assert!(golden::relative_l2(&together.narrow(0, i, 1).unwrap(), &alone) < 1e-12);
            assert!(golden::relative_l2(&spectra.narrow(0, i, 1).unwrap(), &alone) < 1e-12);
            let own = (alone * up.narrow(0, i, 1).unwrap()).unwrap().sum_all().unwrap().backward().unwrap();
            let expected = own.get(&mask).unwrap();
            assert!(golden::relative_l2(&gradients.get(&masks).unwrap().get(i).unwrap(), expected) < 1e-12);
            assert!(
                golden::relative_l2(&spectra_gradients.get(&masks).unwrap().get(i).unwrap(), expected)
                    < 1e-12
            );
            let grad_x = gradients.get(&x).unwrap().narrow(0, i, 1).unwrap();
            assert!(golden::relative_l2(&grad_x, own.get(&image).unwrap()) < 1e-12);
        }
    }
}

#[test]
fn masks_of_other_sizes_are_refused() {
    let x = random(&[2, 4, 4, 1], DType::F32);
    assert!(filter2(&x, &random(&[3, 4, 4], DType::F32)).is_err());
    assert!(filter2(&x, &random(&[4, 5], DType::F32)).is_err());
}

fn image() -> impl Strategy<Value = (usize, usize, Vec<f64>)> {
    (1usize..13, 1usize..13)
        .prop_flat_map(|(h, w)| (Just(h), Just(w), prop::collection::vec(-1.0f64..1.0, h * w)))
}

proptest! {
    #[test]
    fn inverse_undoes_the_transform((height, width, image) in image()) {
        let back = inverse_spectrum(&spectrum(&image, height, width), height, width);
        prop_assert!(back.iter().zip(&image).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn parseval((height, width, image) in image()) {
        let energy: f64 = image.iter().map(|v| v * v).sum();
        let power: f64 = spectrum(&image, height, width).iter().map(|z| z.norm_sqr()).sum();
        prop_assert!((power / (height * width) as f64 - energy).abs() < 1e-10 * (1.0 + energy));
    }

    #[test]
    fn spectra_are_linear((height, width, image) in image(), scale in -3.0f64..3.0) {
        let other: Vec<f64> = image.iter().map(|v| v.cos()).collect();
        let mixed: Vec<f64> = image.iter().zip(&other).map(|(a, b)| scale * a + b).collect();
        let (a, b, c) = (spectrum(&image, height, width), spectrum(&other, height, width), spectrum(&mixed, height, width));
        prop_assert!((0..a.len()).all(|k| (a[k] * scale + b[k] - c[k]).norm() < 1e-10));
    }

    #[test]
    fn binary_masks_are_idempotent((height, width, image) in image(), radius in 0.0f64..8.0) {
        let x = Tensor::from_vec(image, (1, height, width, 1), &Device::Cpu).unwrap();
        let mask = Tensor::from_vec(crate::spectral::bands::low_pass(height, width, radius), (height, width), &Device::Cpu).unwrap();
        let once = filter2(&x, &mask).unwrap();
        let twice = filter2(&once, &mask).unwrap();
        prop_assert!(golden::max_abs_difference(&once, &twice) < 1e-12);
    }
}
