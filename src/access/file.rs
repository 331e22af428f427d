//! The access file: read, asked, read again when it changes.

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use sha2::{Digest as _, Sha256};

use super::document::{Document, DocumentError, JwtSection};
use super::failures::Failures;
use super::jwt::{Expected, KeySet};
use super::rules::Rules;
use super::{AccessError, Authenticator, Credentials, Identity};
use crate::config::document::line_of;

/// The largest access file, and the largest key set.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// How often a file is read that changes while it is read.
const READ_TRIES: usize = 5;

/// Why an access file cannot be used. No text repeats what is in a file, but for the names of
/// principals and of keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessFileError {
    /// It, or the key set that it names, cannot be read.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// What it says is wrong.
    #[error("{}:{line}: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The principal, the key, and what is wrong.
        what: String,
    },
    /// The key set that it names is wrong.
    #[error("{}: {what}", path.display())]
    Keys {
        /// The key set's file.
        path: PathBuf,
        /// The key, and what is wrong.
        what: String,
    },
}

/// Who may do what, as a file says. It is an [`Authenticator`].
///
/// What it has refused, it rations: who fails again and again from one address is told to
/// wait, while good credentials from there still pass.
///
/// ```
/// use galaxy_push::access::AccessFile;
///
/// let file = AccessFile::parse(
///     br#"
///     [[principal]]
///     name = "backend"
///     unix_uid = 1000
///     publish = ["client_event"]
///     "#,
///     None,
/// )?;
/// assert_eq!(file.principals(), 1);
/// # Ok::<(), galaxy_push::access::AccessFileError>(())
/// ```
pub struct AccessFile {
    /// `None`: it was never in a file.
    path: ArcSwapOption<PathBuf>,
    current: ArcSwap<Loaded>,
    revision: AtomicU64,
    failures: Failures,
    /// Held while it is loaded again.
    last_look: Mutex<Look>,
}

/// What the files were when they were last looked at.
#[derive(Debug, Default)]
struct Look {
    /// Of their texts, or of why they cannot be read.
    digest: [u8; 32],
    /// How often that was seen in a row.
    times: u32,
}

impl Look {
    /// Returns how often these files were seen in a row.
    fn again(&mut self, digest: [u8; 32]) -> u32 {
        if self.digest != digest {
            *self = Look { digest, times: 0 };
        }
        self.times = self.times.saturating_add(1);
        self.times
    }
}

#[derive(Debug)]
struct Loaded {
    rules: Rules,
    /// Of the texts of all files.
    digest: [u8; 32],
}

impl fmt::Debug for AccessFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessFile")
            .field("path", &self.path())
            .field("principals", &self.principals())
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

/// The texts of an access file and of the key set that it names.
struct Texts {
    path: PathBuf,
    document: Document,
    keys: Option<(PathBuf, Vec<u8>, Expected)>,
    digest: [u8; 32],
}

