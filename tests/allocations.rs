//! What the engine allocates: counted by the allocator, not estimated.
//!
//! In steady state (the ring has come around, so that its memory is used again),
//! nothing is allocated for an event, a batch, a read, a wait or a wake-up. What
//! remains comes from holding on:
//!
//! | who | allocates | when |
//! |---|---|---|
//! | publisher | a segment and its header | it needs one, and the one that left the ring is held |
//! | subscriber | a lease | it comes to a segment, and a batch of the one before is held |
//! | subscriber | an owner | a batch is turned into `Bytes` |
//!
//! A gateway's router allocates a session when it is opened, and a list for each batch of
//! events.
//!
//! Each test counts on its own thread, so that others do not disturb it.

#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use bytes::Bytes;
use galaxy_push::engine::{Builder, Engine, Notifier, PublishError, Subscriber, TryRecvError};
use galaxy_push::event::Event;
use galaxy_push::gateway::{Beginning, Feed, Router, Session};

// --- the counting allocator ---

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Counting;

#[derive(Clone, Copy, Default)]
struct Counts {
    allocations: u64,
    /// May be negative: memory may come from another thread.
    live_bytes: i64,
}

thread_local! {
    static COUNTS: Cell<Counts> = const {
        Cell::new(Counts {
            allocations: 0,
            live_bytes: 0,
        })
    };
}

fn count(allocations: u64, bytes: i64) {
    // Without a destructor the cell is there for as long as the thread is.
    let _ = COUNTS.try_with(|counts| {
        let Counts {
            allocations: before,
            live_bytes,
        } = counts.get();
        counts.set(Counts {
            allocations: before + allocations,
            live_bytes: live_bytes + bytes,
        });
    });
}

// SAFETY: every call is passed on to the system's allocator as it is; counting
// allocates nothing and does not unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller keeps `alloc`'s contract, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: as in `alloc`; the memory came from the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: as in `alloc`; the memory came from the system's allocator.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// How often `work` allocates.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNTS.get().allocations;
    work();
    COUNTS.get().allocations - before
}

/// What this thread has allocated and not freed.
fn live_bytes() -> i64 {
    COUNTS.get().live_bytes
}

// --- an engine in steady state ---

/// A ring that has come around twice. All its events have the same size.
struct Ring {
    engine: Engine,
    published: u64,
    frames_per_segment: u64,
}

/// The encoding of `PushEvent { client_event: { user_id: "u", kind: "k", payload } }`
/// with a payload of 160 bytes.
const EVENT: [u8; 172] = {
    let mut event = [b'x'; 172];
    let head = b"\x0a\xa9\x01\x0a\x01u\x1a\x01k\x22\xa0\x01";
    event.split_at_mut(head.len()).0.copy_from_slice(head);
    event
};
/// With gRPC's prefix and the cursor.
const FRAME_BYTES: u64 = EVENT.len() as u64 + 31;

impl Ring {
    fn new() -> Self {
        // In segments of 64 KiB.
        let builder = Engine::builder().max_bytes(4 << 20).max_event_bytes(1000);
        Self::of(builder.max_subscribers(16))
    }

    fn of(builder: Builder) -> Self {
        let engine = builder.build().expect("settings that fit");
        let limits = engine.limits();
        let mut ring = Ring {
            published: 0,
            frames_per_segment: limits.segment_bytes / FRAME_BYTES,
            engine,
        };
        let once = limits.ring_bytes / FRAME_BYTES;
        ring.publish(2 * once.max(limits.max_events));
        ring
    }

    fn publish(&mut self, events: u64) {
        let publisher = self.engine.publisher();
        let event = Event::parse(&EVENT).expect("well encoded");
        for _ in 0..events {
            publisher.publish(event).expect("the engine is open");
        }
        self.published += events;
    }

