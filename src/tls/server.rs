//! The side that is connected to: what it shows, whom it asks for a certificate, and how both
//! change while it runs.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoServerSessionStorage, ProducesTickets, ServerConfig, ServerConnection, WebPkiClientVerifier,
};
use rustls::sign::SingleCertAndKey;
use rustls::{HandshakeKind, RootCertStore};
use sha2::{Digest, Sha256};

use super::{ALPN_H2, TlsError, pem, provider};
use crate::access::ClientCertificate;

/// The files of a listener's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// The chain, the server's own certificate first, in PEM.
    pub certificate: PathBuf,
    /// The key of the first certificate, in PEM.
    pub key: PathBuf,
    /// The CAs of client certificates, in PEM. With these every client has to show one.
    pub client_ca: Option<PathBuf>,
}

/// TLS of a server, from files that may change.
///
/// What they hold is checked before it is used: it can be parsed, key and certificate belong
/// together, and the certificate is valid today. Otherwise what was good before stays.
pub struct ServerTls {
    files: ServerFiles,
    current: ArcSwap<Loaded>,
    /// The digest of what was refused last, which is not to be told again.
    refused: Mutex<Option<[u8; 32]>>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    /// Checks clients' certificates, where clients are asked for one.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Of all files.
    digest: [u8; 32],
    /// Of the client CAs; none where clients are not asked.
    client_ca: Option<[u8; 32]>,
    not_after: SystemTime,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the file, and what is wrong with it.
    pub fn load(files: ServerFiles) -> Result<Self, TlsError> {
        let read = Files::read(&files)?;
        let loaded = load(&files, &read, None)?;
        Ok(ServerTls {
            files,
            current: ArcSwap::from_pointee(loaded),
            refused: Mutex::default(),
        })
    }

    /// Reads the files again. Connections that begin from then on use what they hold now.
    /// Returns whether something changed; what is wrong with the same bytes is an error only
    /// the first time.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load). What was good before stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let read = match Files::read(&self.files) {
            Ok(read) => read,
            Err(error) => {
                let digest = Sha256::digest(error.to_string()).into();
                let is_new = refused.replace(digest) != Some(digest);
                return if is_new { Err(error) } else { Ok(false) };
            }
        };
        let current = self.current.load();
        let digest = read.digest();
        if digest == current.digest {
            *refused = None;
            return Ok(false);
        }
        // The same bytes may be good by now: a certificate that was not valid yet.
        match load(&self.files, &read, Some(&current)) {
            Ok(loaded) => {
                *refused = None;
                self.current.store(Arc::new(loaded));
                Ok(true)
            }
            Err(_) if *refused == Some(digest) => Ok(false),
            Err(error) => {
                *refused = Some(digest);
                Err(error)
            }
        }
    }

    /// What a connection that begins now uses.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// Checks the client's certificate again where the handshake of this connection, which
    /// `begun_with` this configuration, did not check it as it would be checked now.
    ///
    /// A ticket brings back the certificate of the first handshake, and nobody looks at its
    /// dates or its CA any more; and the CAs may have changed while a handshake was under way.
    ///
    /// # Errors
    ///
    /// [`rustls::Error`], as if the client had shown that certificate now.
    pub(crate) fn check_again(
        &self,
        begun_with: &Arc<ServerConfig>,
        connection: &ServerConnection,
    ) -> Result<(), rustls::Error> {
        let current = self.current.load();
        let Some(verifier) = &current.verifier else {
            return Ok(());
        };
        let is_resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        if !is_resumed && Arc::ptr_eq(&current.config, begun_with) {
            return Ok(());
        }
        let chain = connection.peer_certificates().unwrap_or_default();
        let Some((first, intermediates)) = chain.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        verifier
            .verify_client_cert(first, intermediates, UnixTime::now())
            .map(drop)
    }

    /// The last moment of the certificate.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.current.load().not_after
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("files", &self.files)
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

/// What the files hold.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Files {
    fn read(files: &ServerFiles) -> Result<Self, TlsError> {
        Ok(Files {
            certificate: pem::read(&files.certificate)?,
            key: pem::read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(pem::read).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let client_ca = self.client_ca.as_deref().unwrap_or_default();
        for bytes in [&self.certificate, &self.key, client_ca] {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        }
        digest.finalize().into()
    }
}

/// A configuration of what was read. With the same client CAs, it goes on with the tickets of
/// the `current` one.
fn load(files: &ServerFiles, read: &Files, current: Option<&Loaded>) -> Result<Loaded, TlsError> {
    let provider = provider();
    let chain = pem::certificates_of(&read.certificate, &files.certificate)?;
    let not_after = valid_until(&chain, files)?;
    let key = pem::private_key_of(&read.key, &files.key)?;
    let certified = pem::certified_key(chain, key, &provider, &files.certificate, &files.key)?;
    let other = |error: &dyn fmt::Display| TlsError::Other(error.to_string());

    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(super::VERSIONS)
        .map_err(|error| other(&error))?;
    let roots = match (&read.client_ca, &files.client_ca) {
        (Some(bytes), Some(path)) => Some(client_roots(bytes, path)?),
        _ => None,
    };
    let verifier = match roots {
        None => None,
        Some(roots) => Some(
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| other(&error))?,
        ),
    };
    let builder = match &verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // No session is kept here: all that is needed is in the client's ticket.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    let client_ca = read
        .client_ca
        .as_deref()
        .map(|bytes| Sha256::digest(bytes).into());
    config.ticketer = match current {
        // Who was let in by CAs that are gone must not come back by a ticket.
        Some(current) if current.client_ca == client_ca => Arc::clone(&current.config.ticketer),
        _ => ticketer()?,
    };
    Ok(Loaded {
        config: Arc::new(config),
        verifier,
        digest: read.digest(),
        client_ca,
        not_after,
    })
}

fn ticketer() -> Result<Arc<dyn ProducesTickets>, TlsError> {
    Ticketer::new().map_err(|error| TlsError::Other(error.to_string()))
}

fn client_roots(bytes: &[u8], path: &std::path::Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (at, certificate) in pem::certificates_of(bytes, path)?.into_iter().enumerate() {
        roots
            .add(certificate)
            .map_err(|error| TlsError::BadCertificate {
                path: path.to_owned(),
                number: at + 1,
                reason: error.to_string(),
            })?;
    }
    Ok(roots)
}

/// The last moment of the server's own certificate, which is valid now.
fn valid_until(
    chain: &[CertificateDer<'static>],
    files: &ServerFiles,
) -> Result<SystemTime, TlsError> {
    let refused = |reason: String| TlsError::BadCertificate {
        path: files.certificate.clone(),
        number: 1,
        reason,
    };
    let Some(first) = chain.first() else {
        return Err(TlsError::NoCertificate {
            path: files.certificate.clone(),
        });
    };
    let certificate =
        ClientCertificate::parse(first).map_err(|error| refused(error.to_string()))?;
    let now = SystemTime::now();
    if let Ok(ago) = now.duration_since(certificate.not_after) {
        return Err(refused(format!("it expired {} ago", rounded(ago))));
    }
    if let Ok(wait) = certificate.not_before.duration_since(now) {
        return Err(refused(format!(
            "it is not valid yet, for another {}",
            rounded(wait)
        )));
    }
    Ok(certificate.not_after)
}

/// A time in its largest whole unit.
fn rounded(time: Duration) -> String {
    let seconds = time.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}
