//! The `disruptor` crate: a ring of slots that are written in place and read in
//! place. Its publisher waits for its slowest reader, and its readers are known before
//! the first event.
//!
//! Readers are pollers on the bench's own threads; polled without a pause, they are
//! what the crate's `BusySpin` does. They look at an event where it lies; to keep it
//! longer they would have to clone or copy it, which is not measured.

use std::hint::black_box;
use std::marker::PhantomData;

use bytes::Bytes;
use disruptor::{
    BusySpin, EventPoller, MultiConsumerBarrier, MultiProducer, MultiProducerBarrier, Polling,
    Producer, SingleProducer, SingleProducerBarrier, build_multi_producer, build_single_producer,
};

use super::{FRAME_BYTES, Frames, frames, number};
use crate::common::EVENTS;
use crate::groups::{Channel, Publish, Read, Ring};

/// For one publishing thread.
pub(crate) struct Disruptor<S>(PhantomData<S>);
/// For several publishing threads.
pub(crate) struct DisruptorOfMany<S>(PhantomData<S>);

/// What a slot of the ring holds.
pub(crate) trait Slot: Send + Sync + 'static {
    const NAME: &'static str;
    fn new(frame: &[u8; FRAME_BYTES]) -> Self;
    fn put(&mut self, frame: &[u8; FRAME_BYTES]);
    fn frame(&self) -> &[u8];
}

impl Slot for Bytes {
    const NAME: &'static str = "disruptor";

    fn new(frame: &[u8; FRAME_BYTES]) -> Self {
        Bytes::copy_from_slice(frame)
    }

    fn put(&mut self, frame: &[u8; FRAME_BYTES]) {
        *self = Bytes::copy_from_slice(frame);
    }

    fn frame(&self) -> &[u8] {
        self
    }
}

/// The frame itself: nothing is allocated, but all frames are of one size.
#[derive(Clone)]
pub(crate) struct Inline([u8; FRAME_BYTES]);

impl Slot for Inline {
    const NAME: &'static str = "disruptor-inline";

    fn new(frame: &[u8; FRAME_BYTES]) -> Self {
        Inline(*frame)
    }

    fn put(&mut self, frame: &[u8; FRAME_BYTES]) {
        self.0.copy_from_slice(frame);
    }

    fn frame(&self) -> &[u8] {
        &self.0
    }
}

#[derive(Clone)]
pub(crate) struct RingPublisher<P, S> {
    producer: P,
    frames: &'static Frames,
    slot: PhantomData<fn(S)>,
}

impl<S: Slot, P: Producer<S> + Send + 'static> Publish for RingPublisher<P, S> {
    fn publish(&mut self, number: usize) {
        let frame = &self.frames[number % EVENTS];
        self.producer.publish(|slot| slot.put(frame));
    }
}

/// The crate has one set of types for one publishing thread, and another for several.
macro_rules! channel {
    ($channel:ident, $build:ident, $producer:ident, $barrier:ident) => {
        impl<S: Slot> Channel for $channel<S> {
            const NAME: &'static str = S::NAME;
            const READERS_MUST_FOLLOW: bool = true;
            type Publisher = RingPublisher<$producer<S, MultiConsumerBarrier>, S>;
            type Reader = EventPoller<S, $barrier>;

            fn open(ring: Ring, readers: usize) -> (Self::Publisher, Vec<Self::Reader>) {
                let frames = frames();
                let slot = || S::new(&frames[0]);
                let mut builder = $build(ring.events(), slot, BusySpin).with_multi_consumer();
                let mut pollers = Vec::with_capacity(readers);
                for _ in 0..readers {
                    let (poller, rest) = builder.new_event_poller();
                    pollers.push(poller);
                    builder = rest;
                }
                let publisher = RingPublisher {
                    producer: builder.build(),
                    frames,
                    slot: PhantomData,
                };
                (publisher, pollers)
            }
        }

        impl<S: Slot> Read for EventPoller<S, $barrier> {
            fn receive(&mut self) -> usize {
                match self.poll() {
                    Ok(mut events) => (&mut events).map(black_box).count(),
                    Err(Polling::NoEvents) => 0,
                    Err(Polling::Shutdown) => panic!("it is open"),
                }
            }

            fn visit(&mut self, mut see: impl FnMut(u64)) {
                match self.poll() {
                    Ok(mut events) => (&mut events).for_each(|slot| see(number(slot.frame()))),
                    Err(Polling::NoEvents) => {}
                    Err(Polling::Shutdown) => panic!("it is open"),
                }
            }
        }
    };
}

channel!(
    Disruptor,
    build_single_producer,
    SingleProducer,
    SingleProducerBarrier
);
channel!(
    DisruptorOfMany,
    build_multi_producer,
    MultiProducer,
    MultiProducerBarrier
);
