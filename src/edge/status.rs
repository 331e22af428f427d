//! What every error of the engine is on the wire: one table.

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::contract::gateway_id::GatewayIdError;
use crate::contract::metadata::PUSH_MISSED;
use crate::engine::{PublishError, RecvError, SubscribeError};
use crate::event::RequestError;

/// What every call is told that comes, or is still waiting, while the server
/// stops.
pub(super) fn stopping() -> Status {
    Status::unavailable("the server is stopping")
}

/// How a stream ends. `lag` is what the subscriber still had before it: after it
/// was lapped, both together are everything from its last event to the head.
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

/// Why an id is not one.
pub(super) fn bad_gateway_id(error: GatewayIdError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Why a request is not a batch.
pub(super) fn bad_request(error: &RequestError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Why a batch is not in the ring.
pub(super) fn not_published(error: &PublishError) -> Status {
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
    use tonic::Code::{Aborted, InvalidArgument, OutOfRange, ResourceExhausted, Unavailable};

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
        ];
        for (status, code) in table {
            assert_eq!(status.code(), code, "{status:?}");
            assert!(!status.message().is_empty(), "{status:?}");
        }
    }

    #[test]
    fn a_lapped_stream_is_told_what_was_dropped_and_what_it_had_not_read() {
        let status = end_of_stream(RecvError::Lagged(40), 2);
        assert_eq!(status.metadata().get(PUSH_MISSED).unwrap(), "42");
        assert!(status.message().contains("42 events"), "{status:?}");
    }
}
