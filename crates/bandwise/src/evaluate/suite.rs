//! From attacks and flags to records: what `evaluate`, the trainer and the demo share.

use serde_json::{Map, Value};

use super::record::{Provenance, Record};
use crate::attack::Attack;
use crate::{Error, Result};

/// An attack by name, with some of its parameters given.
///
/// # Errors
/// For unknown names, parameters that this attack does not have, and impossible values.
pub fn attack_with(name: &str, parameters: &Map<String, Value>) -> Result<Attack> {
    let default: Attack = name.parse()?;
    let mut table = match serde_json::to_value(&default) {
        Ok(Value::Object(table)) => table,
        _ => return Err(Error::config(format!("attack {name} has no parameters"))),
    };
    table.extend(parameters.clone());
    let attack: Attack = serde_json::from_value(Value::Object(table))
        .map_err(|e| Error::config(format!("attack {name}: {e}")))?;
    attack.validate()?;
    Ok(attack)
}

/// The record of an accuracy, clean or under an attack.
pub fn accuracy_record(flags: &[bool], attack: Option<&Attack>, provenance: &Provenance) -> Record {
    let record = Record::accuracy(flags).with_provenance(provenance);
    match attack {
        None => record,
        Some(attack) => {
            let parameters = serde_json::to_value(attack).unwrap_or_default();
            let norm = attack.norm().to_string();
            record.under_attack(attack.name(), attack.epsilon().value(), Some(&norm), parameters)
        }
    }
}
