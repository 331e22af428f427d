//! [`Process`]: a command of the shell, and what it writes.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::lab::conformance::promise::{Judged, broken};

/// What is kept of the output: the newest part of it.
const KEPT_BYTES: usize = 4 << 20;

/// A running command, with all processes that it has started. It ends with this.
pub(super) struct Process {
    child: Child,
    group: Option<Pid>,
    output: Output,
}

/// What a command has written so far, to standard output and, where asked for, to standard error.
#[derive(Clone)]
pub(super) struct Output {
    text: Arc<Mutex<String>>,
    /// Rises with the text; what wrote it has ended when the senders are gone.
    grown: watch::Receiver<usize>,
}

impl Process {
    /// Starts a command, with these variables.
    pub(super) fn start(line: &str, variables: &[(&str, &str)], with_errors: bool) -> Judged<Self> {
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if with_errors {
            command.stderr(Stdio::piped());
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return broken(format!("cannot run {line:?}: {error}")),
        };
        let (growth, grown) = watch::channel(0);
        let text = Arc::new(Mutex::new(String::new()));
        let growth = Arc::new(growth);
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(copy(stdout, Arc::clone(&text), Arc::clone(&growth)));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(copy(stderr, Arc::clone(&text), growth));
        }
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Ok(Process {
            child,
            group,
            output: Output { text, grown },
        })
    }

    pub(super) fn output(&self) -> &Output {
        &self.output
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it, with all its processes, at once.
    pub(super) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait().await;
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // Nobody is left in the group: then there is nothing to do.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    to: Arc<Mutex<String>>,
    growth: Arc<watch::Sender<usize>>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        let mut text = to.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(&String::from_utf8_lossy(&buffer[..bytes]));
        if text.len() > KEPT_BYTES {
            let mut from = text.len() - KEPT_BYTES / 2;
            while !text.is_char_boundary(from) {
                from += 1;
            }
            text.drain(..from);
        }
        drop(text);
        growth.send_modify(|count| *count += bytes);
    }
}

impl Output {
    /// Whether this was written.
    pub(super) fn has(&self, text: &str) -> bool {
        self.count(text) > 0
    }

    /// How often.
    pub(super) fn count(&self, text: &str) -> usize {
        self.with(|all| all.matches(text).count())
    }

    /// Looks at what was written.
    pub(super) fn with<T>(&self, look: impl FnOnce(&str) -> T) -> T {
        look(&self.text.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until it was: `false` if it was not by then, or never will be.
    pub(super) async fn wait_for(&mut self, text: &str, patience: Duration) -> bool {
        let found = async {
            while !self.has(text) {
                if self.grown.changed().await.is_err() {
                    return self.has(text);
                }
            }
            true
        };
        timeout(patience, found).await.unwrap_or(false)
    }

    /// Waits until nothing more can be written, because every process has closed it.
    pub(super) async fn ended(&mut self, patience: Duration) -> bool {
        let ended = async { while self.grown.changed().await.is_ok() {} };
        timeout(patience, ended).await.is_ok()
    }
}
