//! The settings that `serve` runs with, and where each is from: a flag, an environment
//! variable, the configuration file, or nowhere, which is its default.
//!
//! | file | what is in it |
//! |---|---|
//! | `args` | the flags |
//! | `file` | the configuration file |
//! | `kind` | what flags and keys have in common |
//! | `show` | the settings and their sources, as TOML and as JSON |
//! | `table` | the settings as a table for the documents |
//!
//! There is one parser for a setting, that of its flag. What the file says takes the place of
//! the flag's default, and the command line is parsed again.

mod args;
mod file;
mod kind;
mod show;
mod table;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, FromArgMatches};

use self::file::SettingsFile;
use self::kind::key_of;
use super::log::{self, Format};
use super::{flags, usage};
use crate::activation::InheritError;
use crate::config::{Config, Setting};
use crate::server::ServeError;

pub(super) use self::args::SettingsArgs;
pub(super) use self::table::table;

/// The variable that is asked where neither flag nor variable of our own has a log filter.
const RUST_LOG: &str = "RUST_LOG";

/// Where a value is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Default,
    File { path: PathBuf, line: usize },
    Variable(String),
    Flag(String),
}

/// What to run with.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) config: Config,
    /// The directives of the log.
    pub(super) log: String,
    pub(super) log_format: Format,
    sources: Vec<(String, Source)>,
    flags: Vec<Arg>,
    matches: ArgMatches,
}

/// Where settings are read from, as often as they are wanted.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    args: Vec<OsString>,
    /// The subcommand that has the flags.
    subcommand: &'static [&'static str],
    /// Whether the environment counts.
    has_environment: bool,
}

impl Sources {
    /// The command line `args`, whose subcommand this is; the environment; and the file that
    /// one of them names.
    pub(super) fn new(args: &[OsString], subcommand: &'static [&'static str]) -> Self {
        Sources {
            args: args.to_vec(),
            subcommand,
            has_environment: true,
        }
    }

    /// Reads everything.
    ///
    /// # Errors
    ///
    /// All that is wrong, a line for each fault; at least one.
    pub(super) fn read(&self) -> Result<Settings, Vec<String>> {
        let command = super::command();
        let matches = self.matches(&command)?;
        let path = innermost(&matches, self.subcommand).get_one::<PathBuf>("config");
        let file = match path {
            None => None,
            Some(path) => match SettingsFile::read(path, &self.flags(&command)) {
                (file, faults) if faults.is_empty() => Some(file),
                (_, faults) => return Err(faults),
            },
        };
        self.settings(command, file)
    }

    /// The subcommand's flags, then those that all have.
    fn flags<'a>(&self, command: &'a Command) -> Vec<&'a Arg> {
        let mut names = self.subcommand.iter();
        let own = names.try_fold(command, |of, name| of.find_subcommand(name));
        let own = own.into_iter().flat_map(Command::get_arguments);
        own.chain(command.get_arguments()).collect()
    }

    fn matches(&self, command: &Command) -> Result<ArgMatches, Vec<String>> {
        let parsed = command.clone().try_get_matches_from(&self.args);
        parsed.map_err(|error| vec![usage::line(&error, command, &self.args)])
    }

    fn settings(
        &self,
        command: Command,
        file: Option<SettingsFile>,
    ) -> Result<Settings, Vec<String>> {
        let command = match &file {
            Some(file) => mut_flags(command, self.subcommand, &|flag| file.as_default(flag)),
            None => command,
        };
        let matches = innermost(&self.matches(&command)?, self.subcommand).clone();
        let args = SettingsArgs::from_arg_matches(&matches);
        let args = args.map_err(|error| vec![usage::line(&error, &command, &self.args)])?;
        let flags = self.flags(&command);
        let sources = flags.iter().filter_map(|flag| {
            let key = key_of(flag)?.to_owned();
            let source = source_of(flag, &matches, file.as_ref());
            Some((key, source))
        });
        let mut settings = Settings {
            config: args.into_config(),
            log: matches
                .get_one::<String>("log")
                .cloned()
                .unwrap_or_default(),
            log_format: matches
                .get_one::<Format>("log_format")
                .copied()
                .unwrap_or_default(),
            sources: sources.collect(),
            flags: flags.into_iter().cloned().collect(),
            matches,
        };
        if self.has_environment {
            settings.look_at_rust_log()?;
        }
        if settings.log.is_empty() && *settings.source("log") == Source::Default {
            settings.log = log::DEFAULT.to_owned();
        }
        Ok(settings)
    }
}

/// What a file says by itself: neither flags nor the environment count. Beside it, all that is
/// wrong, a line for each fault.
pub(super) fn read_alone(path: &Path) -> (Option<Settings>, Vec<String>) {
    let alone = Sources {
        args: vec!["galaxy-push".into(), "serve".into()],
        subcommand: &["serve"],
        has_environment: false,
    };
    let command = mut_flags(super::command(), alone.subcommand, &|flag| {
        flag.env(Resettable::Reset)
    });
    let (file, mut faults) = SettingsFile::read(path, &alone.flags(&command));
    match alone.settings(command, Some(file)) {
        Ok(settings) => (Some(settings), faults),
        Err(more) => {
            faults.extend(more);
            (None, faults)
        }
    }
}

impl Settings {
    /// Where the value of a key is from.
    pub(super) fn source(&self, key: &str) -> &Source {
        let mut sources = self.sources.iter();
        match sources.find(|(of, _)| of == key) {
            Some((_, source)) => source,
            None => &Source::Default,
        }
    }

