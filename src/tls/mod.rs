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

#[cfg(feature = "client")]
mod client;
mod error;
#[cfg(feature = "client")]
mod handshake;
pub(crate) mod pem;
#[cfg(feature = "server")]
mod server;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedProtocolVersion};

#[cfg(feature = "client")]
pub use self::client::ClientTls;
#[cfg(feature = "client")]
pub(crate) use self::client::Loaded;
pub use self::error::TlsError;
#[cfg(feature = "client")]
pub use self::handshake::HandshakeError;
#[cfg(feature = "server")]
pub use self::server::{ServerFiles, ServerTls};

/// The cryptography of both sides. Every configuration names it, so that it does not matter
/// what else in the process has installed as the default.
///
/// AES-128 comes before AES-256: it costs a quarter less for each byte, and no attack on it
/// is in sight. A peer that prefers another order may have it.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider
            .cipher_suites
            .sort_by_key(|suite| !is_aes_128(suite.suite()));
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

/// Newest first.
pub(crate) const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

fn is_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// HTTP/2, as ALPN names it.
pub(crate) const ALPN_H2: &[u8] = b"h2";

/// HTTP/1.1, as ALPN names it.
#[cfg(feature = "server")]
pub(crate) const ALPN_HTTP_1_1: &[u8] = b"http/1.1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hybrid_key_exchange_is_first_and_so_are_the_cheaper_ciphers() {
        let provider = provider();
        let first = provider.kx_groups[0].name();
        assert_eq!(first, rustls::NamedGroup::X25519MLKEM768);
        let suites = provider.cipher_suites.iter().map(|suite| suite.suite());
        let suites: Vec<CipherSuite> = suites.collect();
        assert_eq!(suites[0], CipherSuite::TLS13_AES_128_GCM_SHA256);
        // All of them are still there.
        let default = rustls::crypto::aws_lc_rs::default_provider().cipher_suites;
        assert_eq!(suites.len(), default.len());
    }
}
