//! Certificates and private keys from PEM files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::TlsError;

/// The largest file. A system's whole store of CAs has a fifth of it.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The bytes of a file, which may be a named pipe or whatever else can be read.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| TlsError::Unreadable {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(TlsError::TooLarge {
            path: path.to_owned(),
            limit_bytes: MAX_FILE_BYTES,
        });
    }
    Ok(bytes)
}

/// Every certificate of these bytes, in their order; they are from `path`. There is at least
/// one.
///
/// # Errors
///
/// [`TlsError`] names the file, and what is wrong.
pub(super) fn certificates_of(
    bytes: &[u8],
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| not_pem(&error, path))?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

/// The first private key of these bytes, which are from `path`.
///
/// # Errors
///
/// [`TlsError`] names the file, and what is wrong.
pub(super) fn private_key_of(
    bytes: &[u8],
    path: &Path,
) -> Result<PrivateKeyDer<'static>, TlsError> {
    use rustls::pki_types::pem::Error;
    // PKCS #8 says it in the label, the older form in a header.
    let is_encrypted = [
        &b"BEGIN ENCRYPTED PRIVATE KEY"[..],
        b"Proc-Type: 4,ENCRYPTED",
    ]
    .iter()
    .any(|mark| bytes.windows(mark.len()).any(|window| window == *mark));
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => Ok(key),
        Err(_) if is_encrypted => Err(TlsError::EncryptedKey {
            path: path.to_owned(),
        }),
        Err(Error::NoItemsFound) => Err(TlsError::NoKey {
            path: path.to_owned(),
        }),
        Err(error) => Err(not_pem(&error, path)),
    }
}

/// A chain and its key, which belong together. `certificate` and `key` name their files.
pub(crate) fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key_der: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
    certificate: &Path,
    key: &Path,
) -> Result<CertifiedKey, TlsError> {
    use rustls::Error;
    let signing = provider
        .key_provider
        .load_private_key(key_der)
        .map_err(|error| TlsError::BadKey {
            path: key.to_owned(),
            reason: error.to_string(),
        })?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        // A key that cannot tell its public half is found out by the first handshake.
        Ok(()) | Err(Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(Error::InconsistentKeys(_)) => Err(TlsError::KeyMismatch {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        }),
        Err(error) => Err(TlsError::BadCertificate {
            path: certificate.to_owned(),
            number: 1,
            reason: error.to_string(),
        }),
    }
}

/// The library's words, without what it has read: a line of the file may be part of a key.
fn not_pem(error: &rustls::pki_types::pem::Error, path: &Path) -> TlsError {
    use rustls::pki_types::pem::Error;
    let reason = match error {
        Error::MissingSectionEnd { .. } => "a section has no END line: the file is cut off",
        Error::IllegalSectionStart { .. } => "a BEGIN line is malformed",
        Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be parsed",
    };
    TlsError::NotPem {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}
