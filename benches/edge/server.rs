//! Servers in processes of their own, and how each is set up.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use galaxy_push::lab::load::Endpoint;
use galaxy_push::tls::TlsError;
use tempfile::TempDir;

use crate::clients::jetstream::create_stream;
use crate::peers::certificate::Files;
use crate::peers::{KEPT_EVENTS, Role};
use crate::row::Security;
use crate::system::System;

/// How long a server may take until it can be connected to.
const START: Duration = Duration::from_secs(10);

/// Room for as many events of 250 bytes, with what the ring needs beside them.
const KEPT_BYTES: &str = "80MiB";

/// Redis as it is by default, but for disks: nothing is saved. A subscriber may be as
/// far behind as it likes, where the default would cut it off after 32 MB.
const REDIS: &[&str] = &[
    "--bind",
    "127.0.0.1",
    "--save",
    "",
    "--appendonly",
    "no",
    "--client-output-buffer-limit",
    "pubsub 0 0 0",
    "--loglevel",
    "warning",
];

/// NATS as it is by default, but for its patience: a subscriber may be a gigabyte and a
/// minute behind, where the default would cut it off after 64 MB or ten seconds.
const NATS: &str = r#"
max_pending: 1GB
write_deadline: "60s"
"#;

/// A server that runs, until this value is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where gateways connect.
    pub(crate) gateways: SocketAddr,
    /// Where publishers connect.
    pub(crate) publishers: SocketAddr,
    /// Its certificate, where it has TLS, and whether gateways keep tickets.
    pub(crate) tls: Option<(Files, bool)>,
    /// What it keeps on disk, which is next to nothing.
    _home: TempDir,
}

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// It is not installed.
    #[error("{0} is not installed")]
    Absent(&'static str),
    #[error("{0} does not start: {1}")]
    Failed(System, #[source] io::Error),
}

impl Server {
    /// Where gateways, or publishers, connect: over TLS, where it has that.
    pub(crate) fn endpoint(&self, at: SocketAddr) -> Result<Endpoint, TlsError> {
        let endpoint = Endpoint::Tcp(at);
        match &self.tls {
            None => Ok(endpoint),
            Some((files, tickets)) => {
                endpoint.over_tls(&files.client(*tickets), &at.ip().to_string())
            }
        }
    }

    /// Starts one, and waits until it can be connected to.
    pub(crate) fn start(system: System, security: Security) -> Result<Self, StartError> {
        let failed = |error| StartError::Failed(system, error);
        let home = tempfile::tempdir().map_err(failed)?;
        let [gateways, publishers] = addresses(system).map_err(failed)?;
        let tls = match security {
            Security::Tls { tickets } if system != System::Plaintext => {
                Some((Files::write(home.path()).map_err(failed)?, tickets))
            }
            _ => None,
        };
        let mut command = command(system, home.path(), gateways, publishers).map_err(failed)?;
        if let Some((files, _)) = &tls {
            if system == System::GalaxyPush {
                command.arg("--tls-cert").arg(&files.certificate);
                command.arg("--tls-key").arg(&files.key);
            } else {
                command.env(Files::CERTIFICATE, &files.certificate);
                command.env(Files::KEY, &files.key);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if std::env::var_os("EDGE_VERBOSE").is_none() {
            command.stderr(Stdio::null());
        }
        let child = match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StartError::Absent(program(system)));
            }
            spawned => spawned.map_err(failed)?,
        };
        let mut server = Server {
            child,
            gateways,
            publishers,
            tls,
            _home: home,
        };
        server.wait().map_err(failed)?;
        if system == System::Jetstream {
            create_stream(gateways).map_err(failed)?;
        }
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        for address in [self.gateways, self.publishers] {
            while let Err(error) = TcpStream::connect(address) {
                if let Some(status) = self.child.try_wait()? {
                    return Err(io::Error::other(format!("it ended with {status}")));
                }
                if begun.elapsed() > START {
                    return Err(error);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What has to be installed.
fn program(system: System) -> &'static str {
    match system {
        System::RedisPubsub | System::RedisStreams => "redis-server",
        System::Nats | System::Jetstream => "nats-server",
        _ => env!("CARGO_BIN_EXE_galaxy-push"),
    }
}

/// Free ports: two where the server has two.
fn addresses(system: System) -> io::Result<[SocketAddr; 2]> {
    let listeners = [
        TcpListener::bind(("127.0.0.1", 0))?,
        TcpListener::bind(("127.0.0.1", 0))?,
    ];
    let [first, second] = [listeners[0].local_addr()?, listeners[1].local_addr()?];
    Ok(match system {
        System::GalaxyPush
        | System::Plaintext
        | System::Tcp
        | System::TcpGather
        | System::TcpRest => [first, second],
        _ => [first, first],
    })
}

fn command(
    system: System,
    home: &Path,
    gateways: SocketAddr,
    publishers: SocketAddr,
) -> io::Result<Command> {
    let role = match system {
        System::Tonic => Role::Tonic,
        System::TonicBytes => Role::TonicBytes,
        System::Tcp => Role::Tcp,
        System::TcpGather => Role::TcpGather,
        System::TcpRest => Role::TcpRest,
        System::Handshake => Role::Handshake,
        System::GalaxyPush | System::Plaintext => {
            let mut command = Command::new(program(system));
            command.arg("serve");
            command.arg(format!("--listen={gateways}"));
            command.arg(format!("--publish-listen={publishers}"));
            command.arg("--admin-listen=none");
            command.arg(format!("--max-events={KEPT_EVENTS}"));
            command.arg(format!("--max-bytes={KEPT_BYTES}"));
            return Ok(command);
        }
        System::RedisPubsub | System::RedisStreams => {
            let mut command = Command::new(program(system));
            command.args(["--port", &gateways.port().to_string(), "--dir"]);
            command.arg(home).args(REDIS);
            return Ok(command);
        }
        System::Nats | System::Jetstream => {
            let config = home.join("nats.conf");
            let mut text = format!("listen: \"{gateways}\"\n{NATS}");
            if system == System::Jetstream {
                let store = home.join("jetstream");
                text += &format!("jetstream {{ store_dir: {store:?}, max_mem: 4GB }}\n");
            }
            std::fs::write(&config, text)?;
            let mut command = Command::new(program(system));
            command.arg("--config").arg(config);
            return Ok(command);
        }
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.env(Role::VARIABLE, role.name());
    command.env(Role::GATEWAYS, gateways.to_string());
    command.env(Role::PUBLISHERS, publishers.to_string());
    Ok(command)
}
