//! Settings given on a command line, put over an attack's defaults.

use serde::Serialize;

use super::{Attack, Band, Epsilon, Norm, Start};
use crate::{Error, Result};

/// Settings that many attacks share; those left `None` keep the attack's own value.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Overrides {
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

impl Overrides {
    /// The attacks of these names with these settings.
    ///
    /// # Errors
    /// [`Error::Config`] for unknown names, refused values, and settings that no attack has.
    pub fn attacks(&self, names: &[&str]) -> Result<Vec<Attack>> {
        let mut attacks = Vec::new();
        let mut unused: Option<Vec<String>> = None;
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

    /// The attack with these settings (with another norm but no ε: 8/255, 0.5 or 12), and the names of the settings it does not have.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that the attack refuses.
    pub fn apply(&self, attack: &Attack) -> Result<(Attack, Vec<String>)> {
        let broken = |error: serde_json::Error| Error::config(format!("{}: {error}", attack.name()));
        let mut values = serde_json::to_value(attack).map_err(broken)?;
        let mut unused = Vec::new();
        let mut given = serde_json::to_value(self).map_err(broken)?;
        // The default ε of an attack belongs to its default norm.
        if let (Some(norm), None) = (self.norm, self.epsilon)
            && norm != attack.norm()
        {
            given["epsilon"] = match norm {
                Norm::Linf => "8/255".into(),
                Norm::L2 => 0.5.into(),
                Norm::L1 => 12.0.into(),
            };
        }
        for (name, value) in given.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            let mut changed = values.clone();
            changed[name] = value.clone();
            match serde_json::from_value::<Attack>(changed.clone()) {
                Ok(_) => values = changed,
                Err(error) if error.to_string().contains("unknown field") => unused.push(name.clone()),
                Err(error) => return Err(broken(error)),
            }
        }
        let attack: Attack = serde_json::from_value(values).map_err(broken)?;
        attack.validate()?;
        Ok((attack, unused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{Pgd, Square};

    #[test]
    fn settings_go_where_they_belong() {
        let given = Overrides {
            epsilon: Some("4/255".parse().unwrap()),
            steps: Some(7),
            band: Some("2:4".parse().unwrap()),
            ..Overrides::default()
        };
        let (pgd, unused) = given.apply(&"pgd".parse().unwrap()).unwrap();
        let expected =
            Pgd { epsilon: Epsilon::of_255(4.0), steps: 7, band: given.band.clone(), ..Pgd::default() };
        assert_eq!((pgd, unused), (Attack::Pgd(expected), vec![]));
        let (square, unused) = given.apply(&"square".parse().unwrap()).unwrap();
        assert_eq!(square, Attack::Square(Square { epsilon: Epsilon::of_255(4.0), ..Square::default() }));
        assert_eq!(unused, ["band", "steps"]);
        let (versioned, _) = given.apply(&"autoattack-plus".parse().unwrap()).unwrap();
        assert_eq!(versioned.name(), "autoattack-plus");
        let l2 = Overrides { norm: Some(Norm::L2), ..Overrides::default() };
        assert_eq!(l2.attacks(&["pgd"]).unwrap()[0].epsilon().value(), 0.5);
        assert_eq!(given.attacks(&["square", "pgd"]).unwrap().len(), 2);
        let refused = given.attacks(&["square", "autoattack"]).unwrap_err().to_string();
        assert!(refused.contains("`band`") && !refused.contains("`steps`"), "{refused}");
    }
}
