//! Pooling windows.

use rayon::prelude::*;

use crate::element::Element;
use crate::memory::{SharedMut, produce};

/// The sizes of one pooling call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    pub batch: usize,
    pub in_height: usize,
    pub in_width: usize,
    pub channels: usize,
    pub out_height: usize,
    pub out_width: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

impl Windows {
    pub(crate) fn input_length(&self) -> usize {
        self.batch * self.in_height * self.in_width * self.channels
    }

    pub(crate) fn output_length(&self) -> usize {
        self.batch * self.out_height * self.out_width * self.channels
    }

    /// Rows (or columns) of the input under window `index`, clipped to the image.
    fn range(&self, index: usize, size: usize) -> std::ops::Range<usize> {
        let start = index * self.stride;
        start.saturating_sub(self.padding)..(start + self.kernel).saturating_sub(self.padding).min(size)
    }

    /// Calls `body(image, output pixel within the image, input pixels within the image)` for all windows of one
    /// image, in row-major order.
    fn for_each(&self, mut body: impl FnMut(usize, &mut dyn Iterator<Item = usize>)) {
        for oy in 0..self.out_height {
            for ox in 0..self.out_width {
                let columns = self.range(ox, self.in_width);
                let mut pixels = self
                    .range(oy, self.in_height)
                    .flat_map(|y| columns.clone().map(move |x| y * self.in_width + x));
                body(oy * self.out_width + ox, &mut pixels);
            }
        }
    }

    fn image_in(&self) -> usize {
        self.in_height * self.in_width * self.channels
    }

    fn image_out(&self) -> usize {
        self.out_height * self.out_width * self.channels
    }
}

/// Position within its image of the first largest value of every window; NaN counts as largest.
pub(crate) fn argmax<T: Element>(windows: &Windows, x: &[T]) -> Vec<u32> {
    let channels = windows.channels;
    let mut best = vec![0u32; windows.output_length()];
    let images = best.par_chunks_mut(windows.image_out().max(1)).zip(x.par_chunks(windows.image_in().max(1)));
    images.for_each(|(best, x)| {
        windows.for_each(|out, pixels| {
            let best = &mut best[out * channels..][..channels];
            let Some(first) = pixels.next() else { return };
            for (c, best) in best.iter_mut().enumerate() {
                *best = (first * channels + c) as u32;
            }
            for pixel in pixels {
                for (c, best) in best.iter_mut().enumerate() {
                    let (value, so_far) = (x[pixel * channels + c], x[*best as usize]);
                    if value > so_far || (value.is_nan_value() && !so_far.is_nan_value()) {
                        *best = (pixel * channels + c) as u32;
                    }
                }
            }
        });
    });
    best
}

/// `values` at the positions that [`argmax`] found.
pub(crate) fn gather<T: Element>(windows: &Windows, values: &[T], positions: &[u32]) -> Vec<T> {
    let (image_in, image_out) = (windows.image_in(), windows.image_out());
    let fill = |out: &SharedMut<'_, T>| {
        (0..windows.batch).into_par_iter().for_each(|image| {
            // SAFETY: one part per image, written completely.
            let out = unsafe { out.slice(image * image_out, image_out) };
            let values = &values[image * image_in..][..image_in];
            for (out, &position) in out.iter_mut().zip(&positions[image * image_out..]) {
                out.write(values[position as usize]);
            }
        });
    };
    // SAFETY: the images cover the buffer.
    unsafe { produce(windows.output_length(), fill) }
}

/// The transpose of [`gather`].
pub(crate) fn scatter<T: Element>(windows: &Windows, gradient: &[T], positions: &[u32]) -> Vec<T> {
    let mut result = vec![T::ZERO; windows.input_length()];
    let (image_in, image_out) = (windows.image_in().max(1), windows.image_out().max(1));
    let images = result.par_chunks_mut(image_in).zip(gradient.par_chunks(image_out));
    images.zip(positions.par_chunks(image_out)).for_each(|((out, gradient), positions)| {
        for (&gradient, &position) in gradient.iter().zip(positions) {
            out[position as usize] += gradient;
        }
    });
    result
}

/// The mean of every window; padding counts as zeros.
pub(crate) fn average<T: Element>(windows: &Windows, x: &[T]) -> Vec<T> {
    let channels = windows.channels;
    let scale = T::from_f64(1.0 / (windows.kernel * windows.kernel) as f64);
    let mut result = vec![T::ZERO; windows.output_length()];
    let images =
        result.par_chunks_mut(windows.image_out().max(1)).zip(x.par_chunks(windows.image_in().max(1)));
    images.for_each(|(result, x)| {
        windows.for_each(|out, pixels| {
            let sums = &mut result[out * channels..][..channels];
            for pixel in pixels {
                for (sum, &value) in sums.iter_mut().zip(&x[pixel * channels..]) {
                    *sum += value;
                }
            }
            sums.iter_mut().for_each(|sum| *sum *= scale);
        });
    });
    result
}

