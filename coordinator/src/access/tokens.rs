//! Bearer tokens of the coordinator's own list: a file that holds their hashes, never them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use coord_common::project::settings::Secret;
use ring::rand::{SecureRandom as _, SystemRandom};
use tracing::info;

use super::watched::Watched;
use super::{FileError, Identity, Proof, Role};

/// What tokens begin with, so that scanners for secrets find them.
const PREFIX: &str = "coordctl_";
/// What hashes begin with.
const HASH: &str = "blake3:";

/// A token that was just made.
pub struct NewToken {
    /// What its owner shows.
    pub token: Secret,
    /// What the coordinator's file gets.
    pub line: String,
}

impl NewToken {
    /// Makes a random token of 256 bits.
    ///
    /// # Errors
    /// A text for people: a name that nobody can have, no role, or a system without random numbers.
    pub fn new(name: &str, roles: &[Role]) -> Result<Self, String> {
        if roles.is_empty() {
            return Err("a token without a role can do nothing".to_owned());
        }
        Identity::new(name, roles.iter().copied(), Proof::Token).map_err(|error| error.to_string())?;
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| "the system has no random numbers".to_owned())?;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let token = format!("{PREFIX}{digits}");
        let hash = blake3::hash(token.as_bytes()).to_hex();
        let roles: BTreeSet<Role> = roles.iter().copied().collect();
        let roles: Vec<&str> = roles.into_iter().map(Role::name).collect();
        let line = format!("{name} {} {HASH}{hash}", roles.join(","));
        Ok(Self { token: Secret::new(token), line })
    }
}

/// The tokens of one file, as it was at some time.
#[derive(Debug, Default)]
struct Tokens(Vec<(blake3::Hash, Arc<Identity>)>);

impl Tokens {
    /// Reads a file's text; an error is a line's number and what is wrong with it.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut all: Vec<(blake3::Hash, Arc<Identity>)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let (hash, identity) = token(line).map_err(|why| (number + 1, why))?;
            if all.iter().any(|(known, _)| *known == hash) {
                return Err((number + 1, "the same token is listed above".to_owned()));
            }
            all.push((hash, Arc::new(identity)));
        }
        Ok(Self(all))
    }

    /// Whose a token is. All hashes are compared, each in constant time.
    fn identify(&self, token: &str) -> Option<Arc<Identity>> {
        let hash = blake3::hash(token.as_bytes());
        let mut found = None;
        for (known, identity) in &self.0 {
            if *known == hash {
                found = Some(identity.clone());
            }
        }
        found
    }
}

/// One line: name, roles, hash.
fn token(line: &str) -> Result<(blake3::Hash, Identity), String> {
    let parts: Vec<&str> = line.split_whitespace().collect();
    let [name, roles, hash] = parts.as_slice() else {
        return Err("it isn't of the form `<name> <role>[,<role>…] blake3:<64 digits>`".to_owned());
    };
    let roles = roles.split(',').map(str::parse).collect::<Result<Vec<Role>, _>>();
    let roles = roles.map_err(|error| error.to_string())?;
    let digits = hash.strip_prefix(HASH).ok_or("the hash doesn't begin with `blake3:`")?;
    let hash = blake3::Hash::from_hex(digits).map_err(|_| "the hash hasn't 64 hexadecimal digits")?;
    let identity = Identity::new(name, roles, Proof::Token).map_err(|error| error.to_string())?;
    Ok((hash, identity))
}

/// A file of tokens, read again when it changes.
pub(super) struct TokenFile(Watched<Tokens>);

impl TokenFile {
    /// Reads the file for the first time.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let parse = |text: &str| Tokens::parse(text).map_err(|(line, why)| format!("line {line}: {why}"));
        let file = Watched::open(path, parse)?;
        info!(path = %path.display(), tokens = file.current().0.len(), "bearer tokens are taken");
        Ok(Self(file))
    }

    /// Whose a token is.
    pub(super) fn identify(&self, token: &str) -> Option<Arc<Identity>> {
        self.0.current().identify(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, roles: &[Role]) -> (String, String) {
        let new = NewToken::new(name, roles).unwrap();
        (new.token.expose().to_owned(), new.line)
    }

    #[test]
    fn a_new_token_is_known_by_its_line_and_its_line_does_not_hold_it() {
        let (token, line) = made("ann", &[Role::Planner, Role::Viewer]);
        assert!(line.starts_with("ann viewer,planner blake3:"), "{line}");
        assert!(token.len() == PREFIX.len() + 64 && !line.contains(&token[PREFIX.len()..]));
        let tokens = Tokens::parse(&format!("# people\n\n  {line}  # ann's laptop\n")).unwrap();
        let ann = tokens.identify(&token).unwrap();
        assert_eq!(ann.to_string(), "`ann` (viewer, planner)");
        for wrong in ["", PREFIX, &token[1..], &format!("{token} "), &made("ann", &[Role::Admin]).0] {
            assert!(tokens.identify(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn mistakes_in_the_file_are_named_with_their_line_and_without_the_hash() {
        let (_, line) = made("ann", &[Role::Viewer]);
        let hash = line.split(' ').next_back().unwrap();
        for (text, at, why) in [
            (format!("ann viewer\n{line}"), 1, "it isn't of the form"),
            (format!("{line}\nbob boss {hash}"), 2, "there is no role `boss`"),
            (format!("{line}\n{line}"), 2, "the same token is listed above"),
            (format!("a(b viewer {hash}"), 1, "is no name"),
            ("ann viewer sha1:00".to_owned(), 1, "doesn't begin with `blake3:`"),
            (format!("ann viewer {}", &hash[..hash.len() - 1]), 1, "hasn't 64 hexadecimal digits"),
            (format!("ann  {hash}"), 1, "it isn't of the form"),
            (format!("ann , {hash}"), 1, "there is no role ``"),
        ] {
            let (line, said) = Tokens::parse(&text).unwrap_err();
            assert_eq!(line, at, "{text}");
            assert!(said.contains(why) && !said.contains(&hash[7..20]), "{said}");
        }
    }

    #[test]
    fn a_changed_file_counts_and_a_bad_one_leaves_the_tokens_of_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let (old, old_line) = made("ann", &[Role::Viewer]);
        let (new, new_line) = made("ann", &[Role::Viewer]);
        std::fs::write(&path, &old_line).unwrap();
        let file = TokenFile::open(&path).unwrap();
        let look_again = || file.0.look();
        assert!(file.identify(&old).is_some() && file.identify(&new).is_none());
        std::fs::write(&path, format!("{old_line}\n{new_line}\n")).unwrap();
        look_again();
        assert!(file.identify(&old).is_some() && file.identify(&new).is_some());
        std::fs::write(&path, "nonsense").unwrap();
        look_again();
        assert!(file.identify(&old).is_some() && file.identify(&new).is_some());
        std::fs::remove_file(&path).unwrap();
        look_again();
        assert!(file.identify(&old).is_some());
        std::fs::write(&path, new_line).unwrap();
        look_again();
        assert!(file.identify(&old).is_none() && file.identify(&new).is_some());
    }

    #[test]
    fn a_missing_or_broken_file_is_an_error_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        assert!(matches!(TokenFile::open(&path), Err(FileError::Io { .. })));
        std::fs::write(&path, "nonsense").unwrap();
        assert!(matches!(TokenFile::open(&path), Err(FileError::Content { .. })));
    }

    #[test]
    fn tokens_need_a_name_and_a_role() {
        assert!(NewToken::new("ann", &[]).is_err());
        assert!(NewToken::new("a b", &[Role::Viewer]).is_err());
    }
}
