//! The command line: what people type, turned into what the other rooms do.
//!
//! Each subcommand has a file; `bench` and `conformance` are the lab's. Only [`main`] is public: a program
//! that embeds the server or a gateway uses [`server`](crate::server) and
//! [`client`](crate::client).
//!
//! Standard output carries results only: cursors (`publish`), events (`tail`), figures
//! (`status`, `bench`), findings (`doctor`). Texts for people go to standard error, and a failure is one line there.

#![forbid(unsafe_code)]

mod admin;
mod completions;
mod config;
mod disconnect;
mod doctor;
mod flags;
mod health;
mod json;
mod log;
mod man;
mod manager;
mod publish;
mod serve;
mod settings;
mod status;
mod tail;
mod usage;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::log::Log;
use self::settings::Sources;
use crate::activation::Inherited;
use crate::command::{Failure, print, stderr};
#[cfg(feature = "bench")]
use crate::lab::{bench, conformance};

/// A backend's push channel: every gateway gets every event, in one order, over
/// one gRPC stream, and resumes where it stopped.
#[derive(Debug, Parser)]
#[command(
    name = "galaxy-push",
    version,
    after_help = "\
Try it, each in a terminal of its own:
  galaxy-push serve
  galaxy-push tail --id gateway-1
  galaxy-push publish --user-id u1 --kind turn.ready --payload '{\"game\":1}'

`galaxy-push help COMMAND` (or COMMAND --help) has details and examples.",
    after_long_help = "\
Try it, each in a terminal of its own:
  galaxy-push serve
  galaxy-push tail --id gateway-1
  galaxy-push publish --user-id u1 --kind turn.ready --payload '{\"game\":1}'

Every flag has an environment variable, which its help names. A flag on the command
line overrides the variable. serve also reads a configuration file (--config), which
both override.

Exit codes:
  0  done, or stopped by SIGTERM or SIGINT
  1  failed; one line on standard error says why
  2  a flag, an argument, an environment variable or a configuration file is wrong
  3  tail: another gateway has taken over the id"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// What to log to standard error: error, warn, info, debug, trace, or
    /// directives such as `warn,galaxy_push=debug`.
    ///
    /// The default is the value of RUST_LOG, or `info`. Gaps, takeovers and failures are
    /// reported on standard error whatever the filter is.
    #[arg(long, global = true, display_order = 900, value_name = "FILTER")]
    log: Option<String>,

    /// How lines of the log are written: text, or json for an object in each line.
    #[arg(
        long,
        global = true,
        display_order = 901,
        value_name = "FORMAT",
        default_value_t = log::Format::Text
    )]
    log_format: log::Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Publish(publish::Args),
    Tail(tail::Args),
    Status(status::Args),
    Disconnect(disconnect::Args),
    Doctor(doctor::Args),
    Health(health::Args),
    #[cfg(feature = "bench")]
    Bench(bench::Args),
    #[cfg(feature = "bench")]
    Conformance(conformance::Args),
    Config(config::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Runs the command line `args`, the program's name first, and returns the exit
/// code of the process.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            stderr::say(&failure.message);
            ExitCode::from(failure.exit)
        }
    }
}

fn run(args: &[OsString]) -> Result<(), Failure> {
    let parsed = command()
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            return print_help(&error);
        }
        Err(error) => return Err(Failure::usage(usage::line(&error, &command(), args))),
    };
    let start_log = || start_log(cli.log, cli.log_format);
    match cli.command {
        Command::Serve(_) => serve(args),
        Command::Publish(args) => start_log().and_then(|()| publish::run(args)),
        Command::Tail(args) => start_log().and_then(|()| tail::run(args)),
        Command::Status(of) => start_log().and_then(|()| status::run(of)),
        Command::Disconnect(of) => start_log().and_then(|()| disconnect::run(of)),
        Command::Doctor(of) => start_log().and_then(|()| doctor::run(of)),
        Command::Health(of) => start_log().and_then(|()| health::run(of)),
        #[cfg(feature = "bench")]
        Command::Bench(args) => start_log().and_then(|()| bench::run(args)),
        #[cfg(feature = "bench")]
        Command::Conformance(args) => start_log().and_then(|()| conformance::run(args)),
        Command::Config(of) => config::run(&of, args),
        Command::Completions(of) => completions::run(&of),
        Command::Man(of) => man::run(&of),
    }
}

fn serve(args: &[OsString]) -> Result<(), Failure> {
    // First of all: the sockets may be taken from the environment only while there is no
    // other thread.
    let sockets = Inherited::from_env().map_err(|error| Failure::usage(error.to_string()))?;
    let sources = Sources::new(args, &["serve"]);
    let settings = sources
        .read()
        .map_err(|faults| Failure::usage(faults.into_iter().next().unwrap_or_default()))?;
    let filter = settings.log_filter().map_err(Failure::usage)?;
    let log = Arc::new(Log::start_in_background(filter, settings.log_format)?);
    let ended = serve::run(settings, sources, sockets, Arc::clone(&log));
    log.finish();
    ended
}

/// The command line's definition.
fn command() -> clap::Command {
    flags::complete(Cli::command())
}

/// The help that was asked for.
fn print_help(help: &clap::Error) -> Result<(), Failure> {
    let text = help.render();
    if std::io::stdout().is_terminal() {
        print(&text.ansi().to_string())
    } else {
        print(&text.to_string())
    }
}

/// The log of a command that is no server.
fn start_log(flag: Option<String>, format: log::Format) -> Result<(), Failure> {
    let (name, directives) = match flag {
        Some(directives) => ("--log", directives),
        None => match std::env::var("RUST_LOG") {
            Ok(directives) if !directives.is_empty() => ("RUST_LOG", directives),
            Ok(_) | Err(std::env::VarError::NotPresent) => ("--log", log::DEFAULT.to_owned()),
            Err(error) => return Err(Failure::usage(format!("RUST_LOG: {error}"))),
        },
    };
    let filter = log::filter(&directives)
        .map_err(|reason| Failure::usage(format!("{name}: {directives:?}: {reason}")))?;
    Log::start(filter, format).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Setting;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_variable_and_a_help() {
        fn check(command: &clap::Command, prefix: &str) {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                let variable = arg.get_env().and_then(|env| env.to_str());
                let is_setting = Setting::named(&long.replace('-', "_")).is_some();
                // Wherever they are, they have the variables of `serve`.
                let of_serve =
                    prefix.starts_with("GALAXY_PUSH_CONFIG") && (is_setting || long == "config");
                let prefix = if of_serve { "GALAXY_PUSH_" } else { prefix };
                let wanted = format!("{prefix}{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(variable, Some(wanted.as_str()), "--{long}");
                assert!(arg.get_help().is_some(), "--{long} has no help");
            }
            for subcommand in command.get_subcommands() {
                let name = subcommand.get_name();
                if prefix == "GALAXY_PUSH_" && name != "serve" {
                    check(subcommand, &format!("{prefix}{}_", name.to_uppercase()));
                } else {
                    check(subcommand, prefix);
                }
            }
        }
        check(&command(), "GALAXY_PUSH_");
    }
}
