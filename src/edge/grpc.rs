//! Calls in the words of gRPC over HTTP/2: what a request must be, what precedes a
//! message, and how a status ends a response.

use http::{HeaderMap, HeaderValue};
use tonic::Status;

use super::subscribe;
use crate::http2::request::RequestHead;

/// The flag and the length that precede every message.
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

/// Whether it is a call of one of these methods. If it is of another, the refusal says
/// `otherwise`.
pub(super) fn check(
    request: &RequestHead,
    methods: &[&str],
    otherwise: &'static str,
) -> Result<(), Refusal> {
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
    if !methods.contains(&&*request.path) {
        return Err(Refusal::of(&Status::unimplemented(otherwise)));
    }
    subscribe::refuse_compression(&request.fields).map_err(|status| Refusal::of(&status))
}

/// What a response begins with that says nothing else.
pub(super) fn response_fields() -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(1);
    fields.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    fields
}

/// How long the message is at whose prefix `bytes` begin; `None` if they do not have all
/// of the prefix.
pub(super) fn message_bytes(bytes: &[u8]) -> Result<Option<usize>, Status> {
    let Some(&[flag, a, b, c, d]) = bytes.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    if flag != 0 {
        return Err(Status::internal(format!(
            "the request message has the flag {flag:#04x}, and no compression was agreed on"
        )));
    }
    Ok(Some(u32::from_be_bytes([a, b, c, d]) as usize))
}

/// A request that ends with the first `have` bytes of a message, its prefix included,
/// of a `length` that may not be known.
pub(super) fn cut_short(have: usize, length: Option<usize>) -> Status {
    match (have.checked_sub(PREFIX_BYTES), length) {
        (Some(have), Some(length)) => Status::internal(format!(
            "the request ends after {have} of {length} bytes of its message"
        )),
        _ => Status::internal("the request ends in the middle of a message's prefix"),
    }
}

/// A message longer than allowed.
pub(super) fn too_long(length: usize, limit: usize) -> Status {
    Status::invalid_argument(format!(
        "the request message has {length} bytes, the limit is {limit}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn a_prefix_is_a_flag_and_a_length() {
        assert_eq!(
            message_bytes(b"\0\0\x01\x02\x03rest").unwrap(),
            Some(0x1_0203)
        );
        assert_eq!(message_bytes(b"\0\0\0\0").unwrap(), None);
        assert_eq!(message_bytes(b"").unwrap(), None);
        let compressed = message_bytes(b"\x01\0\0\0\0").unwrap_err();
        assert_eq!(compressed.code(), Code::Internal);
        assert!(compressed.message().contains("0x01"), "{compressed:?}");
    }

    #[test]
    fn whoever_does_not_call_the_method_is_told_so() {
        let call = |change: &dyn Fn(&mut RequestHead)| {
            let mut fields = HeaderMap::new();
            let grpc = HeaderValue::from_static("application/grpc+proto");
            fields.insert(http::header::CONTENT_TYPE, grpc);
            let mut request = RequestHead {
                method: "POST".into(),
                path: "/a.B/D".into(),
                fields,
            };
            change(&mut request);
            let methods = ["/a.B/C", "/a.B/D"];
            check(&request, &methods, "there is C").map_err(|refusal| {
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
