//! Socket activation: listening sockets that this process was started with.
//!
//! A service manager binds them, keeps them open across restarts, and names them in the
//! environment (`LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`; `sd_listen_fds(3)`). While no
//! server runs, connections wait in the kernel's queue and none is refused.
//!
//! The sockets belong to whoever passed them. A server accepts from them, and at its end it
//! closes its own descriptors alone: it shuts nothing down, removes no socket file, and leaves
//! what waits in the queue to the next server.

#![forbid(unsafe_code)]

use std::env::{self, VarError};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use listenfd::ListenFd;

use crate::config::{Address, Config};

/// Which listener a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Gateways subscribe there.
    Gateways,
    /// Publishers publish there.
    Publishers,
    /// Operators look in there.
    Admin,
}

impl Role {
    /// All of them, in the order of sockets that have no names.
    pub const ALL: [Role; 3] = [Role::Gateways, Role::Publishers, Role::Admin];

    /// Its name in `LISTEN_FDNAMES`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::Gateways => "gateways",
            Role::Publishers => "publishers",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A listening stream socket that somebody else has bound, and what it is bound to.
#[derive(Debug)]
pub struct InheritedSocket {
    pub(crate) listener: StdListener,
    address: Address,
}

/// The socket itself.
#[derive(Debug)]
pub(crate) enum StdListener {
    Tcp(TcpListener),
    /// With its path; an abstract name begins with `@`.
    Unix(UnixListener, PathBuf),
}

impl InheritedSocket {
    /// A TCP socket.
    ///
    /// # Errors
    ///
    /// It does not listen, or the system does not say where.
    pub fn tcp(listener: TcpListener) -> io::Result<Self> {
        check_listening(&listener)?;
        let address = match listener.local_addr()? {
            SocketAddr::V4(at) => at.to_string(),
            // Without the scope, which addresses in settings do not have.
            SocketAddr::V6(at) => format!("[{}]:{}", at.ip(), at.port()),
        };
        Ok(InheritedSocket {
            listener: StdListener::Tcp(listener),
            address: Address::Tcp(address),
        })
    }

    /// A Unix stream socket.
    ///
    /// # Errors
    ///
    /// It does not listen, or the system does not say where.
    pub fn unix(listener: UnixListener) -> io::Result<Self> {
        check_listening(&listener)?;
        let bound = listener.local_addr()?;
        let path = match bound.as_pathname() {
            Some(path) => path.to_owned(),
            // An abstract name, as `ss` and systemd write it.
            None => abstract_name(&bound),
        };
        Ok(InheritedSocket {
            listener: StdListener::Unix(listener, path.clone()),
            address: Address::Unix(path),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }
}

#[cfg(target_os = "linux")]
fn abstract_name(bound: &std::os::unix::net::SocketAddr) -> PathBuf {
    use std::os::linux::net::SocketAddrExt as _;
    let name = bound.as_abstract_name().unwrap_or_default();
    let name = String::from_utf8_lossy(name).replace('\0', "@");
    PathBuf::from(format!("@{name}"))
}

#[cfg(not(target_os = "linux"))]
fn abstract_name(_: &std::os::unix::net::SocketAddr) -> PathBuf {
    PathBuf::from("@")
}

#[cfg(not(target_vendor = "apple"))]
fn check_listening(socket: impl AsFd) -> io::Result<()> {
    if rustix::net::sockopt::socket_acceptconn(socket)? {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "it does not listen",
    ))
}

/// These systems do not tell.
#[cfg(target_vendor = "apple")]
fn check_listening(_: impl AsFd) -> io::Result<()> {
    Ok(())
}

/// The sockets that a server takes instead of binding its own.
///
/// ```
/// use std::net::TcpListener;
/// use galaxy_push::activation::{Inherited, InheritedSocket, Role};
///
/// let socket = InheritedSocket::tcp(TcpListener::bind("127.0.0.1:0")?)?;
/// let mut sockets = Inherited::default().with(Role::Gateways, socket)?;
/// assert!(sockets.take(Role::Gateways).is_some());
/// assert!(sockets.take(Role::Publishers).is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(Role, InheritedSocket)>,
}

impl Inherited {
    /// The sockets that the environment names: none if there is no `LISTEN_FDS`, or if
    /// `LISTEN_PID` is another process.
    ///
    /// `LISTEN_FDNAMES` says which is which: `gateways`, `publishers` and `admin`, each at most
    /// once. Without names, or where all are alike (those of one socket unit), they come in
    /// this order. `LISTEN_FDS` and `LISTEN_PID` are removed from the environment, so that it
    /// has to be called before there are other threads, and returns the sockets once.
    ///
    /// # Errors
    ///
    /// Which variable or which socket cannot be used, and why.
    pub fn from_env() -> Result<Self, InheritError> {
        let Some(count) = passed()? else {
            return Ok(Inherited::default());
        };
        let roles = roles(count, variable("LISTEN_FDNAMES")?.as_deref())?;
        let mut passed = ListenFd::from_env();
        let mut inherited = Inherited::default();
        for (at, role) in roles.into_iter().enumerate() {
            let unusable = |reason: String| InheritError::Socket { role, reason };
            let socket = match passed.take_tcp_listener(at) {
                Ok(Some(listener)) => InheritedSocket::tcp(listener),
                _ => match passed.take_unix_listener(at) {
                    Ok(Some(listener)) => InheritedSocket::unix(listener),
                    Ok(None) | Err(_) => {
                        return Err(unusable(
                            "it is neither a TCP socket nor a Unix stream socket".to_owned(),
                        ));
                    }
                },
            };
            let socket = socket.map_err(|error| unusable(error.to_string()))?;
            inherited = inherited.with(role, socket)?;
        }
        Ok(inherited)
    }

