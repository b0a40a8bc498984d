use std::collections::BTreeMap;

use candle_core::Tensor;

use super::*;
use crate::files;
use crate::golden;
use crate::method::fpcm::FpcmConfig;
use crate::nn::decomposed::Domain;
use crate::nn::tests::{disturb, noise};
use crate::nn::{ForwardContext, Normalization};

fn small() -> NetworkConfig {
    NetworkConfig { width: Some(4), ..NetworkConfig::new("smallcnn") }.resolved(10, 3)
}

fn decomposed(kind: Domain) -> Option<Decomposition> {
    Some(Decomposition { kind, ..Decomposition::default() })
}

/// A disturbed network in a file of ours.
fn saved(folder: &Path, name: &str, config: NetworkConfig) -> (Network, std::path::PathBuf) {
    let network = Network::new(config, 5, &Device::Cpu).unwrap();
    disturb(&network.model);
    let path = folder.join(name);
    network.save(&path).unwrap();
    (network, path)
}

fn logits(network: &Network) -> Tensor {
    network.model.logits(&noise(&[3, 16, 16, 3], DType::F32, 8), &ForwardContext::eval()).unwrap()
}

fn begin(wanted: &NetworkConfig, path: &Path) -> Result<Started> {
    start_from(wanted, path, 0, &Device::Cpu)
}

/// Plain weights into every method's network, and every method's weights into the others'.
#[test]
fn the_network_computes_what_the_file_does() {
    let folder = tempfile::tempdir().unwrap();
    let kinds = [None, decomposed(Domain::Weight), decomposed(Domain::Signal)];
    for (number, from) in kinds.into_iter().enumerate() {
        let config = NetworkConfig { decomposition: from, ..small() };
        let (network, path) = saved(folder.path(), &format!("{number}.safetensors"), config);
        for to in kinds {
            let wanted = NetworkConfig { decomposition: to, ..small() };
            let started = begin(&wanted, &path).unwrap();
            // What the recipe leaves open is as in the file.
            assert_eq!(started.network.config.decomposition, to.or(from));
            let error = golden::relative_l2(&logits(&started.network), &logits(&network));
            assert!(error < 1e-5, "{from:?} to {to:?}: {error}");
            assert!(started.initial.at_random.is_empty());
            assert_eq!(started.initial.sha256, files::sha256(&files::read(&path).unwrap()));
        }
    }
}

#[test]
fn width_normalization_and_blocks_come_from_the_file_unless_given() {
    let folder = tempfile::tempdir().unwrap();
    let normalization = |mean: f64| Some(Normalization { mean: vec![mean; 3], std: vec![0.25; 3] });
    let config =
        NetworkConfig { normalization: normalization(0.5), fpcm: Some(FpcmConfig::default()), ..small() };
    let (network, path) = saved(folder.path(), "fpcm.safetensors", config.clone());
    let open = NetworkConfig::new("smallcnn").resolved(10, 3);
    let started = begin(&open, &path).unwrap();
    assert_eq!(started.network.config, config);
    assert_eq!(golden::max_abs_difference(&logits(&started.network), &logits(&network)), 0.0);
    assert!(started.notes[0].contains("normalization: from the file"), "{:?}", started.notes);
    let given = NetworkConfig { normalization: normalization(0.1), ..open };
    let started = begin(&given, &path).unwrap();
    assert_eq!(started.network.config.normalization, normalization(0.1));
    assert!(started.notes[0].contains("normalization: as given"), "{:?}", started.notes);
}

#[test]
fn only_new_blocks_and_a_new_last_layer_start_at_random() {
    let folder = tempfile::tempdir().unwrap();
    let (network, path) = saved(folder.path(), "plain.safetensors", small());
    let fpcm = NetworkConfig { fpcm: Some(FpcmConfig { stages: vec![2], ..Default::default() }), ..small() };
    let started = begin(&fpcm, &path).unwrap();
    assert_eq!(started.initial.at_random, ["attn2.projection.weight", "attn2.projection.bias"]);
    let other = NetworkConfig { classes: Some(7), ..small() };
    let started = begin(&other, &path).unwrap();
    assert_eq!(started.initial.at_random.len(), 2, "{:?}", started.initial.at_random);
    let state = |network: &Network| network.model.state().into_iter().collect::<BTreeMap<_, _>>();
    let (old, new) = (state(&network), state(&started.network));
    for (name, value) in &new {
        let at_random = started.initial.at_random.contains(name);
        assert_eq!(value.dims() != old[name].dims(), at_random, "{name}");
        assert!(at_random || golden::max_abs_difference(value, &old[name]) == 0.0, "{name}");
    }
    assert!(started.notes[1].contains("start at random"), "{:?}", started.notes);

    let wider = NetworkConfig { width: Some(8), ..small() };
    assert!(begin(&wider, &path).unwrap_err().to_string().contains("do not fit"));
    let deeper = NetworkConfig { architecture: "resnet20".into(), ..small() };
    let message = begin(&deeper, &path).unwrap_err().to_string();
    assert!(message.contains("weights of smallcnn, and model.architecture is resnet20"), "{message}");
}
