//! [`Builder`]: how a [`Gateway`] subscribes.

use std::path::PathBuf;
use std::time::Duration;

use super::backoff::Backoff;
use super::channel::{ConnectError, Connector};
use super::gateway::Gateway;
use crate::config::{Address, Config};
use crate::contract::gateway_id::{self, GatewayIdError};
use crate::contract::heartbeat::{self, HeartbeatError};
use crate::contract::instance::{self, InstanceError};
use crate::cursor::Cursor;
use crate::tls::ClientTls;

/// What to do when a newer subscription takes the id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTakeover {
    /// Stop, with [`Stopped::TakenOver`](super::Stopped::TakenOver).
    #[default]
    Stop,
    /// Wait and take the id back. Sensible only where the other is known to
    /// stop.
    Retry,
}

/// How a [`Gateway`] subscribes. Made by [`Gateway::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    pub(super) id: String,
    connector: Connector,
    others: Vec<Address>,
    pub(super) cursor: Option<Cursor>,
    pub(super) backoff: Backoff,
    pub(super) on_takeover: OnTakeover,
    pub(super) response_timeout: Duration,
    pub(super) max_event_bytes: usize,
    pub(super) heartbeat: Option<Duration>,
    pub(super) replay_revocations: bool,
    pub(super) instance: Option<String>,
    pub(super) renew_every: Option<Duration>,
}

/// A renewal that is due sooner would come before the one before it is over.
const MIN_RENEWAL: Duration = Duration::from_secs(1);

impl Builder {
    pub(super) fn new(id: String, address: Address) -> Self {
        Builder {
            id,
            connector: Connector::new(address),
            others: Vec::new(),
            cursor: None,
            backoff: Backoff::default(),
            on_takeover: OnTakeover::default(),
            response_timeout: Duration::from_secs(10),
            max_event_bytes: Config::MAX_PORTABLE_EVENT_BYTES,
            heartbeat: None,
            replay_revocations: false,
            instance: None,
            renew_every: None,
        }
    }

    /// Another server that has the same events, for when the one before it fails: it cannot be
    /// reached, is stopping, is silent, or refuses what the other need not refuse. May be
    /// called for each of several. Default: none.
    ///
    /// They are tried one after another, with little time between. Only when all have failed, the
    /// gateway waits as [`backoff`](Self::backoff) says. It stays where it succeeds. A server
    /// that asks to be left alone for a while (`google.rpc.RetryInfo`) is, as long as there are
    /// others. All are connected to in the same way, with the same credentials.
    ///
    /// Cursors are the same on replicas of one log. On a server with a log of its own the stream is
    /// fresh.
    #[must_use]
    pub fn or_at(mut self, address: Address) -> Self {
        self.others.push(address);
        self
    }

    /// Which of several processes with this id this one is, in words of its own: told to whoever
    /// is taken over by it. 1 to 128 visible characters of ASCII, with spaces between. Default: nothing. A
    /// [`Driver`](crate::gateway::Driver) adds a number by chance, and keeps the first 119.
    #[must_use]
    pub fn instance(mut self, text: impl Into<String>) -> Self {
        self.instance = Some(text.into());
        self
    }

    /// Has each stream [renewed](Gateway::renew) after so long: before its credential ends, say,
    /// so that the server does not have to end it. At least a second. Default: never.
    #[must_use]
    pub fn renew_every(mut self, interval: Duration) -> Self {
        self.renew_every = Some(interval.max(MIN_RENEWAL));
        self
    }

    /// Where to go on: the cursor that an earlier run persisted. Default
    /// `None`: begin with whatever is published next.
    #[must_use]
    pub fn cursor(mut self, cursor: Option<Cursor>) -> Self {
        self.cursor = cursor;
        self
    }

    /// How long to wait between attempts. Default [`Backoff::default`]. Where the server asks
    /// for a longer wait (`google.rpc.RetryInfo`), it gets it, up to five minutes.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// What to do when another subscription takes the id. Default
    /// [`OnTakeover::Stop`].
    #[must_use]
    pub fn on_takeover(mut self, on_takeover: OnTakeover) -> Self {
        self.on_takeover = on_takeover;
        self
    }

