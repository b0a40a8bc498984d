//! TensorBoard event files: scalars over steps.
//!
//! An event file is a sequence of TFRecords (length, masked CRC-32C of the length, payload, masked
//! CRC-32C of the payload), each holding one `tensorflow.Event` protocol buffer
//! (tensorflow/core/util/event.proto). Only the few fields that scalars need are written.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Error, Result};

/// Writes scalars for TensorBoard.
///
/// Every writer opens a file of its own and never touches an older one; TensorBoard joins all files of
/// a folder. A resumed run says with [`EventWriter::resume`] from which step on the older values are
/// void.
///
/// The file is made when the first values are flushed: a run that is stopped before that leaves none.
pub struct EventWriter {
    folder: PathBuf,
    /// Records that are not in the file yet.
    pending: Vec<u8>,
    file: Option<(PathBuf, File)>,
}

impl EventWriter {
    /// A new event file in `folder`, which is created if need be.
    pub fn create(folder: &Path) -> Self {
        let mut writer = Self { folder: folder.into(), pending: Vec::new(), file: None };
        let mut event = event_header(0);
        write_bytes(&mut event, field::FILE_VERSION, b"brain.Event:2");
        writer.write_record(&event);
        writer
    }

    /// Like [`EventWriter::create`], for a run that goes on: what earlier files of the folder say about
    /// `step` and later is replaced by what is written now.
    pub fn resume(folder: &Path, step: u64) -> Self {
        let mut writer = Self::create(folder);
        let mut event = event_header(step);
        // SessionLog { status: START }
        write_bytes(&mut event, field::SESSION_LOG, &[0x08, 0x01]);
        writer.write_record(&event);
        writer
    }

    /// Writes one value, with the next [`EventWriter::flush`].
    pub fn scalar(&mut self, tag: &str, step: u64, value: f32) {
        let mut summary_value = Vec::with_capacity(tag.len() + 8);
        write_bytes(&mut summary_value, field::TAG, tag.as_bytes());
        summary_value.push(field::SIMPLE_VALUE << 3 | WIRE_32_BIT);
        summary_value.extend_from_slice(&value.to_le_bytes());
        let mut summary = Vec::with_capacity(summary_value.len() + 4);
        write_bytes(&mut summary, field::VALUE, &summary_value);
        let mut event = event_header(step);
        write_bytes(&mut event, field::SUMMARY, &summary);
        self.write_record(&event);
    }

    /// Hands everything written so far to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        if self.file.is_none() {
            std::fs::create_dir_all(&self.folder).map_err(|e| Error::io(&self.folder, e))?;
            self.file = Some(unused_file(&self.folder)?);
        }
        if let Some((path, file)) = &mut self.file {
            file.write_all(&self.pending).map_err(|e| Error::io(&*path, e))?;
            self.pending.clear();
        }
        Ok(())
    }

    /// The event file, once there is one.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| path.as_path())
    }

    fn write_record(&mut self, payload: &[u8]) {
        let length = (payload.len() as u64).to_le_bytes();
        self.pending.extend_from_slice(&length);
        self.pending.extend_from_slice(&masked_crc(&length).to_le_bytes());
        self.pending.extend_from_slice(payload);
        self.pending.extend_from_slice(&masked_crc(payload).to_le_bytes());
    }
}

/// Opens a file of a name that TensorBoard recognizes and nobody has taken.
fn unused_file(folder: &Path) -> Result<(PathBuf, File)> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    for number in 0.. {
        // TensorBoard reads files in the order of their names, so the number has a fixed width.
        let path = folder.join(format!("events.out.tfevents.{seconds:010}.bandwise.{number:04}"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io(path, e)),
        }
    }
    unreachable!("some number is free")
}

/// Field numbers of `Event`, `Summary` and `Summary.Value`.
mod field {
    pub(super) const WALL_TIME: u8 = 1;
    pub(super) const STEP: u8 = 2;
    pub(super) const FILE_VERSION: u8 = 3;
    pub(super) const SUMMARY: u8 = 5;
    pub(super) const SESSION_LOG: u8 = 7;
    pub(super) const VALUE: u8 = 1;
    pub(super) const TAG: u8 = 1;
    pub(super) const SIMPLE_VALUE: u8 = 2;
}

