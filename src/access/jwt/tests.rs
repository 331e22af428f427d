use std::sync::LazyLock;

use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::json;

use super::*;

const ISSUER: &str = "https://auth.example";
const AUDIENCE: &str = "galaxy-push";

/// A key that signs, and its public part as a JWK.
struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    jwk: Value,
}

fn signer(algorithm: Algorithm, id: &str) -> Signer {
    let kind = match algorithm {
        Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        Algorithm::ES384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        Algorithm::EdDSA => &rcgen::PKCS_ED25519,
        _ => &rcgen::PKCS_RSA_SHA256,
    };
    let pair = KeyPair::generate_for(kind).expect("a key");
    let der = pair.serialize_der();
    let key = match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_der(&der),
        Algorithm::EdDSA => EncodingKey::from_ed_der(&der),
        // PKCS #8 has PKCS #1 after 26 bytes.
        _ => EncodingKey::from_rsa_der(&der[26..]),
    };
    let mut jwk = match algorithm {
        // `Jwk::from_encoding_key` does not take the key's newer form, which has both parts.
        Algorithm::EdDSA => json!({
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA",
            "x": base64url(pair.public_key_raw())
        }),
        _ => {
            let jwk = Jwk::from_encoding_key(&key, algorithm).expect("a JWK");
            serde_json::to_value(jwk).expect("JSON")
        }
    };
    jwk["kid"] = json!(id);
    Signer {
        algorithm,
        key,
        jwk,
    }
}

static SIGNER: LazyLock<Signer> = LazyLock::new(|| signer(Algorithm::ES256, "one"));
static OTHER: LazyLock<Signer> = LazyLock::new(|| signer(Algorithm::EdDSA, "two"));

fn expected() -> Expected {
    Expected {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
    }
}

fn read(keys: &[&Value]) -> Result<KeySet, KeySetError> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), expected())
}

fn keys() -> KeySet {
    read(&[&SIGNER.jwk, &OTHER.jwk]).expect("a key set")
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "svc-orders", "exp": now() + 600 })
}

/// Claims with one that is another.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

fn header(signer: &Signer) -> Header {
    let mut header = Header::new(signer.algorithm);
    header.kid = signer.jwk["kid"].as_str().map(str::to_owned);
    header
}

fn token(signer: &Signer, claims: &Value) -> String {
    encode(&header(signer), claims, &signer.key).expect("a token")
}

fn verify(token: &str) -> Result<Verified, AccessError> {
    keys().verify(token, SystemTime::now())
}

