//! Histories made by hand: good ones that pass, and for each promise one in which
//! exactly that promise is broken, and named. `mutations` breaks random ones.

mod mutations;

use std::ops::RangeInclusive;

use super::*;
use crate::cursor::Seq;

fn epoch(number: u64) -> Epoch {
    Epoch::from_number(number).unwrap()
}

/// The place `seq` in the epoch of most tests.
fn at(seq: u64) -> Cursor {
    Cursor::new(epoch(0), Seq::new(seq))
}

/// The event that is published at `seq`.
fn event(seq: u64) -> Fingerprint {
    Fingerprint::of(&seq.to_le_bytes())
}

fn events(seqs: RangeInclusive<u64>) -> Vec<Fingerprint> {
    seqs.map(event).collect()
}

/// Publishes a batch that gets these places.
fn publish(publisher: &mut Publisher, seqs: RangeInclusive<u64>) {
    let publishing = publisher.publishing();
    accept(publisher, publishing, seqs);
}

fn accept(publisher: &mut Publisher, publishing: Publishing, seqs: RangeInclusive<u64>) {
    let (first, last) = (at(*seqs.start()), at(*seqs.end()));
    publisher.accepted(publishing, first, last, &events(seqs));
}

fn receive(stream: &mut Stream, seqs: RangeInclusive<u64>) {
    stream.received(seqs.map(|seq| (at(seq), event(seq))));
}

/// A gateway subscribes without a cursor when the head is `head`.
fn subscribe(history: &History, id: &str, head: u64) -> Stream {
    let subscribing = history.subscribing(id, "");
    subscribing.granted(Decision::NoCursor, at(head))
}

fn resume(history: &History, id: &str, seq: u64) -> Stream {
    let subscribing = history.subscribing(id, &at(seq).to_string());
    subscribing.granted(Decision::Resumed, at(seq))
}

/// The violations' texts; `@5` is the place 5.
fn told(history: &History) -> Vec<String> {
    let report = history.check();
    assert_eq!(report.found, report.violations.len() as u64);
    assert_eq!(report.is_clean(), report.violations.is_empty());
    (report.violations.iter())
        .map(|violation| {
            violation
                .to_string()
                .replace("000000000000-0000000000", "@")
        })
        .collect()
}

const NOTHING: [&str; 0] = [];

// --- good histories ---

#[test]
fn a_plain_history_is_clean() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    let mut stream = subscribe(&history, "g", 0);
    publish(&mut publisher, 1..=1);
    publish(&mut publisher, 2..=5);
    receive(&mut stream, 1..=3);
    receive(&mut stream, 4..=5);
    stream.ended(End::Closed);
    drop(publisher);
    assert_eq!(told(&history), NOTHING);
    let summary = history.check().summary;
    assert_eq!((summary.accepted_batches, summary.accepted_events), (2, 5));
    assert_eq!((summary.streams, summary.received_events), (1, 5));
    assert_eq!((summary.closed, summary.unverified_events), (1, 0));
}

#[test]
fn events_may_be_received_before_their_response_is_recorded() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    for round in 0..3000 {
        let publishing = publisher.publishing();
        let mut stream = subscribe(&history, "g", round);
        receive(&mut stream, round + 1..=round + 1);
        stream.ended(End::Cut);
        accept(&mut publisher, publishing, round + 1..=round + 1);
    }
    let publishing = publisher.publishing();
    let mut stream = subscribe(&history, "g", 3000);
    receive(&mut stream, 3001..=9000);
    accept(&mut publisher, publishing, 3001..=9000);
    let publishing = publisher.publishing();
    receive(&mut stream, 9001..=9001);
    accept(&mut publisher, publishing, 9001..=9001);
    drop((publisher, stream));
    assert_eq!(told(&history), NOTHING);
    assert_eq!(history.check().summary.unverified_events, 0);
}

