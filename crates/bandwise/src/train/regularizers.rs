//! What can be added to any objective: the `[regularizers]` table of a recipe.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::attack::Epsilon;
use crate::method::filter_frequency::Penalty as FilterPenalty;
use crate::method::grad_align::GradAlign;
use crate::method::input_gradient::scalar;
use crate::method::{GradientNorm, GroupSparsity, InputPenalty, Jafr};
use crate::{Error, Result};

/// A quantity that a run logs though nothing is added to the loss for it. Those of the input gradient J are taken on the
/// training batches where penalties of J would be, which costs one more pass per step if there is no such penalty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tracked {
    /// JaFR's low-frequency bias of J (`track_low_freq_bias_loss`).
    LowFrequencyBias,
    /// The mean norm of J (`track_grad_l2_norm_loss`).
    GradientNorm,
    /// The mean group sparsity of J (`track_grad_sparsity_loss`).
    GroupSparsity,
    /// The penalty of the filters, and the share of their energy at high frequencies.
    FilterFrequency,
}

impl Tracked {
    /// Its name in logs and its value at J; `None` for what is not of the input gradient.
    pub(super) fn of_input_gradient(self, gradient: &Tensor) -> Result<Option<(&'static str, f64)>> {
        let (name, value) = match self {
            Self::LowFrequencyBias => ("input_gradient/low_frequency_bias", Jafr::default().bias(gradient)?),
            Self::GradientNorm => ("input_gradient/norm", GradientNorm::default().value(gradient)?),
            Self::GroupSparsity => {
                ("input_gradient/group_sparsity", GroupSparsity::default().value(gradient)?)
            }
            Self::FilterFrequency => return Ok(None),
        };
        Ok(Some((name, scalar(&value)?)))
    }
}

macro_rules! regularizers {
    ($($(#[$documentation:meta])* $name:ident: $penalty:ty,)*) => {
        /// All regularizers of a run; absent ones cost nothing.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Regularizers {
            /// Filter frequency regularization: λ times the norms of high-frequency filter coefficients.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub filter_frequency: Option<FilterPenalty>,
            /// Gradient alignment.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub grad_align: Option<GradAlign>,
            $(
                $(#[$documentation])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $name: Option<$penalty>,
            )*
            /// Takes the J of all penalties of J but `grad_align` at x + δ instead of x, δ uniform in ± this, new in each
            /// epoch and not clipped (official `delta_type_for_grad_backprop = random_uniform`).
            #[serde(skip_serializing_if = "Option::is_none")]
            pub gradient_noise: Option<Epsilon>,
            /// What is logged without being penalized (official `--track_…` flags).
            #[serde(skip_serializing_if = "Vec::is_empty")]
            pub track: Vec<Tracked>,
        }

        impl Regularizers {
            /// The regularizers by how they are computed.
            pub(super) fn by_kind(&self) -> Kinds<'_> {
                let Self { filter_frequency, grad_align, gradient_noise, track, $($name,)* } = self;
                let mut of_input_gradient: Vec<(&str, &dyn InputPenalty)> = Vec::new();
                $(
                    if let Some(penalty) = $name {
                        of_input_gradient.push((concat!("penalty/", stringify!($name)), penalty));
                    }
                )*
                let (filter_frequency, grad_align) = (filter_frequency.as_ref(), grad_align.as_ref());
                let gradient_noise = *gradient_noise;
                Kinds { filter_frequency, grad_align, gradient_noise, track, of_input_gradient }
            }
        }
    };
}

regularizers! {
    /// Jacobian frequency regularization.
    jafr: Jafr,
    /// The input gradient's L2 norm.
    gradient_norm: GradientNorm,
    /// The input gradient's group sparsity.
    group_sparsity: GroupSparsity,
}

/// The regularizers by how they are computed. It is taken apart without `..`, so that no kind can be forgotten.
pub(super) struct Kinds<'a> {
    /// Of the weights.
    pub filter_frequency: Option<&'a FilterPenalty>,
    /// Of J at two places.
    pub grad_align: Option<&'a GradAlign>,
    /// Where the others take J.
    pub gradient_noise: Option<Epsilon>,
    /// What is logged.
    pub track: &'a [Tracked],
    /// Of J at one place, by their names in logs.
    pub of_input_gradient: Vec<(&'static str, &'a dyn InputPenalty)>,
}

impl Regularizers {
    /// Whether nothing is added.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the share of high-frequency filter energy is logged after each epoch.
    pub fn tracks_filters(&self) -> bool {
        self.filter_frequency.is_some() || self.track.contains(&Tracked::FilterFrequency)
    }

    /// Refuses values that make no sense.
    pub fn validate(&self) -> Result<()> {
        let Kinds { filter_frequency, grad_align, gradient_noise, track: _, of_input_gradient } =
            self.by_kind();
        filter_frequency.map_or(Ok(()), FilterPenalty::validate)?;
        grad_align.map_or(Ok(()), GradAlign::validate)?;
        of_input_gradient.into_iter().try_for_each(|(_, penalty)| penalty.validate())?;
        match gradient_noise.map(|noise| noise.value()) {
            Some(noise) if noise > 1.0 => {
                Err(Error::config("gradient_noise must lie within [0, 1] (pixels do): 8/255, for example"))
            }
            _ => Ok(()),
        }
    }
}
