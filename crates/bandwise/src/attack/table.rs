//! The attacks: one line each. The enum, names, help, documentation and suggestions are made from this table.

use std::fmt;
use std::str::FromStr;

use candle_core::Tensor;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::apgd::{OnCrossEntropy, OnDlr};
use super::fab::{Targeted, Untargeted};
use super::method::{AttackMethod, PassCount, RESOLUTION, Settings, StepSize};
use super::oracle::Objective;
use super::{
    Apgd, ApgdTargeted, AttackContext, AttackResult, AutoAttack, Classifier, CwL2, CwLinf, DeepFool, Epsilon,
    Fab, Fgsm, FourierBasis, LowFrequency, MiFgsm, NO_GRADIENTS, Norm, Pgd, RandomFgsm, Square, Warning,
    advice,
};
use crate::{Error, Result};

/// One name of the table.
struct Entry {
    name: &'static str,
    summary: &'static str,
    source: &'static str,
    norms: &'static [Norm],
    /// With its default parameters.
    attack: Attack,
}

macro_rules! attacks {
    ($($name:literal => $variant:ident($parameters:ident $(: $form:ident)?),)*) => {
        /// An attack with its parameters. In recipes: `{ name = "pgd", epsilon = "8/255", steps = 10 }`.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(tag = "name")]
        #[non_exhaustive]
        pub enum Attack {
            $(
                #[doc = concat!("`", $name, "`, with the parameters [`", stringify!($parameters), "`].")]
                #[serde(rename = $name)]
                $variant($parameters),
            )*
        }

        impl Attack {
            /// The table.
            fn entries() -> Vec<Entry> {
                let mut entries = Vec::new();
                $({
                    type Parameters = $parameters;
                    let entry = |name, summary, parameters| Entry {
                        name,
                        summary,
                        source: <Parameters as AttackMethod $(<$form>)?>::SOURCE,
                        norms: <Parameters as AttackMethod $(<$form>)?>::NORMS,
                        attack: Self::$variant(parameters),
                    };
                    let summary = <Parameters as AttackMethod $(<$form>)?>::SUMMARY;
                    entries.push(entry($name, summary, Parameters::default()));
                    let presets = <Parameters as AttackMethod $(<$form>)?>::presets();
                    entries.extend(presets.into_iter().map(|p| entry(p.name, p.summary, p.parameters)));
                })*
                entries
            }

            /// The attack of that name with these parameters and the defaults of all others.
            fn from_map(name: &str, parameters: Map<String, Value>) -> Result<Self, FromMapError> {
                let parameters = Value::Object(parameters);
                match name {
                    $($name => Ok(Self::$variant(serde_json::from_value(parameters)?)),)*
                    _ => Self::from_preset(name, parameters),
                }
            }

            /// The name of this attack.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(attack) => {
                        <$parameters as AttackMethod $(<$form>)?>::preset(attack).unwrap_or($name)
                    })*
                }
            }

            /// The parameters that it shares with other attacks.
            pub(crate) fn settings(&mut self) -> Settings<'_> {
                match self {
                    $(Self::$variant(attack) => <$parameters as AttackMethod $(<$form>)?>::settings(attack),)*
                }
            }

            /// The norms that it knows, its default first.
            pub fn norms(&self) -> &'static [Norm] {
                match self {
                    $(Self::$variant(_) => <$parameters as AttackMethod $(<$form>)?>::NORMS,)*
                }
            }

            /// The loss whose gradient it follows; `None` for black boxes.
            pub(crate) fn objective(&self) -> Option<Objective> {
                match self {
                    $(Self::$variant(attack) => <$parameters as AttackMethod $(<$form>)?>::objective(attack),)*
                }
            }

            /// What a paper must state, for example `PGD-10, L∞ ε = 8/255, step 2/255, random start, 1 restart,
            /// cross-entropy`. Attacks with different parameters never have the same line.
            pub fn protocol(&self) -> String {
                match self {
                    $(Self::$variant(attack) => {
                        <$parameters as AttackMethod $(<$form>)?>::protocol(attack).to_string()
                    })*
                }
            }

            /// The most that this attack spends on one image, if the image survives to the end.
            pub fn passes(&self, classes: usize) -> PassCount {
                match self {
                    $(Self::$variant(attack) => {
                        <$parameters as AttackMethod $(<$form>)?>::passes(attack, classes)
                    })*
                }
            }

            /// Whether images of this size leave the attack something to change.
            ///
            /// # Errors
            /// [`Error::Config`] for a band without a frequency of such images.
            pub fn check_size(&self, height: usize, width: usize) -> Result<()> {
                match self {
                    $(Self::$variant(attack) => {
                        <$parameters as AttackMethod $(<$form>)?>::check_size(attack, height, width)
                    })*
                }
            }

            fn validate_own(&self) -> Result<()> {
                match self {
                    $(Self::$variant(attack) => <$parameters as AttackMethod $(<$form>)?>::validate(attack),)*
                }
            }

            fn run_validated(
                &self,
                model: &dyn Classifier,
                images: &Tensor,
                labels: &Tensor,
                context: &AttackContext,
            ) -> Result<AttackResult> {
                match self {
                    $(Self::$variant(attack) => {
                        <$parameters as AttackMethod $(<$form>)?>::run(attack, model, images, labels, context)
                    })*
                }
            }
        }
    };
}
attacks! {
    "fgsm" => Fgsm(Fgsm),
    "rfgsm" => RandomFgsm(RandomFgsm),
    "pgd" => Pgd(Pgd),
    "mifgsm" => MiFgsm(MiFgsm),
    "cw-linf" => CwLinf(CwLinf),
    "cw-l2" => CwL2(CwL2),
    "deepfool" => DeepFool(DeepFool),
    "apgd-ce" => ApgdCe(Apgd: OnCrossEntropy),
    "apgd-dlr" => ApgdDlr(Apgd: OnDlr),
    "apgd-t" => ApgdTargeted(ApgdTargeted),
    "fab" => Fab(Fab: Untargeted),
    "fab-t" => FabTargeted(Fab: Targeted),
    "square" => Square(Square),
    "autoattack" => AutoAttack(AutoAttack),
    "fourier-basis" => FourierBasis(FourierBasis),
    "low-frequency" => LowFrequency(LowFrequency),
}

