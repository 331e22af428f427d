//! The engine.

use std::hint::black_box;

use galaxy_push::engine::{Engine, Publisher, Subscriber, TryRecvError};
use galaxy_push::event::Event;
use tokio::runtime::Handle;

use super::{Channel, Publish, Read, Recv, Ring};
use crate::common::{EVENTS, NUMBER_AT, events};

pub(crate) enum GalaxyPush {}

#[derive(Clone)]
pub(crate) struct EnginePublisher {
    engine: Engine,
    publisher: Publisher,
    events: &'static [Event<'static>; EVENTS],
}

impl Channel for GalaxyPush {
    const NAME: &'static str = "galaxy-push";
    const READERS_MUST_FOLLOW: bool = false;
    type Publisher = EnginePublisher;
    type Reader = Subscriber;

    fn open(ring: Ring, readers: usize) -> (EnginePublisher, Vec<Subscriber>) {
        let builder = match ring {
            Ring::Large => Engine::builder(),
            Ring::Cached => Engine::builder()
                .max_events(ring.events() as u64)
                .max_event_bytes(1024)
                .max_bytes(3 << 19),
        };
        let engine = builder.build().expect("these settings are valid");
        let mut publisher = EnginePublisher {
            publisher: engine.publisher(),
            engine,
            events: events(),
        };
        for number in 0..2 * ring.events() {
            publisher.publish(number);
        }
        let subscribe = |n: usize| {
            let subscribed = publisher.engine.subscribe(&format!("gateway-{n}"), "");
            subscribed.expect("there is room")
        };
        let readers = (0..readers).map(subscribe).collect();
        (publisher, readers)
    }
}

impl Publish for EnginePublisher {
    fn publish(&mut self, number: usize) {
        let event = self.events[number % EVENTS];
        self.publisher.publish(event).expect("it is open");
    }
}

impl Read for Subscriber {
    fn receive(&mut self) -> usize {
        match self.try_recv() {
            Ok(batch) => black_box(batch).len(),
            Err(TryRecvError::Empty) => 0,
            Err(other) => panic!("{other}"),
        }
    }

    fn visit(&mut self, mut see: impl FnMut(u64)) {
        match self.try_recv() {
            Ok(batch) => {
                for event in batch.events() {
                    let number = event[NUMBER_AT..].first_chunk();
                    see(u64::from_le_bytes(*number.expect("it has a payload")));
                }
            }
            Err(TryRecvError::Empty) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

impl Recv for GalaxyPush {
    fn attach(publisher: &EnginePublisher, runtime: &Handle) {
        runtime.spawn(publisher.engine.notifier());
    }

    async fn recv(reader: &mut Subscriber) -> bool {
        Subscriber::recv(reader).await.is_ok()
    }
}
