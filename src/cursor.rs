//! Where an event stands in the stream: [`Epoch`], [`Seq`], and the [`Cursor`]
//! that joins them and that gateways keep as text.
//!
//! The text form is 24 ASCII characters, `EEEEEEEEEEEE-SSSSSSSSSSS`: twelve
//! characters of epoch, a dash, eleven of sequence, both big-endian Crockford
//! base32 in upper case, padded with `0`. The alphabet is in ASCII order and
//! every field has a fixed width, so comparing two texts compares
//! `(epoch, sequence)`. Each digit carries five bits, and the fields are as wide
//! as their digits (60 and 55 bits): every text of this form is one cursor, and
//! every cursor has one text.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Crockford's base32 digits, in ASCII order.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// How many digits [`decode`] takes at most.
const GROUP: usize = 6;

/// What [`DIGITS`] maps back to; [`NOT_A_DIGIT`] everywhere else. As wide as the numbers
/// that they are put together to, so that a processor does so straight from here.
static VALUES: [u64; 256] = {
    let mut values = [NOT_A_DIGIT; 256];
    let mut i = 0;
    while i < DIGITS.len() {
        values[DIGITS[i] as usize] = i as u64;
        i += 1;
    }
    values
};
/// A bit that no number of a group's digits has, and that is still there when the rest of
/// the group has been shifted in behind it.
const NOT_A_DIGIT: u64 = 1 << (5 * GROUP);

const EPOCH_CHARS: usize = 12;
const SEQ_CHARS: usize = 11;

/// The bits of an epoch that tell births in the same millisecond apart.
const DISTINCT_BITS: u32 = 18;

/// A position in one engine's stream: the number of the event that stands
/// there. The first event is 1; [`Seq::ZERO`] is the position before it.
/// Sequences are dense, so the distance of two is the number of events between.
/// The last is [`Seq::MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u64);

impl Seq {
    /// The position before the first event.
    pub const ZERO: Seq = Seq(0);

    /// The last position of an epoch: 55 bits, 36 quadrillion events. No
    /// engine comes there: at a billion events a second it takes over a year.
    pub const MAX: Seq = Seq((1 << (5 * SEQ_CHARS)) - 1);

    /// The position with this number.
    ///
    /// # Panics
    ///
    /// If the number is larger than that of [`Seq::MAX`]. For numbers from
    /// elsewhere there is [`checked_new`](Self::checked_new).
    #[must_use]
    pub const fn new(number: u64) -> Self {
        match Self::checked_new(number) {
            Some(seq) => seq,
            None => panic!("a sequence has at most 55 bits"),
        }
    }

    /// The position with this number, or `None` if that is larger than that of
    /// [`Seq::MAX`].
    #[must_use]
    pub const fn checked_new(number: u64) -> Option<Self> {
        if number > Self::MAX.0 {
            None
        } else {
            Some(Seq(number))
        }
    }

    /// The position with a number that an engine has given to an event, or begins
    /// with: it gives out none beyond [`Seq::MAX`], so this needs no look.
    pub(crate) const fn issued(number: u64) -> Self {
        debug_assert!(number <= Self::MAX.0);
        Seq(number)
    }

    /// The position after this one, or `None` after [`Seq::MAX`].
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        Self::checked_new(self.0 + 1)
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
            *b"000"
        } else {
            let [_, _, _, _, _, high @ ..] = eight_digits(self.0 >> 40);
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

/// The birth of one stream of events. Sequences of different epochs have nothing to
/// do with one another.
///
/// It is 60 bits: the milliseconds since 1970 at which the stream was born (42 bits),
/// then 18 bits that differ between two births in the same millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// The latest epoch that fits: its milliseconds end in May 2109.
    pub const MAX: Epoch = Epoch((1 << (5 * EPOCH_CHARS)) - 1);

    /// The epoch of a stream born `millis` milliseconds after 1970; `distinct` tells
    /// it from others born in the same one. `None` if they need more than 42 and 18
    /// bits.
    #[must_use]
    pub const fn new(millis: u64, distinct: u32) -> Option<Self> {
        if millis > Self::MAX.millis() || distinct > Self::MAX.distinct() {
            None
        } else {
            Some(Epoch(millis << DISTINCT_BITS | distinct as u64))
        }
    }

    /// The epoch of a stream born now: the system's clock, and 18 random bits of the
    /// operating system. Two births share one only if they happen in the same
    /// millisecond *and* draw the same of 262,144 numbers.
    ///
    /// # Errors
    ///
    /// [`EpochError`]: one of the two cannot be had.
    pub fn now() -> Result<Self, EpochError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = since.map_or(u128::MAX, |since| since.as_millis());
        let millis = u64::try_from(millis).map_err(|_| EpochError::Clock)?;
        let random = getrandom::u32().map_err(|error| EpochError::Random {
            os_error: error.raw_os_error(),
        })?;
        Self::new(millis, random >> (u32::BITS - DISTINCT_BITS)).ok_or(EpochError::Clock)
    }

    /// The epoch with this number, or `None` if that needs more than 60 bits.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        if number > Self::MAX.0 {
            None
        } else {
            Some(Epoch(number))
        }
    }

    /// All 60 bits as one number; the order of the numbers is that of the epochs.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 >> DISTINCT_BITS
    }

    /// What tells it from other births in the same millisecond.
    #[must_use]
    pub const fn distinct(self) -> u32 {
        (self.0 & ((1 << DISTINCT_BITS) - 1)) as u32
    }
}

