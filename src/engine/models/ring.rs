//! Publishing against publishing, reading and forgetting.

use super::*;
use crate::engine::ring::Retained;
use crate::engine::sync::thread::{self, JoinHandle};

#[test]
fn publish_against_read_across_a_segments_end() {
    model(|| {
        let ring = ring();
        filled(&ring, 1);
        let publisher = thread::spawn({
            let ring = Arc::clone(&ring);
            // The second goes to the next segment.
            move || {
                publish(&ring, &[2]);
                publish(&ring, &[3]);
            }
        });
        let (mut reader, mut record) = (Reader::after(0), Record::default());
        for _ in 0..2 {
            look(&ring, &mut reader, &mut record);
        }
        publisher.join().unwrap();
        drain(&ring, &mut reader, &mut record);
        assert_eq!(record.tags, BTreeMap::from([(1, 1), (2, 2), (3, 3)]));
    });
}

#[test]
fn a_batch_becomes_visible_as_a_whole() {
    model(|| {
        let ring = ring_of(Shape {
            segment_shift: 8,
            ..shape()
        });
        let batch = thread::spawn({
            let ring = Arc::clone(&ring);
            move || publish(&ring, &[2, 3])
        });
        // This one may be the first, and move the head over whatever is committed.
        publish(&ring, &[1]);
        let head = ring.head();
        let first = batch.join().unwrap();
        assert_ne!(head, first, "half of the batch was visible");
        assert_eq!(ring.head(), 3);
    });
}

#[test]
fn two_publishers_and_one_preempted_between_claim_and_commit() {
    model(|| {
        let ring = ring();
        let publishers = [b'a', b'b'].map(|tag| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || (publish(&ring, &[tag]), tag))
        });
        let answers = publishers.map(|publisher| publisher.join().unwrap());
        let (mut reader, mut record) = (Reader::after(0), Record::default());
        drain(&ring, &mut reader, &mut record);
        assert_eq!(record.tags, BTreeMap::from(answers), "none is left behind");
    });
}

/// The head tells of events that are not the last one's publisher's, too.
#[test]
fn a_reader_of_two_publishers() {
    model(|| {
        let ring = ring();
        let publishers = [b'a', b'b'].map(|tag| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || (publish(&ring, &[tag]), tag))
        });
        let (mut reader, mut record) = (Reader::after(0), Record::default());
        look(&ring, &mut reader, &mut record);
        let answers = publishers.map(|publisher| publisher.join().unwrap());
        drain(&ring, &mut reader, &mut record);
        assert_eq!(record.tags, BTreeMap::from(answers));
    });
}

#[test]
fn two_publishers_that_enter_the_same_segment() {
    model(|| {
        let ring = ring();
        filled(&ring, 2);
        let publishers = [b'a', b'b'].map(|tag| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || (publish(&ring, &[tag]), tag))
        });
        let (mut reader, mut record) = (Reader::after(2), Record::default());
        look(&ring, &mut reader, &mut record);
        let answers = publishers.map(|publisher| publisher.join().unwrap());
        drain(&ring, &mut reader, &mut record);
        assert_eq!(record.tags, BTreeMap::from(answers));
    });
}

/// The batch enters two segments. The event after it is the second of the last one:
/// its publisher finds that installed, by the other one, or installs it.
#[test]
fn a_publisher_comes_to_a_segment_that_another_one_installs() {
    large_model(|| {
        let ring = ring_of(Shape {
            slots: 4,
            in_flight: 4,
            max_batch_bytes: 192,
            index_entries: 16,
            ..shape()
        });
        filled(&ring, 2);
        let other = thread::spawn({
            let ring = Arc::clone(&ring);
            move || publish(&ring, &[b'a', b'b', b'c'])
        });
        let single = publish(&ring, &[b'x']);
        let batch = other.join().unwrap();
        let (mut reader, mut record) = (Reader::after(2), Record::default());
        drain(&ring, &mut reader, &mut record);
        let mut expected = BTreeMap::from([(single, b'x')]);
        expected.extend((batch..).zip([b'a', b'b', b'c']));
        assert_eq!(record.tags, expected);
    });
}

