//! What the engine promises, one behaviour a test; `model` holds it against a
//! plain queue, `threads` is what takes more than one of them.

mod appender;
mod model;
mod replay;
mod threads;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::cursor::{Cursor, Epoch, Seq};
use crate::event::Event;

/// The encoding of `PushEvent { client_event: { user_id: "u", kind: "k", payload } }`
/// with a payload of `size` bytes that spell `number`.
pub(super) fn encoded(number: u64, size: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().repeat(size / 8 + 1);
    payload.truncate(size);
    let varint = |mut n: usize| {
        let mut bytes = Vec::new();
        while n >= 0x80 {
            bytes.push(n as u8 | 0x80);
            n >>= 7;
        }
        bytes.push(n as u8);
        bytes
    };
    let mut client_event = b"\x0a\x01u\x1a\x01k\x22".to_vec();
    client_event.extend(varint(payload.len()));
    client_event.extend(&payload);
    let mut event = vec![0x0a];
    event.extend(varint(client_event.len()));
    event.extend(client_event);
    event
}

/// Publishes one event and returns its number in the sequence.
fn publish(engine: &Engine, size: usize) -> u64 {
    let bytes = encoded(0, size);
    let event = Event::parse(&bytes).unwrap();
    engine.publisher().publish(event).unwrap().seq().number()
}

fn epoch() -> Epoch {
    Epoch::new(1_700_000_000_000, 0).unwrap()
}

/// How often a test does something: less in Miri, which is slow.
const fn rounds(natively: usize, in_miri: usize) -> usize {
    if cfg!(miri) { in_miri } else { natively }
}

fn small() -> Builder {
    Engine::builder()
        .epoch(epoch())
        .max_events(rounds(1 << 20, 60) as u64)
        .max_bytes(rounds(1 << 20, 1 << 18) as u64)
        .max_event_bytes(4096)
        .max_subscribers(4)
}

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn poll(subscriber: &mut Subscriber, wakes: &Arc<Wakes>) -> Poll<Result<Batch, RecvError>> {
    let waker = Waker::from(Arc::clone(wakes));
    subscriber.poll_recv(&mut Context::from_waker(&waker))
}

/// Polls the notifier as its own task would.
fn run_notifier(notifier: &mut Notifier) {
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut before = usize::MAX;
    while wakes.count() != before {
        before = wakes.count();
        let _ = std::pin::Pin::new(&mut *notifier).poll(&mut Context::from_waker(&waker));
    }
}

#[test]
fn a_batch_is_the_publishers_bytes_framed_with_the_cursor() {
    let engine = small().build().unwrap();
    let mut subscriber = engine.subscribe("g", "").unwrap();
    let bytes = encoded(7, 10);
    let cursor = engine
        .publisher()
        .publish(Event::parse(&bytes).unwrap())
        .unwrap();
    let batch = subscriber.try_recv().unwrap();
    let expected = [
        &[0, 0, 0, 0, (bytes.len() + 26) as u8],
        &bytes[..],
        b"\x1a\x18",
        cursor.to_string().as_bytes(),
    ]
    .concat();
    assert_eq!(batch.as_bytes(), expected);
    assert_eq!(batch.events().collect::<Vec<_>>(), [&expected[5..]]);
    assert_eq!(batch.into_bytes(), expected);
}

#[test]
fn cursors_are_dense_from_one() {
    let engine = small().build().unwrap();
    assert_eq!(engine.head(), Cursor::new(epoch(), Seq::ZERO));
    assert_eq!(
        (1..=5).map(|_| publish(&engine, 1)).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5]
    );
    assert_eq!(engine.head(), Cursor::new(epoch(), Seq::new(5)));
}

#[test]
fn a_claim_that_is_not_committed_is_seen_until_the_head_passes_it() {
    let engine = small().build().unwrap();
    assert_eq!(engine.unfinished_after(), None);
    publish(&engine, 9);
    assert_eq!(engine.unfinished_after(), None);
    let bytes = encoded(0, 9);
    engine.claim_and_stop(Event::parse(&bytes).unwrap());
    assert_eq!(engine.unfinished_after(), Some(engine.head()));
    publish(&engine, 9);
    assert_eq!(engine.head().seq().number(), 1, "the third hides behind it");
    assert_eq!(engine.unfinished_after(), Some(engine.head()));
    engine.close();
    assert_eq!(engine.unfinished_after(), Some(engine.head()));
}

