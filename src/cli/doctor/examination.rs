//! What is wrong, from what the server answers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::admin::api;
use crate::command::text::{bytes, count, seconds};

/// What the server has answered.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) status: api::Status,
    /// Those that are furthest behind first.
    pub(super) gateways: Vec<api::Gateway>,
    /// The newest first.
    pub(super) ends: Vec<api::End>,
    pub(super) now: SystemTime,
}

/// Something to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// For programs.
    pub(super) name: &'static str,
    pub(super) what: String,
    /// What to do.
    pub(super) advice: String,
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Something is wrong, or soon will be.
    Problem,
    /// Worth knowing.
    Note,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Problem => "problem",
            Level::Note => "note",
        })
    }
}

/// Ends that are older say nothing about today.
const RECENT: Duration = Duration::from_secs(60 * 60);
/// An id that was taken over so often of late is in use twice.
const TAKEOVERS: usize = 3;
/// A gateway whose streams end so often of late cannot hold one.
const FLAPS: usize = 6;
/// So many ids are named.
const NAMED: usize = 5;
/// A share of a limit that is near it.
const NEAR: f64 = 0.85;
const DAY: f64 = 24.0 * 60.0 * 60.0;

/// What is wrong, the worst first.
pub(super) fn examine(seen: &Seen) -> Vec<Finding> {
    let mut findings = Findings::default();
    checks(seen, &mut findings);
    lagging(seen, &mut findings);
    cut(seen, &mut findings);
    away(seen, &mut findings);
    reach(seen, &mut findings);
    contested(seen, &mut findings);
    credentials(seen, &mut findings);
    resources(seen, &mut findings);
    certificates(seen, &mut findings);
    configuration(seen, &mut findings);
    findings.0.sort_by_key(|finding| finding.level);
    findings.0
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, name: &'static str, what: String, advice: &str) {
        self.0.push(Finding {
            level,
            name,
            what,
            advice: advice.to_owned(),
        });
    }

    fn problem(&mut self, name: &'static str, what: String, advice: &str) {
        self.add(Level::Problem, name, what, advice);
    }

    fn note(&mut self, name: &'static str, what: String, advice: &str) {
        self.add(Level::Note, name, what, advice);
    }
}

fn checks(seen: &Seen, findings: &mut Findings) {
    for check in seen.status.checks.iter().filter(|check| !check.ok) {
        findings.problem(
            "not_ready",
            format!("not ready: {}: {}", check.name, check.detail),
            "balancers send no gateways here while it lasts; the log says since when",
        );
    }
}

fn lagging(seen: &Seen, findings: &mut Findings) {
    let behind: Vec<&api::Gateway> = seen
        .gateways
        .iter()
        .filter(|of| of.state == "behind")
        .collect();
    let Some(worst) = behind.first() else {
        return;
    };
    findings.problem(
        "lagging",
        format!(
            "{}: {} is {} events and {} behind",
            many(behind.len(), "gateway lags", "gateways lag"),
            named(behind.iter().map(|of| &*of.id)),
            count(worst.lag_events),
            seconds(worst.lag_seconds)
        ),
        "it reads more slowly than events come: look at its processor and its network; when \
         the ring has turned once, it misses events and its stream ends with OUT_OF_RANGE",
    );
}

fn cut(seen: &Seen, findings: &mut Findings) {
    let lapped = recent(seen, "lapped");
    if !lapped.is_empty() {
        let missed: u64 = lapped.iter().map(|end| end.missed).sum();
        findings.problem(
            "lapped",
            format!(
                "{} in the last hour for being too slow for the ring ({} events missed): {}",
                many(lapped.len(), "stream was ended", "streams were ended"),
                count(missed),
                named(lapped.iter().map(|end| &*end.id))
            ),
            "give gateways more time with a larger --max-bytes or --max-events, or make them \
             faster; their sessions were suspect since, session invalidations included",
        );
    }
    let stalled = recent(seen, "stalled");
    if !stalled.is_empty() {
        findings.problem(
            "stalled",
            format!(
                "{} in the last hour for taking nothing for --stall-timeout: {}",
                many(stalled.len(), "stream was ended", "streams were ended"),
                named(stalled.iter().map(|end| &*end.id))
            ),
            "the gateway had stopped reading, or its host or network was gone: look there at \
             that time",
        );
    }
}

