//! TLS handshakes of accepted connections: on threads of their own, so many at once, each for
//! so long.
//!
//! A handshake takes a thread half a millisecond and more, for all that is signed and agreed
//! in it. The threads that deliver would be late by as much; those here step back when both
//! want to run.

use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use rustls::{AlertDescription, HandshakeKind, InvalidMessage, ServerConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::limited_log::LimitedLog;
use super::listener::BoundAddress;
use super::socket::{Socket, Stream};
use super::tls_session::TlsSession;
use crate::access::{ClientCertificate, Peer};
use crate::service::Caller;
use crate::telemetry::{HandshakeResult, Handshakes as HandshakeCounts};
use crate::tls::{ALPN_H2, ServerTls};

/// How long a handshake may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many a listener has at once, and no more than half of its connections: who has not
/// shown who it is must not take all places. Further peers wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 1024;
/// How long one may take while there are as many as may be.
const CROWDED_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client has to read why its handshake failed.
const LINGER: Duration = Duration::from_secs(1);
/// By how much the threads are nicer than those that deliver.
#[cfg(target_os = "linux")]
const NICER: i32 = 5;

/// The threads for handshakes of all listeners.
#[derive(Debug)]
pub(crate) struct HandshakeThreads(Option<Runtime>);

impl HandshakeThreads {
    /// As many as there are cores: only at a storm are they all busy.
    pub(crate) fn start() -> io::Result<Self> {
        let threads = available_parallelism().map_or(1, NonZero::get);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("handshakes")
            .enable_all()
            .on_thread_start(step_back)
            .build()?;
        Ok(HandshakeThreads(Some(runtime)))
    }

    /// The handshakes of a listener.
    pub(super) fn of_listener(
        &self,
        tls: Arc<ServerTls>,
        connections: u32,
        counts: HandshakeCounts,
    ) -> Option<Handshakes> {
        let runtime = self.0.as_ref()?.handle().clone();
        Some(Handshakes {
            tls,
            counts,
            most: MAX_HANDSHAKES.min(connections as usize / 2).max(1),
            runtime,
            under_way: JoinSet::new(),
            crowded: watch::Sender::new(false),
            failures: LimitedLog::default(),
        })
    }
}

impl Drop for HandshakeThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // To wait for them is not allowed on a runtime's thread, and they have nothing
            // to finish.
            runtime.shutdown_background();
        }
    }
}

/// On Linux a nice value is a thread's own; elsewhere it would be the process's.
fn step_back() {
    #[cfg(target_os = "linux")]
    {
        // Should it fail, handshakes and deliveries share the processors evenly.
        let _ = rustix::process::nice(NICER);
    }
}

/// A listener's handshakes.
#[derive(Debug)]
pub(super) struct Handshakes {
    tls: Arc<ServerTls>,
    counts: HandshakeCounts,
    /// How many there may be.
    most: usize,
    runtime: Handle,
    under_way: JoinSet<Result<Done, Failed>>,
    /// Whether there are as many as may be.
    crowded: watch::Sender<bool>,
    failures: LimitedLog,
}

/// A handshake that is complete.
#[derive(Debug)]
struct Done {
    stream: std::net::TcpStream,
    connection: ServerConnection,
    peer: SocketAddr,
    certificate: Option<Arc<ClientCertificate>>,
    slot: OwnedSemaphorePermit,
}

/// A handshake that failed.
#[derive(Debug)]
struct Failed {
    peer: SocketAddr,
    result: HandshakeResult,
    why: String,
}

impl Handshakes {
    /// Whether there may be one more.
    pub(super) fn has_room(&self) -> bool {
        self.under_way.len() < self.most
    }

    /// Begins a connection's handshake.
    pub(super) fn begin(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        slot: OwnedSemaphorePermit,
    ) -> io::Result<()> {
        let stream = stream.into_std()?;
        let tls = Arc::clone(&self.tls);
        let crowded = self.crowded.subscribe();
        let handshake = async move {
            let failed = |why| Failed {
                peer,
                result: HandshakeResult::Failed,
                why,
            };
            let (config, ca_revision) = tls.current();
            let acceptor = TlsAcceptor::from(config);
            let (stream, connection) = shake_hands(acceptor, stream, crowded)
                .await
                .map_err(|(result, why)| Failed { peer, result, why })?;
            let certificate = client_certificate(&connection).map_err(failed)?;
            if let Some(certificate) = &certificate {
                // A ticket brings back the certificate of the first handshake, and nobody has
                // looked at its dates or its CA this time.
                if connection.handshake_kind() != Some(HandshakeKind::Resumed) {
                    certificate.set_trusted_by(ca_revision);
                }
                tls.check(certificate)
                    .map_err(|error| failed(why_tls(&error)))?;
            }
            Ok(Done {
                stream,
                connection,
                peer,
                certificate,
                slot,
            })
        };
        self.under_way.spawn_on(handshake, &self.runtime);
        self.note_crowd();
        Ok(())
    }

