//! `async-broadcast`: a queue behind one lock. It overflows, as a ring does: a reader
//! that is a queue behind is told how many events it has lost.

use std::hint::black_box;

use async_broadcast::{Receiver, Sender, TryRecvError, broadcast};
use bytes::Bytes;

use super::{Frames, frames, number};
use crate::common::EVENTS;
use crate::groups::{Channel, Publish, Read, Recv, Ring};

pub(crate) enum AsyncBroadcast {}

#[derive(Clone)]
pub(crate) struct Broadcaster {
    sender: Sender<Bytes>,
    frames: &'static Frames,
}

impl Channel for AsyncBroadcast {
    const NAME: &'static str = "async-broadcast";
    const READERS_MUST_FOLLOW: bool = false;
    type Publisher = Broadcaster;
    type Reader = Receiver<Bytes>;

    fn open(ring: Ring, readers: usize) -> (Broadcaster, Vec<Receiver<Bytes>>) {
        let (mut sender, subscribed) = broadcast(ring.events());
        sender.set_overflow(true);
        let mut publisher = Broadcaster {
            sender,
            frames: frames(),
        };
        for number in 0..2 * ring.events() {
            publisher.publish(number);
        }
        let readers = (0..readers).map(|_| publisher.sender.new_receiver());
        let readers = readers.collect();
        drop(subscribed);
        (publisher, readers)
    }
}

impl Publish for Broadcaster {
    fn publish(&mut self, number: usize) {
        let frame = Bytes::copy_from_slice(&self.frames[number % EVENTS]);
        let sent = self.sender.try_broadcast(frame);
        sent.expect("somebody is subscribed");
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

impl Recv for AsyncBroadcast {
    async fn recv(reader: &mut Receiver<Bytes>) -> bool {
        reader.recv_direct().await.is_ok()
    }
}
