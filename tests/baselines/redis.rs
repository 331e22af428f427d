//! A gateway and a publisher of Redis, against what a server says.

use galaxy_push::lab::load::{Begin, Consumer, Publisher};

use crate::clients::redis_pubsub::{PubSubConsumer, PubSubPublisher};
use crate::clients::redis_streams::{StreamConsumer, StreamPublisher};
use crate::record::{batch, consume, respond};
use crate::wire::resp::command;

fn words(words: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    command(&mut bytes, &words);
    bytes
}

#[test]
fn a_subscriber_starts_and_gets_messages() {
    let mut consumer = PubSubConsumer;
    let mut out = Vec::new();
    consumer.open(Begin::Head, &mut out);
    assert_eq!(out, words(&["SUBSCRIBE", "events"]));
    let said = [
        b"*3\r\n$9\r\nsubscribe\r\n$6\r\nevents\r\n:1\r\n".to_vec(),
        words(&["message", "events", "one"]),
        words(&["message", "events", ""]),
    ]
    .concat();
    let (record, out) = consume(&mut consumer, &said);
    assert_eq!(record.starts.len(), 1);
    assert_eq!(record.events, [&b"one"[..], b""]);
    assert_eq!(out, b"");
}

#[test]
fn a_refusal_ends_a_subscriber() {
    let (record, _) = consume(&mut PubSubConsumer, b"-ERR max number of clients\r\n");
    assert_eq!(record.ends[0].message, "ERR max number of clients");
}

#[test]
fn a_batch_is_accepted_with_its_last_event() {
    let mut publisher = PubSubPublisher::default();
    let mut out = Vec::new();
    publisher.publish(&batch(0, 2), &mut out);
    publisher.publish(&batch(2, 1), &mut out);
    assert_eq!(respond(&mut publisher, b":0\r\n").accepted, 0);
    assert_eq!(respond(&mut publisher, b":0\r\n:0\r\n").accepted, 2);

    let mut publisher = StreamPublisher::default();
    publisher.publish(&batch(0, 2), &mut out);
    assert_eq!(
        respond(&mut publisher, b"$3\r\n1-0\r\n$3\r\n1-1\r\n").accepted,
        1
    );
}

#[test]
fn a_reader_asks_for_what_follows_its_newest_entry() {
    let mut consumer = StreamConsumer::default();
    let mut out = Vec::new();
    consumer.open(Begin::Head, &mut out);
    assert_eq!(out, words(&["XREVRANGE", "events", "+", "-", "COUNT", "1"]));
    let (record, out) = consume(
        &mut consumer,
        b"*1\r\n*2\r\n$3\r\n7-0\r\n*2\r\n$1\r\ne\r\n$3\r\nold\r\n",
    );
    assert_eq!((record.starts.len(), record.events.len()), (1, 0));
    let read = |id| {
        words(&[
            "XREAD", "COUNT", "1000", "BLOCK", "0", "STREAMS", "events", id,
        ])
    };
    assert_eq!(out, read("7-0"));

    let (record, out) = consume(
        &mut consumer,
        b"*1\r\n*2\r\n$6\r\nevents\r\n*2\r\n\
        *2\r\n$3\r\n7-1\r\n*2\r\n$1\r\ne\r\n$1\r\na\r\n\
        *2\r\n$3\r\n8-0\r\n*2\r\n$1\r\ne\r\n$1\r\nb\r\n",
    );
    assert_eq!(record.events, [b"a", b"b"]);
    assert_eq!(out, read("8-0"));
}

#[test]
fn a_reader_from_the_oldest_entry_begins_before_it() {
    let mut consumer = StreamConsumer::default();
    consumer.open(Begin::Oldest, &mut Vec::new());
    let (record, out) = consume(&mut consumer, b"*0\r\n");
    assert_eq!(record.starts.len(), 1);
    assert!(out.ends_with(b"$3\r\n0-0\r\n"));
}
