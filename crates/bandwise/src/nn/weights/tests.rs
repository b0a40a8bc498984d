use std::io::Write;

use candle_core::{DType, Device};

use super::*;
use crate::formats::pickle::writer::Writer;
use crate::golden;

/// Written by PyTorch itself: see `fixtures/make.py`.
const REAL_FILES: [(&[u8], Container); 2] = [
    (include_bytes!("fixtures/zip.pt"), Container::TorchZip),
    (include_bytes!("fixtures/legacy.th"), Container::TorchLegacy),
];

fn from_bytes(bytes: &[u8]) -> Result<StateFile> {
    read_bytes(Path::new("weights.file"), bytes, None)
}

fn refusal(bytes: &[u8]) -> String {
    let error = from_bytes(bytes).expect_err("must be refused").to_string();
    assert!(error.starts_with("weights.file: "), "{error}");
    error
}

fn shapes_of(state: &StateDict) -> Vec<(String, Shape)> {
    state.iter().map(|(name, tensor)| (name.clone(), tensor.shape().clone())).collect()
}

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    golden::values(tensor)
}

/// How `torch.save` writes a tensor that owns its storage, as `f32`.
fn pickle_tensor(w: Writer, key: &str, tensor: &Tensor, legacy: bool) -> Writer {
    let strides: Vec<usize> = (0..tensor.rank()).map(|i| tensor.dims()[i + 1..].iter().product()).collect();
    let w = w.global("torch._utils", "_rebuild_tensor_v2").op(b'(').op(b'(');
    let w = w.text("storage").global("torch", "FloatStorage").text(key).text("cuda:0");
    let w = w.int(tensor.elem_count() as i32);
    let w = if legacy { w.op(b'N') } else { w };
    let w = w.op(b't').op(b'Q').int(0).ints(tensor.dims()).ints(&strides).op(0x89);
    w.global("collections", "OrderedDict").op(b')').op(b'R').op(b't').op(b'R')
}

/// `{"epoch": 7, ENTRY: OrderedDict(state)}`, each name behind `prefix`, storages named by number.
fn pickle_checkpoint(state: &StateDict, entry: &str, prefix: &str, legacy: bool) -> Vec<u8> {
    let mut w = Writer::new().op(b'}').op(b'(').text("epoch").int(7).text(entry);
    w = w.global("collections", "OrderedDict").op(b')').op(b'R').op(b'(');
    for (number, (name, tensor)) in state.iter().enumerate() {
        w = pickle_tensor(w.text(&format!("{prefix}{name}")), &number.to_string(), tensor, legacy);
    }
    w.op(b'u').op(b'u').stop()
}

fn little_endian(tensor: &Tensor) -> Vec<u8> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn zip_file(state: &StateDict, entry: &str, prefix: &str) -> Vec<u8> {
    let mut members = vec![("data.pkl".to_owned(), pickle_checkpoint(state, entry, prefix, false))];
    members
        .extend(state.values().enumerate().map(|(n, tensor)| (format!("data/{n}"), little_endian(tensor))));
    zip_members(&members)
}

