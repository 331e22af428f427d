//! `galaxy-push health`: asks a running server whether it is well.

use std::future::poll_fn;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use tokio::time::timeout;
use tonic::body::Body;
use tower::Service as _;

use crate::client::{Connection, Connector};
use crate::command::{ConnectArgs, Failure, connect_failure};
use crate::config::{Address, Config};

/// How long everything together may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The most that is read of an answer.
const MAX_ANSWER_BYTES: usize = 64 << 10;

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
    /// The server's admin listener, as its --admin-listen.
    #[arg(long, default_value_t = admin_listen())]
    connect: Address,

    /// Ask whether it lives (`/livez`): whether anything is wrong with it that a restart
    /// would mend. A server that is stopping lives, and is not ready.
    #[arg(long)]
    live: bool,

    #[command(flatten)]
    how: ConnectArgs,
}

fn admin_listen() -> Address {
    let default = Config::default().admin_listen;
    default.unwrap_or_else(|| Address::Tcp("127.0.0.1:50053".to_owned()))
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let connector = args.how.connector(&args.connect)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        match timeout(LIMIT, ask(&connector, args.live)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::failed(format!(
                "{} does not answer within {LIMIT:?}",
                args.connect
            ))),
        }
    })
}

async fn ask(connector: &Connector, live: bool) -> Result<(), Failure> {
    let address = connector.address();
    let connection = connector.connect().await;
    let connection = connection.map_err(|error| connect_failure(&error))?;
    let (path, state) = if live {
        ("/livez", "alive")
    } else {
        ("/readyz", "ready")
    };
    let (status, text) = get(connection, path)
        .await
        .map_err(|error| Failure::failed(format!("{address} does not answer: {error}")))?;
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::SERVICE_UNAVAILABLE => {
            let failing = text.trim().replace('\n', "; ");
            Err(Failure::failed(format!(
                "{address} is not {state}: {failing}"
            )))
        }
        _ => Err(Failure::failed(format!(
            "{address} answers {path} with {status}: it is no admin listener of galaxy-push"
        ))),
    }
}

/// The status and the text of the answer.
async fn get(
    mut connection: Connection,
    path: &str,
) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    // The connection adds scheme and authority.
    let request = Request::get(path).body(Body::empty())?;
    poll_fn(|cx| connection.poll_ready(cx)).await?;
    let response = connection.call(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    let bytes = body.collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}
