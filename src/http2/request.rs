//! A request's head, checked (RFC 9113, section 8).

use http::{HeaderMap, HeaderName, HeaderValue};

/// What a field counts in addition to its name and value (section 6.5.2).
const FIELD_OVERHEAD: usize = 32;

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

/// Collects a request's fields as they are decoded.
#[derive(Debug)]
pub(super) struct Fields {
    room: usize,
    method: Option<String>,
    scheme: bool,
    authority: bool,
    path: Option<String>,
    fields: HeaderMap,
    failed: Option<Malformed>,
}

impl Fields {
    /// Of at most `max_bytes`, as section 6.5.2 counts them.
    pub(super) fn new(max_bytes: usize) -> Self {
        Fields {
            room: max_bytes,
            method: None,
            scheme: false,
            authority: false,
            path: None,
            fields: HeaderMap::new(),
            failed: None,
        }
    }

    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        // Whoever failed once goes on being decoded: the table must stay in step.
        if self.failed != Some(Malformed::TooLarge) {
            let bytes = name.len() + value.len() + FIELD_OVERHEAD;
            match self.room.checked_sub(bytes) {
                None => self.failed = Some(Malformed::TooLarge),
                Some(room) => {
                    self.room = room;
                    if self.failed.is_none() && self.try_add(name, value).is_none() {
                        self.failed = Some(Malformed::Request);
                    }
                }
            }
        }
    }

    fn try_add(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        if let [b':', name @ ..] = name {
            return self.add_pseudo(name, value);
        }
        // `from_lowercase` refuses upper case, as section 8.2.1 demands.
        let name = HeaderName::from_lowercase(name).ok()?;
        let connection_specific = match name.as_str() {
            "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => {
                true
            }
            "te" => value != b"trailers",
            _ => false,
        };
        if connection_specific {
            return None;
        }
        let value = HeaderValue::from_bytes(value).ok()?;
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

    pub(super) fn finish(self) -> Result<RequestHead, Malformed> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let method = self.method.ok_or(Malformed::Request)?;
        let connect = method == "CONNECT";
        let path = match self.path {
            Some(path) if !connect && self.scheme && !path.is_empty() => path,
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
        let mut collected = Fields::new(1000);
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
    fn what_is_too_large_is_told_apart() {
        let value = "x".repeat(900);
        let fields = [&GET[..], &[("Upper", "x"), ("a", &value)]].concat();
        assert_eq!(finish(&fields), Err(Malformed::TooLarge));
    }
}
