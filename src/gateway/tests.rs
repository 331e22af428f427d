use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::clock::ManualClock;

fn field(number: u8, value: &[u8]) -> Vec<u8> {
    assert!(value.len() < 128);
    [&[number << 3 | 2, value.len() as u8], value].concat()
}

fn push_event(kind: u8, fields: &[Vec<u8>], seq: u64) -> Bytes {
    let cursor = format!("1A2B3C4D5E6F-{seq:011}");
    [field(kind, &fields.concat()), field(3, cursor.as_bytes())]
        .concat()
        .into()
}

fn client_event(user: &str, session: &str, payload: &str, seq: u64) -> Bytes {
    let fields = [
        field(1, user.as_bytes()),
        field(2, session.as_bytes()),
        field(3, b"kind"),
        field(4, payload.as_bytes()),
    ];
    push_event(1, &fields, seq)
}

fn invalidation(user: &str, session: &str, reason: &str, seq: u64) -> Bytes {
    let fields = [
        field(1, session.as_bytes()),
        field(2, user.as_bytes()),
        field(3, reason.as_bytes()),
    ];
    push_event(2, &fields, seq)
}

/// A router and what belongs to it.
struct Gateway {
    router: Router,
    feed: Feed,
    clock: ManualClock,
    seq: u64,
}

impl Gateway {
    fn new(builder: Builder) -> Self {
        let clock = ManualClock::new();
        let (router, feed) = builder.clock(clock.clone()).build();
        let mut gateway = Gateway {
            router,
            feed,
            clock,
            seq: 0,
        };
        gateway.feed.begin(Beginning::Lost);
        gateway
    }

    fn open(&self, user: &str, session: &str) -> Session {
        let ticket = self.router.begin_authentication();
        self.router.open(ticket, user, session).unwrap()
    }

    fn send(&mut self, user: &str, session: &str, payload: &str) {
        self.seq += 1;
        let event = client_event(user, session, payload, self.seq);
        self.feed.deliver(&[event]).unwrap();
    }

    fn revoke(&mut self, user: &str, session: &str, reason: &str) {
        self.seq += 1;
        let event = invalidation(user, session, reason, self.seq);
        self.feed.deliver(&[event]).unwrap();
    }
}

fn gateway() -> Gateway {
    Gateway::new(Router::builder())
}

/// The payloads that wait.
fn received(session: &mut Session) -> Vec<String> {
    let mut payloads = Vec::new();
    while let Ok(event) = session.try_recv() {
        payloads.push(String::from_utf8(event.payload().to_vec()).unwrap());
    }
    payloads
}

