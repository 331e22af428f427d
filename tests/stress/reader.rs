//! Readers: one subscription each at a time, and a record of it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use galaxy_push::cursor::{Cursor, Epoch, Seq};
use galaxy_push::engine::{Batch, RecvError, ReplayError, Resume, Subscriber, TryRecvError};
use galaxy_push::lab::history::{Decision, End, Fingerprint, Stream};

use crate::event;
use crate::random::Random;
use crate::round::{Ending, Round};

/// A subscription and its record.
pub(crate) struct Reader<'a> {
    round: &'a Round<'a>,
    subscriber: Subscriber,
    stream: Stream,
    decision: Decision,
}

/// What a reader got.
pub(crate) enum Got {
    /// Events; the batch itself may be kept for a while.
    Batch(Batch),
    /// So many were missed.
    Gap(u64),
    /// The end, for this reason.
    End(End),
}

impl<'a> Reader<'a> {
    /// Subscribes; `None` if the engine is closed.
    pub(crate) fn join(round: &'a Round<'a>, id: &str, cursor: &str) -> Option<Self> {
        let subscribing = round.history.subscribing(id, cursor);
        let Ok(subscriber) = round.engine.subscribe(id, cursor) else {
            assert!(round.engine.is_closed(), "there is room for all");
            subscribing.refused();
            return None;
        };
        let start = subscriber.start();
        let decision = decision(start.resume);
        Some(Reader {
            round,
            stream: subscribing.granted(decision, start.cursor),
            decision,
            subscriber,
        })
    }

    /// The same, and reads the invalidations that it has missed, with some time between.
    fn join_with_replay(
        round: &'a Round<'a>,
        id: &str,
        cursor: &str,
        random: &mut Random,
    ) -> Option<Self> {
        let subscribing = round.history.subscribing(id, cursor);
        let Ok((subscriber, replay)) = round.engine.subscribe_with_replay(id, cursor) else {
            assert!(round.engine.is_closed(), "there is room for all");
            subscribing.refused();
            return None;
        };
        let start = subscriber.start();
        let decision = decision(start.resume);
        let mut stream = subscribing.granted(decision, start.cursor);
        if let Some(mut replay) = replay {
            let is_complete = replay.is_complete();
            let mut found = Vec::new();
            let outcome = loop {
                match replay.try_recv(&subscriber) {
                    Ok(Some(frames)) => found.extend(event::read_replay(&frames)),
                    outcome => break outcome,
                }
                if random.one_in(4) {
                    thread::sleep(Duration::from_micros(random.below(500) as u64));
                }
            };
            match outcome {
                Ok(_) => stream.replayed(is_complete, found),
                // It goes the way of its stream, which says so next.
                Err(ReplayError::TakenOver | ReplayError::Closed) => {}
                Err(error) => panic!("there was room: {error}"),
            }
        }
        Some(Reader {
            round,
            stream,
            decision,
            subscriber,
        })
    }

    /// What was decided about the cursor that it asked for.
    pub(crate) fn decision(&self) -> Decision {
        self.decision
    }

    pub(crate) fn position(&self) -> Cursor {
        self.subscriber.position()
    }

    pub(crate) fn max_batch_bytes(self, bytes: usize) -> Self {
        Reader {
            subscriber: self.subscriber.max_batch_bytes(bytes),
            ..self
        }
    }

    /// Waits for something.
    pub(crate) fn receive(&mut self) -> Got {
        let before = self.position();
        let received = block_on(self.subscriber.recv(), &self.round.counters.parked);
        self.record(before, received)
    }

