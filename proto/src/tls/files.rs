//! Certificates and keys in files, and what is made of them for as long as the files stay as they are.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tracing::{info, warn};

/// A file that can't serve for TLS. It never holds what is in the file.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct TlsError {
    path: PathBuf,
    why: String,
}

impl TlsError {
    pub(super) fn new(path: &Path, why: impl ToString) -> Self {
        Self { path: path.to_owned(), why: why.to_string() }
    }

    /// The file, or the flag.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    pub fn why(&self) -> &str {
        &self.why
    }
}

/// The one implementation of cryptography, named so that no other one in the process interferes.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates of a file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all {
        Ok(all) if all.is_empty() => Err(TlsError::new(path, "it holds no certificate in PEM form")),
        Ok(all) => Ok(all),
        Err(error) => Err(unreadable(path, error)),
    }
}

/// The private key of a file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            TlsError::new(path, "it holds no private key in PEM form without a passphrase")
        }
        error => unreadable(path, error),
    })
}

/// The authorities of a file.
pub(super) fn authorities(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| TlsError::new(path, error))?;
    }
    Ok(Arc::new(roots))
}

fn unreadable(path: &Path, error: pem::Error) -> TlsError {
    match error {
        pem::Error::Io(error) => TlsError::new(path, error),
        error => TlsError::new(path, format!("it is no PEM file: {error}")),
    }
}

/// What tells one version of a file from the next: it may be written anew, replaced, or be a link
/// that turns to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, u64, i64, i64)>);

impl Stamp {
    fn of(path: &Path) -> Self {
        let stamp = |data: Metadata| (data.dev(), data.ino(), data.len(), data.mtime(), data.mtime_nsec());
        Self(std::fs::metadata(path).ok().map(stamp))
    }
}

/// Files that may change.
#[derive(Debug)]
pub struct FileWatch {
    files: Vec<PathBuf>,
    stamps: Vec<Stamp>,
}

impl FileWatch {
    /// Files as they are now.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let stamps = files.iter().map(|file| Stamp::of(file)).collect();
        Self { files, stamps }
    }

    /// Whether any of them has changed since this was last asked. What changes while they are read
    /// after that, is seen the next time.
    pub fn has_changed(&mut self) -> bool {
        let stamps: Vec<Stamp> = self.files.iter().map(|file| Stamp::of(file)).collect();
        let changed = stamps != self.stamps;
        self.stamps = stamps;
        changed
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        names.join(", ")
    }
}

/// Makes a value of files.
type Load<T> = Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>;

/// A value made of files, and made anew when they have changed. While the new files are bad, the
/// value of the old ones stays.
pub(super) struct Reloading<T> {
    load: Load<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    files: FileWatch,
    value: Arc<T>,
}

impl<T> Reloading<T> {
    /// Makes the first value, which must succeed.
    pub(super) fn new(
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let files = FileWatch::new(files);
        let value = Arc::new(load()?);
        Ok(Self { load: Box::new(load), state: Mutex::new(State { files, value }) })
    }

    /// The value by now.
    pub(super) fn current(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.files.has_changed() {
            match (self.load)() {
                Ok(value) => {
                    info!(files = %state.files.names(), "certificates were read anew");
                    state.value = Arc::new(value);
                }
                Err(error) => warn!(%error, "new certificates can't be used: the former ones stay"),
            }
        }
        state.value.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(folder: &Path) -> Reloading<u32> {
        let file = folder.join("n");
        let read = file.clone();
        let load = move || {
            let text = std::fs::read_to_string(&read).map_err(|error| TlsError::new(&read, error))?;
            text.trim().parse().map_err(|error: std::num::ParseIntError| TlsError::new(&read, error))
        };
        Reloading::new(vec![file], load).unwrap()
    }

    #[test]
    fn a_changed_file_is_read_anew_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("n");
        std::fs::write(&file, "1").unwrap();
        let value = number(folder.path());
        assert_eq!(*value.current(), 1);
        for (text, shown) in [("22", 22), ("bad", 22), ("333", 333)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!((*value.current(), *value.current()), (shown, shown), "{text}");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(*value.current(), 333);
        std::fs::write(&file, "4444").unwrap();
        assert_eq!(*value.current(), 4444);
    }

    #[test]
    fn a_link_that_turns_to_another_file_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("a", "1"), ("b", "2")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let link = folder.path().join("n");
        std::os::unix::fs::symlink("a", &link).unwrap();
        let value = number(folder.path());
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("b", &link).unwrap();
        assert_eq!(*value.current(), 2);
    }

    #[test]
    fn files_that_cannot_serve_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.pem");
        assert!(certificates(&file).unwrap_err().to_string().contains("x.pem: No such file"));
        std::fs::write(&file, "hunter2").unwrap();
        for error in [certificates(&file).unwrap_err(), private_key(&file).unwrap_err()] {
            let text = error.to_string();
            assert!(text.contains("x.pem: it holds no") && !text.contains("hunter2"), "{text}");
        }
    }
}
