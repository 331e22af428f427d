//! What each process has reported, and what follows from it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Processes of one gateway id: one, and those that it has replaced within the last minutes.
const MAX_PROCESSES: usize = 64;

/// What a process has reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// The sequence up to which it has enforced.
    pub(crate) enforced: u64,
    pub(crate) lease: Lease,
}

/// A process of a gateway.
#[derive(Clone, Debug)]
pub(crate) struct Who<'a> {
    pub(crate) id: &'a str,
    pub(crate) instance: &'a str,
    /// Who it is, where it matters.
    pub(crate) principal: Option<Arc<str>>,
}

/// How long a process serves without an answer to a later report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lease(pub(crate) Duration);

impl Lease {
    /// When it has ended for certain, if it was begun before now. Some clocks are read to ten
    /// milliseconds, and one that is being set right may run a twelfth slower than it should (chrony's
    /// default `maxslewrate`).
    fn ends(self, now: Duration) -> Duration {
        let slack = self.0 / 10 + Duration::from_millis(100);
        now.saturating_add(self.0).saturating_add(slack)
    }
}

/// Why a report does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReportError {
    /// It has enforced what was not published.
    #[error("the enforced cursor is beyond the newest event")]
    BeyondHead,
    /// It had enforced more before.
    #[error(
        "the enforced cursor has gone back from sequence {before}: does another process report \
         under this instance?"
    )]
    WentBack { before: u64 },
    /// It has no stream, or somebody else has.
    #[error("no stream of this gateway_client_id and this push-instance is yours")]
    NotSubscribed,
    /// Too many processes report under the id.
    #[error("{limit} processes have reported under this gateway_client_id within their leases")]
    TooManyProcesses { limit: usize },
    /// Too many processes report at all.
    #[error("{limit} processes have reported within their leases")]
    TooMany { limit: usize },
}

/// A process that may serve somebody whom it should not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Behind {
    pub(crate) id: Arc<str>,
    pub(crate) instance: Arc<str>,
}

/// What is known of the enforcement of something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proof {
    /// How many processes have enforced it.
    pub(crate) enforced: usize,
    /// How many refuse everything instead.
    pub(crate) fenced: usize,
    /// Those of which neither is known.
    pub(crate) behind: Vec<Behind>,
    /// Gateways that have left, and have never reported.
    pub(crate) left: Vec<Arc<str>>,
    /// Others that nobody knows of may be there until then.
    pub(crate) known_from: Option<Duration>,
    /// When more will be known without a report.
    pub(crate) next: Option<Duration>,
}

/// How many are remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Max {
    /// Processes that report, or have reported of late.
    pub(crate) processes: usize,
    /// Gateways that have left and never reported.
    pub(crate) left: usize,
}

/// All processes that report.
#[derive(Debug)]
pub(super) struct Registry {
    /// By gateway id.
    processes: HashMap<Arc<str>, Vec<Process>>,
    count: usize,
    max: Max,
    next_number: u64,
    /// When a process is to be looked at again, and its number.
    due: BTreeMap<(Duration, u64), Arc<str>>,
    /// How many processes within their leases are sure of how much.
    sure: BTreeMap<u64, usize>,
    /// Gateways that have left and never reported, and when they are forgotten.
    left: HashMap<Arc<str>, (Duration, u64)>,
    /// In that order.
    leaving: BTreeMap<(Duration, u64), Arc<str>>,
    /// There may be processes of which nothing is known until then.
    known_from: Duration,
    longest: Lease,
}

#[derive(Debug)]
struct Process {
    number: u64,
    instance: Arc<str>,
    /// Who it is, where it matters.
    principal: Option<Arc<str>>,
    enforced: u64,
    /// If it serves anybody, it has enforced so much.
    sure: u64,
    lease: Lease,
    reported_at: Duration,
    /// Its lease has ended.
    is_fenced: bool,
    /// It has said that it serves nobody any more.
    has_left: bool,
    due: Duration,
}

impl Registry {
    /// Of a server that has started now, for leases up to `longest`.
    pub(super) fn new(now: Duration, max: Max, longest: Lease) -> Self {
        Registry {
            processes: HashMap::new(),
            count: 0,
            max,
            next_number: 0,
            due: BTreeMap::new(),
            sure: BTreeMap::new(),
            left: HashMap::new(),
            leaving: BTreeMap::new(),
            known_from: longest.ends(now),
            longest,
        }
    }

