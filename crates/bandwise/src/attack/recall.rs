//! What a model answered to an attack, kept on disk while the attack works: whoever goes on where a process was
//! stopped asks again, in the same order, and is answered from the file. An attack need not know of it, and even
//! the longest one gets further each time.
//!
//! The file holds whose answers these are, then one record per answer: what was asked (a hash), the tensors, and a
//! checksum. What follows the first record that does not fit is thrown away.
//!
//! It only saves time: where it cannot be written, the model is asked as ever, and foreign files of its name are left
//! alone.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::{Device, Tensor};

use crate::{Error, Result, files};

/// What the file begins with.
const MARK: &[u8] = b"answers kept by bandwise\n";
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
    /// Nothing more is written.
    full: bool,
    given: usize,
}

impl Recall {
    /// The answers in the file at `path`, as far as they belong to `key`: everything that they depend on. A file of
    /// another key begins anew. `None` where no such file can be kept.
    pub fn open(path: &Path, key: &str) -> Option<Self> {
        let key = [MARK, files::sha256(key.as_bytes()).as_bytes()].concat();
        let opened = open(path).and_then(|mut file| {
            let mut found = vec![0; key.len()];
            let is_ours = file.read_exact(&mut found).is_ok() && found == key;
            if !is_ours {
                file.set_len(0)?;
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&key)?;
            }
            Ok(State { file, at_end: !is_ours, full: false, given: 0 })
        });
        match opened {
            Ok(state) => Some(Self { path: path.to_path_buf(), state: Mutex::new(state) }),
            Err(error) => {
                tracing::warn!(
                    "{}: {error}; without it, a stop costs what an image took so far",
                    path.display()
                );
                None
            }
        }
    }

    /// Removes the file at `path`, if it is one of answers.
    pub fn clear(path: &Path) {
        if std::fs::symlink_metadata(path).is_ok() && open(path).is_ok() {
            let _ = std::fs::remove_file(path);
        }
    }

    /// How many answers came from the file.
    pub fn given(&self) -> usize {
        self.state.lock().unwrap_or_else(|e| e.into_inner()).given
    }

    /// Removes the file: nobody will ask again.
    pub fn forget(self) {
        let _ = std::fs::remove_file(&self.path);
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
            state.cut(start);
        }
        let answer = compute()?;
        if !state.full {
            let tensors = packed(&answer.iter().collect::<Vec<_>>())?;
            let mut record = Vec::with_capacity(HEAD + tensors.len() + HASH);
            record.extend_from_slice(question.as_bytes());
            record.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
            record.extend_from_slice(&tensors);
            let sum = files::sha256(&record);
            record.extend_from_slice(sum.as_bytes());
            if let Err(error) = state.file.write_all(&record) {
                tracing::warn!("{}: {error}; no more answers are kept", self.path.display());
                // What is there would be in the way of the journal.
                state.cut(0);
                state.full = true;
            }
        }
        Ok(answer)
    }
}

/// Opens the file, or makes it. Others of its name are refused: links, pipes, and what does not begin like it.
fn open(path: &Path) -> std::io::Result<File> {
    let taken = || std::io::Error::other("something else is there");
    let exists = match std::fs::symlink_metadata(path) {
        Ok(data) if data.is_file() => true,
        Ok(_) => return Err(taken()),
        Err(_) => false,
    };
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let mut mark = Vec::new();
    if exists {
        (&mut file).take(MARK.len() as u64).read_to_end(&mut mark)?;
        file.seek(SeekFrom::Start(0))?;
    }
    if MARK.starts_with(&mark) { Ok(file) } else { Err(taken()) }
}

impl State {
    /// Throws away what follows.
    fn cut(&mut self, start: u64) {
        self.full |= self.file.set_len(start).and_then(|()| self.file.seek(SeekFrom::Start(start))).is_err();
    }

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
        last.forget();
        assert!(!path.exists());
    }

    #[test]
    fn without_a_file_the_model_is_asked_and_foreign_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers");
        assert!(Recall::open(&folder.path().join("nowhere/answers"), "key").is_none());
        std::fs::write(&path, "precious").unwrap();
        assert!(Recall::open(&path, "key").is_none());
        Recall::clear(&path);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        #[cfg(unix)]
        {
            let link = folder.path().join("link");
            std::os::unix::fs::symlink(folder.path().join("target"), &link).unwrap();
            assert!(Recall::open(&link, "key").is_none() && !folder.path().join("target").exists());
        }
        // A disk that is full, here from the beginning.
        let full = OpenOptions::new().read(true).write(true).open("/dev/full");
        if let Ok(file) = full {
            let state = State { file, at_end: true, full: false, given: 0 };
            let recall = Recall { path, state: Mutex::new(state) };
            assert_eq!(ask(&recall, 3), (vec![0.0, 1.0, 4.0], 3));
        }
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
            let Some(recall) = Recall::open(&path, "key") else {
                assert!(at < MARK.len(), "flip at {at}");
                continue;
            };
            assert_eq!(ask(&recall, 4).0, [0.0, 1.0, 4.0, 9.0], "flip at {at}");
            assert_eq!(std::fs::read(&path).unwrap(), whole, "the file is mended, {at}");
        }
    }
}
