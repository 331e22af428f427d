//! `bench`: each workload, small, against the real binary; and what goes wrong.

use std::path::Path;

use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::Value;

use crate::support::process::{Process, Server, galaxy_push, only_line, run, stdout, text};

/// Runs a bench to its end, and returns what it measured.
fn bench(args: &[&str]) -> Value {
    let mut all = vec!["bench"];
    all.extend(args);
    all.push("--json");
    let output = run(&all);
    assert!(output.status.success(), "{args:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[track_caller]
fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

#[track_caller]
fn whole(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no whole number"))
}

/// Percentiles that grow.
#[track_caller]
fn check_times(times: &Value) {
    let at = |name: &str| whole(&times[name]);
    let sorted = [
        at("p50_ns"),
        at("p90_ns"),
        at("p99_ns"),
        at("p99_9_ns"),
        at("max_ns"),
    ];
    assert!(sorted.is_sorted(), "{times}");
    assert!(at("count") > 0 && sorted[4] > 0, "{times}");
}

#[test]
fn live_delivers_every_event_to_every_gateway() {
    for flags in [&[][..], &["--unix", "--producers", "3", "--batch", "4"]] {
        let mut args = vec!["live", "--gateways", "3,5", "--rate", "200"];
        args.extend(["--duration", "500ms", "--warm-up", "100ms"]);
        args.extend(flags);
        let outcome = bench(&args);
        assert_eq!(outcome["workload"], "live");
        assert_eq!(outcome["lost"], 0);
        let runs = outcome["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 2);
        for (run, gateways) in runs.iter().zip([3, 5]) {
            assert_eq!(run["gateways"], gateways);
            assert!(whole(&run["events"]) > 0);
            let deliveries = whole(&run["events"]) * gateways;
            assert_eq!(whole(&run["deliveries"]), deliveries);
            assert_eq!(run["lost"], 0);
            assert_eq!(run["foreign"], 0);
            check_times(&run["latency"]);
            if flags.is_empty() && cfg!(target_os = "linux") {
                check_times(&run["server_delay"]);
                let p50 = |times: &serde_json::Value| whole(&times["p50_ns"]);
                assert!(p50(&run["server_delay"]) <= p50(&run["latency"]), "{run}");
            }
            assert!(number(&run["server_cost"]["cpu_ns_per_delivery"]) > 0.0);
            assert!(whole(&run["server_cost"]["memory_bytes"]) > 1 << 20);
            assert!(number(&run["generator"]["cpu_ns_per_delivery"]) > 0.0);
        }
    }
}

#[test]
fn live_beside_gateways_that_never_read_loses_nothing() {
    let outcome = bench(&[
        "live",
        "--gateways=2",
        "--stalled=20",
        "--rate=2000",
        "--duration=500ms",
        "--warm-up=300ms",
    ]);
    let run = &outcome["runs"][0];
    assert_eq!((&run["gateways"], &run["stalled"]), (&2.into(), &20.into()));
    // More than may be under way to those that do not read.
    assert!(whole(&run["events"]) * 250 > 2 * (64 << 10));
    assert_eq!(whole(&run["deliveries"]), 2 * whole(&run["events"]));
    assert_eq!(run["lost"], 0);
}

#[test]
fn with_a_rate_of_deliveries_fewer_gateways_get_more_events() {
    let outcome = bench(&[
        "live",
        "--gateways=1,4",
        "--delivery-rate=400",
        "--duration=200ms",
        "--warm-up=0",
    ]);
    let rates = outcome["runs"].as_array().unwrap().iter();
    assert!(rates.map(|run| number(&run["rate"])).eq([400.0, 100.0]));
}

#[test]
fn replay_delivers_all_of_the_ring_in_each_round() {
    for frame_size in ["16KiB", "1MiB"] {
        let outcome = bench(&[
            "replay",
            "--gateways=3",
            "--events=3000",
            "--duration=0",
            "--frame-size",
            frame_size,
        ]);
        let run = &outcome["runs"][0];
        assert_eq!(outcome["lost"], 0);
        assert_eq!(whole(&run["events"]), 3000);
        assert_eq!(whole(&run["deliveries"]), 9000);
        assert_eq!(whole(&run["rounds"][0]["deliveries"]), 9000);
        // The default payload makes frames of 250 bytes.
        let bytes = whole(&run["rounds"][0]["bytes"]);
        assert!(bytes > 9000 * 250 && bytes < 9000 * 260, "{bytes}");
        assert!(number(&run["server_cost"]["cpu_ns_per_delivery"]) > 0.0);
    }
}

#[test]
fn events_that_clients_do_not_take_by_default_are_measured_too() {
    let args = [
        "live",
        "--payload",
        "5MiB",
        "--gateways",
        "1",
        "--rate",
        "10",
    ];
    let outcome = bench(&[&args[..], &["--duration", "500ms", "--warm-up", "100ms"]].concat());
    assert_eq!(outcome["lost"], 0);
    assert!(whole(&outcome["runs"][0]["deliveries"]) > 0);
}

#[test]
fn replay_says_that_the_ring_is_too_small() {
    let output = run(&["bench", "replay", "--events", "1000", "--max-events", "100"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(only_line(&output).contains("expired"), "{output:?}");
}

#[test]
fn after_a_storm_everybody_has_everything() {
    let outcome = bench(&[
        "storm",
        "--gateways=20",
        "--rate=500",
        "--quiet=200ms",
        "--duration=300ms",
    ]);
    let run = &outcome["runs"][0];
    assert_eq!(outcome["lost"], 0);
    assert_eq!(whole(&run["deliveries"]), 20 * whole(&run["events"]));
    let storms = run["storms"].as_array().unwrap();
    assert!(!storms.is_empty());
    for storm in storms {
        let subscribed = number(&storm["subscribed_seconds"]);
        assert!(subscribed > 0.0 && number(&storm["whole_seconds"]) >= subscribed);
    }
    check_times(&run["publish_round_trip"]);
    check_times(&run["publish_round_trip_in_storms"]);
}

#[test]
fn publish_counts_what_is_accepted() {
    let outcome = bench(&[
        "publish",
        "--batch=1,7",
        "--producers=2",
        "--duration=300ms",
        "--warm-up=50ms",
    ]);
    for (run, batch) in outcome["runs"].as_array().unwrap().iter().zip([1, 7]) {
        assert_eq!(run["batch"], batch);
        let events = whole(&run["events"]);
        assert!(events > 0 && events.is_multiple_of(batch), "{events}");
        assert!(number(&run["events_per_second"]) > 0.0);
        assert!(number(&run["server_cost"]["cpu_ns_per_event"]) > 0.0);
        check_times(&run["publish_round_trip"]);
    }
}

#[test]
fn idle_gateways_take_memory() {
    let outcome = bench(&["idle", "--gateways=200", "--duration=100ms"]);
    let run = &outcome["runs"][0];
    let memory = &run["memory"];
    let grown = whole(&memory["after_bytes"]) - whole(&memory["before_bytes"]);
    assert_eq!(number(&memory["bytes_per_gateway"]), grown as f64 / 200.0);
    assert!(grown > 0);
}

#[test]
fn a_soak_breaks_no_promise() {
    let outcome = bench(&[
        "soak",
        "--gateways=12",
        "--slow=2",
        "--stalled=2",
        "--flapping=4",
        "--rivals=1",
        "--rate=500",
        "--stall-timeout=1s",
        "--duration=3s",
    ]);
    let run = &outcome["runs"][0];
    let soak = &run["soak"];
    assert_eq!((&soak["steady"], &soak["rivals"]), (&2.into(), &1.into()));
    assert_eq!(soak["violations"], 0);
    assert_eq!(soak["unverified"], 0);
    assert!(whole(&soak["streams"]) > 12, "{soak}");
    assert!(whole(&soak["resumed"]) > 0, "{soak}");
    assert!(whole(&soak["taken_over"]) > 0, "{soak}");
    assert!(whole(&run["deliveries"]) >= 2 * whole(&run["events"]));
    check_times(&run["latency"]);
}

#[test]
fn a_running_server_is_measured_too() {
    let server = Server::start(&[]);
    // Somebody else's event is counted apart.
    let tail = server.tail(&[]);
    server.publish_small(0..1);
    let outcome = bench(&[
        "live",
        "--connect",
        &server.gateways,
        "--publish-connect",
        &server.publishers,
        "--gateways=2",
        "--rate=100",
        "--duration=300ms",
        "--warm-up=0",
    ]);
    let run = &outcome["runs"][0];
    assert_eq!(outcome["lost"], 0);
    let events = whole(&run["events"]);
    assert_eq!(whole(&run["deliveries"]), 2 * events);
    assert!(run.get("server_cost").is_none(), "its process is not known");
    assert_eq!(
        tail.out.take(1 + events as usize).len(),
        1 + events as usize
    );
}

#[test]
fn the_table_is_for_people_and_the_report_is_one_page() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("report.html");
    let output = run(&[
        "bench",
        "live",
        "--gateways=2",
        "--rate=100",
        "--duration=300ms",
        "--warm-up=0",
        "--report",
        text(&page),
    ]);
    assert!(output.status.success(), "{output:?}");
    let table = stdout(&output);
    for label in [
        "deliveries ",
        "events lost ",
        "latency p99.9 ",
        "server CPU per delivery ",
        "generator CPU per delivery ",
    ] {
        assert!(table.contains(label), "{label:?} is not in {table}");
    }
    let html = std::fs::read_to_string(&page).unwrap();
    let (_, data) = html.split_once("id=\"data\">").unwrap();
    let data: Value = serde_json::from_str(data.split("</script>").next().unwrap()).unwrap();
    assert_eq!(data["outcome"]["runs"][0]["gateways"], 2);
    assert!(table.contains(data["rows"][0][0].as_str().unwrap()));
}

#[test]
fn what_cannot_be_measured_is_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = format!("unix:{}/nobody", directory.path().display());
    let both = ["--connect", &nobody, "--publish-connect", &nobody];
    for workload in ["live", "publish", "replay", "storm"] {
        let mut args = vec!["bench", workload];
        args.extend(both);
        let output = run(&args);
        assert_eq!(output.status.code(), Some(1), "{workload}");
        assert!(only_line(&output).contains("nobody"), "{output:?}");
    }
    let output = run(&[
        "bench",
        "live",
        "--gateways=1",
        "--duration=100ms",
        "--warm-up=0",
        "--report",
        "/nonexistent/report.html",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(only_line(&output).contains("/nonexistent/report.html"));
    // Publishers' port: there is no Push service.
    let server = Server::start(&[]);
    let output = run(&[
        "bench",
        "live",
        "--gateways=1",
        "--connect",
        &server.publishers,
        "--publish-connect",
        &server.publishers,
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(only_line(&output).contains("Unimplemented"), "{output:?}");
}

#[test]
fn a_server_that_dies_is_told() {
    let mut server = Server::start(&[]);
    let bench = Process::start(&[
        "bench",
        "live",
        "--gateways=3",
        "--duration=1h",
        "--connect",
        &server.gateways,
        "--publish-connect",
        &server.publishers,
    ]);
    let tail = server.tail(&[]);
    tail.out.take(10);
    server.process.kill();
    let mut bench = bench;
    assert_eq!(bench.end().code(), Some(1));
    assert_eq!(bench.err.rest().len(), 1);
}

#[test]
fn a_server_that_has_events_already_can_be_soaked() {
    let server = Server::start(&["--stall-timeout", "1s"]);
    server.publish_small(0..10);
    let outcome = bench(&[
        "soak",
        "--gateways=5",
        "--flapping=2",
        // Longer than either of them stays.
        "--duration=2500ms",
        "--connect",
        &server.gateways,
        "--publish-connect",
        &server.publishers,
    ]);
    let soak = &outcome["runs"][0]["soak"];
    assert_eq!(soak["violations"], 0);
    assert!(whole(&soak["resumed"]) > 0, "{soak}");
}

/// The processes that a process has started.
#[cfg(target_os = "linux")]
fn children(parent: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let Some(pid) = entry
            .unwrap()
            .file_name()
            .to_str()
            .and_then(|n| n.parse().ok())
        else {
            continue;
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in brackets may have spaces; the parent is the second word after it.
        let after = stat.rsplit(')').next().unwrap_or_default();
        let ppid = after.split_whitespace().nth(1).and_then(|n| n.parse().ok());
        if ppid == Some(parent.as_raw_nonzero().get()) {
            found.extend(Pid::from_raw(pid));
        }
    }
    found
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_it_and_the_server_that_it_started() {
    for (signal, flags) in [(Signal::TERM, &[][..]), (Signal::INT, &["--unix"])] {
        let sockets = tempfile::tempdir().unwrap();
        let mut args = vec!["bench", "live", "--gateways", "2", "--duration", "1h"];
        args.extend(flags);
        let mut command = galaxy_push(&args);
        command.env("TMPDIR", sockets.path());
        let mut bench = Process::spawn(command);
        let server = loop {
            match children(bench.pid())[..] {
                [] => std::thread::sleep(std::time::Duration::from_millis(5)),
                [server] => break server,
                _ => panic!("more than one server"),
            }
        };
        bench.signal(signal);
        assert_eq!(bench.end().code(), Some(0), "{signal:?}");
        assert!(bench.out.rest().is_empty());
        assert!(bench.err.rest().pop().unwrap().contains("stopped"));
        assert!(test_kill_process(server).is_err(), "the server is gone");
        let left = std::fs::read_dir(sockets.path()).unwrap().count();
        assert_eq!(left, 0, "and so are its sockets");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_server_is_left_behind() {
    // They would be children of nobody, with this address range in their command line.
    let directory = tempfile::tempdir().unwrap();
    let mut command = galaxy_push(&["bench", "publish", "--batch=1", "--duration=50ms", "--unix"]);
    command.env("TMPDIR", directory.path());
    assert!(command.output().unwrap().status.success());
    let marker = text(directory.path()).to_owned();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path().join("cmdline");
        let line = std::fs::read(path).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(&marker));
    }
    assert!(!Path::new(&marker).join("gateways").exists());
}
