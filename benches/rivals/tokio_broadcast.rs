//! `tokio::sync::broadcast`: a slot with a lock for each event, and a list of those
//! that wait. A reader that is a ring behind is told how many events it has lost.

use std::hint::black_box;

use bytes::Bytes;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::broadcast::{Receiver, Sender, channel};

use super::{Frames, frames, number};
use crate::common::EVENTS;
use crate::groups::{Channel, Publish, Read, Recv, Ring};

pub(crate) enum TokioBroadcast {}

#[derive(Clone)]
pub(crate) struct Broadcaster {
    sender: Sender<Bytes>,
    frames: &'static Frames,
}

impl Channel for TokioBroadcast {
    const NAME: &'static str = "tokio-broadcast";
    const READERS_MUST_FOLLOW: bool = false;
    type Publisher = Broadcaster;
    type Reader = Receiver<Bytes>;

    fn open(ring: Ring, readers: usize) -> (Broadcaster, Vec<Receiver<Bytes>>) {
        // Nothing is stored when nobody is subscribed.
        let (sender, subscribed) = channel(ring.events());
        let mut publisher = Broadcaster {
            sender,
            frames: frames(),
        };
        for number in 0..2 * ring.events() {
            publisher.publish(number);
        }
        let readers = (0..readers).map(|_| publisher.sender.subscribe());
        let readers = readers.collect();
        drop(subscribed);
        (publisher, readers)
    }
}

impl Publish for Broadcaster {
    fn publish(&mut self, number: usize) {
        let frame = Bytes::copy_from_slice(&self.frames[number % EVENTS]);
        self.sender.send(frame).expect("somebody is subscribed");
    }
}

impl Read for Receiver<Bytes> {
    fn receive(&mut self) -> usize {
        match self.try_recv() {
            Ok(frame) => {
                black_box(frame);
                1
            }
            Err(TryRecvError::Empty) => 0,
            Err(other) => panic!("{other}"),
        }
    }

    fn visit(&mut self, mut see: impl FnMut(u64)) {
        match self.try_recv() {
            Ok(frame) => see(number(&frame)),
            Err(TryRecvError::Empty) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

impl Recv for TokioBroadcast {
    async fn recv(reader: &mut Receiver<Bytes>) -> bool {
        Receiver::recv(reader).await.is_ok()
    }
}
