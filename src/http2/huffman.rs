//! The code of HPACK's strings (RFC 7541, appendix B).
//!
//! It is a canonical Huffman code: codes of one length are consecutive numbers, in the
//! order of their symbols. So the lengths of all codes are the whole code, and a decoder
//! needs of each length no more than its first code and how many there are.

use super::hpack::HpackError;

/// How many bits the code of each octet has. The last one ends a string, and must not
/// occur in one.
#[rustfmt::skip]
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const SYMBOLS: usize = 257;
const END_OF_STRING: u16 = 256;
const SHORTEST: u32 = 5;
const LONGEST: u32 = 30;

static CODE: Code = Code::new();

/// The code, ordered for decoding.
struct Code {
    /// By length: its first code, how many there are, and where their symbols start.
    by_length: [Length; LONGEST as usize + 1],
    /// All symbols, by the length of their code, then by their number.
    symbols: [u16; SYMBOLS],
}

#[derive(Clone, Copy)]
struct Length {
    first: u32,
    count: u32,
    symbols_at: usize,
}

impl Code {
    const fn new() -> Self {
        let mut by_length = [Length {
            first: 0,
            count: 0,
            symbols_at: 0,
        }; LONGEST as usize + 1];
        let mut symbols = [0; SYMBOLS];
        let mut next_code = 0;
        let mut placed = 0;
        let mut length = 1;
        while length <= LONGEST as usize {
            next_code <<= 1;
            by_length[length].first = next_code;
            by_length[length].symbols_at = placed;
            let mut symbol = 0;
            while symbol < SYMBOLS {
                if LENGTHS[symbol] as usize == length {
                    symbols[placed] = symbol as u16;
                    placed += 1;
                    by_length[length].count += 1;
                    next_code += 1;
                }
                symbol += 1;
            }
            length += 1;
        }
        Code { by_length, symbols }
    }

    /// The symbol whose code the last `bits` bits of `window` begin with, and its
    /// length; `None` if it takes more bits than these.
    fn find(&self, window: u64, bits: u32) -> Option<(u16, u32)> {
        (SHORTEST..=bits.min(LONGEST)).find_map(|length| {
            // Fits: a code has at most 30 bits.
            let code = (window >> (bits - length)) as u32 & ((1 << length) - 1);
            let of = &self.by_length[length as usize];
            let nth = code.wrapping_sub(of.first);
            (nth < of.count).then(|| (self.symbols[of.symbols_at + nth as usize], length))
        })
    }
}

/// A string whose code arrives piece by piece.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HuffmanReader {
    window: u64,
    /// Of the window, what no symbol was found in yet: at most 29 bits.
    bits: u32,
}

impl HuffmanReader {
    /// Appends to `out` what the next piece stands for.
    ///
    /// # Errors
    ///
    /// [`HpackError::Huffman`] if the end of the string is inside.
    pub(super) fn read(&mut self, coded: &[u8], out: &mut Vec<u8>) -> Result<(), HpackError> {
        for &octet in coded {
            self.window = self.window << 8 | u64::from(octet);
            self.bits += 8;
            while let Some((symbol, length)) = CODE.find(self.window, self.bits) {
                if symbol == END_OF_STRING {
                    return Err(HpackError::Huffman);
                }
                out.push(symbol as u8);
                self.bits -= length;
            }
        }
        Ok(())
    }

    /// The string ends here.
    ///
    /// # Errors
    ///
    /// [`HpackError::Huffman`] if it is not padded by fewer than eight bits of the end of
    /// a string (RFC 7541, section 5.2).
    pub(super) fn end(self) -> Result<(), HpackError> {
        let padding = (1 << self.bits) - 1;
        if self.bits < 8 && self.window & padding == padding {
            Ok(())
        } else {
            Err(HpackError::Huffman)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By the definition, bit by bit.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for &octet in text {
            let length = u32::from(LENGTHS[usize::from(octet)]);
            let of = &CODE.by_length[length as usize];
            let symbols = &CODE.symbols[of.symbols_at..][..of.count as usize];
            let nth = symbols.iter().position(|&s| s == u16::from(octet)).unwrap();
            let code = of.first + nth as u32;
            bits.extend((0..length).rev().map(|bit| code >> bit & 1));
        }
        bits.resize(bits.len().next_multiple_of(8), 1);
        let octet = |bits: &[u32]| bits.iter().fold(0, |octet, bit| octet << 1 | bit) as u8;
        bits.chunks(8).map(octet).collect()
    }

    fn decoded(coded: &[u8]) -> Result<Vec<u8>, HpackError> {
        let mut out = Vec::new();
        let mut reader = HuffmanReader::default();
        for piece in coded.chunks(3) {
            reader.read(piece, &mut out)?;
        }
        reader.end().map(|()| out)
    }

    #[test]
    fn the_examples_of_the_specification() {
        // RFC 7541, sections C.4 and C.6.
        for (coded, text) in [
            (
                &b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..],
                "www.example.com",
            ),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f", "custom-key"),
            (
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\
                  \x2d\x1b\xff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            (b"\x64\x02", "302"),
        ] {
            assert_eq!(decoded(coded), Ok(text.as_bytes().to_vec()));
            assert_eq!(encode(text.as_bytes()), coded);
        }
    }

    #[test]
    fn padding_is_less_than_an_octet_of_ones() {
        assert_eq!(decoded(b""), Ok(Vec::new()));
        // "0" is five zeros, three ones follow.
        assert_eq!(decoded(b"\x07"), Ok(b"0".to_vec()));
        assert_eq!(decoded(b"\x06"), Err(HpackError::Huffman));
        assert_eq!(decoded(b"\x07\xff"), Err(HpackError::Huffman));
        assert_eq!(
            decoded(b"\xff\xff\xff\xff"),
            Err(HpackError::Huffman),
            "the end"
        );
    }

    proptest! {
        #[test]
        fn what_was_coded_is_decoded(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(decoded(&encode(&text)), Ok(text));
        }

        #[test]
        fn whatever_is_decoded_was_coded_so(coded in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(text) = decoded(&coded) {
                prop_assert_eq!(encode(&text), coded);
            }
        }
    }
}
