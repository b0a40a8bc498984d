//! From attacks and flags to records: what `evaluate`, the trainer and the demo share.

use super::record::{Provenance, Record};
use crate::attack::Attack;

/// The record of an accuracy, clean or under an attack.
pub fn accuracy_record(flags: &[bool], attack: Option<&Attack>, provenance: &Provenance) -> Record {
    attacked(Record::accuracy(flags).with_provenance(provenance), attack)
}

/// The record with the attack that made its images, if one did.
pub fn attacked(record: Record, attack: Option<&Attack>) -> Record {
    match attack {
        None => record,
        Some(attack) => {
            let parameters = serde_json::to_value(attack).unwrap_or_default();
            let norm = attack.norm().to_string();
            record.under_attack(attack.name(), attack.epsilon().value(), Some(&norm), parameters)
        }
    }
}
