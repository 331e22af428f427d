use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::registry::{Lease, Max, Proof, Report, ReportError, Who};
use super::{Receipts, Wait};
use crate::clock::{Clock, ManualClock};

const LONGEST: Duration = Duration::from_secs(60);
const MAX: Max = Max {
    processes: 100,
    left: 10,
};
const LEASE: Duration = Duration::from_secs(10);
/// A lease, and what is added for clocks that differ.
const FENCED: Duration = Duration::from_millis(11_100);
const SETTLED: Duration = Duration::from_millis(66_100);

fn server() -> (Receipts, ManualClock) {
    let clock = ManualClock::new();
    let receipts = Receipts::new(clock.clone(), MAX, LONGEST);
    clock.advance(SETTLED);
    (receipts, clock)
}

fn report(enforced: u64) -> Report {
    Report {
        enforced,
        lease: Lease(LEASE),
    }
}

impl Receipts {
    fn enforce(&self, process: (&str, &str), enforced: u64, head: u64) -> Option<u64> {
        let reported = self.try_enforce(process, enforced, head).unwrap();
        assert_eq!(reported.0, head);
        reported.1
    }

    fn try_enforce(
        &self,
        (id, instance): (&str, &str),
        enforced: u64,
        head: u64,
    ) -> Result<(u64, Option<u64>), ReportError> {
        let who = who(id, instance, None);
        self.report(who, report(enforced), || head, || true)
    }

    fn good_bye(&self, (id, instance): (&str, &str)) {
        self.leave(&who(id, instance, None));
    }
}

fn who<'a>(id: &'a str, instance: &'a str, principal: Option<&str>) -> Who<'a> {
    Who {
        id,
        instance,
        principal: principal.map(Arc::from),
    }
}

fn look(wait: &Wait) -> Proof {
    wait.look(Waker::noop())
}

fn behind(proof: &Proof) -> Vec<(&str, &str)> {
    let mut behind: Vec<_> = proof
        .behind
        .iter()
        .map(|of| (&*of.id, &*of.instance))
        .collect();
    behind.sort_unstable();
    behind
}

#[test]
fn it_is_proven_when_all_have_enforced_it() {
    let (receipts, _clock) = server();
    assert_eq!(receipts.enforce(("g1", "a"), 3, 3), None);
    assert_eq!(receipts.enforce(("g2", "b"), 3, 3), None);
    let wait = receipts.wait(4).unwrap();
    assert_eq!(behind(&look(&wait)), [("g1", "a"), ("g2", "b")]);
    assert_eq!(receipts.enforce(("g1", "a"), 5, 5), Some(3));
    assert_eq!(behind(&look(&wait)), [("g2", "b")]);
    assert_eq!(receipts.enforce(("g2", "b"), 4, 5), Some(3));
    let proof = look(&wait);
    assert_eq!((proof.enforced, proof.fenced), (2, 0));
    assert!(proof.behind.is_empty() && proof.left.is_empty());
    assert_eq!(proof.known_from, None);
    assert_eq!(receipts.counts(), (2, 0));
    assert_eq!(receipts.enforced("g1", "a"), Some(5));
    assert_eq!(receipts.enforced("g1", "b"), None);
}

#[test]
fn whoever_is_silent_is_fenced_when_its_lease_has_ended() {
    let (receipts, clock) = server();
    receipts.enforce(("g1", "a"), 3, 3);
    clock.advance(Duration::from_secs(4));
    let wait = receipts.wait(4).unwrap();
    let proof = look(&wait);
    assert_eq!(proof.behind.len(), 1);
    assert_eq!(
        wait.until(proof.next.unwrap()),
        FENCED - Duration::from_secs(4)
    );
    clock.advance(FENCED - Duration::from_millis(4001));
    assert_eq!(look(&wait).behind.len(), 1);
    clock.advance(Duration::from_millis(1));
    let proof = look(&wait);
    assert_eq!((proof.fenced, proof.behind.len()), (1, 0));
    assert_eq!(receipts.counts(), (0, 1));
    // It is told of for a while.
    clock.advance(SETTLED);
    assert_eq!(look(&wait), Proof::default());
    assert_eq!(receipts.counts(), (0, 0));
}

