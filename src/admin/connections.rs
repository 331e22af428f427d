//! The open connections: which of them does nothing.
//!
//! There are few places, and whoever reaches the listener can take one. So nobody keeps one
//! for nothing: where all are taken, the connection that has been idle for the longest time
//! makes room. Health checks come through whatever others do.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// For so long a connection may have no request under way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// All that are open.
#[derive(Debug, Default)]
pub(super) struct Connections(Arc<Mutex<Vec<Arc<Connection>>>>);

/// One of them.
#[derive(Debug)]
pub(super) struct Connection {
    began: Instant,
    requests: AtomicU64,
    /// When it began to have none, in milliseconds after `began`.
    idle_since_ms: AtomicU64,
    /// Makes room for another one.
    cut: CancellationToken,
}

/// A connection's place among them, until it is dropped.
#[derive(Debug)]
pub(super) struct Open {
    all: Arc<Mutex<Vec<Arc<Connection>>>>,
    connection: Arc<Connection>,
}

impl Connections {
    pub(super) fn open(&self) -> Open {
        let connection = Arc::new(Connection {
            began: Instant::now(),
            requests: AtomicU64::new(0),
            idle_since_ms: AtomicU64::new(0),
            cut: CancellationToken::new(),
        });
        lock(&self.0).push(Arc::clone(&connection));
        Open {
            all: Arc::clone(&self.0),
            connection,
        }
    }

    /// Cuts the one that has been idle for the longest time. Returns whether there was one.
    pub(super) fn make_room(&self) -> bool {
        let all = lock(&self.0);
        let idle = all.iter().filter_map(|connection| {
            let since = connection.idle_since()?;
            (!connection.cut.is_cancelled()).then_some((since, connection))
        });
        match idle.min_by_key(|(since, _)| *since) {
            Some((_, connection)) => {
                connection.cut.cancel();
                true
            }
            None => false,
        }
    }
}

impl Open {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.all).retain(|other| !Arc::ptr_eq(other, &self.connection));
    }
}

impl Connection {
    fn idle_since(&self) -> Option<Instant> {
        // Relaxed, here and below: one thread does all of it.
        let is_idle = self.requests.load(Ordering::Relaxed) == 0;
        let since = Duration::from_millis(self.idle_since_ms.load(Ordering::Relaxed));
        is_idle.then(|| self.began + since)
    }

    /// Waits until it has been idle for too long.
    pub(super) async fn idle_too_long(&self) {
        loop {
            let idle = self.idle_since().map(|since| since.elapsed());
            match IDLE_TIMEOUT.checked_sub(idle.unwrap_or_default()) {
                None | Some(Duration::ZERO) => return,
                Some(rest) => sleep(rest).await,
            }
        }
    }

    /// Waits until its place is needed.
    pub(super) async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// A request has come; it is under way until that is dropped.
    pub(super) fn begin_request(self: &Arc<Self>) -> UnderWay {
        self.requests.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }
}

/// A request that is not answered in full.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Connection>);

impl UnderWay {
    pub(super) fn until_end_of<B>(self, body: B) -> UnderWayBody<B> {
        UnderWayBody {
            body,
            _request: self,
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let connection = &self.0;
        let ms = connection.began.elapsed().as_millis();
        let ms = u64::try_from(ms).unwrap_or(u64::MAX);
        connection.idle_since_ms.store(ms, Ordering::Relaxed);
        connection.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer, and with it its request.
#[derive(Debug)]
pub(super) struct UnderWayBody<B> {
    body: B,
    /// Held for its drop.
    _request: UnderWay,
}

impl<B: Body<Data = Bytes> + Unpin> Body for UnderWayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is half done where this could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_one_makes_room_and_none_that_is_at_work() {
        let connections = Connections::default();
        assert!(!connections.make_room(), "there is none");
        let [a, b] = [connections.open(), connections.open()];
        let at_work = a.connection().begin_request();
        assert!(connections.make_room());
        assert!(b.connection().cut.is_cancelled());
        assert!(
            !connections.make_room(),
            "one is at work, one is cut already"
        );
        drop(at_work);
        assert!(connections.make_room());
        assert!(a.connection().cut.is_cancelled());
        drop((a, b));
        assert!(lock(&connections.0).is_empty());
    }
}
