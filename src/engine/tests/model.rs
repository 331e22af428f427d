//! The engine against a plain queue: the same operations on both, the same
//! answers from both.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// What an event looks like to the model.
#[derive(Clone, Debug)]
struct Kept {
    seq: u64,
    /// None: it is missing.
    event: Option<Vec<u8>>,
    published_ms: u64,
    segment: u64,
}

impl Kept {
    fn frame(&self) -> Option<Vec<u8>> {
        let event = self.event.as_ref()?;
        let cursor = Cursor::new(epoch(), Seq::new(self.seq)).to_string();
        let mut frame = vec![0];
        frame.extend((event.len() as u32 + 26).to_be_bytes());
        frame.extend(event);
        frame.extend(b"\x1a\x18");
        frame.extend(cursor.bytes());
        Some(frame)
    }
}

/// A ring that is a queue. It keeps to the ring's steps: an event goes where it
/// fits whole, and entering a segment forgets the one that is `slots - 1` behind. A hole
/// takes the first byte of a new segment.
#[derive(Debug)]
struct Model {
    kept: VecDeque<Kept>,
    head: u64,
    max_events: u64,
    segment_bytes: u64,
    slots: u64,
    segment: u64,
    used: u64,
    latest_ms: u64,
    window_ms: u64,
    max_subscribers: usize,
    closed: bool,
    aborted: bool,
    subscribers: HashMap<u8, u64>,
}

#[derive(Debug, PartialEq)]
enum Found {
    Empty,
    Lagged(u64),
    Closed,
    Frames { first: u64, bytes: Vec<u8> },
}

impl Model {
    fn publish(&mut self, events: &[Vec<u8>]) {
        for event in events {
            self.head += 1;
            let frame = event.len() as u64 + 31;
            if self.used + frame > self.segment_bytes {
                self.segment += 1;
                self.used = 0;
            }
            self.used += frame;
            self.kept.push_back(Kept {
                seq: self.head,
                event: Some(event.clone()),
                published_ms: self.latest_ms,
                segment: self.segment,
            });
        }
        self.forget();
    }

    /// Makes a hole of so many sequences.
    fn leave_out(&mut self, missing: u64) {
        if missing == 0 {
            return;
        }
        self.segment += 1;
        self.used = 1;
        let before = self.head;
        self.head += missing;
        // Older ones would be forgotten at once.
        let first = (before + 1).max(self.head.saturating_sub(self.max_events));
        self.kept.extend((first..=self.head).map(|seq| Kept {
            seq,
            event: None,
            published_ms: 0,
            segment: self.segment,
        }));
        self.forget();
    }

    fn forget(&mut self) {
        let segment = self.segment;
        let gone = |kept: &Kept| {
            kept.segment + self.slots <= segment + 1 || kept.seq + self.max_events <= self.head
        };
        while self.kept.front().is_some_and(gone) {
            self.kept.pop_front();
        }
    }

    fn resume(&self, cursor: Option<u64>) -> (Resume, u64) {
        let Some(cursor) = cursor else {
            return (Resume::NoCursor, self.head);
        };
        if cursor > self.head {
            return (Resume::Ahead, self.head);
        }
        let next = self.kept.iter().find(|kept| kept.seq == cursor + 1);
        let young = |kept: &Kept| {
            kept.event.is_some() && self.latest_ms - kept.published_ms <= self.window_ms
        };
        if cursor == self.head || next.is_some_and(young) {
            (Resume::Resumed, cursor)
        } else {
            let missed = self.head - cursor;
            (Resume::Expired { missed }, self.head)
        }
    }

