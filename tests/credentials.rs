//! Credentials over real sockets, as a deployment has them: TLS, an access file, certificates
//! and signed tokens; and the command line with all of it.

#![cfg(feature = "cli")]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use galaxy_push::contract::publisher::PublishRequest;
use galaxy_push::contract::publisher::publisher_client::PublisherClient;
use galaxy_push::contract::push::push_client::PushClient;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use rustls::ClientConfig;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::certificates::{Ca, Files, Identity, channel, client};
use support::process::{self, Process, small, text};
use support::tokens::{publish_as, subscribe_as};
use support::{Subscription, event, publish, reason, soon, subscribe};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

const ISSUER: &str = "https://auth.example";
const AUDIENCE: &str = "galaxy-push";
const TOKEN: &str = "a-token-of-the-orders-service";
/// Of a principal that has few streams and may publish little.
const SLOW_TOKEN: &str = "a-token-with-a-small-quota";

fn gateway_uri(id: &str) -> String {
    format!("spiffe://galaxy/gateway/{id}")
}

/// What signs tokens.
struct Signer {
    key: EncodingKey,
    public_der: Vec<u8>,
}

impl Signer {
    fn new() -> (Self, Value) {
        let pair = KeyPair::generate().expect("a key");
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a JWK");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        jwk["kid"] = json!("one");
        let public_der = pair.public_key_raw().to_vec();
        (Signer { key, public_der }, jwk)
    }

    fn sign(&self, kid: &str, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(kid.to_owned());
        encode(&header, claims, &self.key).expect("signed")
    }
}

