//! The connection to etcd: made anew when the files of its certificates change.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use coord_proto::tls::{FileWatch, check_client_files};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, KvClient, TlsOptions};
use tracing::{info, warn};

use super::etcd::{MAX_ANSWER_BYTES, REQUEST_TIMEOUT, translate};
use super::{EtcdUrl, StoreError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the files are looked at, at most: requests are many.
const LOOK: Duration = Duration::from_secs(1);

/// Clients of a cluster.
pub(super) struct Connection {
    url: EtcdUrl,
    state: Mutex<State>,
}

struct State {
    client: Client,
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
        let state = State { client: connect(url).await?, files, looked: Instant::now() };
        Ok(Self { url: url.clone(), state: Mutex::new(state) })
    }

    /// The members, for people.
    pub(super) fn place(&self) -> String {
        self.url.endpoints.join(",")
    }

    /// The client by now.
    pub(super) fn client(&self) -> Client {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).client.clone()
    }

    /// Its part for keys and values.
    pub(super) fn kv(&self) -> KvClient {
        self.client().kv_client().max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Connects anew where certificates have changed. While the new ones are bad, or etcd refuses
    /// them, the former connection stays.
    pub(super) async fn refresh(&self) {
        if !self.has_changed() {
            return;
        }
        match connect(&self.url).await {
            Ok(client) => {
                info!("certificates for etcd were read anew");
                self.state.lock().unwrap_or_else(PoisonError::into_inner).client = client;
            }
            Err(error) => {
                warn!(%error, "new certificates for etcd can't be used: the former connection stays")
            }
        }
    }

    fn has_changed(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() < LOOK {
            return false;
        }
        state.looked = Instant::now();
        state.files.has_changed()
    }
}

async fn connect(url: &EtcdUrl) -> Result<Client, StoreError> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
        .with_keep_alive_while_idle(true)
        .with_auto_token_refresh(true);
    if let Some((user, password)) = &url.user {
        options = options.with_user(user, password.expose());
    }
    if let Some(tls) = tls(url).await? {
        options = options.with_tls(tls);
    }
    let place = url.endpoints.join(",");
    match tokio::time::timeout(REQUEST_TIMEOUT, Client::connect(&url.endpoints, Some(options))).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => Err(translate(&place, &error)),
        Err(_) => Err(StoreError::Unavailable(format!("no answer from {place}"))),
    }
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
