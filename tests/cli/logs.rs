//! The log: its formats, what peers cannot make of it, and a reader who does not read.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::process::{PATIENCE, Process, Server, galaxy_push, run_with_input, small};

#[test]
fn json_is_an_object_in_each_line_with_all_fields_at_its_top() {
    let mut server = Server::start(&["--log", "debug", "--log-format", "json"]);
    let _tail = server.tail(&["--id", "the-gateway"]);
    server.process.signal(Signal::TERM);
    assert!(server.process.end().success());
    let lines = server.process.err.rest();
    let lines: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    for line in &lines {
        for key in ["timestamp", "level", "target", "message"] {
            assert!(line[key].is_string(), "{key}: {line}");
        }
    }
    let subscribed = lines.iter().find(|line| line["gateway"] == "the-gateway");
    assert!(subscribed.is_some(), "{lines:?}");
}

#[test]
fn texts_of_peers_begin_no_line_of_their_own() {
    let hostile = r#"{"session_invalidation":{"user_id":"u\nERROR forged\u001b[2J\u009b\u2028x","reason":"r\r\nERROR forged"}}"#;
    for format in ["text", "json"] {
        let mut server = Server::start_with(&[
            "serve",
            "--listen=127.0.0.1:0",
            "--publish-listen=127.0.0.1:0",
            "--log=trace",
            "--log-format",
            format,
        ]);
        let _tail = server.tail(&["--id", "g"]);
        assert!(server.publish(&format!("{hostile}\n")).status.success());
        server.process.signal(Signal::TERM);
        server.process.end();
        for line in server.process.err.rest() {
            let is_whole = match format {
                "json" => serde_json::from_str::<Value>(&line).is_ok(),
                _ => line.starts_with("20") && line.contains('Z'),
            };
            assert!(is_whole, "{line:?}");
            let is_plain = |c: char| !c.is_control() && c != '\u{2028}';
            assert!(line.chars().all(is_plain), "{line:?}");
        }
    }
}

/// A server whose standard error is a pipe that nobody reads.
struct Deaf {
    child: Child,
    _directory: tempfile::TempDir,
    gateways: String,
    publishers: String,
}

impl Deaf {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let (gateways, publishers) = (at("gateways"), at("publishers"));
        let child = galaxy_push(&["serve", "--log", "debug"])
            .args(["--listen", &format!("unix:{gateways}")])
            .args(["--publish-listen", &format!("unix:{publishers}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Deaf {
            child,
            _directory: directory,
            gateways,
            publishers,
        }
    }

    /// Connects, says what is no HTTP/2, and waits for the end. That is a line of the log.
    fn misbehave(&self) {
        let begun = Instant::now();
        let mut socket = loop {
            match UnixStream::connect(&self.gateways) {
                Ok(socket) => break socket,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nnothing that is HTTP/2");
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
    }

    fn stop(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Waits for the end, with standard error still unread.
    fn end(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(0));
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }
}

impl Drop for Deaf {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// More than the pipe and the queue hold.
const TOO_MANY: usize = 12_000;

#[test]
fn nobody_waits_for_a_log_that_is_not_read_and_it_says_what_was_lost() {
    let mut deaf = Deaf::start();
    for _ in 0..TOO_MANY {
        deaf.misbehave();
    }
    let gateways = format!("unix:{}", deaf.gateways);
    let tail = Process::start(&["tail", "--connect", &gateways, "--id", "g"]);
    tail.err.find("subscribed as ");
    let publishers = format!("unix:{}", deaf.publishers);
    let args = ["publish", "-", "--connect", &publishers];
    let published = run_with_input(&args, &small(1));
    assert!(published.status.success(), "{published:?}");
    tail.out.next().expect("it is delivered");

    // Somebody reads again.
    let mut stderr = deaf.child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut log = String::new();
        let _ = stderr.read_to_string(&mut log);
        log
    });
    deaf.stop();
    deaf.end();
    let log = reader.join().unwrap();
    let lost = log
        .lines()
        .find(|line| line.contains("lines of the log were lost"));
    let lost = lost.unwrap_or_else(|| panic!("{} lines", log.lines().count()));
    assert!(lost.contains("ERROR galaxy_push::audit"), "{lost}");
    let figure = lost.split("since_start=").nth(1).unwrap();
    let figure: usize = figure.split(' ').next().unwrap().parse().unwrap();
    let misbehaved = log
        .lines()
        .filter(|line| line.contains("connection ended"))
        .count();
    assert!(figure > 0);
    assert!(
        misbehaved + figure >= TOO_MANY,
        "{misbehaved} and {figure} lost"
    );
}

#[test]
fn a_log_that_is_not_read_does_not_hold_up_the_end() {
    let mut deaf = Deaf::start();
    for _ in 0..TOO_MANY {
        deaf.misbehave();
    }
    deaf.stop();
    deaf.end();
    let mut printed = String::new();
    let mut stdout = deaf.child.stdout.take().unwrap();
    stdout.read_to_string(&mut printed).unwrap();
    assert_eq!(printed, "");
}
