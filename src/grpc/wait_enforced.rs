//! `WaitEnforced`: a publisher waits until no gateway serves a session that was revoked.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use prost::Message;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::message;
use super::method::{Calling, Respond, Responded};
use super::report::cursor;
use super::router::Stopping;
use super::status;
use crate::contract::publisher::{
    MissingGateway, WaitEnforcedRequest, WaitEnforcedResponse, missing_gateway::Reason,
};
use crate::receipts::Wait;
use crate::telemetry::{Enforcement, MissingReason, Telemetry, Waited};

/// The method's name, for statuses.
pub(super) const NAME: &str = "WaitEnforced";
/// Far more than a cursor and a number.
const MAX_REQUEST_BYTES: usize = 1 << 10;
/// The longest that a call waits.
const MAX_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// So many that are missing are named.
const MAX_NAMED: usize = 100;
/// How often it is looked whether those have come, or are gone, of which no report says so.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it is looked whether an event can be read that others hold up.
const ARRIVES_WITHIN: Duration = Duration::from_millis(5);

/// Waits for the gateways of a server with this telemetry.
#[derive(Debug)]
pub(crate) struct WaitEnforced {
    pub(super) telemetry: Telemetry,
    pub(super) stopping: Stopping,
}

impl Respond for WaitEnforced {
    type Response = Vec<u8>;
    type Pending = Waiting;

    fn max_request_bytes(&self) -> usize {
        MAX_REQUEST_BYTES
    }

    fn respond(
        &mut self,
        request: &[u8],
        _call: Calling<'_>,
    ) -> Result<Responded<Vec<u8>, Waiting>, Status> {
        let request = WaitEnforcedRequest::decode(request)
            .map_err(|error| status::not_a_message("WaitEnforcedRequest", &error))?;
        let engine = self.telemetry.engine();
        if engine.is_appended() {
            // Gateways report to their own replica, and the others do not know of them.
            return Err(status::not_with_a_backbone(NAME));
        }
        let head = engine.head();
        let target = cursor("cursor", &request.cursor, head)?.seq().number();
        // A publisher may have been given a cursor beyond the newest event that can be read: others
        // publish before it, and have not come to the end.
        let ahead = engine.limits().max_batch_events as u64;
        if target > head.seq().number().saturating_add(ahead) {
            return Err(status::beyond_head("cursor", head));
        }
        let timeout = Duration::from_millis(request.timeout_ms.into());
        if timeout > MAX_TIMEOUT {
            let field = "timeout_ms";
            return Err(status::duration_not_allowed(
                field,
                timeout,
                Duration::ZERO,
                MAX_TIMEOUT,
            ));
        }
        let now = Instant::now();
        let mut waiting = Waiting {
            target,
            wait: None,
            telemetry: self.telemetry.clone(),
            stopping: self.stopping.clone(),
            bell: Arc::default(),
            look_at: now,
            ends: now + timeout,
            timer: Box::pin(sleep_until(now)),
            // Whoever asks for less than what it may take does not expect to be told.
            is_counted: timeout < self.telemetry.receipts().longest_lease(),
        };
        waiting.begin()?;
        Ok(Responded::Later(waiting))
    }
}

/// An answer that has yet to come.
///
/// It is polled with each turn of its connection. It looks at the gateways only when there is
/// something to see.
#[derive(Debug)]
pub(crate) struct Waiting {
    target: u64,
    /// Once the event can be read.
    wait: Option<Wait>,
    telemetry: Telemetry,
    stopping: Stopping,
    bell: Arc<Bell>,
    look_at: Instant,
    ends: Instant,
    timer: Pin<Box<Sleep>>,
    is_counted: bool,
}

/// Is rung by the report that is waited for.
#[derive(Debug)]
struct Bell {
    is_rung: AtomicBool,
    waker: Mutex<Waker>,
}

impl Default for Bell {
    fn default() -> Self {
        Bell {
            is_rung: AtomicBool::new(false),
            waker: Mutex::new(Waker::noop().clone()),
        }
    }
}

impl Bell {
    fn heard_by(&self, waker: &Waker) {
        let mut own = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        own.clone_from(waker);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // Release: whoever finds it rung finds what it was rung for.
        self.is_rung.store(true, Ordering::Release);
        let own = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        let waker = own.clone();
        drop(own);
        waker.wake();
    }
}

impl Waiting {
    /// Begins to wait, if the event can be read by now.
    fn begin(&mut self) -> Result<(), Status> {
        let head = self.telemetry.engine().head().seq().number();
        if self.wait.is_none() && head >= self.target {
            let wait = self.telemetry.receipts().wait(self.target);
            self.wait = Some(wait.map_err(status::too_many_waits)?);
        }
        Ok(())
    }

    fn count(&mut self, how: Waited) {
        if !std::mem::replace(&mut self.is_counted, true) {
            self.telemetry.waited(how);
        }
    }

    /// What is known now, and how long it is until there is more to see.
    fn look(&mut self) -> Result<(Enforcement, Duration), Status> {
        self.begin()?;
        let Some(wait) = &self.wait else {
            return Ok((Enforcement::unpublished(), ARRIVES_WITHIN));
        };
        let waker = Waker::from(Arc::clone(&self.bell));
        let enforcement = self.telemetry.enforcement(wait, &waker);
        let mut missing = enforcement.missing.iter();
        let is_quiet = missing.any(|of| of.reason != MissingReason::Behind);
        let next = enforcement.next_in.unwrap_or(MAX_TIMEOUT);
        let next = if is_quiet { next.min(LOOK_EVERY) } else { next };
        Ok((enforcement, next.max(Duration::from_millis(1))))
    }
}

impl Future for Waiting {
    type Output = Result<Vec<u8>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // Before it is looked: a bell that rings afterwards wakes this task.
        this.bell.heard_by(cx.waker());
        if this.stopping.is_set() {
            return Poll::Ready(Err(status::stopping()));
        }
        loop {
            let is_rung = this.bell.is_rung.swap(false, Ordering::Acquire);
            let now = Instant::now();
            if is_rung || now >= this.look_at {
                let (enforcement, next) = this.look()?;
                let is_proven = enforcement.is_proven();
                if is_proven || now >= this.ends {
                    this.count(match is_proven {
                        true => Waited::Proven,
                        false => Waited::Unproven,
                    });
                    return Poll::Ready(Ok(message::encode(&response(&enforcement))));
                }
                this.look_at = this.ends.min(now + next);
                this.timer.as_mut().reset(this.look_at);
            }
            if this.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.count(Waited::Abandoned);
    }
}

fn response(of: &Enforcement) -> WaitEnforcedResponse {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let missing = of.missing.iter().take(MAX_NAMED);
    // Not to the zero that would mean that all are known.
    let unknown_ms = of.unknown.as_micros().div_ceil(1000);
    WaitEnforcedResponse {
        proven: of.is_proven(),
        gateways: count(of.enforced + of.fenced + of.missing.len()),
        enforced: count(of.enforced),
        fenced: count(of.fenced),
        missing: missing
            .map(|missing| MissingGateway {
                gateway_client_id: missing.id.to_string(),
                instance: missing.instance.as_deref().unwrap_or_default().to_owned(),
                reason: match missing.reason {
                    MissingReason::Behind => Reason::Behind,
                    MissingReason::NoReports => Reason::NoReports,
                    MissingReason::Left => Reason::Left,
                }
                .into(),
            })
            .collect(),
        unknown_ms: u32::try_from(unknown_ms).unwrap_or(u32::MAX),
    }
}
