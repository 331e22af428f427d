use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::access::{AdminRole, ClientCertificate, EventKinds, Evidence, Limits, Peer};

fn hash(token: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(token).into();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse(text: &str) -> Result<AccessFile, AccessFileError> {
    AccessFile::parse(text.as_bytes(), None)
}

fn file(text: &str) -> AccessFile {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn peer() -> Peer {
    Peer::Tcp(SocketAddr::from(([192, 0, 2, 1], 1000)))
}

fn certificate(uris: &[&str], dns_names: &[&str]) -> Arc<ClientCertificate> {
    let now = SystemTime::now();
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Arc::new(ClientCertificate::new(
        owned(uris),
        owned(dns_names),
        now - Duration::from_secs(60),
        now + Duration::from_secs(60),
    ))
}

fn with_certificate(
    file: &AccessFile,
    certificate: &Arc<ClientCertificate>,
) -> Result<Identity, AccessError> {
    file.authenticate(&Credentials::of(peer()).certificate(Some(certificate)))
}

fn with_token(file: &AccessFile, token: &str) -> Result<Identity, AccessError> {
    let field = format!("Bearer {token}");
    file.authenticate(&Credentials::of(peer()).authorization(Some(field.as_bytes())))
}

const GATEWAYS: &str = r#"
[[principal]]
name = "gateways"
certificate = "spiffe://galaxy/gateway/{gateway}"
subscribe = ["{gateway}", "{gateway}-spare-*"]
max_streams = 2
"#;

const DNS: &str = r#"
[[principal]]
name = "edge"
certificate = "dns:{gateway}.gw.example"
subscribe = ["{gateway}"]
"#;

fn orders(token: &str, more: &str) -> String {
    let hash = hash(token);
    let text = format!("[[principal]]\nname = \"orders\"\ntoken_sha256 = \"{hash}\"\n{more}");
    format!("{}\n", text.trim_end())
}

#[test]
fn a_certificate_is_known_by_its_uri_and_grants_its_own_ids() {
    let file = file(GATEWAYS);
    let shown = certificate(
        &["spiffe://galaxy/gateway/gw-1"],
        &["a.example", "b.example"],
    );
    let identity = with_certificate(&file, &shown).expect("it is known");
    assert_eq!(&**identity.principal(), "gateways");
    for id in ["gw-1", "gw-1-spare-", "gw-1-spare-7"] {
        assert_eq!(identity.may_subscribe(id), Ok(()), "{id}");
    }
    for id in ["gw-2", "gw-1-spare", "gw-1x", ""] {
        let refused = identity.may_subscribe(id);
        let is_denied = matches!(
            &refused,
            Err(AccessError::SubscribeNotGranted { principal, gateway })
                if principal == "gateways" && gateway == id
        );
        assert!(is_denied, "{id}: {refused:?}");
    }
    assert!(identity.may_publish(EventKinds::ALL).is_err());
    assert_eq!(identity.admin_role(), AdminRole::None);
    assert_eq!(identity.shown(), &Evidence::Certificate(Arc::clone(&shown)));
    let end = shown.not_after + Duration::from_secs(1);
    assert_eq!(identity.valid_until(), Some(end));
}

#[test]
fn a_certificate_is_known_by_its_dns_name_in_any_case() {
    let file = file(DNS);
    let identity = with_certificate(&file, &certificate(&[], &["GW-1.gw.Example"]));
    let identity = identity.expect("it is known");
    assert_eq!(identity.may_subscribe("gw-1"), Ok(()));
    assert!(identity.may_subscribe("GW-1").is_err());
    let several = with_certificate(&file, &certificate(&[], &["a.gw.example", "b.gw.example"]));
    assert_eq!(
        several.expect_err("which one is it?").to_string(),
        "the credential is not accepted: the certificate has several DNS names, and no URI that \
         is known here"
    );
}

#[test]
fn a_certificate_with_two_uris_or_two_principals_is_refused() {
    let file = file(&format!("{GATEWAYS}{DNS}"));
    for uris in [
        ["spiffe://galaxy/gateway/a", "spiffe://galaxy/gateway/b"],
        ["spiffe://galaxy/gateway/a", "https://elsewhere.example/"],
        ["spiffe://galaxy/gateway/a", "spiffe://galaxy/gateway/a"],
    ] {
        for dns_names in [&[][..], &["a.gw.example"]] {
            let refused = with_certificate(&file, &certificate(&uris, dns_names));
            let refused = refused.expect_err("two URIs").to_string();
            assert!(refused.contains("several URIs"), "{refused}");
        }
    }
    let both = certificate(&["spiffe://galaxy/gateway/a"], &["a.gw.example"]);
    let refused = with_certificate(&file, &both).expect_err("two principals");
    assert_eq!(
        refused.to_string(),
        "the credential is that of two principals: gateways and edge"
    );
    // A URI that is nobody's does not hide the DNS name.
    let dns = certificate(&["spiffe://galaxy/other"], &["a.gw.example"]);
    assert!(with_certificate(&file, &dns).is_ok());
    for (uris, dns_names) in [
        (&["spiffe://x/y"][..], &[][..]),
        (&[], &["x.example"]),
        (&[], &[]),
    ] {
        let unknown = with_certificate(&file, &certificate(uris, dns_names)).map(drop);
        assert_eq!(unknown, Err(AccessError::Unknown));
    }
}

#[test]
fn a_certificate_counts_while_it_is_valid() {
    let file = file(GATEWAYS);
    let now = SystemTime::now();
    let valid = |from: i64, until: i64| {
        let at = |seconds: i64| {
            let distance = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 {
                now - distance
            } else {
                now + distance
            }
        };
        let mut certificate = (*certificate(&["spiffe://galaxy/gateway/a"], &[])).clone();
        certificate.not_before = at(from);
        certificate.not_after = at(until);
        let certificate = Arc::new(certificate);
        let credentials = Credentials::of(peer()).certificate(Some(&certificate));
        file.authenticate_at(&credentials, now).map(drop)
    };
    assert_eq!(valid(0, 0), Ok(()));
    assert_eq!(valid(-10, -1), Err(AccessError::Expired));
    assert_eq!(valid(1, 10), Err(AccessError::NotYetValid));
}

#[test]
fn a_token_is_known_by_its_hash_and_hides_a_certificate() {
    let text = format!(
        "{GATEWAYS}{}",
        orders("secret-token", "publish = [\"client_event\"]")
    );
    let file = file(&text);
    let identity = with_token(&file, "secret-token").expect("it is known");
    assert_eq!(&**identity.principal(), "orders");
    assert_eq!(identity.valid_until(), None);
    let client_event = EventKinds {
        client_event: true,
        session_invalidation: false,
    };
    assert_eq!(identity.may_publish(client_event), Ok(()));
    assert_eq!(
        identity.may_publish(EventKinds::ALL),
        Err(AccessError::PublishNotGranted {
            principal: "orders".to_owned(),
            kind: "session_invalidation",
        })
    );
    assert!(identity.may_subscribe("a").is_err());

    let certificate = certificate(&["spiffe://galaxy/gateway/a"], &[]);
    let both = |field: &str| {
        let credentials = Credentials::of(peer()).certificate(Some(&certificate));
        file.authenticate(&credentials.authorization(Some(field.as_bytes())))
    };
    let identity = both("bearer secret-token").expect("both are good");
    assert_eq!(&**identity.principal(), "orders");
    assert_eq!(both("Bearer other").map(drop), Err(AccessError::Unknown));
    assert!(matches!(both("Basic a"), Err(AccessError::Malformed(_))));
}

#[test]
fn a_token_may_be_replaced_by_the_next_without_a_gap() {
    let (old, new) = (hash("old"), hash("new").to_uppercase());
    let text = format!("[[principal]]\nname = \"p\"\ntoken_sha256 = [\"{old}\", \"{new}\"]\n");
    let file = file(&text);
    for token in ["old", "new"] {
        assert!(with_token(&file, token).is_ok(), "{token}");
    }
    assert_eq!(
        with_token(&file, "other").map(drop),
        Err(AccessError::Unknown)
    );
}

#[test]
fn a_unix_peer_is_known_by_its_user_id() {
    let file = file("[[principal]]\nname = \"p\"\nunix_uid = 1000\nadmin = \"write\"\n");
    let shown = |uid| file.authenticate(&Credentials::of(Peer::Unix { uid }));
    let identity = shown(Some(1000)).expect("it is known");
    assert_eq!(identity.admin_role(), AdminRole::Write);
    assert_eq!(shown(Some(1001)).map(drop), Err(AccessError::Unknown));
    assert_eq!(shown(None).map(drop), Err(AccessError::NoCredential));
    for peer in [peer(), Peer::Unknown] {
        let nothing = file.authenticate(&Credentials::of(peer)).map(drop);
        assert_eq!(nothing, Err(AccessError::NoCredential));
    }
}

#[test]
fn failures_are_rationed_and_good_credentials_pass_all_the_same() {
    let file = file(&orders("secret-token", ""));
    let mut refused = Vec::new();
    for _ in 0..1000 {
        refused.push(with_token(&file, "guess").expect_err("it is wrong"));
        assert!(with_token(&file, "secret-token").is_ok());
    }
    assert_eq!(refused[0], AccessError::Unknown);
    let rationed = |error: &&AccessError| matches!(error, AccessError::TooManyFailures { .. });
    assert!(refused.iter().filter(rationed).count() > 900);
    let elsewhere = Peer::Tcp(SocketAddr::from(([192, 0, 2, 2], 1)));
    let credentials = Credentials::of(elsewhere).authorization(Some(b"Bearer guess"));
    assert_eq!(
        file.authenticate(&credentials).map(drop),
        Err(AccessError::Unknown)
    );
}

#[test]
fn limits_hold_for_each_name_of_a_credential() {
    let file = file(GATEWAYS);
    let first = certificate(&["spiffe://galaxy/gateway/a"], &[]);
    let other = certificate(&["spiffe://galaxy/gateway/b"], &[]);
    let open = |certificate| {
        let identity = with_certificate(&file, certificate).expect("it is known");
        assert_eq!(identity.limited_to(), Limits::default().max_streams(2));
        identity.open_stream()
    };
    let held = [
        open(&first).expect("the first"),
        open(&first).expect("the second"),
    ];
    let refused = open(&first).expect_err("it has two");
    assert!(
        matches!(refused, AccessError::TooManyStreams { limit: 2, .. }),
        "{refused}"
    );
    assert!(open(&other).is_ok());
    drop(held);
    assert!(open(&first).is_ok());
}

#[test]
fn every_key_is_read() {
    let text = orders(
        "t",
        "subscribe = [\"*\"]\npublish = [\"client_event\", \"session_invalidation\"]\n\
         admin = \"read\"\nmax_streams = 4\nevents_per_second = 50_000\n\
         bytes_per_second = \"64MiB\"",
    );
    let identity = with_token(&file(&text), "t").expect("it is known");
    assert_eq!(identity.publishes(), EventKinds::ALL);
    assert_eq!(identity.admin_role(), AdminRole::Read);
    let limits = Limits::default().max_streams(4).events_per_second(50_000);
    assert_eq!(identity.limited_to(), limits.bytes_per_second(64 << 20));
    assert_eq!(identity.may_subscribe("any"), Ok(()));
    let number = orders("t", "bytes_per_second = 0x10");
    let identity = with_token(&file(&number), "t").expect("it is known");
    assert_eq!(
        identity.limited_to(),
        Limits::default().bytes_per_second(16)
    );
}

/// What is said about a file that is refused.
fn why(text: &str) -> String {
    let why = parse(text).expect_err(text).to_string();
    assert!(!why.contains('\n'), "{why}");
    why
}

#[test]
fn errors_name_the_line_the_principal_and_the_key() {
    let good = format!("# A comment.\n{}", orders("t", ""));
    let hash = hash("t");
    for (text, error) in [
        (
            "",
            "1: it has no [[principal]], so nobody could do anything",
        ),
        ("[[principal]]\n", "1: principal 1: name is missing"),
        (
            "[[principal]]\nname = \"\"\n",
            "2: principal 1: name: it is empty",
        ),
        (
            "[[principal]]\nname = 1\n",
            "2: principal 1: name: it must be a string",
        ),
        ("principal = 1\n", "1: principal: write it as [[principal]]"),
        (
            "principal = [1]\n",
            "1: principal 1: write it as [[principal]]",
        ),
        ("jwt = 1\n", "1: [jwt]: write it as [jwt]"),
        ("\n[jwt]\nkeys = \"k\"\n", "2: [jwt]: issuer is missing"),
        ("[jtw]\n", "1: unknown key `jtw`: did you mean `jwt`?"),
        (
            "[jwt]\nkey = 1\n",
            "2: [jwt]: unknown key `key`: did you mean `keys`?",
        ),
        (
            "zzzzzzzz = 1\n",
            "1: unknown key `zzzzzzzz`: known are jwt, principal",
        ),
        (
            &format!("{good}subscrib = []\n"),
            "5: principal \"orders\": unknown key `subscrib`: did you mean `subscribe`?",
        ),
        (
            &format!("{good}{good}"),
            "7: principal \"orders\": name: the principal at line 3 has the same one",
        ),
        (
            &format!("{good}unix_uid = 1\n"),
            "2: principal \"orders\": it has 2 credentials (token_sha256, unix_uid), and must have \
             exactly one",
        ),
        (
            "[[principal]]\nname = \"a\"\n",
            "1: principal \"a\": it has no credential: one of certificate, token_sha256, \
             jwt_subject, unix_uid",
        ),
        (
            "[[principal]]\nname = \"a\"\njwt_subject = \"x\"\n",
            "3: principal \"a\": jwt_subject: it needs a [jwt] section, which names the keys",
        ),
        (
            "[[principal]]\nname = \"a\"\ntoken_sha256 = \"my-secret-token\"\n",
            "3: principal \"a\": token_sha256: it must be the SHA-256 of the token, 64 hexadecimal \
             digits; this has 15 characters",
        ),
        (
            &format!("[[principal]]\nname = \"a\"\ntoken_sha256 = [\"{hash}\",\n\"{hash}\"]\n"),
            "4: principal \"a\": token_sha256: it is in the array twice",
        ),
        (
            "[[principal]]\nname = \"a\"\ntoken_sha256 = []\n",
            "1: principal \"a\": token_sha256: the array is empty",
        ),
        (
            "[[principal]]\nname = \"a\"\nunix_uid = -1\n",
            "3: principal \"a\": unix_uid: it must be a user id, a whole number",
        ),
        (
            "[[principal]]\nname = \"a\"\ncertificate = \"spiffe://x/*\"\n",
            "3: principal \"a\": certificate: * is not allowed here: use a placeholder, such as \
             {gateway}",
        ),
        (
            &format!("{good}subscribe = [\n  \"a\",\n  \"{{gateway}}\",\n]\n"),
            "7: principal \"orders\": subscribe: {gateway} is not in the principal's credential",
        ),
        (
            &format!("{good}subscribe = \"a\"\n"),
            "5: principal \"orders\": subscribe: it must be an array of strings",
        ),
        (
            &format!("{good}publish = [\"client_events\"]\n"),
            "5: principal \"orders\": publish: it may have \"client_event\" and \
             \"session_invalidation\"",
        ),
        (
            &format!("{good}admin = \"root\"\n"),
            "5: principal \"orders\": admin: it must be \"none\", \"read\" or \"write\"",
        ),
        (
            &format!("{good}max_streams = 0\n"),
            "5: principal \"orders\": max_streams: it must be a whole number from 1 to 4294967295",
        ),
        (
            &format!("{good}events_per_second = 1.5\n"),
            "5: principal \"orders\": events_per_second: it must be a whole number from 1 to \
             9223372036854775807",
        ),
        (
            &format!("{good}bytes_per_second = \"fast\"\n"),
            "5: principal \"orders\": bytes_per_second: it must be a size of at least 1 byte, such \
             as 65536, \"512KiB\" or \"64MiB\"",
        ),
    ] {
        assert_eq!(why(text), format!("access file:{error}"), "{text}");
    }
    let broken = why("[[principal]]\nname = \"a\nsecret = 1\n");
    assert!(broken.starts_with("access file:2: "), "{broken}");
    assert!(!broken.contains("secret"), "{broken}");
    let latin = AccessFile::parse(b"# a\n# \xe4\n", None).expect_err("it is not UTF-8");
    assert_eq!(latin.to_string(), "access file:2: it is not UTF-8");
}

#[test]
fn credentials_of_two_principals_are_refused_when_the_file_is_read() {
    let principal =
        |name: &str, credential: &str| format!("[[principal]]\nname = \"{name}\"\n{credential}\n");
    let hash = hash("t");
    let token = format!("token_sha256 = \"{hash}\"");
    let upper = format!("token_sha256 = [\"{}\"]", hash.to_uppercase());
    let uri = |text: &str| format!("certificate = \"spiffe://g/{text}\"");
    let dns = |text: &str| format!("certificate = \"dns:{text}\"");
    for (one, other, key) in [
        (token, upper, "token_sha256"),
        (
            "unix_uid = 7".to_owned(),
            "unix_uid = 0x7".to_owned(),
            "unix_uid",
        ),
        (uri("a"), uri("a"), "certificate"),
        (uri("{a}"), uri("b"), "certificate"),
        (uri("b"), uri("{a}"), "certificate"),
        (uri("{a}/x"), uri("y/{b}"), "certificate"),
        (dns("A.b"), dns("a.B"), "certificate"),
        (dns("{a}.b"), dns("x-{a}.b"), "certificate"),
    ] {
        let text = principal("one", &one) + &principal("other", &other);
        assert_eq!(
            why(&text),
            format!(
                "access file:6: principal \"other\": {key}: some credential would be of principal \
                 \"one\" too"
            )
        );
    }
    let apart = principal("one", &uri("a/{x}")) + &principal("other", &uri("b/{x}"));
    assert_eq!(file(&apart).principals(), 2);
}

#[test]
fn nothing_secret_is_in_debug_output() {
    let file = file(&orders("secret-token", ""));
    let identity = with_token(&file, "secret-token").expect("it is known");
    let text = format!("{file:?} {identity:?}");
    assert!(!text.contains("secret-token"), "{text}");
    assert!(text.contains("TokenHash(..)"), "{text}");
    assert!(!format!("{file:?}").contains(&hash("secret-token")[..8]));
}

/// A folder with an access file.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(text: &str) -> Self {
        let folder = Folder(tempfile::tempdir().expect("a folder"));
        folder.write("access.toml", text);
        folder
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("access.toml")
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.0.path().join(name), text).expect("it is written");
    }

    fn load(&self) -> AccessFile {
        AccessFile::load(self.path()).unwrap_or_else(|error| panic!("{error}"))
    }
}

