//! Networks with FPCM blocks against reference values.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use serde_json::Value;

use super::NetworkConfig;
use crate::golden;
use crate::method::fpcm::FpcmConfig;
use crate::method::fpcm::tests::{config, nhwc, pass};
use crate::nn::loss::mean_cross_entropy;
use crate::nn::parameter::Role;
use crate::nn::{Mode, Model, Normalization};

/// The golden network, rebuilt from its description and loaded.
fn network(name: &str, case: &Value, tensors: &HashMap<String, Tensor>, dtype: DType) -> Model {
    let wide = name.starts_with("wrn");
    let architecture =
        if wide { format!("wrn-{}-1", case["depth"].as_u64().unwrap()) } else { "resnet18".to_string() };
    let normalization =
        wide.then(|| Normalization { mean: vec![0.4914, 0.4822, 0.4465], std: vec![0.2471, 0.2435, 0.2616] });
    let config = NetworkConfig {
        width: case["width"].as_u64().map(|width| width as usize),
        normalization,
        fpcm: Some(config(name)),
        ..NetworkConfig::new(&architecture)
    };
    let model = config.build(0, dtype, &Device::Cpu).unwrap();
    load(&model, name, tensors);
    model
}

fn load(model: &Model, name: &str, tensors: &HashMap<String, Tensor>) {
    for parameter in model.parameters() {
        let key = format!("{name}/{}", parameter.name());
        parameter.set(tensors.get(&key).unwrap_or_else(|| panic!("{key} is missing"))).unwrap();
    }
}

/// Logits are compared in both number types. Gradients are compared in f64: in f32 a pre-activation within
/// rounding of zero may fall on the other side of a ReLU's kink than it did in the reference, and one such
/// unit changes the gradients of the layers before it by more than their tolerance.
#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_fpcm_networks() {
    let folder = golden::folder();
    let json = golden::json(&folder, "case2_fpcm.json");
    let tensors = golden::tensors(&folder, "case2_fpcm_nets.safetensors");
    for (name, case) in json["nets"].as_object().unwrap() {
        for dtype in [DType::F32, DType::F64] {
            compare_network(name, case, &tensors, dtype);
        }
    }
}

fn compare_network(name: &str, case: &Value, tensors: &HashMap<String, Tensor>, dtype: DType) {
    let model = network(name, case, tensors, dtype);
    let labels: Vec<u32> =
        case["labels"].as_array().unwrap().iter().map(|l| l.as_u64().unwrap() as u32).collect();
    let count = labels.len();
    let labels = Tensor::from_vec(labels, count, &Device::Cpu).unwrap();
    let images = nhwc(&tensors[&format!("{name}/__x")]).to_dtype(dtype).unwrap();
    let images = Var::from_tensor(&images).unwrap();
    for run in case["runs"].as_array().unwrap() {
        let epoch = golden::number(&run["epoch"]);
        let key = |part: &str| format!("{name}/__{part}_e{epoch}");
        let loss = |mode, part: &str, value: &str| {
            let logits = model.logits(images.as_tensor(), &pass(mode, epoch)).unwrap();
            let error = golden::max_abs_difference(&logits, &tensors[&key(part)]);
            assert!(error < 2e-5, "{}: {error}", key(part));
            let loss = mean_cross_entropy(&logits, &labels).unwrap();
            assert!((golden::values(&loss)[0] - golden::number(&run[value])).abs() < 1e-5);
            loss
        };
        let clean = loss(Mode::Eval, "logits_eval", "loss_eval");
        let trained = loss(Mode::Train, "logits_train", "loss_train");
        if dtype == DType::F64 {
            let slope = clean.backward().unwrap().get(&images).unwrap().clone();
            let error = golden::relative_l2(&slope, &nhwc(&tensors[&key("gradx_eval")]));
            assert!(error < 1e-4, "{}: {error}", key("gradx_eval"));
            let gradients = trained.backward().unwrap();
            for parameter in model.parameters().into_iter().filter(|p| p.role() != Role::Buffer) {
                let ours = gradients.get(parameter.var()).unwrap();
                let norm = golden::values(ours).iter().map(|v| v * v).sum::<f64>().sqrt();
                let expected = golden::number(&run["grad_norms_train"][parameter.name()]);
                let what = format!("{name} epoch {epoch} {}", parameter.name());
                assert!(
                    (norm - expected).abs() < 1e-4 * expected + 1e-6,
                    "{what}: {norm} against {expected}"
                );
                if let Some(theirs) =
                    tensors.get(&format!("{name}/__grad_train_e{epoch}.{}", parameter.name()))
                {
                    let error = golden::relative_l2(ours, &theirs.reshape(ours.shape()).unwrap());
                    assert!(error < 1e-4, "{what}: {error}");
                }
            }
        }
        // Every run of the reference starts from the saved state.
        load(&model, name, tensors);
    }
}

#[test]
fn a_stage_that_does_not_exist_is_refused() {
    let fpcm = Some(FpcmConfig { stages: vec![5], ..FpcmConfig::default() });
    let config = NetworkConfig { fpcm, width: Some(4), ..NetworkConfig::new("smallcnn") };
    let message = config.build(0, DType::F32, &Device::Cpu).unwrap_err().to_string();
    assert!(message.contains("stage 5"), "{message}");
}
