//! A principal, its grants, and what they rest on.

use std::fmt;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use super::pattern::Glob;
use super::quota::Quota;
use super::{AccessError, ClientCertificate, Limits, StreamPermit};

/// What an identity rests on, kept so that it can be checked again; never the secret itself.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// Nothing was shown.
    Nothing,
    /// A client certificate.
    Certificate(Arc<ClientCertificate>),
    /// The SHA-256 of a bearer token.
    TokenHash([u8; 32]),
    /// A signed token's subject, and what has verified the token.
    Jwt {
        /// `sub`.
        subject: String,
        /// The key's id in the key set.
        key_id: Option<String>,
        /// SHA-256 of the key, its algorithm, the issuer and the audience. Another one: the
        /// token would no longer be accepted.
        verified_by: [u8; 32],
    },
    /// The user id of a unix socket's peer.
    UnixUid(u32),
    /// What an authenticator of somebody else's keeps.
    Other(Arc<str>),
}

/// Without hashes: that of a token that somebody has thought up could be guessed.
impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Evidence::Nothing => f.write_str("Nothing"),
            Evidence::Certificate(certificate) => {
                f.debug_tuple("Certificate").field(certificate).finish()
            }
            Evidence::TokenHash(_) => f.debug_tuple("TokenHash").finish_non_exhaustive(),
            Evidence::Jwt {
                subject, key_id, ..
            } => f
                .debug_struct("Jwt")
                .field("subject", subject)
                .field("key_id", key_id)
                .finish_non_exhaustive(),
            Evidence::UnixUid(uid) => f.debug_tuple("UnixUid").field(uid).finish(),
            Evidence::Other(_) => f.debug_tuple("Other").finish_non_exhaustive(),
        }
    }
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

/// A principal that calls, and what it may do. Cheap to clone: clones share everything, their
/// counts of streams, events and bytes too.
///
/// ```
/// use galaxy_push::access::{EventKinds, Identity, Limits};
///
/// let gateway = Identity::new("gateways")
///     .subscribe(vec!["gateway-7".to_owned()])
///     .limits(Limits::default().max_streams(2));
/// assert!(gateway.may_subscribe("gateway-7").is_ok());
/// assert!(gateway.may_subscribe("gateway-8").is_err());
/// assert!(gateway.may_publish(EventKinds::ALL).is_err());
/// ```
#[derive(Clone, Debug)]
pub struct Identity(
    /// `None`: anybody, who may do everything.
    Option<Arc<Granted>>,
);

#[derive(Clone, Debug)]
struct Granted {
    principal: Arc<str>,
    evidence: Evidence,
    valid_until: Option<SystemTime>,
    subscribe: Vec<Glob>,
    publish: EventKinds,
    admin: AdminRole,
    quota: Option<Arc<Quota>>,
}

/// How the log calls whom nobody has asked for a credential.
static ANYONE: LazyLock<Arc<str>> = LazyLock::new(|| "anyone".into());

static NOTHING: Evidence = Evidence::Nothing;

impl Identity {
    /// A principal that may do nothing yet, without an end.
    #[must_use]
    pub fn new(principal: impl Into<Arc<str>>) -> Self {
        Identity(Some(Arc::new(Granted {
            principal: principal.into(),
            evidence: Evidence::Nothing,
            valid_until: None,
            subscribe: Vec::new(),
            publish: EventKinds::default(),
            admin: AdminRole::None,
            quota: None,
        })))
    }

    /// Anybody, who may do everything. It costs nothing to make, to clone and to ask.
    #[must_use]
    pub const fn anyone() -> Self {
        Identity(None)
    }

    /// Whether it is [`anyone`](Self::anyone): there is nothing to ask it.
    #[must_use]
    pub fn is_anyone(&self) -> bool {
        self.0.is_none()
    }

