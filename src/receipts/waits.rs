//! Whoever waits until all have enforced something.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use super::registry::{Lease, Max, Proof, Registry, Report, ReportError, Who};
use crate::clock::Clock;

/// How many may wait at once: each looks at all processes several times a second.
const MAX_WAITS: usize = 256;

/// What gateways have reported, and who waits for it. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub(crate) struct Receipts {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    longest: Lease,
    clock: Box<dyn Clock>,
}

#[derive(Debug)]
struct State {
    registry: Registry,
    /// How many wait.
    waits: usize,
    next_number: u64,
    /// Those that are to be woken when all are sure of so much.
    wakers: BTreeMap<(u64, u64), Waker>,
}

/// Too many wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit} calls wait for gateways already")]
pub(crate) struct TooManyWaits {
    pub(crate) limit: usize,
}

impl Receipts {
    /// Of a server that starts now, for leases up to `longest`.
    pub(crate) fn new(clock: impl Clock + 'static, max: Max, longest: Duration) -> Self {
        let longest = Lease(longest);
        let registry = Registry::new(clock.now(), max, longest);
        Receipts {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    registry,
                    waits: 0,
                    next_number: 0,
                    wakers: BTreeMap::new(),
                }),
                longest,
                clock: Box::new(clock),
            }),
        }
    }

    /// The longest lease that a process may have.
    pub(crate) fn longest_lease(&self) -> Duration {
        self.shared.longest.0
    }

    /// Takes the report of a process, which has a stream if `is_subscribed` says so. Returns the head
    /// that it is to be answered with, and what the process had enforced before, if that is known.
    ///
    /// `head` reads the newest event's sequence. It is asked when nobody can begin to wait: what is
    /// waited for before a report is not beyond the head that it is answered with.
    ///
    /// # Errors
    ///
    /// The report does not count.
    pub(crate) fn report(
        &self,
        who: Who<'_>,
        report: Report,
        head: impl FnOnce() -> u64,
        is_subscribed: impl FnOnce() -> bool,
    ) -> Result<(u64, Option<u64>), ReportError> {
        let mut state = self.lock();
        let head = head();
        let before =
            state
                .registry
                .report(self.shared.clock.now(), who, report, head, is_subscribed)?;
        wake(state);
        Ok((head, before))
    }

    /// The process serves nobody from now on.
    pub(crate) fn leave(&self, who: &Who<'_>) {
        let mut state = self.lock();
        state.registry.leave(self.shared.clock.now(), who);
        wake(state);
    }

    /// A gateway's stream has ended. If its process has never reported, it may still serve.
    pub(crate) fn stream_ended(&self, id: &str, instance: Option<&str>) {
        let mut state = self.lock();
        let now = self.shared.clock.now();
        state.registry.stream_ended(now, id, instance);
    }

    /// Whether each of these processes reports.
    pub(crate) fn report_all<'a>(
        &self,
        processes: impl Iterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Vec<bool> {
        let state = self.lock();
        let reports = |(id, instance)| state.registry.reports(id, instance?).then_some(());
        processes.map(|of| reports(of).is_some()).collect()
    }

    /// What a process has enforced.
    pub(crate) fn enforced(&self, id: &str, instance: &str) -> Option<u64> {
        self.lock().registry.enforced(id, instance)
    }

    /// How many processes are within their leases, and how many were of late.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let mut state = self.lock();
        state.registry.sweep(self.shared.clock.now());
        state.registry.counts()
    }

    /// Waits for the enforcement of all up to this event, which can be read: the head is there or
    /// beyond.
    ///
    /// # Errors
    ///
    /// Too many wait.
    pub(crate) fn wait(&self, target: u64) -> Result<Wait, TooManyWaits> {
        let mut state = self.lock();
        if state.waits >= MAX_WAITS {
            return Err(TooManyWaits { limit: MAX_WAITS });
        }
        state.waits += 1;
        state.next_number += 1;
        Ok(Wait {
            number: state.next_number,
            target,
            since: self.shared.clock.now(),
            receipts: self.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is half done where this could panic.
        let locked = self.shared.state.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes those whose events all are sure of.
fn wake(mut state: MutexGuard<'_, State>) {
    let sure = state.registry.least_sure().unwrap_or(u64::MAX);
    let mut woken = Vec::new();
    while let Some(first) = state.wakers.first_entry()
        && first.key().0 <= sure
    {
        woken.push(first.remove());
    }
    drop(state);
    woken.into_iter().for_each(Waker::wake);
}

/// Somebody who waits.
pub(crate) struct Wait {
    receipts: Receipts,
    number: u64,
    target: u64,
    since: Duration,
}

impl Wait {
    /// What is known now. Before that, `waker` is to be woken when all that report have enforced
    /// it, if they have not.
    pub(crate) fn look(&self, waker: &Waker) -> Proof {
        let mut state = self.receipts.lock();
        let now = self.receipts.shared.clock.now();
        let proof = state.registry.proof(now, self.target, self.since);
        let key = (self.target, self.number);
        match proof.behind.is_empty() {
            true => drop(state.wakers.remove(&key)),
            false => drop(state.wakers.insert(key, waker.clone())),
        }
        proof
    }

    /// How long it is until this moment.
    pub(crate) fn until(&self, moment: Duration) -> Duration {
        moment.saturating_sub(self.receipts.shared.clock.now())
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut state = self.receipts.lock();
        state.waits -= 1;
        let waker = state.wakers.remove(&(self.target, self.number));
        drop(state);
        drop(waker);
    }
}

impl fmt::Debug for Receipts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipts")
            .field("longest", &self.shared.longest)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait")
            .field("target", &self.target)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}
