//! `SubscribePush`, whoever serves it: what a request must be, and how a response
//! begins.

use http::{HeaderMap, HeaderValue};
use prost::Message;
use tonic::Status;

use super::{gateway_id, status};
use crate::engine::{Engine, Resume, Start, Subscriber};
use crate::proto::push::GatewaySubscribeRequest;

pub(super) const PATH: &str = "/galaxy.backend.push.v1.Push/SubscribePush";

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
    let (word, reason, missed) = describe(start.resume);
    let mut fields = HeaderMap::with_capacity(5);
    fields.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    fields.insert("push-resume", HeaderValue::from_static(word));
    fields.insert("push-resume-reason", HeaderValue::from_static(reason));
    if let Ok(cursor) = HeaderValue::from_str(start.cursor.to_text().as_str()) {
        fields.insert("push-start-cursor", cursor);
    }
    if let Some(missed) = missed {
        fields.insert(status::PUSH_MISSED, missed.into());
    }
    fields
}

/// `push-resume`, `push-resume-reason` and `push-missed`.
fn describe(resume: Resume) -> (&'static str, &'static str, Option<u64>) {
    match resume {
        Resume::Resumed => ("resumed", "requested", None),
        Resume::NoCursor => ("fresh", "no-cursor", None),
        Resume::Expired { missed } => ("fresh", "expired", Some(missed)),
        Resume::Ahead => ("fresh", "ahead", None),
        Resume::OtherEpoch => ("fresh", "other-epoch", None),
        Resume::Malformed => ("fresh", "malformed", None),
    }
}
