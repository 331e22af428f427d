//! What `serve` tells a service manager.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::process::{PATIENCE, Process, galaxy_push, only_line, text};

/// A service manager, as far as it listens.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bound");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a time limit");
        Manager {
            socket,
            path,
            _folder: folder,
        }
    }

    fn serve(&self, flags: &[&str]) -> Command {
        let mut command = galaxy_push(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(flags);
        command.env("GALAXY_PUSH_PUBLISH_LISTEN", "127.0.0.1:0");
        command.env("NOTIFY_SOCKET", &self.path);
        command
    }

    /// The next message that is no sign of life.
    fn next(&self) -> String {
        loop {
            let message = self.next_of_any_kind();
            if message != "WATCHDOG=1" {
                return message;
            }
        }
    }

    fn next_of_any_kind(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("a message");
        String::from_utf8(bytes[..length].to_vec()).expect("UTF-8")
    }
}

#[test]
fn it_is_ready_when_it_serves_and_says_how_long_a_stop_may_take() {
    let manager = Manager::new();
    let flags = ["--shutdown-delay", "0s", "--shutdown-grace", "20s"];
    let mut server = Process::spawn(manager.serve(&flags));
    assert_eq!(manager.next(), "READY=1");
    let line = server.err.find("listening for gateways on ");
    let at = line.rsplit(' ').next().expect("an address").to_owned();
    std::net::TcpStream::connect(at).expect("it listens");
    server.signal(Signal::TERM);
    assert_eq!(
        manager.next(),
        "STOPPING=1\nSTATUS=stopping\nEXTEND_TIMEOUT_USEC=25000000"
    );
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn a_reload_is_announced_and_ends() {
    let manager = Manager::new();
    let server = Process::spawn(manager.serve(&[]));
    assert_eq!(manager.next(), "READY=1");
    server.signal(Signal::HUP);
    let message = manager.next();
    let usec = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    let usec: u64 = usec.expect(&message).parse().expect("a number");
    assert!(usec > 0);
    assert_eq!(manager.next(), "READY=1");
}

/// As often as is asked for, and the figures in between.
#[test]
fn it_gives_signs_of_life_while_it_serves() {
    let manager = Manager::new();
    let mut command = manager.serve(&[]);
    command.env("WATCHDOG_USEC", "200000");
    let server = Process::spawn(command);
    let mut signs = 0;
    let mut status = None;
    while signs < 20 || status.is_none() {
        match manager.next_of_any_kind() {
            sign if sign == "WATCHDOG=1" => signs += 1,
            message => status = status.or(message.strip_prefix("STATUS=").map(str::to_owned)),
        }
    }
    let status = status.expect("it came");
    assert!(status.starts_with("0 gateways; 0 events"), "{status}");
    drop(server);
}

/// A watchdog of a parent, say.
#[test]
fn a_watchdog_of_another_process_gets_no_signs() {
    let manager = Manager::new();
    let mut command = manager.serve(&[]);
    command
        .env("WATCHDOG_USEC", "20000")
        .env("WATCHDOG_PID", "1");
    let mut server = Process::spawn(command);
    assert_eq!(manager.next_of_any_kind(), "READY=1");
    server.signal(Signal::HUP);
    // With one of its own it would have come many times by now.
    let limit = Some(Duration::from_millis(500));
    let mut bytes = [0; 4096];
    manager.socket.set_read_timeout(limit).expect("a limit");
    while let Ok(length) = manager.socket.recv(&mut bytes) {
        assert_ne!(&bytes[..length], b"WATCHDOG=1");
    }
    server.signal(Signal::TERM);
    server.end();
}

#[test]
fn a_variable_that_makes_no_sense_is_named() {
    for (name, value, reason) in [
        (
            "NOTIFY_SOCKET",
            "notify",
            "neither an absolute path nor @NAME",
        ),
        ("WATCHDOG_USEC", "soon", "\"soon\" is no number"),
        ("WATCHDOG_PID", "-1", "\"-1\" is no number"),
    ] {
        let mut command = galaxy_push(&["serve"]);
        let output = command.env(name, value).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{name}");
        let line = only_line(&output);
        assert!(line.contains(name) && line.contains(reason), "{line}");
    }
}

#[test]
fn a_manager_that_is_not_there_does_not_keep_it_from_serving() {
    let manager = Manager::new();
    let mut command = manager.serve(&[]);
    command.env("NOTIFY_SOCKET", format!("{}-gone", text(&manager.path)));
    let server = Process::spawn(command);
    server.err.find("NOTIFY_SOCKET: ");
    server.err.find("listening for producers on ");
}
