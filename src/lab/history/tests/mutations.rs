//! Random histories of an engine that keeps its promises pass; with one thing changed
//! in them, they do not.

use std::collections::HashMap;

use super::*;

/// Splitmix64: small, and good enough to choose.
struct Random(u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn choose<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let at = self.below(from.len().max(1) as u64);
        from.get(at as usize).cloned()
    }
}

/// One line of a history. Publishes and streams have numbers.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Publishing(usize),
    Accepted {
        publish: usize,
        first: u64,
        last: u64,
        events: Vec<Fingerprint>,
    },
    Refused(Vec<Fingerprint>),
    NoResponse {
        publish: usize,
        events: Vec<Fingerprint>,
    },
    Subscribing {
        stream: usize,
        id: u64,
        cursor: String,
    },
    Granted {
        stream: usize,
        decision: Decision,
        start: u64,
    },
    Received {
        stream: usize,
        cursor: Cursor,
        event: Fingerprint,
    },
    Lagged {
        stream: usize,
        missed: u64,
    },
    Ended {
        stream: usize,
        end: End,
    },
}

/// How many events the model's ring keeps.
const RETAINED: u64 = 12;

fn replay(steps: &[Step]) -> Report {
    let history = History::new(Terms::default().retained_events(RETAINED));
    let mut publishers = [history.publisher("even"), history.publisher("odd")];
    let mut publishing = HashMap::new();
    let mut subscribing = HashMap::new();
    let mut streams = HashMap::new();
    for step in steps.iter().cloned() {
        match step {
            Step::Publishing(publish) => {
                publishing.insert(publish, publishers[publish % 2].publishing());
            }
            Step::Accepted {
                publish,
                first,
                last,
                events,
            } => {
                let begun = publishing[&publish];
                publishers[publish % 2].accepted(begun, at(first), at(last), &events);
            }
            Step::Refused(events) => publishers[0].refused(&events),
            Step::NoResponse { publish, events } => {
                publishers[publish % 2].no_response(publishing[&publish], &events);
            }
            Step::Subscribing { stream, id, cursor } => {
                let begun = history.subscribing(&id.to_string(), &cursor);
                subscribing.insert(stream, begun);
            }
            Step::Granted {
                stream,
                decision,
                start,
            } => {
                let begun = subscribing.remove(&stream).unwrap();
                streams.insert(stream, begun.granted(decision, at(start)));
            }
            Step::Received {
                stream,
                cursor,
                event,
            } => streams
                .get_mut(&stream)
                .unwrap()
                .received([(cursor, event)]),
            Step::Lagged { stream, missed } => streams.get_mut(&stream).unwrap().lagged(missed),
            Step::Ended { stream, end } => streams.remove(&stream).unwrap().ended(end),
        }
    }
    drop((publishers, streams));
    history.check()
}

/// An engine that keeps its promises, and what its history looks like.
struct Model {
    random: Random,
    steps: Vec<Step>,
    /// Whether responses may be lost.
    losses: bool,
    log: Vec<Fingerprint>,
    publishes: usize,
    streams: usize,
    /// Responses that come later.
    late: Vec<Step>,
    open: Vec<Open>,
}

#[derive(Clone, Copy)]
struct Open {
    stream: usize,
    id: u64,
    position: u64,
    is_taken: bool,
}

/// The id of a stream that starts at 0 and receives everything.
const WITNESS: u64 = 99;

impl Model {
    fn run(seed: u64, losses: bool) -> Vec<Step> {
        let mut model = Model {
            random: Random(seed),
            steps: Vec::new(),
            losses,
            log: Vec::new(),
            publishes: 0,
            streams: 0,
            late: Vec::new(),
            open: Vec::new(),
        };
        model.subscribe(WITNESS, String::new());
        for _ in 0..120 {
            match model.random.below(8) {
                0..3 => model.publish(),
                3 => {
                    let id = model.random.below(3);
                    let cursor = model.some_cursor();
                    model.subscribe(id, cursor);
                }
                4..6 => model.receive(),
                6 => model.leave(),
                _ => {
                    let late = model.late.pop();
                    model.steps.extend(late);
                }
            }
            model.receive_all(0);
        }
        model.close();
        model.steps
    }

    fn head(&self) -> u64 {
        self.log.len() as u64
    }

