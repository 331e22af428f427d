//! Clients over TLS and with tokens, against rustls on the other side: what works, and what is
//! said where it does not.

#![cfg(feature = "cli")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::process::Output;
use std::sync::{Arc, Mutex};

use galaxy_push::client::{
    ConnectError, Connector, Disconnect, Gateway, Item, OnTakeover, status_line,
};
use galaxy_push::config::Address;
use galaxy_push::contract::publisher::publisher_client::PublisherClient;
use galaxy_push::contract::publisher::publisher_server::{Publisher, PublisherServer};
use galaxy_push::contract::publisher::{
    PublishRequest, PublishResponse, WaitEnforcedRequest, WaitEnforcedResponse,
};
use galaxy_push::tls::{ClientTls, HandshakeError, TlsError};
use rustls::SupportedProtocolVersion;
use support::process::{Process, only_line, run, text};
use support::tls::{Authority, Files, Terminator, Terms};
use support::{Harness, event, soon};
use tokio_stream::Stream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

const ONLY_TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
const ONLY_TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const NO_ALPN: &[&[u8]] = &[];
const ONLY_HTTP1: &[&[u8]] = &[b"http/1.1"];

/// Runs `publish` of one event at this address, with these flags before it.
async fn publish(address: SocketAddr, flags: &[&str]) -> Output {
    let address = address.to_string();
    let mut args = vec![
        "publish",
        "--connect",
        &address,
        "--user-id",
        "u",
        "--kind",
        "k",
    ];
    args.extend(flags);
    let args: Vec<String> = args.into_iter().map(ToOwned::to_owned).collect();
    tokio::task::spawn_blocking(move || run(&args.iter().map(String::as_str).collect::<Vec<_>>()))
        .await
        .unwrap()
}