#[test]
fn announced_gaps_are_fine() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    let mut stream = subscribe(&history, "g", 0);
    publish(&mut publisher, 1..=20);
    receive(&mut stream, 1..=2);
    stream.lagged(3);
    stream.lagged(1);
    receive(&mut stream, 7..=8);
    stream.ended(End::Lagged { missed: 12 });
    drop(publisher);
    assert_eq!(told(&history), NOTHING);
    let summary = history.check().summary;
    assert_eq!((summary.gaps, summary.missed_events), (2, 16));
}

#[test]
fn every_decision_may_be_right() {
    let history = History::new(Terms::default().retained_events(10));
    let mut publisher = history.publisher("p");
    publish(&mut publisher, 1..=20);
    resume(&history, "g", 20);
    resume(&history, "g", 3);
    let decided = |text: &str, decision| {
        let stream = history.subscribing("g", text).granted(decision, at(20));
        stream.ended(End::Cut);
    };
    decided("", Decision::NoCursor);
    decided("nonsense", Decision::Malformed);
    decided(&at(21).to_string(), Decision::Ahead);
    decided(&at(9).to_string(), Decision::Expired { missed: 11 });
    let other = Cursor::new(epoch(7), Seq::new(3));
    decided(&other.to_string(), Decision::OtherEpoch);
    history.subscribing("g", "").refused();
    drop(publisher);
    assert_eq!(told(&history), NOTHING);
}

#[test]
fn a_stream_may_receive_what_was_published_before_it_was_taken_over() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    let mut older = subscribe(&history, "g", 0);
    publish(&mut publisher, 1..=2);
    let under_way = publisher.publishing();
    let newer = subscribe(&history, "g", 2);
    publish(&mut publisher, 4..=4);
    accept(&mut publisher, under_way, 3..=3);
    receive(&mut older, 1..=3);
    older.ended(End::TakenOver);
    drop((publisher, newer));
    assert_eq!(told(&history), NOTHING);
}

#[test]
fn of_two_subscriptions_at_once_either_may_be_the_newer() {
    let history = History::default();
    let one = history.subscribing("g", "");
    let other = history.subscribing("g", "");
    let mut one = one.granted(Decision::NoCursor, at(0));
    let other = other.granted(Decision::NoCursor, at(0));
    other.ended(End::TakenOver);
    let mut publisher = history.publisher("p");
    publish(&mut publisher, 1..=1);
    receive(&mut one, 1..=1);
    drop((publisher, one));
    assert_eq!(told(&history), NOTHING);
}

#[test]
fn after_a_restart_the_numbers_begin_anew() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    publish(&mut publisher, 1..=5);
    let next = |seq| Cursor::new(epoch(1), Seq::new(seq));
    let publishing = publisher.publishing();
    publisher.accepted(publishing, next(1), next(1), &[event(1)]);
    let subscribing = history.subscribing("g", &at(5).to_string());
    let mut stream = subscribing.granted(Decision::OtherEpoch, next(0));
    stream.received([(next(1), event(1))]);
    stream.ended(End::Closed);
    drop(publisher);
    assert_eq!(told(&history), NOTHING);
}

#[test]
fn a_lost_batch_is_there_as_a_whole_or_not_at_all() {
    for present in [false, true] {
        for received in [false, true] {
            let history = History::default();
            let mut publisher = history.publisher("p");
            let publishing = publisher.publishing();
            publisher.no_response(publishing, &events(1..=3));
            if present {
                publish(&mut publisher, 4..=4);
                if received {
                    let mut stream = subscribe(&history, "g", 0);
                    receive(&mut stream, 1..=4);
                }
            }
            drop(publisher);
            assert_eq!(told(&history), NOTHING, "{present}, {received}");
        }
    }
}

