//! Batch norm's running statistics, computed anew: for weights that no training pass has seen, such as averages.

use candle_core::Device;

use crate::Result;
use crate::data::Loader;
use crate::nn::layer::visit_batch_norms_mut;
use crate::nn::{ForwardContext, Mode, Model};

/// Replaces all running statistics of `model` by the means of the batch statistics over one epoch of `loader`
/// (PyTorch's `update_bn`). Does nothing to a network without batch norm.
pub fn recompute(model: &Model, loader: &Loader, epoch: u64, device: &Device) -> Result<()> {
    // A frozen copy shares the statistics and builds no graph.
    let mut model = model.frozen();
    let mut norms = 0;
    visit_batch_norms_mut(&mut model.layers, &mut |_| norms += 1);
    if norms == 0 {
        return Ok(());
    }
    for (index, batch) in loader.epoch(epoch).enumerate() {
        // The n-th batch counts 1/n: the running value is the mean of all so far.
        let momentum = 1.0 / (index + 1) as f64;
        visit_batch_norms_mut(&mut model.layers, &mut |norm| norm.momentum = momentum);
        let images = batch?.images.to_device(device)?;
        model.logits(&images, &ForwardContext { mode: Mode::Train, ..ForwardContext::eval() })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::DType;

    use super::*;
    use crate::data::{Dataset, LoaderConfig, Split};
    use crate::golden;
    use crate::nn::tests::{disturb, model};

    #[test]
    fn one_batch_of_everything_gives_its_own_statistics() {
        let data: Arc<dyn Dataset> =
            "synthetic:count=24".parse::<crate::data::DataSpec>().unwrap().open(Split::Train).unwrap();
        let loader = |batch_size| {
            Loader::new(data.clone(), LoaderConfig { batch_size, ..LoaderConfig::default() }).unwrap()
        };
        let model = model("resnet20", 4, DType::F32);
        disturb(&model);
        let before = model.state();
        let images = loader(24).epoch(0).next().unwrap().unwrap().images;
        let expected = model.logits(&images, &ForwardContext::batch_statistics(1.0)).unwrap();
        recompute(&model, &loader(24), 0, &Device::Cpu).unwrap();
        let found = model.logits(&images, &ForwardContext::eval()).unwrap();
        // Evaluation divides by the unbiased variance, n/(n − 1) of the batch's.
        assert!(golden::relative_l2(&found, &expected) < 0.02, "{}", golden::relative_l2(&found, &expected));

        // Halves: the first layer's means are the same, and only statistics have changed.
        recompute(&model, &loader(12), 0, &Device::Cpu).unwrap();
        let whole = |name: &str, state: &[(String, candle_core::Tensor)]| {
            state.iter().find(|(n, _)| n == name).unwrap().1.copy().unwrap()
        };
        let mean = golden::values(&whole("bn1.running_mean", &model.state()));
        recompute(&model, &loader(24), 0, &Device::Cpu).unwrap();
        for (half, all) in mean.iter().zip(golden::values(&whole("bn1.running_mean", &model.state()))) {
            assert!((half - all).abs() < 1e-6, "{half} {all}");
        }
        for ((name, old), (_, new)) in before.iter().zip(&model.state()) {
            if !name.contains("running") {
                assert_eq!(golden::max_abs_difference(old, new), 0.0, "{name}");
            }
        }
    }
}
