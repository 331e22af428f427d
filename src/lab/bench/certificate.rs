//! A certificate for a server that is started to be measured, and forgotten afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::Failure;

/// The files of a certificate for the loopback address and of its key. Whoever trusts the
/// certificate trusts that server alone.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Certificate {
    /// A new one, in this directory.
    pub(super) fn write(directory: &Path) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::failed(format!("cannot make a certificate for the server: {error}"))
        };
        let names = ["127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).map_err(|error| failed(&error))?;
        let files = Certificate {
            certificate: directory.join("server.pem"),
            key: directory.join("server.key"),
        };
        fs::write(&files.certificate, made.cert.pem()).map_err(|error| failed(&error))?;
        // The directory is for its owner alone.
        fs::write(&files.key, made.signing_key.serialize_pem()).map_err(|error| failed(&error))?;
        Ok(files)
    }
}