fn reason(end: &End) -> &str {
    match end {
        End::Revoked(revocation) => &revocation.reason,
        other => panic!("{other:?}"),
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Polls once, and says how often what waits then is woken.
fn waiting<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Arc<Woken> {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(poll(&mut Context::from_waker(&waker)).is_pending());
    woken
}

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn events_go_to_their_sessions() {
    let mut gateway = gateway();
    let mut phone = gateway.open("ada", "phone");
    let mut laptop = gateway.open("ada", "laptop");
    let mut other = gateway.open("ben", "phone");
    gateway.send("ada", "", "both");
    gateway.send("ada", "laptop", "one");
    gateway.send("eve", "", "nobody");
    gateway.send("ada", "tablet", "nobody");
    assert_eq!(received(&mut phone), ["both"]);
    assert_eq!(received(&mut laptop), ["both", "one"]);
    assert_eq!(received(&mut other), [""; 0]);
    let stats = gateway.router.stats();
    assert_eq!((stats.events, stats.queued, stats.unrouted), (4, 3, 2));
}

#[test]
fn an_event_is_a_view_of_what_came() {
    let mut gateway = gateway();
    let mut session = gateway.open("ada", "phone");
    let event = client_event("ada", "", "payload", 7);
    gateway.feed.deliver(std::slice::from_ref(&event)).unwrap();
    let received = session.try_recv().unwrap();
    assert_eq!(received.as_bytes().as_ptr(), event.as_ptr());
    let payload = received.payload();
    assert_eq!(&payload[..], b"payload");
    assert!(event.as_ptr_range().contains(&payload.as_ptr()));
    assert_eq!(received.fields().kind, b"kind");
    assert_eq!(received.cursor().unwrap().seq().number(), 7);
}

#[test]
fn a_batch_keeps_the_order_of_each_user_also_around_an_invalidation() {
    let mut gateway = Gateway::new(Router::builder().queue_events(2_000));
    let mut sessions: Vec<_> = (0..50)
        .map(|user| gateway.open(&format!("user-{user}"), "s"))
        .collect();
    let mut events = Vec::new();
    for number in 0..1_000 {
        events.push(client_event(
            &format!("user-{}", number % 50),
            "",
            &number.to_string(),
            number + 1,
        ));
        if number == 700 {
            events.push(invalidation("user-3", "", "banned", number + 1));
        }
    }
    gateway.feed.deliver(&events).unwrap();
    for (user, session) in sessions.iter_mut().enumerate() {
        let expected: Vec<_> = (user..1_000)
            .step_by(50)
            .map(|number| number.to_string())
            .collect();
        match user {
            3 => assert!(matches!(
                session.try_recv(),
                Err(TryRecvError::Ended(End::Revoked(_)))
            )),
            _ => assert_eq!(received(session), expected),
        }
    }
}

#[test]
fn a_revoked_session_gets_nothing_and_no_other_is_touched() {
    let mut gateway = gateway();
    let mut phone = gateway.open("ada", "phone");
    let mut laptop = gateway.open("ada", "laptop");
    let guard = phone.enter().unwrap();
    gateway.send("ada", "", "before");
    gateway.revoke("ada", "phone", "stolen");
    gateway.send("ada", "", "after");
    let Err(TryRecvError::Ended(end)) = phone.try_recv() else {
        panic!()
    };
    assert_eq!(reason(&end), "stolen");
    assert_eq!(guard.check(), Err(Refusal::Ended(end.clone())));
    assert_eq!(phone.enter().unwrap_err(), Refusal::Ended(end));
    assert_eq!(received(&mut laptop), ["before", "after"]);
    assert_eq!(laptop.check(), Ok(()));
    gateway.revoke("ada", "", "banned");
    let Err(Refusal::Ended(end)) = laptop.check() else {
        panic!()
    };
    assert_eq!(reason(&end), "banned");
    // The first reason stays.
    let Err(Refusal::Ended(end)) = phone.check() else {
        panic!()
    };
    assert_eq!(reason(&end), "stolen");
    let stats = gateway.router.stats();
    assert_eq!((stats.invalidations, stats.revoked), (2, 2));
}

#[test]
fn whoever_waits_is_told_at_once() {
    let mut gateway = gateway();
    let mut session = gateway.open("ada", "phone");
    let mut guard = session.enter().unwrap();
    let mut same = guard.clone();
    let receiving = waiting(|cx| session.poll_recv(cx));
    let watching = waiting(|cx| std::pin::pin!(guard.ended()).poll(cx));
    let gone = waiting(|cx| std::pin::pin!(same.ended()).poll(cx));
    drop(same);
    gateway.revoke("ben", "", "another");
    assert_eq!((receiving.times(), watching.times()), (0, 0));
    gateway.revoke("ada", "", "banned");
    assert_eq!(
        (receiving.times(), watching.times(), gone.times()),
        (1, 1, 0)
    );
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(end) = std::pin::pin!(guard.ended()).poll(&mut cx) else {
        panic!()
    };
    assert_eq!(reason(&end), "banned");
}

#[test]
fn a_part_of_a_request_is_given_up_when_its_session_ends() {
    let mut gateway = gateway();
    let session = gateway.open("ada", "phone");
    let mut guard = session.enter().unwrap();
    let done = Arc::new(Mutex::new(false));
    let part = {
        let done = Arc::clone(&done);
        async move {
            std::future::pending::<()>().await;
            *done.lock().unwrap() = true;
        }
    };
    {
        let mut run = std::pin::pin!(guard.run(part));
        let woken = waiting(|cx| run.as_mut().poll(cx));
        gateway.revoke("ada", "phone", "stolen");
        assert_eq!(woken.times(), 1);
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Err(Refusal::Ended(end))) = run.poll(&mut cx) else {
            panic!()
        };
        assert_eq!(reason(&end), "stolen");
    }
    // What would be done next is not begun.
    let mut run = std::pin::pin!(guard.run(async { panic!("begun") }));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(
        run.as_mut().poll(&mut cx),
        Poll::Ready(Err(Refusal::Ended(_)))
    ));
    assert!(!*done.lock().unwrap());
}

