//! Who calls, and whether it still may.
//!
//! Each call is authenticated when it begins, before it has any state. Its
//! [`Authorization`] then stays with it, and answers before anything takes effect:
//! before a subscription takes over from another one, before a batch is published.
//!
//! A credential can end before its call does. One task ([`AccessControl::run`]) knows when
//! each open call's credential expires, and looks whether anything else was changed
//! ([`Authenticator::revision`]). It ends calls from outside: a subscription as a takeover
//! ends it, a stream of requests by waking it. So a call that goes on pays nothing for it:
//! no delivery looks at the clock, or at a revision.
//!
//! Where nobody has to say who it is, there is no `AccessControl` and no `Authorization`.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use http::{HeaderMap, header};
use tokio::time::sleep;
use tonic::Status;

use super::status;
use crate::access::{
    AccessError, Authenticator, Credentials, EventKinds, Identity, Peer, StreamPermit,
};
use crate::audit::{Audit, Who};
use crate::engine::{Ender, SubscribeError, Subscriber};
use crate::event::KindCounts;
use crate::service::Caller;
use crate::telemetry::Telemetry;

/// The longest pause between two looks at what has changed. Whoever loses its right goes on
/// for so long at most, and for the time that it takes to look at every open call.
const TICK: Duration = Duration::from_millis(200);
/// After so many open calls were looked at, other tasks have a turn: a certificate whose CAs
/// have changed takes a tenth of a millisecond.
const RECHECKED_AT_ONCE: usize = 8;
/// Locks for the subscriptions' places: each is held while a gateway subscribes.
const SHARDS: usize = 64;

/// Who may do what at a server. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub(crate) struct AccessControl {
    shared: Arc<Shared>,
}

struct Shared {
    authenticator: Arc<dyn Authenticator>,
    /// The revision when this was made: what open calls are rechecked against at first.
    first_revision: u64,
    open: Mutex<OpenCalls>,
    places: Box<[Mutex<Places>]>,
    hasher: RandomState,
    next_number: AtomicU64,
    #[cfg(feature = "tonic-service")]
    is_running: std::sync::atomic::AtomicBool,
    audit: Audit,
}

const INVALIDATIONS: EventKinds = EventKinds {
    client_event: false,
    session_invalidation: true,
};

/// The calls that last, and when their credentials expire.
#[derive(Debug, Default)]
struct OpenCalls {
    calls: HashMap<u64, Registered>,
    /// In order, each with its call.
    expirations: BTreeSet<(SystemTime, u64)>,
}

#[derive(Debug)]
struct Registered {
    call: Arc<Open>,
    expires_at: Option<SystemTime>,
}

/// The subscriptions by gateway id: one for each.
type Places = HashMap<Box<str>, Place>;

/// What a subscription counts against.
#[derive(Debug)]
struct Place {
    /// Which of the calls has it.
    number: u64,
    principal: Box<str>,
    peer: Peer,
    permit: StreamPermit,
}

/// A call's caller, for as long as the call lasts.
pub(crate) struct Authorization {
    access: AccessControl,
    call: Arc<Open>,
    /// Whether it is among the open calls.
    is_registered: bool,
    /// What a stream of requests was polled with last.
    waker: Waker,
    /// A stream of requests' place in its principal's count. Held for its drop.
    permit: Option<StreamPermit>,
}

/// What others may know of a call, and do to it.
#[derive(Debug)]
struct Open {
    number: u64,
    peer: Peer,
    identity: ArcSwap<Identity>,
    /// The revision that the identity is of.
    revision: AtomicU64,
    /// Held while the identity is replaced.
    recheck: Mutex<()>,
    purpose: OnceLock<Purpose>,
    /// Why it has to end.
    ended: OnceLock<AccessError>,
    /// The task to be woken for that.
    task: Mutex<Option<Waker>>,
}

/// What a call that lasts is for.
#[derive(Debug)]
enum Purpose {
    Subscription {
        gateway_id: Box<str>,
        ender: Ender,
    },
    Publishing,
    /// To wait for gateways.
    Waiting,
    /// To look, which needs no right but to be known.
    Looking,
}

