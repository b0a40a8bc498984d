//! Everything that a run needs and that can be refused, built before a folder is made or changed.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use crate::data::{Batch, Dataset, Loader, LoaderConfig, Split, Subset, limits};
use crate::evaluate::fit::{self, Classes};
use crate::network::{Network, NetworkConfig};
use crate::nn::ForwardContext;
use crate::train::averaging::Average;
use crate::train::history::InitialWeights;
use crate::train::initial;
use crate::train::optimizer::Optimizer;
use crate::train::overfitting::Detector;
use crate::train::recipe::Recipe;
use crate::train::selection::Selector;
use crate::{Error, Result, files};

/// Images of each split that are read before a run begins.
const TRIED: usize = 16;

/// Data, network and optimizer of a run.
pub struct Prepared {
    pub(super) recipe: Recipe,
    pub(super) network: Network,
    pub(super) optimizer: Optimizer,
    pub(super) average: Option<Average>,
    pub(super) loader: Loader,
    pub(super) test: Arc<dyn Dataset>,
    pub(super) detector: Option<Detector>,
    pub(super) selector: Option<Selector>,
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
        let [_, _, channels] = train.first_shape()?;
        let config = recipe.model.clone().resolved(train.num_classes(), channels);
        check_interface(&config, &recipe, train.as_ref(), test.as_ref())?;
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
        try_out(&network, &recipe, &loader, test.as_ref())?;
        let optimizer = Optimizer::new(recipe.optimizer.clone(), network.model.trainable())?;
        let average = recipe.averaging.map(Average::new).transpose()?;
        let watch = |config| {
            let (objective, size) = (&recipe.objective, recipe.evaluation.batch_size);
            Detector::new(config, objective, train, recipe.seed, size)
        };
        let detector = recipe.overfitting.as_ref().map(watch).transpose()?;
        let choose = |config| Selector::new(config, train, recipe.seed, recipe.evaluation.batch_size);
        let selector = recipe.evaluation.select.as_ref().map(choose).transpose()?;
        let device = device.clone();
        Ok(Self {
            network,
            optimizer,
            average,
            test,
            detector,
            selector,
            device,
            initial,
            notes,
            loader,
            recipe,
        })
    }

    /// The recipe, with what the initial weights have decided.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The network, before its first step or before its checkpoint is read.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Fingerprint of the training and the test images.
    pub fn data_sha256(&self) -> String {
        data_sha256(self.loader.dataset().as_ref(), self.test.as_ref())
    }
}

/// Refuses a model of other channels or classes than the images have, by the rule of evaluations.
fn check_interface(
    config: &NetworkConfig,
    recipe: &Recipe,
    train: &dyn Dataset,
    test: &dyn Dataset,
) -> Result<()> {
    let shape = config.shape();
    let omit = |key: &str, given: Option<usize>| match given {
        Some(given) => (format!("{key} is {given}: "), format!("; omit {key}: the data know the number")),
        None => (String::new(), "; training and test images must belong together".into()),
    };
    let no_names = &[][..];
    // The network will know its classes by the names of the training images.
    for (data, names) in [(train, no_names), (test, train.class_names())] {
        let (start, remedy) = omit("model.channels", recipe.model.channels);
        fit::channels(shape.channels, data.first_shape()?[2], data.name())
            .map_err(|reason| Error::config(format!("{start}{reason}{remedy}")))?;
        let (start, remedy) = omit("model.classes", recipe.model.classes);
        match fit::classes(shape.classes, names, data, data.name()) {
            Classes::Fit(_) => {}
            Classes::Doubtful(reason) | Classes::TooMany(reason) => {
                return Err(Error::config(format!("{start}{reason}{remedy}")));
            }
        }
    }
    Ok(())
}

/// Reads a few images as training and evaluation will, and sends one of each through the network.
fn try_out(network: &Network, recipe: &Recipe, loader: &Loader, test: &dyn Dataset) -> Result<()> {
    let largest = recipe.evaluation.batch_size.min(test.len());
    let remedy = "choose a smaller evaluation.batch_size";
    limits::check_batch("evaluation.batch_size", largest, test.first_shape()?, remedy)?;
    let few: Vec<usize> = (0..largest.min(TRIED)).collect();
    for (what, batch) in [("training", loader.sample(TRIED)?), ("test", Batch::of(test, &few)?)] {
        let one = batch.images.narrow(0, 0, 1)?.to_device(network.model.device())?;
        network.model.logits(&one, &ForwardContext::eval()).map_err(|error| {
            let (architecture, [_, height, width, channels]) = (&network.config.architecture, shape_of(&one));
            // A backtrace may follow the first line.
            let reason = error.to_string().lines().next().unwrap_or_default().to_owned();
            Error::config(format!(
                "{architecture} cannot take the {what} images, which reach it as {height}×{width}×{channels}: {reason}"
            ))
        })?;
    }
    Ok(())
}

fn shape_of(images: &Tensor) -> [usize; 4] {
    images.dims4().map_or([0; 4], |(count, height, width, channels)| [count, height, width, channels])
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
