//! `tail`: what it prints, what it keeps, how it ends.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::support::process::{Process, Server, cursor, only_line, run, seq, small, stdout, text};

/// A directory, and the path of a cursor file in it that does not exist.
fn cursor_file() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = text(&directory.path().join("cursor")).to_owned();
    (directory, path)
}

#[test]
fn two_tails_print_the_same_events_in_the_same_order() {
    let server = Server::start(&[]);
    let tails = [server.tail(&["--id", "a"]), server.tail(&["--id", "b"])];
    let events = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/events.jsonl");
    let output = run(&["publish", "--connect", &server.publishers, text(&events)]);
    let cursors = stdout(&output);
    let [a, b] = tails.map(|tail| tail.out.take(cursors.lines().count()));
    assert_eq!(a, b);
    assert!(a.iter().map(|line| cursor(line)).eq(cursors.lines()));
    let given = fs::read_to_string(events).unwrap();
    for (given, printed) in given.lines().zip(&a) {
        let given: serde_json::Value = serde_json::from_str(given).unwrap();
        let printed: serde_json::Value = serde_json::from_str(printed).unwrap();
        for kind in ["client_event", "session_invalidation"] {
            for (field, value) in given[kind].as_object().into_iter().flatten() {
                assert_eq!(printed[kind][field], *value, "{field}");
            }
        }
    }
}

#[test]
fn unix_sockets_work_for_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| format!("unix:{}/{name} with space", directory.path().display());
    let (gateways, publishers) = (path("g"), path("p"));
    let server = Server::start(&["--listen", &gateways, "--publish-listen", &publishers]);
    assert_eq!(
        (&server.gateways, &server.publishers),
        (&gateways, &publishers)
    );
    let tail = server.tail(&[]);
    let cursors = server.publish_small(0..3);
    assert!(tail.out.take(3).iter().map(|line| cursor(line)).eq(cursors));
}

#[test]
fn it_resumes_after_a_cursor() {
    let server = Server::start(&[]);
    let cursors = server.publish_small(0..10);
    let mut tail = server.tail_at_once(&["--cursor", &cursors[3], "--count", "6"]);
    assert!(tail.end().success());
    assert!(
        tail.out
            .rest()
            .iter()
            .map(|line| cursor(line))
            .eq(cursors[4..].to_vec())
    );
}

#[test]
fn a_gap_is_one_line_with_its_count() {
    let server = Server::start(&["--max-events", "10"]);
    let cursors = server.publish_small(0..100);
    let tail = server.tail_at_once(&["--cursor", &cursors[19], "--log", "off"]);
    assert_eq!(
        tail.err.next().unwrap(),
        "galaxy-push: gap: 80 events were missed (expired)"
    );
    let next = server.publish_small(100..101);
    assert_eq!(cursor(&tail.out.next().unwrap()), next[0]);
}

#[test]
fn a_tail_that_was_lagged_prints_and_misses_all_that_was_published() {
    let server = Server::start(&["--max-bytes", "2MiB", "--max-event-bytes", "16KiB"]);
    let mut tail = server.tail(&[]);
    // More than its windows, its queue, the pipe and the ring can hold, while
    // nobody reads what it prints.
    let published = 3000;
    let payload = format!("\"payload\":\"{}\"", "x".repeat(15_000));
    let large: String = (0..published)
        .map(|number| small(number).replace(&format!("\"payload\":{number}"), &payload))
        .collect();
    assert!(server.publish(&large).status.success());

    tail.out.read();
    let gap = tail.err.find("gap: ");
    let missed: u64 = gap
        .strip_prefix("galaxy-push: gap: ")
        .and_then(|rest| rest.strip_suffix(" events were missed (expired)"))
        .unwrap_or_else(|| panic!("{gap}"))
        .parse()
        .expect("a number");
    tail.signal(Signal::TERM);
    assert!(tail.end().success());
    let printed: Vec<u64> = tail.out.rest().iter().map(|line| seq(line)).collect();
    assert_eq!(printed, (1..=published - missed).collect::<Vec<_>>());
}

