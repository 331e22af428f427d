//! No wake-up is lost: a model in which one is ends with everybody asleep.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc as Shared;
use std::task::{Context, Poll, Waker};

use loom::future::block_on;

use super::*;
use crate::cursor::Seq;
use crate::engine::RecvError;
use crate::engine::sync::{AtomicU64, Ordering, thread};
use crate::engine::waiters::{Notifier, Seat, Waiters};

/// What a subscriber receives that may park before, while or after `happens` does, with
/// the notifier on a thread of its own.
fn received_when(happens: fn(Engine)) -> Result<usize, RecvError> {
    let engine = engine(shape());
    let notifier = engine.notifier();
    let notifier = thread::spawn(move || block_on(notifier));
    let mut subscriber = engine.subscribe("g", "").expect("there is room");
    let other = thread::spawn(move || happens(engine));
    let received = block_on(subscriber.recv()).map(|batch| batch.len());
    other.join().unwrap();
    drop(subscriber);
    notifier.join().unwrap();
    received
}

#[test]
fn park_against_publish_against_notify() {
    model(|| assert_eq!(received_when(|engine| _ = accept(&engine, 1)), Ok(1)));
}

/// The engine is closed while a batch is appended after a hole: whatever comes of it, the
/// subscriber is told all of it, and then the end.
#[test]
fn park_against_a_hole_against_a_close() {
    deep_model(|| {
        let (engine, mut appender) = Builder::default()
            .max_subscribers(2)
            .clock(ManualClock::new())
            .appended(epoch(), shape())
            .expect("two subscribers are few enough");
        let notifier = engine.notifier();
        let notifier = thread::spawn(move || block_on(notifier));
        let mut subscriber = engine.subscribe("g", "").expect("there is room");
        let appender = thread::spawn(move || {
            let encoded = event(1);
            let event = Event::parse(&encoded).expect("it is valid");
            appender.append(Seq::new(3), &[event]).is_ok()
        });
        let closer = thread::spawn(move || engine.close());
        let mut passed = 0;
        let end = loop {
            match block_on(subscriber.recv()) {
                Ok(batch) => passed += batch.len() as u64,
                Err(RecvError::Lagged(missed)) => passed += missed,
                Err(end) => break end,
            }
        };
        assert_eq!(end, RecvError::Closed);
        let accepted = appender.join().unwrap();
        assert!(accepted && passed == 3 || !accepted && (passed == 0 || passed == 2));
        closer.join().unwrap();
        drop(subscriber);
        notifier.join().unwrap();
    });
}

#[test]
fn close_against_park() {
    model(|| {
        let received = received_when(|engine| engine.close());
        assert_eq!(received, Err(RecvError::Closed));
    });
}

#[test]
fn abort_against_park() {
    model(|| {
        let received = received_when(|engine| engine.abort());
        assert_eq!(received, Err(RecvError::Closed));
    });
}

#[test]
fn takeover_against_park() {
    model(|| {
        let received = received_when(|engine| drop(engine.subscribe("g", "")));
        assert_eq!(received, Err(RecvError::TakenOver));
    });
}

#[test]
fn park_again_against_two_publishes() {
    large_model(|| {
        let engine = engine(shape());
        let notifier = engine.notifier();
        let notifier = thread::spawn(move || block_on(notifier));
        let mut subscriber = engine.subscribe("g", "").expect("there is room");
        let publisher = thread::spawn(move || {
            accept(&engine, 1);
            accept(&engine, 2);
        });
        let mut received = 0;
        while received < 2 {
            received += block_on(subscriber.recv()).expect("it is open").len();
        }
        publisher.join().unwrap();
        drop(subscriber);
        notifier.join().unwrap();
    });
}

#[test]
fn the_engines_own_thread() {
    model(|| {
        let engine = engine(shape());
        let mut subscriber = engine.subscribe("g", "").expect("there is room");
        // Parks, so that the thread is there before anybody else looks for it.
        let mut context = Context::from_waker(Waker::noop());
        assert!(subscriber.poll_recv(&mut context).is_pending());
        let publisher = thread::spawn(move || _ = accept(&engine, 1));
        assert_eq!(block_on(subscriber.recv()).expect("it is open").len(), 1);
        publisher.join().unwrap();
    });
}

/// Parks until `head` has moved, as a subscriber does.
fn wait(waiters: &Shared<Waiters>, slot: &Seat, head: &AtomicU64, seen: u64) {
    block_on(std::future::poll_fn(|cx| {
        if head.load(Ordering::Acquire) != seen {
            return Poll::Ready(());
        }
        waiters.park(slot, cx.waker());
        if head.load(Ordering::Acquire) == seen {
            return Poll::Pending;
        }
        waiters.unpark(slot);
        Poll::Ready(())
    }));
}

