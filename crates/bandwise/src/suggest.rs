//! "Did you mean": the nearest known name to one that was mistyped, by one measure everywhere.

use crate::Error;

/// Names less alike than this are not suggested: a wrong hint is worse than the list.
const ALIKE: f64 = 0.6;

/// The known name that is most like `name`, if any is like it: few letters apart (exchanged neighbors count
/// once; case, `-`, `_` and spaces do not count), or `name` is how it begins.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = plain(name);
    let mut best: Option<(f64, &str)> = None;
    for candidate in known {
        let score = likeness(&wanted, &plain(candidate));
        // The first of equals, so that the order of a list decides.
        if score >= ALIKE && best.is_none_or(|(other, _)| score > other) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// `did you mean …?` with a space behind it, or nothing.
pub fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or(String::new(), |candidate| format!("did you mean `{candidate}`? "))
}

/// The error for a name that is not in the list, with the nearest one that is.
pub fn unknown(what: &str, name: &str, known: &[&str]) -> Error {
    let hint = hint(name, known.iter().copied());
    Error::config(format!("unknown {what} `{name}`; {hint}known: {}", known.join(", ")))
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect()
}

fn likeness(wanted: &str, candidate: &str) -> f64 {
    let distance = strsim::normalized_damerau_levenshtein(wanted, candidate);
    let begins = wanted.len() >= 3 && candidate.starts_with(wanted);
    if begins { distance.max(0.8) } else { distance }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_name_and_other_names_find_none() {
        let known =
            ["sgd", "adam", "adagrad", "adamw", "gaussian_noise", "resnet18", "efficientnet_b0", "vgg16_bn"];
        let find = |name| nearest(name, known);
        assert_eq!(find("sdg"), Some("sgd"));
        assert_eq!(find("Gaussian Noise"), Some("gaussian_noise"));
        assert_eq!(find("gauss"), Some("gaussian_noise"));
        assert_eq!(find("resnet19"), Some("resnet18"));
        for other in ["convnext_tiny", "vit_tiny", "densenet121", "x", ""] {
            assert_eq!(find(other), None, "{other}");
        }
    }

    #[test]
    fn the_message_names_what_is_known() {
        let message = unknown("attack", "pdg", &["fgsm", "pgd"]).to_string();
        assert_eq!(message, "unknown attack `pdg`; did you mean `pgd`? known: fgsm, pgd");
    }
}
