//! `galaxy-push config`: check a configuration file, and show what is in force.

use std::ffi::OsString;
use std::path::PathBuf;

use super::settings::{self, Settings, SettingsArgs, Sources};
use crate::command::{Failure, print, stderr};
use crate::server::{self, ServeError};

/// So many faults of a file are told: what is no configuration file has more.
const MAX_FAULTS: usize = 100;

/// Check a configuration file, or show the settings and where each is from.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(CheckArgs),
    Show(Box<ShowArgs>),
    Table(TableArgs),
}

/// Check a configuration file, and the files that it names.
///
/// Certificates, keys and the access file are read, and listeners that others reach have to be
/// protected. Flags and environment variables do not count, and nothing is bound. Every fault
/// that can be found is a line on standard error, with the file and the line.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exit codes:
  0  serve can run with it; standard output says so
  2  it cannot

Examples:
  galaxy-push config check /etc/galaxy-push/galaxy-push.toml")]
struct CheckArgs {
    /// The configuration file.
    file: PathBuf,
}

/// Show the settings that `serve` would run with, and where each is from.
///
/// It takes the flags of `serve`, its environment variables and its configuration file. The
/// output is a configuration file: the comment behind each setting is its source, which is
/// default, a file with the line, an environment variable, or a flag.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push config show
  galaxy-push config show --config /etc/galaxy-push/galaxy-push.toml
  GALAXY_PUSH_WINDOW=1h galaxy-push config show --max-bytes 1GiB --json")]
struct ShowArgs {
    #[command(flatten)]
    _settings: SettingsArgs,

    /// Print an object of JSON: for each key its value and its source.
    #[arg(long)]
    json: bool,
}

/// Print the settings as a table of Markdown, as docs/operations.md has it.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
struct TableArgs {}

pub(super) fn run(args: &Args, command_line: &[OsString]) -> Result<(), Failure> {
    match &args.command {
        Command::Check(args) => check(args),
        Command::Show(args) => {
            let sources = Sources::new(command_line, &["config", "show"]);
            let settings = sources.read().map_err(failure)?;
            print(&if args.json {
                settings.to_json() + "\n"
            } else {
                settings.to_toml()
            })
        }
        Command::Table(_) => print(&settings::table(&super::command())),
    }
}

fn check(args: &CheckArgs) -> Result<(), Failure> {
    let (settings, mut faults) = settings::read_alone(&args.file);
    if let Some(settings) = settings {
        faults.extend(what_follows(&settings, faults.is_empty()));
    }
    if let Some(more) = faults
        .len()
        .checked_sub(MAX_FAULTS)
        .filter(|more| *more > 0)
    {
        faults.truncate(MAX_FAULTS);
        faults.push(format!("and {more} more"));
    }
    if faults.is_empty() {
        return print(&format!("{}: ok\n", args.file.display()));
    }
    Err(failure(faults))
}

/// What is wrong with settings that are good by themselves. Where some are missing, because
/// they are not, it counts only what does not depend on others.
fn what_follows(settings: &Settings, is_complete: bool) -> Vec<String> {
    let errors = server::check(&settings.config).into_iter();
    let errors = errors
        .filter(|error| is_complete || matches!(error, ServeError::Access(_) | ServeError::Tls(_)));
    let mut faults: Vec<String> = errors.map(|error| settings.fault(&error)).collect();
    faults.extend(settings.log_filter().err());
    faults
}

/// A line for each fault, the last of which is that of the command.
pub(super) fn failure(mut faults: Vec<String>) -> Failure {
    let last = faults.pop().unwrap_or_default();
    for fault in faults {
        stderr::say(&fault);
    }
    Failure::usage(last)
}
