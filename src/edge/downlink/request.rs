//! What a gateway's request asks for, in the words of gRPC over HTTP/2.

use http::{HeaderMap, HeaderValue};
use tonic::Status;

use crate::edge::subscribe::{self, MAX_REQUEST_BYTES};
use crate::http2::request::Request;

/// The flag and the length that precede every gRPC message.
pub(super) const PREFIX_BYTES: usize = 5;

/// A response that is all head.
#[derive(Debug)]
pub(super) struct Refusal {
    /// HTTP's status code.
    pub(super) code: u16,
    pub(super) fields: HeaderMap,
}

impl Refusal {
    pub(super) fn of(status: &Status) -> Self {
        let mut fields = trailers(status);
        fields.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        Refusal { code: 200, fields }
    }

    /// For peers that do not speak gRPC.
    fn http(code: u16) -> Self {
        Refusal {
            code,
            fields: HeaderMap::new(),
        }
    }
}

/// A status as the fields after a response.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut fields = HeaderMap::new();
    if status.add_header(&mut fields).is_err() {
        // A text or a detail that is no header's value: the code says it without.
        fields.clear();
        fields.insert("grpc-status", (status.code() as i32).into());
    }
    fields
}

/// Whether it is a call of `SubscribePush`.
pub(super) fn check(request: &Request) -> Result<(), Refusal> {
    if request.method != "POST" {
        let mut refusal = Refusal::http(405);
        let allowed = HeaderValue::from_static("POST");
        refusal.fields.insert(http::header::ALLOW, allowed);
        return Err(refusal);
    }
    let content_type = request.fields.get(http::header::CONTENT_TYPE);
    if !content_type.is_some_and(|of| of.as_bytes().starts_with(b"application/grpc")) {
        return Err(Refusal::http(415));
    }
    if request.path != subscribe::PATH {
        let status = Status::unimplemented("there is SubscribePush, and nothing else");
        return Err(Refusal::of(&status));
    }
    subscribe::refuse_compression(&request.fields).map_err(|status| Refusal::of(&status))
}

/// The one message of a request's body.
pub(super) fn message(body: &[u8]) -> Result<&[u8], Status> {
    let Some(&[flag, a, b, c, d]) = body.first_chunk::<PREFIX_BYTES>() else {
        return Err(match body {
            [] => subscribe::not_one_message("none was sent"),
            _ => Status::internal("the request ends in the middle of a message's prefix"),
        });
    };
    if flag != 0 {
        return Err(Status::internal(format!(
            "the request message has the flag {flag:#04x}, and no compression was agreed on"
        )));
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let rest = &body[PREFIX_BYTES..];
    if length > MAX_REQUEST_BYTES {
        return Err(too_long(body));
    }
    match rest.len() {
        have if have < length => Err(Status::internal(format!(
            "the request ends after {have} of {length} bytes of its message"
        ))),
        have if have > length => Err(subscribe::not_one_message("several were sent")),
        _ => Ok(rest),
    }
}

/// What is wrong with a body that begins like this and is longer than one message may
/// be.
pub(super) fn too_long(body: &[u8]) -> Status {
    let length = match body.first_chunk::<PREFIX_BYTES>() {
        Some(&[_, a, b, c, d]) => u32::from_be_bytes([a, b, c, d]) as usize,
        None => 0,
    };
    if length <= MAX_REQUEST_BYTES {
        return subscribe::not_one_message("several were sent");
    }
    Status::invalid_argument(format!(
        "the request message has {length} bytes, the limit is {MAX_REQUEST_BYTES}"
    ))
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
        assert_eq!(message(&framed(b"one")).unwrap(), b"one");
        assert_eq!(message(&framed(b"")).unwrap(), b"");
        let longest = framed(&[0; MAX_REQUEST_BYTES]);
        assert_eq!(message(&longest).unwrap().len(), MAX_REQUEST_BYTES);
        for (body, code) in [
            (vec![], Code::Unimplemented),
            (framed(b"one").repeat(2), Code::Unimplemented),
            (framed(b"one")[..4].to_vec(), Code::Internal),
            (framed(b"one")[..7].to_vec(), Code::Internal),
            (b"\x01\0\0\0\x01x".to_vec(), Code::Internal),
            (framed(&[0; MAX_REQUEST_BYTES + 1]), Code::InvalidArgument),
            (b"\0\xff\xff\xff\xff".to_vec(), Code::InvalidArgument),
        ] {
            assert_eq!(message(&body).unwrap_err().code(), code, "{body:?}");
        }
    }

    #[test]
    fn a_long_body_is_a_long_message_or_several() {
        let status = too_long(&framed(&[0; 5000]));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("5000 bytes"), "{status:?}");
        assert_eq!(too_long(&framed(b"short")).code(), Code::Unimplemented);
    }

    #[test]
    fn whoever_does_not_call_the_method_is_told_so() {
        let call = |change: &dyn Fn(&mut Request)| {
            let mut fields = HeaderMap::new();
            let grpc = HeaderValue::from_static("application/grpc+proto");
            fields.insert(http::header::CONTENT_TYPE, grpc);
            let mut request = Request {
                method: "POST".into(),
                path: subscribe::PATH.into(),
                fields,
            };
            change(&mut request);
            check(&request).map_err(|refusal| {
                let status = refusal.fields.get("grpc-status").cloned();
                (refusal.code, status.map(|s| s.to_str().unwrap().to_owned()))
            })
        };
        let unimplemented = Err((200, Some("12".to_owned())));
        assert_eq!(call(&|_| {}), Ok(()));
        assert_eq!(call(&|r| r.method = "GET".into()), Err((405, None)));
        assert_eq!(call(&|r| r.fields.clear()), Err((415, None)));
        assert_eq!(call(&|r| r.path = "/other".into()), unimplemented);
        let gzip = HeaderValue::from_static("gzip");
        let compressed = call(&|r| drop(r.fields.insert("grpc-encoding", gzip.clone())));
        assert_eq!(compressed, unimplemented);
    }
}