fn zip_members(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        archive.start_file(format!("archive/{name}"), zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn legacy_file(state: &StateDict, entry: &str, prefix: &str) -> Vec<u8> {
    let mut magic = Writer::new().op(0x8a).op(10);
    magic.bytes.extend(&0x1950_a86a_20f9_469c_fc6c_u128.to_le_bytes()[..10]);
    let mut bytes = magic.stop();
    bytes.extend(Writer::new().int(1001).stop());
    bytes.extend(Writer::new().op(b'}').text("little_endian").op(0x88).op(b's').stop());
    bytes.extend(pickle_checkpoint(state, entry, prefix, true));
    let keys = (0..state.len()).fold(Writer::new().op(b']').op(b'('), |w, n| w.text(&n.to_string()));
    bytes.extend(keys.op(b'e').stop());
    for tensor in state.values() {
        bytes.extend((tensor.elem_count() as u64).to_le_bytes());
        bytes.extend(little_endian(tensor));
    }
    bytes
}

#[test]
fn checkpoints_written_by_pytorch() {
    for (bytes, container) in REAL_FILES {
        let file = from_bytes(bytes).unwrap();
        assert_eq!((file.container, file.entry.as_str()), (container, "state_dict"));
        assert_eq!(file.metadata["epoch"], "3");
        let expect = |name: &str, dtype: DType, shape: &[usize], values: &[f64]| {
            let tensor = &file.tensors[&format!("module.{name}")];
            assert_eq!((tensor.dtype(), tensor.dims()), (dtype, shape), "{name}");
            assert_eq!(floats(tensor), values, "{name}");
        };
        let transposed: Vec<f64> =
            (0..4).flat_map(|row| (0..3).map(move |column| f64::from(2 + 4 * column + row) / 4.)).collect();
        expect("transposed", DType::F32, &[4, 3], &transposed);
        expect("strided", DType::F32, &[5], &[0.25, 1.5, 2.75, 4., 5.25]);
        expect("parameter", DType::F32, &[1, 2], &[1.5, -2.]);
        expect("half", DType::F16, &[2], &[0.5, -0.25]);
        expect("bfloat", DType::BF16, &[2], &[3., -0.125]);
        expect("double", DType::F64, &[2], &[0.1, 1e300]);
        expect("bytes", DType::U8, &[2], &[0., 255.]);
        expect("mask", DType::U8, &[3], &[1., 0., 1.]);
        expect("num_batches_tracked", DType::I64, &[], &[-7.]);
        expect("int", DType::I64, &[1], &[-5.]);
        expect("empty", DType::F32, &[0, 3], &[]);
        assert_eq!(file.tensors.len(), 11);
    }
}

#[test]
fn another_entry_can_be_chosen() {
    let (bytes, _) = REAL_FILES[0];
    let state = StateDict::from([("w".to_owned(), tensor(&[1.], &[1]))]);
    let chosen = read_bytes(Path::new("a"), &zip_file(&state, "ema", ""), Some("ema")).unwrap();
    assert_eq!((chosen.entry.as_str(), chosen.tensors.len()), ("ema", 1));
    let error = read_bytes(Path::new("a"), bytes, Some("ema")).unwrap_err().to_string();
    assert!(
        error.contains("there is no entry \"ema\"; found: epoch, best, optimizer, state_dict"),
        "{error}"
    );
}

#[test]
fn an_empty_dictionary_is_called_empty() {
    let pickle = Writer::new().op(b'}').stop();
    let error = from_bytes(&zip_members(&[("data.pkl".to_owned(), pickle)])).unwrap_err().to_string();
    assert!(
        error.contains("no state dict in this checkpoint; found: nothing, the dictionary is empty"),
        "{error}"
    );
}

/// Written by PyTorch, the same state dict under two names, as training scripts that keep an average do.
#[test]
fn other_state_dicts_of_a_checkpoint_are_named() {
    let state: StateDict = [("weight".to_owned(), tensor(&[1.0, 2.0], &[2]))].into();
    let one = |w: Writer, name: &str, prefix: &str| -> Writer {
        let w = w.text(name).op(b'}').op(b'(').text(&format!("{prefix}weight"));
        pickle_tensor(w, "0", &state["weight"], false).op(b'u')
    };
    let w = Writer::new().op(b'}').op(b'(');
    let w = one(one(one(w, "state_dict", ""), "ema_state_dict", "module."), "optimizer", "momentum.");
    let pickle = w.op(b'u').stop();
    let bytes = zip_members(&[
        ("data.pkl".to_owned(), pickle),
        ("data/0".to_owned(), little_endian(&state["weight"])),
    ]);
    let file = from_bytes(&bytes).unwrap();
    assert_eq!((file.entry.as_str(), &file.others[..]), ("state_dict", &["ema_state_dict".to_owned()][..]));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.pt");
    std::fs::write(&path, bytes).unwrap();
    let chosen = open(&folder.path().join("checkpoint.pt#ema_state_dict")).unwrap();
    assert_eq!(chosen.tensors.keys().collect::<Vec<_>>(), ["module.weight"]);
    assert_eq!(chosen.path, path);
    let error = open(&folder.path().join("checkpoint.pt#average")).unwrap_err().to_string();
    assert!(error.contains("found: state_dict, ema_state_dict, optimizer"), "{error}");
    // A name with a # in it is a name.
    let odd = folder.path().join("run#1.pt");
    std::fs::copy(&path, &odd).unwrap();
    assert_eq!(open(&odd).unwrap().entry, "state_dict");
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_weights_survive_every_container_and_prefix() {
    let folder = golden::folder();
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "safetensors") {
            continue;
        }
        let original = read(&path).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(original.container, Container::Safetensors);
        files += 1;
        let finite = |t: &&Tensor| t.dtype() == DType::F32 && floats(t).iter().all(|v| v.is_finite());
        let state: StateDict =
            original.tensors.iter().filter(|(_, t)| finite(t)).map(|(n, t)| (n.clone(), t.clone())).collect();
        if state.is_empty() || state.values().map(Tensor::elem_count).sum::<usize>() > 2_000_000 {
            continue;
        }
        for (bytes, prefix) in [
            (legacy_file(&state, "state_dict", "module."), "module."),
            (zip_file(&state, "model", "attacker.model."), "attacker.model."),
        ] {
            let Matched { tensors, report } =
                from_bytes(&bytes).unwrap().match_keys(&shapes_of(&state)).unwrap();
            assert!(report.is_exact(), "{report}");
            assert_eq!(report.prefix, prefix);
            for (name, tensor) in &state {
                assert_eq!(floats(&tensors[name]), floats(tensor), "{name}");
            }
        }
    }
    assert!(files > 0, "no safetensors files in {}", folder.display());
}

#[test]
#[cfg_attr(not(golden), ignore = "no reference values: set BANDWISE_GOLDEN")]
fn golden_weights_load_into_their_network() {
    let folder = golden::folder();
    for name in golden::json(&folder, "case5_clean.json")["models"].as_object().unwrap().keys() {
        loads_into_its_network(name, &folder.join(format!("{name}_akamaster.safetensors")));
    }
}

fn loads_into_its_network(name: &str, path: &Path) {
    let classes = read(path).unwrap().tensors["linear.weight"].dim(0).unwrap();
    let shape = crate::nn::ModelShape { channels: 3, classes, width: None };
    let new = || crate::nn::Model::new(name, shape, None, 1, DType::F32, &Device::Cpu).unwrap();
    let model = new();
    let report = load(&model, path).unwrap();
    assert!(report.is_exact(), "{report}");
    for (name, expected) in &read(path).unwrap().tensors {
        let found = model.parameters().into_iter().find(|p| p.name() == name).unwrap();
        assert_eq!(floats(found.var()), floats(expected), "{name}");
    }
    // A damaged file leaves the model as it was.
    let other = new();
    let mut state: StateDict = model.state().into_iter().collect();
    state.remove("layer1.0.bn1.bias");
    let damaged = folder_with(&state);
    let before = floats(other.parameters()[0].var());
    let error = load(&other, &damaged.path().join("a.safetensors")).unwrap_err().to_string();
    assert!(error.contains("1 missing from the file: layer1.0.bn1.bias"), "{error}");
    assert_eq!(floats(other.parameters()[0].var()), before);
}

fn folder_with(state: &StateDict) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_safetensors(&folder.path().join("a.safetensors"), state, &BTreeMap::new()).unwrap();
    folder
}

