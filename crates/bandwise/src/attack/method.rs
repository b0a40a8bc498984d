//! What an attack tells about itself. Each attack's file implements [`AttackMethod`]; `table.rs` lists them.

use candle_core::Tensor;

use super::oracle::Objective;
use super::{AttackContext, AttackResult, Band, Classifier, Epsilon, Norm, Start};
use crate::wording::counted;
use crate::{Error, Result};

/// The form of an attack whose parameters describe one attack only.
pub(crate) struct Plain;

/// Parameters that are an attack. Where one set of parameters serves several attacks (`apgd-ce` and `apgd-dlr`),
/// `Form` tells them apart.
pub(crate) trait AttackMethod<Form = Plain>: Clone + Default + PartialEq {
    /// What it is, in a few words, for help and documentation.
    const SUMMARY: &'static str;
    /// The paper it comes from.
    const SOURCE: &'static str;
    /// The norms it knows, its default first.
    const NORMS: &'static [Norm];

    /// The parameters that it shares with other attacks. Written as `let Self { .. } = self` without a rest, so
    /// that a new parameter is not forgotten: ε warm-up, checks and command lines see what is named here.
    fn settings(&mut self) -> Settings<'_>;

    /// Refuses values of the parameters that are its own; the shared ones are checked for all attacks alike.
    fn validate(&self) -> Result<()>;

    /// The loss whose gradient it follows; `None` for black boxes.
    fn objective(&self) -> Option<Objective>;

    /// The most that it spends on one image, if the image survives to the end.
    fn passes(&self, classes: usize) -> PassCount;

    /// What a paper must state, without what all readers take for granted: parameters beyond the common ones
    /// only where they differ from the default.
    fn protocol(&self) -> Wording;

    /// Attacks `images` `[n, height, width, channels]` with `labels` `[n]` u32.
    fn run(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<AttackResult>;

    /// Variants with a name of their own.
    fn presets() -> Vec<Preset<Self>> {
        Vec::new()
    }

    /// The name of the variant that it is, if not the table's.
    fn preset(&self) -> Option<&'static str> {
        None
    }

    /// Whether images of this size leave it something to change.
    fn check_size(&self, height: usize, width: usize) -> Result<()> {
        match self.clone().settings().band {
            Some(Some(band)) => band.check_size(height, width),
            _ => Ok(()),
        }
    }
}

/// A named variant of an attack.
pub(crate) struct Preset<P> {
    pub name: &'static str,
    pub summary: &'static str,
    pub parameters: P,
}

/// The parameters that attacks share, to read and to change; `None` where an attack has no such thing.
pub(crate) struct Settings<'a> {
    /// Radius of the ball.
    pub epsilon: &'a mut Epsilon,
    /// Norm of the ball; `None` if there is only one.
    pub norm: Option<&'a mut Norm>,
    /// Gradient steps.
    pub steps: Option<&'a mut usize>,
    /// Step length.
    pub step_size: Option<StepSize<'a>>,
    /// Starting point.
    pub start: Option<&'a mut Start>,
    /// Independent attempts.
    pub restarts: Option<&'a mut usize>,
    /// Queries of black-box attacks.
    pub queries: Option<&'a mut usize>,
    /// Target classes.
    pub targets: Option<&'a mut usize>,
    /// Frequencies to which the perturbation is confined.
    pub band: Option<&'a mut Option<Band>>,
    /// Whether the gradient of the cross-entropy is computed exactly.
    pub exact_gradient: Option<&'a mut bool>,
}

/// A step length that follows from other parameters unless it is given.
pub(crate) struct StepSize<'a> {
    /// As given.
    pub given: &'a mut Option<Epsilon>,
    /// What is used if it is not.
    pub default: Epsilon,
}

impl StepSize<'_> {
    /// What is used.
    pub fn value(&self) -> Epsilon {
        self.given.unwrap_or(self.default)
    }
}

/// The distance between float32 numbers around 0.5: a pixel there does not change by less.
pub(crate) const RESOLUTION: f64 = 1.0 / (1u32 << 24) as f64;

impl<'a> Settings<'a> {
    /// With a radius and nothing else.
    pub fn new(epsilon: &'a mut Epsilon) -> Self {
        Self {
            epsilon,
            norm: None,
            steps: None,
            step_size: None,
            start: None,
            restarts: None,
            queries: None,
            targets: None,
            band: None,
            exact_gradient: None,
        }
    }

    /// Multiplies every length by `factor`.
    pub fn scale(self, factor: f64) {
        *self.epsilon = self.epsilon.scaled(factor);
        if let Some(StepSize { given: Some(step_size), .. }) = self.step_size {
            *step_size = step_size.scaled(factor);
        }
    }

