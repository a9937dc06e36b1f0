//! Where the state is, as users write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use coord_common::secret::Secret;

/// Why a text does not name a state store. It never quotes the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid state URL: {0}; use etcd://[user:password@]host:port[,host:port…][/prefix][?ca=FILE&cert=FILE&key=FILE], sqlite:PATH or a folder"
)]
pub struct UrlError(&'static str);

/// Where the state is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// An etcd cluster.
    Etcd(EtcdUrl),
    /// A SQLite file.
    Sqlite(PathBuf),
}

/// An etcd cluster, how to get in, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdUrl {
    /// `host:port` of each member.
    pub endpoints: Vec<String>,
    /// User and password.
    pub user: Option<(String, Secret)>,
    /// What all keys start with: `/` or `/prefix/`.
    pub namespace: String,
    /// The file of the certificate authority (PEM); with it, connections are encrypted.
    pub ca: Option<PathBuf>,
    /// The files of the client's certificate and its key (PEM).
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl StoreUrl {
    /// The name of the state file in a folder.
    pub const FILE: &str = "state.db";

    /// Parses `etcd://…`, `sqlite:PATH`, or a folder that holds `state.db`.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if let Some(rest) = text.strip_prefix("etcd://") {
            return parse_etcd(rest).map(Self::Etcd);
        }
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(UrlError("the path is empty"));
            }
            return Ok(Self::Sqlite(path.into()));
        }
        if text.contains("://") {
            return Err(UrlError("its scheme is neither `etcd` nor `sqlite`"));
        }
        if text.is_empty() {
            return Err(UrlError("it is empty"));
        }
        Ok(Self::Sqlite(PathBuf::from(text).join(Self::FILE)))
    }
}

impl FromStr for StoreUrl {
    type Err = UrlError;
    fn from_str(text: &str) -> Result<Self, UrlError> {
        Self::parse(text)
    }
}

impl fmt::Display for StoreUrl {
    /// The URL without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Etcd(url) => {
                f.write_str("etcd://")?;
                if let Some((user, _)) = &url.user {
                    write!(f, "{user}@")?;
                }
                write!(f, "{}{}", url.endpoints.join(","), url.namespace.trim_end_matches('/'))
            }
        }
    }
}

fn parse_etcd(rest: &str) -> Result<EtcdUrl, UrlError> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if path.contains('@') || query.contains('@') {
        return Err(UrlError("write `/`, `?` and `@` in a user or password as %2F, %3F and %40"));
    }
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (Some(parse_user(user)?), hosts),
        None => (None, authority),
    };
    let endpoints = hosts.split(',').map(parse_endpoint).collect::<Result<_, _>>()?;
    let mut url = EtcdUrl { endpoints, user, namespace: parse_namespace(path)?, ca: None, identity: None };
    let (mut cert, mut key) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(UrlError("an option has no value"))?;
        let file = Some(PathBuf::from(decode(value)?));
        match name {
            "ca" => url.ca = file,
            "cert" => cert = file,
            "key" => key = file,
            _ => return Err(UrlError("it has an option that is none of `ca`, `cert` and `key`")),
        }
    }
    url.identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err(UrlError("`cert` and `key` belong together")),
    };
    if url.identity.is_some() && url.ca.is_none() {
        return Err(UrlError("`cert` and `key` need `ca`"));
    }
    Ok(url)
}

fn parse_user(text: &str) -> Result<(String, Secret), UrlError> {
    let (user, password) = text.split_once(':').ok_or(UrlError("the user has no password"))?;
    let user = decode(user)?;
    if user.is_empty() {
        return Err(UrlError("the user is empty"));
    }
    Ok((user, Secret::new(decode(password)?)))
}

fn parse_endpoint(text: &str) -> Result<String, UrlError> {
    let (host, port) = text.rsplit_once(':').ok_or(UrlError("an endpoint has no port"))?;
    let host_ok = !host.is_empty()
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '[' | ']'));
    if !host_ok || port.parse::<u16>().is_err() {
        return Err(UrlError("an endpoint is not `host:port`"));
    }
    Ok(text.to_owned())
}

/// Slashes around the path don't count, so `/a` and `/a/` are one namespace and `/ab` another.
fn parse_namespace(path: &str) -> Result<String, UrlError> {
    let path = decode(path.trim_matches('/'))?;
    if path.len() > 100 || path.chars().any(char::is_control) {
        return Err(UrlError("the prefix is longer than 100 bytes or has control characters"));
    }
    Ok(if path.is_empty() { "/".to_owned() } else { format!("/{path}/") })
}

fn decode(text: &str) -> Result<String, UrlError> {
    let bad = UrlError("a `%` is not followed by two hexadecimal digits of UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return Err(bad) };
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let (Some(high), Some(low)) = (digit(high), digit(low)) else { return Err(bad) };
        bytes.push((high * 16 + low) as u8);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etcd(text: &str) -> EtcdUrl {
        match StoreUrl::parse(text).unwrap() {
            StoreUrl::Etcd(url) => url,
            StoreUrl::Sqlite(path) => panic!("{}", path.display()),
        }
    }

    #[test]
    fn an_etcd_url_gives_its_parts() {
        let url = etcd("etcd://ann:p%40ss:w@h1:2379,[::1]:2380/team/a/?ca=/x/ca%20.pem&cert=c&key=k");
        assert_eq!(url.endpoints, ["h1:2379", "[::1]:2380"]);
        let (user, password) = url.user.unwrap();
        assert_eq!((user.as_str(), password.expose()), ("ann", "p@ss:w"));
        assert_eq!(url.namespace, "/team/a/");
        assert_eq!(url.ca, Some("/x/ca .pem".into()));
        assert_eq!(url.identity, Some(("c".into(), "k".into())));
        assert_eq!(etcd("etcd://h:1").namespace, "/");
    }

    #[test]
    fn files_and_folders_name_a_state_file() {
        assert_eq!(StoreUrl::parse("sqlite:a/b.db"), Ok(StoreUrl::Sqlite("a/b.db".into())));
        assert_eq!(StoreUrl::parse("sqlite:///a/b.db"), Ok(StoreUrl::Sqlite("/a/b.db".into())));
        assert_eq!(StoreUrl::parse(".coordctl"), Ok(StoreUrl::Sqlite(".coordctl/state.db".into())));
    }

    #[test]
    fn a_secret_shows_neither_in_what_parses_nor_in_what_does_not() {
        let texts = [
            "etcd://ann:hunter2@h:1/p",
            "etcd://ann:hunter2@h",
            "etcd://ann:hunter2/x@h:1",
            "etcd://ann:hunter2%zz@h:1",
            "etcd://hunter2:hunter2",
            "mysql://ann:hunter2@h:1",
            "etcd://ann:hunter2@h:1?hunter2=1",
        ];
        for text in texts {
            let shown = match StoreUrl::parse(text) {
                Ok(url) => format!("{url} {url:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn what_does_not_name_a_store_is_refused() {
        for bad in ["", "sqlite:", "etcd://", "etcd://h", "etcd://:1", "etcd://h:x", "etcd://u@h:1"] {
            assert!(StoreUrl::parse(bad).is_err(), "{bad}");
        }
        for bad in ["etcd://h:1?cert=a", "etcd://h:1?cert=a&key=b", "etcd://h:1?x=y", "http://h:1"] {
            assert!(StoreUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
