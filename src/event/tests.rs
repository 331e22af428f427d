use super::*;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn key(number: u32, wire_type: u8) -> Vec<u8> {
    varint(u64::from(number) << 3 | u64::from(wire_type))
}

/// A length-delimited field: text, bytes, or a message of these parts.
fn field(number: u32, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    [key(number, 2), varint(value.len() as u64), value].concat()
}

fn client(parts: &[&[u8]]) -> Vec<u8> {
    field(1, parts)
}

fn session(parts: &[&[u8]]) -> Vec<u8> {
    field(2, parts)
}

/// A `client_event` with every required field.
fn valid() -> Vec<u8> {
    client(&[&field(1, &[b"u1"]), &field(3, &[b"mail"])])
}

fn check(parts: &[&[u8]]) -> Result<(), EventError> {
    let bytes = parts.concat();
    let event = Event::parse(&bytes)?;
    assert_eq!(event.as_bytes(), bytes);
    Ok(())
}

fn problem(parts: &[&[u8]]) -> (usize, WireProblem) {
    match check(parts) {
        Err(EventError::Malformed { at, problem }) => (at, problem),
        other => panic!("{other:?}"),
    }
}

/// A field `number` that is a group, with groups nested `depth` deep.
fn groups(number: u32, depth: usize) -> Vec<u8> {
    [key(number, 3).repeat(depth), key(number, 4).repeat(depth)].concat()
}

mod recipients {
    use super::*;

    const CURSOR: &[u8] = b"1A2B3C4D5E6F-00000000001";

    fn recipient(client_event: &[&[u8]], rest: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let event = [&client(client_event)[..], rest].concat();
        let recipient = Recipient::quickly(&event)?;
        Some((
            recipient.user_id.to_vec(),
            recipient.device_session_id.to_vec(),
        ))
    }

    #[test]
    fn what_libraries_encode_is_read_at_once() {
        let cursor = field(3, &[CURSOR]);
        let user = field(1, &[b"u1"]);
        let session = field(2, &[b"s1"]);
        let kind = field(3, &[b"k"]);
        let both = Some((b"u1".to_vec(), b"s1".to_vec()));
        for bytes in [0, 1, 100, 127, 128, 300, 16_000] {
            let payload = field(4, &[&vec![b'x'; bytes]]);
            let ids = [field(5, &[b"e"]), field(6, &[b"r"]), field(7, &[b"t"])].concat();
            let known = [&user[..], &session, &kind, &payload, &ids];
            assert_eq!(recipient(&known, &cursor), both, "{bytes}");
            // A field of a later version.
            let unknown = field(9, &[b"new"]);
            let more = [&user[..], &session, &kind, &payload, &unknown];
            assert_eq!(recipient(&more, &cursor), both, "{bytes}");
        }
        let of_user = Some((b"u1".to_vec(), Vec::new()));
        assert_eq!(recipient(&[&user, &kind], &cursor), of_user);
    }

    #[test]
    fn all_else_is_left_to_the_scanner() {
        let cursor = field(3, &[CURSOR]);
        let user = field(1, &[b"u1"]);
        let other = field(1, &[b"u2"]);
        let kind = field(3, &[b"k"]);
        for (fields, rest) in [
            (vec![&user[..], &other, &kind], cursor.clone()),
            (vec![&kind[..], &user], cursor.clone()),
            (vec![&user[..], &kind], Vec::new()),
            (
                vec![&user[..], &kind],
                [&cursor[..], &field(4, &[b"new"])].concat(),
            ),
            (
                vec![&user[..], &kind],
                [client(&[&other]), cursor.clone()].concat(),
            ),
            (
                vec![&user[..], &kind],
                [session(&[&other]), cursor.clone()].concat(),
            ),
            (vec![&user[..], &[0x12]], cursor.clone()),
            (vec![&user[..], &[0x12, 9]], cursor.clone()),
            (vec![&user[..], &key(9, 0), &[1]], cursor.clone()),
            (vec![&user[..], &field(16, &[b"far"])], cursor.clone()),
            (vec![&user[..], &[0x2, 0]], cursor.clone()),
        ] {
            assert_eq!(recipient(&fields, &rest), None, "{fields:?} {rest:?}");
        }
        assert_eq!(Recipient::quickly(&session(&[&user])), None);
        assert_eq!(Recipient::quickly(b""), None);
    }
}