    /// The settings that have the same value in `other`, by their names in protocols.
    pub fn same(&self, other: &Self) -> Vec<&'static str> {
        // Unmentioned: all frequencies, and the gradient's arithmetic, which the loss's name tells.
        let Self {
            epsilon,
            norm,
            steps,
            step_size,
            start,
            restarts,
            queries,
            targets,
            band: _,
            exact_gradient: _,
        } = self;
        let given = |size: &Option<StepSize>| size.as_ref().map(|size| *size.given);
        let all = [
            ("norm", norm.is_some() && *norm == other.norm),
            ("ε", *epsilon == other.epsilon),
            ("steps", steps.is_some() && *steps == other.steps),
            ("step size", step_size.is_some() && given(step_size) == given(&other.step_size)),
            ("start", start.is_some() && *start == other.start),
            ("restarts", restarts.is_some() && *restarts == other.restarts),
            ("queries", queries.is_some() && *queries == other.queries),
            ("targets", targets.is_some() && *targets == other.targets),
        ];
        all.into_iter().filter(|(_, same)| *same).map(|(name, _)| name).collect()
    }

    /// The smallest of its lengths: ε or the step.
    pub fn shortest(&self) -> f64 {
        let step = self.step_size.as_ref().map(StepSize::value);
        step.map_or(f64::INFINITY, Epsilon::value).min(self.epsilon.value())
    }

    /// Refuses values with which an attack does nothing, or never ends.
    pub fn validate(&self, name: &str) -> Result<()> {
        const LOST: &str = "is lost in the rounding of float32 pixels";
        match self.epsilon.value() {
            0.0 => Err(Error::config(format!(
                "{name}: with ε = 0 no image can change; the clean accuracy is that number"
            ))),
            short if short < RESOLUTION => Err(Error::config(format!(
                "{name}: ε = {} {LOST}: no image can change; the clean accuracy is that number",
                self.epsilon
            ))),
            _ => Ok(()),
        }?;
        if let Some(step) = self.step_size.as_ref().map(StepSize::value) {
            match step.value() {
                0.0 => Err(Error::config(format!("{name}: with `step_size` = 0 no image can change"))),
                short if short < RESOLUTION => Err(Error::config(format!(
                    "{name}: a step of {} {LOST}: no image can change",
                    step.rounded()
                ))),
                _ => Ok(()),
            }?;
        }
        let counts = [
            ("steps", &self.steps),
            ("restarts", &self.restarts),
            ("queries", &self.queries),
            ("targets", &self.targets),
        ];
        counts.into_iter().try_for_each(|(setting, count)| match count {
            Some(count) => check_count(name, setting, **count),
            None => Ok(()),
        })
    }
}

/// More steps, starts or queries than anybody needs; they size what is allocated.
const MOST: usize = 1_000_000;

/// Refuses 0, with which the attack would do nothing, and absurd numbers.
pub(crate) fn check_count(name: &str, setting: &str, count: usize) -> Result<()> {
    match count {
        0 => Err(Error::config(format!(
            "{name}: with `{setting}` = 0 nothing is attacked; it must be at least 1"
        ))),
        1..=MOST => Ok(()),
        _ => Err(Error::config(format!("{name}: `{setting}` = {count} is more than {MOST}"))),
    }
}

/// Refuses a number outside its range; `range` in words.
pub(crate) fn check_number(name: &str, setting: &str, value: f64, allowed: bool, range: &str) -> Result<()> {
    if value.is_finite() && allowed {
        return Ok(());
    }
    Err(Error::config(format!("{name}: `{setting}` must be {range}, not {value}")))
}

/// Passes of one image through a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassCount {
    /// Forward passes without a graph.
    pub forward: u64,
    /// Forward passes with a backward pass.
    pub gradient: u64,
}

impl PassCount {
    /// Products of counts.
    pub(crate) fn new(forward: &[usize], gradient: &[usize]) -> Self {
        let product = |counts: &[usize]| counts.iter().fold(1u64, |p, &count| p.saturating_mul(count as u64));
        Self { forward: product(forward), gradient: product(gradient) }
    }
}

impl std::ops::Add for PassCount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            forward: self.forward.saturating_add(other.forward),
            gradient: self.gradient.saturating_add(other.gradient),
        }
    }
}

/// Builder for a protocol line: parts joined by commas.
#[derive(Clone, Debug)]
pub(crate) struct Wording(Vec<String>);

impl Wording {
    /// Begins with the attack's name, norm and radius: `PGD-10, L∞ ε = 8/255`.
    pub fn new(name: impl Into<String>, norm: Norm, epsilon: Epsilon) -> Self {
        Self(vec![name.into(), format!("{} ε = {epsilon}", norm.symbol())])
    }

    /// Adds a part.
    pub fn with(mut self, part: impl Into<String>) -> Self {
        self.0.push(part.into());
        self
    }

    /// Adds a part if there is something to say.
    pub fn when(self, needed: bool, part: impl Into<String>) -> Self {
        if needed { self.with(part) } else { self }
    }

    /// `1 restart`, `9 targets`.
    pub fn count(self, count: usize, what: &str) -> Self {
        self.with(counted(count, what))
    }

    /// `step 2/255`.
    pub fn step(self, step: Epsilon) -> Self {
        self.with(format!("step {}", step.rounded()))
    }

    /// `random start`.
    pub fn start(self, start: Start) -> Self {
        self.with(match start {
            Start::Zero => "start at the clean image",
            Start::Random => "random start",
            Start::Gaussian => "Gaussian start",
        })
    }

    /// `frequencies 4:8`.
    pub fn band(self, band: &Option<Band>) -> Self {
        match band {
            Some(band) => self.with(format!("frequencies {band}")),
            None => self,
        }
    }

    /// The loss that is climbed.
    pub fn loss(self, objective: Objective) -> Self {
        self.with(match objective {
            Objective::CrossEntropy => "cross-entropy with exact gradient",
            Objective::PytorchCrossEntropy => "cross-entropy",
            Objective::Margin => "margin loss",
            Objective::TargetedMargin => "targeted margin loss",
            Objective::Dlr => "DLR loss",
            Objective::TargetedDlr => "targeted DLR loss",
            Objective::Divergence => "KL divergence",
        })
    }

    /// A parameter that is taken for granted unless it differs from its default: `ρ 0.5`.
    pub fn unusual<T: PartialEq + std::fmt::Display>(self, what: &str, value: T, default: T) -> Self {
        if value == default { self } else { self.with(format!("{what} {value}")) }
    }
}

impl std::fmt::Display for Wording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}
