//! Linear magnification as scipy does it, and the zoom blur made of it.

use super::byte_image::ByteImage;

/// One axis of a magnification cropped to the middle: for each output index the two inputs and their weights.
struct Axis {
    first: Vec<usize>,
    second: Vec<usize>,
    weights: Vec<(f64, f64)>,
}

impl Axis {
    /// The middle `ceil(side / zoom)` pixels, stretched corner to corner to `round(that · zoom)`, then cut to `side`.
    fn new(side: usize, zoom: f64) -> Self {
        let crop = ((side as f64 / zoom).ceil() as usize).clamp(1, side);
        let start = (side - crop) / 2;
        let stretched = ((crop as f64 * zoom).round_ties_even() as usize).max(side);
        let trim = (stretched - side) / 2;
        let step = if stretched > 1 { (crop - 1) as f64 / (stretched - 1) as f64 } else { 1.0 };
        let mut axis = Self { first: Vec::new(), second: Vec::new(), weights: Vec::new() };
        for index in trim..trim + side {
            let position = index as f64 * step;
            let whole = position as usize;
            let fraction = position - whole as f64;
            axis.first.push(start + whole.min(crop - 1));
            axis.second.push(start + (whole + 1).min(crop - 1));
            // scipy takes positions that rounding pushed beyond the last pixel as outside, where all is black.
            let outside = position > (crop - 1) as f64;
            axis.weights.push(if outside { (0.0, 0.0) } else { (1.0 - fraction, fraction) });
        }
        axis
    }
}

/// Adds the image, of `C` channels, magnified by `zoom` around its middle to `sum`; all single precision except the
/// interpolation.
fn add_zoomed<const C: usize>(image: &[f64], height: usize, width: usize, zoom: f64, sum: &mut [f32]) {
    let (rows, columns) = (Axis::new(height, zoom), Axis::new(width, zoom));
    let stride = width * C;
    let mut line = vec![0.0; stride];
    for (y, sum) in sum.chunks_exact_mut(stride).enumerate() {
        let (above, below) =
            (&image[rows.first[y] * stride..][..stride], &image[rows.second[y] * stride..][..stride]);
        let (a, b) = rows.weights[y];
        line.iter_mut().zip(above.iter().zip(below)).for_each(|(out, (x0, x1))| *out = x0 * a + x1 * b);
        let neighbors = columns.first.iter().zip(&columns.second).zip(&columns.weights);
        for (sum, ((&left, &right), &(a, b))) in sum.chunks_exact_mut(C).zip(neighbors) {
            let (left, right) = (&line[left * C..][..C], &line[right * C..][..C]);
            for channel in 0..C {
                sum[channel] += (left[channel] * a + right[channel] * b) as f32;
            }
        }
    }
}

/// A single-channel field magnified by `zoom` around its middle.
pub(super) fn clipped_zoom(field: &[f64], height: usize, width: usize, zoom: f64) -> Vec<f32> {
    let mut zoomed = vec![0.0; field.len()];
    add_zoomed::<1>(field, height, width, zoom, &mut zoomed);
    zoomed
}

/// The mean of the image and its magnifications by 1, 1 + step, … up to `end`.
pub(super) fn zoom_blur(input: &ByteImage, end: f64, step: f64) -> ByteImage {
    let image = input.unit_f32();
    let exact: Vec<f64> = image.iter().map(|&x| f64::from(x)).collect();
    let factors = arange(end, step);
    let mut sum = vec![0.0; image.len()];
    let add = if input.channels == 1 { add_zoomed::<1> } else { add_zoomed::<3> };
    factors.iter().for_each(|&zoom| add(&exact, input.height, input.width, zoom, &mut sum));
    let count = (factors.len() + 1) as f32;
    input.with_unit_f32(image.iter().zip(&sum).map(|(x, sum)| (x + sum) / count))
}

/// numpy's `arange(1, end, step)`: rounding may let `end` in.
fn arange(end: f64, step: f64) -> Vec<f64> {
    let count = ((end - 1.0) / step).ceil() as usize;
    let step = (1.0 + step) - 1.0;
    (0..count).map(|i| 1.0 + i as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factor_lists_are_as_long_as_published() {
        let lengths = [1.06, 1.11, 1.16, 1.21, 1.26].map(|end| arange(end, 0.01).len());
        assert_eq!(lengths, [7, 12, 16, 21, 26]);
    }

    #[test]
    fn a_factor_of_one_changes_nothing() {
        let field: Vec<f64> = (0..35).map(f64::from).collect();
        let zoomed = clipped_zoom(&field, 5, 7, 1.0);
        assert!(field.iter().zip(&zoomed).all(|(a, b)| *a == f64::from(*b)));
    }
}
