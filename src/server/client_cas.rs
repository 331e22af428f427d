//! Clients' certificates, of CAs that may go while connections are open.

use std::sync::Arc;
use std::time::SystemTime;

use crate::access::{
    AccessError, AdminRole, Authenticator, ClientCertificate, Credentials, EventKinds, Evidence,
    Identity,
};
use crate::tls::ServerTls;

/// An authenticator that also looks whether a client's certificate is still trusted. Where
/// clients are asked for one and nobody else says who may do what, whoever has one may do
/// everything, for as long as it is valid.
pub(super) fn check(
    authenticator: Option<Arc<dyn Authenticator>>,
    tls: Option<&Arc<ServerTls>>,
) -> Option<Arc<dyn Authenticator>> {
    let Some(tls) = tls.filter(|tls| tls.asks_clients()) else {
        return authenticator;
    };
    Some(Arc::new(ClientCas {
        tls: Arc::clone(tls),
        inner: authenticator.unwrap_or_else(|| Arc::new(AnyCertificate)),
    }))
}

/// What another authenticator says, if the certificate is trusted.
#[derive(Debug)]
struct ClientCas {
    tls: Arc<ServerTls>,
    inner: Arc<dyn Authenticator>,
}

impl Authenticator for ClientCas {
    fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Identity, AccessError> {
        if let Some(certificate) = credentials.certificate
            && self.tls.check(certificate).is_err()
        {
            return Err(AccessError::Unknown);
        }
        self.inner.authenticate(credentials)
    }

    fn recheck(&self, identity: &Identity) -> Result<Identity, AccessError> {
        if let Evidence::Certificate(certificate) = identity.shown()
            && self.tls.check(certificate).is_err()
        {
            return Err(AccessError::Revoked {
                principal: identity.principal().to_string(),
            });
        }
        self.inner.recheck(identity)
    }

    fn revision(&self) -> u64 {
        // Neither goes back, so the sum changes with each of them.
        self.inner.revision().wrapping_add(self.tls.ca_revision())
    }
}

/// Whoever has a certificate may do everything; so may whoever reaches a unix socket, which
/// has none.
#[derive(Debug)]
struct AnyCertificate;

impl Authenticator for AnyCertificate {
    fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Identity, AccessError> {
        let Some(certificate) = credentials.certificate else {
            return Ok(Identity::anyone());
        };
        // By a session ticket it may have come long after it was checked.
        if certificate.not_after < SystemTime::now() {
            return Err(AccessError::Expired);
        }
        Ok(Identity::new(name(certificate))
            .subscribe(vec!["*".to_owned()])
            .publish(EventKinds::ALL)
            .admin(AdminRole::Write)
            .expires_at(certificate.not_after)
            .evidence(Evidence::Certificate(Arc::clone(certificate))))
    }
}

/// How the log calls a certificate's holder.
fn name(certificate: &ClientCertificate) -> &str {
    let mut names = certificate.uris.iter().chain(&certificate.dns_names);
    names.next().map_or("a certificate", String::as_str)
}
