//! What all commands share: values of flags, the flags of TLS, failures with their exit
//! codes, lines on standard error, and the signals that stop a command.
//!
//! `cli` and the lab's `bench` are commands. This room names neither, nor anything of the
//! product but [`tls`](crate::tls).

#![forbid(unsafe_code)]

mod failure;
pub(crate) mod signals;
pub(crate) mod stderr;
mod tls_flags;
pub(crate) mod value;

pub(crate) use failure::Failure;
pub(crate) use tls_flags::TlsArgs;
