//! Sums and combinations that only the tangent of batch norm needs.

use super::batch_norm::map_pieces;
use crate::element::Element;
use crate::memory::{SharedMut, produce};

/// `Σ a · b` over rows, per channel.
pub(crate) fn products<T: Element>(a: &[T], b: &[T], channels: usize) -> Vec<f64> {
    let pieces = map_pieces(a.len(), channels, |range| {
        let mut sums = vec![T::ZERO; channels];
        for (a, b) in a[range.clone()].chunks_exact(channels).zip(b[range].chunks_exact(channels)) {
            for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
                *sum += a * b;
            }
        }
        sums
    });
    let mut total = vec![0.0; channels];
    for piece in pieces {
        total.iter_mut().zip(piece).for_each(|(total, sum)| *total += sum.to_f64());
    }
    total
}

/// One coefficient per channel and input.
pub(crate) struct Coefficients<T> {
    pub x: Vec<T>,
    pub tangent: Vec<T>,
    pub gradient: Vec<T>,
    pub constant: Vec<T>,
}

/// `(x − mean) · c.x + tangent · c.tangent + gradient · c.gradient + c.constant`.
pub(crate) fn combine<T: Element>(
    [x, tangent, gradient]: [&[T]; 3],
    mean: &[T],
    c: &Coefficients<T>,
) -> Vec<T> {
    let channels = mean.len();
    let fill = |out: &SharedMut<'_, T>| {
        map_pieces(x.len(), channels, |range| {
            // SAFETY: pieces are disjoint and inside the buffer; the loops below write all of it.
            let out = unsafe { out.slice(range.start, range.len()) };
            let inputs = x[range.clone()]
                .chunks_exact(channels)
                .zip(tangent[range.clone()].chunks_exact(channels))
                .zip(gradient[range].chunks_exact(channels));
            for (out, ((x, tangent), gradient)) in out.chunks_exact_mut(channels).zip(inputs) {
                let values = out.iter_mut().zip(x).zip(tangent).zip(gradient);
                let scales = c.x.iter().zip(&c.tangent).zip(&c.gradient).zip(&c.constant).zip(mean);
                for ((((out, &x), &tangent), &gradient), ((((&cx, &ct), &cg), &constant), &mean)) in
                    values.zip(scales)
                {
                    out.write((x - mean) * cx + tangent * ct + gradient * cg + constant);
                }
            }
        });
    };
    // SAFETY: the pieces cover the buffer.
    unsafe { produce(x.len(), fill) }
}
