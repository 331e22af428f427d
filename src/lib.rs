//! A backend's push channel: every gateway gets every event, in one order, over
//! one stream, and resumes where it stopped.
//!
//! # Words
//!
//! - An **event** is one `PushEvent`, as a producer encoded it ([`event`]).
//! - A **frame** is that event as it goes over the wire: a gRPC length prefix,
//!   the producer's bytes, the cursor.
//! - A **cursor** names an event's place in the stream ([`cursor`]).
//! - The **ring** keeps the newest frames, in **segments**; its newest event is
//!   the **head** ([`engine`]).
//! - A **gateway** holds one **subscription**, under its own id; subscribing
//!   again under the same id **takes over**.
//! - A subscriber's **lag** is how many events it has yet to read; when the ring
//!   has dropped some of them, it is **lapped** and told how many.
//!
//! # Rooms
//!
//! | room | what is in it |
//! |---|---|
//! | [`cursor`] | epoch, sequence, cursor and its text |
//! | [`event`] | what a publishable event is, checked without decoding |
//! | [`contract`] | what both ends of a stream agree on: messages, paths, metadata, ids |
//! | [`engine`] | the ring, its publishers and subscribers; no I/O |
//! | [`clock`] | where the engine's milliseconds come from |
//! | [`history`] | a record of who published and received what, and whether all promises were kept |
//! | [`http2`] | HTTP/2 without I/O, as far as streams of events need it |
//! | `transport` | bytes and time for it: sockets, tasks, limits |
//! | [`grpc`] | the thin edge: what a call means |
//! | [`backbone`] | the log that publishers' batches go to: the ring of this process |
//! | [`client`] | the gateway's side: subscribe, reconnect, keep the cursor |
//! | [`config`] | the settings of a server, checked once |
//! | [`server`] | the composition root: an engine, its listeners, its threads, its end |
//! | `open_files` | the system's limit of open files |
//! | `prefetch` | hints to the processor: what memory will be used soon |
//! | [`load`] | a load generator: many gateways and publishers, and what they cost a server |
//! | [`cli`] | the command line, a file for each subcommand |

pub mod clock;
pub mod contract;
pub mod cursor;
pub mod engine;
pub mod event;
mod prefetch;

#[cfg(feature = "client")]
pub mod client;
#[cfg(any(feature = "client", feature = "server"))]
pub mod config;
#[cfg(feature = "history")]
pub mod history;

#[cfg(feature = "server")]
pub mod backbone;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "server")]
pub mod grpc;
#[cfg(feature = "server")]
pub mod http2;
#[cfg(feature = "bench")]
pub mod load;
#[cfg(feature = "server")]
mod open_files;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
mod transport;

// The README's Rust is compiled and run as a documentation test.
#[cfg(all(doctest, feature = "messages"))]
#[doc = include_str!("../README.md")]
struct Readme;
