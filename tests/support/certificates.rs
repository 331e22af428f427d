//! A CA of the test's own, what it signs, and TLS as a client of it speaks it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType,
};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// A CA.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub pem: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// When a certificate is valid, in days from now.
pub type Days = std::ops::Range<i32>;

impl Ca {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, name);
        params.distinguished_name = subject;
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        Ca {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// For a server at 127.0.0.1 and `localhost`.
    pub fn server(&self) -> Identity {
        self.server_of(-1..30)
    }

    pub fn server_of(&self, days: Days) -> Identity {
        let names = [
            SanType::DnsName("localhost".try_into().expect("a name")),
            SanType::IpAddress([127, 0, 0, 1].into()),
        ];
        self.issue(names.to_vec(), days)
    }

    /// For a client, with these URIs.
    pub fn client(&self, uris: &[&str]) -> Identity {
        self.client_of(uris, -1..30)
    }

    pub fn client_of(&self, uris: &[&str], days: Days) -> Identity {
        let uri = |uri: &&str| SanType::URI((*uri).try_into().expect("a URI"));
        self.issue(uris.iter().map(uri).collect(), days)
    }

    /// For a server at `localhost`, from so many seconds on.
    pub fn server_in(&self, seconds: i64) -> Identity {
        let name = SanType::DnsName("localhost".try_into().expect("a name"));
        self.issue_from(vec![name], (moment(seconds), moment(60 * DAY_SECONDS)))
    }

    /// For a client, for so many seconds more.
    pub fn client_for(&self, uris: &[&str], seconds: i64) -> Identity {
        let uri = |uri: &&str| SanType::URI((*uri).try_into().expect("a URI"));
        let names = uris.iter().map(uri).collect();
        self.issue_from(names, (moment(-DAY_SECONDS), moment(seconds)))
    }

    fn issue(&self, names: Vec<SanType>, days: Days) -> Identity {
        self.issue_from(names, moments(days))
    }

    fn issue_from(&self, names: Vec<SanType>, valid: Moments) -> Identity {
        let (params, key) = leaf(names, valid);
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A client's certificate that nobody but itself has signed.
pub fn self_signed(uri: &str) -> Identity {
    let (params, key) = leaf(
        vec![SanType::URI(uri.try_into().expect("a URI"))],
        moments(-1..30),
    );
    Identity {
        certificate: params.self_signed(&key).expect("signed").pem(),
        key: key.serialize_pem(),
    }
}

/// The first and the last.
type Moments = (SystemTime, SystemTime);

fn moments(days: Days) -> Moments {
    let at = |days: i32| moment(i64::from(days) * DAY_SECONDS);
    (at(days.start), at(days.end))
}

/// So many seconds from now.
fn moment(seconds: i64) -> SystemTime {
    let now = SystemTime::now();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        now - distance
    } else {
        now + distance
    }
}

fn leaf(names: Vec<SanType>, (first, last): Moments) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names;
    params.not_before = first.into();
    params.not_after = last.into();
    (params, KeyPair::generate().expect("a key"))
}

/// A server's files, which may change.
pub struct Files {
    directory: TempDir,
}

impl Files {
    /// With a CA for clients, if one is given.
    pub fn new(server: &Identity, client_ca: Option<&Ca>) -> Self {
        let files = Files {
            directory: tempfile::tempdir().expect("a directory"),
        };
        files.write(server);
        if let Some(ca) = client_ca {
            files.write_client_ca(&[ca]);
        }
        files
    }

    pub fn write(&self, server: &Identity) {
        std::fs::write(self.certificate(), &server.certificate).expect("written");
        std::fs::write(self.key(), &server.key).expect("written");
    }

    pub fn write_client_ca(&self, cas: &[&Ca]) {
        let pem: String = cas.iter().map(|ca| &ca.pem[..]).collect();
        std::fs::write(self.client_ca(), pem).expect("written");
    }

    pub fn certificate(&self) -> PathBuf {
        self.path("server.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.path("server.key")
    }

    pub fn client_ca(&self) -> PathBuf {
        self.path("client-ca.pem")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Of a server with these files.
    pub fn set(&self, config: &mut galaxy_push::config::Config) {
        config.tls_cert = Some(self.certificate());
        config.tls_key = Some(self.key());
        config.tls_client_ca = Some(self.client_ca()).filter(|path| Path::exists(path));
    }
}

/// A client that trusts this CA; with a certificate of its own, if one is given.
pub fn client(ca: &Ca, identity: Option<&Identity>) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots(ca));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let certificate =
                CertificateDer::from_pem_slice(identity.certificate.as_bytes()).expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM");
            builder
                .with_client_auth_cert(vec![certificate], key)
                .expect("an identity")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::in_memory_sessions(16);
    config
}

/// The same, without TLS 1.3.
pub fn tls12(ca: &Ca) -> ClientConfig {
    let newest = client(ca, None);
    let mut config = ClientConfig::builder_with_provider(Arc::clone(newest.crypto_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("a version")
        .with_root_certificates(roots(ca))
        .with_no_client_auth();
    config.alpn_protocols = newest.alpn_protocols;
    config
}

fn roots(ca: &Ca) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(ca.pem.as_bytes()).expect("PEM");
    roots.add(root).expect("a CA");
    roots
}

/// Connects, and completes the handshake as far as a client can tell.
pub async fn connect(
    address: SocketAddr,
    config: &ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    connect_over(TcpStream::connect(address).await?, config).await
}

/// The same over a socket that is connected.
pub async fn connect_over<S>(socket: S, config: &ClientConfig) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config.clone()))
        .connect(name, socket)
        .await
}

/// A gRPC channel on a connection of its own, which is not made again.
pub async fn channel(address: SocketAddr, config: &ClientConfig) -> Channel {
    let stream = super::soon(connect(address, config))
        .await
        .expect("a handshake");
    channel_over(stream).await
}

/// The same over a stream.
pub async fn channel_over<S>(stream: S) -> Channel
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take();
        async move { stream.ok_or(io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    super::soon(endpoint.connect_with_connector(connector))
        .await
        .expect("connected")
}
