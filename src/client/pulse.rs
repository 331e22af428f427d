//! When something of a response came last. A large event takes long over a slow link, and is
//! no silence: hyper hands on whole frames, so what the connection has brought counts too, where
//! it is more than the PINGs of whoever is at its other end.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use tonic::body::Body;

use super::wire::Notes;

/// How long the connection gets to bring what has arrived already, once a stream seems silent:
/// this process may have been busy, or stopped, for all that time.
const GRACE: Duration = Duration::from_secs(1);
/// What is brought meanwhile by a connection whose other end is a proxy, of a server that is
/// gone, is less: a PING and an answer are 34 bytes, and so many more come in each second.
const PART_BYTES: u64 = 2 << 10;
const PING_BYTES_PER_SECOND: u64 = 64;

/// Goes along with a request, in its extensions. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    /// How long there may be nothing.
    limit: Duration,
    beat: Arc<Mutex<Beat>>,
    /// Of the connection, once there is one.
    notes: Arc<OnceLock<Notes>>,
}

#[derive(Debug)]
struct Beat {
    last: Instant,
    /// What the connection had brought by then.
    received_bytes: u64,
    /// Until when the stream that seemed silent is waited for.
    grace: Option<Instant>,
}

impl Pulse {
    pub(super) fn new(limit: Duration) -> Self {
        let beat = Beat {
            last: Instant::now(),
            received_bytes: 0,
            grace: None,
        };
        Pulse {
            limit,
            beat: Arc::new(Mutex::new(beat)),
            notes: Arc::default(),
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Beat) -> T) -> T {
        look(&mut self.beat.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Something came.
    fn beat(&self) {
        let (last, received_bytes) = (Instant::now(), self.received_bytes());
        self.with(|beat| {
            *beat = Beat {
                last,
                received_bytes,
                grace: None,
            };
        });
    }

    fn received_bytes(&self) -> u64 {
        self.notes.get().map_or(0, Notes::received_bytes)
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Instant {
        self.with(|beat| beat.grace.unwrap_or(beat.last + self.limit))
    }

    /// For how long there was nothing, if that is too long now.
    pub(super) fn silence(&self) -> Option<Duration> {
        let now = Instant::now();
        let received_bytes = self.received_bytes();
        self.with(|beat| {
            let pings = PING_BYTES_PER_SECOND * (now - beat.last).as_secs();
            if received_bytes.saturating_sub(beat.received_bytes) >= PART_BYTES + pings {
                *beat = Beat {
                    last: now,
                    received_bytes,
                    grace: None,
                };
                return None;
            }
            if now < beat.last + self.limit {
                return None;
            }
            let grace = *beat.grace.get_or_insert(now + GRACE);
            (now >= grace).then(|| now - beat.last)
        })
    }

    /// The response of the request that it goes along with, over this connection, where each
    /// piece of the body is noted.
    pub(super) fn watch(self, response: Response<Body>, connection: Notes) -> Response<Body> {
        let _ = self.notes.set(connection);
        self.beat();
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                self.beat();
                frame
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn silence_is_noticed_after_some_grace() {
        let second = Duration::from_secs(1);
        let pulse = Pulse::new(4 * second);
        advance(3 * second).await;
        assert_eq!(pulse.silence(), None);
        pulse.beat();
        assert_eq!(pulse.deadline(), Instant::now() + 4 * second);
        // Nobody looked for long.
        advance(60 * second).await;
        assert_eq!(pulse.silence(), None);
        assert_eq!(pulse.deadline(), Instant::now() + GRACE);
        let other = pulse.clone();
        advance(GRACE).await;
        assert_eq!(other.silence(), Some(60 * second + GRACE));
        pulse.beat();
        assert_eq!(other.silence(), None);
    }
}
