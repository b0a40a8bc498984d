//! Example images with their adversarial versions, the perturbation, and amplitude spectra.

use candle_core::{Device, Tensor};

use crate::Result;
use crate::attack::{Attack, AttackContext, Classifier};
use crate::data::{Batch, Dataset};
use crate::plot::{ColorMap, ImageGrid, PngImage, Section};
use crate::spectral::bands;
use crate::spectral::statistics::SpectrumStatistics;

/// A report section that shows `attack` at work on the images `indices`.
pub fn section(
    model: &dyn Classifier,
    dataset: &dyn Dataset,
    indices: &[usize],
    attack: &Attack,
    seed: u64,
    device: &Device,
) -> Result<Section> {
    let batch = Batch::of(dataset, indices)?;
    let images = batch.images.to_device(device)?;
    let labels = batch.labels.to_device(device)?;
    let ids: Vec<u64> = indices.iter().map(|&index| index as u64).collect();
    // All steps, also for images that fall at the first: the finished perturbation is what is shown.
    let adversarial = attack.perturb(model, &images, &labels, &AttackContext::training(seed, &ids))?;
    let before = model.logits_no_graph(&images)?.argmax(1)?.to_vec1::<u32>()?;
    let after = model.logits_no_graph(&adversarial)?.argmax(1)?.to_vec1::<u32>()?;
    let names = dataset.class_names();
    let name = |class: u32| names.get(class as usize).cloned().unwrap_or_else(|| class.to_string());

    let mut grid = ImageGrid::new(
        format!("Images under {attack}"),
        &["original", "its spectrum", "adversarial", "perturbation", "its spectrum"],
    )
    .caption(
        "Spectra show the logarithm of the amplitude, averaged over channels, with the lowest frequency in \
         the middle. Each perturbation is stretched to full contrast: gray is no change, and a channel that \
         grows brighter or darker shows in its own color.",
    );
    let labels = batch.labels.to_vec1::<u32>()?;
    for row in 0..indices.len() {
        let clean = images.get(row)?;
        let changed = adversarial.get(row)?;
        let difference = (&changed - &clean)?;
        let (height, width, channels) = clean.dims3()?;
        let pictures = vec![
            PngImage::from_pixels(&pixels(&clean)?, height, width, channels)
                .caption(format!("seen as {}", name(before[row]))),
            spectrum(&clean)?,
            PngImage::from_pixels(&pixels(&changed)?, height, width, channels)
                .caption(format!("seen as {}", name(after[row]))),
            PngImage::signed(&pixels(&difference)?, height, width, channels, None),
            spectrum(&difference)?,
        ];
        grid = grid.row(name(labels[row]), pictures);
    }
    Ok(Section::new("Example images").images(grid))
}

/// The values of an image, row by row.
pub(super) fn pixels(image: &Tensor) -> Result<Vec<f32>> {
    Ok(image.flatten_all()?.to_vec1::<f32>()?)
}

/// The centered log-amplitude spectrum of one image `[height, width, channels]`.
pub(super) fn spectrum(picture: &Tensor) -> Result<PngImage> {
    let statistics = SpectrumStatistics::of_tensor(&picture.unsqueeze(0)?)?;
    let (height, width) = statistics.size();
    let values = bands::shift(&statistics.mean_log_amplitude(), height, width);
    let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
    // Amplitudes that are zero but for rounding would stretch the colors.
    let highest = values.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    Ok(PngImage::heat(&values, height, width, ColorMap::Viridis, Some([highest - 8.0, highest])))
}
