//! A journal belongs to one evaluation, grows with it, and is nothing but a journal.

use std::path::Path;
use std::sync::Arc;

use super::engine::run;
use super::engine_tests::{IMAGES, Linear, dataset, header, judge, text};
use super::journal::{Begun, CLEAN, Header, Journal, merge};
use super::record::{Provenance, Record, append_jsonl, write_json};
use super::shard::Shard;
use super::tables;
use crate::attack::{Attack, AttackContext, AttackOverrides, AutoAttack, AutoAttackVersion, Epsilon};
use crate::data::load_all;
use crate::job::Stage;
use crate::{Error, Interrupt, Job};

fn refusal(path: &Path, header: Header) -> String {
    let before = std::fs::read(path).unwrap();
    let message = Journal::open(path, header).unwrap_err().to_string();
    assert_eq!(std::fs::read(path).unwrap(), before, "a refused file was changed: {message}");
    message
}

pub(super) fn attack(name: &str, levels: f64) -> Attack {
    let mut value = serde_json::to_value(name.parse::<Attack>().unwrap()).unwrap();
    value["epsilon"] = format!("{levels}/255").into();
    serde_json::from_value(value).unwrap()
}

/// A small AutoAttack that leaves survivors and breaks images with several of its parts.
pub(super) fn autoattack(levels: f64) -> Attack {
    Attack::AutoAttack(AutoAttack {
        epsilon: Epsilon::of_255(levels),
        version: AutoAttackVersion::Custom,
        attacks: ["square", "apgd-ce", "apgd-t", "fab-t", "square"].map(String::from).to_vec(),
        queries: 150,
        steps: 4,
        ..AutoAttack::default()
    })
}

#[test]
fn another_evaluation_is_refused_by_the_parameter_and_both_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    drop(Journal::open(&path, header(Shard::WHOLE)).unwrap());
    type Change = Box<dyn Fn(&mut Header)>;
    let changes: Vec<(Change, &str)> = vec![
        (Box::new(|h| h.seed = 8), "seed: the journal has 7, the command 8;"),
        (
            Box::new(|h| h.weights_sha256 = "a".repeat(64)),
            "weights_sha256: the journal has w, the command aaaaaaaaaaaa…;",
        ),
        (
            Box::new(|h| h.configuration["normalization"]["mean"][1] = 0.5.into()),
            "configuration.normalization.mean[1]: the journal has 0.25, the command 0.5;",
        ),
        (
            Box::new(|h| h.configuration["normalization"] = serde_json::Value::Null),
            "configuration.normalization: the journal has {\"mean\":[0.1,0.25],\"std\":[1.0,0.2]}, the command none;",
        ),
        (
            Box::new(|h| h.configuration["fpcm"] = 3.into()),
            "configuration.fpcm: the journal has none, the command 3;",
        ),
        (
            Box::new(|h| h.attacks[1] = attack("pgd", 2.0)),
            "attacks[1].epsilon: the journal has 3/255, the command 2/255;",
        ),
        (
            Box::new(|h| {
                h.attacks[1] = Attack::Pgd(crate::attack::Pgd {
                    steps: 20,
                    epsilon: Epsilon::of_255(2.0),
                    ..Default::default()
                })
            }),
            "attacks[1].epsilon: the journal has 3/255, the command 2/255 (and 1 more);",
        ),
        // A step that was left out is compared by what was used.
        (
            Box::new(|h| {
                h.attacks[1] = Attack::Pgd(crate::attack::Pgd {
                    epsilon: Epsilon::of_255(3.0),
                    step_size: Some(Epsilon::of_255(1.0)),
                    ..Default::default()
                })
            }),
            "attacks[1].step_size: the journal has 0.75/255, the command 1/255;",
        ),
        (Box::new(|h| h.attacks[2] = attack("rfgsm", 3.0)), "attacks: the journal has Square"),
        (
            Box::new(|h| {
                h.attacks.remove(2);
                h.images += 1;
            }),
            "under which its 1 image more would be missing",
        ),
        (Box::new(|h| h.images -= 1), "images: the journal has 23, the command 22;"),
        (Box::new(|h| h.data_sha256 = "e".into()), "data_sha256: the journal has d, the command e;"),
        (Box::new(|h| h.precision = "bf16".into()), "precision: the journal has f32, the command bf16;"),
        (
            Box::new(|h| h.shard = Shard { index: 1, count: 2 }),
            "shard: the journal has 1/1, the command 1/2;",
        ),
    ];
    for (change, expected) in changes {
        let mut changed = header(Shard::WHOLE);
        change(&mut changed);
        let message = refusal(&path, changed.clone());
        assert!(message.contains(expected) && message.len() < 300, "{message}");
        // The same holds between journals that are to be merged.
        if changed.shard == Shard::WHOLE {
            let other = folder.path().join("other.jsonl");
            drop(Journal::open(&other, changed).unwrap());
            let message =
                merge(&[path.clone(), other.clone()], &folder.path().join("m")).unwrap_err().to_string();
            assert!(message.contains("journal.jsonl has") && message.contains("other.jsonl "), "{message}");
            std::fs::remove_file(other).unwrap();
        }
    }
    let moved = Header { data: "elsewhere".into(), ..header(Shard::WHOLE) };
    Journal::open(&path, moved).unwrap();
}

