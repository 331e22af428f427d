//! A line as an event.

use std::fmt;
use std::marker::PhantomData;

use base64::alphabet::{self, Alphabet};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine as _};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::LineError;
use crate::contract::push::push_event::Kind;
use crate::contract::push::{ClientEvent, PushEvent, SessionInvalidation};

/// What some editors and shells write at the start of a file in UTF-8. It is let pass
/// at the start of every line, since files are joined.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Reads one line, with or without its line end. `None` is a blank line. A `cursor` is
/// allowed and ignored: publishing assigns a new one.
///
/// # Errors
///
/// What is wrong, and where in the line.
pub(in crate::cli) fn parse_line(line: &[u8]) -> Result<Option<PushEvent>, LineError> {
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let parsed = deserialize(line)?;
    let kind = match (parsed.client_event, parsed.session_invalidation) {
        (Some(Object(event)), None) => Kind::ClientEvent(event.into_event()?),
        (None, Some(Object(invalidation))) => Kind::SessionInvalidation(invalidation.into()),
        (None, None) => {
            return Err(LineError::new(
                "it has neither client_event nor session_invalidation",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(LineError::new(
                "it has both client_event and session_invalidation",
            ));
        }
    };
    check(&kind).map_err(LineError::new)?;
    Ok(Some(PushEvent {
        kind: Some(kind),
        cursor: String::new(),
    }))
}

/// What every server refuses, found before it is sent.
///
/// # Errors
///
/// What is wrong, naming the field.
pub(in crate::cli) fn check(kind: &Kind) -> Result<(), String> {
    let empty = |field: &str| Err(format!("{field} is empty"));
    match kind {
        Kind::ClientEvent(event) if event.user_id.is_empty() => empty("client_event.user_id"),
        Kind::ClientEvent(event) if event.kind.is_empty() => empty("client_event.kind"),
        Kind::SessionInvalidation(invalidation) if invalidation.user_id.is_empty() => {
            empty("session_invalidation.user_id")
        }
        _ => Ok(()),
    }
}

fn deserialize(line: &[u8]) -> Result<Line<'_>, LineError> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let Object(parsed) = Object::deserialize(deserializer).map_err(|error| {
        let path = track.path().to_string();
        // A path that is not known to its end has a `?` there, and an empty one is a dot.
        let path = path.trim_end_matches('?').trim_matches('.');
        LineError::explain(line, &error, path)
    })?;
    json.end()
        .map_err(|error| LineError::explain(line, &error, ""))?;
    Ok(parsed)
}

// Each field has the name of the `.proto` file, and the one that protobuf's JSON gives
// it. Two names of one field are a repetition, which serde refuses. `None` is a field
// that is absent or `null`.

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(default, rename = "cursor")]
    _cursor: Option<IgnoredAny>,
    #[serde(borrow, default, alias = "clientEvent")]
    client_event: Option<Object<ClientEventLine<'a>>>,
    #[serde(default, alias = "sessionInvalidation")]
    session_invalidation: Option<Object<InvalidationLine>>,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClientEventLine<'a> {
    #[serde(alias = "userId")]
    user_id: Option<String>,
    #[serde(alias = "deviceSessionId")]
    device_session_id: Option<String>,
    kind: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(alias = "payloadBase64")]
    payload_base64: Option<String>,
    #[serde(alias = "eventId")]
    event_id: Option<String>,
    #[serde(alias = "requestId")]
    request_id: Option<String>,
    #[serde(alias = "traceId")]
    trace_id: Option<String>,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct InvalidationLine {
    #[serde(alias = "userId")]
    user_id: Option<String>,
    #[serde(alias = "deviceSessionId")]
    device_session_id: Option<String>,
    reason: Option<String>,
}

/// A struct from an object, and not, as derived code would also take it, from an
/// array of its fields in order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(ObjectVisitor(PhantomData)).map(Object)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