    fn publish_batches(&mut self, batches: u64, events: usize) {
        let publisher = self.engine.publisher();
        let batch = [Event::parse(&EVENT).expect("well encoded"); 100];
        for _ in 0..batches {
            let published = publisher.publish_batch(&batch[..events]);
            published.expect("the engine is open");
        }
        self.published += batches * events as u64;
    }

    /// How many segments events were written to.
    fn segments(&self) -> u64 {
        self.published.div_ceil(self.frames_per_segment)
    }

    /// How many segments `work` enters, and how often it allocates.
    fn count(&mut self, work: impl FnOnce(&mut Self)) -> (u64, u64) {
        let before = self.segments();
        let allocations = allocations(|| work(self));
        (self.segments() - before, allocations)
    }
}

#[test]
fn publishing_allocates_nothing() {
    let mut ring = Ring::new();
    let (entered, allocations) = ring.count(|ring| ring.publish(10_000));
    assert_eq!((entered, allocations), (31, 0), "of 322 events each");

    let (entered, allocations) = ring.count(|ring| ring.publish_batches(10_000, 100));
    assert_eq!((entered, allocations), (3106, 0));
}

#[test]
fn what_subscribers_hold_is_replaced() {
    let mut ring = Ring::new();
    let mut subscriber = ring.engine.subscribe("gateway", "").unwrap();
    let mut held = Vec::with_capacity(10);
    while held.len() < 10 {
        ring.publish(ring.frames_per_segment);
        while let Ok(batch) = subscriber.try_recv() {
            held.push(batch);
        }
    }
    let lap = |ring: &mut Ring| ring.publish(ring.engine.limits().ring_bytes / FRAME_BYTES);
    let (_, allocations) = ring.count(lap);
    let limits = ring.engine.limits();
    let pinned = ring.engine.stats().pinned_bytes / limits.segment_bytes;
    assert_eq!(pinned, 6, "ten batches, two in most segments");
    assert_eq!(allocations, 2 * pinned, "the memory and the header of each");
    let (_, allocations) = ring.count(lap);
    assert_eq!(allocations, 0, "once");
}

#[test]
fn refusing_allocates_nothing() {
    let engine = Engine::builder().max_event_bytes(100).build().unwrap();
    let publisher = engine.publisher();
    let event = Event::parse(&EVENT).unwrap();
    let refuse = || {
        for _ in 0..1000 {
            let refused = publisher.publish(event);
            assert!(matches!(refused, Err(PublishError::EventTooLarge { .. })));
        }
    };
    assert_eq!(allocations(refuse), 0);
}

#[test]
fn reading_allocates_a_lease_and_uses_it_again() {
    let mut ring = Ring::new();
    for max_batch_bytes in [1, 1000, 1 << 20] {
        let subscriber = ring.engine.subscribe("gateway", "").unwrap();
        let mut subscriber = subscriber.max_batch_bytes(max_batch_bytes);
        let (mut reading, mut read) = (0, 0);
        for _ in 0..1000 {
            ring.publish(10);
            reading += allocations(|| {
                while let Ok(batch) = subscriber.try_recv() {
                    let bytes = batch.len() as u64 * FRAME_BYTES;
                    assert_eq!(batch.as_bytes().len() as u64, bytes);
                    read += batch.len();
                }
            });
        }
        assert_eq!((read, reading), (10_000, 1));
    }
}

#[test]
fn a_lease_that_a_batch_counts_on_is_not_used_again() {
    let mut ring = Ring::new();
    let mut subscriber = ring.engine.subscribe("gateway", "").unwrap();
    let before = ring.segments();
    let (mut reading, mut held) = (0, None);
    for _ in 0..1000 {
        ring.publish(10);
        reading += allocations(|| {
            while let Ok(batch) = subscriber.try_recv() {
                held = Some(batch);
            }
        });
    }
    drop(held);
    let segments = ring.segments() - before + 1;
    assert_eq!(reading, segments, "one in each segment");
}

