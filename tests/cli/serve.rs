//! `serve`: how it starts and stops.

use rustix::process::Signal;

use crate::support::process::{Process, Server, galaxy_push, only_line, run};

#[test]
fn sigterm_and_sigint_end_it_with_exit_code_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&[]);
        let tail = server.tail(&[]);
        server.publish_small(0..10);
        server.process.signal(signal);
        assert_eq!(server.process.end().code(), Some(0), "{signal:?}");
        assert_eq!(tail.out.take(10).len(), 10);
    }
}

#[test]
fn an_address_in_use_is_named() {
    let server = Server::start(&[]);
    let output = run(&["serve", "--listen", &server.gateways, "--log", "off"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(only_line(&output).contains(&server.gateways));
}

#[test]
fn nothing_goes_to_standard_output() {
    let mut server = Server::start(&["--log", "trace"]);
    server.publish_small(0..3);
    server.process.signal(Signal::TERM);
    server.process.end();
    assert_eq!(server.process.out.next(), None);
}

#[test]
fn variables_set_what_flags_do_not() {
    let mut command = galaxy_push(&["serve", "--listen", "127.0.0.1:0", "--admin-listen=none"]);
    command.env("GALAXY_PUSH_PUBLISH_LISTEN", "127.0.0.1:0");
    command.env("GALAXY_PUSH_MAX_EVENT_BYTES", "64B");
    let process = Process::spawn(command);
    let line = process.err.find("listening for producers on ");
    let address = line.rsplit(' ').next().unwrap();
    let output = run(&[
        "publish",
        "--connect",
        address,
        "--user-id",
        "u",
        "--kind",
        "k",
        "--payload",
        &"x".repeat(100),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(only_line(&output).contains("INVALID_ARGUMENT"));
}

#[test]
fn large_events_are_allowed_by_a_variable_too() {
    let mut command = galaxy_push(&["serve", "--listen", "127.0.0.1:0", "--admin-listen=none"]);
    command.env("GALAXY_PUSH_PUBLISH_LISTEN", "127.0.0.1:0");
    command.env("GALAXY_PUSH_MAX_EVENT_BYTES", "8MiB");
    command.env("GALAXY_PUSH_ALLOW_LARGE_EVENTS", "true");
    let process = Process::spawn(command);
    process.err.find("listening for producers on ");
}

#[test]
fn an_epoch_later_than_its_own_is_logged_once() {
    let mut server = Server::start(&[]);
    let subscribe = |id: &str, cursor: &str| {
        let tail = server.tail_at_once(&["--id", id, "--cursor", cursor]);
        tail.err.find("(other-epoch)");
        tail.err.find("subscribed as ");
    };
    subscribe("an-earlier-one", "000000000000-00000000001");
    for n in 0..3 {
        let id = format!("gateway-{n}");
        subscribe(&id, "ZZZZZZZZZZZZ-00000000001");
    }
    server.process.signal(Signal::TERM);
    server.process.end();
    let logged: Vec<_> = (server.process.err.rest().into_iter())
        .filter(|line| line.contains("later than this server's"))
        .collect();
    let [line] = &logged[..] else {
        panic!("{logged:?}");
    };
    assert!(line.contains("WARN"), "{line}");
    assert!(line.contains("gateway-0"), "{line}");
    assert!(line.contains("ZZZZZZZZZZZZ-00000000001"), "{line}");
}