/// As before, but what the batch's publisher has seen to is older: the segment that
/// leaves the ring for the last one was sealed by it, and the other publisher knows of
/// that only by the claim.
#[test]
fn a_publisher_installs_for_one_that_knows_more() {
    deep_model(|| {
        let ring = ring_of(Shape {
            slots: 4,
            in_flight: 4,
            max_batch_bytes: 192,
            index_entries: 32,
            max_events: 16,
            ..shape()
        });
        filled(&ring, 2);
        let other = thread::spawn({
            let ring = Arc::clone(&ring);
            move || {
                (3..=6).for_each(|tag| _ = publish(&ring, &[tag]));
                publish(&ring, &[7, 8, 9]);
            }
        });
        publish(&ring, &[0]);
        other.join().unwrap();
        let (mut reader, mut record) = (Reader::after(0), Record::default());
        drain(&ring, &mut reader, &mut record);
        assert_eq!(record.tags.len() as u64 + record.missed, 10);
        let mut others = record.tags.into_values().filter(|tag| *tag != 0);
        let first = others.next().expect("the newest are still there");
        assert!((first + 1..=9).eq(others), "the other's, in its order");
    });
}

#[test]
fn eviction_against_a_reader_that_takes_a_lease() {
    model(|| {
        let ring = ring();
        // Segments 0 and 1 are full, 2 is installed: the next event installs 3 in
        // the slot of 0.
        filled(&ring, 4);
        let publisher = thread::spawn({
            let ring = Arc::clone(&ring);
            move || publish(&ring, &[5])
        });
        let (mut reader, mut record) = (Reader::after(0), Record::default());
        for _ in 0..2 {
            look(&ring, &mut reader, &mut record);
        }
        publisher.join().unwrap();
        drain(&ring, &mut reader, &mut record);
        assert_eq!(record.tags.len() as u64 + record.missed, 5);
        for (seq, tag) in record.tags {
            assert_eq!(seq, u64::from(tag));
        }
    });
}

#[test]
fn a_segment_is_used_again_while_its_batch_is_in_flight() {
    model(|| {
        let ring = ring_of(shape_of_single_frames(3));
        filled(&ring, 1);
        let reader = thread::spawn({
            let ring = Arc::clone(&ring);
            move || {
                let (mut reader, mut record) = (Reader::after(0), Record::default());
                let batch = look(&ring, &mut reader, &mut record);
                drop(reader);
                // Long after, it is what it was.
                thread::yield_now();
                if let Some(batch) = batch {
                    let mut again = Record::default();
                    again.note(&batch);
                    assert_eq!(again.tags, record.tags);
                }
            }
        });
        // The third takes segment 0 out of the ring. Where nobody holds it, it comes
        // back as segment 4, to which the fifth is written.
        for tag in 2..=5 {
            publish(&ring, &[tag]);
        }
        reader.join().unwrap();
    });
}

#[test]
fn a_spare_segment_goes_from_one_publisher_to_another() {
    large_model(|| {
        let shape = shape_of_single_frames(4);
        let ring = ring_of(shape);
        filled(&ring, 3);
        // One gives segment 0 back, the other takes it for its own, or a fresh one.
        let other = thread::spawn({
            let ring = Arc::clone(&ring);
            move || publish(&ring, &[0])
        });
        publish(&ring, &[0]);
        other.join().unwrap();
        // To whichever it was, something is written.
        publish(&ring, &[0]);
        assert_eq!(ring.head(), 6);
        let segments = (shape.slots + crate::engine::pool::SPARES) as u64;
        assert!(ring.pool().live_bytes() <= segments * shape.segment_bytes());
    });
}

// In the next two, whoever passes on what it knows of the head has it from another
// publisher: the fence of one that has moved the head itself would hide that it must
// pass that on, too.

