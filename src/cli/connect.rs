//! How `publish` and `tail` connect.

use std::path::PathBuf;

use crate::client::{ConnectError, Connector};
use crate::command::{Failure, TlsArgs};
use crate::config::Address;

/// TLS, and the token.
#[derive(Debug, clap::Args)]
pub(super) struct ConnectArgs {
    #[command(flatten)]
    tls: TlsArgs,

    /// Send the bearer token in this file with every call. The file holds the token alone.
    /// It is read again with each connection, so that a token can be renewed. Without TLS,
    /// a token is sent to this machine only.
    #[arg(long, help_heading = "Credentials")]
    token_file: Option<PathBuf>,

    /// Send the token in plaintext to another machine too, where everyone on the way can
    /// read it: for a network that encrypts by itself.
    #[arg(long, help_heading = "Credentials", requires = "token_file")]
    allow_plaintext_token: bool,
}

impl ConnectArgs {
    /// How to connect there, with every file read once: what is wrong with one is told
    /// before anything else happens.
    pub(super) fn connector(&self, address: &Address) -> Result<Connector, Failure> {
        let mut connector = Connector::new(address.clone());
        if let Some(tls) = self.tls.client_tls() {
            connector = connector.tls(tls);
        }
        if let Some(path) = &self.token_file {
            connector = connector
                .token_file(path)
                .allow_plaintext_token(self.allow_plaintext_token);
        }
        connector.check().map_err(|error| failure(&error))?;
        Ok(connector)
    }
}

/// A wrong setting or file is exit code 2, a connection that fails 1.
pub(super) fn failure(error: &ConnectError) -> Failure {
    let message = error.to_string();
    if error.is_of_settings() {
        Failure::usage(message)
    } else {
        Failure::failed(message)
    }
}
