//! The publishers' listener: its methods and its limits.

use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderMap;
use tonic::Status;

use super::authorization::AccessControl;
use super::exchange::{Cardinality, Exchange};
use super::method::{Never, Respond};
use super::publish::{self, Publish};
use super::router::{Methods, Origin, Router, Stopping};
use super::wait_enforced::{self, WaitEnforced};
use crate::access::Peer;
use crate::backbone::Log;
use crate::contract::path;
use crate::engine;
use crate::health::Health;
use crate::http2::server::{Limits, Response};
use crate::service::{Abandoned, Progress, Stall, Turn};
use crate::spans::Parent;
use crate::telemetry::Telemetry;

/// What publishers may do.
const LIMITS: Limits = Limits {
    max_streams: super::MAX_STREAMS as usize,
    max_field_bytes: super::MAX_FIELD_BYTES as usize,
    // What one may send ahead of us on one call: twice what is read at once, so that it sends
    // one half while the other is published. With as much as is read they would take turns.
    stream_window: 512 << 10,
    // All calls of a connection together: the most that may have to be held unread.
    connection_window: 4 << 20,
    // A request that lies in one frame can be published from where it was read.
    max_frame_bytes: 256 << 10,
};

/// What a publisher may call.
#[derive(Debug)]
pub(crate) struct Publishers<L> {
    publish: Publish<L>,
    wait_enforced: WaitEnforced,
}

/// A call of one of the methods.
#[derive(Debug)]
pub(crate) enum Call<L: Log> {
    Publish(Exchange<Publish<L>>),
    WaitEnforced(Box<Exchange<WaitEnforced>>),
}

impl<L: Log> Publishers<L> {
    /// A service for each connection of publishers to `log`, which takes what an engine
    /// with these limits takes: of those that may, where there is access control.
    pub(crate) fn router(
        log: L,
        limits: &engine::Limits,
        telemetry: &Telemetry,
        health: Health,
        stopping: Stopping,
        access: Option<AccessControl>,
    ) -> Router<Self> {
        let methods = Publishers {
            publish: Publish::new(log, limits, telemetry.publishing()),
            wait_enforced: WaitEnforced {
                telemetry: telemetry.clone(),
                stopping: stopping.clone(),
            },
        };
        Router::new(methods, health, stopping, access)
    }

    /// The longest request, in bytes.
    pub(crate) fn max_request_bytes(limits: &engine::Limits) -> usize {
        publish::max_request_bytes(limits)
    }
}

impl<L: Log> Methods for Publishers<L> {
    type Call = Call<L>;
    type Data = Never;

    const LIMITS: Limits = LIMITS;
    const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
    const KEPT_OUTPUT_BYTES: usize = 16 << 10;
    const SERVICES: &'static [&'static str] = &["galaxy.push.publisher.v1.Publisher"];
    const PATHS: &[&str] = &[path::PUBLISH, path::PUBLISH_STREAM, path::WAIT_ENFORCED];

    fn open(
        &mut self,
        path: &str,
        _fields: &HeaderMap,
        origin: Origin,
    ) -> Result<Option<Self::Call>, Status> {
        let mut authorization = origin.authorization;
        let cardinality = match path {
            path::PUBLISH => Cardinality::One("Publish"),
            path::PUBLISH_STREAM => Cardinality::Many("PublishStream"),
            path::WAIT_ENFORCED => {
                if let Some(authorization) = &mut authorization {
                    authorization.open_wait()?;
                }
                let one = Cardinality::One(wait_enforced::NAME);
                let exchange = Exchange::new(one, authorization);
                return Ok(Some(Call::WaitEnforced(Box::new(exchange))));
            }
            _ => return Ok(None),
        };
        if let Some(authorization) = &mut authorization {
            let is_stream = matches!(cardinality, Cardinality::Many(_));
            authorization.open_publishing(is_stream)?;
        }
        let call = Exchange::new(cardinality, authorization);
        Ok(Some(Call::Publish(call.with_parent(origin.parent))))
    }

    fn parent(&self, fields: &HeaderMap) -> Parent {
        self.publish.parent(fields)
    }

    fn refused(&mut self, path: &str, _peer: Peer, status: &Status) {
        if matches!(path, path::PUBLISH | path::PUBLISH_STREAM) {
            self.publish
                .refused(path == path::PUBLISH_STREAM, status.code());
        }
    }

    fn poll(
        &mut self,
        call: &mut Self::Call,
        turn: Turn<'_>,
        is_stopping: bool,
        cx: &mut Context<'_>,
    ) -> Progress {
        match call {
            Call::Publish(call) => call.poll(&mut self.publish, turn, is_stopping, cx),
            Call::WaitEnforced(call) => call.poll(&mut self.wait_enforced, turn, is_stopping, cx),
        }
    }

    fn poll_data(_call: &mut Self::Call, _cx: &mut Context<'_>) -> Poll<Option<Never>> {
        Poll::Ready(None)
    }

    fn end(&mut self, call: &mut Self::Call, status: Status, response: &mut Response<'_>) -> usize {
        match call {
            Call::Publish(call) => call.end(&mut self.publish, status, response),
            Call::WaitEnforced(call) => call.end(&mut self.wait_enforced, status, response),
        }
    }

    fn ended(&self, _call: &mut Self::Call) -> Option<Status> {
        // Responses that were not read are missing before any end of its own.
        None
    }

    fn abandoned(&mut self, _: &mut Self::Call, _: Abandoned, _: Option<(&Never, usize)>) {
        // What was answered counts, and what was not is nobody's.
    }

    fn stalled(&mut self, _call: &mut Self::Call, _stall: Stall) {}

    fn describe(&self, call: &Self::Call) -> String {
        match call {
            Call::Publish(call) => call.describe(),
            Call::WaitEnforced(call) => call.describe(),
        }
        .to_owned()
    }
}
