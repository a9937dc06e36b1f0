//! Why no connection comes about where trying again is of no use: something has to be given otherwise.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::{AlertDescription, CertificateError, Error};

/// What is wrong at an address.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Trouble {
    /// Nobody has the host's name.
    #[error("no machine is known by this name ({0})")]
    UnknownName(String),
    /// The server doesn't encrypt.
    #[error("what listens there doesn't speak TLS")]
    NotEncrypted,
    /// The server encrypts, and the client doesn't.
    #[error("what listens there speaks TLS only")]
    Encrypted,
    /// It speaks first, or answers, as no coordinator does.
    #[error("what listens there is no coordinator")]
    Foreign,
    /// We refuse the server's certificate.
    #[error("the coordinator's certificate is refused: {0}")]
    Server(CertificateError),
    /// The server refuses ours, or misses it.
    #[error("the coordinator refuses this client: {}", Error::AlertReceived(*.0))]
    Client(AlertDescription),
    /// Anything else that ends a handshake.
    #[error("no encryption can be agreed on: {0}")]
    Handshake(Error),
}

impl Trouble {
    /// What to do about it: lower case, without full stop.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::UnknownName(_) => "check the host in --server",
            Self::NotEncrypted => {
                "write http:// and leave --tls-ca out, or start the coordinator with --tls-cert"
            }
            Self::Encrypted => "write https:// and give --tls-ca",
            Self::Foreign => "check host and port in --server",
            Self::Server(error) => of_server(error),
            Self::Client(alert) => of_client(*alert),
            Self::Handshake(_) => "check that a coordinator of this version listens there",
        }
    }

    /// What a failed handshake says, if it is final.
    pub(super) fn of_handshake(error: &io::Error) -> Option<Self> {
        match error.get_ref()?.downcast_ref::<Error>()? {
            Error::InvalidCertificate(error) => Some(Self::Server(error.clone())),
            Error::AlertReceived(AlertDescription::CloseNotify | AlertDescription::InternalError) => None,
            Error::AlertReceived(alert) => Some(Self::Client(*alert)),
            Error::InvalidMessage(_) => Some(Self::NotEncrypted),
            error => Some(Self::Handshake(error.clone())),
        }
    }

    /// What a server that was spoken to in plain text says with its first bytes, if it is no coordinator.
    pub(super) fn of_first_byte(byte: u8) -> Option<Self> {
        match byte {
            // The length of the first frame, which has some settings.
            0 => None,
            // An alert.
            0x15 => Some(Self::Encrypted),
            _ => Some(Self::Foreign),
        }
    }

    /// What a failed look-up of a name says, if it is final.
    pub(super) fn of_lookup(error: &io::Error) -> Option<Self> {
        let text = error.to_string();
        // The code is not to be had, only its text.
        let passes = ["Temporary failure", "try again", "timed out"].iter().any(|sign| text.contains(sign));
        let said = text.trim_start_matches("failed to lookup address information: ");
        (!passes).then(|| Self::UnknownName(said.to_owned()))
    }
}

fn of_server(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "give the authority that issued it with --tls-ca"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "use one of its names in --server, or say with --tls-server-name which one it must have"
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "replace the coordinator's certificate; check both machines' clocks"
        }
        _ => {
            "issue another certificate for the coordinator: for servers, with its name as an alternative name"
        }
    }
}

fn of_client(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateRequired => "give --tls-cert and --tls-key",
        AlertDescription::CertificateExpired => {
            "replace the certificate in --tls-cert; check both machines' clocks"
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "use a certificate of an authority that the coordinator knows (its --tls-client-ca)"
        }
        _ => "use a certificate for clients; the coordinator's log says what is wrong with this one",
    }
}

/// The troubles of addresses, as they were when a connection was last tried.
#[derive(Debug, Clone, Default)]
pub(crate) struct Troubles(Arc<Mutex<BTreeMap<String, Trouble>>>);

impl Troubles {
    /// Where those of one address are told.
    pub(crate) fn at(&self, address: &str) -> Told {
        Told { all: self.clone(), address: address.to_owned() }
    }

    /// What is wrong at an address.
    pub(crate) fn of(&self, address: &str) -> Option<Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(address).cloned()
    }
}

/// Takes down what is wrong at one address.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    all: Troubles,
    address: String,
}

impl Told {
    /// What is wrong by now: nothing, where it may pass.
    pub(crate) fn tell(&self, trouble: Option<Trouble>) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(trouble) => drop(all.insert(self.address.clone(), trouble)),
            None => drop(all.remove(&self.address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_as_it_is_counts_as_trouble() {
        let lookup = |text: &str| {
            let text = format!("failed to lookup address information: {text}");
            Trouble::of_lookup(&io::Error::other(text)).is_some()
        };
        assert!(lookup("Name or service not known") && lookup("No address associated with hostname"));
        assert!(!lookup("Temporary failure in name resolution"));
        let handshake = |error: Error| Trouble::of_handshake(&io::Error::other(error));
        assert_eq!(
            handshake(CertificateError::UnknownIssuer.into()),
            Some(Trouble::Server(CertificateError::UnknownIssuer))
        );
        assert_eq!(
            handshake(Error::AlertReceived(AlertDescription::UnknownCA)),
            Some(Trouble::Client(AlertDescription::UnknownCA))
        );
        assert_eq!(handshake(Error::AlertReceived(AlertDescription::InternalError)), None);
        assert_eq!(Trouble::of_handshake(&io::ErrorKind::ConnectionReset.into()), None);
        assert_eq!(
            [0, 0x15, b'H'].map(Trouble::of_first_byte),
            [None, Some(Trouble::Encrypted), Some(Trouble::Foreign)]
        );
    }

    #[test]
    fn each_address_has_its_own_until_it_passes() {
        let all = Troubles::default();
        let here = all.at("here");
        here.tell(Some(Trouble::Encrypted));
        assert_eq!((all.of("here"), all.of("there")), (Some(Trouble::Encrypted), None));
        here.tell(None);
        assert_eq!(all.of("here"), None);
    }
}