impl AccessFile {
    /// Reads an access file, and the key set that it names.
    ///
    /// # Errors
    ///
    /// [`AccessFileError`] names the file, the line, the principal and the key.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, AccessFileError> {
        let path = path.as_ref();
        let texts = Texts::read(path)?;
        Ok(Self::new(Some(path.to_owned()), Loaded::new(texts, None)?))
    }

    /// Takes the text of an access file. `keys` is that of the key set, whatever file `[jwt]`
    /// names.
    ///
    /// # Errors
    ///
    /// [`AccessFileError`] names the line, the principal and the key.
    pub fn parse(text: &[u8], keys: Option<&[u8]>) -> Result<Self, AccessFileError> {
        let path = Path::new("access file");
        let texts = Texts::parse(path, text, |_, _| {
            let keys = keys.ok_or_else(|| AccessFileError::Keys {
                path: "key set".into(),
                what: "it is missing".to_owned(),
            });
            Ok(("key set".into(), keys?.to_owned()))
        })?;
        Ok(Self::new(None, Loaded::new(texts, None)?))
    }

    fn new(path: Option<PathBuf>, loaded: Loaded) -> Self {
        AccessFile {
            path: ArcSwapOption::from_pointee(path),
            current: ArcSwap::from_pointee(loaded),
            revision: AtomicU64::new(1),
            failures: Failures::default(),
            last_look: Mutex::default(),
        }
    }

    /// How many principals it names.
    #[must_use]
    pub fn principals(&self) -> usize {
        self.current.load().rules.len()
    }

    /// The files' SHA-256, which tells two versions apart.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.current.load().digest
    }

    /// Reads the files again, and returns whether they have changed. It blocks while it reads.
    ///
    /// # Errors
    ///
    /// [`AccessFileError`]. What was loaded before stays in force.
    pub fn reload(&self) -> Result<bool, AccessFileError> {
        let mut last_look = self.lock();
        // What is put back after this counts as a change, too.
        *last_look = Look::default();
        let Some(path) = self.path() else {
            return Ok(false);
        };
        self.replace(Texts::read(&path)?)
    }

    /// Looks at the files again, and takes a change up when it has seen it twice in a row:
    /// whoever looks every few seconds takes no file that is half written. A fault is told
    /// from the second look on, for as long as it is there.
    ///
    /// # Errors
    ///
    /// [`AccessFileError`]. What was loaded before stays in force.
    pub fn reload_when_settled(&self) -> Result<bool, AccessFileError> {
        let mut last_look = self.lock();
        let Some(path) = self.path() else {
            return Ok(false);
        };
        let texts = Texts::read(&path);
        let digest = match &texts {
            Ok(texts) => texts.digest,
            Err(error) => Sha256::digest(error.to_string()).into(),
        };
        match last_look.again(digest) {
            0 | 1 => Ok(false),
            _ => self.replace(texts?),
        }
    }

    /// Reads the files at `path`, in the place of those that it was loaded from, without
    /// taking them up: [`Prepared::commit`] does. Until then nobody else reloads it. It blocks
    /// while it reads.
    ///
    /// # Errors
    ///
    /// [`AccessFileError`]. Nothing has changed.
    pub(crate) fn prepare(&self, path: &Path) -> Result<Prepared<'_>, AccessFileError> {
        let last_look = self.lock();
        let texts = Texts::read(path)?;
        let current = self.current.load_full();
        let is_new = texts.digest != current.digest;
        let loaded = Loaded::new(texts, Some(&current.rules))?;
        Ok(Prepared {
            file: self,
            last_look,
            path: path.to_owned(),
            loaded: is_new.then_some(loaded),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Look> {
        self.last_look
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, texts: Texts) -> Result<bool, AccessFileError> {
        let current = self.current.load_full();
        if texts.digest == current.digest {
            return Ok(false);
        }
        self.store(Loaded::new(texts, Some(&current.rules))?);
        Ok(true)
    }

    fn store(&self, loaded: Loaded) {
        self.current.store(Arc::new(loaded));
        // Release: who sees the new revision asks the new rules; pairs with the Acquire in
        // `revision`.
        self.revision.fetch_add(1, Ordering::Release);
    }

    /// Where it is read from.
    fn path(&self) -> Option<PathBuf> {
        self.path.load().as_deref().cloned()
    }

    fn authenticate_at(
        &self,
        credentials: &Credentials<'_>,
        now: SystemTime,
    ) -> Result<Identity, AccessError> {
        let rules = self.current.load();
        rules.rules.authenticate(credentials, now).map_err(|error| {
            match self.failures.count(credentials.peer, Instant::now()) {
                Ok(()) => error,
                Err(retry_after) => AccessError::TooManyFailures { retry_after },
            }
        })
    }
}

/// What an [`AccessFile`] is about to take up.
pub(crate) struct Prepared<'a> {
    file: &'a AccessFile,
    last_look: MutexGuard<'a, Look>,
    path: PathBuf,
    /// If it is not what is in force already.
    loaded: Option<Loaded>,
}

impl Prepared<'_> {
    /// Takes it up; returns whether anything changes.
    pub(crate) fn commit(mut self) -> bool {
        // What is put back after this counts as a change, too.
        *self.last_look = Look::default();
        self.file.path.store(Some(Arc::new(self.path)));
        let has_changed = self.loaded.is_some();
        if let Some(loaded) = self.loaded {
            self.file.store(loaded);
        }
        has_changed
    }
}

