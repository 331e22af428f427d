//! Redis' protocol, RESP2: what a client sends, and the responses to it, piece by
//! piece.

use super::{Malformed, Parsed, line, number};

/// The longest text that is worth reading.
const MAX_BULK_BYTES: usize = 512 << 20;

/// One piece of a response. An array is its length, and then its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Simple(&'a [u8]),
    Error(&'a [u8]),
    Integer(i64),
    /// Text of any bytes, or nothing.
    Bulk(Option<&'a [u8]>),
    /// How many elements follow; nothing where a blocking read ended without any.
    Array(Option<usize>),
}

/// The first piece in `bytes`, and how many bytes it took; `None` while it is not
/// complete.
pub(crate) fn piece(bytes: &[u8]) -> Parsed<Piece<'_>> {
    let Some((head, read)) = line(bytes)? else {
        return Ok(None);
    };
    let (kind, text) = head.split_first().ok_or(Malformed)?;
    let piece = match kind {
        b'+' => Piece::Simple(text),
        b'-' => Piece::Error(text),
        b':' => Piece::Integer(integer(text)?),
        b'*' if text == b"-1" => Piece::Array(None),
        b'*' => Piece::Array(Some(number(text)?)),
        b'$' if text == b"-1" => Piece::Bulk(None),
        b'$' => return bulk(bytes, read, number(text)?),
        _ => return Err(Malformed),
    };
    Ok(Some((piece, read)))
}

fn bulk(bytes: &[u8], start: usize, length: usize) -> Parsed<Piece<'_>> {
    if length > MAX_BULK_BYTES {
        return Err(Malformed);
    }
    let Some(text) = bytes.get(start..start + length + 2) else {
        return Ok(None);
    };
    let text = text.strip_suffix(b"\r\n").ok_or(Malformed)?;
    Ok(Some((Piece::Bulk(Some(text)), start + length + 2)))
}

fn integer(text: &[u8]) -> Result<i64, Malformed> {
    let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
    text.parse().map_err(|_| Malformed)
}

/// Reads one piece after another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pieces<'a> {
    bytes: &'a [u8],
    read: usize,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Pieces { bytes, read: 0 }
    }

    /// How many bytes the pieces took that were read.
    pub(crate) fn read(&self) -> usize {
        self.read
    }

    /// The next piece; `None` while it is not complete.
    pub(crate) fn next(&mut self) -> Result<Option<Piece<'a>>, Malformed> {
        Ok(piece(&self.bytes[self.read..])?.map(|(piece, length)| {
            self.read += length;
            piece
        }))
    }
}

/// Appends a command.
pub(crate) fn command(to: &mut Vec<u8>, words: &[&[u8]]) {
    let head = |kind: u8, length: usize, to: &mut Vec<u8>| {
        to.push(kind);
        to.extend_from_slice(length.to_string().as_bytes());
        to.extend_from_slice(b"\r\n");
    };
    head(b'*', words.len(), to);
    for word in words {
        head(b'$', word.len(), to);
        to.extend_from_slice(word);
        to.extend_from_slice(b"\r\n");
    }
}
