//! The configuration file: what is read, what is refused and where, and what is shown.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use galaxy_push::config::Setting;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::{Process, galaxy_push, only_line, run, stdout, text};

/// A directory with a configuration file.
struct File {
    directory: TempDir,
    path: PathBuf,
}

impl File {
    fn new(content: impl AsRef<[u8]>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("galaxy-push.toml");
        fs::write(&path, content).unwrap();
        File { directory, path }
    }

    fn path(&self) -> &str {
        text(&self.path)
    }

    fn check(&self) -> Output {
        run(&["config", "check", self.path()])
    }

    /// What the check says is wrong, without the file's name.
    fn faults(&self) -> Vec<String> {
        let output = self.check();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stdout.is_empty());
        let prefix = format!("galaxy-push: {}:", self.path());
        let lines = String::from_utf8(output.stderr).unwrap();
        let without = |line: &str| match line.strip_prefix(&prefix) {
            Some(rest) => rest.to_owned(),
            None => panic!("{line}"),
        };
        lines.lines().map(without).collect()
    }
}

/// `config show --json`, with `GALAXY_PUSH_ADMIN_LISTEN` as the tests set it.
fn shown(args: &[&str], variables: &[(&str, &str)]) -> BTreeMap<String, Value> {
    let output = galaxy_push(&["config", "show", "--json"])
        .args(args)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A line for each setting, none of them the default.
const EVERY_KEY: &str = r#"listen = "[::1]:1"
publish_listen = "unix:/p"
admin_listen = "none"
admin_hosts = ["a", "*.b"]
tls_cert = "/c"
tls_key = "/k"
tls_client_ca = "/ca"
access = "/access.toml"
allow_anonymous = true
allow_plaintext = "yes"
max_events = 0x10
max_bytes = "3MiB"
max_event_bytes = 4_096
allow_large_events = true
window = "5s"
max_subscribers = "6"
max_revocations = 8
revocation_retention = "9h"
max_lease = "14s"
max_producers = 7
stall_timeout = "7m"
shutdown_grace = "8ms"
shutdown_delay = "0"
delay_bounds = "1ms,2s"
delivery = "latency"
backbone = ["nats://a:1", "b"]
backbone_stream = "S"
backbone_creds = "/creds"
backbone_tls_ca = "/nats-ca"
backbone_replicas = 3
backbone_storage = "memory"
backbone_max_age = "15s"
backbone_max_bytes = "16MiB"
backbone_stale_after = "17s"
worker_threads = 9
log = "warn"
log_format = "json"
"#;

#[test]
fn every_setting_is_a_key_and_its_line_is_known() {
    let file = File::new(EVERY_KEY);
    let mut command = galaxy_push(&["config", "show", "--json", "--config", file.path()]);
    command.env_remove("GALAXY_PUSH_ADMIN_LISTEN");
    let output = command.output().unwrap();
    let shown: BTreeMap<String, Value> = serde_json::from_slice(&output.stdout).unwrap();
    for (at, line) in EVERY_KEY.lines().enumerate() {
        let (key, _) = line.split_once(" = ").unwrap();
        assert_eq!(shown[key]["source"], "file", "{key}");
        assert_eq!(shown[key]["file"], file.path(), "{key}");
        assert_eq!(shown[key]["line"], at + 1, "{key}");
    }
    assert_eq!(shown.len(), EVERY_KEY.lines().count());
    for setting in Setting::ALL {
        assert!(shown.contains_key(setting.name()), "{}", setting.name());
    }
    for (key, value) in [
        ("max_events", Value::from(16)),
        ("max_event_bytes", Value::from(4096)),
        ("max_subscribers", Value::from(6)),
        ("allow_plaintext", Value::from(true)),
        ("admin_hosts", Value::from(vec!["a", "*.b"])),
        ("delay_bounds", Value::from(vec!["1ms", "2s"])),
    ] {
        assert_eq!(shown[key]["value"], value, "{key}");
    }
}

#[test]
fn what_is_shown_is_a_configuration_file_with_the_same_settings() {
    let file = File::new(EVERY_KEY);
    let first = stdout(&run(&["config", "show", "--config", file.path()]));
    let again = File::new(&first);
    let values = |path: &str| -> BTreeMap<String, Value> {
        let shown = shown(&["--config", path], &[]).into_iter();
        shown.map(|(key, of)| (key, of["value"].clone())).collect()
    };
    assert_eq!(values(file.path()), values(again.path()));
    let line = format!("window = \"5s\"  # {}:15", file.path());
    assert!(first.lines().any(|of| of == line), "{first}");
    let defaults = stdout(&run(&["config", "show"]));
    for line in [
        "max_events = 1048576  # default",
        "max_bytes = \"256MiB\"  # default",
        "# tls_cert is not set  # default",
        "log = \"info\"  # default",
    ] {
        assert!(defaults.lines().any(|of| of == line), "{line}: {defaults}");
    }
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let file = File::new(
        "window = \"1m\"\nmax_events = 1\nmax_bytes = \"1MiB\"\nallow_plaintext = true\n\
         log = \"error\"\n",
    );
    let shown = shown(
        &["--config", file.path(), "--window", "3m"],
        &[
            ("GALAXY_PUSH_WINDOW", "2m"),
            ("GALAXY_PUSH_MAX_EVENTS", "2"),
            ("GALAXY_PUSH_ALLOW_PLAINTEXT", "no"),
            ("RUST_LOG", "debug"),
        ],
    );
    for (key, value, source) in [
        ("window", Value::from("3m"), "flag"),
        ("max_events", Value::from(2), "environment"),
        ("allow_plaintext", Value::from(false), "environment"),
        ("log", Value::from("debug"), "environment"),
        ("max_bytes", Value::from("1MiB"), "file"),
        ("stall_timeout", Value::from("30s"), "default"),
    ] {
        assert_eq!(shown[key]["value"], value, "{key}");
        assert_eq!(shown[key]["source"], source, "{key}");
    }
    assert_eq!(shown["window"]["flag"], "--window");
    assert_eq!(shown["max_events"]["variable"], "GALAXY_PUSH_MAX_EVENTS");
    assert_eq!(shown["log"]["variable"], "RUST_LOG");
    assert_eq!(shown["max_bytes"]["line"], 3);
}

#[test]
fn a_fault_has_its_line_its_key_and_what_is_wrong() {
    for (content, wanted) in [
        (
            "\nmax-events = 5",
            "2: unknown key `max-events`: did you mean `max_events`?",
        ),
        (
            "# x\n\nwindwo = \"5m\"",
            "3: unknown key `windwo`: did you mean `window`?",
        ),
        (
            "completely_else = 1",
            "1: unknown key `completely_else`: known are ",
        ),
        ("[serve]\nwindow = \"5m\"", "1: unknown key `serve`: "),
        ("window = 5", "1: window: \"5\": not a duration"),
        (
            "window = 1979-05-27",
            "1: window: it must be a string, not a TOML ",
        ),
        (
            "window = [\"5m\"]",
            "1: window: it must be a string, not a TOML array",
        ),
        (
            "window.a = \"5m\"",
            "1: window: it must be a string, not a TOML table",
        ),
        (
            "max_events = -1",
            "1: max_events: \"-1\": not a whole number",
        ),
        (
            "max_events = 1.5",
            "1: max_events: \"1.5\": not a whole number",
        ),
        ("max_events = 0", "1: max_events: it must be at least 1"),
        (
            "allow_plaintext = \"perhaps\"",
            "1: allow_plaintext: \"perhaps\": ",
        ),
        (
            "allow_plaintext = [true]",
            "1: allow_plaintext: it must be true or false",
        ),
        (
            "listen = \"nowhere\"",
            "1: listen: \"nowhere\": it has no port",
        ),
        ("access = \"\"", "1: access: \"\": it is empty"),
        (
            "admin_hosts = [\"a\", [\"b\"]]",
            "1: admin_hosts: it must be an array of strings",
        ),
        (
            "admin_hosts = [\"a b\"]",
            "1: admin_hosts: \"a b\" is not a host name",
        ),
        (
            "delay_bounds = []",
            "1: delay_bounds: there must be 1 to 64 of them",
        ),
        (
            "delay_bounds = [\"1s\", \"x\"]",
            "1: delay_bounds: \"x\": not a duration",
        ),
        (
            "delivery = \"fast\"",
            "1: delivery: \"fast\": it is one of auto, latency",
        ),
        (
            "log_format = \"xml\"",
            "1: log_format: \"xml\": it is one of text and json",
        ),
        ("\nlog = \"a=b=c\"", "2: log: \"a=b=c\": "),
        (
            "window = \"1m\"\nwindow = \"2m\"",
            "2: duplicate key `window`",
        ),
        ("window = \"1m", "1: "),
        (
            "max_subscribers = 999999999",
            "1: max_subscribers: is 999999999, it can be from 1 to ",
        ),
        // Two settings that do not go together.
        (
            "\n\nmax_bytes = \"1KiB\"",
            "3: max_event_bytes: one event of 65536 bytes would not fit",
        ),
        (
            "\ntls_cert = \"/c\"",
            "2: tls_cert: it is of no use without tls_key",
        ),
        (
            "listen = \"0.0.0.0:1\"\nallow_anonymous = true",
            "1: listen: 0.0.0.0:1 is not on loopback and has no TLS: ",
        ),
    ] {
        let file = File::new(content);
        let faults = file.faults();
        assert!(faults[0].starts_with(wanted), "{content:?}: {faults:?}");
        assert_eq!(faults.len(), 1, "{content:?}: {faults:?}");
        // And with the same words at the start.
        let output = run(&["serve", "--config", file.path()]);
        assert_eq!(output.status.code(), Some(2), "{content:?}");
        let line = only_line(&output);
        let wanted = format!("galaxy-push: {}:{wanted}", file.path());
        assert!(line.starts_with(&wanted), "{line}");
    }
}

#[test]
fn the_check_tells_every_fault_that_can_be_found() {
    let file = File::new(
        "windwo = \"5m\"\nmax_events = -1\naccess = \"nobody.toml\"\n\
         tls_cert = \"c.pem\"\ntls_key = \"k.pem\"\nlog = \"a=b=c\"\n",
    );
    let faults = file.faults();
    let missing = |name: &str| file.directory.path().join(name).display().to_string();
    for (line, parts) in [
        (1, vec!["unknown key `windwo`".to_owned()]),
        (2, vec!["max_events: \"-1\"".to_owned()]),
        (3, vec!["access: ".to_owned(), missing("nobody.toml")]),
        (4, vec!["tls_cert: ".to_owned(), missing("c.pem")]),
        (6, vec!["log: ".to_owned()]),
    ] {
        let fault = faults
            .iter()
            .find(|of| of.starts_with(&format!("{line}: ")));
        let fault = fault.unwrap_or_else(|| panic!("line {line}: {faults:?}"));
        assert!(parts.iter().all(|part| fault.contains(part)), "{fault}");
    }
    assert_eq!(faults.len(), 5, "{faults:?}");
    // Of TOML's own mistakes, too.
    let file = File::new("listen = \nwindow = \"5m\"\n= 7\n");
    let lines: Vec<_> = file.faults().iter().map(|of| of[..2].to_owned()).collect();
    assert_eq!(lines, ["1:", "3:"]);
}

#[test]
fn a_good_file_is_ok_whatever_flags_and_environment_say() {
    let file = File::new("window = \"5m\"\n");
    let output = galaxy_push(&["config", "check", file.path()])
        .env("GALAXY_PUSH_MAX_EVENTS", "many")
        .env("GALAXY_PUSH_CONFIG", "/nonexistent/file")
        .env("RUST_LOG", "a=b=c")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout(&output), format!("{}: ok\n", file.path()));
}

