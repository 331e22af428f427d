//! How a server stops.
//!
//! 1. Its health checks fail; everything is served on for a delay, so that those who look
//!    at the checks send no more peers here.
//! 2. Nothing more is accepted, and connections are told so (GOAWAY). Streams deliver what was
//!    published, and end; those that only watch the server's health end at once.
//! 3. After a grace period, whatever is left is ended, and cut.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Running, ServeError, ended_early};

/// In the grace period: how long peers have that have only just connected, to be told in
/// HTTP/2 that the server is stopping. A silent peer does not hold it up for longer.
const LAST_HANDSHAKES: Duration = Duration::from_secs(1);
/// After the grace period: how long the streams' statuses may take.
const LAST_STATUSES: Duration = Duration::from_millis(500);

impl Running {
    /// Returns when something has ended that should not have, and what.
    pub(super) async fn broken(&mut self) -> ServeError {
        let ended = tokio::select! {
            ended = self.listeners.join_next() => ended,
            lost = self.log.lost() => return lost,
            // Without the one that ends calls with their credentials, nobody else would.
            Some(Err(broken)) = self.helpers.join_next() => Some(Err(broken)),
        };
        ended_early(ended)
    }

    /// Has the health checks fail, and goes on for a while, or until `hurry` is ready. Returns
    /// what has broken meanwhile.
    pub(super) async fn keep_serving(
        &mut self,
        hurry: impl Future<Output = ()> + Send,
    ) -> Option<ServeError> {
        self.health.stop();
        let delay = self.in_force.borrow().shutdown_delay;
        if delay.is_zero() {
            return None;
        }
        tracing::info!("stopping: the health checks fail, everything is served for {delay:?} more");
        tokio::select! {
            () = sleep(delay) => None,
            () = hurry => {
                tracing::info!("stopping without waiting any longer");
                None
            }
            broken = self.broken() => Some(broken),
        }
    }

    /// Ends every stream after its last event, and every connection after its
    /// last stream; after the grace period, whatever is left.
    pub(super) async fn drain(mut self) {
        // Also where a listener has broken.
        self.health.stop();
        tracing::info!("stopping: no more events are accepted");
        // First the engine, so that nothing is answered that would come after
        // what the streams deliver.
        self.engine.close();
        self.stopping.cancel();
        let grace = self.in_force.borrow().shutdown_grace;
        let grace_ends = Instant::now() + grace;
        let handshakes_end = grace_ends.min(Instant::now() + LAST_HANDSHAKES);
        if timeout_at(handshakes_end, self.all_ended()).await.is_err() {
            self.watchdog.cut_handshakes();
        }
        if timeout_at(grace_ends, self.all_ended()).await.is_err() {
            self.engine.abort();
            if timeout(LAST_STATUSES, self.all_ended()).await.is_err() {
                let left = self.watchdog.cut_all();
                tracing::warn!("{left} connections were cut: they did not end within {grace:?}",);
                self.all_ended().await;
            }
        }
        // Last, so that operators see the rest.
        if let Some(admin) = self.admin.take() {
            admin.stop().await;
        }
        self.spans.finish().await;
        tracing::info!("stopped");
    }

    async fn all_ended(&mut self) {
        while let Some(ended) = self.listeners.join_next().await {
            if ended.is_err() {
                tracing::error!("{}", ended_early(Some(ended)));
            }
        }
    }
}
