//! Numbers, times, sizes and tables, for people who read them in a terminal; and texts of
//! others.

use std::fmt::Write as _;

/// Text of others, with nothing in it that a terminal would take for more than a text.
pub(crate) fn visible(text: &str) -> String {
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

/// A whole number, in groups of three digits.
pub(crate) fn count(number: u64) -> String {
    grouped(&number.to_string())
}

/// A number, in groups of three digits; small ones with a decimal.
pub(crate) fn number(number: f64) -> String {
    if number != 0.0 && number.abs() < 100.0 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let sign = if number < 0.0 { "-" } else { "" };
    format!("{sign}{}", grouped(&format!("{:.0}", number.abs())))
}

fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time, in the largest unit up to seconds of which there is at least one.
pub(crate) fn nanos(nanos: f64) -> String {
    let (number, unit) = match nanos {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    format!("{} {unit}", three_digits(number))
}

/// A time that may be long: in its two largest units, or in one below a minute.
pub(crate) fn seconds(seconds: f64) -> String {
    // What is no number is no time either.
    let seconds = seconds.max(0.0);
    let whole = seconds as u64;
    match whole {
        0 if seconds == 0.0 => "0 s".to_owned(),
        0..60 => nanos(seconds * 1e9),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// A size, in the largest unit of which there is at least one.
pub(crate) fn bytes(bytes: f64) -> String {
    let (mut number, mut unit) = (bytes, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if number.abs() < 1024.0 {
            break;
        }
        (number, unit) = (number / 1024.0, larger);
    }
    match unit {
        "B" => format!("{number:.0} B"),
        _ => format!("{} {unit}", three_digits(number)),
    }
}

fn three_digits(number: f64) -> String {
    match number.abs() {
        n if n >= 100.0 => format!("{number:.0}"),
        n if n >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// Rows under a head, in columns as wide as they need; those of numbers to the right.
pub(crate) fn table(head: &[(&str, Side)], rows: &[Vec<String>]) -> String {
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
            line += &match side {
                Side::Left => format!("{cell:<columns$}  "),
                Side::Right => format!("{cell:>columns$}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Where a column's texts stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!([count(0), count(1_234_567)], ["0", "1,234,567"]);
        assert_eq!(number(0.0), "0");
        assert_eq!(number(999.0), "999");
        assert_eq!(number(1000.0), "1,000");
        assert_eq!(number(-1_234_567.4), "-1,234,567");
        assert_eq!(number(2.5), "2.5");
        assert_eq!(nanos(812.0), "812 ns");
        assert_eq!(nanos(12_345.0), "12.3 µs");
        assert_eq!(nanos(4_560_000.0), "4.56 ms");
        assert_eq!(nanos(10e9), "10.0 s");
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(250.0), "250 B");
        assert_eq!(bytes(1536.0), "1.50 KiB");
        assert_eq!(bytes(-20_480.0), "-20.0 KiB");
        assert_eq!(bytes(256.0 * 1_048_576.0), "256 MiB");
    }

    #[test]
    fn long_times_have_two_units() {
        for (s, wanted) in [
            (0.0, "0 s"),
            (0.000_05, "50.0 µs"),
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
