//! Socket activation: a supervisor binds, servers come and go.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::process::{
    PATIENCE, Process, galaxy_push, only_line, run_with_input, small, text,
};

/// Its sockets come as standard input and output, and go to where a service manager puts them.
const PASS: &str = "export LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null";

/// `galaxy-push serve` with these two as the descriptors 3 and 4, which is what the rest of
/// the environment has to say.
fn serve(first: impl Into<OwnedFd>, second: impl Into<OwnedFd>, flags: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let product = galaxy_push(&[]);
    for (name, value) in product.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.args(["-c", PASS]);
    command.arg(product.get_program()).arg("serve").args(flags);
    command.stdin(first.into()).stdout(second.into());
    command.env("LISTEN_FDS", "2").env_remove("LISTEN_FDNAMES");
    command
}

fn tcp() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("it is bound").to_string();
    (listener, at)
}

fn copy(listener: &TcpListener) -> TcpListener {
    listener.try_clone().expect("one more descriptor")
}

fn publish(at: &str, number: u64) -> Option<i32> {
    let line = small(number);
    run_with_input(&["publish", "-", "--connect", at], &line)
        .status
        .code()
}

/// What is passed takes the place of what the settings name, by name or else in order.
#[test]
fn passed_sockets_are_served() {
    for names in [None, Some("publishers:gateways")] {
        let ((first, first_at), (second, second_at)) = (tcp(), tcp());
        let mut command = serve(first, second, &[]);
        let (gateways, publishers) = match names {
            None => (first_at, second_at),
            Some(names) => {
                command.env("LISTEN_FDNAMES", names);
                (second_at, first_at)
            }
        };
        let server = Process::with_stdout(command);
        server
            .err
            .find(&format!("listening for gateways on {gateways}"));
        server
            .err
            .find(&format!("listening for producers on {publishers}"));
        assert_eq!(publish(&publishers, 1), Some(0), "{names:?}");
    }
}

/// A socket that was passed belongs to whoever passed it: its file too.
#[test]
fn a_unix_socket_outlives_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("publishers.sock");
    let socket = UnixListener::bind(&path).expect("bound");
    let (gateways, _) = tcp();
    let passed = socket.try_clone().expect("one more descriptor");
    let mut server = Process::with_stdout(serve(gateways, passed, &[]));
    server.err.find("listening for producers on unix:");
    let at = format!("unix:{}", text(&path));
    assert_eq!(publish(&at, 1), Some(0));
    server.signal(Signal::TERM);
    assert_eq!(server.end().code(), Some(0));
    UnixStream::connect(&path).expect("the supervisor still listens");
}

fn refused(mut command: Command, parts: &[&str]) {
    let output = command
        .stderr(Stdio::piped())
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(2), "{parts:?}");
    let line = only_line(&output);
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn a_socket_of_another_kind_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let datagrams = UnixDatagram::bind(folder.path().join("d")).expect("bound");
    let wanted = "neither a TCP socket nor a Unix stream socket";
    refused(serve(tcp().0, datagrams, &[]), &["\"publishers\"", wanted]);
    let file = std::fs::File::open("/dev/null").expect("it is there");
    refused(serve(file, tcp().0, &[]), &["\"gateways\"", wanted]);
    let (listener, at) = tcp();
    let connected = TcpStream::connect(at).expect("connected");
    refused(
        serve(connected, listener, &[]),
        &["\"gateways\"", "does not listen"],
    );
}

#[test]
fn a_variable_that_makes_no_sense_is_named() {
    for (name, value, reason) in [
        ("LISTEN_FDS", "many", "\"many\" is not a number of sockets"),
        ("LISTEN_FDS", "4", "4 sockets are passed, at most 3"),
        ("LISTEN_FDS", "18446744073709551615", "at most 3"),
        (
            "LISTEN_FDS",
            "3",
            "\"admin\" that was passed cannot be used",
        ),
        ("LISTEN_FDNAMES", "gateways", "1 names for 2 sockets"),
        ("LISTEN_FDNAMES", "gateways:web", "\"web\" is none of"),
        ("LISTEN_FDNAMES", "gateways:gateways", "two sockets"),
        ("LISTEN_FDNAMES", "gateways:admin", "--admin-listen: "),
        ("LISTEN_FDS_FIRST_FD", "2147483647", "from 3 to 65535"),
    ] {
        let mut command = serve(tcp().0, tcp().0, &[]);
        command.env(name, value);
        refused(command, &[reason]);
    }
    let mut command = galaxy_push(&["serve"]);
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", "me");
    refused(command, &["LISTEN_PID: \"me\" is not a process id"]);
}

