//! Short writes of one thread, handed to the kernel together.
//!
//! A round writes a little to each of many sockets. A system call for each costs more than
//! its share of one call for many: so a thread copies short writes into memory of its own.
//! They are [submitted](submit) when there are as many as one call takes, when a round ends or
//! the thread has nothing else to do, before any longer write or read, and after some turns
//! of tasks. For a connection, what is queued is written. What the kernel does not take at the
//! submission stays with the connection, whose task is woken for it.
//!
//! Without the feature `io-uring`, and where the kernel has none, nothing is ever queued.

#[cfg(all(feature = "io-uring", target_os = "linux"))]
mod io_uring;
#[cfg(not(all(feature = "io-uring", target_os = "linux")))]
mod none;

#[cfg(all(feature = "io-uring", target_os = "linux"))]
use self::io_uring as queue;
#[cfg(not(all(feature = "io-uring", target_os = "linux")))]
use self::none as queue;

use std::io::IoSlice;
use std::sync::Arc;

use super::wire::Wire;

/// Has this thread queue short writes from here on, if the kernel lets it.
///
/// Whoever calls this calls [`submit`] whenever the thread goes to sleep.
pub(crate) fn enable() {
    queue::enable();
}

/// Submits what this thread has queued.
pub(crate) fn submit() {
    queue::submit();
}

/// A task has left its turn: what is queued waits for some more of them at most.
pub(super) fn turn_ended() {
    queue::turn_ended();
}

/// Queues a write to a socket of which nothing is queued. `false` where this thread queues
/// none, or the write is too long.
pub(super) fn push(wire: &Arc<Wire>, slices: &[IoSlice<'_>]) -> bool {
    queue::push(wire, slices)
}
