//! Everything that a run needs and that can be refused, built before a folder is made or changed.

use std::sync::Arc;

use candle_core::Device;

use crate::data::{Dataset, Loader, LoaderConfig, Split, Subset};
use crate::method::{Network, NetworkConfig};
use crate::train::averaging::Average;
use crate::train::history::InitialWeights;
use crate::train::initial;
use crate::train::optimizer::Optimizer;
use crate::train::overfitting::Detector;
use crate::train::recipe::Recipe;
use crate::{Error, Result, files};

/// Data, network and optimizer of a run.
pub struct Prepared {
    pub(super) recipe: Recipe,
    pub(super) network: Network,
    pub(super) optimizer: Optimizer,
    pub(super) average: Option<Average>,
    pub(super) loader: Loader,
    pub(super) test: Arc<dyn Dataset>,
    pub(super) detector: Option<Detector>,
    pub(super) device: Device,
    pub(super) initial: Option<InitialWeights>,
    pub(super) notes: Vec<String>,
}

impl Prepared {
    /// Opens the data and builds the network. A new run reads `model.weights`, if the recipe names a file; a resumed
    /// one takes its weights from a checkpoint.
    ///
    /// # Errors
    /// Data, model, weights and recipe do not fit together.
    pub fn new(mut recipe: Recipe, resumed: bool, device: &Device) -> Result<Self> {
        let loader = loader(&recipe)?;
        let train = loader.dataset();
        let test = recipe.data.source.open(Split::Test)?;
        if test.is_empty() {
            return Err(Error::config(format!("{}: there are no test images", test.name())));
        }
        check_classes(&recipe, train.as_ref())?;
        let channels = train.get(0)?.0.channels;
        let config = recipe.model.clone().resolved(train.num_classes(), channels);
        let mut notes = Vec::new();
        let (mut network, initial) = match config.weights.as_ref().filter(|_| !resumed) {
            Some(path) => {
                let started = initial::start_from(&config, path, recipe.seed, device)?;
                // The recipe of the folder says what the file has decided.
                recipe.model = recipe.model.decided_by(&started.network.config);
                notes.extend(started.notes);
                (started.network, Some(started.initial))
            }
            None => (Network::new(NetworkConfig { weights: None, ..config }, recipe.seed, device)?, None),
        };
        if train.len() < recipe.batch_size {
            notes.push(format!(
                "batch_size {} is larger than the training set: every batch holds all {} images",
                recipe.batch_size,
                train.len()
            ));
        }
        network.class_names = train.class_names().to_vec();
        network.model.set_precision(recipe.precision)?;
        let optimizer = Optimizer::new(recipe.optimizer.clone(), network.model.trainable())?;
        let average = recipe.averaging.map(Average::new).transpose()?;
        let watch = |config| {
            let (objective, size) = (&recipe.objective, recipe.evaluation.batch_size);
            Detector::new(config, objective, train, recipe.seed, size)
        };
        let detector = recipe.overfitting.as_ref().map(watch).transpose()?;
        let device = device.clone();
        Ok(Self { network, optimizer, average, test, detector, device, initial, notes, loader, recipe })
    }

    /// The recipe, with what the initial weights have decided.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Fingerprint of the training and the test images.
    pub fn data_sha256(&self) -> String {
        data_sha256(self.loader.dataset().as_ref(), self.test.as_ref())
    }
}

/// Refuses a model that knows fewer classes than there are.
fn check_classes(recipe: &Recipe, train: &dyn Dataset) -> Result<()> {
    match recipe.model.classes {
        Some(given) if given < train.num_classes() => Err(Error::config(format!(
            "model.classes is {given}, but {} has {} classes; omit the key: the data know the number",
            train.name(),
            train.num_classes()
        ))),
        _ => Ok(()),
    }
}

/// The batches of the training split.
fn loader(recipe: &Recipe) -> Result<Loader> {
    let mut train = recipe.data.source.open(Split::Train)?;
    if let Some(limit) = recipe.data.train_limit {
        train = Arc::new(Subset::first(train, limit)?);
    }
    let config = LoaderConfig {
        batch_size: recipe.batch_size,
        shuffle: true,
        drop_last: recipe.data.drop_last,
        augment: recipe.data.augment.clone(),
        seed: recipe.seed,
        threads: 0,
    };
    let loader = Loader::new(train, config)?;
    if loader.batches_per_epoch() == 0 {
        return Err(Error::config(
            "the training set is smaller than one batch, and drop_last leaves nothing",
        ));
    }
    Ok(loader)
}

pub(super) fn data_sha256(train: &dyn Dataset, test: &dyn Dataset) -> String {
    files::sha256(format!("{} {}", train.fingerprint(), test.fingerprint()).as_bytes())
}
