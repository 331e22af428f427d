//! `galaxy-push serve`: the server.

use std::sync::{Arc, Mutex, PoisonError};

use super::log::Log;
use super::manager::ServiceManager;
use super::settings::{Settings, SettingsArgs, Sources};
use crate::activation::{Inherited, Passed};
use crate::command::{Failure, signals};
use crate::config::{Protection, Setting, check_exposure};
use crate::server::{Reloader, ServeError, Server, runtime};

/// Run the server: gateways subscribe at one address, publishers connect to another.
///
/// The server keeps the newest events in a ring in memory. A gateway reconnects with the
/// cursor of the last event that it processed. It resumes with the next event if the ring
/// still has that event (--max-events, --max-bytes) and it is not too old (--window).
/// Otherwise the gateway starts fresh, and the response says so. Nothing is written to
/// disk: after a restart every gateway starts fresh.
///
/// SIGTERM and SIGINT stop the server gracefully. Its health checks fail, and it serves on for
/// --shutdown-delay, or until a second such signal. Then it accepts no more events, and
/// delivers the published ones within --shutdown-grace. Then it exits with code 0. SIGHUP has
/// it read its configuration file, its access file and its certificates again: all of it takes
/// effect, or if anything is wrong nothing.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
How a gateway's stream ends, and what the gateway should do:
  ABORTED             a newer subscription uses its id: stop
  OUT_OF_RANGE        it was too slow for the ring; the trailer push-missed is the
                      number of missed events: reconnect, treat sessions as suspect
  DEADLINE_EXCEEDED   it read nothing for --stall-timeout: reconnect
  UNAVAILABLE         the server is stopping: reconnect, here or elsewhere
  RESOURCE_EXHAUSTED  --max-subscribers gateways are subscribed already, or as many as
                      its principal may have: back off
  INVALID_ARGUMENT    the gateway's id is empty, too long, or has control characters
  UNAUTHENTICATED     it shows no credential, or one that is wrong or has expired:
                      renew it, and reconnect
  PERMISSION_DENIED   the access file does not grant it this id (any more), or its
                      credential was revoked

How a request of a publisher can fail:
  INVALID_ARGUMENT    nothing of the request was published; the message names the
                      event's index and the field
  RESOURCE_EXHAUSTED  the connection already has too many long requests under way:
                      try again with fewer calls at once; or the publisher is over
                      its quota: try again later
  UNAUTHENTICATED, PERMISSION_DENIED
                      as above; of a request that has an event of a kind that the
                      publisher may not publish, nothing was published
  UNAVAILABLE         the server is stopping

Sizes: 65536, 512KiB, 256MiB, 1GB. Durations: 300ms, 30s, 5m, 1h.

Examples:
  galaxy-push serve
  galaxy-push serve --config /etc/galaxy-push/galaxy-push.toml
  galaxy-push serve --publish-listen unix:/run/galaxy-push.sock
  galaxy-push serve --listen 0.0.0.0:50051 --access access.toml --allow-plaintext
  galaxy-push serve --max-bytes 4GiB --max-events 16777216 --window 30m
  GALAXY_PUSH_LISTEN=127.0.0.1:6000 galaxy-push serve")]
pub(super) struct Args {
    #[command(flatten)]
    _settings: SettingsArgs,
}

