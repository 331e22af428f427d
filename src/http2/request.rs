//! A request's head, checked (RFC 9113, section 8).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::header_block::FieldList;

/// What a field counts in addition to its name and value (section 6.5.2).
pub(super) const FIELD_OVERHEAD: usize = 32;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method, such as `POST`.
    pub method: String,
    /// The path, such as `/package.Service/Method`; empty for `CONNECT`.
    pub path: String,
    /// Its fields, without those that begin with a colon.
    pub fields: HeaderMap,
}

/// Why a request's head is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// It breaks the rules of section 8.
    Request,
    /// It is longer than allowed.
    TooLarge,
}

/// A field that does not begin with a colon, if it is one of HTTP/2 (section 8.2).
pub(super) fn regular_field(name: &[u8], value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    // `from_lowercase` refuses upper case, as section 8.2.1 demands.
    let name = HeaderName::from_lowercase(name).ok()?;
    let is_of_connection = matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
    );
    if is_of_connection {
        return None;
    }
    // RFC 9113, 8.2.1 would have no space at either end; gRPC lets metadata have it, and
    // has readers strip it. gRPC wins: such a call is served.
    Some((name, HeaderValue::from_bytes(value).ok()?))
}

/// Collects a request's fields as they are decoded.
#[derive(Debug)]
pub(super) struct Fields {
    room: usize,
    method: Option<String>,
    scheme: bool,
    authority: bool,
    path: Option<String>,
    fields: HeaderMap,
    content_length: Option<u64>,
    has_pseudo: bool,
    failed: Option<Malformed>,
}

impl FieldList for Fields {
    fn with_room(max_bytes: usize) -> Self {
        Fields {
            room: max_bytes,
            method: None,
            scheme: false,
            authority: false,
            path: None,
            fields: HeaderMap::new(),
            content_length: None,
            has_pseudo: false,
            failed: None,
        }
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        // Whoever failed once goes on being decoded: the table must stay in step.
        if self.failed != Some(Malformed::TooLarge) {
            let bytes = name.len() + value.len() + FIELD_OVERHEAD;
            match self.room.checked_sub(bytes) {
                None => self.add_too_long(),
                Some(room) => {
                    self.room = room;
                    if self.failed.is_none() && self.try_add(name, value).is_none() {
                        self.failed = Some(Malformed::Request);
                    }
                }
            }
        }
    }

    fn add_too_long(&mut self) {
        self.failed = Some(Malformed::TooLarge);
        self.fields = HeaderMap::new();
    }
}

impl Fields {
    fn try_add(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        if let [b':', name @ ..] = name {
            self.has_pseudo = true;
            return self.add_pseudo(name, value);
        }
        let (name, value) = regular_field(name, value)?;
        let is_wrong = match name.as_str() {
            "te" => value != "trailers",
            "content-length" => !self.add_content_length(value.as_bytes()),
            _ => false,
        };
        if is_wrong {
            return None;
        }
        self.fields.try_append(name, value).ok()?;
        Some(())
    }

    fn add_pseudo(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        if !self.fields.is_empty() {
            return None;
        }
        let value = std::str::from_utf8(value).ok()?;
        let first = match name {
            b"method" => self.method.replace(value.to_owned()).is_none(),
            b"path" => self.path.replace(value.to_owned()).is_none(),
            b"scheme" => !std::mem::replace(&mut self.scheme, true),
            // Whatever it is: clients on unix sockets name paths.
            b"authority" => !std::mem::replace(&mut self.authority, true),
            _ => false,
        };
        first.then_some(())
    }

    /// Says whether it is a number, and the same as before (RFC 9110, section 8.6).
    fn add_content_length(&mut self, value: &[u8]) -> bool {
        let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(value).ok().filter(|_| is_number);
        let Some(length) = text.and_then(|text| text.parse().ok()) else {
            return false;
        };
        *self.content_length.get_or_insert(length) == length
    }

    /// How long the body is said to be.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Whether they may come after a body (section 8.1). Nobody reads them: they may be too
    /// large.
    pub(super) fn are_trailers(&self) -> bool {
        self.failed != Some(Malformed::Request) && !self.has_pseudo
    }