#[test]
fn a_batch_that_becomes_bytes_allocates_once() {
    let mut ring = Ring::new();
    let mut subscriber = ring.engine.subscribe("gateway", "").unwrap();
    for events in [1, 10, 100] {
        ring.publish_batches(1, events);
        let batch = subscriber.try_recv().unwrap();
        let mut bytes = None;
        assert_eq!(allocations(|| bytes = Some(batch.into_bytes())), 1);
        let bytes = bytes.unwrap();
        let (mut copy, mut half) = (Bytes::new(), Bytes::new());
        let sharing =
            allocations(|| (copy, half) = (bytes.clone(), bytes.slice(..bytes.len() / 2)));
        assert_eq!(sharing, 0, "its copies and parts are the same memory");
        drop((copy, half));
    }
}

#[test]
fn waiting_and_waking_allocate_nothing() {
    let mut ring = Ring::new();
    let mut notifier = ring.engine.notifier();
    let mut subscriber = ring.engine.subscribe("gateway", "").unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let (_, allocations) = ring.count(|ring| {
        for _ in 0..1000 {
            assert!(poll(&mut subscriber, &waker).is_none());
            ring.publish(1);
            run(&mut notifier);
            assert!(woken.0.swap(false, Ordering::SeqCst));
            assert_eq!(poll(&mut subscriber, &waker), Some(1));
        }
    });
    assert_eq!(allocations, 1, "the lease");
}

#[test]
fn being_woken_by_the_engines_own_thread_allocates_nothing() {
    let mut ring = Ring::new();
    let mut subscriber = ring.engine.subscribe("gateway", "").unwrap();
    let woken = Arc::new(Woken(false.into(), Some(thread::current())));
    let waker = Waker::from(Arc::clone(&woken));
    // Starts the thread.
    assert!(poll(&mut subscriber, &waker).is_none());
    let (_, allocations) = ring.count(|ring| {
        for _ in 0..1000 {
            assert!(poll(&mut subscriber, &waker).is_none());
            ring.publish(1);
            while !woken.0.swap(false, Ordering::SeqCst) {
                thread::park();
            }
            assert_eq!(poll(&mut subscriber, &waker), Some(1));
        }
    });
    assert_eq!(allocations, 1, "the lease");
}

/// Notes that it was woken.
#[derive(Default)]
struct Woken(AtomicBool, Option<Thread>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
        if let Some(thread) = &self.1 {
            thread.unpark();
        }
    }
}

/// How many events the subscriber gets, unless it parks.
fn poll(subscriber: &mut Subscriber, waker: &Waker) -> Option<usize> {
    match subscriber.poll_recv(&mut Context::from_waker(waker)) {
        Poll::Ready(batch) => Some(batch.unwrap().len()),
        Poll::Pending => None,
    }
}

/// Polls the notifier as its task would be.
fn run(notifier: &mut Notifier) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(notifier).poll(&mut context).is_pending());
}

// --- the memory bound ---

/// An engine's own: empty maps and what is there once.
const ENGINE_BYTES: i64 = 32 << 10;
/// A segment's header and its place in the ring.
const SEGMENT_HEADER_BYTES: i64 = 128;
/// For each subscriber that is allowed, subscribed or not: two places to park.
const ALLOWED_SUBSCRIBER_BYTES: i64 = 88;
/// For each that is subscribed, with an id of up to 20 bytes (a longer one counts
/// besides): the subscriber itself, its entry in the map, and a lease for each of the
/// five segments that it can have under way.
const SUBSCRIBER_BYTES: i64 = 384;
const LEASE_BYTES: i64 = 24;
/// For each batch that was turned into `Bytes`, until these are dropped: its owner.
const BATCH_BYTES: i64 = 96;

