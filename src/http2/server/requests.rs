//! Header blocks, which open a stream or end its request (RFC 9113, section 8.1).

use http::HeaderMap;

use super::Connection;
use super::budget::{self, Cause};
use super::closed::Closed;
use super::receive::{Event, Handled, NEVER_OPENED, Violation};
use super::response::Phase;
use super::stream::Stream;
use crate::http2::error::Error;
use crate::http2::flow_control::{ReceiveWindow, SendWindow};
use crate::http2::frame::Reason;
use crate::http2::hpack::HpackError;
use crate::http2::request::{Fields, Malformed};

impl<S: Default> Connection<S> {
    pub(super) fn block_piece<'a>(&mut self, bytes: &[u8], ends_block: bool) -> Handled<'a> {
        if self.budget.left() < budget::FULL / 2 {
            self.refill_budget();
        }
        // The same in the end, wherever the block is cut.
        let room = self.budget.left() as usize * budget::HEADER_OCTETS;
        let room = room.saturating_sub(self.header_octets);
        let mut left = room;
        match self.block.piece(bytes, ends_block, &mut left) {
            Ok(()) => {}
            Err(HpackError::TooLong) => {
                let cost = self.budget.left() + 1;
                return Err(self.budget.exhausted(Cause::Headers, cost).into());
            }
            Err(error) => return Err(Error::from(error).into()),
        }
        let octets = self.header_octets + room - left;
        self.header_octets = octets % budget::HEADER_OCTETS;
        // No more than there was room for.
        self.spend(Cause::Headers, (octets / budget::HEADER_OCTETS) as u32)?;
        if !ends_block {
            return Ok(None);
        }
        let fields = self.block.take_fields();
        if self.block.stream() > self.newest {
            self.request(*fields)
        } else {
            self.trailers(&fields)
        }
    }

    /// A request's header block is complete.
    fn request<'a>(&mut self, fields: Fields) -> Handled<'a> {
        let id = self.block.stream();
        let ends = self.block.ends_stream();
        self.newest = id;
        if self.shutdown.is_acknowledged() {
            // The peer knows that this is not processed.
            self.never_open(id, ends);
            return Ok(None);
        }
        if self.block.depends_on_itself() {
            return Err(Violation::Stream(id, Reason::ProtocolError));
        }
        // gRPC takes REFUSED_STREAM as leave to try again at once, which is right if the
        // peer's streams are too many, and would be wrong if its requests are.
        if !self.may_request() {
            self.refuse(id, Reason::EnhanceYourCalm)?;
            return Ok(None);
        }
        if self.streams.len() - self.ended >= self.limits.max_streams {
            self.refuse(id, Reason::RefusedStream)?;
            return Ok(None);
        }
        self.spend(Cause::Requests, budget::REQUEST)?;
        let content_left = fields.content_length();
        let is_short = ends && content_left.is_some_and(|bytes| bytes > 0);
        let head = match fields.finish() {
            Ok(head) if !is_short => Box::new(head),
            Ok(_) | Err(Malformed::Request) => {
                self.budget.blame_request_on(Cause::StreamErrors);
                return Err(Violation::Stream(id, Reason::ProtocolError));
            }
            Err(Malformed::TooLarge) => {
                self.output.head(id, 431, &HeaderMap::new(), true);
                if !ends {
                    self.output.reset(id, Reason::NoError);
                }
                self.never_open(id, ends);
                return Ok(None);
            }
        };
        let at = self.streams.len();
        self.streams.push(Stream {
            id,
            phase: Phase::None,
            send: SendWindow::new(self.flow.initial_window),
            receive: ReceiveWindow::new(self.limits.stream_window),
            body: Vec::new(),
            uncredited: 0,
            content_left,
            is_complete: ends,
            state: S::default(),
        });
        Ok(Some(Event::Request {
            at,
            stream: id,
            head,
            ends,
        }))
    }

    /// Whether there is a request left in the budget.
    fn may_request(&mut self) -> bool {
        let least = budget::RESERVE + budget::REQUEST;
        if self.budget.left() < least {
            self.refill_budget();
        }
        self.budget.left() >= least
    }

    /// Refuses a request by itself.
    fn refuse(&mut self, id: u32, reason: Reason) -> Result<(), Error> {
        self.output.reset(id, reason);
        self.never_open(id, self.block.ends_stream());
        self.spend(Cause::Requests, budget::REFUSAL)
    }

    /// Fields after the body, of which none mean anything here.
    fn trailers<'a>(&mut self, fields: &Fields) -> Handled<'a> {
        let id = self.block.stream();
        let ends = self.block.ends_stream();
        // A second header block ends a request, and has no pseudo-header fields (8.1).
        let is_malformed = !ends || !fields.are_trailers();
        let Some(at) = self.index(id) else {
            return match self.closed.find(id) {
                Closed::NeverOpened => Err(NEVER_OPENED.into()),
                Closed::Complete => {
                    Err(Error::stream_closed("HEADERS on a stream that the peer has ended").into())
                }
                Closed::Reset => Err(Violation::Stream(id, Reason::StreamClosed)),
                Closed::Early if is_malformed => Err(Violation::Stream(id, Reason::ProtocolError)),
                Closed::Early => {
                    self.closed.update(id, Closed::Complete);
                    Ok(None)
                }
                Closed::Forgotten => Ok(None),
            };
        };
        let stream = &mut self.streams[at];
        if stream.is_complete {
            return Err(Violation::Stream(id, Reason::StreamClosed));
        }
        if is_malformed {
            return Err(Violation::Stream(id, Reason::ProtocolError));
        }
        if let Some(reason) = stream.has_content(0, true) {
            return Err(Violation::Stream(id, reason));
        }
        stream.is_complete = true;
        let data = &[];
        Ok(Some(Event::Data { at, data, ends }))
    }

    /// A request is refused before there is a stream.
    pub(super) fn never_open(&mut self, id: u32, ends: bool) {
        self.closed.remember(id, Closed::by_us(ends));
        if !ends {
            self.flow.expect_late(self.limits.stream_window);
        }
    }
}
