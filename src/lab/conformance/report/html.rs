//! One page that needs nothing but a browser.

use std::fmt::Write as _;

use super::Report;
use super::junit::escaped;
use crate::lab::conformance::promise::Verdict;

const HEAD: &str = "\
<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>Conformance</title>
<style>
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #8884; padding: .4rem .8rem .4rem 0; text-align: left;
  vertical-align: top; }
code { white-space: nowrap; }
.seen { color: #888; overflow-wrap: anywhere; }
.kept { color: light-dark(#1a7f37, #3fb950); }
.broken { color: light-dark(#cf222e, #ff7b72); font-weight: 600; }
.skipped { color: #888; }
.broken ~ td .seen { color: inherit; }
</style>
";

/// The page.
pub(super) fn report(report: &Report) -> String {
    let mut page = String::from(HEAD);
    // A `String` takes whatever is written.
    let _ = write!(
        page,
        "<h1>Conformance of a {}</h1>\n<p>{}, judged by galaxy-push {}: <strong>{}</strong>.</p>\n\
         <table>\n<thead><tr><th>Verdict<th>Level<th>Promise<th>\n<tbody>\n",
        report.side,
        escaped(&report.address),
        escaped(report.version),
        report.summary()
    );
    for finding in &report.promises {
        let (word, detail) = match &finding.verdict {
            Verdict::Kept => ("kept", ""),
            Verdict::Broken(seen) => ("broken", seen.as_str()),
            Verdict::Skipped(missing) => ("skipped", missing.as_str()),
        };
        let _ = writeln!(
            page,
            "<tr><td class=\"{word}\">{word}<td>{}<td><code>{}</code><td>{}{}",
            finding.level,
            finding.name,
            escaped(finding.text),
            match detail {
                "" => String::new(),
                detail => format!("<div class=\"seen\">{}</div>", escaped(detail)),
            }
        );
    }
    page.push_str("</table>\n");
    page
}

#[cfg(test)]
mod tests {
    use super::super::sample;

    #[test]
    fn the_page_shows_each_verdict_and_needs_no_network() {
        let page = super::report(&sample());
        for text in [
            "<strong>1 kept, 1 broken, 1 skipped</strong>",
            "<td class=\"broken\">broken",
            "&lt;/failure&gt;",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("</failure>"));
        for word in ["src=", "href=", "@import", "url(", "<script"] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
