//! [`Reporter`]: when a driver reports what its router has enforced, and what comes of it.

use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tonic::{Code, Status};

use super::leases::Leases;
use crate::client::{ErrorReason, error_info, retry_delay};
use crate::contract::details::DOMAIN;
use crate::contract::lease;
use crate::cursor::Cursor;

/// The shortest pause between two reports: invalidations that come meanwhile share the next.
const MIN_PAUSE: Duration = Duration::from_millis(10);
/// And no shorter than so many times what the last one has taken: a server that is busy is not to be
/// kept so.
const ROUND_TRIPS: u32 = 8;
/// But such a pause is no longer.
const MAX_BUSY_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause where events have come since the last report.
const MOVED_PAUSE: Duration = Duration::from_secs(1);
/// So often within its lease a router reports at least.
const REPORTS_IN_LEASE: u32 = 4;

/// An answer that has yet to come: the head.
type Answer = Pin<Box<dyn Future<Output = Result<Cursor, Status>> + Send>>;

/// Reports, one at a time.
pub(super) struct Reporter {
    lease: Duration,
    leases: Leases,
    under_way: Option<UnderWay>,
    /// What was reported last.
    reported: Option<Cursor>,
    last: Instant,
    round_trip: Duration,
    /// An invalidation was enforced since.
    is_urgent: bool,
    /// The server has refused a report: nothing is reported before then.
    not_before: Instant,
    server: Server,
    /// Why it has refused the last report.
    refused: Option<String>,
    is_required: bool,
}

struct UnderWay {
    sent: Duration,
    enforced: Cursor,
    answer: Answer,
}

/// Whether the server takes reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Unknown,
    TakesReports,
    TakesNone,
}

/// What there is to do.
#[derive(Debug)]
pub(super) enum Turn {
    /// A report is to be sent.
    Due,
    Answered(Result<Cursor, Status>),
}

/// What an answer means for the router.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// All that was published before this moment is enforced.
    Known(Duration),
    /// The server takes no reports.
    NoReports,
    /// The server takes no leases that are longer.
    Shorter(Duration),
    Nothing,
}

impl Reporter {
    pub(super) fn new(lease: Duration) -> Self {
        let now = Instant::now();
        Reporter {
            lease,
            leases: Leases::new(lease),
            under_way: None,
            reported: None,
            last: now,
            round_trip: Duration::ZERO,
            is_urgent: true,
            not_before: now,
            server: Server::Unknown,
            refused: None,
            is_required: false,
        }
    }

    /// Has a router that cannot report refuse everything, also where the server takes no reports.
    pub(super) fn require(&mut self, is_required: bool) {
        self.is_required = is_required;
    }

    /// Whether the server has taken one.
    pub(super) fn has_reported(&self) -> bool {
        self.server == Server::TakesReports
    }

    /// A stream begins, and nothing of it is enforced.
    pub(super) fn begin(&mut self) {
        self.leases.begin();
        self.under_way = None;
        self.reported = None;
        self.is_urgent = true;
        self.not_before = Instant::now();
        if self.server == Server::TakesNone {
            // It may be another one, or a newer one.
            self.server = Server::Unknown;
        }
    }

    /// The router goes by what it hears, on this stream.
    pub(super) fn give_up(&mut self) {
        self.server = Server::TakesNone;
    }

    /// The lease is shorter from now on.
    pub(super) fn shorten(&mut self, lease: Duration) {
        self.lease = lease;
    }

    /// Whether the router may go by what it hears, where the server takes no reports.
    pub(super) fn is_required(&self) -> bool {
        self.is_required
    }

    /// All up to here is enforced; `is_urgent` says that there were invalidations. Returns the moment
    /// before which all that was published is known to be, if that is news.
    pub(super) fn enforced(&mut self, cursor: Cursor, is_urgent: bool) -> Option<Duration> {
        self.is_urgent |= is_urgent;
        self.leases.enforce(cursor)
    }