#[test]
fn a_part_of_a_request_does_nothing_while_nobody_knows_what_is_revoked() {
    let mut gateway = gateway();
    let session = gateway.open("ada", "phone");
    let mut guard = session.enter().unwrap();
    let mut cx = Context::from_waker(Waker::noop());
    let effects = Arc::new(Mutex::new(0));
    let steps = |pauses: usize| {
        let effects = Arc::clone(&effects);
        Box::pin(async move {
            for _ in 0..pauses {
                *effects.lock().unwrap() += 1;
                let mut is_over = false;
                poll_fn(|_| match std::mem::replace(&mut is_over, true) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                })
                .await;
            }
        })
    };
    let effects = || *effects.lock().unwrap();
    let mut run = Box::pin(guard.run(steps(3)));
    assert!(run.as_mut().poll(&mut cx).is_pending());
    assert_eq!(effects(), 1);
    gateway.clock.advance(Duration::from_secs(46));
    let stale = Poll::Ready(Err(Refusal::Stale));
    assert_eq!(run.as_mut().poll(&mut cx), stale);
    drop(run);
    assert_eq!(effects(), 1);
    // It may be taken up again when that is over.
    gateway.feed.heard();
    let mut run = Box::pin(guard.run(steps(1)));
    assert!(run.as_mut().poll(&mut cx).is_pending());
    assert_eq!(run.as_mut().poll(&mut cx), Poll::Ready(Ok(())));
    drop(run);
    // Suspect is the same.
    let mut run = Box::pin(guard.run(steps(2)));
    assert!(run.as_mut().poll(&mut cx).is_pending());
    gateway.feed.begin(Beginning::Lost);
    let suspect = Poll::Ready(Err(Refusal::Suspect));
    assert_eq!(run.as_mut().poll(&mut cx), suspect);
    assert_eq!(effects(), 3);
}

mod tickets {
    use super::*;

    /// Whoever is told of it first, and takes a ticket only then, has asked before it was known.
    #[cfg(feature = "client")]
    #[test]
    fn an_application_knows_of_it_before_a_ticket_can_be_later() {
        use crate::gateway::feed::Observer;

        let mut gateway = gateway();
        let taken = Arc::new(Mutex::new(None));
        let (router, told) = (gateway.router.clone(), Arc::clone(&taken));
        gateway
            .feed
            .observe(Observer(Box::new(move |user, session, _| {
                assert_eq!((user, session), ("ada", "phone"));
                *told.lock().unwrap() = Some(router.begin_authentication());
            })));
        gateway.revoke("ada", "phone", "stolen");
        let ticket = taken.lock().unwrap().take().expect("it was told");
        let refused = gateway.router.open(ticket, "ada", "phone").unwrap_err();
        assert!(matches!(refused, OpenError::Revoked(_)), "{refused}");
    }

    #[test]
    fn what_was_revoked_meanwhile_is_not_opened() {
        let mut gateway = gateway();
        let tickets: Vec<_> = (0..4)
            .map(|_| gateway.router.begin_authentication())
            .collect();
        gateway.revoke("ada", "phone", "stolen");
        gateway.revoke("ben", "", "banned");
        let opened: Vec<_> = tickets
            .into_iter()
            .zip([
                ("ada", "phone"),
                ("ada", "laptop"),
                ("ben", "phone"),
                ("eve", "phone"),
            ])
            .map(|(ticket, (user, session))| gateway.router.open(ticket, user, session))
            .collect();
        let [
            Err(OpenError::Revoked(stolen)),
            Ok(_),
            Err(OpenError::Revoked(banned)),
            Ok(_),
        ] = &opened[..]
        else {
            panic!("{opened:?}");
        };
        assert_eq!((&*stolen.reason, stolen.is_of_user), ("stolen", false));
        assert_eq!((&*banned.reason, banned.is_of_user), ("banned", true));
        assert_eq!(gateway.router.stats().refused_as_revoked, 2);
        // Who authenticates after it has been told so by the backend.
        gateway.open("ada", "phone");
        gateway.open("ben", "phone");
    }

