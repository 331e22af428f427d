//! The side that is connected to: what it shows, whom it asks for a certificate, and how both
//! change while it runs.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use sha2::{Digest, Sha256};

use super::{ALPN_H2, ALPN_HTTP_1_1, TlsError, pem, provider};
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
    files: ArcSwap<ServerFiles>,
    asks_clients: bool,
    current: ArcSwap<Loaded>,
    /// What the files held at the last look, if that was something else.
    seen: Mutex<Option<[u8; 32]>>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    /// Of the admin listener, where a client may show a certificate, and need not.
    admin: Arc<ServerConfig>,
    /// Of all files.
    digest: [u8; 32],
    /// Where clients are asked for a certificate.
    clients: Option<Clients>,
    /// Grows with each change of the client CAs, from 1.
    ca_revision: u64,
    not_after: SystemTime,
}

/// Who has to have signed clients' certificates.
struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Of the CAs.
    digest: [u8; 32],
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
            asks_clients: files.client_ca.is_some(),
            files: ArcSwap::from_pointee(files),
            current: ArcSwap::from_pointee(loaded),
            seen: Mutex::default(),
        })
    }

    /// Reads the files again. Connections that begin from then on use what they hold now.
    /// Returns whether something changed.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load). What was good before stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        // What is put back after this counts as a change, too.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = None;
        let files = self.files.load();
        self.replace(&files, &Files::read(&files)?)
    }

    /// Reads these files, in the place of those that it was loaded from, without taking them
    /// up: [`Prepared::commit`] does. Until then nobody else reloads it. Whether clients are
    /// asked for a certificate stays as it is.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load). Nothing has changed.
    pub(crate) fn prepare(&self, files: ServerFiles) -> Result<Prepared<'_>, TlsError> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let read = Files::read(&files)?;
        let current = self.current.load();
        let is_new = read.digest() != current.digest;
        let loaded = is_new.then(|| load(&files, &read, Some(&current)));
        Ok(Prepared {
            loaded: loaded.transpose()?,
            tls: self,
            seen,
            files,
        })
    }

    /// Looks at the files again, and takes a change up when it has seen it twice in a row:
    /// whoever looks every few seconds takes no file of which some certificates are written
    /// and some are not.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load). What was good before stays.
    pub fn reload_when_settled(&self) -> Result<bool, TlsError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let files = self.files.load();
        let read = Files::read(&files)?;
        if seen.replace(read.digest()) != Some(read.digest()) {
            return Ok(false);
        }
        self.replace(&files, &read)
    }

    fn replace(&self, files: &ServerFiles, read: &Files) -> Result<bool, TlsError> {
        let current = self.current.load();
        if read.digest() == current.digest {
            return Ok(false);
        }
        let loaded = load(files, read, Some(&current))?;
        self.current.store(Arc::new(loaded));
        Ok(true)
    }

    /// Whether clients are asked for a certificate.
    #[must_use]
    pub fn asks_clients(&self) -> bool {
        self.asks_clients
    }

    /// Changes with each change of the client CAs.
    #[must_use]
    pub fn ca_revision(&self) -> u64 {
        self.current.load().ca_revision
    }

    /// Whether one of today's CAs has signed a client's certificate, and it is valid. Of one
    /// that these CAs were asked about before, nothing is asked again.
    ///
    /// # Errors
    ///
    /// As if the client had shown it in a handshake now.
    pub fn check(&self, certificate: &ClientCertificate) -> Result<(), rustls::Error> {
        let current = self.current.load();
        if certificate.trusted_by() == current.ca_revision {
            return Ok(());
        }
        let Some(clients) = &current.clients else {
            return Ok(());
        };
        let chain = certificate.chain().iter();
        let chain: Vec<_> = chain.map(|der| CertificateDer::from(&der[..])).collect();
        let Some((first, rest)) = chain.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        clients
            .verifier
            .verify_client_cert(first, rest, UnixTime::now())?;
        certificate.set_trusted_by(current.ca_revision);
        Ok(())
    }

    /// What a connection that begins now uses, and the revision of its client CAs.
    pub(crate) fn current(&self) -> (Arc<ServerConfig>, u64) {
        let current = self.current.load();
        (Arc::clone(&current.config), current.ca_revision)
    }

    /// The same for a connection to the admin listener. Its tickets are its own: one of a
    /// client that has shown no certificate opens no connection where one is required.
    pub(crate) fn current_of_admin(&self) -> (Arc<ServerConfig>, u64) {
        let current = self.current.load();
        (Arc::clone(&current.admin), current.ca_revision)
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
            .field("files", &self.files.load())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

/// What a [`ServerTls`] is about to take up.
pub(crate) struct Prepared<'a> {
    tls: &'a ServerTls,
    seen: MutexGuard<'a, Option<[u8; 32]>>,
    files: ServerFiles,
    /// If it is not what is in use already.
    loaded: Option<Loaded>,
}

impl Prepared<'_> {
    /// Takes it up; returns whether anything changes.
    pub(crate) fn commit(mut self) -> bool {
        // What is put back after this counts as a change, too.
        *self.seen = None;
        self.tls.files.store(Arc::new(self.files));
        let has_changed = self.loaded.is_some();
        if let Some(loaded) = self.loaded {
            self.tls.current.store(Arc::new(loaded));
        }
        has_changed
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

    let resolver = Arc::new(SingleCertAndKey::from(certified));

    let (clients, maybe_clients) = match (&read.client_ca, &files.client_ca) {
        (Some(bytes), Some(path)) => {
            let roots = Arc::new(client_roots(bytes, path)?);
            let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
            let maybe = builder.clone().allow_unauthenticated().build();
            let clients = Clients {
                verifier: builder.build().map_err(|error| other(&error))?,
                digest: Sha256::digest(bytes).into(),
            };
            (Some(clients), Some(maybe.map_err(|error| other(&error))?))
        }
        _ => (None, None),
    };
    let verifier = clients.as_ref().map(|of| Arc::clone(&of.verifier));

    let digest_of = |clients: &Option<Clients>| clients.as_ref().map(|of| of.digest);
    let unchanged = current.filter(|of| digest_of(&of.clients) == digest_of(&clients));
    let config = |verifier, protocols: &[&[u8]], before: Option<&ServerConfig>| {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(super::VERSIONS)
            .map_err(|error| other(&error))?;
        let builder = match verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&resolver) as _);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        // No session is kept here: all that is needed is in the client's ticket.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = match before {
            Some(before) => Arc::clone(&before.ticketer),
            // Who was let in by CAs that are gone must not come back by a ticket.
            None => ticketer()?,
        };
        Ok::<_, TlsError>(Arc::new(config))
    };
    let before = unchanged.map(|of| &*of.config);
    let peers = config(verifier, &[ALPN_H2], before)?;
    let before = unchanged.map(|of| &*of.admin);
    let admin = config(maybe_clients, &[ALPN_H2, ALPN_HTTP_1_1], before)?;
    Ok(Loaded {
        config: peers,
        admin,
        digest: read.digest(),
        ca_revision: match (unchanged, current) {
            (Some(same), _) => same.ca_revision,
            (None, Some(before)) => before.ca_revision + 1,
            (None, None) => 1,
        },
        clients,
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
