//! A certificate for a server with TLS, and who trusts it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use galaxy_push::tls::ClientTls;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The files of a certificate for the loopback address.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Files {
    /// The variables of the environment that tell a server of this program's of them.
    pub(crate) const CERTIFICATE: &str = "EDGE_TLS_CERT";
    pub(crate) const KEY: &str = "EDGE_TLS_KEY";

    /// New ones, in this directory.
    pub(crate) fn write(directory: &Path) -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])
            .map_err(io::Error::other)?;
        let files = Files {
            certificate: directory.join("server.pem"),
            key: directory.join("server.key"),
        };
        std::fs::write(&files.certificate, made.cert.pem())?;
        std::fs::write(&files.key, made.signing_key.serialize_pem())?;
        Ok(files)
    }

    /// Those that this process was told of.
    pub(crate) fn of_this_process() -> Option<Self> {
        Some(Files {
            certificate: std::env::var_os(Files::CERTIFICATE)?.into(),
            key: std::env::var_os(Files::KEY)?.into(),
        })
    }

    /// Trusts the server, and nobody else.
    pub(crate) fn client(&self, tickets: bool) -> ClientTls {
        ClientTls::new().ca(&self.certificate).resumption(tickets)
    }

    /// An ordinary server of rustls: its defaults, with tickets, which are off by default.
    pub(crate) fn server(&self) -> Result<Arc<ServerConfig>, Box<dyn std::error::Error>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = CertificateDer::pem_file_iter(&self.certificate)?.collect::<Result<_, _>>()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&self.key)?)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        Ok(Arc::new(config))
    }
}
