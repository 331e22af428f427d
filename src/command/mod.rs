//! What all commands share: values of flags, how to connect, failures with their exit codes,
//! lines on standard error and output, figures for people, and the signals that stop a command.
//!
//! `cli` and the lab's `bench` are commands. This room names neither, nor anything of the
//! server.

#![forbid(unsafe_code)]

mod connect;
mod failure;
pub(crate) mod signals;
pub(crate) mod stderr;
mod stdout;
pub(crate) mod text;
pub(crate) mod value;

pub(crate) use connect::{ConnectArgs, connect_failure};
pub(crate) use failure::Failure;
pub(crate) use stdout::print;
