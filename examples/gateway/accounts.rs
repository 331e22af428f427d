//! Who is logged in. In a real deployment this is the backend's knowledge, and a gateway asks for it;
//! here it is a file, so that the example needs nothing else.
//!
//! A token is known by its digest only: who reads the file cannot log in with it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::state::State;

/// A user's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) user: String,
    pub(crate) session: String,
}

/// All sessions, by their tokens' digests.
#[derive(Debug)]
pub(crate) struct Accounts {
    state: State,
    by_token: Mutex<BTreeMap<String, Account>>,
}

/// No user may have more sessions: the oldest ends.
const MAX_SESSIONS: usize = 100_000;
const NAME: &str = "sessions.json";

impl Accounts {
    pub(crate) fn load(state: &State) -> io::Result<Self> {
        let by_token = match state.read(NAME)? {
            None => BTreeMap::new(),
            Some(bytes) => read(&bytes)
                .ok_or_else(|| io::Error::other(format!("the file {NAME} is damaged")))?,
        };
        Ok(Accounts {
            state: state.clone(),
            by_token: Mutex::new(by_token),
        })
    }

    /// Logs a user in. Returns the token of a new session; `None` if there are too many.
    pub(crate) fn log_in(&self, user: &str) -> Option<(String, Account)> {
        let token = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let account = Account {
            user: user.to_owned(),
            session: format!("{:016x}", rand::random::<u64>()),
        };
        let mut by_token = self.lock();
        if by_token.len() >= MAX_SESSIONS {
            return None;
        }
        by_token.insert(digest(&token), account.clone());
        self.save(&by_token);
        Some((token, account))
    }

    /// Whose token this is.
    pub(crate) fn find(&self, token: &str) -> Option<Account> {
        self.lock().get(&digest(token)).cloned()
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
        let mut by_token = self.lock();
        let before = by_token.len();
        by_token.retain(|_, account| is_kept(account));
        if by_token.len() != before {
            self.save(&by_token);
        }
    }

    fn save(&self, by_token: &BTreeMap<String, Account>) {
        let sessions = by_token.iter().map(|(digest, account)| {
            json!({"token": digest, "user": account.user, "session": account.session})
        });
        let text = Value::Array(sessions.collect()).to_string();
        if let Err(error) = self.state.write(NAME, text.as_bytes()) {
            tracing::error!("the sessions are not saved: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Account>> {
        self.by_token.lock().expect("nothing panics under it")
    }
}

fn read(bytes: &[u8]) -> Option<BTreeMap<String, Account>> {
    let sessions: Vec<Value> = serde_json::from_slice(bytes).ok()?;
    let text = |of: &Value, key: &str| of.get(key)?.as_str().map(str::to_owned);
    let one = |of: &Value| {
        let account = Account {
            user: text(of, "user")?,
            session: text(of, "session")?,
        };
        Some((text(of, "token")?, account))
    };
    sessions.iter().map(one).collect()
}

fn digest(token: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(token))
}
