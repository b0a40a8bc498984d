//! The models and images of an analysis.

use std::path::PathBuf;

use bandwise::analyze::space::Space;
use bandwise::analyze::{Analysis, Findings};
use bandwise::data::DataSpec;
use bandwise::evaluate::subject::{Subject, TestSet};
use bandwise::report::{AnalysisFolder, check_folder, write_analysis};
use bandwise::{Error, Interrupt, Job, Result};
use clap::{Args, ValueEnum};

use super::models::ModelsArguments;
use super::{ComputeArguments, SplitArgument, data_spec};
use crate::{output, progress};

/// What every analysis of models on images takes.
#[derive(Args)]
pub struct SubjectArguments {
    #[command(flatten)]
    pub models: ModelsArguments,
    /// Mean of each channel, pixels in [0,1]; the networks see (pixel − mean)/std
    #[arg(long, value_name = "R,G,B", requires = "std", value_delimiter = ',', allow_hyphen_values = true)]
    pub mean: Option<Vec<f64>>,
    /// Standard deviation of each channel
    #[arg(long, value_name = "R,G,B", requires = "mean", value_delimiter = ',')]
    pub std: Option<Vec<f64>>,
    /// cifar10:DIR, cifar100:DIR, cifar10-bin:FILE, idx:DIR, imagefolder:DIR, npy:DIR, synthetic[:key=value,…]
    #[arg(long, value_name = "SPEC", value_parser = data_spec)]
    pub data: DataSpec,
    /// Part of the data set
    #[arg(long, value_enum, default_value_t = SplitArgument::Test)]
    pub split: SplitArgument,
    /// Only the first N images
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Images per pass
    #[arg(long, value_name = "N", default_value_t = 250)]
    pub batch_size: usize,
    /// Folder for CSV, figures, records and report
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub compute: ComputeArguments,
}

impl SubjectArguments {
    /// Loads the models for the images, and says what they are; `sections` are those that the analysis writes.
    fn load(&self, sections: &[&str]) -> Result<Vec<Subject>> {
        if self.batch_size == 0 {
            return Err(Error::config("--batch-size must be at least 1"));
        }
        check_folder(&self.out, sections)?;
        let models = self.models.each(self.mean.as_ref(), self.std.as_ref())?;
        let compute = self.compute.compute()?;
        let data = TestSet::open(&self.data, self.split.into(), self.limit)?;
        data.check_batch(self.batch_size)?;
        let mut subjects = Vec::new();
        for (arguments, label) in models {
            let mut subject = Subject::load(&arguments.source(), &data, &compute)?;
            subject.label = label;
            subject.provenance.seeds = vec![self.seed];
            say!("{}: {}", subject.label, subject.describe());
            subject.warnings.iter().for_each(|warning| note!("warning: {}: {warning}", subject.label));
            subjects.push(subject);
        }
        Ok(subjects)
    }

    /// Analyzes the models under a bar, writes the folder, which is locked meanwhile, and says what was found.
    pub fn analyze<T>(
        &self,
        sections: &[&str],
        interrupt: &Interrupt,
        work: impl FnOnce(&[Subject], &Job) -> Result<Analysis<T>>,
    ) -> Result<bool> {
        let subjects = self.load(sections)?;
        let folder = AnalysisFolder::reserve(&self.out, sections)?;
        let findings = self.found(&subjects, interrupt, work)?;
        output::say_findings(&findings, &folder.write(&findings)?);
        Ok(true)
    }

    /// The same for an analysis that keeps files in the folder while it works, and locks it itself.
    pub fn analyze_in_folder<T>(
        &self,
        sections: &[&str],
        interrupt: &Interrupt,
        work: impl FnOnce(&[Subject], &Job) -> Result<Analysis<T>>,
    ) -> Result<bool> {
        let findings = self.found(&self.load(sections)?, interrupt, work)?;
        output::say_findings(&findings, &write_analysis(&self.out, &findings)?);
        Ok(true)
    }

    /// What the analysis finds, worked out under a bar.
    fn found<T>(
        &self,
        subjects: &[Subject],
        interrupt: &Interrupt,
        work: impl FnOnce(&[Subject], &Job) -> Result<Analysis<T>>,
    ) -> Result<Findings> {
        let device = &subjects[0].device;
        let found = progress::shown(device, self.batch_size, interrupt, |job| work(subjects, job))?;
        Ok(found.findings)
    }
}

/// What masks and windows act on.
#[derive(Args)]
pub struct SpaceArgument {
    /// What is masked: the network's normalized input, as published, or pixels in [0,1], where removing zero
    /// frequency makes images black
    #[arg(long, value_enum, default_value_t = SpaceName::Input)]
    space: SpaceName,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum SpaceName {
    /// What the network sees after its normalization
    Input,
    /// Pixels in [0,1]
    Pixels,
}

impl SpaceArgument {
    pub fn value(&self) -> Space {
        match self.space {
            SpaceName::Input => Space::Input,
            SpaceName::Pixels => Space::Pixels,
        }
    }
}
