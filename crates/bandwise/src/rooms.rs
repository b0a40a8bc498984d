//! Rooms import rooms below them only: read from the sources, so that no circle comes back unseen.

use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up, as the crate's front page lists them.
const ROOMS: [&str; 13] = [
    "formats",
    "spectral",
    "plot",
    "data",
    "corruption",
    "nn",
    "attack",
    "method",
    "network",
    "evaluate",
    "analyze",
    "report",
    "train",
];

/// Under all rooms.
const FOUNDATIONS: [&str; 10] =
    ["calendar", "differences", "error", "files", "job", "lock", "outputs", "random", "suggest", "wording"];

/// What tests of all rooms share, and the front page.
const ABOVE: [&str; 4] = ["fuzz", "golden", "lib", "rooms"];

/// How high a module stands; `None` if nobody has said.
fn height(module: &str) -> Option<usize> {
    if FOUNDATIONS.contains(&module) {
        return Some(0);
    }
    ROOMS.iter().position(|room| *room == module).map(|place| place + 1)
}

/// The crate's modules that a source text names by `crate::NAME` or `crate::{NAME, …}`.
fn named(source: &str) -> Vec<String> {
    let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut names = Vec::new();
    for (place, _) in code.match_indices("crate::") {
        let before = code[..place].chars().next_back();
        if before.is_some_and(|c| c == '$' || c == '_' || c.is_alphanumeric()) {
            continue;
        }
        let path = &code[place + "crate::".len()..];
        match path.strip_prefix('{') {
            Some(list) => names.extend(heads(list)),
            None => names.push(head(path)),
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The first name of each path in a list of imports.
fn heads(list: &str) -> Vec<String> {
    let (mut depth, mut start, mut heads) = (0, 0, Vec::new());
    for (place, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                heads.push(head(list[start..place].trim()));
                start = place + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads
}

fn head(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// All source files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let below = |path: PathBuf| if path.is_dir() { sources(&path) } else { vec![path] };
    paths.into_iter().flat_map(below).filter(|path| path.extension().is_some_and(|e| e == "rs")).collect()
}

#[test]
fn rooms_import_only_what_lies_below() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut upward = Vec::new();
    for path in sources(&root) {
        let place = path.strip_prefix(&root).unwrap().with_extension("");
        let module = place.iter().next().unwrap().to_str().unwrap();
        if ABOVE.contains(&module) {
            continue;
        }
        let own = height(module).unwrap_or_else(|| panic!("{module}: which rooms lie below it?"));
        for name in named(&fs::read_to_string(&path).unwrap()) {
            if height(&name).is_some_and(|other| other > own) {
                upward.push(format!("{} imports {name}", place.display()));
            }
        }
    }
    assert!(upward.is_empty(), "imports of rooms above:\n{}", upward.join("\n"));
}

#[test]
fn imports_are_found_in_every_form() {
    let source = "// use crate::train::run;\nuse crate::attack::{self, Attack};\nuse crate::{\n    Error, data::{npy, \
                  Split}, plot,\n};\nlet a = crate::nn::loss::of(1); $crate::golden; my_crate::method;";
    assert_eq!(named(source), ["attack", "Error", "data", "plot", "nn"]);
    assert!(height("plot") < height("data") && height("error") < height("formats"));
}