    fn publish(&mut self) {
        let publish = self.publishes;
        self.publishes += 1;
        let place = |n| event((publish as u64) << 8 | n);
        let events: Vec<_> = (0..1 + self.random.below(4)).map(place).collect();
        if self.random.one_in(8) {
            return self.steps.push(Step::Refused(events));
        }
        self.steps.push(Step::Publishing(publish));
        let is_lost = self.losses && self.random.one_in(4);
        if is_lost && self.random.one_in(2) {
            return self.steps.push(Step::NoResponse { publish, events });
        }
        let first = self.head() + 1;
        self.log.extend(&events);
        let response = if is_lost {
            Step::NoResponse { publish, events }
        } else {
            let last = self.head();
            Step::Accepted {
                publish,
                first,
                last,
                events,
            }
        };
        if self.random.one_in(3) {
            self.late.push(response);
        } else {
            self.steps.push(response);
        }
    }

    fn some_cursor(&mut self) -> String {
        let seq = self.random.below(self.head() + 1);
        match self.random.below(8) {
            0 => String::new(),
            1 => "nonsense".to_owned(),
            2 => at(self.head() + 1 + seq).to_string(),
            3 => Cursor::new(epoch(1), Seq::new(seq)).to_string(),
            _ => at(seq).to_string(),
        }
    }

    fn subscribe(&mut self, id: u64, cursor: String) {
        let stream = self.streams;
        self.streams += 1;
        let head = self.head();
        let decision = match Requested::from(cursor.as_str()) {
            Requested::Nothing => Decision::NoCursor,
            Requested::Malformed(_) => Decision::Malformed,
            Requested::Cursor(cursor) if cursor.epoch() != epoch(0) => Decision::OtherEpoch,
            Requested::Cursor(cursor) if cursor > at(head) => Decision::Ahead,
            Requested::Cursor(cursor) => match head - cursor.seq().number() {
                0..=RETAINED => Decision::Resumed,
                missed => Decision::Expired { missed },
            },
        };
        let start = match cursor.parse::<Cursor>() {
            Ok(cursor) if decision == Decision::Resumed => cursor.seq().number(),
            _ => head,
        };
        for older in self.open.iter_mut().filter(|open| open.id == id) {
            older.is_taken = true;
        }
        self.steps.push(Step::Subscribing { stream, id, cursor });
        self.steps.push(Step::Granted {
            stream,
            decision,
            start,
        });
        self.open.push(Open {
            stream,
            id,
            position: start,
            is_taken: false,
        });
    }

    fn receive(&mut self) {
        let which = self.random.below(self.open.len() as u64) as usize;
        let Open {
            stream,
            position,
            is_taken,
            ..
        } = self.open[which];
        let oldest = self.head().saturating_sub(RETAINED) + 1;
        if !is_taken && position + 1 < oldest {
            let missed = oldest - position - 1;
            self.steps.push(Step::Lagged { stream, missed });
            self.open[which].position += missed;
        } else if !is_taken {
            let until = self.head().min(position + 1 + self.random.below(9));
            self.receive_until(which, until);
        }
    }

    fn receive_until(&mut self, which: usize, until: u64) {
        let Open {
            stream, position, ..
        } = self.open[which];
        for seq in position + 1..=until {
            self.steps.push(Step::Received {
                stream,
                cursor: at(seq),
                event: self.log[seq as usize - 1],
            });
        }
        self.open[which].position = until.max(position);
    }

    fn receive_all(&mut self, which: usize) {
        self.receive_until(which, self.head());
    }

    /// Ends any stream but the witness.
    fn leave(&mut self) {
        let which = self.random.below(self.open.len() as u64) as usize;
        if which == 0 {
            return;
        }
        let open = self.open.remove(which);
        let missed = self.head() - open.position;
        let end = match () {
            () if open.is_taken => End::TakenOver,
            () if missed > RETAINED => End::Lagged { missed },
            () => End::Cut,
        };
        let stream = open.stream;
        self.steps.push(Step::Ended { stream, end });
    }

    fn close(&mut self) {
        self.steps.append(&mut self.late);
        for which in 0..self.open.len() {
            let open = self.open[which];
            if !open.is_taken {
                self.receive_all(which);
            }
            self.steps.push(Step::Ended {
                stream: open.stream,
                end: if open.is_taken {
                    End::TakenOver
                } else {
                    End::Closed
                },
            });
        }
    }
}