/// Why it is not accepted.
fn reason(token: &str) -> &'static str {
    match verify(token) {
        Err(AccessError::NotAccepted { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

fn base64url(text: impl AsRef<[u8]>) -> String {
    base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, text)
}

/// A token with a header of our own, signed with the key all the same.
fn token_with_header(signer: &Signer, header: &Value) -> String {
    let message = format!(
        "{}.{}",
        base64url(header.to_string()),
        base64url(claims().to_string())
    );
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &signer.key, signer.algorithm);
    format!("{message}.{}", signature.expect("a signature"))
}

#[test]
fn a_token_of_each_algorithm_is_verified() {
    for algorithm in [
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
        Algorithm::RS256,
        Algorithm::PS256,
    ] {
        let signer = signer(algorithm, "k");
        let keys = read(&[&signer.jwk]).expect("a key set");
        let claims = claims();
        let verified = keys.verify(&token(&signer, &claims), SystemTime::now());
        let verified = verified.unwrap_or_else(|error| panic!("{algorithm:?}: {error}"));
        assert_eq!(verified.subject, "svc-orders");
        assert_eq!(verified.key_id.as_deref(), Some("k"));
        let exp = Duration::from_secs(claims["exp"].as_u64().expect("a number"));
        assert_eq!(verified.expires_at, UNIX_EPOCH + exp);
        assert_eq!(keys.digest(Some("k")), Some(verified.verified_by));
    }
}

#[test]
fn the_algorithm_none_is_refused() {
    for alg in ["none", "None", "NONE", ""] {
        let head = base64url(json!({ "alg": alg, "typ": "JWT", "kid": "one" }).to_string());
        let body = base64url(claims().to_string());
        for signature in ["", "AAAA"] {
            let reason = reason(&format!("{head}.{body}.{signature}"));
            assert!(reason.contains("`alg` is none or unknown"), "{reason}");
        }
    }
}

#[test]
fn hmac_with_the_public_key_as_its_secret_is_refused() {
    let jwk = SIGNER.jwk.to_string();
    let point = keys().keys[0]
        .key
        .try_get_as_bytes()
        .expect("a point")
        .to_vec();
    for secret in [jwk.as_bytes(), &point] {
        let mut head = Header::new(Algorithm::HS256);
        head.kid = Some("one".to_owned());
        let secret = EncodingKey::from_secret(secret).expect("a secret");
        let forged = encode(&head, &claims(), &secret);
        assert_eq!(
            reason(&forged.expect("a token")),
            "the token's `alg` is not its key's"
        );
    }
}

#[test]
fn a_token_that_another_key_has_signed_is_refused() {
    let mut head = header(&OTHER);
    head.kid = Some("one".to_owned());
    let wrong_algorithm = encode(&head, &claims(), &OTHER.key).expect("a token");
    assert_eq!(
        reason(&wrong_algorithm),
        "the token's `alg` is not its key's"
    );

    let stranger = signer(Algorithm::ES256, "one");
    assert_eq!(
        reason(&token(&stranger, &claims())),
        "the token's signature is wrong"
    );
    let genuine = token(&SIGNER, &claims());
    let (message, signature) = genuine.rsplit_once('.').expect("three parts");
    let (head, _) = message.split_once('.').expect("two parts");
    let body = base64url(with("sub", json!("svc-admin")).to_string());
    assert_eq!(
        reason(&format!("{head}.{body}.{signature}")),
        "the token's signature is wrong"
    );
}

#[test]
fn a_key_is_found_by_its_id_and_never_comes_with_the_token() {
    let stranger = signer(Algorithm::ES256, "three");
    assert_eq!(
        verify(&token(&stranger, &claims())),
        Err(AccessError::Unknown)
    );
    let brought = json!({ "alg": "ES256", "kid": "three", "jwk": stranger.jwk });
    assert_eq!(
        verify(&token_with_header(&stranger, &brought)),
        Err(AccessError::Unknown)
    );
    let brought = json!({ "alg": "ES256", "kid": "one", "jwk": stranger.jwk });
    assert_eq!(
        reason(&token_with_header(&stranger, &brought)),
        "the token's signature is wrong"
    );
    let nameless = token_with_header(&SIGNER, &json!({ "alg": "ES256" }));
    assert!(reason(&nameless).contains("names no key"));
    // The only key needs no name.
    let mut jwk = SIGNER.jwk.clone();
    for only in [SIGNER.jwk.clone(), {
        jwk.as_object_mut().expect("an object").remove("kid");
        jwk
    }] {
        let keys = read(&[&only]).expect("a key set");
        assert!(keys.verify(&nameless, SystemTime::now()).is_ok());
    }
}

#[test]
fn the_issuer_must_be_the_one() {
    for issuer in [
        json!("https://auth.example/"),
        json!(""),
        json!([ISSUER]),
        json!(1),
    ] {
        let reason = reason(&token(&SIGNER, &with("iss", issuer)));
        assert!(reason.contains("iss"), "{reason}");
    }
    assert!(reason(&token(&SIGNER, &without("iss"))).contains("iss"));
}

#[test]
fn the_audience_must_be_the_one_alone() {
    for audience in [
        json!("other"),
        json!("Galaxy-Push"),
        json!([]),
        json!(["other"]),
        json!([AUDIENCE, "other"]),
        json!([AUDIENCE, AUDIENCE]),
        json!([[AUDIENCE]]),
        json!(null),
    ] {
        let reason = reason(&token(&SIGNER, &with("aud", audience.clone())));
        assert!(reason.contains("aud"), "{audience}: {reason}");
    }
    assert!(reason(&token(&SIGNER, &without("aud"))).contains("aud"));
    assert!(verify(&token(&SIGNER, &with("aud", json!([AUDIENCE])))).is_ok());
}

#[test]
fn a_token_ends_and_says_when() {
    for exp in [json!(now() - 1), json!(0), json!(now() as f64 - 0.5)] {
        let expired = verify(&token(&SIGNER, &with("exp", exp.clone())));
        assert_eq!(expired, Err(AccessError::Expired), "{exp}");
    }
    for exp in [
        json!("4102444800"),
        json!(-1),
        json!(1e300),
        json!(null),
        json!(true),
    ] {
        let reason = reason(&token(&SIGNER, &with("exp", exp.clone())));
        assert!(reason.contains("exp"), "{exp}: {reason}");
    }
    assert!(reason(&token(&SIGNER, &without("exp"))).contains("no `exp`"));
    // Beyond what a clock can say.
    let reason = reason(&token(&SIGNER, &with("exp", json!(u64::MAX))));
    assert!(reason.contains("`exp` is no time"), "{reason}");
    let fraction = with("exp", json!(now() as f64 + 600.25));
    let verified = verify(&token(&SIGNER, &fraction)).expect("it is valid");
    let since = verified.expires_at.duration_since(UNIX_EPOCH);
    assert_eq!(since.expect("after 1970").subsec_millis(), 250);
}

#[test]
fn a_token_ends_at_the_moment_that_it_says() {
    let exp = now() + 600;
    let token = token(&SIGNER, &with("exp", json!(exp)));
    let end = UNIX_EPOCH + Duration::from_secs(exp);
    let before = keys().verify(&token, end - Duration::from_millis(1));
    assert!(before.is_ok(), "{before:?}");
    assert_eq!(keys().verify(&token, end), Err(AccessError::Expired));
}

#[test]
fn a_token_begins_when_it_says_with_little_leeway() {
    for (nbf, result) in [
        (json!(now() - 5), None),
        (json!(now() + 5), None),
        (json!(now() + 60), Some(AccessError::NotYetValid)),
    ] {
        let verified = verify(&token(&SIGNER, &with("nbf", nbf.clone())));
        assert_eq!(verified.err(), result, "{nbf}");
    }
    let reason = reason(&token(&SIGNER, &with("nbf", json!("soon"))));
    assert_eq!(reason, "the token's `nbf` is no time");
}

#[test]
fn critical_fields_and_tokens_for_something_else_are_refused() {
    for critical in [json!(["b64"]), json!(["exp"]), json!([])] {
        let head = json!({ "alg": "ES256", "kid": "one", "b64": true, "crit": critical });
        let reason = reason(&token_with_header(&SIGNER, &head));
        assert_eq!(reason, "the token's header has a `crit` field");
    }
    for typ in [
        "dpop+jwt",
        "logout+jwt",
        "secevent+jwt",
        "application/",
        "",
        "é",
    ] {
        let head = json!({ "alg": "ES256", "kid": "one", "typ": typ });
        let reason = reason(&token_with_header(&SIGNER, &head));
        assert!(reason.contains("typ"), "{typ}: {reason}");
    }
    for typ in [
        json!("jwt"),
        json!("at+jwt"),
        json!("application/at+JWT"),
        json!(null),
    ] {
        let head = json!({ "alg": "ES256", "kid": "one", "typ": typ });
        assert!(verify(&token_with_header(&SIGNER, &head)).is_ok(), "{typ}");
    }
}

#[test]
fn a_token_needs_a_subject() {
    // The library stops reading at what it does not expect there, and so cannot say more.
    reason(&token(&SIGNER, &with("sub", json!(["svc"]))));
    for subject in [json!(""), json!(1), json!(null)] {
        let reason = reason(&token(&SIGNER, &with("sub", subject.clone())));
        assert!(reason.contains("sub"), "{subject}: {reason}");
    }
    assert!(reason(&token(&SIGNER, &without("sub"))).contains("sub"));
}

#[test]
fn what_is_no_token_is_refused_without_a_word_of_it() {
    let genuine = token(&SIGNER, &claims());
    for text in [
        "..",
        "a.b.c",
        "e30.e30.e30",
        &genuine[1..],
        &genuine[..genuine.len() - 4],
    ] {
        let error = verify(text).expect_err("it is no token").to_string();
        assert!(
            !text
                .split('.')
                .any(|part| part.len() > 3 && error.contains(part)),
            "{error}"
        );
    }
}

#[test]
fn key_sets_that_cannot_be_trusted_are_refused() {
    let edited = |edit: &dyn Fn(&mut Map<String, Value>)| {
        let mut jwk = SIGNER.jwk.clone();
        edit(jwk.as_object_mut().expect("an object"));
        jwk
    };
    let remove = |name: &'static str| edited(&|jwk| drop(jwk.remove(name)));
    let set = |name: &'static str, value: Value| {
        edited(&|jwk| drop(jwk.insert(name.to_owned(), value.clone())))
    };
    let hmac = json!({ "kty": "oct", "kid": "h", "alg": "HS256", "k": "c2VjcmV0c2VjcmV0" });
    let small = json!({ "kty": "RSA", "alg": "RS256", "n": base64url([255; 128]), "e": "AQAB" });
    let padded = json!({ "kty": "RSA", "alg": "RS256", "n": base64url([0; 257]), "e": "AQAB" });
    for (jwk, part) in [
        (hmac, "key 0 (\"h\"): symmetric keys (HMAC) are refused"),
        (remove("alg"), "key 0 (\"one\"): it has no \"alg\""),
        (set("d", json!("c2VjcmV0")), "it is a private key"),
        (set("alg", json!("HS256")), "does not fit"),
        (set("alg", json!("ES384")), "does not fit"),
        (set("alg", json!("RS256")), "does not fit"),
        (set("alg", json!("none")), "its \"alg\" is none of"),
        (set("alg", json!("ES512")), "its \"alg\" is none of"),
        (set("crv", json!("P-384")), "does not fit"),
        (set("crv", json!("secp256k1")), "does not fit"),
        (set("x", json!("AAAA")), "coordinates"),
        (set("x", json!("*")), "base64url"),
        (set("kid", json!("")), "\"kid\" is empty"),
        (set("kid", json!(1)), "it is no JWK"),
        (set("use", json!("enc")), "no key that verifies"),
        (small, "it has 1024 bits"),
        (padded, "begins with a zero byte"),
        (json!("key"), "it is no object"),
    ] {
        let why = read(&[&jwk]).expect_err("it is refused").to_string();
        assert!(why.contains(part), "{jwk}: {why}");
        assert!(!why.contains("c2VjcmV0"), "{why}");
    }
    let why = read(&[&SIGNER.jwk, &SIGNER.jwk])
        .expect_err("it is refused")
        .to_string();
    assert_eq!(why, "key 1 (\"one\"): an earlier key has the same \"kid\"");
    let why = read(&[&SIGNER.jwk, &remove("kid")])
        .expect_err("it is refused")
        .to_string();
    assert!(why.contains("one without \"kid\""), "{why}");
    for (text, part) in [
        ("", "not JSON at line 1"),
        ("{\"keys\": secret}", "not JSON at line 1, column 10"),
        ("[]", "no array \"keys\""),
        ("{\"keys\": {}}", "no array \"keys\""),
        ("{\"keys\": []}", "no key that verifies"),
    ] {
        let why = KeySet::parse(text.as_bytes(), expected()).expect_err("it is refused");
        assert!(why.to_string().contains(part), "{text}: {why}");
        assert!(!why.to_string().contains("secret"), "{why}");
    }
}

