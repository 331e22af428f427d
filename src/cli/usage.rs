//! What is wrong with a command line, in one line that names the flag and the
//! reason.

use std::error::Error;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

/// The line for `error`, which parsing `args` as `command` ended with.
pub(super) fn line(error: &clap::Error, command: &Command, args: &[OsString]) -> String {
    match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            let innermost = called(command, args).pop().unwrap_or(command);
            let names: Vec<&str> = innermost.get_subcommands().map(Command::get_name).collect();
            Some(format!(
                "say what to do: {} (--help tells more)",
                names.join(", ")
            ))
        }
        ErrorKind::ValueValidation => bad_value(error, command, args),
        ErrorKind::InvalidUtf8 => not_utf8(command, args),
        _ => None,
    }
    .unwrap_or_else(|| first_paragraph(error))
}

/// A value that its flag's parser refused.
fn bad_value(error: &clap::Error, command: &Command, args: &[OsString]) -> Option<String> {
    let name = match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(usage) => usage.split_whitespace().next()?.to_owned(),
        _ => return None,
    };
    let value = match error.get(ContextKind::InvalidValue)? {
        ContextValue::String(value) => value,
        _ => return None,
    };
    let reason = error.source()?.to_string();
    let name = match from_environment(&name, command, args) {
        Some(variable) => format!("{variable} ({name})"),
        None => name,
    };
    Some(format!("{name}: {value:?}: {reason}"))
}

/// The variable that the value of flag `name` came from, if the command line
/// does not have the flag.
fn from_environment(name: &str, command: &Command, args: &[OsString]) -> Option<String> {
    let on_command_line = args.iter().any(|arg| {
        let arg = arg.to_string_lossy();
        arg == name || arg.starts_with(&format!("{name}="))
    });
    if on_command_line {
        return None;
    }
    let variable = arguments(command, args)
        .find(|arg| arg.get_long() == name.strip_prefix("--"))?
        .get_env()?;
    std::env::var_os(variable)?;
    Some(variable.to_string_lossy().into_owned())
}

/// Text flags and arguments must be UTF-8; which one is not?
fn not_utf8(command: &Command, args: &[OsString]) -> Option<String> {
    let odd = |value: &OsString| value.to_str().is_none();
    if let Some(arg) = args.iter().find(|arg| odd(arg)) {
        return Some(format!("the argument {arg:?} is not UTF-8"));
    }
    arguments(command, args)
        .filter_map(Arg::get_env)
        .find(|variable| std::env::var_os(variable).as_ref().is_some_and(odd))
        .map(|variable| format!("{}: its value is not UTF-8", variable.to_string_lossy()))
}

/// The flags of the subcommand that `args` calls, and those that all have.
fn arguments<'a>(command: &'a Command, args: &[OsString]) -> impl Iterator<Item = &'a Arg> {
    let called = called(command, args);
    called.into_iter().rev().flat_map(Command::get_arguments)
}

/// `command`, its subcommand that `args` calls, and the subcommand of that.
fn called<'a>(command: &'a Command, args: &[OsString]) -> Vec<&'a Command> {
    let mut called = vec![command];
    for arg in args.iter().skip(1) {
        let innermost = called[called.len() - 1];
        called.extend(innermost.find_subcommand(arg));
    }
    called
}

/// clap's own words, without the usage below them, on one line.
fn first_paragraph(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let said = text
        .split("\nUsage:")
        .next()
        .unwrap_or(text)
        .split("\nFor more information")
        .next()
        .unwrap_or(text);
    said.split("\n\n")
        .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}
