//! A principal, its grants, and what they rest on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use super::{AccessError, Authenticator, ClientCertificate, Credentials};

/// What an identity rests on, kept so that it can be checked again; never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// Nothing was shown.
    Nothing,
    /// A client certificate.
    Certificate(Arc<ClientCertificate>),
    /// The SHA-256 of a bearer token.
    TokenHash([u8; 32]),
    /// A signed token's subject, and the id of the key that has signed it.
    Jwt {
        /// `sub`.
        subject: String,
        /// The key's id in the key set.
        key_id: Option<String>,
    },
    /// The user id of a unix socket's peer.
    UnixUid(u32),
    /// What an authenticator of somebody else's keeps.
    Other(Arc<str>),
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventKinds {
    /// `client_event`.
    pub client_event: bool,
    /// `session_invalidation`.
    pub session_invalidation: bool,
}

impl EventKinds {
    /// Every kind.
    pub const ALL: EventKinds = EventKinds {
        client_event: true,
        session_invalidation: true,
    };
}

/// What may be done at the admin listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminRole {
    /// Nothing.
    #[default]
    None,
    /// To look.
    Read,
    /// To end streams too.
    Write,
}

/// How long somebody should wait who has as many streams as it may have.
const STREAMS_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A principal that calls, and what it may do. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Identity {
    principal: Arc<str>,
    evidence: Evidence,
    expires_at: Option<SystemTime>,
    /// Patterns of gateways' ids: `*` stands for any run of characters.
    subscribe: Arc<[String]>,
    publish: EventKinds,
    admin: AdminRole,
    max_streams: Option<u32>,
    streams: Arc<AtomicU32>,
}

impl Identity {
    /// A principal that may do nothing yet.
    #[must_use]
    pub fn new(principal: impl Into<Arc<str>>) -> Self {
        Identity {
            principal: principal.into(),
            evidence: Evidence::Nothing,
            expires_at: None,
            subscribe: Arc::default(),
            publish: EventKinds::default(),
            admin: AdminRole::None,
            max_streams: None,
            streams: Arc::default(),
        }
    }

    /// May subscribe under ids that match one of these patterns: `*` stands for any run of
    /// characters. Default: none.
    #[must_use]
    pub fn subscribe(self, patterns: Vec<String>) -> Self {
        let subscribe = patterns.into();
        Identity { subscribe, ..self }
    }

    /// May publish events of these kinds. Default: none.
    #[must_use]
    pub fn publish(self, publish: EventKinds) -> Self {
        Identity { publish, ..self }
    }

    /// Is valid until then. Default: without an end.
    #[must_use]
    pub fn expires_at(self, at: SystemTime) -> Self {
        let expires_at = Some(at);
        Identity { expires_at, ..self }
    }

    /// What it rests on, for [`recheck`](super::Authenticator::recheck). Default: nothing.
    #[must_use]
    pub fn evidence(self, evidence: Evidence) -> Self {
        Identity { evidence, ..self }
    }

    /// May have so many subscriptions at a time. Default: any number. Clones of an identity
    /// count together.
    #[must_use]
    pub fn max_streams(self, limit: u32) -> Self {
        let max_streams = Some(limit);
        Identity {
            max_streams,
            ..self
        }
    }

    /// The principal's name.
    #[must_use]
    pub fn principal(&self) -> &Arc<str> {
        &self.principal
    }

    /// Until when it is valid.
    #[must_use]
    pub fn valid_until(&self) -> Option<SystemTime> {
        self.expires_at
    }

    /// What it rests on.
    #[must_use]
    pub fn shown(&self) -> &Evidence {
        &self.evidence
    }

    /// What it may do at the admin listener.
    #[must_use]
    pub fn admin(&self) -> AdminRole {
        self.admin
    }

    /// Whether it may subscribe under this id.
    ///
    /// # Errors
    ///
    /// [`AccessError::SubscribeNotGranted`].
    pub fn may_subscribe(&self, gateway_id: &str) -> Result<(), AccessError> {
        let granted = self.subscribe.iter();
        if granted
            .map(String::as_str)
            .any(|pattern| matches(pattern, gateway_id))
        {
            return Ok(());
        }
        Err(AccessError::SubscribeNotGranted {
            principal: self.principal.to_string(),
            gateway: gateway_id.to_owned(),
        })
    }

    /// Whether it may publish events of all these kinds.
    ///
    /// # Errors
    ///
    /// [`AccessError::PublishNotGranted`] with a kind that it may not publish.
    pub fn may_publish(&self, kinds: EventKinds) -> Result<(), AccessError> {
        let kind = if kinds.client_event && !self.publish.client_event {
            "client_event"
        } else if kinds.session_invalidation && !self.publish.session_invalidation {
            "session_invalidation"
        } else {
            return Ok(());
        };
        Err(AccessError::PublishNotGranted {
            principal: self.principal.to_string(),
            kind,
        })
    }

    /// Counts a subscription, until the permit is dropped.
    ///
    /// # Errors
    ///
    /// [`AccessError::TooManyStreams`].
    pub fn open_stream(&self) -> Result<StreamPermit, AccessError> {
        let limit = self.max_streams.unwrap_or(u32::MAX);
        let room = |count| (count < limit).then(|| count + 1);
        // Relaxed: the count guards nothing but itself.
        self.streams
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .map(|_| StreamPermit(Arc::clone(&self.streams)))
            .map_err(|_| AccessError::TooManyStreams {
                principal: self.principal.to_string(),
                limit,
                retry_after: STREAMS_RETRY_AFTER,
            })
    }

    /// Takes what is to be published from its quota.
    ///
    /// # Errors
    ///
    /// [`AccessError::TooFast`].
    pub fn take(&self, _events: u32, _bytes: u64) -> Result<(), AccessError> {
        Ok(())
    }
}

/// Whether `text` is what `pattern` says.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

/// One of a principal's subscriptions. Dropping it gives the place back.
pub struct StreamPermit(Arc<AtomicU32>);

impl fmt::Debug for StreamPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamPermit")
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets everybody do everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anyone;

impl Authenticator for Anyone {
    fn authenticate(&self, _credentials: &Credentials<'_>) -> Result<Identity, AccessError> {
        Ok(Identity::new("anyone")
            .subscribe(vec!["*".to_owned()])
            .publish(EventKinds::ALL))
    }
}
