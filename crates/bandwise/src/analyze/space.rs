//! Where a spectrum is masked: in the network's input, or in pixels.
//!
//! A network that normalizes sees `(pixel − mean) / std`. The published code of Fourier masks masks that; only the entry
//! of zero frequency means something else in pixels, where removing it makes images black rather than of the mean color.
//! As the deviation scales a whole channel, a mask of the network's input is the same mask of `pixel − mean`.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::attack::Classifier;
use crate::evaluate::record::Record;
use crate::evaluate::subject::Subject;
use crate::{Error, Result};

/// What masks and windows act on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// What the network sees after its normalization, as published.
    #[default]
    Input,
    /// Pixels in [0, 1].
    Pixels,
}

impl Space {
    /// In a sentence about masks.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Input => "masks act on the network's normalized input, as published",
            Self::Pixels => "masks act on pixels in [0, 1]",
        }
    }
}

/// A classifier of the images that masks act on: its input is [`View::enter`] of pixels.
pub struct View<'a> {
    model: &'a dyn Classifier,
    /// What is zero there, `[channels]`.
    origin: Option<Tensor>,
}

impl<'a> View<'a> {
    /// How `space` shows images to the network of a subject.
    ///
    /// # Errors
    /// If the mean of its normalization is not one of its channels, and for the input of a foreign model, whose
    /// normalization is not known.
    pub fn of(subject: &'a Subject, space: Space) -> Result<Self> {
        let model = &subject.classifier;
        if space == Space::Pixels {
            return Ok(Self { model, origin: None });
        }
        let network = subject.network.as_ref().ok_or_else(|| {
            Error::config(format!(
                "nobody knows how {} normalizes its input; masks can act on its pixels (space \"pixels\")",
                subject.label
            ))
        })?;
        let Some(normalization) = &network.config.normalization else {
            return Ok(Self { model, origin: None });
        };
        let channels = network.model.shape().channels;
        let mean: Vec<f32> = match normalization.mean[..] {
            [one] => vec![one as f32; channels],
            ref all if all.len() == channels => all.iter().map(|mean| *mean as f32).collect(),
            ref all => {
                return Err(Error::model(format!(
                    "the network normalizes {} channels and takes images of {channels}",
                    all.len()
                )));
            }
        };
        Ok(Self { model, origin: Some(Tensor::from_vec(mean, channels, &subject.device)?) })
    }

    /// Pixels `[batch, height, width, channels]` in [0, 1], as masks take them.
    pub fn enter(&self, pixels: &Tensor) -> Result<Tensor> {
        match &self.origin {
            None => Ok(pixels.clone()),
            Some(origin) => Ok(pixels.broadcast_sub(origin)?),
        }
    }

    /// The way back to pixels, which may lie beyond [0, 1].
    pub fn leave(&self, images: &Tensor) -> Result<Tensor> {
        match &self.origin {
            None => Ok(images.clone()),
            Some(origin) => Ok(images.broadcast_add(origin)?),
        }
    }
}

impl Classifier for View<'_> {
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.model.logits(&self.leave(images)?)
    }

    fn num_classes(&self) -> usize {
        self.model.num_classes()
    }

    fn logits_no_graph(&self, images: &Tensor) -> Result<Tensor> {
        self.model.logits_no_graph(&self.leave(&images.detach())?)
    }

    fn has_gradients(&self) -> bool {
        self.model.has_gradients()
    }
}

/// The record of a measurement through masks.
pub(super) fn in_space(mut record: Record, space: Space) -> Record {
    record.extra.insert("mask_space".into(), serde_json::json!(space));
    record
}
