//! The load generator behind `galaxy-push bench`, and of the benches that measure
//! peers: what they would use instead.
//!
//! A [`Target`] is what is measured: it says where to connect and which protocol is
//! spoken there, a [`Consumer`] and a [`Publisher`] without sockets. Everything else is
//! the same for all: one thread drives all receivers ([`Receivers`]), another one all
//! publishers on a precise schedule ([`Publishers`]), and a [`workload`] says what
//! happens when, and what is counted.
//!
//! # What is measured
//!
//! *Latency* is from when an event was **due** to be published until a receiver's
//! `recv` returned with it. The due time is in the event. A server that holds its
//! publisher up does not hide that: the events that could not be sent meanwhile are late
//! by as much. (Known as coordinated omission, where it is not done so.) The clock is
//! read once a `recv`, not once an event.
//!
//! *Cost* is processor time of the server's process, from the kernel's scheduler, over
//! a time in which so many events were delivered. The generator's own is shown beside
//! it. It must not be the bottleneck on a machine that it shares with the server, so
//! that receivers share one large buffer, decode nothing, and copy no event that arrives
//! in one piece.
//!
//! *Lost* is an event that was accepted and did not come to a receiver that was
//! subscribed. Each event carries its publisher and its number there, so that a hole is
//! seen where it is, in any protocol.

#![forbid(unsafe_code)]

mod clock;
mod delivery_check;
mod event;
mod gauge;
pub mod http2;
mod latency;
mod protocol;
mod publishers;
mod receivers;
mod socket;
mod target;
mod tls;
mod usage;
pub mod workload;

pub use clock::now_ns;
pub use delivery_check::{DeliveryCheck, DeliveryErrors};
pub use event::{Batch, Shape, Stamp};
pub use gauge::{Gauge, Stage};
pub use latency::{Latency, Windows};
pub use protocol::{Begin, Consumer, End, ProtocolError, Publisher, Responses, Sink, Start};
pub use publishers::{
    MAX_PUBLISHERS, Pace, Plan, PublishObserver, Published, PublisherError, Publishers,
};
pub use receivers::{Arrival, BrokenConnection, Receivers, StreamObserver};
pub use socket::Endpoint;
pub use target::{GalaxyPush, Target};
pub use tls::TlsPeer;
pub use usage::{Meter, Usage};
