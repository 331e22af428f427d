//! What the tests of this room share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use super::handle::Peer;
use super::socket::{Socket, Stream};

/// A socket in the only slot of its listener, and its peer.
pub(super) fn pair() -> (Socket, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    (Socket::new(Stream::Unix(ours), Peer::Unix, slot), theirs)
}

/// Counts how often its waker is woken.
#[derive(Default)]
pub(super) struct Wakes(AtomicUsize);

impl Wakes {
    pub(super) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