#[test]
fn more_images_and_attacks_continue_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let (grown, fresh) = (folder.path().join("grown.jsonl"), folder.path().join("fresh.jsonl"));
    let all = header(Shard::WHOLE);
    let stages = [(9, 1), (9, 2), (15, 2), (IMAGES, 4)];
    let mut judged_before = 0;
    for (images, attacks) in stages {
        let asked = Header { images, attacks: all.attacks[..attacks].to_vec(), ..all.clone() };
        let kept =
            if grown.exists() { Journal::read(&grown).unwrap() } else { Journal::in_memory(asked.clone()) };
        let judged = kept.header().labels().iter().map(|label| kept.known(label, None).0).sum::<usize>();
        assert!(judged >= judged_before);
        judged_before = judged;
        let journal = judge(&grown, asked, 4).unwrap();
        assert_eq!(tables::rows(&journal).unwrap()[0].total as usize, images);
    }
    judge(&fresh, all.clone(), 8).unwrap();
    assert_eq!(text(&grown), text(&fresh));
    // Judgments are kept: with all of them there, a model is not even asked.
    let mut more = all.clone();
    more.attacks.push(attack("fgsm", 1.0));
    let mut journal = Journal::open(&grown, more).unwrap();
    for label in all.labels() {
        assert!(journal.missing(&label).is_empty());
    }
    assert_eq!(journal.header().labels().last().unwrap(), "fgsm 1/255");
    // Killed before the new attack was judged, the journal still reads, with the extension in it.
    drop(Journal::read(&grown).unwrap());
    let model = Linear::new();
    run(&model, &dataset(&model), &mut journal, &Job::default(), None).unwrap();
    assert_eq!(tables::rows(&journal).unwrap().len(), 1 + 5 + 1);
}

#[test]
fn autoattack_is_journalled_part_by_part_with_the_verdicts_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let model = Linear::new();
    let data = dataset(&model);
    let asked = Header { attacks: vec![autoattack(6.0)], ..header(Shard::WHOLE) };
    let label = asked.labels()[0].clone();
    let path = folder.path().join("whole.jsonl");
    let journal = judge(&path, asked.clone(), 3).unwrap();
    let attacked: Vec<usize> = (0..IMAGES).filter(|&i| journal.correct(CLEAN, i) == Some(true)).collect();
    let all = load_all(&data, None).unwrap();
    let ids: Vec<u64> = (0..IMAGES as u64).collect();
    let context = AttackContext::evaluation(7, &ids, 100);
    let whole = asked.attacks[0].run(&model, &all.images, &all.labels, &context).unwrap();
    let mut by = std::collections::BTreeSet::new();
    for image in attacked {
        let (ours, theirs) = (journal.get(&label, image).unwrap(), &whole.outcomes[image]);
        assert_eq!(ours.correct, !theirs.broken, "image {image}");
        assert_eq!(ours.margin, theirs.margin, "image {image}");
        assert_eq!((ours.gradients, ours.restart), (theirs.gradients, theirs.restart), "image {image}");
        // The whole looks at the clean image once more, to begin with.
        assert_eq!(ours.queries + 1, theirs.queries, "image {image}");
        let name = ours.by.as_deref().map(|by| by.trim_end_matches("#2").to_string());
        assert_eq!(name, theirs.by, "image {image}");
        by.insert(ours.by);
    }
    assert!(
        by.len() > 2 && by.contains(&None),
        "too few parts broke something: the test shows nothing ({by:?})"
    );
    assert!(text(&path).contains("\"part\":\"square#2\""));
    // Shares, and other batches, give the same bytes.
    let paths: Vec<_> = (1..=3)
        .map(|index| {
            let path = folder.path().join(format!("{index}.jsonl"));
            judge(&path, Header { shard: Shard { index, count: 3 }, ..asked.clone() }, 4 * index).unwrap();
            path
        })
        .collect();
    let merged = folder.path().join("merged.jsonl");
    merge(&paths, &merged).unwrap();
    assert_eq!(text(&merged), text(&path));
}