    #[test]
    fn a_request_alone_is_held_to_the_same() {
        let mut gateway = gateway();
        let ticket = gateway.router.begin_authentication();
        gateway.revoke("ada", "", "banned");
        let refused = gateway.router.enter(ticket, "ada", "phone").unwrap_err();
        assert!(matches!(refused, OpenError::Revoked(_)));
        let ticket = gateway.router.begin_authentication();
        let guard = gateway.router.enter(ticket, "ada", "phone").unwrap();
        assert_eq!(guard.check(), Ok(()));
        gateway.send("ada", "", "for nobody");
        assert_eq!(gateway.router.stats().unrouted, 1);
        gateway.revoke("ada", "phone", "again");
        assert!(guard.check().is_err());
    }

    #[test]
    fn old_ones_expire() {
        let mut gateway = Gateway::new(Router::builder().ticket_timeout(Duration::from_secs(10)));
        let [young, old] = [(); 2].map(|()| gateway.router.begin_authentication());
        gateway.clock.advance(Duration::from_secs(10));
        gateway.router.open(young, "ada", "phone").unwrap();
        gateway.clock.advance(Duration::from_millis(1));
        let refused = gateway.router.open(old, "ada", "phone").unwrap_err();
        let limit = Duration::from_secs(10);
        assert_eq!(refused, OpenError::Expired { limit });
        // What was noted for tickets is forgotten after that, and not before.
        let ticket = gateway.router.begin_authentication();
        gateway.revoke("ada", "phone", "stolen");
        gateway.clock.advance(Duration::from_secs(10));
        gateway.revoke("ada", "other", "makes it look");
        let refused = gateway.router.open(ticket, "ada", "phone").unwrap_err();
        assert!(matches!(refused, OpenError::Revoked(_)));
    }

    #[test]
    fn too_many_invalidations_refuse_those_that_began_before() {
        let mut gateway = Gateway::new(Router::builder().max_recent(16));
        let [first, second] = [(); 2].map(|()| gateway.router.begin_authentication());
        gateway.revoke("ada", "phone", "stolen");
        let between = gateway.router.begin_authentication();
        gateway.revoke("ada", "laptop", "stolen too");
        // One is remembered for each of the router's parts: the first is not any more.
        let refused = gateway.router.open(first, "ada", "phone").unwrap_err();
        assert_eq!(refused, OpenError::Forgotten);
        let refused = gateway.router.open(second, "ada", "laptop").unwrap_err();
        assert!(matches!(refused, OpenError::Revoked(_)));
        gateway.router.open(between, "ada", "phone").unwrap();
    }

    #[test]
    fn a_loss_makes_them_void() {
        let mut gateway = gateway();
        let ticket = gateway.router.begin_authentication();
        gateway.feed.begin(Beginning::Lost);
        let refused = gateway.router.open(ticket, "ada", "phone").unwrap_err();
        assert_eq!(refused, OpenError::Gap);
        gateway.open("ada", "phone");
    }

    #[test]
    fn a_complete_replay_does_not_but_what_it_brings_does() {
        let mut gateway = gateway();
        let [bad, good] = [(); 2].map(|()| gateway.router.begin_authentication());
        gateway.feed.begin(Beginning::Replay(Missed::Complete));
        gateway.revoke("ada", "phone", "stolen");
        let early = gateway.router.begin_authentication();
        let refused = gateway.router.open(early, "eve", "phone").unwrap_err();
        assert_eq!(refused, OpenError::Stale);
        gateway.feed.replayed();
        let refused = gateway.router.open(bad, "ada", "phone").unwrap_err();
        assert!(matches!(refused, OpenError::Revoked(_)));
        gateway.router.open(good, "eve", "phone").unwrap();
    }

    #[test]
    fn other_refusals_name_what_is_wrong() {
        let gateway = Gateway::new(Router::builder().max_sessions(1));
        let other = super::gateway();
        let begin = || gateway.router.begin_authentication();
        let refused = |ticket, user: &str| gateway.router.open(ticket, user, "s").unwrap_err();
        assert_eq!(
            refused(other.router.begin_authentication(), "ada"),
            OpenError::OtherRouter
        );
        assert_eq!(refused(begin(), ""), OpenError::NoUser);
        let (bytes, max) = (4097, 4096);
        assert_eq!(
            refused(begin(), &"x".repeat(4096)),
            OpenError::IdsTooLong { bytes, max }
        );
        let few = Gateway::new(Router::builder().max_user_sessions(1));
        let first = few.open("ada", "phone");
        let ticket = few.router.begin_authentication();
        let too_many = few.router.open(ticket, "ada", "laptop").unwrap_err();
        assert_eq!(too_many, OpenError::TooManyOfUser { max: 1 });
        few.open("ben", "phone");
        drop(first);
        few.open("ada", "laptop");
        let session = gateway.open("ada", "phone");
        assert_eq!(refused(begin(), "ada"), OpenError::TooMany { max: 1 });
        let guard = session.enter().unwrap();
        drop(session);
        assert_eq!(refused(begin(), "ada"), OpenError::TooMany { max: 1 });
        drop(guard);
        gateway.open("ada", "phone");
        gateway.router.drain();
        assert_eq!(refused(begin(), "ada"), OpenError::Draining);
    }

