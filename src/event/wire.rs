//! A scanner of protobuf's wire format. It finds the fields of a message and
//! skips over them, without decoding or allocating.
//!
//! It accepts exactly what prost accepts, because gateways decode these bytes with
//! prost and similar libraries. Three rules are easy to get wrong:
//!
//! - A varint may be padded with zeros up to ten bytes, but must fit in 64 bits.
//! - A field's key must fit in 32 bits.
//! - Groups (deprecated, but valid) have a nesting limit.

/// The nesting limit for messages and groups in a `PublishRequest`. prost shares
/// this limit with the C++, Java and Python implementations, so no event is too
/// deep for a gateway's decoder.
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
    /// A value, or a group, extends past the end of its message.
    #[error("the message ends within a field")]
    Truncated,
    /// A varint has more than ten bytes, or more than 64 bits.
    #[error("a number does not fit in 64 bits")]
    VarintOverflow,
    /// A field's key has more than 32 bits.
    #[error("a field's key does not fit in 32 bits")]
    KeyOverflow,
    /// A field has the number 0, which protobuf reserves.
    #[error("a field has the number 0")]
    FieldZero,
    /// A field has wire type 6 or 7, which do not exist.
    #[error("a field has the wire type {found}, which does not exist")]
    UnknownWireType {
        /// 6 or 7.
        found: u8,
    },
    /// A field of the contract has another wire type than the contract says.
    #[error("{field} has the wire type {found}, not {DELIMITED}")]
    WrongWireType {
        /// The field, as the contract names it.
        field: &'static str,
        /// The wire type that it came with.
        found: u8,
    },
    /// An end-group tag does not match the innermost open group.
    #[error("an end-group tag without its start-group tag")]
    UnmatchedEndGroup,
    /// Groups are nested deeper than decoders accept.
    #[error("groups are nested too deep")]
    TooDeep,
}

/// A [`WireProblem`] and its offset in the bytes that were scanned.
#[derive(Clone, Copy, Debug)]
pub(super) struct WireError {
    pub(super) at: usize,
    pub(super) problem: WireProblem,
}

/// A field's key: its number and wire type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// Both, as they are on the wire.
    key: u32,
    at: usize,
}

impl Key {
    #[inline]
    pub(super) const fn number(self) -> u32 {
        self.key >> 3
    }

    #[inline]
    const fn wire_type(self) -> u8 {
        (self.key & 7) as u8
    }

    const fn is(self, problem: WireProblem) -> WireError {
        WireError {
            at: self.at,
            problem,
        }
    }
}

/// Scans the fields of one message.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    rest: &'a [u8],
    /// The offset in the outermost bytes at which `rest` ends. The current offset
    /// follows from it, so the fast path updates only `rest`.
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
        let key = Key { key, at };
        if key.wire_type() > FIXED32 {
            let found = key.wire_type();
            return refuse(WireProblem::UnknownWireType { found });
        }
        if key.number() == 0 {
            return refuse(WireProblem::FieldZero);
        }
        Ok(key)
    }

    /// The value of the field `key`, which the contract declares as a string, bytes
    /// or a message of the name `field`.
    #[inline]
    pub(super) fn value(&mut self, key: Key, field: &'static str) -> Result<&'a [u8], WireError> {
        if key.wire_type() != DELIMITED {
            return Err(key.is(WireProblem::WrongWireType {
                field,
                found: key.wire_type(),
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

    /// Skips the value of an unknown field. `depth` is the nesting limit for groups
    /// in it, the field itself included.
    #[cold]
    pub(super) fn skip(&mut self, key: Key, depth: usize) -> Result<(), WireError> {
        match key.wire_type() {
            VARINT => self.varint().map(drop),
            FIXED64 => self.take(8).map(drop),
            DELIMITED => self.delimited().map(drop),
            START_GROUP => self.skip_group(key, depth),
            FIXED32 => self.take(4).map(drop),
            // `END_GROUP`: `key` returns no other wire type.
            _ => Err(key.is(WireProblem::UnmatchedEndGroup)),
        }
    }

    /// Iterative, because the peer chooses the depth, and recursion would use our
    /// stack.
    fn skip_group(&mut self, key: Key, depth: usize) -> Result<(), WireError> {
        let mut open = [0u32; REQUEST_DEPTH];
        let open = &mut open[..depth.min(REQUEST_DEPTH)];
        let mut enclosing = 0;
        let mut innermost = key.number();
        loop {
            let inner = self.key()?;
            if inner.wire_type() == END_GROUP {
                if inner.number() != innermost {
                    return Err(inner.is(WireProblem::UnmatchedEndGroup));
                }
                if enclosing == 0 {
                    return Ok(());
                }
                enclosing -= 1;
                innermost = open[enclosing];
            } else if enclosing + 1 >= open.len() {
                return Err(inner.is(WireProblem::TooDeep));
            } else if inner.wire_type() == START_GROUP {
                open[enclosing] = innermost;
                enclosing += 1;
                innermost = inner.number();
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
        // Keys and the lengths of short strings have one byte, those of most payloads and
        // events two.
        match *self.rest {
            [byte, ref rest @ ..] if byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            [low, high, ref rest @ ..] if high < 0x80 => {
                self.rest = rest;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    #[cold]
    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (i, &byte) in self.rest.iter().take(MAX_VARINT_BYTES).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                // Nine bytes have 63 bits; the tenth byte may add one more.
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