/// Variables that were meant for a parent, say.
#[test]
fn sockets_for_another_process_are_left_alone() {
    let mut command = galaxy_push(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("GALAXY_PUSH_PUBLISH_LISTEN", "127.0.0.1:0");
    command.env("LISTEN_FDS", "3").env("LISTEN_PID", "1");
    let server = Process::spawn(command);
    server.err.find("listening for producers on 127.0.0.1:");
}

/// Whoever binds decides who reaches it: the address in the settings does not count.
#[test]
fn a_socket_that_others_reach_needs_protection_too() {
    let open = TcpListener::bind("0.0.0.0:0").expect("a free port");
    refused(
        serve(open, tcp().0, &[]),
        &["--listen: 0.0.0.0:", "--allow-plaintext"],
    );
}

/// The preface of HTTP/2 and an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const SETTINGS: u8 = 4;

/// Connects, and waits until a server has said in HTTP/2 that it is there.
fn is_greeted(at: &str) -> Result<(), std::io::Error> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(HELLO)?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    assert_eq!(head[3], SETTINGS);
    Ok(())
}

/// Clients connect all the while, and one server follows another: nobody is refused, and
/// nobody's connection ends without a word.
#[test]
fn a_restart_refuses_no_connection() {
    const CLIENTS: u64 = 4;
    let ((gateways, gateways_at), (publishers, publishers_at)) = (tcp(), tcp());
    let start = || {
        let server = Process::with_stdout(serve(copy(&gateways), copy(&publishers), &[]));
        server.err.find("listening for producers on ");
        server
    };
    let mut server = start();
    let done = AtomicBool::new(false);
    let greeted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        // Ends the clients of a test that fails, too.
        let _ends = scopeguard(&done);
        for client in 0..CLIENTS {
            let at = [&gateways_at, &publishers_at][client as usize % 2];
            let (done, greeted) = (&done, &greeted);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    is_greeted(at).unwrap_or_else(|error| panic!("client {client}: {error}"));
                    greeted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let wait_for_more = || {
            let (begun, before) = (Instant::now(), greeted.load(Ordering::Relaxed));
            while greeted.load(Ordering::Relaxed) < before + 10 * CLIENTS {
                assert!(begun.elapsed() < PATIENCE, "nobody is served");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        for _ in 0..3 {
            wait_for_more();
            server.signal(Signal::TERM);
            assert_eq!(server.end().code(), Some(0));
            server = start();
        }
        wait_for_more();
    });
}

/// Sets the flag when it is dropped.
fn scopeguard(done: &AtomicBool) -> impl Drop + '_ {
    struct Ends<'a>(&'a AtomicBool);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    Ends(done)
}

/// systemd's own supervisor for tests: it listens, and starts the server with the first
/// connection.
#[test]
fn systemd_passes_its_sockets() {
    let tool = "systemd-socket-activate";
    if Command::new(tool).arg("--version").output().is_err() {
        eprintln!("SKIPPED: {tool} is not installed (Debian: systemd)");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (gateways, publishers) = (path("gateways.sock"), path("publishers.sock"));
    let product = galaxy_push(&[]);
    let mut command = Command::new(tool);
    for variable in ["GALAXY_PUSH_ADMIN_LISTEN=none", "RUST_LOG=info"] {
        command.arg("-E").arg(variable);
    }
    command.arg("-l").arg(&publishers).arg("-l").arg(&gateways);
    command.arg("--fdname=publishers:gateways");
    command.arg(product.get_program()).arg("serve");
    let mut supervisor = Process::spawn(command);
    supervisor.err.find("Listening on");
    supervisor.err.find("Listening on");
    let at = format!("unix:{}", text(&publishers));
    assert_eq!(publish(&at, 1), Some(0));
    supervisor.err.find(&format!(
        "listening for gateways on unix:{}",
        text(&gateways)
    ));
    // It has become the server.
    supervisor.signal(Signal::TERM);
    assert_eq!(supervisor.end().code(), Some(0));
    assert!(Path::new(&publishers).exists(), "the file is systemd's");
}
