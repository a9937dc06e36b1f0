//! Tokens of an identity provider (OpenID Connect): signed claims, checked without asking it.

use std::path::PathBuf;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::{Map, Value};
use tracing::info;

use super::jwks::{JwksError, Keys, Source};
use super::ring_provider::{ALLOWED, install};
use super::{Identity, Proof, Role, Unproven};

/// How far clocks may differ, in seconds.
const LEEWAY: u64 = 30;
/// Longest token looked at, in bytes.
const LONGEST: usize = 16 * 1024;

/// Which tokens of which identity provider are taken.
#[derive(Debug, Clone)]
pub struct OidcConfig {
    /// Who issues them: exactly their claim `iss`.
    pub issuer: String,
    /// For whom they must be: one of their claim `aud`.
    pub audience: String,
    /// The provider's keys: a file, or the address of its key set.
    pub jwks: String,
    /// Certificates that are trusted to speak for that address, instead of the public ones.
    pub authority: Option<PathBuf>,
    /// The claim that lists roles; a path with dots where it is within others.
    pub roles_claim: String,
}

/// An identity provider's tokens.
pub(super) struct Oidc {
    config: OidcConfig,
    keys: Source,
}

impl Oidc {
    /// Begins to take tokens. Keys that have an address are fetched in the background: it takes a
    /// runtime.
    pub(super) fn open(config: OidcConfig) -> Result<Self, JwksError> {
        install();
        let keys = Source::open(&config.jwks, config.authority.as_deref())?;
        info!(issuer = config.issuer, audience = config.audience, "tokens of an identity provider are taken");
        Ok(Self { config, keys })
    }

    /// Whose a token is.
    pub(super) async fn identify(&self, token: &str) -> Result<Identity, Unproven> {
        match self.check(token, &self.keys.current()) {
            Err(Fault::UnknownKey) => {
                let keys = self.keys.refreshed().await;
                self.check(token, &keys)
            }
            checked => checked,
        }
        .map_err(|fault| Unproven::Refused(fault.to_string()))
    }

    fn check(&self, token: &str, keys: &Keys) -> Result<Identity, Fault> {
        if token.len() > LONGEST {
            return Err(Fault::Malformed);
        }
        let header = decode_header(token).map_err(|_| Fault::Malformed)?;
        if !ALLOWED.contains(&header.alg) {
            return Err(Fault::Algorithm);
        }
        let key = match &header.kid {
            Some(id) => keys.get(id).ok_or(Fault::UnknownKey)?,
            // Without an id there must be no doubt.
            None if keys.len() == 1 => keys.values().next().ok_or(Fault::UnknownKey)?,
            None => return Err(Fault::UnknownKey),
        };
        if !key.signs_with(header.alg) {
            return Err(Fault::Algorithm);
        }
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&[&self.config.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = decode::<Map<String, Value>>(token, &key.key, &validation).map_err(fault)?.claims;
        let subject = claims.get("sub").and_then(Value::as_str).ok_or(Fault::Claim("sub".to_owned()))?;
        Identity::new(subject, roles(&claims, &self.config.roles_claim), Proof::Oidc)
            .map_err(|_| Fault::Claim("sub".to_owned()))
    }
}

/// The roles in a claim: a list of texts, or one text with spaces between. Others that the provider
/// knows are none of ours.
fn roles(claims: &Map<String, Value>, path: &str) -> Vec<Role> {
    let names: Vec<&str> = match claim(claims, path) {
        Some(Value::String(text)) => text.split_whitespace().collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    names.into_iter().filter_map(|name| name.parse().ok()).collect()
}

/// A claim by its name, which may have dots in it as URLs do; or else by its path.
fn claim<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut names = path.split('.');
    let first = claims.get(names.next()?)?;
    names.try_fold(first, |value, name| value.get(name))
}

/// Why a token isn't taken; texts quote nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("the token is malformed")]
    Malformed,
    #[error("the token is signed with an algorithm that isn't taken, or not its key's")]
    Algorithm,
    #[error("the token is signed with a key that the identity provider doesn't publish")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token isn't valid yet")]
    Early,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token is from another issuer")]
    Issuer,
    #[error("the token's claim `{0}` is missing or malformed")]
    Claim(String),
}

fn fault(error: jsonwebtoken::errors::Error) -> Fault {
    match error.kind() {
        ErrorKind::InvalidSignature => Fault::Signature,
        ErrorKind::ExpiredSignature => Fault::Expired,
        ErrorKind::ImmatureSignature => Fault::Early,
        ErrorKind::InvalidAudience => Fault::Audience,
        ErrorKind::InvalidIssuer => Fault::Issuer,
        ErrorKind::InvalidAlgorithm => Fault::Algorithm,
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            Fault::Claim(claim.clone())
        }
        _ => Fault::Malformed,
    }
}

/// Whether a token looks like one of an identity provider: three parts.
pub(super) fn is_signed(token: &str) -> bool {
    token.split('.').count() == 3
}

#[cfg(test)]
#[path = "oidc_tests.rs"]
mod tests;
