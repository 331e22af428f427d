//! The command line as people use it: the real binary, real sockets, real kills.

#![cfg(feature = "cli")]

mod access;
mod activation;
mod bench;
mod config;
mod conformance;
mod connections;
mod flags;
mod health;
mod limits;
mod logs;
mod manager;
mod operator;
mod publish;
mod reload;
mod serve;
mod stalled;
#[path = "../support/mod.rs"]
mod support;
mod tail;
