//! The table against a plain model of it.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::table::{Limits, Outrun, Replay, Table};

/// A `PushEvent` with a `session_invalidation`.
fn event(user: u8, session: u8, reason_bytes: usize) -> Vec<u8> {
    let mut message = Vec::new();
    if session > 0 {
        message.extend([0x0A, 2, b's', session]);
    }
    message.extend([0x12, 2, b'u', user]);
    // A length of two bytes, also where one would do.
    let length = [reason_bytes as u8 & 0x7F | 0x80, (reason_bytes >> 7) as u8];
    message.push(0x1A);
    message.extend(length);
    message.resize(message.len() + reason_bytes, b'r');
    let length = [
        message.len() as u8 & 0x7F | 0x80,
        (message.len() >> 7) as u8,
    ];
    [&[0x12], &length[..], &message].concat()
}

fn limits(revocations: usize, bytes: usize) -> Limits {
    Limits {
        revocations,
        bytes,
        retention_ms: 1000,
    }
}

const NO_LIMIT: usize = 1 << 30;

/// All that the table was told, and nothing is ever forgotten.
#[derive(Debug, Default)]
struct Model {
    /// The newest of each user and session, of each moment: the sequence and the event.
    history: Vec<(u64, (u8, u8), Vec<u8>)>,
    seq: u64,
    now_ms: u64,
}

impl Model {
    /// The newest of each up to `head`, those beyond `after`.
    fn newest(&self, after: u64, head: u64) -> Vec<(u64, Vec<u8>)> {
        let mut newest = BTreeMap::new();
        for (seq, key, event) in self.history.iter().filter(|(seq, ..)| *seq <= head) {
            newest.insert(*key, (*seq, event.clone()));
        }
        let mut newest: Vec<_> = newest
            .into_values()
            .filter(|(seq, _)| *seq > after)
            .collect();
        newest.sort();
        newest
    }
}

#[derive(Clone, Debug)]
enum Step {
    Take {
        user: u8,
        session: u8,
        reason: usize,
    },
    /// So many events of another kind.
    Others(u64),
    Pass(u64),
    Expire,
    /// From the cursor so many events back.
    Begin {
        back: u64,
    },
    Read {
        which: usize,
        count: usize,
    },
    End {
        which: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let reason = prop_oneof![8 => 0..40_usize, 1 => 300..6000_usize];
    prop_oneof![
        12 => (0..6_u8, 0..4_u8, reason)
            .prop_map(|(user, session, reason)| Step::Take { user, session, reason }),
        2 => (1..4_u64).prop_map(Step::Others),
        1 => (1..600_u64).prop_map(Step::Pass),
        1 => Just(Step::Expire),
        2 => (0..100_u64).prop_map(|back| Step::Begin { back }),
        6 => (0..4_usize, 1..5_usize).prop_map(|(which, count)| Step::Read { which, count }),
        1 => (0..4_usize).prop_map(|which| Step::End { which }),
    ]
}

/// A replay that is under way.
#[derive(Debug)]
struct Reading {
    replay: Replay,
    /// What it is to read, in this order; of those in the first half of the pair the table may
    /// have lost some.
    expected: Vec<(u64, Vec<u8>)>,
}

/// Holds the table against the model. Returns how many replays were given up.
fn run(steps: &[Step], limits: Limits) -> Result<usize, TestCaseError> {
    let mut table = Table::new(limits);
    let mut model = Model::default();
    let mut reading: Vec<Reading> = Vec::new();
    let mut given_up = 0;
    for step in steps {
        match *step {
            Step::Take {
                user,
                session,
                reason,
            } => {
                model.seq += 1;
                let event = event(user, session, reason);
                table.take(model.seq, model.now_ms, &event);
                model.history.push((model.seq, (user, session), event));
                let stats = table.stats();
                prop_assert!(stats.revocations <= limits.revocations);
                prop_assert!(stats.bytes <= limits.bytes, "{stats:?}");
            }
            Step::Others(count) => model.seq += count,
            Step::Pass(ms) => model.now_ms += ms,
            Step::Expire => {
                table.expire(model.now_ms, usize::MAX);
            }
            Step::Begin { back } => {
                let head = model.seq;
                let after = head.saturating_sub(back);
                let replay = table.begin(after, head);
                let all = model.newest(after, head);
                let left = replay.left() as usize;
                if replay.is_complete() {
                    prop_assert_eq!(left, all.len(), "complete, of {:?}", all);
                } else {
                    prop_assert!(left <= all.len());
                }
                // What is missing is missing at the beginning.
                let expected = all[all.len() - left..].to_vec();
                reading.push(Reading { replay, expected });
            }
            Step::Read { which, count } => {
                let Some(reading_now) = reading.get_mut(which) else {
                    continue;
                };
                let mut found = Vec::new();
                let read = table.read(&mut reading_now.replay, |seq, event| {
                    found.push((seq, event.to_vec()));
                    found.len() < count
                });
                match read {
                    Ok(()) => {
                        let rest = reading_now.expected.split_off(found.len());
                        prop_assert_eq!(&found, &reading_now.expected);
                        prop_assert_eq!(reading_now.replay.left() as usize, rest.len());
                        prop_assert!(!found.is_empty() || rest.is_empty());
                        reading_now.expected = rest;
                    }
                    Err(Outrun) => {
                        given_up += 1;
                        let reading = reading.remove(which);
                        table.end(&reading.replay);
                    }
                }
            }
            Step::End { which } => {
                if which < reading.len() {
                    let reading = reading.remove(which);
                    table.end(&reading.replay);
                }
            }
        }
    }
    // All that are left come to their end, or are given up.
    for mut reading in reading {
        let mut found = Vec::new();
        let read = table.read(&mut reading.replay, |seq, event| {
            found.push((seq, event.to_vec()));
            true
        });
        match read {
            Ok(()) => prop_assert_eq!(found, reading.expected),
            Err(Outrun) => given_up += 1,
        }
        table.end(&reading.replay);
    }
    prop_assert_eq!(table.stats().replays, 0);
    Ok(given_up)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 200 }))]

    #[test]
    fn a_replay_is_what_was_newest_when_it_began(steps in vec(step(), 1..400)) {
        // Of the retention alone some are given up: what they are to read is forgotten.
        run(&steps, limits(1000, NO_LIMIT))?;
    }

    #[test]
    fn what_is_evicted_is_told(steps in vec(step(), 1..400), most in 1..20_usize) {
        run(&steps, limits(most, NO_LIMIT))?;
    }

    #[test]
    fn the_memory_has_a_limit(steps in vec(step(), 1..400), kilobytes in 6..30_usize) {
        run(&steps, limits(1000, kilobytes << 10))?;
    }
}