    /// Takes a report that has come now, and is answered with `head`. Returns what the process had
    /// enforced before, if it has reported before and its lease has not ended.
    ///
    /// Of a process that is not known, or of another principal, `is_subscribed` says whether it has
    /// a stream.
    pub(super) fn report(
        &mut self,
        now: Duration,
        who: Who<'_>,
        report: Report,
        head: u64,
        is_subscribed: impl FnOnce() -> bool,
    ) -> Result<Option<u64>, ReportError> {
        let Who { id, instance, .. } = who;
        self.sweep(now);
        let Report { enforced, lease } = report;
        if enforced > head {
            return Err(ReportError::BeyondHead);
        }
        let known = self.processes.get_mut(id);
        let known = known.and_then(|of| of.iter_mut().find(|of| *of.instance == *instance));
        let Some(process) = known else {
            if !is_subscribed() {
                return Err(ReportError::NotSubscribed);
            }
            self.insert(now, who, report, head)?;
            return Ok(None);
        };
        if process.principal != who.principal {
            if !is_subscribed() {
                return Err(ReportError::NotSubscribed);
            }
            process.principal = who.principal;
        }
        if enforced < process.enforced {
            let before = process.enforced;
            return Err(ReportError::WentBack { before });
        }
        let was_fenced = process.is_fenced;
        let before = process.enforced;
        if !was_fenced {
            forget(&mut self.sure, process.sure);
        }
        process.sure = match was_fenced {
            // It serves nobody before it has caught up.
            true => head,
            false => process.sure.max(enforced),
        };
        process.enforced = enforced;
        process.is_fenced = false;
        process.has_left = false;
        // An earlier answer holds for as long as it said.
        process.lease = process.lease.max(lease);
        process.reported_at = now;
        let number = process.number;
        let ends = process.lease.ends(now);
        let due = std::mem::replace(&mut process.due, ends);
        *self.sure.entry(process.sure).or_default() += 1;
        if let Some(id) = self.due.remove(&(due, number)) {
            self.due.insert((ends, number), id);
        }
        Ok((!was_fenced).then_some(before))
    }

    fn insert(
        &mut self,
        now: Duration,
        Who {
            id,
            instance,
            principal,
        }: Who<'_>,
        report: Report,
        head: u64,
    ) -> Result<(), ReportError> {
        let of_id = self.processes.get(id);
        if of_id.is_some_and(|of| of.len() >= MAX_PROCESSES) && !self.evict(id) {
            let limit = MAX_PROCESSES;
            return Err(ReportError::TooManyProcesses { limit });
        }
        let limit = self.max.processes;
        if self.count >= limit && !self.evict_any() {
            return Err(ReportError::TooMany { limit });
        }
        let number = self.next_number;
        self.next_number += 1;
        let due = report.lease.ends(now);
        let process = Process {
            number,
            instance: instance.into(),
            principal,
            enforced: report.enforced,
            sure: head,
            lease: report.lease,
            reported_at: now,
            is_fenced: false,
            has_left: false,
            due,
        };
        let id = match self.processes.get_key_value(id) {
            Some((id, _)) => Arc::clone(id),
            None => id.into(),
        };
        *self.sure.entry(head).or_default() += 1;
        self.due.insert((due, number), Arc::clone(&id));
        self.processes.entry(id).or_default().push(process);
        self.count += 1;
        Ok(())
    }

    /// Forgets a process of this id whose lease has ended.
    fn evict(&mut self, id: &str) -> bool {
        let of = self.processes.get(id);
        let fenced = of.and_then(|of| of.iter().find(|process| process.is_fenced));
        let Some((due, number)) = fenced.map(|process| (process.due, process.number)) else {
            return false;
        };
        self.due.remove(&(due, number));
        self.remove(id, number);
        true
    }

    /// Forgets a process whose lease has ended.
    fn evict_any(&mut self) -> bool {
        let mut all = self.processes.iter();
        let fenced = all.find(|(_, of)| of.iter().any(|process| process.is_fenced));
        match fenced.map(|(id, _)| Arc::clone(id)) {
            Some(id) => self.evict(&id),
            None => false,
        }
    }

    /// The process serves nobody from now on. It is remembered for a while: its stream ends later.
    pub(super) fn leave(&mut self, now: Duration, who: &Who<'_>) {
        self.sweep(now);
        let of_id = self.processes.get_mut(who.id);
        let is_it =
            |of: &&mut Process| *of.instance == *who.instance && of.principal == who.principal;
        let Some(process) = of_id.and_then(|of| of.iter_mut().find(is_it)) else {
            return;
        };
        process.has_left = true;
        if !std::mem::replace(&mut process.is_fenced, true) {
            forget(&mut self.sure, process.sure);
        }
        let number = process.number;
        let ends = self.longest.ends(now);
        let due = std::mem::replace(&mut process.due, ends);
        if let Some(id) = self.due.remove(&(due, number)) {
            self.due.insert((ends, number), id);
        }
    }

