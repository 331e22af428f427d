//! What the tests of this room share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use super::socket::{Socket, Stream};
use crate::access::Peer;
use crate::http2::frame::{DEFAULT_FRAME_BYTES, INITIAL_WINDOW};
use crate::http2::request::RequestHead;
use crate::http2::server::{Limits, Response};
use crate::service::Caller;
use crate::service::{Abandoned, EndCause, Progress, Refusal, Service, Turn};

/// A socket in the only slot of its listener, and its peer.
pub(super) fn pair() -> (Socket, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    (
        Socket::new(Stream::Unix(ours), Peer::Unix { uid: None }.into(), slot),
        theirs,
    )
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

/// A service whose calls do nothing by themselves: tests give them their data.
#[derive(Debug)]
pub(super) struct Feed;

impl Service for Feed {
    type Call = ();
    type Data = Arc<[u8]>;

    const LIMITS: Limits = Limits {
        max_streams: 10,
        max_field_bytes: 1000,
        stream_window: INITIAL_WINDOW,
        connection_window: INITIAL_WINDOW,
        max_frame_bytes: DEFAULT_FRAME_BYTES,
    };
    const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
    const KEPT_OUTPUT_BYTES: usize = 0;

    fn open(&mut self, _request: &RequestHead, _caller: &Caller) -> Result<(), Refusal> {
        Ok(())
    }

    fn poll(&mut self, _call: &mut (), _turn: Turn<'_>, _cx: &mut Context<'_>) -> Progress {
        Progress::default()
    }

    fn poll_data(&mut self, _call: &mut (), _cx: &mut Context<'_>) -> Poll<Option<Arc<[u8]>>> {
        Poll::Pending
    }

    fn end(&mut self, _call: &mut (), _cause: EndCause, _response: Response<'_>) -> usize {
        0
    }

    fn abandoned(&mut self, _: &mut (), _: Abandoned, _: Option<(&Arc<[u8]>, usize)>) {}

    fn describe(&self, _call: &()) -> String {
        "a feed".to_owned()
    }
}
