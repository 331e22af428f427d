//! An event as a line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::value::RawValue;

use crate::contract::push::PushEvent;
use crate::contract::push::push_event::Kind;

/// Nested deeper, a payload is not embedded: many JSON parsers stop near here,
/// and a line that they refuse would be an event lost.
const MAX_DEPTH: usize = 100;

/// Appends the event and a line feed. The line has no other line feed in it.
pub(in crate::cli) fn write_line(line: &mut String, event: &PushEvent) {
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

/// The payload as JSON, if that is what it is, if readers do not take it for a field that
/// is not set, and if it is not nested too deep.
fn embeddable(payload: &[u8]) -> Option<&str> {
    let json = serde_json::from_slice::<&RawValue>(payload).ok()?.get();
    if json == "null" {
        return None;
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parse_line;
    use super::*;
    use crate::contract::push::{ClientEvent, SessionInvalidation};

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

    /// What `publish` reads from the line that `tail` prints.
    fn read_back(event: &PushEvent) -> PushEvent {
        parse_line(line(event).as_bytes()).unwrap().unwrap()
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
            cursor: "CBSZJPG00007-0000000001A".to_owned(),
        };
        assert_eq!(
            line(&event),
            concat!(
                r#"{"cursor":"CBSZJPG00007-0000000001A","client_event":{"user_id":"u1","#,
                r#""device_session_id":"s1","kind":"turn.ready","payload":{"game":1},"#,
                r#""event_id":"e1","request_id":"r1","trace_id":"t1"}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn an_invalidation_is_one_object() {
        let event = PushEvent {
            kind: Some(Kind::SessionInvalidation(SessionInvalidation {
                user_id: "u2".to_owned(),
                device_session_id: String::new(),
                reason: "logout".to_owned(),
            })),
            cursor: "c".to_owned(),
        };
        assert_eq!(
            line(&event),
            concat!(
                r#"{"cursor":"c","session_invalidation":{"user_id":"u2","#,
                r#""device_session_id":"","reason":"logout"}}"#,
                "\n"
            )
        );
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
            "true",
            r#""text""#,
            "[]",
            "\"é🚀\"",
        ] {
            assert_eq!(payload_part(json.as_bytes()), format!("\"payload\":{json}"));
            let read = read_back(&with_payload(json.as_bytes()));
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
            let read = read_back(&with_payload(payload));
            assert_eq!(payload_of(&read), payload);
        }
    }

    #[test]
    fn a_null_that_readers_would_take_for_no_payload_is_base64() {
        for payload in ["null", " null\r\n"] {
            let event = with_payload(payload.as_bytes());
            assert!(line(&event).contains("\"payload_base64\""), "{payload:?}");
            assert_eq!(payload_of(&read_back(&event)), payload.as_bytes());
        }
        assert_eq!(payload_part(b"[null]"), "\"payload\":[null]");
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
            read_back(&event),
            PushEvent {
                cursor: String::new(),
                ..event
            }
        );
    }

    proptest! {
        #[test]
        fn any_payload_makes_one_line_that_reads_back(payload: Vec<u8>) {
            let event = with_payload(&payload);
            let line = line(&event);
            prop_assert_eq!(line.bytes().filter(|byte| *byte == b'\n').count(), 1);
            prop_assert!(!line.trim_end_matches('\n').contains(char::is_control));
            let read = read_back(&event);
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
            prop_assert_eq!(read_back(&event), event);
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
