//! How much a peer may have the server do for nothing.
//!
//! Every frame costs its sender next to nothing, and us a little: floods of pings, of
//! settings, of streams that are reset at once (CVE-2023-44487), or that we are made to reset
//! (CVE-2025-8671), of empty frames, of header blocks without end (CVE-2024-27316), of
//! windows opened by a byte. All of them spend from one budget; the error that ends the
//! connection names what most of it was spent on.
//!
//! # What things cost
//!
//! A unit is some 2 µs of a core. Costs are what the server really spends, rounded up:
//!
//! | what | units | why |
//! |---|---|---|
//! | a frame that brings no data | 1 | finding it, and its acknowledgement |
//! | a setting | 1, and 1 for 16 streams | a window's size is added to that of every stream |
//! | 256 octets of header fields | 1 | decoding; counted as RFC 7541 does: an index of one octet can stand for 4 KiB |
//! | a request | 8 | a stream, its call, and its response |
//! | a request that is refused by itself | 2 | RST_STREAM |
//! | a stream error | 8 | RST_STREAM, and the end of a call |
//!
//! A DATA frame that brings something to somebody is free: the windows bound those.
//!
//! # What gives it back
//!
//! - Time. A connection has [`BASE_RATE`] a second: 2 ms. With a stream on it that is well,
//!   which is one whose response has begun and that has not ended, it has [`LIVE_RATE`] more,
//!   and for each further one [`STREAM_RATE`]. A proxy brings its neighbours' retries,
//!   takeovers, cancels, deadlines and health probes on one connection with gateways that are
//!   well. 50 a second of each are 250 requests of some 12 units. So honest peers never get to
//!   the end of it, and whoever abuses it gets hold of 1 to 4 % of a core.
//! - DATA frames that the peer is sent. Peers answer them by WINDOW_UPDATE on both windows,
//!   and PING to measure the path. Not those of a few bytes: a peer that opens windows by a
//!   byte has us send as many frames as it does.
//! - Requests that were answered in full. Their sender did not ask for nothing.
//!
//! # At its end
//!
//! The last [`RESERVE`] is not spent on requests: new streams are refused, one by one, and the
//! open ones go on. If the peer goes on as well until nothing is left, it is a flood: the
//! connection ends.

use std::time::Instant;

use crate::http2::error::Error;

/// What a peer may spend at once: 16 ms. Enough for a proxy that subscribes all its gateways.
pub(super) const FULL: u32 = 8192;
/// What is not spent on requests.
pub(super) const RESERVE: u32 = FULL / 4;
/// What it gets back each second.
const BASE_RATE: u64 = 1024;
/// The same in addition if any stream is well, and for each that is.
const LIVE_RATE: u64 = 4096;
const STREAM_RATE: u64 = 64;
/// What it gets for a frame of data: an acknowledgement, a ping and an update of each window.
const EACH_DATA_FRAME: u32 = 4;
/// A frame of data that is worth that has as many bytes: a gRPC message with its prefix and a
/// cursor has more.
const DATA_FRAME_BYTES: u32 = 16;
/// What it gets for a request that was answered: that request again, with its frames.
const EACH_ANSWER: u32 = 16;

/// What any frame costs that brings no data.
pub(super) const FRAME: u32 = 1;
/// What a setting costs in addition, and for how many streams as much again.
pub(super) const SETTING: u32 = 1;
pub(super) const STREAMS_OF_SETTING: u32 = 16;
/// What a request costs, answered or not.
pub(super) const REQUEST: u32 = 8;
/// What a request costs that is refused.
pub(super) const REFUSAL: u32 = 2;
/// What a stream error costs.
pub(super) const STREAM_ERROR: u32 = 8;
/// Octets of header fields that cost one.
pub(super) const HEADER_OCTETS: usize = 256;

/// What is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// HEADERS of requests.
    Requests,
    /// RST_STREAM, and the requests that it ends.
    Resets,
    /// Streams that the peer made us reset, and their requests.
    StreamErrors,
    Headers,
    Continuations,
    /// DATA that brings nothing, or that nobody wants.
    UselessData,
    Settings,
    Pings,
    WindowUpdates,
    /// Frames of any other type.
    Others,
}

const CAUSES: [Cause; 10] = [
    Cause::Requests,
    Cause::Resets,
    Cause::StreamErrors,
    Cause::Headers,
    Cause::Continuations,
    Cause::UselessData,
    Cause::Settings,
    Cause::Pings,
    Cause::WindowUpdates,
    Cause::Others,
];

impl Cause {
    fn error(self) -> Error {
        Error::calm(match self {
            Cause::Requests => "too many requests",
            Cause::Resets => "too many streams reset by the peer",
            Cause::StreamErrors => "too many stream errors",
            Cause::Headers => "too many header fields",
            Cause::Continuations => "too many CONTINUATION frames",
            Cause::UselessData => "too many DATA frames that are empty or on closed streams",
            Cause::Settings => "too many SETTINGS",
            Cause::Pings => "too many PING frames",
            Cause::WindowUpdates => "too many WINDOW_UPDATE frames",
            Cause::Others => "too many frames",
        })
    }
}

#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    /// What was spent on each cause of late.
    spent: [u16; CAUSES.len()],
    /// As late as it was told, and until when time has given something back.
    now: Option<Instant>,
    filled: Option<Instant>,
}

