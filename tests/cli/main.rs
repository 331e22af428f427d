//! The command line as people use it: the real binary, real sockets, real kills.

#![cfg(feature = "cli")]

mod access;
mod activation;
mod bench;
mod connections;
mod flags;
mod health;
mod limits;
mod manager;
mod publish;
mod serve;
mod stalled;
#[path = "../support/mod.rs"]
mod support;
mod tail;
