//! Certificates, keys, and TLS of either side.
//!
//! rustls with aws-lc-rs: TLS 1.3 and 1.2, and the hybrid key exchange X25519MLKEM768 before
//! all others, so that what is recorded today cannot be read once there are quantum computers.
//!
//! | file | what is in it |
//! |---|---|
//! | `pem` | certificates and keys from files |
//! | `client` | the side that connects: whom it trusts, and as whom it connects |
//! | `server` | the side that is connected to: what it shows, whom it asks for a certificate |
//! | `handshake` | why a handshake failed, in words that say what to do |
//! | `error` | what is wrong with a file |
//!
//! Nothing here opens a socket or knows of gRPC. No error holds a part of a file.

#![forbid(unsafe_code)]

mod client;
mod error;
mod handshake;
pub(crate) mod pem;
#[cfg(feature = "server")]
mod server;

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};

pub use self::client::ClientTls;
#[cfg(feature = "client")]
pub(crate) use self::client::Loaded;
pub use self::error::TlsError;
pub use self::handshake::HandshakeError;
#[cfg(feature = "server")]
pub use self::server::{ServerFiles, ServerTls};

/// The cryptography of both sides. Every configuration names it, so that it does not matter
/// what else in the process has installed as the default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    use std::sync::LazyLock;
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// Newest first.
pub(crate) const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// HTTP/2, as ALPN names it.
pub(crate) const ALPN_H2: &[u8] = b"h2";