mod rules {
    use super::*;

    #[test]
    fn both_kinds_are_valid_with_their_required_fields() {
        assert_eq!(check(&[&valid()]), Ok(()));
        assert_eq!(check(&[&session(&[&field(2, &[b"u1"])])]), Ok(()));
    }

    #[test]
    fn an_event_without_a_kind_is_refused() {
        assert_eq!(check(&[]), Err(EventError::NoKind));
        assert_eq!(check(&[&field(9, &[b"x"])]), Err(EventError::NoKind));
        assert_eq!(EventError::NoKind.to_string(), "kind is not set");
    }

    #[test]
    fn an_empty_required_field_is_named() {
        let (user, kind) = (field(1, &[b"u1"]), field(3, &[b"mail"]));
        let session_user = field(1, &[b"only the device_session_id"]);
        for (event, field) in [
            (client(&[]), "client_event.user_id"),
            (client(&[&kind]), "client_event.user_id"),
            (client(&[&user]), "client_event.kind"),
            (session(&[&session_user]), "session_invalidation.user_id"),
        ] {
            let refused = check(&[&event]).unwrap_err();
            assert_eq!(refused, EventError::Empty { field });
            assert_eq!(refused.to_string(), format!("{field} is empty"));
        }
    }

    #[test]
    fn the_last_value_of_a_repeated_field_counts() {
        let (user, empty) = (field(1, &[b"u1"]), field(1, &[]));
        let kind = field(3, &[b"mail"]);
        assert_eq!(check(&[&client(&[&empty, &user, &kind])]), Ok(()));
        assert_eq!(
            check(&[&client(&[&user, &empty, &kind])]),
            Err(EventError::Empty {
                field: "client_event.user_id"
            })
        );
        let (user, empty) = (field(2, &[b"u1"]), field(2, &[]));
        assert_eq!(check(&[&session(&[&empty, &user])]), Ok(()));
        assert_eq!(
            check(&[&session(&[&user, &empty])]),
            Err(EventError::Empty {
                field: "session_invalidation.user_id"
            })
        );
    }

    #[test]
    fn two_occurrences_of_a_message_are_merged() {
        let (user, kind) = (field(1, &[b"u1"]), field(3, &[b"mail"]));
        assert_eq!(check(&[&client(&[&user]), &client(&[&kind])]), Ok(()));
        let user = field(2, &[b"u1"]);
        assert_eq!(check(&[&session(&[&user]), &session(&[])]), Ok(()));
    }

    #[test]
    fn the_other_kind_replaces_the_first() {
        let invalidation = session(&[&field(2, &[b"u1"])]);
        assert_eq!(check(&[&client(&[]), &invalidation]), Ok(()));
        assert_eq!(
            check(&[&invalidation, &client(&[])]),
            Err(EventError::Empty {
                field: "client_event.user_id"
            })
        );
        // The fields of the replaced kind do not come back.
        assert_eq!(
            check(&[&valid(), &invalidation, &client(&[])]),
            Err(EventError::Empty {
                field: "client_event.user_id"
            })
        );
    }

    #[test]
    fn an_event_with_a_cursor_is_refused() {
        let (set, empty) = (field(3, &[b"000000000000-00000000001"]), field(3, &[]));
        for event in [[&valid(), &set], [&set, &valid()], [&set, &empty]] {
            assert_eq!(check(&[event[0], event[1]]), Err(EventError::CursorSet));
        }
        assert_eq!(check(&[&empty, &valid()]), Ok(()));
        assert_eq!(EventError::CursorSet.to_string(), "cursor is already set");
    }

