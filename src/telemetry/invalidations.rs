//! The session invalidations that were published last, and their log.
//!
//! The contract asks that both sides log the reason of each: here is our side. Each is a line
//! of its own, whatever their number, with the target `galaxy_push::invalidations`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::count::lock;
use crate::cursor::Cursor;

/// So many are kept.
const KEPT: usize = 1000;
/// Of each text of a publisher's so many bytes are kept.
const MAX_TEXT_BYTES: usize = 1024;

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

/// The newest of them.
#[derive(Debug, Default)]
pub(super) struct RecentInvalidations(Mutex<VecDeque<Arc<Invalidation>>>);

impl RecentInvalidations {
    /// Logs and keeps one.
    pub(super) fn publish(&self, cursor: Cursor, user_id: &str, session_id: &str, reason: &str) {
        tracing::info!(
            target: "galaxy_push::invalidations",
            user = user_id,
            session = session_id,
            reason,
            %cursor,
            "session invalidated"
        );
        let invalidation = Invalidation {
            at: SystemTime::now(),
            cursor,
            user_id: shortened(user_id),
            device_session_id: shortened(session_id),
            reason: shortened(reason),
        };
        let mut recent = lock(&self.0);
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(Arc::new(invalidation));
    }

    /// The newest.
    pub(super) fn last(&self) -> Option<Arc<Invalidation>> {
        lock(&self.0).back().cloned()
    }

    /// Those that are kept, the newest first.
    pub(super) fn newest(&self) -> Vec<Arc<Invalidation>> {
        lock(&self.0).iter().rev().cloned().collect()
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

    #[test]
    fn the_newest_are_kept_and_none_is_large() {
        let epoch = Epoch::new(1_700_000_000_000, 0).unwrap();
        let recent = RecentInvalidations::default();
        let long = "ü".repeat(10_000);
        for n in 1..=1500 {
            let cursor = Cursor::new(epoch, Seq::new(n));
            recent.publish(cursor, &format!("u{n}"), "", &long);
        }
        let newest = recent.newest();
        assert_eq!(newest.len(), KEPT);
        assert_eq!(&*newest[0].user_id, "u1500");
        assert_eq!(&*newest[KEPT - 1].user_id, "u501");
        let reason = &newest[0].reason;
        assert!(reason.len() <= MAX_TEXT_BYTES && reason.ends_with("ü…"));
    }
}
