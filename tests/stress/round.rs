//! A round: one engine from its birth to its end, and what all share who take part.

use std::io::{self, Write};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use galaxy_push::cursor::Cursor;
use galaxy_push::engine::Engine;
use galaxy_push::lab::history::{History, Report, Terms};

use crate::gate::Gate;
use crate::random::Random;
use crate::shape::Shape;

/// Only a hang takes longer than this.
const HANG: Duration = Duration::from_secs(120);

/// How a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By `Engine::close`: everybody gets everything.
    Close,
    /// By `Engine::abort`.
    Abort,
}

pub(crate) struct Round<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) ending: Ending,
    pub(crate) engine: Engine,
    pub(crate) history: History,
    /// Publishers are inside of it while they publish.
    pub(crate) gate: Gate,
    pub(crate) counters: Counters,
    seed: u64,
    is_ending: AtomicBool,
    has_panicked: AtomicBool,
    /// Threads that have something to do.
    at_work: AtomicUsize,
}

/// What happens that no history tells.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// How often a reader found nothing and parked.
    pub(crate) parked: AtomicU64,
    /// Batches that were kept for a while and had not changed.
    pub(crate) batches_held: AtomicU64,
    /// Events that were published when everybody waited, and that everybody got.
    pub(crate) wake_ups: AtomicU64,
}

impl<'a> Round<'a> {
    /// Runs a round of those who `take_part`, and checks its history.
    pub(crate) fn run(
        shape: &'a Shape,
        ending: Ending,
        seed: u64,
        take_part: impl FnOnce(&Round<'_>),
    ) -> (Report, Counters) {
        // Few sessions, and room for what slow replays hold.
        let builder = (shape.builder)()
            .max_subscribers(100)
            .max_revocations(20_000);
        let engine = builder.build().expect("the shapes fit");
        let terms = Terms::default().retained_events(shape.retained_events);
        let round = Round {
            shape,
            ending,
            engine,
            history: History::new(terms),
            gate: Gate::default(),
            counters: Counters::default(),
            seed,
            is_ending: AtomicBool::new(false),
            has_panicked: AtomicBool::new(false),
            at_work: AtomicUsize::new(0),
        };
        take_part(&round);
        let stats = round.engine.stats();
        assert_eq!(stats.subscribers, 0, "all have left");
        assert_eq!(stats.pinned_bytes, 0, "nothing is held");
        let limit = round.engine.limits().ring_bytes;
        assert!(stats.ring_bytes <= limit, "{stats:?}");
        (round.history.check(), round.counters)
    }

    /// Closes the engine, or aborts it.
    pub(crate) fn end(&self) {
        match self.ending {
            Ending::Close => self.engine.close(),
            Ending::Abort => self.engine.abort(),
        }
    }

    /// The newest event's number.
    pub(crate) fn head(&self) -> u64 {
        self.engine.head().seq().number()
    }

    /// From now on those may leave who come and go, and nobody takes their time.
    pub(crate) fn begin_ending(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::SeqCst)
    }

    /// The choices of one who takes part.
    pub(crate) fn random(&self, part: usize) -> Random {
        Random::new(self.seed, part as u64)
    }

    /// Does a thread's work, and notes it if that panics: nobody is to wait for it
    /// then.
    pub(crate) fn watched(&self, work: impl FnOnce()) {
        struct Watch<'a, 'b>(&'a Round<'b>);
        impl Drop for Watch<'_, '_> {
            fn drop(&mut self) {
                if thread::panicking() {
                    self.0.has_panicked.store(true, Ordering::SeqCst);
                }
                self.0.at_work.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.at_work.fetch_add(1, Ordering::SeqCst);
        let _watch = Watch(self);
        work();
    }

    /// Waits until the ring cannot have the event after `position` any more. `false`
    /// if that will never be.
    pub(crate) fn has_lagged(&self, position: Cursor) -> bool {
        let beyond = position.seq().number() + self.shape.lagging_events;
        self.comes_true(
            "the ring has dropped what a stalled reader has not read",
            || self.head() >= beyond,
        )
    }

    /// Waits until `condition` holds, but not for ever.
    ///
    /// # Panics
    ///
    /// If somebody else has: all are let go, so that the panic gets to the test.
    pub(crate) fn until(&self, what: &str, condition: impl Fn() -> bool) {
        if self.comes_true(what, condition) {
            return;
        }
        self.begin_ending();
        self.gate.open();
        self.engine.abort();
        let begun = Instant::now();
        while self.at_work.load(Ordering::SeqCst) > 0 {
            if begun.elapsed() > HANG {
                self.hang("all have left, for somebody panicked");
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("{}, seed {}: somebody panicked", self.shape.name, self.seed);
    }

    /// Waits until `condition` holds, or `false`: somebody panicked.
    pub(crate) fn comes_true(&self, what: &str, condition: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        let mut looked = 0;
        while !condition() {
            looked += 1;
            match looked {
                _ if self.has_panicked.load(Ordering::SeqCst) => return false,
                0..1000 => thread::yield_now(),
                _ if begun.elapsed() < HANG => thread::sleep(Duration::from_micros(200)),
                _ => self.hang(what),
            }
        }
        true
    }

    /// Ends the process: threads that wait for ever cannot be joined.
    fn hang(&self, what: &str) -> ! {
        let (shape, seed, head) = (self.shape.name, self.seed, self.head());
        let found = self.history.so_far();
        // Not by `eprintln`: the harness would keep that for the end of the test.
        let _ = writeln!(
            io::stderr(),
            "{shape}, seed {seed}: hangs, waiting until {what}; the head is {head}\n{found}"
        );
        process::exit(1)
    }
}