    #[test]
    fn text_that_is_not_utf8_is_refused() {
        let bad = b"mostly fine \xff";
        let client_fields = [
            (1, "user_id"),
            (2, "device_session_id"),
            (3, "kind"),
            (5, "event_id"),
            (6, "request_id"),
            (7, "trace_id"),
        ]
        .map(|(number, name)| (client(&[&field(number, &[bad])]), "client_event", name));
        let session_fields =
            [(1, "device_session_id"), (2, "user_id"), (3, "reason")].map(|(number, name)| {
                let event = session(&[&field(number, &[bad])]);
                (event, "session_invalidation", name)
            });
        for (event, message, name) in client_fields.into_iter().chain(session_fields) {
            // Also if a later field or message would replace it.
            let refused = check(&[&event, &valid()]).unwrap_err();
            assert_eq!(
                refused.to_string(),
                format!("{message}.{name} is not UTF-8")
            );
        }
        let text = "für Ünïté 🚀".as_bytes();
        assert_eq!(check(&[&valid(), &client(&[&field(3, &[text])])]), Ok(()));
    }

    #[test]
    fn a_payload_may_be_any_bytes() {
        let payload = field(4, &[b"\xff\x00\xfe"]);
        assert_eq!(check(&[&valid(), &client(&[&payload])]), Ok(()));
    }

    #[test]
    fn unknown_fields_stay_in_the_event() {
        let unknown = [
            [key(900, 0), varint(u64::MAX)].concat(),
            [key(4, 1), vec![1; 8]].concat(),
            field(15, &[b"\xff"]),
            [
                key(8, 3),
                key(1, 0),
                varint(7),
                field(2, &[b"x"]),
                key(8, 4),
            ]
            .concat(),
            [key((1 << 29) - 1, 5), vec![1; 4]].concat(),
        ]
        .concat();
        assert_eq!(check(&[&unknown, &valid(), &unknown]), Ok(()));
        // In a `client_event`, 4 is the payload; elsewhere it is unknown.
        let unknown = [field(90, &[b"x"]), groups(91, 3)].concat();
        assert_eq!(check(&[&valid(), &client(&[&unknown])]), Ok(()));
        let user = field(2, &[b"u1"]);
        assert_eq!(check(&[&session(&[&unknown, &user])]), Ok(()));
    }
}

mod wire_format {
    use super::*;

    #[test]
    fn a_truncated_event_is_refused_except_between_fields() {
        let event = [
            client(&[&field(1, &[b"u1"]), &field(3, &[b"mail"])]),
            [key(900, 0), varint(u64::MAX)].concat(),
            groups(8, 2),
        ];
        // The event is complete after each of its fields, and nowhere else.
        let whole: Vec<usize> = (1..=event.len())
            .map(|n| event[..n].concat().len())
            .collect();
        let bytes = event.concat();
        for end in 1..=bytes.len() {
            let result = check(&[&bytes[..end]]);
            if whole.contains(&end) {
                assert_eq!(result, Ok(()), "{end}");
            } else {
                let Err(EventError::Malformed { problem, .. }) = result else {
                    panic!("{end}: {result:?}");
                };
                assert_eq!(problem, WireProblem::Truncated, "{end}");
            }
        }
    }

    #[test]
    fn a_field_may_not_extend_past_its_message() {
        // The user_id claims three bytes where its message has two left. The event
        // has more bytes after that message.
        let event = [b"\x0a\x04\x0a\x03u1".to_vec(), valid()];
        assert_eq!(
            problem(&[&event[0], &event[1]]),
            (4, WireProblem::Truncated)
        );
    }

    #[test]
    fn lengths_near_the_largest_number_are_refused() {
        for length in [
            u64::MAX,
            u64::MAX - 1,
            1 << 63,
            1 << 32,
            u64::from(u32::MAX),
        ] {
            for key in [key(1, 2), key(3, 2), key(9, 2)] {
                let field = [key.clone(), varint(length)].concat();
                let at = valid().len() + field.len();
                assert_eq!(
                    problem(&[&valid(), &field]),
                    (at, WireProblem::Truncated),
                    "{length} {key:?}"
                );
            }
        }
    }

