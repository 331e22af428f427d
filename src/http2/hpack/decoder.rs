//! Reads header blocks.

use super::table::{OutOfRange, Table};
use super::{FIELD_OVERHEAD, HpackError, TABLE_OCTETS};
use crate::http2::huffman::HuffmanReader;

/// A number's last octet counts from this bit on.
const MAX_SHIFT: u32 = 21;
/// A field longer than this is too long for a [`Decoder::with_table`].
const LONG_FIELD_OCTETS: usize = 64 << 10;
/// Of a Huffman-coded string, what is decoded before its length is looked at.
pub(super) const HUFFMAN_PIECE_BYTES: usize = 1 << 10;

/// A field as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// Its name and its value.
    Whole(&'a [u8], &'a [u8]),
    /// One that is longer than the decoder was to keep.
    TooLong,
}

/// Reads header blocks of one direction of a connection, one after another, in whatever
/// pieces they arrive.
///
/// Of a block it holds no more than one field that has not arrived in full. A field that is
/// too long for that is skipped; its code is checked, and the table is kept in step.
#[derive(Debug)]
pub struct Decoder {
    pub(super) table: Table,
    /// What a field may have. Not less than the table: what is longer fits in neither.
    max_field_bytes: usize,
    state: State,
    /// Whether the size of the table may be changed: before the first field of a block.
    may_resize: bool,
    /// The literal that is being read.
    keeps: bool,
    is_too_long: bool,
    huffman: HuffmanReader,
    /// Where strings are decoded; kept for their memory within a block.
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// What comes next of a block.
#[derive(Clone, Copy, Debug)]
enum State {
    Field,
    /// The rest of a number (section 5.1).
    Number {
        of: NumberOf,
        number: usize,
        shift: u32,
    },
    /// A string's length (section 5.2).
    Length(Part),
    String {
        part: Part,
        is_huffman: bool,
        left: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum NumberOf {
    Indexed,
    TableSize,
    LiteralName,
    Length { part: Part, is_huffman: bool },
}

/// Of a literal.
#[derive(Clone, Copy, Debug)]
enum Part {
    Name,
    Value,
}

impl Default for Decoder {
    /// With the table that a peer may count on.
    fn default() -> Self {
        Decoder::with_table(TABLE_OCTETS)
    }
}

impl Decoder {
    /// Keeps a table of at most so many octets, as the peer was told. With a table of
    /// none a decoder keeps nothing from one block to the next.
    #[must_use]
    pub fn with_table(octets: usize) -> Self {
        Decoder::new(octets, LONG_FIELD_OCTETS)
    }

    /// With a table, and a limit for the name and the value of a field together.
    #[must_use]
    pub fn new(table_octets: usize, max_field_bytes: usize) -> Self {
        Decoder {
            table: Table::new(table_octets),
            max_field_bytes: max_field_bytes.max(table_octets),
            state: State::Field,
            may_resize: true,
            keeps: false,
            is_too_long: false,
            huffman: HuffmanReader::default(),
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Reads a whole block, and tells `field` the name and the value of each field.
    ///
    /// # Errors
    ///
    /// [`HpackError`] says what is wrong with it; a field that is too long is. The decoder
    /// is of no use after that: the connection must end.
    pub fn decode(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), HpackError> {
        let mut is_too_long = false;
        let mut room = usize::MAX;
        self.decode_piece(block, true, &mut room, |read| match read {
            Field::Whole(name, value) => field(name, value),
            Field::TooLong => is_too_long = true,
        })?;
        if is_too_long {
            return Err(HpackError::TooLong);
        }
        Ok(())
    }

    /// Reads a piece of a block, and tells `field` of each field that it completes. What
    /// the piece stands for, in octets counted like a table's, is taken from `room`: each
    /// octet of a block can have 4 KiB copied.
    ///
    /// # Errors
    ///
    /// [`HpackError`] says what is wrong with the block, or that there was no room. The
    /// decoder is of no use after that: the connection must end.
    pub fn decode_piece(
        &mut self,
        piece: &[u8],
        ends_block: bool,
        room: &mut usize,
        mut field: impl FnMut(Field<'_>),
    ) -> Result<(), HpackError> {
        let mut input = piece;
        while let Some((&octet, rest)) = input.split_first() {
            match self.state {
                State::Field => {
                    input = rest;
                    self.begin_field(octet, room, &mut field)?;
                }
                State::Number { of, number, shift } => {
                    input = rest;
                    let number = number + (usize::from(octet & 0x7f) << shift);
                    if octet & 0x80 == 0 {
                        self.end_number(of, number, room, &mut field)?;
                    } else if shift < MAX_SHIFT {
                        let shift = shift + 7;
                        self.state = State::Number { of, number, shift };
                    } else {
                        return Err(HpackError::Number);
                    }
                }
                State::Length(part) => {
                    input = rest;
                    let is_huffman = octet & 0x80 != 0;
                    let of = NumberOf::Length { part, is_huffman };
                    self.begin_number(of, 7, octet, room, &mut field)?;
                }
                State::String {
                    part,
                    is_huffman,
                    left,
                } => {
                    let (string, rest) = input.split_at(input.len().min(left));
                    input = rest;
                    take(room, string.len())?;
                    self.string(part, is_huffman, string)?;
                    let left = left - string.len();
                    self.state = State::String {
                        part,
                        is_huffman,
                        left,
                    };
                    if left == 0 {
                        self.end_string(part, is_huffman, &mut field)?;
                    }
                }
            }
        }
        if ends_block {
            if !matches!(self.state, State::Field) {
                return Err(HpackError::Truncated);
            }
            self.may_resize = true;
            self.name = Vec::new();
            self.value = Vec::new();
        }
        Ok(())
    }

    /// The first octet of a field, or of a table's new size (section 6).
    fn begin_field(
        &mut self,
        octet: u8,
        room: &mut usize,
        field: &mut impl FnMut(Field<'_>),
    ) -> Result<(), HpackError> {
        let (of, prefix_bits) = match octet {
            0x80.. => (NumberOf::Indexed, 7),
            0x40.. => (NumberOf::LiteralName, 6),
            0x20.. => (NumberOf::TableSize, 5),
            _ => (NumberOf::LiteralName, 4),
        };
        if !matches!(of, NumberOf::TableSize) {
            take(room, FIELD_OVERHEAD)?;
        }
        self.keeps = prefix_bits == 6;
        self.begin_number(of, prefix_bits, octet, room, field)
    }

    /// A number whose first octet has `prefix_bits` bits of it (section 5.1). It is to be
    /// below 2^28 or so: as many octets as any real one needs.
    fn begin_number(
        &mut self,
        of: NumberOf,
        prefix_bits: u32,
        octet: u8,
        room: &mut usize,
        field: &mut impl FnMut(Field<'_>),
    ) -> Result<(), HpackError> {
        let mask = (1 << prefix_bits) - 1;
        let number = usize::from(octet) & mask;
        if number < mask {
            return self.end_number(of, number, room, field);
        }
        let shift = 0;
        self.state = State::Number { of, number, shift };
        Ok(())
    }

    fn end_number(
        &mut self,
        of: NumberOf,
        number: usize,
        room: &mut usize,
        field: &mut impl FnMut(Field<'_>),
    ) -> Result<(), HpackError> {
        let may_resize = std::mem::replace(&mut self.may_resize, false);
        self.state = State::Field;
        match of {
            NumberOf::Indexed => {
                let found = self.table.field(number);
                let (name, value) = found.map_err(|OutOfRange| HpackError::Index(number))?;
                take(room, name.len() + value.len())?;
                field(Field::Whole(name, value));
            }
            NumberOf::TableSize => {
                if !may_resize || self.table.resize(number).is_err() {
                    return Err(HpackError::TableSize(number));
                }
                self.may_resize = true;
            }
            NumberOf::LiteralName => {
                self.is_too_long = false;
                self.name.clear();
                self.value.clear();
                self.state = State::Length(Part::Name);
                if number != 0 {
                    let found = self.table.field(number);
                    let (name, _) = found.map_err(|OutOfRange| HpackError::Index(number))?;
                    take(room, name.len())?;
                    self.name.extend_from_slice(name);
                    self.state = State::Length(Part::Value);
                }
            }
            NumberOf::Length { part, is_huffman } => {
                self.huffman = HuffmanReader::default();
                self.state = State::String {
                    part,
                    is_huffman,
                    left: number,
                };
                if number == 0 {
                    self.end_string(part, is_huffman, field)?;
                }
            }
        }
        Ok(())
    }

    /// A piece of a literal's string.
    fn string(&mut self, part: Part, is_huffman: bool, string: &[u8]) -> Result<(), HpackError> {
        let (out, other) = match part {
            Part::Name => (&mut self.name, self.value.len()),
            Part::Value => (&mut self.value, self.name.len()),
        };
        let max_bytes = self.max_field_bytes - other.min(self.max_field_bytes);
        if is_huffman {
            for piece in string.chunks(HUFFMAN_PIECE_BYTES) {
                self.huffman.read(piece, out)?;
                self.is_too_long |= out.len() > max_bytes;
                if self.is_too_long {
                    out.clear();
                }
            }
        } else if self.is_too_long || string.len() > max_bytes - out.len().min(max_bytes) {
            self.is_too_long = true;
            out.clear();
        } else {
            out.extend_from_slice(string);
        }
        Ok(())
    }

    fn end_string(
        &mut self,
        part: Part,
        is_huffman: bool,
        field: &mut impl FnMut(Field<'_>),
    ) -> Result<(), HpackError> {
        if is_huffman {
            self.huffman.end()?;
        }
        if let Part::Name = part {
            self.state = State::Length(Part::Value);
            return Ok(());
        }
        self.state = State::Field;
        if self.is_too_long {
            field(Field::TooLong);
            if self.keeps {
                self.table.clear();
            }
        } else {
            field(Field::Whole(&self.name, &self.value));
            if self.keeps {
                self.table.keep(&self.name, &self.value);
            }
        }
        Ok(())
    }
}

/// Takes octets from the room that is left.
fn take(room: &mut usize, octets: usize) -> Result<(), HpackError> {
    *room = room.checked_sub(octets).ok_or(HpackError::TooLong)?;
    Ok(())
}
