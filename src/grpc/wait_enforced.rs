//! `WaitEnforced`: a publisher waits until no gateway serves a session that was revoked.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
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
        call: Calling<'_>,
    ) -> Result<Responded<Vec<u8>, Waiting>, Status> {
        let request = WaitEnforcedRequest::decode(request)
            .map_err(|error| status::not_a_message("WaitEnforcedRequest", &error))?;
        if let Some(authorization) = call.authorization {
            authorization.wait_enforced()?;
        }
        let head = self.telemetry.engine().head();
        let target = cursor("cursor", &request.cursor, head)?.seq().number();
        // A publisher may have been given a cursor beyond the newest event that can be read: others
        // publish before it, and have not come to the end.
        let ahead = self.telemetry.engine().limits().max_batch_events as u64;
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
        let wait = self.telemetry.receipts().wait(target);
        let wait = wait.map_err(status::too_many_waits)?;
        let now = Instant::now();
        Ok(Responded::Later(Waiting {
            wait,
            telemetry: self.telemetry.clone(),
            stopping: self.stopping.clone(),
            ends: now + timeout,
            timer: Box::pin(sleep_until(now)),
            // Whoever looks does not wait.
            is_counted: timeout.is_zero(),
        }))
    }
}

/// An answer that has yet to come.
#[derive(Debug)]
pub(crate) struct Waiting {
    wait: Wait,
    telemetry: Telemetry,
    stopping: Stopping,
    ends: Instant,
    timer: Pin<Box<Sleep>>,
    is_counted: bool,
}

impl Waiting {
    fn count(&mut self, how: Waited) {
        if !std::mem::replace(&mut self.is_counted, true) {
            self.telemetry.waited(how);
        }
    }
}

impl Future for Waiting {
    type Output = Result<Vec<u8>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let enforcement = this.telemetry.enforcement(&this.wait, cx.waker());
        let now = Instant::now();
        if enforcement.is_proven() || now >= this.ends {
            this.count(match enforcement.is_proven() {
                true => Waited::Proven,
                false => Waited::Unproven,
            });
            return Poll::Ready(Ok(message::encode(&response(&enforcement))));
        }
        if this.stopping.is_set() {
            return Poll::Ready(Err(status::stopping()));
        }
        // A report wakes it. For all else it looks again.
        let mut missing = enforcement.missing.iter();
        let next = match missing.any(|of| of.reason != MissingReason::Behind) {
            true => LOOK_EVERY,
            false => enforcement.settled_in,
        };
        let next = next.max(Duration::from_millis(1));
        this.timer.as_mut().reset(this.ends.min(now + next));
        match this.timer.as_mut().poll(cx) {
            Poll::Pending => {}
            // Between two readings of the clock.
            Poll::Ready(()) => cx.waker().wake_by_ref(),
        }
        Poll::Pending
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
        unknown_ms: u32::try_from(
            of.unknown
                .as_millis()
                .max(u128::from(!of.unknown.is_zero())),
        )
        .unwrap_or(u32::MAX),
    }
}
