//! Statuses and transport errors as one line that a person can act on.

use std::error::Error;

use tonic::{Code, Status};

use crate::contract::metadata::PUSH_MISSED;

/// A status in one line: its code as the gRPC specification spells it, its
/// message, and for what broke on this side the causes beneath.
///
/// ```
/// use galaxy_push::client::status_line;
///
/// let status = tonic::Status::unavailable("the server is stopping");
/// assert_eq!(status_line(&status), "UNAVAILABLE: the server is stopping");
/// ```
#[must_use]
pub fn status_line(status: &Status) -> String {
    let mut line = code_name(status.code()).to_owned();
    let mut add = |text: &str| {
        if !text.is_empty() && !line.contains(text) {
            line.push_str(": ");
            line.push_str(text);
        }
    };
    add(status.message());
    if let Some(source) = status.source() {
        add(&chain(source));
    }
    line
}

/// Whether this side ended the stream because of a message above its limit. tonic has no
/// code of its own for it: it is the server's `OUT_OF_RANGE` with another message, and of
/// course without the server's count of missed events.
pub(super) fn is_too_large(status: &Status) -> bool {
    status.code() == Code::OutOfRange
        && status
            .message()
            .contains("decoded message length too large")
        && !status.metadata().contains_key(PUSH_MISSED)
}

/// An error and its causes, each once.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Layer {
            text: &'static str,
            source: Option<Box<Layer>>,
        }
        let error = Layer {
            text: "transport error",
            source: Some(Box::new(Layer {
                text: "tcp connect error",
                source: Some(Box::new(Layer {
                    text: "connect error",
                    source: None,
                })),
            })),
        };
        assert_eq!(chain(&error), "transport error: tcp connect error");
    }

    #[test]
    fn a_status_without_a_message_is_its_code() {
        let status = Status::new(Code::ResourceExhausted, "");
        assert_eq!(status_line(&status), "RESOURCE_EXHAUSTED");
    }
}
