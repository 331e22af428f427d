//! The settings of a backbone: where its stream is stored, and what they may be.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Config, Faults, Setting};

/// Where a stream is stored that is made.
/// [`Config::backbone_storage`](super::Config::backbone_storage) says what follows from it.
///
/// ```
/// use galaxy_push::config::Storage;
///
/// assert_eq!("memory".parse(), Ok(Storage::Memory));
/// assert_eq!(Storage::default().to_string(), "file");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Storage {
    /// In files: it outlives restarts of its servers.
    #[default]
    File,
    /// In its servers' memory.
    Memory,
}

impl Storage {
    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Storage::File => "file",
            Storage::Memory => "memory",
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no [`Storage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is file or memory")]
#[non_exhaustive]
pub struct ParseStorageError;

impl FromStr for Storage {
    type Err = ParseStorageError;

    fn from_str(text: &str) -> Result<Self, ParseStorageError> {
        match text {
            "file" => Ok(Storage::File),
            "memory" => Ok(Storage::Memory),
            _ => Err(ParseStorageError),
        }
    }
}

impl Config {
    pub(super) fn check_backbone(&self, faults: &mut Faults) {
        use Setting as S;
        for server in &self.backbone {
            if server.contains('@') {
                let problem = "an address has no place for credentials: backbone_creds names a \
                               file of them";
                faults.add(S::Backbone, problem);
            } else if server.is_empty() {
                faults.add(S::Backbone, "an address is empty");
            }
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let name = &self.backbone_stream;
        if name.is_empty() || name.len() > Self::MAX_STREAM_NAME_BYTES || !name.chars().all(is_name)
        {
            let most = Self::MAX_STREAM_NAME_BYTES;
            let problem = format!("a name has 1 to {most} letters, digits, - and _");
            faults.add(S::BackboneStream, problem);
        }
        if !(1..=Self::MAX_BACKBONE_REPLICAS).contains(&self.backbone_replicas) {
            faults.add(S::BackboneReplicas, "not within 1 and 5");
        }
        match self.backbone_max_age {
            Some(age) if age < self.window => faults.add_with(
                S::BackboneMaxAge,
                S::Window,
                format!("{age:?} is shorter than the window, {:?}", self.window),
            ),
            Some(age) if age > Self::MAX_DURATION => {
                faults.add(S::BackboneMaxAge, "longer than 365 days");
            }
            _ => {}
        }
        if !(Duration::from_secs(1)..=Self::MAX_DURATION).contains(&self.backbone_stale_after) {
            faults.add(S::BackboneStaleAfter, "not within 1s and 365 days");
        }
        match self.backbone_max_bytes {
            Some(bytes) if bytes == 0 || bytes > Self::MAX_BYTES => {
                faults.add(S::BackboneMaxBytes, "not within 1B and 16TiB");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        for (change, wanted) in [
            (
                (|it| it.backbone = vec!["me:secret@a".to_owned()]) as fn(&mut Config),
                "backbone: an address has no place for credentials",
            ),
            (
                |it| it.backbone = vec![String::new()],
                "backbone: an address is empty",
            ),
            (
                |it| it.backbone_stream = String::new(),
                "backbone_stream: a name has",
            ),
            (
                |it| it.backbone_stream = "a.b".to_owned(),
                "backbone_stream: a name has",
            ),
            (
                |it| it.backbone_stream = "x".repeat(129),
                "backbone_stream: a name has",
            ),
            (
                |it| it.backbone_replicas = 0,
                "backbone_replicas: not within 1 and 5",
            ),
            (
                |it| it.backbone_replicas = 6,
                "backbone_replicas: not within 1 and 5",
            ),
            (
                |it| it.backbone_max_age = Some(Duration::from_secs(1)),
                "backbone_max_age: 1s is shorter than the window, 300s",
            ),
            (
                |it| it.backbone_max_age = Some(Duration::MAX),
                "backbone_max_age: longer",
            ),
            (
                |it| it.backbone_max_bytes = Some(0),
                "backbone_max_bytes: not within",
            ),
            (
                |it| it.backbone_stale_after = Duration::ZERO,
                "backbone_stale_after: not within 1s",
            ),
        ] {
            let error = refused(change);
            assert!(error.starts_with(wanted), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let config = Config {
            backbone: vec!["nats://a:4222".to_owned(), "[::1]".to_owned()],
            backbone_max_age: Some(Config::default().window),
            ..Config::default()
        };
        assert_eq!(config.check(), Ok(()));
    }
}
