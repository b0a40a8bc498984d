//! The cosine basis of filter frequency regularization (Lukasik et al. 2023), for kernels of any side.
//!
//! `B[k, l][m, n] = cos(π/N · k · (n + ½)) · cos(π/N · l · (m + ½))`, each map divided by its L1 norm. The first
//! index is the *horizontal* frequency (along columns n), the second the vertical one; `B[0, 0]` is the box filter.
//! The maps are orthogonal, so the inverse is a scaled transpose. The paper's kernels are square; for others each
//! axis has its own N.

use std::f64::consts::PI;

use candle_core::{DType, Device, Tensor};

use crate::{Error, Result};

/// The basis maps of a kernel, as many as it has pixels, and the way back from spatial weights to coefficients.
#[derive(Debug, Clone, PartialEq)]
pub struct DctBasis {
    height: usize,
    width: usize,
    maps: Vec<f64>,
    inverse: Vec<f64>,
}

impl DctBasis {
    /// The basis for `side × side` kernels.
    ///
    /// # Errors
    /// [`Error::Config`] if `side` is 0 or beyond 64 (the basis has `side⁴` entries).
    pub fn new(side: usize) -> Result<Self> {
        Self::rectangular(side, side)
    }

    /// The basis for kernels of `height` rows and `width` columns.
    ///
    /// # Errors
    /// As [`DctBasis::new`].
    pub fn rectangular(height: usize, width: usize) -> Result<Self> {
        if !(1..=64).contains(&height) || !(1..=64).contains(&width) {
            return Err(Error::config(format!(
                "a cosine basis needs kernel sides of 1 to 64, got {height}×{width}"
            )));
        }
        let cosine = |frequency: usize, position: usize, side: usize| {
            (PI / side as f64 * frequency as f64 * (position as f64 + 0.5)).cos()
        };
        let area = height * width;
        let mut maps = Vec::with_capacity(area * area);
        let mut inverse = vec![0.0; area * area];
        for frequency in 0..area {
            let (k, l) = (frequency / height, frequency % height);
            let pixel = |p: usize| cosine(k, p % width, width) * cosine(l, p / width, height);
            let map: Vec<f64> = (0..area).map(pixel).collect();
            let l1: f64 = map.iter().map(|v| v.abs()).sum();
            let energy: f64 = map.iter().map(|v| v * v).sum();
            for (pixel, value) in map.iter().enumerate() {
                // ⟨w, B⟩ / ‖B‖² with B = map / l1.
                inverse[pixel * area + frequency] = value * l1 / energy;
                maps.push(value / l1);
            }
        }
        Ok(Self { height, width, maps, inverse })
    }

    /// Rows of a kernel; the number of vertical frequencies.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns of a kernel; the number of horizontal frequencies.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The horizontal and the vertical frequency `(k, l)` of every map, in order.
    pub fn frequencies(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.height * self.width).map(|f| (f / self.height, f % self.height))
    }

    /// The basis maps, row-major `[k, l, m, n]`; equally the matrix `[frequency, pixel]` with frequency
    /// `k·height + l`, so that `weights = coefficients · maps`.
    pub fn maps(&self) -> &[f64] {
        &self.maps
    }

    /// The matrix `[pixel, frequency]`, so that `coefficients = weights · inverse`.
    pub fn inverse(&self) -> &[f64] {
        &self.inverse
    }

    /// [`maps`](Self::maps) as a square matrix.
    pub fn to_tensor(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        matrix(&self.maps, self.height * self.width, dtype, device)
    }

    /// [`inverse`](Self::inverse) as a square matrix.
    pub fn inverse_to_tensor(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        matrix(&self.inverse, self.height * self.width, dtype, device)
    }
}

fn matrix(values: &[f64], side: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, (side, side), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use proptest::prelude::*;

    #[test]
    #[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
    fn golden_basis_matches_the_published_code() {
        let folder = golden::folder();
        let mut seen = 0;
        for (name, expected) in golden::tensors(&folder, "case1_dct.safetensors") {
            let Some(rest) = name.strip_prefix("basis_") else { continue };
            let side: usize = rest.trim_end_matches("_f64").parse().expect("basis_N or basis_N_f64");
            let basis = DctBasis::new(side).unwrap();
            let expected = golden::values(&expected);
            assert_eq!(basis.maps().len(), expected.len());
            let tolerance = if rest.ends_with("_f64") { 1e-15 } else { 2e-7 };
            for (ours, theirs) in basis.maps().iter().zip(&expected) {
                assert!((ours - theirs).abs() <= tolerance, "{name}: {ours} against {theirs}");
            }
            seen += 1;
        }
        assert!(seen > 0, "the file lists no basis");
    }

    #[test]
    fn absurd_sides_are_refused() {
        assert!(DctBasis::new(0).is_err());
        assert!(DctBasis::new(1000).is_err());
    }

    proptest! {
        #[test]
        fn inverse_undoes_the_basis(
            height in 1usize..8,
            width in 1usize..8,
            weights in prop::collection::vec(-1.0f64..1.0, 49),
        ) {
            let basis = DctBasis::rectangular(height, width).unwrap();
            let area = height * width;
            let product = |row: &[f64], matrix: &[f64]| -> Vec<f64> {
                (0..area).map(|j| (0..area).map(|i| row[i] * matrix[i * area + j]).sum()).collect()
            };
            let back = product(&product(&weights[..area], basis.inverse()), basis.maps());
            for (a, b) in back.iter().zip(&weights) {
                prop_assert!((a - b).abs() < 1e-12);
            }
        }
    }
}
