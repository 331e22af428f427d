//! Responses whose statuses tonic can read.
//!
//! A status is an outsider's input, and tonic (0.14.9, `Status::from_header_map`) does not
//! survive all details that an outsider can send. What it would not read is taken out before
//! it sees it; of several values, which intermediaries may join, the first is left.

use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};

const DETAILS: &str = "grpc-status-details-bin";

/// The response, of whose status only what tonic can read is left.
pub(super) fn readable(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    // A response that is all head has its status there.
    clean(&mut head.headers);
    let body = body.map_frame(|mut frame| {
        if let Some(trailers) = frame.trailers_mut() {
            clean(trailers);
        }
        frame
    });
    Response::from_parts(head, Body::new(body))
}

/// Leaves the first of several details, and none that is not base64.
fn clean(fields: &mut HeaderMap) {
    let Some(value) = fields.get(DETAILS) else {
        return;
    };
    let is_read = |value: &HeaderValue| {
        let mut one = HeaderMap::new();
        one.insert(DETAILS, value.clone());
        let metadata = MetadataMap::from_headers(one);
        // By the same decoder.
        metadata
            .get_bin(DETAILS)
            .is_some_and(|value: &BinaryMetadataValue| value.to_bytes().is_ok())
    };
    if is_read(value) {
        return;
    }
    let first = value.as_bytes().split(|&byte| byte == b',').next();
    let first = first.and_then(|first| HeaderValue::from_bytes(first.trim_ascii()).ok());
    match first.filter(is_read) {
        Some(first) => drop(fields.insert(DETAILS, first)),
        None => drop(fields.remove(DETAILS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_base64_is_left_and_of_several_the_first() {
        for (value, left) in [
            ("", Some("")),
            ("CAE", Some("CAE")),
            ("CAE=", Some("CAE=")),
            ("CAE=, CAI=", Some("CAE=")),
            ("CAE,", Some("CAE")),
            ("CA", Some("CA")),
            ("C", None),
            ("_-_-", None),
            ("CA E", None),
            (",CAE", Some("")),
            ("%,CAE", None),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(DETAILS, HeaderValue::from_static(value));
            clean(&mut fields);
            let kept = fields.get(DETAILS).map(|value| value.to_str().unwrap());
            assert_eq!(kept, left, "{value:?}");
        }
    }
}
