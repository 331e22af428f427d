//! The server that is measured: started and stopped here, or somebody else's.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::args::ServerArgs;
use super::certificate::Certificate;
use super::plan::{AROUND_PAYLOAD_BYTES, Bench, Run};
use crate::command::Failure;
use crate::config::{Address, Config};
use crate::lab::load::{Endpoint, GalaxyPush, Pace};
use crate::tls::ClientTls;

/// How long a server may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to stop before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Its last words are short.
const SHUTDOWN_GRACE: &str = "1s";
/// Segments that are begun and not full, and those that are kept ready.
const SPARE_RING_BYTES: u64 = 8 << 20;

/// A server for as long as it is measured.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) target: GalaxyPush,
    /// How many of the newest events it surely keeps.
    pub(super) retained_events: u64,
    /// If it was started here.
    started: Option<Started>,
}

#[derive(Debug)]
struct Started {
    child: Child,
    /// Where its Unix sockets and its certificate are, if it has some. Removed with this
    /// value.
    _directory: Option<tempfile::TempDir>,
}

impl Server {
    /// The server of a run.
    pub(super) fn of(bench: &Bench, run: &Run) -> Result<Self, Failure> {
        let ServerArgs {
            connect,
            publish_connect,
            server_pid,
            ..
        } = &bench.server;
        match (connect, publish_connect) {
            (Some(gateways), Some(publishers)) => {
                let how = &bench.server.how;
                how.connector(publishers)?;
                let authorization = how.connector(gateways)?.authorization();
                let tls = tls(bench, how.client_tls());
                Ok(Server {
                    target: GalaxyPush {
                        gateways: resolve("--connect", gateways, tls.as_ref())?,
                        publishers: resolve("--publish-connect", publishers, tls.as_ref())?,
                        offer: bench.offer,
                        authorization: authorization
                            .map_err(|error| Failure::usage(error.to_string()))?,
                        pid: server_pid.map(|pid| pid as u32),
                    },
                    retained_events: 0,
                    started: None,
                })
            }
            _ => Self::start(bench, run),
        }
    }

    fn start(bench: &Bench, run: &Run) -> Result<Self, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::failed(format!("cannot find this program: {error}")))?;
        let ServerArgs { unix, how, .. } = &bench.server;
        let with_tls = how.client_tls().is_some();
        if how.is_for_a_running_server() {
            return Err(Failure::usage(
                "--tls-ca, --tls-cert, --tls-server-name and --token-file are for a running \
                 server (--connect)",
            ));
        }
        if *unix && with_tls {
            return Err(Failure::usage("--unix: a Unix socket has no TLS"));
        }
        let directory = if *unix || with_tls {
            let made = tempfile::Builder::new()
                .prefix("galaxy-push-bench-")
                .tempdir();
            Some(made.map_err(|error| {
                Failure::failed(format!("cannot make a directory for the server: {error}"))
            })?)
        } else {
            None
        };
        let address = |name: &str| match &directory {
            Some(directory) if *unix => unix_address(directory.path(), name),
            _ => "127.0.0.1:0".to_owned(),
        };
        let certificate = match &directory {
            Some(directory) if with_tls => Some(Certificate::write(directory.path())?),
            _ => None,
        };
        let mut command = Command::new(program);
        command
            .arg("serve")
            .args(["--listen", &address("gateways")])
            .args(["--publish-listen", &address("publishers")])
            .args(["--admin-listen", "none"])
            .args(["--log", "info", "--shutdown-grace", SHUTDOWN_GRACE])
            .args(settings(bench, run));
        if let Some(files) = &certificate {
            command.arg("--tls-cert").arg(&files.certificate);
            command.arg("--tls-key").arg(&files.key);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for the bench, which then stops it.
            .process_group(0);
        let child = command
            .spawn()
            .map_err(|error| Failure::failed(format!("cannot start a server: {error}")))?;
        let mut started = Started {
            child,
            _directory: directory,
        };
        let [gateways, publishers] = started.addresses()?;
        let trusted = certificate.map(|files| ClientTls::new().ca(files.certificate));
        let tls = tls(bench, trusted);
        let target = GalaxyPush {
            gateways: resolve("the server", &gateways, tls.as_ref())?,
            publishers: resolve("the server", &publishers, tls.as_ref())?,
            offer: bench.offer,
            authorization: None,
            pid: Some(started.child.id()),
        };
        Ok(Server {
            target,
            retained_events: retained_events(bench, run),
            started: Some(started),
        })
    }

    /// Which server it is, for people.
    pub(super) fn describe(&self) -> String {
        let at = format!("{} and {}", self.target.gateways, self.target.publishers);
        match &self.started {
            Some(_) => format!("started for this, at {at}"),
            None => at,
        }
    }
}

