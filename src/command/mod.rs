//! What all commands share: values of flags, failures with their exit codes, lines on
//! standard error, and the signals that stop a command.
//!
//! `cli` and the lab's `bench` are commands. This room names neither, nor anything of the
//! product.

#![forbid(unsafe_code)]

mod failure;
pub(crate) mod signals;
pub(crate) mod stderr;
pub(crate) mod value;

pub(crate) use failure::Failure;
