//! Header fields as they go over the wire (HPACK, RFC 7541).
//!
//! [`Decoder`] takes whatever a peer may send. What we send ourselves uses no table
//! that would have to be kept: [`FieldsWriter`] writes indexed fields of the static
//! table and literals.

use std::collections::VecDeque;

use super::huffman::HuffmanReader;

/// What a peer may ask us to keep of its fields, in octets as the RFC counts them: the
/// size that holds where no other is announced.
pub const TABLE_OCTETS: usize = 4096;

/// What a table's entry counts in addition to its name and value (section 4.1).
const ENTRY_OVERHEAD: usize = 32;
/// A number's last octet counts from this bit on.
const MAX_SHIFT: u32 = 21;

/// Why a header block is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HpackError {
    /// It ends in the middle of a field.
    #[error("the header block ends in the middle of a field")]
    Truncated,
    /// A number is larger than any that can be meant.
    #[error("a number in the header block is too large")]
    Number,
    /// A string's Huffman code is none.
    #[error("a string in the header block is not Huffman-coded as it says")]
    Huffman,
    /// There is no field of that number.
    #[error("the header block refers to field {0}, which does not exist")]
    Index(usize),
    /// The peer wants a larger table than was offered, or wants it after a field.
    #[error("the header block changes the size of its table to {0} octets where it must not")]
    TableSize(usize),
    /// It stands for more than it may.
    #[error("the header block stands for more octets than it may")]
    TooLong,
}

/// A field longer than this is too long for a [`Decoder::with_table`].
const LONG_FIELD_OCTETS: usize = 64 << 10;
/// Of a Huffman-coded string, what is decoded before its length is looked at.
const HUFFMAN_PIECE_BYTES: usize = 1 << 10;

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
    /// The newest first.
    entries: VecDeque<Entry>,
    octets: usize,
    max_octets: usize,
    /// What was offered to the peer.
    offered_octets: usize,
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
    name: Vec<u8>,
    value: Vec<u8>,
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

#[derive(Debug)]
struct Entry {
    field: Box<[u8]>,
    name_bytes: usize,
}

impl Entry {
    fn parts(&self) -> (&[u8], &[u8]) {
        self.field.split_at(self.name_bytes)
    }

    fn octets(&self) -> usize {
        self.field.len() + ENTRY_OVERHEAD
    }
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
            entries: VecDeque::new(),
            octets: 0,
            max_octets: table_octets,
            offered_octets: table_octets,
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
            take(room, ENTRY_OVERHEAD)?;
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
                let (name, value) = self.entry(number)?;
                take(room, name.len() + value.len())?;
                field(Field::Whole(name, value));
            }
            NumberOf::TableSize => {
                if number > self.offered_octets || !may_resize {
                    return Err(HpackError::TableSize(number));
                }
                self.may_resize = true;
                self.resize(number);
            }
            NumberOf::LiteralName => {
                self.is_too_long = false;
                let mut name = std::mem::take(&mut self.name);
                name.clear();
                self.value.clear();
                self.state = State::Length(Part::Name);
                if number != 0 {
                    let indexed = self.entry(number)?.0;
                    take(room, indexed.len())?;
                    name.extend_from_slice(indexed);
                    self.state = State::Length(Part::Value);
                }
                self.name = name;
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
        } else {
            field(Field::Whole(&self.name, &self.value));
        }
        if self.keeps {
            self.keep();
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        let unknown = HpackError::Index(index);
        let index = index.checked_sub(1).ok_or(unknown)?;
        match STATIC_TABLE.get(index) {
            Some((name, value)) => Ok((name.as_bytes(), value.as_bytes())),
            None => {
                let entry = self.entries.get(index - STATIC_TABLE.len());
                entry.map(Entry::parts).ok_or(unknown)
            }
        }
    }

    /// Puts what was read last at the front of the table.
    fn keep(&mut self) {
        if self.is_too_long {
            // Longer than any table.
            self.evict(0);
            return;
        }
        let entry = Entry {
            field: [&self.name[..], &self.value].concat().into(),
            name_bytes: self.name.len(),
        };
        let room = self.max_octets.checked_sub(entry.octets());
        // What does not even fit by itself empties the table (section 4.4).
        self.evict(room.unwrap_or(0));
        if room.is_some() {
            self.octets += entry.octets();
            self.entries.push_front(entry);
        }
    }

    fn resize(&mut self, max_octets: usize) {
        self.max_octets = max_octets;
        self.evict(max_octets);
    }

    /// Forgets the oldest entries until no more than `octets` are left.
    fn evict(&mut self, octets: usize) {
        while self.octets > octets
            && let Some(oldest) = self.entries.pop_back()
        {
            self.octets -= oldest.octets();
        }
    }
}

