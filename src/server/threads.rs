//! Threads of their own for producers.

use std::io;
use std::thread::sleep;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::edge::Behind;

/// How long a thread of producers is deaf before it waits for them, while gateways are
/// behind.
///
/// A publish by itself costs most of what it does by waking a thread, and by the thread's
/// going to sleep again. When gateways are behind, the machine has no time for that, and an
/// event waits for its turn anyway, for milliseconds. So a few are let come together; an
/// answer is later by this at most (and by what the system adds to a sleep, some 50 µs), and
/// by the half of it on average.
const DEAF: Duration = Duration::from_micros(300);

/// Threads that serve producers and nothing else: a runtime of tokio's, for
/// [`Server::bind_apart`](super::Server::bind_apart). Dropping it ends them, with the
/// connections that they serve.
#[derive(Debug)]
pub struct ProducerThreads {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
    behind: Behind,
}

impl ProducerThreads {
    /// Starts so many threads, but at least one.
    ///
    /// # Errors
    ///
    /// The system gives no threads, or no means to wait for sockets.
    pub fn start(threads: usize) -> io::Result<Self> {
        let behind = Behind::default();
        let are_behind = behind.clone();
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("producers")
            .enable_all()
            .on_thread_park(move || {
                if are_behind.is_so() {
                    sleep(DEAF);
                }
            })
            .build()?;
        Ok(ProducerThreads {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
            behind,
        })
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// To be told there.
    pub(super) fn behind(&self) -> Behind {
        self.behind.clone()
    }
}

impl Drop for ProducerThreads {
    fn drop(&mut self) {
        // Waiting for them would panic where this is dropped on another runtime's thread.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
