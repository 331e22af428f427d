//! The room under a model checker: every schedule of two threads, one of which is the feed.
//!
//! `scripts/loom` runs them.

use bytes::Bytes;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::{future::block_on, thread};

use super::*;
use crate::clock::ManualClock;

/// `PushEvent { client_event { user_id: "u", kind: "k" }, cursor }`
const EVENT: &[u8] = b"\x0a\x06\x0a\x01u\x1a\x01k\x1a\x181A2B3C4D5E6F-00000000001";
/// `PushEvent { session_invalidation { user_id: "u" }, cursor }`
const INVALIDATION: &[u8] = b"\x12\x03\x12\x01u\x1a\x181A2B3C4D5E6F-00000000002";

fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.max_branches = 100_000;
    model.preemption_bound = Some(model.preemption_bound.unwrap_or(2));
    model.check(check);
}

fn gateway() -> (Router, Feed) {
    let (router, mut feed) = Router::builder()
        .max_sessions(8)
        .clock(ManualClock::new())
        .build();
    feed.begin(Beginning::Lost);
    (router, feed)
}

fn open(router: &Router) -> Session {
    let ticket = router.begin_authentication();
    router.open(ticket, "u", "s").unwrap()
}

fn deliver(feed: &mut Feed, event: &'static [u8]) {
    feed.deliver(&[Bytes::from_static(event)]).unwrap();
}

fn is_revoked(session: &Session) -> bool {
    matches!(session.check(), Err(Refusal::Ended(End::Revoked(_))))
}

#[test]
fn a_ticket_from_before_an_invalidation_opens_nothing_that_lives() {
    model(|| {
        let (router, mut feed) = gateway();
        let ticket = router.begin_authentication();
        let opening = thread::spawn({
            let router = router.clone();
            move || router.open(ticket, "u", "s")
        });
        deliver(&mut feed, INVALIDATION);
        match opening.join().unwrap() {
            Ok(session) => assert!(is_revoked(&session)),
            Err(error) => assert!(matches!(error, OpenError::Revoked(_))),
        }
    });
}

#[test]
fn a_session_lives_only_if_its_authentication_began_when_the_invalidation_was_known() {
    model(|| {
        let (router, mut feed) = gateway();
        let opening = thread::spawn({
            let router = router.clone();
            move || {
                let ticket = router.begin_authentication();
                let began = ticket.began;
                (began, router.open(ticket, "u", "s"))
            }
        });
        deliver(&mut feed, INVALIDATION);
        match opening.join().unwrap() {
            (began, Ok(session)) if !is_revoked(&session) => assert_eq!(began, 1),
            (_, Ok(_) | Err(OpenError::Revoked(_))) => {}
            (_, Err(other)) => panic!("{other}"),
        }
    });
}

#[test]
fn once_an_invalidation_is_processed_no_guard_passes_and_no_event_is_received() {
    model(|| {
        let (router, mut feed) = gateway();
        let mut session = open(&router);
        let guard = session.enter().unwrap();
        let processed = Arc::new(AtomicBool::new(false));
        let user = thread::spawn({
            let processed = Arc::clone(&processed);
            move || {
                let is_processed = processed.load(Ordering::Acquire);
                assert!(!(is_processed && guard.check().is_ok()));
                let is_processed = processed.load(Ordering::Acquire);
                assert!(!(is_processed && session.try_recv().is_ok()));
                let is_processed = processed.load(Ordering::Acquire);
                assert!(!(is_processed && session.enter().is_ok()));
            }
        });
        deliver(&mut feed, EVENT);
        deliver(&mut feed, INVALIDATION);
        processed.store(true, Ordering::Release);
        user.join().unwrap();
        assert_eq!(router.sessions(), 0);
    });
}

#[test]
fn whoever_waits_for_an_event_is_woken() {
    model(|| {
        let (router, mut feed) = gateway();
        let mut session = open(&router);
        let waiting = thread::spawn(move || block_on(session.recv()).unwrap());
        deliver(&mut feed, EVENT);
        waiting.join().unwrap();
    });
}

