//! `status`, `disconnect` and `doctor`, against a real server.

use std::process::Output;

use serde_json::Value;

use crate::support::process::{Process, Server, galaxy_push, only_line, run, stdout};

/// A server with an admin listener, and where that is.
fn start(flags: &[&str]) -> (Server, String) {
    let mut all = vec!["--admin-listen", "127.0.0.1:0"];
    all.extend(flags);
    let server = Server::start(&all);
    let line = server.process.err.find("listening for operators on ");
    let admin = line.rsplit(' ').next().expect("an address").to_owned();
    (server, admin)
}

fn ask(command: &str, admin: &str, args: &[&str]) -> Output {
    let mut all = vec![command, "--connect", admin];
    all.extend(args);
    run(&all)
}

/// The status, once it has so many deliveries.
fn status(admin: &str, deliveries: u64) -> Value {
    for _ in 0..200 {
        let output = ask("status", admin, &["--json"]);
        let status: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        if status["totals"]["deliveries"] == deliveries {
            return status;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("never {deliveries} deliveries");
}

#[test]
fn status_shows_the_server_its_gateways_and_the_last_ends() {
    let (server, admin) = start(&[]);
    let tail = server.tail(&["--id", "gateway-1"]);
    server.publish_small(0..10);
    tail.out.take(10);
    let status = status(&admin, 10);
    assert_eq!(status["state"], "serving");
    assert_eq!(status["gateway_table"]["gateways"][0]["id"], "gateway-1");
    assert_eq!(status["totals"]["client_events_published"], 10);
    let output = ask("status", &admin, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let page = stdout(&output);
    for part in [
        "serving for",
        "10 client events",
        "GATEWAY",
        "gateway-1",
        "1 of 10,000",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let output = ask("status", &admin, &["--filter", "nobody"]);
    assert!(!stdout(&output).contains("gateway-1"));
    let output = ask("status", &admin, &["--sort", "colour"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(only_line(&output).contains("\"colour\" is not one of id"));
}

#[test]
fn status_is_shown_again_until_it_is_stopped() {
    let (mut server, admin) = start(&[]);
    let mut watch = Process::start(&["status", "--connect", &admin, "--watch=100ms"]);
    watch.out.find("serving for");
    watch.out.find("serving for");
    // A server that is away is told of, and waited for.
    server.process.kill();
    watch.out.find("cannot connect to");
    watch.signal(rustix::process::Signal::TERM);
    assert_eq!(watch.end().code(), Some(0));
}

#[test]
fn disconnect_ends_one_gateways_stream() {
    let (server, admin) = start(&[]);
    let odd = "a/b ?#ü";
    let tail = server.tail(&["--id", odd]);
    let other = server.tail(&["--id", "other"]);
    let output = ask("disconnect", &admin, &[odd]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stdout(&output), format!("disconnected {odd}\n"));
    // It comes back with its cursor, and the other one has noticed nothing.
    tail.err.find("DISCONNECTED_BY_OPERATOR");
    tail.err.find("subscribed");
    server.publish_small(0..1);
    assert_eq!(tail.out.take(1).len() + other.out.take(1).len(), 2);
    let output = ask("disconnect", &admin, &["nobody"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(only_line(&output).contains("no gateway \"nobody\" is subscribed"));
}

#[test]
fn dots_are_ids_too() {
    let (server, admin) = start(&[]);
    for id in [".", ".."] {
        let _tail = server.tail(&["--id", id]);
        let output = ask("disconnect", &admin, &[id]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
}

#[test]
fn the_doctor_finds_nothing_and_then_who_uses_an_id_twice() {
    let (server, admin) = start(&[]);
    // It is ready a moment later.
    for _ in 0..200 {
        if ask("health", &admin, &[]).status.success() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let output = ask("doctor", &admin, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stdout(&output), "nothing is wrong\n");
    let mut older = server.tail(&["--id", "twice"]);
    for _ in 0..3 {
        let newer = server.tail(&["--id", "twice"]);
        assert_eq!(older.end().code(), Some(3));
        older = newer;
    }
    // Answers are given again for a moment.
    let mut output = ask("doctor", &admin, &["--json"]);
    for _ in 0..200 {
        if !output.status.success() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        output = ask("doctor", &admin, &["--json"]);
    }
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let findings: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(findings[0]["name"], "id_used_twice", "{findings}");
    assert_eq!(only_line(&output), "galaxy-push: 1 problem");
}

#[test]
fn who_is_not_there_or_is_something_else_is_told() {
    for command in ["status", "doctor"] {
        let output = ask(command, "127.0.0.1:1", &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(only_line(&output).contains("cannot connect to 127.0.0.1:1"));
    }
    let mut bad = galaxy_push(&["status", "--gateways", "1001"]);
    let output = bad.output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(only_line(&output).contains("from 0 to 1000"));
}
