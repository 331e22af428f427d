//! Who asks, and what it may see and do.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{HeaderMap, StatusCode, header};

use super::api;
use super::refusal::Refusal;
use crate::access::{
    AccessError, AdminRole, Authenticator, ClientCertificate, Credentials, Identity, Peer,
};
use crate::audit::{Audit, Who};
use crate::telemetry::Telemetry;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) peer: Peer,
    pub(super) certificate: Option<Arc<ClientCertificate>>,
}

impl Caller {
    pub(super) fn is_unix(&self) -> bool {
        matches!(self.peer, Peer::Unix { .. })
    }
}

/// Who may look, and who may do more.
#[derive(Debug)]
pub(super) struct Access {
    /// `None`: whoever reaches the listener may do everything.
    authenticator: Option<Arc<dyn Authenticator>>,
    audit: Audit,
}

/// Somebody who was let in.
#[derive(Clone, Debug)]
pub(super) struct Session {
    identity: Identity,
    peer: Peer,
    /// The authenticator's when the identity was found.
    revision: u64,
}

impl Session {
    /// Who disconnects, as others are told.
    pub(super) fn name(&self) -> &str {
        self.identity.principal()
    }

    /// What it may do here, for whoever asks that of itself.
    pub(super) fn describe(&self, is_asked: bool) -> api::Access {
        let may_write = self.identity.admin_role() >= AdminRole::Write;
        api::Access {
            principal: if is_asked {
                self.name().to_owned()
            } else {
                String::new()
            },
            role: if may_write { "write" } else { "read" }.to_owned(),
            payloads: self.may_see_payloads(),
        }
    }

    /// Whether it may see what gateways see.
    pub(super) fn may_see_payloads(&self) -> bool {
        self.identity.subscribes()
    }
}

impl Access {
    pub(super) fn new(
        authenticator: Option<Arc<dyn Authenticator>>,
        telemetry: &Telemetry,
    ) -> Self {
        Access {
            authenticator,
            audit: Audit::new(telemetry.clone()),
        }
    }

    /// Whether anybody is asked who it is.
    pub(super) fn asks(&self) -> bool {
        self.authenticator.is_some()
    }

    /// Finds out who asks, and whether it may do what needs this role. `id`: what it asks
    /// about.
    pub(super) fn authorize(
        &self,
        caller: &Caller,
        fields: &HeaderMap,
        needs: AdminRole,
        id: Option<&str>,
    ) -> Result<Session, Refusal> {
        let Some(authenticator) = &self.authenticator else {
            return Ok(Session {
                identity: Identity::anyone(),
                peer: caller.peer,
                revision: 0,
            });
        };
        // Before the credential is looked at: a change meanwhile is seen afterwards.
        let revision = authenticator.revision();
        let authenticated = authorization_field(fields).and_then(|authorization| {
            let credentials = Credentials::of(caller.peer)
                .certificate(caller.certificate.as_ref())
                .authorization(authorization);
            authenticator.authenticate(&credentials)
        });
        let identity = authenticated.and_then(|identity| {
            if has_expired(&identity) {
                return Err(AccessError::Expired);
            }
            Ok(identity)
        });
        let who = Who {
            principal: None,
            peer: caller.peer,
            id,
        };
        let identity = identity.map_err(|error| {
            let refusal = refusal(&error);
            self.note(who, &refusal);
            refusal
        })?;
        check_role(&identity, needs).inspect_err(|refusal| {
            let principal = Some(&**identity.principal());
            self.note(Who { principal, ..who }, refusal);
        })?;
        Ok(Session {
            identity,
            peer: caller.peer,
            revision,
        })
    }

    /// Looks whether a session still holds, for one that goes on looking. It is logged where
    /// it does not.
    pub(super) fn recheck(&self, session: &mut Session) -> bool {
        let Some(authenticator) = &self.authenticator else {
            return true;
        };
        let revision = authenticator.revision();
        let mut result = Ok(());
        if revision != session.revision {
            session.revision = revision;
            match authenticator.recheck(&session.identity) {
                Ok(identity) => {
                    session.identity = identity;
                    result = check_role(&session.identity, AdminRole::Read);
                }
                Err(error) => result = Err(refusal(&error)),
            }
        }
        if result.is_ok() && has_expired(&session.identity) {
            result = Err(refusal(&AccessError::Expired));
        }
        if let Err(refusal) = &result {
            let who = Who {
                principal: Some(session.name()),
                peer: session.peer,
                id: None,
            };
            let (reason, why) = (refusal.error(), refusal.message());
            self.audit.ended_for(who, reason, &why);
        }
        result.is_ok()
    }

    /// Logs and counts a refusal.
    pub(super) fn note(&self, who: Who<'_>, refusal: &Refusal) {
        self.audit
            .refused_for(who, refusal.error(), &refusal.message());
    }

    /// The same of a request of which nobody has asked who sends it.
    pub(super) fn note_unknown(&self, peer: Peer, refusal: &Refusal) {
        let who = Who {
            principal: None,
            peer,
            id: None,
        };
        self.note(who, refusal);
    }

    /// Logs that a gateway's streams were ended.
    pub(super) fn note_disconnected(&self, session: &Session, id: &str, streams: usize) {
        let who = Who {
            principal: Some(session.name()),
            peer: session.peer,
            id: Some(id),
        };
        self.audit.disconnected(who, streams);
    }

    /// Logs what was counted, when it is time to.
    pub(super) fn report(&self) {
        self.audit.report(Instant::now());
    }
}

fn has_expired(identity: &Identity) -> bool {
    let end = identity.valid_until();
    end.is_some_and(|end| end <= SystemTime::now())
}

fn check_role(identity: &Identity, needs: AdminRole) -> Result<(), Refusal> {
    if identity.admin_role() >= needs {
        return Ok(());
    }
    let (what, role) = match needs {
        AdminRole::Write => ("disconnect gateways", "write"),
        _ => ("look at this server", "read"),
    };
    let principal = identity.principal();
    let message = format!("{principal} may not {what}: that needs admin = \"{role}\"");
    Err(Refusal::forbidden("ADMIN_NOT_GRANTED", message))
}

fn refusal(error: &AccessError) -> Refusal {
    use AccessError as E;
    let (reason, message) = (error.reason().as_str(), error.to_string());
    match error {
        E::TooManyFailures { retry_after }
        | E::TooManyStreams { retry_after, .. }
        | E::TooFast { retry_after, .. } => {
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, reason, message)
                .retry_after(retry_after.as_secs() + 1)
        }
        E::Revoked { .. } | E::SubscribeNotGranted { .. } | E::PublishNotGranted { .. } => {
            Refusal::forbidden(reason, message)
        }
        _ => Refusal::unauthenticated(reason, message),
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
