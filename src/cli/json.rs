//! Events as lines of JSON (JSON Lines): what `tail` prints and what `publish`
//! reads.
//!
//! ```json
//! {"cursor":"…","client_event":{"user_id":"u1","device_session_id":"s1","kind":"turn.ready","payload":{"game":1},"event_id":"e1","request_id":"r1","trace_id":"t1"}}
//! {"cursor":"…","session_invalidation":{"user_id":"u2","device_session_id":"","reason":"logout"}}
//! ```
//!
//! # What is written
//!
//! One event is one line, whatever it holds. The payload's bytes and all texts come
//! from strangers. Neither a reader of the lines nor a terminal that shows them may
//! be fooled by them:
//!
//! - A payload that is JSON is embedded as it is, only without the space between its
//!   tokens: numbers keep their digits, keys their order and repetitions. Three kinds
//!   of payload are `payload_base64` instead: bytes that are not JSON, JSON that is
//!   nested deeper than most parsers follow, and JSON's `null`, which many tools write
//!   for a field that is not set.
//! - DEL, the control characters U+0080 to U+009F, and the separators U+2028 and
//!   U+2029 are written as `\u` escapes, which mean the same: some readers end a
//!   line at them, and some terminals obey them.
//!
//! What is read back differs from what was printed in nothing but that space and
//! those escapes.
//!
//! # What is read
//!
//! These lines, and what other tools make of the same events: a UTF-8 byte order
//! mark, CRLF, protobuf's JSON names (`clientEvent`, `userId`) next to the `.proto`
//! file's, `null` for a field that is not set, base64 in both alphabets with and
//! without padding. A line that is something else is refused with a [`LineError`]
//! that says what it is.

mod line_error;
mod read;
mod write;

pub(super) use line_error::LineError;
pub(super) use read::{check, parse_line};
pub(super) use write::write_line;
