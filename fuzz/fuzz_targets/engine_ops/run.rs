//! An engine and its model, side by side: each operation on both, and what must
//! be true after it.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use galaxy_push::clock::ManualClock;
use galaxy_push::cursor::{Cursor, Epoch, Seq};
use galaxy_push::engine::{
    AppendError, Appended, Appender, Batch, BuildError, Engine, Notifier, PublishError, Publisher,
    RecvError, Resume, SubscribeError, Subscriber, TryRecvError,
};
use galaxy_push::event::Event;

use crate::Program;
use crate::events::{Events, LEAST_EVENT_BYTES, frame_bytes, parse};
use crate::model::{Again, Model, Next, cursor, epoch};

/// Subscriber ids; one more than there can be subscribers.
pub(crate) const IDS: u8 = 5;
/// Batches that are held while the ring moves on.
const HELD: usize = 6;

/// A waker that remembers.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

struct Gateway {
    subscriber: Subscriber,
    position: u64,
    /// Set while it waits.
    parked: Option<Arc<Flag>>,
}

/// What feeds the ring.
enum Feed {
    Publisher(Publisher),
    Appender(Appender),
}

/// How many sequences a log has lost before a batch.
#[derive(Clone, Copy)]
pub(crate) enum Hole {
    None,
    Of(u64),
    /// As many as the ring keeps, or as may be claimed at once, and so many more.
    OfMaxEvents(u64),
    OfMaxBatchEvents(u64),
}

impl Hole {
    /// Most often there is none, or a small one.
    pub(crate) fn of(byte: usize) -> Self {
        match byte as u64 {
            0..=127 => Hole::None,
            missing @ 128..=239 => Hole::Of(missing - 127),
            more @ 240..=243 => Hole::OfMaxEvents(more - 240),
            more @ 244..=247 => Hole::OfMaxBatchEvents(more - 244),
            248..=251 => Hole::Of(1 << 22),
            252..=254 => Hole::Of(1 << 40),
            _ => Hole::Of(Seq::MAX.number() / 3),
        }
    }
}

pub(crate) struct Run {
    engine: Engine,
    feed: Feed,
    pub(crate) model: Model,
    clock: ManualClock,
    clock_ms: u64,
    max_bytes: u64,
    notifier: Notifier,
    notified: Arc<Flag>,
    gateways: BTreeMap<u8, Gateway>,
    /// Subscriptions that a newer one took over.
    replaced: VecDeque<Subscriber>,
    /// Batches, and the bytes that they must keep.
    held: VecDeque<(Batch, Vec<u8>)>,
    events: Events,
}

impl Run {
    /// An engine of the settings that the program begins with.
    pub(crate) fn new(program: &mut Program<'_>) -> Self {
        let max_events = match program.byte() {
            0 => 1 << 20,
            events => events as u64,
        };
        let max_event_bytes = LEAST_EVENT_BYTES + program.byte() * 8;
        let more_bytes = program.byte() as u64 * 1000;
        let window_ms = program.byte() as u64 * 10;
        let max_subscribers = 1 + program.byte() % usize::from(IDS - 1);
        let clock_ms = program.byte() as u64 * 100;
        let is_appended = program.byte() % 2 == 1;
        // Room for settings to come, without a new meaning for every input.
        let _ = program.byte();

        let clock = ManualClock::new();
        clock.set(Duration::from_millis(clock_ms));
        let builder = || {
            Engine::builder()
                .epoch(epoch())
                .max_events(max_events)
                .max_event_bytes(max_event_bytes)
                .window(Duration::from_millis(window_ms))
                .max_subscribers(max_subscribers)
                .clock(clock.clone())
        };
        let Err(BuildError::MaxBytesTooSmall { least, .. }) = builder().max_bytes(1).build() else {
            panic!("no ring fits in one byte");
        };
        let max_bytes = least + more_bytes;
        let builder = builder().max_bytes(max_bytes);
        let (engine, feed) = if is_appended {
            // The log's epoch takes the place of another.
            let other = Epoch::from_number(1).expect("no larger than MAX");
            let built = builder.epoch(other).build_appended(epoch());
            let (engine, appender) = built.expect("the least that would do");
            (engine, Feed::Appender(appender))
        } else {
            let engine = builder.build().expect("the least that would do");
            let publisher = engine.publisher();
            (engine, Feed::Publisher(publisher))
        };
        let limits = engine.limits();
        assert!(limits.max_events <= max_events);
        assert!(limits.ring_bytes <= max_bytes);
        let mut run = Run {
            model: Model::new(limits, window_ms, clock_ms),
            notifier: engine.notifier(),
            engine,
            feed,
            clock,
            clock_ms,
            max_bytes,
            notified: Arc::default(),
            gateways: BTreeMap::new(),
            replaced: VecDeque::new(),
            held: VecDeque::new(),
            events: Events::new(max_event_bytes),
        };
        // Attached, and waiting for its first notification.
        run.poll_notifier();
        run
    }

