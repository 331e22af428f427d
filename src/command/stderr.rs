//! One line to whoever runs the command.

use std::io::Write as _;

use super::text::visible;

/// Writes one line to standard error, after the program's name. Texts of
/// strangers may be in it, so that what a terminal would obey is written as escapes. If
/// standard error is closed, nobody wants to know.
pub(crate) fn say(message: &str) {
    let line = format!("galaxy-push: {}\n", visible(message));
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}
