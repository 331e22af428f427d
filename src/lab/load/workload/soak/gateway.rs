//! One gateway of a soak: what kind it is, where it stands, and its record.

use std::ops::Range;
use std::time::Duration;

use crate::cursor::Cursor;
use crate::lab::history::{Decision, End, History, Stream, Subscribing};
use crate::lab::load::protocol::{self, Start};

/// What kind of gateway it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Steady,
    Slow,
    Stalled,
    Flapping,
    Rival,
}

/// What a gateway does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    Connect,
    /// It disconnects without notice.
    Leave,
    /// It stops reading.
    Pause,
    /// It reads again.
    Resume,
    /// It reads a little.
    Sip,
}

/// How long a slow gateway waits between two sips.
pub(super) const SIP_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) id: String,
    pub(super) kind: Kind,
    /// Where it would resume.
    pub(super) cursor: Option<Cursor>,
    /// Grows with every connection: what was planned for an older one is dropped.
    pub(super) connection: u64,
    pub(super) is_started: bool,
    subscribing: Option<Subscribing>,
    stream: Option<Stream>,
}

impl Gateway {
    pub(super) fn new(id: String, kind: Kind) -> Self {
        Gateway {
            id,
            kind,
            cursor: None,
            connection: 0,
            is_started: false,
            subscribing: None,
            stream: None,
        }
    }

    pub(super) fn stream(&mut self) -> Option<&mut Stream> {
        self.stream.as_mut()
    }

    /// It is about to subscribe.
    pub(super) fn connects(&mut self, history: &History) {
        self.left(End::Cut);
        self.connection += 1;
        let text = self.cursor.map(|cursor| cursor.to_string());
        self.subscribing = Some(history.subscribing(&self.id, text.as_deref().unwrap_or("")));
    }

    /// It was told where its stream starts. `Err`: that makes no sense.
    pub(super) fn started(&mut self, start: &Start) -> Result<(), String> {
        let senseless = || format!("gateway {} was told {start:?}", self.id);
        let decision = match (start.reason.as_str(), start.missed) {
            ("requested", None) => Decision::Resumed,
            ("no-cursor", None) => Decision::NoCursor,
            ("expired", Some(missed)) => Decision::Expired { missed },
            ("ahead", None) => Decision::Ahead,
            ("other-epoch", None) => Decision::OtherEpoch,
            ("malformed", None) => Decision::Malformed,
            _ => return Err(senseless()),
        };
        let cursor = start.cursor.ok_or_else(senseless)?;
        let Some(subscribing) = self.subscribing.take() else {
            return Err(senseless());
        };
        self.stream = Some(subscribing.granted(decision, cursor));
        self.cursor = Some(cursor);
        self.is_started = true;
        Ok(())
    }

    /// Its stream is over.
    pub(super) fn left(&mut self, end: End) {
        self.is_started = false;
        // The outcome of a subscription without a response is unknown.
        drop(self.subscribing.take());
        if let Some(stream) = self.stream.take() {
            stream.ended(end);
        }
    }

    /// Whether it takes so little that the server may end its stream for it.
    pub(super) fn may_stall(&self) -> bool {
        matches!(self.kind, Kind::Slow | Kind::Stalled)
    }

    /// Its stream was ended by the server. `Err`: for no good reason.
    pub(super) fn ended(&mut self, end: &protocol::End) -> Result<(), String> {
        let known = match (end.code, end.missed) {
            (protocol::End::OUT_OF_RANGE, Some(missed)) => Some(End::Lagged { missed }),
            (protocol::End::ABORTED, None) => Some(End::TakenOver),
            (protocol::End::DEADLINE_EXCEEDED, None) => Some(End::Cut),
            _ => None,
        };
        self.left(known.unwrap_or(End::Cut));
        let is_due = match known {
            Some(End::Lagged { .. }) => self.kind != Kind::Steady,
            // One that leaves and comes back may be quicker than the news of its leaving.
            Some(End::TakenOver) => matches!(self.kind, Kind::Rival | Kind::Flapping),
            Some(End::Cut) => self.may_stall(),
            _ => false,
        };
        if is_due {
            return Ok(());
        }
        Err(format!("the stream of gateway {} ended: {end}", self.id))
    }

    /// What it does after its stream has started, and how long after.
    pub(super) fn first_act(&self) -> Option<(Act, Duration)> {
        match self.kind {
            Kind::Steady | Kind::Rival => None,
            Kind::Slow => Some((Act::Sip, SIP_INTERVAL)),
            Kind::Stalled => Some((Act::Pause, some_ms(200..1000))),
            Kind::Flapping => Some((Act::Leave, some_ms(100..2000))),
        }
    }

    /// How long it stays away.
    pub(super) fn absence(&self) -> Duration {
        match self.kind {
            Kind::Rival => some_ms(100..1000),
            _ => some_ms(0..500),
        }
    }
}

/// Some milliseconds.
pub(super) fn some_ms(range: Range<u64>) -> Duration {
    Duration::from_millis(rand::random_range(range))
}