#[test]
fn what_a_stop_cuts_short_is_tried_in_smaller_waves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let model = Linear::new();
    let asked = Header { attacks: vec![autoattack(6.0)], ..header(Shard::WHOLE) };
    let label = asked.labels()[0].clone();
    let (mut waves, mut stops) = (Vec::new(), 0);
    loop {
        // Every process is stopped in its second pass of an attack on more than two images, or after some waves.
        let interrupt = Interrupt::default();
        let raised = interrupt.clone();
        let progress = Arc::new(move |stage: &Stage<'_>| {
            let images = stage.message.split(' ').nth(2).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
            if stage.message.contains("pass 2 ") && images > 2 {
                raised.raise();
            }
        });
        let mut journal = Journal::open(&path, asked.clone()).unwrap();
        waves.extend(journal.unfinished().map(|begun| (begun.part.clone().unwrap(), begun.images)));
        let job = Job { batch_size: 40, interrupt, progress, ..Job::default() };
        match run(&model, &dataset(&model), &mut journal, &job, None) {
            Ok(_) => break,
            Err(Error::Interrupted(_)) => stops += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(stops < 60, "no end after {waves:?}");
    }
    let first: Vec<usize> = waves.iter().filter(|(part, _)| part == "square").map(|(_, n)| *n).collect();
    assert!(first.len() >= 3 && first[1] <= first[0].div_ceil(2), "{waves:?}");
    let undisturbed = folder.path().join("undisturbed.jsonl");
    judge(&undisturbed, asked, 8).unwrap();
    assert_eq!(text(&path), text(&undisturbed));
    assert!(!text(&path).contains("begun"), "{label}");
}

#[test]
fn files_that_are_no_journals_are_left_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let records = [Record::accuracy(&[true, false])];
    append_jsonl(&folder.path().join("lines"), &records).unwrap();
    write_json(&folder.path().join("json"), &records).unwrap();
    let json = text(&folder.path().join("json"));
    let in_one_line = json.lines().map(str::trim).collect::<String>();
    let old = "{\"kind\":\"journal\",\"model\":\"resnet20\",\"images\":3}\n";
    let cases: [(&[u8], &str); 10] = [
        (b"precious", "holds other text, beginning with `precious`"),
        (b"precious\n", "holds other text, beginning with `precious"),
        (b"{\"kind\":\"image\",\"image\":3}\n", "judgments without the first line"),
        (in_one_line.as_bytes(), "holds 1 result records"),
        (json.as_bytes(), "holds 1 result records"),
        (&std::fs::read(folder.path().join("lines")).unwrap(), "holds 1 result records"),
        (b"[1, 2]", "holds other JSON"),
        (b"\xff\xfe\x00", "holds binary data"),
        (b"\x1b[31mred", "`\\u{1b}[31mred`"),
        (old.as_bytes(), "begun by an earlier version"),
    ];
    for (bytes, expected) in cases {
        std::fs::write(&path, bytes).unwrap();
        let message = refusal(&path, header(Shard::WHOLE));
        assert!(message.contains(expected), "{message}");
        assert!(Journal::read(&path).unwrap_err().to_string().contains(expected));
        let good = folder.path().join("good");
        judge(&good, header(Shard::WHOLE), 8).unwrap();
        assert!(merge(&[good], &path).unwrap_err().to_string().contains(expected));
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
    // An empty file, and a header that was never finished, are where a journal may begin.
    for bytes in ["", "{\"ki", "{\"kind\":\"journal\",\"format\":2,\"mod"] {
        std::fs::write(&path, bytes).unwrap();
        Journal::open(&path, header(Shard::WHOLE)).unwrap();
        Journal::read(&path).unwrap();
    }
}