fn unix_address(directory: &Path, name: &str) -> String {
    format!("unix:{}", directory.join(name).display())
}

/// The settings of a started server.
fn settings(bench: &Bench, run: &Run) -> Vec<String> {
    let args = &bench.server;
    let mut settings = Vec::new();
    let mut set = |flag: &str, value: String| settings.extend([flag.to_owned(), value]);
    let event_bytes = run.payload_bytes as u64 + AROUND_PAYLOAD_BYTES;
    if let Some(events) = args.max_events.or(bench.kept) {
        set("--max-events", events.to_string());
    }
    let default_bytes = Config::default().max_bytes;
    // Room for what is to be kept, if that is more than there is anyway.
    let kept_bytes = bench.kept.map(|events| {
        let bytes = events.saturating_mul(event_bytes);
        bytes.saturating_add(SPARE_RING_BYTES).max(default_bytes)
    });
    if let Some(bytes) = args.max_bytes.or(kept_bytes) {
        set("--max-bytes", bytes.to_string());
    }
    let default_event_bytes = Config::default().max_event_bytes as u64;
    let max_event_bytes = event_bytes.max(default_event_bytes);
    set("--max-event-bytes", max_event_bytes.to_string());
    let default_subscribers = Config::default().max_subscribers;
    set(
        "--max-subscribers",
        run.connections().max(default_subscribers).to_string(),
    );
    if let Some(timeout) = args.stall_timeout {
        set("--stall-timeout", format!("{}ms", timeout.as_millis()));
    }
    if let Some(threads) = args.worker_threads {
        set("--worker-threads", threads.to_string());
    }
    // The load generator accepts whatever the server may be configured for.
    if max_event_bytes > Config::MAX_PORTABLE_EVENT_BYTES as u64 {
        settings.push("--allow-large-events".to_owned());
    }
    settings
}

/// How many events a started server surely keeps, whatever a segment's end wastes and
/// however many come while somebody subscribes.
fn retained_events(bench: &Bench, run: &Run) -> u64 {
    let default = Config::default();
    let ring_bytes = bench.server.max_bytes.unwrap_or(default.max_bytes);
    let event_bytes = run.payload_bytes as u64 + AROUND_PAYLOAD_BYTES;
    let by_bytes = ring_bytes / event_bytes;
    let by_age = match run.plan.pace {
        Pace::PerSecond(rate) => (rate * default.window.as_secs_f64()) as u64,
        Pace::Full => 0,
    };
    let by_number = bench.server.max_events.unwrap_or(default.max_events);
    by_bytes.min(by_age).min(by_number) / 4
}

/// TLS as the gateways of this bench use it.
fn tls(bench: &Bench, tls: Option<ClientTls>) -> Option<ClientTls> {
    let resumes = !bench.server.no_tls_resumption;
    tls.map(|tls| tls.resumption(resumes))
}

fn resolve(what: &str, address: &Address, tls: Option<&ClientTls>) -> Result<Endpoint, Failure> {
    let endpoint = Endpoint::resolve(address)
        .map_err(|error| Failure::failed(format!("{what}: {address}: {error}")))?;
    match tls {
        None => Ok(endpoint),
        Some(tls) => endpoint
            .over_tls(tls, address.host().unwrap_or_default())
            .map_err(|error| Failure::usage(error.to_string())),
    }
}

impl Started {
    /// Where it listens, as its log says; or why it does not.
    fn addresses(&mut self) -> Result<[Address; 2], Failure> {
        let (send, lines) = mpsc::channel();
        if let Some(stderr) = self.child.stderr.take() {
            thread::spawn(move || read_log(stderr, &send));
        }
        let begun = Instant::now();
        let mut found = [None, None];
        let mut last = String::new();
        while found.iter().any(Option::is_none) {
            let left = START_PATIENCE.saturating_sub(begun.elapsed());
            let Ok(line) = lines.recv_timeout(left) else {
                let said = last.trim_start_matches("galaxy-push: ");
                return Err(Failure::failed(format!("the server did not start: {said}")));
            };
            for (found, words) in found.iter_mut().zip([
                " listening for gateways on ",
                " listening for producers on ",
            ]) {
                if let Some((_, address)) = line.split_once(words) {
                    *found = address.trim().parse::<Address>().ok();
                }
            }
            last = line;
        }
        match found {
            [Some(gateways), Some(publishers)] => Ok([gateways, publishers]),
            _ => Err(Failure::failed("the server did not say where it listens")),
        }
    }
}

/// Reads the log to its end, so that the server is never kept from writing to it, and
/// passes it on as long as somebody wants it.
fn read_log(log: ChildStderr, lines: &mpsc::Sender<String>) {
    for line in BufReader::new(log).lines() {
        let Ok(line) = line else { return };
        let _ = lines.send(line);
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let begun = Instant::now();
        while begun.elapsed() < STOP_PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
