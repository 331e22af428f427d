//! What kind of value a flag takes, and its key in the configuration file.

use std::any::TypeId;
use std::path::PathBuf;

use clap::Arg;

use crate::command::value::OptionalAddress;
use crate::config::{Address, Setting};

/// The kind of a flag's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Switch,
    Number,
    File,
    Address,
    Text,
    List,
}

impl Kind {
    pub(super) fn of(arg: &Arg) -> Self {
        if !arg.get_action().takes_values() {
            return Kind::Switch;
        }
        if arg.get_value_delimiter().is_some() {
            return Kind::List;
        }
        let parsed = arg.get_value_parser().type_id();
        [
            (TypeId::of::<u64>(), Kind::Number),
            (TypeId::of::<usize>(), Kind::Number),
            (TypeId::of::<PathBuf>(), Kind::File),
            (TypeId::of::<Address>(), Kind::Address),
            (TypeId::of::<OptionalAddress>(), Kind::Address),
        ]
        .into_iter()
        .find(|(of_type, _)| parsed == *of_type)
        .map_or(Kind::Text, |(_, kind)| kind)
    }

    pub(super) fn is_list(self) -> bool {
        self == Kind::List
    }

    pub(super) fn in_words(self) -> &'static str {
        match self {
            Kind::Switch => "true or false",
            Kind::Number => "a number or a string",
            Kind::File | Kind::Address | Kind::Text => "a string",
            Kind::List => "an array of strings, or one string with commas",
        }
    }
}

/// The key of a flag of `serve`, if it has one.
pub(super) fn key_of(arg: &Arg) -> Option<&str> {
    let id = arg.get_id().as_str();
    let is_key = Setting::named(id).is_some() || matches!(id, "log" | "log_format");
    is_key.then_some(id)
}
