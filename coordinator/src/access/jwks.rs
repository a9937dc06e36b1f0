//! The public keys of an identity provider: a JSON web key set in a file, or fetched and kept fresh.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use coord_proto::net::keeps_secrets;
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};
use ureq::tls::{RootCerts, TlsConfig};

use super::FileError;
use super::ring_provider::ALLOWED;
use super::watched::Watched;

/// How often keys are fetched though all that is shown is signed by known ones: keys that were
/// withdrawn stop counting within this time.
const USUALLY: Duration = Duration::from_secs(300);
/// How often an unknown key may have them fetched: nobody can flood the provider through us.
const AT_MOST: Duration = Duration::from_secs(10);
/// How long a fetch may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest key set taken, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// A key, and what it may be used for.
pub(super) struct Key {
    pub(super) key: DecodingKey,
    algorithm: Option<KeyAlgorithm>,
}

impl Key {
    /// Whether it may have signed with an algorithm.
    pub(super) fn signs_with(&self, algorithm: Algorithm) -> bool {
        let named = self.algorithm.is_none_or(|named| named == KeyAlgorithm::from(algorithm));
        ALLOWED.contains(&algorithm) && self.key.family() == algorithm.family() && named
    }
}

/// Keys by their ids.
pub(super) type Keys = BTreeMap<String, Key>;

/// Reads a key set. Keys of other kinds or for other uses are left out.
pub(super) fn parse(text: &str) -> Result<Keys, String> {
    let set: JwkSet =
        serde_json::from_str(text).map_err(|error| format!("it is no JSON web key set: {error}"))?;
    let mut keys = Keys::new();
    for (number, jwk) in set.keys.iter().enumerate() {
        let Some(key) = usable(jwk) else { continue };
        let id = jwk.common.key_id.clone().unwrap_or_else(|| format!("#{number}"));
        if keys.insert(id.clone(), key).is_some() {
            return Err(format!("two keys have the id `{id}`"));
        }
    }
    if keys.is_empty() {
        return Err("it holds no public key for signatures with RSA, P-256 or P-384".to_owned());
    }
    Ok(keys)
}

fn usable(jwk: &Jwk) -> Option<Key> {
    let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let known = ALLOWED.iter().any(|algorithm| algorithm.family() == key.family());
    (signs && known).then_some(Key { key, algorithm: jwk.common.key_algorithm })
}

/// Where keys come from.
pub(super) enum Source {
    /// A file, read again when it changes.
    File(Watched<Keys>),
    /// An address, fetched again in the background.
    Address(Arc<Fetched>),
}

/// Why keys can't be had.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The file can't be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Others could change the keys on their way.
    #[error("{0} is neither https:// nor on this machine: keys could be changed on their way")]
    Insecure(String),
    /// The authority's certificates can't be read.
    #[error("{path} holds no certificates: {why}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl Source {
    /// The keys of a file, or of an address where `place` is one. `authority`: the certificates that
    /// are trusted to speak for that address, instead of the public ones.
    pub(super) fn open(place: &str, authority: Option<&Path>) -> Result<Self, JwksError> {
        if !place.contains("://") {
            return Ok(Self::File(Watched::open(Path::new(place), parse)?));
        }
        if !keeps_secrets(place) {
            return Err(JwksError::Insecure(place.to_owned()));
        }
        let fetched = Arc::new(Fetched {
            address: place.to_owned(),
            agent: agent(authority)?,
            keys: RwLock::new(Arc::new(Keys::new())),
            fetched: Mutex::new(None),
        });
        tokio::spawn(keep_fresh(Arc::downgrade(&fetched)));
        Ok(Self::Address(fetched))
    }

    /// What is known now.
    pub(super) fn current(&self) -> Arc<Keys> {
        match self {
            Self::File(file) => file.current(),
            Self::Address(fetched) => fetched.keys.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// What is known after somebody showed a key that wasn't.
    pub(super) async fn refreshed(&self) -> Arc<Keys> {
        if let Self::Address(fetched) = self {
            fetched.refresh(AT_MOST).await;
        }
        self.current()
    }
}

#[cfg(test)]
impl Source {
    /// As if the last fetch were long ago.
    pub(super) async fn forget_when_fetched(&self) {
        if let Self::Address(fetched) = self {
            *fetched.fetched.lock().await = None;
        }
    }
}

/// Keys that are fetched.
pub(super) struct Fetched {
    address: String,
    agent: ureq::Agent,
    keys: RwLock<Arc<Keys>>,
    /// When they were last fetched, or that was tried; held while it is.
    fetched: Mutex<Option<Instant>>,
}

async fn keep_fresh(fetched: std::sync::Weak<Fetched>) {
    while let Some(fetched) = fetched.upgrade() {
        fetched.refresh(AT_MOST).await;
        drop(fetched);
        tokio::time::sleep(USUALLY).await;
    }
}

impl Fetched {
    /// Fetches the keys unless that was tried within `least`. Callers at the same time wait for one
    /// fetch. What fails leaves the keys of before.
    async fn refresh(&self, least: Duration) {
        let mut last = self.fetched.lock().await;
        if last.is_some_and(|at| at.elapsed() < least) {
            return;
        }
        *last = Some(Instant::now());
        let (agent, address) = (self.agent.clone(), self.address.clone());
        let fetch = tokio::task::spawn_blocking(move || fetch(&agent, &address));
        let keys = match timeout(PATIENCE * 2, fetch).await {
            Ok(Ok(keys)) => keys,
            Ok(Err(_)) | Err(_) => Err("the fetch didn't end".to_owned()),
        };
        match keys {
            Ok(keys) => {
                info!(address = self.address, keys = keys.len(), "the identity provider's keys were fetched");
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            }
            Err(why) => {
                warn!(
                    address = self.address,
                    why, "the identity provider's keys can't be fetched; those of before stay"
                );
            }
        }
    }
}

fn agent(authority: Option<&Path>) -> Result<ureq::Agent, JwksError> {
    let mut tls = TlsConfig::builder();
    if let Some(path) = authority {
        let bad = |why: String| JwksError::Authority { path: path.to_owned(), why };
        let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
        let mut certificates = Vec::new();
        for item in ureq::tls::parse_pem(&text) {
            if let ureq::tls::PemItem::Certificate(certificate) =
                item.map_err(|error| bad(error.to_string()))?
            {
                certificates.push(certificate);
            }
        }
        if certificates.is_empty() {
            return Err(bad("there is none in it".to_owned()));
        }
        tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
    }
    let config = ureq::Agent::config_builder()
        .tls_config(tls.build())
        .timeout_global(Some(PATIENCE))
        .max_redirects(0)
        .proxy(None)
        .build();
    Ok(config.new_agent())
}

fn fetch(agent: &ureq::Agent, address: &str) -> Result<Keys, String> {
    let mut answer = agent.get(address).call().map_err(|error| error.to_string())?;
    if answer.status() != 200 {
        return Err(format!("it answered {}", answer.status()));
    }
    let text = answer.body_mut().with_config().limit(LARGEST).read_to_string();
    parse(&text.map_err(|error| error.to_string())?)
}