#[test]
fn an_engine_and_its_subscribers_cost_what_is_stated() {
    let engine_for = |subscribers| {
        let before = live_bytes();
        let builder = Engine::builder().max_bytes(16 << 20);
        let engine = builder.max_subscribers(subscribers).build().unwrap();
        let ring_bytes = engine.stats().ring_bytes as i64;
        (live_bytes() - before - ring_bytes, engine)
    };
    let (for_one, engine) = engine_for(1);
    let segments = engine.limits().ring_bytes / engine.limits().segment_bytes;
    assert!(for_one <= ENGINE_BYTES + segments as i64 * SEGMENT_HEADER_BYTES);

    let many = 10_000;
    let (for_many, engine) = engine_for(many);
    let allowed = (for_many - for_one) / (many as i64 - 1);
    assert!(allowed <= ALLOWED_SUBSCRIBER_BYTES, "{allowed}");

    let ids: Vec<_> = (0..many).map(|n| format!("gateway-with-id-{n}")).collect();
    let mut subscribers = Vec::with_capacity(many);
    let before = live_bytes();
    for id in &ids {
        subscribers.push(engine.subscribe(id, "").unwrap());
    }
    let subscribed = (live_bytes() - before) / many as i64 + size_of::<Subscriber>() as i64;
    println!("an engine: {for_one} bytes, {allowed} and {subscribed} for each subscriber");
    assert!(
        subscribed + 5 * LEASE_BYTES <= SUBSCRIBER_BYTES,
        "{subscribed}"
    );
}

#[test]
fn leases_and_batches_cost_what_is_stated() {
    let mut ring = Ring::new();
    let mut subscriber = ring.engine.subscribe("gateway", "").unwrap();
    ring.publish(1);
    let before = live_bytes();
    let batch = subscriber.try_recv().unwrap();
    assert_eq!(live_bytes() - before, LEASE_BYTES);
    let before = live_bytes();
    let bytes = batch.into_bytes();
    let owner = live_bytes() - before;
    assert!(owner <= BATCH_BYTES, "{owner}");
    drop(bytes);
}

/// What an HTTP/2 stream holds of its batches before it takes no more.
const STREAM_BUFFER_BYTES: usize = 400 << 10;
const STALLED: usize = 16;

#[test]
fn stalled_subscribers_pin_what_is_counted_and_no_more() {
    // In batches of any size, and of one event each: then the owners weigh more.
    for max_batch_bytes in [256 << 10, 1] {
        // What the test itself needs comes first.
        let batches = STREAM_BUFFER_BYTES / FRAME_BYTES as usize + 2;
        let mut held: Vec<Vec<Bytes>> = (0..STALLED).map(|_| Vec::with_capacity(batches)).collect();
        let mut subscribers: Vec<Subscriber> = Vec::with_capacity(STALLED);
        // arc-swap keeps a node for each thread that has ever used it, and hands it on.
        drop(Ring::new().engine.subscribe("g", ""));
        let before = live_bytes();

        let builder = Engine::builder().max_bytes(16 << 20).max_event_bytes(1000);
        let mut ring = Ring::of(builder.max_subscribers(STALLED));
        let limits = ring.engine.limits();
        let lap = limits.ring_bytes / FRAME_BYTES;
        let segments = limits.ring_bytes / limits.segment_bytes;
        let fixed = ENGINE_BYTES
            + segments as i64 * SEGMENT_HEADER_BYTES
            + STALLED as i64 * ALLOWED_SUBSCRIBER_BYTES;
        let check = |engine: &Engine, subscribers: usize, held: &[Vec<Bytes>]| {
            let stats = engine.stats();
            assert!(stats.ring_bytes <= limits.ring_bytes);
            let rest = live_bytes() - before - (stats.ring_bytes + stats.pinned_bytes) as i64;
            let batches: usize = held.iter().map(Vec::len).sum();
            let pinned = stats.pinned_bytes / limits.segment_bytes;
            assert!(rest >= 0, "what is counted is there");
            let stated = fixed
                + pinned as i64 * SEGMENT_HEADER_BYTES
                + subscribers as i64 * SUBSCRIBER_BYTES
                + batches as i64 * BATCH_BYTES;
            assert!(
                rest <= stated,
                "{rest} bytes beside the ring, stated are {stated}"
            );
            pinned
        };

        for n in 0..STALLED {
            let subscriber = ring.engine.subscribe(&format!("gateway-{n}"), "").unwrap();
            let mut subscriber = subscriber.max_batch_bytes(max_batch_bytes);
            // Not from the start of a segment: so it pins as many as it can.
            ring.publish(5 * ring.frames_per_segment + ring.frames_per_segment / 2);
            let mut bytes = 0;
            while bytes < STREAM_BUFFER_BYTES {
                let batch = subscriber.try_recv().unwrap().into_bytes();
                bytes += batch.len();
                held[n].push(batch);
            }
            subscribers.push(subscriber);
            check(&ring.engine, n + 1, &held);
        }
        for _ in 0..3 {
            ring.publish(lap);
            let pinned = check(&ring.engine, STALLED, &held);
            assert!(pinned >= STALLED as u64, "the ring has moved on");
            assert!(pinned <= 4 * STALLED as u64, "{pinned} segments");
        }
        for subscriber in &mut subscribers {
            let lagged = subscriber.try_recv();
            assert!(matches!(lagged, Err(TryRecvError::Lagged(_))));
        }
        let mut pinned = check(&ring.engine, STALLED, &held);
        for held in &mut held {
            held.clear();
            let now = ring.engine.stats().pinned_bytes / limits.segment_bytes;
            assert!(now < pinned, "each had segments of its own");
            pinned = now;
        }
        assert_eq!(pinned, 0, "the leases went with the laps");
        subscribers.clear();
        check(&ring.engine, 0, &held);
        ring.publish(lap);
        check(&ring.engine, 0, &held);
        drop(ring);
        assert_eq!(live_bytes(), before, "nothing is left");
    }
}

