//! Which cue a network follows: the shape (low frequencies) or the texture (high frequencies).

use super::accuracy::predictions;
use super::accuracy_record::accuracy_record;
use super::record::{Provenance, Record};
use crate::attack::Classifier;
use crate::data::synthetic::CueSplit;
use crate::data::{DataSpec, Dataset, Split};
use crate::{Error, Job, Result};

/// Accuracy on each cue split, and on the cue-conflict split the *shape share*: of the images that
/// were given either their shape's or their texture's class, the share that went by the shape (shape
/// bias as defined by Geirhos et al. 2019).
///
/// # Errors
/// If `data` is not the synthetic set.
pub fn records(
    model: &dyn Classifier,
    data: &DataSpec,
    provenance: &Provenance,
    job: &Job,
) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for split in CueSplit::TEST {
        let spec = data.clone().with_cues(split)?;
        let dataset = spec.open(Split::Test)?;
        let provenance = Provenance {
            data: spec.to_string(),
            data_sha256: dataset.fingerprint().to_string(),
            split: split.name().to_string(),
            ..provenance.clone()
        };
        let indices: Vec<usize> = (0..dataset.len()).collect();
        let predicted = predictions(model, dataset.as_ref(), &indices, job)?;
        let shape: Vec<bool> = indices
            .iter()
            .zip(&predicted)
            .map(|(&index, &class)| Ok(dataset.label(index)? == class))
            .collect::<Result<_>>()?;
        records.push(accuracy_record(&shape, None, &provenance));
        if split == CueSplit::Conflict {
            records.push(shape_bias(dataset.as_ref(), &indices, &predicted)?.with_provenance(&provenance));
        }
    }
    if records.is_empty() { Err(Error::config("there are no cue splits")) } else { Ok(records) }
}

/// Shape bias as defined by Geirhos et al. (2019): of the images that were given either their shape's or their texture's
/// class, the share that went by the shape. Images whose shape and texture are of one class do not count.
///
/// # Errors
/// If a label cannot be read.
pub fn shape_bias(dataset: &dyn Dataset, indices: &[usize], predicted: &[u32]) -> Result<Record> {
    let (mut shape, mut texture) = (0, 0);
    for (&index, &class) in indices.iter().zip(predicted) {
        let label = dataset.label(index)?;
        let Some(other) = dataset.texture_label(index).filter(|&other| other != label) else { continue };
        shape += u64::from(class == label);
        texture += u64::from(class == other);
    }
    let mut record = Record::proportion("shape_share", shape, shape + texture);
    record.extra.insert("by_shape".into(), shape.into());
    record.extra.insert("by_texture".into(), texture.into());
    Ok(record)
}
