//! Redis' protocol.

use crate::wire::Malformed;
use crate::wire::resp::{Piece, command, piece};

/// All pieces, however the bytes are cut.
fn pieces(bytes: &[u8]) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (piece, read) = piece(&bytes[at..]).unwrap().unwrap();
        for end in 0..read {
            assert_eq!(crate::wire::resp::piece(&bytes[at..at + end]), Ok(None));
        }
        found.push(piece);
        at += read;
    }
    found
}

#[test]
fn every_kind_of_resp_piece_is_read() {
    assert_eq!(
        pieces(b"+OK\r\n-ERR no\r\n:-7\r\n$2\r\n\r\n\r\n$-1\r\n*2\r\n*-1\r\n*0\r\n"),
        [
            Piece::Simple(b"OK"),
            Piece::Error(b"ERR no"),
            Piece::Integer(-7),
            Piece::Bulk(Some(b"\r\n")),
            Piece::Bulk(None),
            Piece::Array(Some(2)),
            Piece::Array(None),
            Piece::Array(Some(0)),
        ]
    );
}

#[test]
fn a_command_reads_as_an_array_of_its_words() {
    let mut bytes = Vec::new();
    command(&mut bytes, &[b"PUBLISH", b"", b"a\r\nb"]);
    assert_eq!(
        pieces(&bytes),
        [
            Piece::Array(Some(3)),
            Piece::Bulk(Some(b"PUBLISH")),
            Piece::Bulk(Some(b"")),
            Piece::Bulk(Some(b"a\r\nb")),
        ]
    );
}

#[test]
fn malformed_resp_pieces_are_refused() {
    for wrong in [
        &b"?\r\n"[..],
        b"\r\n",
        b":x\r\n",
        b"$-2\r\n",
        b"$1\r\nabc",
        b"*-2\r\n",
        b"$99999999999999999999\r\n",
        b"$9999999999\r\n",
    ] {
        assert_eq!(piece(wrong), Err(Malformed), "{wrong:?}");
    }
}
