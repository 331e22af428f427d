//! What was read of the stream, into the engine.

use async_nats::HeaderMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

use super::message::{Position, Stamp};
use super::writer::Tail;
use crate::cursor::Seq;
use crate::engine::{AppendError, Appender, Limits, PublishError};
use crate::event::{Event, parse_publish_request};

/// More than the engine adds to any event.
const FRAME_BYTES: u64 = 64;

/// Takes the messages of a stream in their order, and tells the writer how far it has come.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) appender: Appender,
    pub(super) limits: Limits,
    pub(super) tail: watch::Sender<Tail>,
    /// The part of the nonces that is this replica's.
    pub(super) replica: u64,
}

/// Why nothing more is taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The engine takes no more.
    Closed,
    /// The events have other numbers than was guessed where messages were gone.
    Misnumbered,
}

impl Follower {
    pub(super) fn position(&self) -> Position {
        self.tail.borrow().position
    }

    /// Takes message `number`, which was stored so long ago. Those between it and the one before
    /// are not in the stream any more.
    pub(super) fn take(
        &mut self,
        number: u64,
        headers: Option<&HeaderMap>,
        payload: &[u8],
        age: Duration,
    ) -> Result<(), Ended> {
        let Tail {
            position: before,
            is_guess,
            ..
        } = *self.tail.borrow();
        if number <= before.message {
            return Ok(());
        }
        let stamp = match Stamp::read(headers) {
            Ok(stamp) if stamp.first <= before.events && is_guess => {
                return Err(Ended::Misnumbered);
            }
            Ok(stamp) if stamp.first <= before.events => {
                tracing::error!(
                    "backbone: message {number} is ignored: its events are numbered from {}, and {} was \
                     given already; somebody else writes to the stream",
                    stamp.first,
                    before.events
                );
                None
            }
            Ok(stamp) => Some(stamp),
            Err(error) => {
                tracing::error!(
                    "backbone: message {number} is ignored: {error}; somebody else writes to the stream"
                );
                None
            }
        };
        if let Some(stamp) = stamp.filter(|stamp| stamp.count > 0) {
            self.append(number, stamp, payload, age)?;
        }
        self.tail.send_modify(|tail| {
            tail.position.message = number;
            if number > before.message + 1 {
                tail.unread = number - 1;
            }
            if let Some(stamp) = stamp {
                tail.position.events = stamp.last();
                tail.newest_at = Instant::now().checked_sub(age);
                tail.is_guess = false;
                if stamp.nonce.replica == self.replica {
                    tail.own = Some((stamp.nonce.attempt, stamp.first));
                }
            }
        });
        Ok(())
    }

    /// Nothing of what lies between here and there is in the stream any more, so that nobody
    /// knows how many events there were.
    pub(super) fn pass(&mut self, position: Position) {
        self.tail.send_modify(|tail| {
            tail.is_guess = true;
            tail.position = tail.position.max(position);
            tail.unread = tail.position.message;
        });
    }

