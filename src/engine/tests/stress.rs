//! Threads on one engine: whatever the schedule, each subscriber's record is an
//! ordered run without holes, gaps are announced with their exact size, and every
//! producer's events stand where it was told.

use std::collections::HashMap;
use std::thread;

use super::*;

const PRODUCERS: u64 = 3;

/// The producer's number and count, as `encoded` wrote them into the payload.
fn payload(event: &[u8]) -> u64 {
    // Tag, length, "u", "k", payload's tag and length come first: 9 bytes, for
    // payloads and messages below 128 bytes.
    u64::from_be_bytes(event[10..18].try_into().unwrap())
}

fn produce(engine: &Engine, producer: u64, batches: u64) -> HashMap<u64, u64> {
    let publisher = engine.publisher();
    let mut answers = HashMap::new();
    let mut number = producer << 32;
    for batch in 0..batches {
        let encoded: Vec<_> = (0..1 + batch % 7)
            .map(|_| {
                number += 1;
                (number, encoded(number, 8 + (number % 50) as usize))
            })
            .collect();
        let events: Vec<_> = encoded
            .iter()
            .map(|(_, e)| Event::parse(e).unwrap())
            .collect();
        let published = publisher.publish_batch(&events).unwrap();
        let first = published.first.seq().number();
        assert_eq!(
            published.last.seq().number() - first + 1,
            events.len() as u64
        );
        for (i, (number, _)) in encoded.iter().enumerate() {
            answers.insert(first + i as u64, *number);
        }
    }
    answers
}

/// Reads until the engine closes. Returns what it read and how much it missed.
fn consume(mut subscriber: Subscriber, slow: bool) -> (Vec<(u64, u64)>, u64) {
    let (mut record, mut missed) = (Vec::new(), 0);
    let mut at = subscriber.position().seq().number();
    loop {
        match block_on(subscriber.recv()) {
            Ok(batch) => {
                assert_eq!(batch.first().seq().number(), at + 1, "no holes, no repeats");
                for event in batch.events() {
                    at += 1;
                    let text = &event[event.len() - Cursor::TEXT_BYTES..];
                    assert_eq!(Cursor::parse(text).unwrap().seq().number(), at);
                    record.push((at, payload(event)));
                }
                assert_eq!(batch.last().seq().number(), at);
                if slow {
                    thread::yield_now();
                }
            }
            Err(RecvError::Lagged(n)) => {
                at += n;
                missed += n;
                assert_eq!(subscriber.position().seq().number(), at);
            }
            Err(RecvError::Closed) => return (record, missed),
            Err(RecvError::TakenOver) => panic!("ids are unique here"),
        }
    }
}

fn stress(builder: Builder, batches: u64) {
    let engine = builder.build().unwrap();
    let (answers, records) = thread::scope(|scope| {
        let consumers: Vec<_> = (0..3)
            .map(|n| {
                let subscriber = engine.subscribe(&n.to_string(), "").unwrap();
                scope.spawn(move || consume(subscriber.max_batch_bytes(4096), n == 0))
            })
            .collect();
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|n| {
                let engine = &engine;
                scope.spawn(move || produce(engine, n, batches))
            })
            .collect();
        let mut answers = HashMap::new();
        for producer in producers {
            answers.extend(producer.join().unwrap());
        }
        engine.close();
        let records: Vec<_> = consumers.into_iter().map(|c| c.join().unwrap()).collect();
        (answers, records)
    });
    let head = engine.head().seq().number();
    assert_eq!(
        answers.len() as u64,
        head,
        "every sequence was given out once"
    );
    for (record, missed) in records {
        assert_eq!(
            record.len() as u64 + missed,
            head,
            "received + missed = published"
        );
        for (seq, number) in record {
            assert_eq!(
                answers[&seq], number,
                "an event stands where its producer was told"
            );
        }
    }
    assert_eq!(engine.stats().pinned_bytes, 0);
}

#[test]
fn nobody_is_lapped_in_a_large_ring() {
    let batches = rounds(20_000, 10) as u64;
    stress(small().max_bytes(64 << 20), batches);
}

#[test]
fn lapped_subscribers_account_for_every_event() {
    let batches = rounds(20_000, 10) as u64;
    stress(small().max_bytes(500_000).max_events(50), batches);
}
