//! Exact projections: onto the L1 ball, and onto a hyperplane, both intersected with the pixel box.
//!
//! Each is a convex problem with one Lagrange multiplier per image, solved on the host in float64.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use super::geometry::Norm;
use crate::Result;

/// The perturbation nearest to `delta` (in L2) with `‖·‖₁ ≤ epsilon` and `origin + · ∈ [0, 1]`.
///
/// What the official `L1_projection` computes (Croce and Hein 2021, "Mind the box", prop. 2.1).
pub(crate) fn onto_l1_ball_and_box(origin: &Tensor, delta: &Tensor, epsilon: f64) -> Result<Tensor> {
    rows(&[origin, delta], delta, |parts| l1_ball_and_box(parts[0], parts[1], epsilon))
}

/// [`onto_l1_ball_and_box`] for one image.
pub(crate) fn l1_ball_and_box(origin: &[f64], delta: &[f64], epsilon: f64) -> Vec<f64> {
    // Largest magnitude each coordinate may keep because of the box.
    let reach: Vec<f64> = origin
        .iter()
        .zip(delta)
        .map(|(x, d)| d.abs().min(if *d > 0.0 { 1.0 - x } else { *x }).max(0.0))
        .collect();
    // Shrinking every magnitude by λ gives min(reach, |δ| − λ), clipped at zero.
    let magnitude = |lambda: f64, i: usize| reach[i].min((delta[i].abs() - lambda).max(0.0));
    let total = |lambda: f64| (0..reach.len()).map(|i| magnitude(lambda, i)).sum::<f64>();
    let lambda = if total(0.0) <= epsilon {
        0.0
    } else {
        let (mut low, mut high) = (0.0, delta.iter().fold(0.0, |m: f64, d| m.max(d.abs())));
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if total(middle) > epsilon { low = middle } else { high = middle }
        }
        high
    };
    (0..reach.len()).map(|i| magnitude(lambda, i).copysign(delta[i])).collect()
}

/// The smallest step `d` from `points` to the hyperplane `⟨w, ·⟩ = b` that stays in the box, `[n, size]`.
///
/// Smallest in `norm`; where the hyperplane misses the box, the step goes to the corner nearest to
/// it. Source: FAB (Croce and Hein 2020, eq. 4), official `projection_linf`, `_l2`, `_l1`.
pub(crate) fn onto_hyperplane_and_box(points: &Tensor, w: &Tensor, b: &[f64], norm: Norm) -> Result<Tensor> {
    let offsets = Tensor::from_slice(b, (b.len(), 1), points.device())?;
    rows(&[points, w, &offsets], points, |parts| hyperplane_step(parts[0], parts[1], parts[2][0], norm))
}

fn hyperplane_step(point: &[f64], w: &[f64], b: f64, norm: Norm) -> Vec<f64> {
    let side = point.iter().zip(w).map(|(t, w)| t * w).sum::<f64>() - b;
    let needed = side.abs();
    let sign = if side >= 0.0 { 1.0 } else { -1.0 };
    // Moving coordinate i by −sign·sgn(wᵢ)·m gains |wᵢ|·m; the box leaves it this much room.
    let room_of = |t: f64, w: f64| if w * sign > 0.0 { t.max(0.0) } else { (1.0 - t).max(0.0) };
    let room: Vec<f64> = point.iter().zip(w).map(|(&t, &w)| room_of(t, w)).collect();
    // How a multiplier λ turns into a length, and at which λ the room is used up.
    let mut order: Vec<(f64, usize)> = (0..w.len())
        .filter(|&i| w[i] != 0.0)
        .map(|i| match norm {
            Norm::Linf => (room[i], i),
            Norm::L2 => (room[i] / w[i].abs(), i),
            Norm::L1 => (-w[i].abs(), i),
        })
        .collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut step = vec![0.0; w.len()];
    let mut direct = |i: usize, length: f64| step[i] = -sign * w[i].signum() * length;
    if norm == Norm::L1 {
        // The cheapest coordinates first, each to its wall, the last one partly.
        let mut left = needed;
        for &(_, i) in &order {
            let length = room[i].min(left / w[i].abs());
            direct(i, length);
            left -= length * w[i].abs();
            if left <= 0.0 {
                break;
            }
        }
        return step;
    }
    // Gain per unit of λ of the coordinates not yet at their wall, and gain of those that are.
    let rate = |i: usize| if norm == Norm::Linf { w[i].abs() } else { w[i] * w[i] };
    let mut free: f64 = order.iter().map(|&(_, i)| rate(i)).sum();
    let mut used = 0.0;
    let mut lambda = f64::INFINITY;
    for &(wall, i) in &order {
        if used + free * wall >= needed {
            lambda = (needed - used) / free;
            break;
        }
        used += rate(i) * wall;
        free -= rate(i);
    }
    for &(wall, i) in &order {
        let multiplier = lambda.min(wall);
        direct(i, if norm == Norm::Linf { multiplier } else { multiplier * w[i].abs() });
    }
    step
}

