//! The connection to etcd: made anew when the files of its certificates change.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coord_proto::tls::{FileWatch, check_client_files};
use etcd_client::{Certificate, Client, ConnectOptions, Error, Identity, TlsOptions};
use tracing::{info, warn};

use super::etcd::translate;
use super::members::{Members, Way};
use super::{EtcdUrl, StoreError};

/// How often the files are looked at, at most: requests are many.
const LOOK: Duration = Duration::from_secs(1);

/// A cluster's members, with the certificates to reach them.
pub(super) struct Connection {
    url: EtcdUrl,
    state: Mutex<State>,
}

struct State {
    members: Arc<Members>,
    files: FileWatch,
    looked: Instant,
}

impl Connection {
    /// Connects to a cluster. Without a user this sends nothing yet, so it works while etcd is down.
    ///
    /// # Errors
    /// [`StoreError::Storage`] where a certificate can't be read, [`StoreError::Denied`] where the
    /// user or password is wrong.
    pub(super) async fn open(url: &EtcdUrl) -> Result<Self, StoreError> {
        let files = url.ca.iter().chain(url.identity.iter().flat_map(|(cert, key)| [cert, key])).cloned();
        let files = FileWatch::new(files.collect());
        let state = State { members: connect(url).await?, files, looked: Instant::now() };
        Ok(Self { url: url.clone(), state: Mutex::new(state) })
    }

    /// The members, for people.
    pub(super) fn place(&self) -> String {
        self.url.endpoints.join(",")
    }

    /// The member to ask now, and the way to it: with the certificates as they are now. While their
    /// files are bad, the former connections stay.
    ///
    /// # Errors
    /// Why none of them can be asked.
    pub(super) async fn client(&self) -> Result<(usize, Client), Error> {
        if self.has_changed() {
            match connect(&self.url).await {
                Ok(members) => {
                    info!("certificates for etcd were read anew");
                    self.state().members = members;
                }
                Err(error) => {
                    warn!(%error, "new certificates for etcd can't be used: the former connections stay");
                }
            }
        }
        let members = self.state().members.clone();
        members.client().await
    }

    /// Turns to another member, as this one didn't answer, unless that was done already.
    pub(super) fn leave(&self, at: usize) {
        self.state().members.leave(at);
    }

    /// How many members there are.
    pub(super) fn count(&self) -> usize {
        self.state().members.count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_changed(&self) -> bool {
        let mut state = self.state();
        if state.looked.elapsed() < LOOK {
            return false;
        }
        state.looked = Instant::now();
        state.files.has_changed()
    }
}

async fn connect(url: &EtcdUrl) -> Result<Arc<Members>, StoreError> {
    let mut options = ConnectOptions::new().with_auto_token_refresh(true);
    if let Some((user, password)) = &url.user {
        options = options.with_user(user, password.expose());
    }
    let way = Way { options, tls: tls(url).await? };
    let members = Members::connect(&url.endpoints, way).await;
    Ok(Arc::new(members.map_err(|error| translate(&url.endpoints.join(","), &error))?))
}

async fn tls(url: &EtcdUrl) -> Result<Option<TlsOptions>, StoreError> {
    let Some(ca) = &url.ca else { return Ok(None) };
    // The client would only say that something is wrong, and not with which file.
    check_client_files(ca, url.identity.as_ref()).map_err(|error| StoreError::Storage {
        place: error.path().display().to_string(),
        problem: error.why().to_owned(),
        remedy: FILES,
    })?;
    let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read_pem(ca).await?));
    if let Some((cert, key)) = &url.identity {
        tls = tls.identity(Identity::from_pem(read_pem(cert).await?, read_pem(key).await?));
    }
    Ok(Some(tls))
}

const FILES: &str = "check the file named in the state URL";

async fn read_pem(path: &Path) -> Result<Vec<u8>, StoreError> {
    tokio::fs::read(path).await.map_err(|error| StoreError::Storage {
        place: path.display().to_string(),
        problem: error.to_string(),
        remedy: FILES,
    })
}