    /// The head of a request that they are.
    pub(super) fn finish(self) -> Result<RequestHead, Malformed> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let method = self.method.ok_or(Malformed::Request)?;
        let connect = method == "CONNECT";
        let is_path = |path: &str| path.starts_with('/') || (path == "*" && method == "OPTIONS");
        let path = match self.path {
            Some(path) if !connect && self.scheme && is_path(&path) => path,
            None if connect && !self.scheme && self.authority => String::new(),
            _ => return Err(Malformed::Request),
        };
        Ok(RequestHead {
            method,
            path,
            fields: self.fields,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(fields: &[(&str, &str)]) -> Result<RequestHead, Malformed> {
        let mut collected = Fields::with_room(1000);
        for (name, value) in fields {
            collected.add(name.as_bytes(), value.as_bytes());
        }
        collected.finish()
    }

    const GET: [(&str, &str); 3] = [(":method", "GET"), (":scheme", "http"), (":path", "/a")];

    #[test]
    fn a_request_has_a_method_a_scheme_and_a_path() {
        let request = finish(&[&GET[..], &[("te", "trailers"), ("a", "b"), ("a", "c")]].concat());
        let request = request.unwrap();
        assert_eq!((&*request.method, &*request.path), ("GET", "/a"));
        assert_eq!(request.fields.get_all("a").iter().count(), 2);
        for missing in 0..3 {
            let mut fields = GET.to_vec();
            fields.remove(missing);
            assert_eq!(finish(&fields), Err(Malformed::Request), "{fields:?}");
        }
        let connect = finish(&[(":method", "CONNECT"), (":authority", "a:1")]).unwrap();
        assert_eq!(connect.path, "");
    }

    #[test]
    fn what_breaks_the_rules_is_malformed() {
        for more in [
            (":method", "GET"),
            (":unknown", "x"),
            (":status", "200"),
            ("Upper", "x"),
            ("", "x"),
            ("a b", "x"),
            ("a", "line\nbreak"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("content-length", ""),
            ("content-length", "+1"),
            ("content-length", "99999999999999999999"),
        ] {
            let fields = [&GET[..], &[more]].concat();
            assert_eq!(finish(&fields), Err(Malformed::Request), "{more:?}");
        }
        let late = [
            ("a", "b"),
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
        ];
        assert_eq!(finish(&late), Err(Malformed::Request));
    }

    #[test]
    fn a_path_begins_with_a_slash() {
        let request = |method, path| {
            finish(&[(":method", method), (":scheme", "http"), (":path", path)]).is_ok()
        };
        assert!(request("OPTIONS", "*") && request("GET", "/"));
        assert!(!request("GET", "*") && !request("GET", "") && !request("GET", "a/b"));
    }

    #[test]
    fn a_body_has_one_length() {
        let lengths = |lengths: &[&str]| {
            let mut fields = Fields::with_room(1000);
            for length in lengths {
                fields.add(b"content-length", length.as_bytes());
            }
            (fields.failed.is_none()).then(|| fields.content_length())
        };
        assert_eq!(lengths(&[]), Some(None));
        assert_eq!(lengths(&["07", "7"]), Some(Some(7)));
        assert_eq!(lengths(&["7", "8"]), None);
    }

    #[test]
    fn trailers_have_no_pseudo_header_fields() {
        let trailers = |name: &[u8], value: &[u8]| {
            let mut fields = Fields::with_room(1000);
            fields.add(b"a", b"b");
            fields.add(name, value);
            fields.are_trailers()
        };
        assert!(trailers(b"c", b"d") && trailers(b"c", &[b'x'; 2000]));
        assert!(!trailers(b":method", b"GET") && !trailers(b"Upper", b"x"));
        let mut first = Fields::with_room(1000);
        first.add(b":method", b"GET");
        assert!(!first.are_trailers());
    }

    #[test]
    fn what_is_too_large_is_told_apart() {
        let value = "x".repeat(900);
        let fields = [&GET[..], &[("Upper", "x"), ("a", &value)]].concat();
        assert_eq!(finish(&fields), Err(Malformed::TooLarge));
    }
}
