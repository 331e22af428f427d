//! Every error as a status on the wire: one table; and how a status goes there.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use percent_encoding::percent_decode;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::access::AccessError;
use crate::backbone::AppendError;
use crate::contract::gateway_id::GatewayIdError;
use crate::contract::metadata::PUSH_MISSED;
use crate::engine::{PublishError, RecvError, SubscribeError};
use crate::event::RequestError;
use crate::http2::server::Response;
use crate::service::{Refusal, Stall};

/// The longest `grpc-message`, in bytes as it is encoded. Some proxies answer 502 in place
/// of a response head over their buffer, which is 4 KiB where nobody says otherwise
/// (nginx 1.22, `grpc_buffer_size`).
const MAX_MESSAGE_BYTES: usize = 3 << 10;

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
            let mut status = Status::unimplemented("requests must not be compressed");
            status.metadata_mut().insert(
                "grpc-accept-encoding",
                MetadataValue::from_static("identity"),
            );
            Err(status)
        }
        _ => Ok(()),
    }
}

/// A request that has begun and did not arrive.
pub(super) fn request_timeout(timeout: Duration) -> Status {
    Status::deadline_exceeded(format!("the request did not arrive within {timeout:?}"))
}

/// A peer that takes nothing of its response.
pub(super) fn stalled(stall: &Stall) -> Status {
    let Stall {
        lasted,
        pinned_bytes,
    } = stall;
    Status::deadline_exceeded(match pinned_bytes {
        None => format!("the stream took nothing for {lasted:.1?}"),
        Some(bytes) => format!(
            "the stream took nothing for {lasted:.1?}, and streams like it hold {bytes} bytes"
        ),
    })
}

/// More is arriving on one connection than there may be.
pub(super) fn too_many_long_requests() -> Status {
    Status::resource_exhausted(
        "too many long requests are arriving on this connection; nothing of this one was \
         published",
    )
}

/// What every call is told that comes, or is still waiting, while the server
/// stops.
pub(super) fn stopping() -> Status {
    Status::unavailable("the server is stopping")
}

/// How a stream ends. `lag` is what the subscriber still had before it: after it
/// lagged, both together are everything from its last event to the head.
pub(super) fn end_of_stream(error: RecvError, lag: u64) -> Status {
    match error {
        RecvError::TakenOver => {
            Status::aborted("a newer subscription has taken over this gateway_client_id")
        }
        RecvError::Closed => stopping(),
        RecvError::Lagged(dropped) => {
            let missed = dropped + lag;
            let mut metadata = MetadataMap::new();
            metadata.insert(PUSH_MISSED, missed.into());
            Status::with_metadata(
                Code::OutOfRange,
                format!("too slow: {missed} events were missed since the last one delivered"),
                metadata,
            )
        }
    }
}

/// Why there is no stream.
pub(super) fn not_subscribed(error: SubscribeError) -> Status {
    match error {
        SubscribeError::TooManySubscribers { .. } => Status::resource_exhausted(error.to_string()),
        SubscribeError::Closed => stopping(),
    }
}

/// Why a caller is refused, or its call ended.
///
/// Too many failures are the address's quota, and not the fault of this credential, which
/// nobody has looked at: a caller that waits need not renew it.
pub(super) fn access(error: &AccessError) -> Status {
    let code = match error {
        AccessError::NoCredential
        | AccessError::Malformed(_)
        | AccessError::NotAccepted { .. }
        | AccessError::Ambiguous { .. }
        | AccessError::Unknown
        | AccessError::Expired
        | AccessError::NotYetValid => Code::Unauthenticated,
        AccessError::Revoked { .. }
        | AccessError::SubscribeNotGranted { .. }
        | AccessError::PublishNotGranted { .. } => Code::PermissionDenied,
        AccessError::TooManyFailures { .. }
        | AccessError::TooManyStreams { .. }
        | AccessError::TooFast { .. } => Code::ResourceExhausted,
    };
    Status::new(code, error.to_string())
}

