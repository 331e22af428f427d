//! Events on their way to a browser, and why they end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use axum::response::sse;
use futures_util::Stream;
use futures_util::stream::unfold;
use galaxy_push::gateway::{End, Event, RecvError, Session};
use serde_json::json;
use tokio::time::{Instant, interval_at, timeout};

use crate::envelope::Signer;

/// How long a browser may take nothing.
pub(crate) const STALLED: Duration = Duration::from_secs(30);
/// How often a quiet connection is asked whether it lives.
const PING: Duration = Duration::from_secs(20);
/// How long a browser may take to close what was closed.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Codes of WebSocket for uses of one's own begin at 4000 (RFC 6455, 7.4.2).
const REVOKED: u16 = 4001;
const LOG_IN_AGAIN: u16 = 4002;
/// RFC 6455, 7.4.1.
const GOING_AWAY: u16 = 1001;
/// A close frame's text, in bytes (RFC 6455, 5.5).
const MAX_REASON: usize = 123;

/// Sends a session's events until one of the two ends.
pub(crate) async fn web_socket(mut socket: WebSocket, mut session: Session, signer: Arc<Signer>) {
    let mut pings = interval_at(Instant::now() + PING, PING);
    let mut heard = Instant::now();
    loop {
        let message = tokio::select! {
            received = session.recv() => match received {
                Ok(event) => Message::Text(signer.seal(&event, &session).into()),
                Err(RecvError::Lagged(events)) => {
                    Message::Text(json!({"lagged": events}).to_string().into())
                }
                Err(RecvError::Ended(end)) => {
                    let (code, reason) = closing(&end);
                    let frame = CloseFrame { code, reason: reason.into() };
                    let _ = timeout(STALLED, socket.send(Message::Close(Some(frame)))).await;
                    // What is unread when a socket is closed takes what was written with it.
                    let rest = async { while let Some(Ok(_)) = socket.recv().await {} };
                    let _ = timeout(LAST_WORDS, rest).await;
                    return;
                }
                Err(_) => return,
            },
            said = socket.recv() => match said {
                // It has nothing to say; pings are answered by the library.
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {
                    heard = Instant::now();
                    continue;
                }
            },
            _ = pings.tick() => match heard.elapsed() > PING + STALLED {
                true => return,
                false => Message::Ping(Vec::new().into()),
            },
        };
        match timeout(STALLED, socket.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// How a connection is closed whose session has ended.
fn closing(end: &End) -> (u16, String) {
    match end {
        End::Revoked(revocation) => (REVOKED, shortened(&revocation.reason)),
        End::Invalid(reason) => (LOG_IN_AGAIN, shortened(reason)),
        _ => (GOING_AWAY, shortened(&end.to_string())),
    }
}

fn shortened(text: &str) -> String {
    let end = (0..=text.len().min(MAX_REASON)).rev();
    let end = end.into_iter().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}

/// The same as server-sent events.
pub(crate) fn server_sent(
    session: Session,
    signer: Arc<Signer>,
) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    unfold(Some((session, signer)), |open| async {
        let (mut session, signer) = open?;
        Some(match session.recv().await {
            Ok(event) => {
                let sealed = event_of(&event).data(signer.seal(&event, &session));
                (Ok(sealed), Some((session, signer)))
            }
            Err(RecvError::Lagged(events)) => {
                let lagged = sse::Event::default().event("lagged");
                let lagged = lagged.data(json!({"lagged": events}).to_string());
                (Ok(lagged), Some((session, signer)))
            }
            Err(RecvError::Ended(end)) => {
                let (code, reason) = closing(&end);
                let closed = json!({"code": code, "reason": reason}).to_string();
                (Ok(sse::Event::default().event("closed").data(closed)), None)
            }
            Err(_) => return None,
        })
    })
}

fn event_of(event: &Event) -> sse::Event {
    match event.cursor() {
        Ok(cursor) => sse::Event::default().id(cursor.to_string()),
        Err(_) => sse::Event::default(),
    }
}
