//! Why somebody is refused.

use std::time::Duration;

use crate::contract::details::ErrorReason;

/// Why a caller is refused, or its call ended. No text holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// Nothing was shown that says who calls.
    #[error("no credential: send a client certificate or `authorization: Bearer`")]
    NoCredential,
    /// What was shown is not a credential; `0` says what is wrong with it.
    #[error("the credential cannot be read: {0}")]
    Malformed(String),
    /// It can be read, and is not accepted: it lacks something, or was made for something else.
    #[error("the credential is not accepted: {reason}")]
    NotAccepted {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It is that of two principals, by two of its names.
    #[error("the credential is that of two principals: {first} and {second}")]
    Ambiguous {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// It is nobody's.
    #[error("the credential is not known here")]
    Unknown,
    /// It has expired.
    #[error("the credential has expired")]
    Expired,
    /// Its time has not come.
    #[error("the credential is not valid yet")]
    NotYetValid,
    /// A principal no longer is what it was when its call began.
    #[error("the credential of {principal} was revoked")]
    Revoked {
        /// The principal.
        principal: String,
    },
    /// Too many wrong credentials came from this address.
    #[error("too many failed credentials from this address: try again in {retry_after:?}")]
    TooManyFailures {
        /// When to try again.
        retry_after: Duration,
    },
    /// It may not subscribe as this gateway.
    #[error("{principal} may not subscribe as gateway {gateway:?}")]
    SubscribeNotGranted {
        /// The principal.
        principal: String,
        /// The `gateway_client_id`.
        gateway: String,
    },
    /// It may not publish events of this kind.
    #[error("{principal} may not publish a {kind}")]
    PublishNotGranted {
        /// The principal.
        principal: String,
        /// `client_event` or `session_invalidation`.
        kind: &'static str,
    },
    /// It has as many calls as it may have.
    #[error("{principal} has {limit} streams already, its limit (max_streams)")]
    TooManyStreams {
        /// The principal.
        principal: String,
        /// Its limit.
        limit: u32,
        /// When to try again.
        retry_after: Duration,
    },
    /// It publishes more than it may.
    #[error("{principal} publishes more than its {setting} allows: try again in {retry_after:?}")]
    TooFast {
        /// The principal.
        principal: String,
        /// `events_per_second` or `bytes_per_second`.
        setting: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
}

impl AccessError {
    /// The same for machines; the log has the same word.
    pub(crate) fn reason(&self) -> ErrorReason {
        use AccessError as E;
        match self {
            E::NoCredential => ErrorReason::CredentialMissing,
            E::Malformed(_) => ErrorReason::CredentialMalformed,
            E::NotAccepted { .. } => ErrorReason::CredentialNotAccepted,
            E::Ambiguous { .. } => ErrorReason::CredentialAmbiguous,
            E::Unknown => ErrorReason::CredentialUnknown,
            E::Expired => ErrorReason::CredentialExpired,
            E::NotYetValid => ErrorReason::CredentialNotYetValid,
            E::Revoked { .. } => ErrorReason::CredentialRevoked,
            E::SubscribeNotGranted { .. } => ErrorReason::SubscribeNotGranted,
            E::PublishNotGranted { .. } => ErrorReason::PublishNotGranted,
            E::TooManyFailures { .. } => ErrorReason::TooManyFailedCredentials,
            E::TooManyStreams { .. } => ErrorReason::TooManyStreams,
            E::TooFast { .. } => ErrorReason::RateExceeded,
        }
    }
}
