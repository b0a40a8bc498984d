//! 2-D transforms of plain arrays.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use candle_core::WithDType;
use rustfft::num_complex::Complex;
use rustfft::num_traits::Float;
use rustfft::{Fft, FftNum, FftPlanner};

/// Scalars that can be transformed: `f32` and `f64`.
pub trait Real: FftNum + Float + WithDType {
    /// The plan for `height × width`, made once per size and kept.
    fn plan(height: usize, width: usize) -> Arc<Fft2<Self>>;

    /// The number `value`.
    fn real(value: f64) -> Self {
        <Self as WithDType>::from_f64(value)
    }
}

type Plans<T> = LazyLock<Mutex<HashMap<(usize, usize), Arc<Fft2<T>>>>>;

fn cached<T: Real>(plans: &Plans<T>, height: usize, width: usize) -> Arc<Fft2<T>> {
    let mut plans = plans.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    plans.entry((height, width)).or_insert_with(|| Arc::new(Fft2::new(height, width))).clone()
}

impl Real for f32 {
    fn plan(height: usize, width: usize) -> Arc<Fft2<Self>> {
        static PLANS: Plans<f32> = LazyLock::new(Default::default);
        cached(&PLANS, height, width)
    }
}

impl Real for f64 {
    fn plan(height: usize, width: usize) -> Arc<Fft2<Self>> {
        static PLANS: Plans<f64> = LazyLock::new(Default::default);
        cached(&PLANS, height, width)
    }
}

/// A transform plan for one image size; cheap to share between threads.
pub struct Fft2<T> {
    height: usize,
    width: usize,
    rows: Arc<dyn Fft<T>>,
    columns: Arc<dyn Fft<T>>,
    rows_inverse: Arc<dyn Fft<T>>,
    columns_inverse: Arc<dyn Fft<T>>,
}

/// Working memory of [`Fft2`]; one per thread.
pub struct Scratch<T> {
    plane: Vec<Complex<T>>,
    line: Vec<Complex<T>>,
}

impl<T: FftNum> Fft2<T> {
    fn new(height: usize, width: usize) -> Self {
        let mut planner = FftPlanner::new();
        Self {
            height,
            width,
            rows: planner.plan_fft_forward(width),
            columns: planner.plan_fft_forward(height),
            rows_inverse: planner.plan_fft_inverse(width),
            columns_inverse: planner.plan_fft_inverse(height),
        }
    }

    /// Working memory for this plan.
    pub fn scratch(&self) -> Scratch<T> {
        let zero = Complex::new(T::zero(), T::zero());
        let line = [&self.rows, &self.columns, &self.rows_inverse, &self.columns_inverse]
            .map(|fft| fft.get_inplace_scratch_len())
            .into_iter()
            .max();
        Scratch { plane: vec![zero; self.height * self.width], line: vec![zero; line.unwrap_or(0)] }
    }

    /// Un-normalized forward transform of one plane `[height, width]` in place.
    pub fn forward(&self, plane: &mut [Complex<T>], scratch: &mut Scratch<T>) {
        self.forward_transposed(plane, scratch);
        transpose(plane, &mut scratch.plane, self.width, self.height);
        plane.copy_from_slice(&scratch.plane);
    }

    /// Inverse transform of one plane in place, divided by `height · width`.
    pub fn inverse(&self, plane: &mut [Complex<T>], scratch: &mut Scratch<T>) {
        transpose(plane, &mut scratch.plane, self.height, self.width);
        let scale = T::one() / T::from_usize(self.height * self.width).expect("sizes fit a float");
        scratch.plane.iter_mut().for_each(|value| *value = *value * scale);
        plane.copy_from_slice(&scratch.plane);
        self.inverse_transposed(plane, scratch);
    }

    /// Like [`forward`](Self::forward), but leaves the spectrum transposed (`[width, height]`), which saves a pass.
    pub fn forward_transposed(&self, plane: &mut [Complex<T>], scratch: &mut Scratch<T>) {
        self.rows.process_with_scratch(plane, &mut scratch.line);
        transpose(plane, &mut scratch.plane, self.height, self.width);
        self.columns.process_with_scratch(&mut scratch.plane, &mut scratch.line);
        plane.copy_from_slice(&scratch.plane);
    }

    /// The inverse, from a transposed spectrum, *not* divided by `height · width`.
    pub fn inverse_transposed(&self, plane: &mut [Complex<T>], scratch: &mut Scratch<T>) {
        self.columns_inverse.process_with_scratch(plane, &mut scratch.line);
        transpose(plane, &mut scratch.plane, self.width, self.height);
        self.rows_inverse.process_with_scratch(&mut scratch.plane, &mut scratch.line);
        plane.copy_from_slice(&scratch.plane);
    }
}

/// `[rows, columns]` to `[columns, rows]`, in blocks that stay in the first-level cache.
fn transpose<T: Copy>(from: &[T], to: &mut [T], rows: usize, columns: usize) {
    const BLOCK: usize = 16;
    for row_start in (0..rows).step_by(BLOCK) {
        for column_start in (0..columns).step_by(BLOCK) {
            for row in row_start..(row_start + BLOCK).min(rows) {
                for column in column_start..(column_start + BLOCK).min(columns) {
                    to[column * rows + row] = from[row * columns + column];
                }
            }
        }
    }
}

/// Un-normalized spectrum of one real plane `[height, width]`.
pub fn spectrum<T: Real>(image: &[T], height: usize, width: usize) -> Vec<Complex<T>> {
    let plan = T::plan(height, width);
    let mut plane: Vec<Complex<T>> = image.iter().map(|&x| Complex::new(x, T::real(0.0))).collect();
    plan.forward(&mut plane, &mut plan.scratch());
    plane
}

/// Real part of the inverse transform of one plane.
pub fn inverse_spectrum<T: Real>(spectrum: &[Complex<T>], height: usize, width: usize) -> Vec<T> {
    let plan = T::plan(height, width);
    let mut plane = spectrum.to_vec();
    plan.inverse(&mut plane, &mut plan.scratch());
    plane.iter().map(|z| z.re).collect()
}
