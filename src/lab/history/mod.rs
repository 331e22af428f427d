//! A history of the responses that publishers got and of what gateways received, and
//! whether every promise of the engine was kept in it.
//!
//! A test lets publishers and gateways loose on an engine, or on a server, and has
//! each of them record what happens to it: [`Publisher`] and [`Stream`] are the two
//! ends of the record. [`History::check`] then names each promise that was broken, to
//! whom and where: a [`Violation`] each.
//!
//! # The promises
//!
//! | promise | broken by |
//! |---|---|
//! | A stream is ordered and has no event twice. | [`WentBack`](Violation::WentBack) |
//! | It has no hole, but for gaps that were announced, | [`Skipped`](Violation::Skipped) |
//! | with their exact size. | [`Miscounted`](Violation::Miscounted), [`EmptyGap`](Violation::EmptyGap) |
//! | It is of one epoch. | [`EpochChanged`](Violation::EpochChanged) |
//! | Its events are what their publishers published. | [`Contents`](Violation::Contents), [`Unpublished`](Violation::Unpublished) |
//! | A refused batch leaves no trace. | [`Refused`](Violation::Refused) |
//! | A batch is there as a whole, or not at all, and becomes visible at once. | [`Torn`](Violation::Torn), [`StartsInsideBatch`](Violation::StartsInsideBatch) |
//! | A stream starts as its decision says. | [`ResumedElsewhere`](Violation::ResumedElsewhere), [`WrongDecision`](Violation::WrongDecision) |
//! | What the ring retains can be resumed at. | [`ExpiredTooSoon`](Violation::ExpiredTooSoon) |
//! | A fresh start is the head. | [`StartsBehind`](Violation::StartsBehind), [`PastTheHead`](Violation::PastTheHead), [`ResponseBehind`](Violation::ResponseBehind) |
//! | A closed stream is complete. | [`ClosedEarly`](Violation::ClosedEarly) |
//! | A stream is taken over by a newer one only, | [`TakenOverByNobody`](Violation::TakenOverByNobody) |
//! | and is over when that one is granted. | [`OutlivedTakeover`](Violation::OutlivedTakeover) |
//! | A batch stands in a place of its own, of its size, | [`ResponseSize`](Violation::ResponseSize), [`GivenTwice`](Violation::GivenTwice) |
//! | after everything that was known before it was published; epochs grow, as they do while no clock is set back. | [`ResponseBehind`](Violation::ResponseBehind) |
//! | A replay of revocations has the newest of each session, as they were when the stream started, in order, | [`WrongRevocation`](Violation::WrongRevocation) |
//! | and none between the gateway's cursor and the start is missing when it was said to be complete. | [`MissingRevocation`](Violation::MissingRevocation) |
//! | Sequences are dense. | [`Hole`](Violation::Hole) |
//!
//! Not a promise of a history is that anything happens at all: that whoever waits is
//! woken is for the test to see.
//!
//! # How it is done
//!
//! The responses to publishers are written into a *ledger*: a word for each
//! sequence; which of them are invalidations, and of which session, stands beside it. A stream is checked while it is recorded, event by event, against the
//! position where it was and against the ledger; what it receives before the response
//! is written waits with the stream. So memory is 8 bytes an event, less with
//! [`History::forget_before`], a few words for each stream, and the fingerprints of
//! what was refused or left without a response.
//!
//! What can be said about *before* and *after* rests on the calls: what was known
//! before a publish or a subscription was begun ([`Publisher::publishing`],
//! [`History::subscribing`]) must come before what its response names.
//!
//! It knows cursors and nothing else of this crate, so that what came over a network
//! can be recorded as well as what came straight from an engine.
//!
//! ```
//! use galaxy_push::cursor::{Cursor, Epoch, Seq};
//! use galaxy_push::lab::history::{Decision, End, Fingerprint, History};
//!
//! let cursor = |seq| Cursor::new(Epoch::MAX, Seq::new(seq));
//! let event = Fingerprint::of(b"the event's bytes");
//! let history = History::default();
//!
//! let subscribing = history.subscribing("gateway-1", "");
//! // … the gateway subscribes …
//! let mut stream = subscribing.granted(Decision::NoCursor, cursor(0));
//!
//! let mut publisher = history.publisher("publisher-1");
//! let publishing = publisher.publishing();
//! // … it publishes …
//! publisher.accepted(publishing, cursor(1), cursor(1), &[event]);
//!
//! stream.received([(cursor(1), event), (cursor(1), event)]);
//! stream.ended(End::Cut);
//!
//! drop(publisher);
//! let report = history.check();
//! assert_eq!(
//!     report.violations[0].to_string(),
//!     "gateway-1 (stream 1): ZZZZZZZZZZZZ-00000000001 came after \
//!      ZZZZZZZZZZZZ-00000000001: out of order, or a second time"
//! );
//! ```

mod fingerprint;
mod ledger;
mod lost;
mod publisher;
mod record;
mod report;
mod revocations;
mod start;
mod stream;
mod summary;
mod takeover;
mod verdict;
mod violation;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;

pub use self::fingerprint::Fingerprint;
pub use self::publisher::{Publisher, Publishing};
pub use self::report::Report;
pub use self::start::{Decision, Requested};
pub use self::stream::{End, Stream, Subscribing};
pub use self::summary::Summary;
pub use self::violation::{StreamId, Violation};