    /// With this socket too.
    ///
    /// # Errors
    ///
    /// There is one for this listener already.
    pub fn with(mut self, role: Role, socket: InheritedSocket) -> Result<Self, InheritError> {
        if self.sockets.iter().any(|(other, _)| *other == role) {
            return Err(InheritError::Twice { role });
        }
        self.sockets.push((role, socket));
        Ok(self)
    }

    /// The socket for this listener. It is given once.
    pub fn take(&mut self, role: Role) -> Option<InheritedSocket> {
        let at = self.sockets.iter().position(|(of, _)| *of == role)?;
        Some(self.sockets.swap_remove(at).1)
    }

    /// Where these sockets listen.
    #[must_use]
    pub fn passed(&self) -> Passed {
        let sockets = self.sockets.iter();
        Passed {
            addresses: sockets
                .map(|(role, socket)| (*role, socket.address().clone()))
                .collect(),
        }
    }
}

/// Where sockets listen that were passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    addresses: Vec<(Role, Address)>,
}

impl Passed {
    /// `config` with these addresses, in place of those that would be bound: what is checked
    /// of a listener is then true of its socket.
    ///
    /// # Errors
    ///
    /// A socket is passed for a listener that is turned off: nobody would accept from it.
    pub fn settle(&self, mut config: Config) -> Result<Config, InheritError> {
        for (role, address) in &self.addresses {
            let address = address.clone();
            match role {
                Role::Gateways => config.listen = address,
                Role::Publishers => config.publish_listen = address,
                Role::Admin if config.admin_listen.is_none() => {
                    return Err(InheritError::AdminIsOff);
                }
                Role::Admin => config.admin_listen = Some(address),
            }
        }
        Ok(config)
    }
}

