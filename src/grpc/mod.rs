//! The thin edge: what a call means.
//!
//! Between HTTP/2 and the engine there is little: a request finds its method, its message
//! is taken out of its body, and what comes of it goes back as data and a status. Events
//! are never decoded here, and never kept: what the edge has is what the ring has.
//!
//! | file | what is in it |
//! |---|---|
//! | `router` | from a request to its method; what holds for every request |
//! | `authorization` | who calls, and whether it still may |
//! | `gateways`, `publishers` | each listener's methods, limits and timeouts |
//! | `method` | the shapes of methods: respond to each request, or stream |
//! | `subscribe`, `publish`, `report`, `wait_enforced` | the methods |
//! | `heartbeat` | when a quiet stream shows that it lives |
//! | `standard` | gRPC's own services: health checking, reflection |
//! | `exchange`, `streaming` | a call of either shape |
//! | `message` | messages in a request's body |
//! | `status` | every error as a status, in one table; its reason, and when to try again |
//! | `tonic` | `SubscribePush` for somebody else's tonic server |
//!
//! To add a method: write a file that implements a shape, and name it in `gateways` or
//! `publishers`.

#![forbid(unsafe_code)]

mod authorization;
mod exchange;
mod gateways;
mod heartbeat;
mod message;
mod method;
mod publish;
mod publishers;
mod report;
mod router;
mod standard;
mod status;
mod streaming;
mod subscribe;
#[cfg(feature = "tonic-service")]
mod tonic;
mod wait_enforced;

pub(crate) use self::authorization::AccessControl;
pub(crate) use self::gateways::Gateways;
pub(crate) use self::publishers::Publishers;
pub(crate) use self::router::Stopping;
#[cfg(feature = "tonic-service")]
pub use self::tonic::{PushService, for_gateways};

/// Open streams of one connection. A peer needs one or a few; a proxy that carries many
/// peers opens as many connections as it needs.
const MAX_STREAMS: u32 = 256;
/// All header fields of one request together. Ours fit into a few hundred bytes; tokens
/// and tracing headers take the rest.
const MAX_FIELD_BYTES: u32 = 16 << 10;
