//! How much a peer may ask for without taking anything.
//!
//! Every frame costs its sender next to nothing, and us a little: floods of pings, of
//! settings, of streams that are reset at once (CVE-2023-44487), of empty frames, of
//! window updates by a byte. All of them spend from one budget. It fills with time, as
//! fast as honest peers need who only keep a connection alive; with every frame of data
//! that the peer is sent, since those are what it answers with pings and window updates;
//! and with every request that it has sent in full and that is answered.
//!
//! Frames that bring data to somebody are free: the windows bound them.

use std::time::{Duration, Instant};

/// What a peer may spend at once: enough for a proxy that subscribes all its gateways.
const FULL: u32 = 4096;
/// What it gets back each second.
const EACH_SECOND: u32 = 128;
/// What it gets for each frame of data: an acknowledgement, a ping and an update of each
/// window.
const EACH_DATA_FRAME: u32 = 4;

/// What it gets for a request that was answered: that request again, with its frames.
const EACH_ANSWER: u32 = 16;

/// What any frame costs that brings no data.
pub(super) const FRAME: u32 = 1;
/// What a setting costs in addition.
pub(super) const SETTING: u32 = 1;
/// What a request costs, answered or not.
pub(super) const REQUEST: u32 = 8;

#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    filled: Option<Instant>,
}

impl Budget {
    pub(super) fn new() -> Self {
        Budget {
            left: FULL,
            filled: None,
        }
    }

    /// Time has come to `now`.
    pub(super) fn tick(&mut self, now: Instant) {
        let since = now.saturating_duration_since(*self.filled.get_or_insert(now));
        if since >= Duration::from_secs(1) {
            let seconds = u32::try_from(since.as_secs()).unwrap_or(u32::MAX);
            self.add(seconds.saturating_mul(EACH_SECOND));
            self.filled = Some(now);
        }
    }

    /// The peer is sent data.
    pub(super) fn data_frame(&mut self) {
        self.add(EACH_DATA_FRAME);
    }

    /// So many of the peer's requests were answered.
    pub(super) fn answered(&mut self, requests: u32) {
        self.add(EACH_ANSWER.saturating_mul(requests));
    }

    /// Says whether there was as much left.
    #[must_use]
    pub(super) fn spend(&mut self, cost: u32) -> bool {
        let enough = self.left >= cost;
        self.left = self.left.saturating_sub(cost);
        enough
    }

    fn add(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(FULL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_and_comes_back_with_time_and_data() {
        let mut budget = Budget::new();
        let start = Instant::now();
        budget.tick(start);
        assert!(budget.spend(FULL));
        assert!(!budget.spend(1));
        budget.data_frame();
        assert!(budget.spend(EACH_DATA_FRAME));
        assert!(!budget.spend(1));
        budget.tick(start + Duration::from_millis(999));
        assert!(!budget.spend(1));
        budget.tick(start + Duration::from_secs(3600));
        assert!(budget.spend(FULL), "full again");
        assert!(!budget.spend(1), "and no more than full");
    }
}
