//! Attacked images on disk: `FOLDER/ATTACK/[PART-]FIRST-LAST.safetensors`, one file per wave, each of one evaluation,
//! and no image twice.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::journal::{Header, Journal};
use crate::attack::Attack;
use crate::wording::counted;
use crate::{Error, Result, differences, files, outputs};

/// The entry of a file's metadata that says what made its images.
const KEY: &str = "bandwise.evaluation";

/// What made the images of a file.
#[derive(Serialize, Deserialize)]
struct Origin {
    /// The evaluation, as far as the attack depends on it.
    evaluation: Value,
    /// The part of AutoAttack.
    part: Option<String>,
}

/// A folder of attacked images.
pub(super) struct SavedImages {
    folder: PathBuf,
    header: Header,
}

impl SavedImages {
    /// The folder for the images of a journal's evaluation, which has those of all judgments that are in the journal.
    /// Files whose images were not judged before the process that wrote them was stopped are removed.
    ///
    /// # Errors
    /// [`Error::Config`] if it holds images of another evaluation, or lacks some.
    pub fn open(folder: &Path, journal: &Journal) -> Result<Self> {
        let saved = Self { folder: folder.to_path_buf(), header: journal.header().clone() };
        for (label, attack) in journal.attacks() {
            let there = saved.judged(journal, &label, attack)?;
            let judged = |image: &usize| journal.get(&label, *image).is_some();
            let lacking =
                saved.header.image_numbers().filter(judged).filter(|image| !there.contains(image)).count();
            if lacking > 0 {
                return Err(Error::config(format!(
                    "{} judged under {label} before, without keeping what the attack made of them; begin a new journal to \
                     have it in {}",
                    counted(lacking, "image") + if lacking == 1 { " was" } else { " were" },
                    folder.display()
                )));
            }
        }
        Ok(saved)
    }

    /// The images of an attack that are there and in the journal.
    fn judged(&self, journal: &Journal, label: &str, attack: &Attack) -> Result<HashSet<usize>> {
        let folder = self.folder_of(label);
        let mut there = HashSet::new();
        files::remove_leftovers(&folder)?;
        let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(there) };
        for entry in entries {
            let path = entry.map_err(|e| Error::io(&folder, e))?.path();
            if path.extension().is_none_or(|extension| extension != "safetensors") {
                continue;
            }
            let (origin, images) = read(&path)?;
            let own = self.header.of_attack(attack)?;
            if let Some(difference) =
                differences::between(("the folder", &origin.evaluation), ("the command", &own))
            {
                return Err(Error::config(format!(
                    "{} holds attacked images of another evaluation: {difference}; choose another folder",
                    path.display()
                )));
            }
            if !images.iter().all(|image| self.header.shard.contains(*image)) {
                continue; // another share's
            }
            match images.iter().all(|image| journal.has(label, origin.part.as_deref(), *image)) {
                true => there.extend(images),
                false => std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?,
            }
        }
        Ok(there)
    }

    /// Writes the chosen rows of a wave: `images` `[n, height, width, channels]` and `labels`, of the image numbers `wave`.
    pub fn save(
        &self,
        (label, attack, part): (&str, &Attack, Option<&str>),
        (images, labels): (&Tensor, &Tensor),
        wave: &[usize],
        rows: &[usize],
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let prefix = part.map_or(String::new(), |part| format!("{}-", part.replace('#', "-")));
        let name = format!("{prefix}{:06}-{:06}.safetensors", wave[0], wave[wave.len() - 1]);
        let path = self.folder_of(label).join(name);
        let failed =
            |e: String| Error::format(&path, format!("the attacked images could not be written: {e}"));
        let cpu = Device::Cpu;
        let chosen: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        let chosen = Tensor::from_slice(&chosen, rows.len(), images.device())?;
        let indices: Vec<u32> = rows.iter().map(|&row| wave[row] as u32).collect();
        let tensors = [
            ("images", images.index_select(&chosen, 0)?.to_device(&cpu)?),
            ("labels", labels.index_select(&chosen, 0)?.to_device(&cpu)?),
            ("indices", Tensor::from_slice(&indices, indices.len(), &cpu)?),
        ];
        let origin = Origin { evaluation: self.header.of_attack(attack)?, part: part.map(str::to_string) };
        let origin = serde_json::to_string(&origin).map_err(|e| failed(e.to_string()))?;
        let metadata = [(KEY.to_string(), origin)].into();
        let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(|e| failed(e.to_string()))?;
        outputs::replace(&path, &bytes)
    }

    fn folder_of(&self, label: &str) -> PathBuf {
        let safe = |c: char| if c.is_alphanumeric() || "-.".contains(c) { c } else { '-' };
        self.folder.join(label.chars().map(safe).collect::<String>())
    }
}

/// What made the images of a file, and which they are.
fn read(path: &Path) -> Result<(Origin, Vec<usize>)> {
    let foreign = || {
        let what =
            "this file does not say which evaluation its attacked images belong to; choose another folder";
        Error::format(path, what)
    };
    let bytes = files::read(path)?;
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|_| foreign())?;
    let origin = metadata.metadata().as_ref().and_then(|entries| entries.get(KEY)).ok_or_else(foreign)?;
    let origin: Origin = serde_json::from_str(origin).map_err(|_| foreign())?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|_| foreign())?;
    let indices =
        tensors.get("indices").and_then(|indices| indices.to_vec1::<u32>().ok()).ok_or_else(foreign)?;
    Ok((origin, indices.into_iter().map(|index| index as usize).collect()))
}
