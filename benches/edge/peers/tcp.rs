//! The floor: the same bytes over plain TCP, one thread, as bare as a server can be that
//! still survives a slow reader. There is one `send` for each event and gateway, or for each
//! *round* and gateway: what arrived while all gateways were written to the last time.
//!
//! A publisher sends frames (a zero, a length in four bytes, the event) and is told how
//! many have arrived, in eight bytes after each read. A gateway sends the number of the
//! event that it has last, in eight bytes, or [`LIVE`]; it is sent the cursor before its
//! first event, and then the frames, each with its own cursor appended: to the byte what
//! galaxy-push puts into its DATA frames. Numbers are big-endian.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Instant;

use galaxy_push::cursor::{Cursor, Epoch, Seq};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// Asks for what is published next.
pub(crate) const LIVE: u64 = u64::MAX;
/// The number that both sides begin with.
pub(crate) const NUMBER_BYTES: usize = 8;
/// What precedes an event: a zero and its length.
pub(crate) const PREFIX_BYTES: usize = 5;
/// The largest event that a publisher may send.
const MAX_EVENT_BYTES: usize = 1 << 20;
/// The most that is written, or read, at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Field 3 of a `PushEvent`, a string.
const CURSOR_TAG: [u8; 2] = [3 << 3 | 2, Cursor::TEXT_BYTES as u8];
/// What is appended to an event.
pub(crate) const CURSOR_BYTES: usize = CURSOR_TAG.len() + Cursor::TEXT_BYTES;

const GATEWAYS: Token = Token(0);
const PUBLISHERS: Token = Token(1);
/// The first connection's.
const FIRST_PEER: usize = 2;

/// What goes into one `send`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Writes {
    /// An event.
    Single,
    /// What arrived since the last round. After one of several events the thread sleeps for
    /// so much of the time that the round took.
    Gathered { rest: f64 },
}

/// A server that is bound to two ports.
#[derive(Debug)]
pub(crate) struct Floor {
    poll: Poll,
    gateways: TcpListener,
    publishers: TcpListener,
    peers: Vec<Option<Peer>>,
    log: Log,
    writes: Writes,
}

/// Every frame since the start, as it is sent.
#[derive(Debug)]
struct Log {
    epoch: Epoch,
    bytes: Vec<u8>,
    /// Where each event ends; of the position before the first one, 0.
    ends: Vec<usize>,
}

#[derive(Debug)]
struct Peer {
    socket: TcpStream,
    role: Role,
}

#[derive(Debug)]
enum Role {
    /// It has yet to say where it starts.
    Asking(Vec<u8>),
    Gateway(Reader),
    Publisher(Writer),
}

/// A gateway that is served.
#[derive(Debug)]
struct Reader {
    /// How many bytes of the log it has been sent.
    sent: usize,
    /// Its socket was full, and has not told yet that there is room.
    full: bool,
}

/// A publisher.
#[derive(Debug, Default)]
struct Writer {
    /// Less than a frame, between two reads.
    unread: Vec<u8>,
    accepted: u64,
}

impl Floor {
    pub(crate) fn bind(
        gateways: SocketAddr,
        publishers: SocketAddr,
        writes: Writes,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut gateways = TcpListener::bind(gateways)?;
        let mut publishers = TcpListener::bind(publishers)?;
        let registry = poll.registry();
        registry.register(&mut gateways, GATEWAYS, Interest::READABLE)?;
        registry.register(&mut publishers, PUBLISHERS, Interest::READABLE)?;
        let epoch = Epoch::now().map_err(io::Error::other)?;
        Ok(Floor {
            poll,
            gateways,
            publishers,
            peers: Vec::new(),
            log: Log::new(epoch),
            writes,
        })
    }

    /// Where gateways connect, and where publishers do.
    #[allow(dead_code, reason = "for tests, which bind to any port")]
    pub(crate) fn addresses(&self) -> io::Result<[SocketAddr; 2]> {
        Ok([self.gateways.local_addr()?, self.publishers.local_addr()?])
    }

