//! Settings and where each is from, to look at.

use std::fmt::Write as _;

use clap::{Arg, ArgMatches};
use serde_json::{Map, Value, json};

use super::kind::{Kind, key_of};
use super::{Settings, Source};
use crate::config::Setting;

/// What takes the place of a secret.
const REDACTED: &str = "(not shown)";

impl Settings {
    /// A configuration file with these settings, each with its source.
    pub(in crate::cli) fn to_toml(&self) -> String {
        let mut text = String::new();
        for (key, value) in self.values() {
            let source = self.source(&key);
            // A string takes what a String does; there is nothing to fail.
            let _ = match toml_text(&value) {
                Some(value) => writeln!(text, "{key} = {value}  # {source}"),
                None => writeln!(text, "# {key} is not set  # {source}"),
            };
        }
        text
    }

    /// The same as JSON: an object for each key, with its value and its source.
    pub(in crate::cli) fn to_json(&self) -> String {
        let settings = self.values().into_iter().map(|(key, value)| {
            let mut entry = Map::new();
            entry.insert("value".to_owned(), value);
            match self.source(&key) {
                Source::Default => entry.insert("source".to_owned(), json!("default")),
                Source::Flag(flag) => {
                    entry.insert("source".to_owned(), json!("flag"));
                    entry.insert("flag".to_owned(), json!(flag))
                }
                Source::Variable(name) => {
                    entry.insert("source".to_owned(), json!("environment"));
                    entry.insert("variable".to_owned(), json!(name))
                }
                Source::File { path, line } => {
                    entry.insert("source".to_owned(), json!("file"));
                    entry.insert("file".to_owned(), json!(path.to_string_lossy()));
                    entry.insert("line".to_owned(), json!(line))
                }
            };
            (key, Value::Object(entry))
        });
        let text = format!("{:#}", Value::Object(settings.collect()));
        escaped(&text)
    }

    /// The values by key, null where there is none.
    fn values(&self) -> Vec<(String, Value)> {
        let keys = self.flags.iter().filter_map(|flag| {
            let key = key_of(flag)?;
            let value = match key {
                "log" => json!(self.log),
                _ if Setting::named(key).is_some_and(Setting::is_secret) => json!(REDACTED),
                _ => value(flag, &self.matches),
            };
            Some((key.to_owned(), value))
        });
        keys.collect()
    }
}

/// The value as the command line, the environment or the file has it.
fn value(flag: &Arg, matches: &ArgMatches) -> Value {
    let id = flag.get_id().as_str();
    let kind = Kind::of(flag);
    if kind == Kind::Switch {
        return json!(matches.get_flag(id));
    }
    let texts = matches.get_raw(id).into_iter().flatten();
    let mut texts = texts.map(|text| text.to_string_lossy().into_owned());
    match kind {
        Kind::List => {
            let texts: Vec<String> = texts.collect();
            let parts = texts.iter().flat_map(|text| text.split(','));
            json!(parts.collect::<Vec<_>>())
        }
        _ => match texts.next_back() {
            None => Value::Null,
            Some(text) if kind == Kind::Number => {
                let number = text.trim().parse::<u64>();
                number.map_or_else(|_| json!(text), |number| json!(number))
            }
            Some(text) => json!(text),
        },
    }
}

/// A value in TOML, if there is one. JSON's strings, numbers and arrays are TOML's.
fn toml_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        value => Some(escaped(&value.to_string())),
    }
}

/// Control characters that JSON lets through are in strings only.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_control() && character != '\n' {
            let _ = write!(text, "\\u{:04x}", u32::from(character));
        } else {
            text.push(character);
        }
    }
    text
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::Flag(name) | Source::Variable(name) => f.write_str(name),
            Source::File { path, line } => {
                let path = path.to_string_lossy();
                write!(f, "{}:{line}", path.escape_debug())
            }
        }
    }
}
