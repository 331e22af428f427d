//! A gateway's router under stress: one thread feeds it events and invalidations, others open
//! sessions, receive, and do requests. Each keeps a record of what it did and when, by a clock
//! that all share; the history is checked afterwards:
//!
//! - after an invalidation was processed, nothing is received and no guard passes for a session
//!   that it names and that was opened with a ticket from before it;
//! - a session that has ended as revoked, or was refused as that, is named by an invalidation that
//!   was not processed before its ticket was taken;
//! - a session receives the events for it, each once, in order, and all of them between two
//!   moments at which it was surely open.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use galaxy_push::gateway::{
    Beginning, End, Event, Feed, Missed, OpenError, Refusal, Revocation, Router, TryRecvError,
};

use super::random::Random;

const USERS: usize = 6;
const SESSIONS: usize = 3;
const CLIENTS: u64 = 4;

/// A moment of the clock that all share. Each is another one.
type Moment = u64;

#[derive(Default)]
struct Clock(AtomicU64);

impl Clock {
    fn now(&self) -> Moment {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// What the feed has brought.
struct Brought {
    seq: u64,
    user: usize,
    /// `None`: all of the user's.
    session: Option<usize>,
    begun: Moment,
    done: Moment,
}

impl Brought {
    fn is_for(&self, life: &Life) -> bool {
        self.session.is_none_or(|session| session == life.session)
    }
}

/// One session, or the attempt to open one.
struct Life {
    user: usize,
    session: usize,
    /// Just before its ticket was taken, and just after.
    ticket: (Moment, Moment),
    /// Just before it was opened, and just after.
    opened: (Moment, Moment),
    /// By which invalidation, if it was refused or has ended.
    refused: Option<u64>,
    ended: Option<u64>,
    /// When the last thing was begun that went well.
    passed: Moment,
    received: Vec<u64>,
    /// Just before its queue was found empty, at the end of a life that was not cut short.
    emptied: Option<Moment>,
}

impl Life {
    fn receive(&mut self, begun: Moment, event: &Event) {
        self.passed = begun;
        self.received
            .push(seq_of(event.cursor().expect("a cursor")));
    }
}

fn user(number: usize) -> String {
    format!("user-{number}")
}

fn session(number: usize) -> String {
    format!("session-{number}")
}

fn encoded(is_invalidation: bool, what: &Brought) -> Bytes {
    let field = |number: u8, value: &[u8]| [&[number << 3 | 2, value.len() as u8], value].concat();
    let user = user(what.user);
    let session = what.session.map(session).unwrap_or_default();
    let fields = if is_invalidation {
        let reason = field(3, b"stress");
        [
            field(1, session.as_bytes()),
            field(2, user.as_bytes()),
            reason,
        ]
        .concat()
    } else {
        let session = field(2, session.as_bytes());
        let kind = field(3, b"kind");
        [field(1, user.as_bytes()), session, kind].concat()
    };
    // The digits 0 to 9 mean the same in the cursor's base.
    let cursor = what.seq.to_string();
    let cursor = format!("1A2B3C4D5E6F-{cursor:0>11}");
    let kind = if is_invalidation { 2 } else { 1 };
    [field(kind, &fields), field(3, cursor.as_bytes())]
        .concat()
        .into()
}

/// The sequence, as it was written into the cursor: in tens.
fn seq_of(cursor: galaxy_push::cursor::Cursor) -> u64 {
    let text = cursor.to_string();
    text.split_once('-')
        .expect("a dash")
        .1
        .parse()
        .expect("tens")
}

fn named(revocation: &Revocation) -> u64 {
    seq_of(revocation.cursor)
}

/// Feeds until it is told to stop. Returns the events and the invalidations. The feed stays: without
/// it nobody is let in.
fn bring(
    feed: &mut Feed,
    clock: &Clock,
    mut random: Random,
    stop: &AtomicBool,
) -> (Vec<Brought>, Vec<Brought>) {
    let (mut events, mut invalidations) = (Vec::new(), Vec::new());
    let mut seq = 0;
    while !stop.load(Ordering::Relaxed) {
        let is_replay = random.one_in(50);
        if is_replay {
            feed.begin(Beginning::Replay(Missed::Complete));
        }
        let mut batch = Vec::new();
        let (mut new_events, mut new_invalidations) = (Vec::new(), Vec::new());
        let count = if random.one_in(4) {
            1 + random.below(300)
        } else {
            1
        };
        let begun = clock.now();
        for _ in 0..count {
            seq += 1;
            let is_invalidation = is_replay || random.one_in(6);
            let one = Brought {
                seq,
                user: random.below(USERS),
                session: (!random.one_in(3)).then(|| random.below(SESSIONS)),
                begun,
                done: 0,
            };
            batch.push(encoded(is_invalidation, &one));
            match is_invalidation {
                true => new_invalidations.push(one),
                false => new_events.push(one),
            }
        }
        feed.deliver(&batch).expect("they are events");
        let done = clock.now();
        let finished = |one| Brought { done, ..one };
        events.extend(new_events.into_iter().map(finished));
        invalidations.extend(new_invalidations.into_iter().map(finished));
        if is_replay {
            feed.replayed();
        }
    }
    (events, invalidations)
}

/// Opens sessions one after the other until it is told to stop.
fn client(router: &Router, clock: &Clock, mut random: Random, stop: &AtomicBool) -> Vec<Life> {
    let mut lives = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        lives.extend(live(router, clock, &mut random));
    }
    lives
}

fn live(router: &Router, clock: &Clock, random: &mut Random) -> Option<Life> {
    let (user_number, session_number) = (random.below(USERS), random.below(SESSIONS));
    let before = clock.now();
    let ticket = router.begin_authentication();
    let ticket_moments = (before, clock.now());
    for _ in 0..random.below(200) {
        std::hint::spin_loop();
    }
    let before = clock.now();
    let opened = router.open(ticket, &user(user_number), &session(session_number));
    let mut life = Life {
        user: user_number,
        session: session_number,
        ticket: ticket_moments,
        opened: (before, clock.now()),
        refused: None,
        ended: None,
        passed: 0,
        received: Vec::new(),
        emptied: None,
    };
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(OpenError::Revoked(revocation)) => {
            life.refused = Some(named(&revocation));
            return Some(life);
        }
        Err(OpenError::Stale) => return None,
        Err(other) => panic!("{other}"),
    };
    let guard = opened.enter().ok();
    for _ in 0..random.below(400) {
        let begun = clock.now();
        match opened.try_recv() {
            Ok(event) => {
                life.receive(begun, &event);
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Ended(End::Revoked(revocation))) => {
                life.ended = Some(named(&revocation));
                break;
            }
            Err(other) => panic!("{other}"),
        }
        let Some(guard) = &guard else { continue };
        let begun = clock.now();
        match guard.check() {
            Ok(()) => life.passed = begun,
            Err(Refusal::Ended(_) | Refusal::Stale) => {}
            Err(other) => panic!("{other}"),
        }
    }
    // What is there is taken to the end, while nobody holds it back.
    while life.ended.is_none() && life.emptied.is_none() {
        let begun = clock.now();
        match opened.try_recv() {
            Ok(event) => {
                life.receive(begun, &event);
            }
            Err(TryRecvError::Empty) if opened.check().is_ok() => {
                // It was not stale before and after: a replay is one between two of these.
                life.emptied = Some(begun);
            }
            Err(TryRecvError::Empty) => thread::yield_now(),
            Err(TryRecvError::Ended(End::Revoked(revocation))) => {
                life.ended = Some(named(&revocation));
            }
            Err(other) => panic!("{other}"),
        }
    }
    Some(life)
}