impl AccessControl {
    pub(crate) fn new(authenticator: Arc<dyn Authenticator>, telemetry: &Telemetry) -> Self {
        let first_revision = authenticator.revision();
        AccessControl {
            shared: Arc::new(Shared {
                authenticator,
                first_revision,
                open: Mutex::default(),
                places: (0..SHARDS).map(|_| Mutex::default()).collect(),
                hasher: RandomState::new(),
                next_number: AtomicU64::new(0),
                #[cfg(feature = "tonic-service")]
                is_running: std::sync::atomic::AtomicBool::new(false),
                audit: Audit::new(telemetry.clone()),
            }),
        }
    }

    /// Finds out who calls.
    ///
    /// # Errors
    ///
    /// The status that refuses the call.
    pub(super) fn authorize(
        &self,
        caller: &Caller,
        fields: &HeaderMap,
    ) -> Result<Box<Authorization>, Status> {
        // Before the credential is looked at: a change meanwhile is seen afterwards.
        let revision = self.shared.authenticator.revision();
        let authenticated = authorization_field(fields).and_then(|authorization| {
            let credentials = Credentials::of(caller.peer)
                .certificate(caller.certificate.as_ref())
                .authorization(authorization);
            self.shared.authenticator.authenticate(&credentials)
        });
        let identity = authenticated.map_err(|error| {
            let who = Who {
                principal: None,
                peer: caller.peer,
                id: None,
            };
            self.shared.audit.refused(who, &error);
            status::access(&error)
        })?;
        // Relaxed: each number is given once, whatever the order.
        let number = self.shared.next_number.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Authorization {
            access: self.clone(),
            call: Arc::new(Open {
                number,
                peer: caller.peer,
                identity: ArcSwap::from_pointee(identity),
                revision: AtomicU64::new(revision),
                recheck: Mutex::default(),
                purpose: OnceLock::new(),
                ended: OnceLock::new(),
                task: Mutex::default(),
            }),
            is_registered: false,
            waker: Waker::noop().clone(),
            permit: None,
        }))
    }

    /// Ends calls whose credentials end, until it is dropped.
    pub(crate) async fn run(self) {
        let weak = Arc::downgrade(&self.shared);
        drop(self);
        run(weak).await;
    }

    /// Has that [run](Self::run) on the runtime of the caller, unless it does already. It
    /// ends with the last clone of this.
    #[cfg(feature = "tonic-service")]
    pub(super) fn run_once(&self) {
        /// Should the runtime end before, the next caller's takes its place.
        struct Running(Weak<Shared>);
        impl Drop for Running {
            fn drop(&mut self) {
                if let Some(shared) = self.0.upgrade() {
                    shared.is_running.store(false, Ordering::Relaxed);
                }
            }
        }
        // Relaxed: it guards nothing but itself.
        let is_running = &self.shared.is_running;
        if !is_running.load(Ordering::Relaxed) && !is_running.swap(true, Ordering::Relaxed) {
            let weak = Arc::downgrade(&self.shared);
            let running = Running(Weak::clone(&weak));
            tokio::spawn(async move {
                let _running = running;
                run(weak).await;
            });
        }
    }

    /// Looks again at what a call may do.
    fn recheck(&self, call: &Open) {
        let authenticator = &self.shared.authenticator;
        let _one_at_a_time = lock(&call.recheck);
        let revision = authenticator.revision();
        if call.revision.load(Ordering::Relaxed) == revision {
            return;
        }
        let rechecked = authenticator.recheck(&call.identity.load());
        match rechecked.and_then(|identity| call.check(&identity).map(|()| identity)) {
            Ok(identity) => {
                let expires_at = identity.valid_until();
                call.identity.store(Arc::new(identity));
                lock(&self.shared.open).set_expiration(call.number, expires_at);
                call.revision.store(revision, Ordering::Relaxed);
            }
            Err(error) => self.end(call, error),
        }
    }

    /// Ends a call, once.
    fn end(&self, call: &Open, error: AccessError) {
        if call.ended.set(error.clone()).is_err() {
            return;
        }
        if let Some(purpose) = call.purpose.get() {
            call.audit(None, |who| self.shared.audit.ended(who, &error));
            match purpose {
                Purpose::Subscription { ender, .. } => drop(ender.end()),
                Purpose::Publishing | Purpose::Waiting | Purpose::Looking => call.wake(),
            }
        }
    }

    /// Ends the calls whose credentials have expired.
    fn end_expired(&self, now: SystemTime) {
        loop {
            let mut open = lock(&self.shared.open);
            let Some(&(at, number)) = open.expirations.first() else {
                return;
            };
            if at > now {
                return;
            }
            open.expirations.pop_first();
            let registered = open.calls.get(&number);
            let call = registered.map(|registered| Arc::clone(&registered.call));
            drop(open);
            if let Some(call) = call {
                self.end(&call, AccessError::Expired);
            }
        }
    }

    async fn recheck_all(&self) {
        let calls: Vec<Arc<Open>> = lock(&self.shared.open)
            .calls
            .values()
            .map(|registered| Arc::clone(&registered.call))
            .collect();
        for some in calls.chunks(RECHECKED_AT_ONCE) {
            some.iter().for_each(|call| self.recheck(call));
            tokio::task::yield_now().await;
        }
    }

    /// How long until there is something to look at.
    fn pause(&self, now: SystemTime) -> Duration {
        let open = lock(&self.shared.open);
        let first = open.expirations.first();
        first.map_or(TICK, |(at, _)| {
            at.duration_since(now).unwrap_or_default().min(TICK)
        })
    }

    fn places(&self, gateway_id: &str) -> &Mutex<Places> {
        let shards = &self.shared.places;
        &shards[self.shared.hasher.hash_one(gateway_id) as usize % shards.len()]
    }
}

