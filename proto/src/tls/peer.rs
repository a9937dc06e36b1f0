//! Who is at the other end of a connection, as its certificate says.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tonic::Extensions;

/// What a server knows of a connection: among the extensions of each request that comes over it.
#[derive(Debug, Clone, Default)]
pub struct ConnectionInfo {
    /// Where it comes from.
    pub remote: Option<SocketAddr>,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// The client's certificate, where it gave one: verified against the server's authority.
    pub peer: Option<Arc<PeerCertificate>>,
}

/// A certificate that was verified when the connection was made: its chain ends at an authority that
/// this process trusts, its time had come and wasn't over, and the peer has its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    der: CertificateDer<'static>,
    uris: Vec<String>,
    dns_names: Vec<String>,
    common_name: Option<String>,
}

/// Who a certificate of ours is for: its URI name `r://<cluster>/<role>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadName {
    /// The fleet that it belongs to.
    pub cluster: String,
    /// What it may do.
    pub role: String,
    /// Its name, unique in cluster and role.
    pub name: String,
}

/// A certificate that can't be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the peer's certificate can't be read: {0}")]
pub struct UnreadableCertificate(webpki::Error);

impl PeerCertificate {
    /// Reads the names of a certificate. It verifies nothing: the handshake has done so.
    ///
    /// # Errors
    /// [`UnreadableCertificate`] where it is no X.509 certificate of version 3.
    pub fn read(der: CertificateDer<'static>) -> Result<Self, UnreadableCertificate> {
        let (uris, dns_names, common_name) = {
            let certificate = webpki::EndEntityCert::try_from(&der).map_err(UnreadableCertificate)?;
            (
                certificate.valid_uri_names().map(str::to_owned).collect(),
                certificate.valid_dns_names().map(str::to_owned).collect(),
                common_name(certificate.subject()),
            )
        };
        Ok(Self { der, uris, dns_names, common_name })
    }

    /// The certificate that a request's connection was made with.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get::<ConnectionInfo>()?.peer.as_deref()
    }

    /// The certificate itself, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its alternative names that are URIs.
    pub fn uris(&self) -> &[String] {
        &self.uris
    }

    /// Its alternative names that are DNS names.
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// The common name of its subject.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// Who it is for, where it has exactly one URI name of ours. A certificate with several could be
    /// taken for either, so it is nobody's.
    pub fn workload(&self) -> Option<WorkloadName> {
        let mut ours = self.uris.iter().filter(|uri| uri.starts_with(SCHEME));
        match (ours.next(), ours.next()) {
            (Some(uri), None) => WorkloadName::parse(uri),
            _ => None,
        }
    }
}

const SCHEME: &str = "r://";

impl WorkloadName {
    /// Reads `r://<cluster>/<role>/<name>`: three parts of letters, digits, `.`, `-`, `_`.
    pub fn parse(uri: &str) -> Option<Self> {
        let parts: Vec<&str> = uri.strip_prefix(SCHEME)?.split('/').collect();
        let plain = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        };
        let [cluster, role, name] = parts.as_slice() else { return None };
        parts.iter().all(plain).then(|| Self {
            cluster: (*cluster).to_owned(),
            role: (*role).to_owned(),
            name: (*name).to_owned(),
        })
    }
}

/// The last common name (2.5.4.3) in a subject: the contents of a DER `Name`.
fn common_name(mut subject: &[u8]) -> Option<String> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const OID: u8 = 0x06;
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];
    let mut found = None;
    while let Some((SET, mut names, rest)) = value(subject) {
        subject = rest;
        while let Some((SEQUENCE, name, rest)) = value(names) {
            names = rest;
            let Some((OID, COMMON_NAME, text)) = value(name) else { continue };
            if let Some((tag, text, [])) = value(text)
                && TEXTS.contains(&tag)
            {
                found = std::str::from_utf8(text).ok().map(str::to_owned);
            }
        }
    }
    found
}

/// The first DER value of some bytes: its tag, its contents, and what follows it.
fn value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, length, rest @ ..] = bytes else { return None };
    let (length, rest) = match usize::from(*length) {
        short @ 0..=0x7f => (short, rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(*rest.first()?) << 8 | usize::from(*rest.get(1)?), &rest[2..]),
        _ => return None,
    };
    Some((*tag, rest.get(..length)?, &rest[length..]))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[SanType], common_name: Option<&str>) -> PeerCertificate {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::OrganizationName, "an organization");
            params.distinguished_name.push(DnType::CommonName, name);
        }
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        PeerCertificate::read(made.der().clone()).unwrap()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn a_certificates_names_are_read() {
        let names =
            [uri("r://main/worker/w-1"), uri("https://x"), SanType::DnsName("a.b".try_into().unwrap())];
        let read = certificate(&names, Some("Zoë"));
        assert_eq!(read.uris(), ["r://main/worker/w-1", "https://x"]);
        assert_eq!(read.dns_names(), ["a.b"]);
        assert_eq!(read.common_name(), Some("Zoë"));
        let name = WorkloadName { cluster: "main".into(), role: "worker".into(), name: "w-1".into() };
        assert_eq!(read.workload(), Some(name));
    }

    #[test]
    fn a_certificate_without_names_is_nobodys() {
        let read = certificate(&[], None);
        assert_eq!((read.common_name(), read.workload()), (None, None));
    }

    #[test]
    fn a_certificate_for_two_is_nobodys() {
        assert_eq!(certificate(&[uri("r://m/worker/a"), uri("r://m/admin/a")], None).workload(), None);
    }

    #[test]
    fn names_are_read_strictly() {
        for bad in ["r://m/worker", "r://m/worker/a/b", "r://m//a", "r://m/worker/a?x", "r://m/wörker/a", "x"]
        {
            assert_eq!(WorkloadName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        assert!(PeerCertificate::read(CertificateDer::from(vec![0x30, 0x82, 0xff])).is_err());
    }

    #[test]
    fn a_subject_cut_anywhere_is_read_without_a_panic() {
        let subject = b"\x31\x0c\x30\x0a\x06\x03\x55\x04\x03\x0c\x03abc";
        assert_eq!(common_name(subject).as_deref(), Some("abc"));
        for cut in 0..subject.len() {
            assert_eq!(common_name(&subject[..cut]), None, "{cut}");
        }
    }
}
