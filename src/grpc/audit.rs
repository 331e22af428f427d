//! The audit log: who was refused or ended, and who took over from whom.
//!
//! Its lines have the target `galaxy_push::audit`. A peer that tries again and again gets one
//! line, and then one with a count every ten seconds: neither does it fill the log, nor does
//! it hide what others do. No line holds a credential.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::status;
use crate::access::{AccessError, Peer};
use crate::telemetry::Telemetry;

/// What repeats is counted for so long.
const INTERVAL: Duration = Duration::from_secs(10);
/// So many different lines are told apart in that time; of more there is only a count.
const MAX_LINES: usize = 256;
/// And so many that differ in nothing but the id: whoever asks for one after the other hides
/// neither what others do nor what else it does itself.
const MAX_IDS: usize = 16;

/// What has been logged of late.
#[derive(Debug)]
pub(super) struct Audit {
    telemetry: Telemetry,
    recent: Mutex<Recent>,
}

#[derive(Debug)]
struct Recent {
    since: Instant,
    /// How often each line was repeated.
    lines: HashMap<Line, u64>,
    /// How many were neither logged nor told apart.
    others: u64,
}

/// What makes two lines the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Line {
    reason: &'static str,
    principal: Option<Box<str>>,
    peer: Source,
    id: Option<Box<str>>,
}

/// Where somebody calls from, whatever the connection. Of an IPv6 address it is the network
/// (/64): all of that is one host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    Ip(IpAddr),
    Uid(Option<u32>),
    Unknown,
}

impl From<Peer> for Source {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::Tcp(address) => Source::Ip(network(address.ip())),
            Peer::Unix { uid } => Source::Uid(uid),
            Peer::Unknown => Source::Unknown,
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Whom a line is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'a> {
    /// `None` where it has not shown who it is.
    pub(super) principal: Option<&'a str>,
    pub(super) peer: Peer,
    /// The `gateway_client_id`, where it has one.
    pub(super) id: Option<&'a str>,
}

impl Who<'_> {
    fn line(&self, reason: &'static str) -> Line {
        Line {
            reason,
            principal: self.principal.map(Box::from),
            peer: self.peer.into(),
            id: self.id.map(Box::from),
        }
    }
}

impl Audit {
    pub(super) fn new(telemetry: Telemetry) -> Self {
        Audit {
            telemetry,
            recent: Mutex::new(Recent {
                since: Instant::now(),
                lines: HashMap::new(),
                others: 0,
            }),
        }
    }

    /// A call was refused before anything of it took effect.
    pub(super) fn refused(&self, who: Who<'_>, error: &AccessError) {
        self.telemetry
            .auth_failed(status::access_reason(error).as_str());
        self.warn("refused", who, error);
    }

    /// An open call was ended, because its credential has ended or has lost the right.
    pub(super) fn ended(&self, who: Who<'_>, error: &AccessError) {
        self.warn("ended", who, error);
    }

    fn warn(&self, what: &str, who: Who<'_>, error: &AccessError) {
        let reason = status::access_reason(error).as_str();
        if self.is_new(who.line(reason)) {
            let Who {
                principal,
                peer,
                id,
            } = who;
            tracing::warn!(target: "galaxy_push::audit", principal, %peer, id, reason, "{what}: {error}");
        }
    }

    /// A subscription has taken over from an older one.
    pub(super) fn taken_over(&self, newer: Who<'_>, older_principal: &str, older_peer: Peer) {
        if self.is_new(newer.line("TAKEN_OVER")) {
            let Who {
                principal,
                peer,
                id,
            } = newer;
            tracing::info!(
                target: "galaxy_push::audit",
                principal,
                %peer,
                id,
                older_principal,
                %older_peer,
                "taken over"
            );
        }
    }

    /// Whether nothing like this was logged of late. If it was, it is counted.
    fn is_new(&self, line: Line) -> bool {
        let mut recent = self.lock();
        let differs_by_id = |known: &&Line| {
            (known.reason, &known.principal, known.peer)
                == (line.reason, &line.principal, line.peer)
        };
        let is_full = recent.lines.len() >= MAX_LINES
            || recent.lines.keys().filter(differs_by_id).count() >= MAX_IDS;
        if let Some(count) = recent.lines.get_mut(&line) {
            *count += 1;
            false
        } else if is_full {
            recent.others += 1;
            false
        } else {
            recent.lines.insert(line, 0);
            true
        }
    }

