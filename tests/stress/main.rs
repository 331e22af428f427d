//! Many publishers and readers on one engine, at once: fast and slow, joining and
//! leaving, resuming, taking over and lagging. Each keeps a record, and the
//! history of each round is checked afterwards: see `galaxy_push::lab::history`.
//!
//! `GALAXY_PUSH_STRESS_SECONDS` says how long it goes on (6), and
//! `GALAXY_PUSH_STRESS_SEED` makes the same choices again as a run that failed;
//! `scripts/stress 60` is a minute of it. What it is for is forced to happen in each
//! round, not left to luck: one reader at least lags, one cursor expires, one
//! subscription is taken over, and everybody is woken a hundred times by one event.
//! What happens too rarely in the crowd has a test of its own, in short rounds: an end
//! in the midst of publishing, an event for whoever is about to park, two publishers at
//! the same moment.
//!
//! A gateway's router has a history of its own kind: see `sessions.rs`.

mod crowd;
mod event;
mod gate;
mod publisher;
mod random;
mod reader;
mod round;
mod sessions;
mod shape;
mod sprint;

use std::env;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use galaxy_push::lab::history::Summary;

use self::crowd::crowd;
use self::random::Random;
use self::round::{Counters, Ending, Round};
use self::shape::{SHAPES, Shape};
use self::sprint::{catch_the_parking, publish_in_pairs, sprint};

#[test]
fn every_promise_is_kept_whatever_the_schedule() {
    // Each shape of ring is closed once and aborted once, at least.
    let least = 2 * SHAPES.len();
    let pace = (time() / least as u32).min(Duration::from_secs(8));
    let sum = rounds(least, time(), true, |round| crowd(round, pace));
    let Summary {
        accepted_batches,
        refused_batches,
        resumed,
        expired,
        gaps,
        replays,
        taken_over,
        closed,
        ..
    } = sum.history;
    let happened = [
        accepted_batches,
        refused_batches,
        resumed,
        expired,
        gaps,
        replays,
        taken_over,
        closed,
        sum.parked,
        sum.batches_held,
        sum.wake_ups,
    ];
    assert!(!happened.contains(&0), "{sum:?}");
}

#[test]
fn an_end_in_the_midst_of_publishing_loses_nothing() {
    rounds(100, time() / 4, false, sprint);
}

#[test]
fn whoever_is_about_to_park_is_woken() {
    let sum = rounds(2, time() / 6, false, |round| catch_the_parking(round, 5000));
    assert!(sum.parked > 0 && sum.wake_ups > 0, "{sum:?}");
}

#[test]
fn two_that_publish_at_once_leave_nothing_behind() {
    let sum = rounds(2, time() / 6, false, |round| {
        publish_in_pairs(round, 20_000)
    });
    assert_eq!(sum.history.accepted_events, 40_000 * sum.rounds as u64);
}

#[test]
fn a_revoked_session_neither_receives_nor_does_anything_and_no_other_is_touched() {
    let seed = setting("GALAXY_PUSH_STRESS_SEED").unwrap_or_else(now);
    println!("GALAXY_PUSH_STRESS_SEED={seed}");
    let begun = Instant::now();
    let mut sum = [0; 3];
    for part in 0.. {
        let seed = Random::new(seed, part).number();
        for (sum, more) in sum.iter_mut().zip(sessions::round(seed, time() / 12)) {
            *sum += more;
        }
        if begun.elapsed() >= time() / 4 && !sum.contains(&0) {
            break;
        }
    }
    println!("sessions, cut short, refused: {sum:?}");
}

/// What happened in all rounds together.
#[derive(Debug, Default)]
struct Sum {
    rounds: usize,
    history: Summary,
    parked: u64,
    batches_held: u64,
    wake_ups: u64,
}

/// So many rounds, or more if there is time, in all shapes and with both ends, checked.
fn rounds(least: usize, time: Duration, tell: bool, take_part: impl Fn(&Round<'_>)) -> Sum {
    let seed = setting("GALAXY_PUSH_STRESS_SEED").unwrap_or_else(now);
    println!("GALAXY_PUSH_STRESS_SEED={seed}");
    let begun = Instant::now();
    let mut sum = Sum::default();
    while sum.rounds < least || begun.elapsed() < time {
        let turn = sum.rounds % (2 * SHAPES.len());
        let shape: &Shape = &SHAPES[turn % SHAPES.len()];
        let ending = [Ending::Close, Ending::Abort][turn / SHAPES.len()];
        let seed = Random::new(seed, sum.rounds as u64).number();
        let (report, counters) = Round::run(shape, ending, seed, &take_part);
        if tell {
            println!("{}, {ending:?}: {}", shape.name, report.summary);
        }
        assert!(report.is_clean(), "{}, seed {seed}: {report}", shape.name);
        assert_eq!(report.summary.unverified_events, 0, "all was compared");
        sum.add(report.summary, &counters);
    }
    println!("{sum:?}");
    sum
}

impl Sum {
    fn add(&mut self, history: Summary, counters: &Counters) {
        self.rounds += 1;
        self.history += history;
        self.parked += counters.parked.load(Ordering::SeqCst);
        self.batches_held += counters.batches_held.load(Ordering::SeqCst);
        self.wake_ups += counters.wake_ups.load(Ordering::SeqCst);
    }
}

/// How long it is to go on.
fn time() -> Duration {
    Duration::from_secs_f64(setting("GALAXY_PUSH_STRESS_SECONDS").unwrap_or(6.0))
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    match text.parse() {
        Ok(setting) => Some(setting),
        Err(_) => panic!("{name} is no number: {text:?}"),
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}