#[test]
fn keys_for_encryption_are_skipped() {
    let encryption = json!({
        "kty": "RSA", "kid": "e", "alg": "RSA-OAEP", "use": "enc",
        "n": base64url([255; 256]), "e": "AQAB"
    });
    let keys = read(&[&encryption, &SIGNER.jwk]).expect("one verifies");
    assert!(
        keys.verify(&token(&SIGNER, &claims()), SystemTime::now())
            .is_ok()
    );
    assert_eq!(keys.digest(Some("e")), None);
}

#[test]
fn a_digest_tells_keys_issuers_and_audiences_apart() {
    let digest = |jwk: &Value, issuer: &str, audience: &str| {
        let expected = Expected {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
        };
        let json = json!({ "keys": [jwk] }).to_string();
        let keys = KeySet::parse(json.as_bytes(), expected).expect("a key set");
        keys.digest(Some("one")).expect("the key")
    };
    let first = digest(&SIGNER.jwk, "a", "bc");
    assert_eq!(first, digest(&SIGNER.jwk, "a", "bc"));
    let other_key = signer(Algorithm::ES256, "one");
    for other in [
        digest(&SIGNER.jwk, "ab", "c"),
        digest(&SIGNER.jwk, "a", "b"),
        digest(&other_key.jwk, "a", "bc"),
    ] {
        assert_ne!(first, other);
    }
}
