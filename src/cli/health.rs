//! `galaxy-push health`: asks a running server whether it is well.

use http::{Method, StatusCode};

use super::admin::{Admin, AdminArgs};
use crate::command::Failure;

/// Ask a running server whether it is ready to serve.
///
/// Asks `/readyz` at the server's admin listener, which needs no credential. Exit code 0: it
/// is ready. Exit code 1: it is not, and the checks that fail are on standard error; or it
/// does not answer within 5 seconds. For health checks of containers, and for scripts that
/// wait for a server.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push health
  galaxy-push health --live --connect unix:/run/galaxy-push/admin.sock
  galaxy-push health --connect push.example:50053 --tls-ca ca.pem")]
pub(super) struct Args {
    /// Ask whether it lives (`/livez`): whether anything is wrong with it that a restart
    /// would mend. A server that is stopping lives, and is not ready.
    #[arg(long)]
    live: bool,

    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let Args { live, admin } = args;
    admin.run(async |server| ask(&server, live).await)
}

async fn ask(server: &Admin, live: bool) -> Result<(), Failure> {
    let (path, state) = if live {
        ("/livez", "alive")
    } else {
        ("/readyz", "ready")
    };
    let answer = server.request(Method::GET, path).await?;
    let address = server.address();
    match answer.status {
        StatusCode::OK => Ok(()),
        StatusCode::SERVICE_UNAVAILABLE => {
            let text = String::from_utf8_lossy(&answer.body);
            let failing = text.trim().replace('\n', "; ");
            Err(Failure::failed(format!(
                "{address} is not {state}: {failing}"
            )))
        }
        status => Err(Failure::failed(format!(
            "{address} answers {path} with {status}: it is no admin listener of galaxy-push"
        ))),
    }
}