    /// With a change. Whoever is anyone gets a principal with all rights first.
    fn with(self, change: impl FnOnce(&mut Granted)) -> Self {
        let mut granted = self.0.unwrap_or_else(|| {
            Arc::new(Granted {
                principal: Arc::clone(&ANYONE),
                evidence: Evidence::Nothing,
                valid_until: None,
                subscribe: vec![Glob::new("*")],
                publish: EventKinds::ALL,
                admin: AdminRole::Write,
                quota: None,
            })
        });
        change(Arc::make_mut(&mut granted));
        Identity(Some(granted))
    }

    /// May subscribe under ids that match one of these patterns: `*` stands for any run of
    /// characters, also none. Default: none.
    #[must_use]
    pub fn subscribe(self, patterns: Vec<String>) -> Self {
        let patterns = patterns.iter().map(|pattern| Glob::new(pattern)).collect();
        self.subscribe_globs(patterns)
    }

    pub(super) fn subscribe_globs(self, patterns: Vec<Glob>) -> Self {
        self.with(|granted| granted.subscribe = patterns)
    }

    /// May publish events of these kinds. Default: none.
    #[must_use]
    pub fn publish(self, kinds: EventKinds) -> Self {
        self.with(|granted| granted.publish = kinds)
    }

    /// What it may do at the admin listener. Default: nothing.
    #[must_use]
    pub fn admin(self, role: AdminRole) -> Self {
        self.with(|granted| granted.admin = role)
    }

    /// Is valid until then, exclusively. Default: without an end.
    #[must_use]
    pub fn expires_at(self, at: SystemTime) -> Self {
        self.with(|granted| granted.valid_until = Some(at))
    }

    /// What it rests on, for [`recheck`](super::Authenticator::recheck). Default: nothing.
    #[must_use]
    pub fn evidence(self, evidence: Evidence) -> Self {
        self.with(|granted| granted.evidence = evidence)
    }