#[test]
fn a_lost_batch_that_is_published_again_may_be_there_twice() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    let mut stream = subscribe(&history, "g", 0);
    for _ in 0..3 {
        let publishing = publisher.publishing();
        publisher.no_response(publishing, &events(1..=2));
    }
    let twice = events(1..=2).repeat(2);
    stream.received((1..=4).map(at).zip(twice));
    drop((publisher, stream));
    assert_eq!(told(&history), NOTHING);
}

#[test]
fn what_was_there_before_the_record_is_not_compared() {
    let history = History::new(Terms::default().after(at(100)));
    let mut publisher = history.publisher("p");
    let mut stream = resume(&history, "g", 90);
    publish(&mut publisher, 101..=102);
    receive(&mut stream, 91..=102);
    stream.ended(End::Closed);
    drop(publisher);
    assert_eq!(told(&history), NOTHING);
    assert_eq!(history.check().summary.unverified_events, 10);
}

#[test]
fn what_other_publishers_published_is_not_compared() {
    let history = History::new(Terms::default().other_publishers(true));
    let mut publisher = history.publisher("p");
    let mut stream = subscribe(&history, "g", 0);
    publish(&mut publisher, 5..=6);
    receive(&mut stream, 1..=9);
    stream.ended(End::Closed);
    drop(publisher);
    assert_eq!(told(&history), NOTHING);
    assert_eq!(history.check().summary.unverified_events, 7);
}

#[test]
fn what_was_forgotten_is_not_compared() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    let mut late = subscribe(&history, "late", 0);
    publish(&mut publisher, 1..=10_000);
    history.forget_before(at(10_000));
    receive(&mut late, 1..=10_000);
    late.ended(End::Closed);
    drop(publisher);
    assert_eq!(told(&history), NOTHING);
    assert_eq!(history.check().summary.unverified_events, 8192);
}

#[test]
fn a_check_can_be_repeated() {
    let history = History::default();
    let mut stream = subscribe(&history, "g", 0);
    receive(&mut stream, 1..=1);
    stream.ended(End::Cut);
    assert!(history.so_far().is_clean());
    assert_eq!(told(&history).len(), 2, "unpublished, and a hole");
    assert_eq!(told(&history).len(), 2);
}

// --- streams ---

/// What is told of a stream that starts at 0 and of which `events` are received,
/// when 1 to 9 were published.
fn told_of_stream(record: impl FnOnce(&mut Stream)) -> Vec<String> {
    let history = History::default();
    let mut publisher = history.publisher("p");
    let mut stream = subscribe(&history, "g", 0);
    publish(&mut publisher, 1..=9);
    record(&mut stream);
    stream.ended(End::Cut);
    drop(publisher);
    told(&history)
}

#[test]
fn an_event_that_comes_twice() {
    let told = told_of_stream(|stream| {
        receive(stream, 1..=3);
        receive(stream, 3..=4);
    });
    assert_eq!(
        told,
        ["g (stream 1): @3 came after @3: out of order, or a second time"]
    );
}

#[test]
fn an_event_that_comes_too_early() {
    let told = told_of_stream(|stream| {
        receive(stream, 1..=1);
        receive(stream, 3..=3);
        receive(stream, 2..=2);
        receive(stream, 4..=4);
    });
    assert_eq!(
        told,
        [
            "g (stream 1): @3 came after @1: a gap that was not announced",
            "g (stream 1): @2 came after @3: out of order, or a second time",
        ]
    );
}

#[test]
fn an_event_from_before_the_start() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    publish(&mut publisher, 1..=9);
    let mut stream = resume(&history, "g", 5);
    receive(&mut stream, 5..=6);
    drop((publisher, stream));
    assert_eq!(
        told(&history),
        ["g (stream 1): @5 came after @5: out of order, or a second time"]
    );
}

#[test]
fn a_gap_that_nobody_announced() {
    let told = told_of_stream(|stream| receive(stream, 2..=3));
    assert_eq!(
        told,
        ["g (stream 1): @2 came after @0: a gap that was not announced"]
    );
}

