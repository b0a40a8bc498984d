//! Signs that a robustness measured by attacks would be misleading (official AutoAttack `checks.py`).

use std::fmt;

use candle_core::{D, DType, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::geometry::host_norms;
use super::oracle::{LossTargets, Objective, Oracle};
use super::{Attack, AttackContext, Classifier, Norm, judge_logits};
use crate::Result;
use crate::nn::loss;
use crate::wording::counted;

/// Something a reader of the result must know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "warning", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Warning {
    /// The same images got different logits: a randomized defense.
    #[serde(alias = "randomised")]
    Randomized {
        /// Largest difference between two passes.
        difference: f64,
    },
    /// Outputs are probabilities, not logits.
    SoftmaxOutput,
    /// The model answers differently when gradients are recorded.
    GradientDependent {
        /// Largest difference between the two answers.
        difference: f64,
    },
    /// Images survived an attack that met a gradient of zero, or one that is not a number: of AutoAttack, in every
    /// part that follows a gradient.
    ZeroGradients {
        /// How many images.
        images: usize,
        /// What to do.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        advice: String,
    },
    /// On images of the pre-flight check, the gradient that attacks follow is nearly zero or not a number.
    MaskedGradients {
        /// Names of the attacks.
        attacks: String,
        /// How many images, with the attack that it is worst for.
        images: usize,
        /// Of how many.
        total: usize,
        /// What to do.
        advice: String,
    },
    /// The black-box attack broke images that all gradient attacks had left.
    SquareBetter {
        /// How many images.
        images: usize,
        /// Of how many.
        total: usize,
    },
    /// How the model was loaded, or what it is judged on, makes every number doubtful.
    Subject {
        /// What is doubtful.
        text: String,
    },
    /// Attacks that need more classes were replaced or got fewer targets.
    FewClasses {
        /// What was done.
        replaced: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Randomized { difference } => write!(
                f,
                "the model is randomized (logits differ by {difference:.2e} between passes): use autoattack-rand"
            ),
            Self::Subject { text } => f.write_str(text),
            Self::SoftmaxOutput => f.write_str(
                "the model returns probabilities, not logits: gradients vanish and robustness is overestimated",
            ),
            Self::GradientDependent { difference } => write!(
                f,
                "the model answers differently while gradients are recorded (by {difference:.2e}): it adapts at \
                 test time, which standard attacks do not measure"
            ),
            Self::ZeroGradients { images, advice } => {
                write!(
                    f,
                    "zero gradients on {} that survived: the attack saw nothing there (gradient masking), which is no \
                     robustness",
                    counted(*images, "image")
                )?;
                if advice.is_empty() { Ok(()) } else { write!(f, "; {advice}") }
            }
            Self::MaskedGradients { attacks, images, total, advice } => write!(
                f,
                "masked gradients: on {images} of {} {attacks} would see no gradient; {advice}",
                counted(*total, "image")
            ),
            Self::SquareBetter { images, total } => write!(
                f,
                "Square broke {images} of {} that no gradient attack had broken: probably gradient masking",
                counted(*total, "image")
            ),
            Self::FewClasses { replaced } => write!(f, "few classes: {replaced}"),
        }
    }
}

/// Passes through the model that look for randomness.
const PASSES: usize = 5;
/// Difference between two passes above which a model counts as randomized (official `alpha`).
const TOLERANCE: f64 = 1e-4;

/// Looks for randomness, probabilities instead of logits, and answers that depend on gradients being
/// recorded, on (at most one batch of) images `[n, height, width, channels]`.
pub fn check_model(model: &dyn Classifier, images: &Tensor, context: &AttackContext) -> Result<Vec<Warning>> {
    let images = images.narrow(0, 0, images.dim(0)?.min(context.batch_size))?.contiguous()?;
    let mut warnings = Vec::new();
    let first = model.logits_no_graph(&images)?;
    let mut random = 0.0f64;
    for _ in 1..PASSES {
        random = random.max(difference(&first, &model.logits_no_graph(&images)?)?);
    }
    if random > TOLERANCE {
        warnings.push(Warning::Randomized { difference: random });
    } else {
        let pixels = Var::from_tensor(&images)?;
        let recorded = model.logits(&pixels)?.detach();
        let difference = difference(&first, &recorded)?;
        if difference > TOLERANCE {
            warnings.push(Warning::GradientDependent { difference });
        }
    }
    let sums = loss::to_host(&first.sum(D::Minus1)?)?;
    let lowest = loss::to_host(&first.min(D::Minus1)?)?;
    if sums.iter().all(|sum| (sum - 1.0).abs() < 1e-5) && lowest.iter().all(|&low| low >= 0.0) {
        warnings.push(Warning::SoftmaxOutput);
    }
    Ok(warnings)
}

