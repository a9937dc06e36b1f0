//! The file: lines of JSON. The first says what it is, the last has a checksum of all before it;
//! between them is a line for each record, in the order of keys.

use std::io::{BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use super::{BackupError, Era};
use crate::store::{Revision, keys, schema};

/// The version of the file's format.
const VERSION: u32 = 1;
/// No line is longer: a value at its limit, escaped.
const MAX_LINE: u64 = 8 << 20;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// The file's version.
    #[serde(rename = "coordctl-state")]
    version: u32,
    /// The format of the records.
    format: u32,
    /// The store's revision when they were taken.
    pub(super) revision: i64,
    /// The store's era.
    pub(super) era: Era,
    /// The greatest number of a flip.
    pub(super) flips: u64,
    /// How many records there are.
    records: usize,
}

/// A record: its value as it is where it is text, else in hexadecimal digits.
#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Footer {
    records: usize,
    blake3: String,
}

impl Header {
    pub(super) fn new(revision: Revision, era: Era, flips: u64, records: usize) -> Self {
        Self { version: VERSION, format: schema::FORMAT, revision: revision.0, era, flips, records }
    }
}

pub(super) struct Writer<W> {
    out: W,
    hasher: blake3::Hasher,
    records: usize,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W, header: &Header) -> Result<Self, BackupError> {
        let mut writer = Self { out, hasher: blake3::Hasher::new(), records: 0 };
        writer.line(header)?;
        Ok(writer)
    }

    pub(super) fn record(&mut self, key: &str, value: &[u8]) -> Result<(), BackupError> {
        self.records += 1;
        let text = std::str::from_utf8(value).ok().map(str::to_owned);
        let hex = text.is_none().then(|| value.iter().map(|byte| format!("{byte:02x}")).collect());
        self.line(&Line { key: key.to_owned(), text, hex })
    }

    /// Writes the end, and gives the hash of all before it.
    pub(super) fn finish(mut self) -> Result<String, BackupError> {
        let blake3 = self.hasher.finalize().to_hex().to_string();
        self.line(&Footer { records: self.records, blake3: blake3.clone() })?;
        self.out.flush()?;
        Ok(blake3)
    }

    fn line(&mut self, content: &impl Serialize) -> Result<(), BackupError> {
        let mut line = serde_json::to_vec(content).map_err(std::io::Error::from)?;
        line.push(b'\n');
        self.hasher.update(&line);
        Ok(self.out.write_all(&line)?)
    }
}

pub(super) struct Reader<R> {
    input: R,
    header: Header,
    hasher: blake3::Hasher,
    line: u64,
    records: usize,
    last: String,
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(mut input: R) -> Result<Self, BackupError> {
        let mut hasher = blake3::Hasher::new();
        let line = read_line(&mut input, 1)?;
        let bad = |why: &str| BackupError::Damaged { line: 1, why: why.to_owned() };
        #[derive(Deserialize)]
        struct Version {
            #[serde(rename = "coordctl-state")]
            version: u32,
        }
        let Version { version } =
            serde_json::from_slice(&line).map_err(|_| bad("it is no exported state"))?;
        if version > VERSION {
            return Err(BackupError::Newer { found: version, known: VERSION });
        }
        let header: Header = serde_json::from_slice(&line).map_err(|error| bad(&error.to_string()))?;
        schema::accept(header.format)?;
        hasher.update(&line);
        Ok(Self { input, header, hasher, line: 1, records: 0, last: String::new() })
    }

    /// The next record; nothing at the end, which has been checked then.
    pub(super) fn record(&mut self) -> Result<Option<(String, Vec<u8>)>, BackupError> {
        self.line += 1;
        let line = read_line(&mut self.input, self.line)?;
        if self.records == self.header.records {
            return self.end(&line).map(|()| None);
        }
        self.hasher.update(&line);
        self.records += 1;
        let Line { key, text, hex } =
            serde_json::from_slice(&line).map_err(|error| self.bad(&error.to_string()))?;
        let value = match (text, hex) {
            (Some(text), None) => Some(text.into_bytes()),
            (None, Some(hex)) => bytes(&hex),
            _ => None,
        };
        let value = value.ok_or_else(|| self.bad("a record without a value"))?;
        if key <= self.last || !key.starts_with(keys::ROOT) || key == keys::LEAD {
            return Err(self.bad("a key that doesn't belong here"));
        }
        self.last.clone_from(&key);
        Ok(Some((key, value)))
    }

    fn end(&mut self, line: &[u8]) -> Result<(), BackupError> {
        let footer: Footer = serde_json::from_slice(line).map_err(|error| self.bad(&error.to_string()))?;
        if footer.records != self.records || footer.blake3 != self.hasher.finalize().to_hex().as_str() {
            return Err(self.bad("the checksum of the file is wrong"));
        }
        if self.input.fill_buf()?.is_empty() { Ok(()) } else { Err(self.bad("something follows the end")) }
    }

    fn bad(&self, why: &str) -> BackupError {
        BackupError::Damaged { line: self.line, why: why.to_owned() }
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| Some((digit(*high)? << 4 | digit(*low)?) as u8);
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

fn read_line(input: &mut impl BufRead, number: u64) -> Result<Vec<u8>, BackupError> {
    let mut line = Vec::new();
    input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        let why = "the file is cut off, or is no exported state".to_owned();
        return Err(BackupError::Damaged { line: number, why });
    }
    Ok(line)
}

/// Reads all of a file, and every record in it; gives its header, and the hash that it ends with.
pub(super) fn check(input: impl BufRead) -> Result<(Header, String), BackupError> {
    let mut reader = Reader::new(input)?;
    while let Some((key, value)) = reader.record()? {
        crate::verify_record(&key, &value)?;
    }
    Ok((reader.header, reader.hasher.finalize().to_hex().to_string()))
}
