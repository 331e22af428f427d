//! The edge: the gRPC services over an engine, and the sockets under them.
//!
//! Connections are ours down to the socket ([`http2`](crate::http2)). What a gateway is
//! sent goes from the ring's memory into one system call (`downlink`), and what one has
//! read of a producer's requests goes into the ring (`uplink`). The edge knows what a peer
//! can see (statuses, metadata), and what no peer may do: hold connections, memory or the
//! shutdown for longer than it is allowed to.
//!
//! [`PushService`] is for embedding: it serves gateways from any tonic server, on
//! which [`for_gateways`] makes our settings. What needs the socket (the shortest way to
//! it, cutting whoever takes nothing, limits of connections, a stop that loses nothing on
//! the way) only our own listeners do, of [`server::Server`](crate::server::Server).
//!
//! | file | what is in it |
//! |---|---|
//! | `downlink` | a gateway's connection: events from the ring into its socket |
//! | `rounds` | when gateways are woken |
//! | `subscribe` | what a gateway's request means, and how its response begins |
//! | `uplink` | a producer's connection: requests from its socket into the ring |
//! | `grpc` | calls, messages and their ends, in gRPC's words |
//! | `status` | every error's gRPC status, in one table |
//! | `listener` | TCP and unix sockets that peers connect to |
//! | `connection` | one socket, its progress, and the way to cut it |
//! | `flow` | what is under way to a peer |
//! | `stall` | finds peers that take nothing, or are gone, and cuts them |
//! | `transport` | serves each listener's connections; settings for somebody else's server |
//! | `push`, `body` | for that server: `SubscribePush` as a tonic service, and its response's body |
//! | `codec`, `intake` | a request's one message, as raw bytes, within bounds |
//! | `rig` | what the tests share |
//!
//! The edge never decodes an event, never waits for a gateway on a publisher's
//! behalf, and never keeps an event of its own: what it has is what the ring has.

mod body;
mod codec;
mod connection;
mod downlink;
mod flow;
mod grpc;
mod intake;
mod listener;
mod push;
#[cfg(test)]
mod rig;
mod rounds;
mod stall;
mod status;
mod subscribe;
mod transport;
mod uplink;

pub use listener::BoundAddress;
pub use push::PushService;
pub use transport::for_gateways;

pub(crate) use listener::Listener;
pub(crate) use rounds::{Behind, wake_gateways};
pub(crate) use stall::{Patience, Watch};
pub(crate) use transport::{serve_gateways, serve_producers};
