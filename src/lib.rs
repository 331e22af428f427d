//! A backend's push channel: every gateway gets every event, in one order, over
//! one stream, and resumes where it stopped.
//!
//! # Words
//!
//! - An **event** is one `PushEvent`, as a publisher encoded it ([`event`]).
//! - A **frame** of the ring is that event as it goes over the wire: a gRPC length
//!   prefix, the publisher's bytes, the cursor. (HTTP/2's frames are [`http2`]'s.)
//! - A **cursor** names an event's place in the stream: **epoch** and **sequence**
//!   ([`cursor`]).
//! - The **ring** keeps the newest frames, in **segments**; its newest event is the
//!   **head** ([`engine`]).
//! - A **publisher** puts batches of events into a **log**: the ring, or a backbone that
//!   feeds it ([`backbone`]).
//! - A **gateway** holds one **subscription**, under its own id; subscribing again under
//!   the same id is a **takeover**.
//! - A subscriber's **lag** is how many events it has yet to read. When the ring has
//!   dropped some of them, it has **lagged**, and is told how many it missed.
//! - A **connection** carries **streams**; a **call** is one request with its response, on
//!   one of them. A stream whose peer takes nothing **stalls**.
//!
//! # Rooms
//!
//! | room | what is in it |
//! |---|---|
//! | [`cursor`] | epoch, sequence, cursor and its text |
//! | [`event`] | what a publishable event is, checked without decoding |
//! | [`contract`] | what both ends of a stream agree on: messages, paths, metadata, ids |
//! | [`engine`] | the ring, its publishers and subscribers; no I/O |
//! | `receipts` | how far gateways have enforced invalidations, and when it is certain that all have |
//! | `revocations` | the newest invalidation of each session, for longer than the ring |
//! | [`clock`] | where the engine's milliseconds come from |
//! | [`http2`] | HTTP/2 without I/O, as far as streams of events need it |
//! | `transport` | bytes and time for it: sockets, tasks, limits |
//! | `service` | the trait between the two rooms around it |
//! | `listening` | addresses that are bound |
//! | [`grpc`] | the thin edge: what a call means |
//! | [`backbone`] | the log that publishers' batches go to: the ring of this process, or a stream that replicas share |
//! | `freshness` | until when a server knows what was published, and when it knows too little |
//! | [`client`] | the gateway's side: subscribe, reconnect, keep the cursor |
//! | [`gateway`] | and above it: sessions, their events, and that revoked ones end |
//! | [`config`] | the settings of a server, checked once |
//! | [`server`] | the composition root: an engine, its listeners, its threads, its end |
//! | `health` | whether it is well: checks, and a probe through a ring |
//! | `telemetry` | what is known of a running server: counters, gateways, recent events |
//! | `spans` | what is traced of it, and the way to an OpenTelemetry collector |
//! | [`admin`] | what an operator sees and steers, over HTTP |
//! | [`access`] | who may do what: credentials, principals, grants |
//! | `audit` | the log of who was refused, ended, taken over or disconnected |
//! | [`activation`] | listening sockets that a service manager passes |
//! | [`tls`] | certificates, keys, and TLS of either side |
//! | `open_files` | the system's limit of open files |
//! | `prefetch` | hints to the processor: what memory will be used soon |
//! | `command` | what commands share: values of flags, failures, signals |
//! | [`lab`] | what measures and checks servers, and judges gateways: load generator, `bench`, histories, `conformance` |
//! | [`cli`] | the command line, a file for each subcommand |
//!
//! # Where to change what
//!
//! | what | where |
//! |---|---|
//! | how long a request may take, how many streams a connection may have | [`grpc`]: `gateways`, `publishers` |
//! | a metadata key, a method's path, a gateway id's rules | [`contract`] |
//! | a method | [`grpc`]: a file that implements a shape of `method`, named in a listener |
//! | what is counted; a line of the log of streams | `telemetry` |
//! | how replicas share a stream: numbers, retries, what is checked of it | [`backbone`]: `jetstream` |
//! | a metric | [`admin`]: `metrics`; `docs/metrics.md` |
//! | an answer of the admin listener, the dashboard | [`admin`]: `api`, `views`; `page/` |
//! | what `doctor` finds | [`cli`]: `doctor::examination` |
//! | what `conformance` promises of a server or a gateway, and how that is judged | [`lab`]: `conformance::server`, `conformance::gateway` |
//! | what makes a server unready, and when | `health` |
//! | gRPC's own services: health checking, reflection | [`grpc`]: `standard` |
//! | heartbeats: when one is sent, when a stream without one is dropped | [`grpc`]: `heartbeat`; [`client`]: `pulse` |
//! | which invalidations outlive the ring, and what a replay says | `revocations`: `table`; [`engine`]: `replay` |
//! | when it is certain that an invalidation is enforced | `receipts`: `registry`; the gateway's half is [`gateway`]: `leases` |
//! | what a session is refused, and how it ends | [`gateway`]: `end`, `router` |
//! | how an event finds its sessions | [`gateway`]: `feed`, `table`, `users` |
//! | what a stream's beginning means for sessions, how suspect ones are validated | [`gateway`]: `driver` |
//! | which server a gateway tries next, when a stream is renewed | [`client`]: `targets`; `gateway` |
//! | how it stops | [`server`]: `stop` |
//! | who may do what | [`access`] |
//! | when that is asked, and how open calls end with it | [`grpc`]: `authorization` |
//! | a setting: its text, default and bounds, and whether a reload takes it up | [`config`]; its flag is in [`cli`]: `settings::args`, the rest follows |
//! | what a reload does | [`server`]: `reload`; [`cli`]: `serve` |
//! | what a span says, and how many there are | `spans`: `recorder`; `docs/tracing.md` |
//! | a key of the access file | [`access`]: `document`, then `rules` |
//! | an error's status, and when to try again | [`grpc`]: `status` |
//! | another kind of socket | `transport`: `socket`, `listener` |
//! | TLS: versions, tickets, files | [`tls`] |
//! | TLS: handshakes, what is encrypted at once | `transport`: `handshakes`, `tls_session` |
//! | a reason that peers' programs go by | [`contract`]: `details`; `docs/protocol.md` |
//! | when a peer is cut, and when a stream ends because it stalls | `transport`: `watchdog` |
//! | what HTTP/2 lets a peer do | [`http2`]: `server` |
//! | how many threads there are, and what they do before they sleep | [`server`]: `threads` |
//! | how long threads rest under load | `transport`: `coalesce` |
//! | many writes by one system call | `transport`: `send_queue` |

