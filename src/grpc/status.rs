//! Every error as a status on the wire: one table; and how a status goes there.
//!
//! Each status says why for machines too, and when to try again where that makes sense
//! ([`details`](crate::contract::details)). `docs/protocol.md` has the same table for peers; a
//! test holds the two against each other.
//!
//! | file | what is in it |
//! |---|---|
//! | `draft` | a status while it is put together, in the size that a response's head allows |
//! | `retry` | when a refused caller should try again |
//!
//! Statuses are made where a call ends, never on the way of an event.

mod draft;
mod retry;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use percent_encoding::percent_decode;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use self::draft::Draft;
use self::retry::Retry;
use crate::access::AccessError;
use crate::backbone::AppendError;
use crate::contract::details::ErrorReason;
use crate::contract::gateway_id::{GatewayIdError, MAX_GATEWAY_ID_BYTES};
use crate::contract::instance::{self, InstanceError};
use crate::contract::metadata::PUSH_MISSED;
use crate::cursor::{Cursor, ParseCursorError};
use crate::engine::{PublishError, SubscribeError};
use crate::event::{EventError, RequestError, WireProblem};
use crate::http2::server::Response;
use crate::receipts::{ReportError, TooManyWaits};
use crate::service::{Refusal, Stall};
use crate::telemetry::Successor;

/// The longest `grpc-message`, in bytes as it is encoded, together with the details. Some
/// proxies answer 502 in place of a response head over their buffer, which is 4 KiB where
/// nobody says otherwise (nginx 1.22, `grpc_buffer_size`). Our own statuses are shorter
/// ([`draft`]); this is for those of others.
const MAX_MESSAGE_BYTES: usize = 3 << 10;
/// The same together with the details.
const MAX_TEXT_BYTES: usize = 3600;

/// What a response begins with that says nothing else.
pub(super) fn response_fields() -> HeaderMap {
    // With room for what a subscription adds.
    let mut fields = HeaderMap::with_capacity(5);
    let grpc = HeaderValue::from_static("application/grpc");
    fields.insert(header::CONTENT_TYPE, grpc);
    fields
}

/// A status as a response that is all head.
pub(super) fn refusal(status: &Status) -> Refusal {
    let mut fields = response_fields();
    fields.extend(trailers(status));
    Refusal { code: 200, fields }
}

/// A status as the fields after a response.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut fields = HeaderMap::new();
    if status.add_header(&mut fields).is_err() {
        // A text or a detail that is no header's value: the code says it without.
        fields.clear();
        fields.insert("grpc-status", (status.code() as i32).into());
    }
    if let Some(message) = fields.get_mut("grpc-message") {
        shorten(message);
    }
    let bytes = |name: &str| fields.get(name).map_or(0, HeaderValue::len);
    if bytes("grpc-message") + bytes("grpc-status-details-bin") > MAX_TEXT_BYTES {
        fields.remove("grpc-status-details-bin");
    }
    fields
}

/// Cuts a percent-encoded message that is too long, between two of its characters.
fn shorten(message: &mut HeaderValue) {
    const ELLIPSIS: &[u8] = b"...";
    let Some(mut kept) = message
        .as_bytes()
        .get(..MAX_MESSAGE_BYTES - ELLIPSIS.len())
        .filter(|_| message.len() > MAX_MESSAGE_BYTES)
    else {
        return;
    };
    // Not in the middle of an encoded byte.
    if let Some(at) = kept.iter().rev().take(2).position(|&byte| byte == b'%') {
        kept = &kept[..kept.len() - 1 - at];
    }
    // Nor in the middle of a character.
    while let [before @ .., b'%', _, _] = kept
        && std::str::from_utf8(&percent_decode(kept).collect::<Vec<u8>>()).is_err()
    {
        kept = before;
    }
    if let Ok(shorter) = HeaderValue::from_bytes(&[kept, ELLIPSIS].concat()) {
        *message = shorter;
    }
}

/// Ends a response: by trailers where it has begun, else by a head that is all of it.
pub(super) fn end(response: &mut Response<'_>, status: &Status) {
    if response.is_begun() {
        response.trailers(&trailers(status));
    } else {
        let refusal = refusal(status);
        response.whole(refusal.code, &refusal.fields);
    }
}

/// No compression was offered, and without it there is nothing to decode.
pub(super) fn refuse_compression(fields: &HeaderMap) -> Result<(), Status> {
    match fields.get("grpc-encoding") {
        Some(encoding) if encoding != "identity" => {
            let mut metadata = MetadataMap::new();
            let identity = MetadataValue::from_static("identity");
            metadata.insert("grpc-accept-encoding", identity);
            Err(Draft::new(
                Code::Unimplemented,
                ErrorReason::CompressionNotSupported,
                "requests must not be compressed",
            )
            .metadata(metadata)
            .finish())
        }
        _ => Ok(()),
    }
}

