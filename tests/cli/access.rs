//! `serve --access`: who may do what, and how that changes while it runs.

use std::fs;
use std::path::{Path, PathBuf};

use galaxy_push::contract::publisher::publisher_client::PublisherClient;
use galaxy_push::contract::push::push_client::PushClient;
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::support::process::{Process, Server, galaxy_push, only_line, run, small, text};
use crate::support::tokens::{publish_as, subscribe_as};
use crate::support::{Subscription, connect, event, invalidation};

const GATEWAY_TOKEN: &str = "gateway-token-that-nobody-sees";
const PRODUCER_TOKEN: &str = "producer-token-that-nobody-sees";

fn hash(token: &str) -> String {
    let digest = Sha256::digest(token.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A gateway that may use `ids`, and a producer.
fn rules(ids: &str) -> String {
    format!(
        r#"
        [[principal]]
        name = "gateways"
        token_sha256 = "{}"
        subscribe = [{ids}]

        [[principal]]
        name = "orders"
        token_sha256 = "{}"
        publish = ["client_event"]
        "#,
        hash(GATEWAY_TOKEN),
        hash(PRODUCER_TOKEN)
    )
}

struct Access {
    _directory: TempDir,
    path: PathBuf,
}

impl Access {
    fn new(rules: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.toml");
        fs::write(&path, rules).unwrap();
        Access {
            _directory: directory,
            path,
        }
    }

    fn path(&self) -> &str {
        text(&self.path)
    }

    fn write(&self, rules: &str) {
        fs::write(&self.path, rules).unwrap();
    }
}

async fn subscribe(server: &Server, token: &str, id: &str) -> Result<Subscription, Status> {
    let channel = connect(server.gateways.parse().unwrap()).await;
    subscribe_as(&mut PushClient::new(channel), token, id, "").await
}

/// Publishes a client event; returns its cursor.
async fn publish(server: &Server) -> String {
    let channel = connect(server.publishers.parse().unwrap()).await;
    let mut producer = PublisherClient::new(channel);
    let published = publish_as(&mut producer, PRODUCER_TOKEN, vec![event(1)]).await;
    published.expect("published").first_cursor
}

#[tokio::test]
async fn an_access_file_says_who_may_do_what_and_the_audit_log_who_was_refused() {
    let access = Access::new(&rules(r#""a""#));
    let mut server = Server::start(&["--access", access.path(), "--log", "trace"]);
    let mut stream = subscribe(&server, GATEWAY_TOKEN, "a").await.unwrap();
    let refused = subscribe(&server, GATEWAY_TOKEN, "b").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let line = server.process.err.find("refused: ");
    for part in [
        "refused",
        "SUBSCRIBE_NOT_GRANTED",
        "\"gateways\"",
        "127.0.0.1",
        "\"b\"",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let channel = connect(server.publishers.parse().unwrap()).await;
    let mut producer = PublisherClient::new(channel);
    let refused = publish_as(&mut producer, PRODUCER_TOKEN, vec![invalidation("u")]).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    let refused = publish_as(&mut producer, "a-wrong-token", vec![event(1)]).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    let cursor = publish(&server).await;
    assert_eq!(stream.next().await.cursor, cursor);

    let newer = subscribe(&server, GATEWAY_TOKEN, "a").await.unwrap();
    let (_, status) = stream.finish().await;
    assert_eq!(status.code(), Code::Aborted);
    drop(newer);
    server.process.signal(Signal::TERM);
    server.process.end();
    let log = server.process.err.rest().join("\n");
    assert!(log.contains("PUBLISH_NOT_GRANTED"), "{log}");
    assert!(log.contains("CREDENTIAL_UNKNOWN"), "{log}");
    let taken_over = log.lines().find(|line| line.contains("taken over"));
    let taken_over = taken_over.expect("a takeover is logged");
    assert!(taken_over.contains("older_peer=127.0.0.1"), "{taken_over}");
    for secret in [GATEWAY_TOKEN, PRODUCER_TOKEN, "a-wrong-token"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn sighup_takes_the_access_file_up_and_a_faulty_one_is_left() {
    let access = Access::new(&rules(r#""a", "b""#));
    let server = Server::start(&["--access", access.path()]);
    let mut kept = subscribe(&server, GATEWAY_TOKEN, "a").await.unwrap();
    let lost = subscribe(&server, GATEWAY_TOKEN, "b").await.unwrap();

    access.write("[[principal]]\nname = 7\n");
    server.process.signal(Signal::HUP);
    let line = server
        .process
        .err
        .find("not reloaded, the earlier one stays in force");
    assert!(line.contains("access.toml:2"), "{line}");
    let cursor = publish(&server).await;
    assert_eq!(kept.next().await.cursor, cursor);

    access.write(&rules(r#""a""#));
    server.process.signal(Signal::HUP);
    server
        .process
        .err
        .find("access file reloaded: 2 principals");
    let (events, status) = lost.finish().await;
    assert_eq!(events.len(), 1, "what it was granted");
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let cursor = publish(&server).await;
    assert_eq!(kept.next().await.cursor, cursor);
}

#[tokio::test]
async fn a_changed_access_file_is_taken_up_by_itself() {
    let access = Access::new(&rules(r#""a""#));
    let server = Server::start(&["--access", access.path()]);
    let stream = subscribe(&server, GATEWAY_TOKEN, "a").await.unwrap();
    // As an editor saves it.
    let newer = access.path.with_extension("new");
    fs::write(&newer, rules(r#""b""#)).unwrap();
    fs::rename(&newer, &access.path).unwrap();
    let (_, status) = stream.finish().await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    subscribe(&server, GATEWAY_TOKEN, "b").await.unwrap();
}

#[test]
fn an_access_file_that_cannot_be_used_stops_the_start() {
    let access = Access::new("[[principal]]\nnaem = \"x\"\n");
    for (path, part) in [
        (access.path(), "access.toml:1: principal 1: name is missing"),
        ("/nonexistent/access", "/nonexistent/access"),
    ] {
        let output = run(&["serve", "--listen=127.0.0.1:0", "--access", path]);
        assert_eq!(output.status.code(), Some(2));
        let line = only_line(&output);
        assert!(line.contains("--access: ") && line.contains(part), "{line}");
    }
}

#[test]
fn the_user_of_a_unix_sockets_peer_is_a_credential() {
    let directory = tempfile::tempdir().unwrap();
    let address = |name: &str| format!("unix:{}", directory.path().join(name).display());
    let uid = rustix::process::getuid().as_raw();
    let rules = format!(
        "[[principal]]\nname = \"me\"\nunix_uid = {uid}\nsubscribe = [\"me-*\"]\npublish = \
         [\"client_event\"]\n"
    );
    let access = Access::new(&rules);
    let (gateways, publishers) = (address("gateways"), address("publishers"));
    let server = Server::start(&[
        "--listen",
        &gateways,
        "--publish-listen",
        &publishers,
        "--access",
        access.path(),
    ]);
    let tail = server.tail(&["--id", "me-1"]);
    let output = server.publish(&small(1));
    assert!(output.status.success(), "{output:?}");
    tail.out.next().expect("an event");

    // Where nobody is this user, nobody is let in.
    let nobody = Access::new(&rules.replace(&format!("unix_uid = {uid}"), "unix_uid = 4000000000"));
    let gateways = address("gateways-2");
    let mut command = galaxy_push(&["serve", "--listen", &gateways]);
    command.args([
        "--publish-listen",
        &address("publishers-2"),
        "--access",
        nobody.path(),
        "--admin-listen=none",
    ]);
    let other = Process::spawn(command);
    other.err.find("listening for producers");
    assert!(Path::new(gateways.trim_start_matches("unix:")).exists());
    let _refused = Process::start(&["tail", "--connect", &gateways, "--id", "me-1"]);
    other.err.find("refused: ");
}
