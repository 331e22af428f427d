//! Flags and variables: what is refused, and how; and the help.

use std::process::Stdio;

use galaxy_push::config::Setting;

use crate::support::process::{galaxy_push, only_line, run, stdout};

/// Refused with exit code 2 and one line that contains each of `parts`.
fn refused(args: &[&str], variables: &[(&str, &str)], parts: &[&str]) {
    let output = galaxy_push(args)
        .envs(variables.iter().copied())
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(2), "{args:?} {variables:?}");
    assert!(output.stdout.is_empty(), "{args:?}");
    let line = only_line(&output);
    for part in parts {
        assert!(line.contains(part), "{args:?}: {part:?} is not in {line:?}");
    }
}

#[test]
fn a_bad_flag_is_one_line_with_its_name_and_the_reason() {
    for (flag, value, reason) in [
        ("--listen", "nowhere", "has no port"),
        ("--publish-listen", "::1:5", "needs brackets"),
        (
            "--publish-listen",
            "unix:",
            "path of the Unix socket is empty",
        ),
        ("--max-events", "many", "not a whole number"),
        ("--max-events", "-1", "not a whole number"),
        ("--max-events", "0", "at least 1"),
        ("--max-bytes", "12x", "not a size"),
        ("--max-bytes", "1KiB", "would not fit"),
        ("--max-bytes", "99999TiB", "more than 16TiB"),
        ("--max-event-bytes", "1.2.3MiB", "not a size"),
        ("--max-event-bytes", "1GiB", "more than 16MiB"),
        (
            "--max-event-bytes",
            "4MiB",
            "gRPC clients take messages of up to 4194304 bytes by default, which is an event of \
             4194278 bytes and its cursor; --allow-large-events permits it",
        ),
        ("--window", "5", "time unit needed"),
        ("--window", "-5m", "not a duration"),
        ("--window", "900000d", "longer than 365 days"),
        ("--max-subscribers", "0", "at least 1"),
        ("--max-subscribers", "999999999", "max-subscribers"),
        ("--max-producers", "0", "at least 1"),
        ("--max-producers", "-1", "not a whole number"),
        ("--stall-timeout", "0s", "would cut every connection"),
        ("--shutdown-grace", "soon", "not a duration"),
        ("--delivery", "fast", "one of auto, latency and throughput"),
        ("--backbone-storage", "tape", "file or memory"),
        ("--worker-threads", "0", "at least 1"),
        ("--worker-threads", "100000", "more than 1024 threads"),
    ] {
        // What is refused early names the flag; a size that is refused because
        // of another names the one that has to change.
        let name = if reason == "would not fit" {
            "--max-event-bytes"
        } else {
            flag
        };
        refused(&["serve", flag, value], &[], &[name, reason]);
    }
    for (args, reason) in [
        (&["tail", "--id", ""][..], "--id"),
        (&["tail", "--id", "a\nb"], "control character"),
        (&["tail", "--cursor", "01HF7YAT00"], "24 characters"),
        (&["tail", "--count", "0"], "at least 1"),
        (&["tail", "--connect", "a b:1"], "--connect"),
        (
            &["tail", "--max-event-bytes", "0"],
            "--max-event-bytes: \"0\": it must be at least 1",
        ),
        (
            &["tail", "--max-event-bytes", "17MiB"],
            "more than 16MiB, which no server sends",
        ),
        (
            &["tail", "--heartbeat", "500ms"],
            "--heartbeat: \"500ms\": not within 1s and 5m",
        ),
        (&["publish", "--batch", "4097", "-"], "from 1 to 4096"),
        (&["publish", "--in-flight", "0", "-"], "from 1 to 1024"),
        (&["publish", "--user-id", "", "--kind", "k"], "--user-id"),
        (&["publish", "--user-id", "u"], "--kind is missing"),
        (&["publish"], "say what to publish"),
        (&["publish", "-", "--kind", "k"], "--kind"),
        (
            &["publish", "--user-id", "u", "--kind", "k", "--reason", "r"],
            "--reason needs --invalidate",
        ),
        (
            &["publish", "--user-id", "u", "--kind", "k", "--invalidate"],
            "--invalidate",
        ),
        (&["tail", "--log", "galaxy=loud"], "--log"),
        (&["conformance"], "server, gateway"),
        (
            &["conformance", "server", "--only", "cursor-form,nonsense"],
            "--only: there is no promise \"nonsense\"",
        ),
        (
            &["conformance", "server", "--ring-events", "63"],
            "from 64 to 20000",
        ),
        (
            &["conformance", "server", "--level", "all"],
            "contract, extras",
        ),
        (
            &["conformance", "gateway", "--listen", "localhost:1"],
            "--listen",
        ),
        (&["bench"], "live, replay, storm, publish, idle, soak"),
        (&["bench", "lively"], "lively"),
        (
            &["bench", "live", "--gateways", "0"],
            "--gateways: 0 is not",
        ),
        (&["bench", "live", "--gateways", "1,,2"], "--gateways"),
        (&["bench", "live", "--rate", "0"], "--rate"),
        (&["bench", "live", "--rate", "NaN"], "--rate"),
        (
            &["bench", "live", "--batch", "5000"],
            "--batch: 5000 is not",
        ),
        (&["bench", "live", "--producers", "257"], "from 1 to 256"),
        (
            &["bench", "live", "--payload", "17MiB"],
            "--payload: more than",
        ),
        (
            &["bench", "live", "--frame-size", "1KiB"],
            "--frame-size: 1024",
        ),
        (
            &["bench", "live", "--window", "4GiB"],
            "--window: 4294967296",
        ),
        (&["bench", "live", "--connect", "a:1"], "--publish-connect"),
        (&["bench", "live", "--server-pid", "1"], "--connect"),
        (&["bench", "publish", "--batch", "0"], "--batch: 0 is not"),
        (&["bench", "replay", "--events", "0"], "at least 1"),
        (
            &["bench", "idle", "--connect=a:1", "--publish-connect=a:2"],
            "--server-pid is missing",
        ),
        (
            &["bench", "soak", "--gateways=10", "--slow=10"],
            "at least one that is not slow",
        ),
        (
            &[
                "bench",
                "live",
                "--unix",
                "--connect=a:1",
                "--publish-connect=a:2",
            ],
            "--unix",
        ),
    ] {
        refused(args, &[], &[reason]);
    }
}