/// A token as an access file has it.
fn hash(token: &str) -> String {
    let digest = Sha256::digest(token);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "svc-billing", "exp": now() + 600 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

/// `serve` with TLS, clients' certificates where they have one, and an access file.
struct Deployment {
    server: process::Server,
    ca: Ca,
    clients: Ca,
    files: Files,
    signer: Signer,
}

impl Deployment {
    /// `asks`: every client has to show a certificate.
    fn start(asks: bool) -> Self {
        let (ca, clients) = (Ca::new("server CA"), Ca::new("client CA"));
        let files = Files::new(&ca.server(), Some(&clients));
        let (signer, jwk) = Signer::new();
        let keys = json!({ "keys": [jwk] }).to_string();
        fs::write(files.path("jwks.json"), keys).expect("written");
        let [hash, slow_hash] = [TOKEN, SLOW_TOKEN].map(hash);
        let access = format!(
            r#"
            [jwt]
            keys = "jwks.json"
            issuer = "{ISSUER}"
            audience = "{AUDIENCE}"

            [[principal]]
            name = "gateways"
            certificate = "spiffe://galaxy/gateway/{{gateway}}"
            subscribe = ["{{gateway}}"]

            [[principal]]
            name = "orders"
            token_sha256 = "{hash}"
            publish = ["client_event"]

            [[principal]]
            name = "slow"
            token_sha256 = "{slow_hash}"
            publish = ["client_event"]
            max_streams = 2
            events_per_second = 1

            [[principal]]
            name = "services"
            jwt_subject = "svc-*"
            subscribe = ["shared-*"]
            max_streams = 1
            publish = ["client_event"]
            "#
        );
        fs::write(files.path("access.toml"), access).expect("written");
        let (certificate, key) = (files.certificate(), files.key());
        let (client_ca, access) = (files.client_ca(), files.path("access.toml"));
        let mut flags = vec![
            "--tls-cert",
            text(&certificate),
            "--tls-key",
            text(&key),
            "--access",
            text(&access),
            "--log",
            "trace",
        ];
        if asks {
            flags.extend(["--tls-client-ca", text(&client_ca)]);
        }
        Deployment {
            server: process::Server::start(&flags),
            ca,
            clients,
            files,
            signer,
        }
    }

    fn config(&self, identity: Option<&Identity>) -> ClientConfig {
        client(&self.ca, identity)
    }

    fn gateways(&self) -> SocketAddr {
        self.server.gateways.parse().expect("TCP")
    }

    fn publishers(&self) -> SocketAddr {
        self.server.publishers.parse().expect("TCP")
    }

    async fn subscribe(&self, identity: &Identity, id: &str) -> Result<Subscription, Status> {
        let channel = channel(self.gateways(), &self.config(Some(identity))).await;
        subscribe(&mut PushClient::new(channel), id, "").await
    }

    /// Publishes a client event with this bearer token.
    async fn publish(&self, token: &str) -> Result<String, Status> {
        let channel = channel(self.publishers(), &self.config(None)).await;
        let mut client = PublisherClient::new(channel);
        let published = publish_as(&mut client, token, vec![event(1)]).await;
        published.map(|response| response.first_cursor)
    }
}

#[tokio::test]
async fn a_certificate_of_one_gateway_does_not_touch_another_ones_stream() {
    let it = Deployment::start(true);
    let [one, two] = ["one", "two"].map(|id| it.clients.client(&[&gateway_uri(id)]));
    let mut genuine = it.subscribe(&one, "one").await.expect("subscribed");
    let refused = it.subscribe(&two, "one").await.expect_err("another's id");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    assert_eq!(reason(&refused).0, "SUBSCRIBE_NOT_GRANTED");

    // A name too many, and one that is no gateway's.
    let both = it
        .clients
        .client(&[&gateway_uri("one"), &gateway_uri("two")]);
    let refused = it.subscribe(&both, "one").await.expect_err("two names");
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    let other = it.clients.client(&["spiffe://galaxy/publisher/one"]);
    let refused = it.subscribe(&other, "one").await.expect_err("no gateway");
    assert_eq!(reason(&refused).0, "CREDENTIAL_UNKNOWN");

    // A gateway may not publish, whatever it shows for that.
    let channel = channel(it.publishers(), &it.config(Some(&one))).await;
    let mut publisher = PublisherClient::new(channel);
    let refused = publish(&mut publisher, vec![event(1)])
        .await
        .expect_err("refused");
    assert_eq!(reason(&refused).0, "PUBLISH_NOT_GRANTED");
    let sent = publish_as(&mut publisher, TOKEN, vec![event(1)]).await;
    let cursor = sent.expect("published").first_cursor;
    assert_eq!(genuine.next().await.cursor, cursor, "its first event");
}

#[tokio::test]
async fn a_signed_token_counts_only_as_it_was_meant() {
    let it = Deployment::start(false);
    let sign = |claims: Value| it.signer.sign("one", &claims);
    assert!(it.publish(&sign(claims())).await.is_ok());

    let head = |head: Value| base64(head.to_string().as_bytes());
    let body = base64(claims().to_string().as_bytes());
    let unsigned = format!("{}.{body}.", head(json!({ "alg": "none" })));
    // The public key, which everybody has, as if it were a secret.
    let secret = EncodingKey::from_secret(&it.signer.public_der).expect("a secret");
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("one".to_owned());
    let symmetric = encode(&header, &claims(), &secret).expect("signed");
    let (stranger, _) = Signer::new();
    let mut without_end = claims();
    without_end
        .as_object_mut()
        .expect("an object")
        .remove("exp");
    for (what, token) in [
        ("unsigned", unsigned),
        ("HMAC", symmetric),
        ("another's signature", stranger.sign("one", &claims())),
        ("an unknown key", it.signer.sign("two", &claims())),
        ("another audience", sign(with("aud", json!("others")))),
        (
            "another issuer",
            sign(with("iss", json!("https://evil.example"))),
        ),
        ("expired", sign(with("exp", json!(now() - 60)))),
        ("without an end", sign(without_end)),
        ("not yet", sign(with("nbf", json!(now() + 600)))),
        ("another subject", sign(with("sub", json!("user-7")))),
    ] {
        let refused = it.publish(&token).await.expect_err(what);
        assert_eq!(refused.code(), Code::Unauthenticated, "{what}: {refused:?}");
        assert!(!refused.message().contains(&token), "{what}");
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[tokio::test]
async fn a_publish_stream_ends_when_its_signed_token_does() {
    let it = Deployment::start(false);
    let token = it.signer.sign("one", &with("exp", json!(now() + 6)));
    let channel = channel(it.publishers(), &it.config(None)).await;
    let mut publisher = PublisherClient::new(channel);
    let (requests, outgoing) = tokio::sync::mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    let bearer = format!("Bearer {token}").parse().expect("ASCII");
    request.metadata_mut().insert("authorization", bearer);
    let mut responses = soon(publisher.publish_stream(request))
        .await
        .expect("open")
        .into_inner();
    let batch = PublishRequest {
        events: vec![event(1)],
    };
    requests.send(batch).await.expect("sent");
    assert!(
        soon(responses.message())
            .await
            .expect("a response")
            .is_some()
    );
    let ended = soon(responses.message()).await.expect_err("its end");
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
    assert_eq!(reason(&ended).0, "CREDENTIAL_EXPIRED");
}

#[tokio::test]
async fn a_quota_is_not_escaped_by_more_connections_streams_or_batches() {
    let it = Deployment::start(false);
    let config = it.config(None);
    // Each on a connection of its own.
    let mut open = Vec::new();
    let mut refused = Vec::new();
    for _ in 0..4 {
        let mut publisher = PublisherClient::new(channel(it.publishers(), &config).await);
        let (requests, outgoing) = tokio::sync::mpsc::channel::<PublishRequest>(1);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        let bearer = format!("Bearer {SLOW_TOKEN}").parse().expect("ASCII");
        request.metadata_mut().insert("authorization", bearer);
        match soon(publisher.publish_stream(request)).await {
            Ok(responses) => open.push((publisher, requests, responses)),
            Err(status) => refused.push(reason(&status).0),
        }
    }
    assert_eq!(open.len(), 2);
    assert_eq!(refused, ["TOO_MANY_STREAMS"; 2]);
    drop(open);

    // A second for each connection would be a long time.
    let mut reasons = Vec::new();
    for _ in 0..8 {
        if let Err(status) = it.publish(SLOW_TOKEN).await {
            reasons.push(reason(&status).0);
        }
    }
    assert!(
        reasons.iter().any(|of| of == "RATE_EXCEEDED"),
        "{reasons:?}"
    );
    // One large batch is no way round it: it takes the seconds before and after it.
    let mut publisher = PublisherClient::new(channel(it.publishers(), &config).await);
    let batch = || (0..1000).map(event).collect();
    let mut outcomes = Vec::new();
    for _ in 0..2 {
        outcomes.push(
            publish_as(&mut publisher, SLOW_TOKEN, batch())
                .await
                .is_ok(),
        );
    }
    assert_ne!(outcomes, [true, true]);
    // Others are not touched.
    it.publish(TOKEN).await.expect("published");
}

#[tokio::test]
async fn a_takeover_by_another_name_of_a_principal_counts_for_that_name() {
    let it = Deployment::start(false);
    let subscribe = async |subject: &str, id: &str| {
        let token = it.signer.sign("one", &with("sub", json!(subject)));
        let channel = channel(it.gateways(), &it.config(None)).await;
        subscribe_as(&mut PushClient::new(channel), &token, id, "").await
    };
    let first = subscribe("svc-a", "shared-1").await.expect("subscribed");
    let taken = subscribe("svc-b", "shared-1").await.expect("a takeover");
    let (_, status) = first.finish().await;
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    // It has one now, and the first has none.
    let refused = subscribe("svc-b", "shared-2").await.expect_err("a second");
    assert_eq!(reason(&refused).0, "TOO_MANY_STREAMS");
    let again = subscribe("svc-a", "shared-3").await.expect("its only one");
    drop((taken, again));
}

#[tokio::test]
async fn guessing_tokens_is_rationed_and_good_ones_pass_all_the_same() {
    let it = Deployment::start(false);
    let mut reasons = Vec::new();
    for number in 0..40 {
        let refused = it
            .publish(&format!("guess-{number}"))
            .await
            .expect_err("wrong");
        reasons.push(reason(&refused).0);
    }
    assert_eq!(reasons[0], "CREDENTIAL_UNKNOWN");
    let rationed = |reason: &&String| *reason == "TOO_MANY_FAILED_CREDENTIALS";
    assert!(reasons.iter().filter(rationed).count() > 5, "{reasons:?}");
    it.publish(TOKEN).await.expect("published");
}

#[tokio::test]
async fn the_command_line_publishes_and_tails_through_all_of_it_and_shows_no_secret() {
    let mut it = Deployment::start(true);
    let gateway = it.clients.client(&[&gateway_uri("gateway-1")]);
    let write = |name: &str, content: &str| {
        let path = it.files.path(name);
        fs::write(&path, content).expect("written");
        path
    };
    let ca = write("ca.pem", &it.ca.pem);
    let certificate = write("gateway.pem", &gateway.certificate);
    let key = write("gateway.key", &gateway.key);
    let token = write("token", TOKEN);
    let flags = [
        "--tls-ca",
        text(&ca),
        "--tls-cert",
        text(&certificate),
        "--tls-key",
        text(&key),
        "--tls-server-name",
        "localhost",
    ];
    let mut tail = Process::start(
        &[
            &[
                "tail",
                "--connect",
                &it.server.gateways,
                "--id",
                "gateway-1",
            ],
            &flags[..],
        ]
        .concat(),
    );
    tail.err.find("subscribed as ");
    let connect = ["publish", "-", "--connect", &it.server.publishers];
    let with_token = [&connect[..], &flags[..], &["--token-file", text(&token)]].concat();
    let mut publisher = process::galaxy_push(&with_token);
    let mut publisher = Process::spawn({
        publisher.stdin(std::process::Stdio::piped());
        publisher
    });
    // While it waits for a line: what everybody on the machine can read of it.
    let shown = |id: u32| {
        let arguments = fs::read(format!("/proc/{id}/cmdline")).expect("it runs");
        String::from_utf8_lossy(&arguments).into_owned()
    };
    for id in [it.server.process.id(), tail.id(), publisher.id()] {
        assert!(!shown(id).contains(TOKEN));
    }
    let mut stdin = publisher.stdin();
    std::io::Write::write_all(&mut stdin, small(7).as_bytes()).expect("written");
    drop(stdin);
    assert!(publisher.end().success());
    let line = tail.out.next().expect("an event");
    assert!(line.contains("\"payload\":7"), "{line}");

    // Without the token the certificate is a gateway's, which publishes nothing.
    let refused = process::run_with_input(&[&connect[..], &flags[..]].concat(), &small(8));
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("PUBLISH_NOT_GRANTED"), "{error}");

    tail.signal(rustix::process::Signal::TERM);
    tail.end();
    it.server.process.signal(rustix::process::Signal::TERM);
    it.server.process.end();
    let logs = [
        it.server.process.err.rest(),
        tail.err.rest(),
        publisher.err.rest(),
    ]
    .concat();
    assert!(logs.len() > 10);
    let key_line = gateway.key.lines().nth(1).expect("base64");
    for line in logs {
        assert!(!line.contains(TOKEN) && !line.contains(key_line), "{line}");
    }
}
