//! From TOML text and `key=value` overrides to a table, with complaints that help.

use super::Recipe;
use crate::{Error, Result, suggest};

/// Writes out the sections that the recipe leaves at their default and an override reaches into, so
/// that `optimizer.momentum=0.8` changes the default optimizer. An override that names another one
/// (`optimizer.name="adam"`) starts from nothing instead.
pub(super) fn fill_default_sections(table: &mut toml::Table, text: &str, overrides: &[String]) {
    let whole = toml::from_str::<Recipe>(text).ok().and_then(|recipe| toml::Table::try_from(recipe).ok());
    let Some(mut defaults) = whole else { return };
    for (section, _) in overrides.iter().filter_map(|change| change.split_once('=')?.0.trim().split_once('.'))
    {
        let renamed = format!("{section}.name");
        let is_renamed =
            |change: &String| change.split_once('=').is_some_and(|(key, _)| key.trim() == renamed);
        if !table.contains_key(section) && !overrides.iter().any(is_renamed) {
            table.extend(defaults.remove(section).map(|value| (section.to_owned(), value)));
        }
    }
}

/// Sets one dotted key to a TOML value; what is not TOML is taken as text.
pub(super) fn apply(table: &mut toml::Table, change: &str) -> Result<()> {
    let (key, text) = change.split_once('=').ok_or_else(|| {
        Error::config(format!("--set {change}: expected key=value, for example optimizer.momentum=0.8"))
    })?;
    let value = toml::from_str::<toml::Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.to_string()));
    let (parents, last) = key.trim().rsplit_once('.').unwrap_or(("", key.trim()));
    let mut place = table;
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        place = place
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(|| Error::config(format!("--set {change}: {part} is a value, not a table")))?;
    }
    place.insert(last.to_string(), value);
    Ok(())
}

/// Adds the nearest valid key to a complaint about an unknown one.
pub(super) fn explain(error: toml::de::Error) -> Error {
    let message = error.to_string();
    let quoted =
        |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_string).collect() };
    let hint = message
        .split_once("unknown field ")
        .or_else(|| message.split_once("unknown variant "))
        .and_then(|(_, rest)| {
            let names = quoted(rest);
            let (wrong, valid) = names.split_first()?;
            let near = suggest::nearest(wrong, valid.iter().map(String::as_str))?;
            Some(format!("\ndid you mean `{near}`?"))
        });
    Error::config(format!("{}{}", message.trim_end(), hint.unwrap_or_default()))
}
