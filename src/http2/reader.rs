//! Finds frames in what arrives, in whatever pieces it does (RFC 9113, sections 4 and 6).
//!
//! Both ends of a connection read with it. It checks what can be said of a frame by itself:
//! its length, whether it belongs to a stream, its padding; and the order of frames that
//! make a header block. What a frame does is for the ends to say.
//!
//! It keeps at most [`FIXED_BYTES`] of what has arrived. Bodies and header blocks are lent
//! out of the caller's memory, piece by piece; their padding is left out.

use super::error::Error;
use super::frame::{FrameHeader, HEADER_BYTES, flag, kind};

/// The longest run of bytes that is put together here: a frame's header.
const FIXED_BYTES: usize = HEADER_BYTES;
/// [`FrameReader::incomplete`] counts a piece of this many bytes of a long payload as
/// progress, as it counts a whole frame.
const PROGRESS_BYTES: u32 = super::frame::DEFAULT_FRAME_BYTES;

/// What a reader found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// A DATA frame begins. Its [pieces](Frame::DataPiece) follow: at least one.
    Data {
        stream: u32,
        /// With padding: what flow control counts.
        payload_bytes: u32,
        data_bytes: u32,
        ends_stream: bool,
    },
    DataPiece {
        bytes: &'a [u8],
        is_last: bool,
    },
    /// A HEADERS frame begins. Its [pieces](Frame::BlockPiece) follow: at least one.
    Headers {
        stream: u32,
        ends_stream: bool,
        /// Of a priority, if it has one (section 5.3.2).
        depends_on: Option<u32>,
    },
    /// A CONTINUATION frame of the same header block.
    Continuation,
    BlockPiece {
        bytes: &'a [u8],
        ends_block: bool,
    },
    Priority {
        stream: u32,
        depends_on: u32,
    },
    RstStream {
        stream: u32,
        code: u32,
    },
    /// SETTINGS begins. Its settings follow, then [`SettingsEnd`](Frame::SettingsEnd).
    Settings {
        count: u32,
    },
    Setting {
        name: u16,
        value: u32,
    },
    SettingsEnd,
    SettingsAck,
    PushPromise,
    Ping {
        is_ack: bool,
        payload: [u8; 8],
    },
    /// GOAWAY begins. What it says for people [follows](Frame::GoAwayText).
    GoAway {
        code: u32,
    },
    GoAwayText {
        bytes: &'a [u8],
        is_last: bool,
    },
    WindowUpdate {
        /// 0 is the connection.
        stream: u32,
        increment: u32,
    },
    /// Of a type that is not known.
    Unknown,
    /// A frame that is a stream error by itself: FRAME_SIZE_ERROR.
    BadSize {
        stream: u32,
    },
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum State {
    Header,
    /// What precedes the data of DATA or HEADERS: Pad Length and priority.
    Prefix(FrameHeader),
    /// The data of such a frame, and the padding after it.
    Pieces {
        header: FrameHeader,
        left: u32,
        padding: u32,
    },
    /// A payload of a fixed length, or the part of it that matters.
    Fixed(FrameHeader),
    Settings {
        left: u32,
    },
    /// What GOAWAY says for people.
    Text {
        left: u32,
    },
    Skip {
        left: u32,
    },
}

/// Finds frames.
#[derive(Debug)]
pub(super) struct FrameReader {
    state: State,
    max_frame_bytes: u32,
    /// The first frame has to be SETTINGS.
    has_settings: bool,
    /// The stream of the header block that has not ended.
    block: Option<u32>,
    /// The start of what the state waits for.
    partial: [u8; FIXED_BYTES],
    partial_bytes: u8,
    /// Frames, and pieces of long ones.
    progress: u64,
}

impl FrameReader {
    /// Takes frames of up to `max_frame_bytes`.
    pub(super) fn new(max_frame_bytes: u32) -> Self {
        FrameReader {
            state: State::Header,
            max_frame_bytes,
            has_settings: false,
            block: None,
            partial: [0; FIXED_BYTES],
            partial_bytes: 0,
            progress: 0,
        }
    }

    /// While a frame or a header block has arrived in part: a number that changes when the
    /// rest of it has, or 16 KiB more of a longer frame.
    pub(super) fn incomplete(&self) -> Option<u64> {
        let is_complete =
            matches!(self.state, State::Header) && self.partial_bytes == 0 && self.block.is_none();
        (!is_complete).then_some(self.progress)
    }