/// Gateways that came back: was the ring long enough for that?
fn away(seen: &Seen, findings: &mut Findings) {
    let expired: Vec<&api::Gateway> = seen
        .gateways
        .iter()
        .filter(|of| of.reason == "expired")
        .collect();
    let longest = seen.gateways.iter().filter_map(|gateway| {
        let since = time(&gateway.since)?;
        let mut ends = seen.ends.iter().filter(|end| end.id == gateway.id);
        let ended = ends.find_map(|end| time(&end.at).filter(|at| *at <= since))?;
        let away = since.duration_since(ended).ok()?.as_secs_f64();
        Some((away, gateway))
    });
    let longest = longest.max_by(|(a, _), (b, _)| a.total_cmp(b));
    let window = seen.status.ring.window_seconds;
    if let Some(first) = expired.first() {
        let away = longest.map_or(String::new(), |(away, of)| {
            format!(
                "; the longest absence seen was {} ({})",
                seconds(away),
                of.id
            )
        });
        findings.problem(
            "window_too_small",
            format!(
                "{} with a cursor that the ring no longer held: {} ({} events missed by {}){away}",
                many(expired.len(), "gateway came back", "gateways came back"),
                named(expired.iter().map(|of| &*of.id)),
                count(first.missed),
                first.id
            ),
            "gateways are away for longer than the ring reaches back: raise --window, and \
             --max-bytes or --max-events with it",
        );
    } else if let Some((away, gateway)) = longest
        && window > 0.0
        && away > window / 2.0
    {
        findings.note(
            "window_tight",
            format!(
                "{} was away for {}, which is more than half of the window of {}",
                gateway.id,
                seconds(away),
                seconds(window)
            ),
            "a longer absence starts fresh, with a gap: raise --window if such absences are \
             normal",
        );
    }
}

/// How far back the ring reaches.
fn reach(seen: &Seen, findings: &mut Findings) {
    let ring = &seen.status.ring;
    let by_events = ring.events as f64 >= ring.max_events as f64 * 0.99;
    let by_bytes = ring.bytes as f64 >= ring.max_bytes as f64 * 0.99;
    let old_enough = seen.status.uptime_seconds > ring.window_seconds;
    // Once memory is used it stays so: what counts is whether events have been dropped.
    let dropped = ring.newest_sequence > ring.events;
    if dropped
        && old_enough
        && (by_events || by_bytes)
        && ring.oldest_age_seconds < ring.window_seconds
    {
        let limit = if by_events {
            "--max-events"
        } else {
            "--max-bytes"
        };
        findings.note(
            "ring_shorter_than_window",
            format!(
                "the ring reaches back {}, less than the window of {}: {limit} is reached first",
                seconds(ring.oldest_age_seconds),
                seconds(ring.window_seconds)
            ),
            "gateways that are away for longer than that start fresh: raise that limit if they \
             should not",
        );
    }
    if ring.pinned_bytes as f64 > ring.max_bytes as f64 / 10.0 {
        findings.problem(
            "pinned_memory",
            format!(
                "slow gateways pin {} beside the ring, which has {}",
                bytes(ring.pinned_bytes as f64),
                bytes(ring.max_bytes as f64)
            ),
            "at a quarter of --max-bytes the longest stalled streams are ended: find out which \
             gateways are behind",
        );
    }
}

/// Ids that two use, and gateways that cannot hold a stream.
fn contested(seen: &Seen, findings: &mut Findings) {
    let mut takeovers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut flaps: BTreeMap<&str, usize> = BTreeMap::new();
    for end in &seen.ends {
        if !is_recent(seen, end) {
            continue;
        }
        match &*end.cause {
            "takeover" if end.detail.starts_with("taken over") => {
                *takeovers.entry(&end.id).or_default() += 1;
            }
            "disconnected" | "cancelled" => *flaps.entry(&end.id).or_default() += 1,
            _ => {}
        }
    }
    takeovers.retain(|_, n| *n >= TAKEOVERS);
    flaps.retain(|_, n| *n >= FLAPS);
    if !takeovers.is_empty() {
        findings.problem(
            "id_used_twice",
            format!(
                "{} again and again: {}",
                many(takeovers.len(), "id was taken over", "ids were taken over"),
                named(takeovers.keys().copied())
            ),
            "two processes use the same gateway id and throw each other out: give each one of \
             its own",
        );
    }
    if !flaps.is_empty() {
        findings.note(
            "reconnecting",
            format!(
                "{} again and again: {}",
                many(flaps.len(), "gateway disconnects", "gateways disconnect"),
                named(flaps.keys().copied())
            ),
            "look at the gateway's log, and at proxies in between: some cut streams that are \
             quiet",
        );
    }
}