/// How many sockets are passed to this process.
fn passed() -> Result<Option<usize>, InheritError> {
    let Some(count) = variable("LISTEN_FDS")? else {
        return Ok(None);
    };
    let malformed = |name, value: &str, wanted| InheritError::Variable {
        name,
        reason: format!("{value:?} is not {wanted}"),
    };
    // Other tools than service managers leave it out.
    if let Some(pid) = variable("LISTEN_PID")? {
        let number = pid.parse::<u32>();
        match number.map_err(|_| malformed("LISTEN_PID", &pid, "a process id")) {
            Ok(pid) if pid == std::process::id() => {}
            Ok(_) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    // Of the tool `systemfd`: where the first one is. The library adds to it unchecked.
    const FIRST: &str = "LISTEN_FDS_FIRST_FD";
    if let Some(first) = variable(FIRST)?
        && !matches!(first.parse::<i32>(), Ok(3..=0xffff))
    {
        return Err(malformed(FIRST, &first, "a number from 3 to 65535"));
    }
    match count.parse::<usize>() {
        Ok(0) => Ok(None),
        Ok(count) if count <= Role::ALL.len() => Ok(Some(count)),
        Ok(count) => Err(InheritError::Variable {
            name: "LISTEN_FDS",
            reason: format!(
                "{count} sockets are passed, at most {} can be used: {}",
                Role::ALL.len(),
                names()
            ),
        }),
        Err(_) => Err(malformed("LISTEN_FDS", &count, "a number of sockets")),
    }
}

/// What each of `count` sockets is for.
fn roles(count: usize, text: Option<&str>) -> Result<Vec<Role>, InheritError> {
    let in_order = || Role::ALL.into_iter().take(count).collect();
    let wrong = |reason| InheritError::Variable {
        name: "LISTEN_FDNAMES",
        reason,
    };
    let Some(text) = text else {
        return Ok(in_order());
    };
    let given: Vec<&str> = text.split(':').collect();
    if given.len() != count {
        let names = given.len();
        return Err(wrong(format!("{names} names for {count} sockets")));
    }
    let role = |name: &str| Role::ALL.into_iter().find(|role| role.name() == name);
    let are_alike = given.iter().all(|name| *name == given[0]);
    if are_alike && role(given[0]).is_none() {
        return Ok(in_order());
    }
    let known = |name: &&str| {
        role(name).ok_or_else(|| wrong(format!("{name:?} is none of {}", self::names())))
    };
    given.iter().map(known).collect()
}

fn names() -> String {
    Role::ALL.map(Role::name).join(", ")
}

/// A variable's value; an empty one counts as not set.
fn variable(name: &'static str) -> Result<Option<String>, InheritError> {
    match env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(InheritError::Variable {
            name,
            reason: "it is not UTF-8".to_owned(),
        }),
    }
}

/// Sockets were passed that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InheritError {
    /// A variable has not the form that it must have.
    #[error("{name}: {reason}")]
    Variable {
        /// Which.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// It is no listening socket, or of another kind.
    #[error("the socket {role:?} that was passed cannot be used: {reason}", role = role.name())]
    Socket {
        /// For which listener.
        role: Role,
        /// Why not.
        reason: String,
    },
    /// Two sockets for one listener.
    #[error("two sockets {role:?} were passed: each listener takes one", role = role.name())]
    Twice {
        /// For which listener.
        role: Role,
    },
    /// The listener of a socket is turned off.
    #[error("a socket \"admin\" was passed, and admin_listen is none: nobody would answer there")]
    AdminIsOff,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(result: Result<Vec<Role>, InheritError>) -> String {
        match result {
            Ok(roles) => roles
                .iter()
                .map(|role| role.name())
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn names_say_which_socket_is_which_and_without_them_the_order_does() {
        for (count, names, wanted) in [
            (1, None, "gateways"),
            (3, None, "gateways publishers admin"),
            (2, Some("publishers:gateways"), "publishers gateways"),
            (1, Some("admin"), "admin"),
            // One socket unit with three addresses, and no name of ours.
            (
                3,
                Some("push.socket:push.socket:push.socket"),
                "gateways publishers admin",
            ),
            (2, Some("unknown:unknown"), "gateways publishers"),
            // Two units: their order is not known.
            (
                2,
                Some("a.socket:b.socket"),
                "LISTEN_FDNAMES: \"a.socket\" is none of gateways, publishers, admin",
            ),
            (
                2,
                Some("gateways:web"),
                "LISTEN_FDNAMES: \"web\" is none of gateways, publishers, admin",
            ),
            (2, Some("gateways"), "LISTEN_FDNAMES: 1 names for 2 sockets"),
            (1, Some("a:b"), "LISTEN_FDNAMES: 2 names for 1 sockets"),
        ] {
            assert_eq!(text(roles(count, names)), wanted, "{names:?}");
        }
    }

    #[test]
    fn a_socket_gives_its_listener_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let socket = InheritedSocket::tcp(listener).unwrap();
        let sockets = Inherited::default().with(Role::Publishers, socket).unwrap();
        let config = sockets.passed().settle(Config::default()).unwrap();
        assert_eq!(config.publish_listen, Address::Tcp(at.to_string()));
        assert_eq!(config.listen, Config::default().listen);
    }

    #[test]
    fn a_listener_takes_one_socket_and_one_that_is_off_none() {
        let admin = || InheritedSocket::tcp(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let sockets = Inherited::default().with(Role::Admin, admin()).unwrap();
        let off = Config {
            admin_listen: None,
            ..Config::default()
        };
        assert_eq!(sockets.passed().settle(off), Err(InheritError::AdminIsOff));
        let twice = sockets.with(Role::Admin, admin()).unwrap_err();
        assert_eq!(twice, InheritError::Twice { role: Role::Admin });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_name_is_written_with_an_at_sign() {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("galaxy-push-{}", std::process::id());
        let at = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let socket = InheritedSocket::unix(UnixListener::bind_addr(&at).unwrap()).unwrap();
        assert_eq!(socket.address(), &Address::Unix(format!("@{name}").into()));
    }
}