#[test]
fn a_gap_of_another_size() {
    for announced in [1, 3] {
        let told = told_of_stream(|stream| {
            receive(stream, 1..=2);
            stream.lagged(announced);
            receive(stream, 5..=6);
        });
        assert_eq!(
            told,
            [format!(
                "g (stream 1): told that it missed {announced} events after @2, and missed 2"
            )]
        );
    }
}

#[test]
fn a_gap_that_ends_beyond_the_last_place_there_can_be() {
    let told = told_of_stream(|stream| stream.lagged(u64::MAX));
    assert_eq!(
        told,
        ["g (stream 1): has come to 000000000000-ZZZZZZZZZZZ, the head is @9"]
    );
}

#[test]
fn a_gap_of_nothing() {
    let told = told_of_stream(|stream| stream.lagged(0));
    assert_eq!(
        told,
        ["g (stream 1): told after @0 that it missed 0 events"]
    );
}

#[test]
fn an_event_of_another_epoch() {
    let told = told_of_stream(|stream| {
        receive(stream, 1..=2);
        let other = Cursor::new(epoch(1), Seq::new(3));
        stream.received([(other, event(3))]);
    });
    assert_eq!(
        told,
        ["g (stream 1): 000000000001-00000000003 came after @2: another epoch in the same stream"]
    );
}

#[test]
fn other_contents() {
    for accepted_first in [false, true] {
        let history = History::default();
        let mut publisher = history.publisher("p");
        let mut stream = subscribe(&history, "g", 0);
        let publishing = publisher.publishing();
        if accepted_first {
            accept(&mut publisher, publishing, 1..=2);
        }
        stream.received([(at(1), event(1)), (at(2), event(7))]);
        if !accepted_first {
            accept(&mut publisher, publishing, 1..=2);
        }
        drop((publisher, stream));
        let expected = format!(
            "g (stream 1): @2 has the contents {}, its publisher published {}",
            event(7),
            event(2)
        );
        assert_eq!(told(&history), [expected]);
    }
}

#[test]
fn other_contents_than_another_stream_has() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    let publishing = publisher.publishing();
    publisher.no_response(publishing, &[event(1)]);
    let mut one = subscribe(&history, "g", 0);
    let mut other = subscribe(&history, "h", 0);
    one.received([(at(1), event(1))]);
    other.received([(at(1), event(2))]);
    one.ended(End::Cut);
    other.ended(End::Cut);
    drop(publisher);
    let told = told(&history);
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("h (stream 1): @1 has the contents"));
}

// --- publishing ---

#[test]
fn an_event_from_nowhere() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    let mut stream = subscribe(&history, "g", 0);
    publish(&mut publisher, 1..=1);
    receive(&mut stream, 1..=2);
    drop((publisher, stream));
    assert_eq!(
        told(&history),
        [
            format!(
                "g (stream 1): @2 has the contents {}, which nobody published",
                event(2)
            ),
            "no response names @2 to @2".to_owned(),
        ]
    );
}

#[test]
fn a_refused_event() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    let mut stream = subscribe(&history, "g", 0);
    publisher.refused(&events(1..=2));
    receive(&mut stream, 1..=1);
    drop((publisher, stream));
    assert_eq!(
        told(&history),
        [
            "g (stream 1): @1 is an event that p published and was refused",
            "no response names @1 to @1",
        ]
    );
}

#[test]
fn a_lost_batch_in_part() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    let mut stream = subscribe(&history, "g", 0);
    let publishing = publisher.publishing();
    publisher.no_response(publishing, &events(1..=3));
    publish(&mut publisher, 3..=4);
    receive(&mut stream, 1..=4);
    drop((publisher, stream));
    let torn =
        |seq| format!("g (stream 1): @{seq} is of a batch of p that is not there as a whole");
    assert_eq!(told(&history), [torn(1), torn(2)]);
}

