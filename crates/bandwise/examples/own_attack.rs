//! An attack of one's own on our networks: one gradient step, confined to low frequencies.
//!
//! `cargo run --release -p bandwise --example own_attack`

use bandwise::attack::{Classifier, FrozenModel, judge_logits};
use bandwise::candle_core::{Device, Tensor, Var};
use bandwise::data::{DataSpec, Split, load_all};
use bandwise::network::{Network, NetworkConfig};
use bandwise::nn::loss;
use bandwise::spectral::{bands, fourier};
use bandwise::{Error, Result};

/// FGSM with the gradient's frequencies below `radius` alone. Images `[batch, height, width, channels]` in [0, 1].
fn low_pass_fgsm(
    model: &dyn Classifier,
    images: &Tensor,
    labels: &Tensor,
    epsilon: f64,
    radius: f64,
) -> Result<Tensor> {
    let (_, height, width, _) = images.dims4()?;
    let pixels = Var::from_tensor(images)?;
    let gradients = loss::mean_cross_entropy(&model.logits(&pixels)?, labels)?.backward()?;
    let gradient =
        gradients.get(&pixels).ok_or_else(|| Error::model("the logits do not depend on the images"))?;
    let mask = Tensor::from_vec(bands::low_pass(height, width, radius), (height, width), &Device::Cpu)?;
    let step = (fourier::filter2(gradient, &mask)?.sign()? * epsilon)?;
    Ok((images + step)?.clamp(0.0, 1.0)?)
}

fn main() -> Result<()> {
    let data: DataSpec = "synthetic:test_count=100".parse()?;
    let batch = load_all(data.open(Split::Test)?.as_ref(), None)?;
    let labels = batch.labels.to_vec1::<u32>()?;
    let config = NetworkConfig { width: Some(4), ..NetworkConfig::new("smallcnn") }.resolved(10, 3);
    let network = Network::new(config, 0, &Device::Cpu)?;
    let model = FrozenModel::folded(&network.model)?;

    let right = |images: &Tensor| -> Result<usize> {
        let judged = judge_logits(&model.logits_no_graph(images)?, &labels)?;
        Ok(judged.iter().filter(|verdict| !verdict.wrong).count())
    };
    println!("clean: {} of {} right", right(&batch.images)?, labels.len());
    for radius in [2.0, 4.0, 8.0, 16.0] {
        let attacked = low_pass_fgsm(&model, &batch.images, &batch.labels, 8.0 / 255.0, radius)?;
        println!("frequencies up to {radius}: {} of {} right", right(&attacked)?, labels.len());
    }
    Ok(())
}
