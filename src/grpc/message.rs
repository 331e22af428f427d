//! Messages in a request's body: a prefix of five bytes, and the message (gRPC over
//! HTTP/2, *Length-Prefixed-Message*).

use prost::Message;
use tonic::Status;

use super::status;
use crate::contract::MESSAGE_PREFIX_BYTES as PREFIX_BYTES;

/// What a body begins with.
#[derive(Debug)]
pub(crate) enum Next {
    /// A message of so many bytes, behind its prefix.
    Message(usize),
    /// A part of one, of which so much is to come.
    Part { missing_bytes: usize },
    /// Nothing, or the beginning of a prefix.
    Nothing,
    /// Nothing, and nothing will come.
    End,
}

/// What a stream of messages goes on with; `is_complete` says that nothing follows `body`.
///
/// # Errors
///
/// The status that ends the call.
pub(super) fn next(body: &[u8], is_complete: bool, max_bytes: usize) -> Result<Next, Status> {
    let length = length(body)?;
    let missing_bytes = match length {
        Some(length) if length > max_bytes => {
            return Err(status::request_too_large(length, max_bytes));
        }
        Some(length) => match (PREFIX_BYTES + length).checked_sub(body.len()) {
            None | Some(0) => return Ok(Next::Message(length)),
            Some(missing_bytes) => missing_bytes,
        },
        None => 0,
    };
    match (is_complete, body.len()) {
        (true, 0) => Ok(Next::End),
        (true, have) => Err(cut_short(have, length)),
        (false, _) if missing_bytes > 0 => Ok(Next::Part { missing_bytes }),
        (false, _) => Ok(Next::Nothing),
    }
}

/// The same where the body is to be one message, which counts once it is complete.
///
/// # Errors
///
/// The status that ends the call; `method` is named where the number of messages is wrong.
pub(super) fn only(
    body: &[u8],
    is_complete: bool,
    max_bytes: usize,
    method: &str,
) -> Result<Next, Status> {
    let not_one = |several| Err(status::not_one_message(method, several));
    match next(body, is_complete, max_bytes)? {
        Next::Message(bytes) if body.len() > PREFIX_BYTES + bytes => not_one(true),
        Next::Message(_) if !is_complete => Ok(Next::Nothing),
        Next::End => not_one(false),
        next => Ok(next),
    }
}

/// How long the message is at whose prefix `body` begins; `None` if it does not have all of
/// the prefix.
fn length(body: &[u8]) -> Result<Option<usize>, Status> {
    let Some(&[flag, a, b, c, d]) = body.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    if flag != 0 {
        return Err(status::compressed_flag(flag));
    }
    Ok(Some(u32::from_be_bytes([a, b, c, d]) as usize))
}

/// A request that ends with the first `have` bytes of a message, its prefix included, of a
/// `length` that may not be known.
fn cut_short(have: usize, length: Option<usize>) -> Status {
    status::cut_short(have.checked_sub(PREFIX_BYTES).zip(length))
}

/// A message with its prefix.
pub(super) fn encode(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + length);
    bytes.push(0);
    // None of ours is anywhere near four gigabytes.
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend(message.encode_to_vec());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    const MAX_BYTES: usize = 1000;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = (message.len() as u32).to_be_bytes();
        [&[0], &length[..], message].concat()
    }

    fn refusal(next: Result<Next, Status>) -> Status {
        next.expect_err("refused")
    }

    #[test]
    fn a_prefix_is_a_flag_and_a_length() {
        assert_eq!(length(b"\0\0\x01\x02\x03rest").unwrap(), Some(0x1_0203));
        assert_eq!(length(b"\0\0\0\0").unwrap(), None);
        assert_eq!(length(b"").unwrap(), None);
        let compressed = length(b"\x01\0\0\0\0").unwrap_err();
        assert_eq!(compressed.code(), Code::Internal);
        assert!(compressed.message().contains("0x01"), "{compressed:?}");
    }

    #[test]
    fn a_body_of_one_message_counts_when_it_is_complete() {
        let only = |body: &[u8], is_complete| only(body, is_complete, MAX_BYTES, "Method");
        for message in [&b""[..], b"one", &[0; MAX_BYTES]] {
            let body = framed(message);
            let next = only(&body, true);
            assert!(matches!(next, Ok(Next::Message(n)) if n == message.len()));
            assert!(matches!(only(&body, false), Ok(Next::Nothing)));
        }
        for (body, code) in [
            (vec![], Code::Unimplemented),
            (framed(b"one").repeat(2), Code::Unimplemented),
            (framed(b"one")[..4].to_vec(), Code::Internal),
            (framed(b"one")[..7].to_vec(), Code::Internal),
            (b"\x01\0\0\0\x01x".to_vec(), Code::Internal),
            (framed(&[0; MAX_BYTES + 1]), Code::InvalidArgument),
            (b"\0\xff\xff\xff\xff".to_vec(), Code::InvalidArgument),
        ] {
            assert_eq!(refusal(only(&body, true)).code(), code, "{body:?}");
        }
    }

    #[test]
    fn what_can_never_be_one_message_is_refused_before_it_is_complete() {
        let only = |body: &[u8]| only(body, false, MAX_BYTES, "Method");
        let long = refusal(only(&framed(&[0; 5000])));
        assert_eq!(long.code(), Code::InvalidArgument);
        assert!(long.message().contains("5000 bytes"), "{long:?}");
        let several = refusal(only(&framed(b"short").repeat(10)));
        assert_eq!(several.code(), Code::Unimplemented);
        assert!(
            several.message().starts_with("Method takes one"),
            "{several:?}"
        );
    }

    #[test]
    fn a_stream_goes_on_with_whole_messages_and_waits_for_parts() {
        let next = |body: &[u8], is_complete| next(body, is_complete, MAX_BYTES);
        let two = framed(b"one").repeat(2);
        assert!(matches!(next(&two, false), Ok(Next::Message(3))));
        let part = next(&two[..6], false);
        assert!(matches!(part, Ok(Next::Part { missing_bytes: 2 })));
        assert!(matches!(next(&two[..3], false), Ok(Next::Nothing)));
        assert!(matches!(next(b"", true), Ok(Next::End)));
        assert_eq!(refusal(next(&two[..6], true)).code(), Code::Internal);
    }
}
