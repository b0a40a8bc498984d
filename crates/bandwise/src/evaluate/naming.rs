//! What tables and pages call a measurement: the attack with all its parameters, the corruption, the mask, the window.

use serde_json::Value;

use super::identity::Identity;
use super::record::{Record, WAVE_NORM};
use crate::attack::Attack;

/// The splits of the synthetic cue set, in the order of reports, and what they show.
pub const CUES: [(&str, &str); 4] = [
    ("iid", "same distribution"),
    ("shape", "shape only"),
    ("texture", "texture only"),
    ("conflict", "cue conflict: shape decides"),
];

/// The attack of a record with all parameters that a paper must state, without the seed; `clean` without one.
pub fn attack_line(record: &Record) -> String {
    if record.attack == "none" {
        return "clean".into();
    }
    if let Ok(attack) = serde_json::from_value::<Attack>(record.attack_parameters.clone()) {
        return protocol(&attack);
    }
    listed(record)
}

/// An attack as its protocol line.
pub fn protocol(attack: &Attack) -> String {
    attack.to_string()
}

/// The attack of a record whose parameters this version cannot read: its bound, and the parameters one by one.
fn listed(record: &Record) -> String {
    let norm = match record.norm.as_deref() {
        Some("linf") | None => "L∞",
        Some("l2") => "L2",
        Some("l1") => "L1",
        Some(other) => other,
    };
    let mut line = format!("{}, {norm} ε = {}", record.attack, epsilon(record.epsilon));
    if let Some(members) = record.attack_parameters.get("of").and_then(Value::as_array) {
        let members: Vec<&str> = members.iter().filter_map(Value::as_str).collect();
        return format!("worst case of {}, {norm} ε = {}", members.join(", "), epsilon(record.epsilon));
    }
    let known = ["name", "epsilon", "norm"];
    for (name, value) in record.attack_parameters.as_object().into_iter().flatten() {
        if !known.contains(&name.as_str()) && !value.is_null() {
            line += &format!(", {} {}", name.replace('_', " "), plain(value));
        }
    }
    line
}

/// `8/255` where the value is a multiple of half a gray level, else the value.
pub fn epsilon(value: f64) -> String {
    let levels = value * 255.0;
    let halves = (levels * 2.0).round() / 2.0;
    if halves > 0.0 && (levels - halves).abs() < 1e-6 && value < 0.25 {
        return format!("{halves}/255");
    }
    // At most six significant digits, and no zeros behind them.
    let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(value);
    rounded.to_string()
}

/// What was measured, for readers: the images of an accuracy, or metric and images of anything else. Without seeds.
pub fn measurement(record: &Record) -> String {
    let images = images(record);
    match record.metric.as_str() {
        "accuracy" => images,
        metric if images == "clean" => metric.replace('_', " "),
        metric => format!("{}: {}", metric.replace('_', " "), images.trim_start_matches("clean, ")),
    }
}

/// Which images, under which attack, through which mask.
fn images(record: &Record) -> String {
    let mut name = match &record.corruption {
        Some(corruption) => {
            let severity = record.severity.map_or(String::new(), |s| format!(", severity {s}"));
            format!("{}{severity}", corruption.replace('_', " "))
        }
        None => attack_line(record),
    };
    if record.corruption.is_some() && record.attack != "none" {
        name = format!("{name}; {}", attack_line(record));
    }
    for part in extras(record) {
        name = format!("{name}, {part}");
    }
    let split = split(record);
    match CUES.iter().find(|(cue, _)| *cue == split) {
        Some(("iid", _)) => name,
        Some((_, meaning)) => format!("{name} ({meaning})"),
        None if matches!(split.as_str(), "" | "test") => name,
        None => format!("{name} ({split})"),
    }
}

/// The split of a record; the synthetic set's cue splits are also found in the data's specification.
pub fn split(record: &Record) -> String {
    let provenance = &record.provenance;
    let options = provenance.data.strip_prefix("synthetic:").unwrap_or_default();
    let mut named = options.split(',').filter_map(|option| option.trim().strip_prefix("test="));
    match named.find(|split| CUES.iter().any(|(cue, _)| cue == split)) {
        Some(cue) if provenance.split == "test" || provenance.split.is_empty() => cue.to_owned(),
        _ => provenance.split.clone(),
    }
}

