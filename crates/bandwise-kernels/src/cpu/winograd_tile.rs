//! The transforms of Winograd's minimal filtering for 3×3 kernels (Lavin & Gray, arXiv 1509.09308): an `m × m` tile
//! of outputs costs `(m + 2)²` products per pair of channels instead of `9 m²`.

use std::marker::PhantomData;

use super::dense::{self, Dense};
use super::lanes::Lanes;
use crate::algorithm::Algorithm;

/// One tile of source pixels to its transform, all channels.
pub(crate) struct InputTransform<T> {
    /// A pointer to `channels` values for each pixel of the tile, row by row.
    pub pixels: *const *const T,
    pub channels: usize,
    /// Position `k` of the transform is stored at `out + k · stride`, `channels` values.
    pub out: *mut T,
    pub stride: usize,
}

/// One transformed tile to its target pixels: `relu(A' M A + bias + residual)`.
pub(crate) struct OutputTransform<T> {
    /// Position `k` of the transform lies at `sums + k · stride`, `channels` values.
    pub sums: *const T,
    pub stride: usize,
    pub channels: usize,
    /// A pointer for each pixel of the tile, row by row; null outside the image.
    pub outputs: *const *mut T,
    /// `channels` values, or null.
    pub bias: *const T,
    /// A pointer per pixel, or null.
    pub residuals: *const *const T,
    pub relu: bool,
    /// A pointer per pixel, or null: where the mask is not positive, 0 is stored.
    pub relu_masks: *const *const T,
}

/// The transforms of one tile size, for one instruction set.
pub(crate) struct Transforms<T> {
    /// F(2 × 2, 3 × 3) or F(4 × 4, 3 × 3).
    pub algorithm: Algorithm,
    /// Outputs per tile and direction.
    pub outputs: usize,
    /// Channels must be a multiple of this.
    pub lanes: usize,
    /// `B' d B` of `(outputs + 2)²` input pixels.
    /// # Safety
    /// The tile's pointers are valid for the sizes it states, and the machine has the instruction set.
    pub input: unsafe fn(&InputTransform<T>),
    /// `A y A'` of `outputs²` pixels of the output gradient: the adjoint of `output`.
    /// # Safety
    /// See `input`.
    pub adjoint: unsafe fn(&InputTransform<T>),
    /// `A' M A` with epilogue.
    /// # Safety
    /// See `input`.
    pub output: unsafe fn(&OutputTransform<T>),
    /// The product at one position.
    /// # Safety
    /// See `input`.
    pub product: unsafe fn(&Dense<T>),
    /// The kernel's transform, `outputs + 2` rows.
    pub kernel: &'static [[f64; 3]],
}

/// One-dimensional transforms: `M` outputs from `N = M + 2` inputs.
pub(crate) trait WinogradAlgorithm<const M: usize, const N: usize> {
    const KERNEL: [[f64; 3]; N];
    /// # Safety
    /// The machine has the lanes' instruction set (also below).
    unsafe fn input<L: Lanes>(d: [L; N]) -> [L; N];
    /// # Safety
    /// See `input`.
    unsafe fn output<L: Lanes>(m: [L; N]) -> [L; M];
    /// # Safety
    /// See `input`.
    unsafe fn adjoint<L: Lanes>(y: [L; M]) -> [L; N];
}

/// F(2, 3): only additions, as exact as the direct sum.
pub(crate) struct F2x3;

impl WinogradAlgorithm<2, 4> for F2x3 {
    const KERNEL: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

    #[inline(always)]
    unsafe fn input<L: Lanes>([a, b, c, d]: [L; 4]) -> [L; 4] {
        // SAFETY: the caller's promise (also below).
        unsafe { [a.sub(c), b.add(c), c.sub(b), b.sub(d)] }
    }

    #[inline(always)]
    unsafe fn output<L: Lanes>([a, b, c, d]: [L; 4]) -> [L; 2] {
        unsafe { [a.add(b).add(c), b.sub(c).sub(d)] }
    }

