//! What errors in our TOML files have in common: their lines, and the key that was meant.

use std::ops::Range;

/// So many characters of a word count when others are compared with it.
const COMPARED: usize = 64;
/// So many characters of a key are shown.
const SHOWN: usize = 40;

/// Where the lines of a text begin.
pub(crate) struct Lines(Vec<usize>);

impl Lines {
    pub(crate) fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Lines(ends.map(|(at, _)| at + 1).collect())
    }

    /// The line, counted from 1, of a place in the text.
    pub(crate) fn at(&self, span: Range<usize>) -> usize {
        self.0.partition_point(|begin| *begin <= span.start) + 1
    }
}

/// The line, counted from 1, of the first byte that is not UTF-8.
pub(crate) fn line_of(bytes: &[u8], error: std::str::Utf8Error) -> usize {
    let before = bytes.iter().take(error.valid_up_to());
    before.filter(|byte| **byte == b'\n').count() + 1
}

/// The known word that somebody may have meant.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word: String = word.chars().take(COMPARED).collect();
    let near = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&word, known), *known))
        .min_by_key(|(distance, _)| *distance);
    near.filter(|(distance, known)| *distance <= known.len() / 3 + 1)
        .map(|(_, known)| known)
}

/// What to say of a key that is not known.
pub(crate) fn unknown_key(key: &str, known: &[&str]) -> String {
    let hint = nearest(key, known).map_or_else(
        || format!("known are {}", known.join(", ")),
        |near| format!("did you mean `{near}`?"),
    );
    format!("unknown key `{}`: {hint}", shown(key))
}

/// A key as an error may show it: somebody may have put anything in its place.
pub(crate) fn shown(text: &str) -> String {
    let mut characters = text.chars();
    let first: String = characters.by_ref().take(SHOWN).collect();
    let mut shown: String = first.escape_debug().collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_from_1() {
        let lines = Lines::of("a\nbc\n\nd");
        for (at, line) in [(0, 1), (1, 1), (2, 2), (4, 2), (5, 3), (6, 4)] {
            assert_eq!(lines.at(at..at + 1), line, "{at}");
        }
    }

    #[test]
    fn the_nearest_word_is_found_if_it_is_near() {
        let known = ["max_events", "max_bytes", "window"];
        for (word, near) in [
            ("max-events", Some("max_events")),
            ("max_byte", Some("max_bytes")),
            ("windwo", Some("window")),
            ("listen", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &known), near, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), &known), None);
    }

    #[test]
    fn keys_are_shown_short_and_without_control_characters() {
        assert_eq!(shown("a\nb\u{1b}"), "a\\nb\\u{1b}");
        assert_eq!(shown(&"é".repeat(41)), format!("{}…", "é".repeat(40)));
    }
}