/// What else tells the measurement apart, in words.
fn extras(record: &Record) -> Vec<String> {
    let identity = record.identity();
    let text = |key: &str| record.extra.get(key).map(plain);
    let mut parts = Vec::new();
    let is_sector = text("window").is_some_and(|window| window.ends_with("sector"));
    for (key, value) in &record.extra {
        // Outcomes are no part of the identity; nested values and names of models are no part of a name.
        if identity.get(key).is_none() {
            continue;
        }
        let value = plain(value);
        parts.extend(match (key.as_str(), value.as_str()) {
            ("label" | "from" | "to" | "corruptions" | "severities", _) => None,
            ("official_protocol", "true") | ("fourier_mask", "none") | ("clipped", "true") => None,
            ("clipped", _) => Some("not clamped to [0, 1]".into()),
            ("official_protocol", _) => Some("not the published protocol".into()),
            ("mask_space", "input") => None,
            ("mask_space", space) => Some(format!("masks on {space}")),
            ("fourier_mask", "masked") => Some("through the Fourier mask".into()),
            ("fourier_mask", "complement") => Some("through the mask's complement".into()),
            (WAVE_NORM, norm) => Some(format!("wave of L2 norm {norm}")),
            ("window", window) => {
                let [from, to] = ["from", "to"].map(|key| text(key).unwrap_or_default());
                let unit = if is_sector { "°" } else { " cycles per image" };
                Some(format!("{window} {from} to {to}{unit}"))
            }
            (key, value) => Some(format!("{} {value}", key.replace('_', " "))),
        });
    }
    parts
}

/// What tells `identity` apart from others that differ in `keys`, for the name of a row.
pub fn distinction(identity: &Identity, keys: &[String]) -> String {
    let part = |key: &String| {
        let value = identity.get(key).unwrap_or("none").trim_matches('"');
        let short: String = value.chars().take(if key.ends_with("sha256") { 8 } else { 40 }).collect();
        let name = key.strip_prefix("configuration.").unwrap_or(key).replace(['_', '.'], " ");
        format!("{name} {short}")
    };
    keys.iter().map(part).collect::<Vec<_>>().join(", ")
}

/// A JSON value without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => {
            number.as_f64().map_or_else(|| number.to_string(), |v| ((v * 1e6).round() / 1e6).to_string())
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::attack::Pgd;

    #[test]
    fn attacks_that_differ_are_called_differently() {
        let name = |steps: usize| {
            let attack = Attack::Pgd(Pgd { steps, ..Pgd::default() });
            let parameters = serde_json::to_value(&attack).unwrap();
            let epsilon = attack.epsilon().value();
            attack_line(&Record::accuracy(&[true]).under_attack("pgd", epsilon, Some("linf"), parameters))
        };
        assert_ne!(name(10), name(50));
        assert!(name(50).contains("50") && name(50).contains("8/255"), "{}", name(50));
        let foreign = json!({"name": "new", "rounds": 7, "nothing": null});
        let foreign = Record::accuracy(&[true]).under_attack("new", 2.0 / 255.0, Some("l2"), foreign);
        assert_eq!(attack_line(&foreign), "new, L2 ε = 2/255, rounds 7");
    }

    #[test]
    fn epsilons_are_written_as_papers_do() {
        for (value, text) in
            [(8.0 / 255.0, "8/255"), (0.5, "0.5"), (1.0 / 255.0, "1/255"), (0.013_563_7, "0.0135637")]
        {
            assert_eq!(epsilon(value), text);
        }
    }

    #[test]
    fn masks_windows_and_waves_are_named() {
        let with = |metric: &str, extras: &[(&str, Value)]| {
            let mut record = Record { metric: metric.into(), ..Record::accuracy(&[true]) };
            record.extra.extend(extras.iter().map(|(k, v)| ((*k).to_owned(), v.clone())));
            measurement(&record)
        };
        assert_eq!(with("accuracy", &[("fourier_mask", "none".into()), ("label", "a".into())]), "clean");
        assert_eq!(with("accuracy", &[("fourier_mask", "masked".into())]), "clean, through the Fourier mask");
        let window = [("window", "low-pass".into()), ("from", json!(0.0)), ("to", json!(3.0))];
        assert_eq!(with("band_accuracy", &window), "band accuracy: low-pass 0 to 3 cycles per image");
        let sector = [("window", "without sector".into()), ("from", json!(22.5)), ("to", json!(45.0))];
        assert_eq!(with("band_accuracy", &sector), "band accuracy: without sector 22.5 to 45°");
        assert_eq!(
            with("fourier_heat_map_error", &[(WAVE_NORM, json!(4.0))]),
            "fourier heat map error: wave of L2 norm 4"
        );
        assert_eq!(with("gradient_norm", &[("label", "x".into())]), "gradient norm");
    }
}
