//! `publish`: from flags and from lines, and what it says when it goes wrong.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::support::process::{
    Process, Server, cursor, galaxy_push, only_line, run, run_with_input, small, stdout, text,
};

/// The event of a line of `tail`, without its cursor.
fn event(line: &str) -> serde_json::Value {
    let mut event: serde_json::Value = serde_json::from_str(line).expect("JSON");
    event.as_object_mut().expect("an object").remove("cursor");
    event
}

#[test]
fn one_event_from_flags() {
    let server = Server::start(&[]);
    let tail = server.tail(&[]);
    let output = run(&[
        "publish",
        "--connect",
        &server.publishers,
        "--user-id",
        "u1",
        "--session-id",
        "s1",
        "--kind",
        "turn.ready",
        "--payload",
        "{\"game\":1}",
        "--event-id",
        "e1",
        "--request-id",
        "r1",
        "--trace-id",
        "t1",
    ]);
    let line = tail.out.next().unwrap();
    assert_eq!(stdout(&output), format!("{}\n", cursor(&line)));
    assert_eq!(
        event(&line),
        serde_json::json!({"client_event": {
            "user_id": "u1", "device_session_id": "s1", "kind": "turn.ready",
            "payload": {"game": 1}, "event_id": "e1", "request_id": "r1", "trace_id": "t1",
        }})
    );
}

#[test]
fn one_invalidation_from_flags() {
    let server = Server::start(&[]);
    let tail = server.tail(&[]);
    run(&[
        "publish",
        "--connect",
        &server.publishers,
        "--invalidate",
        "--user-id",
        "u2",
        "--reason",
        "logout",
    ]);
    assert_eq!(
        event(&tail.out.next().unwrap()),
        serde_json::json!({"session_invalidation": {
            "user_id": "u2", "device_session_id": "", "reason": "logout",
        }})
    );
}

#[test]
fn a_ban_that_is_waited_for_is_certain_or_who_is_missing_is_named() {
    let server = Server::start(&["--max-lease=1s"]);
    let ban = |timeout: &str| {
        let mut command = galaxy_push(&["publish", "--connect", &server.publishers]);
        let ban = [
            "--invalidate",
            "--user-id",
            "u1",
            "--wait-enforced",
            timeout,
        ];
        command.args(ban).output().unwrap()
    };
    // One that only prints: nobody can know what it has thrown out.
    let tail = server.tail(&["--id", "prints"]);
    let output = ban("1s500ms");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = only_line(&output);
    assert!(said.contains("not proven within 1s 500ms"), "{said}");
    assert!(said.contains("prints sends no reports"), "{said}");
    let published = cursor(&tail.out.next().unwrap());
    assert_eq!(stdout(&output), format!("{published}\n"));
    drop(tail);
    let proven = "galaxy-push: proven: 0 of 0 gateways have enforced it, 0 refuse everything";
    let output = ban("1m");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(only_line(&output), proven);
    // The same for lines.
    let lines = small(1) + &small(2);
    let args = [
        "publish",
        "--connect",
        &server.publishers,
        "--wait-enforced=1m",
        "-",
    ];
    assert_eq!(only_line(&run_with_input(&args, &lines)), proven);
}

#[test]
fn a_payload_file_is_sent_byte_for_byte() {
    let server = Server::start(&[]);
    let tail = server.tail(&[]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"\x89PNG\r\n\x1a\n\0").unwrap();
    run(&[
        "publish",
        "--connect",
        &server.publishers,
        "--user-id",
        "u",
        "--kind",
        "avatar",
        "--payload-file",
        text(file.path()),
    ]);
    let event = event(&tail.out.next().unwrap());
    assert_eq!(event["client_event"]["payload_base64"], "iVBORw0KGgoA");
    let id = event["client_event"]["event_id"].as_str().unwrap();
    assert!(id.len() > 20, "an id was made up: {id:?}");
}

#[test]
fn lines_are_published_in_their_order_and_each_cursor_printed() {
    let server = Server::start(&[]);
    let tail = server.tail(&[]);
    let cursors = server.publish_small(0..5000);
    let lines = tail.out.take(5000);
    assert_eq!(
        cursors,
        lines.iter().map(|line| cursor(line)).collect::<Vec<_>>()
    );
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(event(line)["client_event"]["payload"], number);
    }
}