#[test]
fn a_batch_of_many_segments_is_contiguous() {
    let engine = small().build().unwrap();
    let mut subscriber = engine.subscribe("g", "").unwrap();
    const EVENTS: u64 = rounds(100, 40) as u64;
    let encoded: Vec<_> = (0..EVENTS).map(|n| encoded(n, 1500)).collect();
    let events: Vec<_> = encoded.iter().map(|e| Event::parse(e).unwrap()).collect();
    publish(&engine, 1);
    let published = engine.publisher().publish_batch(&events).unwrap();
    assert_eq!(published.first.seq(), Seq::new(2));
    assert_eq!(published.last.seq(), Seq::new(EVENTS + 1));
    assert_eq!(subscriber.try_recv().unwrap().first().seq(), Seq::new(1));
    let mut next = subscriber.position().seq().number() + 1;
    while next <= EVENTS + 1 {
        let batch = subscriber.try_recv().unwrap();
        assert_eq!(batch.first().seq(), Seq::new(next));
        next = batch.last().seq().number() + 1;
    }
    assert_eq!(subscriber.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[test]
fn a_refused_batch_leaves_no_trace() {
    let engine = small().build().unwrap();
    let mut subscriber = engine.subscribe("g", "").unwrap();
    let (good, bad) = (encoded(0, 1), encoded(0, 5000));
    let events = [&good, &bad].map(|e| Event::parse(e).unwrap());
    let publisher = engine.publisher();
    assert_eq!(
        publisher.publish_batch(&events),
        Err(PublishError::EventTooLarge {
            index: 1,
            bytes: bad.len(),
            limit: 4096
        })
    );
    assert_eq!(publisher.publish_batch(&[]), Err(PublishError::NoEvents));
    let limits = engine.limits();
    let many = vec![events[0]; limits.max_batch_events + 1];
    assert!(matches!(
        publisher.publish_batch(&many),
        Err(PublishError::TooManyEvents { .. } | PublishError::BatchTooLarge { .. })
    ));
    assert_eq!(subscriber.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(publish(&engine, 1), 1, "no sequence was used up");
}

#[test]
fn the_largest_batch_fits_a_ring_that_is_in_use() {
    let engine = small().build().unwrap();
    let limits = engine.limits();
    // Frames of just over half a segment waste the most.
    let size = limits.segment_bytes as usize / 2 - 31 - 14;
    let engine = small().max_event_bytes(size + 14).build().unwrap();
    let limits = engine.limits();
    let event = encoded(0, size);
    let frame = event.len() as u64 + 31;
    let count = (limits.max_batch_bytes / frame) as usize;
    let events = vec![Event::parse(&event).unwrap(); count];
    for _ in 0..rounds(50, 3) {
        publish(&engine, 1);
        engine.publisher().publish_batch(&events).unwrap();
    }
}

#[test]
fn a_lagging_subscriber_learns_the_exact_count_and_goes_on() {
    let engine = small().max_events(10).build().unwrap();
    let mut subscriber = engine.subscribe("g", "").unwrap();
    for _ in 0..25 {
        publish(&engine, 1);
    }
    assert_eq!(subscriber.lag(), 25);
    assert_eq!(subscriber.try_recv().unwrap_err(), TryRecvError::Lagged(15));
    let batch = subscriber.try_recv().unwrap();
    assert_eq!((batch.first().seq().number(), batch.len()), (16, 10));
}

#[test]
fn the_resume_table() {
    let clock = ManualClock::new();
    let engine = small()
        .max_events(10)
        .window(Duration::from_secs(60))
        .clock(clock.clone())
        .build()
        .unwrap();
    let cursor = |seq| Cursor::new(epoch(), Seq::new(seq)).to_string();
    let start = |text: &str| {
        let start = engine.subscribe("g", text).unwrap().start();
        (start.resume, start.cursor.seq().number())
    };
    assert_eq!(start(""), (Resume::NoCursor, 0));
    assert_eq!(
        start(&cursor(0)),
        (Resume::Resumed, 0),
        "an empty ring's head"
    );
    for _ in 0..10 {
        publish(&engine, 1);
    }
    assert_eq!(start(&cursor(0)), (Resume::Resumed, 0), "nothing is lost");
    assert_eq!(start(&cursor(4)), (Resume::Resumed, 4));
    assert_eq!(start(&cursor(10)), (Resume::Resumed, 10));
    assert_eq!(start(""), (Resume::NoCursor, 10));
    assert_eq!(start(&cursor(11)), (Resume::Ahead, 10));
    assert_eq!(start("nonsense"), (Resume::Malformed, 10));
    for (other, is_later) in [
        (Epoch::new(5, 0), false),
        (Epoch::from_number(epoch().number() - 1), false),
        (Epoch::from_number(epoch().number() + 1), true),
        (Some(Epoch::MAX), true),
    ] {
        let other = Cursor::new(other.unwrap(), Seq::new(4)).to_string();
        assert_eq!(start(&other), (Resume::OtherEpoch { is_later }, 10));
    }
    publish(&engine, 1);
    assert_eq!(start(&cursor(0)), (Resume::Expired { missed: 11 }, 11));
    assert_eq!(start(&cursor(1)), (Resume::Resumed, 1));

    clock.advance(Duration::from_secs(30));
    publish(&engine, 1);
    clock.advance(Duration::from_secs(30));
    assert_eq!(
        start(&cursor(2)),
        (Resume::Resumed, 2),
        "60 s old is inside"
    );
    clock.advance(Duration::from_millis(1));
    assert_eq!(start(&cursor(2)), (Resume::Expired { missed: 10 }, 12));
    assert_eq!(
        start(&cursor(11)),
        (Resume::Resumed, 11),
        "its next is younger"
    );
    assert_eq!(
        start(&cursor(12)),
        (Resume::Resumed, 12),
        "the head never expires"
    );
    clock.set(Duration::ZERO);
    assert_eq!(
        start(&cursor(2)),
        (Resume::Expired { missed: 10 }, 12),
        "a clock that goes back makes nothing young again"
    );
}

#[test]
fn taking_over_ends_the_older_subscription_at_once() {
    let engine = small().build().unwrap();
    let mut older = engine.subscribe("g", "").unwrap();
    publish(&engine, 1);
    let newer = engine.subscribe("g", "").unwrap();
    assert_eq!(older.try_recv().unwrap_err(), TryRecvError::TakenOver);
    assert_eq!(engine.stats().subscribers, 1);
    drop(older);
    assert_eq!(engine.stats().subscribers, 1, "the id is the newer one's");
    drop(newer);
    assert_eq!(engine.stats().subscribers, 0);
}

#[test]
fn an_ended_subscription_receives_nothing_more_and_its_id_is_free() {
    let engine = small().build().unwrap();
    let wakes = Arc::new(Wakes::default());
    let mut subscriber = engine.subscribe("g", "").unwrap();
    let ender = subscriber.ender();
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    assert!(subscriber.poll_recv(&mut cx).is_pending());
    assert!(ender.end());
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1, "it is told at once");
    publish(&engine, 1);
    let ended = Poll::Ready(RecvError::TakenOver);
    assert_eq!(subscriber.poll_recv(&mut cx).map(Result::unwrap_err), ended);
    assert_eq!(engine.stats().subscribers, 0);
    assert!(!ender.end(), "once");

    // Neither the end of an older subscription nor its drop touches a newer one's.
    let mut newer = engine.subscribe("g", "").unwrap();
    assert!(!ender.end());
    drop(subscriber);
    publish(&engine, 2);
    assert_eq!(newer.try_recv().unwrap().len(), 1);
    let ender = newer.ender();
    drop(newer);
    assert!(!ender.end(), "nobody is left");
}

#[test]
fn a_clock_that_panics_leaves_no_subscription_behind() {
    #[derive(Default)]
    struct Broken(std::sync::atomic::AtomicBool);
    impl crate::clock::Clock for Arc<Broken> {
        fn now(&self) -> Duration {
            if self.0.load(Ordering::SeqCst) {
                // A panic, but one that nobody prints.
                std::panic::resume_unwind(Box::new("the clock is broken"));
            }
            Duration::ZERO
        }
    }
    let clock = Arc::new(Broken::default());
    let engine = small().clock(Arc::clone(&clock)).build().unwrap();
    let start = engine.head().to_string();
    publish(&engine, 1);
    clock.0.store(true, Ordering::SeqCst);
    let subscribe = || engine.subscribe("g", &start).map(drop);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(subscribe));
    assert!(panicked.is_err());
    assert_eq!(engine.stats().subscribers, 0);
}

/// A waker that panics.
fn bomb() -> Waker {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {
            // A panic, but one that nobody prints.
            std::panic::resume_unwind(Box::new("a stranger's waker"));
        }
    }
    Waker::from(Arc::new(Bomb))
}

