//! The gateways' listener: its methods and its limits.

use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderMap;
use tonic::Status;

use super::authorization::AccessControl;
use super::exchange::{Cardinality, Exchange};
use super::method::Stream;
use super::report::{self, Report};
use super::router::{Methods, Origin, Router, Stopping};
use super::streaming::StreamCall;
use super::subscribe::{self, Frames, MAX_REQUEST_BYTES, Subscribe, Subscription};
use crate::access::Peer;
use crate::contract::path;
use crate::health::Health;
use crate::http2::frame::{DEFAULT_FRAME_BYTES, INITIAL_WINDOW};
use crate::http2::server::{Limits, Response};
use crate::service::{Abandoned, Progress, Stall, Turn};
use crate::spans::Parent;
use crate::telemetry::Telemetry;

/// What gateways may do.
pub(super) const LIMITS: Limits = Limits {
    max_streams: super::MAX_STREAMS as usize,
    max_field_bytes: super::MAX_FIELD_BYTES as usize,
    stream_window: INITIAL_WINDOW,
    // Half a request on every stream must not fill it.
    connection_window: super::MAX_STREAMS * (MAX_REQUEST_BYTES as u32 + 64) + INITIAL_WINDOW,
    max_frame_bytes: DEFAULT_FRAME_BYTES,
};

/// What a gateway may call.
#[derive(Debug)]
pub(crate) struct Gateways {
    subscribe: Subscribe,
    report: Report,
}

impl Gateways {
    /// A service for each connection of gateways to the engine of this telemetry: of those
    /// that may, where there is access control.
    pub(crate) fn router(
        telemetry: Telemetry,
        health: Health,
        stopping: Stopping,
        access: Option<AccessControl>,
    ) -> Router<Self> {
        let report = Report::new(telemetry.clone());
        let subscribe = Subscribe::new(telemetry);
        Router::new(Gateways { subscribe, report }, health, stopping, access)
    }
}

/// A call of one of the methods.
#[derive(Debug)]
pub(crate) enum Call {
    Subscribe(StreamCall<Subscription, subscribe::Options>),
    // In a box, so that a subscription is no larger for it.
    Report(Box<Exchange<Report>>),
}

impl Methods for Gateways {
    type Call = Call;
    type Data = Frames;

    const LIMITS: Limits = LIMITS;
    const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
    // Most connections answer once.
    const KEPT_OUTPUT_BYTES: usize = 0;
    const SERVICES: &'static [&'static str] = &[
        "galaxy.backend.push.v1.Push",
        "galaxy.push.gateway.v1.Gateway",
    ];
    const PATHS: &[&str] = &[path::SUBSCRIBE_PUSH, path::REPORT];

    fn open(
        &mut self,
        path: &str,
        fields: &HeaderMap,
        origin: Origin,
    ) -> Result<Option<Call>, Status> {
        Ok(match path {
            path::SUBSCRIBE_PUSH => {
                let options = subscribe::Options::read(fields)?;
                Some(Call::Subscribe(StreamCall::Request(origin, options)))
            }
            path::REPORT => {
                let one = Cardinality::One(report::NAME);
                let exchange = Exchange::new(one, origin.authorization);
                Some(Call::Report(Box::new(exchange)))
            }
            _ => None,
        })
    }

    fn parent(&self, fields: &HeaderMap) -> Parent {
        self.subscribe.parent(fields)
    }

    fn refused(&mut self, path: &str, peer: Peer, status: &Status) {
        match path {
            path::SUBSCRIBE_PUSH => self.subscribe.refused(peer, status),
            path::REPORT => self.report.refused(status),
            _ => {}
        }
    }

    fn poll(
        &mut self,
        call: &mut Call,
        turn: Turn<'_>,
        is_stopping: bool,
        cx: &mut Context<'_>,
    ) -> Progress {
        match call {
            Call::Subscribe(call) => call.poll(&mut self.subscribe, turn, is_stopping, cx),
            Call::Report(call) => call.poll(&mut self.report, turn, is_stopping, cx),
        }
    }

    #[inline]
    fn poll_data(call: &mut Call, cx: &mut Context<'_>) -> Poll<Option<Frames>> {
        match call {
            Call::Subscribe(call) => call.poll_data::<Subscribe>(cx),
            Call::Report(_) => Poll::Ready(None),
        }
    }

    fn end(&mut self, call: &mut Call, status: Status, response: &mut Response<'_>) -> usize {
        match call {
            Call::Subscribe(call) => call.end(&mut self.subscribe, &status, response),
            Call::Report(call) => return call.end(&mut self.report, status, response),
        }
        0
    }

    fn ended(&self, call: &mut Call) -> Option<Status> {
        match call {
            Call::Subscribe(call) => call.ended::<Subscribe>(),
            Call::Report(_) => None,
        }
    }

    fn abandoned(&mut self, call: &mut Call, why: Abandoned, written: Option<(&Frames, usize)>) {
        match call {
            Call::Subscribe(call) => call.abandoned::<Subscribe>(why, written),
            Call::Report(_) => {}
        }
    }

    fn stalled(&mut self, call: &mut Call, stall: Stall) {
        match call {
            Call::Subscribe(call) => call.stalled::<Subscribe>(stall),
            Call::Report(_) => {}
        }
    }

    fn describe(&self, call: &Call) -> String {
        match call {
            Call::Subscribe(StreamCall::Response(subscription)) => {
                format!("gateway {:?}", subscription.gateway_id())
            }
            Call::Subscribe(_) => Subscribe::NAME.to_owned(),
            Call::Report(call) => call.describe().to_owned(),
        }
    }
}