    /// What is to be reported.
    pub(super) fn report(&self) -> Option<Cursor> {
        self.leases.enforced()
    }

    /// A report of this was sent, at this moment by the router's clock.
    pub(super) fn sent(
        &mut self,
        enforced: Cursor,
        sent: Duration,
        answer: impl Future<Output = Result<Cursor, Status>> + Send + 'static,
    ) {
        self.is_urgent = false;
        self.last = Instant::now();
        self.under_way = Some(UnderWay {
            sent,
            enforced,
            answer: Box::pin(answer),
        });
    }

    /// There is no stream to report on: it is tried again in a moment.
    pub(super) fn not_sent(&mut self) {
        self.not_before = Instant::now() + MOVED_PAUSE;
    }

    /// When the next report is due, where none is under way.
    fn due(&self) -> Option<Instant> {
        let enforced = self.leases.enforced()?;
        if self.server == Server::TakesNone {
            return None;
        }
        let idle = self.lease / REPORTS_IN_LEASE;
        let pause = match self.reported {
            _ if self.is_urgent => {
                let busy = self.round_trip * ROUND_TRIPS;
                MIN_PAUSE.max(busy.min(MAX_BUSY_PAUSE)).min(idle)
            }
            Some(reported) if reported == enforced => idle,
            _ => idle.min(MOVED_PAUSE),
        };
        Some((self.last + pause).max(self.not_before))
    }

    /// Whether there is something to do by now.
    pub(super) fn is_waiting(&self) -> bool {
        self.under_way.is_none() && self.due().is_none_or(|due| Instant::now() < due)
    }

    /// Waits until there is something to do.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(super) async fn turn(&mut self) -> Turn {
        if let Some(under_way) = &mut self.under_way {
            return Turn::Answered(under_way.answer.as_mut().await);
        }
        match self.due() {
            Some(due) if Instant::now() < due => sleep_until(due).await,
            Some(_) => {}
            None => pending().await,
        }
        Turn::Due
    }

    /// The report under way was answered.
    pub(super) fn answered(&mut self, answer: Result<Cursor, Status>) -> Meaning {
        let Some(UnderWay { sent, enforced, .. }) = self.under_way.take() else {
            return Meaning::Nothing;
        };
        self.round_trip = self.last.elapsed();
        let status = match answer {
            Ok(head) => {
                self.server = Server::TakesReports;
                self.refused = None;
                self.reported = Some(enforced);
                let known = self.leases.answer(sent, head);
                return known.map_or(Meaning::Nothing, Meaning::Known);
            }
            Err(status) => status,
        };
        let pause = (self.lease / (2 * REPORTS_IN_LEASE)).min(MOVED_PAUSE);
        let asked = retry_delay(&status).unwrap_or_default().min(self.lease);
        self.not_before = Instant::now() + pause.max(asked);
        let info = error_info(&status).filter(|info| info.domain == DOMAIN);
        // Once for each: it goes on until somebody changes something.
        let reason = info.as_ref().map_or_else(
            || format!("{:?}", status.code()),
            |info| info.reason.clone(),
        );
        if self.refused.as_ref() != Some(&reason) {
            tracing::warn!(
                reason,
                message = status.message(),
                "the server has not taken the report of what is enforced"
            );
            self.refused = Some(reason);
        }
        let limit = info
            .filter(|info| info.is(ErrorReason::DurationNotAllowed))
            .and_then(|info| info.metadata.get("limit_ms")?.parse().ok())
            .map(Duration::from_millis);
        match limit {
            Some(limit) if limit < self.lease && limit >= lease::MIN => Meaning::Shorter(limit),
            _ if status.code() == Code::Unimplemented => Meaning::NoReports,
            _ => Meaning::Nothing,
        }
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter")
            .field("lease", &self.lease)
            .field("reported", &self.reported)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}