    #[test]
    fn a_router_may_be_for_as_many_as_there_can_be() {
        let gateway = Gateway::new(Router::builder().max_sessions(usize::MAX));
        gateway.open("ada", "phone");
    }

    #[test]
    fn ids_of_all_lengths_are_kept_as_they_are() {
        let mut gateway = gateway();
        for bytes in (1..140).chain([159, 160, 161, 255, 256, 257, 1_000, 3_000, 4_094]) {
            let user = "u".repeat(bytes);
            let session = gateway.open(&user, "é");
            assert_eq!((session.user(), session.id()), (&*user, "é"));
        }
        let none = gateway.open("ada", "");
        gateway.revoke("ada", "", "banned");
        assert!(none.check().is_err());
    }
}

mod knowing {
    use super::*;

    #[test]
    fn nothing_is_let_in_before_the_first_stream() {
        let (router, mut feed) = Router::builder().build();
        let open = || router.open(router.begin_authentication(), "ada", "phone");
        assert_eq!(open().unwrap_err(), OpenError::Stale);
        feed.heard();
        feed.deliver(&[client_event("ada", "", "early", 1)])
            .unwrap();
        assert_eq!(open().unwrap_err(), OpenError::Stale);
        feed.begin(Beginning::Lost);
        let session = open().unwrap();
        // Nothing can come any more.
        drop(feed);
        assert_eq!(session.check(), Err(Refusal::Stale));
    }

    #[test]
    fn a_router_that_hears_nothing_refuses_until_it_does() {
        let mut gateway = Gateway::new(Router::builder().stale_after(Duration::from_secs(45)));
        let mut session = gateway.open("ada", "phone");
        let mut guard = session.enter().unwrap();
        gateway.send("ada", "", "held");
        gateway.clock.advance(Duration::from_secs(45));
        assert_eq!(guard.check(), Ok(()));
        gateway.clock.advance(Duration::from_millis(1));
        assert!(gateway.router.is_stale() && gateway.router.stats().is_stale);
        assert_eq!(guard.check(), Err(Refusal::Stale));
        assert_eq!(session.enter().unwrap_err(), Refusal::Stale);
        assert_eq!(session.try_recv(), Err(TryRecvError::Empty));
        let receiving = waiting(|cx| session.poll_recv(cx));
        let watching = waiting(|cx| std::pin::pin!(guard.allowed()).poll(cx));
        // What comes may be old: only when all of it is delivered, it is known.
        gateway.send("ben", "", "old");
        assert_eq!(guard.check(), Err(Refusal::Stale));
        let mut ready = std::pin::pin!(gateway.router.ready());
        let letting_in = waiting(|cx| ready.as_mut().poll(cx));
        gateway.feed.heard();
        assert_eq!(
            (receiving.times(), watching.times(), letting_in.times()),
            (1, 1, 1)
        );
        let mut cx = Context::from_waker(Waker::noop());
        assert!(ready.poll(&mut cx).is_ready());
        assert_eq!(received(&mut session), ["held"]);
        assert_eq!(guard.check(), Ok(()));
    }

    #[test]
    fn a_replay_is_waited_for() {
        let mut gateway = gateway();
        let mut ada = gateway.open("ada", "phone");
        let mut ben = gateway.open("ben", "phone");
        gateway.send("ada", "", "before");
        gateway.send("ben", "", "before");
        gateway.feed.begin(Beginning::Replay(Missed::Complete));
        assert_eq!(ben.check(), Err(Refusal::Stale));
        let receiving = waiting(|cx| ben.poll_recv(cx));
        gateway.revoke("ada", "", "banned");
        assert!(matches!(ada.try_recv(), Err(TryRecvError::Ended(_))));
        assert_eq!(ben.check(), Err(Refusal::Stale));
        gateway.feed.replayed();
        assert_eq!(receiving.times(), 1);
        assert_eq!(received(&mut ben), ["before"]);
        assert_eq!(gateway.router.stats().losses, 1);
    }

