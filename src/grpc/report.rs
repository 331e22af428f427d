//! `Report`: a gateway says how far it has enforced session invalidations.

use std::future::Ready;
use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};

use super::message;
use super::method::{Calling, Respond, Responded};
use super::status;
use crate::contract::gateway::{ReportRequest, ReportResponse};
use crate::contract::{gateway_id, instance, lease};
use crate::cursor::Cursor;
use crate::receipts::{Lease, Report as Receipt, Who};
use crate::telemetry::Telemetry;

/// The method's name, for statuses.
pub(super) const NAME: &str = "Report";
/// Room for the longest id and instance, and far more than a cursor.
const MAX_REQUEST_BYTES: usize = 4 << 10;

/// Takes reports for a server with this telemetry.
#[derive(Debug)]
pub(crate) struct Report(Telemetry);

impl Report {
    pub(super) fn new(telemetry: Telemetry) -> Self {
        Report(telemetry)
    }

    /// A report was refused before it was read.
    pub(super) fn refused(&self, status: &Status) {
        self.0.report_refused(status.code());
    }

    fn take(&self, request: &[u8], call: Calling<'_>) -> Result<ReportResponse, Status> {
        let request = ReportRequest::decode(request)
            .map_err(|error| status::not_a_message("ReportRequest", &error))?;
        let (id, instance) = (&*request.gateway_client_id, &*request.instance);
        gateway_id::check(id).map_err(status::bad_gateway_id)?;
        instance::check(instance).map_err(status::bad_instance)?;
        if let Some(authorization) = call.authorization {
            authorization.report(id)?;
        }
        if let Some(age) = self.0.freshness().stale_for() {
            return Err(status::stale(age));
        }
        let who = Who {
            id,
            instance,
            principal: call.authorization.map(|of| of.principal()),
        };
        let head = self.0.engine().head();
        let enforced = cursor("enforced_cursor", &request.enforced_cursor, head)?;
        let lease = Duration::from_millis(request.lease_ms.into());
        if lease.is_zero() {
            self.0.receipts().leave(&who);
            return Ok(response(head));
        }
        let longest = self.0.receipts().longest_lease();
        if !(lease::MIN..=longest).contains(&lease) {
            return Err(status::duration_not_allowed(
                "lease_ms",
                lease,
                lease::MIN,
                longest,
            ));
        }
        let report = Receipt {
            enforced: enforced.seq().number(),
            lease: Lease(lease),
        };
        let answered = self.0.report(who, report);
        let answered = answered.map(response);
        answered.map_err(|error| status::bad_report(error, head))
    }
}

fn response(head: Cursor) -> ReportResponse {
    ReportResponse {
        head_cursor: head.to_string(),
    }
}

/// The cursor in a field, of the epoch of this head.
pub(super) fn cursor(field: &'static str, text: &str, head: Cursor) -> Result<Cursor, Status> {
    let cursor = Cursor::parse(text.as_bytes());
    let cursor = cursor.map_err(|error| status::bad_cursor(field, &error))?;
    if cursor.epoch() != head.epoch() {
        return Err(status::other_epoch(field, cursor, head));
    }
    Ok(cursor)
}

impl Respond for Report {
    type Response = Vec<u8>;
    type Pending = Ready<Result<Vec<u8>, Status>>;

    fn max_request_bytes(&self) -> usize {
        MAX_REQUEST_BYTES
    }

    fn respond(
        &mut self,
        request: &[u8],
        call: Calling<'_>,
    ) -> Result<Responded<Vec<u8>, Self::Pending>, Status> {
        let response = self.take(request, call)?;
        Ok(Responded::Now(message::encode(&response)))
    }

    fn refused(&mut self, _is_stream: bool, code: Code) {
        self.0.report_refused(code);
    }
}
