//! The events of one user, as they go by: for whoever looks, and as long as somebody does.
//!
//! One task reads along from the ring, every tenth of a second, while somebody follows. What a
//! follower does not take in time is dropped, and counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use prost::Message as _;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::views::{json, time};
use crate::contract::push::PushEvent;
use crate::contract::push::push_event::Kind;
use crate::engine::{Engine, Observer, TryRecvError};

/// The time between two looks at the ring.
const INTERVAL: Duration = Duration::from_millis(100);
/// So many events wait for a follower, and so many bytes of them.
const MAX_WAITING: (usize, usize) = (256, 1 << 20);
/// A longer payload is not shown.
const MAX_PAYLOAD_BYTES: usize = 64 << 10;

/// Who follows whom.
#[derive(Debug)]
pub(super) struct Followers {
    engine: Engine,
    state: Mutex<State>,
    has_come: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// While somebody follows.
    observer: Option<Observer>,
    queues: Vec<Arc<Queue>>,
}

/// What waits for a follower.
#[derive(Debug)]
struct Queue {
    user: Box<str>,
    shows_payloads: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Bytes>,
    bytes: usize,
    /// Since it was told last.
    missed: u64,
}

/// Somebody who follows a user, until it is dropped.
#[derive(Debug)]
pub(super) struct Follower {
    followers: Arc<Followers>,
    queue: Arc<Queue>,
}

/// What a follower is told.
#[derive(Debug)]
pub(super) enum Seen {
    /// An `api::UserEvent`.
    Event(Bytes),
    /// So many events went by unseen.
    Missed(u64),
}

impl Followers {
    pub(super) fn new(engine: &Engine) -> Arc<Self> {
        Arc::new(Followers {
            engine: engine.clone(),
            state: Mutex::default(),
            has_come: Notify::new(),
        })
    }

    /// Follows a user from here on.
    pub(super) fn follow(self: &Arc<Self>, user: &str, shows_payloads: bool) -> Follower {
        let queue = Arc::new(Queue {
            user: user.into(),
            shows_payloads: AtomicBool::new(shows_payloads),
            waiting: Mutex::default(),
        });
        let mut state = lock(&self.state);
        state.observer.get_or_insert_with(|| self.engine.observe());
        state.queues.push(Arc::clone(&queue));
        drop(state);
        self.has_come.notify_one();
        Follower {
            followers: Arc::clone(self),
            queue,
        }
    }

    /// Reads along, until it is dropped.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            if self.look() {
                // There is more: others have a turn first.
                tokio::task::yield_now().await;
            } else if lock(&self.state).queues.is_empty() {
                self.has_come.notified().await;
            } else {
                sleep(INTERVAL).await;
            }
        }
    }

    /// Takes one batch. Returns whether there may be more.
    fn look(&self) -> bool {
        let mut state = lock(&self.state);
        if state.queues.is_empty() {
            // It would keep a part of the ring.
            state.observer = None;
        }
        let State { observer, queues } = &mut *state;
        let Some(observer) = observer else {
            return false;
        };
        match observer.try_recv() {
            Ok(batch) => {
                for event in batch.events() {
                    show(event, queues);
                }
                true
            }
            Err(TryRecvError::Lagged(missed)) => {
                queues
                    .iter()
                    .for_each(|queue| lock(&queue.waiting).missed += missed);
                true
            }
            // Nothing is left, or nothing will come.
            Err(_) => false,
        }
    }
}

/// Puts an event before those that follow its user.
fn show(event: &[u8], queues: &[Arc<Queue>]) {
    // Nearly every event is of somebody else: that is found out without decoding it.
    let names = |queue: &Arc<Queue>| contains(event, queue.user.as_bytes());
    if !queues.iter().any(names) {
        return;
    }
    // What is in the ring was checked; what this version cannot read is nobody's.
    let Ok(event) = PushEvent::decode(event) else {
        return;
    };
    let user = match &event.kind {
        Some(Kind::ClientEvent(of)) => &of.user_id,
        Some(Kind::SessionInvalidation(of)) => &of.user_id,
        None => return,
    };
    for queue in queues.iter().filter(|queue| *queue.user == **user) {
        let shows_payloads = queue.shows_payloads.load(Ordering::Relaxed);
        lock(&queue.waiting).push(describe(&event, shows_payloads));
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len().max(1)).any(|window| window == part)
}

impl Waiting {
    fn push(&mut self, event: Bytes) {
        let (events, bytes) = MAX_WAITING;
        self.bytes += event.len();
        self.events.push_back(event);
        while self.events.len() > events || (self.bytes > bytes && self.events.len() > 1) {
            self.take();
            self.missed += 1;
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let event = self.events.pop_front()?;
        self.bytes -= event.len();
        Some(event)
    }
}

impl Follower {
    /// What comes next, if there is anything. What was missed comes before what was not.
    pub(super) fn next(&self) -> Option<Seen> {
        let mut waiting = lock(&self.queue.waiting);
        match std::mem::take(&mut waiting.missed) {
            0 => waiting.take().map(Seen::Event),
            missed => Some(Seen::Missed(missed)),
        }
    }

