//! Statuses and transport errors: as one line that a person can act on, and what they say to
//! machines.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};

use crate::contract::details::{DOMAIN, Details, ErrorInfo, code_name};
use crate::contract::metadata::PUSH_MISSED;

/// Why a call was refused or ended: the status's `google.rpc.ErrorInfo`. `None` for a status
/// that has none, such as one of the transport.
///
/// A domain other than [`DOMAIN`] is that of a proxy.
#[must_use]
pub fn error_info(status: &Status) -> Option<ErrorInfo> {
    Details::decode(status.details()).error_info
}

/// How long to wait at least before the next attempt, if the server says so: the status's
/// `google.rpc.RetryInfo`. It may be any time: bound it.
#[must_use]
pub fn retry_delay(status: &Status) -> Option<Duration> {
    Details::decode(status.details()).retry_delay
}

/// A status in one line: its code as the gRPC specification spells it, its
/// message, and for what broke on this side the causes beneath; at the end the reason of the
/// server's, in brackets, to look it up in `docs/protocol.md`.
///
/// ```
/// use galaxy_push::client::status_line;
///
/// let status = tonic::Status::unavailable("the server is stopping");
/// assert_eq!(status_line(&status), "UNAVAILABLE: the server is stopping");
/// ```
#[must_use]
pub fn status_line(status: &Status) -> String {
    let mut line = code_name(status.code() as i32).to_owned();
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
    if let Some(info) = error_info(status).filter(|info| info.domain == DOMAIN)
        && is_word(&info.reason)
    {
        line.push_str(&format!(" ({})", info.reason));
    }
    line
}

/// Whether it is what `error_details.proto` lets a reason be: nothing that a terminal would
/// take for more than a text.
fn is_word(reason: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=63).contains(&reason.len()) && reason.bytes().all(is_letter)
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

    fn with_reason(reason: &str, domain: &str) -> Status {
        let details = Details {
            error_info: Some(ErrorInfo {
                reason: reason.to_owned(),
                domain: domain.to_owned(),
                ..ErrorInfo::default()
            }),
            retry_delay: Some(Duration::from_secs(3)),
        };
        let code = Code::Unavailable;
        let bytes = details.encode(code as i32, "stopping");
        Status::with_details(code, "stopping", bytes.into())
    }

    #[test]
    fn a_reason_of_the_server_is_told_behind_the_message() {
        let status = with_reason("STOPPING", DOMAIN);
        assert_eq!(status_line(&status), "UNAVAILABLE: stopping (STOPPING)");
        assert_eq!(retry_delay(&status), Some(Duration::from_secs(3)));
        let long = "X".repeat(64);
        for reason in ["", "\x1b[2J", "stopping", &long] {
            let status = with_reason(reason, DOMAIN);
            assert_eq!(status_line(&status), "UNAVAILABLE: stopping");
        }
        let status = with_reason("STOPPING", "a-proxy.example");
        assert_eq!(status_line(&status), "UNAVAILABLE: stopping");
        assert_eq!(error_info(&status).unwrap().domain, "a-proxy.example");
    }

    #[test]
    fn details_that_are_none_say_nothing() {
        let status = Status::with_details(Code::Internal, "x", b"\xff\xff".to_vec().into());
        assert_eq!((error_info(&status), retry_delay(&status)), (None, None));
        assert_eq!(status_line(&status), "INTERNAL: x");
    }

    #[test]
    fn a_status_without_a_message_is_its_code() {
        let status = Status::new(Code::ResourceExhausted, "");
        assert_eq!(status_line(&status), "RESOURCE_EXHAUSTED");
    }
}
