//! The settings as a table of Markdown: `docs/operations.md` has it.

use std::fmt::Write as _;

use clap::{Arg, Command};

use super::Sources;
use super::kind::Kind;
use crate::config::{Setting, TakenUp};

/// A row for each flag of `serve`.
pub(in crate::cli) fn table(command: &Command) -> String {
    let serve = Sources::new(&[], &["serve"]);
    let mut text = String::from(
        "| flag | default | environment variable | key in the file | type | taken up by a reload \
         | what it sets |\n|---|---|---|---|---|---|---|\n",
    );
    for flag in serve.flags(command) {
        let Some(long) = flag.get_long() else {
            continue;
        };
        let setting = Setting::named(flag.get_id().as_str());
        let defaults = flag.get_default_values().iter();
        let defaults: Vec<_> = defaults.map(|value| value.to_string_lossy()).collect();
        let default = match (Kind::of(flag), &defaults[..]) {
            (Kind::Switch, _) => "off".to_owned(),
            (_, []) if long == "log" => "info".to_owned(),
            (_, []) => "none".to_owned(),
            (_, values) => format!("`{}`", values.join(",")),
        };
        let variable = flag.get_env().map(|name| name.to_string_lossy());
        let key = match long {
            "config" => "none".to_owned(),
            _ => format!("`{}`", flag.get_id()),
        };
        let taken_up = match (setting, long) {
            (Some(setting), _) => setting.taken_up().text(),
            (None, "log") => TakenUp::Reload.text(),
            (None, "config") => "the same file is read again",
            (None, _) => TakenUp::Restart.text(),
        };
        let summary = match setting {
            Some(setting) => setting
                .description()
                .split("\n\n")
                .next()
                .map(str::to_owned),
            None => flag.get_help().map(ToString::to_string),
        };
        let summary = summary.unwrap_or_default();
        let summary = summary.split_whitespace().collect::<Vec<_>>().join(" ");
        let summary = summary.trim_end_matches('.').replace('|', "\\|");
        // A string takes what a String does; there is nothing to fail.
        let _ = writeln!(
            text,
            "| `--{long}` | {default} | `{}` | {key} | {} | {taken_up} | {summary} |",
            variable.unwrap_or_default(),
            type_of(flag),
        );
    }
    text
}

fn type_of(flag: &Arg) -> String {
    let name = flag.get_value_names().and_then(|names| names.first());
    let name = name.map(|name| name.to_lowercase()).unwrap_or_default();
    match Kind::of(flag) {
        Kind::Switch => "boolean".to_owned(),
        Kind::List => format!("array of {name}s"),
        _ => name,
    }
}
