//! gRPC on top of a call's headers and body.

use percent_encoding::percent_decode_str;

use crate::http2::hpack::Decoder;
use crate::lab::load::protocol::{End, ProtocolError};

/// The prefix of each message: compressed or not, and its length.
pub(super) const PREFIX_BYTES: usize = 5;
/// The longest message that is taken: far above what a server can be set to.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// From here on the beginning of a message is put aside, instead of being received
/// again and again with what comes after it.
const PUT_ASIDE_BYTES: usize = 4 << 10;

/// Finds messages in the body, wherever frames and reads have cut it.
#[derive(Clone, Debug, Default)]
pub(super) struct Messages {
    /// The beginning of a message whose rest is in another frame, or not there yet.
    aside: Vec<u8>,
}

impl Messages {
    pub(super) fn clear(&mut self) {
        self.aside.clear();
    }

    /// Whether the body may end here.
    pub(super) fn is_between(&self) -> bool {
        self.aside.is_empty()
    }

    /// Hands each whole message to `message`, and answers how many bytes are done
    /// with: all, if they are the rest of their frame.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        is_complete: bool,
        mut message: impl FnMut(&[u8]) -> Result<(), ProtocolError>,
    ) -> Result<usize, ProtocolError> {
        let mut at = 0;
        if !self.aside.is_empty() {
            at = self.complete(bytes)?;
            match Self::first(&self.aside)? {
                Some(first) => message(first)?,
                None => return Ok(at),
            }
            self.aside.clear();
        }
        loop {
            let rest = &bytes[at..];
            if let Some(first) = Self::first(rest)? {
                message(first)?;
                at += PREFIX_BYTES + first.len();
                continue;
            }
            if is_complete || rest.len() >= PUT_ASIDE_BYTES {
                self.aside.extend_from_slice(rest);
                at = bytes.len();
            }
            return Ok(at);
        }
    }

    /// Appends to what was put aside what belongs to its message: so many bytes.
    fn complete(&mut self, bytes: &[u8]) -> Result<usize, ProtocolError> {
        let mut taken = 0;
        if self.aside.len() < PREFIX_BYTES {
            taken = bytes.len().min(PREFIX_BYTES - self.aside.len());
            self.aside.extend_from_slice(&bytes[..taken]);
        }
        if let Some(length) = Self::length(&self.aside)? {
            let missing = PREFIX_BYTES + length - self.aside.len();
            let more = missing.min(bytes.len() - taken);
            self.aside.extend_from_slice(&bytes[taken..taken + more]);
            taken += more;
        }
        Ok(taken)
    }

    /// The first message, if it is there as a whole.
    #[inline]
    fn first(bytes: &[u8]) -> Result<Option<&[u8]>, ProtocolError> {
        let Some(length) = Self::length(bytes)? else {
            return Ok(None);
        };
        Ok(bytes.get(PREFIX_BYTES..PREFIX_BYTES + length))
    }

    /// The length that a message's prefix says.
    #[inline]
    fn length(bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some([compressed, length @ ..]) = bytes.first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if *compressed != 0 {
            return Err(ProtocolError::new(
                "a message is compressed, which was not offered",
            ));
        }
        if length > MAX_MESSAGE_BYTES {
            return Err(ProtocolError::new(format!("a message of {length} bytes")));
        }
        Ok(Some(length))
    }
}

/// What a header block of a response says, as far as it matters.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    pub(super) http_status: Option<u16>,
    pub(super) grpc_status: Option<u32>,
    pub(super) grpc_message: String,
    pub(super) resume_reason: String,
    pub(super) start_cursor: String,
    pub(super) missed: Option<u64>,
}

impl Fields {
    pub(super) fn read(block: &[u8]) -> Result<Self, ProtocolError> {
        let mut fields = Fields::default();
        // No table was offered, so that each block is understood by itself.
        let mut decoder = Decoder::with_table(0);
        let read = decoder.decode(block, |name, value| {
            let text = String::from_utf8_lossy(value);
            match name {
                b":status" => fields.http_status = text.parse().ok(),
                b"grpc-status" => fields.grpc_status = text.parse().ok(),
                b"grpc-message" => {
                    let message = percent_decode_str(&text).decode_utf8_lossy();
                    fields.grpc_message = message.into_owned();
                }
                b"push-resume-reason" => fields.resume_reason = text.into_owned(),
                b"push-start-cursor" => fields.start_cursor = text.into_owned(),
                b"push-missed" => fields.missed = text.parse().ok(),
                _ => {}
            }
        });
        read.map_err(|error| ProtocolError::new(error.to_string()))?;
        Ok(fields)
    }

    /// Whether the head of a response is that of a stream.
    pub(super) fn check_head(&self) -> Result<(), ProtocolError> {
        match self.http_status {
            Some(200) => Ok(()),
            Some(status) => Err(ProtocolError::new(format!("the HTTP status {status}"))),
            None => Err(ProtocolError::new("a response without a status")),
        }
    }

    /// How the stream ended.
    pub(super) fn end(self) -> Result<End, ProtocolError> {
        let Some(code) = self.grpc_status else {
            return Err(ProtocolError::new("the stream ends without a gRPC status"));
        };
        Ok(End {
            code,
            message: self.grpc_message,
            missed: self.missed,
        })
    }
}

/// How a stream ended that the server has reset.
pub(super) fn reset(code: u32) -> End {
    End {
        code: 2,
        message: format!("the server has reset the stream, with the error {code}"),
        missed: None,
    }
}
