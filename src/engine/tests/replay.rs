//! Replays of invalidations: what a gateway must not go without, exactly, whatever goes on
//! meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;

/// `PushEvent { session_invalidation: { device_session_id, user_id } }`, of texts of two bytes.
fn invalidation(user: u64, session: u64) -> Vec<u8> {
    let text = |n: u64| [b'a' + (n / 26) as u8, b'a' + (n % 26) as u8];
    let (user, session) = (text(user), text(session));
    let fields = [&[0x0A, 2][..], &session, &[0x12, 2], &user].concat();
    [&[0x12, fields.len() as u8][..], &fields].concat()
}

fn revoke(engine: &Engine, user: u64, session: u64) -> u64 {
    let event = invalidation(user, session);
    let event = Event::parse(&event).unwrap();
    engine.publisher().publish(event).unwrap().seq().number()
}

fn engine() -> Engine {
    small().max_events(4).max_revocations(1000).build().unwrap()
}

fn at(seq: u64) -> String {
    Cursor::new(epoch(), Seq::new(seq)).to_string()
}

/// All that is left of it: each invalidation with its sequence.
fn drain(replay: &mut Replay, subscriber: &Subscriber) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some(frames) = replay.try_recv(subscriber).unwrap() {
        for event in frame::Events::new(&frames) {
            let (event, cursor) = event.split_at(event.len() - frame::CURSOR_FIELD_BYTES);
            let cursor = Cursor::parse(&cursor[2..]).unwrap();
            all.push((cursor.seq().number(), event.to_vec()));
        }
    }
    all
}

#[test]
fn what_was_missed_comes_as_it_was_published() {
    let engine = engine();
    for user in 0..3 {
        revoke(&engine, user, 1);
        publish(&engine, 8);
    }
    // The newest of a session, and it alone.
    assert_eq!(revoke(&engine, 1, 1), 7);
    (0..8).for_each(|_| _ = publish(&engine, 8));

    let (gateway, replay) = engine.subscribe_with_replay("g", &at(1)).unwrap();
    assert_eq!(gateway.start().resume, Resume::Expired { missed: 14 });
    let mut replay = replay.unwrap();
    assert!(replay.is_complete());
    assert_eq!(replay.left(), 2);
    let expected = [(5, invalidation(2, 1)), (7, invalidation(1, 1))];
    assert_eq!(drain(&mut replay, &gateway), expected);
    assert_eq!(replay.left(), 0);
    drop(replay);

    // Who is told everything that there is.
    for (cursor, is_complete) in [("", true), ("nonsense", false), (&at(1000), false)] {
        let (gateway, replay) = engine.subscribe_with_replay("g", cursor).unwrap();
        let mut replay = replay.unwrap();
        assert_eq!(replay.is_complete(), is_complete, "{cursor}");
        assert_eq!(drain(&mut replay, &gateway).len(), 3, "{cursor}");
    }
    let other = Cursor::new(Epoch::new(1, 0).unwrap(), Seq::new(3)).to_string();
    let (_gateway, replay) = engine.subscribe_with_replay("g", &other).unwrap();
    assert!(!replay.unwrap().is_complete());
    // What resumes has missed nothing.
    let (_gateway, replay) = engine.subscribe_with_replay("g", &at(13)).unwrap();
    assert!(replay.is_none());
    assert_eq!(engine.revocations().unwrap().replays, 0);
}

#[test]
fn without_a_table_nothing_is_promised() {
    let engine = small().max_events(4).build().unwrap();
    revoke(&engine, 1, 1);
    let (gateway, replay) = engine.subscribe_with_replay("g", "").unwrap();
    let mut replay = replay.unwrap();
    assert!(!replay.is_complete());
    assert_eq!(replay.try_recv(&gateway), Ok(None));
    assert_eq!(engine.revocations(), None);
}

