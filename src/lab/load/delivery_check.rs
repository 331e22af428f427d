//! What each receiver has got, and whether that is all.

use super::event::Shape;
use super::latency::Windows;
use super::protocol::{End, Start};
use super::receivers::{Arrival, BrokenConnection, StreamObserver};
use crate::cursor::Cursor;

/// Counts what receivers get, and finds every hole.
#[derive(Debug)]
pub struct DeliveryCheck {
    shape: Shape,
    publishers: usize,
    /// The number of each publisher's next event, for each receiver.
    next: Vec<u64>,
    receivers: Vec<Receiver>,
    /// How many are subscribed.
    started: usize,
    delivered: u64,
    foreign: u64,
    latencies: Windows,
    server_delays: Windows,
    errors: DeliveryErrors,
}

#[derive(Clone, Debug, Default)]
struct Receiver {
    is_started: bool,
    received: u64,
    cursor: Option<Cursor>,
    start: Start,
}

/// What went wrong with receivers: how often, and the first time in words.
#[derive(Clone, Debug, Default)]
pub struct DeliveryErrors {
    count: u64,
    first: Option<String>,
}

impl DeliveryErrors {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first one.
    #[must_use]
    pub fn first(&self) -> Option<&str> {
        self.first.as_deref()
    }

    #[cold]
    fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(what);
    }
}

impl DeliveryCheck {
    /// For so many receivers of what so many publishers publish.
    #[must_use]
    pub fn new(shape: Shape, receivers: usize, publishers: usize) -> Self {
        DeliveryCheck {
            shape,
            publishers,
            next: vec![0; receivers * publishers],
            receivers: vec![Receiver::default(); receivers],
            started: 0,
            delivered: 0,
            foreign: 0,
            latencies: Windows::of(0..0, 1),
            server_delays: Windows::of(0..0, 1),
            errors: DeliveryErrors::default(),
        }
    }

    /// All receivers begin anew, with each publisher's first event: after this place,
    /// where the protocol has places.
    pub fn rewind(&mut self, place: Option<Cursor>) {
        self.next.fill(0);
        self.receivers.fill(Receiver {
            cursor: place,
            ..Receiver::default()
        });
        self.started = 0;
    }

    /// Receiver `who` is to subscribe again: it goes on where it was.
    pub fn disconnected(&mut self, who: usize) {
        let receiver = &mut self.receivers[who];
        if std::mem::replace(&mut receiver.is_started, false) {
            self.started -= 1;
        }
    }

    /// Records times in such windows; until this is called, none.
    pub fn measure(&mut self, windows: Windows) {
        self.server_delays = windows.clone();
        self.latencies = windows;
    }

    /// How many receivers are subscribed.
    #[must_use]
    pub fn started(&self) -> usize {
        self.started
    }

    /// Whether receiver `who` is subscribed.
    #[must_use]
    pub fn is_started(&self, who: usize) -> bool {
        self.receivers[who].is_started
    }

    /// How receiver `who` started last.
    #[must_use]
    pub fn start(&self, who: usize) -> &Start {
        &self.receivers[who].start
    }

    /// All events of the run that receivers got, together.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Events of others that they got.
    #[must_use]
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// How many receiver `who` got, since it began anew.
    #[must_use]
    pub fn received(&self, who: usize) -> u64 {
        self.receivers[who].received
    }

    /// How many events are missing, if each receiver should have so many.
    #[must_use]
    pub fn missing(&self, each: u64) -> u64 {
        let missing = |receiver: &Receiver| each.saturating_sub(receiver.received);
        self.receivers.iter().map(missing).sum()
    }

    /// The place of the last event that receiver `who` got, or that it started after.
    #[must_use]
    pub fn cursor(&self, who: usize) -> Option<Cursor> {
        self.receivers[who].cursor
    }

    /// The latencies that were recorded.
    #[must_use]
    pub fn latencies(&self) -> &Windows {
        &self.latencies
    }

    /// From when events were sent until they were in their receivers' sockets: what the
    /// server made of their latencies. Empty where the system does not tell.
    #[must_use]
    pub fn server_delays(&self) -> &Windows {
        &self.server_delays
    }

    /// What went wrong.
    #[must_use]
    pub fn errors(&self) -> &DeliveryErrors {
        &self.errors
    }
}

impl StreamObserver for DeliveryCheck {
    fn started(&mut self, who: usize, _now_ns: u64, start: &Start) {
        let receiver = &mut self.receivers[who];
        receiver.is_started = true;
        self.started += 1;
        if let (Some(before), Some(after)) = (receiver.cursor, start.cursor)
            && before != after
        {
            self.errors.add(|| {
                format!(
                    "receiver {who} was at {before} and starts after {after} ({})",
                    start.reason
                )
            });
        }
        receiver.cursor = start.cursor.or(receiver.cursor);
        receiver.start = start.clone();
    }

    #[inline]
    fn event(&mut self, who: usize, at: Arrival, event: &[u8], cursor: Option<Cursor>) {
        let receiver = &mut self.receivers[who];
        if let Some(found) = cursor {
            let follows = receiver.cursor.is_none_or(|before| {
                before.epoch() == found.epoch() && before.seq().number() + 1 == found.seq().number()
            });
            if !follows {
                let before = receiver.cursor;
                self.errors
                    .add(|| format!("receiver {who} got {found} after {before:?}"));
            }
            receiver.cursor = cursor;
        }
        let Some(stamp) = self.shape.stamp(event) else {
            self.foreign += 1;
            return;
        };
        let publisher = usize::from(stamp.publisher);
        if publisher >= self.publishers {
            self.foreign += 1;
            return;
        }
        let next = &mut self.next[who * self.publishers + publisher];
        if *next != stamp.number {
            let due = *next;
            self.errors.add(|| {
                format!(
                    "receiver {who} got event {} of publisher {publisher} where {due} was due",
                    stamp.number
                )
            });
        }
        *next = stamp.number + 1;
        receiver.received += 1;
        self.delivered += 1;
        self.latencies
            .record(stamp.due_ns, at.read_ns.saturating_sub(stamp.due_ns));
        if let Some(socket_ns) = at.socket_ns {
            self.server_delays
                .record(stamp.due_ns, socket_ns.saturating_sub(stamp.sent_ns));
        }
    }

    fn ended(&mut self, who: usize, end: &End) {
        self.disconnected(who);
        self.errors
            .add(|| format!("the stream of receiver {who} ended: {end}"));
    }

    fn broken(&mut self, who: usize, error: &BrokenConnection) {
        self.disconnected(who);
        self.errors.add(|| format!("receiver {who}: {error}"));
    }
}