fn credentials(seen: &Seen, findings: &mut Findings) {
    for (cause, name, what) in [
        (
            "expired",
            "credential_expired",
            "their credential had expired",
        ),
        (
            "denied",
            "credential_denied",
            "their credential was revoked, or had lost the right",
        ),
    ] {
        let ends = recent(seen, cause);
        if !ends.is_empty() {
            findings.note(
                name,
                format!(
                    "{} in the last hour because {what}: {}",
                    many(ends.len(), "stream was ended", "streams were ended"),
                    named(ends.iter().map(|end| &*end.id))
                ),
                "credentials should be renewed before they end; the audit log names the \
                 principal",
            );
        }
    }
    let refused = recent(seen, "refused");
    if !refused.is_empty() {
        let newest = refused.first().map_or("", |end| &*end.detail);
        findings.note(
            "refused",
            format!(
                "{} in the last hour, the last of them: {newest}",
                many(
                    refused.len(),
                    "subscription was refused",
                    "subscriptions were refused"
                )
            ),
            "the log has each of them with its peer",
        );
    }
}

fn resources(seen: &Seen, findings: &mut Findings) {
    let api::Status {
        process, gateways, ..
    } = &seen.status;
    let near = |used: u64, limit: u64| limit > 0 && used as f64 >= limit as f64 * NEAR;
    if let Some(limit) = process.memory_limit_bytes
        && near(process.resident_bytes, limit)
    {
        findings.problem(
            "memory",
            format!(
                "{} of memory are used, the limit is {}",
                bytes(process.resident_bytes as f64),
                bytes(limit as f64)
            ),
            "beyond the limit the system ends the process: lower --max-bytes, or raise the limit",
        );
    }
    if near(process.open_fds, process.max_fds) {
        findings.problem(
            "open_files",
            format!(
                "{} of {} files are open",
                count(process.open_fds),
                count(process.max_fds)
            ),
            "each connection is one: raise the limit of open files (LimitNOFILE, ulimit -n)",
        );
    }
    if near(gateways.subscribed, gateways.max) {
        findings.problem(
            "subscribers",
            format!(
                "{} of {} gateways are subscribed",
                count(gateways.subscribed),
                count(gateways.max)
            ),
            "further ones are refused with RESOURCE_EXHAUSTED: raise --max-subscribers",
        );
    }
    for listener in &seen.status.listeners {
        if near(listener.connections, listener.max_connections) {
            findings.problem(
                "connections",
                format!(
                    "the listener of {} has {} of {} connections",
                    listener.name,
                    count(listener.connections),
                    count(listener.max_connections)
                ),
                "further ones are told to go away: raise --max-subscribers or --max-producers",
            );
        }
    }
}

fn certificates(seen: &Seen, findings: &mut Findings) {
    let ends = seen.status.listeners.iter().filter_map(|listener| {
        let not_after = time(listener.certificate_not_after.as_deref()?)?;
        let left = not_after.duration_since(seen.now);
        Some((left.unwrap_or_default().as_secs_f64(), listener))
    });
    // All listeners have the same one.
    let Some((left, listener)) = ends.min_by(|(a, _), (b, _)| a.total_cmp(b)) else {
        return;
    };
    let what = format!(
        "the certificate of the listener of {} ends in {}",
        listener.name,
        seconds(left)
    );
    let advice = "put a new one in its place: it is taken up within 10 seconds";
    if left < 3.0 * DAY {
        findings.problem("certificate", what, advice);
    } else if left < 14.0 * DAY {
        findings.note("certificate", what, advice);
    }
}

fn configuration(seen: &Seen, findings: &mut Findings) {
    let config = &seen.status.config;
    if !config.last_reload_success {
        findings.problem(
            "reload_failed",
            format!(
                "a file could not be reloaded{}: what was in force before still is",
                config
                    .last_reload_at
                    .as_ref()
                    .map_or(String::new(), |at| format!(" at {at}"))
            ),
            "the log names the file, and what is wrong with it",
        );
    }
    if seen.status.state == "stopping" {
        findings.note(
            "stopping",
            "the server is stopping".to_owned(),
            "it ends when its gateways have received everything, or at the end of \
             --shutdown-grace",
        );
    }
}

/// The ends of the last hour with this cause, the newest first.
fn recent<'a>(seen: &'a Seen, cause: &str) -> Vec<&'a api::End> {
    let ends = seen.ends.iter();
    ends.filter(|end| end.cause == cause && is_recent(seen, end))
        .collect()
}

fn is_recent(seen: &Seen, end: &api::End) -> bool {
    time(&end.at).is_some_and(|at| seen.now.duration_since(at).unwrap_or_default() < RECENT)
}

fn time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

fn many(n: usize, one: &str, several: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        _ => format!("{} {several}", count(n as u64)),
    }
}

/// The first ids, each once.
fn named<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let mut different: Vec<&str> = Vec::new();
    for id in ids {
        if !different.contains(&id) {
            different.push(id);
        }
    }
    let more = different.len().saturating_sub(NAMED);
    let shown: Vec<String> = different
        .iter()
        .take(NAMED)
        .map(|id| format!("{id:?}"))
        .collect();
    let mut text = shown.join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests;
