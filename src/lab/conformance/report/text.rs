//! A line for each promise, for people.

use super::Report;
use crate::command::text::visible;
use crate::lab::conformance::promise::{Finding, Verdict};

/// A line of the table.
pub(super) fn row(first: &str, name: &str, text: &str) -> String {
    format!("{first:<9} {name:<28} {text}\n")
}

/// A promise, and beneath it what was seen, or what is missing.
pub(super) fn finding(finding: &Finding) -> String {
    let (word, detail) = match &finding.verdict {
        Verdict::Kept => ("kept", None),
        Verdict::Broken(seen) => ("BROKEN", Some(seen)),
        Verdict::Skipped(missing) => ("skipped", Some(missing)),
    };
    let mut lines = row(word, finding.name, finding.text);
    if let Some(detail) = detail {
        lines += &format!("{:<9} {}\n", "", visible(detail));
    }
    lines
}

/// How many there are of each.
pub(super) fn last_line(report: &Report) -> String {
    format!("{} {}: {}\n", report.side, report.address, report.summary())
}

/// The whole of it.
pub(super) fn report(report: &Report) -> String {
    report
        .promises
        .iter()
        .map(finding)
        .chain([last_line(report)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;

    #[test]
    fn what_was_seen_is_beneath_the_promise() {
        assert_eq!(
            super::report(&sample()),
            "\
kept      kept                         what is <promised>
BROKEN    broken                       what is <promised>
          it said \"\\u{1b}[2J</failure>\" & more\\nand \\u{0}
skipped   skipped                      what is <promised>
          it needs --flag
server 127.0.0.1:50051: 1 kept, 1 broken, 1 skipped
"
        );
    }
}
