//! The weight gradient: `dw[o][i][tap] = Σ_pixels x[pixel + tap][i] · dy[pixel][o]`, as a sum of outer products.
//!
//! A task owns a panel of output channels and a split of the pixels; it walks its pixels in blocks whose part of
//! `x` and `dy` stays in the L2 cache. Panels of all splits are then added in order.

use rayon::prelude::*;

use super::bf16::{Bf16Kernels, Bf16Pair, paired};
use super::gather_plan::GatherPlan;
use super::kernel::{Kernels, OuterTile};
use crate::element::Element;
use crate::geometry::Geometry;

/// Pixels whose pointers are made at once.
const BLOCK_PIXELS: usize = 256;
/// Least pixels per split.
const SPLIT_PIXELS: usize = 1024;
/// Tasks to aim for; a constant, so that results do not depend on the number of threads.
const TASKS: usize = 32;

/// Gradient with respect to the weight, `[out, in / groups, kh, kw]`; of pairs, if there are kernels for them and the
/// channels allow it.
pub(crate) fn weight_gradient<T: Element>(
    kernels: &Kernels<T>,
    bf16: Option<&Bf16Kernels<T>>,
    geometry: &Geometry,
    input: &[T],
    gradient: &[T],
) -> Vec<T> {
    let call = Call::new(kernels, bf16, geometry, input, gradient);
    let panel = call.panel_length();
    let mut partial = vec![T::ZERO; call.splits * call.panels.len() * panel];
    partial.par_chunks_mut(panel.max(1)).enumerate().for_each(|(task, sums)| {
        call.run(task / call.panels.len(), call.panels[task % call.panels.len()], sums);
    });
    call.reorder(&partial)
}

/// Output channels `first .. first + columns` of one group.
#[derive(Clone, Copy)]
struct Panel {
    group: usize,
    first: usize,
    columns: usize,
}

/// Buffers of paired pixels.
#[derive(Default)]
struct Pairs {
    lefts: Vec<Bf16Pair>,
    rights: Vec<Bf16Pair>,
}

struct Call<'a, T> {
    kernels: &'a Kernels<T>,
    /// Set where products are to be in bf16.
    bf16: Option<&'a Bf16Kernels<T>>,
    geometry: &'a Geometry,
    plan: GatherPlan,
    input: &'a [T],
    gradient: &'a [T],
    zeros: Vec<T>,
    panels: Vec<Panel>,
    splits: usize,
    /// Input channels of a group.
    inner: usize,
    taps: usize,
}

impl<'a, T: Element> Call<'a, T> {
    fn new(
        kernels: &'a Kernels<T>,
        bf16: Option<&'a Bf16Kernels<T>>,
        geometry: &'a Geometry,
        input: &'a [T],
        gradient: &'a [T],
    ) -> Self {
        let groups = geometry.config.groups;
        let (inner, outer) = (geometry.in_channels / groups, geometry.out_channels / groups);
        let mut panels = Vec::new();
        for group in 0..groups {
            for first in (0..outer).step_by(kernels.columns) {
                let columns = kernels.columns.min(outer - first);
                panels.push(Panel { group, first: group * outer + first, columns });
            }
        }
        let plan = GatherPlan::forward(geometry);
        let splits = (plan.rows() / SPLIT_PIXELS).min(TASKS / panels.len().max(1)).max(1);
        let (zeros, taps) = (vec![T::ZERO; inner.max(kernels.columns)], geometry.taps());
        let bf16 = bf16.filter(|_| paired(inner) && paired(outer));
        Self { kernels, bf16, geometry, plan, input, gradient, zeros, panels, splits, inner, taps }
    }

    /// `[tap][inner][columns]`
    fn panel_length(&self) -> usize {
        self.taps * self.inner * self.kernels.columns
    }

    /// Adds the outer products of one split to the sums of one panel.
    fn run(&self, split: usize, panel: Panel, sums: &mut [T]) {
        let pixels = self.plan.rows();
        let split_pixels = pixels.div_ceil(self.splits);
        let (first, last) = (split * split_pixels, pixels.min((split + 1) * split_pixels));
        let mut rights = vec![T::ZERO; BLOCK_PIXELS * panel.columns];
        let mut lefts = vec![self.zeros.as_ptr(); BLOCK_PIXELS * self.taps];
        let mut pairs = Pairs::default();
        for start in (first..last).step_by(BLOCK_PIXELS) {
            let count = BLOCK_PIXELS.min(last - start);
            self.point(start, count, panel.group, &mut lefts);
            for (p, rights) in rights.chunks_exact_mut(panel.columns).enumerate().take(count) {
                let from = (start + p) * self.geometry.out_channels + panel.first;
                rights.copy_from_slice(&self.gradient[from..from + panel.columns]);
            }
            match self.bf16 {
                None => {
                    for tap in 0..self.taps {
                        let lefts = &lefts[tap * BLOCK_PIXELS..][..count];
                        self.add_tap(self.kernels.outer, tap, panel.columns, lefts, &rights, sums);
                    }
                }
                Some(bf16) => self.add_pairs(bf16, count, panel.columns, &lefts, &rights, &mut pairs, sums),
            }
        }
    }

