//! Which models an analysis sets side by side, and what they are called.

use std::path::{Path, PathBuf};

use bandwise::{Error, Result};
use clap::Args;

use super::ModelArguments;

/// One or several models.
#[derive(Args)]
pub struct ModelsArguments {
    /// Weights of a model, or a run folder; repeat to set several side by side
    #[arg(long, value_name = "FILE", required = true)]
    weights: Vec<PathBuf>,
    /// Architecture, one for all weights or one for each; by default what the file says, or the only one that fits
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// Name of each model in plots, in the order of --weights; otherwise the file's or folder's name
    #[arg(long, value_name = "TEXT")]
    label: Vec<String>,
    /// Channels of the first stage; by default as in the file
    #[arg(long, value_name = "N")]
    width: Option<usize>,
    /// Load weights that do not fit the architecture, and take labels as they are where the classes of network and
    /// images differ; results carry a warning
    #[arg(long)]
    allow_mismatch: bool,
}

impl ModelsArguments {
    /// Each model's own arguments and its name.
    ///
    /// # Errors
    /// When --model or --label are given, but neither once for all nor once for each.
    pub fn each(
        &self,
        mean: Option<&Vec<f64>>,
        std: Option<&Vec<f64>>,
    ) -> Result<Vec<(ModelArguments, String)>> {
        let (count, models, labels) = (self.weights.len(), self.model.len(), self.label.len());
        if models > 1 && models != count {
            return Err(Error::config(format!(
                "{count} --weights and {models} --model: name one for all, or one for each"
            )));
        }
        if labels > 0 && labels != count {
            return Err(Error::config(format!("{count} --weights and {labels} --label: name all or none")));
        }
        let one = |(index, weights): (usize, &PathBuf)| {
            let arguments = ModelArguments {
                weights: weights.clone(),
                model: self.model.get(index).or(self.model.first()).cloned(),
                width: self.width,
                mean: mean.cloned(),
                std: std.cloned(),
                allow_mismatch: self.allow_mismatch,
            };
            (arguments, self.label.get(index).cloned().unwrap_or_else(|| self.file_label(weights)))
        };
        let mut named: Vec<(ModelArguments, String)> = self.weights.iter().enumerate().map(one).collect();
        for index in 1..named.len() {
            let (before, own) = named.split_at_mut(index);
            let label = own[0].1.clone();
            let mut number = 2;
            while before.iter().any(|(_, other)| *other == own[0].1) {
                own[0].1 = format!("{label} #{number}");
                number += 1;
            }
        }
        Ok(named)
    }

    /// The file's name, its folder's where the file is called as in every run, the path where several share
    /// that name.
    fn file_label(&self, weights: &Path) -> String {
        let own = short_label(weights);
        match self.weights.iter().filter(|other| short_label(other) == own).count() {
            1 => own,
            _ => weights.with_extension("").display().to_string(),
        }
    }
}

fn short_label(weights: &Path) -> String {
    let name = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
    let stem = name(weights.file_stem()).unwrap_or_default();
    if !["model", "best", "best_sum"].contains(&&*stem) {
        return stem;
    }
    name(weights.parent().and_then(Path::file_name)).unwrap_or(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(weights: &[&str], label: &[&str]) -> Result<Vec<String>> {
        let owned = |values: &[&str]| values.iter().map(ToString::to_string).collect();
        let weights = weights.iter().map(PathBuf::from).collect();
        let models = ModelsArguments {
            weights,
            model: Vec::new(),
            label: owned(label),
            width: None,
            allow_mismatch: false,
        };
        Ok(models.each(None, None)?.into_iter().map(|(_, label)| label).collect())
    }

    #[test]
    fn models_are_called_after_files_or_runs_and_never_alike() {
        assert_eq!(labels(&["a/resnet.pt"], &[]).unwrap(), ["resnet"]);
        assert_eq!(labels(&["a/model.safetensors", "b/best.safetensors"], &[]).unwrap(), ["a", "b"]);
        assert_eq!(
            labels(&["1/a/model.safetensors", "2/a/model.safetensors"], &[]).unwrap(),
            ["1/a/model", "2/a/model"]
        );
        assert_eq!(labels(&["a/x.pt", "b/x.pt"], &["one", "two"]).unwrap(), ["one", "two"]);
        assert_eq!(labels(&["a/x.pt", "a/x.pt", "b.pt"], &[]).unwrap(), ["a/x", "a/x #2", "b"]);
        assert_eq!(labels(&["a.pt", "b.pt", "c.pt"], &["x", "x", "x"]).unwrap(), ["x", "x #2", "x #3"]);
        assert!(labels(&["a/x.pt", "b/x.pt"], &["one"]).is_err());
    }
}
