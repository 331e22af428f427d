//! An engine that follows a log: sequences from outside, and holes.

use super::*;

fn appended(builder: Builder) -> (Engine, Appender) {
    builder.build_appended(epoch()).unwrap()
}

/// Appends so many events from `first` on; returns how many are missing before.
fn append(appender: &mut Appender, first: u64, events: usize) -> u64 {
    let bytes = encoded(first, 8);
    let batch = vec![Event::parse(&bytes).unwrap(); events];
    match appender.append(Seq::new(first), &batch).unwrap() {
        Appended::After { missing, published } => {
            let last = first + events as u64 - 1;
            let expected = [first, last].map(|seq| Cursor::new(epoch(), Seq::new(seq)));
            assert_eq!([published.first, published.last], expected);
            missing
        }
        Appended::Repeated => panic!("{first} is new"),
    }
}

/// The first and the last sequence of the next batch.
fn receive(subscriber: &mut Subscriber) -> Result<(u64, u64), TryRecvError> {
    subscriber.try_recv().map(|batch| {
        assert_eq!(batch.events().count(), batch.len());
        for (event, seq) in batch.events().zip(batch.first().seq().number()..) {
            let cursor = Cursor::new(epoch(), Seq::new(seq)).to_string();
            assert!(event.ends_with(cursor.as_bytes()));
        }
        (batch.first().seq().number(), batch.last().seq().number())
    })
}

#[test]
fn what_is_appended_has_the_sequences_and_the_epoch_of_the_log() {
    let other = Epoch::new(5, 0).unwrap();
    let (engine, mut appender) = appended(small().epoch(other));
    let mut subscriber = engine.subscribe("g", "").unwrap();
    assert_eq!(append(&mut appender, 1, 3), 0);
    assert_eq!(append(&mut appender, 4, 1), 0);
    assert_eq!(engine.head(), Cursor::new(epoch(), Seq::new(4)));
    assert_eq!(receive(&mut subscriber), Ok((1, 4)));
}

#[test]
#[should_panic(expected = "has no Publisher")]
fn an_engine_has_an_appender_or_publishers() {
    let (engine, _appender) = appended(small());
    let _ = engine.publisher();
}

#[test]
fn subscribers_before_a_hole_receive_what_is_before_it_and_learn_its_size() {
    let (engine, mut appender) = appended(small());
    let mut behind = engine.subscribe("behind", "").unwrap();
    append(&mut appender, 1, 2);
    let mut at_the_hole = engine.subscribe("at", "").unwrap();
    assert_eq!(append(&mut appender, 10, 2), 7);
    assert_eq!(behind.lag(), 11);
    assert_eq!(receive(&mut behind), Ok((1, 2)));
    for subscriber in [&mut behind, &mut at_the_hole] {
        assert_eq!(receive(subscriber), Err(TryRecvError::Lagged(7)));
        assert_eq!(subscriber.position().seq(), Seq::new(9));
        assert_eq!(receive(subscriber), Ok((10, 11)));
        assert_eq!(receive(subscriber), Err(TryRecvError::Empty));
    }
}

#[test]
fn a_hole_after_a_segment_that_is_full_to_the_last_byte() {
    let (engine, mut appender) = appended(small().max_event_bytes(97));
    let segment = engine.limits().segment_bytes;
    // 128 bytes with its frame.
    let bytes = encoded(0, 87);
    assert_eq!(bytes.len(), 97);
    let full = vec![Event::parse(&bytes).unwrap(); segment as usize / 128];
    let mut subscriber = engine.subscribe("g", "").unwrap();
    appender.append(Seq::new(1), &full).unwrap();
    let last = full.len() as u64;
    let mut fresh = engine.subscribe("h", "").unwrap();
    append(&mut appender, last + 4, 1);
    assert_eq!(receive(&mut subscriber), Ok((1, last)));
    for subscriber in [&mut subscriber, &mut fresh] {
        assert_eq!(receive(subscriber), Err(TryRecvError::Lagged(3)));
        assert_eq!(receive(subscriber), Ok((last + 4, last + 4)));
    }
}