impl Budget {
    pub(super) fn new() -> Self {
        Budget {
            left: FULL,
            spent: [0; CAUSES.len()],
            now: None,
            filled: None,
        }
    }

    /// Time has come to `now`.
    pub(super) fn tick(&mut self, now: Instant) {
        self.now = Some(now);
        self.filled.get_or_insert(now);
    }

    /// Gives back what time does, to a connection on which so many streams are well.
    pub(super) fn refill(&mut self, live_streams: usize) {
        let (Some(now), Some(filled)) = (self.now, self.filled) else {
            return;
        };
        let since_ms = now.saturating_duration_since(filled).as_millis();
        let since_ms = u64::try_from(since_ms).unwrap_or(u64::MAX);
        let live = live_streams as u64;
        let rate = BASE_RATE + if live > 0 { LIVE_RATE } else { 0 } + live * STREAM_RATE;
        let more = rate.saturating_mul(since_ms) / 1000;
        if more > 0 {
            self.filled = Some(now);
            self.add(u32::try_from(more).unwrap_or(u32::MAX));
            // What is long past is no reason.
            let part = more.min(u64::from(FULL));
            for spent in &mut self.spent {
                *spent -= (u64::from(*spent) * part / u64::from(FULL)) as u16;
            }
        }
    }

    /// The peer is sent a DATA frame of so many bytes.
    pub(super) fn data_frame(&mut self, bytes: u32) {
        if bytes >= DATA_FRAME_BYTES {
            self.add(EACH_DATA_FRAME);
        }
    }

    /// So many of the peer's requests were answered.
    pub(super) fn answered(&mut self, requests: u32) {
        self.add(EACH_ANSWER.saturating_mul(requests));
    }

    pub(super) fn left(&self) -> u32 {
        self.left
    }

    /// Spends, if as much is left.
    #[must_use]
    pub(super) fn spend(&mut self, cause: Cause, cost: u32) -> bool {
        let Some(left) = self.left.checked_sub(cost) else {
            return false;
        };
        self.left = left;
        self.note(cause, cost);
        true
    }

    /// Something was spent on the peer's request, which this has made useless.
    pub(super) fn blame_request_on(&mut self, cause: Cause) {
        let requests = &mut self.spent[Cause::Requests as usize];
        *requests = requests.saturating_sub(REQUEST as u16);
        self.note(cause, REQUEST);
    }

    fn note(&mut self, cause: Cause, cost: u32) {
        let spent = &mut self.spent[cause as usize];
        *spent = spent.saturating_add(u16::try_from(cost).unwrap_or(u16::MAX));
    }

    /// Nothing was left for this.
    pub(super) fn exhausted(&mut self, cause: Cause, cost: u32) -> Error {
        self.note(cause, cost);
        let most = CAUSES.iter().max_by_key(|&&of| self.spent[of as usize]);
        most.copied().unwrap_or(cause).error()
    }

    fn add(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(FULL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn it_comes_back_with_time_data_and_answers() {
        let mut budget = Budget::new();
        let start = Instant::now();
        budget.tick(start);
        assert!(budget.spend(Cause::Pings, FULL));
        assert!(!budget.spend(Cause::Pings, 1));
        budget.data_frame(DATA_FRAME_BYTES - 1);
        assert_eq!(budget.left(), 0, "a frame of a few bytes");
        budget.data_frame(DATA_FRAME_BYTES);
        assert_eq!(budget.left(), EACH_DATA_FRAME);
        budget.answered(2);
        assert!(budget.spend(Cause::Requests, EACH_DATA_FRAME + 2 * EACH_ANSWER));
        for (seconds, live_streams, more) in [(1, 0, 1024), (2, 1, 1024 + 4096 + 64), (2, 1, 0)] {
            budget.tick(start + Duration::from_secs(seconds));
            budget.refill(live_streams);
            assert_eq!(budget.left(), more);
            assert!(budget.spend(Cause::Pings, more));
        }
        budget.tick(start + Duration::from_secs(3600));
        budget.refill(0);
        assert_eq!(budget.left(), FULL, "and no more than full");
    }

    #[test]
    fn what_is_asked_for_often_is_not_lost_in_rounding() {
        let mut budget = Budget::new();
        let start = Instant::now();
        budget.tick(start);
        assert!(budget.spend(Cause::Pings, FULL));
        for ns in (0..=1_000_000_000).step_by(300_000) {
            budget.tick(start + Duration::from_nanos(ns));
            budget.refill(0);
        }
        assert!(budget.left() > 500, "{}", budget.left());
    }

    #[test]
    fn the_reason_is_what_most_was_spent_on() {
        let mut budget = Budget::new();
        for _ in 0..10 {
            assert!(budget.spend(Cause::Requests, REQUEST + FRAME));
            assert!(budget.spend(Cause::Resets, FRAME));
            budget.blame_request_on(Cause::Resets);
        }
        let error = budget.exhausted(Cause::Requests, REQUEST);
        assert_eq!(error.text, "too many streams reset by the peer");
    }

    #[test]
    fn causes_are_found_by_their_number() {
        for (n, cause) in CAUSES.iter().enumerate() {
            assert_eq!(*cause as usize, n);
        }
    }
}