#[test]
fn an_event_is_published_while_the_input_is_still_open() {
    let server = Server::start(&[]);
    let mut command = galaxy_push(&["publish", "-", "--connect", &server.publishers]);
    command.stdin(Stdio::piped());
    let mut publish = Process::spawn(command);
    let mut stdin = publish.stdin();
    for number in 0..3 {
        stdin.write_all(small(number).as_bytes()).unwrap();
        assert!(
            publish.out.next().is_some(),
            "its cursor comes before the next event"
        );
    }
    drop(stdin);
    assert!(publish.end().success());
}

#[test]
fn what_tail_printed_can_be_published_again() {
    let server = Server::start(&[]);
    let tail = server.tail(&[]);
    let given = concat!(
        r#"{"client_event":{"user_id":"ü\u0000\n","kind":"k","payload":{"a":[1.50,1e999],"a":null}}}"#,
        "\n",
        r#"{"client_event":{"user_id":"u","kind":"k","payload_base64":"/wA="}}"#,
        "\n",
        r#"{"client_event":{"user_id":"u","kind":"k"}}"#,
        "\n",
        r#"{"client_event":{"user_id":"u","kind":"k","payload_base64":"bnVsbA=="}}"#,
        "\n",
        r#"{"session_invalidation":{"user_id":"u","device_session_id":"s","reason":"ban"}}"#,
        "\n",
    );
    assert!(server.publish(given).status.success());
    let first = tail.out.take(5);
    assert!(
        first[0].contains(r#""payload":{"a":[1.50,1e999],"a":null}"#),
        "{}",
        first[0]
    );
    assert!(server.publish(&(first.join("\n") + "\n")).status.success());
    let second = tail.out.take(5);
    for (first, second) in first.iter().zip(&second) {
        assert!(cursor(first) < cursor(second));
        assert_eq!(
            first.replace(&cursor(first), ""),
            second.replace(&cursor(second), "")
        );
    }
}

#[test]
fn a_bad_line_ends_it_and_says_what_was_accepted() {
    let server = Server::start(&[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut lines: String = (0..299).map(small).collect();
    lines.push_str("{\"client_event\":{\"user_id\":\"u\",\"knd\":\"k\"}}\n");
    lines.push_str(&small(300));
    fs::write(file.path(), lines).unwrap();
    let output = run(&[
        "publish",
        "--connect",
        &server.publishers,
        text(file.path()),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output).lines().count(), 299);
    let line = only_line(&output);
    for part in [
        &format!("{}, line 300, column 36: ", file.path().display()),
        "client_event.knd: unknown field `knd`",
        "the 299 events before it were accepted",
    ] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn an_event_that_the_server_refuses_is_named_by_its_line() {
    let server = Server::start(&["--max-event-bytes", "100B"]);
    let large = format!(
        "{{\"client_event\":{{\"user_id\":\"u\",\"kind\":\"k\",\"payload\":\"{}\"}}}}\n",
        "x".repeat(200)
    );
    let lines = small(1) + "\n" + &small(3) + &large + &small(5);
    let flags = [
        "publish",
        "-",
        "--connect",
        &server.publishers,
        "--batch",
        "1",
    ];
    let output = run_with_input(&flags, &lines);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output).lines().count(), 2);
    let line = only_line(&output);
    for part in [
        "standard input, line 4: refused: INVALID_ARGUMENT",
        "2 events were accepted, up to line 3, and nothing after that",
    ] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn a_batch_is_refused_as_a_whole() {
    let server = Server::start(&["--max-event-bytes", "100B"]);
    let tail = server.tail(&[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let large = small(2).replace(
        "\"payload\":2",
        &format!("\"payload\":\"{}\"", "x".repeat(200)),
    );
    fs::write(file.path(), small(1) + &large + &small(3)).unwrap();
    let output = run(&[
        "publish",
        "--connect",
        &server.publishers,
        text(file.path()),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let line = only_line(&output);
    for part in [
        ", line 2: refused: ",
        "no event was accepted, and nothing after that",
    ] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
    // Had anything arrived, it would come before this.
    let cursors = server.publish_small(9..10);
    assert_eq!(cursor(&tail.out.next().unwrap()), cursors[0]);
}

#[test]
fn a_broken_connection_says_what_is_certain_and_what_in_doubt() {
    let mut server = Server::start(&[]);
    let mut command = galaxy_push(&["publish", "-", "--connect", &server.publishers]);
    command.stdin(Stdio::piped());
    let mut publish = Process::spawn(command);
    let mut stdin = publish.stdin();
    stdin
        .write_all((small(1) + &small(2) + &small(3)).as_bytes())
        .unwrap();
    let accepted = publish.out.take(3);
    server.process.kill();
    // It may have noticed, and closed its end.
    let _ = stdin.write_all(small(4).as_bytes());
    drop(stdin);
    assert_eq!(publish.end().code(), Some(1));
    assert_eq!(accepted.len() + publish.out.rest().len(), 3);
    let line = publish.err.rest().pop().unwrap();
    for part in [
        "galaxy-push: standard input: ",
        "; 3 events were accepted, up to line 3",
    ] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn publishing_goes_on_when_nobody_reads_the_cursors() {
    let server = Server::start(&[]);
    let tail = server.tail(&[]);
    let mut command = galaxy_push(&["publish", "-", "--connect", &server.publishers]);
    command.stdin(Stdio::piped());
    let mut publish = Process::spawn(command);
    publish.out.close();
    let lines: String = (0..1000).map(small).collect();
    publish.stdin().write_all(lines.as_bytes()).unwrap();
    assert_eq!(publish.end().code(), Some(0));
    assert_eq!(publish.err.next(), None);
    assert_eq!(tail.out.take(1000).len(), 1000);
}

#[test]
fn no_lines_are_no_events() {
    let server = Server::start(&[]);
    for input in ["", "\n  \n\r\n", "\u{feff}\r\n"] {
        let output = server.publish(input);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(stdout(&output), "");
        assert_eq!(
            only_line(&output),
            "galaxy-push: standard input: it has no event"
        );
    }
}

#[test]
fn what_other_tools_write_is_published() {
    let server = Server::start(&[]);
    let tail = server.tail(&[]);
    let ours = concat!(
        r#"{"client_event":{"user_id":"u","kind":"k","payload_base64":"+/8=","trace_id":"t"}}"#,
        "\n",
        r#"{"session_invalidation":{"user_id":"u","device_session_id":"s"}}"#,
        "\n",
    );
    let others = concat!(
        "\u{feff}",
        r#"{"clientEvent":{"userId":"u","kind":"k","payloadBase64":"-_8","traceId":"t"},"sessionInvalidation":null}"#,
        "\r\n\r\n",
        r#"{"sessionInvalidation":{"userId":"u","deviceSessionId":"s","reason":null}}"#,
        "\r\n",
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), others).unwrap();
    assert!(server.publish(ours).status.success());
    assert!(server.publish(others).status.success());
    let output = run(&[
        "publish",
        "--connect",
        &server.publishers,
        text(file.path()),
    ]);
    assert!(output.status.success(), "{output:?}");
    let events: Vec<_> = tail.out.take(6).iter().map(|line| event(line)).collect();
    assert_eq!(events[..2], events[2..4], "from standard input");
    assert_eq!(events[..2], events[4..], "from a file");
}

#[test]
fn what_is_not_json_lines_is_named_and_not_published() {
    let server = Server::start(&[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let utf16: Vec<u8> = ("\u{feff}".to_owned() + &small(1))
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let array = format!("[{}]\n", small(1).trim_end());
    let twice = small(1).trim_end().repeat(2);
    for (input, parts) in [
        (utf16.as_slice(), [", line 1: ", "UTF-16 and must be UTF-8"]),
        (array.as_bytes(), [", line 1: ", "an array"]),
        (b"{\n}\n", [", line 1: ", "does not end on this line"]),
        (
            twice.as_bytes(),
            [", line 1, column 57: ", "on a line of its own"],
        ),
    ] {
        fs::write(file.path(), input).unwrap();
        let output = run(&[
            "publish",
            "--connect",
            &server.publishers,
            text(file.path()),
        ]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stdout(&output), "");
        let line = only_line(&output);
        for part in parts {
            assert!(line.contains(part), "{part:?} is not in {line:?}");
        }
        assert!(
            line.ends_with("; no event was accepted before it"),
            "{line}"
        );
    }
}
