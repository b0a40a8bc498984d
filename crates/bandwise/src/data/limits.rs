//! How much memory images may ask for.
//!
//! Numbers that are reasonable one by one can be absurd together, and a product that no memory holds ends the process
//! without a word. These products are judged before anything is allocated or written.

use super::Dataset;
use super::synthetic::SyntheticConfig;
use crate::{Error, Result};

/// Most bytes that the images of one batch take as single-precision numbers, after augmentation: 1 GiB. Several batches
/// are made ahead, and the activations of a network take many times as much.
pub const MAX_BATCH_BYTES: u64 = 1 << 30;
/// Most bytes of a data set that is generated (one per number), or held in memory as a whole (four): 16 GiB.
pub const MAX_DATA_BYTES: u64 = 16 << 30;

/// What `count` images of a shape `[height, width, channels]` take, with so many bytes for each number.
fn bytes(count: usize, shape: [usize; 3], each: u64) -> u64 {
    shape.iter().fold(each.saturating_mul(count as u64), |product, &n| product.saturating_mul(n as u64))
}

/// Refuses a batch of `count` images of a shape; `what` says where they come from, `remedy` what can be changed.
pub(crate) fn check_batch(what: &str, count: usize, shape: [usize; 3], remedy: &str) -> Result<()> {
    let asked = bytes(count, shape, 4);
    let [height, width, channels] = shape;
    let images = if count == 1 { "one image".into() } else { format!("a batch of {count} images") };
    refuse_above(MAX_BATCH_BYTES, asked, || {
        (format!("{what}: {images} of {height}×{width}×{channels}"), remedy.to_owned())
    })
}

/// Refuses to hold so many images of a data set in memory.
pub(crate) fn check_held(dataset: &dyn Dataset, count: usize) -> Result<()> {
    let [height, width, channels] = dataset.first_shape()?;
    refuse_above(MAX_DATA_BYTES, bytes(count, [height, width, channels], 4), || {
        let what = format!("{}: {count} images of {height}×{width}×{channels} in memory", dataset.name());
        (what, "choose fewer with `limit=N` after the data set's name".into())
    })
}

/// Refuses synthetic sets that nobody could go through.
pub(super) fn check_synthetic(config: &SyntheticConfig) -> Result<()> {
    let size = config.size;
    [("count", config.count), ("test_count", config.test_count)].into_iter().try_for_each(|(key, count)| {
        refuse_above(MAX_DATA_BYTES, bytes(count, [size, size, 3], 1), || {
            (
                format!("synthetic: {key}={count} images of size={size}"),
                format!("choose a smaller {key} or size"),
            )
        })
    })
}

fn refuse_above(most: u64, asked: u64, say: impl FnOnce() -> (String, String)) -> Result<()> {
    if asked <= most {
        return Ok(());
    }
    let gibibytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let (what, remedy) = say();
    Err(Error::config(format!(
        "{what} would take {:.1} GiB, and at most {:.0} GiB are allowed; {remedy}",
        gibibytes(asked),
        gibibytes(most)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_judged_without_overflow() {
        check_batch("batch_size", 128, [224, 224, 3], "").unwrap();
        let message =
            check_batch("data.augment", 128, [10_000, 10_000, 3], "choose a smaller size").unwrap_err();
        assert!(
            message.to_string().contains("data.augment: a batch of 128 images of 10000×10000×3"),
            "{message}"
        );
        assert!(message.to_string().contains("143.1 GiB, and at most 1 GiB"), "{message}");
        assert!(check_batch("batch_size", usize::MAX, [usize::MAX; 3], "").is_err());
        check_synthetic(&SyntheticConfig::default()).unwrap();
        let absurd = SyntheticConfig { size: 1024, count: 100_000_000, ..SyntheticConfig::default() };
        let message = check_synthetic(&absurd).unwrap_err().to_string();
        assert!(message.contains("count=100000000 images of size=1024"), "{message}");
    }
}