    /// The block's products in bf16: neighboring pixels become pairs.
    #[allow(clippy::too_many_arguments)]
    fn add_pairs(
        &self,
        bf16: &Bf16Kernels<T>,
        count: usize,
        columns: usize,
        lefts: &[*const T],
        rights: &[T],
        pairs: &mut Pairs,
        sums: &mut [T],
    ) {
        let half = count.div_ceil(2);
        pairs.rights.resize(half * columns, Bf16Pair::ZERO);
        bf16.pair_all_rows(&rights[..count * columns], columns, &self.zeros, &mut pairs.rights);
        pairs.lefts.resize(half * self.inner, Bf16Pair::ZERO);
        for tap in 0..self.taps {
            let pixels = &lefts[tap * BLOCK_PIXELS..][..count];
            for (pixels, pair) in pixels.chunks(2).zip(pairs.lefts.chunks_exact_mut(self.inner)) {
                let second = pixels.get(1).copied().unwrap_or(self.zeros.as_ptr());
                // SAFETY: every pointer has `inner` values, a multiple of what is paired at a time; the table comes
                // from feature detection.
                unsafe { (bf16.pair_rows)(pixels[0], second, pair.as_mut_ptr(), self.inner) };
            }
            let rows: Vec<_> = pairs.lefts.chunks_exact(self.inner).map(<[_]>::as_ptr).collect();
            self.add_tap(bf16.outer, tap, columns, &rows, &pairs.rights, sums);
        }
    }

    /// Pointers `[tap][pixel]` to the input pixels of a block.
    fn point(&self, start: usize, count: usize, group: usize, lefts: &mut [*const T]) {
        let channels = self.geometry.in_channels;
        let mut position = self.plan.position(start);
        for p in 0..count {
            for (t, tap) in self.plan.taps.iter().enumerate() {
                lefts[t * BLOCK_PIXELS + p] = match self.plan.source_pixel(&position, tap) {
                    Some(pixel) => self.input[pixel * channels + group * self.inner..][..self.inner].as_ptr(),
                    None => self.zeros.as_ptr(),
                };
            }
            self.plan.advance(&mut position);
        }
    }

    /// Adds the outer products of `lefts` and the rows of `rights` to the sums of one tap.
    fn add_tap<F>(
        &self,
        outer: unsafe fn(&OuterTile<T, F>),
        tap: usize,
        columns: usize,
        lefts: &[*const F],
        rights: &[F],
        sums: &mut [T],
    ) {
        let width = self.kernels.columns;
        // equal tiles rather than full ones and a rest
        let step = self.inner.div_ceil(self.inner.div_ceil(self.kernels.rows).max(1));
        for i in (0..self.inner).step_by(step.max(1)) {
            let rows = step.min(self.inner - i);
            let out = &mut sums[(tap * self.inner + i) * width..][..rows * width];
            let tile = OuterTile {
                rows,
                columns,
                count: lefts.len(),
                lefts: lefts.as_ptr(),
                left_offset: i,
                rights: rights.as_ptr(),
                right_stride: columns,
                out: out.as_mut_ptr(),
                out_stride: width,
            };
            // SAFETY: every left pointer has `inner` values, `rights` has a row of `columns` for each, `out` has
            // `rows` rows of `width`; the table comes from feature detection.
            unsafe { outer(&tile) };
        }
    }

    /// Sums the splits in order and turns `[panel][tap][inner][columns]` into `[out, inner, tap]`.
    fn reorder(&self, partial: &[T]) -> Vec<T> {
        let (width, length) = (self.kernels.columns, self.panel_length());
        let mut result = vec![T::ZERO; self.geometry.out_channels * self.inner * self.taps];
        let channel = self.inner * self.taps;
        let mut parts = Vec::with_capacity(self.panels.len());
        let mut rest = result.as_mut_slice();
        for panel in &self.panels {
            let (part, tail) = rest.split_at_mut(panel.columns * channel);
            parts.push(part);
            rest = tail;
        }
        parts.into_par_iter().enumerate().for_each(|(index, out)| {
            let stride = self.panels.len() * length;
            for i in 0..self.inner {
                for tap in 0..self.taps {
                    let from = index * length + (tap * self.inner + i) * width;
                    for (o, out) in out.chunks_exact_mut(channel).enumerate() {
                        let mut sum = partial[from + o];
                        for split in 1..self.splits {
                            sum += partial[split * stride + from + o];
                        }
                        out[i * self.taps + tap] = sum;
                    }
                }
            }
        });
        result
    }
}
