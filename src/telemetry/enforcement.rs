//! What gateways have reported of session invalidations, and who waits for it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use tonic::Code;

use super::Telemetry;
use super::count::Labelled;
use super::delays::{Delays, Histogram, Stamp};
use super::gateways::Gateway;
use crate::clock::SystemClock;
use crate::cursor::{Cursor, Seq};
use crate::receipts::{Max, Receipts, Report, ReportError, Wait, Who};

/// For each gateway that may be subscribed so many processes may report: those count that were
/// replaced, until their leases end.
const PROCESSES: usize = 4;
/// And some more, where few may.
const MORE_PROCESSES: usize = 64;

/// The receipts of a server, and what is counted of them.
#[derive(Debug)]
pub(super) struct Enforcements {
    receipts: Receipts,
    delays: Delays,
    /// By status code.
    reports: Labelled<i32>,
    waits: Labelled<Waited>,
}

/// How a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Waited {
    /// It is certain that all have enforced it.
    Proven,
    /// It is not.
    Unproven,
    /// The call has ended before.
    Abandoned,
}

impl Waited {
    pub(crate) const ALL: [Waited; 3] = [Waited::Proven, Waited::Unproven, Waited::Abandoned];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Waited::Proven => "proven",
            Waited::Unproven => "unproven",
            Waited::Abandoned => "abandoned",
        }
    }
}

/// What is known of the enforcement of an invalidation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Enforcement {
    pub(crate) enforced: usize,
    pub(crate) fenced: usize,
    pub(crate) missing: Vec<Missing>,
    /// For how long nobody can know who else there is.
    pub(crate) unknown: Duration,
    /// How long it is until more is known without a report.
    pub(crate) next_in: Option<Duration>,
    /// The event cannot be read yet.
    is_unpublished: bool,
}

impl Enforcement {
    /// Of what nobody can have: it may be that it never was published.
    pub(crate) fn unpublished() -> Self {
        Enforcement {
            is_unpublished: true,
            ..Enforcement::default()
        }
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.missing.is_empty() && self.unknown.is_zero() && !self.is_unpublished
    }
}

/// A gateway that may serve a session which was revoked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Missing {
    pub(crate) id: Arc<str>,
    pub(crate) instance: Option<Arc<str>>,
    pub(crate) reason: MissingReason,
}

/// Why it is not known whether a gateway has enforced something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MissingReason {
    /// It has reported, and not so far.
    Behind,
    /// It is subscribed, and does not report.
    NoReports,
    /// It has never reported, and has left.
    Left,
}

impl Enforcements {
    pub(super) fn new(
        delay_bounds: &[Duration],
        max_subscribers: usize,
        max_lease: Duration,
    ) -> Self {
        let processes = max_subscribers.saturating_mul(PROCESSES);
        let max = Max {
            processes: processes.saturating_add(MORE_PROCESSES),
            left: max_subscribers.saturating_add(MORE_PROCESSES),
        };
        Enforcements {
            receipts: Receipts::new(SystemClock::new(), max, max_lease),
            delays: Delays::new(delay_bounds),
            reports: Labelled::default(),
            waits: Labelled::default(),
        }
    }

    /// An invalidation was published.
    pub(super) fn published(&self, seq: Seq) {
        if let Some(stamp) = self.delays.begin() {
            self.delays.published(seq.number(), stamp);
        }
    }

    /// The next invalidation is to be sampled.
    pub(super) fn want(&self) {
        self.delays.want();
    }
}

impl Telemetry {
    /// What gateways have reported.
    pub(crate) fn receipts(&self) -> &Receipts {
        &self.shared.enforcements.receipts
    }