    /// How long one attempt may take, from connecting to the server's response.
    /// Default 10 seconds. The server responds at once, so only the network's delay
    /// matters. A stream may be silent for any time.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// Has the server show that a quiet stream lives: after so long without an event it sends
    /// a heartbeat. From 1 second to 5 minutes. Default: none.
    ///
    /// A heartbeat is no item. It keeps proxies from cutting a quiet stream, and it comes all
    /// the way from the server, which a proxy's answer to an HTTP/2 PING does not: a stream
    /// that brings nothing, not even a part of an event, for two intervals is dropped
    /// ([`Disconnect::Silent`](super::Disconnect::Silent)), and subscribed anew. A server that has no heartbeats is not
    /// held to them.
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = Some(interval);
        self
    }

    /// The same, if nothing was said of them; and what is asked for now.
    #[must_use]
    pub(crate) fn heartbeat_or(mut self, interval: Duration) -> (Self, Duration) {
        let interval = *self.heartbeat.get_or_insert(interval);
        (self, interval)
    }

    /// With an instance that no other process has: what was said of it, and a number by chance.
    #[must_use]
    pub(crate) fn unique_instance(self) -> Self {
        let number: u32 = rand::random();
        let text = match &self.instance {
            // What is none is told when it is built.
            Some(text) if instance::check(text).is_err() => return self,
            Some(text) => {
                // It is ASCII.
                let kept = text.len().min(instance::MAX_BYTES - 9);
                format!("{} {number:08x}", &text[..kept])
            }
            None => format!("{number:08x}"),
        };
        self.instance(text)
    }

    /// Whether a stream that cannot resume is to begin with the session invalidations that were
    /// missed: the newest of each user and session, as events, before anything else. Default: no.
    ///
    /// [`Start::revocations`](super::Start::revocations) says whether they are all there. The gateway's position stays where
    /// it was until they are [processed](Gateway::processed), so that none is missed if the stream
    /// ends among them.
    #[must_use]
    pub fn replay_revocations(mut self, wanted: bool) -> Self {
        self.replay_revocations = wanted;
        self
    }

    /// How large one event may be, in bytes without its cursor: at least what the server
    /// is configured for (`--max-event-bytes`). Default
    /// [`Config::MAX_PORTABLE_EVENT_BYTES`], which is what a server takes unless it is
    /// told to allow large events. A larger event stops the gateway.
    #[must_use]
    pub fn max_event_bytes(mut self, bytes: usize) -> Self {
        self.max_event_bytes = bytes;
        self
    }

    /// Connects over TLS. Default: in plaintext. A Unix socket has no TLS: the two together
    /// are refused.
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.connector = self.connector.tls(tls);
        self
    }

    /// Sends the bearer token in this file with the subscription. The file is read again
    /// with each attempt. Default: none. See [`Connector::token_file`].
    #[must_use]
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.connector = self.connector.token_file(path);
        self
    }

    /// Whether the token may be sent in plaintext to another machine. Default: no. See
    /// [`Connector::allow_plaintext_token`].
    #[must_use]
    pub fn allow_plaintext_token(mut self, allowed: bool) -> Self {
        self.connector = self.connector.allow_plaintext_token(allowed);
        self
    }

    /// How to connect, all at once: instead of the address, [`tls`](Self::tls) and
    /// [`token_file`](Self::token_file).
    #[must_use]
    pub fn connector(mut self, connector: Connector) -> Self {
        self.connector = connector;
        self
    }

    /// The gateway. It connects when it is first asked for an item.
    ///
    /// # Errors
    ///
    /// An id, a [`heartbeat`](Self::heartbeat) or an [`instance`](Self::instance) that no server
    /// accepts, an address that is
    /// none, or a file of [`tls`](Self::tls) or [`token_file`](Self::token_file) that cannot be
    /// used.
    pub fn build(self) -> Result<Gateway, BuildError> {
        gateway_id::check(&self.id)?;
        if let Some(interval) = self.heartbeat
            && !heartbeat::is_allowed(&interval)
        {
            return Err(BuildError::Heartbeat(HeartbeatError::Range));
        }
        if let Some(text) = &self.instance {
            instance::check(text)?;
        }
        for connector in self.connectors() {
            connector.check()?;
        }
        Ok(Gateway::new(self))
    }

    /// How to connect to each of the servers, in the order in which they are to be tried.
    pub(super) fn connectors(&self) -> Vec<Connector> {
        let others = self.others.iter();
        let others = others.map(|address| self.connector.clone().at(address.clone()));
        [self.connector.clone()].into_iter().chain(others).collect()
    }
}

/// Why there is no gateway with these settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No server accepts the id.
    #[error(transparent)]
    Id(#[from] GatewayIdError),
    /// No server accepts the heartbeat's interval.
    #[error("the interval of heartbeats is {0}")]
    Heartbeat(HeartbeatError),
    /// No server accepts the text of the instance.
    #[error("the text of the instance is none: {0}")]
    Instance(#[from] InstanceError),
    /// It could not connect with these settings and files.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}
