//! What is measured: where it is, and how it is spoken to.

use http::HeaderValue;

use super::http2::{Offer, Publish, Subscribe};
use super::protocol::{Consumer, Publisher};
use super::socket::Endpoint;
use super::usage::Meter;

/// A system that is measured.
pub trait Target: Sync {
    /// How it is subscribed to.
    type Consumer: Consumer;
    /// How it is published to.
    type Publisher: Publisher + Send;

    /// Where consumers connect.
    fn consumers_at(&self) -> Endpoint;
    /// Where publishers connect.
    fn publishers_at(&self) -> Endpoint;
    /// The consumer with this number, from 0 on.
    fn consumer(&self, who: usize) -> Self::Consumer;
    /// The same, for a consumer that will not read: one to which as little as possible
    /// may be under way, where a consumer has a say in that.
    fn stalling_consumer(&self, who: usize) -> Self::Consumer {
        self.consumer(who)
    }
    /// The publisher with this number, from 0 on.
    fn publisher(&self, who: usize) -> Self::Publisher;
    /// Its process, where it is one of this machine.
    fn meter(&self) -> Option<Meter>;
}

/// A galaxy-push server, or any other of its contract.
#[derive(Clone, Debug)]
pub struct GalaxyPush {
    /// Where gateways subscribe.
    pub gateways: Endpoint,
    /// Where publishers publish.
    pub publishers: Endpoint,
    /// What gateways offer.
    pub offer: Offer,
    /// The `authorization` field of every call, where it has one.
    pub authorization: Option<HeaderValue>,
    /// The server's process.
    pub pid: Option<u32>,
}

impl Target for GalaxyPush {
    type Consumer = Subscribe;
    type Publisher = Publish;

    fn consumers_at(&self) -> Endpoint {
        self.gateways.clone()
    }

    fn publishers_at(&self) -> Endpoint {
        self.publishers.clone()
    }

    fn consumer(&self, who: usize) -> Subscribe {
        let id = format!("bench-{}-{who}", std::process::id());
        Subscribe::new(id, self.gateways.authority(), self.offer)
            .authorization(self.authorization.clone())
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

    fn publisher(&self, _who: usize) -> Publish {
        Publish::new(self.publishers.authority(), Offer::default())
            .authorization(self.authorization.clone())
    }

    fn meter(&self) -> Option<Meter> {
        self.pid.map(Meter::of)
    }
}
