//! `conformance`: reports and exit codes, against the real server. What it finds, and what it does not,
//! is in `tests/interop/conformance`.

use serde_json::Value;

use crate::support::process::{Server, only_line, run};

#[test]
fn a_report_goes_to_a_file_and_text_to_standard_output() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("report.json");
    let output = run(&[
        "conformance",
        "server",
        "--connect",
        &server.gateways,
        "--publish-connect",
        &server.publishers,
        "--only",
        "cursor-form,expired-announced",
        "--format=json",
        "--output",
        file.to_str().expect("UTF-8"),
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("kept      cursor-form "), "{text}");
    assert!(text.contains("it needs --ring-events"), "{text}");
    assert!(text.ends_with("1 kept, 0 broken, 1 skipped\n"), "{text}");
    let report = std::fs::read(&file).expect("the report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let verdicts: Vec<_> = report["promises"]
        .as_array()
        .expect("promises")
        .iter()
        .map(|it| (it["name"].as_str(), it["verdict"].as_str()))
        .collect();
    assert_eq!(
        verdicts,
        [
            (Some("expired-announced"), Some("skipped")),
            (Some("cursor-form"), Some("kept")),
        ]
    );
}

#[test]
fn nothing_that_could_be_judged_is_a_failure() {
    let server = Server::start(&[]);
    let output = run(&[
        "conformance",
        "server",
        "--connect",
        &server.gateways,
        "--publish-connect",
        &server.publishers,
        "--only=lagged-told",
    ]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(
        only_line(&output),
        "galaxy-push: no promise could be judged"
    );
}

#[test]
fn a_server_that_is_not_there_is_told_at_once() {
    // Nothing listens on it.
    let address = "127.0.0.1:1";
    let output = run(&[
        "conformance",
        "server",
        "--connect",
        address,
        "--publish-connect",
        address,
    ]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    let line = only_line(&output);
    assert!(line.contains(address), "{line}");
}

#[test]
fn the_promises_can_be_listed() {
    for (side, name) in [("server", "takeover-exact"), ("gateway", "gap-suspect")] {
        let output = run(&["conformance", side, "--list"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let row = format!("contract  {name} ");
        assert_eq!(text.matches(&row).count(), 1, "{text}");
        let contract = run(&["conformance", side, "--list", "--level=contract"]).stdout;
        assert!(contract.len() < text.len());
    }
}
