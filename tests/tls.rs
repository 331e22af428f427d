//! TLS over real sockets: who gets in, what changes while connections are open, and what
//! peers do who mean no good.

#![cfg(feature = "cli")]

mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use galaxy_push::config::Config;
use galaxy_push::contract::publisher::publisher_client::PublisherClient;
use galaxy_push::contract::push::push_client::PushClient;
use galaxy_push::server::{ServeError, Server};
use galaxy_push::tls::{ServerFiles, ServerTls};
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion};
use support::certificates::{
    Ca, Files, Identity, channel, channel_over, client, connect, connect_over, self_signed,
};
use support::h2_client::Valved;
use support::process;
use support::{Harness, Subscription, event, large_event, publish, reason, soon, subscribe};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tonic::Code;
use tonic::transport::Channel;

/// A server with TLS, and its CA.
async fn tls_server() -> (Harness, Ca, Files) {
    let ca = Ca::new("server CA");
    let files = Files::new(&ca.server(), None);
    let server = Harness::with(|config| files.set(config)).await;
    (server, ca, files)
}

/// Subscribes on a connection of its own.
async fn gateway(server: &Harness, config: &ClientConfig, id: &str, cursor: &str) -> Subscription {
    let mut client = PushClient::new(channel(server.gateway_addr(), config).await);
    subscribe(&mut client, id, cursor)
        .await
        .expect("subscribed")
}

async fn publisher(server: &Harness, config: &ClientConfig) -> PublisherClient<Channel> {
    PublisherClient::new(channel(server.publisher_addr(), config).await)
}

/// Whether a client of this config is served. That it is not, it may be told only after its
/// own part of the handshake.
async fn is_served(address: SocketAddr, config: &ClientConfig) -> bool {
    handshake(address, config).await.is_ok()
}

/// How the handshake was, if the server serves the client then.
async fn handshake(address: SocketAddr, config: &ClientConfig) -> std::io::Result<HandshakeKind> {
    let mut stream = soon(connect(address, config)).await?;
    // A client's preface with empty settings, for which the server's settings come.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    soon(stream.write_all(preface)).await?;
    let mut first = [0; 9];
    soon(stream.read_exact(&mut first)).await?;
    let (_, connection) = stream.get_ref();
    Ok(connection.handshake_kind().expect("it is complete"))
}

