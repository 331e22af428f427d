//! Signed tokens (JWT, RFC 7519), and the keys that verify them.
//!
//! The key decides on everything: its id finds it, and its own algorithm is the only one that
//! counts. What a token says of its algorithm must be the same, or it is refused. Keys that
//! sign and verify alike (HMAC) are refused in the key set: whoever can read the set could make
//! tokens.
//!
//! `jsonwebtoken` verifies signatures, `exp`, `iss` and `aud`. What it leaves open is checked
//! here: it takes a list of issuers and of audiences where one of them fits, some critical
//! header fields, any `typ`, and `exp` to the second in which it passes.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::crypto::{CryptoProvider, aws_lc};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Validation};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::AccessError;

/// How far an issuer's clock may be ahead of ours, for `nbf`. `exp` has no such leeway: calls
/// end at it.
const NOT_BEFORE_LEEWAY: Duration = Duration::from_secs(10);

/// The shortest RSA modulus, in bits.
const MIN_RSA_BITS: usize = 2048;

/// What signed tokens must say of themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) issuer: String,
    pub(super) audience: String,
}

/// Why a key set cannot be used. It repeats nothing of the keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct KeySetError(String);

/// The keys of a JWK set that verify signatures.
pub(super) struct KeySet {
    expected: Expected,
    keys: Vec<Key>,
    /// Places in `keys`.
    by_id: HashMap<String, usize>,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    validation: Validation,
    /// Of all that a token's acceptance rests on.
    digest: [u8; 32],
}

/// A token that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verified {
    pub(super) subject: String,
    pub(super) key_id: Option<String>,
    pub(super) verified_by: [u8; 32],
    pub(super) expires_at: SystemTime,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet")
            .field("expected", &self.expected)
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

impl KeySet {
    /// Reads a JWK set (RFC 7517). Keys that are not for signatures are skipped.
    pub(super) fn parse(json: &[u8], expected: Expected) -> Result<Self, KeySetError> {
        // Where a build has more than one of jsonwebtoken's providers of cryptography, it
        // panics unless one was installed. If one was, that one is used.
        if CryptoProvider::try_get_default().is_none() {
            let _ = aws_lc::DEFAULT_PROVIDER.install_default();
        }
        let refused = |why: String| Err(KeySetError(why));
        let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
        let set: Value = match serde_json::from_slice(json) {
            Ok(set) => set,
            // Its text may repeat what stands there.
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                return refused(format!("it is not JSON at line {line}, column {column}"));
            }
        };
        let Some(jwks) = set.get("keys").and_then(Value::as_array) else {
            return refused("it is no JWK set: it has no array \"keys\"".to_owned());
        };
        let mut set = KeySet {
            expected,
            keys: Vec::new(),
            by_id: HashMap::new(),
        };
        for (at, jwk) in jwks.iter().enumerate() {
            let name = match jwk.get("kid").and_then(Value::as_str) {
                Some(id) => format!("key {at} ({id:?})"),
                None => format!("key {at}"),
            };
            let key = Key::read(jwk, &set.expected);
            let Some(key) = key.map_err(|why| KeySetError(format!("{name}: {why}")))? else {
                continue;
            };
            if let Some(id) = &key.id
                && set.by_id.insert(id.clone(), set.keys.len()).is_some()
            {
                return refused(format!("{name}: an earlier key has the same \"kid\""));
            }
            set.keys.push(key);
        }
        match set.keys.as_slice() {
            [] => refused("it has no key that verifies signatures".to_owned()),
            [_] => Ok(set),
            keys if keys.iter().all(|key| key.id.is_some()) => Ok(set),
            _ => refused("it has several keys, and one without \"kid\"".to_owned()),
        }
    }

    /// The digest of the key with this id, and of what tokens must say.
    pub(super) fn digest(&self, key_id: Option<&str>) -> Option<[u8; 32]> {
        self.find(key_id).map(|key| key.digest)
    }

    /// Without an id, it is the only key.
    fn find(&self, id: Option<&str>) -> Option<&Key> {
        match (id, self.keys.as_slice()) {
            (Some(id), keys) => keys.get(*self.by_id.get(id)?),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    /// Verifies a token.
    ///
    /// # Errors
    ///
    /// Why it is not accepted. It repeats nothing of the token.
    pub(super) fn verify(&self, token: &str, now: SystemTime) -> Result<Verified, AccessError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| {
            not_accepted("the token's header cannot be read, or its `alg` is none or unknown")
        })?;
        if header.crit.is_some() {
            return Err(not_accepted("the token's header has a `crit` field"));
        }
        if !header.typ.as_deref().is_none_or(is_access_token) {
            return Err(not_accepted("the token's `typ` is neither JWT nor at+jwt"));
        }
        if header.kid.is_none() && self.keys.len() > 1 {
            return Err(not_accepted(
                "the token names no key (`kid`), and there are several",
            ));
        }
        let key = self
            .find(header.kid.as_deref())
            .ok_or(AccessError::Unknown)?;
        if header.alg != key.algorithm {
            return Err(not_accepted("the token's `alg` is not its key's"));
        }
        let token = jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &key.validation)
            .map_err(|error| refusal(error.kind()))?;
        self.check(&token.claims, now)?;
        let subject = match token.claims.get("sub") {
            Some(Value::String(subject)) if !subject.is_empty() => subject.clone(),
            _ => return Err(not_accepted("the token has no subject (`sub`)")),
        };
        let expires_at = match token.claims.get("exp") {
            Some(exp) => numeric_date(exp).ok_or(not_accepted("the token's `exp` is no time"))?,
            None => return Err(not_accepted("the token has no `exp`")),
        };
        if now >= expires_at {
            return Err(AccessError::Expired);
        }
        Ok(Verified {
            subject,
            key_id: header.kid,
            verified_by: key.digest,
            expires_at,
        })
    }

    fn check(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<(), AccessError> {
        let is =
            |value: Option<&Value>, expected: &str| value.and_then(Value::as_str) == Some(expected);
        if !is(claims.get("iss"), &self.expected.issuer) {
            return Err(refusal(&ErrorKind::InvalidIssuer));
        }
        let audience = match claims.get("aud") {
            Some(Value::Array(audiences)) if audiences.len() == 1 => audiences.first(),
            other => other,
        };
        if !is(audience, &self.expected.audience) {
            return Err(refusal(&ErrorKind::InvalidAudience));
        }
        if let Some(not_before) = claims.get("nbf") {
            let not_before =
                numeric_date(not_before).ok_or(not_accepted("the token's `nbf` is no time"))?;
            let late = now.checked_add(NOT_BEFORE_LEEWAY).unwrap_or(now);
            if not_before > late {
                return Err(AccessError::NotYetValid);
            }
        }
        Ok(())
    }
}