#[test]
fn damaged_journals_are_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    judge(&path, header(Shard::WHOLE), 8).unwrap();
    let good = text(&path);
    let flipped = good.replacen("\"correct\":true", "\"correct\":false", 1);
    let at = 1 + flipped.lines().zip(good.lines()).position(|(one, other)| one != other).unwrap();
    // A judgment of another evaluation, whole in itself.
    let other = folder.path().join("other.jsonl");
    judge(&other, Header { seed: 8, ..header(Shard::WHOLE) }, 8).unwrap();
    let foreign = text(&other);
    let differs =
        foreign.lines().skip(1).find(|line| line.contains("square") && !good.contains(line)).unwrap();
    let header_changed = good.replacen("\"seed\":7", "\"seed\":9", 1);
    for (damage, expected) in [
        (flipped, format!("line {at} was changed after it was written")),
        (header_changed, "line 1 was changed after it was written".into()),
        (format!("{good}{differs}\n"), "once more, differently".into()),
        (good.replacen("\"image\":3,", "\"image\":{},", 1), "was changed".into()),
        (format!("{good}{{broken\n"), "is not valid JSON".into()),
        (
            format!("{good}{}", good.lines().next().unwrap().to_string() + "\n"),
            "begins a second journal".into(),
        ),
    ] {
        std::fs::write(&path, damage).unwrap();
        let message = Journal::read(&path).unwrap_err().to_string();
        assert!(message.contains(&expected), "{message}");
        refusal(&path, header(Shard::WHOLE));
    }
}

#[test]
fn one_evaluation_writes_a_journal_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let first = Journal::open(&path, header(Shard::WHOLE)).unwrap();
    let message = Journal::open(&path, header(Shard::WHOLE)).unwrap_err().to_string();
    assert!(message.contains(&format!("written by process {}", std::process::id())), "{message}");
    assert!(Journal::read(&path).is_ok(), "reading needs no lock");
    drop(first);
    Journal::open(&path, header(Shard::WHOLE)).unwrap();
}

#[test]
fn shares_without_images_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let model = Linear::new();
    for (images, index, count, expected) in
        [(IMAGES, 99, 99, "share 99/99 of 23 images has no image"), (0, 1, 1, "no images to evaluate")]
    {
        let empty = Header { images, ..header(Shard { index, count }) };
        let message = Journal::open(&path, empty.clone()).unwrap_err().to_string();
        assert!(message.contains(expected) && !path.exists(), "{message}");
        let mut journal = Journal::in_memory(empty);
        assert!(run(&model, &dataset(&model), &mut journal, &Job::default(), None).is_err());
    }
}

#[test]
fn merging_replaces_no_other_evaluation() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = ["one.jsonl", "other.jsonl"].map(|name| folder.path().join(name));
    judge(&one, header(Shard::WHOLE), 20).unwrap();
    judge(&other, Header { seed: 8, ..header(Shard::WHOLE) }, 20).unwrap();
    let before = text(&other);
    let refused = merge(std::slice::from_ref(&one), &other).unwrap_err().to_string();
    assert!(refused.contains("seed"), "{refused}");
    assert_eq!(text(&other), before);
}

/// However the work was divided, the number is that of the images.
#[test]
fn an_attack_written_in_another_way_continues_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let given = |epsilon: &str, step: Option<&str>| {
        let step_size = step.map(|step| step.parse().unwrap());
        let given = AttackOverrides {
            epsilon: Some(epsilon.parse().unwrap()),
            step_size,
            ..AttackOverrides::default()
        };
        given.attacks(&["pgd"]).unwrap().remove(0)
    };
    let asked = |attacks: Vec<Attack>| Header { attacks, ..header(Shard::WHOLE) };
    let all = vec![given("1/255", None), attack("fgsm", 1.0)];
    drop(judge(&path, asked(all.clone()), 8).unwrap());
    let before = text(&path);
    for other in [
        vec![given("1/255", Some("0.25/255")), attack("fgsm", 1.0)],
        vec![attack("fgsm", 1.0), given("0.00392156862745098", None)],
        vec![given("0.00392156862745098", Some("0.000980392156862745")), attack("fgsm", 1.0)],
    ] {
        let journal = Journal::open(&path, asked(other)).unwrap();
        assert_eq!(journal.header().attacks, all, "the journal's words stay");
        assert_eq!(text(&path), before);
    }
    let message = refusal(&path, asked(vec![given("1/255", Some("0.3/255")), attack("fgsm", 1.0)]));
    assert!(message.contains("attacks[0].step_size"), "{message}");
}

