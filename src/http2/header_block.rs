//! Header blocks, put together out of HEADERS and CONTINUATION and decoded (RFC 9113,
//! section 4.3).

use super::error::Error;
use super::hpack::{Decoder, HpackError};

/// The longest header block, compressed as it is.
const MAX_BLOCK_BYTES: usize = 32 << 10;
/// CONTINUATION frames of one block.
const MAX_CONTINUATIONS: u32 = 16;

/// The header block that is arriving, and the decoder of all of them.
#[derive(Debug)]
pub(super) struct HeaderBlock {
    decoder: Decoder,
    stream: u32,
    ends_stream: bool,
    continuations: u32,
    bytes: Vec<u8>,
}

impl HeaderBlock {
    pub(super) fn new(decoder: Decoder) -> Self {
        HeaderBlock {
            decoder,
            stream: 0,
            ends_stream: false,
            continuations: 0,
            bytes: Vec::new(),
        }
    }

    /// A block begins.
    pub(super) fn begin(&mut self, stream: u32, ends_stream: bool) {
        self.stream = stream;
        self.ends_stream = ends_stream;
        self.continuations = 0;
    }

    /// The stream that the block belongs to.
    pub(super) fn stream(&self) -> u32 {
        self.stream
    }

    /// Whether nothing follows the block on its stream.
    pub(super) fn ends_stream(&self) -> bool {
        self.ends_stream
    }

    /// The block goes on in another frame.
    pub(super) fn continuation(&mut self) -> Result<(), Error> {
        self.continuations += 1;
        if self.continuations > MAX_CONTINUATIONS {
            return Err(Error::calm("too many CONTINUATION frames"));
        }
        Ok(())
    }

    /// A piece of the block. With the last one, tells `field` the names and values of all
    /// fields.
    pub(super) fn piece(
        &mut self,
        bytes: &[u8],
        ends_block: bool,
        field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Error> {
        if self.bytes.len() + bytes.len() > MAX_BLOCK_BYTES {
            return Err(Error::calm("header block too large"));
        }
        if ends_block && self.bytes.is_empty() {
            return decode(&mut self.decoder, bytes, field);
        }
        self.bytes.extend_from_slice(bytes);
        if ends_block {
            let block = std::mem::take(&mut self.bytes);
            return decode(&mut self.decoder, &block, field);
        }
        Ok(())
    }
}

fn decode(
    decoder: &mut Decoder,
    block: &[u8],
    field: impl FnMut(&[u8], &[u8]),
) -> Result<(), Error> {
    decoder.decode(block, field).map_err(|error| match error {
        HpackError::TooLong => Error::calm("header list too large"),
        _ => Error::compression("HPACK decoding failed"),
    })
}
