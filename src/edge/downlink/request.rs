//! The one message of a gateway's request, out of its body.

use tonic::Status;

use crate::edge::grpc::{self, PREFIX_BYTES};
use crate::edge::subscribe::{self, MAX_REQUEST_BYTES};

/// The longest body that has one message.
pub(super) const MAX_BODY_BYTES: usize = PREFIX_BYTES + MAX_REQUEST_BYTES;

/// The message, once the body has arrived in full; `None` before.
pub(super) fn message(body: &[u8], is_received: bool) -> Result<Option<&[u8]>, Status> {
    if body.len() > MAX_BODY_BYTES {
        return Err(too_long(body));
    }
    if !is_received {
        return Ok(None);
    }
    if body.is_empty() {
        return Err(subscribe::not_one_message("none was sent"));
    }
    let Some(length) = grpc::message_bytes(body)? else {
        return Err(grpc::cut_short(body.len(), None));
    };
    if length > MAX_REQUEST_BYTES {
        return Err(too_long(body));
    }
    let message = &body[PREFIX_BYTES..];
    if message.len() < length {
        return Err(grpc::cut_short(body.len(), Some(length)));
    }
    if message.len() > length {
        return Err(subscribe::not_one_message("several were sent"));
    }
    Ok(Some(message))
}

/// What is wrong with a body that begins like this and is longer than one message may
/// be.
fn too_long(body: &[u8]) -> Status {
    match grpc::message_bytes(body) {
        Err(status) => status,
        Ok(Some(length)) if length > MAX_REQUEST_BYTES => grpc::too_long(length, MAX_REQUEST_BYTES),
        Ok(_) => subscribe::not_one_message("several were sent"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = (message.len() as u32).to_be_bytes();
        [&[0], &length[..], message].concat()
    }

    #[test]
    fn a_body_is_one_message() {
        let whole = |body: &[u8]| message(body, true).map(|message| message.unwrap().to_vec());
        assert_eq!(whole(&framed(b"one")).unwrap(), b"one");
        assert_eq!(whole(&framed(b"")).unwrap(), b"");
        let longest = framed(&[0; MAX_REQUEST_BYTES]);
        assert_eq!(whole(&longest).unwrap().len(), MAX_REQUEST_BYTES);
        for (body, code) in [
            (vec![], Code::Unimplemented),
            (framed(b"one").repeat(2), Code::Unimplemented),
            (framed(b"one")[..4].to_vec(), Code::Internal),
            (framed(b"one")[..7].to_vec(), Code::Internal),
            (b"\x01\0\0\0\x01x".to_vec(), Code::Internal),
            (framed(&[0; MAX_REQUEST_BYTES + 1]), Code::InvalidArgument),
            (b"\0\xff\xff\xff\xff".to_vec(), Code::InvalidArgument),
        ] {
            assert_eq!(whole(&body).unwrap_err().code(), code, "{body:?}");
        }
    }

    #[test]
    fn what_has_not_arrived_in_full_is_waited_for_unless_it_is_too_long() {
        let arriving = |body: &[u8]| message(body, false).map(|message| message.is_some());
        for body in [&b""[..], b"\0\0", &framed(b"one")] {
            assert!(!arriving(body).unwrap());
        }
        let long_message = arriving(&framed(&[0; 5000])).unwrap_err();
        assert_eq!(long_message.code(), Code::InvalidArgument);
        assert!(
            long_message.message().contains("5000 bytes"),
            "{long_message:?}"
        );
        let several = arriving(&framed(b"short").repeat(1000)).unwrap_err();
        assert_eq!(several.code(), Code::Unimplemented);
    }
}