/// A message with the flag that says it is compressed, or another.
pub(super) fn compressed_flag(flag: u8) -> Status {
    Draft::new(
        Code::Internal,
        ErrorReason::CompressedFlag,
        format!(
            "the request message has the compressed flag {flag:#04x}, and no compression was \
             agreed on"
        ),
    )
    .with("flag", flag)
    .finish()
}

/// A path that is none of these, which `place` has.
pub(super) fn unknown_method(place: &str, paths: &[&str]) -> Status {
    Draft::new(
        Code::Unimplemented,
        ErrorReason::UnknownMethod,
        format!("{place} has {}", paths.join(", ")),
    )
    .with("methods", paths.join(","))
    .finish()
}

/// The status of a service is asked for that is not there.
pub(super) fn unknown_service(service: &str) -> Status {
    Draft::new(
        Code::NotFound,
        ErrorReason::UnknownService,
        format!("this listener has no service {service:?}"),
    )
    .with("service", service)
    .finish()
}

/// A call with no request message, or `several`, of a method that takes one: for a method's
/// cardinality that is violated gRPC has its status.
pub(super) fn not_one_message(method: &str, several: bool) -> Status {
    let (found, text) = match several {
        true => ("several", "several were sent"),
        false => ("0", "none was sent"),
    };
    Draft::new(
        Code::Unimplemented,
        ErrorReason::WrongMessageCount,
        format!("{method} takes one request message, {text}"),
    )
    .with("method", method)
    .with("found", found)
    .finish()
}

/// A request that ends with the first `have` bytes of a message of this `length`; `None` where
/// it ends in the message's prefix.
pub(super) fn cut_short(bytes: Option<(usize, usize)>) -> Status {
    let draft = |text: String| Draft::new(Code::Internal, ErrorReason::RequestCutShort, text);
    match bytes {
        Some((have, length)) => draft(format!(
            "the request ends after {have} of {length} bytes of its message"
        ))
        .with("bytes", have)
        .with("length", length),
        None => draft("the request ends in the middle of a message's prefix".to_owned()),
    }
    .finish()
}

/// A request message longer than allowed.
pub(super) fn request_too_large(bytes: usize, limit: usize) -> Status {
    Draft::new(
        Code::InvalidArgument,
        ErrorReason::RequestTooLarge,
        format!("the request message has {bytes} bytes, the limit is {limit}"),
    )
    .with("bytes", bytes)
    .with("limit", limit)
    .finish()
}

/// A request that has begun and did not arrive.
pub(super) fn request_timeout(timeout: Duration) -> Status {
    Draft::new(
        Code::DeadlineExceeded,
        ErrorReason::RequestTimeout,
        format!("the request did not arrive within {timeout:?}"),
    )
    .with("timeout_ms", timeout.as_millis())
    .retry(Retry::Soon)
    .finish()
}

/// A peer that takes nothing of its response.
pub(super) fn stalled(stall: &Stall) -> Status {
    let Stall {
        lasted,
        pinned_bytes,
    } = stall;
    let mut text = format!("the stream took nothing for {lasted:.1?}");
    if let Some(bytes) = pinned_bytes {
        text += &format!(", and streams like it hold {bytes} bytes");
    }
    let mut draft = Draft::new(Code::DeadlineExceeded, ErrorReason::Stalled, text)
        .with("stalled_ms", lasted.as_millis())
        .retry(Retry::Soon);
    if let Some(bytes) = pinned_bytes {
        draft = draft.with("pinned_bytes", bytes);
    }
    draft.finish()
}

/// More is arriving on one connection than there may be.
pub(super) fn too_many_long_requests() -> Status {
    Draft::new(
        Code::ResourceExhausted,
        ErrorReason::TooManyLongRequests,
        "too many long requests are arriving on this connection; nothing of this one was \
         published",
    )
    .retry(Retry::Soon)
    .finish()
}

/// What every call is told that comes, or is still waiting, while the server
/// stops.
pub(super) fn stopping() -> Status {
    Draft::new(
        Code::Unavailable,
        ErrorReason::Stopping,
        "the server is stopping",
    )
    .retry(Retry::AfterRestart)
    .finish()
}