/// Share of the logits' gradient below which that of a loss is as good as lost in float32.
const SATURATED: f64 = 1e-30;
/// Length below which attacks in the L2 norm do not turn a gradient into a full step any more.
const TOO_SHORT: f64 = 1e-12;

/// Looks for masked gradients on images `[n, height, width, channels]` with labels `[n]`: whether the loss of each
/// attack has a gradient where the logits have one. A saturated softmax, for example, hides the way from the
/// cross-entropy but not from the margin.
pub fn check_gradients(
    model: &dyn Classifier,
    images: &Tensor,
    labels: &Tensor,
    attacks: &[Attack],
    context: &AttackContext,
) -> Result<Vec<Warning>> {
    let followers: Vec<(&Attack, Objective)> =
        attacks.iter().filter_map(|attack| Some((attack, attack.objective()?))).collect();
    if followers.is_empty() || model.num_classes() < 2 {
        return Ok(Vec::new());
    }
    let oracle = Oracle::new(model, context);
    let mut goal = LossTargets::new(labels);
    let logits = oracle.slope(images, &goal, Objective::Margin)?;
    let sensitivity = host_norms(&logits.gradient.to_dtype(DType::F64)?, Norm::L2)?;
    let judged = judge_logits(&logits.logits, &labels.to_vec1()?)?;
    let flat = sensitivity.iter().filter(|size| !(size.is_finite() && **size > 0.0)).count();
    let mut found = Vec::new();
    if flat > 0 {
        let names: Vec<&str> = followers.iter().map(|(attack, _)| attack.name()).collect();
        found.push(Warning::MaskedGradients {
            attacks: names.join(", "),
            images: flat,
            total: sensitivity.len(),
            advice: format!(
                "the logits themselves have none, so what survives proves nothing: {}",
                advice(followers[0].0.norm(), attacks)
            ),
        });
    }
    let mut measured: Vec<(Objective, Vec<f64>)> = Vec::new();
    for (attack, objective) in followers {
        if objective == Objective::Dlr && model.num_classes() < 3 {
            continue; // the attack itself will refuse
        }
        if !measured.iter().any(|(known, _)| *known == objective) {
            goal.clean_logits = Some(logits.logits.clone());
            // The divergence has no gradient at the clean image, by definition.
            let at = match objective {
                Objective::Divergence => (images + 1e-3)?.clamp(0.0, 1.0)?,
                _ => images.clone(),
            };
            let gradient = oracle.slope(&at, &goal, objective)?.gradient;
            measured.push((objective, host_norms(&gradient.to_dtype(DType::F64)?, Norm::L2)?));
        }
        let Some((_, sizes)) = measured.iter().find(|(known, _)| *known == objective) else { continue };
        let shortest = if attack.norm() == Norm::L2 { TOO_SHORT } else { 0.0 };
        let lost = |image: &usize| {
            let (size, all) = (sizes[*image], sensitivity[*image]);
            let visible = size.is_finite() && size > SATURATED * all && size > shortest;
            // The DLR loss of an image whose label ranks third is constant; but nobody attacks what is wrong already.
            let constant = objective == Objective::Dlr && judged[*image].wrong;
            all.is_finite() && all > 0.0 && !visible && !constant
        };
        let images = (0..sizes.len()).filter(lost).count();
        if images > 0 {
            let advice = format!(
                "its loss is saturated there, so what survives proves nothing: {}",
                advice_if_saturated(attack.norm(), attacks)
            );
            let (attacks, total) = (attack.name().into(), sizes.len());
            found.push(Warning::MaskedGradients { attacks, images, total, advice });
        }
    }
    Ok(Warning::merge(found))
}

/// What to do where gradients lead nowhere: attacks in this norm that need none, or those of them that the evaluation
/// `attacks` already has.
pub(crate) fn advice(norm: Norm, attacks: &[Attack]) -> String {
    match attacks.iter().find(|attack| has(attack, norm, SQUARE)) {
        None => format!("use {SQUARE}, which needs none, or autoattack, which has it as a part"),
        Some(attack) if attack.name() == SQUARE => format!("go by {SQUARE}, which needs none"),
        Some(attack) => format!("go by {}, whose part {SQUARE} needs none", attack.name()),
    }
}

