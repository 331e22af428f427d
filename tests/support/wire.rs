//! A connection frame by frame: peers that keep to no rule.

use std::net::SocketAddr;

use galaxy_push::http2::hpack::Decoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frames::{self, PREFACE, flag, kind};
use super::goodbye::Goodbye;
use super::soon;

/// A frame that the server sent.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or a GOAWAY frame.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        let bytes = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().expect("four bytes")))
    }

    /// The debug text of a GOAWAY frame.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload[8..]).into_owned()
    }

    /// Whether it is the last one of its stream.
    pub fn ends_stream(&self) -> bool {
        let ends = matches!(self.kind, kind::DATA | kind::HEADERS);
        ends && self.flags & flag::END_STREAM != 0
    }

    /// A field of a HEADERS frame. The server keeps no table, and writes each block as
    /// one frame.
    pub fn field(&self, name: &str) -> Option<String> {
        assert_eq!(self.kind, kind::HEADERS, "{self:?}");
        assert_ne!(self.flags & flag::END_HEADERS, 0, "{self:?}");
        let mut found = None;
        let read = Decoder::default().decode(&self.payload, |key, value| {
            if key == name.as_bytes() {
                found = Some(String::from_utf8(value.to_vec()).expect("text"));
            }
        });
        read.expect("a header block");
        found
    }
}

/// A connection that says what the test says.
pub struct Wire {
    pub socket: TcpStream,
}

impl Wire {
    /// One that has sent the preface and its settings, which change nothing.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &frames::settings(&[])).await
    }

    /// One that has sent the preface, and these frames.
    pub async fn connect_with(address: SocketAddr, frames: &[u8]) -> Self {
        let mut wire = Self::connect_silent(address).await;
        wire.send(&[PREFACE, frames].concat()).await;
        wire
    }

    /// One that has sent nothing.
    pub async fn connect_silent(address: SocketAddr) -> Self {
        let socket = soon(TcpStream::connect(address)).await.expect("connected");
        // Small frames one after another must not wait for acknowledgements.
        socket.set_nodelay(true).expect("set");
        Wire { socket }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        soon(self.socket.write_all(bytes)).await.expect("sent");
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        next(&mut self.socket).await
    }

    /// Skips frames up to one of that kind.
    pub async fn find(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await;
            let frame = frame.unwrap_or_else(|| panic!("the end, and no frame of kind {kind}"));
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Skips frames up to one that begins, goes on with or ends what is on that stream.
    pub async fn find_on(&mut self, stream: u32) -> Frame {
        loop {
            let frame = self.next().await;
            let frame = frame.unwrap_or_else(|| panic!("the end, and nothing on stream {stream}"));
            if frame.stream == stream && frame.kind != kind::WINDOW_UPDATE {
                return frame;
            }
        }
    }

    /// Reads to the end of the connection, which must be `expected`. A connection that
    /// ends without a GOAWAY frame was cut for another reason: one that the server does
    /// not tell, such as its timeouts.
    #[track_caller]
    pub fn assert_goodbye(
        self,
        expected: Goodbye,
        attack: impl std::fmt::Debug,
    ) -> impl Future<Output = ()> {
        self.send_until_goodbye(&[], 0, expected, attack)
    }

    /// Sends `bytes` up to `times` times, reading meanwhile, until the server ends the
    /// connection, which must be `expected`.
    #[track_caller]
    pub fn send_until_goodbye(
        self,
        bytes: &[u8],
        times: usize,
        expected: Goodbye,
        attack: impl std::fmt::Debug,
    ) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let said = self.said_until_the_end(bytes, times).await;
            let Some((code, text)) = said else {
                panic!("{caller}: {attack:?}: no GOAWAY, expected {expected:?}");
            };
            let says_why = text.contains(expected.text);
            assert!(
                code == expected.reason as u32 && says_why,
                "{caller}: {attack:?}: GOAWAY {code} {text:?}, expected {expected:?}"
            );
        }
    }

    /// The code and the text of the last GOAWAY frame, if there is one.
    async fn said_until_the_end(self, bytes: &[u8], times: usize) -> Option<(u32, String)> {
        let (mut from, mut to) = self.socket.into_split();
        let reading = tokio::spawn(async move {
            let mut said = None;
            while let Some(frame) = next(&mut from).await {
                if frame.kind == kind::GOAWAY {
                    said = frame.code().map(|code| (code, frame.text()));
                }
            }
            said
        });
        for _ in 0..times {
            // It may be over before everything was sent.
            if reading.is_finished() || soon(to.write_all(bytes)).await.is_err() {
                break;
            }
        }
        if times > 0 {
            // Who was not sent away ends it, and is found out at once.
            let _ = soon(to.shutdown()).await;
        }
        soon(reading).await.expect("no panic")
    }

    /// Waits until the server has taken note of everything that was sent, and has done
    /// what it can about it.
    pub async fn settle(&mut self) {
        // The first PONG may be written before what came with its PING is served.
        for _ in 0..2 {
            self.assert_alive().await;
        }
    }

    /// Shows that the connection goes on.
    pub async fn assert_alive(&mut self) {
        let payload = b"alive???";
        self.send(&frames::ping(payload)).await;
        loop {
            let pong = self.find(kind::PING).await;
            if pong.flags & flag::ACK != 0 && pong.payload == payload {
                return;
            }
        }
    }
}

/// The next frame; `None` at the end of the connection.
async fn next(from: &mut (impl AsyncReadExt + Unpin)) -> Option<Frame> {
    let mut header = [0; 9];
    soon(from.read_exact(&mut header)).await.ok()?;
    let [a, b, c, kind, flags, s, t, u, v] = header;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    soon(from.read_exact(&mut payload)).await.ok()?;
    Some(Frame {
        kind,
        flags,
        stream: u32::from_be_bytes([s, t, u, v]),
        payload,
    })
}