/// A newer subscription has the id: that of `successor`, if it is known.
pub(super) fn taken_over(successor: Option<Successor>) -> Status {
    let message = match &successor {
        Some(by) => format!(
            "a newer subscription has taken over this gateway_client_id: {}",
            by.in_words()
        ),
        None => "a newer subscription has taken over this gateway_client_id".to_owned(),
    };
    // Without a time to try again: two that insist on one id throw each other out.
    let mut draft = Draft::new(Code::Aborted, ErrorReason::TakenOver, message);
    if let Some(by) = successor {
        draft = draft.with("peer", by.peer);
        if let Some(principal) = &by.principal {
            draft = draft.with("principal", principal);
        }
        if let Some(instance) = &by.instance {
            draft = draft.with("instance", instance);
        }
    }
    draft.finish()
}

/// The stream was too slow: so many events lie between its last one and the head.
pub(super) fn lagged(missed: u64) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(PUSH_MISSED, missed.into());
    Draft::new(
        Code::OutOfRange,
        ErrorReason::Lagged,
        format!("too slow: {missed} events were missed since the last one delivered"),
    )
    .with("missed", missed)
    .retry(Retry::Soon)
    .metadata(metadata)
    .finish()
}

/// The gateway reads what it has missed so slowly that the server had to go on without it.
/// So many are left, and so many events lie between its start and the head.
pub(super) fn replay_too_slow(left: u64, missed: u64) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(PUSH_MISSED, missed.into());
    Draft::new(
        Code::OutOfRange,
        ErrorReason::Lagged,
        format!("too slow: {left} invalidations of the replay were dropped unread"),
    )
    .with("revocations", left)
    .with("missed", missed)
    .retry(Retry::Soon)
    .metadata(metadata)
    .finish()
}

/// An operator has ended the stream.
pub(super) fn disconnected(by: &str) -> Status {
    Draft::new(
        Code::Aborted,
        ErrorReason::DisconnectedByOperator,
        format!("an operator ({by}) has disconnected this gateway"),
    )
    .with("by", by)
    .retry(Retry::Soon)
    .finish()
}

/// Why there is no stream.
pub(super) fn not_subscribed(error: SubscribeError) -> Status {
    match error {
        SubscribeError::TooManySubscribers { limit } => Draft::new(
            Code::ResourceExhausted,
            ErrorReason::TooManySubscribers,
            error.to_string(),
        )
        .with("limit", limit)
        .retry(Retry::WhenThereIsRoom)
        .finish(),
        SubscribeError::Closed => stopping(),
    }
}

/// A status for a request that has to be corrected.
fn invalid(reason: ErrorReason, error: &dyn std::error::Error) -> Draft {
    Draft::new(Code::InvalidArgument, reason, error.to_string())
}

/// Why an id is not one.
pub(super) fn bad_gateway_id(error: GatewayIdError) -> Status {
    let draft = invalid(ErrorReason::InvalidGatewayId, &error).with("field", "gateway_client_id");
    match error {
        GatewayIdError::Empty => draft,
        GatewayIdError::TooLong { bytes } => draft
            .with("bytes", bytes)
            .with("limit", MAX_GATEWAY_ID_BYTES),
        GatewayIdError::ControlCharacter { at } => draft.with("at_byte", at),
    }
    .finish()
}

/// A value of the call's metadata is none of this key.
pub(super) fn bad_metadata(key: &str, problem: &dyn std::fmt::Display) -> Status {
    let message = format!("the value of {key} in the metadata: {problem}");
    Draft::new(Code::InvalidArgument, ErrorReason::InvalidMetadata, message)
        .with("key", key)
        .with("problem", problem)
        .finish()
}

/// The name of a gateway's process is none.
pub(super) fn bad_instance(error: InstanceError) -> Status {
    let message = format!("the instance: {error}");
    let draft = Draft::new(Code::InvalidArgument, ErrorReason::InvalidInstance, message)
        .with("field", "instance");
    match error {
        InstanceError::TooLong { bytes } => draft
            .with("bytes", bytes)
            .with("limit", instance::MAX_BYTES),
        InstanceError::Character { at } => draft.with("at_byte", at),
        _ => draft,
    }
    .finish()
}

/// The text in a field is no cursor.
pub(super) fn bad_cursor(field: &str, error: &ParseCursorError) -> Status {
    let message = format!("{field}: {error}");
    Draft::new(Code::InvalidArgument, ErrorReason::InvalidCursor, message)
        .with("field", field)
        .with("problem", error)
        .finish()
}

