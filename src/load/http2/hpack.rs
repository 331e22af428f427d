//! Header blocks, as far as they are needed here: the Huffman code is a crate's.
//!
//! The client offers a dynamic table of no bytes. So every field is a literal, or one
//! of the static table, of which only the status is of interest; and a header block is
//! understood without state. (The crates that decode all of HPACK panic on blocks that
//! end too early, or build a table of the Huffman code anew for each text.)

use std::borrow::Cow;

use httlib_huffman::DecoderSpeed;

use crate::load::protocol::ProtocolError;

/// Where the static table has a name without the value that is wanted.
mod index {
    pub(super) const AUTHORITY: u8 = 1;
    pub(super) const PATH: u8 = 4;
}
/// `:method: POST` and `:scheme: http` are in the static table as a whole.
const METHOD_POST: u8 = 0x80 | 3;
const SCHEME_HTTP: u8 = 0x80 | 6;
/// The longest text that is written with a length of one byte.
const MAX_TEXT_BYTES: usize = 126;
/// How many entries the static table has.
const STATIC_ENTRIES: u64 = 61;

/// Appends the header fields of a gRPC request.
pub(super) fn write_request(authority: &str, path: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&[METHOD_POST, SCHEME_HTTP]);
    out.push(index::PATH);
    write_text(path, out);
    out.push(index::AUTHORITY);
    write_text(authority, out);
    for (name, value) in [("te", "trailers"), ("content-type", "application/grpc")] {
        out.push(0);
        write_text(name, out);
        write_text(value, out);
    }
}

/// Cut to what one byte of length can say: no host's name is longer that exists.
fn write_text(text: &str, out: &mut Vec<u8>) {
    let text = &text.as_bytes()[..text.len().min(MAX_TEXT_BYTES)];
    out.push(text.len() as u8);
    out.extend_from_slice(text);
}

/// Hands each field of a header block to `field`: name and value. Of a name in the
/// static table, only `:status` is told.
pub(super) fn read(
    mut block: &[u8],
    mut field: impl FnMut(&[u8], &[u8]),
) -> Result<(), ProtocolError> {
    while let Some(&first) = block.first() {
        if first & 0x80 != 0 {
            let index = read_integer(&mut block, 7)?;
            if let Some(status) = static_status(index)? {
                field(b":status", status);
            }
            continue;
        }
        if first & 0xE0 == 0x20 {
            if read_integer(&mut block, 5)? != 0 {
                return Err(ProtocolError::new(
                    "the server wants a dynamic table for headers, which was not offered",
                ));
            }
            continue;
        }
        // A literal. Whether it is to be indexed does not matter: it does not fit into
        // a table of no bytes.
        let prefix_bits = if first & 0x40 != 0 { 6 } else { 4 };
        let index = read_integer(&mut block, prefix_bits)?;
        let name = match index {
            0 => read_text(&mut block)?,
            _ => match static_status(index)? {
                Some(_) => Cow::Borrowed(&b":status"[..]),
                None => Cow::Borrowed(&b""[..]),
            },
        };
        let value = read_text(&mut block)?;
        if !name.is_empty() {
            field(&name, &value);
        }
    }
    Ok(())
}

/// The value, if it is a `:status`.
fn static_status(index: u64) -> Result<Option<&'static [u8]>, ProtocolError> {
    match index {
        1..=7 | 15..=STATIC_ENTRIES => Ok(None),
        8 => Ok(Some(b"200")),
        9 => Ok(Some(b"204")),
        10 => Ok(Some(b"206")),
        11 => Ok(Some(b"304")),
        12 => Ok(Some(b"400")),
        13 => Ok(Some(b"404")),
        14 => Ok(Some(b"500")),
        _ => Err(ProtocolError::new(format!(
            "a header field has the index {index}, where no table has an entry"
        ))),
    }
}

fn too_short() -> ProtocolError {
    ProtocolError::new("a header block ends in the middle of a field")
}