    /// Serves until the process ends.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut delivered = 0;
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    GATEWAYS => self.accept(GATEWAYS)?,
                    PUBLISHERS => self.accept(PUBLISHERS)?,
                    Token(token) => self.ready(token - FIRST_PEER, &mut buffer),
                }
            }
            let arrived = self.log.newest();
            if let Writes::Gathered { rest } = self.writes
                && arrived > delivered
            {
                let began = Instant::now();
                self.deliver();
                if rest > 0.0 && arrived - delivered > 1 {
                    std::thread::sleep(began.elapsed().mul_f64(rest));
                }
                delivered = arrived;
            }
        }
    }

    fn accept(&mut self, at: Token) -> io::Result<()> {
        loop {
            let (listener, role) = match at {
                GATEWAYS => (&self.gateways, Role::Asking(Vec::new())),
                _ => (&self.publishers, Role::Publisher(Writer::default())),
            };
            let mut socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            socket.set_nodelay(true)?;
            let token = Token(self.peers.len() + FIRST_PEER);
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut socket, token, interest)?;
            self.peers.push(Some(Peer { socket, role }));
        }
    }

    /// Something is to be read from a peer, or there is room to write to it.
    fn ready(&mut self, peer: usize, buffer: &mut [u8]) {
        // Taken out meanwhile, so that others can be written to.
        let Some(mut connected) = self.peers[peer].take() else {
            return;
        };
        let stays = match &mut connected.role {
            Role::Publisher(_) => self.take(&mut connected, buffer),
            Role::Asking(_) | Role::Gateway(_) => self.serve(&mut connected, buffer),
        };
        // An error is the peer's end, as is `Ok(false)`.
        if stays.unwrap_or(false) {
            self.peers[peer] = Some(connected);
        }
    }

    /// Reads a gateway's wish, and writes what it has not got.
    fn serve(&mut self, peer: &mut Peer, buffer: &mut [u8]) -> io::Result<bool> {
        while let Some(read) = unless_blocked(peer.socket.read(buffer))? {
            if read == 0 {
                return Ok(false);
            }
            let Role::Asking(asked) = &mut peer.role else {
                continue;
            };
            asked.extend_from_slice(&buffer[..read]);
            if let Some(after) = asked.first_chunk::<NUMBER_BYTES>() {
                let (cursor, sent) = self.log.start(u64::from_be_bytes(*after));
                // Into an empty socket.
                peer.socket.write_all(cursor.to_text().as_bytes())?;
                peer.role = Role::Gateway(Reader { sent, full: false });
            }
        }
        if let Role::Gateway(reader) = &mut peer.role {
            reader.full = false;
            reader.write(&mut peer.socket, &self.log)?;
        }
        Ok(true)
    }

    /// Reads what a publisher sent, event by event.
    fn take(&mut self, peer: &mut Peer, buffer: &mut [u8]) -> io::Result<bool> {
        let Role::Publisher(writer) = &mut peer.role else {
            return Ok(true);
        };
        while let Some(read) = unless_blocked(peer.socket.read(buffer))? {
            if read == 0 {
                return Ok(false);
            }
            writer.unread.extend_from_slice(&buffer[..read]);
            let mut rest = &writer.unread[..];
            while let Some((event, behind)) = split_frame(rest)? {
                self.log.append(event)?;
                if self.writes == Writes::Single {
                    self.deliver();
                }
                writer.accepted += 1;
                rest = behind;
            }
            let taken = writer.unread.len() - rest.len();
            writer.unread.drain(..taken);
            // A publisher that does not read this is not worth waiting for.
            peer.socket.write_all(&writer.accepted.to_be_bytes())?;
        }
        Ok(true)
    }

    /// Writes what is new to each gateway whose socket has room.
    fn deliver(&mut self) {
        for slot in &mut self.peers {
            let Some(Peer {
                socket,
                role: Role::Gateway(reader),
            }) = slot
            else {
                continue;
            };
            if !reader.full && reader.write(socket, &self.log).is_err() {
                *slot = None;
            }
        }
    }
}

impl Reader {
    /// Writes until the socket is full, or everything is written.
    fn write(&mut self, socket: &mut TcpStream, log: &Log) -> io::Result<()> {
        while self.sent < log.bytes.len() {
            let end = log.bytes.len().min(self.sent + CHUNK_BYTES);
            let Some(written) = unless_blocked(socket.write(&log.bytes[self.sent..end]))? else {
                self.full = true;
                break;
            };
            self.sent += written;
        }
        Ok(())
    }
}

impl Log {
    fn new(epoch: Epoch) -> Self {
        Log {
            epoch,
            bytes: Vec::with_capacity(256 << 20),
            ends: vec![0],
        }
    }

    /// What a gateway starts after, and where the next event begins.
    fn start(&self, after: u64) -> (Cursor, usize) {
        let last = self.newest();
        let after = usize::try_from(after).unwrap_or(last).min(last);
        (self.cursor(after), self.ends[after])
    }

    fn newest(&self) -> usize {
        self.ends.len() - 1
    }

    fn cursor(&self, number: usize) -> Cursor {
        Cursor::new(self.epoch, Seq::new(number as u64))
    }

    fn append(&mut self, event: &[u8]) -> io::Result<()> {
        let length = event.len() + CURSOR_BYTES;
        let length = u32::try_from(length).map_err(io::Error::other)?;
        let cursor = self.cursor(self.ends.len());
        self.bytes.push(0);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(event);
        self.bytes.extend_from_slice(&CURSOR_TAG);
        self.bytes.extend_from_slice(cursor.to_text().as_bytes());
        self.ends.push(self.bytes.len());
        Ok(())
    }
}

/// The first frame's content and what is behind it; `None` while it is not complete.
pub(crate) fn split_frame(bytes: &[u8]) -> io::Result<Option<(&[u8], &[u8])>> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let [0, length @ ..] = *prefix else {
        return Err(ErrorKind::InvalidData.into());
    };
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_EVENT_BYTES {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(rest.split_at_checked(length))
}

/// `None` where a socket has nothing, or no room.
fn unless_blocked(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