/// Holds the history against the promises. Returns how many lives it found cut short, and how
/// many refused.
fn check(events: &[Brought], invalidations: &[Brought], lives: &[Life]) -> (usize, usize) {
    let of_user = |all: &[Brought], user: usize| -> Vec<Brought> {
        let of_user = all.iter().filter(|one| one.user == user);
        let copied = of_user.map(|one| Brought { ..*one });
        copied.collect()
    };
    let events: Vec<_> = (0..USERS).map(|user| of_user(events, user)).collect();
    let invalidations: Vec<_> = (0..USERS)
        .map(|user| of_user(invalidations, user))
        .collect();
    let (mut ended, mut refused) = (0, 0);
    for life in lives {
        let invalidations = &invalidations[life.user];
        // The first that surely came after the ticket.
        let later = invalidations.partition_point(|one| one.begun < life.ticket.1);
        let revoked = invalidations[later..].iter().find(|one| one.is_for(life));
        if let Some(revoked) = revoked {
            assert!(
                life.passed < revoked.done,
                "{} was revoked by {}",
                life.passed,
                revoked.seq
            );
            let is_refused = life.refused.is_some() || life.opened.0 < revoked.done;
            assert!(is_refused, "opened after {} was processed", revoked.seq);
        }
        for seq in life.refused.iter().chain(&life.ended) {
            let found = invalidations.binary_search_by_key(seq, |one| one.seq);
            let by = &invalidations[found.expect("it is one of the user's")];
            assert!(by.is_for(life), "{seq} names another session");
            assert!(
                by.done > life.ticket.0,
                "{seq} was processed before the ticket"
            );
        }
        refused += usize::from(life.refused.is_some());
        ended += usize::from(life.ended.is_some());

        let events = &events[life.user];
        let mut next = 0;
        for seq in &life.received {
            let found = events.binary_search_by_key(seq, |one| one.seq);
            let found = found.expect("it is one of the user's");
            assert!(found >= next, "{seq} came again, or too late");
            assert!(events[found].is_for(life), "{seq} is for another session");
            next = found + 1;
        }
        if let Some(emptied) = life.emptied {
            let begin = events.partition_point(|one| one.begun < life.opened.1);
            let sure = events[begin..].iter().take_while(|one| one.done < emptied);
            for event in sure.filter(|one| one.is_for(life)) {
                let found = life.received.binary_search(&event.seq);
                assert!(found.is_ok(), "{} was not received", event.seq);
            }
        }
    }
    (ended, refused)
}

/// One round of so long; how many sessions there were, were cut short, and were refused.
pub(crate) fn round(seed: u64, time: Duration) -> [usize; 3] {
    let clock = Clock::default();
    let stop = AtomicBool::new(false);
    let (router, mut fed) = Router::builder().queue_events(1 << 20).build();
    fed.begin(Beginning::Lost);
    let began = Instant::now();
    let (brought, lives) = thread::scope(|scope| {
        let (clock, stop, router, fed) = (&clock, &stop, &router, &mut fed);
        let clients: Vec<_> = (1..=CLIENTS)
            .map(|part| scope.spawn(move || client(router, clock, Random::new(seed, part), stop)))
            .collect();
        let feeding = scope.spawn(move || bring(fed, clock, Random::new(seed, 0), stop));
        while began.elapsed() < time {
            thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        let lives: Vec<_> = clients
            .into_iter()
            .flat_map(|client| client.join().expect("a client"))
            .collect();
        (feeding.join().expect("the feed"), lives)
    });
    assert_eq!(router.sessions(), 0);
    let (ended, refused) = check(&brought.0, &brought.1, &lives);
    [lives.len(), ended, refused]
}
