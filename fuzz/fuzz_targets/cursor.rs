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
        assert_eq!(
            a.cmp(&b),
            (a.epoch().millis(), a.seq().number()).cmp(&(b.epoch().millis(), b.seq().number()))
        );
    }
});

/// Reads a cursor in the plainest way: digit by digit, in arithmetic too wide to
/// overflow.
fn by_definition(text: &[u8]) -> Option<Cursor> {
    let number = |digits: &str| {
        digits.chars().try_fold(0u128, |number, digit| {
            Some(number * 32 + DIGITS.find(digit)? as u128)
        })
    };
    let (epoch, seq) = std::str::from_utf8(text).ok()?.split_once('-')?;
    if (epoch.len(), seq.len()) != (10, 13) {
        return None;
    }
    let epoch = Epoch::from_millis(u64::try_from(number(epoch)?).ok()?)?;
    let seq = Seq::new(u64::try_from(number(seq)?).ok()?);
    Some(Cursor::new(epoch, seq))
}

/// A cursor of the first bytes' numbers, as far as there are any.
fn from_numbers(bytes: &[u8]) -> Option<Cursor> {
    let (epoch, rest) = bytes.split_first_chunk::<6>()?;
    let (seq, _) = rest.split_first_chunk::<8>()?;
    let [a, b, c, d, e, f] = *epoch;
    let millis = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let epoch = Epoch::from_millis(millis).expect("48 bits fit");
    let cursor = Cursor::new(epoch, Seq::new(u64::from_be_bytes(*seq)));
    let text = cursor.to_text();
    assert_eq!(Cursor::parse(text.as_bytes()), Ok(cursor));
    assert_eq!(
        (cursor.epoch().millis(), cursor.seq().number()),
        (millis, u64::from_be_bytes(*seq))
    );
    Some(cursor)
}