use self::ledger::Ledger;
use self::lost::LostBatch;
use self::record::EpochRecord;
use self::report::Findings;
use self::takeover::Takeovers;
use crate::cursor::{Cursor, Epoch};

/// What a history is to be judged by, besides the promises themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    retained_events: u64,
    after: Option<Cursor>,
    other_publishers: bool,
}

impl Terms {
    /// How many of the newest events can surely be resumed at: the least that the
    /// ring holds inside the window, whatever the events' sizes, and less by what may
    /// be published while a subscription is being decided. Default 0: a cursor may
    /// expire at any time.
    #[must_use]
    pub fn retained_events(mut self, events: u64) -> Self {
        self.retained_events = events;
        self
    }

    /// The record begins after this cursor: nothing is known of the events up to it.
    /// Default: it begins with the first event of an epoch.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Whether there are publishers that record nothing here. Default: no, and then an
    /// event that nobody recorded is a violation.
    #[must_use]
    pub fn other_publishers(mut self, others: bool) -> Self {
        self.other_publishers = others;
        self
    }
}

/// The record of one run, by all who take part in it. Cheap to clone: all clones are
/// the same history.
#[derive(Clone, Debug)]
pub struct History {
    shared: Arc<Shared>,
}

impl Default for History {
    fn default() -> Self {
        History::new(Terms::default())
    }
}

impl History {
    /// An empty one.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        History {
            shared: Arc::new(Shared {
                terms,
                epochs: Mutex::default(),
                newest: ArcSwapOption::empty(),
                takeovers: Takeovers::default(),
                refused: Mutex::default(),
                lost: Mutex::default(),
                findings: Findings::default(),
                summary: Mutex::default(),
            }),
        }
    }

    /// The record of a publisher, which violations call by this name.
    #[must_use]
    pub fn publisher(&self, name: &str) -> Publisher {
        Publisher::new(Arc::clone(&self.shared), name.into())
    }

    /// Call this right before a gateway subscribes, with the text of the cursor that
    /// it asks for.
    pub fn subscribing(&self, gateway_id: &str, cursor: &str) -> Subscribing {
        Subscribing::new(Arc::clone(&self.shared), gateway_id, cursor)
    }

    /// Gives memory back: what was published before `cursor` is compared no more, only
    /// counted as [unverified](Summary::unverified_events) when it is received after
    /// all. What is still to be explained is kept.
    pub fn forget_before(&self, cursor: Cursor) {
        let record = self.shared.record(cursor.epoch());
        record.ledger.forget_before(cursor.seq().number());
    }

    /// What was found so far, while it goes on. What needs the whole history is left
    /// to [`check`](Self::check).
    #[must_use]
    pub fn so_far(&self) -> Report {
        let summary = *lock(&self.shared.summary);
        self.shared.findings.found().report(summary)
    }

    /// Judges the whole history. Call it when every publisher was dropped and every
    /// stream has ended: of those that go on, what is written already counts.
    #[must_use]
    pub fn check(&self) -> Report {
        verdict::verdict(&self.shared)
    }
}

/// What all parts of a history share.
#[derive(Debug)]
struct Shared {
    terms: Terms,
    epochs: Mutex<BTreeMap<Epoch, Arc<EpochRecord>>>,
    newest: ArcSwapOption<EpochRecord>,
    takeovers: Takeovers,
    /// Events of refused batches, and whose they are.
    refused: Mutex<HashMap<Fingerprint, Arc<str>>>,
    lost: Mutex<Vec<LostBatch>>,
    findings: Findings,
    summary: Mutex<Summary>,
}

impl Shared {
    /// The record of an epoch, begun if there is none.
    fn record(&self, epoch: Epoch) -> Arc<EpochRecord> {
        let mut epochs = lock(&self.epochs);
        if let Some(record) = epochs.get(&epoch) {
            return Arc::clone(record);
        }
        let base = match self.terms.after {
            Some(after) if after.epoch() == epoch => after.seq().number(),
            _ => 0,
        };
        let ledger = Ledger::new(base, !self.terms.other_publishers);
        let record = Arc::new(EpochRecord::new(epoch, ledger));
        epochs.insert(epoch, Arc::clone(&record));
        let newest = epochs
            .last_key_value()
            .map(|(_, newest)| Arc::clone(newest));
        self.newest.store(newest);
        record
    }

    /// The records of all epochs, in their order.
    fn records(&self) -> Vec<Arc<EpochRecord>> {
        lock(&self.epochs).values().map(Arc::clone).collect()
    }

    /// The newest cursor that anybody knows of.
    fn known(&self) -> Option<Cursor> {
        let newest = self.newest.load();
        let newest = newest.as_ref()?;
        let known = newest.accepted.number().max(newest.seen.number());
        Some(newest.cursor(known))
    }

    /// The newest cursor that a stream has come to.
    fn seen(&self) -> Option<Cursor> {
        let newest = self.newest.load();
        let newest = newest.as_ref()?;
        Some(newest.cursor(newest.seen.number()))
    }

    fn count(&self, summary: &Summary) {
        *lock(&self.summary) += *summary;
    }
}

/// What a thread that panicked has left is a record still.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