/// Why an id is not one.
pub(super) fn bad_gateway_id(error: GatewayIdError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Why a request is not a batch.
pub(super) fn bad_request(error: &RequestError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Why a batch is not in the log.
pub(super) fn not_appended(error: &AppendError) -> Status {
    match error {
        AppendError::Engine(error) => not_published(error),
    }
}

/// Why a batch is not in the ring.
fn not_published(error: &PublishError) -> Status {
    match error {
        PublishError::NoEvents
        | PublishError::EventTooLarge { .. }
        | PublishError::TooManyEvents { .. }
        | PublishError::BatchTooLarge { .. } => Status::invalid_argument(error.to_string()),
        PublishError::Closed => stopping(),
        PublishError::Exhausted => Status::resource_exhausted(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::gateway_id;
    use tonic::Code::{
        Aborted, InvalidArgument, OutOfRange, PermissionDenied, ResourceExhausted, Unauthenticated,
        Unavailable,
    };

    #[test]
    fn every_error_has_its_status() {
        let table = [
            (end_of_stream(RecvError::TakenOver, 0), Aborted),
            (end_of_stream(RecvError::Lagged(1), 0), OutOfRange),
            (end_of_stream(RecvError::Closed, 0), Unavailable),
            (
                not_subscribed(SubscribeError::TooManySubscribers { limit: 9 }),
                ResourceExhausted,
            ),
            (not_subscribed(SubscribeError::Closed), Unavailable),
            (
                bad_gateway_id(gateway_id::check("").unwrap_err()),
                InvalidArgument,
            ),
            (bad_request(&RequestError::NoEvents), InvalidArgument),
            (not_published(&PublishError::NoEvents), InvalidArgument),
            (
                not_published(&PublishError::EventTooLarge {
                    index: 3,
                    bytes: 10,
                    limit: 9,
                }),
                InvalidArgument,
            ),
            (
                not_published(&PublishError::TooManyEvents {
                    events: 10,
                    limit: 9,
                }),
                InvalidArgument,
            ),
            (
                not_published(&PublishError::BatchTooLarge {
                    bytes: 10,
                    limit: 9,
                }),
                InvalidArgument,
            ),
            (not_published(&PublishError::Closed), Unavailable),
            (not_published(&PublishError::Exhausted), ResourceExhausted),
            (access(&AccessError::NoCredential), Unauthenticated),
            (access(&AccessError::Malformed("x".into())), Unauthenticated),
            (access(&AccessError::Unknown), Unauthenticated),
            (access(&AccessError::Expired), Unauthenticated),
            (access(&AccessError::NotYetValid), Unauthenticated),
            (
                access(&AccessError::Revoked {
                    principal: "p".into(),
                }),
                PermissionDenied,
            ),
            (
                access(&AccessError::SubscribeNotGranted {
                    principal: "p".into(),
                    gateway: "g".into(),
                }),
                PermissionDenied,
            ),
            (
                access(&AccessError::PublishNotGranted {
                    principal: "p".into(),
                    kind: "client_event",
                }),
                PermissionDenied,
            ),
            (
                access(&AccessError::TooManyFailures {
                    retry_after: Duration::from_secs(1),
                }),
                ResourceExhausted,
            ),
            (
                access(&AccessError::TooManyStreams {
                    principal: "p".into(),
                    limit: 4,
                    retry_after: Duration::from_secs(1),
                }),
                ResourceExhausted,
            ),
            (
                access(&AccessError::TooFast {
                    principal: "p".into(),
                    setting: "events_per_second",
                    retry_after: Duration::from_secs(1),
                }),
                ResourceExhausted,
            ),
        ];
        for (status, code) in table {
            assert_eq!(status.code(), code, "{status:?}");
            assert!(!status.message().is_empty(), "{status:?}");
        }
    }

    #[test]
    fn a_head_stays_below_4_kib_and_can_be_decoded_whatever_the_message() {
        for text in ["x", "\n", "é", "語", "🛰", "a🛰é", "%"] {
            for pad in 0..4 {
                let message = "y".repeat(pad) + &text.repeat(9000);
                let fields = refusal(&Status::internal(message.clone())).fields;
                let bytes: usize = fields
                    .iter()
                    .map(|(name, value)| name.as_str().len() + value.len() + 4)
                    .sum();
                assert!(bytes < 4000, "{bytes} bytes");
                let read = Status::from_header_map(&fields).unwrap();
                assert_eq!(read.code(), Code::Internal);
                let kept = read.message().strip_suffix("...").expect("an ellipsis");
                assert!(message.starts_with(kept), "{text:?}: {kept:?}");
                assert!(fields["grpc-message"].len() > MAX_MESSAGE_BYTES - 20);
            }
        }
        let short = refusal(&Status::internal("é".repeat(500))).fields;
        let read = Status::from_header_map(&short).unwrap();
        assert_eq!(read.message(), "é".repeat(500));
    }

    #[test]
    fn a_lagged_stream_is_told_what_was_dropped_and_what_it_had_not_read() {
        let status = end_of_stream(RecvError::Lagged(40), 2);
        assert_eq!(status.metadata().get(PUSH_MISSED).unwrap(), "42");
        assert!(status.message().contains("42 events"), "{status:?}");
    }
}