// --- a gateway's sessions ---

/// An id as long as a UUID.
fn id(kind: char, number: usize) -> String {
    format!("{kind}{number:07}-4f0c-7d9a-b1e2-0123456789ab")
}

fn sessions(users: usize, of_each: usize) -> (Router, Feed, Vec<Session>) {
    let (router, mut feed) = Router::builder().max_sessions(users * of_each).build();
    feed.begin(Beginning::Lost);
    let mut opened = Vec::with_capacity(users * of_each);
    for number in 0..users * of_each {
        let ticket = router.begin_authentication();
        let session = router.open(ticket, &id('u', number / of_each), &id('s', number));
        opened.push(session.expect("nothing was revoked"));
    }
    (router, feed, opened)
}

/// The goal is 200 bytes beside the queue, which is a cache line of 64 bytes.
#[test]
fn a_session_takes_little() {
    const USERS: usize = 100_000;
    for (of_each, most) in [(1, 224), (10, 216)] {
        let before = live_bytes();
        let (router, feed, opened) = sessions(USERS / of_each, of_each);
        let handles = (opened.capacity() * size_of::<Session>()) as i64;
        let each = (live_bytes() - before - handles) as f64 / USERS as f64;
        drop((opened, feed));
        drop(router);
        assert_eq!(live_bytes(), before, "all of it is given back");
        println!("{of_each} sessions of a user: {each:.1} bytes each");
        assert!(each <= f64::from(most), "{of_each}: {each}");
    }
}

/// One event waits at a time, as it mostly is.
#[test]
fn routing_allocates_a_list_for_each_batch() {
    let (_router, mut feed, mut sessions) = sessions(256, 1);
    let event = |user: usize| -> Bytes {
        let user = id('u', user);
        let fields = [b"\x0a\x24", user.as_bytes(), b"\x1a\x01k"].concat();
        [b"\x0a\x29", &fields[..]].concat().into()
    };
    let events: Vec<_> = (0..256).map(event).collect();
    // The first clone of each makes its count.
    let _same = events.clone();
    for _ in 0..3 {
        assert_eq!(allocations(|| feed.deliver(&events).expect("events")), 1);
        for session in &mut sessions {
            assert_eq!(
                allocations(|| drop(session.try_recv().expect("its event"))),
                0
            );
        }
    }
}