const WIRE_VARINT: u8 = 0;
const WIRE_64_BIT: u8 = 1;
const WIRE_BYTES: u8 = 2;
const WIRE_32_BIT: u8 = 5;

/// An event with its time and step.
fn event_header(step: u64) -> Vec<u8> {
    let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    let mut event = vec![field::WALL_TIME << 3 | WIRE_64_BIT];
    event.extend_from_slice(&wall_time.to_le_bytes());
    event.push(field::STEP << 3 | WIRE_VARINT);
    write_varint(&mut event, step);
    event
}

fn write_bytes(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field << 3 | WIRE_BYTES);
    write_varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

fn write_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

/// TFRecord's mask, which keeps a checksum of checksummed data from degenerating.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78).
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0u32; 256];
        let mut index = 0;
        while index < 256 {
            let mut crc = index as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[index] = crc;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0u32, |crc, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a file into payloads, checking lengths and checksums.
    fn payloads(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            assert_eq!(masked_crc(&bytes[..8]).to_le_bytes(), bytes[8..12]);
            let payload = &bytes[12..12 + length];
            assert_eq!(masked_crc(payload).to_le_bytes(), bytes[12 + length..16 + length]);
            payloads.push(payload.to_vec());
            bytes = &bytes[16 + length..];
        }
        payloads
    }

    /// The fields of a message: number, and the value as raw bytes (varints as their value).
    fn fields(mut message: &[u8]) -> Vec<(u8, Vec<u8>)> {
        fn varint(message: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let byte = message[0];
                *message = &message[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        let mut fields = Vec::new();
        while !message.is_empty() {
            let key = varint(&mut message) as u8;
            let length = match key & 7 {
                WIRE_VARINT => {
                    fields.push((key >> 3, varint(&mut message).to_le_bytes().to_vec()));
                    continue;
                }
                WIRE_64_BIT => 8,
                WIRE_32_BIT => 4,
                WIRE_BYTES => varint(&mut message) as usize,
                wire => panic!("wire type {wire}"),
            };
            fields.push((key >> 3, message[..length].to_vec()));
            message = &message[length..];
        }
        fields
    }

    fn find(fields: &[(u8, Vec<u8>)], number: u8) -> &[u8] {
        &fields.iter().find(|(n, _)| *n == number).unwrap().1
    }

    #[test]
    fn checksums_agree_with_published_values() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn scalars_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(&folder.path().join("events"));
        writer.scalar("train/loss", 3, 0.25);
        writer.flush().unwrap();
        writer.scalar("learning_rate", 1_000_000, -1.5);
        writer.flush().unwrap();
        let events = payloads(&std::fs::read(writer.path().unwrap()).unwrap());
        assert_eq!(events.len(), 3);
        assert_eq!(find(&fields(&events[0]), 3), b"brain.Event:2");
        for (event, (tag, step, value)) in
            events[1..].iter().zip([("train/loss", 3u64, 0.25f32), ("learning_rate", 1_000_000, -1.5)])
        {
            let event = fields(event);
            assert_eq!(find(&event, 2), step.to_le_bytes());
            assert!(f64::from_le_bytes(find(&event, 1).try_into().unwrap()) > 1.6e9);
            let value_message = fields(find(&fields(find(&event, 5)), 1));
            assert_eq!(find(&value_message, 1), tag.as_bytes());
            assert_eq!(find(&value_message, 2), value.to_le_bytes());
        }
    }

    #[test]
    fn a_resumed_run_writes_a_new_file_that_says_where_it_starts() {
        let folder = tempfile::tempdir().unwrap();
        // One that is stopped before its first values leaves nothing.
        let mut stopped = EventWriter::resume(folder.path(), 20);
        stopped.scalar("train/loss", 21, 0.5);
        drop(stopped);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut first = EventWriter::create(folder.path());
        first.flush().unwrap();
        let mut second = EventWriter::resume(folder.path(), 40);
        second.flush().unwrap();
        assert!(second.path().unwrap() > first.path().unwrap());
        let events = payloads(&std::fs::read(second.path().unwrap()).unwrap());
        let start = fields(&events[1]);
        assert_eq!(find(&start, 2), 40u64.to_le_bytes());
        assert_eq!(find(&start, 7), [0x08, 0x01]);
    }
}
