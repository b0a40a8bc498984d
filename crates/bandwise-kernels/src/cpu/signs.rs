//! Which values are positive, one bit each: all that the gradient of a ReLU needs, in a thirty-second of the memory.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::detect::Detected;
use crate::element::Element;
use crate::memory::{SharedMut, produce};

/// Values per word.
const WORD: usize = 64;
/// Words per task.
const PIECE: usize = 1 << 10;

/// One bit per value.
pub(crate) struct Signs {
    words: Vec<u64>,
    length: usize,
}

/// The two directions for one number type and instruction set.
pub(crate) struct SignKernels<T> {
    /// Which of up to 64 values are positive.
    /// # Safety
    /// The machine has the instruction set.
    pub pack: unsafe fn(&[T]) -> u64,
    /// 1 where the bit is set, else 0, for up to 64 values.
    /// # Safety
    /// The machine has the instruction set.
    pub unpack: unsafe fn(u64, &mut [MaybeUninit<T>]),
}

impl<T: Element> SignKernels<T> {
    pub(crate) const PORTABLE: Self = Self { pack: pack::<T>, unpack: unpack::<T> };
}

fn pack<T: Element>(values: &[T]) -> u64 {
    values.iter().enumerate().fold(0, |word, (bit, &value)| word | u64::from(value > T::ZERO) << bit)
}

fn unpack<T: Element>(word: u64, values: &mut [MaybeUninit<T>]) {
    for (bit, value) in values.iter_mut().enumerate() {
        value.write(if word >> bit & 1 == 1 { T::ONE } else { T::ZERO });
    }
}

impl Signs {
    /// No values.
    pub(crate) const fn none() -> Self {
        Self { words: Vec::new(), length: 0 }
    }

    pub(crate) fn new<T: Detected>(values: &[T]) -> Self {
        let kernels = &T::kernels().signs;
        let mut words = vec![0; values.len().div_ceil(WORD)];
        words.par_chunks_mut(PIECE).zip(values.par_chunks(PIECE * WORD)).for_each(|(words, values)| {
            for (word, values) in words.iter_mut().zip(values.chunks(WORD)) {
                // SAFETY: the table comes from feature detection.
                *word = unsafe { (kernels.pack)(values) };
            }
        });
        Self { words, length: values.len() }
    }

    /// 1 where the value was positive, else 0.
    pub(crate) fn mask<T: Detected>(&self) -> Vec<T> {
        let kernels = &T::kernels().signs;
        let fill = |out: &SharedMut<'_, T>| {
            self.words.par_chunks(PIECE).enumerate().for_each(|(piece, words)| {
                let start = piece * PIECE * WORD;
                // SAFETY: pieces are disjoint and inside the buffer; the loop writes all of theirs.
                let out = unsafe { out.slice(start, (words.len() * WORD).min(self.length - start)) };
                for (&word, out) in words.iter().zip(out.chunks_mut(WORD)) {
                    // SAFETY: the table comes from feature detection.
                    unsafe { (kernels.unpack)(word, out) };
                }
            });
        };
        // SAFETY: the pieces cover the buffer.
        unsafe { produce(self.length, fill) }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512 {
    use std::arch::x86_64::*;
    use std::mem::MaybeUninit;

    use super::{SignKernels, WORD};

    pub(crate) const KERNELS: SignKernels<f32> = SignKernels { pack, unpack };

    #[target_feature(enable = "avx512f")]
    unsafe fn pack(values: &[f32]) -> u64 {
        if values.len() < WORD {
            return super::pack(values);
        }
        let mut word = 0;
        for (part, values) in values.chunks_exact(16).enumerate() {
            // SAFETY: sixteen values are readable.
            let values = unsafe { _mm512_loadu_ps(values.as_ptr()) };
            let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(values, _mm512_setzero_ps());
            word |= u64::from(positive) << (16 * part);
        }
        word
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn unpack(word: u64, values: &mut [MaybeUninit<f32>]) {
        if values.len() < WORD {
            return super::unpack(word, values);
        }
        for (part, values) in values.chunks_exact_mut(16).enumerate() {
            let ones = _mm512_maskz_mov_ps((word >> (16 * part)) as __mmask16, _mm512_set1_ps(1.0));
            // SAFETY: sixteen values are writable.
            unsafe { _mm512_storeu_ps(values.as_mut_ptr().cast(), ones) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positive_values_pass_the_mask() {
        for length in [0, 1, 63, 64, 65, 70_000] {
            let values: Vec<f32> = (0..length).map(|i| ((i * 7919 % 13) as f32) - 6.0).collect();
            let expected: Vec<f32> = values.iter().map(|&v| if v > 0.0 { 1.0 } else { 0.0 }).collect();
            assert!(Signs::new(&values).mask::<f32>() == expected, "{length}");
            let doubles: Vec<f64> = values.iter().map(|&v| v.into()).collect();
            let mask = Signs::new(&doubles).mask::<f64>();
            assert!(mask.iter().zip(&expected).all(|(&a, &b)| a == f64::from(b)) && mask.len() == length);
        }
        let odd = [f32::NAN, -0.0, f32::INFINITY, f32::MIN_POSITIVE];
        assert_eq!(Signs::new(&odd).mask::<f32>(), [0.0, 0.0, 1.0, 1.0]);
    }
}
