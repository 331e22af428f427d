//! How each system is spoken to.

use std::marker::PhantomData;
use std::net::SocketAddr;

use galaxy_push::lab::load::http2::Offer;
use galaxy_push::lab::load::workload::LoadError;
use galaxy_push::lab::load::{Consumer, Endpoint, GalaxyPush, Meter, Producer, Target};

use crate::clients::jetstream::{JetStreamConsumer, JetStreamProducer};
use crate::clients::nats::{NatsConsumer, NatsProducer};
use crate::clients::redis_pubsub::{PubSubConsumer, PubSubProducer};
use crate::clients::redis_streams::{StreamConsumer, StreamProducer};
use crate::clients::tcp::{TcpConsumer, TcpProducer};
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
    match system {
        System::GalaxyPush | System::Tonic | System::TonicBytes | System::Handshake => {
            job.run(&GalaxyPush {
                gateways: Endpoint::Tcp(server.gateways),
                producers: Endpoint::Tcp(server.producers),
                offer,
                pid: Some(server.pid()),
            })
        }
        System::Tcp => job.run(&Plain::<TcpConsumer, TcpProducer>::new(server)),
        System::RedisPubsub => job.run(&Plain::<PubSubConsumer, PubSubProducer>::new(server)),
        System::RedisStreams => job.run(&Plain::<StreamConsumer, StreamProducer>::new(server)),
        System::Nats => job.run(&Plain::<NatsConsumer, NatsProducer>::new(server)),
        System::Jetstream => job.run(&Plain::<JetStreamConsumer, JetStreamProducer>::new(server)),
    }
}

/// A server whose clients need to know nothing of one another.
struct Plain<C, P> {
    gateways: SocketAddr,
    producers: SocketAddr,
    pid: u32,
    speaks: PhantomData<fn() -> (C, P)>,
}

impl<C, P> Plain<C, P> {
    fn new(server: &Server) -> Self {
        Plain {
            gateways: server.gateways,
            producers: server.producers,
            pid: server.pid(),
            speaks: PhantomData,
        }
    }
}

impl<C, P> Target for Plain<C, P>
where
    C: Consumer + Default,
    P: Producer + Default + Send,
{
    type Consumer = C;
    type Producer = P;

    fn consumers_at(&self) -> Endpoint {
        Endpoint::Tcp(self.gateways)
    }

    fn producers_at(&self) -> Endpoint {
        Endpoint::Tcp(self.producers)
    }

    fn consumer(&self, _who: usize) -> C {
        C::default()
    }

    fn producer(&self, _who: usize) -> P {
        P::default()
    }

    fn meter(&self) -> Option<Meter> {
        Some(Meter::of(self.pid))
    }
}
