//! Short rounds, of which there can be many, for what happens once in a round.

use std::hint;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::publisher::{Publisher, hurry};
use crate::reader::{self, Reader};
use crate::round::Round;

/// Ends the engine in the midst of publishing. Readers are at the head by then, and
/// neither may they be told of the end too early, nor may an event be left behind.
pub(crate) fn sprint(round: &Round<'_>) {
    let places: [AtomicU64; 3] = Default::default();
    let readers = [0, 1, 2]
        .map(|n| Reader::join(round, &format!("reader-{n}"), "").expect("the engine is open"));
    thread::scope(|scope| {
        // Large batches, which take a while to be copied, and single events, which
        // are committed by two at the same time.
        let publishers = [1, 1, 200].into_iter().enumerate().map(|(n, events)| {
            let publisher = move || hurry(round, n, events);
            scope.spawn(move || round.watched(publisher))
        });
        let reads = [reader::follow, reader::spin, reader::spin];
        let readers = readers.into_iter().zip(reads).zip(&places);
        let readers = readers.map(|((reader, read), place)| {
            scope.spawn(move || round.watched(|| read(reader, place)))
        });
        let all: Vec<_> = readers.chain(publishers).collect();
        let enough = 1 + round.random(0).below(2000) as u64;
        round.until("some reader has received enough", || {
            (places.iter()).any(|place| place.load(Ordering::SeqCst) >= enough)
        });
        round.end();
        round.until("all have come to the end", || {
            all.iter().all(|each| each.is_finished())
        });
    });
}

/// Publishes single events to a reader that is about to park, or has just parked, or is
/// not quite there: it has to get each of them, without another one to help.
pub(crate) fn catch_the_parking(round: &Round<'_>, times: u64) {
    let mut random = round.random(0);
    let place = AtomicU64::new(0);
    thread::scope(|scope| {
        let reader = Reader::join(round, "parking", "").expect("the engine is open");
        let follower = || reader::follow(reader, &place);
        let reading = scope.spawn(|| round.watched(follower));
        let mut publisher = Publisher::new(round, 0);
        for _ in 0..times {
            publisher.make(&mut random, 1, |_| 8);
            let head = round.head();
            round.until("the reader has been woken", || {
                place.load(Ordering::SeqCst) == head
            });
            for _ in 0..random.below(100) {
                hint::spin_loop();
            }
            publisher.publish().expect("the engine is open");
        }
        round.counters.wake_ups.fetch_add(times, Ordering::SeqCst);
        round.end();
        round.until("the reader has come to the end", || reading.is_finished());
    });
}

/// Lets two publishers publish at the same moment, again and again: whatever each of
/// them sees of the other, both events are there when both have returned.
pub(crate) fn publish_in_pairs(round: &Round<'_>, times: u64) {
    let arrived = AtomicU64::new(0);
    // Both leave as soon as both are there.
    let meet = |nth: u64| {
        arrived.fetch_add(1, Ordering::SeqCst);
        let are_both_there = || arrived.load(Ordering::SeqCst) >= 2 * nth;
        for _ in 0..200 {
            if are_both_there() {
                return;
            }
            hint::spin_loop();
        }
        assert!(round.comes_true("the other one publishes", are_both_there));
    };
    let publish = |number| {
        let mut publisher = Publisher::new(round, number);
        let mut random = round.random(number);
        for pair in 1..=times {
            publisher.make(&mut random, 1, |_| 8);
            meet(3 * pair - 2);
            publisher.publish().expect("the engine is open");
            meet(3 * pair - 1);
            assert_eq!(round.head(), 2 * pair, "an event is left behind");
            meet(3 * pair);
        }
    };
    thread::scope(|scope| {
        let publish = &publish;
        let both = [0, 1].map(|n| scope.spawn(move || round.watched(|| publish(n))));
        round.until("both are done", || both.iter().all(|one| one.is_finished()));
    });
    round.end();
}
