//! What a caller shows.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::ClientCertificate;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Peer {
    /// Its address.
    Tcp(SocketAddr),
    /// The user id of the process at the other end, as the kernel tells it.
    Unix {
        /// `None` where the system does not say.
        uid: Option<u32>,
    },
    /// Nothing is known of it: the server that accepted it has not said.
    Unknown,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix { uid: Some(uid) } => write!(f, "a unix socket (uid {uid})"),
            Peer::Unix { uid: None } => f.write_str("a unix socket"),
            Peer::Unknown => f.write_str("an unknown peer"),
        }
    }
}

/// What a call comes with. Tokens are in no debug output.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Credentials<'a> {
    /// The other end of its connection.
    pub peer: Peer,
    /// The client's certificate, which a CA that is trusted has signed.
    pub certificate: Option<&'a Arc<ClientCertificate>>,
    /// The value of the `authorization` field, as it came.
    pub authorization: Option<&'a [u8]>,
}

impl<'a> Credentials<'a> {
    /// Those of a connection's peer that shows nothing else.
    #[must_use]
    pub fn of(peer: Peer) -> Self {
        Credentials {
            peer,
            certificate: None,
            authorization: None,
        }
    }

    /// With a certificate too.
    #[must_use]
    pub fn certificate(self, certificate: Option<&'a Arc<ClientCertificate>>) -> Self {
        Credentials {
            certificate,
            ..self
        }
    }

    /// With an `authorization` field too.
    #[must_use]
    pub fn authorization(self, authorization: Option<&'a [u8]>) -> Self {
        Credentials {
            authorization,
            ..self
        }
    }
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("peer", &self.peer)
            .field("certificate", &self.certificate)
            .field("authorization", &self.authorization.map(|_| "(redacted)"))
            .finish()
    }
}