#[test]
fn a_waker_that_panics_at_a_takeover_leaves_no_subscription_behind() {
    let engine = small().build().unwrap();
    let mut older = engine.subscribe("g", "").unwrap();
    assert!(
        older
            .poll_recv(&mut Context::from_waker(&bomb()))
            .is_pending()
    );
    let subscribe = || engine.subscribe("g", "").map(drop);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(subscribe));
    assert!(panicked.is_err());
    assert_eq!(engine.stats().subscribers, 0);
    assert_eq!(older.try_recv().unwrap_err(), TryRecvError::TakenOver);
}

#[test]
fn wakers_that_panic_do_not_stop_a_notifier() {
    let engine = small().build().unwrap();
    let mut notifier = engine.notifier();
    let bombs = [(); 2].map(|()| bomb());
    let mut subscribers = [0, 1, 2].map(|n| engine.subscribe(&n.to_string(), "").unwrap());
    let wakes = Arc::new(Wakes::default());
    for end in [false, true] {
        wakes.0.store(0, Ordering::SeqCst);
        let [a, b, good] = &mut subscribers;
        for (subscriber, bomb) in [a, b].into_iter().zip(&bombs) {
            while subscriber
                .poll_recv(&mut Context::from_waker(bomb))
                .is_ready()
            {}
        }
        while poll(good, &wakes).is_ready() {}
        publish(&engine, 1);
        if end {
            break;
        }
        run_notifier(&mut notifier);
        assert_eq!(wakes.count(), 1);
    }
    drop(notifier);
    assert_eq!(wakes.count(), 1, "whoever was left to it is woken");
}