impl ClientEventLine<'_> {
    fn into_event(self) -> Result<ClientEvent, LineError> {
        let payload = match (self.payload, self.payload_base64) {
            (Some(_), Some(_)) => {
                return Err(LineError::new(
                    "client_event has both payload and payload_base64",
                ));
            }
            (Some(json), None) => json.get().as_bytes().to_vec(),
            (None, Some(text)) => decode_base64(&text).map_err(|reason| {
                LineError::new(format!("client_event.payload_base64: {reason}"))
            })?,
            (None, None) => Vec::new(),
        };
        Ok(ClientEvent {
            user_id: self.user_id.unwrap_or_default(),
            device_session_id: self.device_session_id.unwrap_or_default(),
            kind: self.kind.unwrap_or_default(),
            payload: payload.into(),
            event_id: self.event_id.unwrap_or_default(),
            request_id: self.request_id.unwrap_or_default(),
            trace_id: self.trace_id.unwrap_or_default(),
        })
    }
}

impl From<InvalidationLine> for SessionInvalidation {
    fn from(line: InvalidationLine) -> Self {
        SessionInvalidation {
            user_id: line.user_id.unwrap_or_default(),
            device_session_id: line.device_session_id.unwrap_or_default(),
            reason: line.reason.unwrap_or_default(),
        }
    }
}

