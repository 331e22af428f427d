//! Numbers, sizes, durations and addresses as people write them.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;

use crate::config::Address;

/// A whole number.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    within(text, 0..=u64::MAX)
}

/// A whole number that this machine can count to.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    let count = number(text)?;
    usize::try_from(count).map_err(|_| "larger than this machine can count".to_owned())
}

/// A whole number from a range.
pub(crate) fn within(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let (least, most) = (*range.start(), *range.end());
    match text.trim().parse::<u64>() {
        Ok(number) if range.contains(&number) => Ok(number),
        Ok(_) if most == u64::MAX => Err(format!("it must be at least {least}")),
        Ok(_) => Err(format!("it must be from {least} to {most}")),
        Err(_) => Err("not a whole number, or too large".to_owned()),
    }
}

/// Bytes, such as `1048576`, `512KiB`, `256MiB`, `1GB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    text.trim()
        .parse::<ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| "not a size: write it like 65536, 512KiB, 256MiB or 1GB".to_owned())
}

/// Bytes, where they must fit into the address space.
pub(crate) fn size_in_memory(text: &str) -> Result<usize, String> {
    let bytes = size(text)?;
    usize::try_from(bytes).map_err(|_| "larger than this machine's address space".to_owned())
}

/// Bytes, as [`size`] reads them: in the largest unit that gives a whole number.
pub(crate) fn size_text(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        let whole = bytes >> shift;
        if whole > 0 && whole << shift == bytes {
            return format!("{whole}{unit}");
        }
    }
    bytes.to_string()
}

/// A duration, such as `300ms`, `5m`, `1h 30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    // Zero needs no unit.
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(text.trim())
        .map_err(|error| format!("not a duration ({error}): write it like 300ms, 30s, 5m or 1h"))
}

/// A duration, as [`duration`] reads it.
pub(crate) fn duration_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// An address, or `none`.
pub(crate) fn optional_address(text: &str) -> Result<OptionalAddress, String> {
    if text.trim() == "none" {
        return Ok(OptionalAddress(None));
    }
    let address = text.parse::<Address>().map_err(|error| error.to_string())?;
    Ok(OptionalAddress(Some(address)))
}

/// An address that may be left out: as one value of a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OptionalAddress(pub(crate) Option<Address>);

impl fmt::Display for OptionalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_range() {
        assert_eq!(number("18446744073709551615"), Ok(u64::MAX));
        for text in ["", "-1", "1.5", "1k", "18446744073709551616"] {
            assert!(number(text).is_err(), "{text:?}");
        }
        assert_eq!(within("4096", 1..=4096), Ok(4096));
        assert_eq!(
            within("4097", 1..=4096),
            Err("it must be from 1 to 4096".to_owned())
        );
        assert_eq!(
            within("0", 1..=u64::MAX),
            Err("it must be at least 1".to_owned())
        );
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("64KiB", 65_536),
            ("256MiB", 256 << 20),
            ("256 MiB", 256 << 20),
            ("1.5GiB", 3 << 29),
            ("1GB", 1_000_000_000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "12x", "-1", "1,5MiB", "0x10"] {
            assert!(size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("0", 0.0),
            ("0s", 0.0),
            ("300ms", 0.3),
            ("5m", 300.0),
            ("1h 30m", 5400.0),
        ] {
            assert_eq!(
                duration(text),
                Ok(Duration::from_secs_f64(seconds)),
                "{text}"
            );
        }
        for text in ["", "5", "m", "-5m", "5 parsecs", "99999999999999999999y"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1KiB"),
            (1025, "1025"),
            (64 << 10, "64KiB"),
            (256 << 20, "256MiB"),
            (3 << 29, "1536MiB"),
            (1 << 44, "16TiB"),
        ] {
            assert_eq!(size_text(bytes), text);
            assert_eq!(size(text), Ok(bytes));
        }
        for (millis, text) in [
            (0, "0s"),
            (300, "300ms"),
            (300_000, "5m"),
            (90_000, "1m 30s"),
        ] {
            let written = Duration::from_millis(millis);
            assert_eq!(duration_text(written), text);
            assert_eq!(duration(text), Ok(written));
        }
    }
}
