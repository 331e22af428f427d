//! The admin listener: what an operator sees and steers, over HTTP.
//!
//! | file | what is in it |
//! |---|---|
//! | `api` | the answers, as JSON |
//! | `facts` | what the server tells of itself |
//! | `metrics` | the figures, as Prometheus reads them |
//!
//! It knows the engine and its [telemetry](crate::telemetry), never the transport. It runs on
//! a thread of its own, below the others in priority: whatever is asked of it, deliveries
//! come first.

#![forbid(unsafe_code)]

pub mod api;
mod facts;
mod metrics;

pub(crate) use self::facts::{Checks, Facts, ListenerFacts};