#[test]
fn the_resume_table_at_a_hole() {
    let (engine, mut appender) = appended(small());
    append(&mut appender, 1, 5);
    append(&mut appender, 10, 3);
    let start = |seq| {
        let cursor = Cursor::new(epoch(), Seq::new(seq)).to_string();
        let mut subscriber = engine.subscribe("g", &cursor).unwrap();
        let start = subscriber.start();
        let next = receive(&mut subscriber);
        (start.resume, start.cursor.seq().number(), next)
    };
    assert_eq!(start(4), (Resume::Resumed, 4, Ok((5, 5))));
    // Its next event is missing, and so is that of all but the last one missing.
    for seq in 5..=8 {
        let missed = 12 - seq;
        let expired = (Resume::Expired { missed }, 12, Err(TryRecvError::Empty));
        assert_eq!(start(seq), expired, "{seq}");
    }
    assert_eq!(start(9), (Resume::Resumed, 9, Ok((10, 12))));
    assert_eq!(start(10), (Resume::Resumed, 10, Ok((11, 12))));
    assert_eq!(start(12).0, Resume::Resumed);
    assert_eq!(start(13).0, Resume::Ahead);
}

#[test]
fn an_engine_that_starts_in_the_middle_of_its_log() {
    let (engine, mut appender) = appended(small());
    assert_eq!(append(&mut appender, 1 << 40, 2), (1 << 40) - 1);
    assert_eq!(engine.stats().retained_events, 2);
    let resume = |seq| {
        let cursor = Cursor::new(epoch(), Seq::new(seq)).to_string();
        engine.subscribe("g", &cursor).unwrap().start().resume
    };
    let missed = (1 << 40) + 1;
    assert_eq!(resume(0), Resume::Expired { missed });
    assert_eq!(resume((1 << 40) - 2), Resume::Expired { missed: 3 });
    assert_eq!(resume((1 << 40) - 1), Resume::Resumed);
    append(&mut appender, (1 << 40) + 2, 1);
    assert_eq!(engine.stats().retained_events, 3);
}

#[test]
fn a_hole_larger_than_the_ring_leaves_nothing_before_it() {
    let (engine, mut appender) = appended(small().max_events(10));
    let in_flight = engine.limits().max_batch_events as u64;
    let mut first = 1;
    for missing in [9, 10, 11, in_flight, in_flight + 1, 1 << 23, 1 << 40] {
        append(&mut appender, first, 5);
        let before = first + 4;
        let cursor = Cursor::new(epoch(), Seq::new(before - 3)).to_string();
        let mut behind = engine.subscribe("g", &cursor).unwrap();
        first = before + missing + 1;
        assert_eq!(append(&mut appender, first, 1), missing);
        // Ten sequences are kept, and the newest is the only event among them.
        assert_eq!(engine.stats().retained_events, 1, "{missing}");
        let lagged = Err(TryRecvError::Lagged(3 + missing));
        assert_eq!(receive(&mut behind), lagged);
        assert_eq!(receive(&mut behind), Ok((first, first)));
        first += 1;
    }
}

#[test]
fn a_hole_moves_out_of_the_ring_like_events() {
    let (engine, mut appender) = appended(small().max_events(10));
    append(&mut appender, 1, 4);
    let mut subscriber = engine.subscribe("g", "").unwrap();
    append(&mut appender, 9, 1);
    // 3, 4, four that are missing, and four more events.
    append(&mut appender, 10, 3);
    assert_eq!(engine.stats().retained_events, 10);
    append(&mut appender, 13, 2);
    // The oldest is in the hole now.
    assert_eq!(engine.stats().retained_events, 6);
    assert_eq!(receive(&mut subscriber), Err(TryRecvError::Lagged(4)));
    assert_eq!(receive(&mut subscriber), Ok((9, 14)));
}

