//! The open connections: which of them does nothing.
//!
//! There are few places, and whoever reaches the listener can take one. So nobody keeps one
//! for nothing: where all are taken, the connection that has been idle for the longest time
//! makes room. Health checks come through whatever others do.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// For so long a connection may have no request under way.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A request of which nothing was taken for so long is as good as none.
const STUCK: Duration = Duration::from_secs(30);

/// All that are open.
#[derive(Debug, Default)]
pub(super) struct Connections(Arc<Mutex<Vec<Arc<Connection>>>>);

/// One of them.
#[derive(Debug)]
pub(super) struct Connection {
    began: Instant,
    /// Whether it has a place, and does not wait for one.
    has_place: AtomicBool,
    requests: AtomicU64,
    /// When one of them got on last, or ended: in milliseconds after `began`.
    moved_at_ms: AtomicU64,
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
            has_place: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            moved_at_ms: AtomicU64::new(0),
            cut: CancellationToken::new(),
        });
        lock(&self.0).push(Arc::clone(&connection));
        Open {
            all: Arc::clone(&self.0),
            connection,
        }
    }

    /// Cuts the one that has been idle for the longest time, be it that it waits for a place.
    /// Returns whether there was one.
    pub(super) fn make_room(&self) -> bool {
        Self::cut_one(&self.0, |_| true)
    }

    fn cut_one(all: &Mutex<Vec<Arc<Connection>>>, may_be: impl Fn(&Connection) -> bool) -> bool {
        let all = lock(all);
        let candidates = all.iter().filter(|connection| may_be(connection));
        let idle = candidates.filter_map(|connection| {
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

    /// From here on it has a place.
    pub(super) fn has_place(&self) {
        // Relaxed: one thread does all of it.
        self.connection.has_place.store(true, Ordering::Relaxed);
    }

    /// It still waits for a place: the one that was cut for it may have left its own to
    /// another. Cuts one that has a place.
    pub(super) fn still_waits(&self) {
        Connections::cut_one(&self.all, |other| other.has_place.load(Ordering::Relaxed));
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
        let moved_at = Duration::from_millis(self.moved_at_ms.load(Ordering::Relaxed));
        let since = self.began + moved_at;
        let is_idle = self.requests.load(Ordering::Relaxed) == 0 || since.elapsed() > STUCK;
        is_idle.then_some(since)
    }

    fn moved(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_at_ms.store(ms, Ordering::Relaxed);
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
        self.moved();
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
            request: self,
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.moved();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer, and with it its request.
#[derive(Debug)]
pub(super) struct UnderWayBody<B> {
    body: B,
    request: UnderWay,
}

impl<B: Body<Data = Bytes> + Unpin> Body for UnderWayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.request.0.moved();
        }
        polled
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