    /// The environment beats the file, also by the variable of all Rust programs.
    fn look_at_rust_log(&mut self) -> Result<(), Vec<String>> {
        let is_set = |source: &Source| matches!(source, Source::Flag(_) | Source::Variable(_));
        if is_set(self.source("log")) {
            return Ok(());
        }
        match std::env::var(RUST_LOG) {
            Ok(directives) if !directives.is_empty() => {
                self.log = directives;
                let of_log = self.sources.iter_mut().find(|(key, _)| key == "log");
                if let Some((_, source)) = of_log {
                    *source = Source::Variable(RUST_LOG.to_owned());
                }
            }
            Ok(_) | Err(std::env::VarError::NotPresent) => {}
            Err(error) => return Err(vec![format!("{RUST_LOG}: {error}")]),
        }
        Ok(())
    }

    /// The log's filter.
    ///
    /// # Errors
    ///
    /// Where the directives are from, and what is wrong with them.
    pub(super) fn log_filter(&self) -> Result<log::Filter, String> {
        log::filter(&self.log).map_err(|reason| {
            let directives = &self.log;
            format!("{}: {directives:?}: {reason}", self.place("log"))
        })
    }

    /// Whose a value is: the flag, the variable, or the file's line and key.
    fn place(&self, key: &str) -> String {
        match self.source(key) {
            Source::File { path, line } => format!("{}:{line}: {key}", path.display()),
            Source::Variable(name) if name == RUST_LOG => name.clone(),
            Source::Variable(_) | Source::Flag(_) | Source::Default => flag_of(key),
        }
    }

    /// What is wrong with these settings, in a line that says where.
    pub(super) fn fault(&self, error: &ServeError) -> String {
        let text = error.to_string();
        let (setting, other, reason) = match error {
            ServeError::Config(error) => (error.setting(), error.other(), error.reason()),
            ServeError::Access(_) => (Setting::Access, None, text.trim_start_matches("access: ")),
            ServeError::Tls(error) => {
                let setting = match error.path() {
                    Some(path) if self.config.tls_key.as_deref() == Some(path) => Setting::TlsKey,
                    Some(path) if self.config.tls_client_ca.as_deref() == Some(path) => {
                        Setting::TlsClientCa
                    }
                    _ => Setting::TlsCert,
                };
                (setting, None, text.as_str())
            }
            ServeError::Inherit(InheritError::AdminIsOff) => {
                (Setting::AdminListen, None, text.as_str())
            }
            // It begins with the name.
            ServeError::Engine(_) => {
                let name = text.split(' ').next().unwrap_or_default();
                match Setting::named(name) {
                    Some(setting) => (setting, None, text.as_str()),
                    None => return text,
                }
            }
            _ => return text,
        };
        let of_file = |setting: Setting| match self.source(setting.name()) {
            Source::File { path, line } => Some(format!("{}:{line}", path.display())),
            _ => None,
        };
        let is_default = *self.source(setting.name()) == Source::Default;
        let place = of_file(setting).or_else(|| of_file(other.filter(|_| is_default)?));
        let name = setting.name();
        let reason = reason.strip_prefix(name).map_or(reason, str::trim_start);
        match place {
            Some(place) => format!("{place}: {name}: {reason}"),
            None => with_flags(&format!("{name}: {reason}")),
        }
    }
}

/// Where the value of a flag is from.
fn source_of(flag: &Arg, matches: &ArgMatches, file: Option<&SettingsFile>) -> Source {
    let id = flag.get_id().as_str();
    let variable = flag
        .get_env()
        .map(|name| name.to_string_lossy().into_owned());
    match (matches.value_source(id), variable, file) {
        (Some(ValueSource::CommandLine), ..) => Source::Flag(flag_of(id)),
        (Some(ValueSource::EnvVariable), Some(variable), _) => Source::Variable(variable),
        (_, _, Some(file)) => match file.entry(id) {
            Some(entry) => Source::File {
                path: file.path().to_owned(),
                line: entry.line,
            },
            None => Source::Default,
        },
        _ => Source::Default,
    }
}

fn flag_of(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// `command`, with the flags changed that it has in common with the subcommand, and those of
/// the subcommand.
fn mut_flags(command: Command, subcommand: &[&str], change: &dyn Fn(Arg) -> Arg) -> Command {
    let command = command.mut_args(change);
    match subcommand.split_first() {
        Some((name, inner)) => {
            command.mut_subcommand(name, |subcommand| mut_flags(subcommand, inner, change))
        }
        None => command,
    }
}

fn innermost<'a>(matches: &'a ArgMatches, subcommand: &[&str]) -> &'a ArgMatches {
    subcommand.iter().fold(matches, |matches, name| {
        matches.subcommand_matches(name).unwrap_or(matches)
    })
}

/// A message about settings, with the flags' names for theirs. A setting whose name is
/// an everyday word, such as `window`, counts only at the message's start.
fn with_flags(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    let of_names = |c: char| c.is_ascii_lowercase() || c == '_';
    for part in message.split_inclusive(|c| !of_names(c)) {
        let name = part.trim_end_matches(|c| !of_names(c));
        match Setting::named(name) {
            Some(setting) if name.contains('_') || text.is_empty() => {
                text.push_str(&flags::flag(setting));
                text.push_str(&part[name.len()..]);
            }
            _ => text.push_str(part),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_named_as_flags() {
        for (message, wanted) in [
            ("max_bytes is 1", "--max-bytes is 1"),
            ("window: longer", "--window: longer"),
            (
                "max_event_bytes: large; allow_large_events permits it",
                "--max-event-bytes: large; --allow-large-events permits it",
            ),
            ("max_bytes: the window", "--max-bytes: the window"),
            ("the clock is wrong", "the clock is wrong"),
        ] {
            assert_eq!(with_flags(message), wanted);
        }
    }
}