/// The cursor in a field is not of the epoch of this head.
pub(super) fn other_epoch(field: &str, cursor: Cursor, head: Cursor) -> Status {
    let message = format!(
        "{field}: {cursor} is of another epoch than this server's, which is at {head}: it was          issued by another server, or before a restart"
    );
    Draft::new(Code::FailedPrecondition, ErrorReason::OtherEpoch, message)
        .with("field", field)
        .with("cursor", cursor)
        .with("head", head)
        .finish()
}

/// The cursor in a field is beyond what was published.
pub(super) fn beyond_head(field: &str, head: Cursor) -> Status {
    let message = format!("{field}: it is beyond the newest event, {head}");
    Draft::new(
        Code::InvalidArgument,
        ErrorReason::CursorBeyondHead,
        message,
    )
    .with("field", field)
    .with("head", head)
    .finish()
}

/// A duration in a field is not within these bounds.
pub(super) fn duration_not_allowed(
    field: &str,
    found: Duration,
    least: Duration,
    most: Duration,
) -> Status {
    let message = format!("{field}: {found:?} is not within {least:?} and {most:?}");
    let reason = ErrorReason::DurationNotAllowed;
    Draft::new(Code::InvalidArgument, reason, message)
        .with("field", field)
        .with("found_ms", found.as_millis())
        .with("least_ms", least.as_millis())
        .with("limit_ms", most.as_millis())
        .finish()
}

/// Why a report does not count, of a server whose newest event is at `head`.
pub(super) fn bad_report(error: ReportError, head: Cursor) -> Status {
    match error {
        ReportError::BeyondHead => beyond_head("enforced_cursor", head),
        ReportError::WentBack { before } => {
            let reason = ErrorReason::EnforcedWentBack;
            Draft::new(Code::FailedPrecondition, reason, error.to_string())
                .with("field", "enforced_cursor")
                .with("before", before)
                .finish()
        }
        ReportError::NotSubscribed => {
            let reason = ErrorReason::NotSubscribed;
            Draft::new(Code::FailedPrecondition, reason, error.to_string()).finish()
        }
        ReportError::TooManyProcesses { limit } | ReportError::TooMany { limit } => {
            let reason = ErrorReason::TooManyProcesses;
            Draft::new(Code::ResourceExhausted, reason, error.to_string())
                .with("limit", limit)
                .retry(Retry::WhenThereIsRoom)
                .finish()
        }
    }
}

/// What was published until so long ago is known here, and what came later is not.
pub(super) fn stale(age: Duration) -> Status {
    let reason = ErrorReason::BackboneUnavailable;
    let text = format!("this replica has not heard of its backbone for {age:.1?}");
    Draft::new(Code::Unavailable, reason, text)
        .with("age_ms", age.as_millis())
        .retry(Retry::Soon)
        .finish()
}

/// A method that a server with a backbone does not have.
pub(super) fn not_with_a_backbone(method: &str) -> Status {
    Draft::new(
        Code::Unimplemented,
        ErrorReason::NotWithBackbone,
        format!("a server with a backbone has no {method}: it does not know all gateways"),
    )
    .with("method", method)
    .finish()
}

/// As many calls wait for gateways as may.
pub(super) fn too_many_waits(error: TooManyWaits) -> Status {
    let reason = ErrorReason::TooManyWaits;
    Draft::new(Code::ResourceExhausted, reason, error.to_string())
        .with("limit", error.limit)
        .retry(Retry::WhenThereIsRoom)
        .finish()
}

/// Bytes that are not a message of this type.
pub(super) fn not_a_message(name: &str, error: &prost::DecodeError) -> Status {
    Draft::new(
        Code::InvalidArgument,
        ErrorReason::MalformedMessage,
        format!("not a {name}: {error}"),
    )
    .with("message", name)
    .with("problem", error)
    .finish()
}

/// Why a request is not a batch.
pub(super) fn bad_request(error: &RequestError) -> Status {
    let invalid = |reason| invalid(reason, error);
    match *error {
        RequestError::NoEvents => invalid(ErrorReason::NoEvents).with("field", "events"),
        RequestError::Event { index, source } => match source {
            EventError::NoKind => invalid(ErrorReason::KindNotSet).with("field", "kind"),
            EventError::Empty { field } => invalid(ErrorReason::FieldEmpty).with("field", field),
            EventError::CursorSet => invalid(ErrorReason::CursorSet).with("field", "cursor"),
            EventError::NotUtf8 { field } => {
                invalid(ErrorReason::FieldNotUtf8).with("field", field)
            }
            EventError::TooLarge { bytes } => {
                invalid(ErrorReason::EventTooLarge).with("bytes", bytes)
            }
            EventError::Malformed { at, problem } => malformed(error, "PushEvent", at, problem),
        }
        .with("index", index),
        RequestError::EventTooLarge {
            index,
            bytes,
            limit,
        } => invalid(ErrorReason::EventTooLarge)
            .with("index", index)
            .with("bytes", bytes)
            .with("limit", limit),
        RequestError::Malformed { at, problem } => malformed(error, "PublishRequest", at, problem),
    }
    .finish()
}