#[test]
fn a_reload_takes_up_what_has_changed_and_keeps_what_was_good() {
    let folder = Folder::new(&orders("old", ""));
    let file = folder.load();
    let revision = file.revision();
    assert_eq!(file.reload(), Ok(false));
    assert_eq!(file.revision(), revision);

    folder.write("access.toml", orders("new", ""));
    assert_eq!(file.reload(), Ok(true));
    assert_ne!(file.revision(), revision);
    assert!(with_token(&file, "new").is_ok());
    assert!(with_token(&file, "old").is_err());

    let revision = file.revision();
    for faulty in ["", "[[principal]]", "\0", "[[principal]]\nname = \"a\"\n"] {
        folder.write("access.toml", faulty);
        assert!(file.reload().is_err(), "{faulty}");
    }
    folder.write("access.toml", vec![b'#'; (MAX_FILE_BYTES + 1) as usize]);
    let error = file.reload().expect_err("it is too large").to_string();
    assert!(
        error.ends_with("access.toml: it is larger than 4194304 bytes"),
        "{error}"
    );
    fs::remove_file(folder.path()).expect("it was there");
    assert!(file.reload().is_err());
    fs::create_dir(folder.path()).expect("nothing is there");
    let error = file.reload().expect_err("it is a folder").to_string();
    assert!(
        error.ends_with("access.toml: it is not a regular file"),
        "{error}"
    );
    assert_eq!(file.revision(), revision);
    assert!(with_token(&file, "new").is_ok());
}

