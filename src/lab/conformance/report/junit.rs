//! JUnit's XML, which CI systems read: a test case for each promise.

use std::fmt::Write as _;

use super::Report;
use crate::command::text::visible;
use crate::lab::conformance::promise::Verdict;

/// The document: one suite.
pub(super) fn report(report: &Report) -> String {
    let seconds: f64 = report.promises.iter().map(|finding| finding.seconds).sum();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // A `String` takes whatever is written.
    let _ = writeln!(
        xml,
        "<testsuite name=\"galaxy-push conformance {}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\" time=\"{seconds:.3}\">",
        report.side,
        report.promises.len(),
        report.broken().len(),
        report.skipped()
    );
    for finding in &report.promises {
        let _ = write!(
            xml,
            "  <testcase classname=\"{}.{}\" name=\"{}\" time=\"{:.3}\"",
            report.side, finding.level, finding.name, finding.seconds
        );
        let _ = match &finding.verdict {
            Verdict::Kept => writeln!(xml, "/>"),
            Verdict::Broken(seen) => writeln!(
                xml,
                "><failure message=\"{}\">{}</failure></testcase>",
                escaped(finding.text),
                escaped(seen)
            ),
            Verdict::Skipped(missing) => writeln!(
                xml,
                "><skipped message=\"{}\"/></testcase>",
                escaped(missing)
            ),
        };
    }
    xml.push_str("</testsuite>\n");
    xml
}

/// Text that is nothing but text in XML and in HTML, also between double quotes.
pub(super) fn escaped(text: &str) -> String {
    visible(text)
        // No characters of XML (XML 1.0, 2.2).
        .replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::sample;

    #[test]
    fn what_was_seen_cannot_leave_its_element() {
        let xml = super::report(&sample());
        assert!(
            xml.contains("tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\" time=\"0.750\"")
        );
        assert!(xml.contains(
            "<failure message=\"what is &lt;promised&gt;\">it said &quot;\\u{1b}[2J&lt;/failure&gt;&quot; &amp; more\\nand \\u{0}</failure>"
        ));
        assert!(xml.contains("<skipped message=\"it needs --flag\"/>"));
        assert_eq!(xml.matches("<testcase ").count(), 3);
    }
}
