//! NATS' protocol.

use galaxy_push::lab::load::{Begin, Consumer};

use crate::clients::nats::NatsConsumer;
use crate::record::consume;
use crate::wire::Malformed;
use crate::wire::nats::{Message, Said, ping, pong, publish, said, subscribe};

fn one(bytes: &[u8]) -> Said<'_> {
    let (found, read) = said(bytes).unwrap().unwrap();
    assert_eq!(read, bytes.len());
    for end in 0..read {
        assert_eq!(said(&bytes[..end]), Ok(None));
    }
    found
}

#[test]
fn every_line_of_a_nats_server_is_read() {
    assert_eq!(one(b"INFO {\"a\": 1}\r\n"), Said::Info(b"{\"a\": 1}"));
    assert_eq!(one(b"PING\r\n"), Said::Ping);
    assert_eq!(one(b"PONG\r\n"), Said::Pong);
    assert_eq!(one(b"+OK\r\n"), Said::Ok);
    assert_eq!(one(b"-ERR 'no'\r\n"), Said::Error(b"'no'"));
}

#[test]
fn messages_come_with_and_without_reply_and_headers() {
    let message = Message {
        subject: b"a.b",
        subscription: 7,
        payload: b"x\r\ny",
        ..Message::default()
    };
    let headers = b"NATS/1.0\r\n\r\n";
    let reply = Some(&b"r"[..]);
    for (bytes, wanted) in [
        (&b"MSG a.b 7 4\r\nx\r\ny\r\n"[..], message),
        (b"MSG a.b 7 r 4\r\nx\r\ny\r\n", Message { reply, ..message }),
        (
            b"HMSG a.b 7 12 16\r\nNATS/1.0\r\n\r\nx\r\ny\r\n",
            Message { headers, ..message },
        ),
        (
            b"HMSG a.b 7 r 12 16\r\nNATS/1.0\r\n\r\nx\r\ny\r\n",
            Message {
                headers,
                reply,
                ..message
            },
        ),
    ] {
        assert_eq!(one(bytes), Said::Message(wanted));
    }
}

#[test]
fn malformed_nats_lines_are_refused() {
    for wrong in [
        &b"\r\n"[..],
        b"MSG\r\n",
        b"MSG a 1\r\n",
        b"MSG a x 0\r\n\r\n",
        b"MSG a 1 b c 0\r\n\r\n",
        b"MSG a 1 2\r\nxyz\n",
        b"HMSG a 1 5\r\n",
        b"HMSG a 1 5 4\r\nabcd\r\n",
        b"MSG a 1 99999999999999999999\r\n",
        b"MSG a 1 999999999\r\n",
    ] {
        assert_eq!(said(wrong), Err(Malformed), "{wrong:?}");
    }
}

#[test]
fn commands_are_written_as_nats_lines() {
    let mut sent = Vec::new();
    subscribe(&mut sent, "a.>", 1);
    publish(&mut sent, b"a.b", Some("r"), b"hi");
    publish(&mut sent, b"a.b", None, b"");
    ping(&mut sent);
    pong(&mut sent);
    assert_eq!(
        sent,
        b"SUB a.> 1\r\nPUB a.b r 2\r\nhi\r\nPUB a.b 0\r\n\r\nPING\r\nPONG\r\n"
    );
}

#[test]
fn a_subscriber_starts_when_its_ping_has_a_pong() {
    let mut consumer = NatsConsumer;
    let mut out = Vec::new();
    consumer.open(Begin::Head, &mut out);
    assert!(out.ends_with(b"SUB events 1\r\nPING\r\n"));
    let (record, out) = consume(
        &mut consumer,
        b"INFO {}\r\nPONG\r\nMSG events 1 1\r\na\r\nPING\r\nMSG events 1 1\r\nb\r\n",
    );
    assert_eq!(record.starts.len(), 1);
    assert_eq!(record.events, [b"a", b"b"]);
    assert_eq!(out, b"PONG\r\n");
}