    /// Takes what is there; `None` if nothing is.
    pub(crate) fn try_receive(&mut self) -> Option<Got> {
        let before = self.position();
        let received = match self.subscriber.try_recv() {
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Lagged(missed)) => Err(RecvError::Lagged(missed)),
            Err(TryRecvError::TakenOver) => Err(RecvError::TakenOver),
            Err(TryRecvError::Closed) => Err(RecvError::Closed),
            Ok(batch) => Ok(batch),
        };
        Some(self.record(before, received))
    }

    /// Parks, as a task that is then dropped.
    pub(crate) fn park(&mut self) -> Option<Got> {
        let before = self.position();
        let mut context = Context::from_waker(Waker::noop());
        match self.subscriber.poll_recv(&mut context) {
            Poll::Ready(received) => Some(self.record(before, received)),
            Poll::Pending => None,
        }
    }

    /// Notes what was received at the position `before`.
    fn record(&mut self, before: Cursor, received: Result<Batch, RecvError>) -> Got {
        match received {
            Ok(batch) => {
                let mut events = 0;
                let first = batch.events().next().map(event::read);
                assert_eq!(first.map(|(cursor, _)| cursor), Some(batch.first()));
                self.stream.received(batch.events().map(|event| {
                    events += 1;
                    event::read(event)
                }));
                assert_eq!(batch.len(), events, "the batch is as long as it says");
                let last = batch.events().last().map(event::read);
                assert_eq!(last.map(|(cursor, _)| cursor), Some(batch.last()));
                assert_eq!(self.position(), batch.last());
                Got::Batch(batch)
            }
            Err(RecvError::Lagged(missed)) => {
                let after = Seq::new(before.seq().number() + missed);
                assert_eq!(self.position(), Cursor::new(before.epoch(), after));
                self.stream.lagged(missed);
                Got::Gap(missed)
            }
            Err(RecvError::TakenOver) => Got::End(End::TakenOver),
            Err(RecvError::Closed) => Got::End(match self.round.ending {
                Ending::Close => End::Closed,
                Ending::Abort => End::Stopped,
            }),
        }
    }

    /// Leaves, and ends the record as the stream has ended.
    pub(crate) fn leave(self, end: End) {
        drop(self.subscriber);
        self.stream.ended(end);
    }
}

fn decision(resume: Resume) -> Decision {
    match resume {
        Resume::Resumed => Decision::Resumed,
        Resume::NoCursor => Decision::NoCursor,
        Resume::Expired { missed } => Decision::Expired { missed },
        Resume::Ahead => Decision::Ahead,
        Resume::OtherEpoch { .. } => Decision::OtherEpoch,
        Resume::Malformed => Decision::Malformed,
        other => panic!("a decision that the checker does not know: {other:?}"),
    }
}

// --- readers that stay until the end, and say how far they have come ---

/// Reads everything at once, parked while there is nothing.
pub(crate) fn follow(mut reader: Reader<'_>, place: &AtomicU64) {
    loop {
        if let Got::End(end) = reader.receive() {
            return reader.leave(end);
        }
        place.store(reader.position().seq().number(), Ordering::SeqCst);
    }
}

/// Reads everything at once, without ever waiting.
pub(crate) fn spin(mut reader: Reader<'_>, place: &AtomicU64) {
    loop {
        match reader.try_receive() {
            Some(Got::End(end)) => return reader.leave(end),
            Some(_) => place.store(reader.position().seq().number(), Ordering::SeqCst),
            None => thread::yield_now(),
        }
    }
}

/// Takes little at a time, and its time over it, until the round is ending.
pub(crate) fn dawdle(mut reader: Reader<'_>, place: &AtomicU64, mut random: Random) {
    while !reader.round.is_ending() {
        reader = reader.max_batch_bytes(1 + random.below(2000));
        match reader.try_receive() {
            Some(Got::End(end)) => return reader.leave(end),
            _ => thread::sleep(Duration::from_micros(random.below(3000) as u64)),
        }
    }
    follow(reader.max_batch_bytes(1 << 20), place);
}

/// Holds on to batches for a while, as a connection does, and looks whether they stay
/// as they were.
pub(crate) fn hold(mut reader: Reader<'_>, place: &AtomicU64, mut random: Random) {
    let mut held: VecDeque<(Bytes, Fingerprint)> = VecDeque::new();
    let end = loop {
        match reader.receive() {
            Got::End(end) => break end,
            Got::Gap(_) => {}
            Got::Batch(batch) => {
                let bytes = batch.into_bytes();
                let fingerprint = Fingerprint::of(&bytes);
                held.push_back((bytes, fingerprint));
                reader
                    .round
                    .counters
                    .batches_held
                    .fetch_add(1, Ordering::Relaxed);
            }
        }
        place.store(reader.position().seq().number(), Ordering::SeqCst);
        while held.len() > 5 + random.below(30) {
            if let Some((bytes, fingerprint)) = held.pop_front() {
                assert_eq!(Fingerprint::of(&bytes), fingerprint, "a batch has changed");
            }
        }
        if random.one_in(20) && !reader.round.is_ending() {
            thread::sleep(Duration::from_millis(1));
        }
    };
    reader.leave(end);
    for (bytes, fingerprint) in held {
        assert_eq!(Fingerprint::of(&bytes), fingerprint, "a batch has changed");
    }
}

