//! Events as lines of JSON: what `tail` prints and what `publish` reads.
//!
//! ```json
//! {"cursor":"…","client_event":{"user_id":"u1","device_session_id":"s1","kind":"turn.ready","payload":{"game":1},"event_id":"e1","request_id":"r1","trace_id":"t1"}}
//! {"cursor":"…","session_invalidation":{"user_id":"u2","device_session_id":"","reason":"logout"}}
//! ```
//!
//! One event is one line, whatever it holds. The payload's bytes are opaque and
//! made by strangers, and so are all texts; a reader of the lines, or the
//! terminal that shows them, must not be fooled by either:
//!
//! - A payload that is JSON is embedded as it is, only without the space between
//!   its tokens: numbers keep their digits, keys their order and repetitions. Any
//!   other payload, and JSON that is nested deeper than most parsers follow, is
//!   `payload_base64`.
//! - DEL, the control characters U+0080 to U+009F, and the separators U+2028 and
//!   U+2029 are written as `\u` escapes, which mean the same: some readers end a
//!   line at them, and some terminals obey them.
//!
//! What is read back differs from what was printed in nothing but that space and
//! those escapes.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::contract::push::push_event::Kind;
use crate::contract::push::{ClientEvent, PushEvent, SessionInvalidation};

/// Nested deeper, a payload is not embedded: many JSON parsers stop near here,
/// and a line that they refuse would be an event lost.
const MAX_DEPTH: usize = 100;

/// Appends the event and a line feed. The line has no other line feed in it.
pub(super) fn write_line(line: &mut String, event: &PushEvent) {
    let mut object = Object::open(line);
    object.text("cursor", &event.cursor);
    match &event.kind {
        Some(Kind::ClientEvent(event)) => {
            object.key("client_event");
            let mut object = Object::open(object.line);
            object.text("user_id", &event.user_id);
            object.text("device_session_id", &event.device_session_id);
            object.text("kind", &event.kind);
            match embeddable(&event.payload) {
                Some(json) => {
                    object.key("payload");
                    compact(object.line, json);
                }
                None => object.text("payload_base64", &BASE64.encode(&event.payload)),
            }
            object.text("event_id", &event.event_id);
            object.text("request_id", &event.request_id);
            object.text("trace_id", &event.trace_id);
            object.close();
        }
        Some(Kind::SessionInvalidation(invalidation)) => {
            object.key("session_invalidation");
            let mut object = Object::open(object.line);
            object.text("user_id", &invalidation.user_id);
            object.text("device_session_id", &invalidation.device_session_id);
            object.text("reason", &invalidation.reason);
            object.close();
        }
        // A kind that this version does not know: its cursor still counts.
        None => {}
    }
    object.close();
    line.push('\n');
}

/// A JSON object that is being written.
struct Object<'a> {
    line: &'a mut String,
    empty: bool,
}

impl<'a> Object<'a> {
    fn open(line: &'a mut String) -> Self {
        line.push('{');
        Object { line, empty: true }
    }

    fn key(&mut self, key: &str) {
        if !self.empty {
            self.line.push(',');
        }
        self.empty = false;
        self.line.push('"');
        self.line.push_str(key);
        self.line.push_str("\":");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.line.push('"');
        for character in value.chars() {
            match character {
                '"' => self.line.push_str("\\\""),
                '\\' => self.line.push_str("\\\\"),
                '\n' => self.line.push_str("\\n"),
                '\r' => self.line.push_str("\\r"),
                '\t' => self.line.push_str("\\t"),
                other => push(self.line, other),
            }
        }
        self.line.push('"');
    }

    fn close(self) {
        self.line.push('}');
    }
}

/// A character of a JSON text: as it is, or as an escape if something might
/// take it for more than a character.
fn push(line: &mut String, character: char) {
    if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
        line.push_str(&format!("\\u{:04x}", u32::from(character)));
    } else {
        line.push(character);
    }
}

