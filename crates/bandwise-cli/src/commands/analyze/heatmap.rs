//! `bandwise analyze heatmap`.

use std::sync::atomic::AtomicBool;

use bandwise::Result;
use bandwise::analyze::NamedClassifier;
use bandwise::analyze::heatmap::{FourierHeatMap, HeatMapConfig, csv, section};
use bandwise::evaluate::record::{Record, WAVE_NORM};
use clap::Args;

use super::output::Output;
use super::subjects::{SubjectArguments, progress};
use crate::progress::bar;

/// Fourier heat map: error rate when one Fourier wave is added to every picture (Yin et al. 2019).
///
/// The wave has the given L2 norm in every channel (pixels in [0,1]) and a random sign per picture and
/// channel. Yin et al. use norm 4 on CIFAR-10 and 15.7 on ImageNet.
#[derive(Args)]
pub struct HeatmapArguments {
    #[command(flatten)]
    subjects: SubjectArguments,
    /// L2 norm of the wave per channel, pixels in [0,1]
    #[arg(long, value_name = "NORM", default_value_t = 4.0)]
    eps: f64,
    /// Do not clamp perturbed pixels to [0,1]
    #[arg(long)]
    no_clip: bool,
    /// Only frequencies from −N to N
    #[arg(long, value_name = "N")]
    largest_frequency: Option<usize>,
}

/// Runs the command.
pub fn run(arguments: &HeatmapArguments, interrupt: &AtomicBool) -> Result<bool> {
    let (subjects, pictures) = arguments.subjects.load()?;
    let config = HeatMapConfig {
        norm: arguments.eps,
        clip: !arguments.no_clip,
        largest_frequency: arguments.largest_frequency,
        seed: arguments.subjects.seed,
        batch_size: arguments.subjects.batch_size,
    };
    let (mut maps, mut records) = (Vec::new(), Vec::new());
    for subject in &subjects {
        let bar = bar(&subject.label, 1);
        let (images, labels) = (&pictures.images, &pictures.label_values);
        let map = FourierHeatMap::full(
            &NamedClassifier::of(subject),
            images,
            labels,
            &config,
            &mut progress(&bar, interrupt),
        )?;
        bar.finish_and_clear();
        let clean = 100.0 * f64::from(map.clean_wrong) / map.images as f64;
        say!(
            "{}: clean error {clean:.1} %, mean over all waves {:.1} %",
            map.label,
            100.0 * map.mean_error()
        );
        let mut record = Record::scalar("fourier_heat_map_error", map.mean_error());
        record.extra.insert("label".into(), map.label.clone().into());
        record.extra.insert(WAVE_NORM.into(), config.norm.into());
        record.extra.insert("clipped".into(), config.clip.into());

        let judged = map.images as u64;
        let mut unchanged = Record::proportion("accuracy", judged - u64::from(map.clean_wrong), judged);
        unchanged.extra.insert("label".into(), map.label.clone().into());
        records.extend([unchanged, record].map(|r| subject.sign(r)));
        maps.push(map);
    }
    let mut output = Output::new(&arguments.subjects.out, "Fourier heat map");
    output.csv("heatmap", &csv(&maps))?;
    output.records(&records)?;
    output.section("heatmap", section(&maps))?;
    output.finish()?;
    Ok(true)
}