#[test]
fn random_histories_are_clean() {
    let mut summary = Summary::default();
    for seed in 0..500 {
        for losses in [false, true] {
            let report = replay(&Model::run(seed, losses));
            assert!(report.is_clean(), "seed {seed}: {report}");
            summary += report.summary;
        }
    }
    let Summary {
        batches_without_response,
        refused_batches,
        resumed,
        expired,
        gaps,
        taken_over,
        lagged,
        closed,
        ..
    } = summary;
    let counts = [
        batches_without_response,
        refused_batches,
        resumed,
        expired,
        gaps,
        taken_over,
        lagged,
        closed,
    ];
    assert!(counts.iter().all(|count| *count > 100), "{summary}");
}

/// Changes one thing in a history, if there is such a thing.
type Mutation = fn(&mut Vec<Step>, &mut Random) -> Option<()>;

const MUTATIONS: &[(&str, Mutation)] = &[
    ("an event is left out", |steps, random| {
        let at = random.choose(&received_before_the_last(steps))?;
        steps.remove(at);
        Some(())
    }),
    ("an event comes twice", |steps, random| {
        let at = random.choose(&all(steps, |step| matches!(step, Step::Received { .. })))?;
        let again = steps[at].clone();
        steps.insert(at + 1, again);
        Some(())
    }),
    ("two events change places", |steps, random| {
        let at = random.choose(&received_before_the_last(steps))?;
        let next = (at + 1..steps.len()).find(|next| match (&steps[at], &steps[*next]) {
            (Step::Received { stream: a, .. }, Step::Received { stream: b, .. }) => a == b,
            _ => false,
        })?;
        steps.swap(at, next);
        Some(())
    }),
    ("an event has other contents", |steps, random| {
        let at = random.choose(&all(steps, |step| matches!(step, Step::Received { .. })))?;
        if let Step::Received { event, .. } = &mut steps[at] {
            *event = Fingerprint::of(b"something else");
        }
        Some(())
    }),
    ("an event has another epoch", |steps, random| {
        let at = random.choose(&all(steps, |step| matches!(step, Step::Received { .. })))?;
        if let Step::Received { cursor, .. } = &mut steps[at] {
            *cursor = Cursor::new(epoch(1), cursor.seq());
        }
        Some(())
    }),
    ("a gap is miscounted", |steps, random| {
        let gaps = all(steps, |step| matches!(step, Step::Lagged { .. }));
        let goes_on = |at: &usize| goes_on(steps, *at);
        let gaps: Vec<_> = gaps.into_iter().filter(goes_on).collect();
        let at = random.choose(&gaps)?;
        if let Step::Lagged { missed, .. } = &mut steps[at] {
            *missed = off_by_one(*missed, random);
        }
        Some(())
    }),
    ("a gap is not announced", |steps, random| {
        let gaps = all(steps, |step| matches!(step, Step::Lagged { .. }));
        let goes_on = |at: &usize| goes_on(steps, *at);
        let gaps: Vec<_> = gaps.into_iter().filter(goes_on).collect();
        let at = random.choose(&gaps)?;
        steps.remove(at);
        Some(())
    }),
    ("a lagged stream is told of too much", |steps, random| {
        let lagged = |step: &Step| {
            let end = End::Lagged { missed: 0 };
            matches!(step, Step::Ended { end: found, .. }
                if std::mem::discriminant(found) == std::mem::discriminant(&end))
        };
        let at = random.choose(&all(steps, lagged))?;
        if let Step::Ended {
            end: End::Lagged { missed },
            ..
        } = &mut steps[at]
        {
            *missed += 10_000;
        }
        Some(())
    }),
    ("a start is off by one", |steps, random| {
        let starts = all(steps, |step| matches!(step, Step::Granted { .. }));
        let goes_on = |at: &usize| goes_on(steps, *at);
        let starts: Vec<_> = starts.into_iter().filter(goes_on).collect();
        let at = random.choose(&starts)?;
        if let Step::Granted { start, .. } = &mut steps[at] {
            *start = off_by_one(*start, random);
        }
        Some(())
    }),
    ("a decision is another one", |steps, random| {
        let at = random.choose(&all(steps, |step| matches!(step, Step::Granted { .. })))?;
        let Step::Granted {
            decision, start, ..
        } = &mut steps[at]
        else {
            return None;
        };
        let others = [
            Decision::Resumed,
            Decision::NoCursor,
            Decision::Expired { missed: *start },
            Decision::Ahead,
            Decision::OtherEpoch,
            Decision::Malformed,
        ];
        let kind = std::mem::discriminant(decision);
        let others: Vec<_> = others
            .into_iter()
            .filter(|other| std::mem::discriminant(other) != kind)
            .collect();
        *decision = random.choose(&others)?;
        Some(())
    }),
    ("an expired cursor is miscounted", |steps, random| {
        let expired = |step: &Step| {
            matches!(
                step,
                Step::Granted {
                    decision: Decision::Expired { .. },
                    ..
                }
            )
        };
        let at = random.choose(&all(steps, expired))?;
        if let Step::Granted {
            decision: Decision::Expired { missed },
            ..
        } = &mut steps[at]
        {
            *missed = off_by_one(*missed, random);
        }
        Some(())
    }),
    ("a batch has two responses", |steps, random| {
        let at = random.choose(&all(steps, |step| matches!(step, Step::Accepted { .. })))?;
        let again = steps[at].clone();
        steps.push(again);
        Some(())
    }),
    ("a response names another place", |steps, random| {
        let at = random.choose(&all(steps, |step| matches!(step, Step::Accepted { .. })))?;
        if let Step::Accepted { first, last, .. } = &mut steps[at] {
            *first += 1;
            *last += 1;
        }
        Some(())
    }),
    ("a response has another size", |steps, random| {
        let at = random.choose(&all(steps, |step| matches!(step, Step::Accepted { .. })))?;
        if let Step::Accepted { last, .. } = &mut steps[at] {
            *last = off_by_one(*last, random);
        }
        Some(())
    }),
    (
        "two batches are given each other's place",
        |steps, random| {
            let responses = all(steps, |step| matches!(step, Step::Accepted { .. }));
            let (a, b) = (random.choose(&responses)?, random.choose(&responses)?);
            let (Step::Accepted { events: ours, .. }, Step::Accepted { events: theirs, .. }) =
                (&steps[a], &steps[b])
            else {
                return None;
            };
            let (ours, theirs) = (ours.clone(), theirs.clone());
            if a == b || ours.len() != theirs.len() {
                return None;
            }
            for (at, swapped) in [(a, theirs), (b, ours)] {
                if let Step::Accepted { events, .. } = &mut steps[at] {
                    *events = swapped;
                }
            }
            Some(())
        },
    ),
    ("a batch is accepted without a response", |steps, random| {
        let at = random.choose(&all(steps, |step| matches!(step, Step::Accepted { .. })))?;
        steps.remove(at);
        Some(())
    }),
    ("a batch is accepted and called refused", |steps, random| {
        let at = random.choose(&all(steps, |step| matches!(step, Step::Accepted { .. })))?;
        let Step::Accepted { events, .. } = steps[at].clone() else {
            return None;
        };
        steps[at] = Step::Refused(events);
        Some(())
    }),
    ("a lost batch is there in part", |steps, random| {
        let at = random.choose(&all(steps, |step| matches!(step, Step::Accepted { .. })))?;
        let Step::Accepted {
            publish,
            mut events,
            ..
        } = steps[at].clone()
        else {
            return None;
        };
        events.push(Fingerprint::of(b"not there"));
        steps[at] = Step::NoResponse { publish, events };
        Some(())
    }),
    (
        "a stream is said to be taken over, by nobody",
        |steps, random| {
            let alone = |step: &Step| match step {
                Step::Ended { stream, end } => {
                    *end != End::TakenOver && !has_rivals(steps, *stream)
                }
                _ => false,
            };
            let at = random.choose(&all(steps, alone))?;
            if let Step::Ended { end, .. } = &mut steps[at] {
                *end = End::TakenOver;
            }
            Some(())
        },
    ),
    (
        "a stream goes on after it was taken over",
        |steps, random| {
            let taken = |step: &Step| {
                let end = End::TakenOver;
                matches!(step, Step::Ended { end: found, .. } if *found == end)
            };
            let at = random.choose(&all(steps, taken))?;
            let Step::Ended { stream, .. } = steps[at] else {
                return None;
            };
            let after = taken_at(steps, stream)?;
            let mut later = steps[after..].iter().filter_map(|step| match step {
                Step::Publishing(publish) => accepted_places(steps, *publish),
                _ => None,
            });
            let (until, _) = later.next()?;
            let mut position = position(&steps[..at], stream);
            let mut more = Vec::new();
            while position < until {
                position += 1;
                more.push(Step::Received {
                    stream,
                    cursor: super::at(position),
                    event: contents(steps, position)?,
                });
            }
            steps.splice(at..at, more);
            Some(())
        },
    ),
];

