//! Who may call what. Every call is authenticated and authorised in one place, [`layer`], by one
//! table, [`permission`]; what isn't in the table is refused.

mod identity;
mod layer;
mod permission;
mod refusal;
mod tokens;

use std::path::Path;
use std::sync::Arc;

pub use identity::{BadName, BadRole, Identity, Proof, Role};
pub(crate) use layer::AccessLayer;
pub(crate) use permission::Permission;
pub(crate) use refusal::denied;
pub use tokens::{NewToken, TokenFileError};

use tokens::TokenFile;

/// How callers are authenticated.
#[derive(Clone, Default)]
pub struct Access(Option<Arc<Proofs>>);

/// What is taken as proof.
#[derive(Default)]
struct Proofs {
    tokens: Option<TokenFile>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Access({})", if self.0.is_some() { "authenticated" } else { "trusting" })
    }
}

/// What callers must show; made step by step when the process starts.
#[derive(Default)]
pub struct AccessBuilder(Proofs);

impl AccessBuilder {
    /// Takes the bearer tokens whose hashes a file lists.
    ///
    /// # Errors
    /// [`TokenFileError`] when it can't be read or has a mistake.
    pub fn tokens(mut self, file: &Path) -> Result<Self, TokenFileError> {
        self.0.tokens = Some(TokenFile::open(file)?);
        Ok(self)
    }

    /// From now on whoever proves nothing is refused.
    pub fn build(self) -> Access {
        Access(Some(Arc::new(self.0)))
    }
}

/// Why a caller isn't known. Texts name no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unproven {
    /// It showed nothing.
    Nothing,
    /// What it showed isn't taken; why, for the caller.
    Refused(String),
}

impl Access {
    /// Whoever reaches us is who they say, and may do everything: in one process, or on a loopback
    /// address without any authentication.
    pub fn trusting() -> Self {
        Self::default()
    }

    /// Begins with nothing that is taken.
    pub fn requiring() -> AccessBuilder {
        AccessBuilder::default()
    }

    /// Whether callers must prove who they are.
    pub fn is_required(&self) -> bool {
        self.0.is_some()
    }

    /// Who makes a call, by what came with it.
    pub(crate) async fn identify(&self, shown: &Shown) -> Result<Arc<Identity>, Unproven> {
        let Some(proofs) = &self.0 else { return Ok(Arc::new(Identity::local())) };
        match shown {
            Shown::Nothing => Err(Unproven::Nothing),
            Shown::Malformed => {
                Err(Unproven::Refused("the authorization isn't of the form `Bearer <token>`".to_owned()))
            }
            Shown::Bearer(token) => proofs.bearer(token),
        }
    }

    /// What is taken, for people.
    pub(crate) fn expected(&self) -> String {
        let Some(proofs) = &self.0 else { return "nothing".to_owned() };
        let mut all = Vec::new();
        if proofs.tokens.is_some() {
            all.push("a bearer token (--token-file FILE or COORDCTL_TOKEN)");
        }
        all.join(" or ")
    }
}

impl Proofs {
    fn bearer(&self, token: &str) -> Result<Arc<Identity>, Unproven> {
        let known = self.tokens.as_ref().and_then(|tokens| tokens.identify(token));
        known.ok_or_else(|| Unproven::Refused("the token isn't known".to_owned()))
    }
}

/// What a caller showed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Nothing.
    Nothing,
    /// An authorization that can't be read.
    Malformed,
    /// A bearer token.
    Bearer(String),
}
