//! From attacks and flags to records: what `evaluate`, the trainer and the demo share.

use super::record::{Provenance, Record};
use crate::attack::Attack;

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
