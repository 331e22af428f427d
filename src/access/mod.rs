//! Who may do what.
//!
//! A caller shows a [credential](Credentials): a client certificate, a bearer token, or, over
//! a unix socket, its user id. An [`Authenticator`] says whose it is: an [`Identity`], a
//! principal with its grants. The grants are asked before anything takes effect: a
//! subscription before it takes over from another one, a batch before it is published.
//!
//! | file | what is in it |
//! |---|---|
//! | `credentials`, `certificate` | what a caller shows |
//! | `identity` | a principal, its grants, and what they rest on |
//! | `error` | why somebody is refused |
//!
//! Nothing here knows of sockets, of gRPC, or of the engine.

#![forbid(unsafe_code)]

mod certificate;
mod credentials;
mod error;
mod identity;

use std::fmt;

pub use self::certificate::{CertificateError, ClientCertificate};
pub use self::credentials::{Credentials, Peer};
pub use self::error::AccessError;
pub use self::identity::{AdminRole, Anyone, EventKinds, Evidence, Identity, StreamPermit};

/// Says who calls. The [access file](https://docs.rs/galaxy-push) is one; whoever embeds the
/// server may have another.
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// Whose credential it is. Called once a call, on the thread that serves the connection:
    /// it must not block.
    ///
    /// # Errors
    ///
    /// [`AccessError`] says what the caller is told.
    fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Identity, AccessError>;

    /// Whether an open call's identity still holds, and what it may do now. Called for each
    /// open call within a second after [`revision`](Self::revision) has changed.
    ///
    /// # Errors
    ///
    /// The call ends with this.
    fn recheck(&self, identity: &Identity) -> Result<Identity, AccessError> {
        Ok(identity.clone())
    }

    /// Changes with each change of what may be done.
    fn revision(&self) -> u64 {
        0
    }
}