#[test]
fn what_is_evicted_or_too_old_is_told() {
    let clock = ManualClock::new();
    let engine = small()
        .max_events(4)
        .max_revocations(60)
        .revocation_retention(Duration::from_secs(60))
        .clock(clock.clone())
        .build()
        .unwrap();
    let complete = |cursor: &str| {
        let (_gateway, replay) = engine.subscribe_with_replay("g", cursor).unwrap();
        replay.unwrap().is_complete()
    };
    (0..60).for_each(|user| _ = revoke(&engine, user, 1));
    assert!(complete(""));
    assert_eq!(revoke(&engine, 60, 1), 61);
    assert!(!complete("") && complete(&at(1)));
    clock.advance(Duration::from_secs(61));
    assert_eq!(revoke(&engine, 61, 1), 62);
    assert!(!complete(&at(57)));
    let stats = engine.revocations().unwrap();
    assert_eq!((stats.kept, stats.evicted, stats.expired), (1, 1, 60));
}

#[test]
fn a_hole_may_have_hidden_some() {
    let (engine, mut appender) = small()
        .max_events(4)
        .max_revocations(100)
        .build_appended(epoch())
        .unwrap();
    let event = invalidation(1, 1);
    let event = Event::parse(&event).unwrap();
    let complete = |cursor: &str| {
        let (gateway, replay) = engine.subscribe_with_replay("g", cursor).unwrap();
        let mut replay = replay.unwrap();
        (replay.is_complete(), drain(&mut replay, &gateway).len())
    };
    for seq in 1..=6 {
        appender.append(Seq::new(seq), &[event]).unwrap();
    }
    assert_eq!(complete(""), (true, 1));
    appender.append(Seq::new(9), &[event]).unwrap();
    for seq in 10..20 {
        appender.append(Seq::new(seq), &[event]).unwrap();
    }
    assert_eq!(complete(""), (false, 1));
    assert_eq!(complete(&at(7)), (false, 1));
    assert_eq!(complete(&at(8)), (true, 1));
    // A repetition changes nothing.
    assert_eq!(
        appender.append(Seq::new(19), &[event]),
        Ok(Appended::Repeated)
    );
    assert_eq!(complete(&at(8)), (true, 1));
}

#[test]
fn a_replay_ends_with_its_subscriber() {
    let engine = engine();
    revoke(&engine, 1, 1);
    let (older, replay) = engine.subscribe_with_replay("g", "").unwrap();
    let mut replay = replay.unwrap();
    let _newer = engine.subscribe("g", "").unwrap();
    assert_eq!(replay.try_recv(&older), Err(ReplayError::TakenOver));

    let (gateway, replay) = engine.subscribe_with_replay("h", "").unwrap();
    let mut replay = replay.unwrap();
    engine.close();
    // What was published before is still received.
    assert_eq!(drain(&mut replay, &gateway).len(), 1);
    let (gateway, replay) = {
        let engine = self::engine();
        revoke(&engine, 1, 1);
        let subscribed = engine.subscribe_with_replay("h", "").unwrap();
        engine.abort();
        subscribed
    };
    assert_eq!(replay.unwrap().try_recv(&gateway), Err(ReplayError::Closed));
}

#[test]
fn large_ones_come_one_by_one() {
    let engine = small().max_events(4).max_revocations(1000).build().unwrap();
    let large = |user: u8| {
        let mut fields = vec![0x12, 1, user, 0x1A, 0xE8, 0x07];
        fields.resize(fields.len() + 1000, b'r');
        [&[0x12, 0xEE, 0x07][..], &fields].concat()
    };
    let users = rounds(40, 8);
    for user in 0..users as u8 {
        let event = large(user);
        let event = Event::parse(&event).unwrap();
        engine.publisher().publish_batch(&[event; 2]).unwrap();
    }
    let (gateway, replay) = engine.subscribe_with_replay("g", "").unwrap();
    let mut replay = replay.unwrap();
    let mut pieces = 0;
    while let Some(frames) = replay.try_recv(&gateway).unwrap() {
        assert!(frames.len() <= 16 << 10);
        pieces += 1;
    }
    // 15 of them in each.
    assert_eq!(pieces, users.div_ceil(15));
}