    /// From here on payloads are not shown.
    pub(super) fn hide_payloads(&self) {
        if !self.queue.shows_payloads.swap(false, Ordering::Relaxed) {
            return;
        }
        // Those that wait may have some.
        let mut waiting = lock(&self.queue.waiting);
        while waiting.take().is_some() {
            waiting.missed += 1;
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = lock(&self.followers.state);
        state
            .queues
            .retain(|other| !Arc::ptr_eq(other, &self.queue));
    }
}

/// An `api::UserEvent` whose payload keeps its digits and the order of its keys.
#[derive(Debug, Default, Serialize)]
struct UserEvent<'a> {
    at: String,
    cursor: &'a str,
    class: &'a str,
    user_id: &'a str,
    device_session_id: &'a str,
    kind: &'a str,
    event_id: &'a str,
    request_id: &'a str,
    trace_id: &'a str,
    reason: &'a str,
    payload_bytes: u64,
    payload: Option<&'a RawValue>,
    payload_base64: Option<String>,
}

/// The payload as JSON, if that is what it is, and readers can read it: they refuse what is
/// nested deep, and numbers that are out of range; and `null` is a field that is not set.
fn embeddable(payload: &[u8]) -> Option<&RawValue> {
    let value = serde_json::from_slice::<serde_json::Value>(payload).ok()?;
    if value.is_null() {
        return None;
    }
    serde_json::from_slice(payload).ok()
}

fn describe(event: &PushEvent, shows_payloads: bool) -> Bytes {
    let shown = UserEvent {
        at: time(SystemTime::now()),
        cursor: &event.cursor,
        ..UserEvent::default()
    };
    json(&match &event.kind {
        Some(Kind::ClientEvent(of)) => {
            let is_shown = shows_payloads && of.payload.len() <= MAX_PAYLOAD_BYTES;
            let payload = is_shown.then_some(&*of.payload);
            let embedded = payload.and_then(embeddable);
            UserEvent {
                class: "client_event",
                user_id: &of.user_id,
                device_session_id: &of.device_session_id,
                kind: &of.kind,
                event_id: &of.event_id,
                request_id: &of.request_id,
                trace_id: &of.trace_id,
                payload_bytes: of.payload.len() as u64,
                payload: embedded,
                payload_base64: payload
                    .filter(|_| embedded.is_none())
                    .map(|payload| BASE64.encode(payload)),
                ..shown
            }
        }
        Some(Kind::SessionInvalidation(of)) => UserEvent {
            class: "session_invalidation",
            user_id: &of.user_id,
            device_session_id: &of.device_session_id,
            reason: &of.reason,
            ..shown
        },
        None => shown,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is half done where this could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::api;
    use crate::contract::push::ClientEvent;

    fn client_event(payload: &[u8], shows_payloads: bool) -> api::UserEvent {
        let event = PushEvent {
            kind: Some(Kind::ClientEvent(ClientEvent {
                user_id: "u".to_owned(),
                kind: "k".to_owned(),
                payload: payload.to_vec().into(),
                ..ClientEvent::default()
            })),
            cursor: "c".to_owned(),
        };
        serde_json::from_slice(&describe(&event, shows_payloads)).expect("an api::UserEvent")
    }

    #[test]
    fn a_payload_is_shown_as_what_it_is_and_only_where_it_may_be() {
        let shown = client_event(b"{ \"n\": 1 }", true);
        assert_eq!(shown.payload, Some(serde_json::json!({ "n": 1 })));
        assert_eq!((shown.payload_bytes, shown.payload_base64), (10, None));
        let (deep, long) = ("[".repeat(200) + &"]".repeat(200), "7".repeat(1000));
        let odd = [deep.as_bytes(), long.as_bytes()];
        for bytes in [&b"\xff"[..], b"null", b"{", b""].into_iter().chain(odd) {
            let shown = client_event(bytes, true);
            assert_eq!(shown.payload, None);
            assert_eq!(shown.payload_base64, Some(BASE64.encode(bytes)));
        }
        for shown in [
            client_event(b"1", false),
            client_event(&[b'1'; 65 << 10], true),
        ] {
            assert_eq!((shown.payload, shown.payload_base64), (None, None));
            assert!(shown.payload_bytes > 0);
        }
    }

    #[test]
    fn what_waits_is_bounded_and_what_was_dropped_is_counted() {
        let mut waiting = Waiting::default();
        for _ in 0..1000 {
            waiting.push(Bytes::from_static(b"event"));
        }
        let (events, bytes) = MAX_WAITING;
        assert_eq!(
            (waiting.events.len(), waiting.missed),
            (events, 1000 - events as u64)
        );
        for _ in 0..100 {
            waiting.push(vec![0; bytes / 10].into());
        }
        assert!(waiting.bytes <= bytes, "{}", waiting.bytes);
        assert_eq!(waiting.events.len() as u64 + waiting.missed, 1100);
    }

    #[test]
    fn nobody_reads_along_when_nobody_follows() {
        let engine = Engine::builder().build().unwrap();
        let followers = Followers::new(&engine);
        let follower = followers.follow("u", false);
        assert!(lock(&followers.state).observer.is_some());
        drop(follower);
        assert!(!followers.look());
        assert!(lock(&followers.state).observer.is_none());
    }
}