#[test]
fn a_change_is_taken_up_by_itself_once_it_is_seen_twice() {
    let folder = Folder::new(&orders("old", ""));
    let file = folder.load();
    for _ in 0..3 {
        assert_eq!(file.reload_when_settled(), Ok(false));
    }
    // Half of it is written, and then the rest: two principals are fewer for a moment.
    folder.write("access.toml", orders("new", ""));
    assert_eq!(file.reload_when_settled(), Ok(false));
    folder.write("access.toml", format!("{}{GATEWAYS}", orders("new", "")));
    assert_eq!(file.reload_when_settled(), Ok(false));
    assert_eq!(file.principals(), 1);
    assert!(with_token(&file, "old").is_ok());
    assert_eq!(file.reload_when_settled(), Ok(true));
    assert_eq!(file.principals(), 2);
    assert_eq!(file.reload_when_settled(), Ok(false));

    folder.write("access.toml", "faulty");
    assert_eq!(file.reload_when_settled(), Ok(false));
    let error = file.reload_when_settled().expect_err("it is faulty");
    assert!(error.to_string().contains("access.toml:1: "), "{error}");
    // And so it is for as long as it is there.
    assert!(file.reload_when_settled().is_err());
    fs::remove_file(folder.path()).expect("it was there");
    assert_eq!(file.reload_when_settled(), Ok(false));
    assert!(file.reload_when_settled().is_err());
    assert_eq!(file.principals(), 2);
}

