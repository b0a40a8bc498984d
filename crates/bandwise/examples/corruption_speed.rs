//! Times corruptions and compares them with another implementation:
//! `corruption_speed IMAGES.npy PROTOCOL SECONDS OUT [NAME…]`.
//!
//! `IMAGES.npy` holds `uint8` `[n, height, width, 3]`. Prints one line per corruption, its name and images per second
//! over all five severities, and writes `OUT/NAME.npy`, `uint8` `[5 · n, height, width, 3]`, severity-major.
//! `benches/compare_corruptions.py` calls this.

use std::path::Path;
use std::time::Instant;

use bandwise::corruption::{ByteImage, Corruption, Corruptor, Protocol, Severity};
use bandwise::formats::npy;
use bandwise::{Error, Result, files};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [images, protocol, seconds, out, names @ ..] = arguments.as_slice() else {
        return Err(Error::config("usage: corruption_speed IMAGES.npy PROTOCOL SECONDS OUT [NAME…]"));
    };
    let inputs = read(Path::new(images))?;
    let corruptor = Corruptor::new(protocol.parse::<Protocol>()?, 0);
    let seconds: f64 = seconds.parse().map_err(|_| Error::config("SECONDS must be a number"))?;
    let all = vec!["all".to_owned()];
    for corruption in Corruption::parse_list(if names.is_empty() { &all } else { names })? {
        // The first round fills caches and makes the images to be compared.
        let corrupted = five_severities(&corruptor, &inputs, corruption)?;
        write(&corrupted, corruption, Path::new(out))?;
        let start = Instant::now();
        let mut images = 0;
        while images == 0 || start.elapsed().as_secs_f64() < seconds {
            images += five_severities(&corruptor, &inputs, corruption)?.len();
        }
        println!("{corruption} {:.2}", images as f64 / start.elapsed().as_secs_f64());
    }
    Ok(())
}

fn five_severities(
    corruptor: &Corruptor,
    inputs: &[ByteImage],
    corruption: Corruption,
) -> Result<Vec<ByteImage>> {
    let mut all = Vec::with_capacity(5 * inputs.len());
    for severity in Severity::all() {
        all.extend(corruptor.apply_all(inputs, corruption, severity, 0)?);
    }
    Ok(all)
}

fn read(path: &Path) -> Result<Vec<ByteImage>> {
    let array = npy::read(path)?;
    match (array.shape.as_slice(), array.data) {
        (&[_, height, width, channels], npy::Data::Bytes(bytes)) => Ok(bytes
            .chunks_exact(height * width * channels)
            .map(|bytes| ByteImage::new(height, width, channels, bytes.to_vec()))
            .collect()),
        (shape, _) => {
            Err(Error::format(path, format!("expected uint8 [n, height, width, 3], found {shape:?}")))
        }
    }
}

fn write(inputs: &[ByteImage], corruption: Corruption, out: &Path) -> Result<()> {
    let bytes: Vec<u8> = inputs.iter().flat_map(|input| input.bytes.iter().copied()).collect();
    let shape = [inputs.len(), inputs[0].height, inputs[0].width, inputs[0].channels];
    files::write_atomic(&out.join(format!("{corruption}.npy")), &npy::encode_bytes(&shape, &bytes))
}
