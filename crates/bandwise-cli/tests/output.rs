//! Standard output and standard error may close or fill up, and names of others may hold anything.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bandwise::network::{Network, NetworkConfig};

const DATA: &str = "synthetic:count=20,test_count=20";

fn bandwise(arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("bandwise"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A pipe that nobody reads any more.
fn closed() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

/// What a command says when its standard output goes to `stdout`, with its exit code.
fn with_stdout(arguments: &[&str], stdout: Stdio) -> (Option<i32>, String) {
    let output = bandwise(arguments).stdout(stdout).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn weights(folder: &Path) -> PathBuf {
    let path = folder.join("weights.safetensors");
    let config = NetworkConfig { width: Some(4), ..NetworkConfig::new("smallcnn") }.resolved(10, 3);
    Network::new(config, 3, &candle_core::Device::Cpu).unwrap().save(&path).unwrap();
    path
}

#[test]
fn a_reader_that_has_seen_enough_ends_nothing() {
    for arguments in [&["models"][..], &["data", "list"], &["data", "info", DATA], &["--help"]] {
        assert_eq!(with_stdout(arguments, closed()), (Some(0), String::new()), "{arguments:?}");
    }
}

/// The exit code still says that published and own corruptions differ.
#[test]
fn a_closed_pipe_changes_no_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("corrupted");
    let which = ["corrupt", "synthetic:test_count=2", "--corruption", "brightness"];
    assert!(bandwise(&[&which[..], &["--out", text(&out)]].concat()).output().unwrap().status.success());
    let file = out.join("brightness.npy");
    let mut bytes = std::fs::read(&file).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].iter_mut().for_each(|byte| *byte = byte.wrapping_add(100));
    std::fs::write(&file, bytes).unwrap();
    let (code, said) = with_stdout(&[&which[..], &["--verify", text(&out)]].concat(), closed());
    assert_eq!(code, Some(1), "{said}");
}

#[test]
fn training_goes_on_when_nobody_listens() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, run) = (folder.path().join("recipe.toml"), folder.path().join("run"));
    let tiny = "name = \"tiny\"\nepochs = 2\nbatch_size = 20\nlearning_rate = 0.05\n[data]\nsource = \"synthetic:count=40,test_count=20\"\n\
        [model]\narchitecture = \"smallcnn\"\nwidth = 4\n[evaluation]\nfinal = []\n";
    std::fs::write(&recipe, tiny).unwrap();
    let mut command = bandwise(&["train", text(&recipe), "--out", text(&run)]);
    let status = command.stdout(closed()).stderr(closed()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(std::fs::read_to_string(run.join("status.json")).unwrap().contains("complete"));
    assert!(run.join("report.html").exists());
}

/// Results first, then one sentence.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_is_one_sentence() {
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path());
    let [json, journal, csv] = ["x.json", "j.jsonl", "t.csv"].map(|name| folder.path().join(name));
    let check = |arguments: &[&str]| {
        let (code, said) = with_stdout(arguments, full());
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        let complaints: Vec<_> = said.lines().filter(|line| line.starts_with("bandwise: ")).collect();
        assert!(matches!(complaints[..], [one] if one.contains("standard output: No space left")), "{said}");
    };
    check(&["models"]);
    check(&["data", "list"]);
    check(&["evaluate", "--help"]);
    let evaluate = ["evaluate", "--weights", text(&weights), "--data", DATA];
    let more = ["--attack", "fgsm", "--eps", "1/255", "--json", text(&json), "--results", text(&journal)];
    check(&[&evaluate[..], &more].concat());
    assert_eq!(bandwise::evaluate::record::read(&json).unwrap().len(), 2);
    check(&["table", text(&journal), "--csv", text(&csv)]);
    assert_eq!(std::fs::read_to_string(&csv).unwrap().lines().count(), 3);
}

