//! Many receiving connections on one thread.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use super::clock::now_ns;
use super::protocol::{Begin, Consumer, End, ProtocolError, Sink, Start};
use super::socket::{Endpoint, Socket, write_out};
use crate::cursor::Cursor;

/// What all connections read into. As large as a system call is worth.
const BUFFER_BYTES: usize = 1 << 20;
/// How often one connection is read before the others have their turn.
const READS_IN_A_ROW: usize = 4;
/// How many connections may be under way at once: what servers have as a backlog is
/// rarely more than a thousand, and a handshake that does not fit there is tried again
/// by the system a whole second later.
const CONNECTING_AT_ONCE: usize = 256;
/// For so long after something was read, what comes next is looked for without sleep.
///
/// A server that writes to one receiver after another, a little more slowly than they are
/// read, would have to wake this thread for each of them, which costs it more than the
/// writing. Receivers on machines of their own are woken by those.
const AWAKE_NS: u64 = 20_000;
/// How many readiness events are taken from the system at once.
const EVENTS_AT_ONCE: usize = 1024;

/// Watches all receivers of a run. Each is called by its number, from 0 on.
pub trait StreamObserver {
    /// As [`Sink::started`]: at this time.
    fn started(&mut self, who: usize, now_ns: u64, start: &Start);
    /// As [`Sink::event`]: received at this time.
    fn event(&mut self, who: usize, at: Arrival, event: &[u8], cursor: Option<Cursor>);
    /// As [`Sink::ended`].
    fn ended(&mut self, who: usize, end: &End);
    /// Its connection broke, or it could not be connected, before its stream ended.
    fn broken(&mut self, who: usize, error: &BrokenConnection);
}

