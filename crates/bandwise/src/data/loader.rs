//! Batches: shuffled, augmented, prepared by several threads ahead of their use.
//!
//! The shuffle depends on the seed and the epoch alone, the augmentation of an image on the seed,
//! the epoch and the image's index. The thread count therefore changes nothing, and an epoch can be
//! taken up at any batch.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Augment, Dataset, Image, augment, limits};
use crate::wording::counted;
use crate::{Error, Result, random};

/// Batches that each thread may have ready before they are asked for.
const PREFETCHED_PER_THREAD: usize = 2;

/// How batches are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoaderConfig {
    /// Images per batch.
    pub batch_size: usize,
    /// Whether each epoch visits the images in a new random order.
    pub shuffle: bool,
    /// Whether a last batch with fewer images is left out.
    pub drop_last: bool,
    /// Applied to every image, in order.
    pub augment: Vec<Augment>,
    /// Of shuffle and augmentation.
    pub seed: u64,
    /// Threads that prepare batches; 0 = as many as there are cores, but at most 4.
    pub threads: usize,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self { batch_size: 128, shuffle: false, drop_last: false, augment: Vec::new(), seed: 0, threads: 0 }
    }
}

/// Some images, ready for a network.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[batch, height, width, channels]`, f32 in `[0, 1]`, on the CPU.
    pub images: Tensor,
    /// `[batch]`, u32.
    pub labels: Tensor,
    /// Each image's index in the data set.
    pub indices: Vec<usize>,
}

impl Batch {
    /// Reads the images at `indices` as they are, on all cores.
    ///
    /// # Errors
    /// If an image cannot be read, or sizes differ.
    pub fn of(dataset: &dyn Dataset, indices: &[usize]) -> Result<Self> {
        // Decoding and corrupting take time: on all cores.
        let images: Vec<(Image, u32)> =
            indices.par_iter().map(|&index| dataset.get(index)).collect::<Result<_>>()?;
        Self::join(dataset, indices, images.into_iter().map(Ok))
    }

    /// Reads the images at `indices`, changed by `change(index, image)`.
    fn read(
        dataset: &dyn Dataset,
        indices: &[usize],
        change: impl Fn(usize, Image) -> Image,
    ) -> Result<Self> {
        let images = indices
            .iter()
            .map(|&index| dataset.get(index).map(|(image, label)| (change(index, image), label)));
        Self::join(dataset, indices, images)
    }

    fn join(
        dataset: &dyn Dataset,
        indices: &[usize],
        images: impl Iterator<Item = Result<(Image, u32)>>,
    ) -> Result<Self> {
        let mut pixels = Vec::new();
        let mut labels = Vec::with_capacity(indices.len());
        let mut shape = [0; 3];
        for (position, read) in images.enumerate() {
            let (image, label) = read?;
            if position == 0 {
                shape = image.shape();
                pixels.reserve(indices.len() * image.pixels.len());
            } else if image.shape() != shape {
                return Err(Error::config(format!(
                    "{}: images of {:?} and {:?} cannot share a batch; bring them to one size with \
                     `size=N` after the data set's name or a resizing augmentation",
                    dataset.name(),
                    shape,
                    image.shape()
                )));
            }
            pixels.extend_from_slice(&image.pixels);
            labels.push(label);
        }
        let [height, width, channels] = shape;
        Ok(Self {
            images: Tensor::from_vec(pixels, (indices.len(), height, width, channels), &Device::Cpu)?,
            labels: Tensor::from_vec(labels, indices.len(), &Device::Cpu)?,
            indices: indices.to_vec(),
        })
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }
}

/// Makes batches of a data set.
#[derive(Clone)]
pub struct Loader {
    dataset: Arc<dyn Dataset>,
    config: Arc<LoaderConfig>,
}

impl Loader {
    /// Checks the configuration against the data set.
    pub fn new(dataset: Arc<dyn Dataset>, config: LoaderConfig) -> Result<Self> {
        if config.batch_size == 0 {
            return Err(Error::config("batch_size must be at least 1"));
        }
        if dataset.is_empty() {
            return Err(Error::config(format!("{}: there are no images to load", dataset.name())));
        }
        if config.drop_last && dataset.len() < config.batch_size {
            return Err(Error::config(format!(
                "{}: {} {} not fill one batch of {}; choose a smaller batch_size",
                dataset.name(),
                counted(dataset.len(), "image"),
                if dataset.len() == 1 { "does" } else { "do" },
                config.batch_size
            )));
        }
        config.augment.iter().try_for_each(Augment::validate)?;
        let largest = config.batch_size.min(dataset.len());
        augment::check_memory(&config.augment, dataset.first_shape()?, largest)?;
        Ok(Self { dataset, config: Arc::new(config) })
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.dataset
    }