    /// A gateway's process reports. Returns the head that it is to be answered with.
    ///
    /// # Errors
    ///
    /// The report does not count.
    pub(crate) fn report(&self, who: Who<'_>, report: Report) -> Result<Cursor, ReportError> {
        let of = &self.shared.enforcements;
        let engine = self.engine();
        let head = || engine.head().seq().number();
        let (id, instance, principal) = (who.id, who.instance, who.principal.clone());
        let is_subscribed = || {
            let gateways = self.gateway(id);
            let mut gateways = gateways.iter();
            gateways
                .any(|of| of.instance() == Some(instance) && of.principal() == principal.as_deref())
        };
        let (head, before) = of.receipts.report(who, report, head, is_subscribed)?;
        of.reports.add(Code::Ok as i32, 1);
        if let Some(before) = before
            && of.delays.newest() > before
        {
            of.delays
                .delivered(before, report.enforced, Stamp::earliest());
        }
        Ok(Cursor::new(engine.head().epoch(), Seq::issued(head)))
    }

    /// A report was refused with this code.
    pub(crate) fn report_refused(&self, code: Code) {
        self.shared.enforcements.reports.add(code as i32, 1);
    }

    /// Somebody has waited.
    pub(crate) fn waited(&self, how: Waited) {
        self.shared.enforcements.waits.add(how, 1);
    }

    /// What is known of what somebody waits for. Before that, `waker` is to be woken when all that
    /// report have enforced it.
    pub(crate) fn enforcement(&self, wait: &Wait, waker: &Waker) -> Enforcement {
        // The subscribed ones first: one that leaves meanwhile has left, or reports.
        let subscribed = self.gateways();
        let silent: Vec<_> = self.without_reports(&subscribed).collect();
        let proof = wait.look(waker);
        let mut missing: Vec<Missing> = proof
            .behind
            .into_iter()
            .map(|process| Missing {
                id: process.id,
                instance: Some(process.instance),
                reason: MissingReason::Behind,
            })
            .collect();
        let mut here = HashSet::new();
        for gateway in silent {
            here.insert(gateway.id());
            missing.push(Missing {
                id: gateway.id().into(),
                instance: gateway.instance().map(Arc::from),
                reason: MissingReason::NoReports,
            });
        }
        let left = proof.left.into_iter().filter(|id| !here.contains(&**id));
        missing.extend(left.map(|id| Missing {
            id,
            instance: None,
            reason: MissingReason::Left,
        }));
        missing.sort_unstable();
        missing.dedup();
        Enforcement {
            enforced: proof.enforced,
            fenced: proof.fenced,
            missing,
            unknown: proof
                .known_from
                .map_or(Duration::ZERO, |from| wait.until(from)),
            next_in: proof.next.map(|next| wait.until(next)),
            is_unpublished: false,
        }
    }

    /// Those of these gateways whose processes do not report.
    pub(crate) fn without_reports<'a>(
        &self,
        gateways: &'a [Arc<Gateway>],
    ) -> impl Iterator<Item = &'a Arc<Gateway>> + use<'a> {
        let processes = gateways.iter().map(|of| (of.id(), of.instance()));
        let reports = self.receipts().report_all(processes);
        let both = gateways.iter().zip(reports);
        both.filter(|(_, reports)| !reports).map(|(of, _)| of)
    }

    /// What a gateway's process has enforced, if it reports.
    pub(crate) fn enforced(&self, gateway: &Gateway) -> Option<Cursor> {
        let enforced = self
            .receipts()
            .enforced(gateway.id(), gateway.instance()?)?;
        let epoch = self.engine().head().epoch();
        Some(Cursor::new(epoch, Seq::issued(enforced)))
    }

    /// Reports, by the number of the status code that they were answered with.
    pub(crate) fn reports(&self) -> BTreeMap<i32, u64> {
        self.shared.enforcements.reports.all()
    }

    /// How many have waited, and how that has ended.
    pub(crate) fn waits(&self, how: Waited) -> u64 {
        let all = self.shared.enforcements.waits.all();
        all.get(&how).copied().unwrap_or(0)
    }

    /// From an invalidation's publishing until a gateway's report that it has enforced it, sampled.
    pub(crate) fn enforcement_delays(&self) -> &Histogram {
        self.shared.enforcements.delays.histogram()
    }
}
