//! Access by tokens that a test gives out, changes and takes back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use galaxy_push::access::{AccessError, Authenticator, Credentials, EventKinds, Identity, Limits};
use galaxy_push::contract::publisher::publisher_client::PublisherClient;
use galaxy_push::contract::publisher::{PublishRequest, PublishResponse};
use galaxy_push::contract::push::push_client::PushClient;
use galaxy_push::contract::push::{GatewaySubscribeRequest, PushEvent};
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::{Subscription, soon};

/// Each token is a principal's, which has its name.
#[derive(Debug, Default)]
pub struct Tokens {
    identities: Mutex<HashMap<String, Identity>>,
    revision: AtomicU64,
}

impl Tokens {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// From here on the token of this name has these rights, and others may have changed.
    pub fn set(&self, identity: Identity) {
        let name = identity.principal().to_string();
        self.identities.lock().unwrap().insert(name, identity);
        self.revision.fetch_add(1, Ordering::SeqCst);
    }

    /// From here on it is nobody's.
    pub fn revoke(&self, name: &str) {
        self.identities.lock().unwrap().remove(name);
        self.revision.fetch_add(1, Ordering::SeqCst);
    }

    fn find(&self, name: &str) -> Option<Identity> {
        self.identities.lock().unwrap().get(name).cloned()
    }
}

impl Authenticator for Tokens {
    fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Identity, AccessError> {
        let field = credentials.authorization.ok_or(AccessError::NoCredential)?;
        let name = field
            .strip_prefix(b"Bearer ")
            .and_then(|token| std::str::from_utf8(token).ok());
        name.and_then(|name| self.find(name))
            .ok_or(AccessError::Unknown)
    }

    fn recheck(&self, identity: &Identity) -> Result<Identity, AccessError> {
        let principal = identity.principal().to_string();
        self.find(&principal)
            .ok_or(AccessError::Revoked { principal })
    }

    fn revision(&self) -> u64 {
        self.revision.load(Ordering::SeqCst)
    }
}

/// Who may subscribe under these ids.
pub fn gateway(name: &str, ids: &[&str]) -> Identity {
    Identity::new(name).subscribe(ids.iter().map(|id| (*id).to_owned()).collect())
}

/// The same, with so many streams at most.
pub fn gateway_with_streams(name: &str, ids: &[&str], max_streams: u32) -> Identity {
    gateway(name, ids).limits(Limits::default().max_streams(max_streams))
}

/// Who may publish client events.
pub fn publisher(name: &str) -> Identity {
    Identity::new(name).publish(EventKinds {
        client_event: true,
        session_invalidation: false,
    })
}

/// The same, with so many events a second at most.
pub fn publisher_with_rate(name: &str, events_per_second: u64) -> Identity {
    publisher(name).limits(Limits::default().events_per_second(events_per_second))
}

/// Who may publish everything.
pub fn publisher_of_all(name: &str) -> Identity {
    Identity::new(name).publish(EventKinds::ALL)
}

pub fn until(identity: Identity, end: SystemTime) -> Identity {
    identity.expires_at(end)
}

/// A request with a token.
pub fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("a header's value");
    request.metadata_mut().insert("authorization", value);
    request
}

pub async fn subscribe_as(
    gateway: &mut PushClient<Channel>,
    token: &str,
    id: &str,
    cursor: &str,
) -> Result<Subscription, Status> {
    let request = GatewaySubscribeRequest {
        gateway_client_id: id.to_owned(),
        cursor: cursor.to_owned(),
    };
    let response = soon(gateway.subscribe_push(with_token(token, request))).await?;
    let (metadata, events, _) = response.into_parts();
    Ok(Subscription { metadata, events })
}

pub async fn publish_as(
    publisher: &mut PublisherClient<Channel>,
    token: &str,
    events: Vec<PushEvent>,
) -> Result<PublishResponse, Status> {
    let request = with_token(token, PublishRequest { events });
    Ok(soon(publisher.publish(request)).await?.into_inner())
}