    fn receive(&mut self, id: u8, limit: usize) -> Found {
        let at = self.subscribers.get_mut(&id).unwrap();
        if self.aborted {
            return Found::Closed;
        }
        if *at == self.head {
            return if self.closed {
                Found::Closed
            } else {
                Found::Empty
            };
        }
        let first = *at + 1;
        let run = (self.kept.iter()).skip_while(|kept| kept.seq < first || kept.event.is_none());
        // There is always a newest event to be found.
        let next = run.clone().next().unwrap();
        if first < next.seq {
            let missed = next.seq - first;
            *at = next.seq - 1;
            return Found::Lagged(missed);
        }
        let mut bytes = Vec::new();
        for kept in run.take_while(|kept| kept.segment == next.segment) {
            let Some(frame) = kept.frame() else {
                break;
            };
            if !bytes.is_empty() && bytes.len() + frame.len() > limit {
                break;
            }
            bytes.extend(frame);
            *at = kept.seq;
        }
        Found::Frames { first, bytes }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Publish(Vec<u16>),
    /// Publishes after a hole, where an appender feeds the engine.
    Skip(u64),
    /// Appends so many events whose first is so far behind the head.
    Again {
        behind: u64,
        events: u64,
    },
    Receive {
        id: u8,
        limit: u32,
    },
    Subscribe {
        id: u8,
        cursor: Option<Index>,
        beyond: bool,
    },
    Leave {
        id: u8,
    },
    Clock {
        ms: i16,
    },
    Close,
    Abort,
}

fn op(max_event: u16) -> impl Strategy<Value = Op> {
    let id = 0..5u8;
    let skip = prop_oneof![
        4 => 1..5u64,
        2 => 0..200u64,
        2 => 0..20_000u64,
        // Around as much as the claim word tells apart.
        1 => Just((1 << 23) - 1),
        1 => Just(1 << 23),
        1 => 0..1u64 << 40,
    ];
    prop_oneof![
        2 => skip.prop_map(Op::Skip),
        1 => (0..30u64, 1..20u64).prop_map(|(behind, events)| Op::Again { behind, events }),
        10 => prop::collection::vec(0..max_event, 1..6).prop_map(Op::Publish),
        3 => prop::collection::vec(0..max_event, 1..60).prop_map(Op::Publish),
        10 => (id.clone(), prop_oneof![Just(u32::MAX), 0..20_000u32])
            .prop_map(|(id, limit)| Op::Receive { id, limit }),
        4 => (id.clone(), any::<Option<Index>>(), prop::bool::weighted(0.1))
            .prop_map(|(id, cursor, beyond)| Op::Subscribe { id, cursor, beyond }),
        1 => id.prop_map(|id| Op::Leave { id }),
        3 => (-200..400i16).prop_map(|ms| Op::Clock { ms }),
    ]
}

#[derive(Clone, Debug)]
struct Setup {
    max_events: u64,
    max_bytes: u64,
    max_event_bytes: u16,
    window_ms: u64,
    origin: u64,
    is_appended: bool,
}

fn setup() -> impl Strategy<Value = Setup> {
    let max_events = prop_oneof![Just(1u64), Just(2), 1..40u64, Just(1 << 20)];
    let max_event_bytes = prop_oneof![Just(16u16), Just(200), Just(4096)];
    let origin = prop_oneof![
        Just(0u64),
        0..10_000u64,
        Just((1 << 23) - 10),
        // Where a cursor begins to need one digit more than eight.
        Just((1 << 40) - 100),
        Just(Seq::MAX.number() - 60_000),
    ];
    (
        max_events,
        max_event_bytes,
        0..300u64,
        origin,
        0..8u64,
        any::<bool>(),
    )
        .prop_map(
            |(max_events, max_event_bytes, window_ms, origin, more, is_appended)| {
                // The smallest ring for such events, or a little more.
                let builder = Engine::builder().max_event_bytes(usize::from(max_event_bytes));
                let Err(BuildError::MaxBytesTooSmall { least, .. }) = builder.max_bytes(1).build()
                else {
                    panic!("no ring fits in one byte")
                };
                Setup {
                    max_events,
                    max_bytes: least + more * 5000,
                    max_event_bytes,
                    window_ms,
                    origin,
                    is_appended,
                }
            },
        )
}

fn run(setup: &Setup, ops: &[Op], end: &[Op]) -> Result<(), TestCaseError> {
    let clock = ManualClock::new();
    clock.set(Duration::from_secs(1000));
    let builder = Engine::builder()
        .epoch(epoch())
        .max_events(setup.max_events)
        .max_bytes(setup.max_bytes)
        .max_event_bytes(usize::from(setup.max_event_bytes))
        .window(Duration::from_millis(setup.window_ms))
        .max_subscribers(3)
        .clock(clock.clone())
        .origin(Seq::new(setup.origin));
    let (engine, mut appender) = if setup.is_appended {
        let (engine, appender) = builder.build_appended(epoch()).unwrap();
        (engine, Some(appender))
    } else {
        (builder.build().unwrap(), None)
    };
    // How many sequences the next batch leaves out.
    let mut skip = 0;
    engine.shared.time.now_ms();
    let limits = engine.limits();
    let mut now = Duration::from_secs(1000);
    let mut model = Model {
        kept: VecDeque::new(),
        head: setup.origin,
        max_events: limits.max_events,
        segment_bytes: limits.segment_bytes,
        slots: engine.shared.ring.shape().slots as u64,
        segment: 0,
        used: 0,
        latest_ms: 1_000_000,
        window_ms: setup.window_ms,
        max_subscribers: 3,
        closed: false,
        aborted: false,
        subscribers: HashMap::new(),
    };
    let mut subscribers: HashMap<u8, Subscriber> = HashMap::new();
    for op in ops.iter().chain(end) {
        match op {
            Op::Publish(sizes) => {
                let encoded: Vec<_> = (sizes.iter().enumerate())
                    .map(|(i, size)| {
                        let number = model.head + i as u64;
                        // What `encoded` adds to a payload, at most.
                        let size =
                            usize::from((*size).min(setup.max_event_bytes)).saturating_sub(14);
                        encoded(number, size)
                    })
                    .collect();
                let events: Vec<_> = encoded.iter().map(|e| Event::parse(e).unwrap()).collect();
                let bytes: u64 = encoded.iter().map(|e| e.len() as u64 + 31).sum();
                let first = model.head + 1 + skip;
                let published = match &mut appender {
                    None => engine.publisher().publish_batch(&events),
                    Some(appender) => match appender.append(Seq::new(first), &events) {
                        Ok(Appended::After { missing, published }) => {
                            prop_assert_eq!(missing, skip);
                            Ok(published)
                        }
                        Err(AppendError::Publish(refused)) => Err(refused),
                        other => panic!("{other:?}"),
                    },
                };
                if bytes > limits.max_batch_bytes {
                    let limit = limits.max_batch_bytes;
                    prop_assert_eq!(published, Err(PublishError::BatchTooLarge { bytes, limit }));
                } else if model.closed {
                    prop_assert_eq!(published, Err(PublishError::Closed));
                } else {
                    let published = published.unwrap();
                    prop_assert_eq!(published.first.seq().number(), first);
                    model.leave_out(std::mem::take(&mut skip));
                    model.publish(&encoded);
                    prop_assert_eq!(published.last.seq().number(), model.head);
                }
            }
            Op::Skip(sequences) => {
                // None is left to go on with near the end of the numbers.
                let room = Seq::MAX.number() - model.head;
                if appender.is_some() && *sequences < room - room.min(60_000) {
                    skip = *sequences;
                }
            }
            Op::Again { behind, events } => {
                let Some(appender) = &mut appender else {
                    continue;
                };
                let first = model.head.saturating_sub(*behind).max(1);
                if first > model.head {
                    continue;
                }
                let last = first + events - 1;
                let encoded = encoded(0, 0);
                let event = Event::parse(&encoded).unwrap();
                let appended = appender.append(Seq::new(first), &vec![event; *events as usize]);
                let is_missing = |kept: &Kept| kept.event.is_none() && kept.seq >= first;
                if last > Seq::MAX.number() {
                    prop_assert_eq!(appended, Err(PublishError::Exhausted.into()));
                } else if last > model.head
                    || model.kept.iter().any(|k| is_missing(k) && k.seq <= last)
                {
                    let [first, last, head] = [first, last, model.head].map(Seq::new);
                    prop_assert_eq!(appended, Err(AppendError::OutOfOrder { first, last, head }));
                } else {
                    prop_assert_eq!(appended, Ok(Appended::Repeated));
                }
            }
            Op::Receive { id, limit } => {
                let Some(mut subscriber) = subscribers.remove(id) else {
                    continue;
                };
                subscriber = subscriber.max_batch_bytes(*limit as usize);
                prop_assert_eq!(subscriber.lag(), model.head - model.subscribers[id]);
                let found = match subscriber.try_recv() {
                    Ok(batch) => {
                        let first = batch.first().seq().number();
                        prop_assert_eq!(batch.last(), subscriber.position());
                        prop_assert_eq!(batch.events().count(), batch.len());
                        Found::Frames {
                            first,
                            bytes: batch.as_bytes().to_vec(),
                        }
                    }
                    Err(TryRecvError::Empty) => Found::Empty,
                    Err(TryRecvError::Lagged(missed)) => Found::Lagged(missed),
                    Err(TryRecvError::Closed) => Found::Closed,
                    Err(TryRecvError::TakenOver) => panic!("taken-over ones are not in the map"),
                };
                prop_assert_eq!(found, model.receive(*id, *limit as usize));
                subscribers.insert(*id, subscriber);
            }
            Op::Subscribe { id, cursor, beyond } => {
                let seq = cursor.map(|index| {
                    let reach = (model.head - setup.origin).min(200) as usize;
                    let seq = model.head - index.index(reach + 1) as u64;
                    if *beyond {
                        model.head + 1 + seq % 3
                    } else {
                        seq
                    }
                });
                let text = seq.map_or(String::new(), |seq| {
                    Cursor::new(epoch(), Seq::new(seq)).to_string()
                });
                let subscribed = engine.subscribe(&id.to_string(), &text);
                let known = model.subscribers.contains_key(id);
                if model.closed {
                    prop_assert_eq!(subscribed.unwrap_err(), SubscribeError::Closed);
                } else if !known && model.subscribers.len() == model.max_subscribers {
                    let limit = model.max_subscribers;
                    let full = SubscribeError::TooManySubscribers { limit };
                    prop_assert_eq!(subscribed.unwrap_err(), full);
                } else {
                    let subscriber = subscribed.unwrap();
                    let start = subscriber.start();
                    let expected = model.resume(seq);
                    prop_assert_eq!((start.resume, start.cursor.seq().number()), expected);
                    model.subscribers.insert(*id, expected.1);
                    if let Some(mut older) = subscribers.insert(*id, subscriber) {
                        prop_assert_eq!(older.try_recv().unwrap_err(), TryRecvError::TakenOver);
                    }
                }
            }
            Op::Leave { id } => {
                subscribers.remove(id);
                model.subscribers.remove(id);
            }
            Op::Clock { ms } => {
                let by = Duration::from_millis(u64::from(ms.unsigned_abs()));
                now = if *ms < 0 {
                    now.saturating_sub(by)
                } else {
                    now + by
                };
                clock.set(now);
                // Whoever asks next sees the later of both; ask now.
                engine.shared.time.now_ms();
                model.latest_ms = model.latest_ms.max(now.as_millis() as u64);
            }
            Op::Close => {
                engine.close();
                model.closed = true;
            }
            Op::Abort => {
                engine.abort();
                model.closed = true;
                model.aborted = true;
            }
        }
        let stats = engine.stats();
        // Those before the first event that is there can be read no more.
        let readable = model.kept.iter().skip_while(|kept| kept.event.is_none());
        prop_assert_eq!(stats.retained_events, readable.count() as u64);
        prop_assert_eq!(stats.subscribers, model.subscribers.len());
        prop_assert!(stats.ring_bytes <= setup.max_bytes);
        prop_assert_eq!(engine.head().seq().number(), model.head);
    }
    Ok(())
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: rounds(300, 1) as u32,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_ring_behaves_like_a_queue(
        setup in setup(),
        ops in prop::collection::vec(op(4096), 1..rounds(200, 20)),
        aborted: bool,
        after in prop::collection::vec(op(4096), 0..20),
    ) {
        let end: Vec<_> = std::iter::once(if aborted { Op::Abort } else { Op::Close })
            .chain(after)
            .collect();
        run(&setup, &ops, &end)?;
    }
}
