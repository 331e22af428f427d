//! `galaxy-push disconnect`: ends a gateway's stream.

use http::{Method, StatusCode};

use super::admin::{AdminArgs, encoded};
use crate::command::{Failure, print, text};

/// Disconnect a gateway: end its stream.
///
/// The stream ends with ABORTED and the reason DISCONNECTED_BY_OPERATOR. The gateway may
/// subscribe again, and resumes with its cursor: to keep it out, take its right away
/// (--access). Needs `admin = "write"` where the server has an access file.
///
/// Exit code 0: its stream was ended. Exit code 1: no gateway of this id is subscribed, or
/// the server does not let it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push disconnect gateway-7
  galaxy-push disconnect gateway-7 --connect push.example:50053 --tls-ca ca.pem \\
      --token-file admin.token")]
pub(super) struct Args {
    /// The gateway's id.
    #[arg(value_name = "ID")]
    id: String,

    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let Args { id, admin } = args;
    admin.run(async |server| {
        let path = format!("/api/v1/gateways/{}", encoded(&id));
        let answer = server.request(Method::DELETE, &path).await?;
        match answer.status {
            StatusCode::OK => print(&format!("disconnected {}\n", text::visible(&id))),
            StatusCode::NOT_FOUND => Err(Failure::failed(format!(
                "no gateway {id:?} is subscribed at {}",
                server.address()
            ))),
            _ => Err(server.refused(&path, &answer)),
        }
    })
}
