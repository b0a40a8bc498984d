use std::path::Path;

use super::*;
use crate::data::array::{ArrayDataset, Pixels};
use crate::network::NetworkConfig;

fn names(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn network(classes: usize, names: &[String]) -> Network {
    let config = NetworkConfig { width: Some(2), ..NetworkConfig::new("smallcnn") }.resolved(classes, 3);
    Network::new(config, 1, &Device::Cpu).unwrap().with_class_names(names)
}

fn images(names: Vec<String>, channels: usize) -> TestSet {
    let pixels = Pixels::Bytes(vec![7; 64 * channels]);
    let set = ArrayDataset::new("set (test)", Path::new("set"), pixels, [8, 8, channels], vec![0], names);
    TestSet::of(Arc::new(set.unwrap()), "npy:set".into(), Split::Test, None).unwrap()
}

fn load(network: &Network, data: &TestSet, allow_mismatch: bool) -> Result<Subject> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    network.save(&path).unwrap();
    // A run folder stands for the file in it.
    let source = ModelSource { allow_mismatch, ..ModelSource::new(folder.path()) };
    Subject::load(&source, data, &Compute::default())
}

fn refusal(network: &Network, data: &TestSet) -> String {
    load(network, data, false).err().map(|e| e.to_string()).expect("must be refused")
}

#[test]
fn classes_must_be_the_networks() {
    let animals = network(3, &names("cat dog fox"));
    assert!(load(&animals, &images(names("cat dog fox"), 3), false).unwrap().warnings.is_empty());
    let message = refusal(&animals, &images(names("dog cat fox"), 3));
    assert!(message.contains("`dog` is number 0 in npy:set and number 1 for the network"), "{message}");
    let message = refusal(&animals, &images(names("cat dog fox owl"), 3));
    assert!(message.contains("knows 3 classes, npy:set has 4 (cat, dog, fox, owl)"), "{message}");
    let message = refusal(&animals, &images(names("dog fox"), 3));
    assert!(message.contains("`dog` is number 0"), "{message}");
    let message = refusal(&animals, &images(names("car bus"), 3));
    assert!(message.contains("knows 3 classes (cat, dog, fox), npy:set has 2 (car, bus)"), "{message}");
    // The first of the network's classes are no contradiction, and neither are numbers.
    for fine in ["cat dog", "0 1"] {
        assert!(load(&animals, &images(names(fine), 3), false).unwrap().warnings.is_empty(), "{fine}");
    }
    let renamed = load(&animals, &images(names("cat hound fox"), 3), false).unwrap();
    assert!(renamed.warnings[0].contains("`hound` and `dog`"), "{:?}", renamed.warnings);
}

#[test]
fn a_mismatch_that_is_asked_for_is_a_warning_in_every_record() {
    let subject = load(&network(3, &names("cat dog fox")), &images(names("car bus"), 3), true).unwrap();
    let record = subject.sign(Record::scalar("accuracy", 0.5));
    assert!(record.warnings[0].contains("has 2 (car, bus)"));
    // More classes than the network has are no matter of taste.
    assert!(load(&network(3, &[]), &images(names("a b c d"), 3), true).is_err());
}

#[test]
fn without_names_the_numbers_of_classes_count() {
    let message = refusal(&network(10, &[]), &images(names("cat dog"), 3));
    assert!(message.contains("the network knows 10 classes, npy:set has 2 (cat, dog)"), "{message}");
}

#[test]
fn channels_must_be_the_networks() {
    let message = refusal(&network(2, &[]), &images(names("cat dog"), 1));
    assert!(message.contains("takes images of 3 channels, those of npy:set have 1"), "{message}");
}

#[test]
fn one_line_says_what_is_evaluated() {
    let subject = load(&network(2, &names("cat dog")), &images(names("cat dog"), 3), false).unwrap();
    let line = "smallcnn of width 2 (from the file), 0.00 M parameters; no normalization (from the file); set (test): 1 \
                image, 2 classes";
    assert_eq!(subject.describe(), line);
    assert_eq!(subject.sign(Record::scalar("accuracy", 1.0)).provenance.subject, line);
    // Two channels are too few for anything else.
    assert_eq!(subject.provenance.algorithm, "direct");
    assert_eq!(subject.provenance.configuration["model"]["architecture"], "smallcnn");
}