fn not_accepted(reason: &'static str) -> AccessError {
    AccessError::NotAccepted { reason }
}

/// Whether a `typ` is that of a token that says who calls, and not of one for something else
/// (RFC 8725, 3.11).
fn is_access_token(typ: &str) -> bool {
    let media_type = typ.get(.."application/".len());
    let has_prefix = media_type.is_some_and(|text| text.eq_ignore_ascii_case("application/"));
    let typ = if has_prefix {
        typ.get("application/".len()..).unwrap_or_default()
    } else {
        typ
    };
    ["JWT", "at+jwt"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(typ))
}

/// A time of a token: seconds since 1970, which may have a fraction.
fn numeric_date(value: &Value) -> Option<SystemTime> {
    let since = match value.as_u64() {
        Some(seconds) => Duration::from_secs(seconds),
        None => Duration::try_from_secs_f64(value.as_f64()?).ok()?,
    };
    UNIX_EPOCH.checked_add(since)
}

fn refusal(kind: &ErrorKind) -> AccessError {
    match kind {
        ErrorKind::ExpiredSignature => AccessError::Expired,
        ErrorKind::ImmatureSignature => AccessError::NotYetValid,
        ErrorKind::InvalidSignature => not_accepted("the token's signature is wrong"),
        ErrorKind::InvalidIssuer => not_accepted("the token's issuer (`iss`) is another one"),
        ErrorKind::InvalidAudience => {
            not_accepted("the token's audience (`aud`) is another one, or several")
        }
        ErrorKind::MissingRequiredClaim(claim) if claim == "exp" => {
            not_accepted("the token has no `exp`, or one that is no time")
        }
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => {
            not_accepted("the token lacks `iss`, `aud` or `sub`, or they cannot be read")
        }
        _ => not_accepted("the token cannot be read"),
    }
}