/// The payload as JSON, if that is what it is and if it is not nested too deep.
fn embeddable(payload: &[u8]) -> Option<&str> {
    let json = serde_json::from_slice::<&RawValue>(payload).ok()?.get();
    let mut depth = 0usize;
    for (byte, in_text) in tokens(json) {
        match byte {
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth -= 1,
            _ => continue,
        }
        if depth > MAX_DEPTH {
            return None;
        }
    }
    Some(json)
}

/// Appends valid JSON without the space between its tokens.
fn compact(line: &mut String, json: &str) {
    let mut in_text = Texts::default();
    for character in json.chars() {
        let inside = match u8::try_from(character) {
            Ok(byte) => in_text.contains(byte),
            Err(_) => true,
        };
        if inside || !character.is_ascii_whitespace() {
            push(line, character);
        }
    }
}

/// Each byte, and whether it stands inside a JSON string.
fn tokens(json: &str) -> impl Iterator<Item = (u8, bool)> {
    let mut texts = Texts::default();
    json.bytes().map(move |byte| (byte, texts.contains(byte)))
}

/// Where the strings of valid JSON begin and end.
#[derive(Default)]
struct Texts {
    inside: bool,
    escaped: bool,
}

impl Texts {
    /// Whether the next byte belongs to a string, its closing quote not counted.
    fn contains(&mut self, byte: u8) -> bool {
        if !self.inside {
            self.inside = byte == b'"';
            return false;
        }
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.inside = false,
            _ => {}
        }
        self.inside
    }
}

/// Reads one line, without its line feed. A `cursor` is allowed and ignored:
/// publishing assigns a new one.
///
/// # Errors
///
/// What is wrong, naming the field.
pub(super) fn parse_line(line: &[u8]) -> Result<PushEvent, String> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let parsed: Line = match only_object(deserializer) {
        Ok(parsed) => parsed,
        Err(error) => return Err(describe(&error, Some(&track.path()))),
    };
    json.end().map_err(|error| describe(&error, None))?;

    let kind = match (parsed.client_event, parsed.session_invalidation) {
        (Some(event), None) => Kind::ClientEvent(event.into_event()?),
        (None, Some(invalidation)) => Kind::SessionInvalidation(invalidation.into()),
        (None, None) => {
            return Err("it has neither client_event nor session_invalidation".to_owned());
        }
        (Some(_), Some(_)) => {
            return Err("it has both client_event and session_invalidation".to_owned());
        }
    };
    check(&kind)?;
    Ok(PushEvent {
        kind: Some(kind),
        cursor: String::new(),
    })
}

