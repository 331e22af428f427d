//! What both tonic services stand on: a `tokio::sync::broadcast` channel for what is
//! published next, and a queue of the newest events for whoever comes back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream::{Stream, unfold};
use galaxy_push::contract::publisher::PublishResponse;
use galaxy_push::contract::push::PushEvent;
use galaxy_push::cursor::{Cursor, Epoch, Seq};
use tokio::sync::broadcast::{self, error::RecvError};
use tonic::Status;

use super::KEPT_EVENTS;

/// Some hundred milliseconds at the rates that are measured. Who falls further behind
/// goes on from the queue, so that nobody loses an event here either.
const CHANNEL_EVENTS: usize = 4096;
/// How many events a subscriber takes out of the queue at once, under its lock.
const CHUNK_EVENTS: u64 = 256;

/// An event as it is kept and handed to subscribers.
pub(crate) trait Kept: Clone + Send + Sync + 'static {
    /// Out of an event that has its cursor.
    fn new(event: PushEvent) -> Self;
}

/// The newest events, and whoever waits for more.
#[derive(Debug)]
pub(crate) struct Fanout<T> {
    epoch: Epoch,
    history: Mutex<History<T>>,
    channel: broadcast::Sender<(u64, T)>,
}

#[derive(Debug)]
struct History<T> {
    events: VecDeque<T>,
    /// The number of the event that comes next; the first is 1.
    next: u64,
}

/// What a subscriber finds from a position on.
enum Found<T> {
    /// The next events.
    Events(Vec<T>),
    /// Nothing yet: here it comes.
    Nothing(broadcast::Receiver<(u64, T)>),
    /// That event is no longer kept.
    Gone,
}

impl<T: Kept> Fanout<T> {
    pub(crate) fn new() -> Option<Arc<Self>> {
        Some(Arc::new(Fanout {
            epoch: Epoch::now().ok()?,
            history: Mutex::new(History {
                events: VecDeque::new(),
                next: 1,
            }),
            channel: broadcast::channel(CHANNEL_EVENTS).0,
        }))
    }

    fn history(&self) -> MutexGuard<'_, History<T>> {
        // Nothing under the lock can leave the queue half changed.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives each event its cursor, keeps it, and hands it to all subscribers.
    pub(crate) fn publish(&self, events: Vec<PushEvent>) -> Result<PublishResponse, Status> {
        if events.is_empty() {
            return Err(Status::invalid_argument("events is empty"));
        }
        let mut history = self.history();
        let first = history.next;
        for event in events {
            let number = history.next;
            let cursor = self.cursor(number);
            let event = T::new(PushEvent { cursor, ..event });
            if history.events.len() == KEPT_EVENTS {
                history.events.pop_front();
            }
            history.events.push_back(event.clone());
            history.next += 1;
            // Nobody may be listening.
            let _ = self.channel.send((number, event));
        }
        Ok(PublishResponse {
            first_cursor: self.cursor(first),
            last_cursor: self.cursor(history.next - 1),
        })
    }

    pub(crate) fn cursor(&self, number: u64) -> String {
        Cursor::new(self.epoch, Seq::new(number)).to_string()
    }

    /// The number of the first event for a gateway that asks with this cursor, and
    /// whether it goes on where it was.
    pub(crate) fn start(&self, cursor: &str) -> (u64, bool) {
        let history = self.history();
        let next = match cursor.parse::<Cursor>() {
            Ok(cursor) if cursor.epoch() == self.epoch => cursor.seq().number() + 1,
            _ => return (history.next, false),
        };
        match (history.first()..=history.next).contains(&next) {
            true => (next, true),
            false => (history.next, false),
        }
    }

    fn find(&self, next: u64) -> Found<T> {
        let history = self.history();
        if next >= history.next {
            // Under the lock: what is published after this is received.
            return Found::Nothing(self.channel.subscribe());
        }
        let Some(skip) = next.checked_sub(history.first()) else {
            return Found::Gone;
        };
        let end = (skip + CHUNK_EVENTS).min(history.events.len() as u64);
        let events = history.events.range(skip as usize..end as usize);
        Found::Events(events.cloned().collect())
    }

    /// All events from this one on.
    pub(crate) fn follow(
        self: Arc<Self>,
        next: u64,
    ) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
        let follower = Some(Follower {
            fanout: self,
            next,
            kept: Vec::new().into_iter(),
            live: None,
        });
        unfold(follower, async |follower| {
            let mut follower = follower?;
            match follower.next().await {
                Ok(event) => Some((Ok(event), Some(follower))),
                Err(status) => Some((Err(status), None)),
            }
        })
    }
}

impl<T> History<T> {
    fn first(&self) -> u64 {
        self.next - self.events.len() as u64
    }
}

/// One subscriber's place.
struct Follower<T> {
    fanout: Arc<Fanout<T>>,
    next: u64,
    kept: std::vec::IntoIter<T>,
    live: Option<broadcast::Receiver<(u64, T)>>,
}

impl<T: Kept> Follower<T> {
    async fn next(&mut self) -> Result<T, Status> {
        loop {
            if let Some(event) = self.kept.next() {
                self.next += 1;
                return Ok(event);
            }
            match &mut self.live {
                Some(live) => match live.recv().await {
                    Ok((number, event)) if number == self.next => {
                        self.next += 1;
                        return Ok(event);
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => self.live = None,
                    Err(RecvError::Closed) => return Err(Status::unavailable("stopping")),
                },
                None => match self.fanout.find(self.next) {
                    Found::Events(events) => self.kept = events.into_iter(),
                    Found::Nothing(live) => self.live = Some(live),
                    Found::Gone => return Err(Status::out_of_range("too slow")),
                },
            }
        }
    }
}