    /// How much it may use. Default: no limits. They hold for this identity and its clones
    /// together, so a principal's limits hold only if its calls get clones of one identity.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        self.quota(Quota::new(limits))
    }

    pub(super) fn quota(self, quota: Option<Arc<Quota>>) -> Self {
        self.with(|granted| granted.quota = quota)
    }

    /// The principal's name.
    #[must_use]
    pub fn principal(&self) -> &Arc<str> {
        self.0
            .as_ref()
            .map_or(&ANYONE, |granted| &granted.principal)
    }

    /// What it rests on.
    #[must_use]
    pub fn shown(&self) -> &Evidence {
        self.0
            .as_ref()
            .map_or(&NOTHING, |granted| &granted.evidence)
    }

    /// When it ends: the first moment at which it is no longer valid. `None`: never.
    #[must_use]
    pub fn valid_until(&self) -> Option<SystemTime> {
        self.0.as_ref()?.valid_until
    }

    /// Which events it may publish.
    #[must_use]
    pub fn publishes(&self) -> EventKinds {
        self.0
            .as_ref()
            .map_or(EventKinds::ALL, |granted| granted.publish)
    }

    /// What it may do at the admin listener.
    #[must_use]
    pub fn admin_role(&self) -> AdminRole {
        self.0
            .as_ref()
            .map_or(AdminRole::Write, |granted| granted.admin)
    }

    /// How much it may use.
    #[must_use]
    pub fn limited_to(&self) -> Limits {
        let quota = self.0.as_ref().and_then(|granted| granted.quota.as_ref());
        quota.map_or_else(Limits::default, |quota| quota.limits())
    }

    /// Whether there is an id under which it may subscribe.
    #[must_use]
    pub fn subscribes(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|granted| !granted.subscribe.is_empty())
    }

    /// Whether it may subscribe under this `gateway_client_id`.
    ///
    /// # Errors
    ///
    /// [`AccessError::SubscribeNotGranted`].
    pub fn may_subscribe(&self, gateway_id: &str) -> Result<(), AccessError> {
        match &self.0 {
            Some(granted) if !granted.subscribe.iter().any(|ids| ids.matches(gateway_id)) => {
                Err(AccessError::SubscribeNotGranted {
                    principal: granted.principal.to_string(),
                    gateway: gateway_id.to_owned(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Whether it may publish events of all these kinds.
    ///
    /// # Errors
    ///
    /// [`AccessError::PublishNotGranted`] names the first kind that it may not publish.
    pub fn may_publish(&self, kinds: EventKinds) -> Result<(), AccessError> {
        let Some(granted) = &self.0 else {
            return Ok(());
        };
        let kind = if kinds.client_event && !granted.publish.client_event {
            "client_event"
        } else if kinds.session_invalidation && !granted.publish.session_invalidation {
            "session_invalidation"
        } else {
            return Ok(());
        };
        Err(AccessError::PublishNotGranted {
            principal: granted.principal.to_string(),
            kind,
        })
    }

    /// Counts one more call that stays open, until the permit is dropped.
    ///
    /// # Errors
    ///
    /// [`AccessError::TooManyStreams`] where it has as many as it may have.
    pub fn open_stream(&self) -> Result<StreamPermit, AccessError> {
        match self.0.as_deref() {
            Some(Granted {
                principal,
                quota: Some(quota),
                ..
            }) => quota.open_stream(principal),
            _ => Ok(StreamPermit::unlimited()),
        }
    }

    /// What its streams are counted in, if they are.
    pub(super) fn streams(&self) -> Option<&Arc<AtomicU32>> {
        let granted = self.0.as_deref()?;
        granted.quota.as_ref().map(|quota| quota.streams())
    }

    /// Takes a batch from what it may publish, as a whole or not at all.
    ///
    /// A rate's bucket holds one second's worth, which may come at once. A batch that is larger
    /// is taken when the bucket is full, and the next one waits until it is made up for.
    ///
    /// # Errors
    ///
    /// [`AccessError::TooFast`] names the rate, and when the same batch may come again.
    pub fn take(&self, events: u32, bytes: u64) -> Result<(), AccessError> {
        match self.0.as_deref() {
            Some(Granted {
                principal,
                quota: Some(quota),
                ..
            }) => quota.take(principal, events, bytes),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_anyone_may_do_everything_and_a_change_keeps_the_rest() {
        let anyone = Identity::anyone();
        assert!(anyone.is_anyone());
        let no_admin = Identity::anyone().admin(AdminRole::None);
        assert!(!no_admin.is_anyone());
        assert_eq!(no_admin.admin_role(), AdminRole::None);
        for identity in [anyone, no_admin] {
            assert_eq!(&**identity.principal(), "anyone");
            assert_eq!(identity.valid_until(), None);
            assert_eq!(identity.may_subscribe("any"), Ok(()));
            assert_eq!(identity.may_publish(EventKinds::ALL), Ok(()));
            assert_eq!(identity.take(u32::MAX, u64::MAX), Ok(()));
            assert!(identity.open_stream().is_ok());
        }
    }

    #[test]
    fn clones_count_together() {
        let limits = Limits::default().max_streams(1).events_per_second(1);
        let identity = Identity::new("p").limits(limits);
        let clone = identity.clone();
        let _permit = identity.open_stream().expect("the first");
        assert!(clone.open_stream().is_err());
        assert_eq!(identity.take(1000, 0), Ok(()));
        assert!(clone.take(1, 0).is_err());
    }

    #[test]
    fn a_principal_may_do_nothing_at_first() {
        let identity = Identity::new("p");
        assert!(identity.may_subscribe("a").is_err());
        assert_eq!(identity.may_publish(EventKinds::default()), Ok(()));
        let publish = EventKinds {
            session_invalidation: true,
            ..EventKinds::default()
        };
        assert!(identity.may_publish(publish).is_err());
        assert_eq!(
            identity.clone().publish(publish).may_publish(publish),
            Ok(())
        );
        let some = identity.subscribe(vec!["a*".to_owned(), "b".to_owned()]);
        for (id, granted) in [
            ("a", true),
            ("ab", true),
            ("b", true),
            ("bb", false),
            ("", false),
        ] {
            assert_eq!(some.may_subscribe(id).is_ok(), granted, "{id}");
        }
    }
}
