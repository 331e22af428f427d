//! What is wrong with a file of certificates or keys.

use std::path::PathBuf;

/// Why certificates or a key cannot be used. Each text names the file; none holds a part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The file is larger than any file of certificates.
    #[error("{} is larger than {limit_bytes} bytes: this is no file of certificates or keys", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How large it may be.
        limit_bytes: u64,
    },
    /// The file is damaged, or not PEM.
    #[error("{} is not valid PEM: {reason}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file holds no certificate.
    #[error(
        "{} holds no certificate (no \"BEGIN CERTIFICATE\" line): it must be PEM, not DER or PKCS #12",
        path.display()
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate of the file cannot be used.
    #[error("certificate {number} of {} cannot be used: {reason}", path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The file holds no private key.
    #[error(
        "{} holds no private key (no \"BEGIN PRIVATE KEY\" line): it must be PEM (PKCS #8, PKCS #1 or SEC1)",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key needs a passphrase.
    #[error(
        "the private key in {} is encrypted: decrypt it first (openssl pkey -in FILE -out FILE)",
        path.display()
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is of a kind that is not supported, or damaged.
    #[error("the private key in {} cannot be used: {reason}", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is not the certificate's.
    #[error(
        "the private key in {} does not belong to the first certificate of {}",
        key.display(),
        certificate.display()
    )]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The system's store of CA certificates has none that can be used.
    #[error("the system has no CA certificates that can be read: {reason}")]
    NoSystemRoots {
        /// What was found.
        reason: String,
    },
    /// No certificate can be for such a name.
    #[error(
        "{name:?} is no name that a certificate can be for: it must be a DNS name or an IP address"
    )]
    ServerName {
        /// The name.
        name: String,
    },
    /// It does not work for another reason.
    #[error("TLS cannot be set up: {0}")]
    Other(String),
}

impl TlsError {
    /// The file that is at fault, if one is.
    #[must_use]
    pub fn path(&self) -> Option<&std::path::Path> {
        match self {
            TlsError::Unreadable { path, .. }
            | TlsError::TooLarge { path, .. }
            | TlsError::NotPem { path, .. }
            | TlsError::NoCertificate { path }
            | TlsError::BadCertificate { path, .. }
            | TlsError::NoKey { path }
            | TlsError::EncryptedKey { path }
            | TlsError::BadKey { path, .. }
            | TlsError::KeyMismatch { key: path, .. } => Some(path),
            TlsError::NoSystemRoots { .. } | TlsError::ServerName { .. } | TlsError::Other(_) => {
                None
            }
        }
    }
}