#[test]
fn whoever_reports_and_does_not_follow_is_fenced_a_lease_after_the_wait_began() {
    let (receipts, clock) = server();
    receipts.enforce(("g1", "a"), 3, 3);
    let wait = receipts.wait(4).unwrap();
    for _ in 0..11 {
        assert_eq!(behind(&look(&wait)), [("g1", "a")]);
        clock.advance(Duration::from_secs(1));
        receipts.enforce(("g1", "a"), 3, 4);
    }
    clock.advance(Duration::from_millis(100));
    let proof = look(&wait);
    assert_eq!((proof.fenced, proof.behind.len()), (1, 0));
}

#[test]
fn what_is_known_next_is_the_first_of_what_is_to_come() {
    let (receipts, clock) = server();
    let short = Report {
        enforced: 3,
        lease: Lease(Duration::from_secs(2)),
    };
    let reported = receipts.report(who("g1", "a", None), short, || 3, || true);
    reported.unwrap();
    receipts.enforce(("g2", "b"), 3, 3);
    let wait = receipts.wait(4).unwrap();
    let until = |proof: Proof| wait.until(proof.next.unwrap());
    assert_eq!(until(look(&wait)), Duration::from_millis(2300));
    clock.advance(Duration::from_millis(2300));
    assert_eq!(behind(&look(&wait)), [("g2", "b")]);
    assert_eq!(until(look(&wait)), FENCED - Duration::from_millis(2300));
    receipts.enforce(("g2", "b"), 4, 4);
    assert_eq!(look(&wait).next, None);
}

#[test]
fn whoever_comes_or_comes_back_serves_nobody_before_it_has_caught_up() {
    let (receipts, clock) = server();
    let wait = receipts.wait(4).unwrap();
    assert_eq!(receipts.enforce(("g1", "a"), 2, 4), None);
    assert_eq!(look(&wait).fenced, 1);
    clock.advance(FENCED);
    let wait = receipts.wait(7).unwrap();
    assert_eq!(
        receipts.enforce(("g1", "a"), 3, 7),
        None,
        "its lease had ended"
    );
    let proof = look(&wait);
    assert_eq!((proof.fenced, proof.behind.len()), (1, 0));
    // Of what is published afterwards that is not known.
    let later = receipts.wait(8).unwrap();
    assert_eq!(behind(&look(&later)), [("g1", "a")]);
}

#[test]
fn what_cannot_be_is_refused() {
    let (receipts, clock) = server();
    let refused = |process, enforced| receipts.try_enforce(process, enforced, 9).unwrap_err();
    receipts.enforce(("g1", "a"), 3, 9);
    assert_eq!(refused(("g1", "a"), 10), ReportError::BeyondHead);
    assert_eq!(refused(("g1", "a"), 2), ReportError::WentBack { before: 3 });
    for n in 1..64 {
        receipts.enforce(("g1", &format!("a{n}")), 3, 9);
    }
    assert_eq!(
        refused(("g1", "b"), 3),
        ReportError::TooManyProcesses { limit: 64 }
    );
    for n in 0..36 {
        receipts.enforce((&format!("h{n}"), "a"), 3, 9);
    }
    assert_eq!(refused(("i", "b"), 3), ReportError::TooMany { limit: 100 });
    // Those whose leases have ended make room.
    clock.advance(FENCED);
    receipts.enforce(("g1", "b"), 3, 9);
    receipts.enforce(("i", "b"), 3, 9);
    assert_eq!(receipts.counts(), (2, 98));
    receipts.good_bye(("i", "b"));
    receipts.good_bye(("i", "c"));
    assert_eq!(receipts.counts(), (1, 99));
}

#[test]
fn nobody_reports_for_others_or_without_a_stream() {
    let (receipts, _clock) = server();
    let of = |principal, is_subscribed: bool| {
        let who = who("g1", "a", principal);
        let reported = receipts.report(who, report(3), || 3, || is_subscribed);
        reported.map(|_| ())
    };
    assert_eq!(of(Some("one"), false), Err(ReportError::NotSubscribed));
    assert_eq!(of(Some("one"), true), Ok(()));
    // It is known, and its stream may be over.
    assert_eq!(of(Some("one"), false), Ok(()));
    for other in [None, Some("two")] {
        assert_eq!(of(other, false), Err(ReportError::NotSubscribed));
        receipts.leave(&who("g1", "a", other));
    }
    assert_eq!(receipts.counts(), (1, 0));
    // It has subscribed anew, with another credential.
    assert_eq!(of(Some("two"), true), Ok(()));
    assert_eq!(of(Some("one"), false), Err(ReportError::NotSubscribed));
    receipts.leave(&who("g1", "a", Some("two")));
    assert_eq!(receipts.counts(), (0, 1));
}

