//! Threads on one engine, few enough for Miri. `tests/stress` lets many more loose for
//! longer, and checks more of what each of them saw.

use std::pin::pin;
use std::sync::mpsc;
use std::thread;

use super::*;

const PUBLISHERS: u64 = 3;

/// The publisher's number and count, as `encoded` wrote them into the payload.
fn payload(event: &[u8]) -> u64 {
    // Tag, length, "u", "k", payload's tag and length come first: 9 bytes, for
    // payloads and messages below 128 bytes.
    u64::from_be_bytes(event[10..18].try_into().unwrap())
}

/// Returns where each event stands, by the answers.
fn produce(engine: &Engine, id: u64, batches: u64) -> Vec<(u64, u64)> {
    let publisher = engine.publisher();
    let mut answers = Vec::new();
    let mut number = id << 32;
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
            answers.push((first + i as u64, *number));
        }
    }
    answers
}

/// Reads until the engine closes. Returns what it read and how much it missed.
pub(super) fn consume(mut subscriber: Subscriber, slow: bool) -> (Vec<(u64, u64)>, u64) {
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

/// Three publishers and three subscribers: each record is an ordered run without
/// holes, gaps are announced with their exact size, and every publisher's events stand
/// where it was told. Returns how many events were missed.
fn publish_and_read(builder: Builder) -> u64 {
    let batches = rounds(2000, 8) as u64;
    let engine = builder.build().unwrap();
    let (mut answers, records) = thread::scope(|scope| {
        let consumers: Vec<_> = (0..3)
            .map(|n| {
                let subscriber = engine.subscribe(&n.to_string(), "").unwrap();
                scope.spawn(move || consume(subscriber.max_batch_bytes(4096), n == 0))
            })
            .collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|n| {
                let engine = &engine;
                scope.spawn(move || produce(engine, n, batches))
            })
            .collect();
        let mut answers = Vec::new();
        for publisher in publishers {
            answers.extend(publisher.join().unwrap());
        }
        engine.close();
        let records: Vec<_> = consumers.into_iter().map(|c| c.join().unwrap()).collect();
        (answers, records)
    });
    let head = engine.head().seq().number();
    answers.sort_unstable();
    assert!(
        answers.iter().map(|(seq, _)| *seq).eq(1..=head),
        "every sequence was given out once"
    );
    let mut missed_by_all = 0;
    for (record, missed) in records {
        assert_eq!(
            record.len() as u64 + missed,
            head,
            "received + missed = published"
        );
        missed_by_all += missed;
        for (seq, number) in record {
            assert_eq!(
                answers[seq as usize - 1],
                (seq, number),
                "an event stands where its publisher was told"
            );
        }
    }
    assert_eq!(engine.stats().pinned_bytes, 0);
    missed_by_all
}

#[test]
fn nobody_lags_in_a_large_ring() {
    let builder = small()
        .max_event_bytes(1000)
        .max_bytes(rounds(64 << 20, 1 << 16) as u64)
        .max_events(rounds(1 << 20, 100) as u64);
    assert_eq!(publish_and_read(builder), 0);
}

#[test]
fn lagging_subscribers_account_for_every_event() {
    let builder = small()
        .max_event_bytes(1000)
        .max_bytes(rounds(500_000, 40_000) as u64)
        .max_events(rounds(50, 10) as u64);
    publish_and_read(builder);
}

#[test]
fn when_a_subscribe_returns_everything_older_has_taken_its_last_event() {
    let engine = small().build().unwrap();
    for _ in 0..rounds(2000, 3) {
        let mut oldest = engine.subscribe("g", "").unwrap();
        let (returned, first) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..2 {
                let (engine, returned) = (&engine, returned.clone());
                scope.spawn(move || returned.send(engine.subscribe("g", "").unwrap()));
            }
            let _newer = first.recv().unwrap();
            publish(&engine, 1);
            assert_eq!(oldest.try_recv().unwrap_err(), TryRecvError::TakenOver);
        });
        drop((oldest, first));
        assert_eq!(engine.stats().subscribers, 0);
    }
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_asleep() {
    let engine = small().build().unwrap();
    let mut bad = engine.subscribe("bad", "").unwrap();
    let mut good = engine.subscribe("good", "").unwrap();
    let (received, receipts) = mpsc::channel();
    let reader = thread::spawn(move || {
        while let Ok(batch) = block_on(good.recv()) {
            received.send(batch.last().seq().number()).unwrap();
        }
    });
    for _ in 0..3 {
        let bomb = bomb();
        while bad.poll_recv(&mut Context::from_waker(&bomb)).is_ready() {}
        let last = publish(&engine, 1);
        while receipts.recv_timeout(Duration::from_secs(60)).unwrap() != last {}
    }
    engine.close();
    reader.join().unwrap();
}

#[test]
fn without_a_notifier_the_engines_own_thread_wakes() {
    const EVENTS: usize = rounds(1000, 20);
    let engine = small().build().unwrap();
    let mut subscriber = engine.subscribe("g", "").unwrap();
    let publisher = thread::spawn({
        let engine = engine.clone();
        move || (0..EVENTS).for_each(|_| _ = publish(&engine, 1))
    });
    let mut received = 0;
    while received < EVENTS {
        received += block_on(subscriber.recv()).unwrap().len();
    }
    publisher.join().unwrap();
    assert_eq!(received, EVENTS);
}

#[test]
fn what_a_dropped_notifier_was_to_wake_is_woken() {
    let engine = small().build().unwrap();
    let mut subscriber = engine.subscribe("g", "").unwrap();
    let notifier = engine.notifier();
    let (parked, is_parked) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut parked = Some(parked);
        block_on(std::future::poll_fn(|cx| {
            let polled = subscriber.poll_recv(cx);
            if let Some(parked) = parked.take() {
                parked.send(polled.is_pending()).unwrap();
            }
            polled
        }))
        .unwrap()
        .len()
    });
    assert!(is_parked.recv().unwrap());
    publish(&engine, 1);
    drop(notifier);
    assert_eq!(reader.join().unwrap(), 1);
}

/// Runs a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
