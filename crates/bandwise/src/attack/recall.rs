//! What a model answered to an attack, kept on disk while the attack works: whoever goes on where a process was
//! stopped asks again, in the same order, and is answered from the file. An attack need not know of it, and even
//! the longest one gets further each time.
//!
//! The file holds whose answers these are, then one record per answer: what was asked (a hash), the tensors, and a
//! checksum. What follows the first record that does not fit is thrown away.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::{Device, Tensor};

use crate::{Error, Result, files};

/// Characters of a hash in the file.
const HASH: usize = 64;
/// Before the tensors of a record: hash and length.
const HEAD: usize = HASH + 8;
/// A longer answer (the Jacobian of a thousand classes) is computed again instead.
const LONGEST: usize = 64 << 20;

/// Answers of a model to one attack on a few images.
#[derive(Debug)]
pub struct Recall {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    /// Everything that an earlier process left has been given.
    at_end: bool,
    given: usize,
}

impl Recall {
    /// The answers in the file at `path`, as far as they belong to `key`: everything that they depend on. A file of
    /// another key begins anew.
    pub fn open(path: &Path, key: &str) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let key = files::sha256(key.as_bytes());
        let mut found = [0; HASH];
        let is_ours = file.read_exact(&mut found).is_ok() && found == *key.as_bytes();
        if !is_ours {
            file.set_len(0).map_err(io)?;
            file.seek(SeekFrom::Start(0)).map_err(io)?;
            file.write_all(key.as_bytes()).map_err(io)?;
        }
        let state = Mutex::new(State { file, at_end: !is_ours, given: 0 });
        Ok(Self { path: path.to_path_buf(), state })
    }

    /// How many answers came from the file.
    pub fn given(&self) -> usize {
        self.state.lock().unwrap_or_else(|e| e.into_inner()).given
    }

    /// Removes the file: nobody will ask again.
    pub fn forget(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|e| Error::io(&self.path, e))
    }

    /// The answer to a question, of about `bytes` bytes, from the file or else by `compute`. `kind` and `asked` say all
    /// that it depends on beside the key.
    pub(crate) fn answer(
        &self,
        (kind, asked): (&str, &[&Tensor]),
        bytes: usize,
        compute: impl FnOnce() -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        let Some(first) = asked.first().filter(|_| bytes <= LONGEST) else { return compute() };
        let device = first.device();
        let question = files::sha256(&[kind.as_bytes(), &packed(asked)?].concat());
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        if !state.at_end {
            let start = state.file.stream_position().map_err(|e| Error::io(&self.path, e))?;
            if let Some(answer) = state.read(&question, device) {
                state.given += 1;
                return Ok(answer);
            }
            state.at_end = true;
            state.file.set_len(start).map_err(|e| Error::io(&self.path, e))?;
            state.file.seek(SeekFrom::Start(start)).map_err(|e| Error::io(&self.path, e))?;
        }
        let answer = compute()?;
        let tensors = packed(&answer.iter().collect::<Vec<_>>())?;
        let mut record = Vec::with_capacity(HEAD + tensors.len() + HASH);
        record.extend_from_slice(question.as_bytes());
        record.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
        record.extend_from_slice(&tensors);
        let sum = files::sha256(&record);
        record.extend_from_slice(sum.as_bytes());
        state.file.write_all(&record).map_err(|e| Error::io(&self.path, e))?;
        Ok(answer)
    }
}

impl State {
    /// The next record, if it is whole and answers this question.
    fn read(&mut self, question: &str, device: &Device) -> Option<Vec<Tensor>> {
        let mut record = vec![0; HEAD];
        self.file.read_exact(&mut record).ok()?;
        if record[..HASH] != *question.as_bytes() {
            return None;
        }
        let length = usize::try_from(u64::from_le_bytes(record[HASH..].try_into().ok()?)).ok()?;
        // The length is read from a file that may be damaged.
        let left = self.file.metadata().ok()?.len().checked_sub(self.file.stream_position().ok()?)?;
        if length as u64 > left {
            return None;
        }
        record.resize(HEAD + length, 0);
        self.file.read_exact(&mut record[HEAD..]).ok()?;
        let mut sum = [0; HASH];
        self.file.read_exact(&mut sum).ok()?;
        if sum != *files::sha256(&record).as_bytes() {
            return None;
        }
        let tensors = candle_core::safetensors::load_buffer(&record[HEAD..], device).ok()?;
        (0..tensors.len()).map(|index| tensors.get(&index.to_string()).cloned()).collect()
    }
}

/// Tensors as bytes, shapes and types included.
fn packed(tensors: &[&Tensor]) -> Result<Vec<u8>> {
    let on_cpu = |(index, tensor): (usize, &&Tensor)| {
        Ok((index.to_string(), tensor.detach().to_device(&Device::Cpu)?.contiguous()?))
    };
    let named: Vec<(String, Tensor)> = tensors.iter().enumerate().map(on_cpu).collect::<Result<_>>()?;
    safetensors::serialize(named, None)
        .map_err(|e| Error::config(format!("answers of the model could not be kept: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: f64) -> Tensor {
        Tensor::new(&[value], &Device::Cpu).unwrap()
    }

    /// Asks 0, 1, … and returns the answers and how many of them were computed.
    fn ask(recall: &Recall, count: usize) -> (Vec<f64>, usize) {
        let mut computed = 0;
        let answers = (0..count).map(|asked| {
            let asked = number(asked as f64);
            let answer = recall.answer(("square", &[&asked]), 8, || {
                computed += 1;
                Ok(vec![asked.sqr()?])
            });
            answer.unwrap()[0].to_vec1::<f64>().unwrap()[0]
        });
        (answers.collect(), computed)
    }

    #[test]
    fn what_was_answered_is_not_computed_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers");
        assert_eq!(ask(&Recall::open(&path, "one").unwrap(), 3), (vec![0.0, 1.0, 4.0], 3));
        let again = Recall::open(&path, "one").unwrap();
        assert_eq!(ask(&again, 5), (vec![0.0, 1.0, 4.0, 9.0, 16.0], 2));
        assert_eq!(again.given(), 3);
        // Another question ends what can be recalled.
        let other = Recall::open(&path, "one").unwrap();
        let asked = number(0.0);
        let answer = other.answer(("cube", &[&asked]), 8, || Ok(vec![number(-1.0)])).unwrap();
        assert_eq!(answer[0].to_vec1::<f64>().unwrap(), [-1.0]);
        assert_eq!(ask(&other, 2).1, 2);
        // So does another key.
        assert_eq!(ask(&Recall::open(&path, "two").unwrap(), 3).1, 3);
        let last = Recall::open(&path, "two").unwrap();
        assert_eq!(ask(&last, 3).1, 0);
        last.forget().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn damage_costs_time_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers");
        ask(&Recall::open(&path, "key").unwrap(), 4);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(7) {
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(ask(&Recall::open(&path, "key").unwrap(), 4).0, [0.0, 1.0, 4.0, 9.0], "cut at {at}");
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(ask(&Recall::open(&path, "key").unwrap(), 4).0, [0.0, 1.0, 4.0, 9.0], "flip at {at}");
            assert_eq!(std::fs::read(&path).unwrap(), whole, "the file is mended, {at}");
        }
    }
}
