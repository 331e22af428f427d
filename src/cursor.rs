//! Where an event stands in the stream: [`Epoch`], [`Seq`], and the [`Cursor`]
//! that joins them and that gateways keep as text.
//!
//! The text form is 24 ASCII characters, `EEEEEEEEEE-SSSSSSSSSSSSS`: ten
//! characters of epoch, a dash, thirteen of sequence, both big-endian Crockford
//! base32 in upper case, padded with `0`. The alphabet is in ASCII order and
//! every field has a fixed width, so comparing two texts compares
//! `(epoch, sequence)`.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Crockford's base32 digits, in ASCII order.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// What [`DIGITS`] maps back to; [`NOT_A_DIGIT`] everywhere else.
const VALUES: [u8; 256] = {
    let mut values = [NOT_A_DIGIT; 256];
    let mut i = 0;
    while i < DIGITS.len() {
        values[DIGITS[i] as usize] = i as u8;
        i += 1;
    }
    values
};
const NOT_A_DIGIT: u8 = 0x80;

const EPOCH_CHARS: usize = 10;
const SEQ_CHARS: usize = 13;

/// A position in one engine's stream: the number of the event that stands
/// there. The first event is 1; [`Seq::ZERO`] is the position before it.
/// Sequences are dense, so the distance of two is the number of events between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// The position before the first event.
    pub const ZERO: Seq = Seq(0);

    /// The position with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Seq(number)
    }

    /// The number itself.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// How many digits the text form has.
    pub(crate) const DIGITS: usize = SEQ_CHARS;

    /// Its digits, in two parts that a processor holds in a register each.
    pub(crate) fn digits(self) -> (SeqHigh, SeqLow) {
        // An engine comes above this after 2⁴⁰ events.
        let high = if self.0 >> 40 == 0 {
            *b"00000"
        } else {
            let [_, _, _, high @ ..] = eight_digits(self.0 >> 40);
            high
        };
        (high, eight_digits(self.0))
    }
}

/// The first of a sequence's digits.
pub(crate) type SeqHigh = [u8; SEQ_CHARS - 8];
/// The rest of them.
pub(crate) type SeqLow = [u8; 8];

/// The two digits of each number of ten bits.
const PAIRS: [[u8; 2]; 1024] = {
    let mut pairs = [[0; 2]; 1024];
    let mut i = 0;
    while i < pairs.len() {
        pairs[i] = [DIGITS[i >> 5], DIGITS[i & 31]];
        i += 1;
    }
    pairs
};

/// The eight digits of a number's low 40 bits.
fn eight_digits(number: u64) -> [u8; 8] {
    let pair = |shift: u32| PAIRS[(number >> shift & 1023) as usize];
    let [[a, b], [c, d], [e, f], [g, h]] = [pair(30), pair(20), pair(10), pair(0)];
    [a, b, c, d, e, f, g, h]
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When an engine was born, in milliseconds since 1970 (48 bits). Sequences of
/// different epochs have nothing to do with one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// The latest epoch that fits: 48 bits of milliseconds, the year 10889.
    pub const MAX: Epoch = Epoch((1 << 48) - 1);

    /// The epoch of an engine born `millis` milliseconds after 1970, or `None`
    /// if that needs more than 48 bits.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Option<Self> {
        if millis > Self::MAX.0 {
            None
        } else {
            Some(Epoch(millis))
        }
    }

    /// The epoch of an engine born now, by the system's clock, or `None` if that
    /// clock stands before 1970 or beyond [`Epoch::MAX`].
    #[must_use]
    pub fn now() -> Option<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        Self::from_millis(u64::try_from(since.as_millis()).ok()?)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }
}

/// The place of one event in the stream of one engine.
///
/// ```
/// use galaxy_push::cursor::{Cursor, Epoch, Seq};
///
/// let epoch = Epoch::from_millis(1_700_000_000_000).expect("fits in 48 bits");
/// let cursor = Cursor::new(epoch, Seq::new(42));
/// let text = cursor.to_string();
/// assert_eq!(text, "01HF7YAT00-000000000001A");
/// assert_eq!(text.parse(), Ok(cursor));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    epoch: Epoch,
    seq: Seq,
}

