use super::*;
use crate::edge::connection::Connection;
use crate::edge::downlink::LIMITS;
use crate::edge::flow::{Account, Flow};
use crate::edge::rig::pair;
use crate::engine::Engine;
use crate::event::Event;
use crate::http2::frame::{self, PREFACE, Reason, flag, kind, setting};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;
use tokio::net::UnixStream;

/// A connection with one stream, whose batch is more than a socket takes at once, as
/// one frame.
struct Rig {
    engine: Engine,
    socket: Connection,
    peer: UnixStream,
    http: http2::Connection<State>,
    outbox: Outbox,
    flow: Arc<Flow>,
    batch_bytes: usize,
}

impl Rig {
    fn new() -> Self {
        let (socket, peer) = pair();
        let engine = Engine::builder().max_bytes(64 << 20).build().unwrap();
        let mut subscriber = engine.subscribe("gateway", "").unwrap();
        // A client event with a payload of zeros, which end in 2.
        let fields = [&b"\x0a\x01u\x1a\x01k\x22\xb0\xea\x01"[..], &[2; 30_000]].concat();
        let event = [&b"\x0a\xba\xea\x01"[..], &fields].concat();
        let events = [Event::parse(&event).unwrap(); 8];
        engine.publisher().publish_batch(&events).unwrap();
        let batch = subscriber.try_recv().unwrap();
        let batch_bytes = batch.as_bytes().len();
        assert!(
            batch_bytes > 230_000,
            "more than a socket takes: {batch_bytes}"
        );

        let mut words = PREFACE.to_vec();
        let large = [
            (setting::INITIAL_WINDOW_SIZE, 1 << 30),
            (setting::MAX_FRAME_SIZE, 1 << 20),
        ];
        frame::write_settings(&mut words, &large);
        frame::write(
            &mut words,
            kind::WINDOW_UPDATE,
            0,
            0,
            &(1_u32 << 30).to_be_bytes(),
        );
        let both = flag::END_HEADERS | flag::END_STREAM;
        frame::write(&mut words, kind::HEADERS, both, 1, b"\x83\x86\x84");
        let mut http = http2::Connection::<State>::new(LIMITS);
        let mut input = &words[..];
        while let Some(event) = http.receive(&mut input, Instant::now()).unwrap() {
            assert!(matches!(event, http2::Event::Request { at: 0, .. }));
        }
        http.output().clear();

        let (flow, source) = Flow::new("flow".into(), socket.link().begin_call());
        let mut load = Load::new(Account::Own(source));
        load.give(batch_bytes as u64);
        load.wait();
        http.stream_mut(0).unwrap().state = Some(Serving {
            subscriber,
            batch: Some(batch),
            framed: 0,
            load,
        });
        Rig {
            engine,
            socket,
            peer,
            http,
            outbox: Outbox::default(),
            flow,
            batch_bytes,
        }
    }

    /// Writes what the socket takes; says how much that was.
    fn write(&mut self) -> usize {
        let mut bytes = 0;
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let written = self
                .outbox
                .poll_write(&mut self.socket, &mut self.http, &mut cx);
            match written.unwrap() {
                Written::Blocked | Written::All { bytes: 0 } => return bytes,
                Written::Some { bytes: n } | Written::All { bytes: n } => bytes += n,
            }
        }
    }

    /// Writes and reads to the end.
    async fn write_all(&mut self, said: &mut Vec<u8>, all: usize) {
        while said.len() < all {
            self.write();
            // Either socket may have nothing yet, and says so when the runtime has looked.
            let _ = self.peer.try_read_buf(said);
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn what_is_written_of_a_frame_has_gone() {
    let mut rig = Rig::new();
    let written = rig.write();
    assert!(written > HEADER_BYTES && written < rig.batch_bytes);
    let gone = (written - HEADER_BYTES) as u64;
    assert_eq!(rig.flow.meter().under_way(), Some(gone));
    let mut said = Vec::new();
    let all = HEADER_BYTES + rig.batch_bytes;
    rig.write_all(&mut said, all).await;
    assert_eq!(said.len(), all);
    assert_eq!(rig.flow.meter().under_way(), None);
    let serving = rig.http.stream_mut(0).unwrap().state.as_ref().unwrap();
    assert!(serving.batch.is_none());
}

#[tokio::test]
async fn a_stream_that_ends_in_the_middle_of_a_frame_is_watched_until_that_is_written() {
    let mut rig = Rig::new();
    rig.write();
    rig.http.reset(1, Reason::Cancel);
    for ended in rig.http.take_ended() {
        rig.outbox.stream_ended(ended.id, ended.state.unwrap());
    }
    assert_eq!(rig.engine.stats().subscribers, 0);
    assert!(rig.flow.meter().under_way().is_some() && !rig.flow.is_finished());

    let mut said = Vec::new();
    let all = HEADER_BYTES + rig.batch_bytes;
    rig.write_all(&mut said, all + HEADER_BYTES + 4).await;
    let reset = FrameHeader::read(&said[all..]).unwrap();
    assert_eq!((reset.kind, reset.stream), (kind::RST_STREAM, 1));
    assert!(rig.flow.is_finished());
}

#[tokio::test]
async fn a_flow_knows_of_what_waits_and_of_nothing_that_goes_at_once() {
    let rig = Rig::new();
    let (flow, source) = Flow::new("flow".into(), rig.socket.link().begin_call());
    let under_way = || flow.meter().under_way();
    let mut load = Load::new(Account::Own(source));
    load.give(5);
    load.go(5);
    load.wait();
    assert_eq!(under_way(), None);
    load.give(5);
    load.go(2);
    load.wait();
    assert_eq!(under_way(), Some(0));
    load.go(1);
    load.wait();
    assert_eq!(under_way(), Some(1));
    load.go(2);
    assert_eq!(under_way(), None);
    load.give(3);
    load.wait();
    assert!(under_way().is_some() && !flow.is_finished());
    drop(load);
    assert!(under_way().is_none() && flow.is_finished());
}