    pub(crate) fn is_appended(&self) -> bool {
        matches!(self.feed, Feed::Appender(_))
    }

    fn missing(&self, hole: Hole) -> u64 {
        let limits = self.engine.limits();
        match hole {
            Hole::None => 0,
            Hole::Of(missing) => missing,
            Hole::OfMaxEvents(more) => limits.max_events + more,
            Hole::OfMaxBatchEvents(more) => limits.max_batch_events as u64 + more,
        }
    }

    /// Publishes a batch, or appends it after a hole.
    pub(crate) fn publish(&mut self, hole: Hole, sizes: &[usize]) {
        let encoded: Vec<_> = sizes
            .iter()
            .map(|&bytes| self.events.valid(bytes))
            .collect();
        let events: Vec<_> = encoded.iter().map(|event| parse(event)).collect();
        let bytes = events.iter().copied().map(frame_bytes).sum();
        let limit = self.engine.limits().max_batch_bytes;
        let missing = self.missing(hole);
        let first = self.model.head + missing + 1;
        if Seq::checked_new(first).is_none() {
            return;
        }
        let last = first + (events.len() as u64 - 1);
        let published = match &mut self.feed {
            Feed::Publisher(publisher) => match events[..] {
                [event] => publisher.publish(event).map(|at| (at, at)),
                _ => publisher
                    .publish_batch(&events)
                    .map(|at| (at.first, at.last)),
            },
            Feed::Appender(appender) => match appender.append(Seq::new(first), &events) {
                Ok(Appended::After {
                    missing: found,
                    published,
                }) => {
                    assert_eq!(found, missing);
                    Ok((published.first, published.last))
                }
                Ok(other) => panic!("{other:?}, and it is new"),
                Err(AppendError::Publish(error)) => Err(error),
                Err(error) => panic!("{error}"),
            },
        };
        match published {
            Ok((from, to)) => {
                assert!(!self.model.closed && bytes <= limit);
                assert_eq!((from, to), (cursor(first), cursor(last)));
                self.model.leave_out(missing);
                self.model.publish(&encoded);
                assert_eq!(self.model.head, last);
            }
            Err(PublishError::Closed) => assert!(self.model.closed),
            Err(PublishError::Exhausted) => assert!(last > Seq::MAX.number()),
            Err(refused) => {
                assert_eq!(refused, PublishError::BatchTooLarge { bytes, limit });
                assert!(bytes > limit);
            }
        }
    }

