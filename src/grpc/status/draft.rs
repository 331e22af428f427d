//! A status while it is put together: reason, message, figures, when to try again.

use std::collections::BTreeMap;

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::retry::Retry;
use crate::contract::details::{DOMAIN, Details, ErrorInfo, ErrorReason};

/// The longest message beside details, in bytes as it is encoded. The details have it a second
/// time.
const MAX_MESSAGE_BYTES: usize = 1 << 10;
/// The longest details, before they are encoded in base64: a third more.
const MAX_DETAILS_BYTES: usize = 1800;
/// What is kept of a value where the details are too long.
const SHORT_VALUE_BYTES: usize = 64;
const ELLIPSIS: &str = "...";

/// A status that is not finished.
#[derive(Debug)]
#[must_use = "a draft becomes a status"]
pub(super) struct Draft {
    code: Code,
    reason: ErrorReason,
    message: String,
    values: BTreeMap<String, String>,
    retry: Option<Retry>,
    metadata: MetadataMap,
}

impl Draft {
    pub(super) fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Self {
        Draft {
            code,
            reason,
            message: message.into(),
            values: BTreeMap::new(),
            retry: None,
            metadata: MetadataMap::new(),
        }
    }

    /// A figure or a name of the message, for machines.
    pub(super) fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.values.insert(key.to_owned(), value.to_string());
        self
    }

    /// Trying again makes sense.
    pub(super) fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// More that goes with the status.
    pub(super) fn metadata(mut self, metadata: MetadataMap) -> Self {
        self.metadata = metadata;
        self
    }

    /// The status. Where it would be too long for a response's head, the message is shortened
    /// first, then the values of the figures. If these are still too many, they are left out,
    /// and the details altogether at the very last.
    pub(super) fn finish(self) -> Status {
        let message = shorten(self.message);
        let code = self.code as i32;
        let mut details = Details {
            error_info: Some(ErrorInfo {
                reason: self.reason.as_str().to_owned(),
                domain: DOMAIN.to_owned(),
                metadata: self.values,
            }),
            retry_delay: self.retry.map(Retry::delay),
        };
        let mut bytes = details.encode(code, &message);
        for shorten in [shorten_values, clear_values] {
            if bytes.len() > MAX_DETAILS_BYTES {
                details.error_info.as_mut().map(shorten);
                bytes = details.encode(code, &message);
            }
        }
        if bytes.len() > MAX_DETAILS_BYTES {
            bytes.clear();
        }
        Status::with_details_and_metadata(self.code, message, bytes.into(), self.metadata)
    }
}

impl From<Draft> for Status {
    fn from(draft: Draft) -> Self {
        draft.finish()
    }
}

/// Cuts a message that is too long once it is percent-encoded.
fn shorten(mut message: String) -> String {
    let mut bytes = 0;
    let mut kept = 0;
    for (at, character) in message.char_indices() {
        bytes += match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' => 1,
            // `%20`, and so for each byte; some of them are sent as they are.
            other => 3 * other.len_utf8(),
        };
        if bytes <= MAX_MESSAGE_BYTES - 3 * ELLIPSIS.len() {
            kept = at + character.len_utf8();
        }
    }
    if bytes > MAX_MESSAGE_BYTES {
        message.truncate(kept);
        message.push_str(ELLIPSIS);
    }
    message
}

fn shorten_values(info: &mut ErrorInfo) {
    for value in info.metadata.values_mut() {
        if value.len() > SHORT_VALUE_BYTES {
            let mut kept = SHORT_VALUE_BYTES - ELLIPSIS.len();
            while !value.is_char_boundary(kept) {
                kept -= 1;
            }
            value.truncate(kept);
            value.push_str(ELLIPSIS);
        }
    }
}

fn clear_values(info: &mut ErrorInfo) {
    info.metadata.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(message: &str) -> Draft {
        Draft::new(Code::Aborted, ErrorReason::TakenOver, message)
    }

    fn info(status: &Status) -> ErrorInfo {
        Details::decode(status.details()).error_info.unwrap()
    }

    #[test]
    fn a_short_one_is_kept_as_it_is() {
        let status = draft("what: 7 of 9 (語)")
            .with("have", 7)
            .with("limit", 9)
            .finish();
        assert_eq!(status.message(), "what: 7 of 9 (語)");
        let info = info(&status);
        assert!(info.is(ErrorReason::TakenOver));
        let expected = [("have", "7"), ("limit", "9")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(info.metadata, expected.into());
    }

    #[test]
    fn the_message_is_shortened_first_and_equal_in_the_details() {
        for text in ["x", "\n", "語", "🛰"] {
            let status = draft(&text.repeat(2000)).with("id", "g").finish();
            assert!(status.message().ends_with(ELLIPSIS));
            assert!(info(&status).metadata.contains_key("id"));
            assert!(status.details().len() <= MAX_DETAILS_BYTES);
            let has = status.details();
            let message = status.message().as_bytes();
            assert!(has.windows(message.len()).any(|part| part == message));
        }
    }

    #[test]
    fn values_are_shortened_then_left_out() {
        let status = draft("m").with("id", "語".repeat(1000)).finish();
        let short = &info(&status).metadata["id"];
        assert!(short.len() <= SHORT_VALUE_BYTES && short.starts_with('語'));
        assert!(short.ends_with(ELLIPSIS));
        let mut many = draft("m");
        for n in 0..100 {
            many.values.insert(n.to_string(), "v".repeat(60));
        }
        let info = info(&many.finish());
        assert!(info.metadata.is_empty() && info.is(ErrorReason::TakenOver));
    }
}
