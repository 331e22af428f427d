//! Files that are read again: when they change, and when somebody asks.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;

use crate::access::{AccessFile, AccessFileError};
use crate::telemetry::Telemetry;
use crate::tls::{ServerTls, TlsError};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(3);

/// Something that was read from files, and can be read again.
pub(super) trait Reload: fmt::Debug + Send + Sync + 'static {
    /// What the error of a failed reload may say: no secret.
    type Error: fmt::Display + Send;

    /// What it is called in the log.
    const NAME: &str;

    /// Reads the files again, and takes up what they say. `is_asked`: else a file that may be
    /// half written is left for the next time. Returns whether anything has changed. It may
    /// block.
    ///
    /// # Errors
    ///
    /// The files cannot be used. What was there before stays.
    fn reload(&self, is_asked: bool) -> Result<bool, Self::Error>;

    /// What to say about the new state.
    fn summary(&self) -> String;
}

impl Reload for ServerTls {
    type Error = TlsError;

    const NAME: &str = "TLS certificate";

    fn reload(&self, is_asked: bool) -> Result<bool, TlsError> {
        if is_asked {
            ServerTls::reload(self)
        } else {
            self.reload_when_settled()
        }
    }

    fn summary(&self) -> String {
        let left = self.not_after().duration_since(SystemTime::now());
        let hours = left.map_or(0, |left| left.as_secs() / 3600);
        format!(
            "valid for another {} days and {} hours",
            hours / 24,
            hours % 24
        )
    }
}

impl Reload for AccessFile {
    type Error = AccessFileError;

    const NAME: &str = "access file";

    fn reload(&self, is_asked: bool) -> Result<bool, AccessFileError> {
        if is_asked {
            AccessFile::reload(self)
        } else {
            self.reload_when_settled()
        }
    }

    fn summary(&self) -> String {
        format!("{} principals", self.principals())
    }
}

/// Asks a running [`Server`](super::Server) to read its files again. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Reloader {
    /// How often it was asked.
    asked: watch::Sender<u64>,
}

impl Reloader {
    /// Has the server read its access file and its certificates again, now instead of within
    /// seconds. What comes of it is in the log. A file that cannot be used leaves the earlier
    /// one in force.
    pub fn reload(&self) {
        self.asked.send_modify(|times| *times += 1);
    }

    /// Keeps `files` up to date, until it is dropped.
    pub(super) async fn watch<R: Reload>(self, files: Arc<R>, telemetry: Telemetry) {
        // What is wrong, so that it is told once.
        let mut told = None;
        let mut asked = self.asked.subscribe();
        if *asked.borrow() > 0 {
            asked.mark_changed();
        }
        loop {
            let is_asked = tokio::select! {
                _ = asked.changed() => true,
                () = sleep(INTERVAL) => false,
            };
            let reading = Arc::clone(&files);
            let reloaded = tokio::task::spawn_blocking(move || reading.reload(is_asked)).await;
            let name = R::NAME;
            match reloaded {
                Ok(Ok(has_changed)) => {
                    if has_changed || told.is_some() || is_asked {
                        let what = if has_changed { "reloaded" } else { "unchanged" };
                        let summary = files.summary();
                        tracing::info!(target: "galaxy_push::audit", "{name} {what}: {summary}");
                        telemetry.reloads().ended(name, None);
                    }
                    told = None;
                }
                Ok(Err(error)) => {
                    let error = error.to_string();
                    telemetry.reloads().ended(name, Some(&error));
                    if is_asked || told.as_ref() != Some(&error) {
                        tracing::error!(
                            target: "galaxy_push::audit",
                            "{name} not reloaded, the earlier one stays in force: {error}"
                        );
                    }
                    told = Some(error);
                }
                // The runtime is stopping; or it panicked, which tells itself.
                Err(error) => tracing::error!("{name} not reloaded: {error}"),
            }
        }
    }
}
