//! SIGHUP: everything is read again, and takes effect as a whole or not at all.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::process::{Server, text};

const ADDRESSES: &str = "listen = \"127.0.0.1:0\"\npublish_listen = \"127.0.0.1:0\"\n";

/// A server with a configuration file.
struct Configured {
    server: Server,
    directory: TempDir,
    file: PathBuf,
}

impl Configured {
    /// `settings` begin at line 3.
    fn start(settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("galaxy-push.toml");
        fs::write(&file, format!("{ADDRESSES}{settings}")).unwrap();
        let server = Server::start_with(&["serve", "--config", text(&file)]);
        Configured {
            server,
            directory,
            file,
        }
    }

    fn reload(&self, settings: &str) {
        fs::write(&self.file, format!("{ADDRESSES}{settings}")).unwrap();
        self.server.process.signal(Signal::HUP);
    }

    fn find(&self, line: &str) -> String {
        self.server.process.err.find(line)
    }

    /// Whether a gateway that has this cursor resumes.
    fn resumes_at(&self, cursor: &str) -> bool {
        let flags = ["--id", "resumes", "--cursor", cursor];
        let tail = self.server.tail_at_once(&flags);
        let line = tail.err.find("subscribed as ");
        let resumes = line.contains("going on after");
        assert!(resumes || line.contains("(expired)"), "{line}");
        resumes
    }

    fn is_refused(&self, id: &str) {
        let tail = self.server.tail_at_once(&["--id", id]);
        tail.err.find("RESOURCE_EXHAUSTED");
    }
}

#[test]
fn settings_that_can_change_do_and_the_others_are_named() {
    let configured = Configured::start("window = \"1h\"\nmax_subscribers = 5\n");
    let cursors = configured.server.publish_small(0..3);
    assert!(configured.resumes_at(&cursors[0]));

    configured.reload(
        "window = \"0\"\nmax_subscribers = 1\nmax_events = 7\nlog_format = \"json\"\n\
         max_producers = 3\n",
    );
    let line = configured.find("configuration reloaded");
    assert!(line.contains("changed window, max_subscribers"), "{line}");
    let line = configured.find("until a restart");
    assert!(
        line.contains(": max_events, max_producers, log_format"),
        "{line}"
    );
    assert!(!configured.resumes_at(&cursors[0]));
    let _a = configured.server.tail(&["--id", "a"]);
    configured.is_refused("b");

    // Up to what it was at the start, and not beyond.
    configured.reload("max_subscribers = 6\n");
    let line = configured.find("until a restart");
    assert!(line.ends_with(": max_subscribers"), "{line}");
    configured.reload("max_subscribers = 5\n");
    configured.find("changed max_subscribers");
    configured.server.tail(&["--id", "b"]);
}

#[test]
fn if_anything_is_wrong_nothing_changes_and_one_line_says_where() {
    let configured = Configured::start("max_subscribers = 1\nwindow = \"1h\"\n");
    let cursors = configured.server.publish_small(0..3);
    let file = text(&configured.file).to_owned();
    let missing = configured.directory.path().join("nobody.toml");
    for (wrong, wanted) in [
        ("windwo = \"1m\"\n", "4: unknown key `windwo`".to_owned()),
        (
            "max_bytes = \"1KiB\"\n",
            "4: max_event_bytes: one event".to_owned(),
        ),
        ("log = \"a=b=c\"\n", "4: log: \"a=b=c\"".to_owned()),
        (
            "listen = \"127.0.0.1:1\"\n",
            "4: duplicate key `listen`".to_owned(),
        ),
        (
            "access = \"nobody.toml\"\n",
            format!("4: access: {}: ", text(&missing)),
        ),
        (
            "max_subscribers = 999999999\n",
            "4: max_subscribers: is 999999999".to_owned(),
        ),
        ("publish_listen", "4: ".to_owned()),
    ] {
        configured.reload(&format!("window = \"0\"\n{wrong}"));
        let line = configured.find("not reloaded, the earlier one stays in force: ");
        assert!(line.contains(&format!("{file}:{wanted}")), "{line}");
    }
    assert!(configured.resumes_at(&cursors[0]));
    // And it still can.
    configured.reload("window = \"0\"\n");
    configured.find("configuration reloaded");
    assert!(!configured.resumes_at(&cursors[0]));
}

#[test]
fn the_log_filter_changes_unless_a_flag_has_it() {
    let configured = Configured::start("log = \"info\"\n");
    configured.reload("log = \"debug\"\n");
    let line = configured.find("configuration reloaded");
    assert!(line.ends_with("changed log"), "{line}");
    drop(configured.server.tail(&["--id", "seen"]));
    // That connections end is told at this level.
    configured.find("DEBUG");
    configured.reload("log = \"error\"\n");
    configured.reload("log = \"error\"\nwindow = 5\n");
    let line = configured.find("not reloaded");
    assert!(line.contains("ERROR"), "{line}");
}

#[test]
fn another_access_file_takes_effect_at_once_and_none_needs_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let access = |name: &str, principal: &str| {
        let path = directory.path().join(name);
        let uid = rustix::process::getuid().as_raw();
        let rules = format!("[[principal]]\nname = \"{principal}\"\nunix_uid = {uid}\n");
        fs::write(&path, rules).unwrap();
        format!("access = \"{}\"\n", path.display())
    };
    let (one, other) = (access("one", "one"), access("other", "other"));
    let configured = Configured::start(&one);
    configured.reload(&other);
    configured.find("access file reloaded: 1 principals");
    let line = configured.find("configuration reloaded");
    assert!(line.ends_with("changed access"), "{line}");
    configured.reload("");
    let line = configured.find("until a restart");
    assert!(line.ends_with(": access"), "{line}");
}

#[test]
fn without_a_file_the_signal_reads_the_other_files_again() {
    let server = Server::start(&[]);
    server.process.signal(Signal::HUP);
    let line = server.process.err.find("configuration reloaded");
    assert!(line.ends_with("no setting has changed"), "{line}");
}