async fn run(shared: Weak<Shared>) {
    let revision_of = |shared: &Weak<Shared>| Some(shared.upgrade()?.first_revision);
    let Some(mut revision) = revision_of(&shared) else {
        return;
    };
    loop {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let access = AccessControl { shared };
        access.end_expired(SystemTime::now());
        let newest = access.shared.authenticator.revision();
        if newest != revision {
            revision = newest;
            access.recheck_all().await;
        }
        access.shared.audit.report(Instant::now());
        let pause = access.pause(SystemTime::now());
        drop(access);
        sleep(pause).await;
    }
}

/// The value of the only `authorization` field.
fn authorization_field(fields: &HeaderMap) -> Result<Option<&[u8]>, AccessError> {
    let mut values = fields.get_all(header::AUTHORIZATION).iter();
    let value = values.next();
    if values.next().is_some() {
        let why = "there is more than one authorization field";
        return Err(AccessError::Malformed(why.to_owned()));
    }
    Ok(value.map(http::HeaderValue::as_bytes))
}

impl OpenCalls {
    fn insert(&mut self, call: &Arc<Open>) {
        let registered = Registered {
            call: Arc::clone(call),
            expires_at: None,
        };
        self.calls.insert(call.number, registered);
        self.set_expiration(call.number, call.identity.load().valid_until());
    }

    fn remove(&mut self, number: u64) {
        self.set_expiration(number, None);
        self.calls.remove(&number);
    }

    /// Sets when a call's credential expires, if the call is still open.
    fn set_expiration(&mut self, number: u64, expires_at: Option<SystemTime>) {
        let Some(registered) = self.calls.get_mut(&number) else {
            return;
        };
        let before = std::mem::replace(&mut registered.expires_at, expires_at);
        if let Some(at) = before {
            self.expirations.remove(&(at, number));
        }
        if let Some(at) = expires_at {
            self.expirations.insert((at, number));
        }
    }
}