/// Applies `row` to the flattened rows of all inputs in parallel; the result has the shape of `like`.
fn rows(inputs: &[&Tensor], like: &Tensor, row: impl Fn(&[&[f64]]) -> Vec<f64> + Sync) -> Result<Tensor> {
    let host: Vec<Vec<Vec<f64>>> = inputs
        .iter()
        .map(|t| t.flatten_from(1)?.to_dtype(DType::F64)?.to_vec2::<f64>())
        .collect::<candle_core::Result<_>>()?;
    let values: Vec<f64> = (0..like.dim(0)?)
        .into_par_iter()
        .flat_map_iter(|i| row(&host.iter().map(|rows| rows[i].as_slice()).collect::<Vec<_>>()))
        .collect();
    Ok(Tensor::from_vec(values, like.dims(), like.device())?.to_dtype(like.dtype())?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn length(step: &[f64], norm: Norm) -> f64 {
        match norm {
            Norm::Linf => step.iter().fold(0.0, |m, d| m.max(d.abs())),
            Norm::L2 => step.iter().map(|d| d * d).sum::<f64>().sqrt(),
            Norm::L1 => step.iter().map(|d| d.abs()).sum(),
        }
    }

    proptest! {
        /// The step lands on the hyperplane inside the box, and no feasible point found by walking
        /// along the box from it is nearer (checked against random feasible competitors).
        #[test]
        fn hyperplane_steps_are_feasible_and_minimal(
            point in prop::collection::vec(0.0..1.0f64, 6),
            other in prop::collection::vec(0.0..1.0f64, 6),
            w in prop::collection::vec(-1.0..1.0f64, 6),
        ) {
            // The hyperplane goes through `other`, so `other` is a feasible competitor.
            let b: f64 = w.iter().zip(&other).map(|(w, x)| w * x).sum();
            for norm in [Norm::Linf, Norm::L2, Norm::L1] {
                let step = hyperplane_step(&point, &w, b, norm);
                let landed: Vec<f64> = point.iter().zip(&step).map(|(p, d)| p + d).collect();
                let residual = landed.iter().zip(&w).map(|(x, w)| x * w).sum::<f64>() - b;
                prop_assert!(residual.abs() < 1e-9, "{norm}: off the plane by {residual}");
                prop_assert!(landed.iter().all(|x| (-1e-12..=1.0 + 1e-12).contains(x)));
                let rival: Vec<f64> = other.iter().zip(&point).map(|(o, p)| o - p).collect();
                prop_assert!(length(&step, norm) <= length(&rival, norm) + 1e-9);
            }
        }
    }

    #[test]
    fn unreachable_hyperplanes_lead_to_the_nearest_corner() {
        for norm in [Norm::Linf, Norm::L2, Norm::L1] {
            let step = hyperplane_step(&[0.2, 0.7], &[1.0, -2.0], 10.0, norm);
            assert_eq!(step.iter().map(|d| (d * 10.0).round()).collect::<Vec<_>>(), [8.0, -7.0], "{norm}");
        }
    }

    #[test]
    fn l1_projection_keeps_points_inside_and_shrinks_the_others() {
        let device = candle_core::Device::Cpu;
        let origin = Tensor::new(&[[0.5f64, 0.5, 0.9], [0.5, 0.5, 0.9]], &device).unwrap();
        let delta = Tensor::new(&[[0.1f64, -0.1, 0.05], [0.5, -0.3, 0.4]], &device).unwrap();
        let projected = onto_l1_ball_and_box(&origin, &delta, 0.6).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(projected[0], [0.1, -0.1, 0.05]);
        // The third coordinate is held at 0.1 by the box; the others lose 0.15 each.
        for (got, expected) in projected[1].iter().zip([0.35, -0.15, 0.1]) {
            assert!((got - expected).abs() < 1e-9, "{:?}", projected[1]);
        }
    }
}
