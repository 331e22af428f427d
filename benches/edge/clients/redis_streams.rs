//! Redis Streams: one XADD an event, pipelined; XREAD after XREAD a gateway, each
//! asking for what follows the newest entry that it has.

use galaxy_push::lab::load::{
    Batch, Begin, Consumer, ProtocolError, Publisher, Responses, Sink, Start,
};

use super::owed::Owed;
use super::{EVENTS, end, unexpected};
use crate::peers::KEPT_EVENTS;
use crate::wire::Malformed;
use crate::wire::resp::{Piece, Pieces, command, piece};

/// Entries to one XREAD.
const COUNT: &[u8] = b"1000";
/// The place before all entries.
const START: &[u8] = b"0-0";

/// A reader.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamConsumer {
    state: State,
    /// The newest entry's.
    id: Vec<u8>,
    from_oldest: bool,
}

/// Which response is due.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// The stream's newest entry: the place to begin.
    #[default]
    Newest,
    /// An XREAD's.
    Read,
    /// So many more entries of an XREAD's response.
    Entries(usize),
}

impl Consumer for StreamConsumer {
    fn open(&mut self, begin: Begin, out: &mut Vec<u8>) {
        self.state = State::Newest;
        self.from_oldest = begin == Begin::Oldest;
        command(
            out,
            &[b"XREVRANGE", EVENTS.as_bytes(), b"+", b"-", b"COUNT", b"1"],
        );
    }

    fn receive<S: Sink>(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        sink: &mut S,
    ) -> Result<usize, ProtocolError> {
        let mut read = 0;
        loop {
            let rest = &bytes[read..];
            if rest.first() == Some(&b'-')
                && let Some((Piece::Error(error), _)) = piece(rest)?
            {
                sink.ended(&end(error));
                return Ok(bytes.len());
            }
            let done = match self.state {
                State::Newest => self.newest(rest, out, sink)?,
                State::Read => self.head(rest, out)?,
                State::Entries(left) => self.entry(rest, left, out, sink)?,
            };
            match done {
                Some(bytes) => read += bytes,
                None => return Ok(read),
            }
        }
    }
}

impl StreamConsumer {
    fn ask(&mut self, out: &mut Vec<u8>) {
        self.state = State::Read;
        let limits: [&[u8]; 5] = [b"XREAD", b"COUNT", COUNT, b"BLOCK", b"0"];
        let from = [b"STREAMS", EVENTS.as_bytes(), &self.id];
        command(out, &[&limits[..], &from].concat());
    }

    fn newest<S: Sink>(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        sink: &mut S,
    ) -> Result<Option<usize>, Malformed> {
        let mut pieces = Pieces::new(bytes);
        let newest = match pieces.next()? {
            None => return Ok(None),
            Some(Piece::Array(Some(0))) => START,
            Some(Piece::Array(Some(1))) => match entry(&mut pieces)? {
                Some((id, _)) => id,
                None => return Ok(None),
            },
            Some(_) => return Err(Malformed),
        };
        self.id = if self.from_oldest { START } else { newest }.to_vec();
        sink.started(&Start::default());
        self.ask(out);
        Ok(Some(pieces.read()))
    }

    /// What precedes the entries: one stream, its key, and how many they are.
    fn head(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, Malformed> {
        let mut pieces = Pieces::new(bytes);
        let Some(streams) = pieces.next()? else {
            return Ok(None);
        };
        if streams == Piece::Array(None) {
            self.ask(out);
            return Ok(Some(pieces.read()));
        }
        let (Some(stream), Some(_key), Some(entries)) =
            (pieces.next()?, pieces.next()?, pieces.next()?)
        else {
            return Ok(None);
        };
        match (streams, stream, entries) {
            (Piece::Array(Some(1)), Piece::Array(Some(2)), Piece::Array(Some(count)))
                if count > 0 =>
            {
                self.state = State::Entries(count);
            }
            _ => return Err(Malformed),
        }
        Ok(Some(pieces.read()))
    }

    fn entry<S: Sink>(
        &mut self,
        bytes: &[u8],
        left: usize,
        out: &mut Vec<u8>,
        sink: &mut S,
    ) -> Result<Option<usize>, Malformed> {
        let mut pieces = Pieces::new(bytes);
        let Some((id, event)) = entry(&mut pieces)? else {
            return Ok(None);
        };
        sink.event(event, None);
        self.state = State::Entries(left - 1);
        if left == 1 {
            id.clone_into(&mut self.id);
            self.ask(out);
        }
        Ok(Some(pieces.read()))
    }
}

/// An id, and the value of its one field.
type Entry<'a> = (&'a [u8], &'a [u8]);

fn entry<'a>(pieces: &mut Pieces<'a>) -> Result<Option<Entry<'a>>, Malformed> {
    let (Some(entry), Some(id), Some(fields), Some(_name), Some(value)) = (
        pieces.next()?,
        pieces.next()?,
        pieces.next()?,
        pieces.next()?,
        pieces.next()?,
    ) else {
        return Ok(None);
    };
    match (entry, id, fields, value) {
        (
            Piece::Array(Some(2)),
            Piece::Bulk(Some(id)),
            Piece::Array(Some(2)),
            Piece::Bulk(Some(value)),
        ) => Ok(Some((id, value))),
        _ => Err(Malformed),
    }
}

/// A writer, which is told each entry's id.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamPublisher {
    owed: Owed,
}

impl Publisher for StreamPublisher {
    fn open(&mut self, _out: &mut Vec<u8>) {
        self.owed.clear();
    }

    fn publish(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        let kept = KEPT_EVENTS.to_string();
        for event in batch.events() {
            // Or a few more, as long as that costs Redis less.
            let limit: [&[u8]; 5] = [b"XADD", EVENTS.as_bytes(), b"MAXLEN", b"~", kept.as_bytes()];
            command(out, &[&limit[..], &[b"*", b"e", event]].concat());
        }
        self.owed.add(batch.len());
    }

    fn receive<R: Responses>(
        &mut self,
        bytes: &[u8],
        _out: &mut Vec<u8>,
        responses: &mut R,
    ) -> Result<usize, ProtocolError> {
        let mut pieces = Pieces::new(bytes);
        while let Some(piece) = pieces.next()? {
            match piece {
                Piece::Bulk(Some(_)) if self.owed.received(responses) => {}
                Piece::Error(error) => responses.ended(&end(error)),
                _ => return Err(unexpected("no response to XADD")),
            }
        }
        Ok(pieces.read())
    }
}
