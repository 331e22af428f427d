//! HTTP/2 frame by frame: peers that keep to no rule.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::raw::PREFACE;
use super::soon;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// An empty SETTINGS frame.
pub const NO_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// An HTTP/2 frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    let mut frame = length.to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A SETTINGS frame with one setting.
pub fn setting(name: u16, value: u32) -> Vec<u8> {
    let payload = [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &payload)
}

pub fn window_update(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// A header block that calls `path`: static table entries, and literals that leave
/// nothing in a table.
pub fn call_block(path: &str) -> Vec<u8> {
    let mut block = b"\x83\x86\x04".to_vec();
    block.push(path.len() as u8);
    block.extend(path.as_bytes());
    block.extend(b"\x0f\x10\x10application/grpc");
    block
}

/// Opens a call, and leaves the request's body open.
pub fn open_call(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &call_block(path))
}

/// A whole call.
pub fn call(stream: u32, path: &str, body: &[u8]) -> Vec<u8> {
    let mut words = open_call(stream, path);
    words.extend(frame(DATA, END_STREAM, stream, body));
    words
}

/// What the server said.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The reason of a RST_STREAM or GOAWAY frame.
    pub fn reason(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        let bytes = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().expect("four bytes")))
    }
}

/// A connection that says what the test says.
pub struct Wire {
    pub socket: TcpStream,
}

impl Wire {
    /// One that has said its preface, and these frames.
    pub async fn connect(address: SocketAddr, settings: &[u8]) -> Self {
        let socket = soon(TcpStream::connect(address)).await.expect("connected");
        let mut wire = Wire { socket };
        wire.say(&[PREFACE, settings].concat()).await;
        wire
    }

    pub async fn say(&mut self, words: &[u8]) {
        soon(self.socket.write_all(words)).await.expect("sent");
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        soon(self.socket.read_exact(&mut head)).await.ok()?;
        let [a, b, c, kind, flags, s, t, u, v] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        soon(self.socket.read_exact(&mut payload)).await.ok()?;
        let stream = u32::from_be_bytes([s, t, u, v]);
        Some(Frame {
            kind,
            flags,
            stream,
            payload,
        })
    }

    /// Skips frames up to one of that kind.
    pub async fn find(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await;
            let frame = frame.unwrap_or_else(|| panic!("the end, and no frame {kind}"));
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Reads to the end of the connection; says with what reason it was ended.
    pub async fn goodbye(mut self) -> u32 {
        let mut reason = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                reason = frame.reason();
            }
        }
        reason.expect("a GOAWAY before the end")
    }

    /// Shows that the connection goes on.
    pub async fn assert_alive(&mut self) {
        self.say(&frame(PING, 0, 0, b"alive???")).await;
        while self.find(PING).await.payload != b"alive???" {}
    }
}
