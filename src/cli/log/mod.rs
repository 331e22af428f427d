//! The log, on standard error: what is logged, in which format, and how it gets there.
//!
//! | file | what is in it |
//! |---|---|
//! | `format` | lines of text and of JSON, in which no text of a peer passes for another line |
//! | `background` | a queue and a thread for `serve`, so that a slow reader holds nobody up |

mod background;
mod format;

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::str::FromStr;

use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

use self::background::Background;
use crate::command::Failure;

/// The directives where none are given.
pub(super) const DEFAULT: &str = "info";

/// What the TLS library says by itself: a peer could have it say as much as it likes. What
/// comes of it is logged by us, and counted. Whoever asks for it by name gets it.
const QUIET: &str = "rustls=off";

/// What is logged.
pub(super) type Filter = EnvFilter;

/// How it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// For people.
    #[default]
    Text,
    /// An object for each line, for programs.
    Json,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Text => "text",
            Format::Json => "json",
        })
    }
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err("it is one of text and json"),
        }
    }
}

/// A filter of these directives.
///
/// # Errors
///
/// What is wrong with them.
pub(super) fn filter(directives: &str) -> Result<Filter, String> {
    EnvFilter::builder()
        .parse(format!("{QUIET},{directives}"))
        .map_err(|error| error.to_string())
}

/// The log of this process.
pub(super) struct Log {
    filter: reload::Handle<Filter, Registry>,
    background: Option<Background>,
}

impl Log {
    /// Begins to log. What writes a line waits until it is written.
    pub(super) fn start(filter: Filter, format: Format) -> Result<Self, Failure> {
        Self::start_with(filter, format, None)
    }

    /// Begins to log by a thread of its own. What writes a line never waits: when too many
    /// are not written yet, further ones are lost, and the log says how many.
    pub(super) fn start_in_background(filter: Filter, format: Format) -> Result<Self, Failure> {
        let background = Background::start(io::stderr())
            .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
        Self::start_with(filter, format, Some(background))
    }

    fn start_with(
        filter: Filter,
        format: Format,
        background: Option<Background>,
    ) -> Result<Self, Failure> {
        let writer = match &background {
            Some(background) => BoxMakeWriter::new(background.writer()),
            None => BoxMakeWriter::new(io::stderr),
        };
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(writer)
            // It would go to standard error as well, with a panic if that is closed.
            .log_internal_errors(false);
        let layer = match format {
            Format::Text => layer
                .with_ansi(io::stderr().is_terminal())
                .fmt_fields(format::Fields)
                .event_format(format::Text::new())
                .boxed(),
            Format::Json => layer
                .with_ansi(false)
                .fmt_fields(tracing_subscriber::fmt::format::JsonFields::new())
                .event_format(format::Json::new())
                .boxed(),
        };
        let (filter, handle) = reload::Layer::new(filter);
        Registry::default()
            .with(filter)
            .with(layer)
            .try_init()
            .map_err(|error| Failure::failed(format!("cannot log: {error}")))?;
        Ok(Log {
            filter: handle,
            background,
        })
    }

    /// Changes what is logged.
    pub(super) fn set_filter(&self, filter: Filter) {
        // It fails if nobody logs any more.
        let _ = self.filter.reload(filter);
    }

    /// Waits until what was logged is written, if somebody reads it.
    pub(super) fn finish(&self) {
        if let Some(background) = &self.background {
            background.finish();
        }
    }
}
