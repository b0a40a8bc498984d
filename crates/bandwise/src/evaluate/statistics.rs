//! How sure a number is: intervals for accuracies and for means over seeds, and paired tests between
//! two models on the same images.

use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, ContinuousCDF, Discrete, DiscreteCDF, Normal, StudentsT};

use crate::{Error, Result};

/// The confidence of every interval that Bandwise reports.
pub const CONFIDENCE: f64 = 0.95;

/// The two-sided 95 % Wilson score interval of a proportion, `[low, high]` in `[0, 1]`.
///
/// It stays inside `[0, 1]` and keeps its coverage for small samples and accuracies near 0 or 1,
/// where the textbook interval fails (Wilson 1927). Without any sample it is `[0, 1]`.
pub fn wilson_interval(correct: u64, total: u64) -> [f64; 2] {
    wilson_interval_at(correct, total, CONFIDENCE)
}

/// [`wilson_interval`] at another confidence, for example `0.99`.
pub fn wilson_interval_at(correct: u64, total: u64, confidence: f64) -> [f64; 2] {
    if total == 0 {
        return [0.0, 1.0];
    }
    let correct = correct.min(total);
    let z = normal_quantile(0.5 + confidence.clamp(0.0, 0.999_999) / 2.0);
    let n = total as f64;
    let proportion = correct as f64 / n;
    let denominator = 1.0 + z * z / n;
    let center = (proportion + z * z / (2.0 * n)) / denominator;
    let half = z / denominator * (proportion * (1.0 - proportion) / n + z * z / (4.0 * n * n)).sqrt();
    // The bounds are exactly 0 and 1 at the extremes; rounding must not move them.
    let low = if correct == 0 { 0.0 } else { (center - half).max(0.0) };
    let high = if correct == total { 1.0 } else { (center + half).min(1.0) };
    [low, high]
}

/// A mean over repetitions (usually seeds) with its 95 % Student interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanInterval {
    /// The arithmetic mean.
    pub mean: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
    /// The sample standard deviation (divided by `n - 1`); 0 for a single value.
    pub standard_deviation: f64,
    /// The number of repetitions.
    pub count: usize,
}

/// Mean ± t-interval over repetitions. `None` without values; one value alone says nothing about its
/// spread, so its interval is infinite.
pub fn mean_interval(values: &[f64]) -> Option<MeanInterval> {
    let count = values.len();
    if count == 0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / count as f64;
    if count == 1 {
        let (low, high) = (f64::NEG_INFINITY, f64::INFINITY);
        return Some(MeanInterval { mean, low, high, standard_deviation: 0.0, count });
    }
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    let standard_deviation = (squares / (count - 1) as f64).sqrt();
    let half = student_quantile(0.5 + CONFIDENCE / 2.0, (count - 1) as f64) * standard_deviation
        / (count as f64).sqrt();
    Some(MeanInterval { mean, low: mean - half, high: mean + half, standard_deviation, count })
}

/// The outcome of McNemar's test: two models judged on the same images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedTest {
    /// Images that only the first model gets right.
    pub only_first: u64,
    /// Images that only the second model gets right.
    pub only_second: u64,
    /// All images compared.
    pub total: u64,
    /// Accuracy of the first minus accuracy of the second.
    pub difference: f64,
    /// 95 % interval of the difference (Agresti and Min 2005: Wald with half a count added to each
    /// cell).
    pub difference_ci95: [f64; 2],
    /// Two-sided p-value of the exact binomial test: conservative.
    pub p_exact: f64,
    /// Two-sided mid-p value (Fagerland, Lydersen and Laake 2013: the recommended one).
    pub p_mid: f64,
}

/// McNemar's paired test between two models, from per-image correctness in the same order.
///
/// # Errors
/// When the two lists differ in length: they then do not describe the same images.
pub fn mcnemar(first: &[bool], second: &[bool]) -> Result<PairedTest> {
    if first.len() != second.len() {
        return Err(Error::config(format!(
            "a paired test needs both models on the same images, but one has {} and the other {}",
            first.len(),
            second.len()
        )));
    }
    let count = |f: fn(bool, bool) -> bool| first.iter().zip(second).filter(|(a, b)| f(**a, **b)).count();
    Ok(mcnemar_counts(count(|a, b| a && !b) as u64, count(|a, b| !a && b) as u64, first.len() as u64))
}