impl Open {
    /// Calls `log` with whom a line about it is about.
    fn audit(&self, id: Option<&str>, log: impl FnOnce(Who<'_>)) {
        let id = id.or(match self.purpose.get() {
            Some(Purpose::Subscription { gateway_id, .. }) => Some(gateway_id),
            _ => None,
        });
        let identity = self.identity.load();
        log(Who {
            principal: Some(identity.principal()),
            peer: self.peer,
            id,
        });
    }

    /// Whether what the call is for may go on with this identity.
    fn check(&self, identity: &Identity) -> Result<(), AccessError> {
        match self.purpose.get() {
            Some(Purpose::Subscription { gateway_id, .. }) => identity.may_subscribe(gateway_id),
            Some(Purpose::Publishing) => may_publish_any(identity),
            Some(Purpose::Waiting) => identity.may_publish(INVALIDATIONS),
            Some(Purpose::Looking) | None => Ok(()),
        }
    }

    fn wake(&self) {
        let task = lock(&self.task).clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Authorization {
    /// Subscribes a gateway, by calling `subscribe`, if it may.
    ///
    /// Streams are counted by gateway id: a subscription that takes over from one of the same
    /// principal, and of the same count, takes its place in that, too. Otherwise a gateway with
    /// as many streams as it may have could not reconnect before its lost connection is
    /// found to be lost.
    ///
    /// # Errors
    ///
    /// The status that refuses the call. Nothing was taken over.
    pub(super) fn subscribe<R>(
        &mut self,
        gateway_id: &str,
        subscribe: impl FnOnce() -> Result<(Subscriber, R), SubscribeError>,
    ) -> Result<(Subscriber, R), Status> {
        let identity = self.current(Some(gateway_id))?;
        let allowed = identity.may_subscribe(gateway_id);
        allowed.map_err(|error| self.refuse(&error, Some(gateway_id)))?;

        let principal: &str = identity.principal();
        // Held over the subscription, so that places change hands in the order of takeovers.
        let mut places = lock(self.access.places(gateway_id));
        let older = places.get_mut(gateway_id);
        let (number, peer) = (self.call.number, self.call.peer);
        let (subscriber, rest) = match older {
            Some(place) if *place.principal == *principal && place.permit.counts_for(&identity) => {
                let subscribed = subscribe().map_err(status::not_subscribed)?;
                let older_peer = std::mem::replace(&mut place.peer, peer);
                place.number = number;
                self.audit_takeover(gateway_id, principal, older_peer);
                subscribed
            }
            older => {
                let permit = identity.open_stream();
                let permit = permit.map_err(|error| self.refuse(&error, Some(gateway_id)))?;
                let subscribed = subscribe().map_err(status::not_subscribed)?;
                if let Some(place) = older {
                    self.audit_takeover(gateway_id, &place.principal, place.peer);
                }
                let place = Place {
                    number,
                    principal: Box::from(principal),
                    peer,
                    permit,
                };
                places.insert(Box::from(gateway_id), place);
                subscribed
            }
        };
        drop(places);
        self.register(Purpose::Subscription {
            gateway_id: Box::from(gateway_id),
            ender: subscriber.ender(),
        });
        Ok((subscriber, rest))
    }

    /// Whether it may publish anything at all: else there is no need for its request. A
    /// stream of requests counts among its principal's, and is ended when it may no more.
    ///
    /// # Errors
    ///
    /// The status that refuses the call.
    pub(super) fn open_publishing(&mut self, is_stream: bool) -> Result<(), Status> {
        let identity = self.current(None)?;
        may_publish_any(&identity).map_err(|error| self.refuse(&error, None))?;
        if is_stream {
            let permit = identity.open_stream();
            self.permit = Some(permit.map_err(|error| self.refuse(&error, None))?);
            self.register(Purpose::Publishing);
        }
        Ok(())
    }

    /// Lets a stream begin that only looks. It counts among its principal's, and is ended when
    /// the credential ends.
    ///
    /// # Errors
    ///
    /// The status that refuses the call.
    pub(super) fn open_stream(&mut self) -> Result<(), Status> {
        let permit = self.current(None)?.open_stream();
        self.permit = Some(permit.map_err(|error| self.refuse(&error, None))?);
        self.register(Purpose::Looking);
        Ok(())
    }

    /// Whether these events, all of a request, may be published.
    ///
    /// # Errors
    ///
    /// The status that refuses the request.
    pub(super) fn publish(&self, counts: KindCounts, request_bytes: usize) -> Result<(), Status> {
        let identity = self.current(None)?;
        let kinds = EventKinds {
            client_event: counts.client_events > 0,
            session_invalidation: counts.session_invalidations > 0,
        };
        let events = counts.client_events + counts.session_invalidations;
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        identity
            .may_publish(kinds)
            .and_then(|()| identity.take(events, request_bytes as u64))
            .map_err(|error| self.refuse(&error, None))
    }

    /// Whether it may report for this gateway.
    ///
    /// # Errors
    ///
    /// The status that refuses the call.
    pub(super) fn report(&self, gateway_id: &str) -> Result<(), Status> {
        let allowed = self.current(Some(gateway_id))?.may_subscribe(gateway_id);
        allowed.map_err(|error| self.refuse(&error, Some(gateway_id)))
    }

    /// Whether it may wait for the enforcement of invalidations, and be told which gateways there
    /// are: whoever may publish them. It counts among its principal's streams, and is ended when it may
    /// no more.
    ///
    /// # Errors
    ///
    /// The status that refuses the call.
    pub(super) fn open_wait(&mut self) -> Result<(), Status> {
        let identity = self.current(None)?;
        let allowed = identity.may_publish(INVALIDATIONS);
        let permit = allowed.and_then(|()| identity.open_stream());
        self.permit = Some(permit.map_err(|error| self.refuse(&error, None))?);
        self.register(Purpose::Waiting);
        Ok(())
    }

    /// Why the call was ended. The task of `cx` is woken when it is.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Option<Status> {
        if !self.waker.will_wake(cx.waker()) {
            self.waker.clone_from(cx.waker());
            *lock(&self.call.task) = Some(cx.waker().clone());
        }
        self.ended()
    }

    /// Whose call it is.
    pub(super) fn principal(&self) -> Arc<str> {
        Arc::clone(self.call.identity.load().principal())
    }

    /// Why the call was ended.
    pub(super) fn ended(&self) -> Option<Status> {
        self.call.ended.get().map(status::access)
    }

    /// Who calls, as far as that still holds. Where the call is among the open ones, nothing
    /// has to be looked up for it.
    fn current(&self, id: Option<&str>) -> Result<Arc<Identity>, Status> {
        let call = &self.call;
        if !self.is_registered {
            // Relaxed: `recheck` looks again, with a lock.
            let revision = self.access.shared.authenticator.revision();
            if call.revision.load(Ordering::Relaxed) != revision {
                self.access.recheck(call);
            }
            let expires_at = call.identity.load().valid_until();
            if expires_at.is_some_and(|at| at <= SystemTime::now()) {
                self.access.end(call, AccessError::Expired);
            }
        }
        match call.ended.get() {
            None => Ok(call.identity.load_full()),
            // It is told as it ends.
            Some(error) if self.is_registered => Err(status::access(error)),
            Some(error) => Err(self.refuse(error, id)),
        }
    }

    fn refuse(&self, error: &AccessError, id: Option<&str>) -> Status {
        let audit = &self.access.shared.audit;
        self.call.audit(id, |who| audit.refused(who, error));
        status::access(error)
    }

    fn audit_takeover(&self, gateway_id: &str, older_principal: &str, older_peer: Peer) {
        let audit = &self.access.shared.audit;
        self.call.audit(Some(gateway_id), |who| {
            audit.taken_over(who, older_principal, older_peer);
        });
    }

    /// Puts it among the open calls.
    fn register(&mut self, purpose: Purpose) {
        let call = &self.call;
        if call.purpose.set(purpose).is_err() {
            return;
        }
        self.is_registered = true;
        lock(&self.access.shared.open).insert(call);
        // A change that came before it was there has looked at the others already.
        if call.revision.load(Ordering::Relaxed) != self.access.shared.authenticator.revision() {
            self.access.recheck(call);
        }
    }
}

impl Drop for Authorization {
    fn drop(&mut self) {
        if !self.is_registered {
            return;
        }
        let number = self.call.number;
        lock(&self.access.shared.open).remove(number);
        if let Some(Purpose::Subscription { gateway_id, .. }) = self.call.purpose.get() {
            let mut places = lock(self.access.places(gateway_id));
            let is_own = |place: &Place| place.number == number;
            // Not a newer subscription's that took over from it.
            let place = if places.get(gateway_id).is_some_and(is_own) {
                places.remove(gateway_id)
            } else {
                None
            };
            drop(places);
            drop(place);
        }
    }
}

/// Whether there is a kind of events that it may publish.
fn may_publish_any(identity: &Identity) -> Result<(), AccessError> {
    let client_event = EventKinds {
        client_event: true,
        session_invalidation: false,
    };
    identity
        .may_publish(client_event)
        .or_else(|error| identity.may_publish(INVALIDATIONS).map_err(|_| error))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is half done where this could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for AccessControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessControl")
            .field("authenticator", &self.shared.authenticator)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorization")
            .field("principal", self.call.identity.load().principal())
            .field("peer", &self.call.peer)
            .finish_non_exhaustive()
    }
}
