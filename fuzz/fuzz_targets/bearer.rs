//! Any bytes as an `authorization` field, to a server that knows one token by its hash and the
//! key of an issuer: whatever was not issued is refused, without a panic, and no refusal
//! repeats it.
//!
//! The input is lines, each a field's value.

#![no_main]

use std::sync::LazyLock;

use galaxy_push::access::{AccessError, AccessFile, Authenticator, Credentials, Peer};
use libfuzzer_sys::fuzz_target;

/// The SHA-256 of `known`.
const ACCESS: &[u8] = br#"
[jwt]
keys = "jwks.json"
issuer = "https://auth.example"
audience = "galaxy-push"

[[principal]]
name = "signed"
jwt_subject = "*"

[[principal]]
name = "known"
token_sha256 = "7117fff2d0fd294462b3c802b7cb8753579f23f3946b99cf55f38e873f013f10"
"#;

/// The public key of RFC 8037, A.2.
const KEYS: &[u8] = br#"{"keys": [{
    "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "k",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
}]}"#;

static FILE: LazyLock<AccessFile> =
    LazyLock::new(|| AccessFile::parse(ACCESS, Some(KEYS)).expect("it is a good file"));

fuzz_target!(|input: &[u8]| {
    for line in input.split(|byte| *byte == b'\n') {
        // Failures of one peer are rationed, and then say no more what was wrong.
        let uid = line.last_chunk().map(|last| u32::from_le_bytes(*last));
        let credentials = Credentials::of(Peer::Unix { uid }).authorization(Some(line));
        match FILE.authenticate(&credentials) {
            // Whoever finds a signature has broken Ed25519.
            Ok(identity) => assert!(line.ends_with(b" known"), "{identity:?}"),
            Err(AccessError::NoCredential) => panic!("there is one"),
            Err(error) => {
                let text = error.to_string();
                let secret = String::from_utf8_lossy(line);
                assert!(secret.len() < 40 || !text.contains(&*secret), "{text}");
            }
        }
    }
});
