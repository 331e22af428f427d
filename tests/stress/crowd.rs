//! The crowd: everybody who takes part in a long round.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use galaxy_push::lab::history::End;

use crate::publisher::{Publisher, publish_until_closed};
use crate::reader::{self, Got, Reader};
use crate::round::Round;

const PUBLISHERS: usize = 6;
const COMMUTERS: usize = 4;
const CONTENDERS: usize = 3;
/// Those readers that stay until the end.
const STAYING: [Kind; 8] = [
    Kind::Follows,
    Kind::Follows,
    Kind::Follows,
    Kind::Spins,
    Kind::Dawdles,
    Kind::Dawdles,
    Kind::Holds,
    Kind::Holds,
];

#[derive(Clone, Copy)]
enum Kind {
    Follows,
    Spins,
    Dawdles,
    Holds,
}

/// How often everybody is woken by one event.
const WAKE_UPS: u64 = 100;

/// Lets all of them loose for about as long as `pace`, then ends the round.
pub(crate) fn crowd(round: &Round<'_>, pace: Duration) {
    let places: [AtomicU64; STAYING.len()] = Default::default();
    thread::scope(|scope| {
        let publishers = (0..PUBLISHERS).map(|n| {
            let publisher = move || publish_until_closed(round, n);
            scope.spawn(move || round.watched(publisher))
        });
        let staying = places.iter().enumerate().map(|(n, place)| {
            let reader = move || stay(round, n, place);
            scope.spawn(move || round.watched(reader))
        });
        let lasting: Vec<_> = publishers.chain(staying).collect();

        let commuters = (0..COMMUTERS).map(|n| {
            let random = round.random(100 + n);
            let commuter = move || reader::commute(round, &format!("commuter-{n}"), random);
            scope.spawn(move || round.watched(commuter))
        });
        let contenders = (0..CONTENDERS).map(|n| {
            let random = round.random(200 + n);
            scope.spawn(move || round.watched(|| reader::contend(round, random)))
        });
        let passing: Vec<_> = commuters.chain(contenders).collect();
        let stalling = scope.spawn(|| round.watched(|| reader::stall(round)));

        let begun = Instant::now();
        take_over(round, scope);
        thread::sleep(pace.saturating_sub(begun.elapsed()));
        round.until("the stalling reader has seen it all", || {
            stalling.is_finished()
        });
        round.begin_ending();
        round.until("those have left who come and go", || {
            passing.iter().all(|passing| passing.is_finished())
        });
        wake_everybody(round, &places);
        round.end();
        round.until("all others have come to the end", || {
            lasting.iter().all(|lasting| lasting.is_finished())
        });
        assert!(Reader::join(round, "too late", "").is_none());
    });
}

/// What one of the readers does that stay. It says how far it has come.
fn stay(round: &Round<'_>, number: usize, place: &AtomicU64) {
    let id = format!("staying-{number}");
    let reader = Reader::join(round, &id, "").expect("the engine is open");
    let random = round.random(300 + number);
    place.store(reader.position().seq().number(), Ordering::SeqCst);
    match STAYING[number] {
        Kind::Follows => reader::follow(reader, place),
        Kind::Spins => reader::spin(reader, place),
        Kind::Dawdles => reader::dawdle(reader, place, random),
        Kind::Holds => reader::hold(reader, place, random),
    }
}

/// Takes over an id from a reader that is at it or asleep.
fn take_over<'scope>(round: &'scope Round<'_>, scope: &'scope Scope<'scope, '_>) {
    let mut older = Reader::join(round, "taken over", "").expect("the engine is open");
    let reading = scope.spawn(move || {
        loop {
            if let Got::End(end) = older.receive() {
                older.leave(end);
                return end;
            }
        }
    });
    let newer = Reader::join(round, "taken over", "").expect("the engine is open");
    round.until("the older reader has been told", || reading.is_finished());
    assert_eq!(reading.join().ok(), Some(End::TakenOver));
    newer.leave(End::Cut);
}

/// While no publisher is at work, publishes events one by one: each has to get to
/// everybody by itself.
fn wake_everybody(round: &Round<'_>, places: &[AtomicU64]) {
    round.gate.shut();
    round.until("the publishers pause", || round.gate.is_empty());
    let all_are_there = || {
        let head = round.head();
        (places.iter()).all(|place| place.load(Ordering::SeqCst) == head)
    };
    round.until("everybody has caught up", all_are_there);
    let mut publisher = Publisher::new(round, PUBLISHERS);
    let mut random = round.random(400);
    for _ in 0..WAKE_UPS {
        publisher.make(&mut random, 1, |_| 8);
        publisher.publish().expect("the engine is open");
        round.until("everybody has been woken", all_are_there);
    }
    round
        .counters
        .wake_ups
        .fetch_add(WAKE_UPS, Ordering::SeqCst);
    round.gate.open();
    thread::sleep(Duration::from_millis(1));
}