#[test]
fn safetensors_come_back_with_their_metadata_and_equal_content_makes_equal_bytes() {
    let mut state = StateDict::new();
    state.insert("b".into(), tensor(&[1., 2., 3.], &[3, 1]).t().unwrap());
    state.insert("a".into(), Tensor::new(&[-1i64, 5], &Device::Cpu).unwrap());
    state.insert("h".into(), tensor(&[0.5], &[1]).to_dtype(DType::BF16).unwrap());
    state.insert("scalar".into(), Tensor::new(0.1f64, &Device::Cpu).unwrap());
    let metadata: BTreeMap<String, String> =
        (0..9).map(|i| (format!("key {i}"), "value \"quoted\" é".into())).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/file.safetensors");
    write_safetensors(&path, &state, &metadata).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), safetensors_bytes(&state, &metadata).unwrap());
    let file = read(&path).unwrap();
    assert_eq!(file.metadata, metadata);
    for (name, tensor) in &state {
        assert_eq!((file.tensors[name].dtype(), file.tensors[name].dims()), (tensor.dtype(), tensor.dims()));
        assert_eq!(floats(&file.tensors[name]), floats(tensor));
    }
}

#[test]
fn the_normalizer_of_a_sequential_is_recognized() {
    let state = StateDict::from([
        ("0.mean".to_owned(), tensor(&[0.25, 0.5, 0.75], &[1, 3, 1, 1])),
        ("0.std".to_owned(), tensor(&[0.5, 0.5, 0.25], &[1, 3, 1, 1])),
        ("1.conv1.weight".to_owned(), tensor(&[1.; 4], &[2, 2])),
        ("1.bn1.num_batches_tracked".to_owned(), Tensor::new(3i64, &Device::Cpu).unwrap()),
        ("1.aux".to_owned(), tensor(&[1.], &[1])),
    ]);
    let report = match_keys(&[("conv1.weight".into(), (2, 2).into())], &state).unwrap().report;
    assert_eq!(report.prefix, "1.");
    assert_eq!(report.ignored, ["1.bn1.num_batches_tracked"]);
    assert_eq!(report.unexpected, ["1.aux"]);
    let found = report.normalization.unwrap();
    assert_eq!((found.name.as_str(), found.constants.mean.as_slice()), ("0.mean", &[0.25, 0.5, 0.75][..]));
}