#[test]
fn whatever_is_changed_is_found() {
    for (what, mutation) in MUTATIONS {
        let mut tried = 0;
        for seed in 0..300 {
            let mut steps = Model::run(seed, false);
            let mut random = Random(!seed);
            if mutation(&mut steps, &mut random).is_none() {
                continue;
            }
            tried += 1;
            let report = replay(&steps);
            assert!(!report.is_clean(), "{what}, seed {seed}: not found");
        }
        assert!(tried >= 50, "{what}: {tried} times only");
    }
}

// --- looking around in a history ---

fn all(steps: &[Step], is: impl Fn(&Step) -> bool) -> Vec<usize> {
    (0..steps.len()).filter(|at| is(&steps[*at])).collect()
}

fn off_by_one(number: u64, random: &mut Random) -> u64 {
    if number == 0 || random.one_in(2) {
        number + 1
    } else {
        number - 1
    }
}

fn stream_of(step: &Step) -> Option<usize> {
    match step {
        Step::Granted { stream, .. }
        | Step::Received { stream, .. }
        | Step::Lagged { stream, .. }
        | Step::Ended { stream, .. } => Some(*stream),
        _ => None,
    }
}

/// Whether the stream of the step at `at` receives anything afterwards, or is closed:
/// then its position counts.
fn goes_on(steps: &[Step], at: usize) -> bool {
    let stream = stream_of(&steps[at]);
    let counts = |step: &Step| match step {
        Step::Received { .. } => true,
        Step::Ended { end, .. } => *end == End::Closed,
        _ => false,
    };
    (steps[at + 1..].iter()).any(|step| stream_of(step) == stream && counts(step))
}

