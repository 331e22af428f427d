//! One line to whoever runs the command.

use std::fmt::Write as _;
use std::io::Write as _;

/// Writes one line to standard error, after the program's name. Texts of
/// strangers may be in it, so that control characters are written as escapes. If
/// standard error is closed, nobody wants to know.
pub(crate) fn say(message: &str) {
    let mut line = String::from("galaxy-push: ");
    for character in message.chars() {
        if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
            let _ = write!(line, "{}", character.escape_default());
        } else {
            line.push(character);
        }
    }
    line.push('\n');
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}