    /// Logs what was counted, when it is time to.
    pub(super) fn report(&self, now: Instant) {
        let mut recent = self.lock();
        if now.saturating_duration_since(recent.since) < INTERVAL {
            return;
        }
        recent.since = now;
        let lines = std::mem::take(&mut recent.lines);
        let others = std::mem::take(&mut recent.others);
        drop(recent);
        log(lines, others);
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        // Nothing is half done where this could panic.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let mut recent = self.lock();
        let lines = std::mem::take(&mut recent.lines);
        let others = recent.others;
        drop(recent);
        log(lines, others);
    }
}

fn log(lines: HashMap<Line, u64>, others: u64) {
    for (line, count) in lines.into_iter().filter(|(_, count)| *count > 0) {
        let Line {
            reason,
            principal,
            peer,
            id,
        } = line;
        let peer = match peer {
            Source::Ip(ip) => ip.to_string(),
            Source::Uid(uid) => Peer::Unix { uid }.to_string(),
            Source::Unknown => Peer::Unknown.to_string(),
        };
        tracing::warn!(
            target: "galaxy_push::audit",
            principal = principal.as_deref(),
            peer,
            id = id.as_deref(),
            reason,
            "repeated {count} times in {INTERVAL:?}"
        );
    }
    if others > 0 {
        tracing::warn!(
            target: "galaxy_push::audit",
            "{others} more calls were refused, ended or taken over in {INTERVAL:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;

    fn audit() -> Audit {
        let engine = Engine::builder().build().unwrap();
        Audit::new(Telemetry::of(&engine))
    }

    fn line(port: u16, ip: u8) -> Line {
        let peer = Peer::Tcp(([10, 0, 0, ip], port).into());
        let who = Who {
            principal: None,
            peer,
            id: Some("g"),
        };
        who.line("CREDENTIAL_UNKNOWN")
    }

    #[test]
    fn a_flood_is_counted_and_hides_nobody_else() {
        let audit = audit();
        assert!(audit.is_new(line(1, 1)));
        for port in 2..1000 {
            assert!(!audit.is_new(line(port, 1)), "from another port");
        }
        assert!(audit.is_new(line(1, 2)), "somebody else");
        assert_eq!(audit.lock().lines[&line(0, 1)], 998);
        audit.report(Instant::now());
        assert!(!audit.is_new(line(1, 1)), "its time is not over");
        audit.report(Instant::now() + INTERVAL);
        assert!(audit.is_new(line(1, 1)), "the next time");
    }

    #[test]
    fn one_that_asks_for_many_ids_hides_neither_others_nor_its_takeovers() {
        let audit = audit();
        let line = |reason, ip, id: &str| {
            let who = Who {
                principal: Some("gateways"),
                peer: Peer::Tcp(([10, 0, 0, ip], 1).into()),
                id: Some(id),
            };
            who.line(reason)
        };
        let new = |id: usize| audit.is_new(line("SUBSCRIBE_NOT_GRANTED", 1, &id.to_string()));
        assert_eq!((0..1000).filter(|id| new(*id)).count(), MAX_IDS);
        assert!(audit.is_new(line("SUBSCRIBE_NOT_GRANTED", 2, "g")));
        assert!(audit.is_new(line("TAKEN_OVER", 1, "g")));
        assert_eq!(audit.lock().others, 1000 - MAX_IDS as u64);
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_are_one_source() {
        let of = |address: &str| Source::from(Peer::Tcp(address.parse().unwrap()));
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:2]:9"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("[::ffff:10.0.0.1]:1"), of("10.0.0.1:2"));
    }

    #[test]
    fn what_is_told_apart_is_bounded() {
        let audit = audit();
        for n in 0..5000_u16 {
            let [high, low] = n.to_be_bytes();
            let peer = Peer::Tcp(([10, 0, high, low], 1).into());
            let who = Who {
                principal: None,
                peer,
                id: None,
            };
            audit.refused(who, &AccessError::Unknown);
        }
        let recent = audit.lock();
        assert_eq!(recent.lines.len(), MAX_LINES);
        assert_eq!(recent.others, 5000 - MAX_LINES as u64);
    }
}
