//! The ring of this process as the log.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{AppendError, Appended, Log};
use crate::engine::{Engine, Published, Publisher};
use crate::event::Event;

/// One engine, and nothing behind it: an append is decided when it returns.
#[derive(Clone, Debug)]
pub struct Local {
    publisher: Publisher,
}

impl Local {
    /// Appends to this engine.
    #[must_use]
    pub fn new(engine: &Engine) -> Self {
        Local {
            publisher: engine.publisher(),
        }
    }
}

impl Log for Local {
    type Pending = Never;

    #[inline]
    fn append(&mut self, events: &[Event<'_>]) -> Appended<Never> {
        Appended::Done(
            self.publisher
                .publish_batch(events)
                .map_err(AppendError::from),
        )
    }
}

/// An outcome that is never pending.
#[derive(Debug)]
pub enum Never {}

impl Future for Never {
    type Output = Result<Published, AppendError>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::PublishError;

    #[test]
    fn an_append_is_decided_at_once() {
        let engine = Engine::builder().build().unwrap();
        let mut log = Local::new(&engine);
        // PushEvent { client_event: { user_id: "u", kind: "k" } }
        let event = Event::parse(b"\x0a\x06\x0a\x01u\x1a\x01k").unwrap();
        let Appended::Done(Ok(published)) = log.append(&[event, event]) else {
            panic!("not appended");
        };
        assert_eq!(
            (published.first.seq().number(), published.last),
            (1, engine.head())
        );
        engine.close();
        let Appended::Done(Err(error)) = log.append(&[event]) else {
            panic!("appended to an engine that is closed");
        };
        assert_eq!(error, AppendError::Engine(PublishError::Closed));
    }
}