/// What three publishers publish, while gateways subscribe with old cursors and read slowly.
/// Each replay is what the history says, to the event; so is what comes after it.
#[test]
fn replays_are_exact_while_the_ring_turns() {
    let users = 12;
    let engine = small()
        .max_events(16)
        .max_revocations(1000)
        .build()
        .unwrap();
    let history: Mutex<BTreeMap<u64, (u64, u64)>> = Mutex::default();
    let is_over = AtomicBool::new(false);
    let replays: Vec<(u64, u64, Vec<u64>)> = thread::scope(|scope| {
        let publishers: Vec<_> = (0..3)
            .map(|publisher| {
                let (engine, history) = (&engine, &history);
                scope.spawn(move || {
                    let mut mine = BTreeMap::new();
                    for n in 0..rounds(4000, 6) as u64 {
                        let (user, session) = ((n * 7 + publisher) % users, n % 3);
                        let revoked = invalidation(user, session);
                        let other = encoded(n, 8);
                        let events = [&other, &revoked, &other, &revoked]
                            .map(|bytes| Event::parse(bytes).unwrap());
                        let events = &events[..1 + (n % 4) as usize];
                        let first = engine.publisher().publish_batch(events).unwrap().first;
                        for (seq, event) in (first.seq().number()..).zip(events) {
                            if event.is_session_invalidation() {
                                mine.insert(seq, (user, session));
                            }
                        }
                    }
                    history.lock().unwrap().extend(mine);
                })
            })
            .collect();
        let gateways: Vec<_> = (0..2)
            .map(|gateway| {
                let (engine, is_over) = (&engine, &is_over);
                scope.spawn(move || {
                    let mut found = Vec::new();
                    let mut back = 1;
                    let most = rounds(usize::MAX, 4);
                    while (!is_over.load(Ordering::Acquire) || found.is_empty())
                        && found.len() < most
                    {
                        back = back * 5 % 997;
                        let head = engine.head().seq().number();
                        let after = head.saturating_sub(17 + back);
                        let id = format!("g{gateway}");
                        let subscribed = engine.subscribe_with_replay(&id, &at(after));
                        let (subscriber, replay) = subscribed.unwrap();
                        let Some(mut replay) = replay else {
                            continue;
                        };
                        assert!(replay.is_complete());
                        let left = replay.left() as usize;
                        thread::yield_now();
                        let read = drain(&mut replay, &subscriber);
                        assert_eq!(read.len(), left);
                        let seqs = read.into_iter().map(|(seq, _)| seq).collect();
                        found.push((after, subscriber.start().cursor.seq().number(), seqs));
                    }
                    found
                })
            })
            .collect();
        publishers.into_iter().for_each(|it| it.join().unwrap());
        is_over.store(true, Ordering::Release);
        gateways
            .into_iter()
            .flat_map(|it| it.join().unwrap())
            .collect()
    });
    let history = history.into_inner().unwrap();
    for (after, start, found) in replays {
        let mut seen = BTreeSet::new();
        let mut expected: Vec<u64> = (history.range(after + 1..=start).rev())
            .filter(|(_, key)| seen.insert(**key))
            .map(|(seq, _)| *seq)
            .collect();
        expected.reverse();
        assert_eq!(found, expected, "between {after} and {start}");
    }
    let stats = engine.revocations().unwrap();
    assert_eq!((stats.evicted, stats.replays), (0, 0));
}

/// Nobody subscribes: the engine's own thread takes them in.
#[test]
fn what_is_published_does_not_pile_up() {
    let engine = small().max_revocations(100_000).build().unwrap();
    for n in 0..rounds(20_000, 120) as u64 {
        revoke(&engine, n % 600, n / 600 % 600);
    }
    // Not by the engine's figures: to ask for these takes in what there is.
    let revocations = engine.shared.revocations.as_ref().unwrap();
    let kept = || revocations.read().table.stats().revocations;
    while kept() < rounds(19_900, 60) {
        thread::sleep(Duration::from_millis(1));
    }
}

/// However large the batches are, and however many publish them.
#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn what_waits_has_a_limit() {
    let engine = Engine::builder().max_revocations(100_000).build().unwrap();
    let encoded: Vec<_> = (0..20_000)
        .map(|n| invalidation(n % 600, n / 600))
        .collect();
    let events: Vec<_> = encoded.iter().map(|it| Event::parse(it).unwrap()).collect();
    let revocations = engine.shared.revocations.as_ref().unwrap();
    let limit = 6 << 20;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..40 {
                    engine.publisher().publish_batch(&events).unwrap();
                    let waiting = revocations.unsettled_bytes();
                    assert!(waiting <= limit, "{waiting}");
                }
            });
        }
    });
    let stats = engine.revocations().unwrap();
    assert_eq!((stats.kept, stats.evicted), (20_000, 0));
    assert_eq!(revocations.unsettled_bytes(), 0);
}
