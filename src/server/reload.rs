//! Files that may change while a server runs: looked at now and then, and at once when somebody
//! asks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::tls::ServerTls;

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// Takes up changed files. Cheap to clone: all clones are the same.
#[derive(Clone, Debug)]
pub struct Reloader {
    asked: Arc<Notify>,
    tls: Option<Arc<ServerTls>>,
}

impl Reloader {
    pub(super) fn new(tls: Option<Arc<ServerTls>>) -> Self {
        Reloader {
            asked: Arc::new(Notify::new()),
            tls,
        }
    }

    /// Has the running server look at its files now: certificates and keys. What is wrong with
    /// one is logged, and what was there before stays.
    pub fn reload(&self) {
        self.asked.notify_one();
    }

    /// Looks at the files for ever.
    pub(super) async fn run(self) {
        loop {
            let _ = timeout(INTERVAL, self.asked.notified()).await;
            // Reading and checking files takes a while.
            let this = self.clone();
            let looked = tokio::task::spawn_blocking(move || this.look()).await;
            if let Err(error) = looked {
                tracing::error!("looking at changed files broke: {error}");
            }
        }
    }

    fn look(&self) {
        let Some(tls) = &self.tls else {
            return;
        };
        match tls.reload() {
            Ok(true) => tracing::info!(
                target: "galaxy_push::audit",
                "TLS certificates were reloaded; new connections use them"
            ),
            Ok(false) => {}
            Err(error) => tracing::error!(
                target: "galaxy_push::audit",
                "TLS certificates were not reloaded, those before stay: {error}"
            ),
        }
    }
}
