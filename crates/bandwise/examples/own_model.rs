//! A model of one's own under our attacks: whatever gives logits is a [`Classifier`].
//!
//! `cargo run --release -p bandwise --example own_model`

use bandwise::attack::{Attack, Classifier};
use bandwise::candle_core::{DType, Device, Tensor};
use bandwise::data::{DataSpec, Dataset, Split, load_all};
use bandwise::evaluate::accuracy;
use bandwise::evaluate::statistics::wilson_interval;
use bandwise::{Job, Result};

/// Classifies by the distance to the mean image of each class: linear, so that attacks know all about it.
struct NearestMean {
    /// `[features, classes]`.
    weights: Tensor,
    /// `[1, classes]`.
    bias: Tensor,
}

impl NearestMean {
    fn of(data: &dyn Dataset) -> Result<Self> {
        let batch = load_all(data, None)?;
        let classes = data.class_names().len();
        let images = batch.images.flatten_from(1)?;
        let one_hot: Vec<f32> = (batch.labels.to_vec1::<u32>()?.iter())
            .flat_map(|&label| (0..classes as u32).map(move |class| f32::from(class == label)))
            .collect();
        let one_hot = Tensor::from_vec(one_hot, (images.dim(0)?, classes), &Device::Cpu)?;
        let means = images.t()?.matmul(&one_hot)?.broadcast_div(&one_hot.sum_keepdim(0)?)?;
        // −‖x − m‖²/2, but for what all classes share.
        let bias = (means.sqr()?.sum_keepdim(0)? * -0.5)?;
        Ok(Self { weights: means, bias })
    }
}

impl Classifier for NearestMean {
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let images = images.to_dtype(DType::F32)?.flatten_from(1)?;
        Ok(images.matmul(&self.weights)?.broadcast_add(&self.bias)?)
    }

    fn num_classes(&self) -> usize {
        self.bias.elem_count()
    }
}

fn main() -> Result<()> {
    let data: DataSpec = "synthetic:count=400,test_count=100".parse()?;
    let model = NearestMean::of(data.open(Split::Train)?.as_ref())?;
    let test = data.open(Split::Test)?;
    let images: Vec<usize> = (0..test.len()).collect();
    let clean = accuracy::correct(&model, test.as_ref(), &images, &Job::default())?;
    say("clean", &clean);
    for name in ["fgsm", "pgd", "square"] {
        let attack: Attack = name.parse()?;
        let robust = accuracy::robust(&model, test.as_ref(), &clean, &attack, 0, &Job::default())?;
        say(&attack.protocol_with_defaults(), &robust);
    }
    Ok(())
}

fn say(name: &str, right: &[bool]) {
    let correct = right.iter().filter(|right| **right).count() as u64;
    let [low, high] = wilson_interval(correct, right.len() as u64).map(|bound| 100.0 * bound);
    println!("{name}: {correct} of {} right (95 % interval {low:.1} to {high:.1} %)", right.len());
}
