//! Who may call what. Every call is authenticated and authorised in one place, [`layer`], by one
//! table, [`permission`]; what isn't in the table is refused.

mod identity;
mod jwks;
mod layer;
mod oidc;
mod permission;
mod refusal;
mod ring_provider;
mod tokens;
mod watched;

use std::path::Path;
use std::sync::Arc;

use coord_proto::tls::WorkloadName;

pub(crate) use identity::owner;
pub use identity::{BadName, BadRole, Identity, Proof, Role};
pub use jwks::JwksError;
pub(crate) use layer::AccessLayer;
pub use oidc::OidcConfig;
pub(crate) use permission::Permission;
pub(crate) use refusal::{denied, not_yours};
pub use tokens::NewToken;
pub use watched::FileError;

use oidc::Oidc;
use tokens::TokenFile;

/// How callers are authenticated.
#[derive(Clone, Default)]
pub struct Access(Option<Arc<Proofs>>);

/// What is taken as proof.
#[derive(Default)]
struct Proofs {
    tokens: Option<TokenFile>,
    oidc: Option<Oidc>,
    /// The fleet whose certificates are taken.
    cluster: Option<String>,
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
    /// [`FileError`] when it can't be read or has a mistake.
    pub fn tokens(mut self, file: &Path) -> Result<Self, FileError> {
        self.0.tokens = Some(TokenFile::open(file)?);
        Ok(self)
    }

    /// Takes the tokens of an identity provider. Keys that have an address are fetched in the
    /// background, so this takes a runtime.
    ///
    /// # Errors
    /// [`JwksError`] when there are no keys to be had where they are said to be.
    pub fn oidc(mut self, config: OidcConfig) -> Result<Self, JwksError> {
        self.0.oidc = Some(Oidc::open(config)?);
        Ok(self)
    }

    /// Takes client certificates of a fleet: those that are for `r://<cluster>/<role>/<name>`.
    #[must_use]
    pub fn certificates(mut self, cluster: &str) -> Self {
        self.0.cluster = Some(cluster.to_owned());
        self
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
            Shown::Bearer(token) => proofs.bearer(token).await,
            Shown::Certificate(workload) => proofs.certificate(workload.as_ref()).map(Arc::new),
        }
    }

    /// What is taken, for people.
    pub(crate) fn expected(&self) -> String {
        let Some(proofs) = &self.0 else { return "nothing".to_owned() };
        let mut all = Vec::new();
        if let Some(cluster) = &proofs.cluster {
            all.push(format!("a client certificate for r://{cluster}/<role>/<name>"));
        }
        if proofs.tokens.is_some() {
            all.push("a bearer token (--token-file FILE or COORDCTL_TOKEN)".to_owned());
        }
        if proofs.oidc.is_some() {
            all.push("a token of the identity provider (in the same place)".to_owned());
        }
        all.join(" or ")
    }
}

impl Proofs {
    fn certificate(&self, workload: Option<&WorkloadName>) -> Result<Identity, Unproven> {
        let refused = |why: String| Err(Unproven::Refused(why));
        let Some(cluster) = &self.cluster else { return Err(Unproven::Nothing) };
        let Some(WorkloadName { cluster: of, role, name }) = workload else {
            return refused(format!("the certificate has no name of the form r://{cluster}/<role>/<name>"));
        };
        if of != cluster {
            return refused(format!("the certificate is for the fleet `{of}`, and this is `{cluster}`"));
        }
        let role: Role = match role.parse() {
            Ok(role) => role,
            Err(error) => return refused(format!("the certificate: {error}")),
        };
        Identity::new(name, [role], Proof::Certificate)
            .or_else(|error| refused(format!("the certificate: {error}")))
    }

    async fn bearer(&self, token: &str) -> Result<Arc<Identity>, Unproven> {
        if let Some(known) = self.tokens.as_ref().and_then(|tokens| tokens.identify(token)) {
            return Ok(known);
        }
        match &self.oidc {
            Some(oidc) if oidc::is_signed(token) => oidc.identify(token).await.map(Arc::new),
            _ => Err(Unproven::Refused("the token isn't known".to_owned())),
        }
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
    /// A certificate that was verified; for whom, where it says so in our way.
    Certificate(Option<WorkloadName>),
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shown(access: &Access, uri: Option<&str>) -> Result<Arc<Identity>, Unproven> {
        access.identify(&Shown::Certificate(uri.and_then(WorkloadName::parse))).await
    }

    #[tokio::test]
    async fn certificates_give_role_and_name_within_their_own_fleet() {
        let access = Access::requiring().certificates("team").build();
        let worker = shown(&access, Some("r://team/worker/w1")).await.unwrap();
        assert_eq!((worker.to_string().as_str(), worker.proof()), ("`w1` (worker)", Proof::Certificate));
        for (uri, why) in [
            (None, "has no name of the form r://team/<role>/<name>"),
            (Some("r://other/worker/w1"), "is for the fleet `other`"),
            (Some("r://team/root/w1"), "there is no role `root`"),
            (Some("r://team/Worker/w1"), "there is no role `Worker`"),
        ] {
            match shown(&access, uri).await {
                Err(Unproven::Refused(said)) => assert!(said.contains(why), "{said}"),
                other => panic!("{uri:?}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn certificates_prove_nothing_where_they_are_not_asked_for() {
        let access = Access::requiring().build();
        assert_eq!(shown(&access, Some("r://team/admin/a")).await, Err(Unproven::Nothing));
    }
}
