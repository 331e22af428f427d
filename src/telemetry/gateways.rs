//! The gateways that are subscribed, and what was delivered to each.
//!
//! A stream counts what it delivers beside its subscription's own state, in a cache line that
//! the read has just written, without a read-modify-write. Whoever looks adds it up.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
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
use crate::freshness::Freshness;
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
    /// Which process of its kind, as it says.
    instance: Option<Instance>,
    /// In milliseconds since 1970.
    since_ms: u64,
    ender: Ender,
    /// Who has ended it, if anybody has.
    ended_by: Mutex<Option<Box<EndedBy>>>,
    /// What was delivered by the last look.
    looked_at_bytes: AtomicU64,
    /// Bytes a second since the look before.
    bytes_per_second: AtomicU64,
}

/// In one word: few have one.
type Instance = Box<Box<str>>;

#[derive(Debug)]
enum EndedBy {
    /// Somebody who has disconnected it.
    Operator(Box<str>),
    /// A newer subscription of its id.
    Successor(Successor),
}

/// A newer subscription, for whoever it has taken the id from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Successor {
    pub(crate) peer: Peer,
    pub(crate) principal: Option<Arc<str>>,
    /// Which process of its kind it is, as it says.
    pub(crate) instance: Option<Box<str>>,
}

impl Successor {
    /// Its address, and what else is known of it.
    pub(crate) fn in_words(&self) -> String {
        let principal = self.principal.as_deref().map(|of| format!(" ({of})"));
        let instance = self
            .instance
            .as_deref()
            .map(|of| format!(", instance {of}"));
        format!(
            "{}{}{}",
            self.peer,
            principal.unwrap_or_default(),
            instance.unwrap_or_default()
        )
    }
}

/// It is about to subscribe: whoever it takes over is to find it. Dropping it before it
/// [has](super::Telemetry::subscribed) takes that back.
#[derive(Debug)]
pub(crate) struct Arrival {
    gateways: Arc<Gateways>,
    id: Box<str>,
    who: Arc<Successor>,
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let (shard, _) = self.gateways.place(&self.id);
        let is_other = |(_, other): &(_, Arc<Successor>)| !Arc::ptr_eq(other, &self.who);
        lock(shard).arrivals.retain(is_other);
    }
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

    /// Which process of its kind it is, as it says.
    pub(crate) fn instance(&self) -> Option<&str> {
        self.instance.as_ref().map(|instance| &***instance)
    }

    pub(crate) fn since(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.since_ms)
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
        // The stream that sees the end waits here until it is said whose it was.
        let mut ended_by = lock(&self.ended_by);
        let ended = self.ender.end();
        if ended {
            *ended_by = Some(Box::new(EndedBy::Operator(by.into())));
        }
        ended
    }

    /// Who has disconnected it, if anybody has.
    pub(crate) fn disconnected_by(&self) -> Option<Box<str>> {
        match lock(&self.ended_by).as_deref()? {
            EndedBy::Operator(by) => Some(by.clone()),
            EndedBy::Successor(_) => None,
        }
    }

    /// Notes who has taken its id, unless that is known, or something else has ended it before.
    fn was_taken_over_by(&self, newer: &Gateway) -> bool {
        let mut ended_by = lock(&self.ended_by);
        let is_first = ended_by.is_none();
        ended_by.get_or_insert_with(|| {
            Box::new(EndedBy::Successor(Successor {
                peer: newer.peer,
                principal: newer.principal.clone(),
                instance: newer.instance().map(Box::from),
            }))
        });
        is_first
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
    /// Those that are about to subscribe, by id, the newest last.
    arrivals: Vec<(Box<str>, Arc<Successor>)>,
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

    /// Somebody is about to subscribe.
    pub(super) fn arriving(self: &Arc<Self>, id: &str, who: Successor) -> Arrival {
        let who = Arc::new(who);
        let (shard, _) = self.place(id);
        let arrivals = &mut lock(shard).arrivals;
        arrivals.push((id.into(), Arc::clone(&who)));
        Arrival {
            gateways: Arc::clone(self),
            id: id.into(),
            who,
        }
    }

    /// Who has taken the id of this one, which was told so: who has subscribed since, or is in
    /// the middle of it.
    fn successor(&self, of: &Gateway) -> Option<Successor> {
        let (shard, _) = self.place(of.id());
        // Held over both looks: an arrival becomes the other under it.
        let shard = lock(shard);
        if let Some(EndedBy::Successor(who)) = lock(&of.ended_by).as_deref() {
            return Some(who.clone());
        }
        let arrivals = &mut shard.arrivals.iter().rev();
        let (_, who) = arrivals.find(|(id, _)| **id == *of.id())?;
        Some(Successor::clone(who))
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
        arrival: &Arrival,
        parent: &Parent,
    ) -> Self {
        let start = subscriber.start();
        let Successor {
            peer,
            principal,
            instance,
        } = Successor::clone(&arrival.who);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let gateway = Arc::new(Gateway {
            principal,
            peer,
            instance: instance.map(Box::new),
            since_ms: since.unwrap_or_default().as_millis() as u64,
            ender: subscriber.ender(),
            ended_by: Mutex::default(),
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

    /// Until when it is known what there is.
    pub(crate) fn freshness(&self) -> &Freshness {
        self.telemetry.freshness()
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
                since: self.gateway.since(),
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

    /// Who has taken its id, where that is so.
    pub(crate) fn successor(&self) -> Option<Successor> {
        self.telemetry.shared.gateways.successor(&self.gateway)
    }

    /// It has ended, in words: `detail`. `missed` events are gone.
    pub(crate) fn end(&mut self, cause: Cause, detail: &str, missed: u64) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let shared = &self.telemetry.shared;
        let gateway = &self.gateway;
        // Before it is gone from the others: whoever looks for it finds it here or there.
        let receipts = self.telemetry.receipts();
        receipts.stream_ended(gateway.id(), gateway.instance());
        let deliveries = shared.gateways.remove(gateway);
        let lasted = gateway.since().elapsed().unwrap_or_default();
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
            detail: detail.to_owned(),
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
                telemetry.subscribed_unknown(&subscriber)
            })
            .collect();
        let gateways = &telemetry.shared.gateways;
        assert_eq!(gateways.all().len(), 1000);
        let newer = engine.subscribe("g7", "").unwrap();
        let newer = telemetry.subscribed_unknown(&newer);
        let found = gateways.find("g7");
        assert!(found.iter().all(|of| of.id() == "g7"));
        assert_eq!(found.len(), 2);
        drop(streams);
        assert_eq!(gateways.all().len(), 1);
        assert!(Arc::ptr_eq(&gateways.find("g7")[0], &newer.gateway));
        assert!(gateways.find("g8").is_empty());
    }
}
