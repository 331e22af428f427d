//! [`LineError`]: why a line is not an event, and where in the line.

use std::fmt;

/// The byte that begins every text of a JSON text sequence.
const RECORD_SEPARATOR: u8 = 0x1E;

/// Why a line is not an event. Its text fits behind the line's number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct LineError {
    /// The character at which it was noticed, counted from 1, where there is one.
    column: Option<usize>,
    /// What is wrong, with the path of the field where it is in one.
    reason: String,
}

impl LineError {
    /// An error of the line as a whole, or of a field that `reason` names.
    pub(in crate::cli) fn new(reason: impl Into<String>) -> Self {
        LineError {
            column: None,
            reason: reason.into(),
        }
    }

    fn at(column: usize, reason: impl Into<String>) -> Self {
        LineError {
            column: Some(column),
            reason: reason.into(),
        }
    }

    /// Why `line` is not JSON of the form that was asked for. `path` is the field in
    /// which `error` was found. Tools that write something else than JSON Lines are
    /// recognised by what they write.
    pub(super) fn explain(line: &[u8], error: &serde_json::Error, path: &str) -> Self {
        if let Some(encoding) = wide_encoding(line) {
            return LineError::new(format!(
                "the input is {encoding} and must be UTF-8 (iconv -f {encoding} -t UTF-8 \
                 converts it)"
            ));
        }
        if line.first() == Some(&RECORD_SEPARATOR) {
            return LineError::at(
                1,
                "a record separator (U+001E): the input is a JSON text sequence (RFC 7464) \
                 and must be JSON Lines, without these separators",
            );
        }
        let text = match std::str::from_utf8(line) {
            Ok(text) => text,
            Err(not_utf8) => {
                let at = not_utf8.valid_up_to();
                return LineError::at(
                    column(line, at + 1),
                    format!("the byte 0x{:02X} is not UTF-8", line[at]),
                );
            }
        };
        if text.trim_ascii_start().starts_with('[') {
            return LineError::new(
                "an array: each event must be an object on a line of its own (jq -c '.[]' \
                 takes an array apart)",
            );
        }
        if error.is_eof() {
            return LineError::new(
                "the object does not end on this line: each event must be on one line (jq -c . \
                 puts it there)",
            );
        }
        let message = error.to_string();
        // serde_json counts lines too, but knows of this one alone.
        let place = format!(" at line {} column {}", error.line(), error.column());
        let reason = match message.strip_suffix(&place).unwrap_or(&message) {
            "trailing characters" => {
                "something follows the object: each event must be on a line of its own"
            }
            "unexpected end of hex escape" | "lone leading surrogate in hex escape" => {
                "a \\u escape of a lone surrogate, which is not a character"
            }
            other => other,
        };
        LineError {
            column: (error.column() > 0).then(|| column(line, error.column())),
            reason: match path {
                "" => reason.to_owned(),
                path => format!("{path}: {reason}"),
            },
        }
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(column) = self.column {
            write!(f, ", column {column}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// The column of the character that has the line's byte number `byte`, both counted
/// from 1.
fn column(line: &[u8], byte: usize) -> usize {
    let continues = |byte: &&u8| **byte & 0b1100_0000 == 0b1000_0000;
    let before = &line[..byte.min(line.len())];
    before.len() - before.iter().filter(continues).count()
}

/// The encoding of a text in units of two or four bytes: by its byte order mark, or by
/// the zero bytes of its first character. A line of JSON begins with an ASCII
/// character, and has no zero byte in UTF-8.
fn wide_encoding(line: &[u8]) -> Option<&'static str> {
    match line {
        [0xFF, 0xFE, 0, 0, ..] => Some("UTF-32"),
        [0, 0, 0xFE, 0xFF, ..] => Some("UTF-32"),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => Some("UTF-16"),
        [0, 0, 0, 1..=0xFF, ..] => Some("UTF-32BE"),
        [1..=0xFF, 0, 0, 0, ..] => Some("UTF-32LE"),
        [0, 1..=0xFF, ..] => Some("UTF-16BE"),
        [1..=0xFF, 0, ..] => Some("UTF-16LE"),
        _ => None,
    }
}
