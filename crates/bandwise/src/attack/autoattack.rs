//! AutoAttack (Croce and Hein 2020): a sequence of attacks, each on the survivors of those before.
//!
//! | version | sequence |
//! |---|---|
//! | `standard` | APGD-CE, APGD-T (9 targets), FAB-T (9 targets), Square (5000 queries) |
//! | `plus` | APGD-CE (5 starts), APGD-DLR (5), FAB (5), Square, APGD-T, FAB-T |
//! | `rand` | APGD-CE and APGD-DLR with 20 averaged gradients |
//! | `custom` | the attacks named in `attacks` |
//!
//! For L1, `standard` gives APGD-CE five starts, APGD-T five targets, and both shrinking radii, as
//! the official code does. **Few classes**, where the official code fails or warns: with three
//! classes APGD-T climbs the targeted margin instead of the targeted DLR loss; with two, APGD-DLR
//! climbs the margin as well; targets are limited to the wrong classes there are. The result says so.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::active_batch::{ActiveBatch, select_all};
use super::apgd::{Apgd, ApgdTargeted};
use super::check::{Warning, check_model};
use super::fab::Fab;
use super::method::{AttackMethod, PassCount, Preset, Settings, Wording};
use super::oracle::{Objective, Oracle};
use super::square::Square;
use super::{Attack, AttackContext, AttackResult, Classifier, Epsilon, Norm};
use crate::{Error, Result};

/// Which sequence is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AutoAttackVersion {
    /// The one that results are compared with.
    #[default]
    Standard,
    /// More attacks and more starts.
    Plus,
    /// For randomized models.
    Rand,
    /// The attacks listed.
    Custom,
}

const PLUS: &str = "autoattack-plus";
const RAND: &str = "autoattack-rand";

/// AutoAttack with its official parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoAttack {
    /// L∞, L2 or L1.
    pub norm: Norm,
    /// Radius of the ball.
    pub epsilon: Epsilon,
    /// Which sequence.
    pub version: AutoAttackVersion,
    /// For `custom`: some of `apgd-ce`, `apgd-dlr`, `apgd-t`, `fab`, `fab-t`, `square`, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attacks: Vec<String>,
    /// Square's queries.
    pub queries: usize,
    /// Steps of APGD and FAB.
    pub steps: usize,
    /// Target classes of APGD-T and FAB-T.
    pub targets: usize,
}

impl Default for AutoAttack {
    fn default() -> Self {
        Self {
            norm: Norm::Linf,
            epsilon: Epsilon::of_255(8.0),
            version: AutoAttackVersion::Standard,
            attacks: Vec::new(),
            queries: 5000,
            steps: 100,
            targets: 9,
        }
    }
}

/// AutoAttack: each outcome's `by` names the attack that broke the image.
impl AttackMethod for AutoAttack {
    const SUMMARY: &'static str = "APGD-CE, APGD-T, FAB-T and Square in turn: the standard to compare with";
    const SOURCE: &'static str = "Croce & Hein 2020";
    const NORMS: &'static [Norm] = &[Norm::Linf, Norm::L2, Norm::L1];

    fn presets() -> Vec<Preset<Self>> {
        let preset = |version, name, summary| Preset {
            name,
            summary,
            parameters: Self { version, ..Self::default() },
        };
        vec![
            preset(AutoAttackVersion::Plus, PLUS, "AutoAttack with more attacks and starts"),
            preset(AutoAttackVersion::Rand, RAND, "AutoAttack for randomized models"),
        ]
    }

