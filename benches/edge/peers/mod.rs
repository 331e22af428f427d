//! Servers that gateways could have instead of galaxy-push, written as one would, and
//! the floors beneath them. Each runs in a process of its own.

pub(crate) mod certificate;
mod fanout;
mod handshake;
mod incoming;
mod publisher;
pub(crate) mod tcp;
pub(crate) mod tonic;
pub(crate) mod tonic_bytes;

use std::net::SocketAddr;

use ::tonic::service::Routes;
use ::tonic::transport::Server;
use ::tonic::transport::server::TcpIncoming;
use tokio_rustls::TlsAcceptor;

use self::certificate::Files;

/// How many events every server keeps, ours too: few enough that all of them are full,
/// and touch no fresh memory any more, before anything is measured.
pub(crate) const KEPT_EVENTS: usize = 1 << 18;

/// Which server a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// An ordinary tonic service.
    Tonic,
    /// The same, and each event is encoded once.
    TonicBytes,
    /// Plain TCP, a `send` for each event.
    Tcp,
    /// The same, a `send` for each round.
    TcpGather,
    /// The same, with rests between rounds.
    TcpRest,
    /// HTTP/2's handshake, and no more.
    Handshake,
}

impl Role {
    pub(crate) const ALL: [Role; 6] = [
        Role::Tonic,
        Role::TonicBytes,
        Role::Tcp,
        Role::TcpGather,
        Role::TcpRest,
        Role::Handshake,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Tonic => "tonic",
            Role::TonicBytes => "tonic-bytes",
            Role::Tcp => "tcp",
            Role::TcpGather => "tcp-gather",
            Role::TcpRest => "tcp-rest",
            Role::Handshake => "handshake",
        }
    }

    /// The variables of the environment that make a process one: which, and where.
    pub(crate) const VARIABLE: &str = "EDGE_ROLE";
    pub(crate) const GATEWAYS: &str = "EDGE_GATEWAYS";
    pub(crate) const PUBLISHERS: &str = "EDGE_PUBLISHERS";

    /// What this process is to be, if any.
    pub(crate) fn of_this_process() -> Option<Role> {
        let name = std::env::var(Role::VARIABLE).ok()?;
        Role::ALL.into_iter().find(|role| role.name() == name)
    }

    /// How plain TCP is written, if it is that.
    fn plain_writes(self) -> Option<tcp::Writes> {
        Some(match self {
            Role::Tcp => tcp::Writes::Single,
            Role::TcpGather => tcp::Writes::Gathered { rest: 0.0 },
            // As ours does.
            Role::TcpRest => tcp::Writes::Gathered { rest: 0.5 },
            Role::Tonic | Role::TonicBytes | Role::Handshake => return None,
        })
    }

    /// Serves until the process is killed.
    pub(crate) fn serve(self) -> Result<(), Box<dyn std::error::Error>> {
        let gateways: SocketAddr = std::env::var(Role::GATEWAYS)?.parse()?;
        if let Some(writes) = self.plain_writes() {
            let publishers = std::env::var(Role::PUBLISHERS)?.parse()?;
            return Ok(tcp::Floor::bind(gateways, publishers, writes)?.run()?);
        }
        // As `galaxy-push serve` does by default.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let tls = match Files::of_this_process() {
            Some(files) => Some(TlsAcceptor::from(files.server()?)),
            None => None,
        };
        runtime.block_on(async {
            let routes = match self {
                Role::Tonic => tonic::routes(),
                Role::TonicBytes => tonic_bytes::routes(),
                _ => return Ok(handshake::serve(gateways, tls).await?),
            };
            serve(gateways, routes.ok_or("the clock is off")?, tls).await
        })
    }
}

/// With tonic's own settings, and sockets that do not wait for more.
async fn serve(
    at: SocketAddr,
    routes: Routes,
    tls: Option<TlsAcceptor>,
) -> Result<(), Box<dyn std::error::Error>> {
    let router = Server::builder().add_routes(routes);
    match tls {
        None => {
            let incoming = TcpIncoming::bind(at)?.with_nodelay(Some(true));
            router.serve_with_incoming(incoming).await?;
        }
        Some(acceptor) => {
            let incoming = incoming::accept(incoming::listen(at)?, acceptor);
            router.serve_with_incoming(incoming).await?;
        }
    }
    Ok(())
}
