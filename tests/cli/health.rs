//! `health`: what it asks, and its exit codes.

use std::net::TcpListener;
use std::process::Output;
use std::thread::JoinHandle;

use crate::support::process::{only_line, run};

/// An admin listener with one answer for each path, over HTTP/2 in plaintext. It serves one
/// connection.
fn admin(ready: (u16, &'static str), live: (u16, &'static str)) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("it is bound").to_string();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            listener.set_nonblocking(true).expect("not blocking");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let (status, text) = match request.uri().path() {
                    "/readyz" => ready,
                    "/livez" => live,
                    path => panic!("{path}"),
                };
                let response = http::Response::builder().status(status);
                let response = response.body(()).expect("a response");
                let mut body = respond.send_response(response, false).expect("sent");
                body.send_data(text.into(), true).expect("sent");
            }
        });
    });
    (at, thread)
}

fn ask(ready: (u16, &'static str), live: (u16, &'static str), flags: &[&str]) -> Output {
    let (at, thread) = admin(ready, live);
    let mut args = vec!["health", "--connect", &at];
    args.extend(flags);
    let output = run(&args);
    thread.join().expect("the server ends with its connection");
    output
}

#[test]
fn a_server_that_is_ready_is_exit_code_0_without_a_word() {
    let output = ask((200, "ok"), (500, ""), &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
}

#[test]
fn a_server_that_is_not_is_exit_code_1_and_says_why() {
    let text = "[-]stopping failed: the server is stopping\n[-]ring failed: no answer\n";
    let output = ask((503, text), (200, "ok"), &[]);
    assert_eq!(output.status.code(), Some(1));
    let line = only_line(&output);
    assert!(
        line.contains(
            "is not ready: [-]stopping failed: the server is stopping; [-]ring failed: no answer"
        ),
        "{line}"
    );
    // It lives all the same.
    let output = ask((503, text), (200, "ok"), &["--live"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn whatever_else_answers_is_told() {
    let output = ask((404, "what?"), (404, "what?"), &[]);
    assert_eq!(output.status.code(), Some(1));
    let line = only_line(&output);
    assert!(line.contains("answers /readyz with 404"), "{line}");
}

#[test]
fn nobody_there_is_exit_code_1_and_a_bad_flag_2() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("it is bound").to_string();
    drop(listener);
    let output = run(&["health", "--connect", &at]);
    assert_eq!(output.status.code(), Some(1));
    assert!(only_line(&output).contains(&format!("cannot connect to {at}")));
    let output = run(&["health", "--connect", &at, "--tls-ca", "/nowhere.pem"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(only_line(&output).contains("/nowhere.pem"));
}
