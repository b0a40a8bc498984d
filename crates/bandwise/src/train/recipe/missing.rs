//! A recipe that is not where it was looked for.

use std::path::Path;

use crate::Error;

/// Where the shipped recipes lie in the source tree.
const FOLDER: &str = "recipes";
/// Names that are shown at most.
const SHOWN: usize = 12;

/// Adds to "no such file" where recipes are, and which there are.
pub(super) fn explain(path: &Path, error: Error) -> Error {
    let Error::Io { source, .. } = &error else { return error };
    if source.kind() != std::io::ErrorKind::NotFound {
        return error;
    }
    let known = std::env::current_dir().ok().and_then(|here| shipped(&here));
    let known = match known {
        None => format!("those of the project are in the folder {FOLDER}/ of its source"),
        Some(mut names) => {
            let wanted = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let likeness = |name: &String| strsim::jaro_winkler(stem(name), wanted);
            names.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)).then_with(|| a.cmp(b)));
            let rest = names.len().saturating_sub(SHOWN);
            names.truncate(SHOWN);
            let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
            format!("the nearest ones are {}{more}", names.join(", "))
        }
    };
    Error::format(path, format!("there is no such recipe; {known}"))
}

/// The recipes below the nearest folder `recipes` of `folder` and those above it, as paths to type.
fn shipped(folder: &Path) -> Option<Vec<String>> {
    let root = folder.ancestors().map(|place| place.join(FOLDER)).find(|place| place.is_dir())?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&root).ok()?.flatten() {
        let inside = std::fs::read_dir(entry.path()).into_iter().flatten().flatten();
        for path in
            inside.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "toml"))
        {
            names.push(path.strip_prefix(folder).unwrap_or(&path).display().to_string());
        }
    }
    (!names.is_empty()).then_some(names)
}

/// The name of a file without folder and extension.
fn stem(name: &str) -> &str {
    Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use crate::train::recipe::Recipe;

    #[test]
    fn a_missing_recipe_names_the_nearest() {
        let path = std::path::Path::new("recipes/cifar10/resnet9-quik.toml");
        let message = Recipe::read(path, &[]).unwrap_err().to_string();
        let nearest = message.split_once("the nearest ones are ").unwrap().1.split(',').next().unwrap();
        assert!(nearest.ends_with("recipes/cifar10/resnet9-quick.toml"), "{message}");
    }
}
