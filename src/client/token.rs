//! [`TokenFile`]: a bearer token that somebody else renews.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tonic::codegen::http::HeaderValue;

/// The longest token. Servers take heads of 8 or 16 KiB.
const MAX_TOKEN_BYTES: usize = 8 << 10;
/// For so long a token is used again without a look at its file.
const FRESH: Duration = Duration::from_secs(1);

/// Why there is no token. The text holds no part of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token file {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The file holds no token, or more than one.
    #[error("the token file {} holds no bearer token: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// The file, and what it held when it was read last.
pub(super) struct TokenFile {
    path: PathBuf,
    last: Mutex<Option<(Instant, HeaderValue)>>,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        TokenFile {
            path,
            last: Mutex::new(None),
        }
    }

    /// The value of an `authorization` field with the token. The file is read where the last
    /// look at it is a second old.
    pub(super) async fn authorization(&self) -> Result<HeaderValue, TokenError> {
        let now = Instant::now();
        let known = self
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((read_at, value)) = known
            && now.duration_since(read_at) < FRESH
        {
            return Ok(value);
        }
        self.read().await
    }

    /// The same, and the file is read in any case.
    pub(super) async fn read(&self) -> Result<HeaderValue, TokenError> {
        let read_at = Instant::now();
        let mut bytes = Vec::new();
        let read = async {
            let file = tokio::fs::File::open(&self.path).await?;
            file.take(MAX_TOKEN_BYTES as u64 + 1)
                .read_to_end(&mut bytes)
                .await
        };
        read.await.map_err(|error| self.unreadable(&error))?;
        let value = authorization_of(&bytes).map_err(|reason| self.malformed(reason))?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((read_at, value.clone()));
        Ok(value)
    }

    /// The same for a thread that may wait for a disk.
    pub(super) fn load(&self) -> Result<HeaderValue, TokenError> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        std::fs::File::open(&self.path)
            .and_then(|file| {
                file.take(MAX_TOKEN_BYTES as u64 + 1)
                    .read_to_end(&mut bytes)
            })
            .map_err(|error| self.unreadable(&error))?;
        authorization_of(&bytes).map_err(|reason| self.malformed(reason))
    }

    fn unreadable(&self, error: &io::Error) -> TokenError {
        TokenError::Unreadable {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }

    fn malformed(&self, reason: &'static str) -> TokenError {
        TokenError::Malformed {
            path: self.path.clone(),
            reason,
        }
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenFile").field(&self.path).finish()
    }
}

/// `Bearer` and the token (RFC 6750), marked as a secret, which keeps it out of debug output
/// and of HPACK's tables.
fn authorization_of(file: &[u8]) -> Result<HeaderValue, &'static str> {
    if file.len() > MAX_TOKEN_BYTES {
        return Err("it is larger than 8 KiB");
    }
    let token = file.trim_ascii();
    if token.is_empty() {
        return Err("it is empty");
    }
    let scheme = token.get(..7).unwrap_or_default();
    if scheme.eq_ignore_ascii_case(b"bearer ") {
        return Err("it must hold the token alone, without \"Bearer\" before it");
    }
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    if !token.iter().all(is_of_token) {
        return Err("it has other characters than letters, digits and -._~+/=");
    }
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat())
        .map_err(|_| "it cannot be sent in a header")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_the_file_holds_without_the_space_around_it() {
        let value = authorization_of(b"\nabc.DEF-1_2~+/==\r\n").unwrap();
        assert_eq!(value.as_bytes(), b"Bearer abc.DEF-1_2~+/==");
        assert!(value.is_sensitive());
        assert!(!format!("{value:?}").contains("abc"));
    }

    #[test]
    fn what_is_no_token_is_refused_without_a_word_of_it() {
        for (file, reason) in [
            (&b""[..], "empty"),
            (b" \n\t", "empty"),
            (b"Bearer abc", "without"),
            (b"bearer abc", "without"),
            (b"one two", "characters"),
            (b"one\ntwo", "characters"),
            (b"\xff\xfe", "characters"),
            (b"\xc3\xa9", "characters"),
            (&[b'x'; MAX_TOKEN_BYTES + 1], "larger"),
        ] {
            let error = authorization_of(file).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(authorization_of(&[b'x'; MAX_TOKEN_BYTES]).is_ok());
    }
}
