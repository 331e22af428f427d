//! The edge: the gRPC services over an engine, and the sockets under them.
//!
//! Gateways and producers are served in two ways. A gateway's connection is ours down to
//! the socket ([`http2`](crate::http2) and `downlink`): what it is sent goes from the
//! ring's memory into one system call. Producers' calls are plain tonic. To both the edge
//! adds what a peer can see (statuses, metadata) and what no peer may do: hold
//! connections, memory or the shutdown for longer than it is allowed to.
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
//! | `push`, `body` | the same for somebody else's server: a service, and its response's body |
//! | `subscribe` | what both have in common: a request's meaning, a response's head |
//! | [`gateway_id`] | what a `gateway_client_id` may be |
//! | `publisher` | `Publish` and `PublishStream` |
//! | `codec` | messages as raw bytes, for tonic |
//! | `intake` | bounds for request bodies that tonic reads |
//! | `status` | every error's gRPC status, in one table |
//! | `listener` | TCP and unix sockets that peers connect to |
//! | `connection` | one socket, its progress, and the way to cut it |
//! | `flow` | what is under way to a peer |
//! | `stall` | finds peers that take nothing, or are gone, and cuts them |
//! | `transport` | serves each listener's connections; tonic's settings |
//!
//! The edge never decodes an event, never waits for a gateway on a publisher's
//! behalf, and never keeps an event of its own: what it has is what the ring has.

mod body;
mod codec;
mod connection;
mod downlink;
mod flow;
pub mod gateway_id;
mod intake;
mod listener;
mod publisher;
mod push;
mod rounds;
mod stall;
mod status;
mod subscribe;
mod transport;

pub use listener::BoundAddress;
pub use push::PushService;
pub use transport::for_gateways;

pub(crate) use listener::Listener;
pub(crate) use publisher::PublisherService;
pub(crate) use rounds::wake_gateways;
pub(crate) use stall::{Patience, Watch};
pub(crate) use transport::{serve_gateways, serve_producers};
