//! Configurations against each other: what a number of several seeds is, and when a difference is more than chance.
//!
//! Seeds of one configuration are replicates: they are shown as their mean with Student's 95 % interval and are never
//! tested against each other. Between configurations the test is
//!
//! * McNemar's, where each has one number on the same images;
//! * Welch's, where each has at least two seeds;
//! * otherwise none: the difference then counts as significant only if the 95 % intervals do not overlap.

use std::cmp::Ordering;

use super::record::Record;
use super::statistics::{MeanTest, PairedTest, mcnemar, mean_interval, welch};

/// A difference counts as significant below this p-value.
pub const SIGNIFICANT: f64 = 0.05;

/// How the best of a row is found, for captions.
pub const RULE: &str = "Bold: better than every other configuration of the row with p < 0.05 (McNemar's test on the same \
    images; Welch's t-test between seeds), or, where neither test applies, with a 95 % interval that overlaps no other.";

/// The numbers of one configuration for one measurement: one, or one for each seed.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Records that differ in nothing but seeds (and weights, where these follow from the seed).
    pub records: Vec<Record>,
}

/// The outcome of a test between two configurations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Comparison {
    /// On the same images.
    Paired(PairedTest),
    /// Between seeds.
    Means(MeanTest),
}

impl Comparison {
    /// Two-sided p-value.
    pub fn p(&self) -> f64 {
        match self {
            Self::Paired(test) => test.p_mid,
            Self::Means(test) => test.p,
        }
    }

    /// Difference, first minus second, and its 95 % interval.
    pub fn difference(&self) -> (f64, [f64; 2]) {
        match self {
            Self::Paired(test) => (test.difference, test.difference_ci95),
            Self::Means(test) => (test.difference, test.difference_ci95),
        }
    }
}

impl Sample {
    /// The number, or the mean over seeds; NaN without any.
    pub fn value(&self) -> f64 {
        self.values().iter().sum::<f64>() / self.records.len() as f64
    }

    /// 95 % interval: the record's own of one number, Student's over seeds, which ends where shares of images end.
    pub fn interval(&self) -> Option<[f64; 2]> {
        match self.records.as_slice() {
            [one] => one.ci95,
            [first, ..] => mean_interval(&self.values()).map(|mean| match first.is_share() {
                true => [mean.low, mean.high].map(|bound| bound.clamp(0.0, 1.0)),
                false => [mean.low, mean.high],
            }),
            [] => None,
        }
    }

    /// How many seeds were measured.
    pub fn seeds(&self) -> usize {
        self.records.len()
    }

    /// Whether the number is a mean over seeds.
    pub fn is_mean(&self) -> bool {
        self.records.len() > 1
    }

    /// What was warned of while measuring.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.records.iter().flat_map(warnings_of).collect();
        warnings.sort();
        warnings.dedup();
        warnings
    }

    fn values(&self) -> Vec<f64> {
        self.records.iter().map(|record| record.value).collect()
    }

    /// Tests this configuration against another; `None` where no test applies.
    pub fn compare(&self, other: &Self) -> Option<Comparison> {
        match (self.records.as_slice(), other.records.as_slice()) {
            ([first], [second]) => {
                let same = same_images(first, second);
                let flags = same.then(|| Some((first.flags()?, second.flags()?))).flatten()?;
                mcnemar(&flags.0, &flags.1).ok().map(Comparison::Paired)
            }
            ([_, _, ..], [_, _, ..]) => welch(&self.values(), &other.values()).map(Comparison::Means),
            _ => None,
        }
    }

    /// Whether this configuration's number is larger, and by more than chance.
    pub fn beats(&self, other: &Self) -> bool {
        // A number that is no number beats nobody.
        if self.value().partial_cmp(&other.value()) != Some(Ordering::Greater) {
            return false;
        }
        match (self.compare(other), self.interval(), other.interval()) {
            (Some(test), ..) => test.p() < SIGNIFICANT,
            (None, Some([low, _]), Some([_, high])) => low > high,
            _ => false,
        }
    }
}