    fn append(
        &mut self,
        number: u64,
        stamp: Stamp,
        payload: &[u8],
        age: Duration,
    ) -> Result<(), Ended> {
        let mut events = Vec::new();
        let parsed = parse_publish_request(payload, usize::MAX, &mut events);
        if let Err(error) = parsed {
            tracing::error!(
                "backbone: the {} events of message {number} are left out: {error}",
                stamp.count
            );
            return Ok(());
        }
        if events.len() as u64 != stamp.count {
            tracing::error!(
                "backbone: the {} events of message {number} are left out: there are {}",
                stamp.count,
                events.len()
            );
            return Ok(());
        }
        let mut first = stamp.first;
        let mut rest = &events[..];
        while !rest.is_empty() {
            let fit = self.fitting(rest);
            let (now, later) = rest.split_at(fit.max(1));
            match self.appender.append_aged(Seq::new(first), now, age) {
                Ok(_) => {}
                Err(AppendError::Publish(PublishError::Closed)) => return Err(Ended::Closed),
                Err(error) => tracing::error!(
                    "backbone: {} events of message {number}, from {first} on, are left out: {error}",
                    now.len()
                ),
            }
            first += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// How many of these the engine takes at once.
    fn fitting(&self, events: &[Event<'_>]) -> usize {
        let mut bytes = 0;
        let limits = &self.limits;
        let fits = |event: &&Event<'_>| {
            let size = event.as_bytes().len();
            bytes += size as u64 + FRAME_BYTES;
            bytes <= limits.max_batch_bytes && size <= limits.max_event_bytes
        };
        let fitting = events.iter().take(limits.max_batch_events).take_while(fits);
        fitting.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::jetstream::message::{Nonce, encode};
    use crate::cursor::Epoch;
    use crate::engine::{Engine, Subscriber, TryRecvError};

    const REPLICA: u64 = 7;
    // PushEvent { client_event: { user_id: "u", kind: "k" } }
    const EVENT: &[u8] = b"\x0a\x06\x0a\x01u\x1a\x01k";

    fn follower(origin: u64) -> (Follower, Subscriber, Engine) {
        let builder = Engine::builder().max_event_bytes(100).max_bytes(1 << 18);
        let epoch = Epoch::new(1, 0).unwrap();
        let (engine, appender) = builder
            .origin(Seq::new(origin))
            .build_appended(epoch)
            .unwrap();
        let subscriber = engine.subscribe("g", "").unwrap();
        let follower = Follower {
            appender,
            limits: engine.limits(),
            tail: watch::Sender::new(Tail {
                position: Position {
                    message: 0,
                    events: origin,
                },
                ..Tail::default()
            }),
            replica: REPLICA,
        };
        (follower, subscriber, engine)
    }

    fn stamp(first: u64, count: u64, replica: u64) -> HeaderMap {
        let nonce = Nonce {
            replica,
            attempt: first,
        };
        let stamp = Stamp {
            first,
            count,
            nonce,
        };
        stamp.write()
    }

    fn take(follower: &mut Follower, number: u64, first: u64, count: u64, events: usize) {
        let mut payload = Vec::new();
        (0..events).for_each(|_| encode(EVENT, &mut payload));
        let headers = stamp(first, count, REPLICA);
        let taken = follower.take(number, Some(&headers), &payload, Duration::ZERO);
        assert_eq!(taken, Ok(()));
    }

    fn receive(subscriber: &mut Subscriber) -> Result<(u64, u64), TryRecvError> {
        let batch = subscriber.try_recv()?;
        Ok((batch.first().seq().number(), batch.last().seq().number()))
    }

    #[test]
    fn messages_become_events_with_the_numbers_in_their_headers() {
        let (mut follower, mut subscriber, engine) = follower(100);
        take(&mut follower, 1, 101, 2, 2);
        take(&mut follower, 2, 103, 1, 1);
        assert_eq!(receive(&mut subscriber), Ok((101, 103)));
        // A consumer may deliver one again.
        take(&mut follower, 2, 103, 1, 1);
        assert_eq!(receive(&mut subscriber), Err(TryRecvError::Empty));
        let tail = *follower.tail.borrow();
        let position = Position {
            message: 2,
            events: 103,
        };
        assert_eq!((tail.position, tail.own), (position, Some((103, 103))));
        assert_eq!(tail.unread, 0);
        engine.close();
        let headers = stamp(104, 1, REPLICA);
        let mut payload = Vec::new();
        encode(EVENT, &mut payload);
        let taken = follower.take(3, Some(&headers), &payload, Duration::ZERO);
        assert_eq!(taken, Err(Ended::Closed));
    }

    #[test]
    fn what_is_not_in_the_stream_any_more_is_a_gap_of_that_size() {
        let (mut follower, mut subscriber, _engine) = follower(0);
        take(&mut follower, 1, 1, 2, 2);
        take(&mut follower, 9, 31, 1, 1);
        assert_eq!(receive(&mut subscriber), Ok((1, 2)));
        assert_eq!(receive(&mut subscriber), Err(TryRecvError::Lagged(28)));
        assert_eq!(receive(&mut subscriber), Ok((31, 31)));
        assert_eq!(follower.tail.borrow().unread, 8);
        let position = Position {
            message: 12,
            events: 40,
        };
        follower.pass(position);
        assert_eq!(follower.position(), position);
        assert_eq!(follower.tail.borrow().unread, 12);
        take(&mut follower, 13, 41, 1, 1);
        assert_eq!(receive(&mut subscriber), Err(TryRecvError::Lagged(9)));
    }

    #[test]
    fn a_checkpoint_is_no_event_and_says_where_the_numbers_go_on() {
        let (mut follower, mut subscriber, _engine) = follower(0);
        take(&mut follower, 1, 1, 2, 2);
        take(&mut follower, 2, 3, 0, 0);
        take(&mut follower, 3, 3, 1, 1);
        assert_eq!(receive(&mut subscriber), Ok((1, 3)));
        take(&mut follower, 4, 50, 0, 0);
        let position = Position {
            message: 4,
            events: 49,
        };
        assert_eq!(follower.position(), position);
        take(&mut follower, 5, 50, 1, 1);
        assert_eq!(receive(&mut subscriber), Err(TryRecvError::Lagged(46)));
    }

    #[test]
    fn a_guess_that_was_wrong_is_found() {
        let (mut follower, _subscriber, _engine) = follower(0);
        take(&mut follower, 1, 1, 2, 2);
        let guess = Position {
            message: 2,
            events: 1000,
        };
        follower.pass(guess);
        assert!(follower.tail.borrow().is_guess);
        let headers = stamp(4, 1, 8);
        let taken = follower.take(3, Some(&headers), b"", Duration::ZERO);
        assert_eq!(taken, Err(Ended::Misnumbered));
        take(&mut follower, 3, 1001, 0, 0);
        assert!(!follower.tail.borrow().is_guess);
    }

    #[test]
    fn a_message_of_somebody_else_is_no_event_and_counts_for_the_fence() {
        let (mut follower, mut subscriber, _engine) = follower(0);
        take(&mut follower, 1, 1, 2, 2);
        let taken = follower.take(2, None, b"hello", Duration::ZERO);
        assert_eq!(taken, Ok(()));
        // Numbers that were given.
        take(&mut follower, 3, 2, 1, 1);
        assert_eq!(receive(&mut subscriber), Ok((1, 2)));
        assert_eq!(receive(&mut subscriber), Err(TryRecvError::Empty));
        let position = Position {
            message: 3,
            events: 2,
        };
        assert_eq!(follower.position(), position);
    }

    #[test]
    fn what_this_engine_cannot_take_is_missing_and_nothing_else() {
        let (mut follower, mut subscriber, engine) = follower(0);
        let large = {
            let mut bytes = vec![0x0a, 0x80, 0x01, 0x0a, 0x7b];
            bytes.extend([b'u'; 0x7b]);
            bytes.extend(b"\x1a\x01k");
            bytes
        };
        assert!(Event::parse(&large).is_ok());
        let mut payload = Vec::new();
        encode(EVENT, &mut payload);
        encode(&large, &mut payload);
        encode(EVENT, &mut payload);
        let headers = stamp(1, 3, 8);
        let taken = follower.take(1, Some(&headers), &payload, Duration::ZERO);
        assert_eq!(taken, Ok(()));
        assert_eq!(receive(&mut subscriber), Ok((1, 1)));
        assert_eq!(receive(&mut subscriber), Err(TryRecvError::Lagged(1)));
        assert_eq!(receive(&mut subscriber), Ok((3, 3)));
        assert_eq!(follower.tail.borrow().own, None, "another replica's");

        // More than one batch of this engine, of another one with a larger ring.
        let events = 2 * (engine.limits().max_batch_bytes / (EVENT.len() as u64)) as usize;
        take(&mut follower, 2, 4, events as u64, events);
        assert_eq!(engine.head().seq().number(), 3 + events as u64);

        // A count that is wrong, and bytes that are no request: all of it is missing.
        let next = 4 + events as u64;
        let mut fresh = engine.subscribe("fresh", "").unwrap();
        take(&mut follower, 3, next, 5, 4);
        let headers = stamp(next + 5, 2, 8);
        let taken = follower.take(4, Some(&headers), b"\x0a\x7f", Duration::ZERO);
        assert_eq!(taken, Ok(()));
        take(&mut follower, 5, next + 7, 1, 1);
        assert_eq!(receive(&mut fresh), Err(TryRecvError::Lagged(7)));
        assert_eq!(receive(&mut fresh), Ok((next + 7, next + 7)));
    }
}
