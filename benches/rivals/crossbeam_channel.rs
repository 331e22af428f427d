//! `crossbeam-channel`: a bounded channel for each reader, and a publisher that puts
//! a clone of the `Bytes` into each.
//!
//! A channel keeps as many events as the ring, up to a million for all readers
//! together: a million for each of 1,024 readers would be 40 GB of slots.

use std::hint::black_box;

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};

use super::{Frames, frames, number};
use crate::common::EVENTS;
use crate::groups::{Channel, Publish, Read, Ring};

pub(crate) enum CrossbeamChannel {}

#[derive(Clone)]
pub(crate) struct FanOut {
    senders: Vec<Sender<Bytes>>,
    frames: &'static Frames,
}

impl Channel for CrossbeamChannel {
    const NAME: &'static str = "crossbeam-channel";
    // An event that finds a channel full is lost to its reader.
    const READERS_MUST_FOLLOW: bool = true;
    type Publisher = FanOut;
    type Reader = Receiver<Bytes>;

    fn open(ring: Ring, readers: usize) -> (FanOut, Vec<Receiver<Bytes>>) {
        let capacity = ring.events().min(Ring::Large.events() / readers);
        let channels = (0..readers).map(|_| bounded(capacity));
        let (senders, receivers): (Vec<_>, Vec<_>) = channels.unzip();
        let mut publisher = FanOut {
            senders,
            frames: frames(),
        };
        for number in 0..capacity {
            publisher.publish(number);
        }
        for receiver in &receivers {
            while receiver.try_recv().is_ok() {}
        }
        (publisher, receivers)
    }
}

impl Publish for FanOut {
    fn publish(&mut self, number: usize) {
        let frame = Bytes::copy_from_slice(&self.frames[number % EVENTS]);
        if let Some((last, others)) = self.senders.split_last() {
            for sender in others {
                sender.try_send(frame.clone()).expect("there is room");
            }
            last.try_send(frame).expect("there is room");
        }
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
