use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::access::Peer;
use crate::contract::details::{DOMAIN, Details, ErrorInfo};
use crate::contract::gateway_id;
use crate::cursor::{Epoch, Seq};
use crate::event::{Event, parse_publish_request};

/// A status of every kind, some of them more than once.
fn every_status() -> Vec<Status> {
    let second = Duration::from_secs(1);
    let stall = |pinned_bytes| Stall {
        lasted: second,
        pinned_bytes,
    };
    let id = |id: &str| bad_gateway_id(gateway_id::check(id).unwrap_err());
    let request = |bytes: &[u8]| {
        let refused = parse_publish_request(bytes, 30, &mut Vec::new());
        bad_request(&refused.unwrap_err())
    };
    let event = |bytes: &[u8]| {
        let source = Event::parse(bytes).unwrap_err();
        bad_request(&RequestError::Event { index: 3, source })
    };
    let cursor = |ms| Cursor::new(Epoch::new(ms, 0).unwrap(), Seq::new(7));
    let mut gzip = HeaderMap::new();
    gzip.insert("grpc-encoding", HeaderValue::from_static("gzip"));
    let name = "orders".to_owned();
    let undecodable: Result<crate::contract::push::PushEvent, _> =
        prost::Message::decode(&b"\x07"[..]);
    let mut all = vec![
        taken_over(None),
        taken_over(Some(Successor {
            peer: Peer::Unknown,
            principal: Some("p".into()),
            instance: Some("i".into()),
        })),
        disconnected("anyone"),
        lagged(1),
        replay_too_slow(1, 2),
        stopping(),
        not_subscribed(SubscribeError::TooManySubscribers { limit: 9 }),
        not_subscribed(SubscribeError::Closed),
        stalled(&stall(None)),
        stalled(&stall(Some(7))),
        request_timeout(second),
        too_many_long_requests(),
        refuse_compression(&gzip).unwrap_err(),
        compressed_flag(1),
        unknown_method("this listener", &["/a.B/C"]),
        unknown_service("a.B"),
        not_one_message("Publish", true),
        not_one_message("Publish", false),
        cut_short(None),
        cut_short(Some((1, 9))),
        request_too_large(10, 9),
        bad_metadata("push-heartbeat", &"not a time"),
        bad_instance(instance::check(&"x".repeat(129)).unwrap_err()),
        bad_instance(instance::check("\t").unwrap_err()),
        bad_cursor("cursor", &Cursor::parse(b"7").unwrap_err()),
        other_epoch("cursor", cursor(1), cursor(2)),
        beyond_head("cursor", cursor(1)),
        duration_not_allowed("lease_ms", second / 2, second, 60 * second),
        bad_report(ReportError::WentBack { before: 7 }, cursor(1)),
        bad_report(ReportError::NotSubscribed, cursor(1)),
        bad_report(ReportError::TooManyProcesses { limit: 64 }, cursor(1)),
        too_many_waits(TooManyWaits { limit: 256 }),
        not_a_message("PushEvent", &undecodable.unwrap_err()),
        id(""),
        id("\n"),
        id(&"x".repeat(257)),
        request(b""),
        request(b"\x0a\x7f"),
        request(&[&b"\x0a\x28"[..], &[0; 40]].concat()),
        event(b""),
        event(b"\x12\x00"),
        event(b"\x1a\x01x"),
        event(b"\x12\x03\x12\x01\xff"),
        event(b"\x07"),
        event(b"\x08\x00"),
        not_published(&PublishError::NoEvents),
        not_published(&PublishError::EventTooLarge {
            index: 3,
            bytes: 10,
            limit: 9,
        }),
        not_published(&PublishError::TooManyEvents {
            events: 10,
            limit: 9,
        }),
        not_published(&PublishError::BatchTooLarge {
            bytes: 10,
            limit: 9,
        }),
        not_published(&PublishError::Closed),
        not_published(&PublishError::Exhausted),
        not_appended(&AppendError::TooLarge {
            bytes: 10,
            limit: 9,
        }),
        not_appended(&AppendError::Unavailable {
            reason: "no connection".to_owned(),
        }),
        not_appended(&AppendError::Undecided),
        stale(second),
        not_with_a_backbone("WaitEnforced"),
    ];
    let refused = [
        AccessError::NoCredential,
        AccessError::Malformed("two tokens".to_owned()),
        AccessError::NotAccepted { reason: "no exp" },
        AccessError::Ambiguous {
            first: "one".to_owned(),
            second: "two".to_owned(),
        },
        AccessError::Unknown,
        AccessError::Expired,
        AccessError::NotYetValid,
        AccessError::Revoked {
            principal: name.clone(),
        },
        AccessError::TooManyFailures {
            retry_after: second,
        },
        AccessError::SubscribeNotGranted {
            principal: name.clone(),
            gateway: "gateway-7".to_owned(),
        },
        AccessError::PublishNotGranted {
            principal: name.clone(),
            kind: "session_invalidation",
        },
        AccessError::TooManyStreams {
            principal: name.clone(),
            limit: 4,
            retry_after: second,
        },
        AccessError::TooFast {
            principal: name,
            setting: "events_per_second",
            retry_after: second,
        },
    ];
    all.extend(refused.iter().map(access));
    all
}

fn details(status: &Status) -> Details {
    Details::decode(status.details())
}

fn info(status: &Status) -> ErrorInfo {
    let info = details(status).error_info;
    info.unwrap_or_else(|| panic!("{status:?} has no ErrorInfo"))
}

/// A row of the table in the documentation, or what the code makes of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Row {
    codes: BTreeSet<String>,
    keys: BTreeSet<String>,
    retries: BTreeSet<bool>,
}