#[test]
fn a_lost_batch_with_something_else_in_it() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    let mut stream = subscribe(&history, "g", 0);
    let publishing = publisher.publishing();
    publisher.no_response(publishing, &events(1..=3));
    stream.received([(at(1), event(1)), (at(2), event(7)), (at(3), event(3))]);
    drop((publisher, stream));
    assert_eq!(
        told(&history),
        ["g (stream 1): @2 is of a batch of p that is not there as a whole"]
    );
}

#[test]
fn a_lost_batch_before_what_was_known() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    publish(&mut publisher, 2..=2);
    let publishing = publisher.publishing();
    publisher.no_response(publishing, &[event(1)]);
    let mut stream = resume(&history, "g", 0);
    receive(&mut stream, 1..=2);
    drop((publisher, stream));
    assert_eq!(
        told(&history)[0],
        "g (stream 1): @1 is of a batch of p that is not there as a whole"
    );
}

#[test]
fn more_holes_than_lost_events() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    let publishing = publisher.publishing();
    publisher.no_response(publishing, &events(1..=2));
    publish(&mut publisher, 3..=3);
    publish(&mut publisher, 5..=5);
    drop(publisher);
    assert_eq!(
        told(&history),
        ["no response names @1 to @2", "no response names @4 to @4"]
    );
}

#[test]
fn a_response_that_does_not_fit_the_batch() {
    for last in [at(2), at(4), at(0), Cursor::new(epoch(1), Seq::new(3))] {
        let history = History::default();
        let mut publisher = history.publisher("p");
        let publishing = publisher.publishing();
        publisher.accepted(publishing, at(1), last, &events(1..=3));
        drop(publisher);
        let last = last.to_string().replace("000000000000-0000000000", "@");
        assert_eq!(
            told(&history),
            [format!(
                "p: published 3 events, and the response names @1 to {last}"
            )]
        );
    }
}

#[test]
fn a_response_before_what_was_known() {
    type Make = fn(&History, &mut Publisher);
    let known: [(&str, Make); 3] = [
        ("accepted", |_, publisher| publish(publisher, 1..=2)),
        ("received", |history, _| {
            receive(&mut subscribe(history, "g", 0), 1..=2);
        }),
        ("a start", |history, _| drop(subscribe(history, "g", 2))),
    ];
    for (what, make) in known {
        let history = History::default();
        let mut publisher = history.publisher("p");
        let under_way = publisher.publishing();
        make(&history, &mut publisher);
        let publishing = publisher.publishing();
        if what != "accepted" {
            accept(&mut publisher, under_way, 1..=1);
        }
        let seq = if what == "accepted" { 0 } else { 2 };
        accept(&mut publisher, publishing, seq..=seq);
        drop(publisher);
        assert_eq!(
            told(&history),
            [format!(
                "p: the response names @{seq}, and @2 was known before it published"
            )],
            "{what}"
        );
    }
}

#[test]
fn a_response_of_an_older_epoch() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    let newer = Cursor::new(epoch(1), Seq::new(1));
    let publishing = publisher.publishing();
    publisher.accepted(publishing, newer, newer, &[event(1)]);
    publish(&mut publisher, 1..=1);
    drop(publisher);
    assert_eq!(
        told(&history),
        ["p: the response names @1, and 000000000001-00000000001 was known before it published"]
    );
}

#[test]
fn a_place_that_is_given_twice() {
    let history = History::default();
    let mut one = history.publisher("one");
    let mut other = history.publisher("other");
    let publishing = other.publishing();
    publish(&mut one, 1..=3);
    accept(&mut other, publishing, 3..=4);
    drop((one, other));
    assert_eq!(
        told(&history),
        ["other: the response names @3, which has another event already"]
    );
}

#[test]
fn a_hole_in_the_responses() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    publish(&mut publisher, 1..=1);
    publish(&mut publisher, 4..=5);
    drop(publisher);
    assert_eq!(told(&history), ["no response names @2 to @3"]);
}

