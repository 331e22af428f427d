//! `SubscribePush`, whoever serves it: what a request must be, and how a response
//! begins.

use http::{HeaderMap, HeaderValue};
use prost::Message;
use tonic::Status;

use super::status;
use crate::contract::gateway_id;
use crate::contract::metadata::{PUSH_MISSED, PUSH_RESUME, PUSH_RESUME_REASON, PUSH_START_CURSOR};
use crate::contract::push::GatewaySubscribeRequest;
use crate::contract::start::Reason;
use crate::contract::{self, start};
use crate::engine::{Engine, Resume, Start, Subscriber};

pub(super) use contract::path::SUBSCRIBE_PUSH as PATH;

/// Room for the longest id and far more than a cursor.
pub(super) const MAX_REQUEST_BYTES: usize = 4 << 10;

/// A subscription for what the request's message asks for, and its gateway's id.
pub(super) fn subscribe(engine: &Engine, message: &[u8]) -> Result<(Subscriber, String), Status> {
    let request = GatewaySubscribeRequest::decode(message).map_err(|error| {
        Status::invalid_argument(format!("not a GatewaySubscribeRequest: {error}"))
    })?;
    let id = request.gateway_client_id;
    gateway_id::check(&id).map_err(status::bad_gateway_id)?;
    let subscriber = engine
        .subscribe(&id, &request.cursor)
        .map_err(status::not_subscribed)?;
    Ok((subscriber, id))
}

/// The method's cardinality was violated, for which gRPC has its status.
pub(super) fn not_one_message(found: &str) -> Status {
    Status::unimplemented(format!("SubscribePush takes one request message, {found}"))
}

/// No compression was offered, and without it there is nothing to decode.
pub(super) fn refuse_compression(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get("grpc-encoding") {
        Some(encoding) if encoding != "identity" => {
            let mut status = Status::unimplemented("requests must not be compressed");
            status.metadata_mut().insert(
                "grpc-accept-encoding",
                tonic::metadata::MetadataValue::from_static("identity"),
            );
            Err(status)
        }
        _ => Ok(()),
    }
}

/// What a response begins with.
pub(super) fn response_fields(start: &Start) -> HeaderMap {
    let (resume, reason, missed) = describe(start.resume);
    let mut fields = HeaderMap::with_capacity(5);
    fields.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    let mut insert = |key, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            fields.insert(key, value);
        }
    };
    insert(PUSH_RESUME, resume.as_str());
    insert(PUSH_RESUME_REASON, reason.as_str());
    insert(PUSH_START_CURSOR, start.cursor.to_text().as_str());
    if let Some(missed) = missed {
        fields.insert(PUSH_MISSED, missed.into());
    }
    fields
}

/// `push-resume`, `push-resume-reason` and `push-missed`.
fn describe(resume: Resume) -> (start::Resume, Reason, Option<u64>) {
    use start::Resume::{Fresh, Resumed};
    match resume {
        Resume::Resumed => (Resumed, Reason::Requested, None),
        Resume::NoCursor => (Fresh, Reason::NoCursor, None),
        Resume::Expired { missed } => (Fresh, Reason::Expired, Some(missed)),
        Resume::Ahead => (Fresh, Reason::Ahead, None),
        Resume::OtherEpoch => (Fresh, Reason::OtherEpoch, None),
        Resume::Malformed => (Fresh, Reason::Malformed, None),
    }
}
