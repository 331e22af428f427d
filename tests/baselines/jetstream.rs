//! JetStream's requests and responses.

use galaxy_push::lab::load::{Begin, Consumer, Publisher};

use crate::clients::jetstream::{JetStreamConsumer, JetStreamPublisher};
use crate::record::{batch, consume, respond};
use crate::wire::jetstream::{OrderedConsumer, StreamConfig, granted, is_flow_control};
use serde_json::{Value, json};

#[test]
fn stream_and_consumer_requests_are_what_jetstream_takes() {
    let (subject, request) = StreamConfig::in_memory("EVENTS", "events", 9)
        .request()
        .unwrap();
    assert_eq!(subject, "$JS.API.STREAM.CREATE.EVENTS");
    assert_eq!(
        serde_json::from_slice::<Value>(&request).unwrap(),
        json!({
            "name": "EVENTS", "subjects": ["events"], "storage": "memory",
            "retention": "limits", "discard": "old", "max_msgs": 9, "num_replicas": 1,
        })
    );
    let (subject, request) = OrderedConsumer::new("d", true).request("EVENTS").unwrap();
    assert_eq!(subject, "$JS.API.CONSUMER.CREATE.EVENTS");
    let request: Value = serde_json::from_slice(&request).unwrap();
    assert_eq!(request["stream_name"], "EVENTS");
    assert_eq!(request["config"]["deliver_policy"], "all");
}

#[test]
fn a_refused_request_is_told_from_a_granted_one() {
    assert_eq!(granted(br#"{"stream":"EVENTS","seq":1}"#), Ok(()));
    let refused = br#"{"type":"x","error":{"code":400,"description":"no"}}"#;
    assert_eq!(granted(refused), Err("no".to_owned()));
    assert!(granted(b"").is_err());
}

#[test]
fn a_flow_control_request_is_told_from_a_heartbeat() {
    assert!(is_flow_control(b"NATS/1.0 100 FlowControl Request\r\n\r\n"));
    assert!(!is_flow_control(b"NATS/1.0 100 Idle Heartbeat\r\n\r\n"));
}

#[test]
fn a_consumer_responds_to_the_server_that_asks_how_far_it_is() {
    let mut consumer = JetStreamConsumer;
    consumer.open(Begin::Oldest, &mut Vec::new());
    let (record, out) = consume(
        &mut consumer,
        b"INFO {}\r\n\
        MSG i 2 8\r\n{\"a\": 1}\r\n\
        MSG events 1 $JS.ACK.1 1\r\na\r\n\
        HMSG d 1 31 31\r\nNATS/1.0 100 Idle Heartbeat\r\n\r\n\r\n\
        HMSG d 1 f.c 36 36\r\nNATS/1.0 100 FlowControl Request\r\n\r\n\r\n\
        MSG events 1 $JS.ACK.2 1\r\nb\r\n",
    );
    assert_eq!(record.starts.len(), 1);
    assert_eq!(record.events, [b"a", b"b"]);
    assert_eq!(out, b"PUB f.c 0\r\n\r\n");
}

#[test]
fn a_consumer_that_is_refused_ends() {
    let refused = b"MSG i 2 32\r\n{\"error\":{\"description\":\"none\"}}\r\n";
    let (record, _) = consume(&mut JetStreamConsumer, refused);
    assert_eq!(record.starts.len(), 0);
    assert_eq!(record.ends[0].message, "none");
}

#[test]
fn a_batch_is_accepted_with_its_last_acknowledgement() {
    let mut publisher = JetStreamPublisher::default();
    publisher.open(&mut Vec::new());
    publisher.publish(&batch(0, 2), &mut Vec::new());
    let acknowledged = b"MSG i 2 9\r\n{\"seq\":1}\r\n";
    assert_eq!(respond(&mut publisher, acknowledged).accepted, 0);
    assert_eq!(respond(&mut publisher, acknowledged).accepted, 1);
}
