//! The gateways that are subscribed, and what was delivered to each.
//!
//! A stream counts what it delivers beside its subscription's own state, in a cache line that
//! the read has just written, without a read-modify-write. Whoever looks adds it up.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::Telemetry;
use super::count::lock;
use super::delays::Stamp;
use super::ends::{Cause, Ended};
use super::start::describe;
use crate::access::Peer;
use crate::contract::MESSAGE_PREFIX_BYTES;
use crate::cursor::{Cursor, Seq};
use crate::engine::{Batch, Deliveries, Ender, Engine, Replay, Start, Subscriber};
use crate::spans::{Parent, Recipient, Subscribed, Subscription, SubscriptionEnd};

/// Locks: each is held while a gateway subscribes or ends.
const SHARDS: usize = 64;

/// A gateway that is subscribed: what others may know of it, and do to it.
///
/// There may be ten thousand: what its subscription has, such as its id, is not kept twice.
#[derive(Debug)]
pub(crate) struct Gateway {
    principal: Option<Arc<str>>,
    peer: Peer,
    since: SystemTime,
    ender: Ender,
    /// Who has ended it, if anybody has.
    ended_by: OnceLock<Box<EndedBy>>,
    /// What was delivered by the last look.
    looked_at_bytes: AtomicU64,
    /// Bytes a second since the look before.
    bytes_per_second: AtomicU64,
}

#[derive(Debug)]
enum EndedBy {
    /// Somebody who has disconnected it.
    Operator(Box<str>),
    /// A newer subscription of its id.
    Successor {
        peer: Peer,
        principal: Option<Arc<str>>,
    },
}

impl Gateway {
    pub(crate) fn id(&self) -> &str {
        self.ender.gateway_id()
    }

    /// Who it is, where that matters.
    pub(crate) fn principal(&self) -> Option<&str> {
        self.principal.as_deref()
    }

    pub(crate) fn peer(&self) -> Peer {
        self.peer
    }

    pub(crate) fn since(&self) -> SystemTime {
        self.since
    }

    /// Where its stream started, and why.
    pub(crate) fn start(&self) -> Start {
        self.ender.start()
    }

    pub(crate) fn deliveries(&self) -> Deliveries {
        self.ender.deliveries()
    }

    /// Bytes a second that were delivered to it of late.
    pub(crate) fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second.load(Ordering::Relaxed)
    }

    /// Works out what was delivered since the last look, so long ago.
    pub(super) fn look(&self, ago: Duration) {
        // Relaxed: one thread looks.
        let bytes = self.deliveries().bytes;
        let before = self.looked_at_bytes.swap(bytes, Ordering::Relaxed);
        let rate = bytes.saturating_sub(before) as f64 / ago.as_secs_f64().max(1e-3);
        // A slow gateway takes much at once, and then nothing for seconds.
        let of_late = match self.bytes_per_second.load(Ordering::Relaxed) {
            0 => rate,
            of_late => (3.0 * of_late as f64 + rate) / 4.0,
        };
        self.bytes_per_second
            .store(of_late as u64, Ordering::Relaxed);
    }

    /// Ends its stream, for whoever that is. Returns whether it was this call that ended it.
    pub(crate) fn disconnect(&self, by: &str) -> bool {
        if self.ender.has_ended() {
            return false;
        }
        // Before the end: the stream that sees it looks here.
        let is_first = self.was_ended_by(EndedBy::Operator(by.into()));
        self.ender.end() && is_first
    }

    /// Who has disconnected it, if anybody has.
    pub(crate) fn disconnected_by(&self) -> Option<&str> {
        match &**self.ended_by.get()? {
            EndedBy::Operator(by) => Some(by),
            EndedBy::Successor { .. } => None,
        }
    }

    /// Whether nobody else has ended it before.
    fn was_ended_by(&self, by: EndedBy) -> bool {
        self.ended_by.set(Box::new(by)).is_ok()
    }

    fn was_taken_over_by(&self, newer: &Gateway) -> bool {
        self.was_ended_by(EndedBy::Successor {
            peer: newer.peer,
            principal: newer.principal.clone(),
        })
    }
}

/// What was counted of streams that have ended, or of all of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivered {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

impl Delivered {
    fn add(&mut self, deliveries: &Deliveries) {
        self.events += deliveries.events;
        self.bytes += deliveries.bytes;
    }
}

/// All gateways that are subscribed, by id.
#[derive(Debug)]
pub(super) struct Gateways {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    /// By id: several of one while one takes over from another.
    gateways: HashTable<Arc<Gateway>>,
    ended: Delivered,
}

