//! JetStream's requests and answers.

use crate::wire::jetstream::{OrderedConsumer, StreamConfig, granted, is_flow_control};
use serde_json::{Value, json};

#[test]
fn requests_are_what_the_server_takes() {
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
fn answers_say_whether_it_was_granted() {
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
