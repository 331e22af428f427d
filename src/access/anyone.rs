//! Everybody, with all rights: no access file was given.

use super::{AccessError, Authenticator, Credentials, Identity};

/// Lets everybody do everything, and looks at no credential.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anyone;

impl Authenticator for Anyone {
    fn authenticate(&self, _credentials: &Credentials<'_>) -> Result<Identity, AccessError> {
        Ok(Identity::anyone())
    }
}