/// When something arrived, by [`now_ns`](super::now_ns).
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When the last byte of what was read with it was in the receiver's socket, where the
    /// system tells.
    pub socket_ns: Option<u64>,
    /// When it was read.
    pub read_ns: u64,
}

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokenConnection {
    /// It could not be connected.
    #[error("cannot connect to {0}: {1}")]
    Unreachable(Endpoint, io::Error),
    /// The system says that it broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The peer has closed it, without an end of its stream.
    #[error("connection closed before the stream's status")]
    Closed,
    /// The peer does not keep to its protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// Receivers, and the thread that drives them by calling [`turn`](Self::turn).
#[derive(Debug)]
pub struct Receivers<C> {
    poll: Poll,
    ready: Events,
    members: Vec<Member<C>>,
    /// Who waits for a connection.
    to_connect: VecDeque<usize>,
    /// How many connections are under way.
    connecting: usize,
    /// Who may have more to read, without the system saying so again.
    unread: VecDeque<usize>,
    buffer: Box<[u8]>,
    received_bytes: u64,
    reads: u64,
    /// When something was read last.
    read_ns: u64,
}

#[derive(Debug)]
struct Member<C> {
    consumer: C,
    endpoint: Endpoint,
    begin: Begin,
    link: Link,
    /// The beginning of what is to be received again with more behind it.
    partial: Vec<u8>,
    /// What the socket has not taken.
    out: Vec<u8>,
    /// Whether it takes what comes. One that does not lets its socket fill up.
    is_paused: bool,
    is_unread: bool,
}

#[derive(Debug)]
enum Link {
    None,
    Waiting,
    Connecting(Socket),
    Open(Socket),
}

impl<C: Consumer> Receivers<C> {
    /// These consumers, none of them connected yet.
    ///
    /// # Errors
    ///
    /// The system gives no means to wait for sockets.
    pub fn new(endpoint: &Endpoint, consumers: impl IntoIterator<Item = C>) -> io::Result<Self> {
        let member = |consumer| Member {
            consumer,
            endpoint: endpoint.of_one_client(),
            begin: Begin::Head,
            link: Link::None,
            partial: Vec::new(),
            out: Vec::new(),
            is_paused: false,
            is_unread: false,
        };
        Ok(Receivers {
            poll: Poll::new()?,
            ready: Events::with_capacity(EVENTS_AT_ONCE),
            members: consumers.into_iter().map(member).collect(),
            to_connect: VecDeque::new(),
            connecting: 0,
            unread: VecDeque::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            received_bytes: 0,
            reads: 0,
            read_ns: 0,
        })
    }

    /// How many receivers there are, connected or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All bytes that were received so far.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// How many system calls received them.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// Connects receiver `who` as soon as there is room, to begin there. An older
    /// connection is cut.
    pub fn connect(&mut self, who: usize, begin: Begin) {
        self.cut(who);
        let Some(member) = self.members.get_mut(who) else {
            return;
        };
        member.begin = begin;
        member.link = Link::Waiting;
        self.to_connect.push_back(who);
    }

    /// Cuts receiver `who` off at once.
    pub fn cut(&mut self, who: usize) {
        let Some(member) = self.members.get_mut(who) else {
            return;
        };
        member.partial = Vec::new();
        member.out = Vec::new();
        member.is_paused = false;
        match std::mem::replace(&mut member.link, Link::None) {
            Link::None => {}
            Link::Waiting => self.to_connect.retain(|waiting| *waiting != who),
            Link::Connecting(socket) => {
                self.connecting -= 1;
                socket.cut();
            }
            Link::Open(socket) => socket.cut(),
        }
    }

    /// Lets receiver `who` take nothing until it is [resumed](Self::resume), or
    /// connected again.
    pub fn pause(&mut self, who: usize) {
        if let Some(member) = self.members.get_mut(who) {
            member.is_paused = true;
        }
    }

    /// Lets receiver `who` take what comes, from the next turn on.
    pub fn resume(&mut self, who: usize) {
        if let Some(member) = self.members.get_mut(who)
            && std::mem::replace(&mut member.is_paused, false)
        {
            self.mark_unread(who);
        }
    }

    /// Waits until something can be done, but not longer than this, and does it.
    ///
    /// # Errors
    ///
    /// The system does not tell about sockets any more. What goes wrong with a single
    /// connection, the observer is told.
    pub fn turn<W: StreamObserver>(
        &mut self,
        patience: Duration,
        observer: &mut W,
    ) -> io::Result<()> {
        self.begin_connections(observer);
        let is_awake = now_ns() < self.read_ns + AWAKE_NS;
        let patience = if self.unread.is_empty() && !is_awake {
            patience
        } else {
            Duration::ZERO
        };
        match self.poll.poll(&mut self.ready, Some(patience)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        // Taken out, so that what they lead to may use all the rest.
        let ready = std::mem::replace(&mut self.ready, Events::with_capacity(0));
        for event in &ready {
            let who = event.token().0;
            if event.is_writable() || event.is_error() {
                self.writable(who, observer);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.readable(who, event.is_read_closed(), observer);
            }
        }
        self.ready = ready;
        for _ in 0..self.unread.len() {
            let Some(who) = self.unread.pop_front() else {
                break;
            };
            self.members[who].is_unread = false;
            self.readable(who, true, observer);
        }
        Ok(())
    }

    fn begin_connections<W: StreamObserver>(&mut self, observer: &mut W) {
        while self.connecting < CONNECTING_AT_ONCE {
            let Some(who) = self.to_connect.pop_front() else {
                return;
            };
            let begun = Socket::begin(&self.members[who].endpoint).and_then(|mut socket| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll
                    .registry()
                    .register(&mut socket, Token(who), interest)?;
                Ok(socket)
            });
            match begun {
                Ok(socket) => {
                    self.members[who].link = Link::Connecting(socket);
                    self.connecting += 1;
                }
                // A Unix socket's backlog is full: the server has to accept first.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.to_connect.push_front(who);
                    return;
                }
                Err(error) => {
                    self.members[who].link = Link::None;
                    let endpoint = self.members[who].endpoint.clone();
                    observer.broken(who, &BrokenConnection::Unreachable(endpoint, error));
                }
            }
        }
    }

    /// The socket is connected, or takes more.
    fn writable<W: StreamObserver>(&mut self, who: usize, observer: &mut W) {
        let member = &mut self.members[who];
        match std::mem::replace(&mut member.link, Link::None) {
            Link::Connecting(socket) => {
                self.connecting -= 1;
                if let Err(error) = socket.take_error() {
                    let endpoint = member.endpoint.clone();
                    observer.broken(who, &BrokenConnection::Unreachable(endpoint, error));
                    return;
                }
                member.link = Link::Open(socket);
                member.consumer.open(member.begin, &mut member.out);
            }
            other => member.link = other,
        }
        self.flush(who, observer);
    }

    fn flush<W: StreamObserver>(&mut self, who: usize, observer: &mut W) {
        let member = &mut self.members[who];
        if let Link::Open(socket) = &mut member.link
            && (!member.out.is_empty() || socket.wants_write())
            && let Err(error) = write_out(socket, &mut member.out)
        {
            self.fail(who, error.into(), observer);
        }
    }

    fn fail<W: StreamObserver>(&mut self, who: usize, error: BrokenConnection, observer: &mut W) {
        self.cut(who);
        observer.broken(who, &error);
    }

    fn mark_unread(&mut self, who: usize) {
        let member = &mut self.members[who];
        if !std::mem::replace(&mut member.is_unread, true) {
            self.unread.push_back(who);
        }
    }

    /// Reads what is there. A read that does not fill the buffer has emptied the
    /// socket, and whatever comes later is told anew; only the peer's end must be
    /// asked for.
    fn readable<W: StreamObserver>(&mut self, who: usize, to_the_end: bool, observer: &mut W) {
        if self.members[who].is_paused {
            return;
        }
        for _ in 0..READS_IN_A_ROW {
            match self.read_once(who, BUFFER_BYTES, observer) {
                Read::Nothing => return,
                Read::All if !to_the_end => return,
                Read::All | Read::Some => {}
            }
        }
        self.mark_unread(who);
    }

    /// Lets receiver `who`, though it is [paused](Self::pause), take so many bytes.
    pub fn sip<W: StreamObserver>(&mut self, who: usize, bytes: usize, observer: &mut W) {
        if who < self.members.len() {
            self.read_once(who, bytes, observer);
        }
    }

    fn read_once<W: StreamObserver>(&mut self, who: usize, limit: usize, observer: &mut W) -> Read {
        let member = &mut self.members[who];
        let Link::Open(socket) = &mut member.link else {
            return Read::Nothing;
        };
        let kept = member.partial.len();
        let room_bytes = limit.min(self.buffer.len() - kept);
        let room = &mut self.buffer[kept..kept + room_bytes];
        let (read, socket_ns) = match socket.read_with_time(room) {
            Ok((0, _)) => {
                self.fail(who, BrokenConnection::Closed, observer);
                return Read::Nothing;
            }
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Read::Nothing,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Read::Some,
            Err(error) => {
                self.fail(who, error.into(), observer);
                return Read::Nothing;
            }
        };
        let read_ns = now_ns();
        self.read_ns = read_ns;
        self.received_bytes += read as u64;
        self.reads += 1;
        self.buffer[..kept].copy_from_slice(&member.partial);
        let bytes = &self.buffer[..kept + read];
        let mut sink = One {
            who,
            at: Arrival { socket_ns, read_ns },
            observer,
            has_ended: false,
        };
        let received = member.consumer.receive(bytes, &mut member.out, &mut sink);
        let has_ended = sink.has_ended;
        let result = match received {
            Ok(done) if bytes.len() - done < BUFFER_BYTES / 2 => {
                member.partial.clear();
                member.partial.extend_from_slice(&bytes[done..]);
                Ok(())
            }
            Ok(_) => Err(ProtocolError::new("half a megabyte without a meaning")),
            Err(error) => Err(error),
        };
        if has_ended {
            self.cut(who);
            return Read::Nothing;
        }
        if let Err(error) = result {
            self.fail(who, error.into(), observer);
            return Read::Nothing;
        }
        self.flush(who, observer);
        if read < room_bytes {
            Read::All
        } else {
            Read::Some
        }
    }
}

/// What a read has left behind.
enum Read {
    /// There was nothing, or there is no connection any more.
    Nothing,
    /// The socket is empty.
    All,
    /// There may be more.
    Some,
}

/// A observer's view of one receiver.
struct One<'a, W> {
    who: usize,
    at: Arrival,
    observer: &'a mut W,
    has_ended: bool,
}

impl<W: StreamObserver> Sink for One<'_, W> {
    fn started(&mut self, start: &Start) {
        self.observer.started(self.who, self.at.read_ns, start);
    }

    #[inline]
    fn event(&mut self, event: &[u8], cursor: Option<Cursor>) {
        self.observer.event(self.who, self.at, event, cursor);
    }

    fn ended(&mut self, end: &End) {
        self.has_ended = true;
        self.observer.ended(self.who, end);
    }
}