/// What every server refuses, found before it is sent.
///
/// # Errors
///
/// What is wrong, naming the field.
pub(super) fn check(kind: &Kind) -> Result<(), String> {
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

fn describe(error: &serde_json::Error, path: Option<&serde_path_to_error::Path>) -> String {
    let text = error.to_string();
    // The line is counted by whoever read it; for serde_json it is always 1.
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = match text.strip_suffix(&place) {
        Some(reason) if error.column() == 0 => reason.to_owned(),
        Some(reason) => format!("{reason} (after {} bytes)", error.column()),
        None => text,
    };
    match path.map(ToString::to_string) {
        Some(path) if path != "." && !path.ends_with('?') => format!("{path}: {text}"),
        Some(path) if path.len() > 2 => format!("{}: {text}", &path[..path.len() - 2]),
        _ => text,
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(default, rename = "cursor")]
    _cursor: Option<IgnoredAny>,
    #[serde(borrow, default, deserialize_with = "object")]
    client_event: Option<ClientEventLine<'a>>,
    #[serde(default, deserialize_with = "object")]
    session_invalidation: Option<InvalidationLine>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct ClientEventLine<'a> {
    user_id: String,
    device_session_id: String,
    kind: String,
    #[serde(borrow, deserialize_with = "even_null")]
    payload: Option<&'a RawValue>,
    payload_base64: Option<String>,
    event_id: String,
    request_id: String,
    trace_id: String,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct InvalidationLine {
    user_id: String,
    device_session_id: String,
    reason: String,
}

fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(json: D) -> Result<Option<T>, D::Error> {
    only_object(json).map(Some)
}

/// A struct from an object, and not, as derived code would also take it, from an
/// array of its fields in order.
fn only_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(json: D) -> Result<T, D::Error> {
    struct OnlyObject<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyObject<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    json.deserialize_map(OnlyObject(PhantomData))
}

/// A payload that is there, `null` included.
fn even_null<'de, D: Deserializer<'de>>(json: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(json).map(Some)
}

impl ClientEventLine<'_> {
    fn into_event(self) -> Result<ClientEvent, String> {
        let payload = match (self.payload, self.payload_base64) {
            (Some(_), Some(_)) => {
                return Err("client_event has both payload and payload_base64".to_owned());
            }
            (Some(json), None) => json.get().as_bytes().to_vec(),
            (None, Some(text)) => BASE64
                .decode(text)
                .map_err(|error| format!("client_event.payload_base64: {error}"))?,
            (None, None) => Vec::new(),
        };
        Ok(ClientEvent {
            user_id: self.user_id,
            device_session_id: self.device_session_id,
            kind: self.kind,
            payload: payload.into(),
            event_id: self.event_id,
            request_id: self.request_id,
            trace_id: self.trace_id,
        })
    }
}

impl From<InvalidationLine> for SessionInvalidation {
    fn from(line: InvalidationLine) -> Self {
        SessionInvalidation {
            user_id: line.user_id,
            device_session_id: line.device_session_id,
            reason: line.reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_payload(payload: &[u8]) -> PushEvent {
        PushEvent {
            kind: Some(Kind::ClientEvent(ClientEvent {
                user_id: "u1".to_owned(),
                kind: "turn.ready".to_owned(),
                payload: payload.to_vec().into(),
                ..ClientEvent::default()
            })),
            cursor: String::new(),
        }
    }

    fn line(event: &PushEvent) -> String {
        let mut line = String::new();
        write_line(&mut line, event);
        line
    }

    /// The line's text between `"kind":"turn.ready",` and `,"event_id"`.
    fn payload_part(payload: &[u8]) -> String {
        let line = line(&with_payload(payload));
        let from = line.find("\"payload").unwrap();
        let to = line.rfind(",\"event_id\"").unwrap();
        line[from..to].to_owned()
    }

    fn payload_of(event: &PushEvent) -> &[u8] {
        match &event.kind {
            Some(Kind::ClientEvent(event)) => &event.payload,
            other => panic!("no client event: {other:?}"),
        }
    }

    #[test]
    fn a_client_event_is_one_object() {
        let event = PushEvent {
            kind: Some(Kind::ClientEvent(ClientEvent {
                user_id: "u1".to_owned(),
                device_session_id: "s1".to_owned(),
                kind: "turn.ready".to_owned(),
                payload: br#"{"game":1}"#.to_vec().into(),
                event_id: "e1".to_owned(),
                request_id: "r1".to_owned(),
                trace_id: "t1".to_owned(),
            })),
            cursor: "01HF7YAT00-000000000001A".to_owned(),
        };
        assert_eq!(
            line(&event),
            concat!(
                r#"{"cursor":"01HF7YAT00-000000000001A","client_event":{"user_id":"u1","#,
                r#""device_session_id":"s1","kind":"turn.ready","payload":{"game":1},"#,
                r#""event_id":"e1","request_id":"r1","trace_id":"t1"}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn an_invalidation_is_one_object() {
        let text = r#"{"cursor":"","session_invalidation":{"user_id":"u2","device_session_id":"","reason":"logout"}}"#;
        let event = parse_line(text.as_bytes()).unwrap();
        assert_eq!(line(&event), format!("{text}\n"));
    }

    #[test]
    fn a_kind_of_tomorrow_keeps_its_cursor() {
        let event = PushEvent {
            kind: None,
            cursor: "c".to_owned(),
        };
        assert_eq!(line(&event), "{\"cursor\":\"c\"}\n");
    }

    #[test]
    fn json_is_embedded_without_the_space_between_tokens() {
        let pretty = b"\r\n{ \"a b\" : [ 1 ,\t2 ] ,\n \"q\\\" \" : \"x \\\\\" }\n";
        assert_eq!(
            payload_part(pretty),
            r#""payload":{"a b":[1,2],"q\" ":"x \\"}"#
        );
    }

    #[test]
    fn numbers_keys_and_scalars_stay_as_written() {
        for json in [
            "1e999",
            "123456789012345678901234567890",
            "-0.0",
            "1.10",
            r#"{"a":1,"a":2}"#,
            r#""\ud800""#,
            r#""\u0041\/""#,
            "null",
            "true",
            r#""text""#,
            "[]",
            "\"é🚀\"",
        ] {
            assert_eq!(payload_part(json.as_bytes()), format!("\"payload\":{json}"));
            let read = parse_line(line(&with_payload(json.as_bytes())).as_bytes()).unwrap();
            assert_eq!(payload_of(&read), json.as_bytes());
        }
    }

    #[test]
    fn what_is_not_json_is_base64() {
        for payload in [
            &b""[..],
            b"hello",
            b"{\"a\":1} {\"b\":2}",
            b"{\"a\":1",
            b"1 2",
            b"tr ue",
            b"NaN",
            b"\xff\xfe",
            b"\"\xff\"",
            b"\xef\xbb\xbf{}",
            b"\"line\nfeed\"",
            b"\"\x1b[2J\"",
            b"\0",
        ] {
            let encoded = BASE64.encode(payload);
            assert_eq!(
                payload_part(payload),
                format!("\"payload_base64\":\"{encoded}\"")
            );
            let read = parse_line(line(&with_payload(payload)).as_bytes()).unwrap();
            assert_eq!(payload_of(&read), payload);
        }
    }

    #[test]
    fn depth_that_parsers_refuse_is_base64() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(payload_part(nested(100).as_bytes()).starts_with("\"payload\":[[["));
        assert!(payload_part(nested(101).as_bytes()).starts_with("\"payload_base64\""));
        assert!(payload_part(nested(1_000_000).as_bytes()).starts_with("\"payload_base64\""));
        let brackets_in_text = format!("\"{}\"", "[\\\"{".repeat(200));
        assert!(payload_part(brackets_in_text.as_bytes()).starts_with("\"payload\":\""));
    }

    #[test]
    fn what_ends_a_line_or_moves_a_cursor_is_escaped() {
        let sly = "a\u{7f}\u{85}\u{9b}2J\u{2028}\u{2029}z";
        let escaped = r"a\u007f\u0085\u009b2J\u2028\u2029z";
        assert_eq!(
            payload_part(format!("\"{sly}\"").as_bytes()),
            format!("\"payload\":\"{escaped}\"")
        );
        let mut event = with_payload(b"1");
        if let Some(Kind::ClientEvent(event)) = &mut event.kind {
            event.user_id = format!("{sly}\x1b\n\r\t\0\"\\");
        }
        let line = line(&event);
        assert!(
            line.contains(&format!(r#""{escaped}\u001b\n\r\t\u0000\"\\""#)),
            "{line}"
        );
        assert_eq!(
            parse_line(line.trim_end().as_bytes()).unwrap(),
            PushEvent {
                cursor: String::new(),
                ..event
            }
        );
    }

    fn refused(text: &str) -> String {
        parse_line(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_bad_line_names_the_field() {
        let event = |fields: &str| refused(&format!("{{\"client_event\":{{{fields}}}}}"));
        assert_eq!(event(r#""kind":"k""#), "client_event.user_id is empty");
        assert_eq!(event(r#""user_id":"u""#), "client_event.kind is empty");
        assert_eq!(
            refused(r#"{"session_invalidation":{"reason":"ban"}}"#),
            "session_invalidation.user_id is empty"
        );
        assert_eq!(
            event(r#""user_id":7"#),
            "client_event.user_id: invalid type: integer `7`, expected a string (after 28 bytes)"
        );
        assert_eq!(
            event(r#""usr_id":"u""#),
            "client_event.usr_id: unknown field `usr_id`, expected one of `user_id`, \
             `device_session_id`, `kind`, `payload`, `payload_base64`, `event_id`, `request_id`, \
             `trace_id` (after 25 bytes)"
        );
        assert_eq!(
            event(r#""user_id":"u","user_id":"v""#),
            "client_event: duplicate field `user_id` (after 40 bytes)"
        );
        assert!(
            event(r#""user_id":"u","kind":"k","payload_base64":"*""#)
                .starts_with("client_event.payload_base64: ")
        );
        assert_eq!(
            event(r#""user_id":"u","kind":"k","payload":1,"payload_base64":"""#),
            "client_event has both payload and payload_base64"
        );
    }

    #[test]
    fn a_bad_line_says_what_it_is_not() {
        assert_eq!(
            refused("{}"),
            "it has neither client_event nor session_invalidation"
        );
        assert_eq!(
            refused(
                r#"{"client_event":{"user_id":"u","kind":"k"},"session_invalidation":{"user_id":"u"}}"#
            ),
            "it has both client_event and session_invalidation"
        );
        assert!(refused("{\"client\":{}}").contains("unknown field `client`"));
        assert_eq!(
            refused(r#"["c",{"user_id":"u","kind":"k"},null]"#),
            "invalid type: sequence, expected an object"
        );
        assert_eq!(
            refused(r#"{"client_event":["u","","k"]}"#),
            "client_event: invalid type: sequence, expected an object (after 16 bytes)"
        );
        assert_eq!(
            refused(r#"{"session_invalidation":null}"#),
            "session_invalidation: invalid type: null, expected an object (after 28 bytes)"
        );
        assert!(refused("{\"client_event\":{\"user_id\":\"u\"").contains("EOF"));
        assert!(refused(r#"{"session_invalidation":{"user_id":"u"}} x"#).contains("trailing"));
        assert!(parse_line(b"{\"client_event\":{\"user_id\":\"\xff\"}}").is_err());
    }

    proptest! {
        #[test]
        fn any_payload_makes_one_line_that_reads_back(payload: Vec<u8>) {
            let event = with_payload(&payload);
            let line = line(&event);
            prop_assert_eq!(line.bytes().filter(|byte| *byte == b'\n').count(), 1);
            prop_assert!(!line.trim_end_matches('\n').contains(char::is_control));
            let read = parse_line(line.as_bytes()).unwrap();
            if embeddable(&payload).is_none() {
                prop_assert_eq!(payload_of(&read), payload);
            }
        }

        #[test]
        fn any_texts_read_back(
            user_id in ".+", device_session_id: String, kind in "(?s:.)+", event_id: String,
            request_id: String, trace_id: String,
        ) {
            let event = PushEvent {
                kind: Some(Kind::ClientEvent(ClientEvent {
                    user_id, device_session_id, kind, event_id, request_id, trace_id,
                    payload: bytes::Bytes::from_static(b"{}"),
                })),
                cursor: String::new(),
            };
            let line = line(&event);
            prop_assert_eq!(line.bytes().filter(|byte| *byte == b'\n').count(), 1);
            prop_assert_eq!(parse_line(line.as_bytes()), Ok(event));
        }

        #[test]
        fn compacted_json_is_the_same_json(
            tokens in proptest::collection::vec(
                prop_oneof![
                    Just("1"), Just("\"a b\\\"c\""), Just("null"), Just("{}"), Just("[ ]"),
                    Just("{ \"k\" :\t[1 , 2]\n}"), Just("\"\\\\\""),
                ],
                0..8,
            ),
            space in "[ \t\r\n]{0,3}",
        ) {
            let json = format!("{space}[{}]{space}", tokens.join(&format!("{space},{space}")));
            let part = payload_part(json.as_bytes());
            let compacted = part.strip_prefix("\"payload\":").unwrap();
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            prop_assert_eq!(value(compacted), value(&json));
            prop_assert_eq!(compacted, value(&json).to_string());
        }
    }
}
