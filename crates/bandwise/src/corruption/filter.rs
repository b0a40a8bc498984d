//! Linear filters in the exact arithmetic of the libraries that made the published sets.

/// What lies beyond the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// `aaa|abcd|ddd`.
    Nearest,
    /// `cba|abcd|dcb` (scipy's `reflect`).
    Reflect,
    /// `dcb|abcd|cba` (OpenCV's `BORDER_REFLECT_101`).
    Mirror,
}

impl Edge {
    /// The index inside `0..side` that stands for `index`.
    pub fn inside(self, index: isize, side: usize) -> usize {
        let n = side as isize;
        if (0..n).contains(&index) {
            return index as usize;
        }
        let folded = match self {
            Self::Nearest => index.clamp(0, n - 1),
            Self::Reflect => {
                let position = index.rem_euclid(2 * n);
                position.min(2 * n - 1 - position)
            }
            Self::Mirror if n == 1 => 0,
            Self::Mirror => {
                let position = index.rem_euclid(2 * n - 2);
                position.min(2 * n - 2 - position)
            }
        };
        folded as usize
    }
}

/// Shape of an interleaved array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

/// One half of a normalized Gaussian, center first: `weights[k]` belongs to the offsets ±k.
fn half_gaussian(sigma: f64, truncate: f64) -> Vec<f64> {
    let radius = (truncate * sigma + 0.5) as usize;
    let weights: Vec<f64> = (0..=radius).map(|k| (-0.5 / (sigma * sigma) * (k * k) as f64).exp()).collect();
    let total = weights[0] + 2.0 * weights[1..].iter().sum::<f64>();
    weights.into_iter().map(|w| w / total).collect()
}

/// Gaussian blur of every channel, rows first and then columns, summed in scipy's order: `truncate` standard
/// deviations wide. A sigma of 0 leaves the image as it is.
pub(super) fn gaussian(image: &mut [f64], shape: Shape, sigma: f64, truncate: f64, edge: Edge) {
    if sigma <= 1e-15 {
        return;
    }
    let weights = half_gaussian(sigma, truncate);
    if weights.len() > 1 {
        blur_vertically(image, shape, &weights, edge);
        blur_horizontally(image, shape, &weights, edge);
    }
}

/// `out = Σ_k weights[k] · (before_k + after_k)`, the farthest pair first.
fn symmetric_sum<'a>(out: &mut [f64], weights: &[f64], at: impl Fn(isize) -> &'a [f64]) {
    out.iter_mut().zip(at(0)).for_each(|(out, x)| *out = x * weights[0]);
    for k in (1..weights.len()).rev() {
        let weight = weights[k];
        for ((out, a), b) in out.iter_mut().zip(at(-(k as isize))).zip(at(k as isize)) {
            *out += (a + b) * weight;
        }
    }
}

fn blur_vertically(image: &mut [f64], shape: Shape, weights: &[f64], edge: Edge) {
    let source = image.to_vec();
    let stride = shape.width * shape.channels;
    for (row, out) in image.chunks_exact_mut(stride).enumerate() {
        symmetric_sum(out, weights, |k| {
            let start = edge.inside(row as isize + k, shape.height) * stride;
            &source[start..start + stride]
        });
    }
}

fn blur_horizontally(image: &mut [f64], shape: Shape, weights: &[f64], edge: Edge) {
    let Shape { width, channels, .. } = shape;
    let (radius, stride) = (weights.len() - 1, width * channels);
    let mut padded = vec![0.0; (width + 2 * radius) * channels];
    for out in image.chunks_exact_mut(stride) {
        pad_row(out, &mut padded, width, channels, radius, edge);
        symmetric_sum(out, weights, |k| {
            let start = (radius as isize + k) as usize * channels;
            &padded[start..start + stride]
        });
    }
}

fn pad_row<T: Copy>(row: &[T], padded: &mut [T], width: usize, channels: usize, radius: usize, edge: Edge) {
    padded[radius * channels..][..width * channels].copy_from_slice(row);
    for k in 0..radius {
        for (position, index) in
            [(k, k as isize - radius as isize), (radius + width + k, (width + k) as isize)]
        {
            let from = edge.inside(index, width) * channels;
            padded[position * channels..][..channels].copy_from_slice(&row[from..from + channels]);
        }
    }
}

/// A tap of a sparse filter: row offset, column offset, weight.
pub(super) type Tap = (isize, isize, f32);

