//! Writers of several replicas at a stream that loses requests and answers, keeps copies for
//! later, and takes nothing for a while.

use std::collections::VecDeque;
use std::sync::{Mutex, Weak};

use proptest::prelude::*;
use tokio::task::JoinSet;

use super::*;
use crate::backbone::jetstream::message::encoded_bytes;
use crate::backbone::jetstream::queue::Caller;
use crate::engine::Published;
use crate::event::Event;

/// PushEvent { client_event: { user_id: "u", kind: "k" } }
const EVENT: &[u8] = b"\x0a\x06\x0a\x01u\x1a\x01k";

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    /// The message does not arrive.
    Request,
    /// It is stored, if it can be, and nobody hears of it.
    Answer,
    /// It arrives after so many others, and nobody hears of it.
    Late(u8),
    Refused,
}

#[derive(Debug)]
struct Log {
    stored: Vec<(Stamp, u64)>,
    late: Vec<(u8, Stamp, u64)>,
    faults: Vec<Fault>,
    asked: usize,
}

impl Log {
    fn store(&mut self, stamp: Stamp, after: u64) -> Result<u64, StoreError> {
        if self.stored.len() as u64 != after {
            return Err(StoreError::Fenced);
        }
        self.stored.push((stamp, after + 1));
        Ok(after + 1)
    }

    fn ask(&mut self, stamp: Stamp, after: u64) -> Result<u64, StoreError> {
        for late in &mut self.late {
            late.0 = late.0.saturating_sub(1);
        }
        let (due, late) = std::mem::take(&mut self.late)
            .into_iter()
            .partition(|(wait, ..)| *wait == 0);
        self.late = late;
        let due: Vec<(u8, Stamp, u64)> = due;
        for (_, stamp, after) in due {
            let _ = self.store(stamp, after);
        }
        let fault = self.faults.get(self.asked).copied();
        self.asked += 1;
        match fault.unwrap_or(Fault::None) {
            Fault::None => self.store(stamp, after),
            Fault::Request => Err(StoreError::Unanswered),
            Fault::Answer => {
                let _ = self.store(stamp, after);
                Err(StoreError::Unanswered)
            }
            Fault::Late(others) => {
                self.late.push((others, stamp, after));
                Err(StoreError::Unanswered)
            }
            Fault::Refused => Err(StoreError::NotStored("no leader".to_owned())),
        }
    }
}

#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Log>>);

impl Store for Shared {
    async fn store(&self, message: &Message, stamp: Stamp, after: u64) -> Result<u64, StoreError> {
        assert_eq!(message.events, stamp.count);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let answer = self.0.lock().unwrap().ask(stamp, after);
        tokio::time::sleep(Duration::from_millis(1)).await;
        answer
    }
}

/// Reads the log for one replica, so many milliseconds behind.
async fn follow(log: Weak<Mutex<Log>>, replica: u64, tail: watch::Sender<Tail>, behind_ms: u64) {
    let mut read = 0;
    while let Some(log) = log.upgrade() {
        let stored = log.lock().unwrap().stored.get(read).copied();
        drop(log);
        let wait_ms = match stored {
            Some(_) => behind_ms,
            None => 1,
        };
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        let Some((stamp, message)) = stored else {
            continue;
        };
        read += 1;
        tail.send_modify(|tail| {
            tail.position = Position {
                message,
                events: stamp.last(),
            };
            tail.newest_at = Some(Instant::now());
            if stamp.nonce.replica == replica {
                tail.own = Some((stamp.nonce.attempt, stamp.first));
            }
        });
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::Request),
        1 => Just(Fault::Answer),
        1 => (1..6u8).prop_map(Fault::Late),
        1 => Just(Fault::Refused),
    ]
}

type Outcome = (usize, Result<Published, AppendError>);