#[test]
fn a_file_that_cannot_be_read_is_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::write(at("bytes"), b"window = \"5m\"\n\n\xff\n").unwrap();
    fs::write(at("large"), "#".repeat((1 << 20) + 1)).unwrap();
    for (name, reason) in [
        ("nothing", ": No such file or directory"),
        ("", ": it is not a regular file"),
        ("pipe", ": it is not a regular file"),
        ("bytes", ":3: it is not UTF-8"),
        ("large", ": it is larger than 1048576 bytes"),
    ] {
        let path = at(name);
        let wanted = format!("galaxy-push: {}{reason}", text(&path));
        for args in [["serve", "--config"], ["config", "check"]] {
            let output = galaxy_push(&args).arg(&path).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{name}");
            let line = only_line(&output);
            assert!(line.starts_with(&wanted), "{line}");
        }
    }
    // A byte order mark is none of the text.
    assert!(
        File::new("\u{feff}window = \"5m\"\n")
            .check()
            .status
            .success()
    );
}

#[test]
fn paths_are_relative_to_the_files_directory() {
    let file = File::new("access = \"access.toml\"\nlisten = \"unix:gateways.sock\"\n");
    let access = file.directory.path().join("access.toml");
    fs::write(&access, "[[principal]]\nname = 7\n").unwrap();
    let wanted = format!("1: access: {}:2: ", text(&access));
    let faults = file.faults();
    assert!(faults[0].starts_with(&wanted), "{faults:?}");
    let shown = shown(&["--config", file.path()], &[]);
    let socket = file.directory.path().join("gateways.sock");
    let address = format!("unix:{}", text(&socket));
    assert_eq!(shown["listen"]["value"], address);
}

