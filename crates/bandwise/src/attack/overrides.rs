//! Settings given on a command line, put over an attack's defaults.

use serde::Serialize;

use super::method::Settings;
use super::{Attack, Band, Epsilon, Norm, Start};
use crate::{Error, Result};

/// Settings that many attacks share; those left `None` keep the attack's own value.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AttackOverrides {
    /// Radius of the ball.
    pub epsilon: Option<Epsilon>,
    /// Norm of the ball.
    pub norm: Option<Norm>,
    /// Gradient steps.
    pub steps: Option<usize>,
    /// Step length.
    pub step_size: Option<Epsilon>,
    /// Starting point.
    pub start: Option<Start>,
    /// Independent attempts.
    pub restarts: Option<usize>,
    /// Queries of black-box attacks.
    pub queries: Option<usize>,
    /// Target classes.
    pub targets: Option<usize>,
    /// Frequencies to which the perturbation is confined.
    pub band: Option<Band>,
    /// Whether the gradient of the cross-entropy is computed exactly.
    pub exact_gradient: Option<bool>,
}

impl AttackOverrides {
    /// The attacks of these names with these settings.
    ///
    /// # Errors
    /// [`Error::Config`] for unknown names, refused values, and settings that no attack has.
    pub fn attacks(&self, names: &[&str]) -> Result<Vec<Attack>> {
        let mut attacks = Vec::new();
        let mut unused: Option<Vec<&str>> = None;
        for name in names {
            let (attack, without) = self.apply(&name.parse()?)?;
            unused = Some(match unused {
                None => without,
                Some(earlier) => earlier.into_iter().filter(|setting| without.contains(setting)).collect(),
            });
            attacks.push(attack);
        }
        match unused {
            Some(unused) if !unused.is_empty() => Err(Error::config(format!(
                "{} has no setting {}",
                names.join(", "),
                unused.iter().map(|setting| format!("`{setting}`")).collect::<Vec<_>>().join(", ")
            ))),
            _ => Ok(attacks),
        }
    }

    /// The attack with these settings, and the names of those it does not have. With another norm but no ε, it
    /// gets [the norm's](Norm::default_epsilon).
    ///
    /// # Errors
    /// [`Error::Config`] for a value that the attack refuses.
    pub fn apply(&self, attack: &Attack) -> Result<(Attack, Vec<&'static str>)> {
        let (mut attack, old_norm) = (attack.clone(), attack.norm());
        if let Some(norm) = self.norm
            && !attack.norms().contains(&norm)
        {
            return Err(attack.no_such_norm(norm));
        }
        let epsilon = self.epsilon.or(self.norm.filter(|norm| *norm != old_norm).map(Norm::default_epsilon));
        let given = self.clone();
        let Settings {
            epsilon: own_epsilon,
            norm,
            steps,
            step_size,
            start,
            restarts,
            queries,
            targets,
            band,
            exact_gradient,
        } = attack.settings();
        *own_epsilon = epsilon.unwrap_or(*own_epsilon);
        if let (Some(own), Some(given)) = (norm, given.norm) {
            *own = given;
        }
        let mut unused = Vec::new();
        put(&mut unused, "steps", steps, given.steps);
        put(&mut unused, "step_size", step_size.map(|size| size.given), given.step_size.map(Some));
        put(&mut unused, "start", start, given.start);
        put(&mut unused, "restarts", restarts, given.restarts);
        put(&mut unused, "queries", queries, given.queries);
        put(&mut unused, "targets", targets, given.targets);
        put(&mut unused, "band", band, given.band.map(Some));
        put(&mut unused, "exact_gradient", exact_gradient, given.exact_gradient);
        attack.validate()?;
        Ok((attack, unused))
    }
}

/// Puts a value that was given into its place, or its name into `unused` where there is no such place.
fn put<T>(unused: &mut Vec<&'static str>, name: &'static str, own: Option<&mut T>, given: Option<T>) {
    match (own, given) {
        (Some(own), Some(given)) => *own = given,
        (None, Some(_)) => unused.push(name),
        (_, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{Pgd, Square};

    #[test]
    fn settings_go_where_they_belong() {
        let given = AttackOverrides {
            epsilon: Some("4/255".parse().unwrap()),
            steps: Some(7),
            band: Some("2:4".parse().unwrap()),
            ..AttackOverrides::default()
        };
        let (pgd, unused) = given.apply(&"pgd".parse().unwrap()).unwrap();
        let expected =
            Pgd { epsilon: Epsilon::of_255(4.0), steps: 7, band: given.band.clone(), ..Pgd::default() };
        assert_eq!((pgd, unused), (Attack::Pgd(expected), vec![]));
        let (square, unused) = given.apply(&"square".parse().unwrap()).unwrap();
        assert_eq!(square, Attack::Square(Square { epsilon: Epsilon::of_255(4.0), ..Square::default() }));
        assert_eq!(unused, ["steps", "band"]);
        let (versioned, _) = given.apply(&"autoattack-plus".parse().unwrap()).unwrap();
        assert_eq!(versioned.name(), "autoattack-plus");
        let l2 = AttackOverrides { norm: Some(Norm::L2), ..AttackOverrides::default() };
        assert_eq!(l2.attacks(&["pgd"]).unwrap()[0].epsilon().value(), 0.5);
        assert_eq!(given.attacks(&["square", "pgd"]).unwrap().len(), 2);
        let refused = given.attacks(&["square", "autoattack"]).unwrap_err().to_string();
        assert!(refused.contains("`band`") && !refused.contains("`steps`"), "{refused}");
    }
}