#[test]
fn a_dash_is_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path());
    let journal = folder.path().join("j.jsonl");
    let here = |arguments: &[&str]| {
        let output = bandwise(arguments).current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        assert!(!folder.path().join("-").exists());
        (String::from_utf8(output.stdout).unwrap(), said)
    };
    let evaluate = ["evaluate", "--weights", text(&weights), "--data", DATA, "--json", "-"];
    let (printed, said) = here(&[&evaluate[..], &["--results", text(&journal)]].concat());
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(json["records"].as_array().unwrap().len(), 1);
    assert!(said.contains("clean: accuracy") && !said.contains("wrote -"), "{said}");
    let (printed, _) = here(&[&evaluate[..], &["--corruption", "brightness", "--severity", "1"]].concat());
    serde_json::from_str::<serde_json::Value>(&printed).unwrap();
    let (printed, _) = here(&["table", text(&journal), "--csv", "-"]);
    assert!(printed.starts_with("configuration,") && printed.lines().count() == 2, "{printed}");
}

/// What `evaluate` says, and its exit code, with more arguments.
fn evaluated(weights: &Path, more: &[&str]) -> (Option<i32>, String) {
    let base = ["evaluate", "--weights", text(weights), "--data", DATA];
    let output = bandwise(&[&base[..], more].concat()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn files_of_others_are_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path());
    let [foreign, own, out] = ["foreign", "own.json", "out"].map(|name| folder.path().join(name));
    for content in ["notes", "{\"name\": 1}", "{\"records\": \"of vinyl\"}", "a,b\n1,2\n"] {
        std::fs::write(&foreign, content).unwrap();
        let (code, said) = evaluated(&weights, &["--json", text(&foreign)]);
        assert!(code == Some(2) && said.contains("is not replaced: name another file"), "{said}");
        // Before anything is computed.
        assert!(!said.contains("accuracy"), "{said}");
        assert_eq!(std::fs::read_to_string(&foreign).unwrap(), content);
    }
    for _ in 0..2 {
        let (code, said) = evaluated(&weights, &["--json", text(&own)]);
        assert_eq!(code, Some(0), "{said}");
    }
    let refused = |arguments: &[&str]| {
        let output = bandwise(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("is not replaced"), "{said}");
        assert_eq!(std::fs::read_to_string(&foreign).unwrap(), "a,b\n1,2\n");
    };
    refused(&["table", text(&own), "--csv", text(&foreign)]);
    let converted = out.join("foreign.safetensors");
    let refused_in = |name: &str, arguments: &[&str]| {
        std::fs::create_dir_all(&out).unwrap();
        std::fs::rename(&foreign, out.join(name)).unwrap();
        let output = bandwise(arguments).output().unwrap();
        std::fs::rename(out.join(name), &foreign).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains("is not replaced"), "{name}: {said}");
        assert_eq!(std::fs::read_to_string(&foreign).unwrap(), "a,b\n1,2\n");
    };
    refused_in("foreign.safetensors", &["convert", text(&weights), text(&converted)]);
    let filters = ["analyze", "filters", "--weights", text(&weights), "--out", text(&out)];
    for name in ["report.html", "results.jsonl", "filters.csv"] {
        refused_in(name, &filters);
    }
    let mask = ["mask", "--weights", text(&weights), "--data", DATA, "--out", text(&out)];
    for name in ["report.html", "mask.npy", "mask.png", "state.safetensors"] {
        refused_in(name, &mask);
    }
}

#[cfg(unix)]
#[test]
fn a_read_only_file_is_refused_and_open_files_are_written_into() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path());
    let json = folder.path().join("x.json");
    assert_eq!(evaluated(&weights, &["--json", text(&json)]).0, Some(0));
    let before = std::fs::read(&json).unwrap();
    std::fs::set_permissions(&json, std::fs::Permissions::from_mode(0o444)).unwrap();
    let (code, said) = evaluated(&weights, &["--json", text(&json)]);
    assert!(code == Some(2) && said.contains("read-only"), "{said}");
    assert_eq!(std::fs::read(&json).unwrap(), before);

    // Standard output as an ordinary file: it is the same file afterwards, and holds the records alone.
    let printed = folder.path().join("printed");
    let file = std::fs::File::create(&printed).unwrap();
    let base = ["evaluate", "--weights", text(&weights), "--data", DATA, "--json"];
    let (code, said) = with_stdout(&[&base[..], &["/dev/stdout"]].concat(), file.into());
    assert!(code == Some(0) && said.contains("clean: accuracy"), "{said}");
    let there: serde_json::Value = serde_json::from_slice(&std::fs::read(&printed).unwrap()).unwrap();
    assert_eq!(there["records"].as_array().unwrap().len(), 1);
    // A shell's `>(command)`.
    let script = format!(
        "{} {} >(cat > got); wait $!",
        assert_cmd::cargo::cargo_bin!("bandwise").display(),
        base.join(" ")
    );
    let status =
        Command::new("bash").args(["-c", &script]).current_dir(folder.path()).stdout(Stdio::null()).status();
    assert!(status.unwrap().success());
    assert_eq!(bandwise::evaluate::record::read(&folder.path().join("got")).unwrap().len(), 1);
}

