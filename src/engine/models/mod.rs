//! The engine under a model checker: every schedule of a few threads, and every
//! value that a load may see, on rings of a few bytes.
//!
//! `scripts/loom` runs them. A model fails by a panic: of its own checks, of the
//! checker (a byte that is written while somebody may read it, an `Arc` that leaks),
//! or because all its threads are asleep, which is what a lost wake-up looks like.
//!
//! What is modelled otherwise than it runs: see `sync/modelled.rs`. What is not
//! modelled at all: the queue of free slots (crossbeam's), `Bytes`, and the clock.

mod appending;
mod revoking;
mod ring;
mod subscriptions;
mod waking;

use std::collections::BTreeMap;

use super::batch::Batch;
use super::error::PublishError;
use super::ring::{Read, Reader, Ring, Shape};
use super::sync::Arc;
use super::{Builder, Engine};
use crate::clock::ManualClock;
use crate::cursor::{Cursor, Epoch};
use crate::event::Event;

/// Runs `check` in every schedule with at most as many preemptions as
/// `LOOM_MAX_PREEMPTIONS` says, 2 if it does not.
fn model(check: impl Fn() + Send + Sync + 'static) {
    explore(0, check);
}

/// The same with one preemption less, for models that would take hours.
fn large_model(check: impl Fn() + Send + Sync + 'static) {
    explore(1, check);
}

/// The same with two less: worth its time in `scripts/loom deep` only.
fn deep_model(check: impl Fn() + Send + Sync + 'static) {
    explore(2, check);
}

fn explore(less: usize, check: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.max_branches = 100_000;
    model.preemption_bound = Some(model.preemption_bound.unwrap_or(2).saturating_sub(less));
    model.check(check);
}

/// Two frames of [`event`] to a segment, three segments, and an index that is
/// around after eight events.
fn shape() -> Shape {
    Shape {
        segment_shift: 7,
        slots: 3,
        index_entries: 8,
        max_events: 4,
        in_flight: 3,
        max_event_bytes: 33,
        max_batch_bytes: 128,
    }
}

fn epoch() -> Epoch {
    Epoch::new(1_700_000_000_000, 0).expect("it fits")
}

/// One frame of [`event`] to a segment: every event enters one.
fn shape_of_single_frames(slots: usize) -> Shape {
    Shape {
        segment_shift: 6,
        slots,
        ..shape()
    }
}

fn ring() -> Arc<Ring> {
    ring_of(shape())
}

/// A ring that may have holes.
fn log_of(shape: Shape) -> Arc<Ring> {
    Arc::new(Ring::new(shape, epoch(), 0, true))
}

fn ring_of(shape: Shape) -> Arc<Ring> {
    Arc::new(Ring::new(shape, epoch(), 0, false))
}

fn engine(shape: Shape) -> Engine {
    Builder::default()
        .epoch(epoch())
        .max_subscribers(2)
        .clock(ManualClock::new())
        .with_shape(shape)
        .expect("two subscribers are few enough")
}

/// An event of 20 bytes, 51 with its frame, that can be told from others by `tag`.
fn event(tag: u8) -> Vec<u8> {
    let mut event = b"\x0a\x12\x0a\x01u\x1a\x01k\x22\x0a".to_vec();
    event.resize(19, b'.');
    event.push(tag);
    event
}

fn publish(ring: &Ring, tags: &[u8]) -> u64 {
    let encoded: Vec<_> = tags.iter().map(|tag| event(*tag)).collect();
    let events: Vec<_> = (encoded.iter())
        .map(|event| Event::parse(event).expect("it is valid"))
        .collect();
    put(ring, &events, 0).expect("the ring is open")
}

fn put(ring: &Ring, events: &[Event<'_>], now_ms: u64) -> Result<u64, PublishError> {
    let total = ring.check(events)?;
    ring.put(events, total, now_ms, |_| ())
}

/// Publishes one event through the engine's public end.
fn accept(engine: &Engine, tag: u8) -> u64 {
    let encoded = event(tag);
    let event = Event::parse(&encoded).expect("it is valid");
    let cursor = engine.publisher().publish(event).expect("it is open");
    cursor.seq().number()
}

/// Published one after another, before the threads begin.
fn filled(ring: &Arc<Ring>, events: u8) {
    for tag in 1..=events {
        assert_eq!(publish(ring, &[tag]), u64::from(tag));
    }
}

/// What a reader was given: the tag at each sequence, in order and without holes.
#[derive(Debug, Default)]
struct Record {
    tags: BTreeMap<u64, u8>,
    missed: u64,
}

impl Record {
    fn note(&mut self, batch: &Batch) {
        let mut seq = batch.first().seq().number();
        for event in batch.events() {
            let (event, cursor) = event.split_at(event.len() - Cursor::TEXT_BYTES);
            let cursor = Cursor::parse(cursor).expect("every event ends with its cursor");
            assert_eq!(cursor.seq().number(), seq);
            // Before the cursor's text stand its tag and length.
            assert!(self.tags.insert(seq, event[event.len() - 3]).is_none());
            seq += 1;
        }
        assert_eq!(batch.last().seq().number() + 1, seq);
    }
}

/// One look of a reader at the ring. Returns the batch, so that it may be kept.
fn look(ring: &Ring, reader: &mut Reader, record: &mut Record) -> Option<Batch> {
    match ring.read(reader, usize::MAX) {
        Read::Nothing => None,
        Read::Lagged(missed) => {
            reader.skip(missed);
            record.missed += missed;
            None
        }
        Read::Span(span) => {
            let after = reader.seq();
            reader.advance(&span);
            let batch = Batch::new(span, epoch());
            assert_eq!(batch.first().seq().number(), after + 1);
            record.note(&batch);
            Some(batch)
        }
    }
}

/// Reads all that there is.
fn drain(ring: &Ring, reader: &mut Reader, record: &mut Record) {
    while reader.seq() != ring.head() {
        look(ring, reader, record);
    }
}