    #[test]
    fn after_a_loss_each_session_waits_to_be_validated() {
        let beginnings: [fn(&mut Feed); 4] = [
            |feed| feed.begin(Beginning::Lost),
            |feed| {
                feed.begin(Beginning::Replay(Missed::Partial));
                feed.replayed();
            },
            // One that was not told to its end.
            |feed| {
                feed.begin(Beginning::Replay(Missed::Partial));
                feed.begin(Beginning::Resumed { head: None });
            },
            |feed| {
                feed.begin(Beginning::Replay(Missed::Partial));
                feed.begin(Beginning::Replay(Missed::Complete));
                feed.replayed();
            },
        ];
        for begin in beginnings {
            let mut gateway = gateway();
            let mut sessions = ["ada", "ben", "eve"].map(|user| gateway.open(user, "phone"));
            begin(&mut gateway.feed);
            for user in ["ada", "ben", "eve"] {
                gateway.send(user, "", "held");
            }
            let waiting: Vec<_> = sessions
                .iter_mut()
                .map(|session| {
                    assert_eq!(session.check(), Err(Refusal::Suspect));
                    waiting(|cx| session.poll_recv(cx))
                })
                .collect();
            let fresh = gateway.open("new", "phone");
            assert_eq!(fresh.check(), Ok(()));
            let suspects: Vec<_> = gateway.router.suspects().collect();
            assert_eq!(suspects.len(), 3);
            assert_eq!(gateway.router.suspects().count(), 0, "each is in one hand");
            for suspect in suspects {
                match suspect.user() {
                    "ada" => suspect.valid(),
                    "ben" => suspect.invalid("signed out"),
                    _ => drop(suspect),
                }
            }
            let times: Vec<_> = waiting.iter().map(|woken| woken.times()).collect();
            assert_eq!(times, [1, 1, 0]);
            let [ada, ben, eve] = &mut sessions;
            assert_eq!(received(ada), ["held"]);
            let end = End::Invalid("signed out".into());
            assert_eq!(ben.try_recv(), Err(TryRecvError::Ended(end)));
            assert_eq!(eve.try_recv(), Err(TryRecvError::Empty));
            let again: Vec<_> = gateway.router.suspects().collect();
            assert_eq!(again.len(), 1);
            // An answer from before another loss is none.
            gateway.feed.begin(Beginning::Lost);
            for suspect in again {
                suspect.valid();
            }
            assert_eq!(eve.check(), Err(Refusal::Suspect));
            assert_eq!(gateway.router.suspects().count(), 3);
        }
    }

    #[test]
    fn a_complete_replay_may_be_told_in_parts() {
        let mut gateway = gateway();
        let ada = gateway.open("ada", "phone");
        let ben = gateway.open("ben", "phone");
        gateway.feed.begin(Beginning::Replay(Missed::Complete));
        gateway.revoke("ada", "", "banned");
        // The next stream goes on after it.
        gateway.feed.begin(Beginning::Resumed { head: None });
        assert!(matches!(ada.check(), Err(Refusal::Ended(_))));
        assert_eq!(ben.check(), Ok(()));
    }

    #[test]
    fn what_may_be_older_than_a_session_does_not_end_it() {
        let mut gateway = gateway();
        let session = gateway.open("ada", "phone");
        let ticket = gateway.router.begin_authentication();
        gateway.feed.begin(Beginning::Replay(Missed::Unrelated));
        gateway.revoke("ada", "", "password changed, yesterday");
        gateway.feed.replayed();
        assert_eq!(session.check(), Err(Refusal::Suspect));
        assert_eq!(gateway.router.suspects().count(), 1);
        let refused = gateway.router.open(ticket, "ada", "phone").unwrap_err();
        assert_eq!(refused, OpenError::Gap);
        // What is new ends it.
        gateway.revoke("ada", "", "banned");
        assert!(matches!(session.check(), Err(Refusal::Ended(_))));
    }

