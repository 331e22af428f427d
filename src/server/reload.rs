//! What changes while a server runs: files that are read again when they change and when
//! somebody asks, and settings.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;

use super::{ServeError, engine_builder, load_tls, server_files};
use crate::access::{AccessFile, AccessFileError};
use crate::config::{Config, Protection, Setting, TakenUp, check_exposure};
use crate::engine::Engine;
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

/// Has a running [`Server`](super::Server) read its files again, and gives it other settings.
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reloader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// How often it was asked to read files.
    asked: watch::Sender<u64>,
    started_with: Config,
    in_force: watch::Sender<Arc<Config>>,
    engine: Engine,
    tls: Option<Arc<ServerTls>>,
    /// Who says who may do what.
    access: Mutex<Access>,
    telemetry: Telemetry,
    /// Held while settings are changed.
    applying: Mutex<()>,
}

#[derive(Debug)]
enum Access {
    Nobody,
    File(Arc<AccessFile>),
    Other,
}

/// What has come of other settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// The settings that have another value from now on.
    pub changed: Vec<Setting>,
    /// The settings that should have another value, and keep theirs until a restart.
    pub needs_restart: Vec<Setting>,
}

impl Reloader {
    pub(super) fn new(
        config: &Config,
        engine: &Engine,
        tls: Option<Arc<ServerTls>>,
        access_file: Option<Arc<AccessFile>>,
        telemetry: Telemetry,
    ) -> Self {
        Reloader {
            shared: Arc::new(Shared {
                asked: watch::Sender::default(),
                started_with: config.clone(),
                in_force: watch::Sender::new(Arc::new(config.clone())),
                engine: engine.clone(),
                tls,
                access: Mutex::new(access_file.map_or(Access::Nobody, Access::File)),
                telemetry,
                applying: Mutex::default(),
            }),
        }
    }

    /// There is no access file: somebody else says who may do what.
    pub(super) fn forget_access_file(&self) {
        *lock(&self.shared.access) = Access::Other;
    }

    /// The settings that are in force, and each change of them.
    pub(super) fn in_force(&self) -> watch::Receiver<Arc<Config>> {
        self.shared.in_force.subscribe()
    }

    /// The settings that are in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.shared.in_force.borrow())
    }

    /// Has the server read its access file and its certificates again, now instead of within
    /// seconds. What comes of it is in the log. A file that cannot be used leaves the earlier
    /// one in force.
    pub fn reload(&self) {
        self.shared.asked.send_modify(|times| *times += 1);
    }

    /// Gives the server other settings, and has it read its files again: all of it, or if
    /// anything is wrong nothing. Settings that only a restart can change
    /// ([`Setting::taken_up`]) keep their values, and are named in what is returned.
    ///
    /// It blocks while it reads files.
    ///
    /// # Errors
    ///
    /// As [`Server::bind`](super::Server::bind) and [`Server::run`](super::Server::run) with
    /// these settings. Nothing has changed.
    pub fn apply(&self, config: &Config) -> Result<Reloaded, ServeError> {
        let _applying = lock(&self.shared.applying);
        let applied = self.try_apply(config);
        let error = applied.as_ref().err().map(ToString::to_string);
        self.note("configuration", error.as_deref());
        match &applied {
            Err(ServeError::Access(_)) => self.note(AccessFile::NAME, error.as_deref()),
            Err(ServeError::Tls(_)) => self.note(ServerTls::NAME, error.as_deref()),
            _ => {}
        }
        applied
    }

    /// Notes that other settings were not even read, for the metrics.
    pub fn failed(&self, error: &str) {
        self.note("configuration", Some(error));
    }

    fn note(&self, what: &'static str, error: Option<&str>) {
        self.shared.telemetry.reloads().ended(what, error);
    }

    fn try_apply(&self, config: &Config) -> Result<Reloaded, ServeError> {
        let shared = &*self.shared;
        config.check()?;
        let access = lock(&shared.access);
        let protection = Protection {
            has_access: config.access.is_some() || matches!(*access, Access::Other),
            ..Protection::of(config)
        };
        check_exposure(config, protection)?;
        engine_builder(config).check()?;

        let mut next = Config::clone(&shared.in_force.borrow());
        let mut reloaded = Reloaded::default();
        for setting in next.differences(config) {
            if self.can_take(setting, &next, config) {
                next.take(setting, config);
                reloaded.changed.push(setting);
            } else {
                reloaded.needs_restart.push(setting);
            }
        }

        // Everything is read and found good before anything is taken up.
        let access = match (&*access, &next.access) {
            (Access::File(file), Some(path)) => Some((file, file.prepare(path)?)),
            // It will be in use after a restart only, and has to be good already.
            _ => {
                config.access.as_ref().map(AccessFile::load).transpose()?;
                None
            }
        };
        let tls = match (&shared.tls, server_files(&next)) {
            (Some(tls), Some(files)) => Some((tls, tls.prepare(files)?)),
            _ => None,
        };
        if server_files(config) != server_files(&next) {
            load_tls(config)?;
        }

        if let Some((file, prepared)) = access {
            let has_changed = prepared.commit();
            self.tell(&**file, has_changed);
        }
        if let Some((tls, prepared)) = tls {
            let has_changed = prepared.commit();
            self.tell(&**tls, has_changed);
        }
        shared.engine.set_window(next.window);
        let retention = next.revocation_retention;
        shared.engine.set_revocation_retention(retention);
        shared.engine.set_max_subscribers(next.max_subscribers);
        shared.in_force.send_replace(Arc::new(next));
        Ok(reloaded)
    }

    /// Whether a running server can go by the `new` value of a setting instead of its `old`
    /// one.
    fn can_take(&self, setting: Setting, old: &Config, new: &Config) -> bool {
        match setting.taken_up() {
            TakenUp::Reload => true,
            TakenUp::ReloadUpToStart => match setting {
                Setting::MaxSubscribers => {
                    new.max_subscribers <= self.shared.started_with.max_subscribers
                }
                _ => false,
            },
            TakenUp::ReloadOfFile => {
                let file = |config: &Config| match setting {
                    Setting::TlsCert => config.tls_cert.is_some(),
                    Setting::TlsKey => config.tls_key.is_some(),
                    Setting::TlsClientCa => config.tls_client_ca.is_some(),
                    Setting::Access => config.access.is_some(),
                    _ => false,
                };
                file(old) && file(new)
            }
            TakenUp::Restart => false,
        }
    }

    /// Says that files were read again.
    fn tell<R: Reload>(&self, files: &R, has_changed: bool) {
        let (name, summary) = (R::NAME, files.summary());
        let what = if has_changed { "reloaded" } else { "unchanged" };
        tracing::info!(target: "galaxy_push::audit", "{name} {what}: {summary}");
        self.note(name, None);
    }

    /// Keeps `files` up to date, until it is dropped.
    pub(super) async fn watch<R: Reload>(self, files: Arc<R>) {
        // What is wrong, so that it is told once.
        let mut told = None;
        let mut asked = self.shared.asked.subscribe();
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
                        self.tell(&*files, has_changed);
                    }
                    told = None;
                }
                Ok(Err(error)) => {
                    let error = error.to_string();
                    self.note(name, Some(&error));
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

/// Nothing is half done where this could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