impl Gateways {
    pub(super) fn new() -> Self {
        Gateways {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Where those of this id are, and their hash.
    fn place(&self, id: &str) -> (&Mutex<Shard>, u64) {
        let hash = self.hasher.hash_one(id);
        // The table goes by the lowest and the highest bits.
        (&self.shards[(hash >> 32) as usize % SHARDS], hash)
    }

    /// All that are subscribed now, in no order.
    pub(super) fn all(&self) -> Vec<Arc<Gateway>> {
        let count = self.shards.iter().map(|of| lock(of).gateways.len()).sum();
        let mut all = Vec::with_capacity(count);
        for shard in &self.shards {
            all.extend(lock(shard).gateways.iter().cloned());
        }
        all
    }

    /// The one that has this id, or those while one takes over.
    pub(super) fn find(&self, id: &str) -> SmallVec<[Arc<Gateway>; 1]> {
        let (shard, hash) = self.place(id);
        lock(shard).of(id, hash).cloned().collect()
    }

    /// What was delivered since the start: it never goes back.
    pub(super) fn delivered(&self) -> Delivered {
        let mut sum = Delivered::default();
        for shard in &self.shards {
            // Under the lock: a stream that ends is counted once, here or there.
            let shard = lock(shard);
            sum.events += shard.ended.events;
            sum.bytes += shard.ended.bytes;
            for gateway in &shard.gateways {
                sum.add(&gateway.deliveries());
            }
        }
        sum
    }

    /// Puts it in. Returns who it has taken over from.
    fn insert(&self, new: &Arc<Gateway>) -> Option<Arc<Gateway>> {
        let (shard, hash) = self.place(new.id());
        let mut shard = lock(shard);
        let mut older = None;
        for other in shard.of(new.id(), hash) {
            if !other.ender.has_ended() {
                // It came later, and was here first.
                if new.ender.has_ended() {
                    new.was_taken_over_by(other);
                }
            } else if other.was_taken_over_by(new) {
                older = Some(Arc::clone(other));
            }
        }
        let hash_of = |held: &Arc<Gateway>| self.hasher.hash_one(held.id());
        shard.gateways.insert_unique(hash, Arc::clone(new), hash_of);
        older
    }

    fn remove(&self, old: &Arc<Gateway>) -> Deliveries {
        let (shard, hash) = self.place(old.id());
        let mut shard = lock(shard);
        let is_old = |held: &Arc<Gateway>| Arc::ptr_eq(held, old);
        if let Ok(held) = shard.gateways.find_entry(hash, is_old) {
            held.remove();
        }
        let deliveries = old.deliveries();
        shard.ended.add(&deliveries);
        deliveries
    }
}

impl Shard {
    /// Those that have this id.
    fn of<'a>(&'a self, id: &'a str, hash: u64) -> impl Iterator<Item = &'a Arc<Gateway>> {
        let same_hash = self.gateways.iter_hash(hash);
        same_hash.filter(move |held| held.id() == id)
    }
}

/// A stream to a gateway, for as long as it lasts.
pub(crate) struct Stream {
    telemetry: Telemetry,
    gateway: Arc<Gateway>,
    /// What it was given last, and has not written yet.
    pending: Pending,
    /// Up to which event sampled ones were looked for.
    sampled: u64,
    since: Stamp,
    /// What is traced of it.
    span: Subscribed,
    has_ended: bool,
}

/// What is being written.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    events: u32,
    bytes: u32,
}

impl Stream {
    pub(super) fn begin(
        telemetry: &Telemetry,
        subscriber: &Subscriber,
        replay: Option<&Replay>,
        peer: Peer,
        principal: Option<Arc<str>>,
        parent: &Parent,
    ) -> Self {
        let start = subscriber.start();
        let gateway = Arc::new(Gateway {
            principal,
            peer,
            since: SystemTime::now(),
            ender: subscriber.ender(),
            ended_by: OnceLock::new(),
            looked_at_bytes: AtomicU64::new(0),
            bytes_per_second: AtomicU64::new(0),
        });
        let shared = &telemetry.shared;
        let older = shared.gateways.insert(&gateway);
        shared.count_start(&start, replay);
        shared.log.subscribed(&gateway, replay, older.as_deref());
        let (resume, reason, _) = describe(start.resume);
        let span = shared.spans.subscribed(
            parent,
            &Subscription {
                gateway: gateway.id(),
                principal: gateway.principal(),
                resume: resume.as_str(),
                reason: reason.as_str(),
                start: start.cursor,
            },
        );
        Stream {
            pending: Pending::default(),
            sampled: start.cursor.seq().number(),
            since: shared.delays.stamp(),
            telemetry: telemetry.clone(),
            gateway,
            span,
            has_ended: false,
        }
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Where its events come from.
    pub(crate) fn engine(&self) -> &Engine {
        self.telemetry.engine()
    }

    /// What comes next is to be written. It has been when this is called again, or
    /// [`written`](Self::written).
    #[inline]
    pub(crate) fn writing(&mut self, batch: &Batch) {
        self.pending = Pending {
            events: batch.len() as u32,
            bytes: batch.as_bytes().len() as u32,
        };
    }

    /// What was to be written was.
    #[inline]
    pub(crate) fn written(&mut self, subscriber: &Subscriber) {
        if self.pending.events > 0 {
            // Nothing was received since.
            self.count(subscriber, subscriber.position().seq());
        }
    }

    /// What is pending was written, up to this event.
    #[inline]
    fn count(&mut self, subscriber: &Subscriber, position: Seq) {
        let Pending { events, bytes } = std::mem::take(&mut self.pending);
        subscriber.delivered(position, u64::from(events), u64::from(bytes));
        let last = position.number();
        let shared = &self.telemetry.shared;
        let delays = &shared.delays;
        if delays.newest() > self.sampled {
            // One that was sampled after it had been delivered is too late.
            let before = last - u64::from(events);
            let sampled = self.sampled.max(before);
            delays.delivered(sampled, last, self.since);
            let recipient = Recipient {
                gateway: self.gateway.id(),
                since: self.gateway.since,
            };
            shared.spans.delivered(sampled, last, &recipient);
            self.sampled = last;
        }
    }

    /// Of what was to be written, which is this batch, so many bytes were: the events that lie
    /// in them whole were delivered.
    pub(crate) fn written_in_part(&mut self, subscriber: &Subscriber, batch: &Batch, bytes: usize) {
        let (mut events, mut whole_bytes) = (0, 0);
        for event in batch.events() {
            let end = whole_bytes + MESSAGE_PREFIX_BYTES + event.len();
            if end > bytes {
                break;
            }
            events += 1;
            whole_bytes = end;
        }
        self.pending = Pending {
            events,
            bytes: whole_bytes as u32,
        };
        if events > 0 {
            let before = batch.first().seq().number() - 1;
            self.count(subscriber, Seq::issued(before + u64::from(events)));
        }
    }

    /// It has ended, in words: `detail`. `missed` events are gone.
    pub(crate) fn end(&mut self, cause: Cause, detail: &str, missed: u64) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let shared = &self.telemetry.shared;
        let gateway = &self.gateway;
        let deliveries = shared.gateways.remove(gateway);
        let ended_by = gateway.ended_by.get().filter(|_| cause == Cause::Takeover);
        let detail = match ended_by.map(|by| &**by) {
            None => detail.to_owned(),
            Some(EndedBy::Operator(by)) => format!("disconnected by {by}"),
            Some(EndedBy::Successor { peer, principal }) => {
                let principal = principal.as_deref().map(|of| format!(" ({of})"));
                format!("taken over by {peer}{}", principal.unwrap_or_default())
            }
        };
        let lasted = gateway.since.elapsed().unwrap_or_default();
        shared.spans.ended(
            std::mem::take(&mut self.span),
            &SubscriptionEnd {
                gateway: gateway.id(),
                cause: cause.as_str(),
                is_failure: matches!(cause, Cause::Lapped | Cause::Stalled),
                lasted,
                events: deliveries.events,
                bytes: deliveries.bytes,
                missed,
            },
        );
        shared.ended(Ended {
            at: SystemTime::now(),
            id: gateway.id().into(),
            peer: gateway.peer,
            principal: gateway.principal.clone(),
            cause,
            detail,
            lasted,
            position: Some(deliveries.position),
            events: deliveries.events,
            bytes: deliveries.bytes,
            missed,
        });
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end(Cause::Disconnected, "the connection has ended", 0);
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("gateway", &self.gateway.id())
            .finish_non_exhaustive()
    }
}

/// Where a gateway is: what it has, and how far the head is from that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lag {
    pub(crate) position: Cursor,
    /// Published events that its socket has not taken.
    pub(crate) events: u64,
    /// For how long the first of them has waited.
    pub(crate) waited: Duration,
}