impl Key {
    /// `None` where it is not for signatures.
    fn read(jwk: &Value, expected: &Expected) -> Result<Option<Key>, String> {
        let refused = |why: &str| Err(why.to_owned());
        let Value::Object(fields) = jwk else {
            return refused("it is no object");
        };
        // Before all else: a file with such a key must not lie around.
        if fields.get("kty").and_then(Value::as_str) == Some("oct") || fields.contains_key("k") {
            return refused(
                "symmetric keys (HMAC) are refused: whoever can read the set could make tokens. \
                 Use ES256, EdDSA, RS256 or PS256",
            );
        }
        if fields.contains_key("d") {
            return refused("it is a private key. Keep only the public part here");
        }
        let Ok(jwk) = serde_json::from_value::<Jwk>(jwk.clone()) else {
            return refused("it is no JWK");
        };
        let is_for_signatures = match &jwk.common.public_key_use {
            Some(PublicKeyUse::Signature) | None => true,
            Some(_) => false,
        };
        if !is_for_signatures {
            return Ok(None);
        }
        if jwk.common.key_id.as_deref() == Some("") {
            return refused("its \"kid\" is empty");
        }
        let Some(named) = jwk.common.key_algorithm else {
            return refused(
                "it has no \"alg\". Add the algorithm that its issuer signs with: the token's own \
                 word does not count",
            );
        };
        let algorithm = match (Algorithm::try_from(named), &jwk.algorithm) {
            (Ok(algorithm), parameters) if fits(algorithm, parameters) => algorithm,
            (Ok(_), _) => return refused("its \"alg\" does not fit its \"kty\" and \"crv\""),
            (Err(_), _) => {
                return refused(
                    "its \"alg\" is none of ES256, ES384, EdDSA, RS256, RS384, RS512, PS256, \
                     PS384, PS512",
                );
            }
        };
        let Ok(key) = DecodingKey::from_jwk(&jwk) else {
            return refused("its numbers are not base64url");
        };
        check_size(&key, algorithm)?;
        Ok(Some(Key {
            digest: digest(&key, algorithm, expected),
            id: jwk.common.key_id,
            algorithm,
            key,
            validation: validation(algorithm, expected),
        }))
    }
}

fn fits(algorithm: Algorithm, parameters: &AlgorithmParameters) -> bool {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match parameters {
        AlgorithmParameters::EllipticCurve(key) => matches!(
            (&key.curve, algorithm),
            (EllipticCurve::P256, ES256) | (EllipticCurve::P384, ES384)
        ),
        AlgorithmParameters::OctetKeyPair(key) => {
            key.curve == EllipticCurve::Ed25519 && algorithm == EdDSA
        }
        AlgorithmParameters::RSA(_) => {
            matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512)
        }
        _ => false,
    }
}

/// A key of a wrong size verifies nothing: better to say so when it is read.
fn check_size(key: &DecodingKey, algorithm: Algorithm) -> Result<(), String> {
    let point_bytes = match algorithm {
        Algorithm::ES256 => 1 + 2 * 32,
        Algorithm::ES384 => 1 + 2 * 48,
        _ => 32,
    };
    match key.kind() {
        DecodingKeyKind::SecretOrDer(point) if point.len() != point_bytes => {
            Err("its coordinates do not have their curve's length".to_owned())
        }
        DecodingKeyKind::RsaModulusExponent { n, e } => match (n.first(), e.first()) {
            (None | Some(0), _) | (_, None | Some(0)) => {
                Err("its \"n\" or \"e\" is empty, or begins with a zero byte".to_owned())
            }
            (Some(first), _) => {
                let bits = 8 * n.len() - first.leading_zeros() as usize;
                if (MIN_RSA_BITS..=8192).contains(&bits) {
                    return Ok(());
                }
                Err(format!(
                    "it has {bits} bits; {MIN_RSA_BITS} to 8192 are accepted"
                ))
            }
        },
        DecodingKeyKind::SecretOrDer(_) => Ok(()),
    }
}

fn validation(algorithm: Algorithm, expected: &Expected) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[&expected.issuer]);
    validation.set_audience(&[&expected.audience]);
    validation.leeway = 0;
    validation
}

/// Of everything that a token's acceptance rests on, each part with its length before it.
fn digest(key: &DecodingKey, algorithm: Algorithm, expected: &Expected) -> [u8; 32] {
    let algorithm = format!("{algorithm:?}");
    let key_parts: [&[u8]; 2] = match key.kind() {
        DecodingKeyKind::SecretOrDer(point) => [point, &[]],
        DecodingKeyKind::RsaModulusExponent { n, e } => [n, e],
    };
    let [first, second] = key_parts;
    let texts = [&algorithm, &expected.issuer, &expected.audience];
    let mut digest = Sha256::new();
    for part in texts
        .map(|text| text.as_bytes())
        .into_iter()
        .chain([first, second])
    {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests;
