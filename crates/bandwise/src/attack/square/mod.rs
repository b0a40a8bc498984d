//! Square, the score-based black-box attack by random search (Andriushchenko et al. 2020).
//!
//! Follows the official `square.py` (margin loss, `p` schedule, square windows for L∞, pyramids for
//! L2 and L1), except that every image draws its own windows and signs from its own stream. It only
//! asks for logits: no graph is ever built.

mod proposal;

use candle_core::{DType, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::active_batch::{ActiveBatch, judge_logits};
use super::method::{AttackMethod, PassCount, Settings, Wording, check_number};
use super::oracle::{Objective, Oracle};
use super::{AttackContext, AttackResult, Classifier, Epsilon, Norm};
use crate::Result;
use crate::random::{self, Stream};
use proposal::Canvas;

/// Random search with squares of falling size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Square {
    /// L∞, L2 or L1.
    pub norm: Norm,
    /// Radius of the ball.
    pub epsilon: Epsilon,
    /// Proposals per start (official `n_queries`), after the starting point.
    pub queries: usize,
    /// Share of pixels changed at first (official `p_init`).
    pub initial_share: f64,
    /// Starts, on the survivors.
    pub restarts: usize,
    /// Stretch the size schedule, made for 10,000 queries, to `queries` (official `resc_schedule`;
    /// AutoAttack does not).
    pub rescale_schedule: bool,
}

impl Default for Square {
    fn default() -> Self {
        Self {
            norm: Norm::Linf,
            epsilon: Epsilon::of_255(8.0),
            queries: 5000,
            initial_share: 0.8,
            restarts: 1,
            rescale_schedule: false,
        }
    }
}

/// The search for one image.
struct Search {
    origin: Vec<f32>,
    best: Vec<f32>,
    proposed: Vec<f32>,
    margin: f64,
    stream: Stream,
}

impl AttackMethod for Square {
    const SUMMARY: &'static str = "random search with squares (black box)";
    const SOURCE: &'static str = "Andriushchenko et al. 2020";
    const NORMS: &'static [Norm] = &[Norm::Linf, Norm::L2, Norm::L1];

    fn settings(&mut self) -> Settings<'_> {
        let Self { norm, epsilon, queries, initial_share: _, restarts, rescale_schedule: _ } = self;
        Settings {
            norm: Some(norm),
            queries: Some(queries),
            restarts: Some(restarts),
            ..Settings::new(epsilon)
        }
    }

    fn validate(&self) -> Result<()> {
        let share = self.initial_share;
        check_number("square", "initial_share", share, share > 0.0 && share <= 1.0, "in (0, 1]")
    }

    fn objective(&self) -> Option<Objective> {
        None
    }

    fn passes(&self, _: usize) -> PassCount {
        PassCount::new(&[self.restarts, self.queries + 1], &[0]) + PassCount { forward: 1, gradient: 0 }
    }

    fn protocol(&self) -> Wording {
        Wording::new("Square", self.norm, self.epsilon)
            .count(self.queries, "query")
            .count(self.restarts, "restart")
            .unusual("initial share", self.initial_share, Self::default().initial_share)
            .when(self.rescale_schedule, "schedule rescaled to the queries")
    }

    fn run(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<AttackResult> {
        let oracle = Oracle::new(model, context);
        let mut active = ActiveBatch::new(images, labels)?;
        let mut current = images.detach();
        let clean = active.judge(&oracle.logits(images)?)?;
        active.count_queries(1);
        active.record(&clean, 0);
        if let Some(stay) = active.retire(&clean.iter().map(|v| v.wrong).collect::<Vec<_>>(), images)?
            && !active.alive.is_empty()
        {
            current = current.index_select(&stay, 0)?;
        }
        let (_, height, width, channels) = images.dims4()?;
        let canvas =
            Canvas { height, width, channels, norm: self.norm, epsilon: self.epsilon.value() as f32 };
        for restart in 0..self.restarts {
            if active.alive.is_empty() {
                break;
            }
            current = self.start(&oracle, &mut active, &current, &canvas, context, restart)?;
        }
        active.finish(&current)
    }
}

