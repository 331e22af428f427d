//! What the gateway's router costs, beside a `DashMap` of `tokio::sync::broadcast` senders, which is what
//! gateways are usually built of. Every event is for one of 1,000,000 users with one session
//! each, so nearly nothing that belongs to a user is in the processor's caches.
//!
//! What is timed: an encoded event is read, its session found, and the event put into the
//! session's queue. What is not: taking it out again, and what happens after a wake-up.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dashmap::DashMap;
use galaxy_push::event::{Received, ReceivedKind};
use galaxy_push::gateway::{Beginning, Feed, Overflow, Router, Session};
use tokio::sync::broadcast;

const USERS: usize = 1_000_000;
/// Between two rounds the queues are emptied.
const EVENTS: usize = 1 << 17;
/// As many as a read from a busy stream brings.
const TOGETHER: usize = 256;
const QUEUE_EVENTS: usize = 16;
/// As `benches/engine.rs` has them, with the cursor.
const PAYLOAD_BYTES: usize = 150;
const READ_BYTES: usize = 64 << 10;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An id as long as a UUID.
fn id(kind: char, number: usize) -> String {
    format!("{kind}{number:07}-4f0c-7d9a-b1e2-0123456789ab")
}

/// `PushEvent { client_event { user_id, device_session_id, kind, payload }, cursor }`
fn client_event(user: &str, session: &str, seq: usize) -> Vec<u8> {
    let mut fields = Vec::new();
    for (number, value) in [
        (1, user.as_bytes()),
        (2, session.as_bytes()),
        (3, b"turn.ready"),
        (4, &[b'x'; PAYLOAD_BYTES]),
    ] {
        if !value.is_empty() {
            field(&mut fields, number, value);
        }
    }
    push_event(1, &fields, seq)
}

fn invalidation(user: &str, seq: usize) -> Bytes {
    let mut fields = Vec::new();
    field(&mut fields, 2, user.as_bytes());
    field(&mut fields, 3, b"banned");
    push_event(2, &fields, seq).into()
}

fn push_event(kind: u8, fields: &[u8], seq: usize) -> Vec<u8> {
    let mut event = Vec::new();
    field(&mut event, kind, fields);
    // The digits 0 to 9 mean the same in the cursor's base.
    field(&mut event, 3, format!("1A2B3C4D5E6F-{seq:011}").as_bytes());
    event
}

fn field(into: &mut Vec<u8>, number: u8, value: &[u8]) {
    into.push(number << 3 | 2);
    let mut length = value.len();
    while length >= 0x80 {
        into.push(length as u8 | 0x80);
        length >>= 7;
    }
    into.push(length as u8);
    into.extend_from_slice(value);
}

/// Events for users that are drawn from so many, in the buffers of their reads; and the users.
fn events(users: usize) -> (Vec<Bytes>, Vec<usize>) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % users
    };
    let drawn: Vec<usize> = (0..EVENTS).map(|_| draw()).collect();
    let mut events = Vec::with_capacity(EVENTS);
    let mut read = BytesMut::with_capacity(READ_BYTES);
    for (seq, user) in drawn.iter().enumerate() {
        let event = client_event(&id('u', *user), "", seq);
        if read.capacity() < event.len() {
            read = BytesMut::with_capacity(READ_BYTES);
        }
        read.extend_from_slice(&event);
        events.push(read.split().freeze());
    }
    (events, drawn)
}

/// A router and `users` sessions.
fn router(users: usize, sessions: usize) -> (Router, Feed, Vec<Session>) {
    let (router, mut feed) = Router::builder()
        .max_sessions(users * sessions + 1)
        .queue_events(QUEUE_EVENTS)
        .overflow(Overflow::DropOldest)
        .build();
    feed.begin(Beginning::Lost);
    let opened = (0..users * sessions).map(|at| {
        let ticket = router.begin_authentication();
        let session = router.open(ticket, &id('u', at / sessions), &id('s', at));
        session.expect("nothing was revoked")
    });
    let opened = opened.collect();
    (router, feed, opened)
}

fn route(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    group.sample_size(20);
    group.throughput(Throughput::Elements(1));
    let (events, drawn) = events(USERS);
    {
        let (_router, mut feed, mut sessions) = router(USERS, 1);
        group.bench_function(BenchmarkId::new("galaxy-push", USERS), |b| {
            b.iter_custom(|iterations| {
                rounds(iterations, |count| {
                    let began = Instant::now();
                    for together in events[..count].chunks(TOGETHER) {
                        feed.deliver(black_box(together)).expect("they are events");
                    }
                    let took = began.elapsed();
                    for user in &drawn[..count] {
                        while sessions[*user].try_recv().is_ok() {}
                    }
                    took
                })
            });
        });
    }
    {
        let senders: DashMap<Box<[u8]>, broadcast::Sender<Bytes>> = DashMap::new();
        let mut receivers: Vec<_> = (0..USERS)
            .map(|user| {
                let (sender, receiver) = broadcast::channel(QUEUE_EVENTS);
                senders.insert(id('u', user).into_bytes().into(), sender);
                receiver
            })
            .collect();
        group.bench_function(BenchmarkId::new("dashmap-broadcast", USERS), |b| {
            b.iter_custom(|iterations| {
                rounds(iterations, |count| {
                    let began = Instant::now();
                    for event in black_box(&events[..count]) {
                        let received = Received::parse(event).expect("it is an event");
                        let ReceivedKind::ClientEvent(fields) = received.kind else {
                            continue;
                        };
                        if let Some(sender) = senders.get(fields.user_id) {
                            let _ = sender.send(event.clone());
                        }
                    }
                    let took = began.elapsed();
                    for user in &drawn[..count] {
                        while receivers[*user].try_recv().is_ok() {}
                    }
                    took
                })
            });
        });
    }
    group.finish();
}

/// The time of so many events, in rounds.
fn rounds(iterations: u64, mut round: impl FnMut(usize) -> Duration) -> Duration {
    let mut left = iterations;
    let mut took = Duration::ZERO;
    while left > 0 {
        let count = left.min(EVENTS as u64);
        took += round(count as usize);
        left -= count;
    }
    took
}

/// An invalidation of a user with ten sessions, among 1,000,000 sessions.
fn invalidate(c: &mut Criterion) {
    const SESSIONS: usize = 10;
    let users = USERS / SESSIONS;
    let mut group = c.benchmark_group("invalidate");
    group.sample_size(20);
    let (router, mut feed, mut sessions) = router(users, SESSIONS);
    let mut seq = 0;
    group.bench_function(BenchmarkId::new("galaxy-push", "10-sessions"), |b| {
        b.iter_custom(|iterations| {
            let mut took = Duration::ZERO;
            for _ in 0..iterations {
                seq += 1;
                // Spread, so that nothing of it is in the caches.
                let user = seq * 7919 % users;
                let event = [invalidation(&id('u', user), seq)];
                let began = Instant::now();
                feed.deliver(black_box(&event)).expect("it is an event");
                took += began.elapsed();
                for session in &mut sessions[user * SESSIONS..][..SESSIONS] {
                    assert!(session.check().is_err());
                    let ticket = router.begin_authentication();
                    let opened = router.open(ticket, &id('u', user), session.id());
                    *session = opened.expect("it is a new ticket");
                }
            }
            took
        });
    });
    group.finish();
}

criterion_group!(benches, route, invalidate);
criterion_main!(benches);
