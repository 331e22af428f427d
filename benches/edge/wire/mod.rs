//! The protocols of the servers that are not ours, as far as a gateway and a publisher
//! need them: bytes in, words out, and no sockets.

pub(crate) mod jetstream;
pub(crate) mod nats;
pub(crate) mod resp;

/// A line longer than this is none.
const MAX_LINE_BYTES: usize = 64 << 10;

/// These bytes are not of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the server does not speak its protocol")
    }
}

impl std::error::Error for Malformed {}

/// What was read and how many bytes it took, or `None` while there are too few.
pub(crate) type Parsed<T> = Result<Option<(T, usize)>, Malformed>;

/// The first line without its end, and how many bytes it took with it.
fn line(bytes: &[u8]) -> Parsed<&[u8]> {
    let looked_at = &bytes[..bytes.len().min(MAX_LINE_BYTES)];
    match looked_at.iter().position(|&byte| byte == b'\r') {
        Some(end) => match bytes.get(end + 1) {
            Some(b'\n') => Ok(Some((&bytes[..end], end + 2))),
            Some(_) => Err(Malformed),
            None => Ok(None),
        },
        None if looked_at.len() == MAX_LINE_BYTES => Err(Malformed),
        None => Ok(None),
    }
}

/// A number of decimal digits, without a sign.
fn number(digits: &[u8]) -> Result<usize, Malformed> {
    if digits.is_empty() {
        return Err(Malformed);
    }
    digits.iter().try_fold(0_usize, |number, digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Malformed);
        }
        number
            .checked_mul(10)
            .and_then(|number| number.checked_add(digit.into()))
            .ok_or(Malformed)
    })
}
