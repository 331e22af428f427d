//! A principal, its grants, and what they rest on.

use std::sync::Arc;
use std::time::SystemTime;

use super::{AccessError, ClientCertificate};

/// What an identity rests on, kept so that it can be checked again; never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// Nothing was shown.
    Nothing,
    /// A client certificate.
    Certificate(Arc<ClientCertificate>),
    /// The SHA-256 of a bearer token.
    TokenHash([u8; 32]),
    /// A signed token's subject, and the id of the key that has signed it.
    Jwt {
        /// `sub`.
        subject: String,
        /// The key's id in the key set.
        key_id: Option<String>,
    },
    /// The user id of a unix socket's peer.
    UnixUid(u32),
    /// What an authenticator of somebody else's keeps.
    Other(Arc<str>),
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventKinds {
    /// `client_event`.
    pub client_event: bool,
    /// `session_invalidation`.
    pub session_invalidation: bool,
}

impl EventKinds {
    /// Every kind.
    pub const ALL: EventKinds = EventKinds {
        client_event: true,
        session_invalidation: true,
    };
}

/// What may be done at the admin listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminRole {
    /// Nothing.
    #[default]
    None,
    /// To look.
    Read,
    /// To end streams too.
    Write,
}

/// A principal that calls, and what it may do.
#[derive(Clone, Debug)]
pub struct Identity {
    principal: Arc<str>,
    evidence: Evidence,
    expires_at: Option<SystemTime>,
    /// Patterns of gateways' ids: `*` stands for any run of characters.
    subscribe: Vec<String>,
    publish: EventKinds,
    admin: AdminRole,
}
