//! From lines to batches: the reading half, on a thread of its own, because
//! reading standard input blocks.

use std::io::{self, BufRead, BufReader, Read};

use prost::Message;
use tokio::sync::mpsc;

use super::json::{self, LineError};
use crate::contract::push::PushEvent;

/// Longer than any event that a server takes, in base64 and with its texts.
const MAX_LINE_BYTES: u64 = 32 << 20;
/// A batch is cut above this, so that large events do not gather to requests
/// that a small ring has no room for.
const BATCH_BYTES: usize = 64 << 10;

/// How events are gathered and sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batching {
    /// So many events at most in one request.
    pub(super) max_events: usize,
    /// So many requests at most without a response.
    pub(super) in_flight: usize,
}

/// Events that are sent together. Never empty.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) events: Vec<PushEvent>,
    /// The line of each event, counted from 1.
    pub(super) lines: Vec<u64>,
}

/// Why there are no more batches.
#[derive(Debug)]
pub(super) enum End {
    /// Every line was read, or nobody takes batches any more.
    Complete,
    /// A line is no event. All before it were handed on.
    Bad { line: u64, error: LineError },
    /// Reading failed after this line. It was handed on, like all before it.
    Unreadable { line: u64, error: io::Error },
}

/// Reads all lines and hands their events on in batches. A batch is handed on
/// when it is full, or when the next line is not at hand yet.
pub(super) fn read<R: Read>(
    mut input: BufReader<R>,
    batching: &Batching,
    batches: &mpsc::Sender<Batch>,
) -> End {
    let mut batch = Batch::default();
    let mut bytes = 0;
    let mut text = Vec::new();
    let mut line = 0;
    let end = loop {
        text.clear();
        match (&mut input)
            .take(MAX_LINE_BYTES + 1)
            .read_until(b'\n', &mut text)
        {
            Ok(0) => break End::Complete,
            Ok(_) => line += 1,
            Err(error) => break End::Unreadable { line, error },
        }
        if text.len() as u64 > MAX_LINE_BYTES {
            let reason = format!("longer than {MAX_LINE_BYTES} bytes, which no server takes");
            let error = LineError::new(reason);
            break End::Bad { line, error };
        }
        match json::parse_line(&text) {
            Ok(Some(event)) => {
                bytes += event.encoded_len();
                batch.events.push(event);
                batch.lines.push(line);
            }
            Ok(None) => {}
            Err(error) => break End::Bad { line, error },
        }
        let full = batch.events.len() >= batching.max_events || bytes >= BATCH_BYTES;
        if (full || !input.buffer().contains(&b'\n')) && !batch.events.is_empty() {
            bytes = 0;
            if batches.blocking_send(std::mem::take(&mut batch)).is_err() {
                return End::Complete;
            }
        }
    };
    if !batch.events.is_empty() && batches.blocking_send(batch).is_err() {
        return End::Complete;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> String {
        format!(r#"{{"session_invalidation":{{"user_id":"u{number}"}}}}"#)
    }

    /// The lines of each batch, and the end.
    fn batches(input: impl Read, max_events: usize) -> (Vec<Vec<u64>>, End) {
        let (send, mut receive) = mpsc::channel(1000);
        let batching = Batching {
            max_events,
            in_flight: 1,
        };
        let end = read(BufReader::with_capacity(1 << 20, input), &batching, &send);
        drop(send);
        let mut lines = Vec::new();
        while let Some(batch) = receive.blocking_recv() {
            assert_eq!(batch.events.len(), batch.lines.len());
            lines.push(batch.lines);
        }
        (lines, end)
    }

    #[test]
    fn lines_at_hand_are_sent_together() {
        let text = format!("{}\n\n  \r\n{}\r\n{}", event(1), event(2), event(3));
        let (lines, end) = batches(text.as_bytes(), 10);
        // The last line has no line feed: nobody knows yet that it is complete.
        assert_eq!(lines, [vec![1, 4], vec![5]]);
        assert!(matches!(end, End::Complete));
    }

    #[test]
    fn a_batch_has_its_limits() {
        let text = format!("{}\n", event(1)).repeat(5);
        assert_eq!(
            batches(text.as_bytes(), 2).0,
            [vec![1, 2], vec![3, 4], vec![5]]
        );
        let large = format!(
            "{{\"session_invalidation\":{{\"user_id\":\"{}\"}}}}\n",
            "u".repeat(BATCH_BYTES / 2)
        );
        assert_eq!(
            batches(large.repeat(3).as_bytes(), 10).0,
            [vec![1, 2], vec![3]]
        );
    }

    #[test]
    fn no_event_waits_for_one_that_is_not_there() {
        /// Each read brings one piece.
        struct Pieces(Vec<Vec<u8>>);
        impl Read for Pieces {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if self.0.is_empty() {
                    return Ok(0);
                }
                let piece = self.0.remove(0);
                buffer[..piece.len()].copy_from_slice(&piece);
                Ok(piece.len())
            }
        }
        let first = format!("{}\n{}", event(1), &event(2)[..5]).into_bytes();
        let second = format!("{}\n", &event(2)[5..]).into_bytes();
        let (lines, _) = batches(Pieces(vec![first, second]), 10);
        assert_eq!(lines, [[1], [2]]);
    }

    #[test]
    fn a_bad_line_ends_it_after_those_before() {
        let text = format!("{}\n{}\noops\n{}\n", event(1), event(2), event(4));
        let (lines, end) = batches(text.as_bytes(), 10);
        assert_eq!(lines, [[1, 2]]);
        assert!(matches!(end, End::Bad { line: 3, .. }), "{end:?}");
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let (lines, end) = batches(io::repeat(b' '), 10);
        assert!(lines.is_empty());
        assert!(matches!(end, End::Bad { line: 1, .. }), "{end:?}");
    }

    #[test]
    fn a_failed_read_ends_it_after_what_was_read() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        let text = format!("{}\n", event(1));
        let (lines, end) = batches(text.as_bytes().chain(Broken), 10);
        assert_eq!(lines, [[1]]);
        assert!(matches!(end, End::Unreadable { line: 1, .. }), "{end:?}");
    }
}