fn malformed(error: &RequestError, message: &str, at: usize, problem: WireProblem) -> Draft {
    let draft = invalid(ErrorReason::MalformedMessage, error)
        .with("message", message)
        .with("at_byte", at)
        .with("problem", problem);
    match problem {
        WireProblem::UnknownWireType { found } => draft.with("wire_type", found),
        WireProblem::WrongWireType { field, found } => {
            draft.with("field", field).with("wire_type", found)
        }
        WireProblem::Truncated
        | WireProblem::VarintOverflow
        | WireProblem::KeyOverflow
        | WireProblem::FieldZero
        | WireProblem::UnmatchedEndGroup
        | WireProblem::TooDeep => draft,
    }
}

/// Why a batch is not in the log.
pub(super) fn not_appended(error: &AppendError) -> Status {
    match error {
        AppendError::Engine(error) => not_published(error),
        AppendError::TooLarge { bytes, limit } => invalid(ErrorReason::BatchTooLarge, error)
            .with("bytes", bytes)
            .with("limit", limit)
            .finish(),
        AppendError::Unavailable { reason } => Draft::new(
            Code::Unavailable,
            ErrorReason::BackboneUnavailable,
            error.to_string(),
        )
        .with("problem", reason)
        .retry(Retry::Soon)
        .finish(),
        // Not `UNAVAILABLE`, after which many clients try again by themselves.
        AppendError::Undecided => Draft::new(
            Code::DeadlineExceeded,
            ErrorReason::OutcomeUnknown,
            error.to_string(),
        )
        .finish(),
    }
}

/// Why a batch is not in the ring.
fn not_published(error: &PublishError) -> Status {
    let invalid = |reason| invalid(reason, error);
    match *error {
        PublishError::NoEvents => invalid(ErrorReason::NoEvents).with("field", "events"),
        PublishError::EventTooLarge {
            index,
            bytes,
            limit,
        } => invalid(ErrorReason::EventTooLarge)
            .with("index", index)
            .with("bytes", bytes)
            .with("limit", limit),
        PublishError::TooManyEvents { events, limit } => invalid(ErrorReason::TooManyEvents)
            .with("events", events)
            .with("limit", limit),
        PublishError::BatchTooLarge { bytes, limit } => invalid(ErrorReason::BatchTooLarge)
            .with("bytes", bytes)
            .with("limit", limit),
        PublishError::Closed => return stopping(),
        // For good: only another epoch has sequences again.
        PublishError::Exhausted => Draft::new(
            Code::ResourceExhausted,
            ErrorReason::EpochExhausted,
            error.to_string(),
        ),
    }
    .finish()
}

/// Why a caller may not do what it asks for, or no longer.
pub(super) fn access(error: &AccessError) -> Status {
    use AccessError as E;
    let draft = |code| Draft::new(code, error.reason(), error.to_string());
    let limited = |retry_after: Duration| {
        draft(Code::ResourceExhausted)
            .with("retry_after_ms", retry_after.as_millis())
            .retry(Retry::After(retry_after))
    };
    match error {
        E::NoCredential | E::Unknown | E::Expired | E::NotYetValid => draft(Code::Unauthenticated),
        E::Malformed(problem) => draft(Code::Unauthenticated).with("problem", problem),
        E::NotAccepted { reason } => draft(Code::Unauthenticated).with("problem", reason),
        E::Ambiguous { first, second } => draft(Code::Unauthenticated)
            .with("first", first)
            .with("second", second),
        E::Revoked { principal } => draft(Code::PermissionDenied).with("principal", principal),
        E::SubscribeNotGranted { principal, gateway } => draft(Code::PermissionDenied)
            .with("principal", principal)
            .with("gateway", gateway),
        E::PublishNotGranted { principal, kind } => draft(Code::PermissionDenied)
            .with("principal", principal)
            .with("kind", kind),
        E::TooManyFailures { retry_after } => limited(*retry_after),
        E::TooManyStreams {
            principal,
            limit,
            retry_after,
        } => limited(*retry_after)
            .with("principal", principal)
            .with("limit", limit),
        E::TooFast {
            principal,
            setting,
            retry_after,
        } => limited(*retry_after)
            .with("principal", principal)
            .with("setting", setting),
    }
    .finish()
}
