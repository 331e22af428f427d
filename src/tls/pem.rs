//! Certificates and private keys from PEM files.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::TlsError;

/// The largest file. A system's whole store of CAs has a fifth of it.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// How long a pipe may take to say all that it has to.
const PIPE_TIMEOUT: Duration = Duration::from_secs(5);

/// The bytes of a file. It may be a named pipe or a device: then its end is waited for, but
/// for so long only.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let bytes = read_to_limit(path).map_err(|error| TlsError::Unreadable {
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

/// The whole file, or as much of it as shows that it is too large.
fn read_to_limit(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe that nobody writes to would hold up the one who opens it, for ever.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let is_slow = !file.metadata()?.is_file();
    let end = Instant::now() + PIPE_TIMEOUT;
    let mut limited = (&file).take(MAX_FILE_BYTES + 1);
    let mut bytes = Vec::new();
    loop {
        if is_slow {
            wait_for_input(&file, end)?;
        }
        match limited.read_to_end(&mut bytes) {
            Ok(_) => return Ok(bytes),
            // What was read before that is kept.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits until there is something to read, or the end.
fn wait_for_input(file: &File, end: Instant) -> io::Result<()> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it is a pipe or a device, and did not end within {PIPE_TIMEOUT:?}"),
            ));
        }
        let timeout = left.try_into().map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
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
