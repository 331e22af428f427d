//! A message for tonic that is not decoded here.

use bytes::{Buf, Bytes};
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder};

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