    /// The next handshake that ends, with its connection; `None` where it failed, which is
    /// logged. Pending while there is none.
    pub(super) async fn next(&mut self, address: &BoundAddress) -> Option<Socket> {
        let Some(ended) = self.under_way.join_next().await else {
            return std::future::pending().await;
        };
        self.note_crowd();
        let socket = match ended {
            Ok(done) => {
                let (result, resumed) = match &done {
                    Ok(done) => (HandshakeResult::Ok, done.is_resumed()),
                    Err(failed) => (failed.result, false),
                };
                self.counts.ended(result, resumed);
                done.and_then(Done::into_socket)
            }
            Err(error) => {
                tracing::error!(%address, "a TLS handshake broke: {error}");
                return None;
            }
        };
        socket
            .inspect_err(|Failed { peer, why, .. }| {
                self.failures.log(|handshakes| {
                    tracing::warn!(%address, %peer, handshakes, "TLS handshake failed: {why}");
                });
            })
            .ok()
    }

    fn note_crowd(&self) {
        let is_crowded = !self.has_room();
        self.crowded
            .send_if_modified(|crowded| std::mem::replace(crowded, is_crowded) != is_crowded);
    }
}

impl Done {
    /// Whether it goes on with an earlier session.
    fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// On the runtime that serves it.
    fn into_socket(self) -> Result<Socket, Failed> {
        let stream = TcpStream::from_std(self.stream).map_err(|error| Failed {
            peer: self.peer,
            result: HandshakeResult::Failed,
            why: error.to_string(),
        })?;
        let caller = Caller {
            peer: Peer::Tcp(self.peer),
            certificate: self.certificate,
        };
        let socket = Socket::new(Stream::Tcp(stream), caller, self.slot);
        Ok(socket.with_tls(TlsSession::new(self.connection)))
    }
}

/// The whole of a handshake. An error says in words why it failed.
async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: std::net::TcpStream,
    mut crowded: watch::Receiver<bool>,
) -> Result<(std::net::TcpStream, ServerConnection), (HandshakeResult, String)> {
    let began = Instant::now();
    let failed = |why| (HandshakeResult::Failed, why);
    let timeout = |why| (HandshakeResult::Timeout, why);
    let stream = TcpStream::from_std(stream).map_err(|error| failed(error.to_string()))?;
    let crowd = async {
        // The sender lives as long as the listener, which lives as long as this.
        let _ = crowded.wait_for(|crowded| *crowded).await;
        sleep_until(began + CROWDED_TIMEOUT).await;
    };
    let shaken = tokio::select! {
        // What has arrived counts before what is late.
        biased;
        shaken = acceptor.accept(stream).into_fallible() => shaken,
        () = sleep_until(began + TIMEOUT) => {
            let why = format!("the client did not complete it within {TIMEOUT:?}");
            return Err(timeout(why));
        }
        () = crowd => {
            return Err(timeout(format!(
                "the client did not complete it within {CROWDED_TIMEOUT:?}, and as many are \
                 under way as may be"
            )));
        }
    };
    let (stream, connection) = match shaken {
        Ok(stream) => stream.into_inner(),
        Err((error, stream)) => {
            linger(stream).await;
            return Err(failed(why(&error)));
        }
    };
    let stream = stream
        .into_std()
        .map_err(|error| failed(error.to_string()))?;
    Ok((stream, connection))
}

/// Lets a client read the alert that says why: a socket that is closed with something unread
/// answers with a reset, which may overtake it.
async fn linger(mut stream: TcpStream) {
    let _ = timeout(LINGER, async {
        if stream.shutdown().await.is_ok() {
            let mut scrap = [0; 1024];
            while let Ok(1..) = stream.read(&mut scrap).await {}
        }
    })
    .await;
}

/// What the client has shown, where it was asked. An error says in words why the connection
/// is of no use.
fn client_certificate(
    connection: &ServerConnection,
) -> Result<Option<Arc<ClientCertificate>>, String> {
    if connection.alpn_protocol() != Some(ALPN_H2) {
        return Err("the client did not ask for HTTP/2 (ALPN `h2`), which gRPC needs".to_owned());
    }
    connection
        .peer_certificates()
        .map(|chain| ClientCertificate::of_chain(chain).map(Arc::new))
        .transpose()
        .map_err(|error| format!("the client's certificate: {error}"))
}

/// Why a handshake failed, for who reads the log.
fn why(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "the client left in the middle of it".to_owned();
    }
    match error.get_ref().and_then(|of| of.downcast_ref()) {
        Some(error) => why_tls(error),
        None => error.to_string(),
    }
}

/// The same, of an error of TLS itself.
fn why_tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the client does not speak TLS (plaintext at a listener with --tls-cert)".to_owned()
        }
        rustls::Error::NoCertificatesPresented => {
            "the client shows no certificate, which --tls-client-ca asks for".to_owned()
        }
        rustls::Error::InvalidCertificate(problem) => {
            format!("the client's certificate is refused: {problem}")
        }
        rustls::Error::AlertReceived(alert) => refused_by_client(*alert),
        rustls::Error::NoApplicationProtocol => {
            "the client asks for other protocols than HTTP/2 (ALPN `h2`)".to_owned()
        }
        other => other.to_string(),
    }
}

fn refused_by_client(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => {
            "the client does not trust the CA of this server's certificate".to_owned()
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown => {
            format!("the client refuses this server's certificate ({alert:?})")
        }
        other => format!("the client ended it ({other:?})"),
    }
}
