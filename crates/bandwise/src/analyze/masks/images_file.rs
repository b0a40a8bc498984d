//! masks.npy filled image by image, with a journal of which are there: what survives a stop.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::per_image::ImageLine;
use crate::evaluate::record::append_lines;
use crate::formats::npy;
use crate::method::fourier_mask::{ImageMask, Mask};
use crate::{Error, Result, differences, files, outputs};

/// The first line of images.jsonl.
#[derive(Serialize, Deserialize)]
struct Header {
    /// The settings of all masks.
    #[serde(default)]
    belongs: Value,
    masks: usize,
}

/// The masks of many images on their way.
pub(super) struct ImagesFile {
    masks: File,
    path: PathBuf,
    journal: PathBuf,
    header: u64,
    bytes_per_mask: u64,
    /// What is there.
    pub(super) lines: Vec<ImageLine>,
}

impl ImagesFile {
    /// Makes or takes up the files in `folder` for `count` masks `[height, width]`.
    ///
    /// # Errors
    /// If the folder holds masks of something else than `belongs` says; the first difference is named.
    pub(super) fn open(folder: &Path, [count, height, width]: [usize; 3], belongs: &Value) -> Result<Self> {
        let (path, journal) = (folder.join("masks.npy"), folder.join("images.jsonl"));
        let bytes_per_mask = (height * width * 4) as u64;
        let lines = if journal.exists() { read_journal(&journal, belongs)? } else { vec![] };
        let zeros = vec![0.0; count * height * width];
        let empty = npy::encode_floats(&[count, height, width], &zeros);
        if lines.is_empty() {
            outputs::replace(&path, &empty)?;
            let header = Header { belongs: belongs.clone(), masks: count };
            files::write_atomic(&journal, (to_json(&journal, &header)? + "\n").as_bytes())?;
        }
        let masks = OpenOptions::new().write(true).open(&path).map_err(|e| Error::io(&path, e))?;
        let length = masks.metadata().map_err(|e| Error::io(&path, e))?.len();
        if length != empty.len() as u64 {
            return Err(Error::format(&path, "it has not the size that images.jsonl speaks of; delete both"));
        }
        let header = length - count as u64 * bytes_per_mask;
        Ok(Self { masks, path, journal, header, bytes_per_mask, lines })
    }

    /// Adds a finished mask.
    pub(super) fn add(&mut self, mask: &ImageMask, line: ImageLine) -> Result<()> {
        let bytes: Vec<u8> = mask.mask.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let place = self.header + line.row as u64 * self.bytes_per_mask;
        self.masks
            .seek(SeekFrom::Start(place))
            .and_then(|_| self.masks.write_all(&bytes))
            .and_then(|()| self.masks.sync_data())
            .map_err(|e| Error::io(&self.path, e))?;
        append_lines(&self.journal, &(to_json(&self.journal, &line)? + "\n"))?;
        self.lines.push(line);
        Ok(())
    }

    /// All masks, in the order of rows.
    pub(super) fn read(&self) -> Result<Vec<Mask>> {
        Mask::read_npy(&self.path)
    }
}

fn to_json<T: Serialize>(path: &Path, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::format(path, format!("a line cannot be written: {e}")))
}

fn read_journal(path: &Path, belongs: &Value) -> Result<Vec<ImageLine>> {
    let text = String::from_utf8_lossy(&files::read(path)?).into_owned();
    let mut lines = text.lines();
    let header: Option<Header> = lines.next().and_then(|line| serde_json::from_str(line).ok());
    // Earlier versions did not say what their masks belong to.
    let Some(header) = header.filter(|header| !header.belongs.is_null()) else {
        return Err(Error::format(
            path,
            "expected what this version of `bandwise mask` writes; choose another --out",
        ));
    };
    if let Some(difference) = differences::between(("the folder", &header.belongs), ("the command", belongs))
    {
        return Err(Error::config(format!(
            "{} belongs to other masks: {difference}; choose another --out, or repeat its settings to go on",
            path.display()
        )));
    }
    // What a killed process left of a line is not there.
    Ok(lines.filter_map(|line| serde_json::from_str(line).ok()).collect())
}