impl Attack {
    /// Names accepted on the command line and in recipes.
    pub fn names() -> Vec<&'static str> {
        Self::entries().into_iter().map(|entry| entry.name).collect()
    }

    /// A named variant with these parameters.
    fn from_preset(name: &str, parameters: Value) -> Result<Self, FromMapError> {
        let preset =
            Self::entries().into_iter().find(|entry| entry.name == name).ok_or(FromMapError::Name)?;
        let Value::Object(mut table) = serde_json::to_value(preset.attack)? else {
            return Err(FromMapError::Name);
        };
        let Some(Value::String(name)) = table.remove("name") else { return Err(FromMapError::Name) };
        table.extend(parameters.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
        Self::from_map(&name, table)
    }

    /// One line per attack: its name, norms and what it is.
    pub fn help() -> String {
        let line = |entry: &Entry| {
            let norms: Vec<String> = entry.norms.iter().map(Norm::to_string).collect();
            format!("  {:<16} {:<13} {}", entry.name, norms.join(", "), entry.summary)
        };
        Self::entries().iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// The attacks as a Markdown table, as docs/attacks.md has it.
    pub fn documentation() -> String {
        let mut text = String::from(
            "| name | what | norms | parameters and their defaults | source |\n|---|---|---|---|---|\n",
        );
        for entry in Self::entries() {
            let norms: Vec<String> = entry.norms.iter().map(Norm::to_string).collect();
            text.push_str(&format!(
                "| `{}` | {} | {} | {} | {} |\n",
                entry.name,
                entry.summary,
                norms.join(", "),
                entry.attack.parameters().join(", "),
                entry.source
            ));
        }
        text
    }

    /// Each parameter with its value, as in `steps` 10.
    fn parameters(&self) -> Vec<String> {
        let values = serde_json::to_value(self).unwrap_or_default();
        let mut all: Vec<(String, String)> = values
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| !["name", "norm"].contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.as_str().map_or(value.to_string(), str::to_string)))
            .collect();
        let mut copy = self.clone();
        let settings = copy.settings();
        if let Some(StepSize { given: None, default }) = settings.step_size {
            all.push(("step_size".into(), default.rounded()));
        }
        if let Some(None) = settings.band {
            all.push(("band".into(), String::new()));
        }
        all.sort();
        all.into_iter().map(|(name, value)| format!("`{name}` {value}").trim_end().to_string()).collect()
    }

    /// The radius within which a misclassified image counts as broken.
    pub fn epsilon(&self) -> Epsilon {
        *self.clone().settings().epsilon
    }

    /// The parts that AutoAttack runs one after the other, each on the survivors; none for other attacks.
    pub fn part_names(&self) -> Vec<String> {
        if let Self::AutoAttack(attack) = self { attack.part_names() } else { Vec::new() }
    }

    /// [`passes`](Self::passes) of one of its [parts](Self::part_names), or of the whole.
    pub fn passes_of(&self, part: Option<&str>, classes: usize) -> PassCount {
        match (self, part) {
            (Self::AutoAttack(attack), Some(part)) => attack.part_passes(part, classes),
            (attack, _) => attack.passes(classes),
        }
    }

    /// The norm that measures the perturbation.
    pub fn norm(&self) -> Norm {
        self.clone().settings().norm.map_or(self.norms()[0], |norm| *norm)
    }

    /// The same attack of `factor` times the strength: ε, and a step size given in pixels, are multiplied.
    pub fn scaled(&self, factor: f64) -> Self {
        let mut attack = self.clone();
        if factor != 1.0 {
            attack.settings().scale(factor);
        }
        attack
    }

    /// Whether it is this attack, however it was written: a step left out is its default, and the same distance may
    /// be a fraction or a decimal.
    pub fn is_same(&self, other: &Self) -> bool {
        let (mut one, mut two) = (self.clone(), other.clone());
        {
            let (ours, theirs) = (one.settings(), two.settings());
            if !ours.epsilon.is_about(*theirs.epsilon) {
                return false;
            }
            match (ours.step_size, theirs.step_size) {
                (Some(ours), Some(theirs)) if ours.value().is_about(theirs.value()) => {
                    *theirs.given = *ours.given;
                }
                (None, None) => {}
                _ => return false,
            }
            *theirs.epsilon = *ours.epsilon;
        }
        one == two
    }

    /// The attack with its step length written out.
    pub(crate) fn written_out(&self) -> Self {
        let mut own = self.clone();
        if let Some(step) = own.settings().step_size {
            let value = step.value();
            *step.given = Some(value);
        }
        own
    }

    /// Each attack once, and those that were left out.
    pub fn distinct(attacks: Vec<Self>) -> (Vec<Self>, Vec<Self>) {
        let (mut kept, mut left_out) = (Vec::<Self>::new(), Vec::new());
        for attack in attacks {
            let known = kept.iter().any(|kept| kept.is_same(&attack));
            if known { left_out.push(attack) } else { kept.push(attack) }
        }
        (kept, left_out)
    }

    /// The attack as it runs on a model of so many classes: there are no more targets than wrong ones.
    pub fn for_classes(mut self, classes: usize) -> Self {
        if let Some(targets) = self.settings().targets {
            *targets = (*targets).min(classes.saturating_sub(1).max(1));
        }
        self
    }

    /// The same attack of `factor` times the strength, but not of one so small that it is lost in rounding: for ε that
    /// grows from nothing.
    pub(crate) fn warmed_up(&self, factor: f64) -> Self {
        let least = RESOLUTION * (1.0 + 1e-6) / self.clone().settings().shortest();
        self.scaled(factor.max(least.min(1.0)))
    }

    /// [`protocol`](Self::protocol), and which settings are the attack's defaults.
    pub fn protocol_with_defaults(&self) -> String {
        let Ok(default) = self.name().parse::<Self>() else { return self.protocol() };
        if *self == default {
            return format!("{} (all defaults)", self.protocol());
        }
        let (mut ours, mut default) = (self.clone(), default);
        let same = ours.settings().same(&default.settings());
        match same.is_empty() {
            true => self.protocol(),
            false => format!("{} (defaults: {})", self.protocol(), same.join(", ")),
        }
    }

    /// Attacks `images` `[n, height, width, channels]` with `labels` `[n]` (u32).
    ///
    /// # Errors
    /// [`Error::Config`] for parameters that make no sense, [`Error::Model`] for logits that are not
    /// numbers, [`Error::Interrupted`] if the context's flag was raised.
    pub fn run(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<AttackResult> {
        self.validate()?;
        let (count, height, width, _) = images.dims4()?;
        self.check_size(height, width)?;
        self.check_gradients_of(model)?;
        if context.image_ids.len() != count {
            return Err(Error::config(format!(
                "an attack got {count} images and {} image identities",
                context.image_ids.len()
            )));
        }
        let mut result = self.run_validated(model, images, labels, context)?;
        for warning in &mut result.warnings {
            if let Warning::ZeroGradients { advice: what, .. } = warning {
                *what = advice(self.norm(), std::slice::from_ref(self));
            }
        }
        Ok(result)
    }

    /// Whether the model has what the attack asks it for.
    ///
    /// # Errors
    /// [`Error::Model`] for an attack that follows gradients on a model that has none.
    pub fn check_gradients_of(&self, model: &dyn Classifier) -> Result<()> {
        if model.has_gradients() || self.objective().is_none() {
            return Ok(());
        }
        let without = Self::entries().into_iter().filter(|entry| entry.attack.objective().is_none());
        let without: Vec<&str> = without.map(|entry| entry.name).collect();
        Err(Error::model(format!(
            "{} follows the gradient of the model, but {NO_GRADIENTS}; attacks that need none are {}",
            self.name(),
            without.join(", ")
        )))
    }

    /// The adversarial images alone, `[n, height, width, channels]`.
    pub fn perturb(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<Tensor> {
        Ok(self.run(model, images, labels, context)?.images)
    }

    /// Checks the parameters before anything runs.
    ///
    /// # Errors
    /// [`Error::Config`] for a norm that the attack does not know, values out of range, and values with which it
    /// would do nothing (ε, steps, step size, starts, queries or targets of 0).
    pub fn validate(&self) -> Result<()> {
        let (name, norm, epsilon) = (self.name(), self.norm(), self.epsilon());
        if !self.norms().contains(&norm) {
            return Err(self.no_such_norm(norm));
        }
        if norm == Norm::Linf && epsilon.value() > 1.0 {
            return Err(Error::config(format!(
                "ε = {epsilon} is larger than the whole pixel range [0, 1]; did you mean {}/255?",
                epsilon.value()
            )));
        }
        self.clone().settings().validate(name)?;
        self.validate_own()
    }

    /// The attack does not know this norm; names those that it knows and, for the norm, attacks that do.
    pub(super) fn no_such_norm(&self, norm: Norm) -> Error {
        let own: Vec<String> = self.norms().iter().map(Norm::to_string).collect();
        let others: Vec<&str> = Self::entries()
            .into_iter()
            .filter(|entry| entry.norms.contains(&norm))
            .map(|entry| entry.name)
            .collect();
        Error::config(format!(
            "{} has no {norm} form; choose {}, or for {norm} one of {}",
            self.name(),
            own.join(" or "),
            others.join(", ")
        ))
    }
}

/// Why parameters are no attack.
enum FromMapError {
    /// There is no attack of that name.
    Name,
    /// The parameters are not its own.
    Parameters(serde_json::Error),
}

impl From<serde_json::Error> for FromMapError {
    fn from(error: serde_json::Error) -> Self {
        Self::Parameters(error)
    }
}

fn unknown(name: &str) -> String {
    crate::suggest::unknown("attack", name, &Attack::names()).to_string()
}

impl<'de> Deserialize<'de> for Attack {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = Map::deserialize(deserializer)?;
        let Some(Value::String(name)) = table.remove("name") else {
            return Err(D::Error::missing_field("name"));
        };
        // `nan` and `inf` of a recipe arrive as nothing.
        if let Some((key, _)) = table.iter().find(|(_, value)| value.is_null()) {
            return Err(D::Error::custom(format!("`{key}` of `{name}` must have a finite value")));
        }
        // An ε that is not given belongs to the norm that is.
        if let (Some(norm), None) = (table.get("norm"), table.get("epsilon"))
            && let Ok(norm) = serde_json::from_value::<Norm>(norm.clone())
        {
            table.insert(
                "epsilon".into(),
                serde_json::to_value(norm.default_epsilon()).map_err(D::Error::custom)?,
            );
        }
        Self::from_map(&name, table).map_err(|error| match error {
            FromMapError::Name => D::Error::custom(unknown(&name)),
            FromMapError::Parameters(error) => D::Error::custom(error),
        })
    }
}

impl FromStr for Attack {
    type Err = Error;

    /// The attack of that name with its default parameters.
    fn from_str(name: &str) -> Result<Self> {
        let found = Self::entries().into_iter().find(|entry| entry.name == name);
        found.map(|entry| entry.attack).ok_or_else(|| Error::config(unknown(name)))
    }
}

impl fmt::Display for Attack {
    /// The [`protocol`](Self::protocol).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.protocol())
    }
}
