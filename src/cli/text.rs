//! Figures, times and tables, for people who read them in a terminal.

use std::fmt::Write as _;
use std::time::Duration;

/// Text of others, with nothing in it that a terminal would take for more than a text.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_plain(character) {
            shown.push(character);
        } else {
            let _ = write!(shown, "{}", character.escape_default());
        }
    }
    shown
}

/// Not a control character, and none of those that turn or hide the text around them.
fn is_plain(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

/// A number in groups of three digits.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate, to three digits.
pub(super) fn rate(n: f64) -> String {
    if n >= 100.0 {
        count(n.round() as u64)
    } else if n >= 10.0 {
        format!("{n:.1}")
    } else if n > 0.0 {
        format!("{n:.2}")
    } else {
        "0".to_owned()
    }
}

/// A number of bytes in its unit.
pub(super) fn bytes(n: f64) -> String {
    let (mut n, mut unit) = (n.max(0.0), "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if n < 1024.0 {
            break;
        }
        (n, unit) = (n / 1024.0, larger);
    }
    match unit {
        "B" => format!("{n:.0} B"),
        _ if n < 10.0 => format!("{n:.2} {unit}"),
        _ if n < 100.0 => format!("{n:.1} {unit}"),
        _ => format!("{n:.0} {unit}"),
    }
}

/// A time in its two largest units, or in one below a minute.
pub(super) fn seconds(seconds: f64) -> String {
    let at_most = Duration::from_secs(1 << 40).as_secs_f64();
    let seconds = if seconds.is_finite() {
        seconds.clamp(0.0, at_most)
    } else {
        0.0
    };
    let whole = seconds as u64;
    match whole {
        0 if seconds == 0.0 => "0 s".to_owned(),
        0 if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        0 => format!("{:.1} ms", seconds * 1e3),
        1..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// Rows under a head, in columns as wide as they need; those of numbers to the right.
pub(super) fn table(head: &[(&str, Side)], rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(at, (name, _))| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| width(cell)).chain([width(name)]).max()
        })
        .map(Option::unwrap_or_default)
        .collect();
    let names = head.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut text = String::new();
    for row in [&names].into_iter().chain(rows) {
        let mut line = String::new();
        for ((cell, (_, side)), columns) in row.iter().zip(head).zip(&widths) {
            let space = " ".repeat(columns - width(cell).min(*columns));
            match side {
                Side::Left => line.push_str(&format!("{cell}{space}")),
                Side::Right => line.push_str(&format!("{space}{cell}")),
            }
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Where a column's texts stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_their_units() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1234567), "1,234,567");
        assert_eq!(
            [rate(0.0), rate(0.5), rate(12.34), rate(1234.5)],
            ["0", "0.50", "12.3", "1,235"]
        );
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(1536.0), "1.50 KiB");
        assert_eq!(bytes(256.0 * 1024.0 * 1024.0), "256 MiB");
        for (s, wanted) in [
            (0.0, "0 s"),
            (0.000_05, "50 µs"),
            (0.012, "12.0 ms"),
            (59.94, "59.9 s"),
            (61.0, "1 min 1 s"),
            (7260.0, "2 h 1 min"),
            (180_000.0, "2 d 2 h"),
            (f64::NAN, "0 s"),
            (-1.0, "0 s"),
        ] {
            assert_eq!(seconds(s), wanted);
        }
    }

    #[test]
    fn columns_are_as_wide_as_they_need() {
        let head = [("ID", Side::Left), ("LAG", Side::Right)];
        let rows = [
            vec!["gateway-1".to_owned(), "5".to_owned()],
            vec!["ü".to_owned(), "1,000".to_owned()],
        ];
        assert_eq!(
            table(&head, &rows),
            "ID           LAG\ngateway-1      5\nü          1,000\n"
        );
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(visible("a\x1b[2Jb\n\u{202e}ü"), "a\\u{1b}[2Jb\\n\\u{202e}ü");
    }
}
