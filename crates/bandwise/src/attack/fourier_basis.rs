//! Single Fourier basis attack (after Tsuzuku and Sato 2019; perturbations as in Yin et al. 2019).
//!
//! Black box: each query adds one two-dimensional wave of size ε, with a random sign per channel. The
//! frequency that breaks an image (`by` in its outcome) shows where in the spectrum a model is weak.

use candle_core::{DType, Tensor};
use rand::Rng;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::active_batch::{ActiveBatch, select_host};
use super::method::{AttackMethod, PassCount, Settings, Wording};
use super::oracle::{Objective, Oracle};
use super::{AttackContext, AttackResult, Band, Classifier, Epsilon, Norm};
use crate::spectral::noise::fourier_basis;
use crate::{Result, random};

/// Waves of all frequencies, or of a band, in random order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FourierBasis {
    /// L∞ or L2.
    pub norm: Norm,
    /// Size of the perturbation.
    pub epsilon: Epsilon,
    /// Largest number of waves tried per image.
    pub queries: usize,
    /// Frequencies to draw from; all if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub band: Option<Band>,
}

impl Default for FourierBasis {
    fn default() -> Self {
        Self { norm: Norm::Linf, epsilon: Epsilon::of_255(8.0), queries: 1000, band: None }
    }
}

/// One wave: its frequency and a sign per channel.
#[derive(Clone)]
struct Wavelet {
    frequency: (i64, i64),
    signs: Vec<f32>,
}

/// What one image still has before it.
#[derive(Clone)]
struct Candidate {
    origin: Vec<f32>,
    best: Vec<f32>,
    plan: Vec<Wavelet>,
}

impl AttackMethod for FourierBasis {
    const SUMMARY: &'static str = "single Fourier waves in random order (black box)";
    const SOURCE: &'static str = "after Tsuzuku & Sato 2019, Yin et al. 2019";
    const NORMS: &'static [Norm] = &[Norm::Linf, Norm::L2];

    fn settings(&mut self) -> Settings<'_> {
        let Self { norm, epsilon, queries, band } = self;
        Settings { norm: Some(norm), queries: Some(queries), band: Some(band), ..Settings::new(epsilon) }
    }

    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn objective(&self) -> Option<Objective> {
        None
    }

    fn passes(&self, _: usize) -> PassCount {
        PassCount::new(&[self.queries], &[0])
    }

    fn protocol(&self) -> Wording {
        Wording::new("Fourier basis attack", self.norm, self.epsilon)
            .count(self.queries, "query")
            .band(&self.band)
    }

    fn run(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<AttackResult> {
        let (_, height, width, channels) = images.dims4()?;
        let frequencies = Band::frequencies(self.band.as_ref(), height, width);
        let oracle = Oracle::new(model, context);
        let mut active = ActiveBatch::new(images, labels)?;
        let judged = active.judge(&oracle.logits(images)?)?;
        active.count_queries(1);
        active.record(&judged, 0);
        let tag = random::tag("fourier-basis");
        let mut candidates: Vec<Candidate> = images
            .flatten_from(1)?
            .to_dtype(DType::F32)?
            .to_vec2::<f32>()?
            .into_iter()
            .zip(context.image_ids)
            .map(|(origin, &id)| Candidate {
                best: origin.clone(),
                origin,
                plan: plan(&frequencies, channels, self.queries, random::stream(context.seed, &[tag, id])),
            })
            .collect();
        let mut done: Vec<bool> = judged.iter().map(|v| v.wrong).collect();
        let longest = candidates.iter().map(|c| c.plan.len()).max().unwrap_or(0);
        for query in 0..longest {
            let best = attacked_images(candidates.iter().map(|c| &c.best), images)?;
            if let Some(stay) = active.retire(&done, &best)? {
                select_host(&mut candidates, &stay)?;
            }
            if active.alive.is_empty() {
                break;
            }
            let tried: Vec<Vec<f32>> =
                candidates.par_iter().map(|c| self.add(&c.origin, &c.plan[query], height, width)).collect();
            let judged = active.judge(&oracle.logits(&attacked_images(tried.iter(), images)?)?)?;
            active.count_queries(1);
            for (row, picture) in tried.into_iter().enumerate() {
                let outcome = &mut active.outcomes[active.alive[row]];
                if judged[row].margin < outcome.margin || judged[row].wrong {
                    let (i, j) = candidates[row].plan[query].frequency;
                    outcome.margin = judged[row].margin;
                    outcome.broken = judged[row].wrong;
                    outcome.by = Some(format!("frequency {i},{j}"));
                    candidates[row].best = picture;
                }
            }
            done = judged.iter().map(|v| v.wrong).collect();
        }
        let rest = attacked_images(candidates.iter().map(|c| &c.best), images);
        active.finish(&if candidates.is_empty() { images.clone() } else { rest? })
    }
}

impl FourierBasis {
    /// `origin` plus the wave at size ε, inside the pixel box.
    fn add(&self, origin: &[f32], wavelet: &Wavelet, height: usize, width: usize) -> Vec<f32> {
        let basis = fourier_basis(height, width, wavelet.frequency.0, wavelet.frequency.1);
        let channels = wavelet.signs.len();
        let size = match self.norm {
            Norm::Linf => basis.iter().fold(0.0f64, |m, v| m.max(v.abs())),
            _ => (channels as f64).sqrt(),
        };
        let scale = (self.epsilon.value() / size) as f32;
        origin
            .iter()
            .enumerate()
            .map(|(i, x)| {
                (x + scale * basis[i / channels] as f32 * wavelet.signs[i % channels]).clamp(0.0, 1.0)
            })
            .collect()
    }
}

/// Frequencies in random order, each with random signs and then with the opposite ones.
fn plan(
    frequencies: &[(i64, i64)],
    channels: usize,
    queries: usize,
    mut stream: random::Stream,
) -> Vec<Wavelet> {
    let mut order = frequencies.to_vec();
    order.shuffle(&mut stream);
    order
        .into_iter()
        .flat_map(|frequency| {
            let signs: Vec<f32> = (0..channels).map(|_| if stream.random() { 1.0 } else { -1.0 }).collect();
            let opposite = signs.iter().map(|sign| -sign).collect();
            [Wavelet { frequency, signs }, Wavelet { frequency, signs: opposite }]
        })
        .take(queries)
        .collect()
}

/// Host images as a tensor like `like` (its type, device and image shape).
pub(crate) fn attacked_images<'a>(
    rows: impl ExactSizeIterator<Item = &'a Vec<f32>>,
    like: &Tensor,
) -> Result<Tensor> {
    let (_, height, width, channels) = like.dims4()?;
    let count = rows.len();
    let values: Vec<f32> = rows.flat_map(|row| row.iter().copied()).collect();
    Ok(Tensor::from_vec(values, (count, height, width, channels), like.device())?.to_dtype(like.dtype())?)
}