/// Base64 in either alphabet of RFC 4648, padded or not, but in one piece.
fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    const fn decoder(alphabet: &Alphabet) -> GeneralPurpose {
        let config =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        GeneralPurpose::new(alphabet, config)
    }
    const STANDARD: GeneralPurpose = decoder(&alphabet::STANDARD);
    const URL_SAFE: GeneralPurpose = decoder(&alphabet::URL_SAFE);

    let of_urls = text.contains(['-', '_']);
    let decoder = if of_urls { URL_SAFE } else { STANDARD };
    decoder.decode(text).map_err(|error| match error {
        DecodeError::InvalidByte(at, b'\r' | b'\n') => format!(
            "a line break after {at} characters: base64 must be in one piece (base64 -w0 \
             makes it so)"
        ),
        DecodeError::InvalidByte(at, _) => {
            let odd = text.get(at..).and_then(|rest| rest.chars().next());
            let odd = odd.unwrap_or_default();
            let alphabet = if of_urls { "base64url" } else { "base64" };
            format!("the character {odd:?} after {at} others is not {alphabet}")
        }
        DecodeError::InvalidLength(_) => "one character too many, or the end is missing".to_owned(),
        DecodeError::InvalidLastSymbol { .. } => {
            "its last character has bits that belong to no byte: the end is missing".to_owned()
        }
        DecodeError::InvalidPadding => "the padding at its end is wrong".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The event of a line that is accepted.
    fn read(line: impl AsRef<[u8]>) -> PushEvent {
        match parse_line(line.as_ref()) {
            Ok(Some(event)) => event,
            other => panic!("{other:?}"),
        }
    }

    /// What is said about a line that is refused.
    fn refused(line: impl AsRef<[u8]>) -> String {
        parse_line(line.as_ref()).unwrap_err().to_string()
    }

    /// A line with these fields of a client event.
    fn client_event(fields: &str) -> String {
        format!("{{\"client_event\":{{{fields}}}}}")
    }

    fn payload_of(event: &PushEvent) -> &[u8] {
        match &event.kind {
            Some(Kind::ClientEvent(event)) => &event.payload,
            other => panic!("no client event: {other:?}"),
        }
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    const WHOLE: &str = r#"{"cursor":"c","client_event":{"user_id":"u","device_session_id":"s","kind":"k","payload":{"a":1},"event_id":"e","request_id":"r","trace_id":"t"}}"#;

    #[test]
    fn every_field_is_read() {
        let wanted = PushEvent {
            kind: Some(Kind::ClientEvent(ClientEvent {
                user_id: "u".to_owned(),
                device_session_id: "s".to_owned(),
                kind: "k".to_owned(),
                payload: br#"{"a":1}"#.to_vec().into(),
                event_id: "e".to_owned(),
                request_id: "r".to_owned(),
                trace_id: "t".to_owned(),
            })),
            cursor: String::new(),
        };
        assert_eq!(read(WHOLE), wanted);
        let of_protobuf = concat!(
            r#"{"cursor":"c","clientEvent":{"userId":"u","deviceSessionId":"s","kind":"k","#,
            r#""payloadBase64":"eyJhIjoxfQ==","eventId":"e","requestId":"r","traceId":"t"}}"#
        );
        assert_eq!(read(of_protobuf), wanted);

        let wanted = PushEvent {
            kind: Some(Kind::SessionInvalidation(SessionInvalidation {
                user_id: "u".to_owned(),
                device_session_id: "s".to_owned(),
                reason: "ban".to_owned(),
            })),
            cursor: String::new(),
        };
        for line in [
            r#"{"session_invalidation":{"user_id":"u","device_session_id":"s","reason":"ban"}}"#,
            r#"{"sessionInvalidation":{"userId":"u","deviceSessionId":"s","reason":"ban"}}"#,
        ] {
            assert_eq!(read(line), wanted);
        }
    }

    #[test]
    fn line_ends_and_byte_order_marks_of_utf8_are_let_pass() {
        for (before, after) in [
            ("", "\n"),
            ("", "\r\n"),
            ("\u{feff}", ""),
            ("\u{feff}", "\r\n"),
        ] {
            assert_eq!(read(format!("{before}{WHOLE}{after}")), read(WHOLE));
        }
        for blank in ["", "\n", " \t\r\n", "\u{feff}", "\u{feff}\r\n"] {
            assert_eq!(parse_line(blank.as_bytes()), Ok(None), "{blank:?}");
        }
    }

    #[test]
    fn null_is_a_field_that_is_not_set() {
        let line = concat!(
            r#"{"cursor":null,"session_invalidation":null,"client_event":{"user_id":"u","#,
            r#""kind":"k","device_session_id":null,"payload":null,"payload_base64":null,"#,
            r#""event_id":null,"request_id":null,"trace_id":null}}"#
        );
        assert_eq!(
            read(line),
            read(client_event(r#""user_id":"u","kind":"k""#))
        );
        assert_eq!(
            read(r#"{"client_event":null,"session_invalidation":{"user_id":"u","reason":null}}"#),
            read(r#"{"session_invalidation":{"user_id":"u"}}"#)
        );
        let with = |payload| {
            read(client_event(&format!(
                r#""user_id":"u","kind":"k",{payload}"#
            )))
        };
        assert_eq!(
            payload_of(&with(r#""payload":null,"payload_base64":"AA==""#)),
            b"\0"
        );
        assert_eq!(
            payload_of(&with(r#""payload":[null],"payload_base64":null"#)),
            b"[null]"
        );
        assert_eq!(
            refused(client_event(r#""user_id":null,"kind":"k""#)),
            ": client_event.user_id is empty"
        );
        assert_eq!(
            refused(r#"{"session_invalidation":null}"#),
            ": it has neither client_event nor session_invalidation"
        );
    }

    #[test]
    fn a_payload_is_sent_as_it_stands_there() {
        for payload in [
            "9007199254740993",
            "123456789012345678901234567890",
            "1e999",
            r#"{ "b" : 1.50, "a" : null, "b" : "\ud800" }"#,
            "\"\u{feff}\"",
        ] {
            let line = client_event(&format!(
                r#""user_id":"u","kind":"k","payload": {payload} "#
            ));
            assert_eq!(payload_of(&read(line)), payload.as_bytes());
        }
    }

    #[test]
    fn texts_may_hold_any_character() {
        let event = read(client_event(
            r#""user_id":"a\u0000\n\u2028\ud83d\ude80","kind":"k""#,
        ));
        assert!(
            matches!(&event.kind, Some(Kind::ClientEvent(event)) if event.user_id == "a\0\n\u{2028}\u{1f680}"),
            "{event:?}"
        );
    }

    #[test]
    fn base64_is_read_in_both_alphabets_with_and_without_padding() {
        let with = |text: &str| {
            let line = client_event(&format!(
                r#""user_id":"u","kind":"k","payload_base64":"{text}""#
            ));
            parse_line(line.as_bytes()).map_err(|error| error.to_string())
        };
        for text in ["+/8=", "+/8", "-_8=", "-_8"] {
            assert_eq!(payload_of(&with(text).unwrap().unwrap()), b"\xfb\xff");
        }
        assert_eq!(payload_of(&with("").unwrap().unwrap()), b"");
        for (text, reason) in [
            (
                r"+/8A\n+/8=",
                "a line break after 4 characters: base64 must be in one piece (base64 -w0 makes \
                 it so)",
            ),
            (
                r"AAAA\r\nAAAA\r\n",
                "a line break after 4 characters: base64 must be in one piece (base64 -w0 makes \
                 it so)",
            ),
            ("AA*A", "the character '*' after 2 others is not base64"),
            ("AAé", "the character 'é' after 2 others is not base64"),
            ("-+8=", "the character '+' after 1 others is not base64url"),
            ("AA=A", "the character '=' after 2 others is not base64"),
            ("AAAAA", "one character too many, or the end is missing"),
            (
                "AB",
                "its last character has bits that belong to no byte: the end is missing",
            ),
        ] {
            let wanted = format!(": client_event.payload_base64: {reason}");
            assert_eq!(with(text), Err(wanted), "{text}");
        }
    }

    #[test]
    fn a_field_that_is_there_twice_is_refused() {
        for (fields, name) in [
            (r#""user_id":"u","user_id":"v""#, "user_id"),
            (r#""user_id":"u","userId":"u""#, "user_id"),
            (r#""userId":"u","user_id":null"#, "user_id"),
            (
                r#""deviceSessionId":"","device_session_id":"""#,
                "device_session_id",
            ),
            (r#""kind":"k","kind":"k""#, "kind"),
            (r#""payload":1,"payload":1"#, "payload"),
            (
                r#""payloadBase64":"","payload_base64":"""#,
                "payload_base64",
            ),
            (r#""eventId":"","event_id":"""#, "event_id"),
            (r#""requestId":"","request_id":"""#, "request_id"),
            (r#""traceId":"","trace_id":"""#, "trace_id"),
        ] {
            let said = refused(client_event(fields));
            let wanted = format!(": client_event: duplicate field `{name}`");
            assert!(
                said.starts_with(", column ") && said.ends_with(&wanted),
                "{said}"
            );
        }
        assert_eq!(
            refused(r#"{"client_event":{},"clientEvent":{}}"#),
            ", column 32: duplicate field `client_event`"
        );
        assert_eq!(
            refused(client_event(
                r#""user_id":"u","kind":"k","payload":1,"payloadBase64":"""#
            )),
            ": client_event has both payload and payload_base64"
        );
    }

    #[test]
    fn a_bad_field_is_named_with_its_column() {
        for (fields, wanted) in [
            (r#""kind":"k""#, ": client_event.user_id is empty"),
            (r#""user_id":"u""#, ": client_event.kind is empty"),
            (
                r#""user_id":7"#,
                ", column 28: client_event.user_id: invalid type: integer `7`, expected a string",
            ),
            (
                r#""userId":12345678901234567890"#,
                ", column 46: client_event.userId: invalid type: integer \
                 `12345678901234567890`, expected a string",
            ),
            (
                // Columns are characters, not bytes.
                r#""kind":"üü","user_id":7"#,
                ", column 40: client_event.user_id: invalid type: integer `7`, expected a string",
            ),
            (
                r#""user_id":"u\ud800""#,
                ", column 36: client_event.user_id: a \\u escape of a lone surrogate, which is \
                 not a character",
            ),
            (
                r#""user_id":"\ude00\ud83d""#,
                ", column 34: client_event.user_id: a \\u escape of a lone surrogate, which is \
                 not a character",
            ),
        ] {
            assert_eq!(refused(client_event(fields)), wanted);
        }
        let said = refused(client_event(r#""usr_id":"u""#));
        assert!(
            said.starts_with(", column 25: client_event.usr_id: unknown field `usr_id`, ")
                && said.contains("`user_id`"),
            "{said}"
        );
        assert_eq!(
            refused(r#"{"session_invalidation":{"reason":"ban"}}"#),
            ": session_invalidation.user_id is empty"
        );
        assert_eq!(
            refused(r#"{"client_event":["u","","k"]}"#),
            ", column 16: client_event: invalid type: sequence, expected an object"
        );
    }

    #[test]
    fn a_line_that_is_no_event_is_said_to_be_what_it_is() {
        let two = format!("{WHOLE}{WHOLE}");
        let column = WHOLE.len() + 1;
        for (line, wanted) in [
            (
                "{}",
                ": it has neither client_event nor session_invalidation".to_owned(),
            ),
            (
                r#"{"client_event":{"user_id":"u","kind":"k"},"session_invalidation":{"user_id":"u"}}"#,
                ": it has both client_event and session_invalidation".to_owned(),
            ),
            (
                " [",
                ": an array: each event must be an object on a line of its own (jq -c '.[]' takes \
                 an array apart)"
                    .to_owned(),
            ),
            (
                "{\n",
                ": the object does not end on this line: each event must be on one line (jq -c . \
                 puts it there)"
                    .to_owned(),
            ),
            (
                r#"{"client_event":{"user_id":"u"#,
                ": the object does not end on this line: each event must be on one line (jq -c . \
                 puts it there)"
                    .to_owned(),
            ),
            (
                &two,
                format!(
                    ", column {column}: something follows the object: each event must be on a \
                     line of its own"
                ),
            ),
            (
                "\x1e{}\n",
                ", column 1: a record separator (U+001E): the input is a JSON text sequence (RFC \
                 7464) and must be JSON Lines, without these separators"
                    .to_owned(),
            ),
            (
                "7",
                ", column 1: invalid type: integer `7`, expected an object".to_owned(),
            ),
            ("oops", ", column 1: expected value".to_owned()),
        ] {
            assert_eq!(refused(line), wanted);
        }
        assert_eq!(
            refused("[".to_owned() + WHOLE + "]"),
            ": an array: each event must be an object on a line of its own (jq -c '.[]' takes an \
             array apart)"
        );
        assert!(refused(r#"{"client":{}}"#).contains("column 9: client: unknown field `client`"));
    }

    #[test]
    fn other_encodings_are_named() {
        let converts = |encoding| {
            format!(
                ": the input is {encoding} and must be UTF-8 (iconv -f {encoding} -t UTF-8 \
                 converts it)"
            )
        };
        for (mark, little, big) in [
            ("", "UTF-16LE", "UTF-16BE"),
            ("\u{feff}", "UTF-16", "UTF-16"),
        ] {
            let text = format!("{mark}{WHOLE}\r\n");
            // The line ends at the byte 0x0A, in the middle of a character or at its end.
            let mut line = utf16(&text, u16::to_le_bytes);
            line.pop();
            assert_eq!(refused(line), converts(little));
            assert_eq!(refused(utf16(&text, u16::to_be_bytes)), converts(big));
        }
        // A first line that is blank.
        assert_eq!(refused(b"\r\0\n"), converts("UTF-16LE"));
        assert_eq!(refused(b"\xff\xfe\n"), converts("UTF-16"));
        for (line, encoding) in [
            (&b"\xff\xfe\0\0{\0\0\0"[..], "UTF-32"),
            (b"\0\0\xfe\xff\0\0\0{", "UTF-32"),
            (b"{\0\0\0\"\0\0\0", "UTF-32LE"),
            (b"\0\0\0{\0\0\0\"", "UTF-32BE"),
        ] {
            assert_eq!(refused(line), converts(encoding));
        }
        assert_eq!(
            refused(b"{\"client_event\":{\"user_id\":\"M\xfcller\",\"kind\":\"k\"}}"),
            ", column 30: the byte 0xFC is not UTF-8"
        );
    }
}