#[test]
fn a_bad_command_line_is_one_line() {
    refused(
        &[],
        &[],
        &["serve, publish, tail, status, disconnect, doctor, health, bench"],
    );
    refused(&["srve"], &[], &["srve", "serve"]);
    refused(
        &["serve", "--max-event", "1"],
        &[],
        &["--max-event", "--max-events"],
    );
    refused(&["serve", "--max-events"], &[], &["--max-events", "value"]);
    refused(&["serve", "extra"], &[], &["extra"]);
}

#[test]
fn a_bad_variable_is_named() {
    refused(
        &["serve"],
        &[("GALAXY_PUSH_MAX_BYTES", "lots")],
        &["GALAXY_PUSH_MAX_BYTES", "--max-bytes", "lots", "not a size"],
    );
    refused(
        &["tail"],
        &[("GALAXY_PUSH_TAIL_CURSOR", "x")],
        &["GALAXY_PUSH_TAIL_CURSOR", "24 characters"],
    );
    refused(
        &["bench", "live"],
        &[("GALAXY_PUSH_BENCH_RATE", "fast")],
        &["GALAXY_PUSH_BENCH_RATE", "--rate", "fast", "not a number"],
    );
    refused(
        &["serve"],
        &[("GALAXY_PUSH_ALLOW_LARGE_EVENTS", "perhaps")],
        &["GALAXY_PUSH_ALLOW_LARGE_EVENTS", "--allow-large-events"],
    );
    refused(
        &["serve"],
        &[("GALAXY_PUSH_MAX_PRODUCERS", "few")],
        &["GALAXY_PUSH_MAX_PRODUCERS", "--max-producers", "few"],
    );
    refused(&["tail"], &[("RUST_LOG", "a=b=c")], &["RUST_LOG"]);
    refused(&["tail"], &[("GALAXY_PUSH_LOG", "a=b=c")], &["--log"]);
}

#[test]
fn a_listener_that_others_reach_is_refused_until_it_is_protected_or_allowed() {
    let open = "--listen=0.0.0.0:0";
    refused(
        &["serve", open],
        &[],
        &[
            "--listen: 0.0.0.0:0 is not on loopback",
            "no TLS",
            "--allow-plaintext permits",
        ],
    );
    refused(
        &["serve", open, "--allow-plaintext"],
        &[],
        &[
            "--listen: 0.0.0.0:0",
            "neither an access file",
            "--allow-anonymous permits",
        ],
    );
    refused(
        &["serve", "--publish-listen=[::]:0", "--allow-anonymous"],
        &[],
        &["--publish-listen: [::]:0", "--allow-plaintext permits"],
    );
    // What is allowed fails later, and not for that.
    for variables in [
        &[
            ("GALAXY_PUSH_ALLOW_PLAINTEXT", "yes"),
            ("GALAXY_PUSH_ALLOW_ANONYMOUS", "1"),
        ][..],
        &[
            ("GALAXY_PUSH_ALLOW_PLAINTEXT", "true"),
            ("GALAXY_PUSH_ACCESS", "/nonexistent/access"),
        ],
    ] {
        let output = galaxy_push(&["serve", open, "--publish-listen=unix:/nonexistent/socket"])
            .envs(variables.iter().copied())
            .output()
            .expect("the binary runs");
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.contains("/nonexistent/") && !text.contains("loopback"),
            "{text}"
        );
    }
}