impl Lag {
    /// Whether it is more than what is on its way.
    pub(crate) fn is_behind(&self) -> bool {
        self.waited > Duration::from_secs(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With its two counts.
    #[test]
    fn a_gateway_takes_128_bytes() {
        assert_eq!(size_of::<Gateway>() + 2 * size_of::<usize>(), 128);
    }

    #[test]
    fn gateways_are_found_by_their_id_whatever_else_is_there() {
        let engine = Engine::builder().max_subscribers(1000).build().unwrap();
        let telemetry = Telemetry::of(&engine);
        let streams: Vec<_> = (0..1000)
            .map(|n| {
                let subscriber = engine.subscribe(&format!("g{n}"), "").unwrap();
                telemetry.subscribed(&subscriber, None, Peer::Unknown, None, &Parent::none())
            })
            .collect();
        let gateways = &telemetry.shared.gateways;
        assert_eq!(gateways.all().len(), 1000);
        let newer = engine.subscribe("g7", "").unwrap();
        let newer = telemetry.subscribed(&newer, None, Peer::Unknown, None, &Parent::none());
        let found = gateways.find("g7");
        assert!(found.iter().all(|of| of.id() == "g7"));
        assert_eq!(found.len(), 2);
        drop(streams);
        assert_eq!(gateways.all().len(), 1);
        assert!(Arc::ptr_eq(&gateways.find("g7")[0], &newer.gateway));
        assert!(gateways.find("g8").is_empty());
    }
}