impl Cursor {
    /// The length of every cursor's text, in bytes.
    pub const TEXT_BYTES: usize = EPOCH_CHARS + 1 + SEQ_CHARS;
    /// What a cursor adds to an encoded event, in bytes: a protobuf field's tag, the
    /// text's length, and the text.
    pub const FIELD_BYTES: usize = 2 + Self::TEXT_BYTES;

    /// The place `seq` of the engine born at `epoch`.
    #[must_use]
    pub const fn new(epoch: Epoch, seq: Seq) -> Self {
        Cursor { epoch, seq }
    }

    /// The engine's birth.
    #[must_use]
    pub const fn epoch(self) -> Epoch {
        self.epoch
    }

    /// The place in that engine's stream.
    #[must_use]
    pub const fn seq(self) -> Seq {
        self.seq
    }

    /// The text form, without allocating.
    #[must_use]
    pub fn to_text(self) -> CursorText {
        let mut text = *b"0000000000-0000000000000";
        text[..2].copy_from_slice(&eight_digits(self.epoch.0 >> 40)[6..]);
        text[2..EPOCH_CHARS].copy_from_slice(&eight_digits(self.epoch.0));
        let (high, low) = self.seq.digits();
        text[EPOCH_CHARS + 1..Self::TEXT_BYTES - low.len()].copy_from_slice(&high);
        text[Self::TEXT_BYTES - low.len()..].copy_from_slice(&low);
        CursorText(text)
    }

    /// Reads the text form. Strict: exactly 24 bytes, upper case, no look-alike
    /// letters. Never panics and never allocates.
    ///
    /// # Errors
    ///
    /// [`ParseCursorError`] says what is wrong and at which byte.
    #[inline]
    pub const fn parse(text: &[u8]) -> Result<Self, ParseCursorError> {
        let bytes = text.len();
        let Some(text) = text.first_chunk::<{ Self::TEXT_BYTES }>() else {
            return Err(ParseCursorError::Length { bytes });
        };
        if bytes != Self::TEXT_BYTES {
            return Err(ParseCursorError::Length { bytes });
        }
        if text[EPOCH_CHARS] != b'-' {
            return Err(ParseCursorError::Character { at: EPOCH_CHARS });
        }
        // In four parts, which the processor takes side by side.
        let (epoch_high, a) = decode::<0, 2>(text);
        let (epoch_low, b) = decode::<2, 8>(text);
        let (seq_high, c) = decode::<{ EPOCH_CHARS + 1 }, 5>(text);
        let (seq_low, d) = decode::<{ EPOCH_CHARS + 6 }, 8>(text);
        let (epoch, seq) = (epoch_high << 40 | epoch_low, seq_high << 40 | seq_low);
        if (a | b | c | d) & NOT_A_DIGIT != 0 {
            return Err(ParseCursorError::Character {
                at: first_non_digit(text),
            });
        }
        if epoch > Epoch::MAX.0 {
            return Err(ParseCursorError::Overflow { field: "epoch" });
        }
        // Thirteen characters carry 65 bits; the first may use four of its five.
        if VALUES[text[EPOCH_CHARS + 1] as usize] > 0x0F {
            return Err(ParseCursorError::Overflow { field: "sequence" });
        }
        Ok(Cursor {
            epoch: Epoch(epoch),
            seq: Seq(seq),
        })
    }
}

/// The number that the `N` digits from `AT` spell, and all the looked up values or-ed
/// together: with [`NOT_A_DIGIT`] in it, one was none, and the number is nonsense.
const fn decode<const AT: usize, const N: usize>(text: &[u8; Cursor::TEXT_BYTES]) -> (u64, u8) {
    let mut number = 0;
    let mut seen = 0;
    let mut i = 0;
    while i < N {
        let value = VALUES[text[AT + i] as usize];
        seen |= value;
        number |= (value as u64) << (5 * (N - 1 - i));
        i += 1;
    }
    (number, seen)
}