    fn preset(&self) -> Option<&'static str> {
        match self.version {
            AutoAttackVersion::Standard => None,
            AutoAttackVersion::Plus => Some(PLUS),
            AutoAttackVersion::Rand => Some(RAND),
            AutoAttackVersion::Custom => Some("autoattack-custom"),
        }
    }

    fn settings(&mut self) -> Settings<'_> {
        let parts = self.sequence();
        let has = |names: &[&str]| parts.iter().any(|part| names.contains(part));
        let (square, targeted) = (has(&["square"]), has(&["apgd-t", "fab-t"]));
        let gradients = parts.iter().any(|part| *part != "square");
        let Self { norm, epsilon, version: _, attacks: _, queries, steps, targets } = self;
        Settings {
            norm: Some(norm),
            steps: gradients.then_some(steps),
            queries: square.then_some(queries),
            targets: targeted.then_some(targets),
            ..Settings::new(epsilon)
        }
    }

    fn validate(&self) -> Result<()> {
        let unknown = self.attacks.iter().find(|name| !Self::PARTS.contains(&name.as_str()));
        match unknown {
            Some(name) => Err(Error::config(format!(
                "autoattack has no part `{name}`; choose from {}",
                Self::PARTS.join(", ")
            ))),
            None if self.version == AutoAttackVersion::Custom && self.attacks.is_empty() => {
                Err(Error::config(format!(
                    "autoattack `custom` needs a list `attacks`, some of {}",
                    Self::PARTS.join(", ")
                )))
            }
            None if self.version != AutoAttackVersion::Custom && !self.attacks.is_empty() => {
                Err(Error::config("`attacks` is only for the version `custom` of autoattack"))
            }
            None => Ok(()),
        }
    }

    fn objective(&self) -> Option<Objective> {
        // Where the cross-entropy of its first part is saturated, the others work on logits.
        Some(Objective::Margin)
    }

    fn passes(&self, classes: usize) -> PassCount {
        let parts = self.parts(classes).unwrap_or_default();
        let clean = PassCount { forward: 1, gradient: 0 };
        parts.iter().map(|part| part.passes(classes)).fold(clean, |sum, part| sum + part)
    }

    fn protocol(&self) -> Wording {
        let version = match self.version {
            AutoAttackVersion::Standard => "standard".to_string(),
            AutoAttackVersion::Plus => "plus".to_string(),
            AutoAttackVersion::Rand => "rand".to_string(),
            AutoAttackVersion::Custom => format!("custom ({})", self.attacks.join(", ")),
        };
        let mut copy = self.clone();
        let Settings { steps, queries, targets, .. } = copy.settings();
        let mut wording = Wording::new(format!("AutoAttack {version}"), self.norm, self.epsilon);
        if let Some(steps) = steps {
            wording = wording.count(*steps, "step");
        }
        if let Some(targets) = targets {
            wording = wording.count(*targets, "target");
        }
        if let Some(queries) = queries {
            wording = wording.count(*queries, "query");
        }
        wording
    }

    fn run(
        &self,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<AttackResult> {
        let mut warnings = check_model(model, images, context)?;
        warnings.extend(self.few_classes(model.num_classes())?);
        let mut active = ActiveBatch::new(images, labels)?;
        let judged = active.judge(&Oracle::new(model, context).logits(images)?)?;
        active.count_queries(1);
        active.record(&judged, 0);
        let (mut best, mut left_labels) = (images.detach(), labels.clone());
        let mut done: Vec<bool> = judged.iter().map(|v| v.wrong).collect();
        for name in self.sequence() {
            if let Some(stay) = active.retire(&done, &best)? {
                if active.alive.is_empty() {
                    break;
                }
                select_all(&mut [&mut best, &mut left_labels], &stay)?;
            }
            let ids = active.ids(context.image_ids);
            let inner = AttackContext { image_ids: &ids, ..*context };
            // Every attack starts at the clean images: those still alive are still clean in `best`.
            let result = self.run_part(name, model, &best, &left_labels, &inner)?;
            warnings.extend(result.warnings.into_iter().filter(|warning| !warning.counts_images()));
            done = result.outcomes.iter().map(|outcome| outcome.broken).collect();
            let broken = done.iter().filter(|&&broken| broken).count();
            if name == "square" {
                warnings.extend(square_better(broken, active.outcomes.len()));
            }
            for (&image, outcome) in active.alive.iter().zip(result.outcomes) {
                active.outcomes[image].add_part(name, outcome);
            }
            best = super::active_batch::pick(&done, &result.images, &best)?;
        }
        let mut result = active.finish(&best)?;
        warnings.append(&mut result.warnings);
        result.warnings = Warning::merge(warnings);
        Ok(result)
    }
}