/// A number whose first byte has so many bits for it.
fn read_integer(block: &mut &[u8], prefix_bits: u32) -> Result<u64, ProtocolError> {
    let mut bytes = block.iter();
    let mask = (1_u8 << prefix_bits).wrapping_sub(1);
    let mut value = u64::from(bytes.next().ok_or_else(too_short)? & mask);
    if value == u64::from(mask) {
        // Lengths and indices of more than 28 bits have no use.
        for shift in [0, 7, 14, 21] {
            let byte = bytes.next().ok_or_else(too_short)?;
            value += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *block = bytes.as_slice();
                return Ok(value);
            }
        }
        return Err(ProtocolError::new(
            "a number in a header block is too large",
        ));
    }
    *block = bytes.as_slice();
    Ok(value)
}

fn read_text<'a>(block: &mut &'a [u8]) -> Result<Cow<'a, [u8]>, ProtocolError> {
    let is_huffman = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = read_integer(block, 7)?;
    let length = usize::try_from(length).map_err(|_| too_short())?;
    let (text, rest) = block.split_at_checked(length).ok_or_else(too_short)?;
    *block = rest;
    if !is_huffman {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(2 * text.len());
    httlib_huffman::decode(text, &mut decoded, DecoderSpeed::FourBits)
        .map_err(|_| ProtocolError::new("a header's text is not in the Huffman code"))?;
    Ok(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(block: &[u8]) -> Result<Vec<(String, String)>, ProtocolError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut fields = Vec::new();
        read(block, |name, value| fields.push((text(name), text(value))))?;
        Ok(fields)
    }

    fn field(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_request_is_read_back() {
        let mut block = Vec::new();
        write_request("localhost:1", "/package.Service/Method", &mut block);
        assert_eq!(
            fields(&block[2..]).unwrap(),
            [
                field("te", "trailers"),
                field("content-type", "application/grpc")
            ]
        );
        let path = b"\x04\x17/package.Service/Method\x01\x0Blocalhost:1";
        assert!(block[2..].starts_with(path));
    }

    #[test]
    fn every_form_of_a_field_is_understood() {
        // `:status` as a whole, by its name, and a name that nobody asks for.
        let block = b"\x20\x88\x08\x03410\x5f\x03a/b\x0f\x10\x03c/d";
        assert_eq!(
            fields(block).unwrap(),
            [field(":status", "200"), field(":status", "410")]
        );
        // RFC 7541, C.6.1: Huffman texts, with and without indexing.
        let huffman =
            b"\x40\x88\x25\xA8\x49\xE9\x5B\xA9\x7D\x7F\x89\x25\xA8\x49\xE9\x5B\xB8\xE8\xB4\xBF";
        assert_eq!(
            fields(huffman).unwrap(),
            [field("custom-key", "custom-value")]
        );
        let mut never = huffman.to_vec();
        never[0] = 0x10;
        assert_eq!(fields(&never).unwrap(), fields(huffman).unwrap());
    }

    #[test]
    fn what_is_no_header_block_is_named() {
        for (block, what) in [
            (&b"\x40\x03abc"[..], "ends in the middle"),
            (b"\x40\x05abc", "ends in the middle"),
            (b"\xff", "ends in the middle"),
            (b"\xff\x80\x80\x80\x80\x00", "too large"),
            (b"\x80", "index 0"),
            (b"\xbe", "index 62"),
            (b"\x7e\x01a", "index 62"),
            (b"\x3f\x01", "dynamic table"),
            (b"\x00\x01a\x84\xff\xff\xff\xff", "Huffman"),
        ] {
            let error = fields(block).unwrap_err().to_string();
            assert!(error.contains(what), "{block:?}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_block_makes_it_panic(block in proptest::collection::vec(0_u8.., 0..60)) {
            let _ = fields(&block);
        }
    }
}
