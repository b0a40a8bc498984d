use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use super::*;
use crate::golden;
use crate::method::filter_frequency::Decomposition;
use crate::method::fpcm::FpcmConfig;
use crate::nn::weights::StateDict;

/// A small network of that name as PyTorch would save it: tensors without a word about the architecture.
fn foreign(config: &NetworkConfig) -> StateDict {
    Network::new(config.clone(), 5, &Device::Cpu).unwrap().model.state().into_iter().collect()
}

fn named(architecture: &str, width: usize) -> NetworkConfig {
    NetworkConfig { width: Some(width), ..NetworkConfig::new(architecture) }
}

struct File(tempfile::TempDir);

impl File {
    fn new(state: &StateDict) -> Self {
        let folder = tempfile::tempdir().unwrap();
        weights::write_safetensors(&folder.path().join("model.safetensors"), state, &BTreeMap::new())
            .unwrap();
        Self(folder)
    }

    /// The run folder stands for the file.
    fn source(&self) -> ModelSource {
        ModelSource::new(self.0.path())
    }

    fn load(&self, architecture: &str) -> Result<LoadedNetwork> {
        ModelSource { architecture: Some(architecture.into()), ..self.source() }.load(&Device::Cpu)
    }

    fn refusal(&self, architecture: &str) -> String {
        self.load(architecture).err().map(|e| e.to_string()).expect("must be refused")
    }
}

fn with(mut state: StateDict, more: &[(&str, Vec<f32>)]) -> StateDict {
    for (name, values) in more {
        let tensor = Tensor::from_vec(values.clone(), values.len(), &Device::Cpu).unwrap();
        state.insert((*name).to_owned(), tensor);
    }
    state
}

#[test]
fn every_architecture_is_guessed_with_its_sizes() {
    for (name, width) in [
        ("smallcnn", 4),
        ("resnet18", 4),
        ("resnet34", 2),
        ("resnet50", 2),
        ("resnet18-imagenet", 4),
        ("resnet34-imagenet", 2),
        ("resnet50-imagenet", 2),
        ("resnet20", 4),
        ("resnet32-b", 4),
        ("cifar_resnet_14", 8),
        ("resnet9", 4),
        ("preactresnet18", 4),
        ("preactresnet18-bn", 4),
        ("wrn-10-2", 4),
        ("wrn-16-3", 5),
        ("vgg11_bn", 4),
        ("vgg16_bn", 2),
        ("vgg11_bn-imagenet", 2),
        ("vgg16_bn-imagenet", 1),
    ] {
        let config = NetworkConfig { classes: Some(7), channels: Some(2), ..named(name, width) };
        for decomposition in [None, Some(Domain::Weight), Some(Domain::Signal)] {
            let decomposition = decomposition.map(|kind| Decomposition { kind, ..Decomposition::default() });
            let config = NetworkConfig { decomposition, ..config.clone() };
            let loaded = File::new(&foreign(&config)).source().load(&Device::Cpu);
            let loaded = loaded.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(loaded.network.config, config, "{name}");
            assert_eq!(loaded.architecture, ArchitectureSource::Guessed);
        }
    }
}

#[test]
fn several_that_fit_are_listed() {
    let file = File::new(&foreign(&named("efficientnet_b0", 8)));
    let message = file.source().load(&Device::Cpu).unwrap_err().to_string();
    assert!(
        message.contains("fit efficientnet_b0 and efficientnet_b0-imagenet; choose with --model"),
        "{message}"
    );
    assert_eq!(file.load("efficientnet_b0").unwrap().network.config.width, Some(8));
    let state = with(StateDict::new(), &[("weight", vec![1.0])]);
    let message = File::new(&state).source().load(&Device::Cpu).unwrap_err().to_string();
    assert!(message.contains("fit none that is built in"), "{message}");
}

#[test]
fn leftovers_are_refused_and_the_fitting_architecture_is_named() {
    let file = File::new(&foreign(&NetworkConfig::new("resnet32")));
    let message = file.refusal("resnet20");
    assert!(message.contains("do not fit resnet20 (the model has no: layer1.3."), "{message}");
    assert!(message.contains("(60)); they fit --model resnet32; --allow-mismatch"), "{message}");
    // A block of the file that looks like the beginning of another network is no prefix.
    let message = file.refusal("resnet18");
    assert!(!message.contains("layer3.4.") && message.contains("--model resnet32"), "{message}");
    let message = file.refusal("vgg11_bn");
    assert!(
        message.contains("do not fit vgg11_bn (") && message.contains("they fit --model resnet32;"),
        "{message}"
    );

    let message = File::new(&foreign(&named("preactresnet18-bn", 4))).refusal("preactresnet18");
    assert!(message.contains("bn.bias") && message.contains("--model preactresnet18-bn"), "{message}");
    let message = File::new(&foreign(&named("preactresnet18", 4))).refusal("preactresnet18-bn");
    assert!(message.contains("the file has no: bn.weight"), "{message}");
}

