//! Who is logged in. In a real deployment this is the backend's knowledge, and a gateway asks for it;
//! here it is a file, so that the example needs nothing else.
//!
//! A token is known by its digest only: who reads the file cannot log in with it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::state::State;

/// All sessions together.
const MAX_SESSIONS: usize = 100_000;
/// Of one user: with one more, the oldest ends.
const MAX_USER_SESSIONS: usize = 20;
/// How long a session can be used.
const LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);
const NAME: &str = "sessions.json";

/// A user's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) user: String,
    pub(crate) session: String,
    /// In seconds since 1970.
    since: u64,
}

/// All sessions.
#[derive(Debug)]
pub(crate) struct Accounts {
    state: State,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_token: BTreeMap<String, Account>,
    /// Whether the file has less, or more.
    has_changed: bool,
}

impl Accounts {
    pub(crate) fn load(state: &State) -> io::Result<Self> {
        let by_token = match state.read(NAME)? {
            None => BTreeMap::new(),
            Some(bytes) => read(&bytes)
                .ok_or_else(|| io::Error::other(format!("the file {NAME} is damaged")))?,
        };
        Ok(Accounts {
            state: state.clone(),
            known: Mutex::new(Known {
                by_token,
                has_changed: false,
            }),
        })
    }

    /// Logs a user in. Returns the token of a new session; `None` if there are too many.
    pub(crate) fn log_in(&self, user: &str) -> Option<(String, Account)> {
        let token = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let account = Account {
            user: user.to_owned(),
            session: format!("{:016x}", rand::random::<u64>()),
            since: now(),
        };
        let mut known = self.lock();
        let by_token = &mut known.by_token;
        if by_token.len() >= MAX_SESSIONS {
            by_token.retain(|_, account| account.is_valid());
        }
        let of_user = by_token.iter().filter(|(_, of)| of.user == user);
        let oldest = of_user.clone().min_by_key(|(_, of)| of.since);
        if of_user.count() >= MAX_USER_SESSIONS
            && let Some(oldest) = oldest.map(|(digest, _)| digest.clone())
        {
            by_token.remove(&oldest);
        }
        if by_token.len() >= MAX_SESSIONS {
            return None;
        }
        by_token.insert(digest(&token), account.clone());
        known.has_changed = true;
        Some((token, account))
    }

    /// Whose token this is.
    pub(crate) fn find(&self, token: &str) -> Option<Account> {
        let known = self.lock();
        let account = known.by_token.get(&digest(token))?;
        account.is_valid().then(|| account.clone())
    }

    /// The session is revoked, or all sessions of the user if it is empty.
    pub(crate) fn revoke(&self, user: &str, session: &str) {
        self.keep(|account| {
            account.user != user || !session.is_empty() && account.session != session
        });
    }

    /// Everybody has to log in again.
    pub(crate) fn clear(&self) {
        self.keep(|_| false);
    }

    fn keep(&self, is_kept: impl Fn(&Account) -> bool) {
        let mut known = self.lock();
        let before = known.by_token.len();
        known.by_token.retain(|_, account| is_kept(account));
        known.has_changed |= known.by_token.len() != before;
    }

    /// Writes down what has changed. Nothing waits for the disk but the caller.
    ///
    /// # Errors
    ///
    /// The file has what it had before. It is tried again with the next call.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let mut known = self.lock();
        if !known.has_changed {
            return Ok(());
        }
        let sessions = known.by_token.iter().map(|(digest, account)| {
            json!({
                "token": digest,
                "user": account.user,
                "session": account.session,
                "since": account.since,
            })
        });
        let text = Value::Array(sessions.collect()).to_string();
        known.has_changed = false;
        drop(known);
        self.state
            .write(NAME, text.as_bytes())
            .inspect_err(|_| self.lock().has_changed = true)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics under it")
    }
}

impl Account {
    fn is_valid(&self) -> bool {
        now().saturating_sub(self.since) < LIFETIME.as_secs()
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn read(bytes: &[u8]) -> Option<BTreeMap<String, Account>> {
    let sessions: Vec<Value> = serde_json::from_slice(bytes).ok()?;
    let text = |of: &Value, key: &str| of.get(key)?.as_str().map(str::to_owned);
    let one = |of: &Value| {
        let account = Account {
            user: text(of, "user")?,
            session: text(of, "session")?,
            since: of.get("since")?.as_u64()?,
        };
        Some((text(of, "token")?, account))
    };
    sessions.iter().map(one).collect()
}

fn digest(token: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(token))
}
