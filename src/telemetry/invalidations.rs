//! The session invalidations that were published last, and their log.
//!
//! The contract asks that both sides log the reason of each: here is our side. Each is a line
//! of its own, whatever their number, with the target `galaxy_push::invalidations`. Threads that
//! deliver only put it into a queue.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use crossbeam::queue::SegQueue;
use prost::Message;

use super::count::lock;
use crate::contract::push::push_event::Kind;
use crate::contract::push::{PushEvent, SessionInvalidation};
use crate::cursor::Cursor;

/// So many are kept.
const KEPT: usize = 1000;
/// Of each text of a publisher's so many bytes are kept, and logged.
const MAX_TEXT_BYTES: usize = 1024;
/// Of those that wait to be logged.
const MAX_QUEUED_BYTES: usize = 16 << 20;
/// So many are logged at once: what writes the log has to keep up.
pub(super) const LOGGED_AT_ONCE: usize = 2000;

/// A session invalidation that was published.
#[derive(Clone, Debug)]
pub(crate) struct Invalidation {
    pub(crate) at: SystemTime,
    pub(crate) cursor: Cursor,
    pub(crate) user_id: Box<str>,
    /// Empty: all sessions of the user.
    pub(crate) device_session_id: Box<str>,
    pub(crate) reason: Box<str>,
}

/// Those that are to be logged, and the newest of those that are.
#[derive(Debug, Default)]
pub(super) struct Invalidations {
    queue: SegQueue<(Cursor, Box<[u8]>)>,
    queued_bytes: AtomicUsize,
    recent: Mutex<VecDeque<Arc<Invalidation>>>,
}

impl Invalidations {
    /// One was published: the event as its publisher encoded it. It is logged in a moment, by
    /// another thread; where too many wait for that, by this one.
    pub(super) fn published(&self, cursor: Cursor, event: &[u8]) {
        // Relaxed, here and below: a bound, and no more.
        self.queued_bytes.fetch_add(event.len(), Ordering::Relaxed);
        self.queue.push((cursor, event.into()));
        while self.queued_bytes.load(Ordering::Relaxed) > MAX_QUEUED_BYTES {
            self.log(1);
        }
    }

    /// Logs and keeps those that wait, up to so many.
    pub(super) fn log(&self, most: usize) {
        for _ in 0..most {
            let Some((cursor, event)) = self.queue.pop() else {
                return;
            };
            self.queued_bytes.fetch_sub(event.len(), Ordering::Relaxed);
            // An event is what prost accepts.
            let kind = PushEvent::decode(&*event).ok().and_then(|event| event.kind);
            if let Some(Kind::SessionInvalidation(invalidation)) = kind {
                self.log_one(cursor, &invalidation);
            }
        }
    }

    fn log_one(&self, cursor: Cursor, invalidation: &SessionInvalidation) {
        let invalidation = Invalidation {
            at: SystemTime::now(),
            cursor,
            user_id: shortened(&invalidation.user_id),
            device_session_id: shortened(&invalidation.device_session_id),
            reason: shortened(&invalidation.reason),
        };
        tracing::info!(
            target: "galaxy_push::invalidations",
            user = &*invalidation.user_id,
            session = &*invalidation.device_session_id,
            reason = &*invalidation.reason,
            %cursor,
            "session invalidated"
        );
        let mut recent = lock(&self.recent);
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(Arc::new(invalidation));
    }

    /// The newest that is kept.
    pub(super) fn last(&self) -> Option<Arc<Invalidation>> {
        self.log(LOGGED_AT_ONCE);
        lock(&self.recent).back().cloned()
    }

    /// Those that are kept, the newest first.
    pub(super) fn newest(&self) -> Vec<Arc<Invalidation>> {
        self.log(LOGGED_AT_ONCE);
        lock(&self.recent).iter().rev().cloned().collect()
    }
}

/// The text, or the beginning of it: a thousand of the longest must not fill the memory.
fn shortened(text: &str) -> Box<str> {
    if text.len() <= MAX_TEXT_BYTES {
        return text.into();
    }
    let most = MAX_TEXT_BYTES - "…".len();
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at));
    format!("{}…", &text[..end.unwrap_or(0)]).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::{Epoch, Seq};

    fn event(user: &str, reason: &str) -> Vec<u8> {
        let invalidation = SessionInvalidation {
            user_id: user.to_owned(),
            reason: reason.to_owned(),
            ..SessionInvalidation::default()
        };
        PushEvent {
            kind: Some(Kind::SessionInvalidation(invalidation)),
            cursor: String::new(),
        }
        .encode_to_vec()
    }

    #[test]
    fn the_newest_are_kept_and_none_is_large() {
        let epoch = Epoch::new(1_700_000_000_000, 0).unwrap();
        let invalidations = Invalidations::default();
        let long = "ü".repeat(10_000);
        for n in 1..=1500 {
            let cursor = Cursor::new(epoch, Seq::new(n));
            invalidations.published(cursor, &event(&format!("u{n}"), &long));
        }
        let newest = invalidations.newest();
        assert_eq!(newest.len(), KEPT);
        assert_eq!(&*newest[0].user_id, "u1500");
        assert_eq!(&*newest[KEPT - 1].user_id, "u501");
        let reason = &newest[0].reason;
        assert!(reason.len() <= MAX_TEXT_BYTES && reason.ends_with("ü…"));
    }

    #[test]
    fn whoever_publishes_more_than_is_logged_logs_itself() {
        let epoch = Epoch::new(1_700_000_000_000, 0).unwrap();
        let invalidations = Invalidations::default();
        let large = event("u", &"r".repeat(64 << 10));
        for n in 1..=1000 {
            invalidations.published(Cursor::new(epoch, Seq::new(n)), &large);
        }
        let queued = invalidations.queued_bytes.load(Ordering::Relaxed);
        assert!(queued <= MAX_QUEUED_BYTES, "{queued}");
        assert!(!lock(&invalidations.recent).is_empty());
        invalidations.log(usize::MAX);
        assert_eq!(invalidations.queued_bytes.load(Ordering::Relaxed), 0);
    }
}