/// What to do where a loss is saturated but the logits still have a gradient: attacks of margins see it.
fn advice_if_saturated(norm: Norm, attacks: &[Attack]) -> String {
    let margin = match norm {
        Norm::Linf => "cw-linf",
        Norm::L2 => "cw-l2",
        Norm::L1 => return advice(norm, attacks),
    };
    let square = attacks.iter().find(|attack| has(attack, norm, SQUARE));
    match (square, attacks.iter().any(|attack| has(attack, norm, margin))) {
        (Some(_), _) => advice(norm, attacks),
        (None, true) => format!("go by {margin}, whose loss does not saturate"),
        (None, false) => format!("use {margin}, whose loss does not saturate, or autoattack"),
    }
}

/// Whether an attack in this norm is, or has as a part, the one of that name.
fn has(attack: &Attack, norm: Norm, name: &str) -> bool {
    attack.norm() == norm && (attack.name() == name || attack.part_names().iter().any(|part| part == name))
}

/// The attack that needs no gradient and knows every norm.
const SQUARE: &str = "square";

impl Warning {
    /// The warning about so many images that survived unseen, if there are any.
    pub(crate) fn zero_gradients(images: usize, advice: String) -> Option<Self> {
        (images > 0).then_some(Self::ZeroGradients { images, advice })
    }

    /// Whether outcomes of single images tell the same: then these are counted, not warnings.
    pub(crate) fn counts_images(&self) -> bool {
        matches!(self, Self::ZeroGradients { .. })
    }

    /// Each warning once; counts of images added up.
    pub fn merge(warnings: Vec<Self>) -> Vec<Self> {
        let mut merged: Vec<Self> = Vec::new();
        for warning in warnings {
            if !merged.iter_mut().any(|kept| kept.absorb(&warning)) {
                merged.push(warning);
            }
        }
        merged
    }

    /// Takes up another warning of the same kind; `false` if it is of another.
    fn absorb(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Randomized { difference }, Self::Randomized { difference: more })
            | (Self::GradientDependent { difference }, Self::GradientDependent { difference: more }) => {
                *difference = difference.max(*more);
            }
            (Self::SoftmaxOutput, Self::SoftmaxOutput) => {}
            (Self::Subject { text }, Self::Subject { text: other }) if text == other => {}
            (Self::ZeroGradients { images, advice }, Self::ZeroGradients { images: more, advice: other }) => {
                *images += more;
                if advice.is_empty() {
                    advice.clone_from(other);
                }
            }
            (
                Self::MaskedGradients { attacks, images, total, advice },
                Self::MaskedGradients { attacks: other, images: more, total: of, advice: same },
            ) if advice == same => {
                if !attacks.split(", ").any(|name| name == other) {
                    *attacks = format!("{attacks}, {other}");
                }
                (*images, *total) = ((*images).max(*more), (*total).max(*of));
            }
            (Self::SquareBetter { images, total }, Self::SquareBetter { images: more, total: of }) => {
                *images += more;
                *total += of;
            }
            (Self::FewClasses { replaced }, Self::FewClasses { replaced: more }) => {
                if !replaced.contains(more.as_str()) {
                    *replaced = format!("{replaced}; {more}");
                }
            }
            (
                Self::Randomized { .. }
                | Self::GradientDependent { .. }
                | Self::SoftmaxOutput
                | Self::Subject { .. }
                | Self::ZeroGradients { .. }
                | Self::MaskedGradients { .. }
                | Self::SquareBetter { .. }
                | Self::FewClasses { .. },
                _,
            ) => return false,
        }
        true
    }

    /// Whether the warning says anything about images that this attack left, `None` for clean ones.
    pub fn concerns(&self, attack: Option<&str>) -> bool {
        match self {
            Self::MaskedGradients { attacks, .. } => {
                attack.is_some_and(|name| attacks.split(", ").any(|other| other == name))
            }
            Self::Randomized { .. }
            | Self::SoftmaxOutput
            | Self::GradientDependent { .. }
            | Self::ZeroGradients { .. }
            | Self::SquareBetter { .. }
            | Self::Subject { .. }
            | Self::FewClasses { .. } => true,
        }
    }
}

fn difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    let largest = (a - b)?.abs()?.flatten_all()?.max(0)?;
    Ok(largest.to_dtype(candle_core::DType::F64)?.to_scalar()?)
}
