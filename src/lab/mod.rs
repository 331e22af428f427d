//! The lab: what measures and checks a server from the outside, and is no part of it.
//!
//! | room | what is in it |
//! |---|---|
//! | [`history`] | a record of published and received events, checked against every guarantee |
//! | `load` | the load generator: many gateways and publishers, and the cost to a server |
//! | `bench` | the command `galaxy-push bench`: its flags, its runs, its reports |
//! | `conformance` | the command `galaxy-push conformance`: promises, and how they are judged |
//!
//! The feature `history` gives the checker alone; `bench` gives all of it. The lab knows
//! the client's side only: connections, the contract, cursors, addresses and HTTP/2. It never names the
//! engine or the server, so that it can measure any server and judge it independently.
//! The product never names the lab; only `cli` does, to run its commands.

#[cfg(feature = "bench")]
pub(crate) mod bench;
#[cfg(feature = "bench")]
pub(crate) mod conformance;
pub mod history;
#[cfg(feature = "bench")]
pub mod load;
