//! The flags by which a command connects over TLS.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;

use crate::tls::ClientTls;

/// TLS of a client.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct TlsArgs {
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
}

impl TlsArgs {
    /// What the flags say, or `None` for plaintext.
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
}