#[test]
fn serve_runs_with_the_file_that_a_variable_names() {
    let file = File::new(
        "listen = \"127.0.0.1:0\"\npublish_listen = \"127.0.0.1:0\"\nmax_event_bytes = \"64B\"\n",
    );
    let mut command = galaxy_push(&["serve"]);
    command.env("GALAXY_PUSH_CONFIG", file.path());
    let process = Process::spawn(command);
    let line = process.err.find("listening for producers on ");
    let address = line.rsplit(' ').next().unwrap();
    let payload = "x".repeat(100);
    let args = [
        "publish",
        "--connect",
        address,
        "--user-id",
        "u",
        "--kind",
        "k",
        "--payload",
    ];
    let output = galaxy_push(&args).arg(payload).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(only_line(&output).contains("INVALID_ARGUMENT"));
}

const TABLE: &str = "<!-- flags serve -->\n\n";

/// `UPDATE_DOCS=1 cargo test --test cli -- settings_is_in_the_documents` writes it.
#[test]
fn the_table_of_the_settings_is_in_the_documents() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let document = fs::read_to_string(&path).unwrap();
    let table = stdout(&run(&["config", "table"]));
    let (before, rest) = document.split_once(TABLE).expect("the table's place");
    let (_, after) = rest.split_once("\n\n").expect("the table's end");
    let wanted = format!("{before}{TABLE}{}\n\n{after}", table.trim_end());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let is_current = fs::read_to_string(&path).unwrap() == wanted;
    assert!(
        is_current,
        "the settings have changed: run this test with UPDATE_DOCS=1"
    );
}

