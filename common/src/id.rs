//! Names and identities. Each is a type of its own; strings end at the parser.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a valid name or identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}: {why}")]
pub struct InvalidId {
    /// What it should have been.
    pub what: &'static str,
    /// The text that was given.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

macro_rules! as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// A model's name: one to three parts (`[catalog.]schema.table`), joined by dots.
///
/// Parts are already normalised (case folded as the model's dialect does, quotes removed), and
/// the gateway's default catalog is left out, so equal names are equal texts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName(Arc<str>);

impl ModelName {
    /// The name as text: parts joined by dots, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last part.
    pub fn table(&self) -> &str {
        self.0.rsplit('.').next().unwrap_or(&self.0)
    }

    /// The part before the last, where there is one.
    pub fn schema(&self) -> Option<&str> {
        self.0.rsplit('.').nth(1)
    }

    /// The first of three parts.
    pub fn catalog(&self) -> Option<&str> {
        self.0.rsplit('.').nth(2)
    }
}

impl FromStr for ModelName {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bad = |why| InvalidId { what: "model name", text: text.to_owned(), why };
        let mut parts = 0;
        for part in text.split('.') {
            parts += 1;
            if part.is_empty() {
                return Err(bad("a part of it is empty"));
            }
            if part.chars().any(|c| c.is_control() || c == '"' || c == '`') {
                return Err(bad("a part of it has a quote or a control character"));
            }
        }
        if parts > 3 {
            return Err(bad("it has more than three parts (catalog.schema.table)"));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

as_text!(ModelName);

/// A content hash: the first 128 bits of BLAKE3. Prints as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash128(pub u128);

impl fmt::Display for Hash128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Hash128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Hash128 {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bad = |why| InvalidId { what: "hash", text: text.to_owned(), why };
        if text.len() != 32 {
            return Err(bad("it must have 32 hexadecimal digits"));
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| bad("it has a character that is not hexadecimal"))
    }
}

as_text!(Hash128);

/// Feeds named fields into a [`Hash128`]; each field is length-prefixed, so no two different
/// sequences of fields collide by concatenation.
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Starts a hash in a domain; the domain carries the version of what is hashed (`"data/v1"`).
    pub fn new(domain: &str) -> Self {
        Self(blake3::Hasher::new()).field("domain", domain)
    }

    /// Adds a named field.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.add(name, value);
        self
    }

    /// Adds a named field in place.
    pub fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.0.update(&(name.len() as u64).to_le_bytes());
        self.0.update(name.as_bytes());
        self.0.update(&(value.len() as u64).to_le_bytes());
        self.0.update(value);
    }

    /// The hash of all fields so far.
    pub fn finish(&self) -> Hash128 {
        let mut half = [0; 16];
        half.copy_from_slice(&self.0.finalize().as_bytes()[..16]);
        Hash128(u128::from_be_bytes(half))
    }
}

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub Hash128);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.parse().map(Self)
            }
        }
        as_text!($name);
    };
}

hash_id! {
    /// One snapshot: a model at one fingerprint.
    SnapshotId
}
hash_id! {
    /// Names a physical table's generation; snapshots that share it share data.
    Version
}
hash_id! {
    /// One plan: the hash of its canonical content, so equal plans are one plan.
    PlanId
}

/// An environment's name: lower case letters, digits and underscores.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EnvironmentName(Arc<str>);

impl EnvironmentName {
    /// The name of production, whose views carry no suffix.
    pub const PROD: &str = "prod";

    /// Production.
    pub fn prod() -> Self {
        Self(Self::PROD.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is production.
    pub fn is_prod(&self) -> bool {
        &*self.0 == Self::PROD
    }

    /// What dev schemas, tables or catalogs end in: `__<name>`; production has none.
    pub fn suffix(&self) -> Option<String> {
        (!self.is_prod()).then(|| format!("__{}", self.0))
    }
}

impl FromStr for EnvironmentName {
    type Err = InvalidId;
    /// Lower-cases, and turns `-`, `.`, `/` and spaces into `_` as SQLMesh does; anything else
    /// that is not a word character is refused.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bad = |why| InvalidId { what: "environment name", text: text.to_owned(), why };
        let name: String = text
            .trim()
            .chars()
            .map(|c| if matches!(c, '-' | '.' | '/' | ' ') { '_' } else { c.to_ascii_lowercase() })
            .collect();
        if name.is_empty() {
            return Err(bad("it is empty"));
        }
        if name.len() > 48 {
            return Err(bad("it is longer than 48 characters"));
        }
        if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            return Err(bad("it has other characters than letters, digits, `_` and `-`"));
        }
        Ok(Self(name.into()))
    }
}

impl fmt::Display for EnvironmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

as_text!(EnvironmentName);

/// One worker process from start to end; a restarted worker is another session.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkerId(Arc<str>);

impl WorkerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WorkerId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let good = (1..=128).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':'));
        if good {
            return Ok(Self(text.into()));
        }
        Err(InvalidId {
            what: "worker id",
            text: text.to_owned(),
            why: "use 1 to 128 letters, digits and `-_.:`",
        })
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

as_text!(WorkerId);

/// A fencing token: grows with every grant. Whoever holds an older one can no longer change
/// anything.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub u64);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_names_give_their_parts() {
        let name: ModelName = "cat.sch.tab".parse().unwrap();
        assert_eq!((name.catalog(), name.schema(), name.table()), (Some("cat"), Some("sch"), "tab"));
        let name: ModelName = "tab".parse().unwrap();
        assert_eq!((name.catalog(), name.schema(), name.table()), (None, None, "tab"));
        assert!("a..b".parse::<ModelName>().is_err());
        assert!("a.b.c.d".parse::<ModelName>().is_err());
    }

    #[test]
    fn environment_names_are_normalised_or_refused() {
        assert_eq!("Dev-Anna".parse::<EnvironmentName>().unwrap().as_str(), "dev_anna");
        for bad in ["", "a;b", "ä", "x\"y"] {
            assert!(bad.parse::<EnvironmentName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hashes_print_and_parse() {
        let hash = Hasher::new("t/v1").field("a", "b").finish();
        assert_eq!(hash.to_string().parse::<Hash128>().unwrap(), hash);
        assert_ne!(hash, Hasher::new("t/v1").field("ab", "").finish());
    }
}
