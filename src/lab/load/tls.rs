//! TLS over a socket that never blocks.
//!
//! rustls's buffered interface. What comes in is read into a large buffer that the thread
//! owns, and decrypted at once, so that a system call takes as much as it does without TLS,
//! and no connection keeps a buffer of its own beyond rustls's.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::tls::{ALPN_H2, ClientTls, HandshakeError, TlsError};

/// What a system call may bring. It is decrypted into the receivers' buffer, which has more.
const INPUT_BYTES: usize = 512 << 10;
/// Sessions that a client keeps: TLS 1.3 servers give two or four tickets a connection.
const SESSIONS: usize = 8;

/// How all connections to an endpoint are encrypted.
#[derive(Clone)]
pub struct TlsPeer {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    resumes: bool,
}

impl TlsPeer {
    /// As `tls` says, for a server on `host`.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: a file cannot be used, or no certificate can be for `host`.
    pub fn new(tls: &ClientTls, host: &str) -> Result<Self, TlsError> {
        Ok(TlsPeer {
            config: Arc::clone(tls.load(None)?.config()),
            name: tls.name_of(host)?,
            resumes: tls.resumes(),
        })
    }

    /// The same with a store of sessions of its own, as a client on a machine of its own
    /// would have. One store for all would have room for the newest tickets alone.
    pub(super) fn of_one_client(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        if self.resumes {
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
        }
        TlsPeer {
            config: Arc::new(config),
            name: self.name.clone(),
            resumes: self.resumes,
        }
    }
}

impl PartialEq for TlsPeer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.name == other.name
    }
}

impl Eq for TlsPeer {}

impl fmt::Debug for TlsPeer {
    /// Without the configuration: a private key may be in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsPeer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The client's end of a connection, its socket beside it.
#[derive(Debug)]
pub(super) struct Tls {
    connection: ClientConnection,
    /// What came from the socket and is not decrypted, since its plaintext has no room.
    held: Vec<u8>,
    is_checked: bool,
}

/// Reads from a socket, and may tell when that came.
type ReadSocket = fn(&mut TcpStream, &mut [u8]) -> io::Result<(usize, Option<u64>)>;

impl Tls {
    pub(super) fn new(peer: &TlsPeer) -> io::Result<Self> {
        let connection = ClientConnection::new(Arc::clone(&peer.config), peer.name.clone());
        Ok(Tls {
            connection: connection.map_err(|error| explained(&error))?,
            held: Vec::new(),
            is_checked: false,
        })
    }

    /// Shakes hands, on a socket that blocks.
    pub(super) fn shake_hands(&mut self, socket: &mut std::net::TcpStream) -> io::Result<()> {
        while self.connection.is_handshaking() {
            self.connection.complete_io(socket).map_err(|error| {
                io::Error::new(error.kind(), HandshakeError::of_handshake(&error))
            })?;
        }
        self.check()
    }

    /// Reads what is there, as far as `buffer` has room. When that is not filled, the socket
    /// is empty.
    pub(super) fn read(
        &mut self,
        socket: &mut TcpStream,
        buffer: &mut [u8],
        read_socket: ReadSocket,
    ) -> io::Result<(usize, Option<u64>)> {
        thread_local! {
            static INPUT: RefCell<Vec<u8>> = RefCell::new(vec![0; INPUT_BYTES]);
        }
        INPUT.with_borrow_mut(|input| self.read_by(socket, buffer, input, read_socket))
    }

    fn read_by(
        &mut self,
        socket: &mut TcpStream,
        buffer: &mut [u8],
        input: &mut [u8],
        read_socket: ReadSocket,
    ) -> io::Result<(usize, Option<u64>)> {
        let (mut filled, mut time) = (0, None);
        let mut is_empty = false;
        loop {
            match self.connection.reader().read(&mut buffer[filled..]) {
                Ok(0) if filled < buffer.len() => return Ok((filled, time)),
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The peer's system has closed the connection without a word of TLS. The
                // stream in it knows whether it is at its end.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok((filled, time));
                }
                Err(error) => return Err(error),
            }
            if filled == buffer.len() || (is_empty && filled > 0) {
                return Ok((filled, time));
            }
            if !self.held.is_empty() {
                let held = std::mem::take(&mut self.held);
                self.decrypt(&held, socket, buffer, &mut filled)?;
                continue;
            }
            let room = (buffer.len() - filled).min(input.len());
            let (bytes, at) = match read_socket(socket, &mut input[..room]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // What was decrypted is not to be lost; an error is found again.
                Err(_) if filled > 0 => return Ok((filled, time)),
                read => read?,
            };
            is_empty = bytes < room;
            time = at.or(time);
            let is_handshaking = self.connection.is_handshaking();
            self.decrypt(&input[..bytes], socket, buffer, &mut filled)?;
            if bytes == 0 && is_handshaking {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    HandshakeError::Closed,
                ));
            }
        }
    }

    /// Takes what has come. rustls takes a record or two at a time, and more only when the
    /// plaintext of those was read.
    fn decrypt(
        &mut self,
        mut bytes: &[u8],
        socket: &mut TcpStream,
        buffer: &mut [u8],
        filled: &mut usize,
    ) -> io::Result<()> {
        loop {
            self.connection.read_tls(&mut bytes)?;
            if let Err(error) = self.connection.process_new_packets() {
                // The peer is told why, if it listens.
                let _ = self.flush(socket);
                return Err(explained(&error));
            }
            if !self.is_checked && !self.connection.is_handshaking() {
                self.check()?;
            }
            if self.connection.wants_write() {
                self.flush(socket)?;
            }
            if bytes.is_empty() {
                return Ok(());
            }
            while *filled < buffer.len() {
                match self.connection.reader().read(&mut buffer[*filled..]) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => *filled += read,
                }
            }
            if *filled == buffer.len() {
                // A record that began in an earlier read may have brought more than this one.
                self.held.extend_from_slice(bytes);
                return Ok(());
            }
        }
    }

    /// Encrypts and writes what the socket takes.
    pub(super) fn write(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
        self.flush(socket)?;
        if self.connection.wants_write() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let written = self.connection.writer().write(bytes)?;
        if written == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.flush(socket)?;
        Ok(written)
    }

    /// Writes what is encrypted already, as far as the socket takes it.
    pub(super) fn flush(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether something encrypted waits for the socket.
    pub(super) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    fn check(&mut self) -> io::Result<()> {
        self.is_checked = true;
        match self.connection.alpn_protocol() {
            Some(ALPN_H2) => Ok(()),
            _ => Err(io::Error::other(HandshakeError::NoHttp2)),
        }
    }
}

fn explained(error: &rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, HandshakeError::from(error))
}
