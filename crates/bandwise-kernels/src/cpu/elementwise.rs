//! Elementwise passes, in parallel over fixed pieces.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::element::Element;
use crate::memory::{SharedMut, produce};

/// Elements per task.
const PIECE: usize = 1 << 15;

/// Calls `body(offset, out)` for every piece of a new vector.
fn pieces<T: Element>(length: usize, body: impl Fn(usize, &mut [MaybeUninit<T>]) + Sync) -> Vec<T> {
    let fill = |out: &SharedMut<'_, T>| {
        (0..length.div_ceil(PIECE)).into_par_iter().for_each(|piece| {
            let start = piece * PIECE;
            // SAFETY: pieces are disjoint and inside the buffer; bodies write all of theirs.
            body(start, unsafe { out.slice(start, PIECE.min(length - start)) });
        });
    };
    // SAFETY: the pieces cover the buffer.
    unsafe { produce(length, fill) }
}

/// `max(x, 0)`; NaN stays.
pub(crate) fn relu<T: Element>(x: &[T]) -> Vec<T> {
    pieces(x.len(), |start, out| {
        for (out, &x) in out.iter_mut().zip(&x[start..]) {
            out.write(if x <= T::ZERO { T::ZERO } else { x });
        }
    })
}

/// `values` where `y > 0`, else 0.
pub(crate) fn mask<T: Element>(y: &[T], values: &[T]) -> Vec<T> {
    pieces(y.len(), |start, out| {
        for ((out, &y), &value) in out.iter_mut().zip(&y[start..]).zip(&values[start..]) {
            out.write(if y > T::ZERO { value } else { T::ZERO });
        }
    })
}

/// `clamp(origin + clamp(x + step · sign(gradient) − origin, −epsilon, epsilon), 0, 1)`.
pub(crate) fn sign_step<T: Element>(x: &[T], gradient: &[T], origin: &[T], step: T, epsilon: T) -> Vec<T> {
    let clamp = |value: T, low: T, high: T| {
        let value = if value < low { low } else { value };
        if value > high { high } else { value }
    };
    pieces(x.len(), |start, out| {
        let rest = x[start..].iter().zip(&gradient[start..]).zip(&origin[start..]);
        for (out, ((&x, &gradient), &origin)) in out.iter_mut().zip(rest) {
            let up = if gradient > T::ZERO { step } else { T::ZERO };
            let sign_step = if gradient < T::ZERO { -step } else { up };
            out.write(clamp(origin + clamp(x + sign_step - origin, -epsilon, epsilon), T::ZERO, T::ONE));
        }
    })
}