/// [`mcnemar`] from the counts of images that only one of the models gets right.
pub fn mcnemar_counts(only_first: u64, only_second: u64, total: u64) -> PairedTest {
    let discordant = only_first + only_second;
    let (p_exact, p_mid) = match Binomial::new(0.5, discordant) {
        Ok(binomial) if discordant > 0 => {
            let smaller = only_first.min(only_second);
            let tail = 2.0 * binomial.cdf(smaller);
            (tail.min(1.0), (tail - binomial.pmf(smaller)).min(1.0))
        }
        _ => (1.0, 1.0),
    };
    let (b, c) = (only_first as f64 + 0.5, only_second as f64 + 0.5);
    let n = total.max(discordant) as f64 + 2.0;
    let shifted = (b - c) / n;
    let half =
        normal_quantile(0.5 + CONFIDENCE / 2.0) * ((b + c) - (b - c) * (b - c) / n).max(0.0).sqrt() / n;
    let difference = if total == 0 { 0.0 } else { (only_first as f64 - only_second as f64) / total as f64 };
    PairedTest {
        only_first,
        only_second,
        total,
        difference,
        difference_ci95: [(shifted - half).max(-1.0), (shifted + half).min(1.0)],
        p_exact,
        p_mid,
    }
}

/// Two means over repetitions compared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanTest {
    /// Mean of the first minus mean of the second.
    pub difference: f64,
    /// 95 % interval of the difference.
    pub difference_ci95: [f64; 2],
    /// Two-sided p-value.
    pub p: f64,
}

/// Welch's t-test between repetitions of two configurations (variances may differ). `None` with fewer than two
/// repetitions on a side, or without any spread, which a t-test cannot judge.
pub fn welch(first: &[f64], second: &[f64]) -> Option<MeanTest> {
    let [a, b] = [mean_interval(first)?, mean_interval(second)?];
    let [va, vb] = [a, b].map(|m| m.standard_deviation.powi(2) / m.count as f64);
    let error = (va + vb).sqrt();
    if a.count < 2 || b.count < 2 || error.is_nan() || error <= 0.0 {
        return None;
    }
    let spread = va * va / (a.count - 1) as f64 + vb * vb / (b.count - 1) as f64;
    let student = StudentsT::new(0.0, 1.0, (va + vb).powi(2) / spread).ok()?;
    let difference = a.mean - b.mean;
    let half = student.inverse_cdf(0.5 + CONFIDENCE / 2.0) * error;
    Some(MeanTest {
        difference,
        difference_ci95: [difference - half, difference + half],
        p: (2.0 * student.cdf(-(difference / error).abs())).min(1.0),
    })
}

fn normal_quantile(probability: f64) -> f64 {
    Normal::standard().inverse_cdf(probability)
}