#[test]
fn a_repetition_is_ignored_and_disorder_is_refused() {
    let (engine, mut appender) = appended(small());
    append(&mut appender, 1, 4);
    append(&mut appender, 8, 2);
    let mut subscriber = engine.subscribe("g", "").unwrap();
    let bytes = encoded(0, 1);
    let event = Event::parse(&bytes).unwrap();
    let mut again = |first, events| appender.append(Seq::new(first), &vec![event; events]);
    let out_of_order = |first, last| {
        let [first, last, head] = [first, last, 9].map(Seq::new);
        Err(AppendError::OutOfOrder { first, last, head })
    };
    for (first, events) in [(1, 4), (2, 1), (8, 2), (9, 1)] {
        assert_eq!(again(first, events), Ok(Appended::Repeated));
    }
    assert_eq!(again(9, 2), out_of_order(9, 10), "half of it is new");
    assert_eq!(again(0, 1), out_of_order(0, 0), "no event has that");
    assert_eq!(again(6, 1), out_of_order(6, 6), "it was said to be missing");
    assert_eq!(again(4, 2), out_of_order(4, 5));
    assert_eq!(
        again(6, 1).unwrap_err().to_string(),
        "events 6 to 6 neither follow 9, the newest, nor repeat earlier ones"
    );
    assert_eq!(again(12, 0), Err(PublishError::NoEvents.into()));
    assert_eq!(
        again(Seq::MAX.number(), 2),
        Err(PublishError::Exhausted.into())
    );
    let large = encoded(0, 5000);
    let large = Event::parse(&large).unwrap();
    assert!(matches!(
        appender.append(Seq::new(12), &[event, large]),
        Err(AppendError::Publish(PublishError::EventTooLarge {
            index: 1,
            ..
        }))
    ));
    assert_eq!(receive(&mut subscriber), Err(TryRecvError::Empty));
    assert_eq!(append(&mut appender, 10, 1), 0, "nothing has left a hole");
}

#[test]
fn closing_ends_an_appender_and_makes_no_hole() {
    let (engine, mut appender) = appended(small());
    append(&mut appender, 1, 1);
    let mut subscriber = engine.subscribe("g", "").unwrap();
    engine.close();
    let bytes = encoded(0, 1);
    let event = Event::parse(&bytes).unwrap();
    for first in [2, 5] {
        let refused = appender.append(Seq::new(first), &[event]);
        assert_eq!(refused, Err(PublishError::Closed.into()));
    }
    assert_eq!(engine.head().seq(), Seq::new(1));
    assert_eq!(receive(&mut subscriber), Err(TryRecvError::Closed));
}

#[test]
fn a_hole_wakes_and_the_last_sequence_can_be_appended() {
    let (engine, mut appender) = appended(small());
    let mut notifier = engine.notifier();
    let mut subscriber = engine.subscribe("g", "").unwrap();
    let wakes = Arc::new(Wakes::default());
    assert!(poll(&mut subscriber, &wakes).is_pending());
    append(&mut appender, Seq::MAX.number(), 1);
    run_notifier(&mut notifier);
    assert_eq!(wakes.count(), 1);
    let missing = Seq::MAX.number() - 1;
    assert_eq!(receive(&mut subscriber), Err(TryRecvError::Lagged(missing)));
    let last = Seq::MAX.number();
    assert_eq!(receive(&mut subscriber), Ok((last, last)));
}

