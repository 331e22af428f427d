//! What an access file says, ready to be asked.
//!
//! Tokens, user ids and exact names are found by hash. Patterns are tried one after the other:
//! a file has few, each for many callers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::bearer::Bearer;
use super::document::{Credential, Document, DocumentError};
use super::jwt::{KeySet, Verified};
use super::pattern::{Glob, IdPattern, NameKind, NamePattern};
use super::quota::Quotas;
use super::{
    AccessError, AdminRole, ClientCertificate, Credentials, EventKinds, Evidence, Identity, Peer,
};

/// Who may do what.
#[derive(Debug)]
pub(super) struct Rules {
    principals: Vec<Principal>,
    tokens: HashMap<[u8; 32], usize>,
    uids: HashMap<u32, usize>,
    uris: Names,
    dns_names: Names,
    subjects: Names,
    keys: Option<KeySet>,
}

#[derive(Debug)]
struct Principal {
    name: Arc<str>,
    subscribe: Vec<IdPattern>,
    publish: EventKinds,
    admin: AdminRole,
    quotas: Quotas,
}

/// Patterns of a kind of name, each with the place of its principal.
#[derive(Debug, Default)]
struct Names {
    exact: HashMap<String, usize>,
    patterns: Vec<(NamePattern, usize)>,
}

/// A principal's place, and what its pattern's placeholders have bound.
type Found<'a> = (usize, Vec<&'a str>);

impl Names {
    /// Those that match a name. Only one does, as far as [`Rules::new`] can see.
    fn matching<'a>(&self, name: &'a str) -> Vec<Found<'a>> {
        let exact = self.exact.get(name).map(|place| (*place, Vec::new()));
        let by_pattern = self
            .patterns
            .iter()
            .filter_map(|(pattern, place)| Some((*place, pattern.bind(name)?)));
        exact.into_iter().chain(by_pattern).collect()
    }

    /// Adds a pattern, or returns the place of a principal whose pattern has a name in common
    /// with it.
    fn add(&mut self, pattern: NamePattern, place: usize) -> Result<(), usize> {
        let taken = match pattern.exact() {
            Some(name) => self.matching(name).first().map(|(place, _)| *place),
            None => {
                let exact = self.exact.iter();
                let exact = exact.filter(|(name, _)| pattern.bind(name).is_some());
                let patterns = self.patterns.iter();
                let patterns = patterns.filter(|(other, _)| pattern.overlaps(other));
                // The first in the file, whatever the map's order is.
                exact
                    .map(|(_, place)| *place)
                    .chain(patterns.map(|(_, place)| *place))
                    .min()
            }
        };
        if let Some(taken) = taken {
            return Err(taken);
        }
        match pattern.exact() {
            Some(name) => {
                self.exact.insert(name.to_owned(), place);
            }
            None => self.patterns.push((pattern, place)),
        }
        Ok(())
    }
}

impl Rules {
    /// Rules of a file. What principals have used of their limits goes on from the earlier
    /// ones, by their names.
    pub(super) fn new(
        document: Document,
        keys: Option<KeySet>,
        earlier: Option<&Rules>,
    ) -> Result<Self, DocumentError> {
        let mut rules = Rules {
            principals: Vec::with_capacity(document.principals.len()),
            tokens: HashMap::new(),
            uids: HashMap::new(),
            uris: Names::default(),
            dns_names: Names::default(),
            subjects: Names::default(),
            keys,
        };
        let earlier = earlier.into_iter().flat_map(|earlier| &earlier.principals);
        let earlier: HashMap<&str, &Quotas> = earlier
            .map(|principal| (&*principal.name, &principal.quotas))
            .collect();
        for (place, section) in document.principals.into_iter().enumerate() {
            let (taken, key) = match section.credential {
                Credential::Tokens(hashes) => {
                    let mut taken = None;
                    for hash in hashes {
                        taken = taken.or(rules.tokens.insert(hash, place));
                    }
                    (taken, "token_sha256")
                }
                Credential::UnixUid(uid) => (rules.uids.insert(uid, place), "unix_uid"),
                Credential::Names(pattern) => {
                    let (names, key) = match pattern.kind() {
                        NameKind::Uri => (&mut rules.uris, "certificate"),
                        NameKind::Dns => (&mut rules.dns_names, "certificate"),
                        NameKind::Subject => (&mut rules.subjects, "jwt_subject"),
                    };
                    (names.add(pattern, place).err(), key)
                }
            };
            if let Some(other) = taken.and_then(|place| rules.principals.get(place)) {
                return Err(DocumentError {
                    line: section.credential_line,
                    what: format!(
                        "principal {:?}: {key}: some credential would be of principal {:?} too",
                        section.name, other.name
                    ),
                });
            }
            let quotas = earlier.get(section.name.as_str());
            rules.principals.push(Principal {
                quotas: quotas.map_or_else(
                    || Quotas::new(section.limits),
                    |quotas| quotas.with_limits(section.limits),
                ),
                name: section.name.into(),
                subscribe: section.subscribe,
                publish: section.publish,
                admin: section.admin,
            });
        }
        Ok(rules)
    }

    /// How many principals there are.
    pub(super) fn len(&self) -> usize {
        self.principals.len()
    }