/// Takes octets from the room that is left.
fn take(room: &mut usize, octets: usize) -> Result<(), HpackError> {
    *room = room.checked_sub(octets).ok_or(HpackError::TooLong)?;
    Ok(())
}

/// Writes header blocks that need no table at the other end.
#[derive(Debug)]
pub struct FieldsWriter<'a>(&'a mut Vec<u8>);

impl<'a> FieldsWriter<'a> {
    /// Appends to `block`.
    pub fn new(block: &'a mut Vec<u8>) -> Self {
        FieldsWriter(block)
    }

    /// Tells the peer that its table for us may be empty for good. To be said first, in
    /// a connection's first block: then the peer may shrink the table as it likes.
    pub fn no_table(&mut self) {
        self.0.push(0x20);
    }

    /// A field that the static table has as a whole.
    pub fn indexed(&mut self, index: u8) {
        self.number(0x80, 7, usize::from(index));
    }

    /// A field whose name the static table has.
    pub fn with_indexed_name(&mut self, index: u8, value: &[u8]) {
        self.number(0, 4, usize::from(index));
        self.string(value);
    }

    /// Any field; `name` is in lower case.
    pub fn literal(&mut self, name: &[u8], value: &[u8]) {
        self.number(0, 4, 0);
        self.string(name);
        self.string(value);
    }

    fn string(&mut self, string: &[u8]) {
        self.number(0, 7, string.len());
        self.0.extend(string);
    }

    fn number(&mut self, first: u8, prefix_bits: u32, number: usize) {
        let mask = (1 << prefix_bits) - 1;
        if number < mask {
            self.0.push(first | number as u8);
            return;
        }
        self.0.push(first | mask as u8);
        let mut rest = number - mask;
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }
}

/// Indices of the static table that are written.
pub mod index {
    /// `:method: POST`.
    pub const METHOD_POST: u8 = 3;
    /// `:path`, a name.
    pub const PATH: u8 = 4;
    /// `:scheme: http`.
    pub const SCHEME_HTTP: u8 = 6;
    /// `:status: 200`.
    pub const STATUS_200: u8 = 8;
    /// `:status`, a name.
    pub const STATUS: u8 = 8;
    /// `:authority`, a name.
    pub const AUTHORITY: u8 = 1;
    /// `content-type`, a name.
    pub const CONTENT_TYPE: u8 = 31;
}