/// Small holes and large ones, while subscribers read what may be overwritten: whatever
/// they receive is dense and right, and what they miss adds up.
#[test]
fn holes_while_subscribers_read() {
    let batches = rounds(3000, 12) as u64;
    let bytes = rounds(500_000, 40_000) as u64;
    let builder = small().max_event_bytes(1000).max_bytes(bytes);
    let (engine, mut appender) = appended(builder.max_events(rounds(50, 10) as u64));
    let in_flight = engine.limits().max_batch_events as u64;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|n| {
                let subscriber = engine.subscribe(&n.to_string(), "").unwrap();
                let subscriber = subscriber.max_batch_bytes(rounds(4096, 300));
                scope.spawn(move || threads::consume(subscriber, n == 0))
            })
            .collect();
        let mut written = std::collections::BTreeSet::new();
        let mut next = 1;
        for batch in 0..batches {
            next += match batch % 6 {
                1 => 1 + batch % 60,
                3 => in_flight + batch % 3,
                5 => 1 << 23,
                _ => 0,
            };
            let encoded: Vec<_> = (next..next + 1 + batch % 7)
                .map(|seq| encoded(seq, 8 + (seq % 50) as usize))
                .collect();
            let events: Vec<_> = encoded.iter().map(|e| Event::parse(e).unwrap()).collect();
            appender.append(Seq::new(next), &events).unwrap();
            written.extend(next..next + events.len() as u64);
            next += events.len() as u64;
        }
        engine.close();
        for reader in readers {
            let (record, missed) = reader.join().unwrap();
            assert_eq!(record.len() as u64 + missed, next - 1);
            for (seq, number) in record {
                assert_eq!(seq, number, "an event stands where it was appended");
                assert!(written.contains(&seq), "{seq} is missing");
            }
        }
    });
}

#[test]
fn an_engine_begins_after_what_the_log_is_not_read_for() {
    let (engine, mut appender) = appended(small().origin(Seq::new(500)));
    assert_eq!(engine.head(), Cursor::new(epoch(), Seq::new(500)));
    let mut subscriber = engine.subscribe("fresh", "").unwrap();
    let resume = |seq| {
        let cursor = Cursor::new(epoch(), Seq::new(seq)).to_string();
        engine.subscribe("other", &cursor).unwrap().start().resume
    };
    assert_eq!(resume(500), Resume::Resumed);
    assert_eq!(resume(499), Resume::Expired { missed: 1 });
    assert_eq!(append(&mut appender, 501, 2), 0, "that is no hole");
    assert_eq!(receive(&mut subscriber), Ok((501, 502)));
    assert_eq!(resume(500), Resume::Resumed);
    assert_eq!(resume(400), Resume::Expired { missed: 102 });
    assert_eq!(resume(0), Resume::Expired { missed: 502 });
}

#[test]
fn an_event_is_as_old_as_the_log_says() {
    let clock = ManualClock::new();
    clock.set(Duration::from_secs(1000));
    let window = small().window(Duration::from_secs(60)).clock(clock.clone());
    let (engine, mut appender) = appended(window);
    let bytes = encoded(0, 8);
    let batch = [Event::parse(&bytes).unwrap()];
    for (seq, age) in [(1, 100), (2, 50), (3, 0), (4, u64::MAX)] {
        let age = Duration::from_secs(age);
        appender.append_aged(Seq::new(seq), &batch, age).unwrap();
    }
    let resumes_after = |seq| {
        let cursor = Cursor::new(epoch(), Seq::new(seq)).to_string();
        engine.subscribe("g", &cursor).unwrap().start().resume == Resume::Resumed
    };
    assert_eq!(
        [0, 1, 2, 3, 4].map(resumes_after),
        [false, true, true, false, true]
    );
    clock.set(Duration::from_secs(1020));
    assert_eq!([1, 2].map(resumes_after), [false, true]);
}

#[test]
fn what_was_revoked_before_an_engine_begins_is_not_known() {
    let (engine, mut appender) = appended(small().max_revocations(100).origin(Seq::new(500)));
    append(&mut appender, 501, 2);
    let completeness = |seq| {
        let cursor = Cursor::new(epoch(), Seq::new(seq)).to_string();
        let (subscriber, replay) = engine.subscribe_with_replay("g", &cursor).unwrap();
        let resume = subscriber.start().resume;
        (resume == Resume::Resumed, replay.map(|it| it.is_complete()))
    };
    assert_eq!(completeness(500), (true, None));
    assert_eq!(completeness(499), (false, Some(false)));
    // Nothing of what it had is lost by what comes.
    let bytes = encoded(0, 8);
    let batch = vec![Event::parse(&bytes).unwrap(); 50];
    appender.append(Seq::new(900), &batch).unwrap();
    assert_eq!(completeness(899), (true, None));
    assert_eq!(
        completeness(502),
        (false, Some(false)),
        "a hole is not known either"
    );
}
