//! Bearer tokens (RFC 6750), as they stand in an `authorization` field.

use sha2::{Digest as _, Sha256};

use super::AccessError;

/// The longest token, in bytes.
const MAX_TOKEN_BYTES: usize = 8 << 10;

const SCHEME: &str = "Bearer";

/// A bearer token. It has no debug output: it is a secret.
#[derive(Clone, Copy)]
pub(super) struct Bearer<'a>(&'a str);

impl<'a> Bearer<'a> {
    /// Reads the value of an `authorization` field.
    ///
    /// # Errors
    ///
    /// [`AccessError::Malformed`] says what is wrong, and repeats nothing of it.
    pub(super) fn parse(authorization: &'a [u8]) -> Result<Self, AccessError> {
        let refused = |why: &str| Err(AccessError::Malformed(why.to_owned()));
        let Ok(text) = std::str::from_utf8(authorization) else {
            return refused("`authorization` is not ASCII");
        };
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return refused("the scheme of `authorization` is not Bearer");
        }
        let token = rest.trim_start_matches(' ');
        if token.len() > MAX_TOKEN_BYTES {
            return refused("the bearer token is longer than 8192 bytes");
        }
        let letters = token.trim_end_matches('=');
        if letters.is_empty() {
            return refused("there is no token after Bearer");
        }
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        if !letters.bytes().all(is_letter) {
            return refused("the bearer token has a character that no token has");
        }
        Ok(Bearer(token))
    }

    pub(super) fn sha256(self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    /// The token, where it has the form of a JWT in JWS Compact Serialization: three parts.
    pub(super) fn as_jwt(self) -> Option<&'a str> {
        (self.0.split('.').count() == 3).then_some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer_in_any_case_and_spaces_may_be_many() {
        for value in ["Bearer abc", "bearer abc", "BEARER abc", "Bearer   abc"] {
            let token = Bearer::parse(value.as_bytes()).expect(value);
            assert_eq!(token.0, "abc");
        }
        let padded = Bearer::parse(b"Bearer ab/+~-_.9==").expect("token68");
        assert_eq!(padded.0, "ab/+~-_.9==");
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_repeated() {
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1));
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer =",
            "Basic c2VjcmV0",
            "Bearersecret",
            "secret",
            "Bearer secret secret",
            "Bearer secret\t",
            "Bearer sec=ret",
            "Bearer secret,",
            "Bearer secret\u{e9}",
            " Bearer secret",
            "Bearer\tsecret",
            &long,
        ] {
            match Bearer::parse(value.as_bytes()).map(|_| ()) {
                Err(AccessError::Malformed(why)) => assert!(!why.contains("secret"), "{why}"),
                other => panic!("{value:?}: {other:?}"),
            }
        }
        assert!(Bearer::parse(b"Bearer \xff").is_err());
        let longest = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES));
        assert!(Bearer::parse(longest.as_bytes()).is_ok());
    }

    #[test]
    fn three_parts_are_a_jwt() {
        for (value, is_jwt) in [
            ("a.b.c", true),
            ("a.b", false),
            ("a.b.c.d", false),
            ("a", false),
        ] {
            let value = format!("Bearer {value}");
            let token = Bearer::parse(value.as_bytes()).expect("a token");
            assert_eq!(token.as_jwt().is_some(), is_jwt, "{value}");
        }
    }
}
