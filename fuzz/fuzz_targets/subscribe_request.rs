//! What a gateway sends to subscribe, all the way in: decoded, its id checked,
//! its cursor judged by an engine that has a few events.

#![no_main]

use std::sync::LazyLock;

use galaxy_push::contract::gateway_id;
use galaxy_push::contract::push::GatewaySubscribeRequest;
use galaxy_push::cursor::{Cursor, Epoch, Seq};
use galaxy_push::engine::{Engine, Resume, TryRecvError};
use galaxy_push::event::Event;
use libfuzzer_sys::fuzz_target;
use prost::Message;

const EVENTS: u64 = 3;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let engine = Engine::builder()
        .epoch(Epoch::new(1_700_000_000_000, 0).expect("it fits"))
        .max_events(100)
        .max_bytes(4 << 20)
        .window(std::time::Duration::MAX)
        .max_subscribers(1)
        .build()
        .expect("these settings fit together");
    let event = Event::parse(b"\x12\x04\x12\x02u1").expect("a valid event");
    for _ in 0..EVENTS {
        engine.publisher().publish(event).expect("it is open");
    }
    engine
});

fuzz_target!(|input: &[u8]| {
    let Ok(request) = GatewaySubscribeRequest::decode(input) else {
        return;
    };
    let id = request.gateway_client_id.as_str();
    let well_formed = (1..=256).contains(&id.len()) && !id.chars().any(char::is_control);
    let checked = gateway_id::check(id);
    assert_eq!(checked.is_ok(), well_formed, "{checked:?}");
    if let Err(error) = checked {
        assert!(error.to_string().starts_with("gateway_client_id "));
        return;
    }
    judge(id, &request.cursor);
});

fn judge(id: &str, cursor: &str) {
    let head = ENGINE.head();
    let expected = match cursor.parse::<Cursor>() {
        _ if cursor.is_empty() => (Resume::NoCursor, head),
        Err(_) => (Resume::Malformed, head),
        Ok(cursor) if cursor.epoch() != head.epoch() => {
            let is_later = cursor.epoch() > head.epoch();
            (Resume::OtherEpoch { is_later }, head)
        }
        Ok(cursor) if cursor > head => (Resume::Ahead, head),
        Ok(cursor) => (Resume::Resumed, cursor),
    };
    let mut subscriber = ENGINE.subscribe(id, cursor).expect("there is room for one");
    let start = subscriber.start();
    assert_eq!((start.resume, start.cursor), expected, "{cursor:?}");

    let to_come = EVENTS - start.cursor.seq().number();
    match subscriber.try_recv() {
        Ok(batch) => {
            assert_eq!(batch.len() as u64, to_come);
            let next = start.cursor.seq().number() + 1;
            assert_eq!(batch.first().seq(), Seq::new(next));
            assert_eq!(batch.last(), head);
        }
        Err(TryRecvError::Empty) => assert_eq!(to_come, 0),
        Err(other) => panic!("{other}"),
    }
}