/// Publishes batches of these sizes at one replica, three at a time. Nothing behind one that
/// failed may be stored.
async fn produce(mut caller: Caller, sizes: Vec<usize>) -> Vec<Outcome> {
    let event = Event::parse(EVENT).unwrap();
    let mut outcomes = Vec::new();
    let mut pending = VecDeque::new();
    let mut sizes = sizes.into_iter().peekable();
    while sizes.peek().is_some() || !pending.is_empty() {
        while pending.len() < 3
            && let Some(size) = sizes.next()
        {
            match caller.append(&vec![event; size]) {
                Ok(appended) => pending.push_back((size, appended)),
                Err(refused) => outcomes.push((size, Err(refused))),
            }
        }
        let Some((size, first)) = pending.pop_front() else {
            continue;
        };
        let outcome = first.await;
        let has_failed = outcome.is_err();
        outcomes.push((size, outcome));
        if has_failed {
            for (size, appended) in pending.drain(..) {
                let outcome = appended.await;
                assert!(outcome.is_err(), "{outcome:?} behind a failure");
                outcomes.push((size, outcome));
            }
        }
    }
    outcomes
}

fn run(replicas: usize, sizes: &[Vec<usize>], faults: Vec<Fault>, behind_ms: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let epoch = Epoch::new(1, 0).unwrap();
        let log = Arc::new(Mutex::new(Log {
            stored: Vec::new(),
            late: Vec::new(),
            faults,
            asked: 0,
        }));
        let mut tasks = JoinSet::new();
        let mut producers = JoinSet::new();
        let mut queues = Vec::new();
        for replica in 0..replicas as u64 {
            let queue = Arc::new(Queue::new(5 * encoded_bytes(EVENT.len())));
            let (sender, tail) = watch::channel(Tail::default());
            tasks.spawn(follow(Arc::downgrade(&log), replica, sender, behind_ms));
            let writer = Writer {
                store: Shared(Arc::clone(&log)),
                queue: Arc::clone(&queue),
                tail,
                epoch,
                position: Position::default(),
                nonce: Nonce {
                    replica,
                    attempt: 1,
                },
                // Now and then, in the midst of it all.
                keep: Some(Duration::from_millis(40)),
            };
            tasks.spawn(async move {
                let misplaced = writer.run().await;
                panic!("{misplaced}");
            });
            queues.push(queue);
        }
        for (at, sizes) in sizes.iter().enumerate() {
            let caller = Caller::new(&queues[at % replicas]);
            producers.spawn(produce(caller, sizes.clone()));
        }
        let outcomes = producers.join_all().await;
        let log = log.lock().unwrap();
        check(&log, &outcomes);
    });
}

fn check(log: &Log, outcomes: &[Vec<Outcome>]) {
    let mut next = 1;
    for (stamp, _) in &log.stored {
        assert_eq!(stamp.first, next, "numbers are dense");
        next += stamp.count;
    }
    let total = next - 1;
    let mut taken = vec![false; total as usize];
    let mut undecided = 0;
    for outcomes in outcomes {
        let mut before = 0;
        for (size, outcome) in outcomes {
            match outcome {
                Ok(Published { first, last }) => {
                    let [first, last] = [first, last].map(|cursor| cursor.seq().number());
                    assert_eq!(last - first + 1, *size as u64);
                    assert!(first > before, "one producer's batches are in its order");
                    before = last;
                    for seq in first..=last {
                        let place = taken.get_mut(seq as usize - 1);
                        let place = place.expect("what was answered is stored");
                        assert!(!std::mem::replace(place, true), "{seq} was given once");
                    }
                }
                Err(AppendError::Undecided) => undecided += size,
                Err(AppendError::Unavailable { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    let unaccounted = taken.iter().filter(|taken| !**taken).count();
    assert!(
        unaccounted <= undecided,
        "{unaccounted} events are stored that nobody was told of, {undecided} were left open"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_answered_is_stored_once_and_in_order(
        replicas in 1..4usize,
        sizes in prop::collection::vec(prop::collection::vec(1..5usize, 1..8), 1..6),
        faults in prop::collection::vec(fault(), 0..60),
        behind_ms in 0..30u64,
    ) {
        run(replicas, &sizes, faults, behind_ms);
    }
}

#[test]
fn a_stream_that_takes_nothing_is_told_and_nothing_is_left_behind() {
    run(1, &[vec![1; 3]], vec![Fault::Refused; 2000], 0);
    run(2, &[vec![1; 3], vec![2; 3]], vec![Fault::Request; 1000], 0);
}
