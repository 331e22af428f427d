//! [`Promise`]: one line of the contract, and how it is judged.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::timeout;

/// How long one promise may take, all its waits together.
const LONGEST: Duration = Duration::from_secs(600);

/// Which part of `docs/protocol.md` a promise belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// What every implementation has to keep.
    Contract,
    /// What a peer may ask for beside it, such as heartbeats and missed revocations.
    Extras,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Contract => "contract",
            Level::Extras => "extras",
        })
    }
}

/// Why a promise does not count as kept.
#[derive(Debug)]
pub(super) enum Unkept {
    /// It is broken: what was seen.
    Broken(String),
    /// It could not be judged: what is missing for it.
    Skipped(String),
}

/// The result of judging one promise.
pub(super) type Judged<T = ()> = Result<T, Unkept>;

/// A promise is broken.
pub(super) fn broken<T>(seen: impl Into<String>) -> Judged<T> {
    Err(Unkept::Broken(seen.into()))
}

/// A promise cannot be judged.
pub(super) fn skipped<T>(missing: impl Into<String>) -> Judged<T> {
    Err(Unkept::Skipped(missing.into()))
}

/// The promise is broken unless the condition holds; the rest says what was seen.
macro_rules! ensure {
    ($holds:expr, $($seen:tt)+) => {
        if !$holds {
            return $crate::lab::conformance::promise::broken(format!($($seen)+));
        }
    };
}
pub(super) use ensure;

type Judging<'a> = Pin<Box<dyn Future<Output = Judged> + 'a>>;

/// One line of the contract, for an implementation that is judged with a `Kit`.
pub(super) struct Promise<Kit: 'static> {
    /// What it is called in reports and by `--only`.
    pub(super) name: &'static str,
    pub(super) level: Level,
    /// What is promised, in one line.
    pub(super) text: &'static str,
    pub(super) judge: for<'a> fn(&'a mut Kit) -> Judging<'a>,
}

/// A table of promises: level, name, text and the function that judges.
macro_rules! promises {
    ($($level:ident $name:literal: $text:literal => $judge:path;)+) => {
        &[$(Promise {
            name: $name,
            level: $crate::lab::conformance::promise::Level::$level,
            text: $text,
            judge: |kit| Box::pin($judge(kit)),
        },)+]
    };
}
pub(super) use promises;

/// How a promise was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "detail", rename_all = "lowercase")]
pub(super) enum Verdict {
    Kept,
    Broken(String),
    Skipped(String),
}

/// A promise that was judged.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) name: &'static str,
    pub(super) level: Level,
    pub(super) text: &'static str,
    #[serde(flatten)]
    pub(super) verdict: Verdict,
    pub(super) seconds: f64,
}

impl<Kit> Promise<Kit> {
    pub(super) async fn judge(&self, kit: &mut Kit) -> Finding {
        let began = Instant::now();
        let verdict = match timeout(LONGEST, (self.judge)(kit)).await {
            Ok(Ok(())) => Verdict::Kept,
            Ok(Err(Unkept::Broken(seen))) => Verdict::Broken(seen),
            Ok(Err(Unkept::Skipped(missing))) => Verdict::Skipped(missing),
            Err(_) => Verdict::Broken(format!(
                "it came to no end within {} seconds",
                LONGEST.as_secs()
            )),
        };
        Finding {
            name: self.name,
            level: self.level,
            text: self.text,
            verdict,
            seconds: began.elapsed().as_secs_f64(),
        }
    }
}