    #[test]
    fn varints_may_be_padded_up_to_ten_bytes() {
        let padded = |zeros: usize| [key(9, 0), vec![0x80; zeros], vec![0]].concat();
        assert_eq!(check(&[&padded(9), &valid()]), Ok(()));
        assert_eq!(
            problem(&[&padded(10), &valid()]),
            (1, WireProblem::VarintOverflow)
        );
        // Also in the key and the length of a known field.
        let user = b"\x8a\x80\x00\x82\x80\x80\x00u1";
        let event = client(&[user, &field(3, &[b"mail"])]);
        assert_eq!(check(&[&event]), Ok(()));
    }

    #[test]
    fn varints_beyond_64_bits_are_refused() {
        let with_last = |last: u8| [key(9, 0), vec![0xff; 9], vec![last]].concat();
        assert_eq!(check(&[&with_last(1), &valid()]), Ok(()));
        assert_eq!(
            problem(&[&with_last(2), &valid()]),
            (1, WireProblem::VarintOverflow)
        );
        assert_eq!(
            problem(&[&with_last(0x81), &valid()]),
            (1, WireProblem::VarintOverflow)
        );
        // Ten bytes at the very end of the message are an overflow, not a truncation.
        assert_eq!(
            problem(&[&with_last(0x80)]),
            (1, WireProblem::VarintOverflow)
        );
    }

    #[test]
    fn keys_beyond_32_bits_are_refused() {
        let largest = varint(u64::from(u32::MAX) & !7);
        assert_eq!(check(&[&valid(), &largest, &varint(1)]), Ok(()));
        let at = valid().len();
        for beyond in [1u64 << 32, u64::MAX, 1 << 32 | 0x0a] {
            assert_eq!(
                problem(&[&valid(), &varint(beyond), &varint(1)]),
                (at, WireProblem::KeyOverflow)
            );
        }
    }

    #[test]
    fn field_number_zero_is_refused() {
        for wire_type in [0, 1, 2, 3, 5] {
            assert_eq!(
                problem(&[&key(0, wire_type), &[0; 9]]),
                (0, WireProblem::FieldZero)
            );
        }
    }

    #[test]
    fn wire_types_6_and_7_are_refused() {
        for found in [6, 7] {
            for number in [1, 3, 9] {
                assert_eq!(
                    problem(&[&key(number, found), &[0; 9]]),
                    (0, WireProblem::UnknownWireType { found })
                );
            }
        }
    }

    #[test]
    fn known_fields_with_another_wire_type_are_refused() {
        let in_client = [
            (1, "client_event.user_id"),
            (2, "client_event.device_session_id"),
            (3, "client_event.kind"),
            (4, "client_event.payload"),
            (5, "client_event.event_id"),
            (6, "client_event.request_id"),
            (7, "client_event.trace_id"),
        ];
        let in_session = [
            (1, "session_invalidation.device_session_id"),
            (2, "session_invalidation.user_id"),
            (3, "session_invalidation.reason"),
        ];
        let in_event = [
            (1, "client_event"),
            (2, "session_invalidation"),
            (3, "cursor"),
        ];
        for found in [0, 1, 3, 4, 5] {
            let refused = |field| WireProblem::WrongWireType { field, found };
            let value = |number| [key(number, found), vec![0; 8]].concat();
            for (number, field) in in_client {
                assert_eq!(problem(&[&client(&[&value(number)])]), (2, refused(field)));
            }
            for (number, field) in in_session {
                assert_eq!(problem(&[&session(&[&value(number)])]), (2, refused(field)));
            }
            for (number, field) in in_event {
                assert_eq!(problem(&[&value(number)]), (0, refused(field)));
            }
        }
    }

    #[test]
    fn groups_end_with_their_own_tag() {
        let ends = |numbers: &[u32]| {
            let opened = [key(8, 3), key(9, 3)].concat();
            let ends: Vec<u8> = numbers.iter().flat_map(|&n| key(n, 4)).collect();
            [opened, ends].concat()
        };
        assert_eq!(check(&[&ends(&[9, 8]), &valid()]), Ok(()));
        assert_eq!(
            problem(&[&ends(&[8, 9]), &valid()]),
            (2, WireProblem::UnmatchedEndGroup)
        );
        assert_eq!(
            problem(&[&ends(&[9, 9]), &valid()]),
            (3, WireProblem::UnmatchedEndGroup)
        );
        assert_eq!(
            problem(&[&ends(&[9, 8, 8]), &valid()]),
            (4, WireProblem::UnmatchedEndGroup)
        );
    }

