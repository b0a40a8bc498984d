//! What a resumed run vouches for.

use std::path::Path;

use candle_core::Device;

use super::*;
use crate::evaluate::record;
use crate::train::trainer::Silent;

const RECIPE: &str = "name = \"test\"\nepochs = 2\nbatch_size = 20\nlearning_rate = 0.05\n[data]\nsource = \
    \"synthetic:count=40,test_count=20\"\n[model]\narchitecture = \"smallcnn\"\nwidth = 4\n[evaluation]\nfinal = \
    [{ name = \"fgsm\", epsilon = \"4/255\" }]\n";

fn recipe(changes: &[&str]) -> Recipe {
    Recipe::parse(RECIPE, &changes.iter().map(|change| change.to_string()).collect::<Vec<_>>()).unwrap()
}

/// Keeps what a run says.
#[derive(Default)]
struct Heard(std::sync::Mutex<Vec<String>>);

impl Observer for Heard {
    fn message(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

impl Heard {
    fn all(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

fn with<T>(observer: &dyn Observer, action: impl FnOnce(Surroundings) -> T) -> T {
    let interrupt = Interrupt::default();
    action(Surroundings { device: &Device::Cpu, observer, interrupt: &interrupt })
}

fn started(folder: &Path, changes: &[&str]) {
    with(&Silent, |surroundings| start(folder, recipe(changes), surroundings)).unwrap();
}

/// Resumes with the settings of run.toml and these changes; what was said.
fn resumed(folder: &Path, changes: &[&str], accept: bool) -> (Result<()>, String) {
    let changes: Vec<String> = changes.iter().map(|change| change.to_string()).collect();
    let heard = Heard::default();
    let result = RunFolder::recipe(folder, &changes).and_then(|recipe| {
        with(&heard, |surroundings| resume(folder, recipe, accept, surroundings)).map(drop)
    });
    (result, heard.all())
}

fn refused(folder: &Path, changes: &[&str], accept: bool) -> String {
    resumed(folder, changes, accept).0.unwrap_err().to_string()
}

/// Makes a complete run look as if it had been killed after its last checkpoint.
fn unfinished(folder: &Path) {
    RunFolder::open(folder).unwrap().0.set_status(Status::Running).unwrap();
}

fn edit(folder: &Path, from: &str, to: &str) {
    let path = folder.join("run.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&path, text.replace(from, to)).unwrap();
}

#[test]
fn an_edited_recipe_is_refused_by_key_and_accepted_on_demand() {
    let guard = tempfile::tempdir().unwrap();
    let folder = guard.path().join("run");
    started(&folder, &[]);
    unfinished(&folder);
    edit(&folder, "learning_rate = 0.05", "learning_rate = 0.5");
    edit(&folder, "epochs = 2", "epochs = 3");
    let before = std::fs::read(folder.join("metrics.jsonl")).unwrap();
    let message = refused(&folder, &[], false);
    assert!(
        message.contains("learning_rate: the checkpoint was made with 0.05, run.toml says 0.5"),
        "{message}"
    );
    assert!(message.contains("epochs: the checkpoint was made with 2, run.toml says 3"), "{message}");
    assert!(message.contains("--accept-changes"), "{message}");
    assert_eq!(std::fs::read(folder.join("metrics.jsonl")).unwrap(), before);

    let (result, said) = resumed(&folder, &[], true);
    result.unwrap();
    assert!(said.contains("learning_rate 0.05 → 0.5"), "{said}");
    // Every record names both values and when they changed.
    for record in record::read(&folder.join("results.jsonl")).unwrap() {
        let changes = record.provenance.training["changes"].as_array().unwrap().clone();
        let rate = changes.iter().find(|change| change["key"] == "learning_rate").unwrap();
        assert_eq!((rate["from"].as_str(), rate["to"].as_str()), (Some("0.05"), Some("0.5")));
        assert_eq!(rate["epoch"], 2);
        assert_eq!(record.provenance.configuration["learning_rate"], 0.5);
    }
    let lines = RunFolder::open(&folder).unwrap().0.metrics().unwrap();
    assert_eq!(
        lines.iter().filter(|line| line.kind == "epoch").map(|line| line.epoch).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(lines.iter().any(|line| line.kind == "note" && line.message.contains("settings changed")));
    // What was accepted once is not asked for again.
    unfinished(&folder);
    resumed(&folder, &[], false).0.unwrap();
}

#[test]
fn a_finished_run_is_trained_longer_and_says_how() {
    let guard = tempfile::tempdir().unwrap();
    let folder = guard.path().join("run");
    started(&folder, &[]);
    let (result, said) = resumed(&folder, &[], false);
    result.unwrap();
    assert!(said.contains("complete already") && said.contains("--set epochs=N --accept-changes"), "{said}");
    let message = refused(&folder, &["epochs=3"], false);
    assert!(message.contains("epochs: the checkpoint was made with 2, now it is 3"), "{message}");
    let message = refused(&folder, &["learning_rate=0.5"], true);
    assert!(message.contains("learning_rate can change nothing any more"), "{message}");
    let message = refused(&folder, &["epochs=1"], true);
    assert!(message.contains("2 epochs are trained already"), "{message}");
    resumed(&folder, &["epochs=3"], true).0.unwrap();
    let (run, now) = RunFolder::open(&folder).unwrap();
    assert_eq!((now.epochs, run.status().unwrap()), (3, Status::Complete));
    drop(run);

    // Another final attack changes no weights: it is measured without a question.
    let weights = std::fs::read(folder.join("model.safetensors")).unwrap();
    resumed(&folder, &["evaluation.final=[{name=\"fgsm\",epsilon=\"1/255\"}]"], false).0.unwrap();
    let records = record::read(&folder.join("results.jsonl")).unwrap();
    assert!(records.iter().any(|r| r.attack == "fgsm" && (r.epsilon - 1.0 / 255.0).abs() < 1e-9));
    assert!(std::fs::read(folder.join("model.safetensors")).unwrap() == weights);
    // Neither does a name.
    let (result, said) = resumed(&folder, &["name=\"other\"", "checkpoint.every=7"], false);
    result.unwrap();
    assert!(said.contains("other: this run is complete already"), "{said}");
}

#[test]
fn a_damaged_checkpoint_costs_an_epoch_and_changes_nothing() {
    let guard = tempfile::tempdir().unwrap();
    let (whole, broken) = (guard.path().join("whole"), guard.path().join("broken"));
    started(&whole, &["epochs=3"]);
    started(&broken, &["epochs=3"]);
    unfinished(&broken);
    let checkpoint = broken.join("checkpoints/epoch-0003.safetensors");
    let mut bytes = std::fs::read(&checkpoint).unwrap();
    let last = bytes.len() - 8;
    bytes[last] ^= 1;
    std::fs::write(&checkpoint, bytes).unwrap();
    let (result, said) = resumed(&broken, &[], false);
    result.unwrap();
    assert!(said.contains("epoch-0003.safetensors") && said.contains("damaged, passed over"), "{said}");
    for file in ["model.safetensors", "metrics.jsonl"] {
        let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert!(read(&whole) == read(&broken), "{file}");
    }
}

#[test]
fn other_images_are_a_change_and_another_path_to_the_same_is_none() {
    let guard = tempfile::tempdir().unwrap();
    let folder = guard.path().join("run");
    started(&folder, &[]);
    unfinished(&folder);
    // Only the test images differ: not what training has seen, but what it is measured on; the path is the same.
    let message = refused(&folder, &["data.source=synthetic:count=44,test_count=20"], false);
    assert!(message.contains("data.source: the checkpoint was made with"), "{message}");
    resumed(&folder, &["data.source=synthetic:test_count=20,count=40"], false).0.unwrap();
}

#[test]
fn what_cannot_run_leaves_no_folder_behind() {
    let guard = tempfile::tempdir().unwrap();
    let folder = guard.path().join("run");
    for (changes, expected) in [
        (&["model.classes=2"][..], "model.classes is 2"),
        (&["batch_size=50", "data.drop_last=true"], "do not fill one batch"),
        (&["model.weights=\"nowhere.safetensors\""], "nowhere.safetensors"),
        (&["model.fpcm={stages=[9]}"], "stage 9"),
        (&["model.classes=11"], "the network knows 11 classes, synthetic (train) has 10"),
        (&["model.classes=16777216"], "omit model.classes"),
        (&["model.channels=1"], "model.channels is 1: the network takes images of 1 channels"),
        (&["model.width=16000"], "more than 536870912 parameters"),
        (
            &["data.augment=[{resize={size=10000}}]"],
            "{\"size\":10000}}: one image of 10000×10000×3 would take 1.1 GiB",
        ),
        (
            &["data.augment=[{random_resized_crop={size=5000}}]"],
            "a batch of 20 images of 5000×5000×3 would take 5.6 GiB, and at most 1 GiB",
        ),
        (
            &["data.augment=[{center_crop={size=1}}]", "model.architecture=resnet9"],
            "cannot take the training images",
        ),
        (
            &[
                "evaluation.batch_size=100",
                "data.source=synthetic:size=1024,count=4",
                "data.augment=[{resize={size=8}}]",
            ],
            "evaluation.batch_size: a batch of 100 images of 1024×1024×3",
        ),
    ] {
        let error = with(&Silent, |surroundings| start(&folder, recipe(changes), surroundings)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!folder.exists(), "{changes:?}");
    }
}

#[test]
fn a_folder_without_results_does_not_block() {
    let guard = tempfile::tempdir().unwrap();
    let folder = guard.path().join("run");
    // What a run that ended before its first checkpoint leaves.
    drop(RunFolder::create(&folder, &recipe(&["learning_rate=0.5"])).unwrap());
    started(&folder, &[]);
    assert!(RunFolder::recipe(&folder, &[]).unwrap() == recipe(&[]));
    let again = with(&Silent, |surroundings| start(&folder, recipe(&[]), surroundings)).unwrap_err();
    assert!(again.to_string().contains("already holds a run"), "{again}");
}

#[test]
fn a_network_of_other_parameters_is_no_continuation() {
    let guard = tempfile::tempdir().unwrap();
    let folder = guard.path().join("run");
    started(&folder, &[]);
    unfinished(&folder);
    let weights = folder.join("model.safetensors");
    for (change, from, to) in
        [("model.width=8", "4", "8"), ("model.architecture=resnet9", "\"smallcnn\"", "\"resnet9\"")]
    {
        for accept in [false, true] {
            let message = refused(&folder, &[change], accept);
            let key = change.split('=').next().unwrap();
            let expected = format!("{key}: the checkpoint was made with {from}, now it is {to}");
            assert!(message.contains(&expected) && message.contains("cannot be continued"), "{message}");
            assert!(message.contains(&format!("--init {}", weights.display())), "{message}");
            assert!(!message.contains("--accept-changes"), "{message}");
        }
    }
    let message = refused(&folder, &["data.source=synthetic:count=40,test_count=20,gray=true"], true);
    assert!(message.contains("data.source: ") && message.contains("cannot be continued"), "{message}");
    resumed(&folder, &[], false).0.unwrap();
}

/// For callers that cannot accept changes, such as the demo.
#[test]
fn a_run_of_other_settings_is_left_alone() {
    let guard = tempfile::tempdir().unwrap();
    let folder = guard.path().join("run");
    started(&folder, &[]);
    let heard = Heard::default();
    let again = |changes: &[&str]| {
        with(&heard, |surroundings| start_or_resume(&folder, recipe(changes), surroundings)).map(drop)
    };
    let message = again(&["seed=1"]).unwrap_err().to_string();
    assert!(message.contains("seed: the checkpoint was made with 0, now it is 1"), "{message}");
    assert!(message.contains("--out DIR") && !message.contains("--resume"), "{message}");
    again(&[]).unwrap();
    assert!(heard.all().contains("complete already") && !heard.all().contains("--resume"), "{}", heard.all());
}

#[test]
fn no_event_file_is_empty() {
    let guard = tempfile::tempdir().unwrap();
    let folder = guard.path().join("run");
    started(&folder, &[]);
    unfinished(&folder);
    // Every epoch is trained already: nothing is left to say.
    resumed(&folder, &[], false).0.unwrap();
    let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap());
    let events = names.filter(|entry| entry.file_name().to_string_lossy().contains("tfevents"));
    let sizes: Vec<u64> = events.map(|entry| entry.metadata().unwrap().len()).collect();
    assert!(sizes.len() == 1 && sizes[0] > 0, "{sizes:?}");
}

#[test]
fn a_damaged_status_says_what_to_do() {
    let guard = tempfile::tempdir().unwrap();
    let folder = guard.path().join("run");
    started(&folder, &[]);
    std::fs::write(folder.join("status.json"), "{").unwrap();
    let message = refused(&folder, &[], false);
    assert!(
        message.contains("status.json: this file is damaged") && message.contains("--resume"),
        "{message}"
    );
}

#[test]
fn a_run_without_checkpoints_says_that_it_begins_again() {
    let guard = tempfile::tempdir().unwrap();
    let folder = guard.path().join("run");
    started(&folder, &[]);
    unfinished(&folder);
    let (result, heard) = resumed(&folder, &[], false);
    assert!(result.is_ok() && !heard.contains("begins again"), "{heard}");
    unfinished(&folder);
    for entry in std::fs::read_dir(folder.join("checkpoints")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let (result, heard) = resumed(&folder, &[], false);
    assert!(
        result.is_ok() && heard.contains("no checkpoint to go on from: training begins again"),
        "{heard}"
    );
}