pub mod clock;
pub mod contract;
pub mod cursor;
pub mod engine;
pub mod event;
pub mod gateway;
mod prefetch;
mod revocations;

#[cfg(feature = "client")]
pub mod client;
#[cfg(any(feature = "client", feature = "server"))]
pub mod config;
#[cfg(any(feature = "bench", feature = "history"))]
pub mod lab;

#[cfg(feature = "server")]
pub mod access;
#[cfg(feature = "server")]
pub mod activation;
#[cfg(feature = "server")]
pub mod admin;
#[cfg(feature = "server")]
mod audit;
#[cfg(feature = "server")]
pub mod backbone;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
mod command;
#[cfg(feature = "server")]
mod freshness;
#[cfg(feature = "server")]
pub mod grpc;
#[cfg(feature = "server")]
mod health;
#[cfg(feature = "server")]
pub mod http2;
#[cfg(feature = "server")]
mod listening;
#[cfg(feature = "server")]
mod open_files;
#[cfg(feature = "server")]
mod receipts;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
mod service;
#[cfg(feature = "server")]
mod spans;
#[cfg(feature = "server")]
mod telemetry;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "server")]
mod transport;

// The README's Rust is compiled and run as a documentation test.
#[cfg(all(doctest, feature = "messages"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../docs/gateways.md")]
struct Gateways;