// --- starts ---

/// What is told of a subscription that asks for `cursor`, when 1 to 20 were published
/// (all but the first five as one batch) and 20 was received.
fn told_of_start(cursor: &str, decision: Decision, start: Cursor) -> Vec<String> {
    let history = History::new(Terms::default().retained_events(10));
    let mut publisher = history.publisher("p");
    publish(&mut publisher, 1..=5);
    publish(&mut publisher, 6..=20);
    receive(&mut subscribe(&history, "seen", 0), 1..=20);
    let stream = history.subscribing("g", cursor).granted(decision, start);
    stream.ended(End::Cut);
    drop(publisher);
    told(&history)
}

#[test]
fn a_stream_that_resumes_elsewhere() {
    assert_eq!(
        told_of_start(&at(5).to_string(), Decision::Resumed, at(6)),
        ["g (stream 1): asked for @5, and was resumed at @6"]
    );
}

#[test]
fn a_decision_that_does_not_follow() {
    let (five, head) = (at(5).to_string(), at(20).to_string());
    let other = Cursor::new(epoch(1), Seq::new(5)).to_string();
    let cases = [
        ("", Decision::Resumed),
        ("", Decision::Malformed),
        ("nonsense", Decision::NoCursor),
        (&five, Decision::NoCursor),
        (&five, Decision::Malformed),
        (&five, Decision::OtherEpoch),
        (&five, Decision::Ahead),
        (&head, Decision::Expired { missed: 0 }),
        (&head, Decision::Ahead),
        (&other, Decision::Ahead),
        (&other, Decision::Expired { missed: 15 }),
    ];
    for (cursor, decision) in cases {
        let told = told_of_start(cursor, decision, at(20));
        assert_eq!(told.len(), 1, "{cursor}, {decision}: {told:?}");
        assert!(told[0].contains("and was told"), "{told:?}");
    }
    let resumed = told_of_start(&other, Decision::Resumed, at(20));
    assert!(resumed[0].contains("was resumed at @M"), "{resumed:?}");
}

#[test]
fn a_cursor_that_is_called_ahead_and_was_seen() {
    assert_eq!(
        told_of_start(&at(20).to_string(), Decision::Ahead, at(19)),
        ["g (stream 1): asked for @M, and was told \"fresh, ahead\" at @K"]
    );
}

#[test]
fn an_expired_cursor_with_another_count() {
    for announced in [14, 16] {
        let expired = Decision::Expired { missed: announced };
        assert_eq!(
            told_of_start(&at(5).to_string(), expired, at(20)),
            [format!(
                "g (stream 1): told that it missed {announced} events after @5, and missed 15"
            )]
        );
    }
}

#[test]
fn a_cursor_that_expires_inside_of_the_ring() {
    let expired = |missed| Decision::Expired { missed };
    assert_eq!(
        told_of_start(&at(9).to_string(), expired(11), at(20)),
        NOTHING
    );
    assert_eq!(
        told_of_start(&at(10).to_string(), expired(10), at(20)),
        ["g (stream 1): @A was said to have expired, only 10 events behind the head"]
    );
}

#[test]
fn a_fresh_start_behind_the_head() {
    assert_eq!(
        told_of_start("", Decision::NoCursor, at(5)),
        ["g (stream 1): starts at @5, when @M was known"]
    );
}

#[test]
fn a_start_in_an_epoch_that_is_over() {
    let history = History::default();
    let newer = Cursor::new(epoch(1), Seq::ZERO);
    let stream = history.subscribing("g", "");
    drop(stream.granted(Decision::NoCursor, newer));
    drop(resume(&history, "g", 0));
    assert_eq!(
        told(&history),
        ["g (stream 2): starts at @0, when 000000000001-00000000000 was known"]
    );
}

