//! How often a quiet stream shows that it lives: the values of `push-heartbeat`.

use std::time::Duration;

/// The shortest interval that a gateway may ask for.
pub const MIN: Duration = Duration::from_secs(1);
/// The longest.
pub const MAX: Duration = Duration::from_secs(5 * 60);

/// Why a text is no interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeartbeatError {
    /// It is not of the form.
    #[error("not a whole number and a unit, ms, s or m, such as 15s")]
    Form,
    /// It is shorter than [`MIN`] or longer than [`MAX`].
    #[error("not within 1s and 5m")]
    Range,
}

/// The interval that a value of `push-heartbeat` names: a whole number and a unit, `ms`, `s` or
/// `m`, without a space.
///
/// # Errors
///
/// It is of another form, or not within [`MIN`] and [`MAX`].
///
/// ```
/// use std::time::Duration;
/// use galaxy_push::contract::heartbeat::{self, HeartbeatError};
///
/// assert_eq!(heartbeat::parse("15s"), Ok(Duration::from_secs(15)));
/// assert_eq!(heartbeat::parse("1500ms"), Ok(Duration::from_millis(1500)));
/// assert_eq!(heartbeat::parse("15"), Err(HeartbeatError::Form));
/// assert_eq!(heartbeat::parse("1h"), Err(HeartbeatError::Form));
/// assert_eq!(heartbeat::parse("6m"), Err(HeartbeatError::Range));
/// ```
pub fn parse(value: &str) -> Result<Duration, HeartbeatError> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return Err(HeartbeatError::Form),
    };
    if number.is_empty() {
        return Err(HeartbeatError::Form);
    }
    // A number that is too long for its type is too large in any case.
    let number = number.parse::<u64>().ok();
    let ms = number.and_then(|number| number.checked_mul(unit_ms));
    let interval = ms.map(Duration::from_millis);
    interval.filter(is_allowed).ok_or(HeartbeatError::Range)
}

/// The value of `push-heartbeat` for an interval, to the millisecond.
#[must_use]
pub fn value(interval: Duration) -> String {
    let ms = interval.as_millis();
    if ms.is_multiple_of(1000) {
        format!("{}s", ms / 1000)
    } else {
        format!("{ms}ms")
    }
}

/// Whether a gateway may ask for it.
#[must_use]
pub fn is_allowed(interval: &Duration) -> bool {
    (MIN..=MAX).contains(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for ms in [1000, 1001, 15_000, 60_000, 299_999, 300_000] {
            let interval = Duration::from_millis(ms);
            assert_eq!(parse(&value(interval)), Ok(interval));
        }
        assert_eq!(parse("5m"), Ok(MAX));
    }

    #[test]
    fn what_is_no_interval_is_told() {
        for text in [
            "", "s", "ms", "1", "1 s", "+1s", "-1s", "1.5s", "1S", "1sm", "\u{661}s",
        ] {
            assert_eq!(parse(text), Err(HeartbeatError::Form), "{text:?}");
        }
        for text in [
            "0s",
            "999ms",
            "300001ms",
            "6m",
            "18446744073709551615m",
            "99999999999999999999999s",
        ] {
            assert_eq!(parse(text), Err(HeartbeatError::Range), "{text:?}");
        }
    }
}
