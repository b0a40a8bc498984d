//! A two-dimensional image of high-dimensional points: exact t-SNE (van der Maaten and Hinton 2008).
//!
//! Own code, for the sake of reproducibility: the crate `bhtsne` (0.7.13) can be given its starting points, but sums over
//! all points in an order that depends on the threads. Two runs of its exact method differ in their last bits, and its
//! approximations in the whole image. Here the image depends on the masks and the seed alone.

use rand::Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;

use crate::plot::{Axis, LinePlot, Series};
use crate::{Error, Result, random};

/// Points of more than this many rows are refused: the method is quadratic.
const MOST_POINTS: usize = 10_000;
const STEPS: usize = 500;
/// Attractions are exaggerated at first, so that clusters form.
const EXAGGERATION: f64 = 12.0;
const EXAGGERATED_STEPS: usize = 125;

/// Places points in the plane so that near neighbors stay near. `perplexity` is about the number of
/// neighbors that count (30 is usual; it is lowered for few points). The same seed gives the same image.
///
/// # Errors
/// [`Error::Config`] for more than 10,000 points or points of different lengths.
pub fn t_sne(points: &[Vec<f32>], perplexity: f64, seed: u64) -> Result<Vec<[f64; 2]>> {
    let count = points.len();
    if count > MOST_POINTS || points.windows(2).any(|p| p[0].len() != p[1].len()) {
        return Err(Error::config(format!(
            "an embedding takes at most {MOST_POINTS} points of one length, got {count}; use --limit"
        )));
    }
    if count < 4 {
        return Ok((0..count).map(|i| [i as f64, 0.0]).collect());
    }
    let perplexity = perplexity.min((count - 1) as f64 / 3.0).max(1.0);
    let affinities = affinities(points, perplexity);
    let mut stream = random::stream(seed, &[random::tag("t-sne")]);
    let mut places: Vec<[f64; 2]> =
        (0..count).map(|_| [(); 2].map(|()| 1e-4 * stream.sample::<f64, _>(StandardNormal))).collect();
    let rate = (count as f64 / EXAGGERATION).max(50.0);
    let mut velocity = vec![[0.0f64; 2]; count];
    let mut gains = vec![[1.0f64; 2]; count];
    for step in 0..STEPS {
        let early = step < EXAGGERATED_STEPS;
        let gradient = gradient(&affinities, &places, if early { EXAGGERATION } else { 1.0 });
        let momentum = if early { 0.5 } else { 0.8 };
        for i in 0..count {
            for axis in 0..2 {
                let against = gradient[i][axis] * velocity[i][axis] < 0.0;
                gains[i][axis] =
                    if against { gains[i][axis] + 0.2 } else { (gains[i][axis] * 0.8).max(0.01) };
                velocity[i][axis] = momentum * velocity[i][axis] - rate * gains[i][axis] * gradient[i][axis];
                places[i][axis] += velocity[i][axis];
            }
        }
    }
    Ok(places)
}

/// Symmetric affinities `p_ij`, row after row, of sum 1.
fn affinities(points: &[Vec<f32>], perplexity: f64) -> Vec<f64> {
    let count = points.len();
    let conditional: Vec<Vec<f64>> = points
        .par_iter()
        .enumerate()
        .map(|(i, point)| {
            let distance = |other: &Vec<f32>| -> f64 {
                point.iter().zip(other).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
            };
            row_affinities(&points.iter().map(distance).collect::<Vec<_>>(), i, perplexity.ln())
        })
        .collect();
    let mut joint = vec![0.0; count * count];
    for i in 0..count {
        for j in 0..count {
            joint[i * count + j] = (conditional[i][j] + conditional[j][i]) / (2.0 * count as f64);
        }
    }
    joint
}

/// Affinities of one point whose entropy is `entropy`, by bisection of the kernel's width.
fn row_affinities(distances: &[f64], own: usize, entropy: f64) -> Vec<f64> {
    let nearest = distances
        .iter()
        .enumerate()
        .filter(|(j, _)| *j != own)
        .map(|(_, d)| *d)
        .fold(f64::INFINITY, f64::min);
    let (mut low, mut high, mut precision) = (0.0, f64::INFINITY, 1.0);
    let mut row = Vec::new();
    for _ in 0..64 {
        row = distances.iter().map(|d| (-(d - nearest) * precision).exp()).collect::<Vec<f64>>();
        row[own] = 0.0;
        let total: f64 = row.iter().sum();
        row.iter_mut().for_each(|p| *p /= total);
        let found: f64 = row.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        if (found - entropy).abs() < 1e-5 {
            break;
        }
        if found > entropy {
            low = precision;
            precision = if high.is_finite() { 0.5 * (low + high) } else { precision * 2.0 };
        } else {
            high = precision;
            precision = 0.5 * (low + high);
        }
    }
    row
}

/// Gradient of the Kullback-Leibler divergence.
fn gradient(affinities: &[f64], places: &[[f64; 2]], exaggeration: f64) -> Vec<[f64; 2]> {
    let count = places.len();
    let kernel = |a: &[f64; 2], b: &[f64; 2]| 1.0 / (1.0 + (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2));
    // Summed row by row in order: the same for any number of threads.
    let rows: Vec<f64> =
        places.par_iter().map(|a| places.iter().map(|b| kernel(a, b)).sum::<f64>() - 1.0).collect();
    let total = rows.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    let force = |i: usize| {
        let mut sum = [0.0; 2];
        for (j, other) in places.iter().enumerate() {
            let near = kernel(&places[i], other);
            let pull = 4.0 * (exaggeration * affinities[i * count + j] - near / total) * near;
            sum[0] += pull * (places[i][0] - other[0]);
            sum[1] += pull * (places[i][1] - other[1]);
        }
        sum
    };
    (0..count).into_par_iter().map(force).collect()
}

/// The image: one color per class.
pub fn plot(title: &str, places: &[[f64; 2]], labels: &[u32], classes: &[String]) -> LinePlot {
    let plot = LinePlot::new(title, Axis::new("t-SNE 1"), Axis::new("t-SNE 2")).full_width();
    classes.iter().enumerate().fold(plot, |plot, (class, name)| {
        let mine = places.iter().zip(labels).filter(|(_, l)| **l as usize == class).map(|(p, _)| *p);
        plot.series(Series::new(name, mine.collect()).scatter())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_stay_apart() {
        let mut stream = random::stream(3, &[]);
        let points: Vec<Vec<f32>> = (0..60)
            .map(|i| {
                (0..10).map(|d| stream.random::<f32>() * 0.2 + if d == i % 3 { 3.0 } else { 0.0 }).collect()
            })
            .collect();
        let places = t_sne(&points, 10.0, 0).unwrap();
        assert_eq!(places, t_sne(&points, 10.0, 0).unwrap());
        // Each point's nearest neighbor belongs to its own cluster.
        for (i, a) in places.iter().enumerate() {
            let distance = |b: &[f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
            let nearest = (0..60)
                .filter(|j| *j != i)
                .min_by(|j, k| distance(&places[*j]).total_cmp(&distance(&places[*k])));
            assert_eq!(nearest.unwrap() % 3, i % 3);
        }
    }

    #[test]
    fn odd_inputs_are_survived() {
        assert_eq!(t_sne(&[], 30.0, 0).unwrap().len(), 0);
        let same = vec![vec![1.0f32, 2.0]; 6];
        assert!(t_sne(&same, 30.0, 0).unwrap().iter().flatten().all(|v| v.is_finite()));
        assert!(t_sne(&[vec![1.0], vec![1.0, 2.0]], 30.0, 0).is_err());
    }
}
