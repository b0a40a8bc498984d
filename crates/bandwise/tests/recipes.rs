//! Every recipe of the repository is valid.

use std::path::{Path, PathBuf};

use bandwise::train::recipe::Recipe;
use candle_core::{DType, Device};

fn recipes(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            recipes(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
}

#[test]
fn all_recipes_are_valid_and_name_models_that_exist() {
    let mut found = Vec::new();
    recipes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes"), &mut found);
    assert!(found.len() >= 3);
    for path in found {
        let recipe = Recipe::read(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
        // A narrow copy: wide networks take long to initialise.
        let mut model = recipe.model.clone();
        model.width = Some(4);
        model.build(0, DType::F32, &Device::Cpu).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
}