// --- readers that come and go ---

/// Joins, reads for a while, leaves, and comes back with a cursor: mostly the one where
/// it was.
pub(crate) fn commute(round: &Round<'_>, id: &str, mut random: Random) {
    let mut last = String::new();
    while !round.is_ending() {
        let Some(mut reader) = Reader::join_with_replay(round, id, &last, &mut random) else {
            return;
        };
        reader = reader.max_batch_bytes(1 << random.below(20));
        for _ in 0..random.below(40) {
            match reader.try_receive() {
                Some(Got::End(end)) => return reader.leave(end),
                Some(_) => {}
                None => thread::yield_now(),
            }
        }
        if random.one_in(4)
            && let Some(Got::End(end)) = reader.park()
        {
            return reader.leave(end);
        }
        let position = reader.position();
        reader.leave(End::Cut);
        if random.one_in(3) {
            thread::sleep(Duration::from_micros(random.below(2000) as u64));
        }
        last = some_cursor(position, &mut random);
    }
}

/// The position, or a cursor that cannot be resumed at.
fn some_cursor(position: Cursor, random: &mut Random) -> String {
    let (epoch, seq) = (position.epoch(), position.seq().number());
    let other = Epoch::from_number(epoch.number() ^ 1).expect("no larger than MAX");
    match random.below(12) {
        0 => String::new(),
        1 => "not a cursor".to_owned(),
        2 => Cursor::new(epoch, Seq::new(seq + (1 << 40))).to_string(),
        3 => Cursor::new(other, position.seq()).to_string(),
        4 => Cursor::new(epoch, Seq::new(seq / 2)).to_string(),
        _ => position.to_string(),
    }
}

/// Takes an id from whoever has it, reads until somebody takes it back, or not.
pub(crate) fn contend(round: &Round<'_>, mut random: Random) {
    let mut last = String::new();
    while !round.is_ending() {
        let joined = Reader::join_with_replay(round, "contended", &last, &mut random);
        let Some(mut reader) = joined else {
            return;
        };
        let patience = 1 + random.below(20_000);
        let mut turns = 0;
        let end = loop {
            match reader.try_receive() {
                Some(Got::End(end)) => break end,
                _ if turns == patience || round.is_ending() => break End::Cut,
                _ => turns += 1,
            }
        };
        last = reader.position().to_string();
        reader.leave(end);
    }
}

/// Lags, then lets a cursor expire, then resumes: what luck might leave out.
pub(crate) fn stall(round: &Round<'_>) {
    let Some(mut reader) = Reader::join(round, "stalled", "") else {
        return;
    };
    let start = reader.position();
    if !round.has_lagged(start) {
        return;
    }
    match reader.try_receive() {
        Some(Got::Gap(missed)) => assert!(missed > 0),
        _ => panic!("{start} has lagged and is not told so"),
    }
    reader.leave(End::Cut);
    let Some(reader) = Reader::join(round, "stalled", &start.to_string()) else {
        return;
    };
    assert!(matches!(reader.decision(), Decision::Expired { .. }));
    let position = reader.position();
    reader.leave(End::Cut);
    drop(Reader::join(round, "stalled", &position.to_string()));
}

// --- parking ---

/// Runs a future on this thread, and counts how often it waits.
fn block_on<F: Future>(future: F, parked: &AtomicU64) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    thread_local! {
        static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
    }
    let mut future = pin!(future);
    WAKER.with(|waker| {
        let mut context = Context::from_waker(waker);
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(output) => return output,
                Poll::Pending => {
                    parked.fetch_add(1, Ordering::Relaxed);
                    thread::park();
                }
            }
        }
    })
}
