//! [`ClientTls`]: whom a client trusts, and as whom it connects.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use super::{ALPN_H2, TlsError, pem, provider};

/// TLS as a client uses it: TLS 1.3 or 1.2, HTTP/2 by ALPN, and the server's certificate always
/// checked: its chain up to a trusted CA, its dates, and its name.
///
/// The files are read with each connection, so that renewed certificates are used by the next
/// one. The system's store of CAs is read once. Session tickets are kept as long as the files
/// stay the same.
///
/// ```
/// use galaxy_push::tls::ClientTls;
///
/// let tls = ClientTls::new()
///     .ca("ca.pem")
///     .identity("gateway-7.pem", "gateway-7.key");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    server_name: Option<String>,
    without_resumption: bool,
}

impl ClientTls {
    /// Trusts the CAs of the system's store, and has no certificate of its own.
    #[must_use]
    pub fn new() -> Self {
        ClientTls::default()
    }

    /// Trusts the CAs in this PEM file, and no others. Default: those of the system's store
    /// (or, where it is set, of `SSL_CERT_FILE`).
    #[must_use]
    pub fn ca(self, file: impl Into<PathBuf>) -> Self {
        ClientTls {
            ca: Some(file.into()),
            ..self
        }
    }

    /// Connects with the certificate in this PEM file, the rest of its chain behind it, and
    /// with its private key. Default: with none.
    #[must_use]
    pub fn identity(self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        ClientTls {
            identity: Some((certificate.into(), key.into())),
            ..self
        }
    }

    /// The name, or the IP address, that the server's certificate must be for, and that the
    /// server is asked for (SNI, `:authority`). Default: the host of its address.
    #[must_use]
    pub fn server_name(self, name: impl Into<String>) -> Self {
        ClientTls {
            server_name: Some(name.into()),
            ..self
        }
    }

    /// Whether a later connection resumes an earlier session by its ticket, which spares both
    /// sides the certificates and their signatures. Default: yes.
    #[must_use]
    pub fn resumption(self, enabled: bool) -> Self {
        ClientTls {
            without_resumption: !enabled,
            ..self
        }
    }

    /// Reads the files and checks that they can be used.
    ///
    /// # Errors
    ///
    /// [`TlsError`] names the file, and what is wrong.
    pub fn check(&self) -> Result<(), TlsError> {
        self.load(None).map(drop)
    }

    /// The name that was [set](Self::server_name).
    pub(crate) fn set_server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Whether later connections resume sessions.
    #[cfg(feature = "bench")]
    pub(crate) fn resumes(&self) -> bool {
        !self.without_resumption
    }

    /// The name that the certificate of a server on `host` must be for.
    pub(crate) fn name_of(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let unbracketed = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(name);
        ServerName::try_from(unbracketed.to_owned()).map_err(|_| TlsError::ServerName {
            name: name.to_owned(),
        })
    }

    /// Reads the files. What was loaded `before` is returned again where they still are the
    /// same.
    pub(crate) fn load(&self, before: Option<&Arc<Loaded>>) -> Result<Arc<Loaded>, TlsError> {
        let contents = Contents {
            ca: self.ca.as_deref().map(pem::read).transpose()?,
            identity: match &self.identity {
                Some((certificate, key)) => Some((pem::read(certificate)?, pem::read(key)?)),
                None => None,
            },
        };
        if let Some(before) = before
            && before.contents == contents
        {
            return Ok(Arc::clone(before));
        }
        let roots = match (&self.ca, &contents.ca) {
            (Some(path), Some(bytes)) => Arc::new(roots_of(bytes, path)?),
            _ => match before {
                Some(before) => Arc::clone(&before.roots),
                None => Arc::new(system_roots()?),
            },
        };
        let config = self.config(Arc::clone(&roots), &contents)?;
        Ok(Arc::new(Loaded {
            contents,
            roots,
            config: Arc::new(config),
        }))
    }

    fn config(
        &self,
        roots: Arc<RootCertStore>,
        contents: &Contents,
    ) -> Result<ClientConfig, TlsError> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(super::VERSIONS)
            .map_err(|error| TlsError::Other(error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match (&self.identity, &contents.identity) {
            (Some((certificate, key)), Some((chain_bytes, key_bytes))) => {
                let chain = pem::certificates_of(chain_bytes, certificate)?;
                let key_der = pem::private_key_of(key_bytes, key)?;
                let certified = pem::certified_key(chain, key_der, &provider, certificate, key)?;
                let resolver = rustls::sign::SingleCertAndKey::from(certified);
                builder.with_client_cert_resolver(Arc::new(resolver))
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        if self.without_resumption {
            config.resumption = Resumption::disabled();
        }
        Ok(config)
    }
}

/// What the files held, ready to connect with.
pub(crate) struct Loaded {
    contents: Contents,
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
}

impl Loaded {
    pub(crate) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }
}

impl std::fmt::Debug for Loaded {
    /// Without the contents: a private key is among them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").finish_non_exhaustive()
    }
}

#[derive(PartialEq, Eq)]
struct Contents {
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// The CAs of a file. One that cannot be used makes the file bad: who names a CA means it.
fn roots_of(bytes: &[u8], path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in pem::certificates_of(bytes, path)?.into_iter().enumerate() {
        roots
            .add(certificate)
            .map_err(|error| TlsError::BadCertificate {
                path: path.to_owned(),
                number: index + 1,
                reason: error.to_string(),
            })?;
    }
    Ok(roots)
}

/// The CAs of the system's store. Real stores hold odd certificates: those are left out.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let reason = found.errors.first().map_or_else(
            || "its store is empty, or there is none".to_owned(),
            ToString::to_string,
        );
        return Err(TlsError::NoSystemRoots { reason });
    }
    Ok(roots)
}
