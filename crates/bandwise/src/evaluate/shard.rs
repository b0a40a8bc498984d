//! One of several equal shares of the images, for job arrays.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Share `index` of `count` (from 1): the images whose number leaves the remainder `index − 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    /// From 1.
    pub index: usize,
    /// At least 1.
    pub count: usize,
}

impl Default for Shard {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl Shard {
    /// All images.
    pub const WHOLE: Self = Self { index: 1, count: 1 };

    /// Whether `image` belongs to this share.
    pub fn contains(self, image: usize) -> bool {
        image % self.count == self.index - 1
    }

    /// `i/n` as written; `auto` and `auto/n` take `i` from the job array's variables:
    /// `SLURM_ARRAY_TASK_ID` with `SLURM_ARRAY_TASK_MIN` and `_COUNT`, or `JOB_COMPLETION_INDEX`
    /// (Kubernetes, from 0; `n` must then be given, or stand in `JOB_COMPLETIONS`).
    pub fn from_text(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let number = |text: &str| text.trim().parse::<usize>().ok();
        let (index, count) = text.split_once('/').unwrap_or((text, ""));
        let wrong = || {
            Error::config(format!("`{text}` is no share: write i/n with 1 ≤ i ≤ n, for example 2/8, or auto"))
        };
        if index.trim() != "auto" {
            let (index, count) = (number(index).ok_or_else(wrong)?, number(count).ok_or_else(wrong)?);
            return if (1..=count).contains(&index) { Ok(Self { index, count }) } else { Err(wrong()) };
        }
        let read = |name: &str| variable(name).as_deref().and_then(number);
        let slurm = read("SLURM_ARRAY_TASK_ID").map(|id| {
            let first = read("SLURM_ARRAY_TASK_MIN").unwrap_or(0);
            (id.wrapping_sub(first).wrapping_add(1), read("SLURM_ARRAY_TASK_COUNT"))
        });
        let kubernetes = || read("JOB_COMPLETION_INDEX").map(|id| (id + 1, read("JOB_COMPLETIONS")));
        let Some((index, counted)) = slurm.or_else(kubernetes) else {
            return Err(Error::config(
                "a share `auto` needs SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX to be set; outside a job array write i/n",
            ));
        };
        let given = if count.is_empty() { None } else { Some(number(count).ok_or_else(wrong)?) };
        let Some(count) = given.or(counted) else {
            return Err(Error::config(
                "the number of shares is unknown here: write auto/n, for example auto/8",
            ));
        };
        match (1..=count).contains(&index) {
            true => Ok(Self { index, count }),
            false => Err(Error::config(format!("job {index} of the array does not fit into {count} shares"))),
        }
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::from_text(text, |name| std::env::var(name).ok())
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl TryFrom<String> for Shard {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::from_text(&text, |_| None)
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Shard> {
        Shard::from_text(text, |name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
    }

    #[test]
    fn shares_come_from_text_or_the_job_array() {
        assert_eq!(parse("2/8", &[]).unwrap(), Shard { index: 2, count: 8 });
        let slurm =
            [("SLURM_ARRAY_TASK_ID", "5"), ("SLURM_ARRAY_TASK_MIN", "3"), ("SLURM_ARRAY_TASK_COUNT", "4")];
        assert_eq!(parse("auto", &slurm).unwrap(), Shard { index: 3, count: 4 });
        assert_eq!(parse("auto/4", &[("JOB_COMPLETION_INDEX", "0")]).unwrap(), Shard { index: 1, count: 4 });
        for (text, variables) in
            [("0/4", vec![]), ("5/4", vec![]), ("x", vec![]), ("auto", vec![]), ("", vec![])]
        {
            assert!(parse(text, &variables).is_err(), "{text}");
        }
        assert!(parse("auto", &[("JOB_COMPLETION_INDEX", "0")]).is_err());
    }

    #[test]
    fn every_image_is_in_exactly_one_share() {
        for image in 0..20 {
            let holders = (1..=3).filter(|&index| Shard { index, count: 3 }.contains(image)).count();
            assert_eq!(holders, 1);
        }
    }
}