#[test]
fn whoever_says_good_bye_is_neither_behind_nor_has_it_left_unheard() {
    let (receipts, clock) = server();
    receipts.enforce(("g1", "a"), 3, 3);
    receipts.good_bye(("g1", "a"));
    receipts.stream_ended("g1", Some("a"));
    let wait = receipts.wait(4).unwrap();
    assert_eq!(look(&wait), Proof::default());
    assert_eq!(receipts.counts(), (0, 1));
    // It has changed its mind.
    receipts.enforce(("g1", "a"), 3, 4);
    assert_eq!(behind(&look(&wait)), []);
    assert_eq!(look(&wait).fenced, 1);
    receipts.good_bye(("g1", "a"));
    clock.advance(SETTLED);
    assert_eq!(receipts.counts(), (0, 0));
}

#[test]
fn whoever_has_never_reported_is_missing_for_the_longest_lease_after_it_has_left() {
    let (receipts, clock) = server();
    receipts.enforce(("g1", "a"), 3, 3);
    receipts.stream_ended("g1", Some("a"));
    receipts.stream_ended("g1", None);
    receipts.stream_ended("g2", Some("b"));
    clock.advance(Duration::from_secs(1));
    receipts.stream_ended("g2", None);
    let wait = receipts.wait(3).unwrap();
    let mut left = look(&wait).left;
    left.sort_unstable();
    assert_eq!(left, ["g1".into(), "g2".into()]);
    clock.advance(SETTLED - Duration::from_secs(1));
    assert_eq!(look(&wait).left, ["g2".into()]);
    clock.advance(Duration::from_secs(1));
    assert_eq!(look(&wait).left, []);
    // More than can be remembered: then nobody knows.
    for n in 0..10 {
        receipts.stream_ended(&format!("g{n}"), None);
        receipts.stream_ended("g0", None);
    }
    assert_eq!(look(&wait).known_from, None);
    receipts.stream_ended("g10", None);
    let proof = look(&wait);
    assert_eq!(proof.left.len(), 10);
    assert!(proof.known_from.is_some());
    clock.advance(SETTLED);
    assert_eq!(look(&wait).known_from, None);
}