#[test]
fn a_file_that_is_put_back_after_it_was_asked_for_counts_as_a_change() {
    let folder = Folder::new(&orders("old", ""));
    let file = folder.load();
    for _ in 0..3 {
        assert_eq!(file.reload_when_settled(), Ok(false));
    }
    folder.write("access.toml", orders("by mistake", ""));
    assert_eq!(file.reload(), Ok(true));
    folder.write("access.toml", orders("old", ""));
    assert_eq!(file.reload_when_settled(), Ok(false));
    assert_eq!(file.reload_when_settled(), Ok(true));
    assert!(with_token(&file, "old").is_ok());
}

#[test]
fn an_open_call_is_what_the_file_says_now() {
    let folder = Folder::new(&orders(
        "t",
        "publish = [\"client_event\"]\nmax_streams = 1",
    ));
    let file = folder.load();
    let identity = with_token(&file, "t").expect("it is known");
    let permit = identity.open_stream().expect("the first");
    let client_event = EventKinds {
        client_event: true,
        session_invalidation: false,
    };

    folder.write("access.toml", orders("t", "max_streams = 2"));
    assert_eq!(file.reload(), Ok(true));
    let now = file.recheck(&identity).expect("it is still known");
    assert!(now.may_publish(client_event).is_err());
    // What is open stays counted.
    let second = now.open_stream().expect("the second");
    assert!(now.open_stream().is_err());
    drop(permit);
    let third = now.open_stream().expect("a place is free");
    drop((second, third));

    let revoked = Err(AccessError::Revoked {
        principal: "orders".to_owned(),
    });
    for text in [
        orders("other", ""),
        orders("t", "").replace("orders", "renamed"),
        GATEWAYS.to_owned(),
    ] {
        folder.write("access.toml", text);
        assert_eq!(file.reload(), Ok(true));
        assert_eq!(file.recheck(&identity).map(drop), revoked);
    }
    let foreign = Identity::new("gateways");
    assert!(file.recheck(&foreign).is_err());
    assert!(file.recheck(&Identity::anyone()).is_err());
}

