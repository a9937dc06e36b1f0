//! Who calls: a name, roles, and how both were proven.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use coord_common::id::WorkerId;

/// What somebody may do. None includes another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Looks at everything that isn't a secret.
    Viewer,
    /// Makes plans.
    Planner,
    /// Approves the plans of others for protected environments.
    Approver,
    /// Carries plans out, and stops them.
    Applier,
    /// Takes leases and reports.
    Worker,
    /// Goes back, gives up, removes.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Viewer, Self::Planner, Self::Approver, Self::Applier, Self::Worker, Self::Admin];

    /// Its name in files, claims and certificates.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Planner => "planner",
            Self::Approver => "approver",
            Self::Applier => "applier",
            Self::Worker => "worker",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no role `{0}`; there are viewer, planner, approver, applier, worker, admin")]
pub struct BadRole(String);

impl FromStr for Role {
    type Err = BadRole;

    fn from_str(text: &str) -> Result<Self, BadRole> {
        Self::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| BadRole(text.to_owned()))
    }
}

/// How an identity was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// By a client certificate.
    Certificate,
    /// By a bearer token of the coordinator's own list.
    Token,
    /// By a token of an identity provider.
    Oidc,
    /// Not at all: the caller is in this process, or the coordinator trusts whoever reaches it.
    Local,
}

impl Proof {
    /// Its name, for people and the evidence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Token => "token",
            Self::Oidc => "oidc",
            Self::Local => "local",
        }
    }
}

/// A name that nobody can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name: it has 1 to 200 letters, digits and `-_.@+:/|`")]
pub struct BadName(String);

/// Who makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    name: String,
    roles: BTreeSet<Role>,
    proof: Proof,
}

impl Identity {
    /// Somebody who has proven a name and roles.
    ///
    /// # Errors
    /// [`BadName`] for names that could be mistaken in logs and lists.
    pub fn new(name: &str, roles: impl IntoIterator<Item = Role>, proof: Proof) -> Result<Self, BadName> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@+:/|".contains(c);
        if name.is_empty() || name.len() > 200 || !name.chars().all(plain) {
            return Err(BadName(name.chars().take(200).collect()));
        }
        Ok(Self { name: name.to_owned(), roles: roles.into_iter().collect(), proof })
    }

    /// Whoever is in this process, or is trusted without proof: all roles.
    pub fn local() -> Self {
        Self { name: "local".to_owned(), roles: Role::ALL.into_iter().collect(), proof: Proof::Local }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The roles.
    pub fn roles(&self) -> &BTreeSet<Role> {
        &self.roles
    }

    /// How both are known.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// Whether it has one of some roles.
    pub fn has_any(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.roles.contains(role))
    }

    /// Who stands for an action in the evidence: the proven name. Only without a proof counts what
    /// the caller says of itself.
    pub fn signature(&self, said: &str) -> String {
        match self.proof {
            Proof::Local if said.is_empty() => self.name.clone(),
            Proof::Local => said.to_owned(),
            Proof::Certificate | Proof::Token | Proof::Oidc => self.name.clone(),
        }
    }

    /// Whether it may speak for a worker's session: one whose name before process and start is its
    /// own. It needs nothing but the name, so that it holds across leaders.
    pub fn speaks_for(&self, session: &WorkerId) -> bool {
        self.proof == Proof::Local || owner(session.as_str()) == self.name
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles: Vec<&str> = self.roles.iter().map(|role| role.name()).collect();
        let roles = if roles.is_empty() { "no role".to_owned() } else { roles.join(", ") };
        write!(f, "`{}` ({roles})", self.name)
    }
}

/// The name in a session's id `<name>-<process>-<start>`; all of it where it has no such end.
pub(crate) fn owner(session: &str) -> &str {
    let mut parts = session.rsplitn(3, '-');
    let start = parts.next().unwrap_or_default();
    let process = parts.next().unwrap_or_default();
    let numbers = !start.is_empty()
        && !process.is_empty()
        && start.bytes().all(|byte| byte.is_ascii_hexdigit())
        && process.bytes().all(|byte| byte.is_ascii_digit());
    match parts.next() {
        Some(name) if numbers => name,
        _ => session,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(name: &str) -> Identity {
        Identity::new(name, [Role::Worker], Proof::Token).unwrap()
    }

    #[test]
    fn a_worker_speaks_for_sessions_of_its_own_name_only() {
        for (name, session, may) in [
            ("w1", "w1-123-18f00ab", true),
            ("w1", "w1", true),
            ("w1", "w10-123-18f00ab", false),
            ("w1", "w1-a-123-18f00ab", false),
            ("w1-a", "w1-a-123-18f00ab", true),
            ("w1-123", "w1-123-18f00ab", false),
            ("w1", "w1-123-xyz", false),
            ("", "-1-2", false),
        ] {
            let identity = Identity { name: name.to_owned(), ..worker("w") };
            assert_eq!(
                !name.is_empty() && identity.speaks_for(&session.parse().unwrap()),
                may,
                "{name} {session}"
            );
        }
        assert!(Identity::local().speaks_for(&"embedded-1-0".parse().unwrap()));
    }

    #[test]
    fn who_has_proven_a_name_signs_with_it_whatever_it_says() {
        assert_eq!(worker("w1").signature("root"), "w1");
        assert_eq!(Identity::local().signature("ann@desk"), "ann@desk");
        assert_eq!(Identity::local().signature(""), "local");
    }

    #[test]
    fn names_that_could_be_mistaken_are_refused() {
        for bad in ["", "a b", "a\nb", "a`", "é", "a,b", &"x".repeat(201)] {
            assert!(Identity::new(bad, [], Proof::Token).is_err(), "{bad:?}");
        }
        assert!(Identity::new("auth0|5f-ann.b+c@x.org", [], Proof::Oidc).is_ok());
    }

    #[test]
    fn roles_are_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("Admin".parse::<Role>().is_err());
    }
}