#[test]
fn a_server_that_has_just_started_does_not_know_who_is_there() {
    let clock = ManualClock::new();
    let receipts = Receipts::new(clock.clone(), MAX, LONGEST);
    let wait = receipts.wait(1).unwrap();
    let proof = look(&wait);
    assert_eq!(proof.known_from, Some(SETTLED));
    assert_eq!(wait.until(proof.next.unwrap()), SETTLED);
    clock.advance(SETTLED);
    assert_eq!(look(&wait).known_from, None);
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_wait_is_woken_once_by_the_last_report_that_it_needs() {
    let (receipts, _clock) = server();
    for process in [("g1", "a"), ("g2", "b")] {
        receipts.enforce(process, 3, 3);
    }
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let wait = receipts.wait(5).unwrap();
    wait.look(&waker);
    let is_woken = |times| assert_eq!(woken.0.load(Ordering::Relaxed), times);
    receipts.enforce(("g1", "a"), 5, 9);
    receipts.enforce(("g2", "b"), 4, 9);
    is_woken(0);
    receipts.enforce(("g2", "b"), 9, 9);
    is_woken(1);
    receipts.enforce(("g1", "a"), 9, 9);
    is_woken(1);
    // Somebody who leaves is not waited for.
    let wait = receipts.wait(12).unwrap();
    wait.look(&waker);
    receipts.enforce(("g1", "a"), 12, 12);
    receipts.good_bye(("g2", "b"));
    is_woken(2);
    // And nobody is woken who has gone.
    let wait = receipts.wait(20).unwrap();
    wait.look(&waker);
    drop(wait);
    receipts.enforce(("g1", "a"), 20, 20);
    is_woken(2);
}

#[test]
fn so_many_wait_and_no_more() {
    let (receipts, _clock) = server();
    let mut waits: Vec<_> = (0..256).map(|n| receipts.wait(n).unwrap()).collect();
    assert_eq!(receipts.wait(1).unwrap_err().limit, 256);
    waits.pop();
    assert!(receipts.wait(1).is_ok());
}

/// What happens in a small world: a server, and processes that keep the rule.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish,
    Pass {
        ms: u64,
    },
    Enforce {
        process: usize,
        events: u64,
    },
    Send {
        process: usize,
    },
    /// A report arrives, and is answered.
    Arrive {
        process: usize,
    },
    /// An answer arrives.
    Answer {
        process: usize,
    },
    Lose {
        process: usize,
    },
    Wait,
    /// It serves nobody from now on, and says so.
    Leave {
        process: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let process = || 0..PROCESSES.len();
    let step = prop_oneof![
        3 => Just(Step::Publish),
        4 => (1..8000_u64).prop_map(|ms| Step::Pass { ms }),
        6 => (process(), 1..4_u64).prop_map(|(process, events)| Step::Enforce { process, events }),
        6 => process().prop_map(|process| Step::Send { process }),
        6 => process().prop_map(|process| Step::Arrive { process }),
        6 => process().prop_map(|process| Step::Answer { process }),
        1 => process().prop_map(|process| Step::Lose { process }),
        3 => Just(Step::Wait),
        1 => process().prop_map(|process| Step::Leave { process }),
    ];
    proptest::collection::vec(step, 1..200)
}

/// The processes, and how fast their clocks go.
const PROCESSES: [((&str, &str), f64); 4] = [
    (("g1", "a"), 0.95),
    (("g1", "b"), 1.0),
    (("g2", "a"), 1.08),
    (("g3", "a"), 0.918),
];

/// A process that keeps the rule, by a clock of its own.
#[derive(Default)]
struct Model {
    enforced: u64,
    /// When reports were sent whose answers' heads it has yet to come to, and these heads.
    awaited: VecDeque<(f64, u64)>,
    /// It knows all that was published before this moment.
    known: f64,
    sent: VecDeque<(f64, u64)>,
    answers: VecDeque<(f64, u64)>,
    has_left: bool,
}

impl Model {
    fn catch_up(&mut self) {
        while let Some((sent, head)) = self.awaited.front().copied()
            && self.enforced >= head
        {
            self.awaited.pop_front();
            self.known = self.known.max(sent);
        }
    }

    fn serves(&self, now: f64) -> bool {
        !self.has_left && now - self.known <= LEASE.as_secs_f64()
    }
}

proptest! {
    #[test]
    fn what_is_proven_is_so(steps in steps()) {
        let clock = ManualClock::new();
        let receipts = Receipts::new(clock.clone(), MAX, LEASE);
        let mut head = 0;
        // As another server has left them, a moment before.
        let mut models: [Model; PROCESSES.len()] = Default::default();
        let mut waits: Vec<(u64, Wait)> = Vec::new();
        let mut proven = 0;
        for step in steps {
            let local = |process: usize| clock.now().as_secs_f64() * PROCESSES[process].1;
            match step {
                Step::Publish => head += 1,
                Step::Pass { ms } => clock.advance(Duration::from_millis(ms)),
                Step::Enforce { process, events } => {
                    let model = &mut models[process];
                    model.enforced = head.min(model.enforced + events);
                    model.catch_up();
                }
                Step::Send { process } => {
                    let model = &mut models[process];
                    if !model.has_left {
                        model.sent.push_back((local(process), model.enforced));
                    }
                }
                Step::Arrive { process } => {
                    let model = &mut models[process];
                    if let Some((sent, enforced)) = model.sent.pop_front() {
                        let answered = receipts.try_enforce(PROCESSES[process].0, enforced, head);
                        model.answers.push_back((sent, answered.unwrap().0));
                    }
                }
                Step::Answer { process } => {
                    let model = &mut models[process];
                    model.awaited.extend(model.answers.pop_front());
                    model.catch_up();
                }
                Step::Lose { process } => {
                    let model = &mut models[process];
                    model.sent.pop_back();
                    model.answers.pop_front();
                }
                Step::Wait => waits.push((head, receipts.wait(head).unwrap())),
                Step::Leave { process } => {
                    models[process].has_left = true;
                    receipts.good_bye(PROCESSES[process].0);
                }
            }
            for (target, wait) in &waits {
                let proof = look(wait);
                if proof.behind.is_empty() && proof.known_from.is_none() {
                    proven = proven.max(*target);
                }
            }
            for (process, model) in models.iter().enumerate() {
                prop_assert!(
                    model.enforced >= proven || !model.serves(local(process)),
                    "{:?} serves, and has enforced {} where {proven} is proven",
                    PROCESSES[process].0,
                    model.enforced,
                );
            }
        }
    }
}
