//! What a browser gets: the payload as it was published, and around it what it is and for whom,
//! signed by this gateway.
//!
//! It is a JSON Web Signature in flattened JSON (RFC 7515, 7.2.2) by Ed25519 (RFC 8037), so that any
//! library checks it. It says that an event is from this gateway and for this session, and not that it
//! is new. The key is at `/.well-known/jwks.json` (RFC 7517).

use std::error::Error;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use galaxy_push::gateway::{Event, Session};
use serde_json::{Value, json};

use crate::state::State;

const NAME: &str = "key.pk8";
/// What the signature is of. Nothing else is signed with the key, and nobody may take what it signs
/// for anything else.
const TYPE: &str = "galaxy-push-event+jws";

/// Signs with a key that survives restarts.
#[derive(Debug)]
pub(crate) struct Signer {
    key: Ed25519KeyPair,
    /// The key's name: its thumbprint (RFC 7638).
    id: String,
}

impl Signer {
    /// The key of an earlier run, or a new one.
    pub(crate) fn load(state: &State) -> Result<Self, Box<dyn Error>> {
        let pkcs8 = match state.read(NAME)? {
            Some(bytes) => bytes,
            None => {
                let key = Ed25519KeyPair::generate()?;
                let pkcs8 = key.to_pkcs8v1()?.as_ref().to_vec();
                state.write(NAME, &pkcs8)?;
                pkcs8
            }
        };
        let key = Ed25519KeyPair::from_pkcs8(&pkcs8)
            .map_err(|error| format!("the file {NAME} is no Ed25519 key: {error}"))?;
        let x = encode(key.public_key().as_ref());
        let thumbprint = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        Ok(Signer {
            id: encode(digest(&SHA256, thumbprint.as_bytes()).as_ref()),
            key,
        })
    }

    /// The public key, for browsers.
    pub(crate) fn jwks(&self) -> Value {
        json!({"keys": [{
            "kty": "OKP",
            "crv": "Ed25519",
            "x": encode(self.key.public_key().as_ref()),
            "kid": self.id,
            "use": "sig",
            "alg": "EdDSA",
        }]})
    }

    /// An event of a session, signed.
    pub(crate) fn seal(&self, event: &Event, session: &Session) -> String {
        let fields = event.fields();
        let text = |bytes| String::from_utf8_lossy(bytes);
        let header = json!({
            "alg": "EdDSA",
            // What was published by others is signed here: it must not pass for a token (RFC 8725, 3.11).
            "typ": TYPE,
            "kid": self.id,
            // For whom: what was sent to one session says nothing to another.
            "user": session.user(),
            "session": session.id(),
            "kind": text(fields.kind),
            "event_id": text(fields.event_id),
            "request_id": text(fields.request_id),
            "cursor": event.cursor().map(|cursor| cursor.to_string()).unwrap_or_default(),
        });
        let protected = encode(header.to_string().as_bytes());
        let payload = encode(fields.payload);
        let signature = self.key.sign(format!("{protected}.{payload}").as_bytes());
        json!({
            "payload": payload,
            "protected": protected,
            "signature": encode(signature.as_ref()),
        })
        .to_string()
    }
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
