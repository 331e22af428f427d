//! Publishers on one thread, on a schedule.

use std::collections::VecDeque;
use std::io::{self, Read};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::clock::now_ns;
use super::event::{Batch, Shape, Stamp};
use super::gauge::Gauge;
use super::latency::Latency;
use super::protocol::{End, ProtocolError, Publisher, Responses};
use super::receivers::BrokenConnection;
use super::socket::{Endpoint, Socket, write_out};
use crate::cursor::Cursor;

/// What connections read into: responses are short.
const BUFFER_BYTES: usize = 64 << 10;
/// The most bytes that may wait for a socket. Above that, no request is written.
const MAX_OUT_BYTES: usize = 256 << 10;
/// How long the run waits for responses after the last request.
const RESPONSE_TIMEOUT_NS: u64 = 10_000_000_000;
/// How often an idle thread checks whether the run has to end.
const LOOK_NS: u64 = 20_000_000;
/// The most publishers that a stamp can tell apart.
pub const MAX_PUBLISHERS: usize = 256;

/// The work of the publishers.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The events.
    pub shape: Shape,
    /// How many of them a request has.
    pub batch: usize,
    /// When.
    pub pace: Pace,
    /// How many requests a publisher may have in flight.
    pub in_flight: usize,
    /// How many events all of them publish together; `None`: until they are told to
    /// end.
    pub events: Option<u64>,
}

/// When events are published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many in a second, evenly, all publishers together.
    PerSecond(f64),
    /// As fast as they are accepted.
    Full,
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Events that were sent.
    pub sent: u64,
    /// Events that were accepted.
    pub accepted: u64,
    /// The place of the first one of each publisher, where the protocol has places.
    pub firsts: Vec<Option<Cursor>>,
    /// The newest place that a response names.
    pub newest: Option<Cursor>,
    /// From when a request was due until its response was there, for each phase of the
    /// run.
    pub round_trips: Vec<Latency>,
    /// How long after it was due each request was handed to the system: what the load
    /// generator itself adds to latencies.
    pub lateness: Latency,
}

/// An observer of the publishers. Their numbers begin with 0.
pub trait PublishObserver {
    /// Publisher `who` sends this batch now.
    fn publishing(&mut self, who: usize, batch: &Batch);
    /// The oldest batch of `who` without a response was accepted, at these places.
    fn accepted(&mut self, who: usize, places: Option<(Cursor, Cursor)>);
}

/// No observer.
impl PublishObserver for () {
    fn publishing(&mut self, _who: usize, _batch: &Batch) {}
    fn accepted(&mut self, _who: usize, _places: Option<(Cursor, Cursor)>) {}
}

/// Why publishing failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublisherError {
    /// A connection failed.
    #[error("publisher {0}: {1}")]
    Broken(usize, BrokenConnection),
    /// The server accepts nothing more.
    #[error("publisher {0}: {1}")]
    Ended(usize, End),
    /// A response is overdue.
    #[error("publisher {0}: no response to {1} requests within 10 seconds")]
    NoResponse(usize, usize),
    /// `poll` failed.
    #[error("cannot wait for responses: {0}")]
    Wait(io::Error),
}

