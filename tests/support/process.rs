//! The binary as a child process, its output watched line by line.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Nothing here takes long; this only ends a test that would otherwise hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary with these arguments, without the settings of whoever runs the
/// tests.
pub(crate) fn galaxy_push(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_galaxy-push"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("GALAXY_PUSH_") || name == "RUST_LOG" {
            command.env_remove(&*name);
        }
    }
    // Its default port can be taken by one of them only.
    command.env("GALAXY_PUSH_ADMIN_LISTEN", "none");
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    galaxy_push(args).output().expect("the binary runs")
}

/// Runs it to its end with this on standard input.
pub(crate) fn run_with_input(args: &[&str], input: &str) -> Output {
    let mut child = galaxy_push(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // It may stop reading before the end.
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("the writer ends");
    output
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// The one line on standard error.
pub(crate) fn only_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1, "{text}");
    lines[0].to_owned()
}

/// The lines of a stream, as they come. Reading begins when the first is asked
/// for.
pub(crate) struct Lines {
    unread: RefCell<Option<Box<dyn Read + Send>>>,
    send: RefCell<Option<Sender<String>>>,
    receive: Receiver<String>,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let (send, receive) = channel();
        Lines {
            unread: RefCell::new(Some(Box::new(stream))),
            send: RefCell::new(Some(send)),
            receive,
        }
    }

    /// Begins to read.
    pub(crate) fn read(&self) {
        let (Some(stream), Some(send)) = (self.unread.take(), self.send.take()) else {
            return;
        };
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { return };
                if send.send(line).is_err() {
                    return;
                }
            }
        });
    }

    /// Closes the stream without reading it.
    pub(crate) fn close(&self) {
        drop(self.unread.take());
        drop(self.send.take());
    }

    /// The next line, or `None` at the end.
    pub(crate) fn next(&self) -> Option<String> {
        self.read();
        match self.receive.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line came"),
        }
    }

    /// So many lines.
    pub(crate) fn take(&self, count: usize) -> Vec<String> {
        (0..count)
            .map(|at| {
                self.next()
                    .unwrap_or_else(|| panic!("only {at} lines came"))
            })
            .collect()
    }

    /// All lines up to the end.
    pub(crate) fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Skips lines up to one that contains `text`, and returns it.
    pub(crate) fn find(&self, text: &str) -> String {
        let mut seen = Vec::new();
        while let Some(line) = self.next() {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("no line with {text:?} in {seen:#?}");
    }
}

/// A running process. Killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) out: Lines,
    pub(crate) err: Lines,
}

impl Process {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::spawn(galaxy_push(args))
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        Self::with_stdout(command)
    }

    /// With the standard output that the command has.
    pub(crate) fn with_stdout(mut command: Command) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let out = match child.stdout.take() {
            Some(out) => Lines::of(out),
            None => Lines::of(std::io::empty()),
        };
        let err = Lines::of(child.stderr.take().expect("it is piped"));
        // Nobody may be kept from logging.
        err.read();
        Process { child, out, err }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child
            .stdin
            .take()
            .expect("it is piped, and taken once")
    }

    /// The way of `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `galaxy-push serve` on addresses of its own.
pub(crate) struct Server {
    pub(crate) process: Process,
    /// Where gateways subscribe.
    pub(crate) gateways: String,
    /// Where publishers publish.
    pub(crate) publishers: String,
}

impl Server {
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut args = vec!["serve"];
        if !flags.contains(&"--listen") {
            args.extend(["--listen", "127.0.0.1:0"]);
        }
        if !flags.contains(&"--publish-listen") {
            args.extend(["--publish-listen", "127.0.0.1:0"]);
        }
        if !flags.contains(&"--admin-listen") {
            args.extend(["--admin-listen", "none"]);
        }
        args.extend(flags);
        Self::start_with(&args)
    }

    /// With these arguments, whose addresses have any port.
    pub(crate) fn start_with(args: &[&str]) -> Self {
        let process = Process::start(args);
        let address = |what: &str| {
            let line = process.err.find(what);
            let (_, address) = line.split_once(what).expect("it was found");
            // In JSON more follows.
            address
                .split('"')
                .next()
                .expect("its end")
                .trim()
                .to_owned()
        };
        let gateways = address("listening for gateways on ");
        let publishers = address("listening for producers on ");
        Server {
            process,
            gateways,
            publishers,
        }
    }

    /// A tail that is subscribed.
    pub(crate) fn tail(&self, flags: &[&str]) -> Process {
        let tail = self.tail_at_once(flags);
        tail.err.find("subscribed as ");
        tail
    }

    /// A tail that may not be subscribed yet.
    pub(crate) fn tail_at_once(&self, flags: &[&str]) -> Process {
        let mut args = vec!["tail", "--connect", &self.gateways];
        args.extend(flags);
        Process::start(&args)
    }

    /// Publishes lines from standard input.
    pub(crate) fn publish(&self, lines: &str) -> Output {
        run_with_input(&["publish", "-", "--connect", &self.publishers], lines)
    }

    /// Publishes so many small events, and returns their cursors.
    pub(crate) fn publish_small(&self, numbers: std::ops::Range<u64>) -> Vec<String> {
        let output = self.publish(&numbers.map(small).collect::<String>());
        assert!(output.status.success(), "{output:?}");
        stdout(&output).lines().map(str::to_owned).collect()
    }
}

/// A small event as a line.
pub(crate) fn small(number: u64) -> String {
    format!(
        "{{\"client_event\":{{\"user_id\":\"u{number}\",\"kind\":\"k\",\"payload\":{number}}}}}\n"
    )
}

/// The cursor of a line of `tail`. Taken as text: the payload may have numbers
/// that no parser takes.
pub(crate) fn cursor(line: &str) -> String {
    let rest = line.strip_prefix("{\"cursor\":\"").expect("a cursor first");
    rest.split('"').next().expect("its end").to_owned()
}

/// The place of a line of `tail` in its stream.
pub(crate) fn seq(line: &str) -> u64 {
    let cursor: galaxy_push::cursor::Cursor = cursor(line).parse().expect("a cursor");
    cursor.seq().number()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