/// The transpose of [`average`].
pub(crate) fn average_gradient<T: Element>(windows: &Windows, gradient: &[T]) -> Vec<T> {
    let channels = windows.channels;
    let scale = T::from_f64(1.0 / (windows.kernel * windows.kernel) as f64);
    let mut result = vec![T::ZERO; windows.input_length()];
    let images =
        result.par_chunks_mut(windows.image_in().max(1)).zip(gradient.par_chunks(windows.image_out().max(1)));
    images.for_each(|(result, gradient)| {
        windows.for_each(|out, pixels| {
            let gradient = &gradient[out * channels..][..channels];
            for pixel in pixels {
                for (sum, &value) in result[pixel * channels..].iter_mut().zip(gradient) {
                    *sum += value * scale;
                }
            }
        });
    });
    result
}

/// The mean over height and width of images `[batch, height, width, channels]`.
pub(crate) fn global_average<T: Element>(shape: [usize; 4], x: &[T]) -> Vec<T> {
    let [batch, height, width, channels] = shape;
    let scale = T::from_f64(1.0 / (height * width) as f64);
    let mut result = vec![T::ZERO; batch * channels];
    let images = x.par_chunks((height * width * channels).max(1));
    result.par_chunks_mut(channels.max(1)).zip(images).for_each(|(sums, image)| {
        for pixel in image.chunks_exact(channels) {
            sums.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += value);
        }
        sums.iter_mut().for_each(|sum| *sum *= scale);
    });
    result
}

/// The transpose of [`global_average`] for images of `shape`.
pub(crate) fn global_average_gradient<T: Element>(shape: [usize; 4], gradient: &[T]) -> Vec<T> {
    let [batch, height, width, channels] = shape;
    let scale = T::from_f64(1.0 / (height * width) as f64);
    let mut result = vec![T::ZERO; batch * height * width * channels];
    let images = result.par_chunks_mut((height * width * channels).max(1));
    images.zip(gradient.par_chunks(channels.max(1))).for_each(|(image, gradient)| {
        for pixel in image.chunks_exact_mut(channels) {
            pixel.iter_mut().zip(gradient).for_each(|(out, &value)| *out = value * scale);
        }
    });
    result
}

/// Pairs of pixel indices `(large, small)`: every `stride`-th pixel of a large image, and its place in the small.
fn every(height: usize, width: usize, stride: usize) -> impl Iterator<Item = (usize, usize)> {
    let columns = width.div_ceil(stride);
    (0..height).step_by(stride).enumerate().flat_map(move |(row, y)| {
        (0..width).step_by(stride).enumerate().map(move |(column, x)| (y * width + x, row * columns + column))
    })
}

/// Every `stride`-th pixel of images `[batch, height, width, channels]`, with `added` zero channels in front and
/// behind.
pub(crate) fn subsample<T: Element>(shape: [usize; 4], stride: usize, added: usize, x: &[T]) -> Vec<T> {
    let [batch, height, width, channels] = shape;
    let wide = channels + 2 * added;
    let image_out = height.div_ceil(stride) * width.div_ceil(stride) * wide;
    let mut result = vec![T::ZERO; batch * image_out];
    let images =
        result.par_chunks_mut(image_out.max(1)).zip(x.par_chunks((height * width * channels).max(1)));
    images.for_each(|(out, image)| {
        for (from, to) in every(height, width, stride) {
            out[to * wide + added..][..channels].copy_from_slice(&image[from * channels..][..channels]);
        }
    });
    result
}

/// The transpose of [`subsample`] for images of `shape`.
pub(crate) fn subsample_gradient<T: Element>(
    shape: [usize; 4],
    stride: usize,
    added: usize,
    gradient: &[T],
) -> Vec<T> {
    let [batch, height, width, channels] = shape;
    let wide = channels + 2 * added;
    let image_out = height.div_ceil(stride) * width.div_ceil(stride) * wide;
    let mut result = vec![T::ZERO; batch * height * width * channels];
    let images = result.par_chunks_mut((height * width * channels).max(1));
    images.zip(gradient.par_chunks(image_out.max(1))).for_each(|(image, gradient)| {
        for (to, from) in every(height, width, stride) {
            image[to * channels..][..channels].copy_from_slice(&gradient[from * wide + added..][..channels]);
        }
    });
    result
}