/// Refused with this exit code and one line that contains each of `parts`.
#[track_caller]
fn refused(output: &Output, code: i32, parts: &[&str]) {
    let line = only_line(output);
    assert_eq!(output.status.code(), Some(code), "{line}");
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[track_caller]
fn accepted(output: &Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A server, and TLS before its publishers' listener.
async fn served(terms: &Terms) -> (Harness, Terminator) {
    let server = Harness::start().await;
    let terminator = Terminator::start(terms, server.publisher_addr()).await;
    (server, terminator)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_ca_works_with_both_versions() {
    let authority = Authority::new("right");
    for (versions, key_exchange) in [(ONLY_TLS13, "X25519MLKEM768"), (ONLY_TLS12, "X25519")] {
        let terms = Terms {
            versions,
            ..Terms::new(authority.issue(&["localhost", "127.0.0.1"]))
        };
        let (_server, terminator) = served(&terms).await;
        accepted(&publish(terminator.address, &["--tls-ca", text(&authority.ca())]).await);
        let seen = terminator.seen();
        assert_eq!(seen.len(), 1);
        assert!(seen[0].client_certificate.is_none());
        assert!(seen[0].key_exchange.contains(key_exchange), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_certificate_is_refused_with_what_to_do() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let ca = right.ca();
    let cases: [(Files, &[&str]); 4] = [
        (
            wrong.issue(&["127.0.0.1"]),
            &["signed by no CA", "--tls-ca"],
        ),
        (
            right.issue_expired(&["127.0.0.1"]),
            &["expired", "days ago"],
        ),
        (
            right.issue_with(&["127.0.0.1"], |params| {
                params.not_before = rcgen::date_time_ymd(2200, 1, 1);
                params.not_after = rcgen::date_time_ymd(2200, 2, 1);
            }),
            &["not valid yet", "clock"],
        ),
        (
            right.issue(&["push.example", "10.0.0.1"]),
            &[
                "not for 127.0.0.1, but for push.example, 10.0.0.1",
                "--tls-server-name",
            ],
        ),
    ];
    for (files, parts) in cases {
        let (_server, terminator) = served(&Terms::new(files)).await;
        let output = publish(terminator.address, &["--tls-ca", text(&ca)]).await;
        refused(&output, 1, parts);
        refused(&output, 1, &["cannot connect to 127.0.0.1:"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_expected_name_can_be_set() {
    let authority = Authority::new("right");
    let terms = Terms::new(authority.issue(&["push.example"]));
    let (_server, terminator) = served(&terms).await;
    let ca = authority.ca();
    let flags = ["--tls-ca", text(&ca), "--tls-server-name", "push.example"];
    accepted(&publish(terminator.address, &flags).await);
    assert_eq!(
        terminator.seen()[0].server_name.as_deref(),
        Some("push.example")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_shown_and_its_lack_is_told() {
    let (authority, other) = (Authority::new("right"), Authority::new("other"));
    let client = authority.issue(&["gateway-7.gw.example"]);
    let stranger = other.issue(&["gateway-7.gw.example"]);
    let expired = authority.issue_expired(&["gateway-7.gw.example"]);
    let ca = authority.ca();
    for versions in [ONLY_TLS13, ONLY_TLS12] {
        let terms = Terms {
            client_ca: Some(authority.ca()),
            versions,
            ..Terms::new(authority.issue(&["127.0.0.1"]))
        };
        let (_server, terminator) = served(&terms).await;
        let with = |files: &Files| {
            [
                "--tls-ca",
                text(&ca),
                "--tls-cert",
                text(&files.certificate),
                "--tls-key",
                text(&files.key),
            ]
            .map(ToOwned::to_owned)
        };
        let show = async |files: &Files| {
            let flags = with(files);
            publish(terminator.address, &flags.each_ref().map(String::as_str)).await
        };

        accepted(&show(&client).await);
        let seen = terminator.seen();
        let shown = seen[0].client_certificate.as_ref().unwrap();
        assert_eq!(shown, &support::tls::chain(&client.certificate)[0]);

        let none = publish(terminator.address, &["--tls-ca", text(&ca)]).await;
        refused(&none, 1, &["client certificate", "--tls-cert"]);
        refused(
            &show(&stranger).await,
            1,
            &["refuses the client certificate", "no CA"],
        );
        refused(
            &show(&expired).await,
            1,
            &["refuses the client certificate", "expired"],
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_to_a_plaintext_port_and_back() {
    let authority = Authority::new("right");
    let (server, terminator) = served(&Terms::new(authority.issue(&["127.0.0.1"]))).await;
    let ca = authority.ca();
    let output = publish(server.publisher_addr(), &["--tls-ca", text(&ca)]).await;
    refused(&output, 1, &["speak TLS on this port"]);
    let output = publish(terminator.address, &[]).await;
    refused(&output, 1, &["the server speaks TLS on this port", "--tls"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_http2_is_told_so() {
    let authority = Authority::new("right");
    for alpn in [NO_ALPN, ONLY_HTTP1] {
        let terms = Terms {
            alpn,
            ..Terms::new(authority.issue(&["127.0.0.1"]))
        };
        let (_server, terminator) = served(&terms).await;
        let ca = authority.ca();
        let output = publish(terminator.address, &["--tls-ca", text(&ca)]).await;
        refused(&output, 1, &["does not offer HTTP/2", "ALPN"]);
    }
}

#[test]
fn a_bad_file_is_exit_code_2_and_named() {
    let authority = Authority::new("right");
    let (one, other) = (
        authority.issue(&["a.example"]),
        authority.issue(&["b.example"]),
    );
    let write = |name: &str, text: &str| {
        std::fs::write(authority.file(name), text).unwrap();
        authority.file(name)
    };
    let empty = write("empty", "");
    let torn = {
        let whole = std::fs::read_to_string(&one.certificate).unwrap();
        write("torn", &whole[..whole.len() / 2])
    };
    let encrypted = write(
        "encrypted",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIFHDBOBgkq\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let old_encrypted = write(
        "old-encrypted",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMIIFHDBOBgkq\n-----END RSA PRIVATE KEY-----\n",
    );
    let nonsense = write(
        "nonsense",
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
    );
    let missing = authority.file("missing");
    let cases: [(&[&str], &[&str]); 13] = [
        (&["--tls-ca", text(&missing)], &["cannot read", "missing"]),
        (
            &["--tls-ca", text(&empty)],
            &["holds no certificate", "empty"],
        ),
        (&["--tls-ca", text(&one.key)], &["holds no certificate"]),
        (&["--tls-ca", text(&torn)], &["cut off", "torn"]),
        (
            &["--tls-ca", text(&nonsense)],
            &["certificate 1 of", "nonsense"],
        ),
        (
            &[
                "--tls-cert",
                text(&one.certificate),
                "--tls-key",
                text(&empty),
            ],
            &["holds no private key", "empty"],
        ),
        (
            &[
                "--tls-cert",
                text(&one.certificate),
                "--tls-key",
                text(&encrypted),
            ],
            &["is encrypted", "encrypted"],
        ),
        (
            &[
                "--tls-cert",
                text(&one.certificate),
                "--tls-key",
                text(&old_encrypted),
            ],
            &["is encrypted", "old-encrypted"],
        ),
        (
            &[
                "--tls-cert",
                text(&one.certificate),
                "--tls-key",
                text(&other.key),
            ],
            &["does not belong to"],
        ),
        (&["--tls-cert", text(&one.certificate)], &["--tls-key"]),
        (
            &["--token-file", text(&missing)],
            &["token file", "missing"],
        ),
        (&["--token-file", text(&empty)], &["token file", "empty"]),
        (&["--allow-plaintext-token"], &["--token-file"]),
    ];
    let ca = authority.ca();
    for (flags, parts) in cases {
        for command in [
            &["tail", "--id", "g"][..],
            &["publish", "--user-id", "u", "--kind", "k"],
        ] {
            let mut args = command.to_vec();
            if !flags.contains(&"--tls-ca") {
                args.extend(["--tls-ca", text(&ca)]);
            }
            args.extend(flags);
            let output = run(&args);
            refused(&output, 2, parts);
        }
    }
    let token = write("token", "secret-word");
    let args = [
        "tail",
        "--connect",
        "push.example:1",
        "--token-file",
        text(&token),
    ];
    refused(&run(&args), 2, &["plaintext", "--allow-plaintext-token"]);
    let args = ["tail", "--connect", "unix:/nowhere", "--tls"];
    refused(&run(&args), 2, &["Unix socket has no TLS"]);
}

/// Accepts everything, and keeps the `authorization` of each call.
#[derive(Clone, Default)]
struct Doorman {
    shown: Arc<Mutex<Vec<Option<String>>>>,
}

impl Doorman {
    async fn start(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(PublisherServer::new(self.clone()))
                .serve_with_incoming(TcpIncoming::from(listener)),
        );
        address
    }

    fn look(&self, metadata: &tonic::metadata::MetadataMap) {
        let value = metadata.get("authorization");
        let value = value.map(|value| value.to_str().unwrap().to_owned());
        self.shown.lock().unwrap().push(value);
    }

    fn shown(&self) -> Vec<Option<String>> {
        std::mem::take(&mut *self.shown.lock().unwrap())
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<PublishResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Publisher for Doorman {
    type PublishStreamStream = Responses;

    async fn publish(
        &self,
        request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        self.look(request.metadata());
        Ok(Response::new(PublishResponse {
            first_cursor: "CBSZJPG00007-00000000001".to_owned(),
            last_cursor: "CBSZJPG00007-00000000001".to_owned(),
        }))
    }

    async fn wait_enforced(
        &self,
        _: Request<WaitEnforcedRequest>,
    ) -> Result<Response<WaitEnforcedResponse>, Status> {
        Err(Status::unimplemented("nobody waits here"))
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Responses>, Status> {
        self.look(request.metadata());
        Ok(Response::new(Box::pin(tokio_stream::empty())))
    }
}

fn bearer(token: &str) -> Option<String> {
    Some(format!("Bearer {token}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_sent_with_each_call_and_read_again() {
    let authority = Authority::new("right");
    let doorman = Doorman::default();
    let plain = doorman.start().await;
    let terminator = Terminator::start(&Terms::new(authority.issue(&["127.0.0.1"])), plain).await;
    let path = authority.file("token");
    let ca = authority.ca();
    std::fs::write(&path, "first\n").unwrap();
    let flags = ["--tls-ca", text(&ca), "--token-file", text(&path)];
    accepted(&publish(terminator.address, &flags).await);
    // To this machine also without TLS.
    accepted(&publish(plain, &flags[2..]).await);
    accepted(&publish(plain, &[]).await);
    assert_eq!(doorman.shown(), [bearer("first"), bearer("first"), None]);

    let connector = Connector::new(Address::Tcp(plain.to_string())).token_file(&path);
    let mut client = PublisherClient::new(connector.connect().await.unwrap());
    let request = || PublishRequest {
        events: vec![event(1)],
    };
    client.publish(request()).await.unwrap();
    std::fs::write(&path, "second").unwrap();
    // On the same connection, within a second or so.
    soon(async {
        loop {
            client.publish(request()).await.unwrap();
            let shown = doorman.shown();
            if shown.last() == Some(&bearer("second")) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;

    // A new connection reads it at once.
    std::fs::write(&path, "third").unwrap();
    let mut client = PublisherClient::new(connector.connect().await.unwrap());
    client.publish(request()).await.unwrap();
    assert_eq!(doorman.shown(), [bearer("third")]);

    // A file that is gone is an error of the call, which names it.
    std::fs::remove_file(&path).unwrap();
    let error = connector.connect().await.map(drop).unwrap_err();
    assert!(matches!(error, ConnectError::Token(_)), "{error}");
    let status = soon(async {
        loop {
            if let Err(status) = client.publish(request()).await {
                return status;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let line = status_line(&status);
    assert!(
        line.starts_with("UNAUTHENTICATED: cannot read the token file"),
        "{line}"
    );
    assert!(line.contains(text(&path)), "{line}");
}

/// A gateway over TLS, with the files of `client` to show.
fn gateway(address: SocketAddr, ca: &Path, client: Option<&Files>) -> Gateway {
    let mut tls = ClientTls::new().ca(ca);
    if let Some(files) = client {
        tls = tls.identity(&files.certificate, &files.key);
    }
    Gateway::builder("gateway-7", Address::Tcp(address.to_string()))
        .tls(tls)
        .on_takeover(OnTakeover::Retry)
        .backoff(galaxy_push::client::Backoff::new(
            std::time::Duration::from_millis(5),
            std::time::Duration::from_millis(20),
        ))
        .build()
        .unwrap()
}

/// Waits until it is subscribed.
async fn connected(gateway: &mut Gateway) {
    soon(async { while !matches!(gateway.next().await.unwrap(), Item::Connected(_)) {} }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_resumes_its_session_and_shows_a_renewed_certificate() {
    let authority = Authority::new("right");
    let client = authority.issue(&["old.gw.example"]);
    let renewed = authority.issue(&["new.gw.example"]);
    let certificate = |files: &Files| support::tls::chain(&files.certificate)[0].clone();
    let (old, new) = (certificate(&client), certificate(&renewed));
    let terms = Terms {
        client_ca: Some(authority.ca()),
        ..Terms::new(authority.issue(&["127.0.0.1"]))
    };
    let server = Harness::start().await;
    let terminator = Terminator::start(&terms, server.gateway_addr()).await;
    let mut gateway = gateway(terminator.address, &authority.ca(), Some(&client));
    connected(&mut gateway).await;
    // Each time another one takes the id, it comes back.
    server.subscribe("gateway-7", "").await;
    connected(&mut gateway).await;
    std::fs::copy(&renewed.certificate, &client.certificate).unwrap();
    std::fs::copy(&renewed.key, &client.key).unwrap();
    server.subscribe("gateway-7", "").await;
    connected(&mut gateway).await;

    let seen = terminator.seen();
    let shown = |at: usize| seen[at].client_certificate.as_ref();
    let resumed: Vec<bool> = seen.iter().map(|seen| seen.was_resumed).collect();
    assert_eq!(resumed, [false, true, false]);
    assert_eq!(
        [shown(0), shown(1), shown(2)],
        [Some(&old), Some(&old), Some(&new)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gateway_is_told_of_a_refused_handshake() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let terms = Terms {
        client_ca: Some(right.ca()),
        ..Terms::new(right.issue(&["127.0.0.1"]))
    };
    let server = Harness::start().await;
    let terminator = Terminator::start(&terms, server.gateway_addr()).await;

    let mut stranger = gateway(terminator.address, &wrong.ca(), None);
    let Item::Disconnected { cause, .. } = soon(stranger.next()).await.unwrap() else {
        panic!("it connected");
    };
    assert!(
        matches!(
            &cause,
            Disconnect::Unreachable(ConnectError::Tls {
                reason: HandshakeError::UnknownCa,
                ..
            })
        ),
        "{cause}"
    );

    let mut nobody = gateway(terminator.address, &right.ca(), None);
    let Item::Disconnected { cause, .. } = soon(nobody.next()).await.unwrap() else {
        panic!("it connected");
    };
    assert!(
        cause.to_string().contains("requires a client certificate"),
        "{cause}"
    );

    let missing = ClientTls::new().ca("/nowhere/ca.pem");
    let built = Gateway::builder("g", Address::Tcp("localhost:1".to_owned()))
        .tls(missing)
        .build()
        .map(drop);
    assert!(
        matches!(
            built,
            Err(galaxy_push::client::BuildError::Connect(
                ConnectError::Files(TlsError::Unreadable { .. })
            ))
        ),
        "{built:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_prints_what_comes_over_tls() {
    let authority = Authority::new("right");
    let server = Harness::start().await;
    let terms = Terms::new(authority.issue(&["127.0.0.1"]));
    let terminator = Terminator::start(&terms, server.gateway_addr()).await;
    let address = terminator.address.to_string();
    let ca = authority.ca();
    // What the environment says counts as well.
    let mut command = support::process::galaxy_push(&["tail", "--count", "1", "--id", "g"]);
    command
        .env("GALAXY_PUSH_TAIL_CONNECT", &address)
        .env("GALAXY_PUSH_TAIL_TLS_CA", text(&ca));
    let mut tail = Process::spawn(command);
    tokio::task::block_in_place(|| tail.err.find("subscribed"));
    server.publish(0, 1).await;
    let line = tokio::task::block_in_place(|| tail.out.next().unwrap());
    assert!(line.contains("client_event"), "{line}");
    assert!(tokio::task::block_in_place(|| tail.end()).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_says_why_it_cannot_connect_and_tries_again() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let server = Harness::start().await;
    let terms = Terms::new(right.issue(&["127.0.0.1"]));
    let terminator = Terminator::start(&terms, server.gateway_addr()).await;
    let address = terminator.address.to_string();
    let ca = wrong.ca();
    let tail = Process::start(&[
        "tail",
        "--id",
        "g",
        "--connect",
        &address,
        "--tls-ca",
        text(&ca),
    ]);
    tokio::task::block_in_place(|| tail.err.find("signed by no CA that is trusted here"));
    // It is the file that is wrong, and may be put right.
    std::fs::copy(right.ca(), &ca).unwrap();
    tokio::task::block_in_place(|| tail.err.find("subscribed"));
}

/// Runs `bench` with these arguments against a server behind two terminators; returns what
/// the gateways' one saw.
#[cfg(feature = "bench")]
async fn bench(
    workload: &[&str],
    versions: &'static [&'static SupportedProtocolVersion],
) -> Vec<support::tls::Seen> {
    let authority = Authority::new("right");
    let server = Harness::start().await;
    let client = authority.issue(&["bench.example"]);
    let terms = Terms {
        client_ca: Some(authority.ca()),
        versions,
        ..Terms::new(authority.issue(&["127.0.0.1"]))
    };
    let gateways = Terminator::start(&terms, server.gateway_addr()).await;
    let publishers = Terminator::start(&terms, server.publisher_addr()).await;
    let token = authority.file("token");
    std::fs::write(&token, "a-token").unwrap();
    let mut args: Vec<String> = ["bench"]
        .iter()
        .chain(workload)
        .map(ToString::to_string)
        .collect();
    let paths = [
        ("--tls-ca", authority.ca()),
        ("--tls-cert", client.certificate),
        ("--tls-key", client.key),
        ("--token-file", token),
    ];
    args.extend(
        paths
            .iter()
            .flat_map(|(flag, path)| [(*flag).to_owned(), text(path).to_owned()]),
    );
    args.extend(["--connect".to_owned(), gateways.address.to_string()]);
    args.extend([
        "--publish-connect".to_owned(),
        publishers.address.to_string(),
    ]);
    let output = tokio::task::spawn_blocking(move || {
        run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    })
    .await
    .unwrap();
    accepted(&output);
    gateways.seen()
}

#[cfg(feature = "bench")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bench_loses_nothing_over_tls() {
    for versions in [ONLY_TLS13, ONLY_TLS12] {
        let replay = [
            "replay",
            "--events",
            "3000",
            "--gateways",
            "3",
            "--duration",
            "0s",
        ];
        // Frames of many sizes, and more at once than a record or a buffer holds.
        for frame in [["--frame-size", "16KiB"], ["--frame-size", "1MiB"]] {
            bench(&[&replay[..], &frame].concat(), versions).await;
        }
        bench(&[&replay[..], &["--payload", "3000"]].concat(), versions).await;
        let live = [
            "live",
            "--gateways",
            "3",
            "--rate",
            "500",
            "--warm-up",
            "0s",
            "--duration",
            "200ms",
        ];
        let seen = bench(&live, versions).await;
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|seen| seen.client_certificate.is_some()));
    }
}

#[cfg(feature = "bench")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bench_storms_with_and_without_tickets() {
    let storm = [
        "storm",
        "--gateways",
        "20",
        "--quiet",
        "100ms",
        "--duration",
        "0s",
    ];
    for versions in [ONLY_TLS13, ONLY_TLS12] {
        // Each gateway has a store of its own, so that all of them come back with a ticket.
        let seen = bench(&storm, versions).await;
        let resumed = seen.iter().filter(|seen| seen.was_resumed).count();
        assert_eq!((seen.len(), resumed), (40, 20));
        let seen = bench(&[&storm[..], &["--no-tls-resumption"]].concat(), versions).await;
        assert_eq!(seen.iter().filter(|seen| seen.was_resumed).count(), 0);
    }
}

#[cfg(feature = "bench")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bench_says_why_it_cannot_connect() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let server = Harness::start().await;
    let terms = Terms::new(right.issue(&["127.0.0.1"]));
    let gateways = Terminator::start(&terms, server.gateway_addr()).await;
    let address = gateways.address.to_string();
    let plain = server.gateway_addr().to_string();
    let (ca, other) = (text(&right.ca()).to_owned(), text(&wrong.ca()).to_owned());
    tokio::task::block_in_place(|| {
        let idle = |connect: &str, flags: &[&str]| {
            let args = ["bench", "idle", "--gateways", "2", "--connect", connect];
            let rest = ["--publish-connect", connect, "--server-pid", "1"];
            run(&[&args[..], &rest, flags].concat())
        };
        refused(
            &idle(&address, &["--tls-ca", &other]),
            1,
            &["signed by no CA"],
        );
        refused(
            &idle(&plain, &["--tls-ca", &ca]),
            1,
            &["speak TLS on this port"],
        );
        refused(
            &idle(&plain, &["--tls-ca", "/nowhere"]),
            2,
            &["cannot read /nowhere"],
        );
        let output = run(&["bench", "idle", "--tls-ca", &ca]);
        refused(&output, 2, &["--connect"]);
        refused(
            &run(&["bench", "idle", "--unix", "--tls"]),
            2,
            &["Unix socket"],
        );
    });
}
