//! The settings of attacks as flags: the same in `evaluate`, `mask` and `analyze perturbations`.

use bandwise::attack::{Attack, AttackOverrides, Band, Epsilon, Norm, Start};
use bandwise::{Error, Result};
use clap::Args;

/// What an attack is changed by; without a flag, its own default holds.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Settings of attacks")]
pub struct AttackArguments {
    /// Size of the perturbation, pixels in [0,1], e.g. 8/255 [default: linf 8/255, l2 0.5, l1 12]
    #[arg(long, value_name = "EPSILON", value_delimiter = ',', visible_alias = "epsilon")]
    pub eps: Vec<Epsilon>,
    /// Norm that bounds the perturbation: linf, l2 or l1 [default: the attack's own]
    #[arg(long, value_name = "NORM")]
    pub norm: Option<Norm>,
    /// Steps of an iterated attack
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Length of one step of an iterated attack, pixels in [0,1]
    #[arg(long, value_name = "SIZE")]
    pub step_size: Option<Epsilon>,
    /// Where an iterated attack starts: zero, random or gaussian
    #[arg(long, value_name = "START")]
    pub start: Option<Start>,
    /// Starts of an iterated attack; later ones see what survived
    #[arg(long, value_name = "N")]
    pub restarts: Option<usize>,
    /// Queries of black-box attacks
    #[arg(long, value_name = "N")]
    pub queries: Option<usize>,
    /// Target classes of apgd-t, fab-t and autoattack
    #[arg(long, value_name = "N")]
    pub targets: Option<usize>,
    /// Confine the perturbation to frequencies: LO:HI cycles per image, or single ones as 3,-4;0,5
    #[arg(long, value_name = "LO:HI")]
    pub band: Option<Band>,
    /// Compute the gradient of the cross-entropy exactly, not rounded as PyTorch does: stronger on very confident
    /// networks, and further from published numbers
    #[arg(long)]
    pub exact_gradient: bool,
}

impl AttackArguments {
    /// All but ε, of which there may be several.
    fn overrides(&self) -> AttackOverrides {
        let Self { eps: _, norm, steps, step_size, start, restarts, queries, targets, band, exact_gradient } =
            self.clone();
        AttackOverrides {
            epsilon: None,
            norm,
            steps,
            step_size,
            start,
            restarts,
            queries,
            targets,
            band,
            exact_gradient: exact_gradient.then_some(true),
        }
    }

    /// Whether any of them was given.
    pub fn are_given(&self) -> bool {
        !self.eps.is_empty() || self.overrides() != AttackOverrides::default()
    }

    /// The attacks of these names with these settings: all at the first ε, then all at the next, so that an ε more
    /// comes at the end.
    pub fn attacks(&self, names: &[&str]) -> Result<Vec<Attack>> {
        let given = self.overrides();
        if self.eps.is_empty() {
            return given.attacks(names);
        }
        let at =
            |epsilon: &Epsilon| AttackOverrides { epsilon: Some(*epsilon), ..given.clone() }.attacks(names);
        Ok(self.eps.iter().map(at).collect::<Result<Vec<_>>>()?.concat())
    }

    /// The attack of that name with these settings.
    pub fn attack(&self, name: &str) -> Result<Attack> {
        match &self.attacks(&[name])?[..] {
            [attack] => Ok(attack.clone()),
            _ => Err(Error::config("one --eps at a time, please: here there is room for one attack")),
        }
    }
}

/// Help for `--eps` where there is room for several attacks.
pub const SEVERAL_EPSILONS: &str = "Size of the perturbation, pixels in [0,1], e.g. 8/255; several separated by commas [default: \
    linf 8/255, l2 0.5, l1 12]";

/// Help for a flag that takes an attack's name.
pub fn help(before: &str) -> String {
    format!("{before}: {}", Attack::names().join(", "))
}

/// The same with one line per attack.
pub fn long_help(before: &str) -> String {
    format!("{before}:\n{}", Attack::help())
}
