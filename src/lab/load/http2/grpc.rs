//! gRPC on top of a call's headers and body.

use percent_encoding::percent_decode_str;

use http::{HeaderMap, HeaderValue, header};

use super::Offer;
use crate::contract::{MESSAGE_PREFIX_BYTES as PREFIX_BYTES, metadata};
use crate::http2::client::{Connection, ConnectionError, Limits};
use crate::lab::load::protocol::{End, ProtocolError};

/// The longest message that is taken: far above what a server can be set to.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// The fields of a response, and those of its trailers. A server of the contract sends some
/// hundred bytes.
const MAX_FIELD_BYTES: usize = 64 << 10;

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

    /// Hands each whole message to `message`, where it lies if it lies there as a whole.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        mut message: impl FnMut(&[u8]) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        let mut rest = bytes;
        if !self.aside.is_empty() {
            rest = &bytes[self.complete(bytes)?..];
            match Self::first(&self.aside)? {
                Some(first) => message(first)?,
                None => return Ok(()),
            }
            self.aside.clear();
        }
        while let Some(first) = Self::first(rest)? {
            message(first)?;
            rest = &rest[PREFIX_BYTES + first.len()..];
        }
        self.aside.extend_from_slice(rest);
        Ok(())
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
    pub(super) grpc_status: Option<u32>,
    pub(super) grpc_message: String,
    pub(super) resume_reason: String,
    pub(super) start_cursor: String,
    pub(super) missed: Option<u64>,
}

impl Fields {
    pub(super) fn read(fields: &HeaderMap) -> Self {
        let text = |name| {
            let value = fields.get(name).map(HeaderValue::as_bytes);
            value.map(String::from_utf8_lossy)
        };
        let owned = |name| text(name).unwrap_or_default().into_owned();
        Fields {
            grpc_status: text("grpc-status").and_then(|text| text.parse().ok()),
            grpc_message: text("grpc-message").map_or_else(String::new, |text| {
                percent_decode_str(&text).decode_utf8_lossy().into_owned()
            }),
            resume_reason: owned(metadata::PUSH_RESUME_REASON),
            start_cursor: owned(metadata::PUSH_START_CURSOR),
            missed: text(metadata::PUSH_MISSED).and_then(|text| text.parse().ok()),
        }
    }

    /// How the stream ended.
    pub(super) fn end(self) -> Result<End, ProtocolError> {
        let Some(code) = self.grpc_status else {
            return Err(no_status());
        };
        Ok(End {
            code,
            message: self.grpc_message,
            missed: self.missed,
        })
    }
}

/// Begins a call: the client's preface and the head of the request.
pub(super) fn open(
    offer: Offer,
    authority: &str,
    path: &str,
    authorization: Option<&HeaderValue>,
    out: &mut Vec<u8>,
) -> Connection {
    let limits = Limits {
        window_bytes: offer.window_bytes,
        max_frame_bytes: offer.frame_bytes,
        max_field_bytes: MAX_FIELD_BYTES,
    };
    let fields = [
        (header::TE, HeaderValue::from_static("trailers")),
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        ),
    ];
    let mut fields = HeaderMap::from_iter(fields);
    if let Some(value) = authorization {
        fields.insert(header::AUTHORIZATION, value.clone());
    }
    Connection::open(limits, authority, path, &fields, out)
}

/// Whether a response's head is that of a call.
pub(super) fn check_status(status: u16) -> Result<(), ProtocolError> {
    match status {
        200 => Ok(()),
        status => Err(ProtocolError::new(format!("the HTTP status {status}"))),
    }
}

impl From<ConnectionError> for ProtocolError {
    fn from(error: ConnectionError) -> Self {
        ProtocolError::new(error.to_string())
    }
}

/// A body has ended without trailers.
pub(super) fn no_status() -> ProtocolError {
    ProtocolError::new("the stream ends without a gRPC status")
}

/// How a stream ended that the server has reset.
pub(super) fn reset(code: u32) -> End {
    End {
        code: 2,
        message: format!("the server has reset the stream, with the error {code}"),
        missed: None,
    }
}