#[test]
fn what_does_not_fit_is_loaded_where_that_is_asked_for_and_said() {
    let state = foreign(&NetworkConfig::new("resnet32"));
    let file = File::new(&state);
    let source = ModelSource { allow_mismatch: true, architecture: Some("resnet20".into()), ..file.source() };
    let loaded = source.load(&Device::Cpu).unwrap();
    assert_eq!(loaded.report.unexpected.len(), 60);
    assert!(loaded.warnings[0].contains("the model has no: layer1.3."), "{:?}", loaded.warnings);
    let source = ModelSource { architecture: Some("resnet44".into()), ..source };
    let loaded = source.load(&Device::Cpu).unwrap();
    assert!(loaded.warnings[0].contains("what is missing is random"), "{:?}", loaded.warnings);
    let parameters = loaded.network.model.state();
    let value = |name: &str| golden::values(&parameters.iter().find(|(other, _)| other == name).unwrap().1);
    assert_eq!(value("layer1.0.conv1.weight"), golden::values(&state["layer1.0.conv1.weight"]));
    assert!(value("layer1.6.conv1.weight").iter().any(|v| *v != 0.0));
}

#[test]
fn known_leftovers_are_harmless_and_constants_normalize() {
    let state = foreign(&named("wrn-10-1", 4));
    let more: [(&str, Vec<f32>); 5] = [
        ("sub_block1.layer.0.bn1.weight", vec![1.0; 4]),
        ("block1.layer.0.bn1.num_batches_tracked", vec![3.0]),
        ("mu", vec![0.5, 0.25, 0.125]),
        ("sigma", vec![0.5, 0.25, 0.5]),
        ("basis", vec![1.0]),
    ];
    let loaded = File::new(&with(state.clone(), &more)).source().load(&Device::Cpu).unwrap();
    assert_eq!(loaded.normalization, NormalizationSource::Buffers("mu".into()));
    assert_eq!(loaded.network.config.normalization.as_ref().unwrap().mean, [0.5, 0.25, 0.125]);
    let line = "normalization mean 0.5, 0.25, 0.125, std 0.5, 0.25, 0.5 (from `mu` in the file)";
    assert!(loaded.describe().ends_with(line), "{}", loaded.describe());
    assert_eq!(loaded.warnings, Vec::<String>::new());

    let other = Normalization { mean: vec![0.1], std: vec![0.2] };
    let file = File::new(&with(state.clone(), &more));
    let loaded = ModelSource { normalization: Some(other), ..file.source() }.load(&Device::Cpu).unwrap();
    assert!(loaded.warnings[0].contains("the file's own normalization (mean 0.5"), "{:?}", loaded.warnings);

    // A whole copy under another prefix is harmless; a second network is not.
    let copies = |factor: f64| -> StateDict {
        let copy =
            state.iter().map(|(name, tensor)| (format!("attacker.model.{name}"), (tensor * factor).unwrap()));
        state.iter().map(|(name, tensor)| (format!("model.{name}"), tensor.clone())).chain(copy).collect()
    };
    assert_eq!(File::new(&copies(1.0)).load("wrn-10-1").unwrap().report.prefix, "model.");
    let message = File::new(&copies(2.0)).refusal("wrn-10-1");
    assert!(message.contains("attacker.model.") && message.contains("#attacker.model;"), "{message}");
}

#[test]
fn averaged_weights_beside_the_network_are_a_choice() {
    let state = foreign(&named("smallcnn", 4));
    let file = |names: [&str; 2]| {
        let both = names.into_iter().zip([1.0, 2.0]);
        let named = |(name, factor): (&str, f64)| -> StateDict {
            state.iter().map(|(key, tensor)| (format!("{name}{key}"), (tensor * factor).unwrap())).collect()
        };
        File::new(&both.flat_map(named).collect())
    };
    let value = |loaded: &LoadedNetwork| golden::values(&loaded.network.model.state()[0].1)[0];
    for names in [["", "ema."], ["model.", "model_ema."], ["net.", "ema_model.module."]] {
        let file = file(names);
        let plain = file.source().load(&Device::Cpu).unwrap();
        let average = names[1].trim_end_matches('.');
        let told =
            plain.warnings.iter().any(|warning| warning.contains(&format!("--weights FILE#{average} ")));
        assert!(told, "{:?}", plain.warnings);
        let path = file.0.path().join(format!("model.safetensors#{average}"));
        let chosen = ModelSource { weights: path, ..file.source() }.load(&Device::Cpu).unwrap();
        assert_eq!(value(&chosen), 2.0 * value(&plain), "{names:?}");
        assert!(!chosen.warnings.iter().any(|warning| warning.contains("FILE#")), "{:?}", chosen.warnings);
    }
    let message = file(["student.", "teacher."]).source().load(&Device::Cpu).unwrap_err().to_string();
    assert!(message.contains("student and teacher; choose with --weights"), "{message}");
    assert!(file(["student.", "teacher."]).refusal("smallcnn").contains("choose with --weights"));
}