    #[test]
    fn a_stream_that_resumes_has_to_catch_up_first() {
        let mut gateway = gateway();
        let mut ada = gateway.open("ada", "phone");
        let ben = gateway.open("ben", "phone");
        gateway.clock.advance(Duration::from_secs(600));
        let head = crate::cursor::Cursor::parse(b"1A2B3C4D5E6F-00000000003").unwrap();
        gateway.feed.begin(Beginning::Resumed { head: Some(head) });
        gateway.send("ada", "", "old");
        gateway.feed.heard();
        assert_eq!(ben.check(), Err(Refusal::Stale));
        assert_eq!(ada.try_recv(), Err(TryRecvError::Empty));
        gateway.revoke("ben", "", "banned");
        gateway.feed.heard();
        assert_eq!(ada.check(), Err(Refusal::Stale));
        let receiving = waiting(|cx| ada.poll_recv(cx));
        gateway.send("eve", "", "at the head");
        assert_eq!(receiving.times(), 1);
        assert_eq!(received(&mut ada), ["old"]);
        assert!(matches!(ben.check(), Err(Refusal::Ended(_))));
    }

    #[test]
    fn a_stream_that_resumes_changes_nothing() {
        let mut gateway = gateway();
        let mut session = gateway.open("ada", "phone");
        gateway.send("ada", "", "before");
        gateway.feed.begin(Beginning::Resumed { head: None });
        gateway.send("ada", "", "after");
        assert_eq!(received(&mut session), ["before", "after"]);
    }

    #[test]
    fn bytes_that_are_no_event_are_refused_after_what_came_before_them() {
        let mut gateway = gateway();
        let mut session = gateway.open("ada", "phone");
        let good = client_event("ada", "", "good", 1);
        let refused =
            gateway
                .feed
                .deliver(&[good.clone(), Bytes::from_static(b"\x0a\x05"), good.clone()]);
        assert!(matches!(refused, Err(FeedError::Event(_))));
        assert_eq!(received(&mut session), ["good"]);
        let no_cursor = push_event(2, &[field(2, b"ada")], 1).slice(..7);
        let refused = gateway.feed.deliver(&[no_cursor]);
        assert!(matches!(refused, Err(FeedError::Cursor(_))), "{refused:?}");
        assert_eq!(session.check(), Ok(()));
    }
}

mod queues {
    use super::*;

    #[test]
    fn the_oldest_is_dropped_and_counted() {
        let mut gateway = Gateway::new(Router::builder().queue_events(3));
        let mut session = gateway.open("ada", "phone");
        for number in 0..8 {
            gateway.send("ada", "", &number.to_string());
        }
        assert_eq!(session.try_recv(), Err(TryRecvError::Lagged(5)));
        assert_eq!(received(&mut session), ["5", "6", "7"]);
        assert_eq!(session.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(gateway.router.stats().dropped, 5);
    }

    #[test]
    fn or_the_session_ends() {
        let overflow = Overflow::Close;
        let mut gateway = Gateway::new(Router::builder().queue_events(2).overflow(overflow));
        let mut slow = gateway.open("ada", "phone");
        let mut quick = gateway.open("ada", "laptop");
        for number in 0..4 {
            gateway.send("ada", "", &number.to_string());
            assert_eq!(received(&mut quick), [number.to_string()]);
        }
        assert_eq!(slow.try_recv(), Err(TryRecvError::Ended(End::Overflow)));
        assert_eq!(gateway.router.stats().overflowed, 1);
    }

    #[test]
    fn but_not_while_it_is_held_back() {
        let overflow = Overflow::Close;
        let mut gateway = Gateway::new(Router::builder().queue_events(2).overflow(overflow));
        let mut session = gateway.open("ada", "phone");
        gateway.feed.begin(Beginning::Lost);
        for number in 0..5 {
            gateway.send("ada", "", &number.to_string());
        }
        for suspect in gateway.router.suspects() {
            suspect.valid();
        }
        assert_eq!(session.try_recv(), Err(TryRecvError::Lagged(3)));
        assert_eq!(received(&mut session), ["3", "4"]);
        for _ in 0..3 {
            gateway.send("ada", "", "too many");
        }
        assert_eq!(session.try_recv(), Err(TryRecvError::Ended(End::Overflow)));
    }

    /// A slow session keeps small events, and not the buffers that they came in.
    #[test]
    fn events_that_wait_for_others_are_copied() {
        let mut gateway = gateway();
        let mut session = gateway.open("ada", "phone");
        let buffer = Bytes::from(
            (0..3)
                .flat_map(|seq| client_event("ada", "", "small", seq))
                .collect::<Vec<u8>>(),
        );
        let bytes = buffer.len() / 3;
        for at in 0..3 {
            let event = buffer.slice(at * bytes..(at + 1) * bytes);
            gateway.feed.deliver(&[event]).unwrap();
        }
        assert!(buffer.is_unique(), "nothing keeps it");
        assert_eq!(received(&mut session), ["small"; 3]);
    }

    /// Whoever owns the bytes may do what it likes when they are not needed any more.
    #[test]
    fn nothing_of_others_runs_under_a_lock() {
        struct Owner(Router, Bytes);

        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.1
            }
        }

