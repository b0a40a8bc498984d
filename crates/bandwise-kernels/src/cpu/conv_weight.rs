//! The weight gradient: `dw[o][i][tap] = Σ_pixels x[pixel + tap][i] · dy[pixel][o]`, as a sum of outer products.

use rayon::prelude::*;

use super::geometry::Geometry;
use super::kernel::{Kernels, OuterTile};
use crate::element::Element;
use crate::memory::SharedMut;

/// Pixels whose pointers are made at once: input and output gradient of a block stay in the L2 cache.
const BLOCK_PIXELS: usize = 256;
/// Least pixels per partial sum.
const SPLIT_PIXELS: usize = 4096;
const MOST_SPLITS: usize = 8;

/// Gradient with respect to the weight, `[out, in / groups, kh, kw]`.
pub(crate) fn weight_gradient<T: Element>(
    kernels: &Kernels<T>,
    geometry: &Geometry,
    input: &[T],
    gradient: &[T],
) -> Vec<T> {
    let walk = geometry.forward_walk();
    let pixels = walk.rows();
    let splits = (pixels / SPLIT_PIXELS).clamp(1, MOST_SPLITS);
    let split_pixels = pixels.div_ceil(splits);
    let groups = geometry.config.groups;
    let inner = geometry.in_channels / groups;
    let outer = geometry.out_channels / groups;
    let taps = geometry.taps();
    let size = geometry.out_channels * inner * taps;
    // [split][tap][group][inner][outer]
    let mut partial = vec![T::ZERO; splits * size];
    {
        let shared = SharedMut::new(&mut partial);
        let zeros = vec![T::ZERO; inner];
        (0..splits * taps * groups).into_par_iter().for_each(|task| {
            let (split, tap, group) = (task / (taps * groups), task / groups % taps, task % groups);
            let first = split * split_pixels;
            let last = pixels.min(first + split_pixels);
            let mut lefts = Vec::with_capacity(BLOCK_PIXELS);
            for start in (first..last).step_by(BLOCK_PIXELS) {
                let end = last.min(start + BLOCK_PIXELS);
                lefts.clear();
                let mut position = walk.position(start);
                for _ in start..end {
                    lefts.push(match walk.source_pixel(&position, &walk.taps[tap]) {
                        Some(pixel) => {
                            input[pixel * geometry.in_channels + group * inner..][..inner].as_ptr()
                        }
                        None => zeros.as_ptr(),
                    });
                    walk.advance(&mut position);
                }
                let rights = &gradient[start * geometry.out_channels..end * geometry.out_channels];
                for i in (0..inner).step_by(kernels.rows) {
                    for o in (0..outer).step_by(kernels.columns) {
                        let offset = split * size + ((tap * groups + group) * inner + i) * outer + o;
                        let tile = OuterTile {
                            rows: kernels.rows.min(inner - i),
                            columns: kernels.columns.min(outer - o),
                            count: end - start,
                            lefts: lefts.as_ptr(),
                            left_offset: i,
                            rights: rights[group * outer + o..].as_ptr(),
                            right_stride: geometry.out_channels,
                            // SAFETY: each (split, tap, group) has its own part of the buffer.
                            out: unsafe { shared.at(offset) },
                            out_stride: outer,
                        };
                        // SAFETY: every left pointer has `inner` values, rights cover `count` pixels; the table
                        // comes from feature detection.
                        unsafe { (kernels.outer)(&tile) };
                    }
                }
            }
        });
    }
    reorder(&partial, splits, taps, groups, inner, outer)
}

/// Sums the splits in order and turns `[tap][group][inner][outer]` into `[out, inner, tap]`.
fn reorder<T: Element>(
    partial: &[T],
    splits: usize,
    taps: usize,
    groups: usize,
    inner: usize,
    outer: usize,
) -> Vec<T> {
    let size = taps * groups * inner * outer;
    let mut result = vec![T::ZERO; size];
    result.par_chunks_mut(inner * taps).enumerate().for_each(|(channel, out)| {
        let (group, o) = (channel / outer, channel % outer);
        for i in 0..inner {
            for tap in 0..taps {
                let index = ((tap * groups + group) * inner + i) * outer + o;
                let mut sum = partial[index];
                for split in 1..splits {
                    sum += partial[split * size + index];
                }
                out[i * taps + tap] = sum;
            }
        }
    });
    result
}