impl Authenticator for AccessFile {
    fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Identity, AccessError> {
        self.authenticate_at(credentials, SystemTime::now())
    }

    fn recheck(&self, identity: &Identity) -> Result<Identity, AccessError> {
        self.current
            .load()
            .rules
            .recheck(identity, SystemTime::now())
    }

    fn revision(&self) -> u64 {
        // Acquire: pairs with the Release in `replace`.
        self.revision.load(Ordering::Acquire)
    }
}

impl Loaded {
    fn new(texts: Texts, earlier: Option<&Rules>) -> Result<Self, AccessFileError> {
        let keys = match texts.keys {
            None => None,
            Some((path, json, expected)) => match KeySet::parse(&json, expected) {
                Ok(keys) => Some(keys),
                Err(error) => {
                    let what = error.to_string();
                    return Err(AccessFileError::Keys { path, what });
                }
            },
        };
        let rules = Rules::new(texts.document, keys, earlier);
        Ok(Loaded {
            rules: rules.map_err(|error| invalid(&texts.path, error))?,
            digest: texts.digest,
        })
    }
}

impl Texts {
    fn read(path: &Path) -> Result<Self, AccessFileError> {
        let text = read(path)?;
        Texts::parse(path, &text, |section, line| {
            // `keys` is relative to the access file.
            let keys = path.parent().unwrap_or(Path::new("")).join(&section.keys);
            let text = read(&keys).map_err(|error| match error {
                AccessFileError::Unreadable { path: keys, reason } => AccessFileError::Invalid {
                    path: path.to_owned(),
                    line,
                    what: format!("[jwt]: keys: {}: {reason}", keys.display()),
                },
                other => other,
            })?;
            Ok((keys, text))
        })
    }

    fn parse(
        path: &Path,
        text: &[u8],
        read_keys: impl FnOnce(&JwtSection, usize) -> Result<(PathBuf, Vec<u8>), AccessFileError>,
    ) -> Result<Self, AccessFileError> {
        let mut digest = Sha256::new();
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
        let document = match std::str::from_utf8(text) {
            Ok(text) => Document::parse(text.strip_prefix('\u{feff}').unwrap_or(text)),
            Err(error) => Err(DocumentError {
                line: line_of(text, error),
                what: "it is not UTF-8".to_owned(),
            }),
        };
        let document = document.map_err(|error| invalid(path, error))?;
        let keys = match &document.jwt {
            None => None,
            Some(section) => {
                let (keys_path, text) = read_keys(section, section.line)?;
                digest.update(&text);
                let expected = Expected {
                    issuer: section.issuer.clone(),
                    audience: section.audience.clone(),
                };
                Some((keys_path, text, expected))
            }
        };
        Ok(Texts {
            path: path.to_owned(),
            document,
            keys,
            digest: digest.finalize().into(),
        })
    }
}

fn invalid(path: &Path, error: DocumentError) -> AccessFileError {
    AccessFileError::Invalid {
        path: path.to_owned(),
        line: error.line,
        what: error.what,
    }
}

/// Reads a file that does not change meanwhile.
fn read(path: &Path) -> Result<Vec<u8>, AccessFileError> {
    let unreadable = |reason: String| AccessFileError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let system = |error: std::io::Error| unreadable(error.to_string());
    // Before it is opened: opening a pipe would wait for its other end.
    if !fs::metadata(path).map_err(system)?.is_file() {
        return Err(unreadable("it is not a regular file".to_owned()));
    }
    for _ in 0..READ_TRIES {
        let file = fs::File::open(path).map_err(system)?;
        let before = file.metadata().map_err(system)?;
        let mut text = Vec::new();
        (&file)
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut text)
            .map_err(system)?;
        let bytes = text.len() as u64;
        if bytes > MAX_FILE_BYTES {
            return Err(unreadable(format!(
                "it is larger than {MAX_FILE_BYTES} bytes"
            )));
        }
        let after = file.metadata().map_err(system)?;
        let is_same = before.modified().ok() == after.modified().ok();
        if is_same && after.len() == bytes {
            return Ok(text);
        }
    }
    Err(unreadable("it changes all the time".to_owned()))
}

#[cfg(test)]
mod tests;
