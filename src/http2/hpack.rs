//! Header fields as they go over the wire (HPACK, RFC 7541).
//!
//! [`Decoder`] takes whatever a peer may send. What we send ourselves uses no table
//! that would have to be kept: [`FieldsWriter`] writes indexed fields of the static
//! table and literals.

use std::collections::VecDeque;

use super::huffman;

/// What a peer may ask us to keep of its fields, in octets as the RFC counts them: the
/// size that holds where no other is announced.
pub const TABLE_OCTETS: usize = 4096;

/// What one block may stand for, in octets counted like a table's: far more than any
/// list of fields that is accepted. Without an end, each two octets could have an entry
/// of 4 KiB copied.
const MAX_BLOCK_OCTETS: usize = 256 << 10;

/// What a table's entry counts in addition to its name and value (section 4.1).
const ENTRY_OVERHEAD: usize = 32;

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
    /// It stands for more than any peer can mean.
    #[error("the header block stands for more than {MAX_BLOCK_OCTETS} octets")]
    TooLong,
}

/// Reads header blocks of one direction of a connection, one after another.
#[derive(Debug)]
pub struct Decoder {
    /// The newest first.
    entries: VecDeque<Entry>,
    octets: usize,
    max_octets: usize,
    /// What was offered to the peer.
    offered_octets: usize,
    /// Where strings are decoded; kept for its memory within a block.
    name: Vec<u8>,
    value: Vec<u8>,
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
        Decoder {
            entries: VecDeque::new(),
            octets: 0,
            max_octets: octets,
            offered_octets: octets,
            name: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Reads a whole block, and tells `field` the name and the value of each field.
    ///
    /// # Errors
    ///
    /// [`HpackError`] says what is wrong with it. The decoder is of no use after that:
    /// the connection must end.
    pub fn decode(
        &mut self,
        block: &[u8],
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), HpackError> {
        let mut input = Input(block);
        let mut may_resize = true;
        let mut left = MAX_BLOCK_OCTETS;
        let mut count = |name: &[u8], value: &[u8]| {
            let octets = name.len() + value.len() + ENTRY_OVERHEAD;
            left = left.checked_sub(octets).ok_or(HpackError::TooLong)?;
            Ok(())
        };
        while let Some(&first) = input.0.first() {
            let resizes = first & 0xe0 == 0x20;
            if resizes {
                let max_octets = input.number(5)?;
                if max_octets > self.offered_octets || !may_resize {
                    return Err(HpackError::TableSize(max_octets));
                }
                self.resize(max_octets);
            } else if first & 0x80 != 0 {
                let index = input.number(7)?;
                let (name, value) = self.entry(index)?;
                count(name, value)?;
                field(name, value);
            } else {
                let keep = first & 0x40 != 0;
                self.literal(&mut input, if keep { 6 } else { 4 })?;
                count(&self.name, &self.value)?;
                field(&self.name, &self.value);
                if keep {
                    self.keep();
                }
            }
            may_resize = resizes;
        }
        self.name = Vec::new();
        self.value = Vec::new();
        Ok(())
    }

    /// Reads a literal field into `name` and `value`.
    fn literal(&mut self, input: &mut Input<'_>, prefix_bits: u32) -> Result<(), HpackError> {
        let index = input.number(prefix_bits)?;
        let mut name = std::mem::take(&mut self.name);
        name.clear();
        if index == 0 {
            input.string(&mut name)?;
        } else {
            name.extend(self.entry(index)?.0);
        }
        self.name = name;
        self.value.clear();
        input.string(&mut self.value)
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

/// What is left of a block.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn octet(&mut self) -> Result<u8, HpackError> {
        let (&first, rest) = self.0.split_first().ok_or(HpackError::Truncated)?;
        self.0 = rest;
        Ok(first)
    }

    /// A number whose first octet has `prefix_bits` bits of it (section 5.1), below
    /// 2^28 or so: as many octets as any real one needs.
    fn number(&mut self, prefix_bits: u32) -> Result<usize, HpackError> {
        let mask = (1 << prefix_bits) - 1;
        let mut number = usize::from(self.octet()?) & mask;
        if number < mask {
            return Ok(number);
        }
        for shift in [0, 7, 14, 21] {
            let octet = self.octet()?;
            number += usize::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(HpackError::Number)
    }

    /// Appends a string to `out`.
    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), HpackError> {
        let huffman = self.0.first().is_some_and(|first| first & 0x80 != 0);
        let bytes = self.number(7)?;
        let (string, rest) = self
            .0
            .split_at_checked(bytes)
            .ok_or(HpackError::Truncated)?;
        self.0 = rest;
        if huffman {
            huffman::decode(string, out)
        } else {
            out.extend(string);
            Ok(())
        }
    }
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