#[test]
fn a_flag_wins_over_its_variable() {
    refused(
        &["serve", "--window", "never"],
        &[("GALAXY_PUSH_WINDOW", "5m")],
        &["galaxy-push: --window: \"never\""],
    );
}

#[cfg(unix)]
#[test]
fn what_is_not_utf8_is_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let odd = OsStr::from_bytes(b"\xff");
    let output = galaxy_push(&["tail", "--id"]).arg(odd).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(only_line(&output).contains("not UTF-8"));

    let output = galaxy_push(&["tail"])
        .env("GALAXY_PUSH_TAIL_ID", odd)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(only_line(&output).contains("GALAXY_PUSH_TAIL_ID"));
}

#[test]
fn the_help_of_serve_has_every_flag_with_its_default_and_every_status() {
    let output = run(&["serve", "--help"]);
    assert!(output.status.success() && output.stderr.is_empty());
    let help = stdout(&output);
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for setting in Setting::ALL {
        let flag = setting.name().replace('_', "-");
        let (_, after) = help
            .split_once(&format!("\n      --{flag}"))
            .unwrap_or_else(|| panic!("--{flag} is not in the help"));
        let entry = words(after.split("\n      --").next().unwrap());
        let variable = format!("[env: GALAXY_PUSH_{}]", setting.name().to_uppercase());
        assert!(entry.contains(&variable), "--{flag}: {entry}");
        let summary = setting.description().split("\n\n").next().unwrap();
        let summary = Setting::ALL.iter().fold(words(summary), |text, named| {
            let flag = format!("--{}", named.name().replace('_', "-"));
            text.replace(&format!("`{}`", named.name()), &flag)
        });
        assert!(entry.contains(&summary), "--{flag}: {entry}");
        // A switch is off, there is no file, and the threads follow the machine: none
        // of these has a text.
        let has_default = !matches!(
            setting,
            Setting::TlsCert
                | Setting::TlsKey
                | Setting::TlsClientCa
                | Setting::Access
                | Setting::AdminHosts
                | Setting::Backbone
                | Setting::BackboneCreds
                | Setting::BackboneTlsCa
                | Setting::BackboneMaxAge
                | Setting::BackboneMaxBytes
                | Setting::AllowAnonymous
                | Setting::AllowPlaintext
                | Setting::AllowLargeEvents
                | Setting::WorkerThreads
        );
        assert_eq!(
            entry.contains("[default: "),
            has_default,
            "--{flag}: {entry}"
        );
    }
    for status in [
        "ABORTED",
        "OUT_OF_RANGE",
        "UNAVAILABLE",
        "RESOURCE_EXHAUSTED",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
    ] {
        assert!(help.contains(status), "{status}");
    }
}

#[test]
fn every_help_has_examples() {
    for command in [
        "serve",
        "publish",
        "tail",
        "status",
        "disconnect",
        "doctor",
        "bench",
    ] {
        let help = stdout(&run(&[command, "--help"]));
        assert!(help.contains("Examples:"), "{command}");
        assert!(
            help.contains(&format!("galaxy-push {command} ")),
            "{command}"
        );
        assert_eq!(help, stdout(&run(&["help", command])));
    }
    for workload in ["live", "replay", "storm", "publish", "idle", "soak"] {
        let help = stdout(&run(&["bench", workload, "--help"]));
        assert!(
            help.contains(&format!("galaxy-push bench {workload}")),
            "{workload}"
        );
        assert_eq!(help, stdout(&run(&["help", "bench", workload])));
    }
    assert!(stdout(&run(&["--help"])).contains("Exit codes:"));
}

#[test]
fn a_closed_pipe_ends_the_help_quietly() {
    let mut child = galaxy_push(&["serve", "--help"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn what_cannot_be_done_is_exit_code_1() {
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}/nobody", directory.path().display());
    for args in [
        &[
            "publish",
            "--connect",
            &socket,
            "--user-id",
            "u",
            "--kind",
            "k",
        ][..],
        &["publish", "--connect", &socket, "-"],
        &["publish", "/nonexistent/events.jsonl"],
        &["serve", "--listen", "unix:/nonexistent/socket"],
        &["tail", "--cursor-file", "/nonexistent/cursor"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("galaxy-push: "), "{args:?}: {text}");
        assert!(
            last.contains("nobody") || last.contains("/nonexistent/"),
            "{text}"
        );
    }
}