/// What was warned of while a record was measured.
pub fn warnings_of(record: &Record) -> Vec<String> {
    let mut warnings = record.warnings.clone();
    if record.extra.get("empty_complement") == Some(&true.into()) {
        warnings.push("the mask keeps every frequency: its complement leaves images of one color".into());
    }
    warnings
}

/// The place of the configuration that beats every other one; `None` where none does, or there is no other.
pub fn winner(samples: &[Option<Sample>]) -> Option<usize> {
    let present = || samples.iter().enumerate().filter_map(|(place, s)| Some((place, s.as_ref()?)));
    if present().count() < 2 {
        return None;
    }
    present()
        .find(|(place, s)| present().all(|(other, rival)| other == *place || s.beats(rival)))
        .map(|(place, _)| place)
}

fn same_images(first: &Record, second: &Record) -> bool {
    !first.provenance.data_sha256.is_empty() && first.provenance.data_sha256 == second.provenance.data_sha256
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_of_shares_stay_between_0_and_100_percent() {
        let sample = |metric: &str, values: [f64; 2]| Sample {
            records: values
                .map(|value| Record {
                    value,
                    metric: metric.into(),
                    correct: None,
                    ..Record::accuracy(&[true])
                })
                .to_vec(),
        };
        assert_eq!(sample("accuracy", [0.9, 1.0]).interval().unwrap()[1], 1.0);
        assert_eq!(sample("accuracy", [0.0, 0.1]).interval().unwrap()[0], 0.0);
        assert!(sample("gradient_norm", [0.9, 1.0]).interval().unwrap()[1] > 1.0);
    }

    fn one(right: usize, total: usize) -> Sample {
        let flags: Vec<bool> = (0..total).map(|i| i < right).collect();
        let mut record = Record::accuracy(&flags);
        record.provenance.data_sha256 = "same".into();
        Sample { records: vec![record] }
    }

    fn seeds(values: &[f64]) -> Sample {
        Sample { records: values.iter().map(|v| Record::scalar("accuracy", *v)).collect() }
    }

    #[test]
    fn only_a_significant_lead_wins() {
        // 2 images of 200 more: p = 0.5. 40 more: p < 1e-6.
        assert_eq!(winner(&[Some(one(100, 200)), Some(one(102, 200))]), None);
        assert_eq!(winner(&[Some(one(100, 200)), Some(one(140, 200))]), Some(1));
        assert_eq!(winner(&[Some(one(100, 200)), None]), None);
        // The lead must hold against each.
        assert_eq!(winner(&[Some(one(100, 200)), Some(one(139, 200)), Some(one(140, 200))]), None);
    }

    #[test]
    fn seeds_are_tested_as_means() {
        let (a, b) = (seeds(&[0.5, 0.51, 0.49]), seeds(&[0.6, 0.61, 0.59]));
        assert!(matches!(b.compare(&a), Some(Comparison::Means(test)) if test.p < 0.01));
        assert_eq!(winner(&[Some(a.clone()), Some(b)]), Some(1));
        assert_eq!(winner(&[Some(a.clone()), Some(seeds(&[0.5, 0.53, 0.51]))]), None);
        assert!((a.value() - 0.5).abs() < 1e-12);
        let [low, high] = a.interval().unwrap();
        assert!((high - 0.5 - 4.302_652_7 * 0.01 / 3f64.sqrt()).abs() < 1e-6 && low < 0.5);
    }

    #[test]
    fn without_a_test_intervals_must_not_overlap() {
        // One run against three seeds.
        let three = seeds(&[0.50, 0.51, 0.49]);
        assert!(one(190, 200).beats(&three) && !one(110, 200).beats(&three) && !three.beats(&one(190, 200)));
    }
}