    /// Appends a batch that does not follow the head: a repetition, or what is none.
    fn append_again(&mut self, way: usize, event: Event<'_>) {
        let head = self.model.head;
        let Some(back) = u64::try_from(way / 8).ok().filter(|&back| back < head) else {
            return;
        };
        let (first, last) = match way % 4 {
            0 => (head - back, head),
            1 => (head - back, head - back),
            2 => (head - back, head + 1),
            _ => match self.model.missing() {
                Some(missing) => (missing, missing + back.min(head - missing)),
                None => (0, back),
            },
        };
        let count = usize::try_from(last - first + 1).expect("a short one");
        let events = vec![event; count];
        let fits = count <= self.engine.limits().max_batch_events
            && frame_bytes(event) * count as u64 <= self.engine.limits().max_batch_bytes;
        let Feed::Appender(appender) = &mut self.feed else {
            return;
        };
        let appended = appender.append(Seq::new(first), &events);
        if !fits || last > Seq::MAX.number() {
            assert!(matches!(appended, Err(AppendError::Publish(_))));
            return;
        }
        let [from, to, head] = [first, last, head].map(Seq::new);
        let refused = Err(AppendError::OutOfOrder {
            first: from,
            last: to,
            head,
        });
        match self.model.again(first, last) {
            Again::Repeated => assert_eq!(appended, Ok(Appended::Repeated)),
            Again::OutOfOrder => assert_eq!(appended, refused),
            Again::Forgotten => {
                assert!(appended == Ok(Appended::Repeated) || appended == refused);
            }
        }
    }

    pub(crate) fn publish_badly(&mut self, way: usize) {
        let limits = self.engine.limits();
        let good = self.events.valid(1);
        let large = self.events.too_large();
        let good = parse(&good);
        if self.is_appended() && way % 8 >= 4 {
            return self.append_again(way, good);
        }
        let events = match way % 4 {
            0 => vec![],
            1 => vec![good, parse(&large)],
            2 => vec![good; limits.max_batch_events + 1],
            _ => vec![good; (limits.max_batch_bytes / frame_bytes(good)) as usize + 1],
        };
        // Beyond a hole, which is not made for it.
        let first = Seq::new((self.model.head + 2).min(Seq::MAX.number()));
        let refused = match &mut self.feed {
            Feed::Publisher(publisher) => publisher.publish_batch(&events).map(drop),
            Feed::Appender(appender) => match appender.append(first, &events) {
                Err(AppendError::Publish(error)) => Err(error),
                other => panic!("{other:?}"),
            },
        };
        let refused = refused.expect_err("nothing about it is right");
        match refused {
            PublishError::NoEvents => assert!(events.is_empty()),
            PublishError::EventTooLarge {
                index,
                bytes,
                limit,
            } => {
                assert_eq!((index, limit), (1, limits.max_event_bytes));
                assert!(bytes == large.len() && bytes > limit);
            }
            PublishError::TooManyEvents {
                events: count,
                limit,
            } => {
                assert_eq!((count, limit), (events.len(), limits.max_batch_events));
                assert!(count > limit);
            }
            PublishError::BatchTooLarge { bytes, limit } => {
                assert_eq!(bytes, events.iter().copied().map(frame_bytes).sum::<u64>());
                assert!(limit == limits.max_batch_bytes && bytes > limit);
            }
            PublishError::Closed => assert!(self.model.closed),
            other => panic!("{other}"),
        }
    }

    pub(crate) fn subscribe(
        &mut self,
        id: u8,
        text: &str,
        start: impl Fn(&Model) -> (Resume, u64),
    ) {
        let limit = self.engine.limits().max_subscribers;
        let (resume, seq) = start(&self.model);
        match self.engine.subscribe(&id.to_string(), text) {
            Ok(subscriber) => {
                assert!(!self.model.closed);
                let started = subscriber.start();
                assert_eq!((started.resume, started.cursor), (resume, cursor(seq)));
                assert_eq!(subscriber.position(), started.cursor);
                let newer = Gateway {
                    subscriber,
                    position: seq,
                    parked: None,
                };
                if let Some(mut older) = self.gateways.insert(id, newer) {
                    if let Some(parked) = older.parked {
                        assert!(parked.0.load(Ordering::SeqCst), "it waits for ever");
                    }
                    assert_eq!(
                        older.subscriber.try_recv().unwrap_err(),
                        TryRecvError::TakenOver
                    );
                    self.replaced.push_back(older.subscriber);
                    self.replaced.truncate(HELD);
                }
                assert!(self.gateways.len() <= limit);
            }
            Err(SubscribeError::Closed) => assert!(self.model.closed),
            Err(full) => {
                assert_eq!(full, SubscribeError::TooManySubscribers { limit });
                assert_eq!(self.gateways.len(), limit);
                assert!(!self.gateways.contains_key(&id));
            }
        }
    }

