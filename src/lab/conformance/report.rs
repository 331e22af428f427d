//! What was found: as text while it is judged, and as JSON, JUnit or HTML at the end.

mod html;
mod junit;
mod text;

use std::path::PathBuf;

use serde::Serialize;

use super::promise::{Finding, Level, Promise, Verdict};
use crate::command::{Failure, print};

/// Which promises are judged, and how it is told.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Report")]
pub(super) struct OutputArgs {
    /// Judge the promises up to this level: contract, or extras for all of them.
    #[arg(long, value_name = "LEVEL", default_value = "extras")]
    level: Level,

    /// Judge only the promises of these names, separated by commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,

    /// List the promises, and judge nothing.
    #[arg(long)]
    pub(super) list: bool,

    /// How the report is written: text, json, junit, or html.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,

    /// Write the report to this file, and text to standard output.
    #[arg(long)]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
    Junit,
    Html,
}

impl OutputArgs {
    /// The promises that are to be judged, in the table's order.
    pub(super) fn select<'a, Kit>(
        &self,
        promises: &'a [Promise<Kit>],
    ) -> Result<Vec<&'a Promise<Kit>>, Failure> {
        let names: Vec<&str> = self.only.iter().map(|name| name.trim()).collect();
        if let Some(unknown) = names
            .iter()
            .find(|name| !promises.iter().any(|promise| promise.name == **name))
        {
            return Err(Failure::usage(format!(
                "--only: there is no promise {unknown:?}; --list has them all"
            )));
        }
        Ok(promises
            .iter()
            .filter(|promise| match names.is_empty() {
                true => promise.level <= self.level,
                false => names.contains(&promise.name),
            })
            .collect())
    }

    /// The promises with their texts.
    pub(super) fn list<Kit>(&self, promises: &[Promise<Kit>]) -> Result<(), Failure> {
        let selected = self.select(promises)?;
        let lines = selected
            .iter()
            .map(|promise| text::row(&promise.level.to_string(), promise.name, promise.text));
        print(&lines.collect::<String>())
    }

    /// Writes to the file, where there is one.
    fn write(&self, text: &str) -> Result<(), Failure> {
        let Some(path) = &self.output else {
            return Ok(());
        };
        std::fs::write(path, text)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
    }

    /// Whether standard output is for text.
    fn prints_text(&self) -> bool {
        self.format == Format::Text || self.output.is_some()
    }
}

/// What was found so far.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    side: &'static str,
    address: String,
    version: &'static str,
    promises: Vec<Finding>,
    #[serde(skip)]
    prints: bool,
}

impl Report {
    /// A report without findings. Where it is to go to a file, that is empty from now on.
    pub(super) fn new(
        side: &'static str,
        address: &dyn ToString,
        output: &OutputArgs,
    ) -> Result<Self, Failure> {
        output.write("")?;
        Ok(Report {
            side,
            address: address.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            promises: Vec::new(),
            prints: output.prints_text(),
        })
    }

    pub(super) fn add(&mut self, finding: Finding) -> Result<(), Failure> {
        if self.prints {
            print(&text::finding(&finding))?;
        }
        self.promises.push(finding);
        Ok(())
    }

    fn count(&self, is: impl Fn(&Verdict) -> bool) -> usize {
        let verdicts = self.promises.iter().map(|finding| &finding.verdict);
        verdicts.filter(|verdict| is(verdict)).count()
    }

    fn kept(&self) -> usize {
        self.count(|verdict| *verdict == Verdict::Kept)
    }

    fn skipped(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Skipped(_)))
    }

    fn broken(&self) -> Vec<&'static str> {
        let broken = |finding: &&Finding| matches!(finding.verdict, Verdict::Broken(_));
        let found = self.promises.iter().filter(broken);
        found.map(|finding| finding.name).collect()
    }

    /// `38 kept, 1 broken, 3 skipped`.
    fn summary(&self) -> String {
        format!(
            "{} kept, {} broken, {} skipped",
            self.kept(),
            self.broken().len(),
            self.skipped()
        )
    }

    /// Writes the report. An implementation that breaks a promise is a failure of the command, and so
    /// is one of which nothing could be judged.
    pub(super) fn finish(&self, output: &OutputArgs) -> Result<(), Failure> {
        let written = match output.format {
            Format::Text => text::report(self),
            Format::Json => {
                let json = serde_json::to_string_pretty(self);
                json.map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))? + "\n"
            }
            Format::Junit => junit::report(self),
            Format::Html => html::report(self),
        };
        if self.prints {
            print(&text::last_line(self))?;
        }
        output.write(&written)?;
        // Lines of text are printed already.
        if output.output.is_none() && output.format != Format::Text {
            print(&written)?;
        }
        let broken = self.broken();
        if !broken.is_empty() {
            return Err(Failure::failed(format!(
                "the {} breaks {} of {} promises: {}",
                self.side,
                broken.len(),
                self.promises.len(),
                broken.join(", ")
            )));
        }
        if self.kept() == 0 {
            return Err(Failure::failed("no promise could be judged"));
        }
        Ok(())
    }
}

/// A report of each verdict, for the tests of the formats.
#[cfg(test)]
fn sample() -> Report {
    let finding = |name, verdict| Finding {
        name,
        level: Level::Contract,
        text: "what is <promised>",
        verdict,
        seconds: 0.25,
    };
    Report {
        side: "server",
        address: "127.0.0.1:50051".to_owned(),
        version: "1.2.3",
        promises: vec![
            finding("kept", Verdict::Kept),
            finding(
                "broken",
                Verdict::Broken("it said \"\u{1b}[2J</failure>\" & more\nand \u{0}".to_owned()),
            ),
            finding("skipped", Verdict::Skipped("it needs --flag".to_owned())),
        ],
        prints: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_each_verdict_and_its_detail() {
        let json: serde_json::Value =
            serde_json::from_str(&serde_json::to_string(&sample()).unwrap()).unwrap();
        assert_eq!(json["side"], "server");
        let verdicts: Vec<_> = json["promises"]
            .as_array()
            .unwrap()
            .iter()
            .map(|finding| finding["verdict"].as_str().unwrap())
            .collect();
        assert_eq!(verdicts, ["kept", "broken", "skipped"]);
        assert_eq!(json["promises"][2]["detail"], "it needs --flag");
        assert_eq!(json["promises"][0].get("detail"), None);
    }

    #[test]
    fn the_summary_counts() {
        assert_eq!(sample().summary(), "1 kept, 1 broken, 1 skipped");
        assert_eq!(sample().broken(), ["broken"]);
    }
}
