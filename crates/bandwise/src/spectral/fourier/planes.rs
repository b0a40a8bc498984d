//! Real planes inside `[height, width, channels]` images, taken through complex transforms two at a time.
//!
//! Two real planes `a`, `b` travel as `a + ib`; a filter with a real *even* gain leaves them separate, and their
//! spectra come apart by symmetry. This halves the number of transforms.

use rustfft::num_complex::Complex;

use super::transform::Real;

/// Where one plane lies in an interleaved slice of images: pixel `p` is at `offset + p · stride`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plane {
    pub offset: usize,
    pub stride: usize,
}

/// All planes of `images` interleaved images, in pairs (the last alone if their number is odd).
pub(super) fn pairs(
    images: usize,
    area: usize,
    channels: usize,
) -> impl Iterator<Item = (Plane, Option<Plane>)> {
    let count = images * channels;
    let plane = move |index: usize| Plane {
        offset: index / channels * area * channels + index % channels,
        stride: channels,
    };
    (0..count).step_by(2).map(move |first| (plane(first), (first + 1 < count).then(|| plane(first + 1))))
}

pub(super) fn pack<T: Real>(images: &[T], pair: (Plane, Option<Plane>), packed: &mut [Complex<T>]) {
    let (first, second) = pair;
    match second {
        Some(second) => {
            for (p, z) in packed.iter_mut().enumerate() {
                *z = Complex::new(
                    images[first.offset + p * first.stride],
                    images[second.offset + p * second.stride],
                );
            }
        }
        None => {
            for (p, z) in packed.iter_mut().enumerate() {
                *z = Complex::new(images[first.offset + p * first.stride], T::real(0.0));
            }
        }
    }
}

pub(super) fn unpack<T: Real>(packed: &[Complex<T>], pair: (Plane, Option<Plane>), images: &mut [T]) {
    let (first, second) = pair;
    for (p, z) in packed.iter().enumerate() {
        images[first.offset + p * first.stride] = z.re;
    }
    if let Some(second) = second {
        for (p, z) in packed.iter().enumerate() {
            images[second.offset + p * second.stride] = z.im;
        }
    }
}

/// Index of the opposite frequency of `index` in a spectrum `[rows, columns]`.
pub(super) fn opposite(index: usize, rows: usize, columns: usize) -> usize {
    let (row, column) = (index / columns, index % columns);
    (rows - row) % rows * columns + (columns - column) % columns
}

/// The spectra of the two real planes at `index`, from their packed spectrum.
pub(super) fn separate<T: Real>(at: Complex<T>, at_opposite: Complex<T>) -> (Complex<T>, Complex<T>) {
    let half = T::real(0.5);
    let mirrored = at_opposite.conj();
    let difference = (at - mirrored).scale(half);
    ((at + mirrored).scale(half), Complex::new(difference.im, -difference.re))
}