/// A data set in CIFAR-10's layout whose class names want to color the terminal.
fn colored(folder: &Path) -> String {
    let root = folder.join("cifar-10-batches-bin");
    std::fs::create_dir_all(&root).unwrap();
    let names: Vec<String> = (0..10).map(|class| format!("\x1b[31mclass{class}\u{9b}2J")).collect();
    std::fs::write(root.join("batches.meta.txt"), names.join("\n")).unwrap();
    let records: Vec<u8> =
        (0..20u8).flat_map(|i| std::iter::once(i % 10).chain((0..3072).map(move |p| p as u8 ^ i))).collect();
    for name in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]
    {
        std::fs::write(root.join(format!("{name}.bin")), &records).unwrap();
    }
    format!("cifar10:{}", text(folder))
}

/// Everything that was printed, without control characters but the line feeds between lines.
fn harmless(arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = bandwise(arguments).output().unwrap();
    let printed = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{printed}");
    assert!(!printed.contains(|c: char| c.is_control() && c != '\n'), "{printed:?}");
    assert!(!printed.lines().any(|line| line.starts_with("forged")), "{printed}");
    printed
}

#[test]
fn names_of_others_do_not_act_on_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let data = colored(folder.path());
    let printed = harmless(&["data", "info", &data]);
    assert!(printed.contains("\\u{1b}[31mclass3\\u{9b}2J"), "{printed}");

    let (recipe, run) = (folder.path().join("recipe.toml"), folder.path().join("run"));
    let tiny = "name = \"\\u001b[31mrun\\nforged\"\nepochs = 1\nbatch_size = 20\nlearning_rate = 0.05\n[data]\nsource = \"synthetic\"\n[model]\n\
        architecture = \"smallcnn\"\nwidth = 4\n[evaluation]\nfinal = [{ name = \"fgsm\", epsilon = \"4/255\" }]\n";
    std::fs::write(&recipe, tiny).unwrap();
    let printed = harmless(&["train", text(&recipe), "--data", &data, "--out", text(&run)]);
    assert!(printed.contains("\\u{1b}[31mrun\\nforged: epoch 1/1"), "{printed}");

    let weights = run.join("model.safetensors");
    let mask = ["mask", "--weights", text(&weights), "--data", &data, "--limit", "20", "--epochs", "1"];
    let out = folder.path().join("classes");
    let printed = harmless(&[&mask[..], &["--per-class", "--out", text(&out)]].concat());
    assert!(printed.contains("\\u{1b}[31mclass3\\u{9b}2J: "), "{printed}");
    let out = folder.path().join("all");
    let printed = harmless(&[&mask[..], &["--label", "\x1b[2J\nforged", "--out", text(&out)]].concat());
    assert!(printed.contains("\\u{1b}[2J\\nforged: "), "{printed}");
}

#[test]
fn errors_show_what_is_in_names_too() {
    let name = "no\x1b[31mwhere\nforged";
    for arguments in [["report", name], ["table", name], ["train", name]] {
        let output = bandwise(&arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(said.contains("no\\u{1b}[31mwhere"), "{said:?}");
        assert!(!said.contains('\x1b') && !said.lines().any(|line| line.starts_with("forged")), "{said:?}");
    }
}
