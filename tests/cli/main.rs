//! The command line as people use it: the real binary, real sockets, real kills.

#![cfg(feature = "cli")]

mod access;
mod bench;
mod connections;
mod flags;
mod limits;
mod publish;
mod serve;
mod stalled;
#[path = "../support/mod.rs"]
mod support;
mod tail;
