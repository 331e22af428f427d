//! The command line as people use it: the real binary, real sockets, real kills.

#![cfg(feature = "cli")]

mod access;
mod bench;
mod config;
mod connections;
mod flags;
mod limits;
mod logs;
mod publish;
mod reload;
mod serve;
mod stalled;
#[path = "../support/mod.rs"]
mod support;
mod tail;