/// The tree alone: two park under one leaf, while what they wait for happens and the
/// notifier clears the tree, for one of them or for both.
#[test]
fn two_park_under_one_leaf_while_the_notifier_clears_it() {
    model(|| {
        let waiters = Waiters::new(2);
        let head = Arc::new(AtomicU64::new(0));
        let mut notifier = Notifier::attach(&waiters);
        let parkers = [(), ()].map(|()| {
            let (waiters, head) = (Shared::clone(&waiters), Arc::clone(&head));
            let slot = waiters.acquire().expect("there are two");
            thread::spawn(move || wait(&waiters, &slot, &head, 0))
        });
        head.fetch_add(1, Ordering::SeqCst);
        waiters.notify();
        let mut context = Context::from_waker(Waker::noop());
        // It wakes one a turn.
        for _ in &parkers {
            assert!(Pin::new(&mut notifier).poll(&mut context).is_pending());
        }
        for parker in parkers {
            parker.join().unwrap();
        }
        waiters.stop();
    });
}

/// The tree alone: one that was parked parks again, for the second of two events, while
/// the notifier clears the tree because of the first.
#[test]
fn one_parks_again_while_the_notifier_clears_the_tree() {
    model(|| {
        let waiters = Waiters::new(1);
        let head = Arc::new(AtomicU64::new(1));
        let mut notifier = Notifier::attach(&waiters);
        let slot = waiters.acquire().expect("there is one");
        waiters.park(&slot, Waker::noop());
        waiters.unpark(&slot);
        let parker = thread::spawn({
            let (waiters, head) = (Shared::clone(&waiters), Arc::clone(&head));
            move || wait(&waiters, &slot, &head, 1)
        });
        let mut context = Context::from_waker(Waker::noop());
        for seen in 1..=2 {
            waiters.notify();
            assert!(Pin::new(&mut notifier).poll(&mut context).is_pending());
            if seen == 1 {
                head.fetch_add(1, Ordering::SeqCst);
            }
        }
        parker.join().unwrap();
        waiters.stop();
    });
}

/// The same with a publisher that does not wait for the notifier.
#[test]
fn two_events_while_the_notifier_clears_the_tree() {
    model(|| {
        let waiters = Waiters::new(1);
        let head = Arc::new(AtomicU64::new(1));
        let notifier = Notifier::attach(&waiters);
        let slot = waiters.acquire().expect("there is one");
        waiters.park(&slot, Waker::noop());
        waiters.unpark(&slot);
        let publisher = thread::spawn({
            let (waiters, head) = (Shared::clone(&waiters), Arc::clone(&head));
            move || {
                waiters.notify();
                head.fetch_add(1, Ordering::SeqCst);
                waiters.notify();
            }
        });
        let parker = thread::spawn({
            let waiters = Shared::clone(&waiters);
            move || {
                wait(&waiters, &slot, &head, 1);
                waiters.stop();
            }
        });
        block_on(notifier);
        parker.join().unwrap();
        publisher.join().unwrap();
    });
}

/// The notifier wakes one task a turn. What is published between two turns of a round is
/// not forgotten when the round is over.
#[test]
fn two_events_while_the_notifier_is_in_the_middle_of_a_round() {
    model(|| {
        let waiters = Waiters::new(2);
        let head = Arc::new(AtomicU64::new(0));
        let mut notifier = Notifier::attach(&waiters);
        let [a, b] = [(), ()].map(|()| waiters.acquire().expect("there are two"));
        waiters.park(&a, Waker::noop());
        waiters.park(&b, Waker::noop());
        head.fetch_add(1, Ordering::SeqCst);
        waiters.notify();
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut notifier).poll(&mut context).is_pending());
        let publisher = thread::spawn({
            let (waiters, head) = (Shared::clone(&waiters), Arc::clone(&head));
            move || {
                head.fetch_add(1, Ordering::SeqCst);
                waiters.notify();
            }
        });
        let parker = thread::spawn({
            let waiters = Shared::clone(&waiters);
            move || {
                wait(&waiters, &a, &head, 1);
                waiters.stop();
            }
        });
        block_on(notifier);
        parker.join().unwrap();
        publisher.join().unwrap();
    });
}

#[test]
fn a_notifier_that_is_dropped_leaves_nobody_asleep() {
    model(|| {
        let engine = engine(shape());
        let notifier = engine.notifier();
        let mut subscriber = engine.subscribe("g", "").expect("there is room");
        let publisher = thread::spawn(move || _ = accept(&engine, 1));
        let dropper = thread::spawn(move || drop(notifier));
        dropper.join().unwrap();
        assert_eq!(block_on(subscriber.recv()).expect("it is open").len(), 1);
        publisher.join().unwrap();
    });
}
