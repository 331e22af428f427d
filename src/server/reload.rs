//! Files that may change while a server runs: looked at now and then, and at once when somebody
//! asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::access::AccessFile;

/// How often files are looked at. A change counts when it was seen twice.
const INTERVAL: Duration = Duration::from_secs(3);

/// Takes up changed files. Cheap to clone: all clones are the same.
#[derive(Clone, Debug)]
pub struct Reloader {
    asked: Arc<Notify>,
    access: Option<Arc<AccessFile>>,
    /// What is wrong with the access file, so that it is told once.
    fault: Arc<Mutex<Option<String>>>,
}

impl Reloader {
    pub(super) fn new(access: Option<Arc<AccessFile>>) -> Self {
        Reloader {
            asked: Arc::new(Notify::new()),
            access,
            fault: Arc::default(),
        }
    }

    /// Has the running server look at its files now: the access file. What is wrong with one is
    /// logged, and what was there before stays.
    pub fn reload(&self) {
        self.asked.notify_one();
    }

    /// Looks at the files for ever.
    pub(super) async fn run(self) {
        loop {
            let is_asked = timeout(INTERVAL, self.asked.notified()).await.is_ok();
            // Reading and checking files takes a while.
            let this = self.clone();
            let looked = tokio::task::spawn_blocking(move || this.look(is_asked)).await;
            if let Err(error) = looked {
                tracing::error!("looking at changed files broke: {error}");
            }
        }
    }

    fn look(&self, is_asked: bool) {
        let Some(access) = &self.access else {
            return;
        };
        let looked = if is_asked {
            access.reload()
        } else {
            access.reload_when_settled()
        };
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match looked {
            Ok(has_changed) => {
                if has_changed {
                    tracing::info!(
                        target: "galaxy_push::audit",
                        "access file reloaded: {} principals",
                        access.principals()
                    );
                } else if is_asked {
                    tracing::info!(target: "galaxy_push::audit", "access file unchanged");
                }
                *fault = None;
            }
            Err(error) => {
                let error = error.to_string();
                if is_asked || fault.as_ref() != Some(&error) {
                    tracing::error!(
                        target: "galaxy_push::audit",
                        "access file not reloaded, the earlier one stays in force: {error}"
                    );
                }
                *fault = Some(error);
            }
        }
    }
}
