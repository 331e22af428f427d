//! How threads are shared out between gateways and publishers.

use std::io;
use std::num::NonZero;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::transport::Backlog;

/// How many threads serve each kind of peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads {
    /// Threads that write to gateways.
    pub gateways: usize,
    /// Threads that answer publishers.
    pub publishers: usize,
}

impl Threads {
    /// Shares out `all` threads, or one for each core: a quarter for publishers, of whom
    /// there are few, and whose events are read once and not once for each gateway; at
    /// least one each.
    #[must_use]
    pub fn share_out(all: Option<usize>) -> Self {
        let all = all.unwrap_or_else(|| available_parallelism().map_or(1, NonZero::get));
        let publishers = (all / 4).max(1);
        Threads {
            gateways: all.saturating_sub(publishers).max(1),
            publishers,
        }
    }
}

/// Threads that serve publishers and nothing else: a runtime of tokio's, for
/// [`Server::bind_apart`](super::Server::bind_apart). Dropping it ends them, with the
/// connections that they serve.
#[derive(Debug)]
pub struct PublisherThreads {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
    backlog: Backlog,
}

impl PublisherThreads {
    /// Starts so many threads, but at least one.
    ///
    /// # Errors
    ///
    /// The system gives no threads, or no means to wait for sockets.
    pub fn start(threads: usize) -> io::Result<Self> {
        let backlog = Backlog::default();
        let looked_at = backlog.clone();
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("publishers")
            .enable_all()
            .on_thread_park(move || looked_at.delay_read())
            .build()?;
        Ok(PublisherThreads {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
            backlog,
        })
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// To be set there.
    pub(super) fn backlog(&self) -> Backlog {
        self.backlog.clone()
    }
}

impl Drop for PublisherThreads {
    fn drop(&mut self) {
        // Waiting for them would panic where this is dropped on another runtime's thread.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_get_most_of_the_threads_and_both_get_one() {
        let shared = |all| {
            let threads = Threads::share_out(Some(all));
            (threads.gateways, threads.publishers)
        };
        assert_eq!(shared(1), (1, 1));
        assert_eq!(shared(2), (1, 1));
        assert_eq!(shared(4), (3, 1));
        assert_eq!(shared(16), (12, 4));
        let all = available_parallelism().unwrap().get();
        assert_eq!(Threads::share_out(None), Threads::share_out(Some(all)));
    }
}
