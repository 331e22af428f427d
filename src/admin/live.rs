//! `/api/v1/live`: server-sent events, for a page that stays open.
//!
//! Each message is made when its reader has room for it, of what is known then: whoever reads
//! slowly gets fewer messages and newer ones, and nothing is kept for it but a follower's
//! queue, which is bounded.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use http_body::Frame;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use super::access::Session;
use super::follow::{Follower, Seen};
use super::query;
use super::refusal::Refusal;
use super::routes::App;
use super::views::{self, json};
use crate::telemetry::Invalidation;

/// How often a stream looks for news, and whether its credential still holds.
const TICK: Duration = Duration::from_millis(200);
/// How often it tells how the server is.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How many there may be at a time.
pub(super) const MAX_STREAMS: usize = 16;
/// Of ends and of invalidations that came since the last look, the newest are told.
const MAX_NEWS: usize = 100;

/// What a reader asks for.
#[derive(Debug)]
struct Asked {
    user: Option<String>,
    wants_payloads: bool,
}

impl Asked {
    fn of(uri: &Uri) -> Result<Self, Refusal> {
        let mut asked = Asked {
            user: None,
            wants_payloads: false,
        };
        for (key, value) in query::unique(uri, &["user", "payload"])? {
            match (&*key, &*value) {
                ("user", "") => return Err(query::bad_value(&key, &value, "a user's id")),
                ("user", _) => asked.user = Some(value),
                (_, "0") => asked.wants_payloads = false,
                (_, "1") => asked.wants_payloads = true,
                _ => return Err(query::bad_value(&key, &value, "0 or 1")),
            }
        }
        if asked.wants_payloads && asked.user.is_none() {
            let message = "payload is of no use without user";
            return Err(Refusal::bad_request("BAD_QUERY", message));
        }
        Ok(asked)
    }
}

/// Begins a stream.
pub(super) fn open(app: &Arc<App>, session: Session, uri: &Uri) -> Result<Response, Refusal> {
    let asked = Asked::of(uri)?;
    if asked.wants_payloads && !session.may_see_payloads() {
        let message = format!(
            "{} may not see payloads: that needs a grant to subscribe",
            session.name()
        );
        return Err(Refusal::forbidden("PAYLOAD_NOT_GRANTED", message));
    }
    let place = Arc::clone(&app.live_places)
        .try_acquire_owned()
        .map_err(|_| {
            let message = format!("there are {MAX_STREAMS} live streams already");
            Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "TOO_MANY_LIVE_STREAMS",
                message,
            )
            .retry_after(5)
        })?;
    let follower = asked
        .user
        .map(|user| app.followers.follow(&user, asked.wants_payloads));
    let (sender, receiver) = mpsc::channel(1);
    let news = News::since_now(Arc::clone(app), session, follower);
    let body = LiveBody {
        receiver,
        _task: AbortOnDropHandle::new(tokio::spawn(news.tell(sender))),
        _place: place,
    };
    let fields = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        // For nginx, which would collect some of it first.
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    Ok((fields, Body::new(body)).into_response())
}

pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_STREAMS))
}

/// What a reader has not been told yet.
struct News {
    app: Arc<App>,
    session: Session,
    follower: Option<Follower>,
    status_due: Instant,
    /// When the newest point was that it was told.
    told_point: Option<SystemTime>,
    told_ends: u64,
    told_invalidation: Option<Arc<Invalidation>>,
    /// Ready to be told.
    ends: Vec<Bytes>,
    invalidations: Vec<Bytes>,
}

impl News {
    fn since_now(app: Arc<App>, session: Session, follower: Option<Follower>) -> Self {
        let telemetry = &app.telemetry;
        News {
            status_due: Instant::now(),
            told_point: None,
            told_ends: telemetry.ends_revision(),
            told_invalidation: telemetry.newest_invalidation(),
            ends: Vec::new(),
            invalidations: Vec::new(),
            app,
            session,
            follower,
        }
    }

