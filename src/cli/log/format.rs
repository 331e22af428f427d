//! Lines of the log. Texts of strangers are in them, so every control character is written as
//! an escape: none ends a line, moves the cursor of a terminal, or hides what is before it.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{self, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, time::SystemTime};
use tracing_subscriber::registry::LookupSpan;

/// For people: time, level, message and fields. A target that is not simply the module which
/// logs is shown, such as `galaxy_push::audit`: filters go by it.
pub(super) struct Text {
    plain: format::Format<Full, SystemTime>,
    with_target: format::Format<Full, SystemTime>,
}

impl Text {
    pub(super) fn new() -> Self {
        Text {
            plain: format::Format::default().with_target(false),
            with_target: format::Format::default(),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let of = event.metadata();
        let format = match of.module_path() == Some(of.target()) {
            true => &self.plain,
            false => &self.with_target,
        };
        format.format_event(context, writer, event)
    }
}

/// An object for each line, with everything at its top: `timestamp`, `level`, `target`,
/// `message`, and the fields.
pub(super) struct Json(format::Format<format::Json, SystemTime>);

impl Json {
    pub(super) fn new() -> Self {
        let json = format::Format::default().json();
        let json = json.flatten_event(true);
        Json(json.with_current_span(false).with_span_list(false))
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0
            .format_event(context, Writer::new(&mut line), event)?;
        // JSON escapes the ASCII ones. The others can only be in its strings.
        for character in line.trim_end_matches('\n').chars() {
            if is_control(character) {
                write!(writer, "\\u{:04x}", u32::from(character))?;
            } else {
                writer.write_char(character)?;
            }
        }
        writeln!(writer)
    }
}

/// The message, and `name=value` for each field.
pub(super) struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Visitor {
            writer,
            is_first: true,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct Visitor<'w> {
    writer: Writer<'w>,
    is_first: bool,
    result: fmt::Result,
}

impl Visitor<'_> {
    fn write(&mut self, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.writer.write_char(' ')?;
        }
        match field.name() {
            "message" => {}
            name if self.writer.has_ansi_escapes() => {
                let name = name.trim_start_matches("r#");
                write!(self.writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m")?;
            }
            name => write!(self.writer, "{}=", name.trim_start_matches("r#"))?,
        }
        write!(Escaping(&mut self.writer), "{value:?}")
    }
}

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.record_debug(field, &format_args!("{value}")),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // What the `log` crate's lines have is in the line already.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            self.result = self.write(field, value);
        }
    }
}

/// Writes control characters as escapes.
struct Escaping<'a, W>(&'a mut W);

impl<W: fmt::Write> fmt::Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, character)) = rest.char_indices().find(|(_, c)| is_control(*c)) {
            let (before, from) = rest.split_at(at);
            self.0.write_str(before)?;
            write!(self.0, "{}", character.escape_default())?;
            rest = from.strip_prefix(character).unwrap_or_default();
        }
        self.0.write_str(rest)
    }
}

/// Control characters, and what some programs take for the end of a line.
fn is_control(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing_subscriber::Layer;
    use tracing_subscriber::fmt::format::JsonFields;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::registry::Registry;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `log` logs.
    fn written(is_json: bool, log: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let layer = match is_json {
            false => layer
                .with_ansi(false)
                .fmt_fields(Fields)
                .event_format(Text::new())
                .boxed(),
            true => layer
                .fmt_fields(JsonFields::new())
                .event_format(Json::new())
                .boxed(),
        };
        tracing::subscriber::with_default(Registry::default().with(layer), log);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const HOSTILE: &str = "a\nERROR b\r\u{1b}[2J\u{9b}c\u{2028}d\u{7f}";

    fn log_hostile() {
        tracing::info!(plain = HOSTILE, shown = %HOSTILE, debug = ?HOSTILE, "said {HOSTILE}");
    }

    #[test]
    fn no_text_of_a_peer_ends_a_line_or_reaches_a_terminal_as_a_command() {
        for is_json in [false, true] {
            let text = written(is_json, log_hostile);
            let line = text.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(is_control), "{line:?}");
        }
    }

    #[test]
    fn json_keeps_hostile_texts_as_they_are() {
        let line: Value = serde_json::from_str(&written(true, log_hostile)).unwrap();
        assert_eq!(line["plain"], HOSTILE);
        assert_eq!(line["shown"], HOSTILE);
        assert_eq!(line["message"], format!("said {HOSTILE}"));
        assert_eq!(line["level"], "INFO");
        assert!(line["timestamp"].is_string() && line["target"].is_string());
    }

    #[test]
    fn text_shows_a_target_that_is_not_the_module() {
        let log = || {
            tracing::info!(n = 1, who = "x y", "plain");
            tracing::warn!(target: "galaxy_push::audit", missing = None::<u64>, "refused");
        };
        let text = written(false, log);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with(" INFO plain n=1 who=\"x y\""), "{text}");
        assert!(
            lines[1].ends_with(" WARN galaxy_push::audit: refused"),
            "{text}"
        );
    }
}