#[test]
fn a_certificate_is_rechecked_and_ends() {
    let folder = Folder::new(GATEWAYS);
    let file = folder.load();
    let shown = certificate(&["spiffe://galaxy/gateway/a"], &[]);
    let identity = with_certificate(&file, &shown).expect("it is known");
    folder.write("access.toml", GATEWAYS.replace("\"{gateway}\",", ""));
    assert_eq!(file.reload(), Ok(true));
    let now = file.recheck(&identity).expect("it is still known");
    assert!(now.may_subscribe("a").is_err());
    assert!(now.may_subscribe("a-spare-1").is_ok());
    assert_eq!(now.valid_until(), identity.valid_until());
    let ended = identity.clone().expires_at(SystemTime::now());
    assert_eq!(file.recheck(&ended).map(drop), Err(AccessError::Expired));
    folder.write("access.toml", GATEWAYS.replace("galaxy", "other"));
    assert_eq!(file.reload(), Ok(true));
    assert!(matches!(
        file.recheck(&identity),
        Err(AccessError::Revoked { .. })
    ));
}

#[cfg(test)]
mod signed {
    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;

    const JWT: &str = r#"
[jwt]
keys = "jwks.json"
issuer = "https://auth.example"
audience = "galaxy-push"

[[principal]]
name = "services"
jwt_subject = "svc-*"
publish = ["client_event"]

[[principal]]
name = "gateways"
jwt_subject = "gateway:{gateway}"
subscribe = ["{gateway}"]
"#;

