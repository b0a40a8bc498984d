//! Signs that a robustness measured by attacks would be misleading (official AutoAttack `checks.py`).

use std::fmt;

use candle_core::{D, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::{AttackContext, Classifier};
use crate::Result;
use crate::nn::loss;

/// Something a reader of the result must know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "warning", rename_all = "kebab-case")]
pub enum Warning {
    /// The same images got different logits: a randomised defence.
    Randomised {
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
    /// The loss does not depend on the pixels of some images.
    ZeroGradients {
        /// How many images.
        images: usize,
    },
    /// The black-box attack broke images that all gradient attacks had left.
    SquareBetter {
        /// How many images.
        images: usize,
        /// Of how many.
        total: usize,
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
            Self::Randomised { difference } => write!(
                f,
                "the model is randomised (logits differ by {difference:.2e} between passes): use autoattack-rand"
            ),
            Self::SoftmaxOutput => f.write_str(
                "the model returns probabilities, not logits: gradients vanish and robustness is overestimated",
            ),
            Self::GradientDependent { difference } => write!(
                f,
                "the model answers differently while gradients are recorded (by {difference:.2e}): it adapts at \
                 test time, which standard attacks do not measure"
            ),
            Self::ZeroGradients { images } => {
                write!(f, "zero gradients on {images} images: gradient attacks see nothing there (gradient masking)")
            }
            Self::SquareBetter { images, total } => write!(
                f,
                "Square broke {images} of {total} images that no gradient attack had broken: probably gradient masking"
            ),
            Self::FewClasses { replaced } => write!(f, "few classes: {replaced}"),
        }
    }
}

/// Passes through the model that look for randomness.
const PASSES: usize = 5;
/// Difference between two passes above which a model counts as randomised (official `alpha`).
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
        warnings.push(Warning::Randomised { difference: random });
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

fn difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    let largest = (a - b)?.abs()?.flatten_all()?.max(0)?;
    Ok(largest.to_dtype(candle_core::DType::F64)?.to_scalar()?)
}