    /// Batches per epoch.
    pub fn batches_per_epoch(&self) -> usize {
        match self.config.drop_last {
            true => self.dataset.len() / self.config.batch_size,
            false => self.dataset.len().div_ceil(self.config.batch_size),
        }
    }

    /// The first `count` images of the data set (fewer, if a batch has fewer) as the first epoch changes them.
    ///
    /// # Errors
    /// What would go wrong with them in training.
    pub fn sample(&self, count: usize) -> Result<Batch> {
        let order: Vec<usize> = (0..count.min(self.dataset.len())).collect();
        self.batch(0, &order, 0)
    }

    /// All batches of an epoch.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from `first_batch` on: what an interrupted run still has to see.
    pub fn epoch_from(&self, epoch: u64, first_batch: usize) -> Epoch {
        let order = Arc::new(self.order(epoch));
        let batches = self.batches_per_epoch();
        let remaining = batches.saturating_sub(first_batch);
        let threads = match self.config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(4),
            threads => threads,
        };
        let threads = threads.min(remaining);
        // Thread t prepares batches t, t + threads, …, and the consumer asks the threads in turn:
        // the order is fixed and each queue is bounded.
        let workers = (0..threads)
            .map(|thread| {
                let (loader, order) = (self.clone(), order.clone());
                let (sender, receiver) = sync_channel(PREFETCHED_PER_THREAD);
                let handle = std::thread::spawn(move || {
                    for batch in (first_batch + thread..batches).step_by(threads) {
                        // A closed channel means that nobody wants the rest.
                        if sender.send(loader.batch(epoch, &order, batch)).is_err() {
                            break;
                        }
                    }
                });
                Worker { receiver: Some(receiver), handle: Some(handle) }
            })
            .collect();
        Epoch { workers, next: 0, remaining }
    }

    /// The order in which an epoch visits the images.
    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.dataset.len()).collect();
        if self.config.shuffle {
            order.shuffle(&mut random::stream(self.config.seed, &[random::tag("shuffle"), epoch]));
        }
        order
    }

    fn batch(&self, epoch: u64, order: &[usize], batch: usize) -> Result<Batch> {
        let start = batch * self.config.batch_size;
        let end = (start + self.config.batch_size).min(order.len());
        Batch::read(&*self.dataset, &order[start..end], |index, image| {
            let tags = [random::tag("augment"), epoch, index as u64];
            augment::apply_all(&self.config.augment, image, &mut random::stream(self.config.seed, &tags))
        })
    }
}

struct Worker {
    receiver: Option<Receiver<Result<Batch>>>,
    handle: Option<JoinHandle<()>>,
}