    /// The next of what is in `input`, which it is taken from. `None` when all of that is
    /// used.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Frame<'a>>, Error> {
        loop {
            let found = match self.state {
                State::Header => {
                    let Some(bytes) = self.fixed::<HEADER_BYTES>(input) else {
                        return Ok(None);
                    };
                    self.begin(FrameHeader::from_bytes(bytes))?
                }
                State::Prefix(header) => {
                    let Some(frame) = self.prefix(header, input)? else {
                        return Ok(None);
                    };
                    Some(frame)
                }
                State::Pieces {
                    header,
                    left,
                    padding,
                } => {
                    if left > 0 && input.is_empty() {
                        return Ok(None);
                    }
                    Some(self.piece(header, left, padding, input))
                }
                State::Fixed(header) => {
                    let Some(frame) = self.fixed_payload(header, input)? else {
                        return Ok(None);
                    };
                    Some(frame)
                }
                State::Settings { left: 0 } => {
                    self.end_frame();
                    Some(Frame::SettingsEnd)
                }
                State::Settings { left } => {
                    let Some([n, m, a, b, c, d]) = self.fixed(input) else {
                        return Ok(None);
                    };
                    self.state = State::Settings { left: left - 6 };
                    Some(Frame::Setting {
                        name: u16::from_be_bytes([n, m]),
                        value: u32::from_be_bytes([a, b, c, d]),
                    })
                }
                State::Text { left } => {
                    if left > 0 && input.is_empty() {
                        return Ok(None);
                    }
                    let (bytes, rest) = input.split_at(input.len().min(left as usize));
                    *input = rest;
                    let left_now = left - bytes.len() as u32;
                    self.state = State::Text { left: left_now };
                    self.count(left, left_now);
                    let is_last = left_now == 0;
                    if is_last {
                        self.end_frame();
                    }
                    Some(Frame::GoAwayText { bytes, is_last })
                }
                State::Skip { left } => {
                    let n = input.len().min(left as usize);
                    *input = &input[n..];
                    self.count(left, left - n as u32);
                    if n < left as usize {
                        self.state = State::Skip {
                            left: left - n as u32,
                        };
                        return Ok(None);
                    }
                    self.end_frame();
                    None
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// The stream, the data and the END_STREAM flag of a DATA frame that is all there, and
    /// has no padding: what most of a publisher's bytes come in. `None`, and nothing is
    /// taken, if anything else comes next.
    pub(super) fn whole_data<'a>(&mut self, input: &mut &'a [u8]) -> Option<(u32, &'a [u8], bool)> {
        let between_frames = matches!(self.state, State::Header)
            && self.partial_bytes == 0
            && self.block.is_none()
            && self.has_settings;
        let (header, rest) = input.split_first_chunk::<HEADER_BYTES>()?;
        let header = FrameHeader::from_bytes(*header);
        let is_plain = header.kind == kind::DATA
            && !header.has(flag::PADDED)
            && header.stream != 0
            && header.payload_bytes <= self.max_frame_bytes;
        if !(between_frames && is_plain) {
            return None;
        }
        let (data, rest) = rest.split_at_checked(header.payload_bytes as usize)?;
        *input = rest;
        self.end_frame();
        Some((header.stream, data, header.has(flag::END_STREAM)))
    }

    /// Takes `N` bytes, of which some may have arrived before.
    fn fixed<const N: usize>(&mut self, input: &mut &[u8]) -> Option<[u8; N]> {
        const { assert!(N <= FIXED_BYTES) };
        let have = usize::from(self.partial_bytes);
        if have == 0
            && let Some((bytes, rest)) = input.split_first_chunk::<N>()
        {
            *input = rest;
            return Some(*bytes);
        }
        let (more, rest) = input.split_at(input.len().min(N - have));
        *input = rest;
        let have_now = have + more.len();
        self.partial[have..have_now].copy_from_slice(more);
        if have_now < N {
            self.partial_bytes = have_now as u8;
            return None;
        }
        self.partial_bytes = 0;
        self.partial.first_chunk().copied()
    }

    /// A frame begins.
    fn begin(&mut self, header: FrameHeader) -> Result<Option<Frame<'static>>, Error> {
        let FrameHeader {
            payload_bytes: bytes,
            kind,
            stream,
            ..
        } = header;
        if bytes > self.max_frame_bytes {
            return Err(Error::frame_size(
                "frame longer than SETTINGS_MAX_FRAME_SIZE",
            ));
        }
        let is_ack = header.has(flag::ACK);
        if !self.has_settings && (kind != kind::SETTINGS || is_ack) {
            return Err(Error::protocol("the first frame is not SETTINGS"));
        }
        self.has_settings = true;
        match (self.block, kind) {
            (None, kind::CONTINUATION) => {
                return Err(Error::protocol("CONTINUATION without a header block"));
            }
            (Some(of), kind) if kind != kind::CONTINUATION || stream != of => {
                return Err(Error::protocol(
                    "a header block is interrupted by another frame",
                ));
            }
            _ => {}
        }
        check_stream(kind, stream)?;
        let bad_size = |fixed: u32, text| {
            if bytes == fixed {
                Ok(())
            } else {
                Err(Error::frame_size(text))
            }
        };
        self.state = State::Fixed(header);
        match kind {
            kind::DATA | kind::HEADERS => self.state = State::Prefix(header),
            kind::CONTINUATION => {
                self.state = State::Pieces {
                    header,
                    left: bytes,
                    padding: 0,
                };
                return Ok(Some(Frame::Continuation));
            }
            kind::PRIORITY if bytes != 5 => {
                self.state = State::Skip { left: bytes };
                return Ok(Some(Frame::BadSize { stream }));
            }
            kind::RST_STREAM => bad_size(4, "RST_STREAM length is not 4")?,
            kind::PING => bad_size(8, "PING length is not 8")?,
            kind::WINDOW_UPDATE => bad_size(4, "WINDOW_UPDATE length is not 4")?,
            kind::GOAWAY if bytes < 8 => {
                return Err(Error::frame_size("GOAWAY length is less than 8"));
            }
            kind::SETTINGS if is_ack => {
                bad_size(0, "SETTINGS ACK with a payload")?;
                self.end_frame();
                return Ok(Some(Frame::SettingsAck));
            }
            kind::SETTINGS => {
                if bytes % 6 != 0 {
                    return Err(Error::frame_size("SETTINGS length is not a multiple of 6"));
                }
                self.state = State::Settings { left: bytes };
                return Ok(Some(Frame::Settings { count: bytes / 6 }));
            }
            kind::PUSH_PROMISE => return Ok(Some(self.skip(Frame::PushPromise, bytes))),
            kind::PRIORITY | kind::GOAWAY => {}
            _ => return Ok(Some(self.skip(Frame::Unknown, bytes))),
        }
        Ok(None)
    }

    fn skip(&mut self, frame: Frame<'static>, bytes: u32) -> Frame<'static> {
        self.state = State::Skip { left: bytes };
        frame
    }

    /// Reads Pad Length and priority. `None`: they have not arrived in full.
    fn prefix(
        &mut self,
        header: FrameHeader,
        input: &mut &[u8],
    ) -> Result<Option<Frame<'static>>, Error> {
        let is_data = header.kind == kind::DATA;
        let is_padded = header.has(flag::PADDED);
        let has_priority = !is_data && header.has(flag::PRIORITY);
        let prefix_bytes = u32::from(is_padded) + if has_priority { 5 } else { 0 };
        let Some(rest) = header.payload_bytes.checked_sub(prefix_bytes) else {
            return Err(Error::frame_size(if has_priority {
                "HEADERS is too short for its priority"
            } else {
                "a padded frame without a Pad Length"
            }));
        };
        let (padding, depends_on) = match (is_padded, has_priority) {
            (false, false) => (0, None),
            (true, false) => match self.fixed(input) {
                Some([padding]) => (padding, None),
                None => return Ok(None),
            },
            (false, true) => match self.fixed(input) {
                Some([a, b, c, d, _weight]) => (0, Some([a, b, c, d])),
                None => return Ok(None),
            },
            (true, true) => match self.fixed(input) {
                Some([padding, a, b, c, d, _weight]) => (padding, Some([a, b, c, d])),
                None => return Ok(None),
            },
        };
        let padding = u32::from(padding);
        let Some(left) = rest.checked_sub(padding) else {
            return Err(Error::protocol("padding is longer than the payload"));
        };
        self.state = State::Pieces {
            header,
            left,
            padding,
        };
        let stream = header.stream;
        let ends_stream = header.has(flag::END_STREAM);
        Ok(Some(if is_data {
            Frame::Data {
                stream,
                payload_bytes: header.payload_bytes,
                data_bytes: left,
                ends_stream,
            }
        } else {
            self.block = Some(stream);
            Frame::Headers {
                stream,
                ends_stream,
                depends_on: depends_on.map(stream_id),
            }
        }))
    }

    /// As much of the data as is there.
    fn piece<'a>(
        &mut self,
        header: FrameHeader,
        left: u32,
        padding: u32,
        input: &mut &'a [u8],
    ) -> Frame<'a> {
        let (bytes, rest) = input.split_at(input.len().min(left as usize));
        *input = rest;
        let left_now = left - bytes.len() as u32;
        self.count(left, left_now);
        let is_last = left_now == 0;
        let is_data = header.kind == kind::DATA;
        let ends_block = is_last && !is_data && header.has(flag::END_HEADERS);
        if ends_block {
            self.block = None;
        }
        match (is_last, padding) {
            (true, 0) => self.end_frame(),
            (true, _) => self.state = State::Skip { left: padding },
            (false, _) => {
                self.state = State::Pieces {
                    header,
                    left: left_now,
                    padding,
                }
            }
        }
        if is_data {
            return Frame::DataPiece { bytes, is_last };
        }
        Frame::BlockPiece { bytes, ends_block }
    }

    fn fixed_payload(
        &mut self,
        header: FrameHeader,
        input: &mut &[u8],
    ) -> Result<Option<Frame<'static>>, Error> {
        let stream = header.stream;
        let frame = match header.kind {
            kind::PING => self.fixed(input).map(|payload| Frame::Ping {
                is_ack: header.has(flag::ACK),
                payload,
            }),
            kind::RST_STREAM => self.fixed(input).map(|code| Frame::RstStream {
                stream,
                code: u32::from_be_bytes(code),
            }),
            kind::WINDOW_UPDATE => self.fixed(input).map(|bytes| Frame::WindowUpdate {
                stream,
                increment: stream_id(bytes),
            }),
            kind::PRIORITY => self
                .fixed(input)
                .map(|[a, b, c, d, _weight]| Frame::Priority {
                    stream,
                    depends_on: stream_id([a, b, c, d]),
                }),
            // GOAWAY.
            _ => {
                let [.., a, b, c, d] = match self.fixed::<8>(input) {
                    Some(bytes) => bytes,
                    None => return Ok(None),
                };
                let left = header.payload_bytes - 8;
                self.state = State::Text { left };
                let code = u32::from_be_bytes([a, b, c, d]);
                return Ok(Some(Frame::GoAway { code }));
            }
        };
        if frame.is_some() {
            self.end_frame();
        }
        Ok(frame)
    }

    /// Of a payload that had this much left, there is this much now.
    fn count(&mut self, left: u32, left_now: u32) {
        let is_progress = left / PROGRESS_BYTES != left_now / PROGRESS_BYTES;
        // A header block is to arrive in time as a whole.
        if is_progress && self.block.is_none() {
            self.progress += 1;
        }
    }

    fn end_frame(&mut self) {
        self.state = State::Header;
        if self.block.is_none() {
            self.progress += 1;
        }
    }
}

/// 31 bits, behind one that means nothing here.
fn stream_id(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes) & (u32::MAX >> 1)
}

/// Whether such a frame may be on this stream, which is 0 for the connection.
fn check_stream(kind: u8, stream: u32) -> Result<(), Error> {
    let text = match (kind, stream) {
        (kind::DATA, 0) => "DATA on stream 0",
        (kind::HEADERS, 0) => "HEADERS on stream 0",
        (kind::PRIORITY, 0) => "PRIORITY on stream 0",
        (kind::RST_STREAM, 0) => "RST_STREAM on stream 0",
        (kind::PUSH_PROMISE, 0) => "PUSH_PROMISE on stream 0",
        (kind::SETTINGS, 1..) => "SETTINGS on a stream other than 0",
        (kind::PING, 1..) => "PING on a stream other than 0",
        (kind::GOAWAY, 1..) => "GOAWAY on a stream other than 0",
        _ => return Ok(()),
    };
    Err(Error::protocol(text))
}
