//! Whatever a gateway's peer may send, in whatever pieces, to the server's end of an
//! HTTP/2 connection that answers what it can: it never panics, says whole frames only,
//! never sends more data than it was allowed to, and does the same however its input
//! was cut.

#![no_main]

use std::time::Instant;

use galaxy_push::http2::connection::{Connection, Limits};
use galaxy_push::http2::frame::{self, Head, INITIAL_WINDOW, PREFACE, Reason};
use galaxy_push::http2::request::Request;
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    max_streams: 4,
    max_field_bytes: 1 << 10,
    stream_window: INITIAL_WINDOW,
    connection_window: 2 * INITIAL_WINDOW,
};

/// A request that is longer is not answered.
const MAX_BODY_BYTES: usize = 256;

/// What a data frame may bring a peer's window to, if it never says otherwise.
const DATA_BYTES: usize = 1000;

fuzz_target!(|input: &[u8]| {
    let Some((&cut, words)) = input.split_first() else {
        return;
    };
    let now = Instant::now();
    let whole = talk(&[words], now);
    let pieces: Vec<&[u8]> = words.chunks(usize::from(cut).max(1)).collect();
    let cut = talk(&pieces, now);
    assert_eq!(whole.heads(), cut.heads());
    assert_eq!(whole.failed, cut.failed);
});

/// What came of a conversation.
struct Talk {
    said: Vec<u8>,
    failed: bool,
}

impl Talk {
    /// The streams whose requests were answered or refused, and the end.
    fn heads(&self) -> Vec<(u8, u32)> {
        let mut heads = Vec::new();
        let mut rest = &self.said[..];
        while !rest.is_empty() {
            let head = Head::read(rest).expect("whole frames are said");
            let end = frame::HEAD_BYTES + head.payload_bytes as usize;
            assert!(head.payload_bytes <= frame::MIN_MAX_PAYLOAD);
            rest = rest.get(end..).expect("whole frames are said");
            let kind = head.kind;
            if kind != frame::kind::WINDOW_UPDATE && kind != frame::kind::DATA {
                heads.push((kind, head.stream));
            }
        }
        heads.sort_unstable();
        heads
    }
}

fn talk(pieces: &[&[u8]], now: Instant) -> Talk {
    let mut connection = Connection::<Option<usize>>::new(LIMITS);
    let mut said = Vec::new();
    let opening = [&PREFACE[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    connection.receive(&opening, now).expect("a good opening");
    let mut failed = false;
    for piece in pieces {
        failed = connection.receive(piece, now).is_err();
        said.append(connection.output());
        if failed {
            assert!(connection.streams().is_empty());
            assert_eq!(connection.next_request(), None);
            break;
        }
    }
    // Only afterwards, so that it is the same however the input was cut.
    while let Some((stream, request)) = connection.next_request() {
        open(&mut connection, stream, &request);
        said.append(connection.output());
    }
    for at in (0..connection.streams().len()).rev() {
        answer(&mut connection, at);
        said.append(connection.output());
    }
    send(&mut connection, &mut said);
    connection.leave();
    said.append(connection.output());
    let kept = connection.take_ended().count();
    assert!(kept <= 3 * pieces.iter().map(|piece| piece.len()).sum::<usize>());
    Talk { said, failed }
}

fn open(connection: &mut Connection<Option<usize>>, stream: u32, request: &Request) {
    if request.method != "POST" {
        connection.respond(stream, 405, &HeaderMap::new(), true);
    }
}

/// Takes a body, half by half, and answers it, if it has arrived in full and is short.
fn answer(connection: &mut Connection<Option<usize>>, at: usize) {
    let stream = &mut connection.streams()[at];
    let (id, bytes) = (stream.id(), stream.body().len());
    assert!(bytes <= LIMITS.stream_window as usize);
    if bytes > MAX_BODY_BYTES {
        connection.release_body(at);
        connection.reset(id, Reason::Cancel);
    } else if stream.is_received() {
        stream.state = Some(DATA_BYTES);
        connection.take_body(at, bytes / 2);
        assert_eq!(connection.streams()[at].body().len(), bytes - bytes / 2);
        connection.take_body(at, usize::MAX);
        connection.answered(1);
        connection.respond(id, 200, &HeaderMap::new(), false);
    }
}

/// Sends each stream's data as far as it may, and ends the streams.
fn send(connection: &mut Connection<Option<usize>>, said: &mut Vec<u8>) {
    for at in 0..connection.streams().len() {
        let Some(mut left) = connection.streams()[at].state else {
            continue;
        };
        loop {
            let mut sendable = connection.sendable();
            let stream = &connection.streams()[at];
            let bytes = sendable.plan(stream, 0, left);
            if bytes == 0 {
                break;
            }
            said.extend(Head::data(stream.id(), bytes).to_bytes());
            said.extend(std::iter::repeat_n(b'x', bytes as usize));
            connection.sent(at, bytes);
            left -= bytes as usize;
        }
    }
    let served: Vec<u32> = connection
        .streams()
        .iter()
        .filter(|stream| stream.state.is_some())
        .map(|stream| stream.id())
        .collect();
    for stream in served {
        connection.finish(stream, &HeaderMap::new());
        said.append(connection.output());
    }
}
