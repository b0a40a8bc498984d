//! Fourier basis images: the perturbations of a Fourier heat map (Yin et al. 2019).

use std::f64::consts::TAU;

/// `cos(2π(i·row/H + j·column/W))`, scaled to unit L2 norm, row-major `[height, width]`.
///
/// `i` and `j` are signed frequencies; `(i, j)` and `(−i, −j)` give the same image.
pub fn fourier_basis(height: usize, width: usize, i: i64, j: i64) -> Vec<f64> {
    // Reduced to one period first: large products would lose digits in the cosine.
    let phase = |frequency: i64, position: usize, side: usize| {
        (frequency * position as i64).rem_euclid(side as i64) as f64 / side as f64
    };
    let mut image: Vec<f64> = (0..height * width)
        .map(|p| (TAU * (phase(i, p / width, height) + phase(j, p % width, width))).cos())
        .collect();
    let norm = image.iter().map(|v| v * v).sum::<f64>().sqrt();
    image.iter_mut().for_each(|v| *v /= norm);
    image
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    #[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
    fn golden_basis_images() {
        let folder = golden::folder();
        let mut seen = 0;
        for (name, expected) in golden::tensors(&folder, "case7_spectral.safetensors") {
            let Some(frequencies) = name.strip_prefix("basis_") else { continue };
            let (i, j) = frequencies.split_once('_').expect("basis_i_j");
            let (height, width) = expected.dims2().unwrap();
            let ours = fourier_basis(height, width, i.parse().unwrap(), j.parse().unwrap());
            for (ours, theirs) in ours.iter().zip(golden::values(&expected)) {
                assert!((ours - theirs).abs() < 1e-14, "{name}");
            }
            seen += 1;
        }
        assert!(seen > 0);
    }

    #[test]
    fn opposite_frequencies_give_the_same_image() {
        let (a, b) = (fourier_basis(9, 12, 2, -5), fourier_basis(9, 12, -2, 5));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-14));
    }
}