fn code_name(status: &Status) -> String {
    let name = format!("{:?}", status.code());
    let mut upper = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_uppercase() && at > 0 {
            upper.push('_');
        }
        upper.push(letter.to_ascii_uppercase());
    }
    upper
}

#[test]
fn the_table_in_the_documentation_is_this_one() {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for status in every_status() {
        let info = info(&status);
        let row = rows.entry(info.reason).or_default();
        row.codes.insert(code_name(&status));
        row.keys.extend(info.metadata.into_keys());
        row.retries.insert(details(&status).retry_delay.is_some());
    }
    let reasons: BTreeSet<_> = ErrorReason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .collect();
    let made: BTreeSet<_> = rows.keys().map(String::as_str).collect();
    assert_eq!(made, reasons, "each reason has a status");

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("\n## Reasons\n").expect("a section");
    let section = section.split("\n## ").next().unwrap();
    let mut documented: BTreeMap<String, Row> = BTreeMap::new();
    let words = |cell: &str| -> Vec<String> {
        let quoted = cell.split('`').skip(1).step_by(2);
        quoted.map(str::to_owned).collect()
    };
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [reason, code, when, keys, retry, what_to_do] = cells[..] else {
            panic!("not six cells: {line}");
        };
        assert!(!when.is_empty() && !what_to_do.is_empty(), "{line}");
        let row = Row {
            codes: words(code).into_iter().collect(),
            keys: words(keys).into_iter().collect(),
            retries: [match retry {
                "yes" => true,
                "no" => false,
                other => panic!("{other:?} in {line}"),
            }]
            .into(),
        };
        let before = documented.insert(words(reason).concat(), row);
        assert!(before.is_none(), "twice: {line}");
    }
    assert_eq!(documented, rows);
}

#[test]
fn every_figure_of_a_message_is_in_the_metadata() {
    for status in every_status() {
        let info = info(&status);
        assert_eq!(info.domain, DOMAIN);
        assert!(!status.message().is_empty(), "{status:?}");
        // `1.5s` and `0x01` are none; they are there in milliseconds, and decimal.
        let figures = |text: &str| -> BTreeSet<String> {
            let words = text.split(|c: char| !c.is_alphanumeric() && c != '.');
            let is_figure = |word: &&str| word.parse::<u64>().is_ok();
            words.filter(is_figure).map(str::to_owned).collect()
        };
        let told: BTreeSet<_> = info
            .metadata
            .values()
            .flat_map(|value| figures(value))
            .collect();
        let in_message = figures(&status.message().replace("UTF-8", ""));
        assert!(in_message.is_subset(&told), "{status:?}: {info:?}");
    }
}

#[test]
fn what_a_client_reads_is_what_was_written() {
    for status in every_status() {
        let fields = refusal(&status).fields;
        let read = Status::from_header_map(&fields).unwrap();
        assert_eq!(
            (read.code(), read.message()),
            (status.code(), status.message())
        );
        assert_eq!(details(&read), details(&status));
    }
}

#[test]
fn a_limits_own_delay_is_the_least_of_its_status() {
    let status = access(&AccessError::TooManyFailures {
        retry_after: Duration::from_secs(40),
    });
    assert!(details(&status).retry_delay.unwrap() >= Duration::from_secs(40));
}

#[test]
fn the_longest_names_stay_within_a_head_and_keep_their_reason() {
    for character in ["x", "é", "語", "%", "\""] {
        let name = character.repeat(4000);
        let status = access(&AccessError::SubscribeNotGranted {
            principal: name.clone(),
            gateway: name,
        });
        assert!(info(&status).is(ErrorReason::SubscribeNotGranted));
        let fields = refusal(&status).fields;
        assert!(head_bytes(&fields) < 4000, "{} bytes", head_bytes(&fields));
        // The one has not been shortened without the other.
        let read = Status::from_header_map(&fields).unwrap();
        assert_eq!(read.message(), status.message());
    }
}

#[test]
fn details_of_others_are_left_out_where_they_do_not_fit() {
    let status = Status::with_details(Code::Internal, "m".repeat(3000), vec![0; 1000].into());
    let fields = refusal(&status).fields;
    assert!(head_bytes(&fields) < 4000);
    assert!(!fields.contains_key("grpc-status-details-bin"));
    let status = Status::with_details(Code::Internal, "m", vec![0; 1000].into());
    assert!(
        refusal(&status)
            .fields
            .contains_key("grpc-status-details-bin")
    );
}

fn head_bytes(fields: &HeaderMap) -> usize {
    fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum()
}

#[test]
fn a_head_stays_below_4_kib_and_can_be_decoded_whatever_the_message() {
    for text in ["x", "\n", "é", "語", "🛰", "a🛰é", "%"] {
        for pad in 0..4 {
            let message = "y".repeat(pad) + &text.repeat(9000);
            let fields = refusal(&Status::internal(message.clone())).fields;
            let bytes = head_bytes(&fields);
            assert!(bytes < 4000, "{bytes} bytes");
            let read = Status::from_header_map(&fields).unwrap();
            assert_eq!(read.code(), Code::Internal);
            let kept = read.message().strip_suffix("...").expect("an ellipsis");
            assert!(message.starts_with(kept), "{text:?}: {kept:?}");
            assert!(fields["grpc-message"].len() > MAX_MESSAGE_BYTES - 20);
        }
    }
    let short = refusal(&Status::internal("é".repeat(500))).fields;
    let read = Status::from_header_map(&short).unwrap();
    assert_eq!(read.message(), "é".repeat(500));
}

#[test]
fn a_lagged_stream_is_told_what_it_has_missed() {
    let status = lagged(42);
    assert_eq!(status.metadata().get(PUSH_MISSED).unwrap(), "42");
    assert!(status.message().contains("42 events"), "{status:?}");
}
