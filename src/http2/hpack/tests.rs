//! Header blocks, good and bad.

use super::decoder::HUFFMAN_PIECE_BYTES;
use super::table::{Entry, STATIC_TABLE};
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
    assert_eq!(decoder.table.octets, 57);
    let block = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
    let second = [&common[..], &[("cache-control", "no-cache")]].concat();
    assert_eq!(decode(&mut decoder, block), fields(&second));
    assert_eq!(decoder.table.octets, 110);
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
    assert_eq!(decoder.table.octets, 164);
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
    assert_eq!((decoder.table.octets, decoder.table.entries.len()), (0, 0));
}

#[test]
fn what_is_too_long_is_skipped_and_empties_the_table() {
    // RFC 7541, section 4.4: an entry larger than the table is no error.
    for (name, value, huffman) in [
        (1, 9000, false),
        (9000, 1, false),
        (1, 9000, true),
        (9000, 1, true),
        (3000, 3000, false),
    ] {
        let mut decoder = Decoder::new(4096, 5000);
        let mut block = b"\x40\x01a\x01x\x40".to_vec();
        for length in [name, value] {
            let mut string = Vec::new();
            FieldsWriter::new(&mut string).string(&vec![b'0'; length]);
            if huffman {
                // Eight of "0" are five octets of zeros.
                let coded = length.div_ceil(8) * 5;
                string.clear();
                FieldsWriter::new(&mut string).number(0x80, 7, coded);
                string.resize(string.len() + coded, 0);
            }
            block.extend(string);
        }
        block.extend(b"\x40\x01b\x01y\xbe");
        let mut read = Vec::new();
        let mut room = usize::MAX;
        for piece in block.chunks(100) {
            let field = |field: Field<'_>| read.push(format!("{field:?}"));
            decoder
                .decode_piece(piece, false, &mut room, field)
                .unwrap();
            let held = decoder.name.capacity() + decoder.value.capacity();
            assert!(held <= 2 * 5000 + 4 * HUFFMAN_PIECE_BYTES, "{held}");
        }
        let field = |field: Field<'_>| read.push(format!("{field:?}"));
        decoder.decode_piece(b"", true, &mut room, field).unwrap();
        let whole = |name: u8, value: u8| format!("{:?}", Field::Whole(&[name], &[value]));
        let expected = [
            whole(b'a', b'x'),
            "TooLong".into(),
            whole(b'b', b'y'),
            whole(b'b', b'y'),
        ];
        assert_eq!(read, expected);
        assert_eq!(decoder.table.octets, 34, "only what came after it");
    }
    // Skipped is not unchecked: the end of a string, and padding that is none.
    for bad in [&[0xff; 4][..], &[0; 4][..]] {
        let mut block = b"\x00\x01a".to_vec();
        FieldsWriter::new(&mut block).number(0x80, 7, 9004 + bad.len());
        block.extend([&[0x07; 9004][..], bad].concat());
        let mut decoder = Decoder::new(0, 100);
        let mut room = usize::MAX;
        let read = decoder.decode_piece(&block, true, &mut room, |_| {});
        assert_eq!(read, Err(HpackError::Huffman));
    }
}

#[test]
fn what_a_block_stands_for_is_counted() {
    let mut decoder = Decoder::default();
    let mut count = |block: &[u8]| {
        let mut room = 10_000;
        let read = decoder.decode_piece(block, true, &mut room, |_| {});
        read.map(|()| 10_000 - room)
    };
    assert_eq!(count(b"\x82"), Ok(32 + 10));
    let large = [&b"\x40\x01a\x7f\xa1\x1e"[..], &[b'x'; 4000]].concat();
    assert_eq!(count(&large), Ok(32 + 4001));
    assert_eq!(count(b"\xbe\xbe"), Ok(2 * (32 + 4001)));
    assert_eq!(count(b"\xbe\xbe\xbe"), Err(HpackError::TooLong));
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
    fn blocks_mean_the_same_wherever_they_are_cut(
        block in proptest::collection::vec(
            prop_oneof![any::<u8>(), 0x3e_u8..0x46, 0_u8..4, 0x80_u8..0xc2],
            0..200,
        ),
        size in 1_usize..9,
    ) {
        let read = |pieces: std::slice::Chunks<'_, u8>| {
            let mut decoder = Decoder::new(100, 120);
            let (mut read, mut room) = (Vec::new(), usize::MAX);
            let mut field = |field: Field<'_>| read.push(format!("{field:?}"));
            let mut pieces = pieces;
            let result = pieces
                .try_for_each(|piece| decoder.decode_piece(piece, false, &mut room, &mut field))
                .and_then(|()| decoder.decode_piece(b"", true, &mut room, &mut field));
            (result, read, room, decoder.table.octets)
        };
        prop_assert_eq!(read(block.chunks(size)), read(block.chunks(200)));
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
            let octets: usize = decoder.table.entries.iter().map(Entry::octets).sum();
            prop_assert_eq!(octets, decoder.table.octets);
            prop_assert!(octets <= decoder.table.max_octets && decoder.table.max_octets <= TABLE_OCTETS);
        }
    }
}
