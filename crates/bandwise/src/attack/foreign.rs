//! Models that are not ours under our attacks: whatever gives logits, and gradients if it can.
//!
//! A [`ForeignModel`] computes outside of our tensor library, in PyTorch, JAX or plain code. [`ForeignClassifier`] makes
//! it a [`Classifier`] by one custom operator: its forward pass asks the model and keeps the graph that the model
//! recorded, its backward pass asks that graph for a vector-Jacobian product.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};

use super::Classifier;
use crate::{Error, Result};

/// Images as a foreign model gets them.
#[derive(Clone, Copy, Debug)]
pub struct ForeignImages<'a> {
    /// Pixels in `[0, 1]`, one image after the other.
    pub pixels: &'a [f32],
    /// `[batch, height, width, channels]`.
    pub shape: [usize; 4],
}

/// The graph of one pass through a foreign model.
pub trait Pullback: Send + Sync {
    /// The derivative of `Σ cotangent · logits` with respect to the pixels, in their shape and order. `cotangent` is
    /// `[batch, classes]`. It may be asked for several times.
    ///
    /// # Errors
    /// Whatever goes wrong inside the model.
    fn pull_back(&self, cotangent: &[f32]) -> Result<Vec<f32>>;
}

/// A classifier that computes outside of our tensor library.
pub trait ForeignModel: Send + Sync {
    /// Number of classes.
    fn num_classes(&self) -> usize;

    /// Logits `[batch, classes]`, row after row, with nothing recorded.
    ///
    /// # Errors
    /// Whatever goes wrong inside the model.
    fn logits(&self, images: &ForeignImages) -> Result<Vec<f32>>;

    /// Whether it has gradients at all.
    fn has_gradients(&self) -> bool;

    /// Logits, and the graph that leads back from them to the pixels.
    ///
    /// # Errors
    /// Whatever goes wrong inside the model, and if it has no gradients.
    fn record(&self, images: &ForeignImages) -> Result<(Vec<f32>, Box<dyn Pullback>)>;
}

/// A foreign model as attacks and analyses see it.
#[derive(Clone)]
pub struct ForeignClassifier(Arc<dyn ForeignModel>);

impl ForeignClassifier {
    /// Of a model.
    pub fn new(model: Arc<dyn ForeignModel>) -> Self {
        Self(model)
    }
}

impl Classifier for ForeignClassifier {
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        // The operator's errors pass through the tensor library, which knows them as text only.
        let failure = Arc::new(Mutex::new(None));
        let pass = Pass { model: self.0.clone(), graph: Mutex::new(None), failure: failure.clone() };
        images.to_dtype(DType::F32)?.contiguous()?.apply_op1(pass).map_err(|error| {
            failure.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or(Error::Tensor(error))
        })
    }

    fn num_classes(&self) -> usize {
        self.0.num_classes()
    }

    fn logits_no_graph(&self, images: &Tensor) -> Result<Tensor> {
        let (batch, height, width, channels) = images.dims4()?;
        let pixels = images.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let images_of = ForeignImages { pixels: &pixels, shape: [batch, height, width, channels] };
        let logits = checked(self.0.logits(&images_of)?, batch, self.num_classes())?;
        Ok(Tensor::from_vec(logits, (batch, self.num_classes()), images.device())?)
    }

    fn has_gradients(&self) -> bool {
        self.0.has_gradients()
    }
}

/// One pass: the operator that stands in the graph of tensors.
struct Pass {
    model: Arc<dyn ForeignModel>,
    graph: Mutex<Option<Box<dyn Pullback>>>,
    failure: Arc<Mutex<Option<Error>>>,
}

impl Pass {
    fn forward(&self, pixels: &[f32], shape: [usize; 4]) -> Result<Vec<f32>> {
        let images = ForeignImages { pixels, shape };
        let logits = match self.model.has_gradients() {
            true => {
                let (logits, graph) = self.model.record(&images)?;
                *self.graph.lock().unwrap_or_else(PoisonError::into_inner) = Some(graph);
                logits
            }
            false => self.model.logits(&images)?,
        };
        checked(logits, shape[0], self.model.num_classes())
    }
}

impl CustomOp1 for Pass {
    fn name(&self) -> &'static str {
        "foreign-model"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (batch, height, width, channels) = layout.shape().dims4()?;
        let pixels = match (layout.contiguous_offsets(), storage) {
            (Some((start, end)), CpuStorage::F32(values)) => &values[start..end],
            _ => return Err(candle_core::Error::msg("a foreign model takes contiguous images of f32")),
        };
        match self.forward(pixels, [batch, height, width, channels]) {
            Ok(logits) => Ok((CpuStorage::F32(logits), (batch, self.model.num_classes()).into())),
            Err(error) => {
                let text = error.to_string();
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(candle_core::Error::msg(text))
            }
        }
    }

    fn bwd(&self, images: &Tensor, _: &Tensor, slope: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
        let graph = graph.as_ref().ok_or_else(|| candle_core::Error::msg(NO_GRADIENTS))?;
        let cotangent: Vec<f32> = slope.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let gradient = graph.pull_back(&cotangent).map_err(candle_core::Error::wrap)?;
        if gradient.len() != images.elem_count() {
            let (there, wanted) = (gradient.len(), images.elem_count());
            return Err(candle_core::Error::msg(format!(
                "the model's gradient has {there} values for {wanted} pixel values"
            )));
        }
        Tensor::from_vec(gradient, images.shape(), images.device()).map(Some)
    }
}

