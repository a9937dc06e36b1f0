//! Certificates, made when a test runs.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, SanType, date_time_ymd,
};

/// An authority: who trusts it believes the certificates that it makes.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its common name.
    pub name: &'a str,
    /// The URI that says who it is.
    pub uri: Option<&'a str>,
    /// Whether it is for another host.
    pub elsewhere: bool,
    /// Whether its time is over.
    pub expired: bool,
}

impl<'a> Subject<'a> {
    /// Somebody on 127.0.0.1 and localhost, for years to come.
    pub fn new(name: &'a str) -> Self {
        Self { name, uri: None, elsewhere: false, expired: false }
    }
}

impl Authority {
    /// A new authority.
    pub fn new(name: &str) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, key()).expect("a certificate can be made"))
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes a certificate and its key to `<file>.pem` and `<file>.key`.
    pub fn write(&self, folder: &Path, file: &str, subject: Subject<'_>) {
        let (certificate, key) = self.issue(subject);
        for (extension, text) in [("pem", certificate), ("key", key)] {
            let path = folder.join(format!("{file}.{extension}"));
            std::fs::write(path, text).expect("the temporary folder can be written");
        }
    }

    /// A certificate for servers and clients, and its key, both PEM.
    pub fn issue(&self, subject: Subject<'_>) -> (String, String) {
        let mut params = params(subject.name);
        params.subject_alt_names = vec![
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::DnsName("localhost".try_into().expect("a name")),
        ];
        if subject.elsewhere {
            params.subject_alt_names = vec![SanType::DnsName("elsewhere".try_into().expect("a name"))];
        }
        if let Some(uri) = subject.uri {
            params.subject_alt_names.push(SanType::URI(uri.try_into().expect("a URI of ASCII letters")));
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if subject.expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = key();
        let made = params.signed_by(&key, &self.0).expect("a certificate can be made");
        (made.pem(), key.serialize_pem())
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2019, 1, 1);
    params
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}