impl AutoAttack {
    /// Names that `custom` accepts.
    pub const PARTS: [&'static str; 6] = ["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"];

    /// Runs one attack of the sequence, by its name in [`part_names`](Self::part_names), on images that the
    /// ones before left.
    pub fn run_part(
        &self,
        name: &str,
        model: &dyn Classifier,
        images: &Tensor,
        labels: &Tensor,
        context: &AttackContext,
    ) -> Result<AttackResult> {
        let name = name.split('#').next().unwrap_or_default();
        let (part, replaced) = self.part(name, model.num_classes())?;
        let context = &AttackContext { early_stop: true, judge: true, ..*context };
        match (&part, replaced) {
            (Attack::ApgdDlr(attack), Some((objective, _))) => {
                attack.climb(objective, model, images, labels, context)
            }
            (Attack::ApgdTargeted(attack), Some((objective, _))) => {
                attack.climb(objective, model, images, labels, context)
            }
            _ => part.run(model, images, labels, context),
        }
    }

    /// The most that one attack of the sequence spends on an image.
    pub(crate) fn part_passes(&self, name: &str, classes: usize) -> PassCount {
        let name = name.split('#').next().unwrap_or_default();
        self.part(name, classes).map(|(part, _)| part.passes(classes)).unwrap_or_default()
    }

    /// What a reader must know where the model has too few classes for parts of the sequence.
    pub fn few_classes(&self, classes: usize) -> Result<Vec<Warning>> {
        let mut warnings = Vec::new();
        for name in self.sequence() {
            let (_, replaced) = self.part(name, classes)?;
            warnings.extend(replaced.map(|(_, what)| Warning::FewClasses { replaced: what.into() }));
        }
        Ok(Warning::merge(warnings))
    }

    /// The names of the attacks in order, with `#2`, `#3` … where one is repeated.
    pub fn part_names(&self) -> Vec<String> {
        let sequence = self.sequence();
        let label = |(index, name): (usize, &&'static str)| match sequence[..index]
            .iter()
            .filter(|n| *n == name)
            .count()
        {
            0 => name.to_string(),
            before => format!("{name}#{}", before + 1),
        };
        sequence.iter().enumerate().map(label).collect()
    }

    /// The names of the attacks in order.
    fn sequence(&self) -> Vec<&'static str> {
        match self.version {
            AutoAttackVersion::Standard => vec!["apgd-ce", "apgd-t", "fab-t", "square"],
            AutoAttackVersion::Plus => vec!["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"],
            AutoAttackVersion::Rand => vec!["apgd-ce", "apgd-dlr"],
            AutoAttackVersion::Custom => {
                let known = |name: &String| Self::PARTS.into_iter().find(|part| part == name);
                self.attacks.iter().filter_map(known).collect()
            }
        }
    }

    /// The attacks of the sequence with their parameters.
    pub(crate) fn parts(&self, classes: usize) -> Result<Vec<Attack>> {
        self.sequence().into_iter().map(|name| Ok(self.part(name, classes)?.0)).collect()
    }

    /// One attack of the sequence; with too few classes for its loss, also the objective to climb
    /// instead and what to tell the reader.
    fn part(&self, name: &str, classes: usize) -> Result<(Attack, Option<(Objective, &'static str)>)> {
        let (plus, rand, l1) = (
            self.version == AutoAttackVersion::Plus,
            self.version == AutoAttackVersion::Rand,
            self.norm == Norm::L1,
        );
        let (norm, epsilon, steps) = (self.norm, self.epsilon, self.steps);
        let apgd = || Apgd {
            norm,
            epsilon,
            steps,
            restarts: if plus || l1 { 5 } else { 1 },
            averaged_gradients: if rand { 20 } else { 1 },
            shrinking_radius: l1,
            ..Apgd::default()
        };
        let mut replaced = None;
        let attack = match name {
            "apgd-ce" => Attack::ApgdCe(apgd()),
            "apgd-dlr" => {
                if classes < 3 {
                    replaced =
                        Some((Objective::Margin, "apgd-dlr climbs the margin, the DLR loss needs 3 classes"));
                }
                Attack::ApgdDlr(apgd())
            }
            "apgd-t" => {
                if classes < 4 {
                    let what = "apgd-t climbs the targeted margin, the targeted DLR loss needs 4 classes";
                    replaced = Some((Objective::TargetedMargin, what));
                }
                let targets = if l1 { self.targets.min(5) } else { self.targets };
                let shrinking_radius = l1;
                let start = ApgdTargeted::default();
                Attack::ApgdTargeted(ApgdTargeted {
                    norm,
                    epsilon,
                    steps,
                    targets,
                    shrinking_radius,
                    ..start
                })
            }
            "fab" | "fab-t" => {
                let restarts = if plus && name == "fab" { 5 } else { 1 };
                let attack = Fab { norm, epsilon, steps, restarts, targets: self.targets, ..Fab::default() };
                if name == "fab" { Attack::Fab(attack) } else { Attack::FabTargeted(attack) }
            }
            "square" => Attack::Square(Square { norm, epsilon, queries: self.queries, ..Square::default() }),
            _ => return Err(Error::config(format!("autoattack has no part `{name}`"))),
        };
        Ok((attack, replaced))
    }
}

/// The sign of gradient masking that Square gives: it broke more than 0.2 % of all attacked images after the
/// attacks before it, and did not break all of them (official `checks.py`).
pub(crate) fn square_better(images: usize, total: usize) -> Option<Warning> {
    let many = total > images && images as f64 > 0.002 * total as f64;
    many.then_some(Warning::SquareBetter { images, total })
}
