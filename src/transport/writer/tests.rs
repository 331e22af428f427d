use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;

use super::*;
use crate::http2::frame::{self, PREFACE, Reason, flag, kind, setting};
use crate::service::Stall;
use crate::transport::test_support::{Feed, pair};

/// More than a socket takes at once.
const DATA_BYTES: usize = 240_000;

/// A connection with one stream, whose data goes into one frame.
struct Harness {
    socket: Socket,
    peer: UnixStream,
    http: Connection<Option<Served<Feed>>>,
    writer: Writer<Arc<[u8]>>,
    data: Arc<[u8]>,
    tracked: Arc<Tracked>,
}

impl Harness {
    /// The stream is watched, as one is whose task has gone to sleep.
    fn new() -> Self {
        let mut harness = Harness::untracked();
        let tracked = Arc::clone(&harness.tracked);
        let served = harness.http.stream_mut(0).unwrap().state.as_mut().unwrap();
        served.outgoing.in_flight.blocked(|| tracked);
        harness
    }

    fn untracked() -> Self {
        let (socket, peer) = pair();
        let mut opening = PREFACE.to_vec();
        let large = [
            (setting::INITIAL_WINDOW_SIZE, 1 << 30),
            (setting::MAX_FRAME_SIZE, 1 << 20),
        ];
        frame::write_settings(&mut opening, &large);
        frame::write_window_update(&mut opening, 0, 1 << 30);
        let both = flag::END_HEADERS | flag::END_STREAM;
        frame::write(&mut opening, kind::HEADERS, both, 1, b"\x83\x86\x84");
        let mut http = Connection::new(Feed::LIMITS);
        let mut input = &opening[..];
        while http.receive(&mut input, Instant::now()).unwrap().is_some() {}
        http.output().clear();

        let data: Arc<[u8]> = (0..DATA_BYTES).map(|n| n as u8).collect();
        let tracked = Arc::new(Tracked::new(Arc::clone(socket.handle())));
        let mut served = Served::new(());
        served.outgoing.set(Arc::clone(&data));
        *http.parts(0).unwrap().state = Some(served);
        Harness {
            socket,
            peer,
            http,
            writer: Writer::default(),
            data,
            tracked,
        }
    }

    /// Writes what the socket takes; returns how much that was.
    fn write(&mut self) -> usize {
        let mut bytes = 0;
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let written = self
                .writer
                .poll_write(&mut self.socket, &mut self.http, true, &mut cx);
            match written.unwrap() {
                Written::Blocked | Written::All { bytes: 0 } => return bytes,
                Written::Some { bytes: n } | Written::All { bytes: n } => bytes += n,
            }
        }
    }

    /// The peer resets the stream. What is left of it is watched from here on, if it was not.
    fn end_stream(&mut self, mut track: impl FnMut() -> Arc<Tracked>) {
        self.http.reset(1, Reason::Cancel);
        for ended in self.http.take_ended() {
            let served = ended.state.unwrap();
            self.writer.stream_ended(ended.id, served, &mut track);
        }
    }

    /// Writes and reads to the end.
    async fn write_all(&mut self, received: &mut Vec<u8>, all: usize) {
        while received.len() < all {
            self.write();
            // Either socket may have nothing yet, and says so when the runtime has looked.
            let _ = self.peer.try_read_buf(received);
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_half_written_frame_counts_as_far_as_it_is_written() {
    let mut harness = Harness::new();
    let written = harness.write();
    assert!(written > HEADER_BYTES && written < DATA_BYTES, "{written}");
    let payload = (written - HEADER_BYTES) as u64;
    assert_eq!(harness.tracked.progress(), Some(payload));
    let mut received = Vec::new();
    let all = HEADER_BYTES + DATA_BYTES;
    harness.write_all(&mut received, all).await;
    assert_eq!(received[HEADER_BYTES..], *harness.data);
    assert_eq!(harness.tracked.progress(), None);
    let served = harness.http.stream(0).unwrap().state.as_ref().unwrap();
    assert!(served.outgoing.is_empty());
    assert_eq!(Arc::strong_count(&harness.data), 1, "it is let go of");
}

#[tokio::test]
async fn a_stream_that_ends_in_the_middle_of_a_frame_is_watched_until_that_is_written() {
    let mut harness = Harness::new();
    harness.write();
    harness.end_stream(|| panic!("it is tracked"));
    assert!(harness.tracked.progress().is_some() && !harness.tracked.has_ended());

    let mut received = Vec::new();
    let all = HEADER_BYTES + DATA_BYTES;
    harness
        .write_all(&mut received, all + HEADER_BYTES + 4)
        .await;
    assert_eq!(received[HEADER_BYTES..all], *harness.data);
    let reset = FrameHeader::read(&received[all..]).unwrap();
    assert_eq!((reset.kind, reset.stream), (kind::RST_STREAM, 1));
    assert!(harness.tracked.has_ended());
    assert_eq!(Arc::strong_count(&harness.data), 1, "it is let go of");
}

#[tokio::test]
async fn a_frame_is_watched_whose_stream_ends_before_its_task_sleeps() {
    let mut harness = Harness::untracked();
    let written = harness.write();
    assert!(written > HEADER_BYTES && written < DATA_BYTES, "{written}");
    let tracked = Arc::clone(&harness.tracked);
    harness.end_stream(|| Arc::clone(&tracked));
    assert_eq!(tracked.progress(), Some(0), "from here on");
    let stall = Stall {
        lasted: Duration::from_secs(30),
        pinned_bytes: None,
    };
    tracked.report(stall);
    harness.writer.ignore_stall();
    assert!(!tracked.is_reported(), "its socket is full, and no stream");

    let mut received = Vec::new();
    harness
        .write_all(&mut received, HEADER_BYTES + DATA_BYTES)
        .await;
    assert!(tracked.progress().is_none() && tracked.has_ended());
}
