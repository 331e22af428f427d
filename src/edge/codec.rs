//! tonic's codec for messages that are not decoded here: a request is the bytes
//! that the peer sent, and the one response there is, is written by hand.

use bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::cursor::Cursor;
use crate::engine::Published;

/// The `PublishResponse` to `Published`: two string fields of a known length.
const RESPONSE_BYTES: usize = 2 * (2 + Cursor::TEXT_BYTES);
/// Field 1 and field 2, both length-delimited.
const FIRST_CURSOR: u8 = 1 << 3 | 2;
const LAST_CURSOR: u8 = 2 << 3 | 2;

/// Requests as raw bytes, responses as [`Published`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PublishCodec;

impl Codec for PublishCodec {
    type Encode = Published;
    type Decode = Bytes;
    type Encoder = PublishedEncoder;
    type Decoder = RawDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        PublishedEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        RawDecoder
    }
}

/// Takes a message's bytes out of the receive buffer, without copying them.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawDecoder;

impl Decoder for RawDecoder {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

/// Writes a `galaxy.push.publisher.v1.PublishResponse`.
#[derive(Clone, Copy, Debug)]
pub(super) struct PublishedEncoder;

impl Encoder for PublishedEncoder {
    type Item = Published;
    type Error = Status;

    fn encode(&mut self, published: Published, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&response(published));
        Ok(())
    }
}

fn response(published: Published) -> [u8; RESPONSE_BYTES] {
    let mut bytes = [0; RESPONSE_BYTES];
    let (first, last) = bytes.split_at_mut(RESPONSE_BYTES / 2);
    for (field, tag, cursor) in [
        (first, FIRST_CURSOR, published.first),
        (last, LAST_CURSOR, published.last),
    ] {
        field[0] = tag;
        field[1] = Cursor::TEXT_BYTES as u8;
        field[2..].copy_from_slice(cursor.to_text().as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::{Epoch, Seq};
    use crate::proto::publisher::PublishResponse;
    use prost::Message;

    #[test]
    fn a_response_is_what_prost_would_write() {
        let epoch = Epoch::from_millis(1_700_000_000_000).unwrap();
        let published = Published {
            first: Cursor::new(epoch, Seq::new(7)),
            last: Cursor::new(epoch, Seq::new(9)),
        };
        let by_prost = PublishResponse {
            first_cursor: published.first.to_string(),
            last_cursor: published.last.to_string(),
        };
        assert_eq!(response(published).as_slice(), by_prost.encode_to_vec());
    }
}