/// Why there is no [`Epoch`] of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EpochError {
    /// The system's clock shows a time that does not fit.
    #[error("the system's clock is wrong: it shows a time before 1970 or after May 2109")]
    Clock,
    /// The operating system has no random numbers.
    #[error("the operating system gives no random numbers{}", reason(*os_error))]
    Random {
        /// Its error number, if there is one.
        os_error: Option<i32>,
    },
}

fn reason(os_error: Option<i32>) -> String {
    os_error.map_or_else(String::new, |number| {
        format!(": {}", io::Error::from_raw_os_error(number))
    })
}

/// The place of one event in the stream of one engine.
///
/// ```
/// use galaxy_push::cursor::{Cursor, Epoch, Seq};
///
/// let epoch = Epoch::new(1_700_000_000_000, 7).expect("they fit in 42 and 18 bits");
/// let cursor = Cursor::new(epoch, Seq::new(42));
/// let text = cursor.to_string();
/// assert_eq!(text, "CBSZJPG00007-0000000001A");
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
    #[inline]
    pub fn to_text(self) -> CursorText {
        let mut text = *b"000000000000-00000000000";
        text[..EPOCH_CHARS - 8].copy_from_slice(&eight_digits(self.epoch.0 >> 40)[4..]);
        text[EPOCH_CHARS - 8..EPOCH_CHARS].copy_from_slice(&eight_digits(self.epoch.0));
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
        let epoch_high = decode::<0, 6>(text);
        let epoch_low = decode::<6, 6>(text);
        let seq_high = decode::<{ EPOCH_CHARS + 1 }, 5>(text);
        let seq_low = decode::<{ EPOCH_CHARS + 6 }, 6>(text);
        if epoch_high | epoch_low | seq_high | seq_low >= NOT_A_DIGIT {
            return Err(ParseCursorError::Character {
                at: first_non_digit(text),
            });
        }
        Ok(Cursor {
            epoch: Epoch(epoch_high << 30 | epoch_low),
            seq: Seq(seq_high << 30 | seq_low),
        })
    }
}

/// The number that the `N` digits from `AT` spell; [`NOT_A_DIGIT`] or more if one of them
/// is none.
const fn decode<const AT: usize, const N: usize>(text: &[u8; Cursor::TEXT_BYTES]) -> u64 {
    const { assert!(N <= GROUP) };
    let mut number = 0;
    let mut i = 0;
    while i < N {
        number = number << 5 | VALUES[text[AT + i] as usize];
        i += 1;
    }
    number
}

