//! TLS for tests: a CA, certificates in files, and a server of TLS before any other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A CA, and the folder with the files that it makes.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// A new CA; its certificate is in [`ca`](Self::ca).
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("a CA");
        let directory = tempfile::tempdir().expect("a folder");
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).expect("written");
        Authority {
            issuer: Issuer::new(params, key),
            directory,
        }
    }

    /// A file of this name in the CA's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The CA's own certificate.
    pub fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    /// A certificate for these names, which may be IP addresses.
    pub fn issue(&self, names: &[&str]) -> Files {
        self.issue_with(names, |_| {})
    }

    /// The same, which has expired.
    pub fn issue_expired(&self, names: &[&str]) -> Files {
        self.issue_with(names, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 2, 1);
        })
    }

    /// A certificate whose parameters are changed by `change`.
    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Files {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let number = std::fs::read_dir(self.directory.path())
            .expect("the folder")
            .count();
        let files = Files {
            certificate: self.file(&format!("{number}.pem")),
            key: self.file(&format!("{number}.key")),
        };
        std::fs::write(&files.certificate, certificate.pem()).expect("written");
        std::fs::write(&files.key, key.serialize_pem()).expect("written");
        files
    }
}

/// What a server of TLS is told.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Its certificate.
    pub files: Files,
    /// The CA that client certificates must be signed by, where they are required.
    pub client_ca: Option<PathBuf>,
    /// Its versions of TLS.
    pub versions: &'static [&'static SupportedProtocolVersion],
    /// What it offers as ALPN.
    pub alpn: &'static [&'static [u8]],
}

impl Terms {
    pub fn new(files: Files) -> Self {
        Terms {
            files,
            client_ca: None,
            versions: rustls::ALL_VERSIONS,
            alpn: &[b"h2"],
        }
    }

    pub fn config(&self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.versions)
            .expect("versions");
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(chain(path));
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .expect("a verifier");
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::from_pem_file(&self.files.key).expect("a key");
        let mut config = builder
            .with_single_cert(chain(&self.files.certificate), key)
            .expect("a server's certificate");
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        config
    }
}

/// The certificates of a file.
pub fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path)
        .expect("a file")
        .collect::<Result<_, _>>()
        .expect("certificates")
}

/// A connection as the terminator saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub server_name: Option<String>,
    pub client_certificate: Option<CertificateDer<'static>>,
    pub was_resumed: bool,
    pub is_tls13: bool,
    pub key_exchange: String,
}

/// Speaks TLS on one side, and passes the plaintext to another server.
pub struct Terminator {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Terminator {
    pub async fn start(terms: &Terms, upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let address = listener.local_addr().expect("an address");
        let acceptor = TlsAcceptor::from(Arc::new(terms.config()));
        let seen = Arc::default();
        let noted: Arc<Mutex<Vec<Seen>>> = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(terminate(
                    acceptor.clone(),
                    stream,
                    upstream,
                    Arc::clone(&noted),
                ));
            }
        });
        Terminator {
            address,
            seen,
            task,
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn terminate(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    upstream: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
) {
    stream.set_nodelay(true).expect("an open socket");
    let mut tls = match acceptor.accept(stream).into_fallible().await {
        Ok(tls) => tls,
        Err((_, mut stream)) => {
            // To the end, else the system resets the connection and the alert is lost.
            let mut rest = Vec::new();
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
            let _ = stream.read_to_end(&mut rest).await;
            return;
        }
    };
    let connection = tls.get_ref().1;
    seen.lock().expect("no panic").push(Seen {
        server_name: connection.server_name().map(ToOwned::to_owned),
        client_certificate: connection
            .peer_certificates()
            .and_then(|chain| chain.first().cloned()),
        was_resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        is_tls13: connection.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3),
        key_exchange: format!(
            "{:?}",
            connection
                .negotiated_key_exchange_group()
                .map(|group| group.name())
        ),
    });
    if let Ok(mut plain) = TcpStream::connect(upstream).await {
        let _ = plain.set_nodelay(true);
        let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
    }
}
