//! How a command connects: the flags of TLS and of the token.

#[cfg(feature = "bench")]
use std::path::Path;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;

use super::Failure;
use crate::client::{ConnectError, Connector};
use crate::config::Address;
use crate::tls::ClientTls;

/// TLS, and the token.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "TLS and credentials")]
pub(crate) struct ConnectArgs {
    /// Connect over TLS. Each of the other --tls flags implies it.
    #[arg(long)]
    tls: bool,

    /// The CA certificates that the server's certificate may be signed by, in PEM. Default:
    /// those of the system.
    #[arg(long)]
    tls_ca: Option<PathBuf>,

    /// The certificate to show to the server, in PEM, the rest of its chain behind it.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The private key of --tls-cert, in PEM, not encrypted.
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// The name or IP address that the server's certificate must be for. Default: the host
    /// of the address.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    tls_server_name: Option<String>,

    /// Send the bearer token in this file with every call. The file holds the token alone.
    /// It is read again with each connection, so that a token can be renewed. Without TLS,
    /// a token is sent to this machine only.
    #[arg(long)]
    token_file: Option<PathBuf>,

    /// Send the token in plaintext to another machine too, where everyone on the way can
    /// read it: for a network that encrypts by itself.
    #[arg(long, requires = "token_file")]
    allow_plaintext_token: bool,
}

impl ConnectArgs {
    /// TLS as the flags say, or `None` for plaintext.
    pub(crate) fn client_tls(&self) -> Option<ClientTls> {
        let mut tls = ClientTls::new();
        let mut is_meant = self.tls;
        if let Some(ca) = &self.tls_ca {
            tls = tls.ca(ca);
            is_meant = true;
        }
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            tls = tls.identity(certificate, key);
            is_meant = true;
        }
        if let Some(name) = &self.tls_server_name {
            tls = tls.server_name(name);
            is_meant = true;
        }
        is_meant.then_some(tls)
    }

    /// Whether there is a token.
    #[cfg(feature = "bench")]
    pub(crate) fn has_token(&self) -> bool {
        self.token_file.is_some()
    }

    /// The same, without the token.
    #[cfg(feature = "bench")]
    pub(crate) fn without_token(&self) -> ConnectArgs {
        ConnectArgs {
            token_file: None,
            allow_plaintext_token: false,
            ..self.clone()
        }
    }

    /// The same as [`connector`](Self::connector), with the token of another file.
    #[cfg(feature = "bench")]
    pub(crate) fn connector_with_token(
        &self,
        address: &Address,
        token_file: &Path,
    ) -> Result<Connector, Failure> {
        let args = ConnectArgs {
            token_file: Some(token_file.to_owned()),
            ..self.clone()
        };
        args.connector(address)
    }

    /// How to connect there, with every file read once: what is wrong with one is told
    /// before anything else happens.
    pub(crate) fn connector(&self, address: &Address) -> Result<Connector, Failure> {
        let mut connector = Connector::new(address.clone());
        if let Some(tls) = self.client_tls() {
            connector = connector.tls(tls);
        }
        if let Some(path) = &self.token_file {
            connector = connector
                .token_file(path)
                .allow_plaintext_token(self.allow_plaintext_token);
        }
        connector.check().map_err(|error| connect_failure(&error))?;
        Ok(connector)
    }
}

#[cfg(feature = "bench")]
impl ConnectArgs {
    /// Whether anything is said that a server of one's own has no use for.
    pub(crate) fn is_for_a_running_server(&self) -> bool {
        self.tls_ca.is_some()
            || self.tls_cert.is_some()
            || self.tls_server_name.is_some()
            || self.token_file.is_some()
    }
}

/// A wrong setting or file is exit code 2, a connection that fails 1.
pub(crate) fn connect_failure(error: &ConnectError) -> Failure {
    let message = error.to_string();
    if error.is_of_settings() {
        Failure::usage(message)
    } else {
        Failure::failed(message)
    }
}