#[tokio::test]
async fn events_come_through_tls_as_they_were_sent_whatever_their_size() {
    let (server, ca, _files) = tls_server().await;
    let config = client(&ca, None);
    let mut received = gateway(&server, &config, "gateway", "").await;
    let mut publisher = publisher(&server, &config).await;
    // From less than a record to several.
    let sizes = [1, 100, 4000, 8100, 8300, 16_300, 16_500, 40_000];
    for size in sizes.into_iter().cycle().take(400) {
        let sent = vec![event(size as u64), large_event(size)];
        publish(&mut publisher, sent.clone())
            .await
            .expect("published");
        for mut sent in sent {
            let got = received.next().await;
            sent.cursor.clone_from(&got.cursor);
            assert_eq!(got, sent);
        }
    }
    server.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_gateway_that_resumes_is_sent_everything_through_tls() {
    let (server, ca, _files) = tls_server().await;
    let config = client(&ca, None);
    let mut received = gateway(&server, &config, "gateway", "").await;
    let mut publisher = publisher(&server, &config).await;
    publish(&mut publisher, vec![event(0)])
        .await
        .expect("published");
    let first = received.next().await.cursor;
    drop(received);
    let mut sent = Vec::new();
    for batch in 0..40 {
        let events: Vec<_> = (0..100).map(|at| event(batch * 100 + at)).collect();
        sent.extend(events.clone());
        publish(&mut publisher, events).await.expect("published");
    }
    let mut resumed = gateway(&server, &config, "gateway", &first).await;
    assert_eq!(resumed.meta("push-resume"), Some("resumed"));
    for mut sent in sent {
        let got = resumed.next().await;
        sent.cursor.clone_from(&got.cursor);
        assert_eq!(got, sent);
    }
}

#[tokio::test]
async fn a_gateway_that_reads_in_small_sips_is_sent_everything_in_order() {
    let (server, ca, _files) = tls_server().await;
    let config = client(&ca, None);
    let valve = watch::Sender::new(true);
    let socket = TcpStream::connect(server.gateway_addr())
        .await
        .expect("connected");
    let stream = soon(connect_over(Valved::new(socket, &valve), &config)).await;
    let mut slow = PushClient::new(channel_over(stream.expect("a handshake")).await);
    let mut received = subscribe(&mut slow, "slow", "").await.expect("subscribed");
    valve.send_replace(false);
    let mut publisher = publisher(&server, &config).await;
    // More than the buffers of both sockets hold.
    let sent: Vec<_> = (0..400).map(|at| large_event(20_000 + at)).collect();
    for events in sent.chunks(10) {
        publish(&mut publisher, events.to_vec())
            .await
            .expect("published");
    }
    valve.send_replace(true);
    for mut sent in sent {
        let got = received.next().await;
        sent.cursor.clone_from(&got.cursor);
        assert_eq!(got, sent);
    }
    // And the end of the stream, at the stop.
    let stopped = tokio::spawn(server.stop());
    let (rest, status) = received.finish().await;
    assert!(rest.is_empty());
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    soon(stopped).await.expect("no panic").expect("stopped");
}

#[tokio::test]
async fn both_versions_and_the_hybrid_key_exchange_are_there() {
    let (server, ca, _files) = tls_server().await;
    let address = server.gateway_addr();
    let newest = soon(connect(address, &client(&ca, None)))
        .await
        .expect("served");
    let (_, connection) = newest.get_ref();
    assert_eq!(
        connection.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    let group = connection.negotiated_key_exchange_group().expect("a group");
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);

    let older = support::certificates::tls12(&ca);
    let stream = soon(connect(address, &older)).await.expect("served");
    let version = stream.get_ref().1.protocol_version();
    assert_eq!(version, Some(ProtocolVersion::TLSv1_2));
    let mut received = gateway(&server, &older, "gateway", "").await;
    let sent = publish(&mut publisher(&server, &older).await, vec![event(1)]).await;
    assert_eq!(
        received.next().await.cursor,
        sent.expect("published").first_cursor
    );
}

#[tokio::test]
async fn a_client_resumes_by_ticket_and_never_sends_early_data() {
    let (server, ca, _files) = tls_server().await;
    let address = server.gateway_addr();
    for (config, resumed) in [
        (client(&ca, None), HandshakeKind::Resumed),
        (support::certificates::tls12(&ca), HandshakeKind::Resumed),
    ] {
        let mut config = config;
        config.enable_early_data = true;
        let first = handshake(address, &config).await.expect("served");
        assert_ne!(first, HandshakeKind::Resumed);
        assert_eq!(handshake(address, &config).await.expect("served"), resumed);
        let stream = soon(connect(address, &config)).await.expect("served");
        assert!(!stream.get_ref().1.is_early_data_accepted());
    }
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_ca_that_is_valid_today_are_served() {
    let ca = Ca::new("server CA");
    let (clients, strangers) = (Ca::new("client CA"), Ca::new("another CA"));
    let files = Files::new(&ca.server(), Some(&clients));
    let server = Harness::with(|config| files.set(config)).await;
    let uri = "spiffe://galaxy/gateway/g1";
    for address in server.addresses() {
        let served =
            async |identity: Option<&Identity>| is_served(address, &client(&ca, identity)).await;
        assert!(served(Some(&clients.client(&[uri]))).await);
        assert!(!served(None).await, "without");
        assert!(
            !served(Some(&strangers.client(&[uri]))).await,
            "another CA's"
        );
        assert!(!served(Some(&self_signed(uri))).await, "its own");
        assert!(
            !served(Some(&clients.client_of(&[uri], -9..-2))).await,
            "expired"
        );
        assert!(
            !served(Some(&clients.client_of(&[uri], 2..9))).await,
            "not valid yet"
        );
    }
}

#[tokio::test]
async fn a_ticket_of_a_client_whose_ca_has_gone_does_not_let_it_in() {
    let ca = Ca::new("server CA");
    let (kept, gone) = (Ca::new("kept CA"), Ca::new("CA that goes"));
    let files = Files::new(&ca.server(), Some(&kept));
    files.write_client_ca(&[&kept, &gone]);
    let server = Server::bind(config_of(&files)).await.expect("bound");
    let (address, reloader) = (address_of(&server), server.reloader());
    let running = tokio::spawn(server.run(std::future::pending()));

    let of = |ca_of: &Ca| client(&ca, Some(&ca_of.client(&["spiffe://galaxy/gateway/g"])));
    let [stays, goes] = [of(&kept), of(&gone)];
    for config in [&stays, &goes] {
        handshake(address, config).await.expect("served");
        let again = handshake(address, config).await.expect("served");
        assert_eq!(again, HandshakeKind::Resumed);
    }
    // A certificate that is renewed leaves the tickets as they are.
    files.write(&ca.server());
    reloader.reload();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let again = handshake(address, &stays).await.expect("served");
    assert_eq!(again, HandshakeKind::Resumed);

    files.write_client_ca(&[&kept]);
    reloader.reload();
    soon(async {
        // With a ticket each time.
        while is_served(address, &goes).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(is_served(address, &stays).await);
    running.abort();
}

#[tokio::test]
async fn a_ticket_of_a_client_whose_certificate_has_expired_does_not_let_it_in() {
    let (ca, clients) = (Ca::new("server CA"), Ca::new("client CA"));
    let files = Files::new(&ca.server(), Some(&clients));
    let server = Harness::with(|config| files.set(config)).await;
    let soon_over = clients.client_for(&["spiffe://galaxy/gateway/g"], 8);
    let config = client(&ca, Some(&soon_over));
    let address = server.gateway_addr();
    handshake(address, &config).await.expect("served");
    let again = handshake(address, &config).await.expect("served");
    assert_eq!(again, HandshakeKind::Resumed);
    soon(async {
        // With a ticket each time, and each time with a new one for the next.
        while is_served(address, &config).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

/// A client's preface with empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// 16,384 bytes of a frame whose type nobody knows, which is to be ignored.
fn unknown_frame() -> Vec<u8> {
    let mut frame = vec![0, 0x40, 0, 0xfa, 0, 0, 0, 0, 0];
    frame.resize(9 + 16_384, 0);
    frame
}

/// Records of one byte each, in which there is HTTP/2 that breaks no rule; with new keys after
/// each, if the client `renews_keys`.
async fn drip(server: &Harness, ca: &Ca, renews_keys: bool) -> std::io::Result<()> {
    let mut stream = connect(server.gateway_addr(), &client(ca, None)).await?;
    stream.write_all(PREFACE).await?;
    for byte in unknown_frame().iter().cycle() {
        stream.write_all(std::slice::from_ref(byte)).await?;
        if renews_keys {
            let (_, connection) = stream.get_mut();
            connection.refresh_traffic_keys().expect("TLS 1.3");
        }
    }
    Ok(())
}

#[tokio::test]
async fn records_of_one_byte_and_new_keys_all_the_time_end_that_connection_alone() {
    let (server, ca, _files) = tls_server().await;
    let config = client(&ca, None);
    let mut served = gateway(&server, &config, "gateway", "").await;
    let mut publisher = publisher(&server, &config).await;
    for renews_keys in [false, true] {
        let end = soon(drip(&server, &ca, renews_keys)).await;
        assert!(end.is_err());
        let sent = publish(&mut publisher, vec![event(1)]).await;
        assert_eq!(
            served.next().await.cursor,
            sent.expect("published").first_cursor
        );
    }
}

#[tokio::test]
async fn a_client_of_many_records_as_short_as_the_shortest_frames_is_served() {
    let (server, ca, _files) = tls_server().await;
    let mut stream = soon(connect(server.gateway_addr(), &client(&ca, None)))
        .await
        .expect("a handshake");
    stream.write_all(PREFACE).await.expect("written");
    for _ in 0..20 {
        // By turns as long as a frame's header, and as a WINDOW_UPDATE's payload.
        let mut rest = &unknown_frame()[..];
        for length in [9, 4].into_iter().cycle() {
            let (record, after) = rest.split_at(rest.len().min(length));
            stream.write_all(record).await.expect("written");
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    }
    let ping = b"\0\0\x08\x06\0\0\0\0\0the end.";
    stream.write_all(ping).await.expect("written");
    stream.flush().await.expect("written");
    let mut answers = Vec::new();
    soon(async {
        while !answers.ends_with(b"the end.") {
            let bytes = stream.read_buf(&mut answers).await.expect("served");
            assert!(bytes > 0, "{answers:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_pipe_without_a_writer_holds_up_neither_reloads_nor_the_end() {
    let ca = Ca::new("server CA");
    let files = Files::new(&ca.server(), None);
    let (certificate, key) = (files.certificate(), files.key());
    let flags = [
        "--tls-cert",
        process::text(&certificate),
        "--tls-key",
        process::text(&key),
    ];
    let mut server = process::Server::start(&flags);
    std::fs::remove_file(files.key()).expect("removed");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, files.key(), mode).expect("a pipe");
    server.process.signal(rustix::process::Signal::HUP);
    let line = server.process.err.find("TLS certificate not reloaded");
    assert!(line.contains("server.key"), "{line}");
    assert!(line.contains("a pipe or a device"), "{line}");
    // At a start too, where the rest of a pipe that has a writer is waited for.
    let identity = ca.server();
    std::fs::write(files.certificate(), &identity.certificate).expect("written");
    let pipe = files.key();
    let writer = std::thread::spawn(move || std::fs::write(pipe, identity.key));
    let second = process::Server::start(&flags);
    writer.join().expect("no panic").expect("written");
    drop(second);
    server.process.signal(rustix::process::Signal::TERM);
    assert_eq!(server.process.end().code(), Some(0));
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_is_taken_up_when_it_is() {
    let ca = Ca::new("server CA");
    let files = Files::new(&ca.server(), None);
    let server = Server::bind(config_of(&files)).await.expect("bound");
    let (address, reloader) = (address_of(&server), server.reloader());
    let running = tokio::spawn(server.run(std::future::pending()));
    let mut config = client(&ca, None);
    config.resumption = Resumption::disabled();
    let shown = async || {
        let stream = soon(connect(address, &config)).await.expect("served");
        let chain = stream.get_ref().1.peer_certificates().expect("a chain");
        chain[0].to_vec()
    };
    let first = shown().await;
    files.write(&ca.server_in(3));
    soon(async {
        while shown().await == first {
            reloader.reload();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    running.abort();
}

#[tokio::test]
async fn streams_end_with_their_certificate_and_with_its_ca_and_others_go_on() {
    let ca = Ca::new("server CA");
    let (kept, gone) = (Ca::new("kept CA"), Ca::new("CA that goes"));
    let files = Files::new(&ca.server(), Some(&kept));
    files.write_client_ca(&[&kept, &gone]);
    let server = Server::bind(config_of(&files)).await.expect("bound");
    let (address, reloader) = (address_of(&server), server.reloader());
    let publishers = server.publish_addr().to_string().parse().expect("TCP");
    let running = tokio::spawn(server.run(std::future::pending()));
    let of = |identity: &Identity| client(&ca, Some(identity));
    let uri = &["spiffe://galaxy/gateway/g"];
    let open = async |config: &ClientConfig, id: &str| {
        let mut client = PushClient::new(channel(address, config).await);
        subscribe(&mut client, id, "").await.expect("subscribed")
    };
    let stays = of(&kept.client(uri));
    let mut stays_open = open(&stays, "stays").await;
    let of_gone = open(&of(&gone.client(uri)), "of a CA that goes").await;
    let expires = open(&of(&kept.client_for(uri, 8)), "expires").await;

    let (events, status) = expires.finish().await;
    assert!(events.is_empty());
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    assert_eq!(reason(&status).0, "CREDENTIAL_EXPIRED");

    files.write_client_ca(&[&kept]);
    reloader.reload();
    let (events, status) = of_gone.finish().await;
    assert!(events.is_empty());
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    assert_eq!(reason(&status).0, "CREDENTIAL_REVOKED");

    let mut publisher = PublisherClient::new(channel(publishers, &stays).await);
    let sent = publish(&mut publisher, vec![event(1)]).await;
    let cursor = sent.expect("published").first_cursor;
    assert_eq!(stays_open.next().await.cursor, cursor);
    running.abort();
}

fn config_of(files: &Files) -> Config {
    let any_port = || "127.0.0.1:0".parse().expect("an address");
    let mut config = Config {
        listen: any_port(),
        publish_listen: any_port(),
        admin_listen: None,
        max_bytes: 16 << 20,
        max_events: 100_000,
        ..Config::default()
    };
    files.set(&mut config);
    config
}

fn address_of(server: &Server) -> SocketAddr {
    server.listen_addr().to_string().parse().expect("TCP")
}

#[tokio::test]
async fn files_that_are_no_good_are_refused_at_the_start_by_name() {
    let ca = Ca::new("server CA");
    let good = ca.server();
    let cases: [(&str, Identity, &str); 5] = [
        ("expired", ca.server_of(-9..-2), "server.pem"),
        ("not valid yet", ca.server_of(2..9), "server.pem"),
        (
            "another key",
            Identity {
                key: ca.server().key,
                ..good.clone()
            },
            "server.key",
        ),
        (
            "cut off",
            Identity {
                certificate: good.certificate[..good.certificate.len() / 2].to_owned(),
                ..good.clone()
            },
            "server.pem",
        ),
        (
            "no key",
            Identity {
                key: good.certificate.clone(),
                ..good.clone()
            },
            "server.key",
        ),
    ];
    for (what, identity, file) in cases {
        let files = Files::new(&identity, None);
        match Server::bind(config_of(&files)).await {
            Err(ServeError::Tls(error)) => {
                let text = error.to_string();
                assert!(text.contains(file), "{what}: {text}");
                assert!(!text.contains(&identity.key[40..80]), "{what}: {text}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn certificates_are_exchanged_a_hundred_times_under_load_and_no_torn_file_counts() {
    let ca = Ca::new("server CA");
    let files = Files::new(&ca.server(), None);
    let server = Server::bind(config_of(&files)).await.expect("bound");
    let (address, reloader) = (address_of(&server), server.reloader());
    let publishers = server.publish_addr().to_string().parse().expect("TCP");
    let running = tokio::spawn(server.run(std::future::pending()));
    let mut config = client(&ca, None);
    config.resumption = Resumption::disabled();

    let mut open = PushClient::new(channel(address, &config).await);
    let mut stays = subscribe(&mut open, "stays", "").await.expect("subscribed");
    let mut publisher = PublisherClient::new(channel(publishers, &config).await);
    let mut shown = HashSet::new();
    for round in 0..100 {
        let next = ca.server();
        if round % 3 == 0 {
            // As a copy that is under way looks.
            std::fs::write(files.certificate(), &next.certificate[..200]).expect("written");
            reloader.reload();
            assert!(is_served(address, &config).await, "round {round}");
        }
        files.write(&next);
        reloader.reload();
        let sent = publish(&mut publisher, vec![event(round)]).await;
        let stream = soon(connect(address, &config)).await.expect("served");
        let chain = stream.get_ref().1.peer_certificates().expect("a chain");
        shown.insert(chain[0].to_vec());
        // The connection that was there before has the next event.
        assert_eq!(
            stays.next().await.cursor,
            sent.expect("published").first_cursor
        );
    }
    assert!(shown.len() > 20, "{} certificates were seen", shown.len());
    running.abort();
}

#[tokio::test]
async fn thousands_of_slow_handshakes_leave_those_alone_who_are_served() {
    let (server, ca, _files) = tls_server().await;
    let config = client(&ca, None);
    let mut gateways = Vec::new();
    for number in 0..100 {
        gateways.push(gateway(&server, &config, &number.to_string(), "").await);
    }
    let mut publisher = publisher(&server, &config).await;
    // A record that announces a ClientHello, and stops in the middle of it.
    let mut silent = Vec::new();
    for number in 0..1500 {
        if let Ok(mut socket) = TcpStream::connect(server.gateway_addr()).await {
            let _ = socket.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc]).await;
            silent.push(socket);
        }
        if number % 50 == 0 {
            let sent = publish(&mut publisher, vec![event(number)]).await;
            let cursor = sent.expect("published").first_cursor;
            for gateway in &mut gateways {
                assert_eq!(gateway.next().await.cursor, cursor);
            }
        }
    }
    // And a newcomer gets in while they hang on.
    let mut newcomer = gateway(&server, &config, "newcomer", "").await;
    let sent = publish(&mut publisher, vec![event(7)]).await;
    assert_eq!(
        newcomer.next().await.cursor,
        sent.expect("published").first_cursor
    );
    drop(silent);
}

#[tokio::test]
async fn silent_peers_do_not_take_all_places_of_a_listener_that_has_few() {
    let ca = Ca::new("server CA");
    let files = Files::new(&ca.server(), None);
    let server = Harness::with(|config| {
        files.set(config);
        config.max_producers = 4;
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(
            TcpStream::connect(server.publisher_addr())
                .await
                .expect("connected"),
        );
    }
    let mut publisher = publisher(&server, &client(&ca, None)).await;
    publish(&mut publisher, vec![event(1)])
        .await
        .expect("published");
    drop(silent);
}

#[test]
fn a_bundle_of_cas_that_is_half_written_does_not_count() {
    let (one, two) = (Ca::new("one CA"), Ca::new("another CA"));
    let files = Files::new(&one.server(), Some(&one));
    files.write_client_ca(&[&one, &two]);
    let tls = ServerTls::load(ServerFiles {
        certificate: files.certificate(),
        key: files.key(),
        client_ca: Some(files.client_ca()),
    })
    .expect("good files");
    let before = tls.ca_revision();
    // One whole certificate, and the other is to come.
    files.write_client_ca(&[&two]);
    assert_eq!(tls.reload_when_settled(), Ok(false));
    files.write_client_ca(&[&two, &one]);
    assert_eq!(tls.reload_when_settled(), Ok(false));
    assert_eq!(tls.ca_revision(), before);
    assert_eq!(tls.reload_when_settled(), Ok(true));
    assert_eq!(tls.ca_revision(), before + 1);
    assert_eq!(tls.reload_when_settled(), Ok(false));
}

/// The binary, with TLS; and its CA.
fn tls_process() -> (process::Server, Ca, Files) {
    let ca = Ca::new("server CA");
    let files = Files::new(&ca.server(), None);
    let (certificate, key) = (files.certificate(), files.key());
    let server = process::Server::start(&[
        "--tls-cert",
        process::text(&certificate),
        "--tls-key",
        process::text(&key),
    ]);
    (server, ca, files)
}

#[tokio::test]
async fn what_is_no_tls_or_no_http2_is_logged_and_ends_cleanly() {
    let (server, ca, _files) = tls_process();
    let address: SocketAddr = server.gateways.parse().expect("TCP");
    let log = &server.process.err;

    // The log tells of one failure in ten seconds: a server each.
    let mut plain = TcpStream::connect(address).await.expect("connected");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    plain.write_all(preface).await.expect("written");
    let mut end = Vec::new();
    // An alert of TLS, in plain text, and the end.
    let _ = soon(plain.read_to_end(&mut end)).await;
    assert_eq!(end.first(), Some(&21), "{end:?}");
    let line = log.find("TLS handshake failed");
    assert!(line.contains("does not speak TLS"), "{line}");
    assert!(
        line.contains(&plain.local_addr().expect("bound").to_string()),
        "{line}"
    );

    for (alpn, what) in [
        (None, "did not ask for HTTP/2"),
        (Some("http/1.1"), "other protocols"),
    ] {
        let (server, ca, _files) = tls_process();
        let address: SocketAddr = server.gateways.parse().expect("TCP");
        let mut config = client(&ca, None);
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        assert!(!is_served(address, &config).await, "{alpn:?}");
        let line = server.process.err.find("TLS handshake failed");
        assert!(line.contains(what), "{line}");
    }
    assert!(is_served(address, &client(&ca, None)).await);
}

#[tokio::test]
async fn tls_at_a_listener_without_it_is_named_in_the_log() {
    let server = process::Server::start(&[]);
    let ca = Ca::new("server CA");
    for address in [&server.gateways, &server.publishers] {
        let address: SocketAddr = address.parse().expect("TCP");
        assert!(!is_served(address, &client(&ca, None)).await);
        let line = server.process.err.find("connection ended");
        assert!(
            line.contains("a TLS handshake, where no TLS is spoken"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn sighup_takes_up_new_files_and_names_bad_ones() {
    let (server, ca, files) = tls_process();
    let address: SocketAddr = server.gateways.parse().expect("TCP");
    let config = client(&ca, None);
    let shown = async || {
        let stream = soon(connect(address, &config)).await.expect("served");
        let chain = stream.get_ref().1.peer_certificates().expect("a chain");
        chain[0].to_vec()
    };
    let first = shown().await;
    files.write(&ca.server());
    server.process.signal(rustix::process::Signal::HUP);
    server.process.err.find("TLS certificate reloaded");
    let second = shown().await;
    assert_ne!(first, second);

    std::fs::write(files.key(), "no key").expect("written");
    server.process.signal(rustix::process::Signal::HUP);
    let line = server.process.err.find("TLS certificate not reloaded");
    assert!(line.contains("server.key"), "{line}");
    assert_eq!(shown().await, second);

    // Without being asked.
    files.write(&ca.server());
    server.process.err.find("TLS certificate reloaded");
    assert_ne!(shown().await, second);
}

#[test]
fn half_of_the_files_is_no_configuration() {
    for (flags, line) in [
        (
            &["--tls-cert=/c"][..],
            "--tls-cert: it is of no use without --tls-key",
        ),
        (
            &["--tls-key=/k"],
            "--tls-key: it is of no use without --tls-cert",
        ),
        (
            &["--tls-client-ca=/c"],
            "--tls-client-ca: it is of no use without --tls-cert",
        ),
        (
            &["--tls-cert=/nowhere", "--tls-key=/nowhere"],
            "cannot read /nowhere",
        ),
    ] {
        let output = process::run(&[&["serve"], flags].concat());
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        let text = process::only_line(&output);
        assert!(text.contains(line), "{flags:?}: {text}");
    }
}
