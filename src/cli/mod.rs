//! The command line: what people type, turned into what the other rooms do.
//!
//! A file for each subcommand, and around them what they share. Nothing here is
//! for others to call but [`main`]; whoever embeds the server or a gateway uses
//! [`server`](crate::server) and [`client`](crate::client).
//!
//! Standard output carries results and nothing else: cursors (`publish`), events
//! (`tail`), figures (`bench`). Everything meant for a person goes to standard error, and a failure
//! is one line there.

#![forbid(unsafe_code)]

#[cfg(feature = "bench")]
mod bench;
mod json;
mod publish;
mod serve;
mod stderr;
mod stop;
mod tail;
mod usage;
mod value;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

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

`galaxy-push help COMMAND` (or COMMAND --help) tells more, with examples.",
    after_long_help = "\
Try it, each in a terminal of its own:
  galaxy-push serve
  galaxy-push tail --id gateway-1
  galaxy-push publish --user-id u1 --kind turn.ready --payload '{\"game\":1}'

Every flag can be set in the environment too; its help names the variable. A flag
on the command line wins.

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
    /// Without it, RUST_LOG decides; without that, `info`. What a command has to
    /// say (gaps, takeovers, failures) is said whatever is logged.
    #[arg(
        long,
        global = true,
        display_order = 900,
        value_name = "FILTER",
        env = "GALAXY_PUSH_LOG",
        hide_env_values = true
    )]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Publish(publish::Args),
    Tail(tail::Args),
    #[cfg(feature = "bench")]
    Bench(bench::Args),
}

/// Why a command ended without having done its work.
#[derive(Debug)]
struct Failure {
    exit: u8,
    message: String,
}

impl Failure {
    /// It was tried and did not work.
    fn failed(message: impl Into<String>) -> Self {
        Failure {
            exit: 1,
            message: message.into(),
        }
    }

    /// What was asked for cannot be.
    fn usage(message: impl Into<String>) -> Self {
        Failure {
            exit: 2,
            message: message.into(),
        }
    }

    /// Another gateway has the id now.
    fn taken_over(message: impl Into<String>) -> Self {
        Failure {
            exit: 3,
            message: message.into(),
        }
    }
}

/// Runs the command line `args`, the program's name first, and answers the exit
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
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            return print_help(&error);
        }
        Err(error) => return Err(Failure::usage(usage::line(&error, &Cli::command(), args))),
    };
    start_log(cli.log)?;
    match cli.command {
        Command::Serve(args) => serve::run(args),
        Command::Publish(args) => publish::run(args),
        Command::Tail(args) => tail::run(args),
        #[cfg(feature = "bench")]
        Command::Bench(args) => bench::run(args),
    }
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
        .parse(&directives)
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
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_can_be_set_in_the_environment() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                if ["help", "version"].contains(&long) {
                    continue;
                }
                let env = arg.get_env().and_then(|env| env.to_str()).unwrap_or("");
                let wanted = long.to_uppercase().replace('-', "_");
                assert!(
                    env.starts_with("GALAXY_PUSH_") && env.ends_with(&wanted),
                    "--{long} has the variable {env:?}"
                );
                assert!(arg.get_help().is_some(), "--{long} has no help");
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