    struct Issuer {
        key: EncodingKey,
        jwks: Value,
    }

    #[test]
    fn the_documented_example_is_a_good_file() {
        let text = include_str!("../../../docs/security.md");
        let (_, text) = text
            .split_once("```toml not-run: a test loads it\n")
            .expect("an example");
        let (text, _) = text.split_once("```").expect("its end");
        let issuer = issuer();
        let keys = issuer.jwks.to_string();
        let file = AccessFile::parse(text.as_bytes(), Some(keys.as_bytes()));
        let file = file.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(file.principals(), 4);
        assert!(with_token(&file, &issuer.token("svc-billing")).is_ok());
        assert!(with_token(&file, "example").is_ok());
    }

    fn issuer() -> Issuer {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a JWK");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        jwk["kid"] = json!("k");
        let jwks = json!({ "keys": [jwk] });
        Issuer { key, jwks }
    }

    impl Issuer {
        fn token(&self, subject: &str) -> String {
            let mut header = Header::new(Algorithm::ES256);
            header.kid = Some("k".to_owned());
            let claims = json!({
                "iss": "https://auth.example", "aud": "galaxy-push", "sub": subject,
                "exp": 4_102_444_800u64,
            });
            encode(&header, &claims, &self.key).expect("a token")
        }
    }