/// Publishers, each with its connection.
#[derive(Debug)]
pub struct Publishers<P> {
    members: Vec<Member<P>>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Member<P> {
    publisher: P,
    socket: Socket,
    /// How many events it has published.
    number: u64,
    out: Vec<u8>,
    partial: Vec<u8>,
    asked: Asked,
}

/// Requests without a response, the oldest first, and what is known of the others.
#[derive(Debug)]
struct Asked {
    requests: VecDeque<Request>,
    first: Option<Cursor>,
    newest: Option<Cursor>,
    accepted: u64,
    round_trips: Vec<Latency>,
    error: Option<ProtocolError>,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    due_ns: u64,
    events: u64,
    phase: usize,
}

impl<P: Publisher> Publishers<P> {
    /// Connects each of these.
    ///
    /// # Errors
    ///
    /// One of them cannot be connected.
    pub fn connect(
        endpoint: &Endpoint,
        publishers: impl IntoIterator<Item = P>,
    ) -> Result<Self, PublisherError> {
        let mut members = Vec::new();
        for mut publisher in publishers {
            let socket = Socket::connect(endpoint).map_err(|error| {
                let error = BrokenConnection::Unreachable(endpoint.clone(), error);
                PublisherError::Broken(members.len(), error)
            })?;
            let mut out = Vec::new();
            publisher.open(&mut out);
            members.push(Member {
                publisher,
                socket,
                number: 0,
                out,
                partial: Vec::new(),
                asked: Asked {
                    requests: VecDeque::new(),
                    first: None,
                    newest: None,
                    accepted: 0,
                    round_trips: Vec::new(),
                    error: None,
                    end: None,
                },
            });
        }
        Ok(Publishers {
            members,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Publishes as planned, until that is done or the gauge says so, and waits for the
    /// responses. May be called again: each publisher's numbers go on.
    ///
    /// # Errors
    ///
    /// The first failure of any of them.
    pub fn run<O: PublishObserver>(
        &mut self,
        plan: &Plan,
        gauge: &Gauge,
        observer: &mut O,
    ) -> Result<Published, PublisherError> {
        precise_timers();
        let mut run = Run::new(plan, gauge, self.members.len());
        let mut done = Published::default();
        for member in &mut self.members {
            member.asked.first = None;
            member.asked.accepted = 0;
            member.asked.round_trips.clear();
        }
        let outcome = self.publish(&mut run, &mut done, observer);
        for member in &self.members {
            done.accepted += member.asked.accepted;
            done.firsts.push(member.asked.first);
            done.newest = done.newest.max(member.asked.newest);
            let phases = member.asked.round_trips.len();
            if done.round_trips.len() < phases {
                done.round_trips.resize_with(phases, Latency::default);
            }
            for (all, own) in done.round_trips.iter_mut().zip(&member.asked.round_trips) {
                all.add(own);
            }
        }
        outcome.map(|()| done)
    }

    fn publish<O: PublishObserver>(
        &mut self,
        run: &mut Run<'_>,
        done: &mut Published,
        observer: &mut O,
    ) -> Result<(), PublisherError> {
        let mut given_up_ns = None;
        loop {
            let ends = run.gauge.publishers_end() || run.left == Some(0);
            let mut wake_ns = now_ns() + LOOK_NS;
            if ends {
                let waiting = self.members.iter().position(|member| !member.is_done());
                let Some(who) = waiting else {
                    return Ok(());
                };
                let give_up_ns = *given_up_ns.get_or_insert(now_ns() + RESPONSE_TIMEOUT_NS);
                if now_ns() > give_up_ns {
                    let requests = self.members[who].asked.requests.len();
                    return Err(PublisherError::NoResponse(who, requests));
                }
            }
            for (who, member) in self.members.iter_mut().enumerate() {
                if !ends && let Some(due_ns) = run.publish_due(who, member, done, observer) {
                    wake_ns = wake_ns.min(due_ns);
                }
                member
                    .write(&mut Told::new(who, run.gauge, observer))
                    .map_err(|error| PublisherError::Broken(who, error.into()))?;
            }
            self.wait(wake_ns).map_err(PublisherError::Wait)?;
            for (who, member) in self.members.iter_mut().enumerate() {
                let mut told = Told::new(who, run.gauge, observer);
                member.read(&mut self.buffer, &mut told).map_err(|error| {
                    // What the server said before it closed the connection says more.
                    match member.asked.end.take() {
                        Some(end) => PublisherError::Ended(who, end),
                        None => PublisherError::Broken(who, error),
                    }
                })?;
                if let Some(end) = member.asked.end.take() {
                    return Err(PublisherError::Ended(who, end));
                }
            }
        }
    }

    /// Waits until a socket has something, or until then.
    fn wait(&self, wake_ns: u64) -> io::Result<()> {
        let flags = |member: &Member<P>| {
            if member.out.is_empty() && !member.socket.wants_write() {
                PollFlags::IN
            } else {
                PollFlags::IN | PollFlags::OUT
            }
        };
        let mut sockets: Vec<PollFd<'_>> = self
            .members
            .iter()
            .map(|member| PollFd::new(&member.socket, flags(member)))
            .collect();
        let nanos = wake_ns.saturating_sub(now_ns());
        let timeout = Timespec {
            tv_sec: (nanos / 1_000_000_000) as i64,
            tv_nsec: (nanos % 1_000_000_000) as i64,
        };
        match poll(&mut sockets, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// One run of the publishers.
struct Run<'a> {
    plan: &'a Plan,
    gauge: &'a Gauge,
    batch: Batch,
    begun_ns: u64,
    /// Between two requests of one publisher.
    interval_ns: f64,
    /// How many requests each has sent.
    requests: Vec<u64>,
    /// How many events are to be published still.
    left: Option<u64>,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, gauge: &'a Gauge, publishers: usize) -> Self {
        let interval_ns = match plan.pace {
            Pace::PerSecond(events) => 1e9 * (plan.batch * publishers) as f64 / events,
            Pace::Full => 0.0,
        };
        Run {
            plan,
            gauge,
            batch: plan.shape.batch(),
            begun_ns: now_ns(),
            interval_ns,
            requests: vec![0; publishers],
            left: plan.events,
        }
    }

    /// When publisher `who` has its next request, if the pace says.
    fn due_ns(&self, who: usize) -> Option<u64> {
        match self.plan.pace {
            Pace::Full => None,
            Pace::PerSecond(_) => {
                // They take turns.
                let turn = who as f64 / self.requests.len() as f64;
                let intervals = self.requests[who] as f64 + turn;
                Some(self.begun_ns + (intervals * self.interval_ns) as u64)
            }
        }
    }

    /// Publishes what is due. Returns when the next is, if that is what it waits for.
    fn publish_due<P: Publisher, O: PublishObserver>(
        &mut self,
        who: usize,
        member: &mut Member<P>,
        done: &mut Published,
        observer: &mut O,
    ) -> Option<u64> {
        loop {
            let has_room = member.publisher.has_room()
                && member.asked.requests.len() < self.plan.in_flight
                && member.out.len() < MAX_OUT_BYTES;
            if !has_room || self.left == Some(0) {
                return None;
            }
            let now_ns = now_ns();
            let due_ns = self.due_ns(who).unwrap_or(now_ns);
            if due_ns > now_ns {
                return Some(due_ns);
            }
            let mut events = self.plan.batch as u64;
            if let Some(left) = &mut self.left {
                events = events.min(*left);
                *left -= events;
            }
            let stamp = Stamp {
                // At most `MAX_PUBLISHERS` are made.
                publisher: who as u8,
                number: member.number,
                due_ns,
                sent_ns: now_ns,
            };
            self.batch.fill(stamp, events as usize);
            observer.publishing(who, &self.batch);
            member.publisher.publish(&self.batch, &mut member.out);
            member.number += events;
            member.asked.requests.push_back(Request {
                due_ns,
                events,
                phase: self.gauge.phase(),
            });
            self.requests[who] += 1;
            done.sent += events;
            done.lateness.record(now_ns - due_ns);
        }
    }
}

impl<P: Publisher> Member<P> {
    /// Whether everything was written and has its response.
    fn is_done(&self) -> bool {
        self.out.is_empty() && self.asked.requests.is_empty()
    }

    fn write<O: PublishObserver>(&mut self, told: &mut Told<'_, O>) -> io::Result<()> {
        if !self.out.is_empty() || self.socket.wants_write() {
            write_out(&mut self.socket, &mut self.out)?;
        }
        if !P::RESPONDS && self.out.is_empty() && !self.socket.wants_write() {
            let mut responses = self.asked.told_to(told);
            while !responses.asked.requests.is_empty() {
                responses.accepted(None);
            }
        }
        Ok(())
    }

    fn read<O: PublishObserver>(
        &mut self,
        buffer: &mut Vec<u8>,
        told: &mut Told<'_, O>,
    ) -> Result<(), BrokenConnection> {
        loop {
            let kept = self.partial.len();
            if buffer.len() < kept + BUFFER_BYTES {
                buffer.resize(kept + BUFFER_BYTES, 0);
            }
            let read = match self.socket.read(&mut buffer[kept..]) {
                Ok(0) => return Err(BrokenConnection::Closed),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            buffer[..kept].copy_from_slice(&self.partial);
            let bytes = &buffer[..kept + read];
            let mut responses = self.asked.told_to(told);
            let done = self
                .publisher
                .receive(bytes, &mut self.out, &mut responses)?;
            drop(responses);
            self.partial.clear();
            self.partial.extend_from_slice(&bytes[done..]);
            if let Some(error) = self.asked.error.take() {
                return Err(error.into());
            }
            if self.asked.end.is_some() || read < BUFFER_BYTES {
                return Ok(());
            }
        }
    }
}

/// What a response is reported to: the observer and the gauge.
struct Told<'a, O> {
    who: usize,
    gauge: &'a Gauge,
    observer: &'a mut O,
}

impl<'a, O: PublishObserver> Told<'a, O> {
    fn new(who: usize, gauge: &'a Gauge, observer: &'a mut O) -> Self {
        Told {
            who,
            gauge,
            observer,
        }
    }
}

/// Responses that arrive at one moment. The gauge is told when it is dropped.
struct Arrived<'a, 'b, O> {
    asked: &'a mut Asked,
    told: &'a mut Told<'b, O>,
    now_ns: u64,
    events: u64,
}

impl Asked {
    fn told_to<'a, 'b, O: PublishObserver>(
        &'a mut self,
        told: &'a mut Told<'b, O>,
    ) -> Arrived<'a, 'b, O> {
        Arrived {
            asked: self,
            told,
            now_ns: now_ns(),
            events: 0,
        }
    }
}

impl<O> Drop for Arrived<'_, '_, O> {
    fn drop(&mut self) {
        self.told.gauge.add_accepted(self.events);
    }
}

impl<O: PublishObserver> Responses for Arrived<'_, '_, O> {
    fn accepted(&mut self, places: Option<(Cursor, Cursor)>) {
        let asked = &mut *self.asked;
        let Some(request) = asked.requests.pop_front() else {
            asked.error = Some(ProtocolError::new("a response to no request"));
            return;
        };
        if let Some((first, last)) = places {
            let span = last.seq().number().wrapping_sub(first.seq().number());
            if span.wrapping_add(1) != request.events {
                asked.error = Some(ProtocolError::new(format!(
                    "the response to {} events names the places {first} to {last}",
                    request.events
                )));
            }
            asked.first.get_or_insert(first);
            asked.newest = asked.newest.max(Some(last));
        }
        asked.accepted += request.events;
        self.events += request.events;
        if asked.round_trips.len() <= request.phase {
            asked
                .round_trips
                .resize_with(request.phase + 1, Latency::default);
        }
        asked.round_trips[request.phase].record(self.now_ns.saturating_sub(request.due_ns));
        self.told.observer.accepted(self.told.who, places);
    }

    fn ended(&mut self, end: &End) {
        self.asked.end = Some(end.clone());
    }
}

/// Lets this thread wake when it asked to, and not some ten microseconds later.
fn precise_timers() {
    #[cfg(target_os = "linux")]
    {
        // If it fails, requests are late, which is measured.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    }
}
