//! The configuration file: TOML, a key for each setting. What a key may have is decided by
//! the parser of its flag.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::{Arg, ArgAction, Command};
use rustix::fs::OFlags;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::kind::{Kind, key_of};
use crate::config::Setting;
use crate::config::document::{Lines, line_of, shown, unknown_key};

/// The largest file. Every setting with its comment takes a hundredth of it.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A configuration file that was read.
#[derive(Clone, Debug, Default)]
pub(super) struct SettingsFile {
    path: PathBuf,
    entries: Vec<Entry>,
}

/// A key that is good by itself.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    /// As the flag takes them.
    values: Vec<OsString>,
}

impl SettingsFile {
    /// Reads a file whose keys are those of `flags`. Beside what is good of it, returns what is
    /// wrong with it, a line for each fault.
    pub(super) fn read(path: &Path, flags: &[&Arg]) -> (Self, Vec<String>) {
        let mut file = SettingsFile {
            path: path.to_owned(),
            entries: Vec::new(),
        };
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(error) => return (file, vec![format!("{}: {error}", path.display())]),
        };
        let faults = match std::str::from_utf8(&bytes) {
            Ok(text) => file.parse(text.strip_prefix('\u{feff}').unwrap_or(text), flags),
            Err(error) => vec![(line_of(&bytes, error), "it is not UTF-8".to_owned())],
        };
        let at = |(line, what)| format!("{}:{line}: {what}", path.display());
        (file, faults.into_iter().map(at).collect())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Has a flag take its value from the file where neither the command line nor the
    /// environment has one.
    pub(super) fn as_default(&self, flag: Arg) -> Arg {
        match self.entry(flag.get_id().as_str()) {
            Some(entry) => flag.default_values(entry.values.clone()),
            None => flag,
        }
    }

    /// Returns what is wrong, in the order of the file's lines.
    fn parse(&mut self, text: &str, flags: &[&Arg]) -> Vec<(usize, String)> {
        let lines = Lines::of(text);
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // What is left of the text may not be what was meant.
            let faults = errors.iter().map(|error| {
                let span = error.span().unwrap_or_default();
                let what = match (error.message(), text.get(span.clone())) {
                    ("duplicate key", Some(key)) => format!("duplicate key `{}`", shown(key)),
                    (message, _) => message.to_owned(),
                };
                (lines.at(span), what)
            });
            return faults.collect();
        }
        let known = flags.iter().filter_map(|arg| Some((key_of(arg)?, *arg)));
        let known: Vec<(&str, &Arg)> = known.collect();
        let names: Vec<&str> = known.iter().map(|(key, _)| *key).collect();
        let mut faults = Vec::new();
        for (key, value) in root.get_ref() {
            let name = key.get_ref().as_ref();
            let Some((_, arg)) = known.iter().find(|(known, _)| *known == name) else {
                faults.push((lines.at(key.span()), unknown_key(name, &names)));
                continue;
            };
            let line = lines.at(value.span());
            match self.values(arg, value) {
                Ok(values) => self.entries.push(Entry {
                    key: name.to_owned(),
                    line,
                    values,
                }),
                Err(what) => faults.push((line, format!("{name}: {what}"))),
            }
        }
        faults.sort();
        faults
    }

    /// The values of a key, each of which the flag's parser has taken.
    fn values(&self, arg: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Vec<OsString>, String> {
        let kind = Kind::of(arg);
        let texts = match value.get_ref() {
            DeValue::Array(items) if kind.is_list() => {
                let texts = items.iter().map(|item| scalar(item.get_ref()));
                texts.collect::<Option<Vec<_>>>()
            }
            one => scalar(one).map(|text| vec![text]),
        };
        let Some(texts) = texts else {
            let found = value.get_ref().type_str();
            return Err(format!(
                "it must be {}, not a TOML {found}",
                kind.in_words()
            ));
        };
        let hides_value = Setting::named(arg.get_id().as_str()).is_some_and(Setting::is_secret);
        let mut values = Vec::new();
        for text in texts {
            let value = self.resolved(kind, &text);
            parse_as_flag(arg, &value).map_err(|reason| match hides_value {
                true => "its value cannot be used".to_owned(),
                false => format!("{text:?}: {reason}"),
            })?;
            values.push(value);
        }
        Ok(values)
    }

    /// A path is relative to the file's directory, that of a Unix socket too.
    fn resolved(&self, kind: Kind, text: &str) -> OsString {
        let directory = self.path.parent().unwrap_or(Path::new(""));
        match (kind, text.strip_prefix("unix:")) {
            (Kind::File, _) if !text.is_empty() => directory.join(text).into(),
            (Kind::Address, Some(path)) if !path.is_empty() => {
                let mut address = OsString::from("unix:");
                address.push(directory.join(path));
                address
            }
            _ => text.into(),
        }
    }
}

/// Text, numbers and booleans, as a flag has them.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Boolean(is_on) => Some(is_on.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Integer(number) => {
            let decimal = i128::from_str_radix(number.as_str(), number.radix());
            Some(decimal.map_or_else(|_| number.as_str().to_owned(), |n| n.to_string()))
        }
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// What the flag's parser says of a value.
fn parse_as_flag(arg: &Arg, value: &OsStr) -> Result<(), String> {
    let Some(long) = arg.get_long() else {
        return Ok(());
    };
    let mut alone = arg.clone().env(Resettable::Reset).default_values(NO_VALUES);
    if !alone.get_action().takes_values() {
        // As in the environment, where a switch has a value.
        alone = alone.action(ArgAction::Set).num_args(1);
    }
    let mut flag = OsString::from(format!("--{long}="));
    flag.push(value);
    let command = Command::new("file").no_binary_name(true).arg(alone);
    let parsed = command.try_get_matches_from([flag]);
    parsed.map(drop).map_err(|error| {
        use std::error::Error as _;
        match error.source() {
            Some(reason) => reason.to_string(),
            None if value.is_empty() => "it is empty".to_owned(),
            None => "it cannot be used".to_owned(),
        }
    })
}

const NO_VALUES: [&str; 0] = [];

/// The whole file. A pipe or a device is refused, and not waited for.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!(
            "it is larger than {MAX_FILE_BYTES} bytes"
        )));
    }
    Ok(bytes)
}
