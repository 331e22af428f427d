//! The log of streams: each start and each end is a line.
//!
//! A gateway that comes and goes again and again gets some lines, and then one with a count
//! every ten seconds.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::count::lock;
use super::ends::{Cause, Ended};
use super::gateways::Gateway;
use super::start::{completeness, describe};
use crate::access::Peer;
use crate::engine::Replay;

/// What repeats is counted for so long.
const INTERVAL: Duration = Duration::from_secs(10);
/// So many lines a gateway gets in that time: three streams, or as many refusals.
const LINES: u32 = 6;
/// So many gateways are told apart in that time; of more there is only a count.
const MAX_GATEWAYS: usize = 1 << 16;
/// Of so many gateways it is told how many lines there were not, those with the most.
const REPORTED: usize = 20;

/// What has been logged of late.
#[derive(Debug)]
pub(super) struct StreamLog {
    recent: Mutex<Recent>,
    /// Whether somebody reports now and then. Whoever embeds streams in a server of its own
    /// has nobody who does.
    has_reporter: AtomicBool,
}

#[derive(Debug)]
struct Recent {
    since: Instant,
    /// How many lines there were, or would have been, by a hash of the id: ten thousand come
    /// at once when the server starts.
    lines: HashMap<u64, u32>,
    hasher: RandomState,
    /// How many there were not, of those with so many.
    more: HashMap<Box<str>, u32>,
    others: u64,
}

impl StreamLog {
    pub(super) fn new() -> Self {
        StreamLog {
            recent: Mutex::new(Recent {
                since: Instant::now(),
                lines: HashMap::new(),
                hasher: RandomState::new(),
                more: HashMap::new(),
                others: 0,
            }),
            has_reporter: AtomicBool::new(false),
        }
    }

    /// A stream has begun; `older` was subscribed under its id until then.
    pub(super) fn subscribed(
        &self,
        gateway: &Gateway,
        replay: Option<&Replay>,
        older: Option<&Gateway>,
    ) {
        if !self.has_room(gateway.id()) {
            return;
        }
        let start = gateway.start();
        let (resume, reason, missed) = describe(start.resume);
        tracing::info!(
            gateway = gateway.id(),
            peer = %gateway.peer(),
            principal = gateway.principal(),
            instance = gateway.instance(),
            resume = resume.as_str(),
            reason = reason.as_str(),
            missed,
            cursor = %start.cursor,
            revocations = replay.map(|replay| completeness(replay).as_str()),
            revocations_count = replay.map(Replay::left),
            older_peer = older.map(|older| tracing::field::display(older.peer())),
            older_principal = older.and_then(Gateway::principal),
            "{}",
            if older.is_some() { "subscribed, taking over" } else { "subscribed" }
        );
    }

    /// A stream has ended, or did not begin.
    pub(super) fn ended(&self, ended: &Ended) {
        let has_room = match (&*ended.id, ended.peer) {
            // No id has a control character.
            ("", Peer::Tcp(peer)) => self.has_room(&format!("\n{}", peer.ip())),
            (id, _) => self.has_room(id),
        };
        if !has_room {
            return;
        }
        /// Of one level or another.
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    gateway = &*ended.id,
                    peer = %ended.peer,
                    principal = ended.principal.as_deref(),
                    cause = ended.cause.as_str(),
                    lasted = ?ended.lasted,
                    events = ended.events,
                    bytes = ended.bytes,
                    missed = ended.missed,
                    cursor = ended.position.map(tracing::field::display),
                    "stream ended: {}",
                    ended.detail
                )
            };
        }
        match ended.cause {
            Cause::Refused => tracing::info!(
                gateway = &*ended.id,
                peer = %ended.peer,
                principal = ended.principal.as_deref(),
                "subscription refused: {}",
                ended.detail
            ),
            Cause::Lapped | Cause::Stalled => log!(warn),
            _ => log!(info),
        }
    }

    fn has_room(&self, id: &str) -> bool {
        if !self.has_reporter.load(Ordering::Relaxed) {
            self.report(Instant::now());
        }
        let mut recent = lock(&self.recent);
        let recent = &mut *recent;
        let id_hash = recent.hasher.hash_one(id);
        if recent.lines.len() == MAX_GATEWAYS && !recent.lines.contains_key(&id_hash) {
            recent.others += 1;
            return false;
        }
        let lines = recent.lines.entry(id_hash).or_default();
        if *lines < LINES {
            *lines += 1;
            return true;
        }
        match recent.more.get_mut(id) {
            Some(more) => *more = more.saturating_add(1),
            None => _ = recent.more.insert(id.into(), 1),
        }
        false
    }

    /// From here on [`report`](Self::report) is called now and then.
    pub(super) fn will_be_reported(&self) {
        self.has_reporter.store(true, Ordering::Relaxed);
    }

    /// Logs what was counted, when it is time to.
    pub(super) fn report(&self, now: Instant) {
        let mut recent = lock(&self.recent);
        if now.saturating_duration_since(recent.since) < INTERVAL {
            return;
        }
        recent.since = now;
        recent.lines = HashMap::new();
        let more = std::mem::take(&mut recent.more);
        let others = std::mem::take(&mut recent.others);
        drop(recent);
        let mut more: Vec<_> = more.into_iter().map(|(id, more)| (more, id)).collect();
        more.sort_unstable_by(|a, b| b.cmp(a));
        for (more, id) in more.iter().take(REPORTED) {
            tracing::warn!(
                gateway = &**id,
                "{more} more starts and ends of its streams in {INTERVAL:?}"
            );
        }
        let of_others = more.iter().skip(REPORTED).map(|(more, _)| u64::from(*more));
        let others = others + of_others.sum::<u64>();
        if others > 0 {
            tracing::warn!("{others} more starts and ends of streams in {INTERVAL:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_comes_and_goes_gets_some_lines_and_hides_nobody() {
        let log = StreamLog::new();
        let lines = (0..1000).filter(|_| log.has_room("g")).count();
        assert_eq!(lines, LINES as usize);
        assert!(log.has_room("other"));
        log.report(Instant::now());
        assert!(!log.has_room("g"), "its time is not over");
        log.report(Instant::now() + INTERVAL);
        assert!(log.has_room("g"));
    }

    #[test]
    fn what_is_told_apart_is_bounded() {
        let log = StreamLog::new();
        for n in 0..100_000 {
            log.has_room(&n.to_string());
        }
        let recent = lock(&log.recent);
        assert_eq!(recent.lines.len(), MAX_GATEWAYS);
        assert_eq!(recent.others, 100_000 - MAX_GATEWAYS as u64);
    }
}