#[test]
fn a_notifiers_own_waker_that_panics_keeps_nobody_asleep() {
    let engine = small().build().unwrap();
    let mut notifier = engine.notifier();
    let mut subscriber = engine.subscribe("g", "").unwrap();
    for _ in 0..2 {
        let pinned = std::pin::Pin::new(&mut notifier);
        assert!(pinned.poll(&mut Context::from_waker(&bomb())).is_pending());
        let wakes = Arc::new(Wakes::default());
        while poll(&mut subscriber, &wakes).is_ready() {}
        publish(&engine, 1);
        assert_eq!(wakes.count(), 1);
    }
}

#[test]
#[cfg_attr(miri, ignore = "too large for an interpreter")]
fn what_is_shown_of_an_engine_is_short() {
    let engine = Engine::builder().build().unwrap();
    let subscriber = engine.subscribe("g", "").unwrap();
    for shown in [format!("{engine:?}"), format!("{subscriber:?}")] {
        assert!(shown.len() < 1000, "{} bytes", shown.len());
    }
}

#[test]
fn a_full_map_lets_a_gateway_reconnect_and_nobody_else_in() {
    let engine = small().max_subscribers(2).build().unwrap();
    let _a = engine.subscribe("a", "").unwrap();
    let b = engine.subscribe("b", "").unwrap();
    let full = SubscribeError::TooManySubscribers { limit: 2 };
    assert_eq!(engine.subscribe("c", "").unwrap_err(), full);
    let _a2 = engine.subscribe("a", "").unwrap();
    assert_eq!(engine.subscribe("c", "").unwrap_err(), full);
    drop(b);
    assert!(engine.subscribe("c", "").is_ok());
}

