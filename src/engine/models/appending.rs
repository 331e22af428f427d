//! Holes: made by the one that appends, met by those that read.

use super::*;
use crate::engine::ring::{Put, Retained};
use crate::engine::sync::thread;

/// Appends one event as sequence `first`, if the ring is open.
fn append(ring: &Ring, first: u64, tag: u8) -> Option<Put> {
    let encoded = event(tag);
    let event = Event::parse(&encoded).expect("it is valid");
    ring.append(first, &[event], 0, |_| ()).ok()
}

/// What a reader from `after` on finds in three looks and a drain, while `first` is
/// appended to a ring of the events up to `filled_to`.
fn read_while_appending(shape: Shape, filled_to: u8, after: u64, first: u64) -> Record {
    let ring = log_of(shape);
    filled(&ring, filled_to);
    let appender = thread::spawn({
        let ring = Arc::clone(&ring);
        move || append(&ring, first, b'x')
    });
    let (mut reader, mut record) = (Reader::after(after), Record::default());
    for _ in 0..3 {
        look(&ring, &mut reader, &mut record);
        // Never beyond what may be read.
        assert!(reader.seq() <= ring.head());
    }
    let missing = first - u64::from(filled_to) - 1;
    assert_eq!(appender.join().unwrap(), Some(Put::After { missing }));
    drain(&ring, &mut reader, &mut record);
    assert_eq!(record.tags.len() as u64 + record.missed, first - after);
    assert_eq!(record.tags.remove(&first), Some(b'x'));
    for (seq, tag) in &record.tags {
        assert_eq!(*seq, u64::from(*tag));
    }
    record
}

#[test]
fn a_hole_against_a_reader_before_it() {
    model(|| {
        let record = read_while_appending(shape(), 1, 0, 4);
        assert_eq!((record.tags.len(), record.missed), (1, 2));
    });
}

/// Segment 0 is full, and its reader looks for the next one.
#[test]
fn a_hole_against_a_reader_at_a_segments_end() {
    model(|| {
        let record = read_while_appending(shape(), 2, 1, 5);
        assert_eq!((record.tags.len(), record.missed), (1, 2));
    });
}

/// The entries of all retained events are overwritten, those of the reader's too.
#[test]
fn a_hole_larger_than_the_ring_against_a_reader() {
    model(|| _ = read_while_appending(shape(), 4, 2, 4 + 12));
}

/// More sequences than may be claimed at once, but fewer than are retained: what is
/// before the hole and stays in the ring is read from entries that stay.
#[test]
fn a_hole_that_overwrites_some_entries_against_a_reader() {
    large_model(|| {
        let shape = Shape {
            segment_shift: 8,
            slots: 5,
            index_entries: 8,
            max_events: 6,
            in_flight: 1,
            ..shape()
        };
        let record = read_while_appending(shape, 6, 3, 6 + 4);
        // Which of the events before the hole are read depends on the schedule.
        assert!((3..=6).contains(&record.missed));
    });
}

#[test]
fn an_age_is_asked_for_while_a_hole_overwrites_its_entry() {
    model(|| {
        let ring = log_of(shape());
        let encoded = event(0);
        let event = Event::parse(&encoded).expect("it is valid");
        for time in 1..=4 {
            put(&ring, &[event], time).expect("it is open");
        }
        let head = ring.head();
        let appender = thread::spawn({
            let ring = Arc::clone(&ring);
            move || append(&ring, 20, 0)
        });
        match ring.retained(3, head) {
            Retained::Since { published_ms } => assert_eq!(published_ms, 3),
            Retained::Gone => {}
        }
        appender.join().unwrap();
        assert_eq!(ring.retained(19, ring.head()), Retained::Gone);
    });
}

/// Also where the hole is so large that the claim word's low bits do not show it.
#[test]
fn a_close_against_a_hole() {
    for first in [4, 9, 10] {
        model(move || {
            let ring = log_of(shape());
            filled(&ring, 1);
            let appender = thread::spawn({
                let ring = Arc::clone(&ring);
                move || append(&ring, first, 0).is_some()
            });
            ring.close();
            let ended = ring.ends_at(1);
            let accepted = appender.join().unwrap();
            assert!(
                !(ended && accepted),
                "what was accepted comes before the end"
            );
            // Refused in the middle, it may leave the hole.
            let head = ring.head();
            assert!(accepted && head == first || !accepted && (head == 1 || head == first - 1));
            assert!(ring.ends_at(head));
        });
    }
}