/// What a model without a vector-Jacobian product is told where a gradient is needed.
pub(crate) const NO_GRADIENTS: &str =
    "this model gives logits only: it has no vector-Jacobian product from which a gradient could be had";

/// Logits of the size that was promised.
fn checked(logits: Vec<f32>, batch: usize, classes: usize) -> Result<Vec<f32>> {
    if logits.len() == batch * classes {
        return Ok(logits);
    }
    Err(Error::model(format!(
        "the model returned {} logits for {batch} images of {classes} classes",
        logits.len()
    )))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::attack::{Attack, AttackContext};

    /// `z_k = Σ_p (k + 1) p x_p²`, with or without its derivative.
    struct Quadratic {
        gradients: bool,
    }

    struct Graph(Vec<f32>, usize);

    impl Pullback for Graph {
        fn pull_back(&self, cotangent: &[f32]) -> Result<Vec<f32>> {
            let per_image = self.1;
            let slope = |(place, x): (usize, &f32)| {
                let rows = &cotangent[place / per_image * 2..][..2];
                let weight: f32 = rows.iter().enumerate().map(|(k, c)| (k as f32 + 1.0) * c).sum();
                2.0 * weight * (place % per_image) as f32 * x
            };
            Ok(self.0.iter().enumerate().map(slope).collect())
        }
    }

    impl ForeignModel for Quadratic {
        fn num_classes(&self) -> usize {
            2
        }

        fn logits(&self, images: &ForeignImages) -> Result<Vec<f32>> {
            let per_image = images.shape[1..].iter().product();
            let sum = |image: &[f32]| image.iter().enumerate().map(|(p, x)| p as f32 * x * x).sum::<f32>();
            Ok(images.pixels.chunks(per_image).map(sum).flat_map(|sum| [sum, 2.0 * sum]).collect())
        }

        fn has_gradients(&self) -> bool {
            self.gradients
        }

        fn record(&self, images: &ForeignImages) -> Result<(Vec<f32>, Box<dyn Pullback>)> {
            let graph = Graph(images.pixels.to_vec(), images.shape[1..].iter().product());
            Ok((self.logits(images)?, Box::new(graph)))
        }
    }

    fn images() -> Tensor {
        let pixels: Vec<f32> = (0..24).map(|p| p as f32 / 24.0).collect();
        Tensor::from_vec(pixels, (2, 2, 2, 3), &Device::Cpu).unwrap()
    }

    #[test]
    fn gradients_come_out_of_the_foreign_graph() {
        let model = ForeignClassifier::new(Arc::new(Quadratic { gradients: true }));
        let pixels = Var::from_tensor(&images()).unwrap();
        let logits = model.logits(&pixels).unwrap();
        let free = model.logits_no_graph(&images()).unwrap();
        assert_eq!(logits.to_vec2::<f32>().unwrap(), free.to_vec2::<f32>().unwrap());
        let cotangent = Tensor::new(&[[1f32, 0.5], [-1.0, 2.0]], &Device::Cpu).unwrap();
        let sum = (logits * cotangent).unwrap().sum_all().unwrap();
        // The graph is asked twice, as for a Jacobian.
        for _ in 0..2 {
            let gradient = sum.backward().unwrap().remove(&pixels).unwrap();
            let gradient: Vec<f32> = gradient.flatten_all().unwrap().to_vec1().unwrap();
            for (place, slope) in gradient.iter().enumerate() {
                let weight = if place < 12 { 2.0 } else { 3.0 };
                let expected = 2.0 * weight * (place % 12) as f32 * (place as f32 / 24.0);
                assert!((slope - expected).abs() < 1e-4, "{place}: {slope} instead of {expected}");
            }
        }
    }

    #[test]
    fn without_gradients_attacks_say_why_not() {
        let model = ForeignClassifier::new(Arc::new(Quadratic { gradients: false }));
        let labels = Tensor::new(&[1u32, 1], &Device::Cpu).unwrap();
        let run = |name: &str| {
            let attack: Attack = name.parse().unwrap();
            attack.run(&model, &images(), &labels, &AttackContext::evaluation(0, &[0, 1], 2))
        };
        let message = run("pgd").unwrap_err().to_string();
        assert!(message.contains("pgd follows the gradient") && message.contains("square"), "{message}");
        assert!(run("square").is_ok());
        assert!(model.logits(&Var::from_tensor(&images()).unwrap()).is_ok());
    }

    #[test]
    fn logits_of_another_size_are_refused() {
        struct Wrong;
        impl ForeignModel for Wrong {
            fn num_classes(&self) -> usize {
                3
            }
            fn logits(&self, _: &ForeignImages) -> Result<Vec<f32>> {
                Ok(vec![0.0; 5])
            }
            fn has_gradients(&self) -> bool {
                false
            }
            fn record(&self, _: &ForeignImages) -> Result<(Vec<f32>, Box<dyn Pullback>)> {
                Err(Error::model(NO_GRADIENTS))
            }
        }
        let model = ForeignClassifier::new(Arc::new(Wrong));
        for answer in [model.logits(&images()), model.logits_no_graph(&images())] {
            assert!(answer.unwrap_err().to_string().contains("5 logits for 2 images of 3 classes"));
        }
    }
}