const fn first_non_digit(text: &[u8]) -> usize {
    let mut i = 0;
    while i < text.len() {
        if i != EPOCH_CHARS && VALUES[text[i] as usize] == NOT_A_DIGIT {
            return i;
        }
        i += 1;
    }
    i
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_text().as_str())
    }
}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, ParseCursorError> {
        Cursor::parse(text.as_bytes())
    }
}

/// A cursor's text, on the stack.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CursorText([u8; Cursor::TEXT_BYTES]);

impl CursorText {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only `Cursor::to_text` makes one, out of ASCII digits and a dash.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The text's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Cursor::TEXT_BYTES] {
        &self.0
    }
}

impl fmt::Debug for CursorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for CursorText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseCursorError {
    /// It has another length than every cursor has.
    #[error(
        "a cursor has {} characters, this has {bytes} bytes",
        Cursor::TEXT_BYTES
    )]
    Length {
        /// The text's length in bytes.
        bytes: usize,
    },
    /// A byte that does not belong there.
    #[error(
        "byte {at} is not what a cursor has there (upper-case Crockford base32, and a dash at {EPOCH_CHARS})"
    )]
    Character {
        /// The byte's offset.
        at: usize,
    },
    /// A field with more bits than it may have.
    #[error("the {field} is larger than a cursor can hold")]
    Overflow {
        /// `epoch` (48 bits) or `sequence` (64 bits).
        field: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursor(epoch: u64, seq: u64) -> Cursor {
        Cursor::new(Epoch::from_millis(epoch).unwrap(), Seq::new(seq))
    }

    #[test]
    fn extremes_have_the_expected_text() {
        assert_eq!(cursor(0, 0).to_string(), "0000000000-0000000000000");
        assert_eq!(
            cursor(Epoch::MAX.millis(), u64::MAX).to_string(),
            "7ZZZZZZZZZ-FZZZZZZZZZZZZ"
        );
    }

    #[test]
    fn anything_but_the_exact_form_is_refused() {
        use ParseCursorError::{Character, Length, Overflow};
        let parse = |text: &str| text.parse::<Cursor>();
        assert_eq!(parse(""), Err(Length { bytes: 0 }));
        assert_eq!(
            parse("0000000000-00000000000000"),
            Err(Length { bytes: 25 })
        );
        assert_eq!(parse("0000000000_0000000000000"), Err(Character { at: 10 }));
        assert_eq!(parse("000000000a-0000000000000"), Err(Character { at: 9 }));
        for look_alike in ["I", "L", "O", "U", "l", "o", "-", " ", "\0", "\u{7f}"] {
            let text = format!("0000000000-000000000000{look_alike}");
            assert_eq!(parse(&text), Err(Character { at: 23 }), "{text:?}");
        }
        assert_eq!(
            parse("8000000000-0000000000000"),
            Err(Overflow { field: "epoch" })
        );
        assert_eq!(
            parse("0000000000-G000000000000"),
            Err(Overflow { field: "sequence" })
        );
        assert_eq!(Epoch::from_millis(1 << 48), None);
    }

    proptest! {
        #[test]
        fn text_round_trips(epoch in 0..=Epoch::MAX.millis(), seq: u64) {
            let cursor = cursor(epoch, seq);
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn text_order_is_cursor_order(
            a in (0..=Epoch::MAX.millis(), any::<u64>()),
            b in (0..=Epoch::MAX.millis(), any::<u64>()),
            same_epoch: bool,
        ) {
            let (a, b) = (cursor(a.0, a.1), cursor(if same_epoch { a.0 } else { b.0 }, b.1));
            prop_assert_eq!(a.to_text().cmp(&b.to_text()), a.cmp(&b));
        }

        #[test]
        fn what_parses_prints_back_the_same(text in "[0-9A-Za-z]{10}-[0-9A-Za-z]{13}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