    fn folder(issuer: &Issuer) -> Folder {
        let folder = Folder::new(JWT);
        folder.write("jwks.json", issuer.jwks.to_string());
        folder
    }

    #[test]
    fn a_signed_token_is_known_by_its_subject() {
        let issuer = issuer();
        let file = folder(&issuer).load();
        let identity = with_token(&file, &issuer.token("svc-orders")).expect("it is known");
        assert_eq!(&**identity.principal(), "services");
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
        assert_eq!(identity.valid_until(), Some(end));
        let identity = with_token(&file, &issuer.token("gateway:gw-1")).expect("it is known");
        assert_eq!(identity.may_subscribe("gw-1"), Ok(()));
        assert!(identity.may_subscribe("gw-2").is_err());
        for subject in ["orders", "gateway:*", "gateway:a:b"] {
            let unknown = with_token(&file, &issuer.token(subject)).map(drop);
            assert_eq!(unknown, Err(AccessError::Unknown), "{subject}");
        }
    }

    #[test]
    fn a_token_holds_while_its_key_issuer_and_audience_do() {
        let (issuer, other) = (issuer(), issuer());
        let folder = folder(&issuer);
        let file = folder.load();
        let identity = with_token(&file, &issuer.token("svc-orders")).expect("it is known");
        let revoked = Err(AccessError::Revoked {
            principal: "services".to_owned(),
        });

        // Another key under the same id.
        folder.write("jwks.json", other.jwks.to_string());
        assert_eq!(file.reload(), Ok(true));
        assert_eq!(file.recheck(&identity).map(drop), revoked);
        folder.write("jwks.json", issuer.jwks.to_string());
        assert_eq!(file.reload(), Ok(true));
        let now = file.recheck(&identity).expect("the key is there again");
        assert_eq!(now.valid_until(), identity.valid_until());

        for changed in [
            JWT.replace("auth.example", "other.example"),
            JWT.replace("\"galaxy-push\"", "\"other\""),
            JWT.replace("svc-*", "service-*"),
        ] {
            folder.write("access.toml", changed);
            assert_eq!(file.reload(), Ok(true));
            assert_eq!(file.recheck(&identity).map(drop), revoked);
        }
    }

    #[test]
    fn a_faulty_key_set_is_named_and_the_old_one_stays() {
        let issuer = issuer();
        let folder = folder(&issuer);
        let file = folder.load();
        folder.write("jwks.json", "{\"keys\": [}");
        let error = file.reload().expect_err("it is faulty").to_string();
        assert!(
            error.contains("jwks.json: it is not JSON at line 1"),
            "{error}"
        );
        fs::remove_file(folder.0.path().join("jwks.json")).expect("it was there");
        let error = file.reload().expect_err("it is away").to_string();
        assert!(error.contains("access.toml:3: [jwt]: keys: "), "{error}");
        assert!(error.contains("jwks.json"), "{error}");
        assert!(with_token(&file, &issuer.token("svc-a")).is_ok());
        assert!(AccessFile::load(folder.path()).is_err());
    }

    #[test]
    fn overlapping_subjects_are_refused_when_the_file_is_read() {
        let text = JWT
            .replace("gateway:{gateway}", "*-x")
            .replace("\"{gateway}\"", "");
        let keys = issuer().jwks.to_string();
        let error = AccessFile::parse(text.as_bytes(), Some(keys.as_bytes()));
        assert_eq!(
            error.expect_err("svc-x").to_string(),
            "access file:14: principal \"gateways\": jwt_subject: some credential would be of \
             principal \"services\" too"
        );
    }
}