/// Runs the server with these settings, which are from `sources`, on the sockets that were
/// passed.
pub(super) fn run(
    mut settings: Settings,
    sources: Sources,
    sockets: Inherited,
    log: Arc<Log>,
) -> Result<(), Failure> {
    let manager = ServiceManager::from_env()?;
    let passed = sockets.passed();
    let settled = passed.settle(settings.config.clone());
    settings.config = settled.map_err(|error| failure(&settings, error.into()))?;
    let config = settings.config.clone();
    let failure = |error: ServeError| failure(&settings, error);
    config.check().map_err(|error| failure(error.into()))?;
    check_exposure(&config, Protection::of(&config)).map_err(|error| failure(error.into()))?;

    let runtime = runtime(config.worker_threads)
        .map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;

    runtime.block_on(async {
        // Before anything is bound: a stop that is asked for early counts.
        let (asked, again) = (signals::asked_to_stop()?, signals::asked_again()?);
        let mut hangups = signals::hangups()?;
        let server = Server::bind_with(config, sockets).await.map_err(failure)?;
        let reloader = server.reloader();
        let told = Arc::new(manager.connect(server.engine().clone()));
        let reloading = Arc::new(Reloading {
            reloader: reloader.clone(),
            sources,
            passed,
            log,
            in_force: Mutex::new(settings.clone()),
        });
        let telling = Arc::clone(&told);
        let reloading = tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                telling.reloading();
                let reloading = Arc::clone(&reloading);
                // It reads files.
                let reloaded = tokio::task::spawn_blocking(move || reloading.reload());
                if let Err(error) = reloaded.await {
                    tracing::error!("configuration not reloaded: {error}");
                }
                telling.ready();
            }
        });
        let served = async {
            // Everything is served when this begins.
            told.ready();
            asked.await;
            let config = reloader.config();
            told.stopping(config.shutdown_delay, config.shutdown_grace);
        };
        let ended = server.run_until(served, again).await;
        reloading.abort();
        // Now nobody else holds it.
        let _ = reloading.await;
        if let Some(told) = Arc::into_inner(told) {
            told.finish().await;
        }
        ended.map_err(failure)
    })
}

/// What it takes to read everything again.
struct Reloading {
    reloader: Reloader,
    sources: Sources,
    /// What was passed counts, whatever the settings say.
    passed: Passed,
    log: Arc<Log>,
    /// What was read last and could be used.
    in_force: Mutex<Settings>,
}

impl Reloading {
    /// Takes up what there is now, or says why not.
    fn reload(&self) {
        match self.sources.read() {
            Ok(settings) => {
                if let Err(fault) = self.take(settings) {
                    refuse(&fault);
                }
            }
            Err(faults) => {
                let fault = faults.first().map_or("", String::as_str);
                self.reloader.failed(fault);
                refuse(fault);
            }
        }
    }

    fn take(&self, mut new: Settings) -> Result<(), String> {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let filter = new
            .log_filter()
            .inspect_err(|fault| self.reloader.failed(fault))?;
        let settled = self.passed.settle(new.config.clone());
        new.config = settled.map_err(|error| {
            let fault = new.fault(&error.into());
            self.reloader.failed(&fault);
            fault
        })?;
        let reloaded = self.reloader.apply(&new.config);
        let reloaded = reloaded.map_err(|error| new.fault(&error))?;
        let names = |settings: &[Setting]| {
            let names = settings.iter().map(|setting| setting.name().to_owned());
            names.collect::<Vec<_>>()
        };
        let mut changed = names(&reloaded.changed);
        if new.log != in_force.log {
            changed.push("log".to_owned());
        }
        let mut needs_restart = names(&reloaded.needs_restart);
        if new.log_format != in_force.log_format {
            needs_restart.push("log_format".to_owned());
        }
        self.log.set_filter(filter);
        tell(&changed, &needs_restart);
        new.log_format = in_force.log_format;
        *in_force = new;
        Ok(())
    }
}

fn tell(changed: &[String], needs_restart: &[String]) {
    if changed.is_empty() {
        tracing::info!(target: "galaxy_push::audit", "configuration reloaded: no setting has changed");
    } else {
        let changed = changed.join(", ");
        tracing::info!(target: "galaxy_push::audit", "configuration reloaded: changed {changed}");
    }
    if !needs_restart.is_empty() {
        let names = needs_restart.join(", ");
        tracing::warn!(
            target: "galaxy_push::audit",
            "these settings keep their values until a restart: {names}"
        );
    }
}

fn refuse(fault: &str) {
    tracing::error!(
        target: "galaxy_push::audit",
        "configuration not reloaded, the earlier one stays in force: {fault}"
    );
}

/// A setting that cannot work is the caller's to correct; anything else just did
/// not work.
fn failure(settings: &Settings, error: ServeError) -> Failure {
    match error {
        ServeError::Config(_)
        | ServeError::Engine(_)
        | ServeError::Inherit(_)
        | ServeError::Access(_)
        | ServeError::Tls(_) => Failure::usage(settings.fault(&error)),
        ServeError::Environment { .. } => Failure::usage(error.to_string()),
        other => Failure::failed(other.to_string()),
    }
}
