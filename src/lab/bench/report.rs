//! `--report`: one page with plots, that needs nothing but a browser.

use std::path::Path;

use serde::Serialize;

use super::outcome::Outcome;
use super::table;
use crate::command::Failure;

/// Draws itself from the data that stands in it.
const PAGE: &str = include_str!("report/page.html");
/// Where the data goes.
const PLACE: &str = "/*DATA*/";

#[derive(Serialize)]
struct Data<'a> {
    outcome: &'a Outcome,
    rows: Vec<Vec<String>>,
}

/// Writes the page.
pub(super) fn write(path: &Path, outcome: &Outcome) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::failed(format!("cannot write {}: {error}", path.display()))
    };
    let page = page(outcome).map_err(|error| failed(&error))?;
    std::fs::write(path, page).map_err(|error| failed(&error))
}

fn page(outcome: &Outcome) -> serde_json::Result<String> {
    let data = Data {
        outcome,
        rows: table::rows(outcome),
    };
    Ok(PAGE.replacen(PLACE, &inert(&serde_json::to_string(&data)?), 1))
}

/// JSON in which no text can end the element that it stands in.
fn inert(json: &str) -> String {
    json.replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_has_a_place_and_cannot_leave_it() {
        assert_eq!(PAGE.matches(PLACE).count(), 1);
        assert_eq!(inert(r#"{"a":"</script>"}"#), r#"{"a":"\u003c/script>"}"#);
    }

    #[test]
    fn the_page_needs_no_network() {
        for word in ["src=", "href=", "@import", "url(", "fetch("] {
            assert!(!PAGE.contains(word), "{word}");
        }
    }
}