/// RFC 7541, appendix A; the first has the index 1.
#[rustfmt::skip]
const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""),
    ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""),
    ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""),
    ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Fields = Vec<(String, String)>;

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, HpackError> {
        let mut fields = Vec::new();
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        decoder.decode(block, |name, value| {
            fields.push((text(name), text(value)));
        })?;
        Ok(fields)
    }

    fn fields(of: &[(&str, &str)]) -> Result<Fields, HpackError> {
        Ok(of
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect())
    }

    #[test]
    fn the_requests_of_the_specification() {
        // RFC 7541, section C.4: one connection, Huffman-coded.
        let mut decoder = Decoder::default();
        let common = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            (":authority", "www.example.com"),
        ];
        let block = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        assert_eq!(decode(&mut decoder, block), fields(&common));
        assert_eq!(decoder.octets, 57);
        let block = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
        let second = [&common[..], &[("cache-control", "no-cache")]].concat();
        assert_eq!(decode(&mut decoder, block), fields(&second));
        assert_eq!(decoder.octets, 110);
        let block = b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\
                      \xe9\x5b\xb8\xe8\xb4\xbf";
        let third = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ];
        assert_eq!(decode(&mut decoder, block), fields(&third));
        assert_eq!(decoder.octets, 164);
    }

    #[test]
    fn the_oldest_go_when_the_table_is_full() {
        let mut decoder = Decoder::default();
        // Room for two entries of 34 octets.
        let block = b"\x3f\x29\x40\x01a\x01x\x40\x01b\x01y\xbf\x40\x01c\x01z\xbf";
        let seen = [("a", "x"), ("b", "y"), ("a", "x"), ("c", "z"), ("b", "y")];
        assert_eq!(decode(&mut decoder, block), fields(&seen));
        assert_eq!(decode(&mut decoder, b"\xc0"), Err(HpackError::Index(64)));

        // One that does not fit by itself leaves nothing.
        let mut large = b"\x40\x01d\x28".to_vec();
        large.extend([b'w'; 40]);
        assert!(decode(&mut decoder, &large).is_ok());
        assert_eq!((decoder.octets, decoder.entries.len()), (0, 0));
    }

    #[test]
    fn what_is_too_long_is_skipped_and_empties_the_table() {
        // RFC 7541, section 4.4: an entry larger than the table is no error.
        for (name, value, huffman) in [
            (1, 9000, false),
            (9000, 1, false),
            (1, 9000, true),
            (9000, 1, true),
            (3000, 3000, false),
        ] {
            let mut decoder = Decoder::new(4096, 5000);
            let mut block = b"\x40\x01a\x01x\x40".to_vec();
            for length in [name, value] {
                let mut string = Vec::new();
                FieldsWriter::new(&mut string).string(&vec![b'0'; length]);
                if huffman {
                    // Eight of "0" are five octets of zeros.
                    let coded = length.div_ceil(8) * 5;
                    string.clear();
                    FieldsWriter::new(&mut string).number(0x80, 7, coded);
                    string.resize(string.len() + coded, 0);
                }
                block.extend(string);
            }
            block.extend(b"\x40\x01b\x01y\xbe");
            let mut read = Vec::new();
            let mut room = usize::MAX;
            for piece in block.chunks(100) {
                let field = |field: Field<'_>| read.push(format!("{field:?}"));
                decoder
                    .decode_piece(piece, false, &mut room, field)
                    .unwrap();
                let held = decoder.name.capacity() + decoder.value.capacity();
                assert!(held <= 2 * 5000 + 4 * HUFFMAN_PIECE_BYTES, "{held}");
            }
            let field = |field: Field<'_>| read.push(format!("{field:?}"));
            decoder.decode_piece(b"", true, &mut room, field).unwrap();
            let whole = |name: u8, value: u8| format!("{:?}", Field::Whole(&[name], &[value]));
            let expected = [
                whole(b'a', b'x'),
                "TooLong".into(),
                whole(b'b', b'y'),
                whole(b'b', b'y'),
            ];
            assert_eq!(read, expected);
            assert_eq!(decoder.octets, 34, "only what came after it");
        }
        // Skipped is not unchecked: the end of a string, and padding that is none.
        for bad in [&[0xff; 4][..], &[0; 4][..]] {
            let mut block = b"\x00\x01a".to_vec();
            FieldsWriter::new(&mut block).number(0x80, 7, 9004 + bad.len());
            block.extend([&[0x07; 9004][..], bad].concat());
            let mut decoder = Decoder::new(0, 100);
            let mut room = usize::MAX;
            let read = decoder.decode_piece(&block, true, &mut room, |_| {});
            assert_eq!(read, Err(HpackError::Huffman));
        }
    }

    #[test]
    fn what_a_block_stands_for_is_counted() {
        let mut decoder = Decoder::default();
        let mut count = |block: &[u8]| {
            let mut room = 10_000;
            let read = decoder.decode_piece(block, true, &mut room, |_| {});
            read.map(|()| 10_000 - room)
        };
        assert_eq!(count(b"\x82"), Ok(32 + 10));
        let large = [&b"\x40\x01a\x7f\xa1\x1e"[..], &[b'x'; 4000]].concat();
        assert_eq!(count(&large), Ok(32 + 4001));
        assert_eq!(count(b"\xbe\xbe"), Ok(2 * (32 + 4001)));
        assert_eq!(count(b"\xbe\xbe\xbe"), Err(HpackError::TooLong));
    }

    #[test]
    fn what_is_not_a_block_is_refused() {
        for (block, error) in [
            (&b"\x80"[..], HpackError::Index(0)),
            (b"\xbe", HpackError::Index(62)),
            (b"\x7e\x01v", HpackError::Index(62)),
            (b"\xff", HpackError::Truncated),
            (b"\x40\x0aa", HpackError::Truncated),
            (b"\x40\x01a", HpackError::Truncated),
            (b"\x40\x81\x06\x00", HpackError::Huffman),
            (b"\xff\xff\xff\xff\xff\x01", HpackError::Number),
            (b"\x3f\xe2\x1f", HpackError::TableSize(4097)),
            (b"\x82\x20", HpackError::TableSize(0)),
        ] {
            assert_eq!(
                decode(&mut Decoder::default(), block),
                Err(error),
                "{block:?}"
            );
        }
        assert!(decode(&mut Decoder::default(), b"\x20\x3f\xe1\x1f\x82").is_ok());
        let mut without_table = Decoder::with_table(0);
        assert!(decode(&mut without_table, b"\x20\x40\x01a\x01b").is_ok());
        let none = Err(HpackError::Index(62));
        assert_eq!(decode(&mut without_table, b"\xbe"), none);
        let table = Err(HpackError::TableSize(1));
        assert_eq!(decode(&mut without_table, b"\x21"), table);
    }

    #[test]
    fn indices_name_what_they_say() {
        use super::index::*;
        let field = |index: u8| STATIC_TABLE[usize::from(index) - 1];
        assert_eq!(field(METHOD_POST), (":method", "POST"));
        assert_eq!(field(SCHEME_HTTP), (":scheme", "http"));
        assert_eq!(field(STATUS_200), (":status", "200"));
        for (index, name) in [
            (PATH, ":path"),
            (STATUS, ":status"),
            (AUTHORITY, ":authority"),
            (CONTENT_TYPE, "content-type"),
        ] {
            assert_eq!(field(index).0, name);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            literals in proptest::collection::vec((".{0,200}", ".{0,20000}"), 0..4),
            index in 1_u8..=61,
        ) {
            let mut block = Vec::new();
            let mut writer = FieldsWriter::new(&mut block);
            writer.no_table();
            writer.indexed(index);
            writer.with_indexed_name(index, b"value");
            for (name, value) in &literals {
                writer.literal(name.as_bytes(), value.as_bytes());
            }
            let (name, value) = STATIC_TABLE[usize::from(index) - 1];
            let mut expected = fields(&[(name, value), (name, "value")]).unwrap();
            expected.extend(literals);
            prop_assert_eq!(decode(&mut Decoder::default(), &block), Ok(expected));
        }

        #[test]
        fn blocks_mean_the_same_wherever_they_are_cut(
            block in proptest::collection::vec(
                prop_oneof![any::<u8>(), 0x3e_u8..0x46, 0_u8..4, 0x80_u8..0xc2],
                0..200,
            ),
            size in 1_usize..9,
        ) {
            let read = |pieces: std::slice::Chunks<'_, u8>| {
                let mut decoder = Decoder::new(100, 120);
                let (mut read, mut room) = (Vec::new(), usize::MAX);
                let mut field = |field: Field<'_>| read.push(format!("{field:?}"));
                let mut pieces = pieces;
                let result = pieces
                    .try_for_each(|piece| decoder.decode_piece(piece, false, &mut room, &mut field))
                    .and_then(|()| decoder.decode_piece(b"", true, &mut room, &mut field));
                (result, read, room, decoder.octets)
            };
            prop_assert_eq!(read(block.chunks(size)), read(block.chunks(200)));
        }

        #[test]
        fn no_blocks_make_it_panic_or_keep_more_than_it_may(
            blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..20)
        ) {
            let mut decoder = Decoder::default();
            for block in blocks {
                if decode(&mut decoder, &block).is_err() {
                    break;
                }
                let octets: usize = decoder.entries.iter().map(Entry::octets).sum();
                prop_assert_eq!(octets, decoder.octets);
                prop_assert!(octets <= decoder.max_octets && decoder.max_octets <= TABLE_OCTETS);
            }
        }
    }
}
