//! [`Address`]: where a server listens and its clients connect.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// `HOST:PORT`, or `unix:PATH` for a Unix domain socket.
///
/// The host is a name, an IPv4 address, or an IPv6 address in brackets.
///
/// ```
/// use galaxy_push::config::Address;
///
/// let tcp: Address = "[::1]:50051".parse()?;
/// let unix: Address = "unix:/run/galaxy-push.sock".parse()?;
/// assert_eq!(tcp.to_string(), "[::1]:50051");
/// assert_eq!(unix, Address::Unix("/run/galaxy-push.sock".into()));
/// # Ok::<(), galaxy_push::config::ParseAddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `HOST:PORT`. Port 0 means, when listening, any that is free.
    Tcp(String),
    /// The path of a Unix domain socket.
    Unix(PathBuf),
}

/// The longest path that fits into the kernel's socket address, with its
/// terminating zero byte left out.
const UNIX_PATH_BYTES: usize = 107;

impl Address {
    /// Whether it has the right form. A parsed address always has; one that
    /// was put together by hand may not.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), ParseAddressError> {
        match self {
            Address::Tcp(text) => check_tcp(text),
            Address::Unix(path) => check_unix(path),
        }
    }
}

impl Address {
    /// The host of `HOST:PORT`, an IPv6 address without its brackets. A Unix socket has none.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        let Address::Tcp(text) = self else {
            return None;
        };
        let host = text
            .rsplit_once(':')
            .map_or(text.as_str(), |(host, _)| host);
        let unbracketed = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        Some(unbracketed.unwrap_or(host))
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let address = match text.strip_prefix("unix:") {
            Some(path) => Address::Unix(PathBuf::from(path)),
            None => Address::Tcp(text.to_owned()),
        };
        address.check()?;
        Ok(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(text) => f.write_str(text),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn check_tcp(text: &str) -> Result<(), ParseAddressError> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(ParseAddressError::NoPort);
    };
    check_host(host)?;
    // `parse` would take a sign.
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().is_err() {
        return Err(ParseAddressError::Port(port.to_owned()));
    }
    Ok(())
}

fn check_host(host: &str) -> Result<(), ParseAddressError> {
    let bad = || Err(ParseAddressError::Host(host.to_owned()));
    if let Some(rest) = host.strip_prefix('[') {
        return match rest.strip_suffix(']').map(str::parse::<Ipv6Addr>) {
            Some(Ok(_)) => Ok(()),
            _ => bad(),
        };
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err(ParseAddressError::BareIpv6(host.to_owned()));
    }
    if host.parse::<Ipv4Addr>().is_ok() {
        return Ok(());
    }
    // Names are resolved later. Here it is enough that nothing passes which
    // would mean something else in a URI.
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if host.is_empty() || host.len() > 253 || !host.bytes().all(is_name_byte) {
        return bad();
    }
    Ok(())
}

fn check_unix(path: &Path) -> Result<(), ParseAddressError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.is_empty() {
        return Err(ParseAddressError::NoPath);
    }
    if bytes.contains(&0) {
        return Err(ParseAddressError::ZeroInPath);
    }
    if bytes.len() > UNIX_PATH_BYTES {
        return Err(ParseAddressError::LongPath { bytes: bytes.len() });
    }
    Ok(())
}

/// Why a text is not an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseAddressError {
    /// No colon, so no port.
    #[error("it has no port: write HOST:PORT or unix:PATH")]
    NoPort,
    /// The host is no name and no address.
    #[error("{0:?} is neither a host name nor an IP address")]
    Host(String),
    /// An IPv6 address, whose colons need brackets around them.
    #[error("an IPv6 address needs brackets: [{0}]:PORT")]
    BareIpv6(String),
    /// The port is no number from 0 to 65535.
    #[error("{0:?} is not a port (0 to 65535)")]
    Port(String),
    /// `unix:` and nothing after it.
    #[error("the path of the Unix socket is empty")]
    NoPath,
    /// A path that no system call takes.
    #[error("the path of the Unix socket has a zero byte in it")]
    ZeroInPath,
    /// A path that no socket address has room for.
    #[error(
        "the path of the Unix socket has {bytes} bytes, at most {UNIX_PATH_BYTES} are possible"
    )]
    LongPath {
        /// The path's length.
        bytes: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Address, ParseAddressError> {
        text.parse()
    }

    #[test]
    fn hosts_and_sockets_parse_and_print_back() {
        for text in [
            "127.0.0.1:50051",
            "localhost:0",
            "push.backend.svc.cluster.local:65535",
            "under_score:1",
            "[::1]:50051",
            "unix:/run/push.sock",
            "unix:relative.sock",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_wrong_host_is_named() {
        for host in ["", "a b", "user@host", "a/b", "[::1", "[name]", "ü", "a?b"] {
            assert_eq!(
                parse(&format!("{host}:1")),
                Err(ParseAddressError::Host(host.to_owned()))
            );
        }
        assert_eq!(
            parse("::1:50051"),
            Err(ParseAddressError::BareIpv6("::1".to_owned()))
        );
    }

    #[test]
    fn a_wrong_port_is_named() {
        assert_eq!(parse("localhost"), Err(ParseAddressError::NoPort));
        for port in ["", "65536", "+1", "-1", "http", "1 "] {
            assert_eq!(
                parse(&format!("localhost:{port}")),
                Err(ParseAddressError::Port(port.to_owned()))
            );
        }
    }

    #[test]
    fn a_path_must_fit_into_a_socket_address() {
        assert_eq!(parse("unix:"), Err(ParseAddressError::NoPath));
        assert_eq!(parse("unix:a\0b"), Err(ParseAddressError::ZeroInPath));
        assert!(parse(&format!("unix:{}", "x".repeat(107))).is_ok());
        assert_eq!(
            parse(&format!("unix:{}", "x".repeat(108))),
            Err(ParseAddressError::LongPath { bytes: 108 })
        );
    }
}
