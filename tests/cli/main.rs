//! The command line as people use it: the real binary, real sockets, real kills.

#![cfg(feature = "cli")]

mod flags;
mod process;
mod publish;
mod serve;
mod stalled;
mod tail;