#[test]
fn no_replay_is_given_up_while_there_is_memory() {
    let mut steps = vec![Step::Begin { back: 0 }];
    for n in 0..2000_u32 {
        let (user, session) = ((n % 6) as u8, (n % 4) as u8);
        steps.push(Step::Take {
            user,
            session,
            reason: 10,
        });
        if n % 50 == 0 {
            steps.push(Step::Begin { back: 1000 });
            steps.push(Step::Read { which: 3, count: 2 });
        }
    }
    assert_eq!(run(&steps, limits(1000, NO_LIMIT)).unwrap(), 0);
    // And where there is too little, it is not the table that gives way.
    assert!(run(&steps, limits(1000, 12 << 10)).unwrap() > 0);
}

#[test]
fn what_slow_replays_hold_goes_first() {
    let mut table = Table::new(limits(1000, 16 << 10));
    let take = |table: &mut Table, seq: u64, user: u8| table.take(seq, 0, &event(user, 0, 50));
    (1..=20).for_each(|seq| take(&mut table, seq, seq as u8));
    let mut slow = table.begin(0, 20);
    for seq in 21..=2000 {
        take(&mut table, seq, (seq % 20 + 1) as u8);
    }
    let stats = table.stats();
    assert_eq!(
        (stats.revocations, stats.evictions, stats.replays),
        (20, 0, 1)
    );
    assert_eq!(table.read(&mut slow, |_, _| true), Err(Outrun));
    let mut next = table.begin(0, 2000);
    assert!(next.is_complete());
    let mut read = 0;
    let each = |_: u64, _: &[u8]| {
        read += 1;
        true
    };
    assert_eq!(table.read(&mut next, each), Ok(()));
    assert_eq!(read, 20);
    table.end(&slow);
    table.end(&next);
}

#[test]
fn an_old_one_is_forgotten_and_that_is_told() {
    let mut table = Table::new(limits(1000, NO_LIMIT));
    table.take(1, 0, &event(1, 0, 0));
    table.take(2, 500, &event(2, 0, 0));
    assert_eq!(table.until_expiry_ms(400), Some(601));
    assert!(!table.expire(1000, 10));
    assert_eq!(table.stats().revocations, 2);
    assert!(!table.expire(1001, 10));
    assert_eq!(
        (table.stats().revocations, table.stats().expirations),
        (1, 1)
    );
    assert!(!table.begin(0, 2).is_complete());
    assert!(table.begin(1, 2).is_complete());
}

#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_million_take_at_most_128_mebibytes() {
    let mut table = Table::new(limits(1_000_000, 128_000_000));
    let text = |n: u64| format!("{n:08x}-4b1d-4c7e-9a52-{:012x}", n * 7919);
    for n in 0..1_000_000_u64 {
        let (user, session, reason) = (text(n / 3), text(n ^ 0x5555), b"logout");
        let mut message = vec![0x0A, session.len() as u8];
        message.extend(session.as_bytes());
        message.extend([0x12, user.len() as u8]);
        message.extend(user.as_bytes());
        message.extend([0x1A, reason.len() as u8]);
        message.extend(reason);
        let event = [&[0x12, message.len() as u8], &message[..]].concat();
        table.take(n + 1, n, &event);
    }
    let stats = table.stats();
    assert_eq!((stats.revocations, stats.evictions), (1_000_000, 0));
    assert!(stats.bytes <= 128_000_000, "{}", stats.bytes);
}
