//! The admin listener: what an operator sees and steers, over HTTP.
//!
//! | file | what is in it |
//! |---|---|
//! | `api` | the answers, as JSON |
//! | `server` | the listener, and the thread that it and the telemetry have |
//! | `connections`, `socket` | who is connected; sockets whose peers have to read |
//! | `routes` | what is at which path, and what every request goes through |
//! | `hosts` | which host is asked, and from which page |
//! | `access` | who asks, and what it may see and do |
//! | `query`, `refusal` | what is asked for; answers that are not 2xx |
//! | `views` | the answers, made from telemetry |
//! | `live`, `follow` | server-sent events; those of one user |
//! | `health` | `/livez` and `/readyz` |
//! | `metrics` | the metrics, as text |
//! | `process` | the process, as the system sees it |
//! | `page` | the dashboard's files |
//! | `facts` | what the server tells of itself |
//!
//! It knows the engine and its telemetry, never the transport. It runs on
//! a thread of its own, below the others in priority: whatever is asked of it, deliveries
//! come first.

#![forbid(unsafe_code)]

mod access;
pub mod api;
mod connections;
mod facts;
mod follow;
mod health;
mod hosts;
mod live;
mod metrics;
mod page;
mod process;
mod query;
mod refusal;
mod routes;
mod server;
mod socket;
mod views;

pub(crate) use self::facts::{Checks, Facts, ListenerFacts};
pub(crate) use self::hosts::Hosts;
pub(crate) use self::server::{Admin, Bound, MAX_CONNECTIONS, Settings};