/// Iterates over the batches of one epoch; dropping it stops the threads.
pub struct Epoch {
    workers: Vec<Worker>,
    next: usize,
    remaining: usize,
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining == 0 {
            return None;
        }
        let worker = &self.workers[self.next % self.workers.len()];
        self.next += 1;
        self.remaining -= 1;
        let received = worker.receiver.as_ref().and_then(|receiver| receiver.recv().ok());
        // A thread that ends before its work is done has panicked: pass that on instead of hiding it.
        Some(received.unwrap_or_else(|| Err(Error::config("a data loading thread stopped unexpectedly"))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Epoch {}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.workers.iter_mut().for_each(|worker| drop(worker.receiver.take()));
        for worker in &mut self.workers {
            if let Some(handle) = worker.handle.take() {
                // The panic, if any, has been reported by `next`.
                let _ = handle.join();
            }
        }
    }
}

/// The first `limit` images (all, if `None`) as one batch, in data order; read in parallel.
///
/// # Errors
/// If there are none, more than memory holds ([`limits::MAX_DATA_BYTES`]), or some cannot be read.
pub fn load_all(dataset: &dyn Dataset, limit: Option<usize>) -> Result<Batch> {
    let count = limit.map_or(dataset.len(), |limit| limit.min(dataset.len()));
    if count == 0 {
        return Err(Error::config(format!("{}: there are no images to load", dataset.name())));
    }
    limits::check_held(dataset, count)?;
    let indices: Vec<usize> = (0..count).collect();
    let parts: Vec<Batch> = indices
        .par_chunks(256)
        .map(|part| Batch::read(dataset, part, |_, image| image))
        .collect::<Result<_>>()?;
    let images: Vec<&Tensor> = parts.iter().map(|part| &part.images).collect();
    let labels: Vec<&Tensor> = parts.iter().map(|part| &part.labels).collect();
    Ok(Batch { images: Tensor::cat(&images, 0)?, labels: Tensor::cat(&labels, 0)?, indices })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::array::{ArrayDataset, Pixels, numbered_classes};
    use std::path::Path;

    fn dataset(count: usize) -> Arc<dyn Dataset> {
        let pixels = (0..count * 48).map(|i| (i * 31 % 256) as u8).collect();
        let labels = (0..count).map(|i| (i % 10) as u32).collect();
        let path = Path::new("x");
        Arc::new(
            ArrayDataset::new("x", path, Pixels::Bytes(pixels), [4, 4, 3], labels, numbered_classes(10))
                .unwrap(),
        )
    }

    fn loader(count: usize, threads: usize, drop_last: bool) -> Loader {
        let augment = Augment::standard();
        let config = LoaderConfig { batch_size: 8, shuffle: true, drop_last, augment, seed: 7, threads };
        Loader::new(dataset(count), config).unwrap()
    }

    fn content(epoch: Epoch) -> Vec<(Vec<usize>, Vec<u32>, Vec<f32>)> {
        epoch
            .map(|batch| {
                let batch = batch.unwrap();
                let images = batch.images.flatten_all().unwrap().to_vec1().unwrap();
                (batch.indices, batch.labels.to_vec1().unwrap(), images)
            })
            .collect()
    }

    #[test]
    fn threads_change_nothing() {
        let one = content(loader(61, 1, false).epoch(3));
        assert_eq!(one, content(loader(61, 5, false).epoch(3)));
        assert_ne!(one, content(loader(61, 1, false).epoch(4)));
        assert_eq!(one.last().unwrap().0.len(), 61 % 8);
    }

    #[test]
    fn every_image_is_seen_once_with_its_label() {
        let mut seen: Vec<usize> = Vec::new();
        for (indices, labels, _) in content(loader(61, 2, false).epoch(0)) {
            assert!(indices.iter().zip(&labels).all(|(i, l)| (i % 10) as u32 == *l));
            seen.extend(indices);
        }
        assert!(!seen.is_sorted());
        seen.sort_unstable();
        assert_eq!(seen, (0..61).collect::<Vec<_>>());
    }

    #[test]
    fn an_epoch_can_be_taken_up_in_the_middle() {
        let whole = content(loader(61, 3, true).epoch(1));
        assert_eq!(whole.len(), 7);
        assert_eq!(whole[5..], content(loader(61, 2, true).epoch_from(1, 5)));
        assert_eq!(loader(61, 2, true).epoch_from(1, 7).count(), 0);
    }

    #[test]
    fn dropping_an_epoch_stops_its_threads() {
        let mut epoch = loader(4000, 4, false).epoch(0);
        epoch.next().unwrap().unwrap();
        drop(epoch);
    }

    #[test]
    fn load_all_keeps_data_order() {
        let batch = load_all(&*dataset(600), Some(590)).unwrap();
        assert_eq!(batch.images.dims(), [590, 4, 4, 3]);
        let labels = batch.labels.to_vec1::<u32>().unwrap();
        assert!(labels.iter().enumerate().all(|(i, &l)| l == (i % 10) as u32));
    }

    #[test]
    fn impossible_configurations_are_refused() {
        let refuse = |config| Loader::new(dataset(5), config).err().unwrap().to_string();
        assert!(refuse(LoaderConfig { batch_size: 0, ..Default::default() }).contains("batch_size"));
        let too_large = LoaderConfig { batch_size: 6, drop_last: true, ..Default::default() };
        assert!(refuse(too_large).contains("do not fill"));
    }
}