/// Correlation with a few taps: `out[y, x] = Σ weight · image[y + dy, x + dx]`.
pub(super) fn correlate(image: &[f32], shape: Shape, taps: &[Tap], edge: Edge) -> Vec<f32> {
    let Shape { height, width, channels } = shape;
    let reach = |f: fn(&Tap) -> usize| taps.iter().map(f).max().unwrap_or(0);
    let (above, beside) = (reach(|t| t.0.unsigned_abs()), reach(|t| t.1.unsigned_abs()));
    let stride = (width + 2 * beside) * channels;
    let mut padded = vec![0.0; (height + 2 * above) * stride];
    for (row, target) in padded.chunks_exact_mut(stride).enumerate() {
        let from = edge.inside(row as isize - above as isize, height) * width * channels;
        pad_row(&image[from..from + width * channels], target, width, channels, beside, edge);
    }
    let mut output = vec![0.0; image.len()];
    for (row, out) in output.chunks_exact_mut(width * channels).enumerate() {
        for &(dy, dx, weight) in taps {
            let start =
                ((row + above) as isize + dy) as usize * stride + (beside as isize + dx) as usize * channels;
            out.iter_mut().zip(&padded[start..]).for_each(|(out, x)| *out += weight * x);
        }
    }
    output
}

/// Gaussian blur of a single-channel field with reflected edges, three standard deviations wide, also where the
/// filter is far wider than the field.
pub(super) fn gaussian_field(field: Vec<f64>, height: usize, width: usize, sigma: f64) -> Vec<f32> {
    let mut field = field;
    let weights = half_gaussian(sigma.max(1e-9), 3.0);
    if sigma > 1e-15 && 2 * weights.len() > height.min(width) {
        return wide_gaussian(&field, height, width, &weights);
    }
    gaussian(&mut field, Shape { height, width, channels: 1 }, sigma, 3.0, Edge::Reflect);
    field.into_iter().map(|v| v as f32).collect()
}

/// A filter wider than the field folds into one dense matrix per axis.
fn wide_gaussian(field: &[f64], height: usize, width: usize, weights: &[f64]) -> Vec<f32> {
    let fold = |side: usize| -> Vec<f32> {
        let mut matrix = vec![0.0; side * side];
        for row in 0..side {
            matrix[row * side + row] += weights[0];
            for (k, weight) in weights.iter().enumerate().skip(1) {
                for index in [row as isize - k as isize, (row + k) as isize] {
                    matrix[row * side + Edge::Reflect.inside(index, side)] += weight;
                }
            }
        }
        matrix.into_iter().map(|v| v as f32).collect()
    };
    let (rows, columns) = (fold(height), fold(width));
    let field: Vec<f32> = field.iter().map(|&v| v as f32).collect();
    // Both matrices are symmetric: reflection folds w(i − j) and w(i + j + 1) together.
    multiply(&rows, &multiply(&field, &columns, height, width, width), height, height, width)
}

/// `[m, k] · [k, n]`.
fn multiply(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
    let mut product = vec![0.0; m * n];
    for (row, out) in product.chunks_exact_mut(n).enumerate() {
        for (weight, b) in a[row * k..(row + 1) * k].iter().zip(b.chunks_exact(n)) {
            out.iter_mut().zip(b).for_each(|(out, b)| *out += weight * b);
        }
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_fold_back() {
        let fold = |edge: Edge| (-4..8).map(|i| edge.inside(i, 4)).collect::<Vec<_>>();
        assert_eq!(fold(Edge::Nearest), [0, 0, 0, 0, 0, 1, 2, 3, 3, 3, 3, 3]);
        assert_eq!(fold(Edge::Reflect), [3, 2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0]);
        assert_eq!(fold(Edge::Mirror), [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]);
        assert_eq!(Edge::Mirror.inside(-7, 1), 0);
    }

    #[test]
    fn wide_and_narrow_forms_agree() {
        let field: Vec<f64> = (0..12 * 9).map(|i| f64::from(i * 37 % 17)).collect();
        let sigma = 2.5;
        let wide = wide_gaussian(&field, 12, 9, &half_gaussian(sigma, 3.0));
        let mut narrow = field;
        gaussian(&mut narrow, Shape { height: 12, width: 9, channels: 1 }, sigma, 3.0, Edge::Reflect);
        assert!(wide.iter().zip(&narrow).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4));
    }

    #[test]
    fn correlation_reads_the_right_neighbors() {
        let shape = Shape { height: 3, width: 4, channels: 2 };
        let image: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let moved = correlate(&image, shape, &[(1, -1, 1.0)], Edge::Nearest);
        // Row 0, column 2, channel 1 takes row 1, column 1, channel 1.
        assert_eq!(moved[2 * 2 + 1], image[(4 + 1) * 2 + 1]);
        assert_eq!(moved[0], image[4 * 2]);
    }
}
