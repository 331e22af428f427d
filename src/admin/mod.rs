//! The admin listener: what an operator sees and steers, over HTTP.
//!
//! | file | what is in it |
//! |---|---|
//! | `api` | the answers, as JSON |
//! | `facts` | what it asks the server for |
//!
//! It knows the engine and its [telemetry](crate::telemetry), never the transport. It runs on
//! a thread of its own, below the others in priority: whatever is asked of it, deliveries
//! come first.

#![forbid(unsafe_code)]

pub mod api;
pub(crate) mod facts;