    #[inline(always)]
    unsafe fn adjoint<L: Lanes>([a, b]: [L; 2]) -> [L; 4] {
        unsafe { [a, a.add(b), a.sub(b), L::splat(0.0).sub(b)] }
    }
}

/// F(4, 3): about a digit less exact than the direct sum.
pub(crate) struct F4x3;

impl WinogradAlgorithm<4, 6> for F4x3 {
    const KERNEL: [[f64; 3]; 6] = [
        [0.25, 0.0, 0.0],
        [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
        [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
        [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
        [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
        [0.0, 0.0, 1.0],
    ];

    #[inline(always)]
    unsafe fn input<L: Lanes>([a, b, c, d, e, f]: [L; 6]) -> [L; 6] {
        unsafe {
            let (two, four, five) = (L::splat(2.0), L::splat(4.0), L::splat(5.0));
            let (even, odd) = (e.sub(c.mul(four)), d.sub(b.mul(four)));
            let (near, far) = (e.sub(c), d.sub(b).mul(two));
            [
                a.mul(four).sub(c.mul(five)).add(e),
                even.add(odd),
                even.sub(odd),
                near.add(far),
                near.sub(far),
                b.mul(four).sub(d.mul(five)).add(f),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<L: Lanes>([a, b, c, d, e, f]: [L; 6]) -> [L; 4] {
        unsafe {
            let (two, four, eight) = (L::splat(2.0), L::splat(4.0), L::splat(8.0));
            let (near, far) = (b.add(c), d.add(e));
            let (near_odd, far_odd) = (b.sub(c), d.sub(e));
            [
                a.add(near).add(far),
                near_odd.add(far_odd.mul(two)),
                near.add(far.mul(four)),
                near_odd.add(far_odd.mul(eight)).add(f),
            ]
        }
    }

    #[inline(always)]
    unsafe fn adjoint<L: Lanes>([a, b, c, d]: [L; 4]) -> [L; 6] {
        unsafe {
            let (two, four, eight) = (L::splat(2.0), L::splat(4.0), L::splat(8.0));
            let (even, odd) = (a.add(c), b.add(d));
            let (far_even, far_odd) = (a.add(c.mul(four)), b.mul(two).add(d.mul(eight)));
            [a, even.add(odd), even.sub(odd), far_even.add(far_odd), far_even.sub(far_odd), d]
        }
    }
}

/// A one-dimensional transform as a type: closures are not always inlined, and then lose the instruction set.
trait Spreading<const P: usize, const N: usize> {
    unsafe fn apply<L: Lanes>(values: [L; P]) -> [L; N];
}

struct Input<K>(PhantomData<K>);
struct Adjoint<K>(PhantomData<K>);

impl<K: WinogradAlgorithm<M, N>, const M: usize, const N: usize> Spreading<N, N> for (Input<K>, [(); M]) {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(values: [L; N]) -> [L; N] {
        // SAFETY: the caller's promise is passed on.
        unsafe { K::input(values) }
    }
}

impl<K: WinogradAlgorithm<M, N>, const M: usize, const N: usize> Spreading<M, N> for Adjoint<K> {
    #[inline(always)]
    unsafe fn apply<L: Lanes>(values: [L; M]) -> [L; N] {
        // SAFETY: the caller's promise is passed on.
        unsafe { K::adjoint(values) }
    }
}

/// Both directions of a spreading transform `[P; P] → [N; N]`.
#[inline(always)]
unsafe fn spread<L: Lanes, S: Spreading<P, N>, const P: usize, const N: usize>(
    tile: &InputTransform<L::Element>,
) {
    // SAFETY: pixels and out cover `channels` values each (caller's promise).
    unsafe {
        let zero = L::splat(0.0);
        for c in (0..tile.channels).step_by(L::COUNT) {
            let mut columns = [[zero; N]; P];
            for (x, column) in columns.iter_mut().enumerate() {
                let mut values = [zero; P];
                for (y, value) in values.iter_mut().enumerate() {
                    *value = L::load((*tile.pixels.add(y * P + x)).add(c));
                }
                *column = S::apply(values);
            }
            for y in 0..N {
                let mut values = [zero; P];
                for (value, column) in values.iter_mut().zip(&columns) {
                    *value = column[y];
                }
                for (x, value) in S::apply(values).into_iter().enumerate() {
                    value.store(tile.out.add((y * N + x) * tile.stride + c));
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn output<L: Lanes, K: WinogradAlgorithm<M, N>, const M: usize, const N: usize>(
    tile: &OutputTransform<L::Element>,
) {
    // SAFETY: sums, outputs, bias, residuals and ReLU masks cover `channels` values each (caller's promise).
    unsafe {
        let zero = L::splat(0.0);
        for c in (0..tile.channels).step_by(L::COUNT) {
            let mut columns = [[zero; M]; N];
            for (x, column) in columns.iter_mut().enumerate() {
                let mut sums = [zero; N];
                for (y, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load(tile.sums.add((y * N + x) * tile.stride + c));
                }
                *column = K::output(sums);
            }
            for y in 0..M {
                let mut row = [zero; N];
                for (value, column) in row.iter_mut().zip(&columns) {
                    *value = column[y];
                }
                for (x, mut value) in K::output(row).into_iter().enumerate() {
                    let out = *tile.outputs.add(y * M + x);
                    if out.is_null() {
                        continue;
                    }
                    if !tile.bias.is_null() {
                        value = value.add(L::load(tile.bias.add(c)));
                    }
                    if !tile.residuals.is_null() {
                        value = value.add(L::load((*tile.residuals.add(y * M + x)).add(c)));
                    }
                    if tile.relu {
                        value = value.rectify();
                    }
                    if !tile.relu_masks.is_null() {
                        value = value.where_positive(L::load((*tile.relu_masks.add(y * M + x)).add(c)));
                    }
                    value.store(out.add(c));
                }
            }
        }
    }
}

/// A table of transforms: tile size, lanes, and the instruction set to enable.
macro_rules! transforms {
    ($table:ident, $size:ident, $name:ident, $m:literal, $n:literal, $product:ident, $lanes:ty $(, $feature:literal)?) => {
        pub(crate) const $table: Transforms<f32> = {
            $(#[target_feature(enable = $feature)])?
            unsafe fn input_tile(tile: &InputTransform<f32>) {
                // SAFETY (all three): the caller's promise is passed on.
                unsafe { spread::<$lanes, (Input<$size>, [(); $m]), $n, $n>(tile) }
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn adjoint_tile(tile: &InputTransform<f32>) {
                unsafe { spread::<$lanes, Adjoint<$size>, $m, $n>(tile) }
            }
            $(#[target_feature(enable = $feature)])?
            unsafe fn output_tile(tile: &OutputTransform<f32>) {
                unsafe { output::<$lanes, $size, $m, $n>(tile) }
            }
            Transforms {
                algorithm: Algorithm::$name,
                outputs: $m,
                lanes: <$lanes>::COUNT,
                input: input_tile,
                adjoint: adjoint_tile,
                output: output_tile,
                product: dense::$product,
                kernel: &<$size as WinogradAlgorithm<$m, $n>>::KERNEL,
            }
        };
    };
}

transforms!(PORTABLE_F2X3, F2x3, WinogradF2x3, 2, 4, portable, super::lanes::FourLanes);
transforms!(PORTABLE_F4X3, F4x3, WinogradF4x3, 4, 6, portable, super::lanes::FourLanes);
#[cfg(target_arch = "x86_64")]
transforms!(AVX2_F2X3, F2x3, WinogradF2x3, 2, 4, avx2, std::arch::x86_64::__m256, "avx2,fma");
#[cfg(target_arch = "x86_64")]
transforms!(AVX2_F4X3, F4x3, WinogradF4x3, 4, 6, avx2, std::arch::x86_64::__m256, "avx2,fma");
#[cfg(target_arch = "x86_64")]
transforms!(AVX512_F2X3, F2x3, WinogradF2x3, 2, 4, avx512, std::arch::x86_64::__m512, "avx512f");
#[cfg(target_arch = "x86_64")]
transforms!(AVX512_F4X3, F4x3, WinogradF4x3, 4, 6, avx512, std::arch::x86_64::__m512, "avx512f");
