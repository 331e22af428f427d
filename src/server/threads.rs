//! The threads that serve connections.

use std::io;
use std::num::NonZero;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};

use crate::transport::{rest_thread, send_queue};

/// How many sockets' news a thread takes at once. Tasks that it has woken by then come
/// before any other: a publisher does not wait for a whole storm of gateways.
const SOCKETS_AT_ONCE: usize = 64;

/// A runtime for [`Server::run`](super::Server::run) with so many threads. Without a number,
/// one less than there are cores, which leaves one to the kernel's part of each delivery; at
/// least one.
///
/// All threads serve gateways and publishers alike: the thread that has published an event
/// writes it, too, without waking another one. With the feature `io-uring`, and where the
/// kernel has it, a thread writes to many gateways by one system call: short writes then wait
/// until it goes to sleep, or has many. So a task of yours must neither spin nor block there
/// (`block_in_place`).
///
/// # Errors
///
/// The system gives no threads, or no means to wait for sockets.
pub fn runtime(threads: Option<usize>) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads.unwrap_or_else(default_threads).max(1))
        .thread_name("connections")
        .max_io_events_per_tick(SOCKETS_AT_ONCE)
        .enable_all()
        .on_thread_start(send_queue::enable)
        .on_thread_park(|| {
            send_queue::submit();
            rest_thread();
        })
        .build()
}

fn default_threads() -> usize {
    available_parallelism().map_or(1, NonZero::get) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_core_is_left_to_the_kernel_and_there_is_always_a_thread() {
        let cores = available_parallelism().unwrap().get();
        for (asked, expected) in [(None, (cores - 1).max(1)), (Some(3), 3), (Some(0), 1)] {
            let runtime = runtime(asked).unwrap();
            assert_eq!(runtime.metrics().num_workers(), expected, "{asked:?}");
        }
    }
}
