//! Bytes and time for HTTP/2: sockets, their tasks, and what no peer may do.
//!
//! A [`Service`](crate::service::Service) says what requests mean; everything else that serving takes is here, once
//! for gateways and publishers: one task a connection, one system call a turn, and limits
//! on how long a peer may hold connections, memory or a shutdown.
//!
//! | file | what is in it |
//! |---|---|
//! | `listener` | TCP and unix sockets that peers connect to; connection limits |
//! | `socket`, `stream`, `wire` | one accepted socket; what carries its bytes; what it shares with its thread's queue |
//! | `tls_session` | TLS of an accepted socket, after its handshake |
//! | `handshakes` | handshakes, on threads of their own |
//! | `limited_log` | log lines that repeat, counted |
//! | `send_queue` | short writes to many sockets by one system call (feature `io-uring`) |
//! | `handle` | what others may know of a connection, and ask of it |
//! | `driver` | the task that serves a connection |
//! | `call`, `outgoing` | a call on its stream, and what it is to write |
//! | `writer` | many frames by one system call |
//! | `in_flight` | bytes that are queued and not written |
//! | `watchdog` | finds peers that take nothing, or are gone |
//! | `coalesce`, `timer` | rests between rounds of wake-ups, under load |
//!
//! # How a connection or a stream ends
//!
//! | verb | what happens |
//! |---|---|
//! | *end* a stream | its status is sent, after the data before it; its neighbours go on. If it stalls, what its window does not take is dropped, be it in the middle of a message |
//! | *reset* a stream | RST_STREAM: there is no status |
//! | *shut down* a connection | GOAWAY: no new streams, the open ones go on, then it closes |
//! | *fail* a connection | GOAWAY with an error: all its streams have ended, what is left is written |
//! | *close* a connection | everything is written; the peer has the linger timeout to close too |
//! | *cut* a connection | at once, whatever is in its socket |
//!
//! Nothing here knows of gRPC, of events, or of the engine.

mod call;
mod coalesce;
mod driver;
mod handle;
mod handshakes;
mod in_flight;
mod limited_log;
mod listener;
mod outgoing;
pub(crate) mod send_queue;
mod socket;
mod stream;
#[cfg(test)]
mod test_support;
mod timer;
mod tls_session;
mod watchdog;
mod wire;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::listener::BoundAddress;

pub(crate) use self::coalesce::{Wake, rest_thread, wake_in_rounds};
pub(crate) use self::handshakes::HandshakeThreads;
pub(crate) use self::listener::{ConnectionLimit, Listener};
pub(crate) use self::timer::Timer;
pub(crate) use self::watchdog::{Timeouts, Watchdog};

use self::driver::{Driver, Shared};
use crate::service::Service;

/// How a listener is served.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) watchdog: Watchdog,
    /// Ends it.
    pub(crate) stopping: CancellationToken,
    /// How long requests are still answered after that, before connections end.
    pub(crate) lame_duck: Duration,
    /// Memory for requests that have not arrived in full, all connections together.
    pub(crate) arriving_bytes: usize,
}

impl Serving {
    /// Serves a listener's connections until the stop, and then until the last one ends:
    /// each by a service of its own. `stop` is called at the stop, before drivers are
    /// woken.
    pub(crate) async fn run<S>(
        self,
        listener: Listener,
        mut service: impl FnMut() -> S,
        stop: impl FnOnce(),
    ) where
        S: Service + Send + Unpin + 'static,
        S::Call: Send + Unpin,
        S::Data: Send + Unpin,
    {
        let shared = Shared::new(self.watchdog.clone(), self.arriving_bytes);
        let drivers = TaskTracker::new();
        let stopped = async {
            self.stopping.cancelled().await;
            stop();
            self.watchdog.wake_all();
        };
        let accepting = listener.run(&self.watchdog, &self.stopping, self.lame_duck, |socket| {
            drivers.spawn(Driver::new(Arc::clone(&shared), service(), socket));
        });
        tokio::join!(stopped, accepting);
        shared.shut_down();
        drivers.close();
        drivers.wait().await;
    }
}