    #[test]
    fn groups_beyond_the_nesting_limit_are_refused() {
        assert_eq!(check(&[&valid(), &groups(9, EVENT_DEPTH)]), Ok(()));
        assert_eq!(
            problem(&[&groups(9, EVENT_DEPTH + 1), &valid()]).1,
            WireProblem::TooDeep
        );
        assert_eq!(
            check(&[&valid(), &client(&[&groups(9, KIND_DEPTH)])]),
            Ok(())
        );
        assert_eq!(
            problem(&[&valid(), &client(&[&groups(9, KIND_DEPTH + 1)])]).1,
            WireProblem::TooDeep
        );
        // A value in the innermost group counts as a level, as prost counts.
        let value = [key(9, 0), vec![0]].concat();
        let around = |depth: usize| {
            let bytes = groups(9, depth);
            let (begin, end) = bytes.split_at(bytes.len() / 2);
            [begin, &value, end].concat()
        };
        assert_eq!(check(&[&valid(), &around(EVENT_DEPTH - 1)]), Ok(()));
        assert_eq!(
            problem(&[&around(EVENT_DEPTH), &valid()]).1,
            WireProblem::TooDeep
        );
        // A million groups must not overflow the stack.
        assert_eq!(
            problem(&[&key(9, 3).repeat(1 << 20)]).1,
            WireProblem::TooDeep
        );
    }
}

mod request {
    use super::*;

    fn refused(request: &[u8]) -> RequestError {
        parse_publish_request(request, 1000, &mut Vec::new()).unwrap_err()
    }

    #[test]
    fn events_keep_their_order_and_bytes() {
        let other = session(&[&field(2, &[b"u2"])]);
        let unknown = [field(7, &[b"x"]), groups(8, REQUEST_DEPTH)].concat();
        let request = [
            unknown.clone(),
            field(1, &[&valid()]),
            unknown,
            field(1, &[&other]),
        ]
        .concat();
        let mut events = Vec::new();
        let counts = parse_publish_request(&request, 1000, &mut events).unwrap();
        assert_eq!((counts.client_events, counts.session_invalidations), (1, 1));
        let bytes: Vec<&[u8]> = events.iter().map(|event| event.as_bytes()).collect();
        assert_eq!(bytes, [&valid()[..], &other]);
        // They are appended to the events that the caller already has, and counted alone.
        let again = parse_publish_request(&request, 1000, &mut events);
        assert_eq!(again, Ok(counts));
        assert_eq!(events.len(), 4);
    }

    #[test]
    fn errors_name_the_event_and_the_field() {
        let events = |bad: &[u8]| {
            let good = field(1, &[&valid()]);
            [good.repeat(3), field(1, &[bad]), good].concat()
        };
        for (bad, text) in [
            (client(&[]), "events[3].client_event.user_id is empty"),
            (vec![], "events[3].kind is not set"),
            (field(3, &[b"x"]), "events[3].cursor is already set"),
            (
                client(&[&field(7, &[b"\xc0"])]),
                "events[3].client_event.trace_id is not UTF-8",
            ),
            (
                vec![0x0a, 5],
                "events[3] is not a valid PushEvent at byte 2: the message ends within a field",
            ),
            (
                client(&[b"\x08\x00"]),
                "events[3] is not a valid PushEvent at byte 2: client_event.user_id has the wire type 0, not 2",
            ),
        ] {
            assert_eq!(refused(&events(&bad)).to_string(), text);
        }
    }

    #[test]
    fn a_request_without_events_is_refused() {
        assert_eq!(refused(b""), RequestError::NoEvents);
        assert_eq!(refused(&field(2, &[b"x"])), RequestError::NoEvents);
        assert_eq!(RequestError::NoEvents.to_string(), "events is empty");
        // The events that the caller had before do not count.
        let bytes = valid();
        let mut events = vec![Event::parse(&bytes).unwrap()];
        assert_eq!(
            parse_publish_request(b"", 1000, &mut events),
            Err(RequestError::NoEvents)
        );
    }

