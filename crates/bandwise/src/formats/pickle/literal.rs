//! Python's ways of writing numbers and text.

use std::sync::Arc;

use super::Value;

/// A little-endian two's complement number of any width.
pub(super) fn long(bytes: &[u8]) -> Value {
    let bytes = trimmed(bytes);
    if bytes.len() > 8 {
        return Value::LargeInt(Arc::from(bytes));
    }
    let negative = bytes.last().is_some_and(|&b| b >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}

/// Without the high bytes that only repeat the sign.
pub(super) fn trimmed(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., next, last] = bytes {
        let repeats_sign = (*last == 0 && *next < 0x80) || (*last == 0xff && *next >= 0x80);
        if !repeats_sign {
            break;
        }
        bytes = &bytes[..rest.len() + 1];
    }
    bytes
}

/// A quoted Python 2 string literal (`'a\x00b'`).
pub(super) fn unescape(quoted: &[u8]) -> Option<Vec<u8>> {
    let quoted = quoted.trim_ascii();
    let (&quote, rest) = quoted.split_first()?;
    let (&last, inner) = rest.split_last()?;
    if last != quote || !matches!(quote, b'\'' | b'"') {
        return None;
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next()? {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'x' => out.push((hex(bytes.next()?)? << 4 | hex(bytes.next()?)?) as u8),
            byte @ (b'\\' | b'\'' | b'"') => out.push(byte),
            other => out.extend([b'\\', other]),
        }
    }
    Some(out)
}

/// Python's "raw-unicode-escape": Latin-1 with `\uXXXX` and `\UXXXXXXXX`.
pub(super) fn unescape_unicode(raw: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let digits = match (byte, tail.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                out.push(char::from(*byte));
                continue;
            }
        };
        let code = tail.get(1..=digits)?.iter().try_fold(0u32, |code, &d| Some(code << 4 | hex(d)?))?;
        out.push(char::from_u32(code)?);
        rest = &tail[digits + 1..];
    }
    Some(out)
}

fn hex(digit: u8) -> Option<u32> {
    char::from(digit).to_digit(16)
}
