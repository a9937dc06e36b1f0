//! A file that is read again when it changes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, warn};

/// How old what is known of a file may be: what was taken out of it stops counting within this time.
const FRESH: Duration = Duration::from_millis(500);
/// Largest file taken, in bytes.
const LARGEST: u64 = 4 * 1024 * 1024;

/// Why a file can't be used. Texts quote nothing that is secret.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error("{path} can't be read: {source}")]
    Io {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{path}: {why}")]
    Content {
        /// Its path.
        path: PathBuf,
        /// Where, and what.
        why: String,
    },
}

/// How a file's text is understood; an error says where and what is wrong.
type Parse<T> = fn(&str) -> Result<T, String>;

/// A file, and what it says.
pub(super) struct Watched<T> {
    path: PathBuf,
    parse: Parse<T>,
    known: Mutex<Known<T>>,
}

struct Known<T> {
    stamp: Option<Stamp>,
    looked: Instant,
    content: Arc<T>,
}

/// What tells whether a file has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    size: u64,
    node: u64,
}

impl<T> Watched<T> {
    /// Reads the file for the first time.
    pub(super) fn open(path: &Path, parse: Parse<T>) -> Result<Self, FileError> {
        let stamp = stamp(path).ok();
        let content = Arc::new(read(path, parse)?);
        let known = Known { stamp, looked: Instant::now(), content };
        Ok(Self { path: path.to_owned(), parse, known: Mutex::new(known) })
    }

    /// What the file says, or said at most half a second ago.
    pub(super) fn current(&self) -> Arc<T> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked.elapsed() >= FRESH {
            self.refresh(&mut known);
        }
        known.content.clone()
    }

    /// Looks at once whether the file has changed.
    #[cfg(test)]
    pub(super) fn look(&self) {
        self.refresh(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Reads the file where it has changed. What can't be used changes nothing.
    fn refresh(&self, known: &mut Known<T>) {
        known.looked = Instant::now();
        let now = stamp(&self.path).ok();
        if now == known.stamp {
            return;
        }
        known.stamp = now;
        match read(&self.path, self.parse) {
            Ok(content) => {
                info!(path = %self.path.display(), "a changed file was read");
                known.content = Arc::new(content);
            }
            Err(error) => warn!(%error, "a file has changed and can't be used; what it said before stays"),
        }
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    use std::os::unix::fs::MetadataExt as _;
    let data = std::fs::metadata(path)?;
    Ok(Stamp { modified: data.modified().ok(), size: data.len(), node: data.ino() })
}

fn read<T>(path: &Path, parse: Parse<T>) -> Result<T, FileError> {
    let io = |source| FileError::Io { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(io)?.len() > LARGEST {
        return Err(io(io::Error::other("it is larger than 4 MiB")));
    }
    let text = std::fs::read_to_string(path).map_err(io)?;
    parse(&text).map_err(|why| FileError::Content { path: path.to_owned(), why })
}