/// Its position is kept as they are printed, and moves to the stream's start at their end.
#[test]
fn missed_revocations_come_first() {
    let server = Server::start(&["--max-events", "10"]);
    let cursors = server.publish_small(0..1);
    let revoked: String = (0..3)
        .map(|n| format!("{{\"session_invalidation\":{{\"user_id\":\"u{n}\"}}}}\n"))
        .collect();
    assert!(server.publish(&revoked).status.success());
    let head = server.publish_small(1..100);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cursor");
    let flags = |count: &str| -> Vec<String> {
        let file = file.to_str().unwrap();
        let flags = [
            "--cursor-file",
            file,
            "--replay-revocations",
            "--count",
            count,
        ];
        let cursor = ["--cursor", &cursors[0]];
        flags.into_iter().chain(cursor).map(str::to_owned).collect()
    };
    let tail = |flags: &[String]| {
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        server.tail(&flags)
    };
    let mut first = tail(&flags("1"));
    first
        .err
        .find("replay: 3 missed revocations follow, which is all");
    assert!(first.out.next().unwrap().contains("\"u0\""));
    assert!(first.end().success());
    let mut second = tail(&flags("3"));
    second
        .err
        .find("replay: 2 missed revocations follow, which is all");
    for user in ["\"u1\"", "\"u2\""] {
        assert!(second.out.next().unwrap().contains(user));
    }
    let next = server.publish_small(100..101);
    assert_eq!(cursor(&second.out.next().unwrap()), next[0]);
    assert!(second.end().success());
    assert!(head.last() < next.first());
}

#[test]
fn a_restarted_server_is_a_gap_of_unknown_size() {
    let directory = tempfile::tempdir().unwrap();
    let gateways = format!("unix:{}/g", directory.path().display());
    let mut server = Server::start(&["--listen", &gateways]);
    let tail = server.tail(&[]);
    server.publish_small(0..3);
    tail.out.take(3);
    server.process.kill();
    let server = Server::start(&["--listen", &gateways]);
    tail.err
        .find("gap: events were missed, nobody knows how many (other-epoch)");
    tail.err.find("subscribed as ");
    let cursors = server.publish_small(0..1);
    assert_eq!(cursor(&tail.out.next().unwrap()), cursors[0]);
}

#[test]
fn a_takeover_stops_the_older_one() {
    let server = Server::start(&[]);
    let mut older = server.tail(&["--id", "gateway-1"]);
    let other = server.tail(&["--id", "gateway-2"]);
    let newer = server.tail(&["--id", "gateway-1"]);
    assert_eq!(older.end().code(), Some(3));
    let said = older.err.rest().pop().unwrap();
    assert!(
        said.starts_with(
            "galaxy-push: \"gateway-1\": another gateway has taken over the id: ABORTED"
        ),
        "{said}"
    );
    let cursors = server.publish_small(0..1);
    for tail in [other, newer] {
        assert_eq!(cursor(&tail.out.next().unwrap()), cursors[0]);
    }
    assert_eq!(older.out.next(), None);
}

#[test]
fn a_signal_ends_it_with_the_place_saved() {
    let server = Server::start(&[]);
    let (_directory, path) = cursor_file();
    for (round, signal) in [Signal::TERM, Signal::INT, Signal::TERM]
        .into_iter()
        .enumerate()
    {
        let mut tail = server.tail(&["--id", "a", "--cursor-file", &path]);
        let from = round as u64 * 10;
        let cursors = server.publish_small(from..from + 5);
        assert!(tail.out.take(5).iter().map(|line| cursor(line)).eq(cursors));
        tail.signal(signal);
        assert_eq!(tail.end().code(), Some(0));
        assert_eq!(tail.out.next(), None, "no event twice");
        server.publish_small(from + 5..from + 10);
        let mut tail = server.tail_at_once(&["--id", "a", "--cursor-file", &path, "--count", "5"]);
        assert_eq!(tail.end().code(), Some(0));
        let seqs: Vec<u64> = tail.out.rest().iter().map(|line| seq(line)).collect();
        assert_eq!(seqs, (from + 6..=from + 10).collect::<Vec<_>>());
    }
}