    #[test]
    fn an_event_over_the_size_limit_is_refused() {
        let good = field(1, &[&valid()]);
        let request = good.repeat(2);
        let limit = valid().len();
        assert!(parse_publish_request(&request, limit, &mut Vec::new()).is_ok());
        let large = [valid(), field(9, &[b"x"])].concat();
        let refused = parse_publish_request(
            &[good, field(1, &[&large])].concat(),
            limit,
            &mut Vec::new(),
        )
        .unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "events[1] has {} bytes, more than the {limit} that an event may have",
                large.len()
            )
        );
    }

    #[test]
    fn a_refused_request_appends_nothing() {
        let good = field(1, &[&valid()]);
        let bytes = valid();
        for bad in [field(1, &[]), vec![0x0a], field(1, &[&[0; 50]])] {
            let request = [good.clone(), good.clone(), bad].concat();
            let mut events = vec![Event::parse(&bytes).unwrap()];
            assert!(parse_publish_request(&request, 40, &mut events).is_err());
            assert_eq!(events.len(), 1);
            assert_eq!(events[0].as_bytes(), bytes);
        }
    }

    #[test]
    fn a_fault_outside_of_the_events_is_reported() {
        assert_eq!(
            refused(&[field(1, &[&valid()]), vec![0x0a, 9]].concat()).to_string(),
            format!(
                "not a valid PublishRequest at byte {}: the message ends within a field",
                valid().len() + 4
            )
        );
        assert_eq!(
            refused(b"\x08\x00"),
            RequestError::Malformed {
                at: 0,
                problem: WireProblem::WrongWireType {
                    field: "events",
                    found: 0
                }
            }
        );
        assert_eq!(
            refused(&groups(9, REQUEST_DEPTH + 1)),
            RequestError::Malformed {
                at: REQUEST_DEPTH,
                problem: WireProblem::TooDeep
            }
        );
    }
}

/// The same bytes, decoded by prost.
#[cfg(feature = "client")]
mod against_prost {
    use super::*;
    use crate::contract::publisher::PublishRequest;
    use crate::contract::push::push_event::Kind;
    use crate::contract::push::{ClientEvent, PushEvent, SessionInvalidation};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use prost::Message;

    const CURSOR: &str = "CBSZJPG00007-0000000001A";

    fn keeps_the_rules(event: &PushEvent) -> bool {
        match &event.kind {
            None => false,
            Some(Kind::ClientEvent(it)) => !it.user_id.is_empty() && !it.kind.is_empty(),
            Some(Kind::SessionInvalidation(it)) => !it.user_id.is_empty(),
        }
    }