    pub(crate) fn subscribe_elsewhere(&mut self, id: u8, which: usize) {
        let head = cursor(self.model.head).to_string();
        let other = |number| {
            let epoch = Epoch::from_number(number).expect("no larger than MAX");
            Cursor::new(epoch, Seq::new(self.model.head)).to_string()
        };
        let now = epoch().number();
        let [earlier, later] = [false, true].map(|is_later| Resume::OtherEpoch { is_later });
        let (text, resume) = match which % 8 {
            0 => (other(now - 1), earlier),
            1 => (other(now + 1), later),
            2 => (other(0), earlier),
            3 if self.model.head == Seq::MAX.number() => (head, Resume::Resumed),
            3 => (cursor(Seq::MAX.number()).to_string(), Resume::Ahead),
            4 => (head.to_lowercase(), Resume::Malformed),
            5 => (head[1..].to_owned(), Resume::Malformed),
            6 => (head + "0", Resume::Malformed),
            _ => ("\u{0}".to_owned(), Resume::Malformed),
        };
        self.subscribe(id, &text, |model| (resume, model.head));
    }

    /// Receives once; returns whether there may be more.
    pub(crate) fn receive(&mut self, id: u8, limit: usize) -> bool {
        let Some(mut gateway) = self.gateways.remove(&id) else {
            return false;
        };
        gateway.parked = None;
        gateway.subscriber = gateway.subscriber.max_batch_bytes(limit);
        let received = gateway.subscriber.try_recv();
        let more = self.received(&mut gateway, received, limit);
        self.gateways.insert(id, gateway);
        more
    }

    fn received(
        &mut self,
        gateway: &mut Gateway,
        received: Result<Batch, TryRecvError>,
        limit: usize,
    ) -> bool {
        let next = self.model.next(gateway.position);
        match received {
            Ok(batch) => {
                assert_eq!(next, Next::Events);
                let first = gateway.position + 1;
                let last = batch.last().seq().number();
                assert_eq!((batch.first(), batch.last()), (cursor(first), cursor(last)));
                assert_eq!(batch.len() as u64, last - gateway.position);
                let bytes = self.model.frames(first, last).expect("the ring has these");
                assert!(batch.as_bytes() == bytes, "other frames than published");
                assert!(
                    bytes.len() <= limit || first == last,
                    "it is over the limit"
                );
                let messages: Vec<_> = batch.events().map(<[u8]>::len).collect();
                assert_eq!(messages.len(), batch.len());
                assert_eq!(
                    messages.iter().sum::<usize>() + 5 * batch.len(),
                    bytes.len()
                );
                gateway.position = last;
                if self.held.len() < HELD {
                    self.held.push_back((batch, bytes));
                }
            }
            Err(TryRecvError::Lagged(missed)) => {
                assert_eq!(next, Next::Lagged(missed));
                gateway.position += missed;
                let seq = gateway.position + 1;
                assert!(self.model.frame_bytes(seq).is_some());
            }
            Err(TryRecvError::Empty) => assert_eq!(next, Next::Empty),
            Err(TryRecvError::Closed) => assert_eq!(next, Next::Closed),
            Err(TryRecvError::TakenOver) => panic!("nobody took it over"),
        }
        matches!(next, Next::Events | Next::Lagged(_))
    }

    pub(crate) fn wait(&mut self, id: u8) {
        let Some(mut gateway) = self.gateways.remove(&id) else {
            return;
        };
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        match gateway
            .subscriber
            .poll_recv(&mut Context::from_waker(&waker))
        {
            Poll::Pending => {
                assert_eq!(self.model.next(gateway.position), Next::Empty);
                gateway.parked = Some(flag);
            }
            Poll::Ready(ready) => {
                gateway.parked = None;
                let received = ready.map_err(|end| match end {
                    RecvError::Lagged(missed) => TryRecvError::Lagged(missed),
                    RecvError::TakenOver => TryRecvError::TakenOver,
                    RecvError::Closed => TryRecvError::Closed,
                });
                self.received(&mut gateway, received, usize::MAX);
            }
        }
        self.gateways.insert(id, gateway);
    }