#[test]
fn a_signal_ends_it_even_if_nobody_reads_its_output() {
    let server = Server::start(&[]);
    let mut tail = server.tail(&[]);
    // More than the pipe holds.
    server.publish_small(0..5000);
    tail.signal(Signal::TERM);
    assert_eq!(tail.end().code(), Some(0));
    assert!(tail.out.rest().len() < 5000);
}

#[test]
fn killed_at_any_moment_it_skips_nothing_and_repeats_at_most_the_last() {
    let server = Server::start(&[]);
    let (_directory, path) = cursor_file();
    let flags = ["--id", "a", "--cursor-file", &path];
    // From here on there is a place in the file.
    let mut tail = server.tail(&flags);
    let mut seqs: Vec<u64> = Vec::new();
    let mut published = 0;
    for _ in 0..100 {
        let burst = rand::random_range(1..400);
        server.publish_small(published..published + burst);
        published += burst;
        let wanted = rand::random_range(0..=published - seqs.last().copied().unwrap_or(0));
        let mut printed: Vec<String> = tail.out.take(wanted as usize);
        // Now it is in the middle of printing, saving or waiting.
        tail.kill();
        printed.extend(tail.out.rest());
        let mut printed = printed.iter().map(|line| seq(line)).peekable();
        printed.next_if(|first| seqs.last() == Some(first));
        seqs.extend(printed);
        tail = server.tail_at_once(&flags);
        if rand::random() {
            // Not even the start is certain to be over.
            tail.kill();
            let printed: Vec<u64> = tail.out.rest().iter().map(|line| seq(line)).collect();
            let mut printed = printed.into_iter().peekable();
            printed.next_if(|first| seqs.last() == Some(first));
            seqs.extend(printed);
            tail = server.tail_at_once(&flags);
        }
    }
    while seqs.last() != Some(&published) {
        let next = seq(&tail.out.next().unwrap());
        if seqs.last() != Some(&next) {
            seqs.push(next);
        }
    }
    assert_eq!(seqs, (1..=published).collect::<Vec<_>>());
}

#[test]
fn a_cursor_file_is_for_one_tail_at_a_time() {
    let server = Server::start(&[]);
    let (_directory, path) = cursor_file();
    let _first = server.tail(&["--cursor-file", &path]);
    let output = run(&[
        "tail",
        "--connect",
        &server.gateways,
        "--cursor-file",
        &path,
    ]);
    assert_eq!(output.status.code(), Some(1));
    let line = only_line(&output);
    assert!(
        line.contains(&path) && line.contains("in use by another tail"),
        "{line}"
    );
}

#[test]
fn what_is_no_cursor_file_is_refused_and_left_alone() {
    let (_directory, path) = cursor_file();
    fs::write(&path, "my thesis\n").unwrap();
    let output = run(&["tail", "--cursor-file", &path]);
    assert_eq!(output.status.code(), Some(1));
    let line = only_line(&output);
    assert!(
        line.contains(&path) && line.contains("is not a cursor file"),
        "{line}"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "my thesis\n");
}

#[test]
fn the_cursor_file_wins_over_the_cursor() {
    let server = Server::start(&[]);
    let (_directory, path) = cursor_file();
    let cursors = server.publish_small(0..10);
    let place = [
        "--cursor",
        &cursors[4],
        "--cursor-file",
        &path,
        "--count",
        "2",
    ];
    for wanted in [[6, 7], [8, 9]] {
        let mut tail = server.tail_at_once(&place);
        assert!(tail.end().success());
        let seqs: Vec<u64> = tail.out.rest().iter().map(|line| seq(line)).collect();
        assert_eq!(seqs, wanted);
    }
}