#[test]
fn a_fresh_start_past_the_head() {
    assert_eq!(
        told_of_start("", Decision::NoCursor, at(21)),
        ["g (stream 1): has come to @N, the head is @M"]
    );
}

#[test]
fn a_fresh_start_inside_of_a_batch() {
    for accepted_first in [false, true] {
        let history = History::default();
        let mut publisher = history.publisher("p");
        let publishing = publisher.publishing();
        let mut stream = subscribe(&history, "g", 2);
        if accepted_first {
            accept(&mut publisher, publishing, 1..=3);
        }
        receive(&mut stream, 3..=3);
        if !accepted_first {
            accept(&mut publisher, publishing, 1..=3);
        }
        let mut resumed = resume(&history, "resuming there is fine", 2);
        receive(&mut resumed, 3..=3);
        drop((publisher, stream, resumed));
        assert_eq!(
            told(&history),
            ["g (stream 1): starts at @2, inside of a batch"]
        );
    }
}

// --- ends ---

#[test]
fn a_closed_stream_that_lacks_something() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    let mut stream = subscribe(&history, "g", 0);
    publish(&mut publisher, 1..=3);
    receive(&mut stream, 1..=2);
    stream.ended(End::Closed);
    subscribe(&history, "stopped", 2).ended(End::Stopped);
    subscribe(&history, "complete", 3).ended(End::Closed);
    drop(publisher);
    assert_eq!(
        told(&history),
        ["g (stream 1): closed at @2, the head is @3"]
    );
}

#[test]
fn a_closed_stream_that_lacks_what_another_one_received() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    let publishing = publisher.publishing();
    publisher.no_response(publishing, &events(1..=2));
    receive(&mut subscribe(&history, "other", 0), 1..=1);
    subscribe(&history, "g", 1).ended(End::Closed);
    drop(publisher);
    assert_eq!(
        told(&history),
        ["g (stream 1): closed at @1, the head is @2"]
    );
}

#[test]
fn a_last_gap_that_is_too_large() {
    for end in [End::Cut, End::Closed, End::Lagged { missed: 1 }] {
        let history = History::default();
        let mut publisher = history.publisher("p");
        let mut stream = subscribe(&history, "g", 0);
        publish(&mut publisher, 1..=3);
        receive(&mut stream, 1..=1);
        stream.lagged(if end == (End::Lagged { missed: 1 }) {
            2
        } else {
            3
        });
        stream.ended(end);
        drop(publisher);
        assert_eq!(
            told(&history),
            ["g (stream 1): has come to @4, the head is @3"],
            "{end:?}"
        );
    }
}

#[test]
fn a_stream_that_nobody_took_over() {
    let history = History::default();
    drop(subscribe(&history, "g", 0));
    drop(subscribe(&history, "another id", 0));
    subscribe(&history, "g", 0).ended(End::TakenOver);
    assert_eq!(
        told(&history),
        ["g (stream 2): taken over at @0, by nobody"]
    );
}

#[test]
fn a_subscription_without_a_response_may_have_taken_over() {
    let history = History::default();
    drop(history.subscribing("g", ""));
    subscribe(&history, "g", 0).ended(End::TakenOver);
    let older = subscribe(&history, "h", 0);
    drop(history.subscribing("h", ""));
    older.ended(End::TakenOver);
    assert_eq!(told(&history), NOTHING);
}

#[test]
fn a_stream_that_goes_on_after_it_was_taken_over() {
    for end in [End::TakenOver, End::Cut] {
        let history = History::default();
        let mut publisher = history.publisher("p");
        let mut older = subscribe(&history, "g", 0);
        publish(&mut publisher, 1..=1);
        let newer = subscribe(&history, "g", 1);
        publish(&mut publisher, 2..=3);
        publish(&mut publisher, 4..=4);
        receive(&mut older, 1..=2);
        older.ended(end);
        drop((publisher, newer));
        assert_eq!(
            told(&history),
            ["g (stream 1): received @2, but was taken over before @2 was published"]
        );
    }
}

