//! The admin listener: what operators see and do, who may, and what nobody can do to it.

#![cfg(feature = "server")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use galaxy_push::access::{AdminRole, Identity};
use galaxy_push::config::{Address, Config};
use galaxy_push::contract::push::push_event::Kind;
use galaxy_push::contract::push::{ClientEvent, PushEvent};
use galaxy_push::server::{ServeError, Server};
use http::{Method, StatusCode};
use http_body_util::Full;
use rustls::HandshakeKind;
use serde_json::{Value, json};
use support::certificates::{Ca, Files, client, connect};
use support::http::{Answer, Http, Live, raw, speaking};
use support::tokens::{Tokens, gateway, subscribe_as};
use support::{
    Harness, connect_narrow, event, invalidation, large_event, publish, reason, soon, subscribe,
    until,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

const ROUTES: &[&str] = &[
    "/metrics",
    "/api/v1/status",
    "/api/v1/gateways",
    "/api/v1/ends",
    "/api/v1/invalidations",
    "/api/v1/history",
    "/api/v1/live",
];

fn listen(config: &mut Config) {
    config.admin_listen = Some(Address::Tcp("127.0.0.1:0".to_owned()));
}

async fn start() -> Harness {
    Harness::with(listen).await
}

/// A server that lets `reader` look, `writer` disconnect, `gw` subscribe, and `nobody` in.
async fn start_with_tokens() -> (Harness, Arc<Tokens>) {
    let tokens = Tokens::new();
    tokens.set(Identity::new("reader").admin(AdminRole::Read));
    tokens.set(Identity::new("writer").admin(AdminRole::Write));
    tokens.set(gateway("gw", &["*"]));
    let server = Harness::with_authenticator(listen, tokens.clone()).await;
    (server, tokens)
}

fn client_event(user: &str, payload: &[u8]) -> PushEvent {
    PushEvent {
        kind: Some(Kind::ClientEvent(ClientEvent {
            user_id: user.to_owned(),
            kind: "turn.ready".to_owned(),
            payload: payload.to_vec().into(),
            event_id: "e1".to_owned(),
            ..ClientEvent::default()
        })),
        cursor: String::new(),
    }
}

#[tokio::test]
async fn what_happens_is_seen_over_both_versions_of_http() {
    let server = start().await;
    let stream = server.subscribe("gateway-1", "").await;
    let cursors = server.publish(0, 3).await;
    let mut publisher = server.publisher().await;
    let published = publish(&mut publisher, vec![invalidation("u7")]).await;
    let invalidated = published.expect("published").first_cursor;
    let gone = server.subscribe("gateway-2", &cursors[0]).await;
    drop(gone);
    for mut http in [
        Http::connect(server.admin_addr()).await,
        Http::connect_h2(server.admin_addr()).await,
    ] {
        soon(async {
            // The stream's end is noticed a moment later.
            while http.get("/api/v1/ends").await.json()["ends"]
                .as_array()
                .is_none_or(Vec::is_empty)
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // And rows are given again for a moment.
            while http.get("/api/v1/gateways").await.json()["total"] != 1 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        let status = http.get("/api/v1/status").await.json();
        assert_eq!(status["state"], "serving");
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(status["head"], json!(invalidated));
        assert_eq!(status["totals"]["client_events_published"], 3);
        assert_eq!(status["totals"]["session_invalidations_published"], 1);
        assert_eq!(status["ring"]["newest_sequence"], 4);
        let listeners = status["listeners"].as_array().expect("listeners");
        let names: Vec<&str> = listeners
            .iter()
            .filter_map(|of| of["name"].as_str())
            .collect();
        assert_eq!(names, ["gateways", "publishers", "admin"]);
        assert_eq!(
            listeners[2]["address"],
            json!(server.admin_addr().to_string())
        );
        assert!(listeners[2]["connections"].as_u64() >= Some(1));

        let gateways = http.get("/api/v1/gateways").await.json();
        let row = &gateways["gateways"][0];
        assert_eq!(
            (&row["id"], &row["resume"]),
            (&json!("gateway-1"), &json!("fresh"))
        );
        let none = http.get("/api/v1/gateways?filter=GATEWAY-9").await.json();
        assert_eq!((&none["total"], &none["matched"]), (&json!(1), &json!(0)));

        let end = &http.get("/api/v1/ends?limit=1").await.json()["ends"][0];
        assert_eq!(end["id"], "gateway-2");
        assert!(["cancelled", "disconnected"].contains(&end["cause"].as_str().unwrap_or("")));

        let invalidations = http.get("/api/v1/invalidations").await.json();
        assert_eq!(
            invalidations["invalidations"][0]["cursor"],
            json!(invalidated)
        );

        let history = http.get("/api/v1/history").await.json();
        assert_eq!(history["interval_seconds"], 1.0);

        let metrics = http.get("/metrics").await;
        assert_eq!(
            metrics.headers["content-type"],
            "text/plain; version=0.0.4; charset=utf-8"
        );
        assert!(
            metrics.text().contains("galaxy_push_gateways"),
            "{metrics:?}"
        );
        let open = [("accept", "application/openmetrics-text")];
        let metrics = http.ask(Method::GET, "/metrics", &open).await;
        assert!(metrics.text().ends_with("# EOF\n"));

        let mut live = http.live("").await;
        assert_eq!(live.find("status").await["state"], "serving");
        live.find("point").await;
    }
    drop(stream);
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere_and_every_answer_says_so() {
    let server = start().await;
    let mut http = Http::connect(server.admin_addr()).await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/assets/dashboard.js", "text/javascript; charset=utf-8"),
        ("/assets/dashboard.css", "text/css; charset=utf-8"),
        ("/assets/icon.svg", "image/svg+xml"),
        ("/livez", "text/plain; charset=utf-8"),
        ("/nothing", "application/json"),
    ] {
        let Answer { headers, .. } = http.get(path).await;
        assert_eq!(headers["content-type"], kind, "{path}");
        let policy = headers["content-security-policy"].to_str().expect("text");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(headers[name], value, "{path}");
        }
    }
}

#[tokio::test]
async fn what_does_not_exist_and_what_is_asked_wrongly_is_named() {
    let server = start().await;
    let mut http = Http::connect_h2(server.admin_addr()).await;
    for (path, code) in [
        ("/nothing", "NOT_FOUND"),
        ("/api/v1", "NOT_FOUND"),
        ("/assets/../Cargo.toml", "NOT_FOUND"),
        ("/readyz/nothing", "UNKNOWN_CHECK"),
    ] {
        assert_eq!(
            http.get(path).await.error(),
            (404, code.to_owned()),
            "{path}"
        );
    }
    for path in [
        "/api/v1/status?x=1",
        "/api/v1/history?limit=1",
        "/metrics?name=up",
        "/api/v1/ends?limit=-1",
        "/api/v1/ends?limit=1&limit=1",
        "/api/v1/invalidations?limit=1001",
        "/api/v1/gateways?sort=nothing",
        "/api/v1/gateways?order=up",
        "/api/v1/live?user=",
        "/readyz?verbos",
    ] {
        assert_eq!(
            http.get(path).await.error(),
            (400, "BAD_QUERY".to_owned()),
            "{path}"
        );
    }
    let bad = http.delete("/api/v1/gateways/%ff").await;
    assert_eq!(bad.error(), (400, "BAD_PATH".to_owned()));
    for (method, path, allow) in [
        (Method::POST, "/api/v1/status", "GET,HEAD"),
        (Method::DELETE, "/api/v1/gateways", "GET,HEAD"),
        (Method::GET, "/api/v1/gateways/a", "DELETE"),
        (Method::PUT, "/", "GET,HEAD"),
    ] {
        let answer = http.ask(method, path, &[]).await;
        assert_eq!(answer.error(), (405, "METHOD_NOT_ALLOWED".to_owned()));
        assert_eq!(answer.headers["allow"], allow, "{path}");
    }
    let head = http.ask(Method::HEAD, "/api/v1/status", &[]).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn an_operator_ends_one_gateways_stream_and_no_other() {
    let server = start().await;
    let ids = ["a/b", "ü ✓", "100%", "..", "a", "x?y#z"];
    let mut streams = Vec::new();
    for id in ids {
        streams.push(server.subscribe(id, "").await);
    }
    let mut http = Http::connect(server.admin_addr()).await;
    for (id, stream) in ids.iter().zip(streams.drain(..5).collect::<Vec<_>>()) {
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = http.delete(&format!("/api/v1/gateways/{encoded}")).await;
        assert_eq!(answer.json(), json!({ "id": id, "disconnected": 1 }));
        let (_, status) = stream.finish().await;
        assert_eq!(status.code(), Code::Aborted);
        assert_eq!(reason(&status).0, "DISCONNECTED_BY_OPERATOR");
    }
    let again = soon(async {
        loop {
            // Until its end has been noticed, it is there and has ended.
            let answer = http.delete("/api/v1/gateways/a").await;
            if answer.status != StatusCode::OK {
                break answer;
            }
            assert_eq!(answer.json()["disconnected"], 0);
        }
    })
    .await;
    assert_eq!(again.error(), (404, "UNKNOWN_GATEWAY".to_owned()));
    let cursor = server.publish(0, 1).await.remove(0);
    let mut left = streams.remove(0);
    assert_eq!(left.next().await.cursor, cursor);
}

#[tokio::test]
async fn who_may_look_may_not_disconnect_and_who_is_unknown_may_do_nothing() {
    let (server, _tokens) = start_with_tokens().await;
    let mut gateway = server.gateway().await;
    let mut stream = subscribe_as(&mut gateway, "gw", "g", "")
        .await
        .expect("subscribed");
    let mut stranger = Http::connect(server.admin_addr()).await;
    let mut wrong = Http::connect(server.admin_addr()).await.with_token("wrong");
    let mut other = Http::connect(server.admin_addr()).await.with_token("gw");
    for path in ROUTES {
        let answer = stranger.get(path).await;
        assert_eq!(
            answer.error(),
            (401, "CREDENTIAL_MISSING".to_owned()),
            "{path}"
        );
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        let answer = wrong.get(path).await;
        assert_eq!(
            answer.error(),
            (401, "CREDENTIAL_UNKNOWN".to_owned()),
            "{path}"
        );
        let answer = other.get(path).await;
        assert_eq!(
            answer.error(),
            (403, "ADMIN_NOT_GRANTED".to_owned()),
            "{path}"
        );
    }
    for path in [
        "/",
        "/assets/dashboard.js",
        "/livez",
        "/readyz",
        "/readyz?verbose",
    ] {
        assert_eq!(stranger.get(path).await.status, StatusCode::OK, "{path}");
    }
    let mut reader = Http::connect(server.admin_addr())
        .await
        .with_token("reader");
    let seen = reader.get("/api/v1/gateways").await.json();
    assert_eq!(seen["gateways"][0]["principal"], "gw");
    for http in [&mut stranger, &mut wrong, &mut other, &mut reader] {
        let (status, _) = http.delete("/api/v1/gateways/g").await.error();
        assert!([401, 403].contains(&status));
    }
    let twice = [("authorization", "Bearer reader")];
    let answer = reader.ask(Method::GET, "/api/v1/status", &twice).await;
    assert_eq!(answer.error(), (401, "CREDENTIAL_MALFORMED".to_owned()));

    server
        .engine
        .publisher()
        .publish(small())
        .expect("published");
    stream.next().await;
    let mut writer = Http::connect(server.admin_addr())
        .await
        .with_token("writer");
    assert_eq!(
        writer.delete("/api/v1/gateways/g").await.json()["disconnected"],
        1
    );
    let (_, status) = stream.finish().await;
    assert_eq!(status.code(), Code::Aborted);
    let end = soon(async {
        loop {
            let ends = reader.get("/api/v1/ends").await.json();
            if let Some(end) = ends["ends"].get(0) {
                break end.clone();
            }
        }
    })
    .await;
    assert_eq!(end["cause"], "takeover");
    assert_eq!(end["detail"], "disconnected by writer");
}

/// PushEvent { client_event: { user_id: "u", kind: "k" } }
fn small() -> galaxy_push::event::Event<'static> {
    galaxy_push::event::Event::parse(b"\x0a\x06\x0a\x01u\x1a\x01k").expect("an event")
}

#[tokio::test]
async fn a_live_stream_ends_with_what_it_rests_on() {
    let (server, tokens) = start_with_tokens().await;
    let connect = async || Http::connect_h2(server.admin_addr()).await;

    let mut revoked = connect().await.with_token("reader").live("").await;
    revoked.find("status").await;
    tokens.revoke("reader");
    revoked.end().await;

    tokens.set(Identity::new("demoted").admin(AdminRole::Write));
    let mut demoted = connect().await.with_token("demoted").live("").await;
    demoted.find("status").await;
    tokens.set(Identity::new("demoted"));
    demoted.end().await;

    let end = SystemTime::now() + Duration::from_millis(1500);
    tokens.set(
        Identity::new("brief")
            .admin(AdminRole::Read)
            .expires_at(end),
    );
    let mut http = connect().await.with_token("brief");
    http.live("").await.end().await;
    assert!(SystemTime::now() >= end);
    let answer = http.get("/api/v1/status").await;
    assert_eq!(answer.error(), (401, "CREDENTIAL_EXPIRED".to_owned()));

    let mut writer = connect().await.with_token("writer").live("").await;
    writer.find("status").await;
}

#[tokio::test]
async fn one_user_is_followed_and_payloads_are_for_those_who_may_subscribe() {
    let (server, tokens) = start_with_tokens().await;
    tokens.set(gateway("both", &["*"]).admin(AdminRole::Read));
    let mut reader = Http::connect(server.admin_addr())
        .await
        .with_token("reader");
    let refused = reader.get("/api/v1/live?user=u1&payload=1").await;
    assert_eq!(refused.error(), (403, "PAYLOAD_NOT_GRANTED".to_owned()));
    let mut blind = reader.live("?user=u1").await;
    let mut http = Http::connect(server.admin_addr()).await.with_token("both");
    let mut seeing = http.live("?user=u1&payload=1").await;

    let engine = &server.engine;
    for (user, payload) in [
        ("u2", &b"{}"[..]),
        ("u1", b"{\n\"n\": 18446744073709551615}"),
        ("u1", b"\xff"),
    ] {
        let bytes = prost::Message::encode_to_vec(&client_event(user, payload));
        let event = galaxy_push::event::Event::parse(&bytes).expect("an event");
        engine.publisher().publish(event).expect("published");
    }
    let seen = seeing.find("user").await;
    assert_eq!(seen["user_id"], "u1");
    assert_eq!(
        (&seen["class"], &seen["kind"]),
        (&json!("client_event"), &json!("turn.ready"))
    );
    assert_eq!(seen["payload"], json!({ "n": u64::MAX }));
    let seen = seeing.find("user").await;
    assert_eq!(seen["payload_base64"], "/w==");
    assert_eq!(seen["cursor"], json!(engine.head().to_string()));
    for _ in 0..2 {
        let seen = blind.find("user").await;
        assert_eq!(
            (&seen["payload"], &seen["payload_base64"]),
            (&Value::Null, &Value::Null)
        );
        assert!(seen["payload_bytes"].as_u64() > Some(0));
    }
}

#[tokio::test]
async fn ends_and_invalidations_are_told_as_they_happen() {
    let server = start().await;
    let mut live = Http::connect(server.admin_addr()).await.live("").await;
    let older = server.subscribe("twice", "").await;
    let _newer = server.subscribe("twice", "").await;
    let end = live.find("end").await;
    assert_eq!(
        (&end["id"], &end["cause"]),
        (&json!("twice"), &json!("takeover"))
    );
    drop(older);
    let mut publisher = server.publisher().await;
    let published = publish(&mut publisher, vec![invalidation("u1")]).await;
    let cursor = published.expect("published").first_cursor;
    assert_eq!(live.find("invalidation").await["cursor"], json!(cursor));
}

/// Reads until so many events were seen or missed. Returns how many were missed.
async fn read_until(live: &mut Live, events: u64) -> u64 {
    let (mut seen, mut missed) = (0, 0);
    while seen + missed < events {
        match live.next().await.expect("it goes on") {
            (name, _) if name == "user" => seen += 1,
            (name, data) if name == "missed" => missed += data["missed"].as_u64().unwrap_or(0),
            _ => {}
        }
    }
    assert_eq!(seen + missed, events);
    missed
}

#[tokio::test]
async fn a_slow_reader_is_told_the_newest_and_what_it_has_missed() {
    const EVENTS: u64 = 600;
    let server = Harness::with(|config| {
        listen(config);
        config.max_bytes = 64 << 20;
    })
    .await;
    let address = server.admin_addr();
    let mut slow = Http::connect(address).await.live("?user=u&payload=1").await;
    let mut quick = Http::connect(address).await.live("?user=u").await;
    let bytes = prost::Message::encode_to_vec(&client_event("u", &[b'7'; 32 << 10]));
    let publisher = server.engine.publisher();
    let event = galaxy_push::event::Event::parse(&bytes).expect("an event");
    for _ in 0..EVENTS {
        publisher.publish(event).expect("published");
    }
    read_until(&mut quick, EVENTS).await;
    // By now all have gone by the slow one, which has read nothing.
    let missed = read_until(&mut slow, EVENTS).await;
    assert!(missed > EVENTS / 2, "{missed} of {EVENTS}");
    // And it goes on.
    publisher.publish(event).expect("published");
    slow.find("user").await;
}

#[tokio::test]
async fn there_are_so_many_live_streams_and_no_more() {
    let server = start().await;
    let mut http = Http::connect_h2(server.admin_addr()).await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(http.live("").await);
    }
    let refused = http.get("/api/v1/live").await;
    assert_eq!(refused.error(), (503, "TOO_MANY_LIVE_STREAMS".to_owned()));
    streams.pop();
    soon(async {
        while http.get_status("/api/v1/live").await != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_name_that_leads_here_opens_nothing_and_neither_does_another_site() {
    let server = Harness::with(|config| {
        listen(config);
        config.admin_hosts = vec!["ops.example".to_owned(), "*.svc.example".to_owned()];
    })
    .await;
    for mut http in [
        Http::connect(server.admin_addr()).await,
        Http::connect_h2(server.admin_addr()).await,
    ] {
        for host in [
            "ops.example",
            "push.svc.example:1",
            "localhost:80",
            "[::1]:9",
        ] {
            http.host = host.to_owned();
            assert_eq!(
                http.get("/api/v1/status").await.status,
                StatusCode::OK,
                "{host}"
            );
        }
        for host in ["evil.example", "svc.example", "localhost.evil.example"] {
            http.host = host.to_owned();
            for path in ["/api/v1/status", "/metrics", "/", "/readyz"] {
                let answer = http.get(path).await;
                assert_eq!(
                    answer.error(),
                    (403, "HOST_NOT_ALLOWED".to_owned()),
                    "{host}"
                );
            }
        }
        http.host = server.admin_addr().to_string();
        let own = format!("http://{}", http.host);
        for (name, value) in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            for (method, path) in [
                (Method::GET, "/api/v1/status"),
                (Method::DELETE, "/api/v1/gateways/a"),
                (Method::GET, "/assets/dashboard.js"),
            ] {
                let answer = http.ask(method, path, &[(name, value)]).await;
                assert_eq!(
                    answer.error(),
                    (403, "CROSS_SITE".to_owned()),
                    "{name}: {value}"
                );
            }
            for path in ["/", "/livez", "/readyz"] {
                let answer = http.ask(Method::GET, path, &[(name, value)]).await;
                assert_eq!(answer.status, StatusCode::OK, "{path}");
            }
        }
        let same = [("origin", &*own), ("sec-fetch-site", "same-origin")];
        let answer = http.ask(Method::DELETE, "/api/v1/gateways/a", &same).await;
        assert_eq!(answer.error(), (404, "UNKNOWN_GATEWAY".to_owned()));
    }
    let address = server.admin_addr();
    for (request, status) in [
        ("GET /api/v1/status HTTP/1.1\r\n\r\n", "400"),
        (
            "GET /api/v1/status HTTP/1.1\r\nhost: a\r\nhost: localhost\r\n\r\n",
            "400",
        ),
        (
            "GET http://evil.example/api/v1/status HTTP/1.1\r\nhost: localhost\r\n\r\n",
            "400",
        ),
        ("GET /readyz HTTP/1.0\r\n\r\n", "200"),
    ] {
        let request = request.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        let answer = raw(address, request.as_bytes()).await;
        assert_eq!(
            answer.split(' ').nth(1),
            Some(status),
            "{request}: {answer}"
        );
    }
}

#[tokio::test]
async fn large_headers_and_bodies_are_refused_and_nothing_is_kept_of_them() {
    let server = start().await;
    let address = server.admin_addr();
    let header = format!(
        "GET /livez HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    let answer = raw(address, header.as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );

    let body = "POST /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n";
    let answer = raw(address, format!("{body}{}", "x".repeat(1 << 20)).as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 413 "),
        "{answer}"
    );

    let mut http = Http::connect_h2(address).await;
    let mut request = http.request(Method::GET, "/livez", &[]);
    *request.body_mut() = Full::from(vec![0; 1 << 20]);
    if let Ok(answer) = http.send(request).await {
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    let mut http = Http::connect_h2(address).await;
    let large = "x".repeat(100 << 10);
    let request = http.request(Method::GET, "/livez", &[("x", &large)]);
    if let Ok(answer) = http.send(request).await {
        assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    for nonsense in [
        "\r\n\r\n\0\0\0",
        "GET",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0",
        "\x16\x03\x01",
    ] {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream
            .write_all(nonsense.as_bytes())
            .await
            .expect("written");
    }
    assert_eq!(
        Http::connect(address).await.get("/livez").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn whoever_holds_connections_for_nothing_keeps_nobody_out() {
    let server = start().await;
    let address = server.admin_addr();
    let mut at_work = Http::connect(address).await.live("").await;
    at_work.find("status").await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(soon(TcpStream::connect(address)).await.expect("connected"));
    }
    let mut http = Http::connect(address).await;
    assert_eq!(http.get("/livez").await.status, StatusCode::OK);
    let status = http.get("/api/v1/status").await.json();
    let connections = &status["listeners"][2]["connections"];
    assert!(connections.as_u64() <= Some(64), "{connections}");
    let mut end = [0; 1];
    assert_eq!(
        soon(idle[0].read(&mut end)).await.unwrap_or(0),
        0,
        "it made room"
    );
    at_work.find("status").await;
}

#[tokio::test]
async fn a_unix_socket_is_asked_by_any_name_and_its_file_goes_at_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("admin.sock");
    let server =
        Harness::with(|config| config.admin_listen = Some(Address::Unix(path.clone()))).await;
    let mut http = Http::connect_unix(&path).await;
    let status = http.get("/api/v1/status").await.json();
    let address = format!("unix:{}", path.display());
    assert_eq!(status["listeners"][2]["address"], json!(address));
    let evil = [("origin", "http://evil.example")];
    let answer = http.ask(Method::GET, "/api/v1/status", &evil).await;
    assert_eq!(answer.error(), (403, "CROSS_SITE".to_owned()));
    server.stop().await.expect("stopped");
    assert!(!path.exists());
}

#[tokio::test]
async fn tls_is_spoken_and_a_certificate_is_asked_for_and_not_required() {
    let (ca, clients) = (Ca::new("server CA"), Ca::new("client CA"));
    let files = Files::new(&ca.server(), Some(&clients));
    let server = Harness::with(|config| {
        listen(config);
        files.set(config);
    })
    .await;
    let address = server.admin_addr();
    let identity = clients.client(&["spiffe://galaxy/operator/ada"]);
    let stranger = Ca::new("another CA").client(&["spiffe://galaxy/operator/eve"]);
    for shown in [None, Some(&identity)] {
        for protocol in [&b"h2"[..], b"http/1.1"] {
            let config = speaking(&client(&ca, shown), protocol);
            let mut http = Http::connect_tls(address, &config).await;
            let status = http.get("/api/v1/status").await.json();
            assert_eq!(status["listeners"][2]["tls"], true);
            assert!(status["listeners"][2]["certificate_not_after"].is_string());
        }
    }
    let mut refused = soon(connect(address, &client(&ca, Some(&stranger))))
        .await
        .ok();
    if let Some(stream) = &mut refused {
        let read = soon(stream.read(&mut [0; 1])).await;
        assert!(read.is_err(), "{read:?}");
    }
    let plain = raw(address, b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(!plain.contains("HTTP/1.1 200"), "{plain}");
}

#[tokio::test]
async fn a_ticket_of_the_admin_listener_opens_no_other() {
    let (ca, clients) = (Ca::new("server CA"), Ca::new("client CA"));
    let files = Files::new(&ca.server(), Some(&clients));
    let server = Harness::with(|config| {
        listen(config);
        files.set(config);
    })
    .await;
    let config = client(&ca, None);
    let kind = async |address: SocketAddr, request: bool| {
        let mut stream = soon(connect(address, &config)).await.expect("a handshake");
        let kind = stream.get_ref().1.handshake_kind();
        if request {
            // What comes back has the tickets before it.
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            soon(stream.write_all(preface)).await.expect("written");
        }
        let read = soon(stream.read(&mut [0; 9])).await;
        (kind, read.is_ok_and(|bytes| bytes > 0))
    };
    let admin = server.admin_addr();
    assert_eq!(kind(admin, true).await, (Some(HandshakeKind::Full), true));
    assert_eq!(
        kind(admin, true).await,
        (Some(HandshakeKind::Resumed), true)
    );
    for other in server.addresses() {
        let (kind, is_let_in) = kind(other, false).await;
        assert_ne!(kind, Some(HandshakeKind::Resumed));
        assert!(!is_let_in);
    }
}

#[tokio::test]
async fn it_answers_while_the_server_stops_and_ends_last() {
    let mut server = Harness::with(|config| {
        listen(config);
        config.shutdown_grace = Duration::from_secs(60);
    })
    .await;
    let mut gateway = galaxy_push::contract::push::push_client::PushClient::new(
        connect_narrow(server.gateway_addr()).await,
    );
    let stream = subscribe(&mut gateway, "slow", "")
        .await
        .expect("subscribed");
    let mut publisher = server.publisher().await;
    for _ in 0..200 {
        publish(&mut publisher, vec![large_event(60 << 10)])
            .await
            .expect("published");
    }
    let address = server.admin_addr();
    let mut http = Http::connect(address).await;
    soon(async { while http.get("/readyz").await.status != StatusCode::OK {} }).await;
    let ready = http.get("/readyz?verbose").await;
    let checks =
        ["ring", "delivery", "listeners", "stopping"].map(|name| format!("[+]{name} ok\n"));
    assert_eq!(ready.text(), checks.concat() + "readyz check passed\n");
    assert_eq!(http.get("/readyz").await.text(), "ok");
    let mut live = Http::connect(address).await.live("").await;
    live.find("status").await;

    server.ask_to_stop();
    soon(async { while http.get("/readyz").await.status != StatusCode::SERVICE_UNAVAILABLE {} })
        .await;
    let ready = http.get("/readyz").await;
    assert!(ready.text().contains("[-]stopping failed: "), "{ready:?}");
    // It listens no more, too.
    let path = "/readyz?exclude=stopping&exclude=listeners";
    assert_eq!(http.get(path).await.text(), "ok");
    assert_eq!(
        http.get("/readyz/stopping").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(http.get("/livez").await.text(), "ok");
    until_stopping(&mut http).await;
    drop((stream, gateway));
    server.stopped().await.expect("stopped");
    live.end().await;
    assert!(TcpStream::connect(address).await.is_err());
}

async fn until_stopping(http: &mut Http) {
    soon(async { while http.get("/api/v1/status").await.json()["state"] != "stopping" {} }).await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_and_dropping_the_server_frees_it() {
    let server = start().await;
    let address = server.admin_addr();
    let config = || Config {
        listen: Address::Tcp("127.0.0.1:0".to_owned()),
        publish_listen: Address::Tcp("127.0.0.1:0".to_owned()),
        admin_listen: Some(Address::Tcp(address.to_string())),
        max_bytes: 16 << 20,
        max_events: 1000,
        ..Config::default()
    };
    match Server::bind(config()).await {
        Err(ServeError::Listen { address: named, .. }) => {
            assert_eq!(named.to_string(), address.to_string());
        }
        other => panic!("{other:?}"),
    }
    server.abort().await;
    let mut bound = None;
    soon(async {
        while bound.is_none() {
            bound = Server::bind(config()).await.ok();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(bound.expect("bound").admin_addr().is_some());
}

#[tokio::test]
async fn a_thousand_requests_are_answered_from_a_few_views() {
    let server = start().await;
    let _streams = (server.subscribe("a", "").await, event(0));
    let mut http = Http::connect_h2(server.admin_addr()).await;
    let mut bodies = std::collections::HashSet::new();
    let began = SystemTime::now();
    for _ in 0..1000 {
        bodies.insert(http.get("/api/v1/status").await.body);
    }
    let ms = began.elapsed().unwrap_or_default().as_millis();
    // Five a second at most, whatever the time that it took.
    assert!(
        bodies.len() as u128 <= ms / 200 + 2,
        "{} in {ms} ms",
        bodies.len()
    );
    until(|| server.engine.stats().subscribers == 1).await;
}
