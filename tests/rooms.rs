//! Which room of `src/` may know which: the directions of the house, held
//! against what the files really name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every room, and the rooms that its files may name besides their own.
const ROOMS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &[]),
    // What everybody may know.
    ("cursor", &[]),
    ("clock", &[]),
    ("contract", &["cursor"]),
    ("event", &["cursor"]),
    ("prefetch", &[]),
    ("open_files", &[]),
    ("config", &["contract", "cursor"]),
    ("access", &["config", "contract", "event"]),
    ("activation", &["config"]),
    ("audit", &["access", "telemetry"]),
    (
        "telemetry",
        &[
            "access",
            "clock",
            "config",
            "contract",
            "cursor",
            "engine",
            "event",
            "freshness",
            "receipts",
            "spans",
        ],
    ),
    ("spans", &["contract", "cursor", "event"]),
    (
        "admin",
        &[
            "access",
            "activation",
            "audit",
            "config",
            "contract",
            "cursor",
            "engine",
            "event",
            "listening",
            "telemetry",
            "tls",
        ],
    ),
    (
        "health",
        &["admin", "cursor", "engine", "event", "freshness"],
    ),
    ("tls", &["access"]),
    // The engine, without I/O.
    ("revocations", &["event"]),
    ("receipts", &["clock"]),
    (
        "engine",
        &["clock", "cursor", "event", "prefetch", "revocations"],
    ),
    // The edge: transport and grpc know a trait, and not each other.
    ("http2", &[]),
    ("service", &["access", "http2"]),
    ("listening", &[]),
    (
        "transport",
        &[
            "access",
            "activation",
            "config",
            "http2",
            "listening",
            "prefetch",
            "service",
            "telemetry",
            "tls",
        ],
    ),
    ("freshness", &[]),
    (
        "backbone",
        &[
            "config",
            "contract",
            "cursor",
            "engine",
            "event",
            "freshness",
        ],
    ),
    (
        "grpc",
        &[
            "access",
            "audit",
            "backbone",
            "config",
            "contract",
            "cursor",
            "engine",
            "event",
            "freshness",
            "health",
            "http2",
            "receipts",
            "service",
            "spans",
            "telemetry",
        ],
    ),
    (
        "server",
        &[
            "access",
            "activation",
            "admin",
            // Also the target of its log lines.
            "audit",
            "backbone",
            "config",
            "cursor",
            "engine",
            "freshness",
            "grpc",
            "health",
            "listening",
            "open_files",
            "spans",
            "telemetry",
            "tls",
            "transport",
        ],
    ),
    // The gateway's side.
    ("client", &["config", "contract", "cursor", "event", "tls"]),
    (
        "gateway",
        &["client", "clock", "contract", "cursor", "event", "prefetch"],
    ),
    // What commands share, and the lab, which sees a server from outside.
    ("command", &["client", "config", "tls"]),
    (
        "lab",
        &[
            // Connections, and what a status says: the conformance kit's gateways have them.
            "client",
            "command",
            "config",
            "contract",
            "cursor",
            "http2",
            "open_files",
            "tls",
        ],
    ),
    (
        "cli",
        &[
            "activation",
            "admin",
            // The target of its log lines.
            "audit",
            "client",
            "command",
            "config",
            "contract",
            "cursor",
            "engine",
            "lab",
            "server",
            "tls",
        ],
    ),
];

/// The rooms that a source text names: what follows `crate::`, `galaxy_push::`
/// or a run of `super::`, groups in braces included. Comments do not count (a
/// link in the documentation is no dependency), nor do the tests at the bottom,
/// which stand outside and may use what they like.
fn named_rooms(source: &str, own_modules: &BTreeSet<String>) -> BTreeSet<String> {
    let product = source.split("\nmod tests {").next().unwrap_or_default();
    let code: String = product
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut rooms = BTreeSet::new();
    for root in ["crate::", "galaxy_push::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let longer_word = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if !longer_word {
                let names = first_names(&code[at + root.len()..]);
                // Above a file of a room are the room's own modules.
                let is_own = |name: &String| root == "super::" && own_modules.contains(name);
                rooms.extend(names.into_iter().filter(|name| !is_own(name)));
            }
        }
    }
    rooms
}

/// The first name of a path, or of each path of a group in braces.
fn first_names(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        return vec![first_word(path)];
    };
    let mut names = vec![first_word(group)];
    let mut depth = 0;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(first_word(&group[at + 1..])),
            _ => {}
        }
    }
    names
}

fn first_word(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// What is wrong with a file of `room` that has this text: each room that it
/// names and may not. A module of the room itself may be called like a room.
fn trespasses(room: &str, source: &str, own_modules: &BTreeSet<String>) -> Vec<String> {
    let (_, allowed) = ROOMS
        .iter()
        .find(|(name, _)| *name == room)
        .unwrap_or_else(|| panic!("src/ has a room `{room}` that tests/rooms.rs does not know"));
    named_rooms(source, own_modules)
        .into_iter()
        .filter(|named| ROOMS.iter().any(|(name, _)| name == named))
        .filter(|named| named != room && !allowed.contains(&named.as_str()))
        .collect()
}

/// The product's files under a folder: the tests that have a file or a folder of their
/// own are left out, like those at the bottom of a file.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of src/") {
        let path = entry.expect("an entry of src/").path();
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
        if is_test {
            continue;
        }
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The names of all modules in a room, at any depth; a room of one file has none.
fn modules(room: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(room) else {
        return BTreeSet::new();
    };
    let mut names = BTreeSet::new();
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        names.extend(
            path.file_stem()
                .and_then(|stem| stem.to_str())
                .map(String::from),
        );
        names.extend(modules(&path));
    }
    names
}

#[test]
fn no_room_knows_one_that_it_must_not_know() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(&src) {
        let inside = file.strip_prefix(&src).expect("found under src/");
        let room = inside
            .iter()
            .next()
            .and_then(|first| Path::new(first).file_stem())
            .and_then(|stem| stem.to_str())
            .expect("rooms have plain names");
        let own_modules = modules(&src.join(room));
        let source = fs::read_to_string(&file).expect("a readable source file");
        for named in trespasses(room, &source, &own_modules) {
            wrong.push(format!("src/{} names `{named}`", inside.display()));
        }
        seen.insert(room.to_owned());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (room, _) in ROOMS {
        assert!(seen.contains(*room), "src/ has no room `{room}` any more");
    }
}

#[test]
fn a_wrong_line_is_found_in_every_form_it_can_have() {
    for line in [
        "use crate::grpc::Push;",
        "use crate::{cursor::Cursor, grpc::Push};",
        "use crate::{\n    cursor::{Cursor, Seq},\n    grpc,\n};",
        "use super::super::grpc::Push;",
        "fn f() -> crate::grpc::Push { todo!() }",
    ] {
        assert_eq!(
            trespasses("engine", line, &BTreeSet::new()),
            ["grpc"],
            "{line}"
        );
    }
}

#[test]
fn right_lines_and_comments_are_let_through() {
    for line in [
        "use crate::{cursor::Cursor, event::Event};",
        "use crate::engine::ring::Ring;",
        "//! An [`grpc`](crate::grpc) serves it.",
        "use std::{fmt, server::Nothing};",
        "use super::ring::Ring;",
        "pub(crate) fn grpc() {}",
        "#[cfg(test)]\nmod tests {\n    use crate::grpc::Push;\n}",
    ] {
        assert!(
            trespasses("engine", line, &BTreeSet::new()).is_empty(),
            "{line}"
        );
    }
}