    fn remove(&mut self, id: &str, number: u64) {
        if let Some(of) = self.processes.get_mut(id) {
            let before = of.len();
            of.retain(|process| process.number != number);
            self.count -= before - of.len();
            if of.is_empty() {
                self.processes.remove(id);
            }
        }
    }

    /// A stream has ended, of a process that may not report.
    pub(super) fn stream_ended(&mut self, now: Duration, id: &str, instance: Option<&str>) {
        self.sweep(now);
        if instance.is_some_and(|instance| self.reports(id, instance)) {
            return;
        }
        if let Some(known) = self.left.get(id) {
            self.leaving.remove(known);
        } else if self.left.len() >= self.max.left {
            // So many cannot be remembered: for a while nobody knows who is there.
            if let Some((_, id)) = self.leaving.pop_first() {
                self.left.remove(&id);
            }
            self.known_from = self.known_from.max(self.longest.ends(now));
        }
        let id: Arc<str> = id.into();
        let key = (self.longest.ends(now), self.next_number);
        self.next_number += 1;
        self.left.insert(Arc::clone(&id), key);
        self.leaving.insert(key, id);
    }

    /// Whether the process has reported, be it that its lease has ended of late.
    pub(super) fn reports(&self, id: &str, instance: &str) -> bool {
        let of_id = self.processes.get(id);
        of_id.is_some_and(|of| of.iter().any(|process| *process.instance == *instance))
    }

    /// What the process has enforced.
    pub(super) fn enforced(&self, id: &str, instance: &str) -> Option<u64> {
        let mut of_id = self.processes.get(id)?.iter();
        let process = of_id.find(|process| *process.instance == *instance)?;
        Some(process.enforced)
    }

    /// All processes within their leases have enforced so much, or serve nobody; `None` if there
    /// is none.
    pub(super) fn least_sure(&self) -> Option<u64> {
        self.sure.keys().next().copied()
    }

    /// How many processes are within their leases, and how many were of late.
    pub(super) fn counts(&self) -> (usize, usize) {
        let within = self.sure.values().sum();
        (within, self.count - within)
    }

    /// What is known of the enforcement of all up to `target`, which was published before `since`.
    pub(super) fn proof(&mut self, now: Duration, target: u64, since: Duration) -> Proof {
        self.sweep(now);
        let mut proof = Proof {
            known_from: (now < self.known_from).then_some(self.known_from),
            ..Proof::default()
        };
        let mut next = proof.known_from;
        let mut at = |moment| next = Some(next.map_or(moment, |next| moment.min(next)));
        for (id, of) in &self.processes {
            for process in of.iter().filter(|process| !process.has_left) {
                let fenced_at = process.lease.ends(process.reported_at.min(since));
                if process.enforced >= target {
                    proof.enforced += 1;
                } else if process.is_fenced || process.sure >= target || fenced_at <= now {
                    proof.fenced += 1;
                } else {
                    at(fenced_at);
                    proof.behind.push(Behind {
                        id: Arc::clone(id),
                        instance: Arc::clone(&process.instance),
                    });
                }
            }
        }
        for (id, (ends, _)) in &self.left {
            at(*ends);
            proof.left.push(Arc::clone(id));
        }
        proof.next = next;
        proof
    }

    /// Fences those whose leases have ended, and forgets those of whom that was some time ago.
    pub(super) fn sweep(&mut self, now: Duration) {
        while let Some(first) = self.due.first_entry()
            && first.key().0 <= now
        {
            let ((due, number), id) = first.remove_entry();
            let of_id = self.processes.get_mut(&id);
            let process = of_id.and_then(|of| of.iter_mut().find(|of| of.number == number));
            match process {
                Some(process) if !process.is_fenced => {
                    process.is_fenced = true;
                    process.due = self.longest.ends(due);
                    forget(&mut self.sure, process.sure);
                    self.due.insert((process.due, number), id);
                }
                _ => self.remove(&id, number),
            }
        }
        while let Some(first) = self.leaving.first_entry()
            && first.key().0 <= now
        {
            self.left.remove(&first.remove());
        }
    }
}

/// One less is sure of so much.
fn forget(sure: &mut BTreeMap<u64, usize>, so_much: u64) {
    if let Some(count) = sure.get_mut(&so_much) {
        *count -= 1;
        if *count == 0 {
            sure.remove(&so_much);
        }
    }
}