    /// Compares the scanner with prost on any bytes: both accept or both refuse, and
    /// prost decodes an accepted event to the same message with a cursor appended.
    fn compare(request: &[u8]) -> Result<(), TestCaseError> {
        let mut events = Vec::new();
        let ours = parse_publish_request(request, usize::MAX, &mut events);
        let theirs = PublishRequest::decode(request);
        if let Err(RequestError::Event {
            source: EventError::CursorSet,
            ..
        }) = ours
        {
            // prost keeps only the last of several cursors, so it cannot decide.
            return Ok(());
        }
        let valid = theirs.as_ref().is_ok_and(|request| {
            !request.events.is_empty() && request.events.iter().all(keeps_the_rules)
        });
        prop_assert_eq!(ours.is_ok(), valid, "{:?} / {:?}", ours, theirs);
        if !valid {
            return Ok(());
        }
        let theirs = theirs.unwrap_or_default().events;
        prop_assert_eq!(events.len(), theirs.len());
        let is_client = |event: &&PushEvent| matches!(event.kind, Some(Kind::ClientEvent(_)));
        let client_events = theirs.iter().filter(is_client).count();
        let counts = KindCounts {
            client_events,
            session_invalidations: theirs.len() - client_events,
        };
        prop_assert_eq!(ours, Ok(counts));
        for (event, mut theirs) in events.iter().zip(theirs) {
            prop_assert_eq!(&theirs.cursor, "");
            let invalidation = match &theirs.kind {
                Some(Kind::SessionInvalidation(it)) => Some(Invalidation {
                    user_id: &it.user_id,
                    device_session_id: &it.device_session_id,
                    reason: &it.reason,
                }),
                _ => None,
            };
            prop_assert_eq!(event.invalidation(), invalidation);
            theirs.cursor = CURSOR.to_owned();
            let framed = [event.as_bytes(), &field(3, &[CURSOR.as_bytes()])].concat();
            let received = Received::parse(&framed);
            let expected = Received {
                cursor: CURSOR.as_bytes(),
                kind: match (&theirs.kind, invalidation) {
                    (_, Some(invalidation)) => ReceivedKind::SessionInvalidation(invalidation),
                    (Some(Kind::ClientEvent(it)), _) => ReceivedKind::ClientEvent(ClientFields {
                        user_id: it.user_id.as_bytes(),
                        device_session_id: it.device_session_id.as_bytes(),
                        kind: it.kind.as_bytes(),
                        payload: &it.payload,
                        event_id: it.event_id.as_bytes(),
                        request_id: it.request_id.as_bytes(),
                        trace_id: it.trace_id.as_bytes(),
                    }),
                    _ => ReceivedKind::Position,
                },
            };
            prop_assert_eq!(received, Ok(expected));
            if let Some(recipient) = Recipient::quickly(&framed) {
                let ReceivedKind::ClientEvent(fields) = expected.kind else {
                    panic!("{expected:?}");
                };
                prop_assert_eq!(recipient.user_id, fields.user_id);
                prop_assert_eq!(recipient.device_session_id, fields.device_session_id);
            }
            prop_assert_eq!(PushEvent::decode(&framed[..]).ok(), Some(theirs));
        }
        Ok(())
    }

    #[test]
    fn groups_nest_as_deep_as_in_prost() {
        let user = field(2, &[b"u1"]);
        for depth in REQUEST_DEPTH - 4..REQUEST_DEPTH + 4 {
            let (empty, value) = (groups(9, depth), [key(9, 0), vec![0]].concat());
            let (begin, end) = empty.split_at(depth * key(9, 3).len());
            for group in [&empty, &[begin, &value, end].concat()] {
                compare(&[&field(1, &[&valid()]), &group[..]].concat()).unwrap();
                compare(&field(1, &[&valid(), group])).unwrap();
                compare(&field(1, &[&valid(), &client(&[group])])).unwrap();
                compare(&field(1, &[&session(&[&user, group])])).unwrap();
            }
        }
    }

    fn client_event() -> impl Strategy<Value = ClientEvent> {
        let text = || "\\PC{0,3}";
        (
            text(),
            text(),
            text(),
            vec(any::<u8>(), 0..200),
            text(),
            text(),
            text(),
        )
            .prop_map(
                |(user_id, device_session_id, kind, payload, event_id, request_id, trace_id)| {
                    ClientEvent {
                        user_id,
                        device_session_id,
                        kind,
                        payload: payload.into(),
                        event_id,
                        request_id,
                        trace_id,
                    }
                },
            )
    }

    fn session_invalidation() -> impl Strategy<Value = SessionInvalidation> {
        ("\\PC{0,3}", "\\PC{0,3}", "\\PC{0,3}").prop_map(|(device_session_id, user_id, reason)| {
            SessionInvalidation {
                device_session_id,
                user_id,
                reason,
            }
        })
    }

    fn push_event() -> impl Strategy<Value = PushEvent> {
        prop_oneof![
            client_event().prop_map(|mut it| {
                it.user_id.push('u');
                it.kind.push('k');
                Kind::ClientEvent(it)
            }),
            session_invalidation().prop_map(|mut it| {
                it.user_id.push('u');
                Kind::SessionInvalidation(it)
            }),
        ]
        .prop_map(|kind| PushEvent {
            kind: Some(kind),
            cursor: String::new(),
        })
    }

