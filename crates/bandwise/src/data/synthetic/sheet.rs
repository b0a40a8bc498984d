//! A contact sheet of the synthetic set, for documentation and reports.

use super::{CueSplit, Image, SyntheticConfig, SyntheticDataset};
use crate::Result;
use crate::data::Dataset;

/// Pixels between images.
const GAP: usize = 2;

/// Images of all ten classes (columns): two rows of training images, then one row each of the
/// test splits `shape`, `texture` and `conflict`, every pixel repeated `zoom` times each way.
pub fn contact_sheet(config: &SyntheticConfig, zoom: usize) -> Result<Image> {
    let rows = [
        (CueSplit::Train, 0),
        (CueSplit::Train, 10),
        (CueSplit::Shape, 0),
        (CueSplit::Texture, 0),
        (CueSplit::Conflict, 0),
    ];
    let tile = config.size * zoom;
    let pitch = tile + GAP * zoom;
    let mut sheet = Image::filled(rows.len() * pitch, 10 * pitch, 3, 1.0);
    for (row, (split, first)) in rows.into_iter().enumerate() {
        let config = SyntheticConfig { count: 20, test_count: 20, ..config.clone() };
        let dataset = SyntheticDataset::new(config, split);
        for column in 0..10 {
            let (image, _) = dataset.get(first + column)?;
            paste(&image, &mut sheet, [row * pitch, column * pitch], zoom);
        }
    }
    Ok(sheet)
}

/// Copies `image` into `sheet` at `[top, left]`, every pixel repeated `zoom` times each way.
fn paste(image: &Image, sheet: &mut Image, [top, left]: [usize; 2], zoom: usize) {
    for row in 0..image.height * zoom {
        for column in 0..image.width * zoom {
            let source = image.offset(row / zoom, column / zoom, 0);
            let target = sheet.offset(top + row, left + column, 0);
            sheet.pixels[target..target + 3].copy_from_slice(&image.pixels[source..source + 3]);
        }
    }
}
