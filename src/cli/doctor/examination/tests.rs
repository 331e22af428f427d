use super::*;

const NOW: u64 = 1_800_000_000;

fn at(seconds_ago: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW - seconds_ago);
    humantime::format_rfc3339_millis(at).to_string()
}

/// A server that is well.
fn well() -> Seen {
    Seen {
        status: api::Status {
            state: "serving".to_owned(),
            uptime_seconds: 10_000.0,
            listeners: vec![api::Listener {
                name: "gateways".to_owned(),
                tls: true,
                connections: 3,
                max_connections: 100,
                certificate_not_after: Some("2099-01-01T00:00:00Z".to_owned()),
                ..api::Listener::default()
            }],
            ring: api::Ring {
                events: 1000,
                max_events: 1000,
                bytes: 1 << 20,
                max_bytes: 1 << 20,
                oldest_age_seconds: 400.0,
                window_seconds: 300.0,
                newest_sequence: 5000,
                ..api::Ring::default()
            },
            gateways: api::GatewayCounts {
                subscribed: 3,
                max: 100,
                behind: 0,
            },
            process: api::Process {
                resident_bytes: 100,
                memory_limit_bytes: Some(1000),
                open_fds: 10,
                max_fds: 100,
                ..api::Process::default()
            },
            config: api::ConfigState {
                last_reload_success: true,
                ..api::ConfigState::default()
            },
            checks: vec![api::Check {
                name: "ring".to_owned(),
                ok: true,
                detail: String::new(),
            }],
            ..api::Status::default()
        },
        gateways: vec![gateway("g1")],
        ends: Vec::new(),
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(NOW),
    }
}

fn gateway(id: &str) -> api::Gateway {
    api::Gateway {
        id: id.to_owned(),
        since: at(1000),
        reason: "requested".to_owned(),
        state: "live".to_owned(),
        ..api::Gateway::default()
    }
}

fn end(id: &str, cause: &str, seconds_ago: u64) -> api::End {
    api::End {
        at: at(seconds_ago),
        id: id.to_owned(),
        cause: cause.to_owned(),
        detail: "taken over by 10.0.0.1:1".to_owned(),
        missed: 7,
        ..api::End::default()
    }
}

fn found(change: impl FnOnce(&mut Seen)) -> Vec<(Level, &'static str)> {
    let mut seen = well();
    change(&mut seen);
    let findings = examine(&seen);
    for finding in &findings {
        assert!(!finding.what.is_empty() && !finding.advice.is_empty());
    }
    findings.into_iter().map(|of| (of.level, of.name)).collect()
}

#[test]
fn of_a_server_that_is_well_nothing_is_found() {
    assert_eq!(found(|_| {}), []);
}

#[test]
fn each_fault_is_found_alone() {
    use Level::{Note, Problem};
    type Change = fn(&mut Seen);
    let faults: [(Change, Level, &str); 20] = [
        (|s| s.status.checks[0].ok = false, Problem, "not_ready"),
        (
            |s| s.gateways[0].state = "behind".to_owned(),
            Problem,
            "lagging",
        ),
        (|s| s.ends.push(end("g", "lapped", 5)), Problem, "lapped"),
        (|s| s.ends.push(end("g", "stalled", 5)), Problem, "stalled"),
        (
            |s| s.gateways[0].reason = "expired".to_owned(),
            Problem,
            "window_too_small",
        ),
        (
            |s| s.ends.push(end("g1", "cancelled", 1200)),
            Note,
            "window_tight",
        ),
        (
            |s| s.status.ring.oldest_age_seconds = 40.0,
            Note,
            "ring_shorter_than_window",
        ),
        (
            |s| s.status.ring.pinned_bytes = 200 << 10,
            Problem,
            "pinned_memory",
        ),
        (
            |s| s.ends = vec![end("g", "takeover", 5); 3],
            Problem,
            "id_used_twice",
        ),
        (
            |s| s.ends = vec![end("g", "disconnected", 5); 6],
            Note,
            "reconnecting",
        ),
        (
            |s| s.ends.push(end("g", "expired", 5)),
            Note,
            "credential_expired",
        ),
        (
            |s| s.ends.push(end("g", "denied", 5)),
            Note,
            "credential_denied",
        ),
        (|s| s.ends.push(end("", "refused", 5)), Note, "refused"),
        (|s| s.status.process.resident_bytes = 900, Problem, "memory"),
        (|s| s.status.process.open_fds = 90, Problem, "open_files"),
        (
            |s| s.status.gateways.subscribed = 90,
            Problem,
            "subscribers",
        ),
        (
            |s| s.status.listeners[0].connections = 90,
            Problem,
            "connections",
        ),
        (
            |s| s.status.config.last_reload_success = false,
            Problem,
            "reload_failed",
        ),
        (|s| s.status.state = "stopping".to_owned(), Note, "stopping"),
        (
            |s| s.status.listeners[0].certificate_not_after = Some(at(5)),
            Problem,
            "certificate",
        ),
    ];
    for (change, level, name) in faults {
        assert_eq!(found(change), [(level, name)]);
    }
}

#[test]
fn what_is_long_ago_or_seldom_is_no_fault() {
    assert_eq!(found(|s| s.ends.push(end("g", "lapped", 4000))), []);
    assert_eq!(found(|s| s.ends = vec![end("g", "takeover", 5); 2]), []);
    // An operator's doing.
    let mut by_operator = end("g", "takeover", 5);
    by_operator.detail = "disconnected by anyone".to_owned();
    assert_eq!(found(|s| s.ends = vec![by_operator; 9]), []);
}

#[test]
fn a_young_server_has_not_filled_its_window() {
    let young = |s: &mut Seen| {
        s.status.ring.oldest_age_seconds = 40.0;
        s.status.uptime_seconds = 60.0;
    };
    assert_eq!(found(young), []);
}

#[test]
fn a_certificate_is_told_of_two_weeks_before() {
    let in_days = |days: u64| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + days * 86_400);
        humantime::format_rfc3339(at).to_string()
    };
    for (days, wanted) in [
        (2, vec![(Level::Problem, "certificate")]),
        (10, vec![(Level::Note, "certificate")]),
        (20, vec![]),
    ] {
        let not_after = in_days(days);
        let change = |s: &mut Seen| s.status.listeners[0].certificate_not_after = Some(not_after);
        assert_eq!(found(change), wanted);
    }
}

#[test]
fn problems_come_first_and_ids_are_named_once() {
    let findings = found(|s| {
        s.ends.push(end("g", "expired", 5));
        s.ends.push(end("g", "lapped", 5));
    });
    assert_eq!(findings[0], (Level::Problem, "lapped"));
    assert_eq!(
        named(["a", "a\n", "a", "b", "c", "d", "e", "f"].into_iter()),
        "\"a\", \"a\\n\", \"b\", \"c\", \"d\" and 2 more"
    );
}
