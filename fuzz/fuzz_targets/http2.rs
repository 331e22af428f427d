//! Whatever a gateway's peer may send, in whatever pieces, to the server's end of an
//! HTTP/2 connection that answers what it can: it never panics, says whole frames only,
//! never sends more data than it was allowed to, and does the same however its input
//! was cut.

#![no_main]

use std::time::Instant;

use galaxy_push::http2::Error;
use galaxy_push::http2::frame::{
    self, DEFAULT_FRAME_BYTES, FrameHeader, INITIAL_WINDOW, PREFACE, Reason,
};
use galaxy_push::http2::request::RequestHead;
use galaxy_push::http2::server::{Connection, Event, Limits};
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    max_streams: 4,
    max_field_bytes: 1 << 10,
    stream_window: INITIAL_WINDOW,
    connection_window: 2 * INITIAL_WINDOW,
    max_frame_bytes: DEFAULT_FRAME_BYTES,
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
    assert_eq!(whole.headers(), cut.headers());
    assert_eq!(whole.failed, cut.failed);
});

/// What came of a conversation.
struct Talk {
    said: Vec<u8>,
    failed: bool,
}

impl Talk {
    /// The streams whose requests were answered or refused, and the end.
    fn headers(&self) -> Vec<(u8, u32)> {
        let mut headers = Vec::new();
        let mut rest = &self.said[..];
        while !rest.is_empty() {
            let header = FrameHeader::read(rest).expect("whole frames are said");
            let end = frame::HEADER_BYTES + header.payload_bytes as usize;
            assert!(header.payload_bytes <= DEFAULT_FRAME_BYTES);
            rest = rest.get(end..).expect("whole frames are said");
            let kind = header.kind;
            if kind != frame::kind::WINDOW_UPDATE && kind != frame::kind::DATA {
                headers.push((kind, header.stream));
            }
        }
        headers.sort_unstable();
        headers
    }
}

type Requests = Vec<(u32, Box<RequestHead>)>;

/// Receives a piece, and keeps all bodies.
fn receive(
    connection: &mut Connection<Option<usize>>,
    mut piece: &[u8],
    now: Instant,
    requests: &mut Requests,
) -> Result<(), Error> {
    while let Some(event) = connection.receive(&mut piece, now)? {
        match event {
            Event::Request { stream, head, .. } => requests.push((stream, head)),
            Event::Data { at, data, ends } => {
                assert!(ends || !data.is_empty());
                connection.buffer(at, data);
            }
        }
    }
    assert!(piece.is_empty());
    Ok(())
}

fn talk(pieces: &[&[u8]], now: Instant) -> Talk {
    let mut connection = Connection::<Option<usize>>::new(LIMITS);
    let (mut said, mut requests) = (Vec::new(), Vec::new());
    let opening = [&PREFACE[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    receive(&mut connection, &opening, now, &mut requests).expect("a good opening");
    let mut failed = false;
    for piece in pieces {
        failed = receive(&mut connection, piece, now, &mut requests).is_err();
        said.append(connection.output());
        if failed {
            assert_eq!(connection.streams().count(), 0);
            break;
        }
    }
    let mut kept = connection.take_ended().count();
    // Only afterwards, so that it is the same however the input was cut.
    for (stream, head) in requests {
        open(&mut connection, stream, &head);
        said.append(connection.output());
    }
    let indices: Vec<usize> = connection.streams().map(|(at, _)| at).collect();
    for at in indices {
        answer(&mut connection, at);
        said.append(connection.output());
    }
    send(&mut connection, &mut said);
    connection.shut_down();
    said.append(connection.output());
    kept += connection.take_ended().count();
    assert!(kept <= 3 * pieces.iter().map(|piece| piece.len()).sum::<usize>());
    Talk { said, failed }
}

fn open(connection: &mut Connection<Option<usize>>, stream: u32, head: &RequestHead) {
    if head.method != "POST"
        && let Some(at) = connection.index(stream)
    {
        let mut parts = connection.parts(at).expect("it is open");
        parts.response.whole(405, &HeaderMap::new());
    }
}

/// Takes a body, half by half, and answers it, if it has arrived in full and is short.
fn answer(connection: &mut Connection<Option<usize>>, at: usize) {
    let stream = connection.stream_mut(at).expect("it is open");
    let (id, bytes) = (stream.id(), stream.body().len());
    assert!(bytes <= LIMITS.stream_window as usize);
    if bytes > MAX_BODY_BYTES {
        connection.release_body(at);
        connection.reset(id, Reason::Cancel);
    } else if stream.is_complete() {
        stream.state = Some(DATA_BYTES);
        connection.take_body(at, bytes / 2);
        let left = connection.stream(at).expect("it is open").body().len();
        assert_eq!(left, bytes - bytes / 2);
        connection.take_body(at, usize::MAX);
        connection.answered(1);
        let mut parts = connection.parts(at).expect("it is open");
        parts.response.head(200, &HeaderMap::new());
    }
}

/// Sends each stream's data as far as it may, and ends the streams.
fn send(connection: &mut Connection<Option<usize>>, said: &mut Vec<u8>) {
    let indices: Vec<usize> = connection.streams().map(|(at, _)| at).collect();
    for at in indices {
        let Some(mut left) = connection.stream(at).and_then(|stream| stream.state) else {
            continue;
        };
        loop {
            let mut sendable = connection.sendable();
            let stream = connection.stream(at).expect("it is open");
            let bytes = sendable.plan(stream, 0, left);
            if bytes == 0 {
                break;
            }
            said.extend(FrameHeader::data(stream.id(), bytes).to_bytes());
            said.extend(std::iter::repeat_n(b'x', bytes as usize));
            connection.sent(at, bytes);
            left -= bytes as usize;
        }
        let mut parts = connection.parts(at).expect("it is open");
        parts.response.trailers(&HeaderMap::new());
        assert!(connection.parts(at).is_none());
        said.append(connection.output());
    }
}
