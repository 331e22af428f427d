//! A running server, asked over HTTP at its admin listener.

use std::fmt;
use std::future::{Future, poll_fn};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tonic::body::Body;
use tower::Service as _;

use crate::admin::api;
use crate::client::Connector;
use crate::command::{ConnectArgs, Failure, connect_failure};
use crate::config::{Address, Config};

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The most that is read of an answer: a thousand gateways with the longest ids fit.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// What stays as it is in a query's value or a path's segment (RFC 3986, unreserved).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Which server to ask, and how.
#[derive(Debug, clap::Args)]
pub(super) struct AdminArgs {
    /// The server's admin listener, as its --admin-listen.
    #[arg(long, default_value_t = admin_listen())]
    connect: Address,

    #[command(flatten)]
    how: ConnectArgs,
}

fn admin_listen() -> Address {
    let default = Config::default().admin_listen;
    default.unwrap_or_else(|| Address::Tcp("127.0.0.1:50053".to_owned()))
}

impl AdminArgs {
    /// Has `ask` done with the server, on a runtime of its own.
    pub(super) fn run<F>(&self, ask: impl FnOnce(Admin) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let connector = self.how.connector(&self.connect)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
        runtime.block_on(ask(Admin { connector }))
    }
}

/// A server's admin listener. Each request has a connection of its own.
#[derive(Debug)]
pub(super) struct Admin {
    connector: Connector,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

impl Admin {
    /// What this path holds.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let answer = self.request(Method::GET, path).await?;
        if !answer.status.is_success() {
            return Err(self.refused(path, &answer));
        }
        serde_json::from_slice(&answer.body).map_err(|error| {
            Failure::failed(format!(
                "{} answers {path} with something else than was asked for: {error}",
                self.address()
            ))
        })
    }

    /// Sends a request without a body.
    pub(super) async fn request(&self, method: Method, path: &str) -> Result<Answer, Failure> {
        let silent = || {
            Failure::failed(format!(
                "{} does not answer within {LIMIT:?}",
                self.address()
            ))
        };
        let asked = timeout(LIMIT, self.ask(method, path)).await;
        asked.map_err(|_| silent())?
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Answer, Failure> {
        let connected = self.connector.connect().await;
        let mut connection = connected.map_err(|error| connect_failure(&error))?;
        let failed = |error: &dyn fmt::Display| {
            Failure::failed(format!("{} does not answer: {error}", self.address()))
        };
        // The connection adds scheme and authority.
        let request = Request::builder().method(method).uri(path);
        let request = request
            .body(Body::empty())
            .map_err(|error| failed(&error))?;
        let ready = poll_fn(|cx| connection.poll_ready(cx)).await;
        ready.map_err(|error| failed(&error))?;
        let response = connection.call(request).await;
        let (head, body) = response.map_err(|error| failed(&error))?.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| failed(&error))?.to_bytes();
        Ok(Answer {
            status: head.status,
            body: body.into(),
        })
    }

    /// Why there is no such answer, in words.
    pub(super) fn refused(&self, path: &str, answer: &Answer) -> Failure {
        let why = match serde_json::from_slice::<api::Error>(&answer.body) {
            Ok(error) => error.message,
            Err(_) => answer.status.to_string(),
        };
        Failure::failed(format!("{} refuses {path}: {why}", self.address()))
    }

    pub(super) fn address(&self) -> &Address {
        self.connector.address()
    }
}

/// A text as a path's segment, or as a query's value.
pub(super) fn encoded(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, UNRESERVED)
}
