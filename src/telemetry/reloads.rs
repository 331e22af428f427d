//! Whether files that were read again could be used.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::SystemTime;

use super::count::lock;

/// The last reload of each file.
#[derive(Debug, Default)]
pub(crate) struct Reloads(Mutex<BTreeMap<&'static str, Reload>>);

/// How a reload ended.
#[derive(Clone, Debug)]
pub(crate) struct Reload {
    pub(crate) at: SystemTime,
    /// Why it has failed.
    pub(crate) error: Option<String>,
}

impl Reloads {
    /// A file was read again.
    pub(crate) fn ended(&self, what: &'static str, error: Option<&str>) {
        let reload = Reload {
            at: SystemTime::now(),
            error: error.map(str::to_owned),
        };
        lock(&self.0).insert(what, reload);
    }

    /// By what was reloaded.
    pub(crate) fn all(&self) -> BTreeMap<&'static str, Reload> {
        lock(&self.0).clone()
    }
}
