//! Tells tests whether there are reference values (`cfg(golden)`); where there are none, the tests that need them are
//! ignored, and shown as ignored.
//!
//! `BANDWISE_GOLDEN` names their folder, by default `../shared/golden` beside the workspace. A folder that was asked for
//! and is not there makes those tests fail; so does the default one with `BANDWISE_GOLDEN=required`.

use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(golden)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BANDWISE_GOLDEN");
    let asked_for = std::env::var_os("BANDWISE_GOLDEN").is_some_and(|value| !value.is_empty());
    if asked_for || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden").is_dir() {
        println!("cargo::rustc-cfg=golden");
    }
}