#[test]
fn the_most_subscribers_can_be_changed_within_what_the_engine_was_built_for() {
    let engine = small().max_subscribers(2).build().unwrap();
    let a = engine.subscribe("a", "").unwrap();
    let _b = engine.subscribe("b", "").unwrap();
    assert_eq!(engine.set_max_subscribers(1), 1);
    assert_eq!(engine.limits().max_subscribers, 1);
    // Who is there stays, and may come back.
    let a2 = engine.subscribe("a", "").unwrap();
    drop(a);
    drop(a2);
    let full = SubscribeError::TooManySubscribers { limit: 1 };
    assert_eq!(engine.subscribe("c", "").unwrap_err(), full);
    assert_eq!(engine.set_max_subscribers(100), 2);
    let _c = engine.subscribe("c", "").unwrap();
    assert_eq!(engine.set_max_subscribers(0), 1);
}

#[test]
fn refused_subscriptions_use_nothing_up() {
    let engine = small().max_subscribers(1).build().unwrap();
    let _a = engine.subscribe("a", "").unwrap();
    for _ in 0..rounds(1000, 80) {
        engine.subscribe("b", "").unwrap_err();
    }
    assert!(engine.subscribe("a", "").is_ok());
}

#[test]
fn closing_lets_subscribers_drain_and_refuses_publishers() {
    let engine = small().build().unwrap();
    let mut subscriber = engine.subscribe("g", "").unwrap();
    let bytes = encoded(0, 1);
    let event = Event::parse(&bytes).unwrap();
    engine.publisher().publish(event).unwrap();
    engine.close();
    assert_eq!(engine.publisher().publish(event), Err(PublishError::Closed));
    assert_eq!(
        engine.subscribe("h", "").unwrap_err(),
        SubscribeError::Closed
    );
    assert_eq!(subscriber.try_recv().unwrap().len(), 1);
    assert_eq!(subscriber.try_recv().unwrap_err(), TryRecvError::Closed);
}

#[test]
fn aborting_ends_subscribers_at_once() {
    let engine = small().build().unwrap();
    let mut subscriber = engine.subscribe("g", "").unwrap();
    publish(&engine, 1);
    engine.abort();
    assert_eq!(subscriber.try_recv().unwrap_err(), TryRecvError::Closed);
}

