//! What all flags have in common, set once: their environment variables, the names of
//! their values, and that a value may begin with a hyphen.

use std::any::TypeId;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Arg, Command, ValueHint};

use crate::config::{Address, Setting};
use crate::cursor::Cursor;

/// `command` and its subcommands, with every flag completed.
pub(super) fn complete(command: Command) -> Command {
    command
        .mut_args(|arg| complete_flag(arg, "GALAXY_PUSH_"))
        .mut_subcommands(|subcommand| match subcommand.get_name() {
            // Its flags are the settings of the server, and described there.
            "serve" => complete_all(subcommand, "GALAXY_PUSH_").mut_args(describe_setting),
            "config" => complete_all(subcommand, "GALAXY_PUSH_CONFIG_")
                .mut_subcommands(|inner| inner.mut_args(as_of_serve)),
            name => {
                let prefix = format!("GALAXY_PUSH_{}_", name.to_uppercase());
                complete_all(subcommand, &prefix)
            }
        })
}

fn complete_all(command: Command, prefix: &str) -> Command {
    command
        .mut_args(|arg| complete_flag(arg, prefix))
        .mut_subcommands(|subcommand| complete_all(subcommand, prefix))
}

fn complete_flag(arg: Arg, prefix: &str) -> Arg {
    let Some(long) = arg.get_long() else {
        return arg;
    };
    let variable = format!("{prefix}{}", long.to_uppercase().replace('-', "_"));
    // A payload or a token does not belong into a help text.
    let arg = arg.env(variable).hide_env_values(true);
    if !arg.get_action().takes_values() {
        // In the environment, where a switch has a value: also `1`, `yes` and `on`.
        return arg.value_parser(BoolishValueParser::new());
    }
    // As with getopt_long, what follows a flag is its value. So a negative number is
    // refused by the flag, which says why.
    let arg = arg.allow_hyphen_values(true);
    let arg = match arg.get_value_parser().type_id() == TypeId::of::<PathBuf>() {
        true => arg.value_hint(ValueHint::AnyPath),
        false => arg,
    };
    match value_name(&arg) {
        Some(name) => arg.value_name(name),
        None => arg,
    }
}

/// The name of the value, where the type of the value gives it and the flag has none of
/// its own.
fn value_name(arg: &Arg) -> Option<&'static str> {
    let of_field = arg.get_id().as_str().to_uppercase();
    if arg.get_value_names()? != [of_field.as_str()] {
        return None;
    }
    let parsed = arg.get_value_parser().type_id();
    [
        (TypeId::of::<u64>(), "NUMBER"),
        (TypeId::of::<usize>(), "NUMBER"),
        (TypeId::of::<f64>(), "NUMBER"),
        (TypeId::of::<Duration>(), "DURATION"),
        (TypeId::of::<Address>(), "ADDRESS"),
        (TypeId::of::<Cursor>(), "CURSOR"),
        (TypeId::of::<PathBuf>(), "FILE"),
    ]
    .into_iter()
    .find(|(of_type, _)| parsed == *of_type)
    .map(|(_, name)| name)
}

/// A flag of `serve`, with the description of its setting as the help.
fn describe_setting(arg: Arg) -> Arg {
    let setting = Setting::ALL
        .iter()
        .find(|setting| arg.get_long() == Some(flag(**setting).trim_start_matches('-')));
    let Some(setting) = setting else {
        return arg;
    };
    let text = in_flags(setting.description());
    let summary = text.split("\n\n").next().unwrap_or_default();
    let summary = summary.strip_suffix('.').unwrap_or(summary).to_owned();
    arg.help(summary).long_help(text)
}

/// A flag of `serve`, as another command has it: with the variable of `serve`.
fn as_of_serve(arg: Arg) -> Arg {
    let id = arg.get_id().as_str();
    if Setting::named(id).is_none() && id != "config" {
        return arg;
    }
    let variable = format!("GALAXY_PUSH_{}", id.to_uppercase());
    describe_setting(arg.env(variable))
}

/// The flag of a setting.
pub(super) fn flag(setting: Setting) -> String {
    format!("--{}", setting.name().replace('_', "-"))
}

/// A description of a setting, one line for each paragraph, with flags for settings.
fn in_flags(description: &str) -> String {
    let paragraphs = description.split("\n\n").map(|paragraph| {
        let words = paragraph.split_whitespace();
        words.collect::<Vec<_>>().join(" ")
    });
    let mut text = paragraphs.collect::<Vec<_>>().join("\n\n");
    for setting in Setting::ALL {
        text = text.replace(&format!("`{}`", setting.name()), &flag(*setting));
    }
    text.replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_described_with_flags_in_lines_of_whole_paragraphs() {
        assert_eq!(
            in_flags(" One, within\n `max_bytes`.\n\n Or `RESOURCE_EXHAUSTED`.\n"),
            "One, within --max-bytes.\n\nOr RESOURCE_EXHAUSTED."
        );
        for setting in Setting::ALL {
            let text = in_flags(setting.description());
            let names = Setting::ALL.iter().map(|setting| setting.name());
            let mut compound = names.filter(|name| name.contains('_'));
            assert!(!compound.any(|name| text.contains(name)), "{text}");
        }
    }
}