#[test]
fn whoever_waits_for_an_event_is_woken_by_the_end() {
    model(|| {
        let (router, mut feed) = gateway();
        let mut session = open(&router);
        let waiting = thread::spawn(move || block_on(session.recv()).unwrap_err());
        deliver(&mut feed, INVALIDATION);
        let error = waiting.join().unwrap();
        assert!(matches!(error, RecvError::Ended(End::Revoked(_))));
    });
}

#[test]
fn a_request_that_waits_for_the_end_is_woken() {
    model(|| {
        let (router, mut feed) = gateway();
        let session = open(&router);
        let mut guard = session.enter().unwrap();
        let waiting = thread::spawn(move || block_on(guard.ended()));
        deliver(&mut feed, INVALIDATION);
        assert!(matches!(waiting.join().unwrap(), End::Revoked(_)));
    });
}

#[test]
fn what_a_replay_revokes_is_never_seen_alive_after_it() {
    model(|| {
        let (router, mut feed) = gateway();
        let session = open(&router);
        feed.begin(Beginning::Replay(Missed::Complete));
        let user = thread::spawn(move || {
            // Stale, or revoked: it is never let in.
            assert!(session.check().is_err());
        });
        deliver(&mut feed, INVALIDATION);
        feed.replayed();
        user.join().unwrap();
    });
}

#[test]
fn what_a_loss_makes_suspect_is_never_seen_valid_before() {
    model(|| {
        let (router, mut feed) = gateway();
        let mut session = open(&router);
        deliver(&mut feed, EVENT);
        feed.begin(Beginning::Replay(Missed::Complete));
        let user = thread::spawn(move || {
            // Stale, or suspect.
            assert!(session.check().is_err());
            assert!(session.try_recv().is_err());
        });
        feed.begin(Beginning::Lost);
        user.join().unwrap();
    });
}

#[test]
fn what_is_held_while_all_is_stale_is_received_afterwards() {
    model(|| {
        let (router, mut feed) = gateway();
        let mut session = open(&router);
        deliver(&mut feed, EVENT);
        feed.begin(Beginning::Replay(Missed::Complete));
        let waiting = thread::spawn(move || block_on(session.recv()).unwrap());
        feed.replayed();
        waiting.join().unwrap();
    });
}

#[test]
fn what_is_held_while_it_is_suspect_is_received_once_it_is_valid() {
    model(|| {
        let (router, mut feed) = gateway();
        let mut session = open(&router);
        deliver(&mut feed, EVENT);
        feed.begin(Beginning::Lost);
        let waiting = thread::spawn(move || block_on(session.recv()).unwrap());
        for suspect in router.suspects() {
            suspect.valid();
        }
        waiting.join().unwrap();
    });
}

#[test]
fn whoever_validates_those_from_before_a_loss_leaves_those_alone_that_came_after_it() {
    model(|| {
        let (router, mut feed) = gateway();
        let validating = thread::spawn({
            let router = router.clone();
            move || {
                for suspect in router.suspects() {
                    suspect.valid();
                }
            }
        });
        feed.begin(Beginning::Lost);
        let session = open(&router);
        validating.join().unwrap();
        assert_eq!(session.check(), Ok(()));
    });
}

#[test]
fn what_is_opened_around_a_loss_is_suspect_unless_it_began_after_it() {
    model(|| {
        let (router, mut feed) = gateway();
        let opening = thread::spawn({
            let router = router.clone();
            move || {
                let ticket = router.begin_authentication();
                let generation = ticket.generation;
                (generation, router.open(ticket, "u", "s"))
            }
        });
        feed.begin(Beginning::Lost);
        match opening.join().unwrap() {
            (2, Ok(session)) => assert_eq!(session.check(), Ok(())),
            (_, Ok(session)) => assert_eq!(session.check(), Err(Refusal::Suspect)),
            (_, Err(error)) => assert_eq!(error, OpenError::Gap),
        }
    });
}

#[test]
fn a_drain_is_over_when_the_last_has_gone() {
    model(|| {
        let (router, _feed) = gateway();
        let mut session = open(&router);
        let going = thread::spawn(move || {
            let error = block_on(session.recv()).unwrap_err();
            assert_eq!(error, RecvError::Ended(End::Draining));
        });
        router.drain();
        block_on(router.drained());
        going.join().unwrap();
    });
}