#[test]
fn fewer_attacks_run_and_show_these_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let asked = |attacks: &[Attack]| Header { attacks: attacks.to_vec(), ..header(Shard::WHOLE) };
    let (fgsm, rfgsm) = (attack("fgsm", 3.0), attack("rfgsm", 3.0));
    drop(Journal::open(&path, asked(&[rfgsm.clone(), fgsm.clone()])).unwrap());
    // The other attack is neither run nor shown, and the journal still asks for it.
    let journal = judge(&path, asked(std::slice::from_ref(&fgsm)), 8).unwrap();
    let rows = tables::rows(&journal).unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row.attack.as_str()).collect();
    assert_eq!(names, [CLEAN, "fgsm 3/255"]);
    assert!(!journal.missing("rfgsm 3/255").is_empty());
    drop(journal);
    assert_eq!(Journal::read(&path).unwrap().header().attacks.len(), 2);
    let journal = judge(&path, asked(&[]), 8).unwrap();
    assert_eq!(tables::rows(&journal).unwrap().len(), 1);
    drop(journal);
    let journal = judge(&path, asked(&[fgsm, rfgsm]), 8).unwrap();
    assert_eq!(tables::rows(&journal).unwrap().len(), 4);
}

#[test]
fn a_journal_names_the_algorithms_of_all_machines_that_judged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let on = |algorithm: &str, images| Header { algorithm: algorithm.into(), images, ..header(Shard::WHOLE) };
    judge(&path, on("winograd-f4x3, direct", 3), 8).unwrap();
    // Another machine that only shows the journal has computed nothing of it.
    assert_eq!(judge(&path, on("amx-bf16x3", 3), 8).unwrap().header().algorithm, "winograd-f4x3, direct");
    judge(&path, on("amx-bf16x3, direct", 4), 8).unwrap();
    let header = Journal::read(&path).unwrap().header().clone();
    assert_eq!(header.algorithm, "winograd-f4x3, direct, amx-bf16x3");
    let [first, second] = [1, 2].map(|index| folder.path().join(format!("{index}.jsonl")));
    let share = |index, algorithm| Header { shard: Shard { index, count: 2 }, ..on(algorithm, 4) };
    judge(&first, share(1, "direct"), 8).unwrap();
    judge(&second, share(2, "depthwise"), 8).unwrap();
    let whole = merge(&[first, second], &folder.path().join("whole.jsonl")).unwrap();
    assert_eq!(tables::provenance(whole.header()).algorithm, "direct, depthwise");
    // A header of before has none.
    let old = serde_json::to_value(Header { algorithm: String::new(), ..header }).unwrap();
    assert!(old.get("algorithm").is_none());
    assert_eq!(serde_json::from_value::<Header>(old).unwrap().algorithm, "");
}

#[test]
fn headers_hold_what_runs() {
    let provenance = Provenance {
        configuration: serde_json::json!({ "model": { "classes": 4 } }),
        ..Provenance::default()
    };
    let attacks = ["apgd-t", "fgsm", "apgd-t"].map(|name| name.parse::<Attack>().unwrap()).to_vec();
    let made = Header::new(&provenance, attacks.clone(), 5, 0, Shard::WHOLE);
    assert_eq!(made.attacks.len(), 2);
    assert!(made.attacks[0].protocol().contains("3 targets"), "{}", made.attacks[0]);
    // A journal from before, which has as many as were asked for, goes on.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let before = Header { attacks: attacks[..2].to_vec(), ..made.clone() };
    drop(Journal::open(&path, before).unwrap());
    Journal::open(&path, made).unwrap();
}

#[test]
fn a_begun_wave_is_known_until_something_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let mut journal = Journal::open(&path, header(Shard::WHOLE)).unwrap();
    journal.begin("fgsm 3/255", None, 12).unwrap();
    drop(journal);
    let expected = Begun { attack: "fgsm 3/255".into(), part: None, images: 12 };
    assert_eq!(Journal::read(&path).unwrap().unfinished(), Some(&expected));
    assert_eq!(judge(&path, header(Shard::WHOLE), 8).unwrap().unfinished(), None);
    assert_eq!(Journal::read(&path).unwrap().unfinished(), None);
}