fn received_before_the_last(steps: &[Step]) -> Vec<usize> {
    let received = all(steps, |step| matches!(step, Step::Received { .. }));
    received
        .into_iter()
        .filter(|at| goes_on(steps, *at))
        .collect()
}

fn id_of(steps: &[Step], stream: usize) -> Option<u64> {
    steps.iter().find_map(|step| match step {
        Step::Subscribing { stream: s, id, .. } if *s == stream => Some(*id),
        _ => None,
    })
}

/// Where a newer subscription of the stream's id was granted.
fn taken_at(steps: &[Step], stream: usize) -> Option<usize> {
    let id = id_of(steps, stream);
    steps.iter().position(|step| match step {
        Step::Granted { stream: s, .. } => *s > stream && id_of(steps, *s) == id,
        _ => false,
    })
}

/// Whether a newer subscription of the stream's id was begun before it ended.
fn has_rivals(steps: &[Step], stream: usize) -> bool {
    let end = all(
        steps,
        |step| matches!(step, Step::Ended { stream: s, .. } if *s == stream),
    );
    taken_at(steps, stream).is_some_and(|taken| taken < end[0])
}

fn position(steps: &[Step], stream: usize) -> u64 {
    let mut position = 0;
    for step in steps.iter().filter(|step| stream_of(step) == Some(stream)) {
        match step {
            Step::Granted { start, .. } => position = *start,
            Step::Received { cursor, .. } => position = cursor.seq().number(),
            Step::Lagged { missed, .. } => position += missed,
            _ => {}
        }
    }
    position
}

fn accepted_places(steps: &[Step], publish: usize) -> Option<(u64, u64)> {
    steps.iter().find_map(|step| match step {
        Step::Accepted {
            publish: p,
            first,
            last,
            ..
        } if *p == publish => Some((*first, *last)),
        _ => None,
    })
}

fn contents(steps: &[Step], seq: u64) -> Option<Fingerprint> {
    steps.iter().find_map(|step| match step {
        Step::Received { cursor, event, .. } if *cursor == at(seq) => Some(*event),
        _ => None,
    })
}
