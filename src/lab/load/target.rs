//! What is measured: where it is, and how it is spoken to.

use super::http2::{Offer, Publish, Subscribe};
use super::protocol::{Consumer, Producer};
use super::socket::Endpoint;
use super::usage::Meter;

/// A system that is measured.
pub trait Target: Sync {
    /// How it is subscribed to.
    type Consumer: Consumer;
    /// How it is published to.
    type Producer: Producer + Send;

    /// Where consumers connect.
    fn consumers_at(&self) -> Endpoint;
    /// Where producers connect.
    fn producers_at(&self) -> Endpoint;
    /// The consumer with this number, from 0 on.
    fn consumer(&self, who: usize) -> Self::Consumer;
    /// The same, for a consumer that will not read: one to which as little as possible
    /// may be under way, where a consumer has a say in that.
    fn stalling_consumer(&self, who: usize) -> Self::Consumer {
        self.consumer(who)
    }
    /// The producer with this number, from 0 on.
    fn producer(&self, who: usize) -> Self::Producer;
    /// Its process, where it is one of this machine.
    fn meter(&self) -> Option<Meter>;
}

/// A galaxy-push server, or any other of its contract.
#[derive(Clone, Debug)]
pub struct GalaxyPush {
    /// Where gateways subscribe.
    pub gateways: Endpoint,
    /// Where producers publish.
    pub producers: Endpoint,
    /// What gateways offer.
    pub offer: Offer,
    /// The server's process.
    pub pid: Option<u32>,
}

impl Target for GalaxyPush {
    type Consumer = Subscribe;
    type Producer = Publish;

    fn consumers_at(&self) -> Endpoint {
        self.gateways.clone()
    }

    fn producers_at(&self) -> Endpoint {
        self.producers.clone()
    }

    fn consumer(&self, who: usize) -> Subscribe {
        let id = format!("bench-{}-{who}", std::process::id());
        Subscribe::new(id, self.gateways.authority(), self.offer)
    }

    fn stalling_consumer(&self, who: usize) -> Subscribe {
        let offer = Offer {
            window_bytes: Offer::WINDOW_BYTES.0,
            ..self.offer
        };
        GalaxyPush {
            offer,
            ..self.clone()
        }
        .consumer(who)
    }

    fn producer(&self, _who: usize) -> Publish {
        Publish::new(self.producers.authority(), Offer::default())
    }

    fn meter(&self) -> Option<Meter> {
        self.pid.map(Meter::of)
    }
}
