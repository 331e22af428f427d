//! What is compared.

use std::fmt;

use clap::ValueEnum;

/// A server, as the table's columns name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// `galaxy-push serve`, with its defaults.
    GalaxyPush,
    /// The same in plaintext, in rows where all others have TLS.
    Plaintext,
    /// An ordinary tonic service.
    Tonic,
    /// The same, and each event is encoded once.
    TonicBytes,
    /// Plain TCP, as bare as may be.
    Tcp,
    /// The same, all that has arrived in one `send`.
    TcpGather,
    /// The same, with rests as ours has.
    TcpRest,
    /// HTTP/2's handshake and no more.
    Handshake,
    /// Redis, PUBLISH and SUBSCRIBE.
    RedisPubsub,
    /// Redis, XADD and XREAD.
    RedisStreams,
    /// NATS core.
    Nats,
    /// NATS JetStream, in memory.
    Jetstream,
}

impl System {
    /// Those that hand events to whoever is there, and several at once to who is behind.
    pub(crate) const FANNING_OUT: &[System] = &[
        System::GalaxyPush,
        System::Tonic,
        System::TonicBytes,
        System::RedisPubsub,
        System::RedisStreams,
        System::Nats,
        System::Jetstream,
    ];

    /// Those of them that are made for that, and are quickest.
    pub(crate) const LIVE: &[System] = &[
        System::GalaxyPush,
        System::Tonic,
        System::TonicBytes,
        System::RedisPubsub,
        System::Nats,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            System::GalaxyPush => "galaxy-push",
            System::Plaintext => "plaintext",
            System::Tonic => "tonic",
            System::TonicBytes => "tonic-bytes",
            System::Tcp => "tcp",
            System::TcpGather => "tcp-gather",
            System::TcpRest => "tcp-rest",
            System::Handshake => "handshake",
            System::RedisPubsub => "redis-pubsub",
            System::RedisStreams => "redis-streams",
            System::Nats => "nats",
            System::Jetstream => "jetstream",
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
