//! The header block that is arriving in HEADERS and CONTINUATION (RFC 9113, section 4.3).
//!
//! It is decoded as it arrives, and no longer than its fields are kept: of a block of any
//! length there is at most one list of fields that is accepted, and one field.

use super::error::Error;
use super::hpack::{Decoder, Field, HpackError};

/// What collects the fields of a block.
pub(super) trait FieldList {
    /// Takes at most so many bytes, as RFC 9113 counts them (section 6.5.2).
    fn with_room(max_bytes: usize) -> Self;

    /// The next field.
    fn add(&mut self, name: &[u8], value: &[u8]);

    /// A field that is too long by itself.
    fn add_too_long(&mut self);
}

/// The header block that is arriving, and the decoder of all of them.
#[derive(Debug)]
pub(super) struct HeaderBlock<F> {
    decoder: Decoder,
    max_field_bytes: usize,
    stream: u32,
    ends_stream: bool,
    depends_on_itself: bool,
    /// None before its first piece.
    fields: Option<Box<F>>,
}

impl<F: FieldList> HeaderBlock<F> {
    /// For lists of fields up to `max_field_bytes`.
    pub(super) fn new(table_octets: usize, max_field_bytes: usize) -> Self {
        HeaderBlock {
            decoder: Decoder::new(table_octets, max_field_bytes),
            max_field_bytes,
            stream: 0,
            ends_stream: false,
            depends_on_itself: false,
            fields: None,
        }
    }

    /// A block begins.
    pub(super) fn begin(&mut self, stream: u32, ends_stream: bool, depends_on: Option<u32>) {
        self.stream = stream;
        self.ends_stream = ends_stream;
        self.depends_on_itself = depends_on == Some(stream);
    }

    /// The stream that the block belongs to.
    pub(super) fn stream(&self) -> u32 {
        self.stream
    }

    /// Whether nothing follows the block on its stream.
    pub(super) fn ends_stream(&self) -> bool {
        self.ends_stream
    }

    /// Whether it gives the stream itself as its parent (RFC 7540, section 5.3.1).
    pub(super) fn depends_on_itself(&self) -> bool {
        self.depends_on_itself
    }

    /// A piece of the block. What it stands for is taken from `room`: when that is used up,
    /// the piece is [too long](HpackError::TooLong).
    pub(super) fn piece(
        &mut self,
        bytes: &[u8],
        ends_block: bool,
        room: &mut usize,
    ) -> Result<(), HpackError> {
        let max_field_bytes = self.max_field_bytes;
        let fields = self
            .fields
            .get_or_insert_with(|| Box::new(F::with_room(max_field_bytes)));
        self.decoder
            .decode_piece(bytes, ends_block, room, |field| match field {
                Field::Whole(name, value) => fields.add(name, value),
                Field::TooLong => fields.add_too_long(),
            })
    }

    /// The fields of a block that has ended.
    pub(super) fn take_fields(&mut self) -> Box<F> {
        let fields = self.fields.take();
        fields.unwrap_or_else(|| Box::new(F::with_room(self.max_field_bytes)))
    }
}

impl From<HpackError> for Error {
    fn from(_: HpackError) -> Self {
        Error::compression("HPACK decoding failed")
    }
}
