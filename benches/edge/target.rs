//! How each system is spoken to.

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;

use galaxy_push::lab::load::http2::Offer;
use galaxy_push::lab::load::workload::LoadError;
use galaxy_push::lab::load::{Consumer, Endpoint, GalaxyPush, Meter, Publisher, Target};

use crate::clients::jetstream::{JetStreamConsumer, JetStreamPublisher};
use crate::clients::nats::{NatsConsumer, NatsPublisher};
use crate::clients::redis_pubsub::{PubSubConsumer, PubSubPublisher};
use crate::clients::redis_streams::{StreamConsumer, StreamPublisher};
use crate::clients::tcp::{TcpConsumer, TcpPublisher};
use crate::server::Server;
use crate::system::System;

/// Something that can be done with any target.
pub(crate) trait Job {
    type Report;

    fn run<T: Target>(&self, target: &T) -> Result<Self::Report, LoadError>;
}

/// Does it with this server.
pub(crate) fn run<J: Job>(
    job: &J,
    system: System,
    server: &Server,
    offer: Offer,
) -> Result<J::Report, LoadError> {
    let endpoint = |at| {
        let endpoint = server.endpoint(at);
        endpoint.map_err(|error| LoadError::System("cannot use TLS", io::Error::other(error)))
    };
    match system {
        System::GalaxyPush
        | System::Plaintext
        | System::Tonic
        | System::TonicBytes
        | System::Handshake => job.run(&GalaxyPush {
            gateways: endpoint(server.gateways)?,
            publishers: endpoint(server.publishers)?,
            offer,
            authorization: None,
            pid: Some(server.pid()),
        }),
        System::Tcp | System::TcpGather | System::TcpRest => {
            job.run(&Plain::<TcpConsumer, TcpPublisher>::new(server))
        }
        System::RedisPubsub => job.run(&Plain::<PubSubConsumer, PubSubPublisher>::new(server)),
        System::RedisStreams => job.run(&Plain::<StreamConsumer, StreamPublisher>::new(server)),
        System::Nats => job.run(&Plain::<NatsConsumer, NatsPublisher>::new(server)),
        System::Jetstream => job.run(&Plain::<JetStreamConsumer, JetStreamPublisher>::new(server)),
    }
}

/// A server whose clients need to know nothing of one another.
struct Plain<C, P> {
    gateways: SocketAddr,
    publishers: SocketAddr,
    pid: u32,
    speaks: PhantomData<fn() -> (C, P)>,
}

impl<C, P> Plain<C, P> {
    fn new(server: &Server) -> Self {
        Plain {
            gateways: server.gateways,
            publishers: server.publishers,
            pid: server.pid(),
            speaks: PhantomData,
        }
    }
}

impl<C, P> Target for Plain<C, P>
where
    C: Consumer + Default,
    P: Publisher + Default + Send,
{
    type Consumer = C;
    type Publisher = P;

    fn consumers_at(&self) -> Endpoint {
        Endpoint::Tcp(self.gateways)
    }

    fn publishers_at(&self) -> Endpoint {
        Endpoint::Tcp(self.publishers)
    }

    fn consumer(&self, _who: usize) -> C {
        C::default()
    }

    fn publisher(&self, _who: usize) -> P {
        P::default()
    }

    fn meter(&self) -> Option<Meter> {
        Some(Meter::of(self.pid))
    }
}
