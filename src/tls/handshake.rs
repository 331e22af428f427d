//! [`HandshakeError`]: why two ends did not come together over TLS, as a client sees it.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// Why there is no TLS connection, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// No CA that is trusted here has signed the server's certificate.
    #[error(
        "the server's certificate is signed by no CA that is trusted here: name its CA (--tls-ca)"
    )]
    UnknownCa,
    /// The server's certificate has expired.
    #[error(
        "the server's certificate expired {}: renew it on the server, or set this machine's clock",
        ago(*.seconds)
    )]
    Expired {
        /// How long ago, where it is known.
        seconds: Option<u64>,
    },
    /// The server's certificate begins later.
    #[error(
        "the server's certificate is not valid yet: set this machine's clock, or the server's certificate is from a clock ahead"
    )]
    NotYetValid,
    /// The server's certificate is for other names.
    #[error(
        "the server's certificate is not for {expected}, but for {presented}: connect by that name, or say which to expect (--tls-server-name)"
    )]
    WrongName {
        /// What it should be for.
        expected: String,
        /// What it is for.
        presented: String,
    },
    /// Something else is wrong with the server's certificate.
    #[error("the server's certificate is refused: {0}")]
    BadServerCertificate(String),
    /// The peer's bytes are not TLS.
    #[error("the server does not speak TLS on this port: connect without TLS, or to another port")]
    NotTls,
    /// The peer's bytes are TLS, and this side does not use it.
    #[error("the server speaks TLS on this port: connect with TLS (--tls)")]
    OnlyTls,
    /// The server has closed the connection in the middle of the handshake.
    #[error(
        "the server closed the connection during the TLS handshake: it may not speak TLS on this port"
    )]
    Closed,
    /// The server has closed the connection right after the handshake, without a word.
    #[error(
        "the server closed the connection right after the TLS handshake: it may require another client certificate (--tls-cert, --tls-key)"
    )]
    ClosedAfter,
    /// The server does not offer HTTP/2.
    #[error("the server speaks TLS, but does not offer HTTP/2 there (ALPN \"h2\")")]
    NoHttp2,
    /// The server requires a client certificate, and got none.
    #[error(
        "the server requires a client certificate: give one that its CA has signed (--tls-cert, --tls-key)"
    )]
    CertificateRequired,
    /// The server does not accept the client's certificate.
    #[error("the server refuses the client certificate (--tls-cert): {0}")]
    ClientCertificateRefused(&'static str),
    /// The server and this side have no version of TLS in common.
    #[error("the server speaks neither TLS 1.3 nor TLS 1.2")]
    Version,
    /// The server refused it for another reason, which this alert names.
    #[error(
        "the server refuses the TLS handshake (alert {0}): it may require a client certificate"
    )]
    Refused(String),
    /// What the system or the library says.
    #[error("the TLS handshake failed: {0}")]
    Other(String),
}

fn ago(seconds: Option<u64>) -> String {
    match seconds {
        None => "already".to_owned(),
        Some(seconds) if seconds < 2 * 3600 => format!("{} minutes ago", seconds.div_ceil(60)),
        Some(seconds) if seconds < 2 * 86_400 => format!("{} hours ago", seconds / 3600),
        Some(seconds) => format!("{} days ago", seconds / 86_400),
    }
}

impl HandshakeError {
    /// What an error of a handshake means.
    pub(crate) fn of_handshake(error: &io::Error) -> Self {
        if let Some(known) = Self::within(error) {
            return known;
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => HandshakeError::Closed,
            _ => HandshakeError::Other(error.to_string()),
        }
    }

    /// What an error of an open TLS connection means, where it is one of TLS. TLS 1.3 has the
    /// server tell only after the handshake that it refuses the client's certificate.
    pub(crate) fn within(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Error>().map(Into::into)
    }
}

impl From<&Error> for HandshakeError {
    fn from(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => error.into(),
            Error::AlertReceived(alert) => (*alert).into(),
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::InvalidEmptyPayload
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::UnknownProtocolVersion,
            ) => HandshakeError::NotTls,
            Error::NoApplicationProtocol => HandshakeError::NoHttp2,
            Error::PeerIncompatible(
                rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13
                | rustls::PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => HandshakeError::Version,
            other => HandshakeError::Other(other.to_string()),
        }
    }
}

impl From<&CertificateError> for HandshakeError {
    fn from(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => HandshakeError::UnknownCa,
            CertificateError::Expired => HandshakeError::Expired { seconds: None },
            CertificateError::ExpiredContext { time, not_after } => HandshakeError::Expired {
                seconds: Some(time.as_secs().saturating_sub(not_after.as_secs())),
            },
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                HandshakeError::NotYetValid
            }
            CertificateError::NotValidForNameContext {
                expected,
                presented,
            } => HandshakeError::WrongName {
                expected: expected.to_str().into_owned(),
                presented: names(presented),
            },
            other => HandshakeError::BadServerCertificate(other.to_string()),
        }
    }
}

/// The library writes a name as `DnsName("a.example")`.
fn names(presented: &[String]) -> String {
    const SHOWN: usize = 4;
    if presented.is_empty() {
        return "no name".to_owned();
    }
    let shown = presented.iter().take(SHOWN).map(|name| {
        let quoted = name
            .split_once('(')
            .and_then(|(_, rest)| rest.strip_suffix(')'));
        quoted.unwrap_or(name).trim_matches('"')
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if presented.len() > SHOWN {
        text.push_str(", …");
    }
    text
}

impl From<AlertDescription> for HandshakeError {
    fn from(alert: AlertDescription) -> Self {
        use AlertDescription as Alert;
        use HandshakeError::ClientCertificateRefused;
        match alert {
            Alert::CertificateRequired => HandshakeError::CertificateRequired,
            Alert::UnknownCA => {
                ClientCertificateRefused("no CA that the server trusts has signed it")
            }
            Alert::CertificateExpired => {
                ClientCertificateRefused("it has expired, or is not valid yet")
            }
            Alert::CertificateRevoked => ClientCertificateRefused("it is revoked"),
            Alert::BadCertificate => {
                ClientCertificateRefused("it is damaged, or its signature is wrong")
            }
            Alert::UnsupportedCertificate => ClientCertificateRefused(
                "it is not of a kind, or not for a purpose, that the server takes",
            ),
            Alert::CertificateUnknown => ClientCertificateRefused("the server does not say why"),
            Alert::DecryptError => ClientCertificateRefused("the key does not belong to it"),
            Alert::AccessDenied => ClientCertificateRefused("its holder has no access"),
            Alert::NoApplicationProtocol => HandshakeError::NoHttp2,
            Alert::ProtocolVersion => HandshakeError::Version,
            other => HandshakeError::Refused(format!("{other:?}")),
        }
    }
}
