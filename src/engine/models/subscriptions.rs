//! Where a stream starts, and how a newer one ends it.

use super::*;
use crate::engine::sync::thread;
use crate::engine::{Resume, Subscriber, TryRecvError};

/// One look; returns whether there may be more.
fn receive(subscriber: &mut Subscriber, record: &mut Record) -> bool {
    match subscriber.try_recv() {
        Ok(batch) => record.note(&batch),
        Err(TryRecvError::Lagged(missed)) => record.missed += missed,
        Err(_) => return false,
    }
    true
}

#[test]
fn takeover_against_the_old_streams_last_read() {
    model(|| {
        let engine = engine(shape());
        let mut older = engine.subscribe("g", "").expect("there is room");
        let publisher = thread::spawn({
            let engine = engine.clone();
            move || accept(&engine, b'e')
        });
        let reader = thread::spawn(move || {
            let mut record = Record::default();
            receive(&mut older, &mut record);
            receive(&mut older, &mut record);
            record.tags
        });
        let newer = engine.subscribe("g", "").expect("it replaces itself");
        let start = newer.start().cursor.seq().number();
        let received = reader.join().unwrap();
        publisher.join().unwrap();
        for seq in received.keys() {
            assert!(*seq <= start, "{seq} was received before the takeover");
        }
    });
}

#[test]
fn takeover_against_publish() {
    model(|| {
        let engine = engine(shape());
        let mut older = engine.subscribe("g", "").expect("there is room");
        let reader = thread::spawn(move || {
            let mut record = Record::default();
            receive(&mut older, &mut record);
            receive(&mut older, &mut record);
            record.tags
        });
        let mut newer = engine.subscribe("g", "").expect("it replaces itself");
        accept(&engine, b'x');
        assert!(
            reader.join().unwrap().is_empty(),
            "it came after the takeover"
        );
        let mut record = Record::default();
        while receive(&mut newer, &mut record) {}
        assert_eq!(record.tags, BTreeMap::from([(1, b'x')]));
    });
}

#[test]
fn two_that_take_over_at_once() {
    model(|| {
        let engine = engine(shape());
        let other = thread::spawn({
            let engine = engine.clone();
            move || engine.subscribe("g", "").expect("it replaces itself")
        });
        let mut one = engine.subscribe("g", "").expect("there is room");
        let mut other = other.join().unwrap();
        let taken = [&mut one, &mut other]
            .map(|subscriber| subscriber.try_recv().unwrap_err() == TryRecvError::TakenOver);
        assert!(taken[0] != taken[1], "one of them has the id: {taken:?}");
        assert_eq!(engine.stats().subscribers, 1);
        drop((one, other));
        assert_eq!(engine.stats().subscribers, 0);
    });
}

/// Whoever of the two returns first, the oldest has then taken its last event,
/// though it may be the other one that replaced it.
#[test]
fn two_that_take_over_from_a_third() {
    model(|| {
        let engine = engine(shape());
        let mut oldest = engine.subscribe("g", "").expect("there is room");
        let other = thread::spawn({
            let engine = engine.clone();
            move || engine.subscribe("g", "").expect("it replaces itself")
        });
        let one = engine.subscribe("g", "").expect("it replaces itself");
        accept(&engine, b'x');
        assert_eq!(oldest.try_recv().unwrap_err(), TryRecvError::TakenOver);
        let other = other.join().unwrap();
        drop((oldest, one, other));
        assert_eq!(engine.stats().subscribers, 0);
    });
}

#[test]
fn a_fresh_start_against_publish() {
    model(|| {
        let engine = engine(shape());
        accept(&engine, 1);
        let publisher = thread::spawn({
            let engine = engine.clone();
            move || accept(&engine, 2)
        });
        let mut subscriber = engine.subscribe("g", "").expect("there is room");
        let start = subscriber.start().cursor.seq().number();
        assert!(start == 1 || start == 2);
        let mut record = Record::default();
        receive(&mut subscriber, &mut record);
        publisher.join().unwrap();
        while receive(&mut subscriber, &mut record) {}
        let expected = if start == 1 { vec![(2, 2)] } else { vec![] };
        assert_eq!(record.tags, BTreeMap::from_iter(expected));
    });
}

#[test]
fn resuming_against_the_eviction_of_what_it_asks_for() {
    model(|| {
        let engine = engine(shape());
        for tag in 1..=6 {
            accept(&engine, tag);
        }
        let cursor = Cursor::new(epoch(), crate::cursor::Seq::new(2)).to_string();
        let publisher = thread::spawn({
            let engine = engine.clone();
            move || {
                accept(&engine, 7);
                accept(&engine, 8);
            }
        });
        let mut subscriber = engine.subscribe("g", &cursor).expect("there is room");
        let start = subscriber.start();
        let mut record = Record::default();
        receive(&mut subscriber, &mut record);
        publisher.join().unwrap();
        while receive(&mut subscriber, &mut record) {}
        let from = start.cursor.seq().number();
        match start.resume {
            Resume::Resumed => assert_eq!(from, 2),
            Resume::Expired { missed } => assert_eq!(from, 2 + missed),
            other => panic!("{other:?}"),
        }
        assert_eq!(record.tags.len() as u64 + record.missed, 8 - from);
        for (seq, tag) in record.tags {
            assert_eq!(seq, u64::from(tag));
        }
    });
}
