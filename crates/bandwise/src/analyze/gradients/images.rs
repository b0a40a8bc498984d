//! Input gradients of single images, to be looked at.

use candle_core::{D, DType, Device, Tensor};

use super::super::examples::{pixels, spectrum};
use crate::Result;
use crate::evaluate::subject::TestImages;
use crate::plot::{ImageGrid, PngImage};

/// As many as JaFR's official code draws.
const SHOWN: usize = 20;

/// The gradients of the first images `[n, height, width, channels]`, on the host, from a function of images and labels.
pub(super) fn gradients(
    data: &TestImages,
    of: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let count = data.images.dim(0)?.min(SHOWN);
    let found = of(&data.images.narrow(0, 0, count)?, &data.labels.narrow(0, 0, count)?)?;
    Ok(found.to_device(&Device::Cpu)?.to_dtype(DType::F32)?)
}

/// One row per image: the image, and of each model the gradient and its spectrum.
pub(super) fn grid(models: &[(String, Tensor)], data: &TestImages) -> Result<ImageGrid> {
    let mut columns = vec!["image".to_owned()];
    for (label, _) in models {
        let of = if models.len() > 1 { format!("{label}: ") } else { String::new() };
        columns.extend([format!("{of}gradient"), format!("{of}its spectrum")]);
    }
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut grid = ImageGrid::new("Input gradients of single images", &columns).caption(
        "Gradient of the cross-entropy with respect to the image; gray is zero, and each gradient is stretched to its \
         largest absolute value, which stands below it. Spectra show the logarithm of the amplitude, averaged over \
         channels, with the lowest frequency in the middle, over eight powers of e.",
    );
    let images = data.images.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    for row in 0..models.first().map_or(Ok(0), |(_, gradients)| gradients.dim(0))? {
        let image = images.get(row)?;
        let (height, width, channels) = image.dims3()?;
        let mut shown = vec![PngImage::from_pixels(&pixels(&image)?, height, width, channels)];
        for (_, gradients) in models {
            let gradient = gradients.get(row)?;
            let largest = gradient.abs()?.flatten_all()?.max(D::Minus1)?.to_scalar::<f32>()?;
            let drawn = PngImage::signed(&pixels(&gradient)?, height, width, channels, None);
            shown.extend([drawn.caption(format!("at most {largest:.2e}")), spectrum(&gradient)?]);
        }
        let class = data.label_values[row] as usize;
        grid = grid.row(data.classes.get(class).cloned().unwrap_or_else(|| class.to_string()), shown);
    }
    Ok(grid)
}

#[cfg(test)]
mod tests {
    use super::super::{of_own_losses, own_gradients};
    use super::*;
    use crate::attack::FrozenModel;
    use crate::golden;

    #[test]
    fn the_first_images_are_shown_with_their_own_gradients() {
        let model = crate::nn::tests::model("smallcnn", 4, DType::F32);
        let labels: Vec<u32> = (0..25).map(|i| i % 10).collect();
        let data = TestImages {
            images: crate::nn::tests::noise(&[25, 16, 16, 3], DType::F32, 3),
            labels: Tensor::new(&labels[..], &Device::Cpu).unwrap(),
            label_values: labels,
            classes: vec!["zero".into()],
        };
        let frozen = model.folded().unwrap();
        let found = gradients(&data, |images, labels| own_gradients(&frozen, images, labels)).unwrap();
        assert_eq!(found.dims(), [20, 16, 16, 3]);
        // Not divided by the number of images.
        let alone = TestImages {
            images: data.images.narrow(0, 3, 1).unwrap(),
            labels: data.labels.narrow(0, 3, 1).unwrap(),
            ..data.clone()
        };
        let classifier = FrozenModel::folded(&model).unwrap();
        let one = gradients(&alone, |images, labels| of_own_losses(&classifier, images, labels)).unwrap();
        assert!(golden::relative_l2(&found.narrow(0, 3, 1).unwrap(), &one) < 1e-4);
        let grid = grid(&[("a".into(), found.clone()), ("b".into(), found)], &data).unwrap();
        assert_eq!(
            grid.columns,
            ["image", "a: gradient", "a: its spectrum", "b: gradient", "b: its spectrum"]
        );
        assert_eq!(
            (grid.rows.len(), grid.rows[0].label.as_str(), grid.rows[1].label.as_str()),
            (20, "zero", "1")
        );
        assert_eq!(grid.rows[7].pictures.len(), 5);
    }
}