    /// Publishes until the ring has forgotten what this subscriber would read next.
    pub(crate) fn lap(&mut self, id: u8) {
        let Some(position) = self.gateways.get(&id).map(|gateway| gateway.position) else {
            return;
        };
        let limits = self.engine.limits();
        let mut published = 0;
        while matches!(self.model.next(position), Next::Events | Next::Empty) && !self.model.closed
        {
            // A ring of these bytes can hold no more than these bytes.
            assert!(published <= 2 * limits.ring_bytes, "the ring never forgets");
            self.publish(Hole::None, &[255]);
            published += self.model.frame_bytes(self.model.head).unwrap_or(0) as u64;
            self.check();
        }
    }

    pub(crate) fn leave(&mut self, id: u8) {
        self.gateways.remove(&id);
        self.replaced.clear();
    }

    pub(crate) fn clock_forward(&mut self, ms: u64) {
        self.set_clock(self.clock_ms + ms);
    }

    pub(crate) fn clock_back(&mut self, ms: u64) {
        // The engine holds its clock to go forward, from what it has seen of it:
        // publishing has it look.
        self.publish(Hole::None, &[0]);
        self.set_clock(self.clock_ms.saturating_sub(ms));
    }

    fn set_clock(&mut self, ms: u64) {
        self.clock_ms = ms;
        self.clock.set(Duration::from_millis(ms));
        self.model.now_ms = self.model.now_ms.max(ms);
    }

    /// Lets go of the oldest batch that is held.
    pub(crate) fn let_go(&mut self) {
        if let Some((batch, bytes)) = self.held.pop_front() {
            assert!(batch.into_bytes() == bytes, "a held batch changed");
        }
    }

    pub(crate) fn end(&mut self, abort: bool) {
        self.model.closed = true;
        if abort {
            self.model.aborted = true;
            self.engine.abort();
        } else {
            self.engine.close();
        }
    }

    /// What is true after every operation.
    pub(crate) fn check(&mut self) {
        let stats = self.engine.stats();
        self.model.forget(&stats);
        assert_eq!(stats.subscribers, self.gateways.len());
        assert!(stats.ring_bytes <= self.max_bytes);
        assert_eq!(self.engine.head(), cursor(self.model.head));
        assert_eq!(self.engine.is_closed(), self.model.closed);

        if self.notified.0.swap(false, Ordering::SeqCst) {
            self.poll_notifier();
        }
        for gateway in self.gateways.values() {
            assert_eq!(gateway.subscriber.position(), cursor(gateway.position));
            let lag = self.model.head - gateway.position;
            assert_eq!(gateway.subscriber.lag(), lag);
            if let Some(parked) = &gateway.parked {
                let woken = parked.0.load(Ordering::SeqCst);
                let next = self.model.next(gateway.position);
                assert!(woken || next == Next::Empty, "it waits for ever: {next:?}");
            }
        }
        for replaced in &mut self.replaced {
            assert_eq!(replaced.try_recv().unwrap_err(), TryRecvError::TakenOver);
        }
        for (batch, bytes) in &self.held {
            assert!(batch.as_bytes() == bytes, "a held batch changed");
        }
    }

    /// Runs the notifier until it has nothing to do.
    fn poll_notifier(&mut self) {
        let waker = Waker::from(Arc::clone(&self.notified));
        let mut context = Context::from_waker(&waker);
        loop {
            let polled = Pin::new(&mut self.notifier).poll(&mut context);
            assert_eq!(polled, Poll::Pending, "it ends with the engine");
            if !self.notified.0.swap(false, Ordering::SeqCst) {
                return;
            }
        }
    }

    /// Batches outlive everything else, and nothing but them is left over.
    pub(crate) fn finish(mut self) {
        self.gateways.clear();
        self.replaced.clear();
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            assert_eq!(self.engine.stats().pinned_bytes, 0);
        }
        drop(self);
        for (batch, bytes) in held {
            assert!(batch.into_bytes() == bytes, "a held batch changed");
        }
    }
}
