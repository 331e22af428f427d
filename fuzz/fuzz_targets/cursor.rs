//! Cursor texts: what parses prints back the same, what prints parses back the
//! same, and the order of the texts is the order of the cursors.
//!
//! The input is lines; each is tried as a cursor's text, and as the numbers of
//! one.

#![no_main]

use galaxy_push::cursor::{Cursor, Epoch, Seq};
use libfuzzer_sys::fuzz_target;

const DIGITS: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

fuzz_target!(|input: &[u8]| {
    let mut cursors = Vec::new();
    for line in input.split(|&byte| byte == b'\n') {
        let parsed = Cursor::parse(line);
        assert_eq!(parsed.ok(), by_definition(line), "{parsed:?}");
        match parsed {
            Ok(cursor) => {
                assert_eq!(cursor.to_text().as_bytes(), line);
                cursors.push(cursor);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        cursors.extend(from_numbers(line));
    }
    for pair in cursors.windows(2) {
        let [a, b] = [pair[0], pair[1]];
        assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
        assert_eq!(a.cmp(&b), numbers(a).cmp(&numbers(b)));
    }
});

/// What orders cursors: milliseconds, the number among births in the same one, and
/// the sequence.
fn numbers(cursor: Cursor) -> (u64, u32, u64) {
    let epoch = cursor.epoch();
    (epoch.millis(), epoch.distinct(), cursor.seq().number())
}

/// Reads a cursor in the plainest way: digit by digit.
fn by_definition(text: &[u8]) -> Option<Cursor> {
    let number = |digits: &str| {
        digits.chars().try_fold(0u64, |number, digit| {
            Some(number * 32 + DIGITS.find(digit)? as u64)
        })
    };
    let (epoch, seq) = std::str::from_utf8(text).ok()?.split_once('-')?;
    if (epoch.len(), seq.len()) != (12, 11) {
        return None;
    }
    // Sixty bits: 42 of milliseconds, then 18.
    let epoch = number(epoch)?;
    let epoch = Epoch::new(epoch >> 18, (epoch % (1 << 18)) as u32);
    let seq = Seq::new(number(seq)?);
    Some(Cursor::new(epoch.expect("they fit"), seq))
}

/// A cursor of the first bytes' numbers, as far as there are any.
fn from_numbers(bytes: &[u8]) -> Option<Cursor> {
    let (epoch, rest) = bytes.split_first_chunk::<8>()?;
    let (seq, _) = rest.split_first_chunk::<8>()?;
    let [epoch, seq] = [epoch, seq].map(|bytes| u64::from_be_bytes(*bytes));
    let made = (Epoch::from_number(epoch), Seq::checked_new(seq));
    assert_eq!(made.0.is_some(), epoch < 1 << 60);
    assert_eq!(made.1.is_some(), seq < 1 << 55);
    let cursor = Cursor::new(made.0?, made.1?);
    let text = cursor.to_text();
    assert_eq!(Cursor::parse(text.as_bytes()), Ok(cursor));
    assert_eq!(
        (cursor.epoch().number(), cursor.seq().number()),
        (epoch, seq)
    );
    Some(cursor)
}
