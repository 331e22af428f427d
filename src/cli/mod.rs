//! The command line: what people type, turned into what the other rooms do.
//!
//! Each subcommand has a file; `bench` is the lab's. Only [`main`] is public: a program
//! that embeds the server or a gateway uses [`server`](crate::server) and
//! [`client`](crate::client).
//!
//! Standard output carries results only: cursors (`publish`), events (`tail`), figures
//! (`bench`). Texts for people go to standard error, and a failure is one line there.

#![forbid(unsafe_code)]

mod flags;
mod health;
mod json;
mod manager;
mod publish;
mod serve;
mod tail;
mod usage;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::command::{Failure, stderr};
#[cfg(feature = "bench")]
use crate::lab::bench;

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
line overrides the variable.

Exit codes:
  0  done, or stopped by SIGTERM or SIGINT
  1  failed; one line on standard error says why
  2  a flag, an argument or an environment variable is wrong
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
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Publish(publish::Args),
    Tail(tail::Args),
    Health(health::Args),
    #[cfg(feature = "bench")]
    Bench(bench::Args),
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
    start_log(cli.log)?;
    match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Publish(args) => publish::run(args),
        Command::Tail(args) => tail::run(args),
        Command::Health(args) => health::run(args),
        #[cfg(feature = "bench")]
        Command::Bench(args) => bench::run(args),
    }
}

/// The command line's definition.
fn command() -> clap::Command {
    flags::complete(Cli::command())
}

/// The help that was asked for. A reader who closes it early has read enough.
fn print_help(help: &clap::Error) -> Result<(), Failure> {
    let text = help.render();
    let mut stdout = std::io::stdout().lock();
    let written = if stdout.is_terminal() {
        write!(stdout, "{}", text.ansi())
    } else {
        write!(stdout, "{text}")
    };
    match written.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::failed(
            format!("cannot write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// What the TLS library says by itself: a peer could have it say as much as it likes. What
/// comes of it is logged by us, and counted. Whoever asks for it by name gets it.
const QUIET: &str = "rustls=off";

fn start_log(flag: Option<String>) -> Result<(), Failure> {
    let (name, directives) = match flag {
        Some(directives) => ("--log", directives),
        None => match std::env::var("RUST_LOG") {
            Ok(directives) if !directives.is_empty() => ("RUST_LOG", directives),
            Ok(_) | Err(std::env::VarError::NotPresent) => ("--log", "info".to_owned()),
            Err(error) => return Err(Failure::usage(format!("RUST_LOG: {error}"))),
        },
    };
    let filter = EnvFilter::builder()
        .parse(format!("{QUIET},{directives}"))
        .map_err(|error| Failure::usage(format!("{name}: {directives:?}: {error}")))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // It would go to standard error as well, with a panic if that is closed.
        .log_internal_errors(false)
        .try_init()
        .map_err(|error| Failure::failed(format!("cannot log: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

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
                let wanted = format!("{prefix}{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(variable, Some(wanted.as_str()), "--{long}");
                assert!(arg.get_help().is_some(), "--{long} has no help");
            }
            let names_its_flags = ["publish", "tail", "health", "bench"];
            for subcommand in command.get_subcommands() {
                let name = subcommand.get_name();
                if prefix == "GALAXY_PUSH_" && names_its_flags.contains(&name) {
                    check(subcommand, &format!("{prefix}{}_", name.to_uppercase()));
                } else {
                    check(subcommand, prefix);
                }
            }
        }
        check(&command(), "GALAXY_PUSH_");
    }
}
