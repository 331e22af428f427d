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
//! | `quota` | how much it may use: streams, events, bytes |
//! | `error` | why somebody is refused |
//! | `anyone` | who is let in where there is no access file: everybody |
//! | `file` | the access file: loaded, and loaded again when it changes |
//! | `document` | its text |
//! | `rules` | what it says, ready to be asked |
//! | `pattern` | patterns of names and of ids |
//! | `bearer`, `jwt` | tokens: known by their hash, or signed |
//! | `failures` | failed credentials, rationed by address |
//!
//! Nothing here knows of sockets, of gRPC, or of the engine. Nothing waits, but for
//! [`AccessFile::load`] and what loads it again. No error, log line or debug output says a
//! token, a key, or its hash.
//!
//! What an identity rests on is kept with it, as its [`Evidence`]: so an open call is checked
//! again after a reload without its token, which nobody keeps.

#![forbid(unsafe_code)]

mod anyone;
mod bearer;
mod certificate;
mod credentials;
mod document;
mod error;
mod failures;
mod file;
mod identity;
mod jwt;
mod pattern;
mod quota;
mod rules;

use std::fmt;

pub use self::anyone::Anyone;
pub use self::certificate::{CertificateError, ClientCertificate};
pub use self::credentials::{Credentials, Peer};
pub use self::error::AccessError;
pub use self::file::{AccessFile, AccessFileError};
pub use self::identity::{AdminRole, EventKinds, Evidence, Identity};
pub use self::quota::{Limits, StreamPermit};

/// Says who calls. An [access file](AccessFile) is one, [`Anyone`] another; whoever embeds the
/// server may have one of their own.
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