    /// Tells it all, until the reader has gone, may no longer look, or the server stops.
    async fn tell(mut self, sender: mpsc::Sender<Bytes>) {
        let app = Arc::clone(&self.app);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = sender.closed() => return,
                () = app.stopping.cancelled() => return,
            }
            if !app.access.recheck(&mut self.session) {
                return;
            }
            if let Some(follower) = &self.follower
                && !self.session.may_see_payloads()
            {
                follower.hide_payloads();
            }
            loop {
                match sender.try_reserve() {
                    Ok(room) => match self.next() {
                        Some(message) => room.send(message),
                        None => break,
                    },
                    Err(TrySendError::Closed(())) => return,
                    // The reader may take it in a moment, or not for long.
                    Err(TrySendError::Full(())) => {
                        tokio::select! {
                            room = sender.reserve() => drop(room),
                            _ = tick.tick() => break,
                            () = app.stopping.cancelled() => return,
                        }
                    }
                }
            }
        }
    }

    /// The next message, made now.
    fn next(&mut self) -> Option<Bytes> {
        let telemetry = &self.app.telemetry;
        let now = Instant::now();
        if now >= self.status_due {
            self.status_due = now + STATUS_INTERVAL;
            return Some(message("status", &self.app.views.status()));
        }
        if let Some(point) = telemetry.newest_point()
            && self.told_point != Some(point.at)
        {
            self.told_point = Some(point.at);
            return Some(message("point", &json(&views::point(&point))));
        }
        self.look_for_ends();
        if let Some(end) = self.ends.pop() {
            return Some(message("end", &end));
        }
        self.look_for_invalidations();
        if let Some(invalidation) = self.invalidations.pop() {
            return Some(message("invalidation", &invalidation));
        }
        match self.follower.as_ref()?.next()? {
            Seen::Event(event) => Some(message("user", &event)),
            Seen::Missed(missed) => {
                let missed = json(&serde_json::json!({ "missed": missed }));
                Some(message("missed", &missed))
            }
        }
    }

    fn look_for_ends(&mut self) {
        if self.ends.is_empty() {
            let (newer, count) = self.app.telemetry.ends_since(self.told_ends, MAX_NEWS);
            self.told_ends = count;
            self.ends = newer.iter().map(|ended| json(&views::end(ended))).collect();
        }
    }

    fn look_for_invalidations(&mut self) {
        let telemetry = &self.app.telemetry;
        let Some(newest) = telemetry.newest_invalidation() else {
            return;
        };
        let is_told = |of: &Arc<Invalidation>| {
            let told = self.told_invalidation.as_ref();
            told.is_some_and(|told| Arc::ptr_eq(told, of))
        };
        if !self.invalidations.is_empty() || is_told(&newest) {
            return;
        }
        let all = telemetry.recent_invalidations();
        let new = all.iter().take_while(|of| !is_told(of)).take(MAX_NEWS);
        self.invalidations = new.map(|of| json(&views::invalidation(of))).collect();
        self.told_invalidation = all.first().cloned();
    }
}

/// A server-sent event.
fn message(name: &str, json: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(name.len() + json.len() + 16);
    message.put_slice(b"event: ");
    message.put_slice(name.as_bytes());
    message.put_slice(b"\ndata: ");
    // A line ends at these; in JSON they are space between tokens, and nothing else.
    message.extend(json.iter().map(|byte| match byte {
        b'\n' | b'\r' => b' ',
        other => *other,
    }));
    message.put_slice(b"\n\n");
    message.freeze()
}

/// The body of a stream.
struct LiveBody {
    receiver: mpsc::Receiver<Bytes>,
    /// Held for their drop.
    _task: AbortOnDropHandle<()>,
    _place: OwnedSemaphorePermit,
}

impl http_body::Body for LiveBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = self.receiver.poll_recv(cx);
        polled.map(|message| message.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_of_data() {
        let pretty = b"{\r\n \"a\":\n1 }";
        let message = message("user", pretty);
        assert_eq!(&message[..], b"event: user\ndata: {   \"a\": 1 }\n\n");
    }

    #[test]
    fn a_query_of_a_stream_is_checked() {
        for (query, part) in [
            ("user=", "a user's id"),
            ("payload=1", "without user"),
            ("user=u&payload=yes", "0 or 1"),
            ("follow=u", "\"follow\""),
        ] {
            let uri: Uri = format!("/?{query}").parse().unwrap();
            let refusal = Asked::of(&uri).unwrap_err();
            assert!(refusal.message().contains(part), "{query}: {refusal:?}");
        }
        let uri: Uri = "/?user=a%26b+c&payload=1".parse().unwrap();
        let asked = Asked::of(&uri).unwrap();
        assert_eq!(asked.user.as_deref(), Some("a&b c"));
        assert!(asked.wants_payloads);
    }
}
