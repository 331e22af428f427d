//! JetStream: requests in JSON over NATS, and their responses.

use serde::{Deserialize, Serialize};

/// One stream, which keeps its messages in memory.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct StreamConfig<'a> {
    name: &'a str,
    subjects: [&'a str; 1],
    storage: &'a str,
    retention: &'a str,
    discard: &'a str,
    max_msgs: usize,
    num_replicas: u8,
}

impl<'a> StreamConfig<'a> {
    /// Keeps the newest `max_msgs` messages to `subject`.
    pub(crate) fn in_memory(name: &'a str, subject: &'a str, max_msgs: usize) -> Self {
        StreamConfig {
            name,
            subjects: [subject],
            storage: "memory",
            retention: "limits",
            discard: "old",
            max_msgs,
            num_replicas: 1,
        }
    }

    /// The subject to ask for it, and the request.
    pub(crate) fn request(&self) -> serde_json::Result<(String, Vec<u8>)> {
        let subject = format!("$JS.API.STREAM.CREATE.{}", self.name);
        Ok((subject, serde_json::to_vec(self)?))
    }
}

/// What NATS' client libraries call an ordered consumer: messages are pushed, none is
/// acknowledged, and the server asks now and then how far its reader has come.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct OrderedConsumer<'a> {
    deliver_subject: &'a str,
    deliver_policy: &'a str,
    ack_policy: &'a str,
    replay_policy: &'a str,
    max_deliver: i64,
    flow_control: bool,
    /// Nanoseconds.
    idle_heartbeat: u64,
    mem_storage: bool,
    num_replicas: u8,
}

impl<'a> OrderedConsumer<'a> {
    /// Pushes to `deliver_subject`: all messages, or what is published from now on.
    pub(crate) fn new(deliver_subject: &'a str, from_start: bool) -> Self {
        OrderedConsumer {
            deliver_subject,
            deliver_policy: if from_start { "all" } else { "new" },
            ack_policy: "none",
            replay_policy: "instant",
            max_deliver: 1,
            flow_control: true,
            idle_heartbeat: 5_000_000_000,
            mem_storage: true,
            num_replicas: 1,
        }
    }

    /// The subject to ask for it, and the request.
    pub(crate) fn request(&self, stream: &str) -> serde_json::Result<(String, Vec<u8>)> {
        #[derive(Serialize)]
        struct Create<'a> {
            stream_name: &'a str,
            config: &'a OrderedConsumer<'a>,
        }
        let subject = format!("$JS.API.CONSUMER.CREATE.{stream}");
        let request = Create {
            stream_name: stream,
            config: self,
        };
        Ok((subject, serde_json::to_vec(&request)?))
    }
}

/// The response to any request, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Response {
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    #[serde(default)]
    description: String,
}

/// Whether a request was granted, or a message kept; if not, the server's reason.
pub(crate) fn granted(response: &[u8]) -> Result<(), String> {
    match serde_json::from_slice(response) {
        Ok(Response { error: None }) => Ok(()),
        Ok(Response {
            error: Some(refusal),
        }) => Err(refusal.description),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether a message's headers ask for a response, so that the server goes on.
pub(crate) fn is_flow_control(headers: &[u8]) -> bool {
    headers.starts_with(b"NATS/1.0 100 FlowControl")
}
