//! A scanner of protobuf's wire format: it finds the fields of a message and
//! steps over them, without decoding or allocating.
//!
//! It draws the line between valid and malformed exactly where prost draws it,
//! because what passes here is decoded by prost and its like at the gateways.
//! Three such places are easy to get wrong: a varint may be padded with zeros up
//! to ten bytes but must fit in 64 bits; a field's key must fit in 32 bits; and
//! groups (long deprecated, still valid) nest only so deep.

/// How many messages and groups may lie inside one another in a
/// `PublishRequest`: the limit that prost shares with the C++, Java and Python
/// implementations, so that no gateway meets an event too deep for its decoder.
pub(super) const REQUEST_DEPTH: usize = 100;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const DELIMITED: u8 = 2;
const START_GROUP: u8 = 3;
const END_GROUP: u8 = 4;
const FIXED32: u8 = 5;

const MAX_VARINT_BYTES: usize = 10;

/// Why bytes are not a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireProblem {
    /// A value, or a group, goes on past the end of the message it is in.
    #[error("the message ends within a field")]
    Truncated,
    /// A varint of more than ten bytes, or of more than 64 bits.
    #[error("a number does not fit in 64 bits")]
    VarintOverflow,
    /// A key of more than 32 bits.
    #[error("a field's key does not fit in 32 bits")]
    KeyOverflow,
    /// The field number 0, which does not exist.
    #[error("a field has the number 0")]
    FieldZero,
    /// Wire type 6 or 7, which do not exist.
    #[error("a field has the wire type {found}, which does not exist")]
    UnknownWireType {
        /// 6 or 7.
        found: u8,
    },
    /// A field that the contract declares came as something else.
    #[error("{field} has the wire type {found}, not {DELIMITED}")]
    WrongWireType {
        /// The field, as the contract names it.
        field: &'static str,
        /// The wire type that it came with.
        found: u8,
    },
    /// The end of a group that is not the one open.
    #[error("a group ends that was not begun")]
    UnmatchedEndGroup,
    /// More groups inside one another than decoders accept.
    #[error("groups are nested too deep")]
    TooDeep,
}

/// A [`WireProblem`] and its offset in the bytes that were scanned.
#[derive(Clone, Copy, Debug)]
pub(super) struct WireError {
    pub(super) at: usize,
    pub(super) problem: WireProblem,
}

/// What stands before a field's value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) number: u32,
    wire_type: u8,
    at: usize,
}

impl Key {
    const fn is(self, problem: WireProblem) -> WireError {
        WireError {
            at: self.at,
            problem,
        }
    }
}

/// Walks over the fields of one message.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    rest: &'a [u8],
    /// Where `rest` ends, as an offset in the outermost bytes; the current
    /// offset follows from it, so that the fast path keeps only one number.
    end: usize,
}

impl<'a> Scanner<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Scanner {
            rest: bytes,
            end: bytes.len(),
        }
    }

    const fn at(&self) -> usize {
        self.end - self.rest.len()
    }

    const fn here(&self, problem: WireProblem) -> WireError {
        WireError {
            at: self.at(),
            problem,
        }
    }

    /// The next field's key, or `None` at the end of the message.
    #[inline]
    pub(super) fn next_key(&mut self) -> Result<Option<Key>, WireError> {
        if self.rest.is_empty() {
            Ok(None)
        } else {
            self.key().map(Some)
        }
    }

    #[inline]
    fn key(&mut self) -> Result<Key, WireError> {
        let at = self.at();
        let key = self.varint()?;
        let refuse = |problem| Err(WireError { at, problem });
        let Ok(key) = u32::try_from(key) else {
            return refuse(WireProblem::KeyOverflow);
        };
        let (number, wire_type) = (key >> 3, (key & 7) as u8);
        if wire_type > FIXED32 {
            return refuse(WireProblem::UnknownWireType { found: wire_type });
        }
        if number == 0 {
            return refuse(WireProblem::FieldZero);
        }
        Ok(Key {
            number,
            wire_type,
            at,
        })
    }

    /// The value of the field `key`, which the contract declares, under the name
    /// `field`, as a string, bytes or a message.
    #[inline]
    pub(super) fn value(&mut self, key: Key, field: &'static str) -> Result<&'a [u8], WireError> {
        if key.wire_type != DELIMITED {
            return Err(key.is(WireProblem::WrongWireType {
                field,
                found: key.wire_type,
            }));
        }
        self.delimited()
    }

    /// Like [`Scanner::value`], for a message: a scanner over its fields.
    #[inline]
    pub(super) fn message(
        &mut self,
        key: Key,
        field: &'static str,
    ) -> Result<Scanner<'a>, WireError> {
        let rest = self.value(key, field)?;
        Ok(Scanner {
            rest,
            end: self.at(),
        })
    }

    /// Steps over the value of a field that the contract does not know. `depth`
    /// is how many groups may be open in it at once, itself included.
    #[cold]
    pub(super) fn skip(&mut self, key: Key, depth: usize) -> Result<(), WireError> {
        match key.wire_type {
            VARINT => self.varint().map(drop),
            FIXED64 => self.take(8).map(drop),
            DELIMITED => self.delimited().map(drop),
            START_GROUP => self.skip_group(key, depth),
            FIXED32 => self.take(4).map(drop),
            // `END_GROUP`: `key` admits no wire type beyond these six.
            _ => Err(key.is(WireProblem::UnmatchedEndGroup)),
        }
    }

    /// Iterative: the depth is the peer's to choose, the stack is ours.
    fn skip_group(&mut self, key: Key, depth: usize) -> Result<(), WireError> {
        let mut open = [0u32; REQUEST_DEPTH];
        let open = &mut open[..depth.min(REQUEST_DEPTH)];
        let mut enclosing = 0;
        let mut innermost = key.number;
        loop {
            let inner = self.key()?;
            if inner.wire_type == END_GROUP {
                if inner.number != innermost {
                    return Err(inner.is(WireProblem::UnmatchedEndGroup));
                }
                if enclosing == 0 {
                    return Ok(());
                }
                enclosing -= 1;
                innermost = open[enclosing];
            } else if enclosing + 1 >= open.len() {
                return Err(inner.is(WireProblem::TooDeep));
            } else if inner.wire_type == START_GROUP {
                open[enclosing] = innermost;
                enclosing += 1;
                innermost = inner.number;
            } else {
                self.skip(inner, 0)?;
            }
        }
    }

    #[inline]
    fn delimited(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.varint()?;
        match usize::try_from(length) {
            Ok(bytes) => self.take(bytes),
            Err(_) => Err(self.here(WireProblem::Truncated)),
        }
    }

    #[inline]
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], WireError> {
        let Some((taken, rest)) = self.rest.split_at_checked(bytes) else {
            return Err(self.here(WireProblem::Truncated));
        };
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, WireError> {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (i, &byte) in self.rest.iter().take(MAX_VARINT_BYTES).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                // Nine bytes carry 63 bits: the tenth has room for one more.
                if i + 1 == MAX_VARINT_BYTES && byte > 1 {
                    break;
                }
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(self.here(if self.rest.len() < MAX_VARINT_BYTES {
            WireProblem::Truncated
        } else {
            WireProblem::VarintOverflow
        }))
    }
}
