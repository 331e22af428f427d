//! Somebody who reads along without being a gateway.

use super::batch::Batch;
use super::error::TryRecvError;
use super::ring::{Read, Reader};
use super::shared::Shared;
use super::subscriber::DEFAULT_MAX_BATCH_BYTES;
use super::sync::{Arc, Ordering};

/// Reads what is published, from the head at its start on. It is for looking: it is not
/// woken, so its owner comes back from time to time.
///
/// It holds one segment of the ring, as a slow gateway does, until it reads on or is dropped.
///
/// ```
/// use galaxy_push::engine::{Engine, TryRecvError};
/// use galaxy_push::event::Event;
///
/// let engine = Engine::builder().build()?;
/// let mut observer = engine.observe();
/// // PushEvent { client_event: { user_id: "u", kind: "k" } }
/// engine.publisher().publish(Event::parse(b"\x0a\x06\x0a\x01u\x1a\x01k")?)?;
/// assert_eq!(observer.try_recv()?.last(), engine.head());
/// assert_eq!(observer.try_recv().unwrap_err(), TryRecvError::Empty);
/// assert_eq!(engine.stats().subscribers, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Observer {
    shared: Arc<Shared>,
    reader: Reader,
}

impl Observer {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Observer {
            reader: Reader::after(shared.ring.head()),
            shared: Arc::clone(shared),
        }
    }

    /// What was published since the last call, or a part of it.
    ///
    /// # Errors
    ///
    /// [`TryRecvError::Empty`] when everything was read; [`TryRecvError::Lagged`] when the
    /// ring has dropped events before they were read, and the next call goes on after them;
    /// [`TryRecvError::Closed`] is final.
    pub fn try_recv(&mut self) -> Result<Batch, TryRecvError> {
        let shared = &*self.shared;
        // Acquire: pairs with the Release in `Engine::abort`.
        if shared.aborted.load(Ordering::Acquire) {
            return Err(TryRecvError::Closed);
        }
        match shared.ring.read(&mut self.reader, DEFAULT_MAX_BATCH_BYTES) {
            Read::Nothing if shared.ring.ends_at(self.reader.seq()) => Err(TryRecvError::Closed),
            Read::Nothing => Err(TryRecvError::Empty),
            Read::Span(span) => {
                self.reader.advance(&span);
                Ok(Batch::new(span, shared.ring.epoch()))
            }
            Read::Lagged(missed) => {
                self.reader.skip(missed);
                Err(TryRecvError::Lagged(missed))
            }
        }
    }
}