        impl Drop for Owner {
            fn drop(&mut self) {
                let ticket = self.0.begin_authentication();
                drop(self.0.open(ticket, "ada", "another"));
            }
        }

        // The oldest is dropped where one may wait, and the first is copied where two may.
        for queue_events in [1, 2] {
            let mut gateway = Gateway::new(Router::builder().queue_events(queue_events));
            let _session = gateway.open("ada", "phone");
            for _ in 0..2 {
                let event = client_event("ada", "", "owned", 1);
                let owned = Bytes::from_owner(Owner(gateway.router.clone(), event));
                gateway.feed.deliver(&[owned]).unwrap();
            }
            gateway.revoke("ada", "", "banned");
            assert_eq!(gateway.router.stats().opened, 3);
        }
    }

    #[test]
    fn a_session_is_woken_once_for_what_it_has_not_taken() {
        let mut gateway = gateway();
        let mut session = gateway.open("ada", "phone");
        let woken = waiting(|cx| session.poll_recv(cx));
        gateway.send("ada", "", "1");
        gateway.send("ada", "", "2");
        assert_eq!(woken.times(), 1);
        assert_eq!(received(&mut session), ["1", "2"]);
    }

    #[test]
    fn one_session_may_be_open_twice() {
        let mut gateway = gateway();
        let mut tabs = [(); 2].map(|()| gateway.open("ada", "browser"));
        gateway.send("ada", "browser", "both");
        for tab in &mut tabs {
            assert_eq!(received(tab), ["both"]);
        }
        let [first, mut second] = tabs;
        drop(first);
        gateway.send("ada", "", "one");
        assert_eq!(received(&mut second), ["one"]);
        drop(second);
        assert_eq!(gateway.router.sessions(), 0);
    }
}

mod draining {
    use super::*;

    #[test]
    fn sessions_take_what_they_have_and_requests_end_in_their_time() {
        let mut gateway = gateway();
        let mut busy = gateway.open("ada", "phone");
        let mut idle = gateway.open("ben", "phone");
        let mut guard = idle.enter().unwrap();
        gateway.send("ada", "", "last");
        let woken = waiting(|cx| idle.poll_recv(cx));
        gateway.router.drain();
        assert_eq!(woken.times(), 1);
        assert_eq!(idle.try_recv(), Err(TryRecvError::Ended(End::Draining)));
        assert_eq!(received(&mut busy), ["last"]);
        assert_eq!(busy.try_recv(), Err(TryRecvError::Ended(End::Draining)));
        assert_eq!(guard.check(), Ok(()));
        let router = gateway.router.clone();
        let mut drained = std::pin::pin!(router.drained());
        let woken = waiting(|cx| drained.as_mut().poll(cx));
        drop((busy, idle));
        assert_eq!(woken.times(), 0);
        let ending = waiting(|cx| std::pin::pin!(guard.ended()).poll(cx));
        gateway.router.close();
        assert_eq!(ending.times(), 1);
        assert_eq!(guard.check(), Err(Refusal::Ended(End::Draining)));
        drop(guard);
        assert_eq!(woken.times(), 1);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(drained.poll(&mut cx).is_ready());
    }

    #[test]
    fn it_may_be_waited_for_before_it_begins() {
        let gateway = gateway();
        let mut drained = std::pin::pin!(gateway.router.drained());
        let woken = waiting(|cx| drained.as_mut().poll(cx));
        drop(gateway.open("ada", "phone"));
        assert_eq!(woken.times(), 0);
        gateway.router.drain();
        assert_eq!(woken.times(), 1);
    }

    #[test]
    fn a_session_that_was_told_receives_nothing_more() {
        let mut gateway = gateway();
        let mut session = gateway.open("ada", "phone");
        gateway.router.drain();
        for _ in 0..2 {
            assert_eq!(session.try_recv(), Err(TryRecvError::Ended(End::Draining)));
            gateway.send("ada", "", "late");
        }
    }
}
