//! Scenarios whose instructions `scripts/count-instructions` counts: a time depends on
//! what else the machine does, a count does not.
//!
//! Run without it, each scenario runs once, and says how many operations that is.
//!
//! Not counted here: reading the system's clock (its short way around the system does
//! not exist under valgrind), what the system does for a call, and waiting for memory
//! or for other processors.

mod common;

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::process::ExitCode;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use galaxy_push::clock::ManualClock;
use galaxy_push::cursor::{Cursor, Epoch, Seq};
use galaxy_push::engine::{Engine, Subscriber, TryRecvError};
use galaxy_push::event::Event;
use galaxy_push::gateway::{Beginning, Feed, Router, Session};

use self::common::events;

/// Its name, how many operations it is, and what does so many.
type Scenario = (&'static str, u32, fn(u32));

const SCENARIOS: [Scenario; 16] = [
    ("publish-one", 10_000, publish_one),
    ("publish-event-of-100", 10_000, publish_event_of_100),
    ("publish-to-10-parked", 20, |count| {
        publish_to_parked(count, 10)
    }),
    ("publish-to-10000-parked", 20, |count| {
        publish_to_parked(count, 10_000)
    }),
    ("read-one", 1000, read_one),
    ("read-one-as-bytes", 1000, read_one_as_bytes),
    ("read-batch", 100, read_batch),
    ("read-nothing", 1000, read_nothing),
    ("park", 1000, park),
    ("resume", 1000, resume),
    ("leave", 1000, leave),
    ("cursor-print", 1000, cursor_print),
    ("cursor-parse", 1000, cursor_parse),
    ("validate", 1000, validate),
    ("route", 2560, route),
    ("guard-check", 1000, guard_check),
];

fn main() -> ExitCode {
    // `cargo bench` adds an option of its own.
    let mut named = std::env::args()
        .skip(1)
        .filter(|name| !name.starts_with('-'));
    let named = named.next();
    let mut found = false;
    for (name, operations, run) in SCENARIOS {
        if named.as_deref().is_none_or(|named| named == name) {
            run(operations);
            println!("{name} {operations}");
            found = true;
        }
    }
    if !found {
        eprintln!("instructions: there is no such scenario");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

/// Everything in here is counted, and nothing else: the script names this function to
/// valgrind.
#[inline(never)]
fn counted<T>(operation: impl FnOnce() -> T) -> T {
    black_box(operation())
}

/// A ring that has gone around several times.
fn engine() -> Engine {
    let engine = Engine::builder()
        .max_events(4096)
        .max_event_bytes(1024)
        .max_bytes(3 << 19)
        .clock(ManualClock::new())
        .build()
        .expect("these settings are valid");
    publish(&engine, 20_000);
    engine
}

fn publish(engine: &Engine, count: usize) {
    let publisher = engine.publisher();
    for event in events().iter().cycle().take(count) {
        publisher.publish(*event).expect("it is open");
    }
}

fn subscribe(engine: &Engine, cursor: &str) -> Subscriber {
    engine.subscribe("gateway", cursor).expect("there is room")
}

fn publish_one(operations: u32) {
    let publisher = engine().publisher();
    let events = events();
    counted(|| {
        for number in 0..operations {
            let event = events[number as usize % events.len()];
            publisher.publish(event).expect("it is open");
        }
    });
}

fn publish_event_of_100(operations: u32) {
    let publisher = engine().publisher();
    let batch: Vec<_> = events().iter().cycle().take(100).copied().collect();
    counted(|| {
        for _ in 0..operations / 100 {
            publisher.publish_batch(&batch).expect("it is open");
        }
    });
}

/// Everybody is parked each time, and the publisher schedules a notification.
fn publish_to_parked(operations: u32, subscribers: usize) {
    let engine = engine();
    let publisher = engine.publisher();
    let event = events()[0];
    let subscribe = |n| engine.subscribe(&format!("gateway-{n}"), "");
    let subscribed: Result<Vec<_>, _> = (0..subscribers).map(subscribe).collect();
    let mut subscribed = subscribed.expect("there is room");
    let mut notifier = pin!(engine.notifier());
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..operations {
        // It wakes so many at a time.
        for _ in 0..=subscribers / 128 {
            assert!(notifier.as_mut().poll(&mut context).is_pending());
        }
        for subscriber in &mut subscribed {
            while let Poll::Ready(received) = subscriber.poll_recv(&mut context) {
                drop(received.expect("it is open"));
            }
        }
        counted(|| publisher.publish(event)).expect("it is open");
    }
}

fn read_one(operations: u32) {
    let engine = engine();
    let mut subscriber = subscribe(&engine, "");
    for _ in 0..operations {
        publish(&engine, 1);
        counted(|| drop(subscriber.try_recv().expect("there is one")));
    }
}

/// As the edge reads it.
fn read_one_as_bytes(operations: u32) {
    let engine = engine();
    let mut subscriber = subscribe(&engine, "");
    for _ in 0..operations {
        publish(&engine, 1);
        counted(|| drop(subscriber.try_recv().expect("there is one").into_bytes()));
    }
}

/// The rest of the ring's segment, or what there is in the next one, after each 50
/// events.
fn read_batch(operations: u32) {
    let engine = engine();
    let mut subscriber = subscribe(&engine, "");
    for _ in 0..operations {
        publish(&engine, 50);
        counted(|| drop(subscriber.try_recv().expect("there are some")));
    }
}

fn read_nothing(operations: u32) {
    let engine = engine();
    let mut subscriber = subscribe(&engine, "");
    counted(|| {
        for _ in 0..operations {
            let received = subscriber.try_recv();
            assert_eq!(received.unwrap_err(), TryRecvError::Empty);
        }
    });
}

fn park(operations: u32) {
    let engine = engine();
    let mut subscriber = subscribe(&engine, "");
    let mut notifier = pin!(engine.notifier());
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..operations {
        publish(&engine, 1);
        assert!(notifier.as_mut().poll(&mut context).is_pending());
        drop(subscriber.try_recv().expect("there is one"));
        assert!(counted(|| subscriber.poll_recv(&mut context)).is_pending());
    }
}

/// Cursors all over the ring.
fn old_cursors(engine: &Engine, count: u32) -> impl Iterator<Item = String> {
    let head = engine.head();
    (0..u64::from(count)).map(move |n| {
        let back = 1 + n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 4000;
        Cursor::new(head.epoch(), Seq::new(head.seq().number() - back)).to_string()
    })
}

fn resume(operations: u32) {
    let engine = engine();
    for cursor in old_cursors(&engine, operations) {
        drop(counted(|| subscribe(&engine, &cursor)));
    }
}

fn leave(operations: u32) {
    let engine = engine();
    for cursor in old_cursors(&engine, operations) {
        let subscriber = subscribe(&engine, &cursor);
        counted(|| drop(subscriber));
    }
}

fn cursor_print(operations: u32) {
    let cursor = some_cursor();
    counted(|| {
        for _ in 0..operations {
            black_box(black_box(cursor).to_text());
        }
    });
}

fn cursor_parse(operations: u32) {
    let text = some_cursor().to_text();
    counted(|| {
        for _ in 0..operations {
            black_box(Cursor::parse(black_box(text.as_bytes()))).expect("it is one");
        }
    });
}

fn some_cursor() -> Cursor {
    let epoch = Epoch::new(1_700_000_000_000, 0x2_AAAA).expect("it fits");
    Cursor::new(epoch, Seq::new(0x0023_4567_89AB_CDEF))
}

fn validate(operations: u32) {
    let event = events()[0].as_bytes();
    counted(|| {
        for _ in 0..operations {
            black_box(Event::parse(black_box(event))).expect("a valid event");
        }
    });
}

/// A gateway's router, with a session for each of so many users.
fn sessions(users: u32) -> (Feed, Vec<Session>) {
    let (router, mut feed) = Router::builder().clock(ManualClock::new()).build();
    feed.begin(Beginning::Lost);
    let open = |user: u32| {
        let ticket = router.begin_authentication();
        let opened = router.open(ticket, &format!("user-{user:07}"), "session");
        opened.expect("nothing was revoked")
    };
    (feed, (0..users).map(open).collect())
}

/// One event for each user, 256 together.
fn route(operations: u32) {
    let (mut feed, _sessions) = sessions(operations);
    let event = |user: u32| -> Bytes {
        let id = format!("user-{user:07}");
        let fields = [
            b"\x0a\x0c",
            id.as_bytes(),
            b"\x1a\x01k\x22\x64",
            &[b'x'; 100],
        ]
        .concat();
        let event = [
            b"\x0a\x77",
            &fields[..],
            b"\x1a\x18001111111111-00000000001",
        ];
        event.concat().into()
    };
    let events: Vec<Bytes> = (0..operations).map(event).collect();
    // The first clone of each makes its count.
    let _same = events.clone();
    counted(|| {
        for together in events.chunks(256) {
            feed.deliver(together).expect("they are events");
        }
    });
}

fn guard_check(operations: u32) {
    let (_feed, sessions) = sessions(1);
    let guard = sessions[0].enter().expect("it is not revoked");
    counted(|| {
        for _ in 0..operations {
            guard.check().expect("it is not revoked");
        }
    });
}
