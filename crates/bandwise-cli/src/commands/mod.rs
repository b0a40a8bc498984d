//! One file per command.

pub mod analyze;
pub mod convert;
pub mod corrupt;
pub mod data;
pub mod demo;
pub mod evaluate;
pub mod mask;
pub mod merge;
pub mod models;
pub mod report;
pub mod table;
pub mod train;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
    }

    /// What two commands share lies below them.
    #[test]
    fn no_command_imports_another() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for path in sources(&root) {
            let place = path.strip_prefix(&root).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            let own = [Path::new("main.rs"), Path::new("commands/mod.rs")].contains(&place);
            assert!(own || !text.contains("commands::"), "{} imports a command", place.display());
            // Files in a command's own folder may look up to it.
            if place.parent() == Some(Path::new("commands")) && !own {
                assert!(!text.contains("super::"), "{} imports another command", place.display());
            }
        }
    }
}