#[test]
fn whatever_a_parked_subscriber_waits_for_wakes_it() {
    let cases: [fn(&Engine); 4] = [
        |engine| _ = publish(engine, 1),
        |engine| drop(engine.subscribe("g", "").unwrap()),
        Engine::close,
        Engine::abort,
    ];
    for happen in cases {
        let engine = small().build().unwrap();
        let mut notifier = engine.notifier();
        let mut subscriber = engine.subscribe("g", "").unwrap();
        let wakes = Arc::new(Wakes::default());
        assert!(poll(&mut subscriber, &wakes).is_pending());
        run_notifier(&mut notifier);
        assert_eq!(wakes.count(), 0, "nothing has happened");
        happen(&engine);
        run_notifier(&mut notifier);
        assert_eq!(wakes.count(), 1);
        assert!(poll(&mut subscriber, &wakes).is_ready());
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn every_one_of_many_parked_subscribers_is_woken() {
    let many = 10_000;
    let engine = small().max_subscribers(many).build().unwrap();
    let mut notifier = engine.notifier();
    let mut subscribers: Vec<_> = (0..many)
        .map(|n| {
            (
                engine.subscribe(&n.to_string(), "").unwrap(),
                Arc::new(Wakes::default()),
            )
        })
        .collect();
    for _ in 0..3 {
        for (subscriber, wakes) in &mut subscribers {
            wakes.0.store(0, Ordering::SeqCst);
            assert!(poll(subscriber, wakes).is_pending());
        }
        publish(&engine, 1);
        run_notifier(&mut notifier);
        for (subscriber, wakes) in &mut subscribers {
            assert_eq!(wakes.count(), 1);
            assert!(poll(subscriber, wakes).is_ready());
        }
    }
}

#[test]
fn what_is_published_in_the_middle_of_a_round_of_waking_wakes_too() {
    // More than the notifier wakes in one turn.
    let many = 300;
    let engine = small().max_subscribers(many).build().unwrap();
    let mut notifier = engine.notifier();
    let wakes: Vec<_> = (0..many).map(|_| Arc::new(Wakes::default())).collect();
    let mut subscribers: Vec<_> = (0..many)
        .map(|n| engine.subscribe(&n.to_string(), "").unwrap())
        .collect();
    for (subscriber, wakes) in subscribers.iter_mut().zip(&wakes) {
        assert!(poll(subscriber, wakes).is_pending());
    }
    publish(&engine, 1);
    let notifier_wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&notifier_wakes));
    let mut context = Context::from_waker(&waker);
    assert!(
        std::pin::Pin::new(&mut notifier)
            .poll(&mut context)
            .is_pending()
    );
    // Those that were woken receive, and park again before the next event.
    let woken_first: Vec<_> = wakes.iter().map(|wakes| wakes.count()).collect();
    for ((subscriber, wakes), woken) in subscribers.iter_mut().zip(&wakes).zip(&woken_first) {
        if *woken == 1 {
            assert!(poll(subscriber, wakes).is_ready());
            assert!(poll(subscriber, wakes).is_pending());
        }
    }
    assert!(woken_first.contains(&0) && woken_first.contains(&1));
    publish(&engine, 1);
    // A runtime polls again for as long as it was woken since the last time.
    let mut seen = 0;
    while notifier_wakes.count() != seen {
        seen = notifier_wakes.count();
        assert!(
            std::pin::Pin::new(&mut notifier)
                .poll(&mut context)
                .is_pending()
        );
    }
    for (wakes, woken) in wakes.iter().zip(woken_first) {
        assert_eq!(wakes.count(), woken + 1, "asleep beside an event");
    }
}

#[test]
fn between_two_rounds_nobody_is_woken_and_nobody_is_forgotten() {
    // More than the notifier wakes in one turn.
    let many = 300;
    let engine = small().max_subscribers(many).build().unwrap();
    let mut notifier = engine.notifier();
    let wakes = Arc::new(Wakes::default());
    let mut subscribers: Vec<_> = (0..many)
        .map(|n| engine.subscribe(&n.to_string(), "").unwrap())
        .collect();
    let mut context = Context::from_waker(Waker::noop());
    let mut round = |notifier: &mut Notifier| {
        let mut turns = 1;
        while notifier.poll_round(&mut context).is_pending() {
            turns += 1;
            assert!(turns < 10, "it waits for nothing");
            assert!(notifier.is_waking());
        }
        assert!(!notifier.is_waking());
        turns
    };
    for n in 1..=3 {
        for subscriber in &mut subscribers {
            while poll(subscriber, &wakes).is_ready() {}
        }
        publish(&engine, 1);
        publish(&engine, 1);
        assert_eq!(wakes.count(), (n - 1) * many, "a round has to be asked for");
        assert!(round(&mut notifier) > 1);
        assert_eq!(wakes.count(), n * many);
    }
    let mut context = Context::from_waker(Waker::noop());
    assert!(notifier.poll_round(&mut context).is_pending());
    drop(engine);
    drop(subscribers);
    assert_eq!(notifier.poll_round(&mut context), Poll::Ready(false));
}