    /// Whose credentials these are.
    ///
    /// A token says who calls, whatever else is shown: a certificate may be that of a proxy
    /// which many share. Else it is the certificate, else the user id.
    pub(super) fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: SystemTime,
    ) -> Result<Identity, AccessError> {
        if let Some(authorization) = credentials.authorization {
            let token = Bearer::parse(authorization)?;
            let hash = token.sha256();
            if let Some(identity) = self.by_token(hash) {
                return Ok(identity);
            }
            return match (&self.keys, token.as_jwt()) {
                (Some(keys), Some(token)) => self.by_jwt(keys.verify(token, now)?),
                _ => Err(AccessError::Unknown),
            };
        }
        if let Some(certificate) = credentials.certificate {
            return self.by_certificate(certificate, now);
        }
        match credentials.peer {
            Peer::Unix { uid: Some(uid) } => self.by_uid(uid).ok_or(AccessError::Unknown),
            _ => Err(AccessError::NoCredential),
        }
    }

    /// What an identity that was made by earlier rules is now.
    pub(super) fn recheck(
        &self,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<Identity, AccessError> {
        if identity.valid_until().is_some_and(|end| end <= now) {
            return Err(AccessError::Expired);
        }
        let found = match identity.shown() {
            Evidence::TokenHash(hash) => self.by_token(*hash),
            Evidence::UnixUid(uid) => self.by_uid(*uid),
            Evidence::Certificate(certificate) => self.by_certificate(certificate, now).ok(),
            Evidence::Jwt {
                subject,
                key_id,
                verified_by,
            } => {
                let keys = self.keys.as_ref();
                let digest = keys.and_then(|keys| keys.digest(key_id.as_deref()));
                let still = digest == Some(*verified_by);
                let until = identity.valid_until().filter(|_| still);
                until.and_then(|expires_at| {
                    let verified = Verified {
                        subject: subject.clone(),
                        key_id: key_id.clone(),
                        verified_by: *verified_by,
                        expires_at,
                    };
                    self.by_jwt(verified).ok()
                })
            }
            Evidence::Nothing | Evidence::Other(_) => None,
        };
        found
            .filter(|found| found.principal() == identity.principal())
            .ok_or_else(|| AccessError::Revoked {
                principal: identity.principal().to_string(),
            })
    }

    fn by_token(&self, hash: [u8; 32]) -> Option<Identity> {
        let place = *self.tokens.get(&hash)?;
        self.identity((place, Vec::new()), "", Evidence::TokenHash(hash))
    }

    fn by_uid(&self, uid: u32) -> Option<Identity> {
        let place = *self.uids.get(&uid)?;
        self.identity((place, Vec::new()), "", Evidence::UnixUid(uid))
    }

    fn by_jwt(&self, verified: Verified) -> Result<Identity, AccessError> {
        let Verified {
            subject,
            key_id,
            verified_by,
            expires_at,
        } = verified;
        let name = subject.clone();
        let found = self.only(self.subjects.matching(&name))?;
        let evidence = Evidence::Jwt {
            subject,
            key_id,
            verified_by,
        };
        let identity = self
            .identity(found, &name, evidence)
            .ok_or(AccessError::Unknown)?;
        Ok(identity.expires_at(expires_at))
    }

    fn by_certificate(
        &self,
        certificate: &Arc<ClientCertificate>,
        now: SystemTime,
    ) -> Result<Identity, AccessError> {
        if now < certificate.not_before {
            return Err(AccessError::NotYetValid);
        }
        // Its last moment is a whole second, which still counts (RFC 5280, 4.1.2.5).
        let end = certificate.not_after.checked_add(Duration::from_secs(1));
        if end.is_some_and(|end| now >= end) {
            return Err(AccessError::Expired);
        }
        let uri = match certificate.uris.as_slice() {
            [] => None,
            [uri] => Some(uri.as_str()),
            _ => {
                return Err(AccessError::NotAccepted {
                    reason: "the certificate has several URIs among its names",
                });
            }
        };
        let by_uri = uri.map_or_else(Vec::new, |uri| self.uris.matching(uri));
        let dns_name = match certificate.dns_names.as_slice() {
            [name] => name.to_ascii_lowercase(),
            [_, _, ..] if by_uri.is_empty() && !self.dns_names.is_empty() => {
                return Err(AccessError::NotAccepted {
                    reason: "the certificate has several DNS names, and no URI that is known here",
                });
            }
            _ => String::new(),
        };
        let by_dns = self.dns_names.matching(&dns_name);
        let name = if by_uri.is_empty() {
            &dns_name
        } else {
            uri.unwrap_or_default()
        };
        let found = self.only(by_uri.into_iter().chain(by_dns).collect())?;
        let evidence = Evidence::Certificate(Arc::clone(certificate));
        let identity = self
            .identity(found, name, evidence)
            .ok_or(AccessError::Unknown)?;
        Ok(match end {
            Some(end) => identity.expires_at(end),
            None => identity,
        })
    }

    /// The only principal that was found.
    fn only<'a>(&self, mut found: Vec<Found<'a>>) -> Result<Found<'a>, AccessError> {
        let last = found.pop().ok_or(AccessError::Unknown)?;
        let name = |found: &Found<'_>| {
            let principal = self.principals.get(found.0);
            principal.map_or_else(String::new, |principal| principal.name.to_string())
        };
        match found.first() {
            None => Ok(last),
            Some(first) => Err(AccessError::Ambiguous {
                first: name(first),
                second: name(&last),
            }),
        }
    }

    /// The identity of who has shown a credential with this name. Names share no quota.
    fn identity(
        &self,
        (place, bound): Found<'_>,
        name: &str,
        evidence: Evidence,
    ) -> Option<Identity> {
        let principal = self.principals.get(place)?;
        let subscribe: Vec<Glob> = principal
            .subscribe
            .iter()
            .filter_map(|pattern| pattern.resolve(&bound))
            .collect();
        let identity = Identity::new(Arc::clone(&principal.name))
            .subscribe_globs(subscribe)
            .publish(principal.publish)
            .admin(principal.admin)
            .quota(principal.quotas.of(name));
        Some(identity.evidence(evidence))
    }
}

impl Names {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.patterns.is_empty()
    }
}