#[test]
fn the_report_names_what_does_not_fit() {
    let state = StateDict::from([
        ("module.fc.weight".to_owned(), tensor(&[0.; 6], &[3, 2])),
        ("module.conv.weight".to_owned(), tensor(&[0.; 4], &[4])),
        ("module.other".to_owned(), tensor(&[0.; 4], &[4])),
    ]);
    let expected = [
        ("linear.weight".to_owned(), (3, 2).into()),
        ("conv.weight".to_owned(), 5.into()),
        ("bn.weight".to_owned(), 5.into()),
    ];
    let matched = match_keys(&expected, &state).unwrap();
    assert!(!matched.report.is_complete());
    let text = matched.report.to_string();
    for part in [
        "1 of 3 tensors loaded (under the prefix \"module.\")",
        "fc in the file is linear in the model",
        "1 missing from the file: bn.weight",
        "conv.weight is [4], the model has [5]",
        "1 unexpected in the file: module.other",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(matched.complete().unwrap_err().to_string().contains("do not fit the model"));
}

#[test]
fn another_architecture_and_weights_that_are_no_numbers_are_refused() {
    let state = StateDict::from([("layer.weight".to_owned(), tensor(&[1., f32::NAN], &[2]))]);
    let error = match_keys(&[("features.0.weight".into(), 2.into())], &state).unwrap_err().to_string();
    assert!(error.contains("another architecture") && error.contains("features.0.weight"), "{error}");
    let error = match_keys(&[("layer.weight".into(), 2.into())], &state).unwrap_err().to_string();
    assert!(error.contains("\"layer.weight\" holds 1 values") && error.contains("at 1, is NaN"), "{error}");
}

#[test]
fn weights_of_quantized_networks_are_refused() {
    let codes = tensor(&[1.0, -3.0], &[2]).to_dtype(DType::I64).unwrap();
    let state = StateDict::from([("fc.weight".to_owned(), codes)]);
    let message = match_keys(&shapes_of(&state), &state).unwrap_err().to_string();
    assert!(
        message.contains("\"fc.weight\" holds whole numbers (i64), as quantized networks do"),
        "{message}"
    );
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let state = StateDict::from([("w".to_owned(), tensor(&[1., 2.], &[2]))]);
    let big_endian = [
        ("data.pkl".to_owned(), pickle_checkpoint(&state, "model", "", false)),
        ("byteorder".to_owned(), b"big".to_vec()),
    ];
    let short = [
        ("data.pkl".to_owned(), pickle_checkpoint(&state, "model", "", false)),
        ("data/0".to_owned(), vec![0; 7]),
    ];
    let module = Writer::new().global("models.resnet", "ResNet").op(b')').op(0x81).op(b'}').op(b'b').stop();
    for (bytes, reason) in [
        (b"".to_vec(), "empty"),
        (b"<!DOCTYPE html><html>".to_vec(), "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "Git LFS pointer"),
        (Writer::new().int(1).stop(), "not one that torch.save wrote"),
        (zip_members(&[("a.npy".into(), vec![])]), "no data.pkl"),
        (zip_members(&big_endian), "big-endian"),
        (zip_members(&short), "data/0 holds 7 bytes, 8 were expected"),
        (zip_members(&[("data.pkl".into(), module)]), "an object made by models.resnet.ResNet"),
        (b"\x08\0\0\0\0\0\0\0{\"a\": 1}".to_vec(), "not a whole safetensors file"),
    ] {
        let error = refusal(&bytes);
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn tensors_beyond_their_storage_and_of_unknown_make_are_refused() {
    let view = |size: &[usize], stride: &[usize]| {
        let w =
            Writer::new().op(b'}').text("w").global("torch._utils", "_rebuild_tensor_v2").op(b'(').op(b'(');
        let w =
            w.text("storage").global("torch", "FloatStorage").text("0").text("cpu").int(4).op(b't').op(b'Q');
        let w = w.int(1).ints(size).ints(stride).op(0x89).op(b'N').op(b't').op(b'R').op(b's');
        zip_members(&[("data.pkl".into(), w.stop()), ("data/0".into(), vec![0; 16])])
    };
    assert_eq!(from_bytes(&view(&[3], &[1])).unwrap().tensors["w"].dims(), [3]);
    assert!(refusal(&view(&[4], &[1])).contains("w: a tensor of shape [4] is larger than its storage"));
    assert!(refusal(&view(&[2_000_000_000, 2_000_000_000], &[0, 0])).contains("larger than its storage"));
    assert!(refusal(&view(&[2], &[2_000_000_000])).contains("larger than its storage"));

    let sparse = Writer::new().op(b'}').text("w").global("torch._utils", "_rebuild_sparse_tensor");
    let sparse = sparse.op(b')').op(b'R').op(b's').stop();
    let error = refusal(&zip_members(&[("data.pkl".into(), sparse)]));
    assert!(error.contains("w: made by torch._utils._rebuild_sparse_tensor"), "{error}");
}

#[test]
fn truncation_anywhere_is_an_error() {
    let state = StateDict::from([("w".to_owned(), tensor(&[1., 2.], &[2]))]);
    let own = safetensors_bytes(&state, &BTreeMap::new()).unwrap();
    for bytes in REAL_FILES.iter().map(|(bytes, _)| *bytes).chain([own.as_slice()]) {
        for end in (0..bytes.len()).step_by(7) {
            assert!(from_bytes(&bytes[..end]).is_err(), "cut at {end} of {}", bytes.len());
        }
    }
}

#[test]
fn damaged_weights_are_survived() {
    let state = StateDict::from([("w".to_owned(), tensor(&[1., 2.], &[2]))]);
    let own = safetensors_bytes(&state, &BTreeMap::new()).unwrap();
    let samples = [REAL_FILES[0].0.to_vec(), REAL_FILES[1].0.to_vec(), own];
    crate::fuzz::survive("weights", &samples, |bytes| drop(from_bytes(bytes)));
}