#[test]
fn a_guess_that_the_file_cannot_decide_is_said() {
    let file = File::new(&foreign(&named("preactresnet18", 4)));
    let doubted = |loaded: LoadedNetwork| loaded.warnings.iter().any(|w| w.contains("pytorch-cifar"));
    assert!(doubted(file.source().load(&Device::Cpu).unwrap()));
    assert!(!doubted(file.load("preactresnet18").unwrap()));
}

#[test]
fn normalizations_that_cannot_be_meant_are_refused() {
    let file = File::new(&foreign(&named("smallcnn", 4)));
    for (mean, std, expected) in [
        ([0.5, 0.5, 123.0], [0.2; 3], "a mean of 123 does not lie in [0, 1]"),
        ([0.5; 3], [0.2, 58.0, 0.2], "divide mean and std by 255"),
        ([f64::NAN, 0.5, 0.5], [0.2; 3], "normalization: NaN is no finite number"),
        ([0.5; 3], [0.2, 0.0, 0.2], "deviations must be positive, not 0"),
        ([-0.1, 0.5, 0.5], [0.2; 3], "a mean of -0.1"),
    ] {
        let normalization = Some(Normalization { mean: mean.into(), std: std.into() });
        let refused = ModelSource { normalization, ..file.source() }.load(&Device::Cpu).unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    // A file that says that it was trained without any.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ours.safetensors");
    Network::new(named("smallcnn", 4), 1, &Device::Cpu).unwrap().save(&path).unwrap();
    let normalization = Some(Normalization { mean: vec![0.5], std: vec![0.5] });
    let loaded = ModelSource { normalization, ..ModelSource::new(&path) }.load(&Device::Cpu).unwrap();
    assert!(loaded.warnings[0].contains("trained without normalization"), "{:?}", loaded.warnings);
}

#[test]
fn a_width_without_its_network_is_explained() {
    let file = File::new(&foreign(&named("smallcnn", 4)));
    let refused = ModelSource { width: Some(8), ..file.source() }.load(&Device::Cpu).unwrap_err().to_string();
    assert!(
        refused.contains("--width 8 does not fit the file, which holds smallcnn in width 4"),
        "{refused}"
    );
}

#[test]
fn a_foreign_file_without_normalization_is_a_warning() {
    let config = named("smallcnn", 4);
    let loaded = File::new(&foreign(&config)).source().load(&Device::Cpu).unwrap();
    assert_eq!(loaded.normalization, NormalizationSource::None);
    assert!(loaded.warnings[0].contains("--mean"), "{:?}", loaded.warnings);
    assert!(loaded.describe().ends_with("no normalization"), "{}", loaded.describe());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ours.safetensors");
    let network = Network::new(config, 1, &Device::Cpu).unwrap();
    network.with_class_names(&["cat".into(), "dog".into()]).save(&path).unwrap();
    let loaded = ModelSource::new(&path).load(&Device::Cpu).unwrap();
    assert_eq!(
        (loaded.normalization, loaded.architecture),
        (NormalizationSource::File, ArchitectureSource::File)
    );
    assert!(loaded.warnings.is_empty());
    assert_eq!(loaded.network.class_names, ["cat", "dog"]);
}

/// A copy is as doubtful as its source, however often it is copied.
#[test]
fn a_copy_keeps_what_was_doubtful() {
    let folder = tempfile::tempdir().unwrap();
    let file = File::new(&foreign(&NetworkConfig::new("resnet32")));
    let source = ModelSource { allow_mismatch: true, architecture: Some("resnet44".into()), ..file.source() };
    let mut loaded = source.load(&Device::Cpu).unwrap();
    for number in 0..2 {
        let path = folder.path().join(format!("{number}.safetensors"));
        loaded.save(&path).unwrap();
        loaded = ModelSource::new(&path).load(&Device::Cpu).unwrap();
        assert_eq!(loaded.normalization, NormalizationSource::None);
        let [first, second] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
        assert!(first.starts_with("said when this file was converted: the weights do not fit"), "{first}");
        assert!(
            first.contains("what is missing is random") && second.contains("--mean"),
            "{first}, {second}"
        );
        assert!(loaded.describe().ends_with("no normalization"), "{}", loaded.describe());
        // Nobody said that there was none.
        let normalization = Some(Normalization { mean: vec![0.5], std: vec![0.5] });
        let given = ModelSource { normalization, ..ModelSource::new(&path) }.load(&Device::Cpu).unwrap();
        assert_eq!((given.warnings.len(), given.normalization.clone()), (1, NormalizationSource::Given));
        let told = folder.path().join("told.safetensors");
        given.save(&told).unwrap();
        let told = ModelSource::new(&told).load(&Device::Cpu).unwrap();
        assert_eq!((told.warnings.len(), told.normalization), (1, NormalizationSource::File));
    }
}

/// Stages of one network are alike, and none of them is a network.
#[test]
fn the_nearest_architecture_is_named_and_stages_are_no_networks() {
    let refusal = |state: &StateDict| File::new(state).source().load(&Device::Cpu).unwrap_err().to_string();
    let whole = foreign(&named("resnet18", 4));
    let changed = |change: &dyn Fn(&mut StateDict)| {
        let mut state = whole.clone();
        change(&mut state);
        refusal(&state)
    };
    let vector = || Tensor::new(&[1f32], &Device::Cpu).unwrap();
    let last = |state: &StateDict| state.keys().find(|name| name.ends_with("linear.bias")).cloned().unwrap();
    let messages = [
        (changed(&|state| drop(state.remove(&last(state)))), "the file has no: linear.bias (1)"),
        (changed(&|state| drop(state.insert("extra".into(), vector()))), "the model has no: extra (1)"),
        (
            changed(&|state| drop(state.remove("layer2.0.bn1.weight"))),
            "the file has no: layer2.0.bn1.weight (1)",
        ),
        (
            changed(&|state| state.retain(|name, _| !name.contains("running_"))),
            "the file has no: bn1.running_mean",
        ),
    ];
    for (message, expected) in &messages {
        assert!(
            message.contains("the nearest is resnet18 of width 4 (") && message.contains(expected),
            "{message}"
        );
        assert!(!message.contains("choose with") && message.contains("--allow-mismatch"), "{message}");
    }
    // PyTorch's `AveragedModel`.
    let mut averaged: StateDict =
        whole.iter().map(|(name, tensor)| (format!("module.{name}"), tensor.clone())).collect();
    averaged.insert("n_averaged".into(), Tensor::new(7i64, &Device::Cpu).unwrap());
    let loaded = File::new(&averaged).source().load(&Device::Cpu).unwrap();
    assert!(loaded.report.is_exact() && loaded.network.config.architecture == "resnet18");
}

#[test]
fn official_fpcm_files_bring_their_normalization() {
    let wide = NetworkConfig { fpcm: Some(FpcmConfig::wide_resnet()), ..named("wrn-10-1", 4) };
    let loaded = File::new(&foreign(&wide)).source().load(&Device::Cpu).unwrap();
    assert!(loaded.describe().contains("with FPCM (guessed from the file)"), "{}", loaded.describe());
    assert!(loaded.describe().contains("mean 0.4914, 0.4822, 0.4465"), "{}", loaded.describe());
    assert!(loaded.describe().contains("built in for FPCM's official WideResNet"), "{}", loaded.describe());
    let thin = NetworkConfig { fpcm: Some(FpcmConfig::default()), ..named("resnet18", 4) };
    let loaded = File::new(&foreign(&thin)).load("resnet18").unwrap();
    assert_eq!(loaded.network.config.normalization, None);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn absurd_sizes_are_refused_before_anything_is_allocated() {
    let file = File::new(&foreign(&named("smallcnn", 4)));
    let huge = 1_000_000_000_000;
    let source = ModelSource { architecture: Some("smallcnn".into()), ..file.source() };
    for (source, reason) in [
        (ModelSource { classes: Some(huge), ..source.clone() }, "number of classes must lie between"),
        (ModelSource { width: Some(99_999_999_999), ..source.clone() }, "width must lie between"),
        (ModelSource { channels: Some(huge), ..source.clone() }, "number of input channels"),
        (
            ModelSource { width: Some(1_000_000), ..source.clone() },
            "would hold more than 536870912 parameters",
        ),
        (ModelSource { classes: Some(0), ..source.clone() }, "number of classes must lie between"),
    ] {
        let message = source.load(&Device::Cpu).unwrap_err().to_string();
        assert!(message.contains(reason), "{message}");
    }
    for name in ["wrn-10-99999999", "cifar_resnet_99999999998", "cifar_resnet_20_99999999"] {
        let config = NetworkConfig::new(name);
        assert!(config.build(0, DType::F32, &Device::Cpu).is_err(), "{name}");
    }
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_weights_are_recognized() {
    let folder = golden::folder();
    let loaded = ModelSource::new(folder.join("resnet20_akamaster.safetensors")).load(&Device::Cpu).unwrap();
    let config = NetworkConfig { classes: Some(10), channels: Some(3), ..NetworkConfig::new("resnet20") };
    assert_eq!(loaded.network.config, config);
    assert!(loaded.describe().starts_with("resnet20 (guessed from the file), 0.27 M parameters"));
}
