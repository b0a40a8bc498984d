//! The command lines of the official repositories of FPCM and filter frequency regularization, as their users type
//! them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use candle_core::{Device, Tensor, safetensors};

fn bandwise() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("bandwise"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a command that must succeed and returns what it printed.
fn printed(arguments: &[&str]) -> String {
    let output = bandwise().args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &errors
}

/// The message of a command that must fail with exit code 2.
fn refused(arguments: &[&str]) -> String {
    let output = bandwise().args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The folder of reference values; without it, tests that need it are ignored (see `build.rs`).
fn golden() -> PathBuf {
    let given = std::env::var_os("BANDWISE_GOLDEN").filter(|value| !value.is_empty() && value != "required");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = workspace.join(given.unwrap_or_else(|| "../shared/golden".into()));
    assert!(folder.is_dir(), "no reference values at {}", folder.display());
    folder
}

/// A folder in CIFAR-10's binary layout with `images` `[n, 3, 32, 32]` in [0, 1].
fn cifar10(folder: &Path, images: &Tensor, labels: &[u8]) -> PathBuf {
    let root = folder.join("cifar-10-batches-bin");
    std::fs::create_dir_all(&root).unwrap();
    let mut records = Vec::new();
    for (image, label) in images.flatten_from(1).unwrap().to_vec2::<f32>().unwrap().iter().zip(labels) {
        records.push(*label);
        records.extend(image.iter().map(|pixel| (pixel * 255.0).round() as u8));
    }
    let names = "airplane automobile bird cat deer dog frog horse ship truck".replace(' ', "\n");
    std::fs::write(root.join("batches.meta.txt"), names).unwrap();
    for name in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
    {
        std::fs::write(root.join(format!("{name}.bin")), &records).unwrap();
    }
    folder.to_path_buf()
}

fn random_cifar10(folder: &Path, count: usize) -> PathBuf {
    let images = Tensor::rand(0f32, 1.0, (count, 3, 32, 32), &Device::Cpu).unwrap();
    cifar10(folder, &images, &(0..count as u8).map(|label| label % 10).collect::<Vec<_>>())
}

/// Official state dicts are recognized by their names, and give the official predictions.
#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_official_state_dicts_load() {
    let golden = golden();
    let json = std::fs::read(golden.join("case2_fpcm.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let tensors = safetensors::load(golden.join("case2_fpcm_nets.safetensors"), &Device::Cpu).unwrap();
    for (name, case) in json["nets"].as_object().unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let prefix = format!("{name}/");
        let ours = tensors.iter().filter_map(|(key, tensor)| Some((key.strip_prefix(&prefix)?, tensor)));
        let (values, weights): (Vec<_>, Vec<_>) = ours.partition(|(key, _)| key.starts_with("__"));
        let weights: HashMap<String, Tensor> =
            weights.into_iter().map(|(key, tensor)| (format!("module.{key}"), tensor.clone())).collect();
        let file = folder.path().join("official.safetensors");
        safetensors::save(&weights, &file).unwrap();

        let values: HashMap<&str, &Tensor> = values.into_iter().collect();
        let last = case["runs"].as_array().unwrap().iter().map(|run| run["epoch"].as_f64().unwrap());
        // Tests run with the cut-off of the last epoch; a wide network has the same at every epoch.
        let epoch = if name.starts_with("wrn") { last.fold(0.0, f64::max) } else { 120.0 };
        let Some(logits) = values.get(format!("__logits_eval_e{epoch}").as_str()) else { continue };
        let predicted: Vec<u8> =
            logits.argmax(1).unwrap().to_vec1::<u32>().unwrap().iter().map(|&class| class as u8).collect();
        let root = cifar10(folder.path(), values["__x"], &predicted);

        let width = case["width"].as_u64().map(|width| width.to_string());
        let depth = case["depth"].as_u64().map(|depth| format!("wrn-{depth}-1"));
        let model = depth.as_deref().unwrap_or("resnet18");
        let data = format!("cifar10:{}", text(&root));
        let mut arguments = vec!["evaluate", "--weights", text(&file), "--model", model, "--data", &data];
        width.iter().for_each(|width| arguments.extend(["--width", width]));
        let printed = printed(&arguments);
        // The official wide network normalizes inside; its file is recognized.
        assert_eq!(
            printed.contains("built in for FPCM's official WideResNet"),
            name.starts_with("wrn"),
            "{printed}"
        );
        assert!(printed.contains("accuracy 100.00 %"), "{name}: {printed}");
        assert!(!printed.contains("unexpected"), "{name}: {printed}");
    }
}

/// `test` with official flags is `evaluate` with ours.
#[test]
fn official_tests_are_our_evaluations() {
    let folder = tempfile::tempdir().unwrap();
    let root = random_cifar10(folder.path(), 12);
    let run = folder.path().join("run");
    let small = ["--set", "model.width=4", "--set", "data.train_limit=12", "--set", "evaluation.final=[]"];
    let official = ["train", "--data_root", text(&root), "--dataset", "CIFAR10", "--weight_decay", "3.5e-3"];
    let numbers = ["--lr", "0.01", "--batch_size", "6", "--epoch", "1", "--model", "resnet18", "--step", "1"];
    printed(&[&official[..], &numbers, &small, &["--save_path", text(&run)]].concat());
    let recipe = std::fs::read_to_string(run.join("run.toml")).unwrap();
    for line in
        ["name = \"trades\"", "beta = 6.0", "weight_decay = 0.0035", "attack_mode = \"train\"", "epochs = 1"]
    {
        assert!(recipe.contains(line), "{line} is not in\n{recipe}");
    }

    let weights = run.join("model.safetensors");
    let json = |name: &str| folder.path().join(name);
    let test = ["test", "--weights", text(&weights), "--dataset", "cifar10", "--data_root", text(&root)];
    let data = format!("cifar10:{}", text(&root));
    let evaluate = ["evaluate", "--weights", text(&weights), "--data", &data];
    for (official, ours) in [
        (
            vec!["--attack", "PGD", "--step", "3", "--model", "resnet18"],
            vec!["--attack", "pgd", "--steps", "3"],
        ),
        (vec!["--attack", "FGSM", "--step", "3"], vec!["--attack", "fgsm"]),
        (vec!["--attack", "CW", "--model", "resnet18"], vec!["--attack", "cw-linf", "--steps", "50"]),
        (vec!["--attack", "APGD", "--batch_size", "5"], vec!["--attack", "apgd-ce", "--steps", "100"]),
        (vec!["--attack", "None"], vec![]),
    ] {
        let (a, b) = (json("a.json"), json("b.json"));
        printed(&[&test[..], &official, &["--json", text(&a)]].concat());
        printed(&[&evaluate[..], &ours, &["--json", text(&b)]].concat());
        let read = |path: &Path| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
        };
        let (a, b) = (read(&a), read(&b));
        let (a, b) = (a["records"].as_array().unwrap(), b["records"].as_array().unwrap());
        assert_eq!(a.len(), b.len(), "{official:?}");
        for (a, b) in a.iter().zip(b) {
            for field in ["per_image", "attack", "data", "value"] {
                assert_eq!(a[field], b[field], "{official:?}: {field}");
            }
        }
    }
}

/// Every flag of FPCM's train.py, and training that goes on from its weights.
#[test]
fn official_training_starts_from_official_weights() {
    let folder = tempfile::tempdir().unwrap();
    let root = random_cifar10(folder.path(), 12);
    let small = ["--set", "model.width=4", "--set", "data.train_limit=12", "--set", "evaluation.final=[]"];
    let train = |more: &[&str]| {
        let flags = ["train", "--data_root", text(&root), "--epoch", "1", "--batch_size", "6", "--step", "1"];
        printed(&[&flags[..], &["--n_classes", "10", "--loss", "CE"], &small, more].concat());
    };
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    train(&["--out_dir", text(&first)]);
    train(&["--out_dir", text(&second), "--pretrained", text(&first.join("model.safetensors"))]);
    let recipe = std::fs::read_to_string(second.join("run.toml")).unwrap();
    assert!(recipe.contains("first/model.safetensors"), "{recipe}");
    let weights = |run: &Path| safetensors::load(run.join("model.safetensors"), &Device::Cpu).unwrap();
    let (first, second) = (weights(&first), weights(&second));
    let moved = |name: &str| (&first[name] - &second[name]).unwrap().abs().unwrap().max_all().unwrap();
    // Another epoch at a tenth of 0.01 moves them a little; random ones would be as far as they are large.
    let change = moved("layer4.1.conv2.weight").to_scalar::<f32>().unwrap();
    assert!(change > 0.0 && change < 0.02, "{change}");
}

#[test]
fn the_command_line_of_filter_frequency_regularization() {
    let folder = tempfile::tempdir().unwrap();
    random_cifar10(&folder.path().join("cifar10"), 12);
    let out = folder.path().join("out");
    let small = ["--set", "model.width=4", "--set", "data.train_limit=12", "--set", "evaluation.final=[]"];
    let places = ["train", "--data_dir", text(folder.path()), "--output_dir", text(&out)];
    let what = ["--model", "lowres_resnet9", "--basis_filter", "WD", "--l2_reg", "1", "--l2_lambda", "0.02"];
    let how = [
        "--scheduler",
        "WarmupCosine",
        "--learning_rate",
        "0.01",
        "--optimizer",
        "adamw",
        "--max_epochs",
        "1",
    ];
    let numbers = ["--weight_decay", "0.01", "--batch_size", "6", "--seed", "3", "--num_workers", "8"];
    printed(&[&places[..], &what, &how, &numbers, &small].concat());
    let run = out.join("cifar10/lowres_resnet9/WD/3");
    let recipe = std::fs::read_to_string(run.join("run.toml")).unwrap();
    for line in [
        "seed = 3",
        "architecture = \"resnet9\"",
        "lambda = 0.02",
        "name = \"warmup_cosine\"",
        "kind = \"weight\"",
    ] {
        assert!(recipe.contains(line), "{line} is not in\n{recipe}");
    }
    let weights = safetensors::load(run.join("model.safetensors"), &Device::Cpu).unwrap();
    assert!(weights.contains_key("conv.0.coefficients"), "{:?}", weights.keys());
    let message = refused(&["train", "--basis_filter", "WD", "--lr", "0.1"]);
    assert!(message.contains("two scripts"), "{message}");
}

#[test]
fn contradictions_get_their_message() {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/demo/plain.toml");
    let message = refused(&["train", text(&recipe), "--lr", "0.1"]);
    assert!(message.contains("--set learning_rate"), "{message}");
    let base = ["test", "--weights", "w.pt", "--dataset", "CIFAR10"];
    let message = refused(&[&base[..], &["--data", "synthetic"]].concat());
    assert!(message.contains("--data and --dataset"), "{message}");
    let message = refused(&[&base[..], &["--model", "resnet34"]].concat());
    assert!(message.contains("wrn-34-10"), "{message}");
    assert!(refused(&["test", "--weights", "w.pt", "--dataset", "CIFAR11"]).contains("CIFAR100"));
    assert!(refused(&["test", "--weights", "w.pt"]).contains("--data"));
    assert!(refused(&["train"]).contains("recipes/"));
}
