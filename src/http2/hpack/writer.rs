//! Writes header blocks.

use http::HeaderMap;

use super::index;

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

    /// All of them.
    pub fn fields(&mut self, fields: &HeaderMap) {
        for (name, value) in fields {
            if name == http::header::CONTENT_TYPE {
                self.with_indexed_name(index::CONTENT_TYPE, value.as_bytes());
            } else {
                self.literal(name.as_str().as_bytes(), value.as_bytes());
            }
        }
    }

    pub(super) fn string(&mut self, string: &[u8]) {
        self.number(0, 7, string.len());
        self.0.extend(string);
    }

    pub(super) fn number(&mut self, first: u8, prefix_bits: u32, number: usize) {
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