#[test]
fn a_second_notifier_ends_at_once_and_the_first_goes_on() {
    let engine = small().build().unwrap();
    let mut first = engine.notifier();
    let mut second = engine.notifier();
    let mut context = Context::from_waker(Waker::noop());
    assert!(
        std::pin::Pin::new(&mut second)
            .poll(&mut context)
            .is_ready()
    );
    drop(second);
    let mut subscriber = engine.subscribe("g", "").unwrap();
    let wakes = Arc::new(Wakes::default());
    assert!(poll(&mut subscriber, &wakes).is_pending());
    publish(&engine, 1);
    assert_eq!(wakes.count(), 0, "the engine's own thread is not used");
    run_notifier(&mut first);
    assert_eq!(wakes.count(), 1);
}

#[test]
fn a_notifier_ends_with_its_engine() {
    let engine = small().build().unwrap();
    let mut notifier = engine.notifier();
    let mut context = Context::from_waker(Waker::noop());
    assert!(
        std::pin::Pin::new(&mut notifier)
            .poll(&mut context)
            .is_pending()
    );
    drop(engine);
    assert!(
        std::pin::Pin::new(&mut notifier)
            .poll(&mut context)
            .is_ready()
    );
}

#[test]
fn what_a_batch_holds_is_counted_until_it_is_dropped() {
    let bytes = rounds(1 << 20, 1 << 17) as u64;
    let engine = small().max_events(10).max_bytes(bytes).build().unwrap();
    let mut subscriber = engine.subscribe("g", "").unwrap();
    publish(&engine, 4000);
    let batch = subscriber.try_recv().unwrap();
    let before = batch.as_bytes().to_vec();
    drop(subscriber);
    while engine.stats().pinned_bytes == 0 {
        publish(&engine, 4000);
    }
    assert_eq!(engine.stats().pinned_bytes, engine.limits().segment_bytes);
    assert!(engine.stats().ring_bytes <= bytes);
    assert_eq!(batch.as_bytes(), before, "it is untouched");
    drop(batch);
    assert_eq!(engine.stats().pinned_bytes, 0);
}

#[test]
fn the_last_sequence_is_used_and_none_after_it() {
    let origin = Seq::new(Seq::MAX.number() - 30);
    let engine = small().max_events(10).origin(origin).build().unwrap();
    let mut subscriber = engine.subscribe("g", "").unwrap();
    for _ in 0..28 {
        publish(&engine, 1);
    }
    let bytes = encoded(0, 1);
    let event = Event::parse(&bytes).unwrap();
    let publisher = engine.publisher();
    let refused = publisher.publish_batch(&[event; 3]).unwrap_err();
    assert_eq!(refused, PublishError::Exhausted, "two are left");
    let last = publisher.publish_batch(&[event; 2]).unwrap().last;
    assert_eq!((last.seq(), engine.head()), (Seq::MAX, last));
    for _ in 0..3 {
        assert_eq!(publisher.publish(event), Err(PublishError::Exhausted));
    }
    assert_eq!(subscriber.try_recv().unwrap_err(), TryRecvError::Lagged(20));
    let batch = subscriber.try_recv().unwrap();
    assert_eq!((batch.len(), batch.last()), (10, last));
    assert!(batch.as_bytes().ends_with(last.to_string().as_bytes()));
    assert_eq!(engine.stats().retained_events, 10);
    assert_eq!(subscriber.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!((subscriber.lag(), subscriber.position()), (0, last));

    let resumed = engine.subscribe("g", &last.to_string()).unwrap();
    assert_eq!(resumed.start().resume, Resume::Resumed);
    engine.close();
    assert_eq!(publisher.publish(event), Err(PublishError::Closed));
}

#[test]
fn an_engine_that_begins_at_the_last_sequence_has_none_to_give() {
    let engine = small().origin(Seq::MAX).build().unwrap();
    assert_eq!(engine.head(), Cursor::new(epoch(), Seq::MAX));
    let bytes = encoded(0, 1);
    let event = Event::parse(&bytes).unwrap();
    let refused = engine.publisher().publish(event);
    assert_eq!(refused, Err(PublishError::Exhausted));
    let mut subscriber = engine.subscribe("g", "").unwrap();
    assert_eq!(subscriber.try_recv().unwrap_err(), TryRecvError::Empty);
    engine.close();
    assert_eq!(subscriber.try_recv().unwrap_err(), TryRecvError::Closed);
}