fn student_quantile(probability: f64, freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).expect("positive degrees of freedom").inverse_cdf(probability)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() <= tolerance, "{a} is not within {tolerance} of {b}");
    }

    #[test]
    fn wilson_agrees_with_published_values() {
        // Newcombe 1998, Statistics in Medicine 17, table I, "score" rows.
        let published = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (1, 29, 0.0061, 0.1718)];
        for (k, n, low, high) in published {
            let [l, h] = wilson_interval(k, n);
            close(l, low, 5e-5);
            close(h, high, 5e-5);
        }
    }

    #[test]
    fn wilson_solves_its_defining_equation() {
        // Each bound p satisfies |k/n - p| = z * sqrt(p (1 - p) / n).
        let z = 1.959_963_984_540_054;
        for (k, n) in [(1, 10), (250, 500), (4999, 5000), (37, 41)] {
            for bound in wilson_interval(k, n) {
                let distance = (k as f64 / n as f64 - bound).abs();
                close(distance, z * (bound * (1.0 - bound) / n as f64).sqrt(), 1e-9);
            }
        }
    }

    #[test]
    fn wilson_at_the_extremes_stays_inside() {
        assert_eq!(wilson_interval(0, 0), [0.0, 1.0]);
        assert_eq!(wilson_interval(0, 20)[0], 0.0);
        assert_eq!(wilson_interval(20, 20)[1], 1.0);
        assert!(wilson_interval(0, 20)[1] > 0.15);
        assert!(wilson_interval_at(10, 20, 0.99)[0] < wilson_interval(10, 20)[0]);
    }

    #[test]
    fn mean_interval_uses_the_student_quantile() {
        // Five seeds: t(0.975, 4) = 2.776445.
        let m = mean_interval(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!(m.count, 5);
        close(m.mean, 3.0, 1e-12);
        close(m.standard_deviation, 2.5f64.sqrt(), 1e-12);
        close(m.high - m.mean, 2.776_445_105 * (2.5f64 / 5.0).sqrt(), 1e-6);
        close(m.mean - m.low, m.high - m.mean, 1e-12);
    }

    #[test]
    fn mean_interval_of_few_values() {
        assert!(mean_interval(&[]).is_none());
        let one = mean_interval(&[0.5]).unwrap();
        assert!(one.mean == 0.5 && one.low.is_infinite());
        // t(0.975, 1) = 12.7062
        let two = mean_interval(&[0.0, 1.0]).unwrap();
        close(two.high - 0.5, 12.706_204_736 * 0.5f64.sqrt() / 2f64.sqrt(), 1e-5);
    }

    #[test]
    fn welch_agrees_with_a_published_example() {
        // scipy.stats.ttest_ind([27.5, 21.0, 19.0, 23.6], [27.1, 22.0, 20.8, 23.4, 23.4], equal_var=False)
        let (a, b) = ([27.5, 21.0, 19.0, 23.6], [27.1, 22.0, 20.8, 23.4, 23.4]);
        let test = welch(&a, &b).unwrap();
        close(test.difference, 22.775 - 23.34, 1e-12);
        close(test.p, 0.800_495_553_7, 1e-6);
        let mirrored = welch(&b, &a).unwrap();
        close(mirrored.difference_ci95[0], -test.difference_ci95[1], 1e-12);
        close(mirrored.p, test.p, 1e-12);
        assert!(welch(&a, &b[..1]).is_none() && welch(&[1.0, 1.0], &[2.0, 2.0]).is_none());
        assert!(welch(&[1.0, 1.1, 0.9], &[5.0, 5.1, 4.9]).unwrap().p < 1e-4);
    }

    #[test]
    fn mcnemar_agrees_with_hand_computed_binomials() {
        // b = 2, c = 8: 2 * (C(10,0) + C(10,1) + C(10,2)) / 1024 = 112/1024; mid-p takes 45/1024 off.
        let test = mcnemar_counts(8, 2, 100);
        close(test.p_exact, 112.0 / 1024.0, 1e-12);
        close(test.p_mid, 67.0 / 1024.0, 1e-12);
        close(test.difference, 0.06, 1e-12);
        assert!(test.difference_ci95[0] < 0.06 && test.difference_ci95[1] > 0.06);
        let mirrored = mcnemar_counts(2, 8, 100);
        assert_eq!(mirrored.p_mid, test.p_mid);
        close(mirrored.difference_ci95[0], -test.difference_ci95[1], 1e-12);
    }

    #[test]
    fn mcnemar_without_evidence() {
        let same = mcnemar(&[true, false, true], &[true, false, true]).unwrap();
        assert_eq!((same.p_exact, same.p_mid, same.difference), (1.0, 1.0, 0.0));
        let balanced = mcnemar_counts(3, 3, 10);
        assert_eq!(balanced.p_exact, 1.0);
        close(balanced.p_mid, 1.0, 1e-12);
    }

    #[test]
    fn mcnemar_counts_pairs_and_refuses_other_images() {
        let test = mcnemar(&[true, true, false, false, true], &[true, false, true, false, false]).unwrap();
        assert_eq!((test.only_first, test.only_second, test.total), (2, 1, 5));
        let error = mcnemar(&[true], &[true, false]).unwrap_err().to_string();
        assert!(error.contains("same images"), "{error}");
    }
}