/// Out of line: beside the good case it would have each value kept for it.
#[cold]
#[inline(never)]
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
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn cursor(epoch: u64, seq: u64) -> Cursor {
        Cursor::new(Epoch::from_number(epoch).unwrap(), Seq::new(seq))
    }

    #[test]
    fn extremes_have_the_expected_text() {
        assert_eq!(cursor(0, 0).to_string(), "000000000000-00000000000");
        let last = Cursor::new(Epoch::MAX, Seq::MAX);
        assert_eq!(last.to_string(), "ZZZZZZZZZZZZ-ZZZZZZZZZZZ");
        assert_eq!("ZZZZZZZZZZZZ-ZZZZZZZZZZZ".parse(), Ok(last));
    }

    #[test]
    fn every_digit_has_its_place() {
        let text = "123456789ABC-DEFGHJKMNPQ";
        let number = |digits: &str| {
            digits.bytes().fold(0, |number, digit| {
                number * 32 + DIGITS.iter().position(|d| *d == digit).unwrap() as u64
            })
        };
        let cursor = cursor(number(&text[..12]), number(&text[13..]));
        assert_eq!(cursor.to_string(), text);
        assert_eq!(text.parse(), Ok(cursor));
    }

    #[test]
    fn anything_but_the_exact_form_is_refused() {
        use ParseCursorError::{Character, Length};
        let parse = |text: &str| text.parse::<Cursor>();
        assert_eq!(parse(""), Err(Length { bytes: 0 }));
        assert_eq!(parse("000000000000-0000000000"), Err(Length { bytes: 23 }));
        assert_eq!(
            parse("000000000000-000000000000"),
            Err(Length { bytes: 25 })
        );
        assert_eq!(parse("000000000000_00000000000"), Err(Character { at: 12 }));
        for at in (0..24).filter(|at| *at != 12) {
            for look_alike in [
                b'I', b'L', b'O', b'U', b'l', b'o', b'a', b'-', b' ', 0, 0x7f, 0xff,
            ] {
                let mut text = *b"000000000000-00000000000";
                text[at] = look_alike;
                assert_eq!(
                    Cursor::parse(&text),
                    Err(Character { at }),
                    "{look_alike:#x}"
                );
            }
        }
        assert_eq!(
            parse("01HF7YAT00-000000000001A"),
            Err(Character { at: 12 }),
            "the form of old, with ten digits of epoch"
        );
    }

    #[test]
    fn what_does_not_fit_is_not_made() {
        assert_eq!(Seq::checked_new(Seq::MAX.number()), Some(Seq::MAX));
        assert_eq!(Seq::checked_new(1 << 55), None);
        assert_eq!(Seq::checked_new(u64::MAX), None);
        assert_eq!(Seq::ZERO.next(), Some(Seq::new(1)));
        assert_eq!(Seq::MAX.next(), None);
        let (millis, distinct) = (Epoch::MAX.millis(), Epoch::MAX.distinct());
        assert_eq!((millis, distinct), ((1 << 42) - 1, (1 << 18) - 1));
        assert_eq!(Epoch::new(millis, distinct), Some(Epoch::MAX));
        assert_eq!(Epoch::new(millis + 1, 0), None);
        assert_eq!(Epoch::new(0, distinct + 1), None);
        assert_eq!(Epoch::from_number(Epoch::MAX.number()), Some(Epoch::MAX));
        assert_eq!(Epoch::from_number(1 << 60), None);
    }

    #[test]
    #[should_panic(expected = "at most 55 bits")]
    fn a_sequence_beyond_the_last_panics() {
        let _ = Seq::new(1 << 55);
    }

    #[test]
    fn births_in_one_millisecond_differ() {
        let births: Vec<_> = (0..64).map(|_| Epoch::now().unwrap()).collect();
        // Some of the 64 may draw the same number, one pair in 130 runs; that a
        // third of them do does not happen.
        let different: BTreeSet<_> = births.iter().map(|epoch| epoch.distinct()).collect();
        assert!(different.len() > 40, "{births:?}");
        // Each of the 18 bits is drawn.
        let some = births.iter().fold(0, |bits, epoch| bits | epoch.distinct());
        let all = births
            .iter()
            .fold(!0, |bits, epoch| bits & epoch.distinct());
        assert_eq!((some, all), (Epoch::MAX.distinct(), 0));
    }

    #[test]
    fn a_birth_is_dated() {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let before = now().as_millis();
        let birth = u128::from(Epoch::now().unwrap().millis());
        assert!((before..=now().as_millis()).contains(&birth));
    }

    #[test]
    fn an_epoch_that_cannot_be_had_is_explained() {
        let text = |os_error| EpochError::Random { os_error }.to_string();
        assert_eq!(text(None), "the operating system gives no random numbers");
        assert!(text(Some(38)).starts_with("the operating system gives no random numbers: "));
    }

    proptest! {
        #[test]
        fn text_round_trips(epoch in 0..=Epoch::MAX.number(), seq in 0..=Seq::MAX.number()) {
            let cursor = cursor(epoch, seq);
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn text_order_is_cursor_order(
            a in (0..=Epoch::MAX.number(), 0..=Seq::MAX.number()),
            b in (0..=Epoch::MAX.number(), 0..=Seq::MAX.number()),
            same_epoch: bool,
        ) {
            let (a, b) = (cursor(a.0, a.1), cursor(if same_epoch { a.0 } else { b.0 }, b.1));
            prop_assert_eq!(a.to_text().cmp(&b.to_text()), a.cmp(&b));
        }

        #[test]
        fn an_epoch_is_its_milliseconds_and_then_its_number_among_them(
            a in (0..1u64 << 42, 0..1u32 << 18),
            b in (0..1u64 << 42, 0..1u32 << 18),
            same_millis: bool,
        ) {
            let b = (if same_millis { a.0 } else { b.0 }, b.1);
            let [first, second] = [a, b].map(|(millis, distinct)| {
                Epoch::new(millis, distinct).unwrap()
            });
            prop_assert_eq!((first.millis(), first.distinct()), a);
            prop_assert_eq!(Epoch::from_number(first.number()), Some(first));
            prop_assert_eq!(first.cmp(&second), a.cmp(&b));
        }

        #[test]
        fn what_parses_prints_back_the_same(text in "[0-9A-Za-z]{12}-[0-9A-Za-z]{11}") {
            let digits = text.bytes().filter(|byte| DIGITS.contains(byte)).count();
            match text.parse::<Cursor>() {
                Ok(cursor) => prop_assert_eq!(cursor.to_string(), text),
                Err(_) => prop_assert!(digits < 23),
            }
        }

        #[test]
        fn every_text_of_digits_is_a_cursor(
            text in "[0-9A-HJKMNP-TV-Z]{12}-[0-9A-HJKMNP-TV-Z]{11}",
        ) {
            prop_assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
    }
}
