//! Whether a network and images belong together: the same channels, the same classes in the same order.

use crate::data::Dataset;

/// How the classes of a network and of images compare.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Classes {
    /// They belong together; what is remarkable all the same.
    Fit(Vec<String>),
    /// Probably other classes, or in another order.
    Doubtful(String),
    /// More than the network knows.
    TooMany(String),
}

/// Compares the channels of a network and of images that are called `name`.
///
/// # Errors
/// One sentence if they differ.
pub(crate) fn channels(wanted: usize, there: usize, name: &str) -> Result<(), String> {
    if there == wanted {
        return Ok(());
    }
    let remedy = if wanted == 1 { "; the data option gray=true makes one channel" } else { "" };
    Err(format!("the network takes images of {wanted} channels, those of {name} have {there}{remedy}"))
}

/// Compares the classes of a network that knows so many, of these names (none if they are not known), and of images
/// that are called `name`.
///
/// Names that are numbers say nothing beyond the label, and the count of such classes is often read from the largest
/// label: fewer are no contradiction.
pub(crate) fn classes(known: usize, ours: &[String], data: &dyn Dataset, name: &str) -> Classes {
    let (theirs, there) = (data.class_names(), data.num_classes());
    let numbered =
        |names: &[String]| names.iter().enumerate().all(|(index, name)| *name == index.to_string());
    let comparable = !numbered(ours) && !numbered(theirs);
    if there > known {
        return Classes::TooMany(format!(
            "the network knows {known} classes, {name} has {there} ({})",
            few(theirs)
        ));
    }
    let moved = theirs.iter().enumerate().find_map(|(here, name)| {
        let mut places = ours.iter().enumerate().filter(|(_, other)| *other == name);
        let place = places.next().filter(|_| places.next().is_none())?.0;
        (place != here).then_some((name, here, place))
    });
    if let Some((class, here, place)) = moved.filter(|_| comparable) {
        return Classes::Doubtful(format!(
            "the classes are in another order than those the network was trained with: `{class}` is number {here} in \
             {name} and number {place} for the network"
        ));
    }
    if there < known && !numbered(theirs) && !(comparable && ours.starts_with(theirs)) {
        let names = if ours.is_empty() { String::new() } else { format!(" ({})", few(ours)) };
        return Classes::Doubtful(format!(
            "the network knows {known} classes{names}, {name} has {there} ({})",
            few(theirs)
        ));
    }
    let other: Vec<_> = theirs.iter().zip(ours).filter(|(theirs, ours)| theirs != ours).collect();
    Classes::Fit(match other.first() {
        Some((theirs, ours)) if comparable => vec![format!(
            "{} classes have another name in the data than for the network, for example `{theirs}` and `{ours}`",
            other.len()
        )],
        _ => Vec::new(),
    })
}

/// The first few names.
fn few(names: &[String]) -> String {
    let shown = names[..names.len().min(4)].join(", ");
    if names.len() > 4 { shown + ", …" } else { shown }
}