// --- replays of revocations ---

/// The session that is invalidated at each of some places.
const INVALIDATIONS: [(u64, u8); 5] = [(2, b'a'), (3, b'b'), (5, b'a'), (7, b'c'), (9, b'b')];

/// What is told of a gateway that stood at `after`, starts at 8, and is told the sessions at
/// these places.
fn told_of_replay(after: u64, is_complete: bool, told_places: &[(u64, u8)]) -> Vec<String> {
    let history = History::default();
    let mut publisher = history.publisher("p");
    publish(&mut publisher, 1..=10);
    for (seq, session) in INVALIDATIONS {
        publisher.invalidated(at(seq), Fingerprint::of(&[session]));
    }
    let subscribing = history.subscribing("g", &at(after).to_string());
    let missed = 8 - after;
    let mut stream = subscribing.granted(Decision::Expired { missed }, at(8));
    let places = told_places.iter();
    let places = places.map(|(seq, session)| (at(*seq), Fingerprint::of(&[*session])));
    stream.replayed(is_complete, places.collect::<Vec<_>>());
    stream.ended(End::Cut);
    drop(publisher);
    let found = told(&history);
    assert_eq!(told(&history), found, "a check can be repeated");
    found
}

#[test]
fn a_replay_has_the_newest_of_each_session() {
    let all = [(3, b'b'), (5, b'a'), (7, b'c')];
    assert_eq!(told_of_replay(1, true, &all), NOTHING);
    assert_eq!(told_of_replay(3, true, &all[1..]), NOTHING);
    assert_eq!(told_of_replay(7, true, &[]), NOTHING);
    // Of a partial one anything may be missing.
    assert_eq!(told_of_replay(1, false, &all[2..]), NOTHING);
    assert_eq!(told_of_replay(1, false, &[]), NOTHING);
}

#[test]
fn a_replay_that_lacks_one() {
    for lacking in 0..3 {
        let mut some = vec![(3, b'b'), (5, b'a'), (7, b'c')];
        let (missing, _) = some.remove(lacking);
        assert_eq!(
            told_of_replay(1, true, &some),
            [format!(
                "g (stream 1): was told all from before @8, and not @{missing}"
            )]
        );
    }
}

#[test]
fn a_replay_with_one_that_is_not_due() {
    for (places, wrong) in [
        // Another one was newer.
        (&[(2, b'a')][..], 2),
        // Published after the start, and so an event of the stream.
        (&[(9, b'b')], 9),
        // Not that session's.
        (&[(3, b'c')], 3),
        // No invalidation.
        (&[(4, b'a')], 4),
        // Out of order, or twice.
        (&[(5, b'a'), (3, b'b')], 3),
        (&[(5, b'a'), (5, b'a')], 5),
    ] {
        assert_eq!(
            told_of_replay(1, false, places),
            [format!(
                "g (stream 1): of those from before @8 it was told @{wrong}, which is not due there"
            )]
        );
    }
    // It was processed before.
    let found = told_of_replay(3, true, &[(3, b'b'), (5, b'a'), (7, b'c')]);
    assert_eq!(found.len(), 1, "{found:?}");
}

/// Its publisher does not know where it stands.
#[test]
fn a_replay_with_one_whose_response_was_lost() {
    let history = History::default();
    let mut publisher = history.publisher("p");
    publish(&mut publisher, 1..=1);
    publisher.invalidated(at(1), Fingerprint::of(b"a"));
    let publishing = publisher.publishing();
    publisher.no_response(publishing, &events(2..=2));
    let mut stream = subscribe(&history, "g", 2);
    stream.replayed(true, [(at(2), Fingerprint::of(b"a"))]);
    stream.ended(End::Cut);
    drop(publisher);
    assert_eq!(told(&history), NOTHING);
    assert_eq!(history.check().summary.unverified_events, 1);
}