/// One publisher takes note of the head, another counts from that and writes an index
/// entry: a reader that finds the new entry must come to know of that head.
#[test]
fn an_index_entry_is_overwritten_by_one_that_knows_the_head_by_hearsay() {
    deep_model(|| {
        let ring = ring_of(Shape {
            segment_shift: 10,
            max_batch_bytes: 153,
            ..shape()
        });
        filled(&ring, 6);
        let (reader, mover, counts_from_it) = (
            thread::spawn({
                let ring = Arc::clone(&ring);
                move || {
                    let (mut reader, mut record) = (Reader::after(2), Record::default());
                    look(&ring, &mut reader, &mut record);
                    (reader, record)
                }
            }),
            publishing(&ring, 3),
            // What it overwrites may be the entry of event 2.
            publishing(&ring, 3),
        );
        mover.join().unwrap();
        // Finds no room at hand, takes note of the head, and may be overtaken.
        publish(&ring, b"t");
        counts_from_it.join().unwrap();
        let (mut reader, mut record) = reader.join().unwrap();
        drain(&ring, &mut reader, &mut record);
        assert_eq!(record.tags.len() as u64 + record.missed, 11);
    });
}

/// A reader that finds that it has lagged must come to know of a head beyond that.
#[test]
fn a_floor_is_raised_by_one_that_knows_the_head_by_hearsay() {
    large_model(|| {
        let ring = ring_of(Shape {
            slots: 4,
            max_batch_bytes: 153,
            ..shape()
        });
        filled(&ring, 1);
        let reader = thread::spawn({
            let ring = Arc::clone(&ring);
            move || {
                let (mut reader, mut record) = (Reader::after(0), Record::default());
                for _ in 0..2 {
                    look(&ring, &mut reader, &mut record);
                }
                (reader, record)
            }
        });
        publishing(&ring, 3).join().unwrap();
        // Enters two segments, and gives up that of events 1 and 2.
        publish(&ring, b"ttt");
        let (mut reader, mut record) = reader.join().unwrap();
        drain(&ring, &mut reader, &mut record);
        assert_eq!(record.tags.len() as u64 + record.missed, 7);
    });
}

/// A thread that publishes a batch of so many events.
fn publishing(ring: &Arc<Ring>, events: usize) -> JoinHandle<u64> {
    let ring = Arc::clone(ring);
    thread::spawn(move || publish(&ring, &b"abc"[..events]))
}

#[test]
fn an_index_entry_is_overwritten_while_a_reader_looks_at_it() {
    model(|| {
        let ring = ring();
        filled(&ring, 6);
        let publisher = thread::spawn({
            let ring = Arc::clone(&ring);
            // The entries of these two were those of events 2 and 3.
            move || {
                publish(&ring, &[7, 8]);
                publish(&ring, &[9, 10]);
                publish(&ring, &[11]);
            }
        });
        let (mut reader, mut record) = (Reader::after(2), Record::default());
        // The second look may come after a floor that is beyond the first one's head.
        for _ in 0..2 {
            look(&ring, &mut reader, &mut record);
        }
        publisher.join().unwrap();
        drain(&ring, &mut reader, &mut record);
        assert_eq!(record.tags.len() as u64 + record.missed, 9);
        for (seq, tag) in record.tags {
            assert_eq!(seq, u64::from(tag));
        }
    });
}

#[test]
fn an_age_is_asked_for_while_its_entry_is_overwritten() {
    model(|| {
        let ring = ring();
        let publish_at = |ring: &Ring, time: u64| {
            let encoded = event(0);
            let event = Event::parse(&encoded).expect("it is valid");
            assert_eq!(put(ring, &[event], time).expect("it is open"), time);
        };
        (1..=8).for_each(|time| publish_at(&ring, time));
        let head = ring.head();
        let publisher = thread::spawn({
            let ring = Arc::clone(&ring);
            // The last of them has the entry of event 5.
            move || (9..=13).for_each(|time| publish_at(&ring, time))
        });
        match ring.retained(5, head) {
            Retained::Since { published_ms } => assert_eq!(published_ms, 5),
            Retained::Gone => {}
        }
        publisher.join().unwrap();
    });
}

#[test]
fn a_close_against_a_publish() {
    model(|| {
        let ring = ring();
        let publisher = thread::spawn({
            let ring = Arc::clone(&ring);
            move || {
                let encoded = event(1);
                let event = Event::parse(&encoded).expect("it is valid");
                put(&ring, &[event], 0).is_ok()
            }
        });
        ring.close();
        let ended_empty = ring.ends_at(0);
        let accepted = publisher.join().unwrap();
        assert!(
            !(ended_empty && accepted),
            "what was accepted comes before the end"
        );
        assert!(ring.ends_at(u64::from(accepted)));
    });
}