#[test]
fn a_cursor_is_kept_before_the_first_connection() {
    let (directory, path) = cursor_file();
    let server = Server::start(&[]);
    let cursors = server.publish_small(0..10);
    let nobody = format!("unix:{}/nobody", directory.path().display());
    let mut tail = Process::start(&[
        "tail",
        "--connect",
        &nobody,
        "--cursor",
        &cursors[4],
        "--cursor-file",
        &path,
    ]);
    tail.err.find("disconnected: ");
    tail.kill();
    let tail = server.tail_at_once(&["--cursor-file", &path]);
    assert_eq!(cursor(&tail.out.next().unwrap()), cursors[5]);
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let server = Server::start(&[]);
    let mut tail = server.tail_at_once(&["--log", "off"]);
    tail.out.close();
    assert_eq!(tail.end().code(), Some(0));
    assert_eq!(tail.err.next(), None);
}

#[test]
fn a_server_that_hangs_is_noticed_by_its_heartbeats() {
    let server = Server::start(&[]);
    let tail = server.tail(&["--heartbeat", "1s"]);
    let cursors = server.publish_small(0..1);
    assert_eq!(cursor(&tail.out.next().unwrap()), cursors[0]);
    server.process.signal(Signal::STOP);
    tail.err.find("nothing came for ");
    server.process.signal(Signal::CONT);
    let cursors = server.publish_small(1..2);
    assert_eq!(cursor(&tail.out.next().unwrap()), cursors[0]);
}

#[test]
fn a_refused_subscription_is_told() {
    // Publishers' port: there is no Push service.
    let server = Server::start(&[]);
    let mut tail = Process::start(&["tail", "--connect", &server.publishers]);
    assert_eq!(tail.end().code(), Some(1));
    let said = tail.err.rest().pop().unwrap();
    assert!(
        said.contains(&server.publishers)
            && said.contains("refuses the subscription: UNIMPLEMENTED"),
        "{said}"
    );
}

#[test]
fn a_large_event_comes_through_where_both_ends_allow_it() {
    let server = Server::start(&["--max-event-bytes", "8MiB", "--allow-large-events"]);
    let tail = server.tail(&["--max-event-bytes", "8MiB"]);
    let large = "x".repeat(5 << 20);
    let line = format!(
        "{{\"client_event\":{{\"user_id\":\"u\",\"kind\":\"k\",\"payload\":\"{large}\"}}}}\n"
    );
    let output = server.publish(&line);
    assert!(output.status.success(), "{output:?}");
    let printed = tail.out.next().unwrap();
    assert!(printed.contains(&large), "{} bytes", printed.len());

    // An event later: the limit was no accident of the first.
    let cursors = server.publish_small(1..2);
    assert_eq!(cursor(&tail.out.next().unwrap()), cursors[0]);
}

#[test]
fn an_event_above_the_limit_ends_it_with_the_place_before_saved() {
    let server = Server::start(&["--max-event-bytes", "8MiB", "--allow-large-events"]);
    let (_directory, path) = cursor_file();
    let mut tail = server.tail(&["--cursor-file", &path]);
    server.publish_small(0..1);
    tail.out.next().unwrap();
    let large = small(1).replace(
        "\"payload\":1",
        &format!("\"payload\":\"{}\"", "x".repeat(5 << 20)),
    );
    assert!(server.publish(&large).status.success());
    assert_eq!(tail.end().code(), Some(1));
    let said = tail.err.rest().pop().unwrap();
    assert!(
        said.contains("is larger than the 4194278 bytes that this gateway accepts")
            && said.ends_with(": raise --max-event-bytes"),
        "{said}"
    );

    let tail = server.tail_at_once(&["--cursor-file", &path, "--max-event-bytes", "8MiB"]);
    assert_eq!(seq(&tail.out.next().unwrap()), 2);
}