    /// A field that is well-formed in any message.
    fn any_field() -> impl Strategy<Value = Vec<u8>> {
        let number = prop_oneof![4 => 1..=9u32, 1 => 10..(1u32 << 29)];
        let value = vec(any::<u8>(), 0..4);
        prop_oneof![
            (number.clone(), any::<u64>()).prop_map(|(n, v)| [key(n, 0), varint(v)].concat()),
            (number.clone(), any::<[u8; 8]>()).prop_map(|(n, v)| [key(n, 1), v.into()].concat()),
            (number.clone(), value).prop_map(|(n, v)| field(n, &[&v])),
            (number.clone(), 1..103usize).prop_map(|(n, depth)| groups(n, depth)),
            (number, any::<[u8; 4]>()).prop_map(|(n, v)| [key(n, 5), v.into()].concat()),
        ]
    }

    /// An event of pieces that merge: parts of both messages, in any order.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let text = || prop_oneof![Just(vec![]), Just(b"u".to_vec()), Just(b"\xff".to_vec())];
        let inner = prop_oneof![
            6 => (1..=7u32, text()).prop_map(|(n, text)| field(n, &[&text])),
            1 => any_field(),
        ];
        let piece = prop_oneof![
            8 => (1..=2u32, vec(inner, 0..4)).prop_map(|(n, fields)| field(n, &[&fields.concat()])),
            1 => Just(field(3, &[])),
            1 => any_field(),
        ];
        vec(piece, 0..5).prop_map(|pieces| pieces.concat())
    }

    #[derive(Clone, Debug)]
    enum Mutation {
        Set(Index, u8),
        Insert(Index, Vec<u8>),
        Remove(Index),
        Cut(Index),
        /// Copies the bytes between the first two offsets to the third.
        Copy(Index, Index, Index),
    }

    fn mutation() -> impl Strategy<Value = Mutation> {
        let at = any::<Index>;
        // Bytes with a meaning in the wire format, which get further than random ones.
        let byte = || {
            prop_oneof![
                any::<u8>(),
                0..0x20u8,
                Just(0x80u8),
                Just(0xffu8),
                Just(0x7fu8)
            ]
        };
        prop_oneof![
            (at(), byte()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
            (at(), vec(byte(), 1..12)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
            (at(), any_field()).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
            at().prop_map(Mutation::Remove),
            at().prop_map(Mutation::Cut),
            (at(), at(), at()).prop_map(|(from, to, at)| Mutation::Copy(from, to, at)),
        ]
    }

    fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match mutation {
            Mutation::Set(at, byte) => {
                let at = place(at);
                if let Some(set) = bytes.get_mut(at) {
                    *set = *byte;
                }
            }
            Mutation::Insert(at, inserted) => {
                let at = place(at);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Mutation::Remove(at) => {
                let at = place(at);
                if at < bytes.len() {
                    bytes.remove(at);
                }
            }
            Mutation::Cut(at) => {
                let at = place(at);
                bytes.truncate(at);
            }
            Mutation::Copy(from, to, at) => {
                let (from, to, at) = (place(from), place(to), place(at));
                let copy = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(at..at, copy);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn what_prost_encodes_is_accepted(events in vec(push_event(), 1..4)) {
            let request = PublishRequest { events }.encode_to_vec();
            let mut parsed = Vec::new();
            prop_assert!(parse_publish_request(&request, usize::MAX, &mut parsed).is_ok());
            compare(&request)?;
        }

        #[test]
        fn mutated_events_are_judged_alike(
            event in prop_oneof![push_event().prop_map(|it| it.encode_to_vec()), pieces()],
            mutations in vec(mutation(), 1..4),
        ) {
            let mut event = event;
            for mutation in &mutations {
                mutate(&mut event, mutation);
            }
            compare(&field(1, &[&event]))?;
        }

        #[test]
        fn mutated_requests_are_judged_alike(
            events in vec(push_event(), 1..3),
            mutations in vec(mutation(), 1..4),
        ) {
            let mut request = PublishRequest { events }.encode_to_vec();
            for mutation in &mutations {
                mutate(&mut request, mutation);
            }
            compare(&request)?;
        }

        #[test]
        fn pieces_merge_as_in_prost(event in pieces()) {
            compare(&field(1, &[&event]))?;
        }

        #[test]
        fn random_bytes_are_judged_alike(request in vec(any::<u8>(), 0..40)) {
            compare(&request)?;
        }
    }
}