#[test]
fn bash_completes_a_flag_with_the_script() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("completions.bash");
    let output = run(&["completions", "bash"]);
    assert!(output.status.success());
    fs::write(&script, output.stdout).unwrap();
    // The function, as bash calls it: the command, the word, the word before it.
    let complete = r#"
        source "$1"
        function=$(complete -p galaxy-push | sed -E 's/.* -F ([^ ]+) .*/\1/')
        COMP_WORDS=(galaxy-push serve --max-ev) COMP_CWORD=2
        "$function" galaxy-push --max-ev serve
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let completed = Command::new("bash")
        .args(["-euc", complete, "bash", text(&script)])
        .output()
        .expect("bash");
    assert!(completed.stderr.is_empty(), "{completed:?}");
    let words = stdout(&completed);
    let words: Vec<&str> = words.lines().collect();
    assert_eq!(words, ["--max-events", "--max-event-bytes"]);
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success());
        assert!(stdout(&output).contains("max-event-bytes"), "{shell}");
    }
    let output = run(&["completions", "tcsh"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(only_line(&output).contains("tcsh"));
}

#[test]
fn manual_pages_are_complete_and_render_without_warnings() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("man/man1");
    let output = run(&["man", "--out", text(&out)]);
    assert!(output.status.success(), "{output:?}");
    let page = out.join("galaxy-push-config-show.1");
    assert!(page.exists());
    let serve = fs::read_to_string(out.join("galaxy-push-serve.1")).unwrap();
    for setting in Setting::ALL {
        let variable = format!("GALAXY_PUSH_{}", setting.name().to_uppercase());
        assert!(serve.contains(&variable), "{variable}");
    }
    let one = run(&["man"]).stdout;
    assert_eq!(one, fs::read(out.join("galaxy-push.1")).unwrap());
    for entry in fs::read_dir(&out).unwrap() {
        let page = entry.unwrap().path();
        let groff = Command::new("groff")
            .args(["-man", "-ww", "-Tutf8", "-z", text(&page)])
            .output();
        let Ok(rendered) = groff else {
            eprintln!("not rendered: groff is not installed (scripts/setup installs it)");
            return;
        };
        assert!(rendered.status.success(), "{rendered:?}");
        assert!(
            rendered.stderr.is_empty(),
            "{}: {rendered:?}",
            page.display()
        );
    }
}
