//! gRPC's own services, which every listener has beside its own: health checking and
//! reflection.
//!
//! | file | what is in it |
//! |---|---|
//! | `health` | `Check` and `List` |
//! | `watch` | `Watch` |
//! | `reflection` | `ServerReflectionInfo`, in both versions |
//! | `descriptors` | what reflection knows |
//!
//! `Check` and `List` are open to everybody: whoever probes a server has no credential.
//! The others are for known principals, where there is access control.
//!
//! Each call is in a box, so that a gateway's call is as small as it would be without.

mod descriptors;
mod health;
mod reflection;
mod watch;

use std::task::Context;

use tonic::Status;

use self::health::{Check, List};
use self::reflection::Reflection;
use self::watch::Watch;
use super::authorization::Authorization;
use super::exchange::{Cardinality, Exchange};
use super::message::encode;
use crate::health::Health;
use crate::http2::server::Response;
use crate::service::{Progress, Turn};

/// The longest request: a name, or two.
const MAX_REQUEST_BYTES: usize = 4 << 10;

/// Generated messages. Those of reflection are the same in both versions.
mod messages {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated code: its documentation is the .proto files"
    )]

    pub(super) mod health {
        include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
    }
    pub(super) mod reflection {
        include!(concat!(env!("OUT_DIR"), "/grpc.reflection.v1.rs"));
    }
}

/// The services' full names.
pub(super) const SERVICES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

mod path {
    pub(super) const CHECK: &str = "/grpc.health.v1.Health/Check";
    pub(super) const LIST: &str = "/grpc.health.v1.Health/List";
    pub(super) const WATCH: &str = "/grpc.health.v1.Health/Watch";
    pub(super) const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    pub(super) const REFLECTION_ALPHA: &str =
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
}

/// The paths of all methods.
pub(super) const PATHS: [&str; 5] = [
    path::CHECK,
    path::LIST,
    path::WATCH,
    path::REFLECTION,
    path::REFLECTION_ALPHA,
];

/// Whether everybody may call the method at `path`, also while the server stops.
pub(super) fn is_open(path: &str) -> bool {
    matches!(path, path::CHECK | path::LIST)
}

/// gRPC's own services of a listener.
#[derive(Clone, Debug)]
pub(super) struct Standard {
    health: Health,
    /// The listener's own services.
    services: &'static [&'static str],
}

/// A call of one of their methods.
#[derive(Debug)]
pub(crate) enum StandardCall {
    Check(Exchange<Check>),
    List(Exchange<List>),
    Watch(Watch),
    Reflection(Exchange<Reflection>),
}

/// Begins a call of the method at `path`; `None` if there is none. Who calls is known
/// where it matters.
///
/// # Errors
///
/// The status that refuses the call.
pub(super) fn open(
    path: &str,
    mut authorization: Option<Box<Authorization>>,
) -> Result<Option<Box<StandardCall>>, Status> {
    let lasts = matches!(
        path,
        path::WATCH | path::REFLECTION | path::REFLECTION_ALPHA
    );
    if lasts && let Some(authorization) = &mut authorization {
        authorization.open_stream()?;
    }
    let call = match path {
        path::CHECK => StandardCall::Check(Exchange::new(Cardinality::One("Check"), authorization)),
        path::LIST => StandardCall::List(Exchange::new(Cardinality::One("List"), authorization)),
        path::WATCH => StandardCall::Watch(Watch::new(authorization)),
        path::REFLECTION | path::REFLECTION_ALPHA => {
            let cardinality = Cardinality::Many("ServerReflectionInfo");
            StandardCall::Reflection(Exchange::new(cardinality, authorization))
        }
        _ => return Ok(None),
    };
    Ok(Some(Box::new(call)))
}

impl Standard {
    pub(super) fn new(health: Health, services: &'static [&'static str]) -> Self {
        Standard { health, services }
    }

    /// See [`Service::poll`](crate::service::Service::poll).
    pub(super) fn poll(
        &self,
        call: &mut StandardCall,
        turn: Turn<'_>,
        is_stopping: bool,
        cx: &mut Context<'_>,
    ) -> Progress {
        match call {
            // A request that is there is answered also while the server stops: that is what they
            // tell. One that is not would hold it up.
            StandardCall::Check(call) => call.poll(&mut Check(self.clone()), turn, is_stopping, cx),
            StandardCall::List(call) => call.poll(&mut List(self.clone()), turn, is_stopping, cx),
            StandardCall::Watch(call) => call.poll(self, turn, is_stopping, cx),
            StandardCall::Reflection(call) => {
                call.poll(&mut Reflection(self.clone()), turn, is_stopping, cx)
            }
        }
    }

    /// The full names of all services of the listener.
    fn services(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.services.iter().copied().chain(SERVICES)
    }

    /// Whether there is such a service; the server as a whole has the empty name.
    fn has(&self, service: &str) -> bool {
        service.is_empty() || self.services().any(|name| name == service)
    }
}

impl StandardCall {
    /// Ends it by this status, after the responses to requests that were taken. Returns how
    /// many bytes of those were sent.
    pub(super) fn end(
        &mut self,
        standard: &Standard,
        status: Status,
        response: &mut Response<'_>,
    ) -> usize {
        let standard = standard.clone();
        match self {
            StandardCall::Check(call) => call.end(&mut Check(standard), status, response),
            StandardCall::List(call) => call.end(&mut List(standard), status, response),
            StandardCall::Watch(call) => call.end(status, response),
            StandardCall::Reflection(call) => call.end(&mut Reflection(standard), status, response),
        }
    }

    /// How the log calls it.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            StandardCall::Check(call) => call.describe(),
            StandardCall::List(call) => call.describe(),
            StandardCall::Watch(_) => watch::NAME,
            StandardCall::Reflection(call) => call.describe(),
        }
    }
}
