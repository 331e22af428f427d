//! The validation of publish requests against prost, which decodes what this
//! package only looks at: the same verdict on every input, and what is accepted
//! reads the same at the gateway, where a cursor follows it.

#![no_main]

use galaxy_push::contract::publisher::PublishRequest;
use galaxy_push::contract::push::PushEvent;
use galaxy_push::contract::push::push_event::Kind;
use galaxy_push::event::{Event, EventError, KindCounts, RequestError, parse_publish_request};
use libfuzzer_sys::fuzz_target;
use prost::Message;

const CURSOR: &str = "CBSZJPG00007-0000000001A";

fuzz_target!(|request: &[u8]| {
    let mut events = Vec::new();
    let ours = parse_publish_request(request, usize::MAX, &mut events);
    let theirs = PublishRequest::decode(request);
    let cursor_was_set = matches!(
        ours,
        Err(RequestError::Event {
            source: EventError::CursorSet,
            ..
        })
    );
    // Of several cursors prost shows only the last, so it cannot judge that.
    if !cursor_was_set {
        let valid = theirs.as_ref().is_ok_and(|request| {
            !request.events.is_empty() && request.events.iter().all(keeps_the_rules)
        });
        assert_eq!(ours.is_ok(), valid, "{ours:?} against {theirs:?}");
    }
    match &ours {
        Ok(counts) => {
            let theirs = theirs.expect("prost accepts it").events;
            assert_eq!(*counts, counts_of(&theirs));
            comes_back_equal(&events, theirs);
        }
        Err(error) => {
            assert!(events.is_empty(), "nothing is appended on error");
            assert!(!error.to_string().is_empty());
        }
    }
    keeps_the_limit(request, &ours, &events);
});

fn keeps_the_rules(event: &PushEvent) -> bool {
    let kind = match &event.kind {
        Some(Kind::ClientEvent(it)) => !it.user_id.is_empty() && !it.kind.is_empty(),
        Some(Kind::SessionInvalidation(it)) => !it.user_id.is_empty(),
        None => false,
    };
    kind && event.cursor.is_empty()
}

fn counts_of(events: &[PushEvent]) -> KindCounts {
    let is_client = |event: &&PushEvent| matches!(event.kind, Some(Kind::ClientEvent(_)));
    let client_events = events.iter().filter(is_client).count();
    KindCounts {
        client_events,
        session_invalidations: events.len() - client_events,
    }
}

fn comes_back_equal(ours: &[Event<'_>], theirs: Vec<PushEvent>) {
    assert_eq!(ours.len(), theirs.len());
    for (event, mut expected) in ours.iter().zip(theirs) {
        let mut framed = event.as_bytes().to_vec();
        framed.extend_from_slice(b"\x1a\x18");
        framed.extend_from_slice(CURSOR.as_bytes());
        expected.cursor = CURSOR.to_owned();
        assert_eq!(PushEvent::decode(&framed[..]), Ok(expected));

        let alone = Event::parse(event.as_bytes()).expect("it was accepted among others");
        assert_eq!(alone.as_bytes(), event.as_bytes());
    }
}

/// With a limit, the first event above it is refused, unless something before it
/// is wrong.
fn keeps_the_limit(
    request: &[u8],
    unlimited: &Result<KindCounts, RequestError>,
    events: &[Event<'_>],
) {
    let limit = request.len() / 2;
    let limited = parse_publish_request(request, limit, &mut Vec::new());
    let large = |event: &Event<'_>| event.as_bytes().len() > limit;
    match limited {
        Err(RequestError::EventTooLarge {
            index,
            bytes,
            limit: stated,
        }) => {
            assert_eq!(stated, limit);
            assert!(bytes > limit && bytes <= request.len());
            if unlimited.is_ok() {
                assert_eq!(events.iter().position(large), Some(index));
                assert_eq!(events[index].as_bytes().len(), bytes);
            }
        }
        limited => {
            assert_eq!(&limited, unlimited);
            assert!(!events.iter().any(large));
        }
    }
}