impl Square {
    /// One start on all survivors; returns the clean images of those who survive it, or their best
    /// proposal after the last start.
    fn start(
        &self,
        oracle: &Oracle,
        active: &mut ActiveBatch,
        origins: &Tensor,
        canvas: &Canvas,
        context: &AttackContext,
        restart: usize,
    ) -> Result<Tensor> {
        let tag = random::tag("square");
        let rows = origins.flatten_from(1)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        let mut searches: Vec<Search> = rows
            .into_iter()
            .zip(active.ids(context.image_ids))
            .map(|(origin, id)| Search {
                best: origin.clone(),
                proposed: Vec::new(),
                margin: f64::INFINITY,
                stream: random::stream(context.seed, &[tag, id, restart as u64]),
                origin,
            })
            .collect();
        for query in 0..=self.queries {
            let share = self.share(query.saturating_sub(1));
            searches.par_iter_mut().for_each(|search| {
                search.proposed = match query {
                    0 => canvas.first(&search.origin, &mut search.stream),
                    _ => canvas.next(&search.origin, &search.best, share, &mut search.stream),
                }
            });
            let judged = judge_logits(
                &oracle.logits(&stack(&searches, |s| &s.proposed, origins)?)?,
                &active.labels(),
            )?;
            active.count_queries(1);
            for (search, verdict) in searches.iter_mut().zip(&judged) {
                if query == 0 || verdict.margin < search.margin || verdict.wrong {
                    search.margin = verdict.margin;
                    std::mem::swap(&mut search.best, &mut search.proposed);
                }
            }
            let broken: Vec<bool> = judged.iter().map(|v| v.wrong).collect();
            for ((search, &image), &broken) in searches.iter().zip(&active.alive).zip(&broken) {
                let outcome = &mut active.outcomes[image];
                outcome.margin = outcome.margin.min(search.margin);
                outcome.broken = broken;
                outcome.restart = broken.then_some(restart as u32);
            }
            if broken.contains(&true) {
                active.retire(&broken, &stack(&searches, |s| &s.best, origins)?)?;
                let mut left = broken.iter();
                searches.retain(|_| !left.next().expect("one flag per search"));
                if searches.is_empty() {
                    return Ok(origins.clone());
                }
            }
        }
        let last = restart + 1 >= self.restarts;
        stack(&searches, |s| if last { &s.best } else { &s.origin }, origins)
    }

    /// Share of pixels that proposal number `query` (from 0) changes: official `p_selection`.
    fn share(&self, query: usize) -> f64 {
        let query = if self.rescale_schedule { query * 10_000 / self.queries.max(1) } else { query };
        let halvings =
            [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000].iter().filter(|&&from| query > from).count();
        self.initial_share / f64::from(1u32 << halvings)
    }
}

/// The chosen images of all searches as a tensor like `like` (its type, device and image shape).
fn stack(searches: &[Search], chosen: impl Fn(&Search) -> &Vec<f32>, like: &Tensor) -> Result<Tensor> {
    let values: Vec<f32> = searches.iter().flat_map(|search| chosen(search).iter().copied()).collect();
    let (_, height, width, channels) = like.dims4()?;
    let stacked = Tensor::from_vec(values, (searches.len(), height, width, channels), like.device())?;
    Ok(stacked.to_dtype(like.dtype())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_schedule_is_the_official_one() {
        let square = Square::default();
        let shares: Vec<f64> =
            [0, 10, 11, 50, 51, 201, 501, 1001, 2001, 4001, 8001].iter().map(|&q| square.share(q)).collect();
        let expected = [1, 1, 2, 2, 4, 8, 16, 32, 64, 128, 512].map(|halved| 0.8 / f64::from(halved));
        assert_eq!(shares, expected);
        let rescaled = Square { queries: 1000, rescale_schedule: true, ..square };
        assert_eq!(rescaled.share(500), 0.8 / 128.0);
    }
}
