//! Numbers, times and sizes as people read them.

/// A number, in groups of three digits; small ones with a decimal.
pub(super) fn count(number: f64) -> String {
    if number != 0.0 && number.abs() < 100.0 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    if number < 0.0 {
        text.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time, in the largest unit of which there is at least one.
pub(super) fn nanos(nanos: f64) -> String {
    let (number, unit) = match nanos {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    format!("{} {unit}", three_digits(number))
}

/// A size, in the largest unit of which there is at least one.
pub(super) fn bytes(bytes: f64) -> String {
    let (number, unit) = match bytes.abs() {
        n if n < 1024.0 => return format!("{bytes:.0} B"),
        n if n < 1_048_576.0 => (bytes / 1024.0, "KiB"),
        n if n < 1_073_741_824.0 => (bytes / 1_048_576.0, "MiB"),
        _ => (bytes / 1_073_741_824.0, "GiB"),
    };
    format!("{} {unit}", three_digits(number))
}

fn three_digits(number: f64) -> String {
    match number.abs() {
        n if n >= 100.0 => format!("{number:.0}"),
        n if n >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!(count(0.0), "0");
        assert_eq!(count(999.0), "999");
        assert_eq!(count(1000.0), "1,000");
        assert_eq!(count(1_234_567.4), "1,234,567");
        assert_eq!(count(2.5), "2.5");
        assert_eq!(nanos(812.0), "812 ns");
        assert_eq!(nanos(12_345.0), "12.3 µs");
        assert_eq!(nanos(4_560_000.0), "4.56 ms");
        assert_eq!(nanos(10e9), "10.0 s");
        assert_eq!(bytes(250.0), "250 B");
        assert_eq!(bytes(20_480.0), "20.0 KiB");
        assert_eq!(bytes(-20_480.0), "-20.0 KiB");
        assert_eq!(bytes(256.0 * 1_048_576.0), "256 MiB");
    }
}
