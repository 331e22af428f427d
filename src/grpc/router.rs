//! From a request to its method: one place for what holds for all calls of a listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use tonic::Status;

use super::authorization::{AccessControl, Authorization};
use super::standard::{self, Standard, StandardCall};
use super::status;
use crate::access::Peer;
use crate::health::Health;
use crate::http2::request::RequestHead;
use crate::http2::server::{Limits, Response};
use crate::service::{Abandoned, Caller, EndCause, Progress, Refusal, Service, Stall, Turn};
use crate::spans::Parent;

/// The methods of one listener.
pub(crate) trait Methods {
    /// A call of any of them.
    type Call: std::fmt::Debug;
    /// Response data that is written from where it lies.
    type Data: AsRef<[u8]> + std::fmt::Debug;

    /// What peers may do.
    const LIMITS: Limits;
    /// How long a request may take to arrive in full.
    const REQUEST_TIMEOUT: Duration;
    /// How much memory of its output a connection keeps for the next.
    const KEPT_OUTPUT_BYTES: usize;
    /// The full names of the services that they belong to.
    const SERVICES: &'static [&'static str];
    /// The paths of all methods.
    const PATHS: &[&str];

    /// Begins a call of the method at `path`, with these headers; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The status that refuses the call.
    fn open(
        &mut self,
        path: &str,
        fields: &HeaderMap,
        origin: Origin,
    ) -> Result<Option<Self::Call>, Status>;

    /// The caller's span, of a call with these headers, where it is traced.
    fn parent(&self, fields: &HeaderMap) -> Parent;

    /// A call of the method at `path` was refused before it began.
    fn refused(&mut self, path: &str, peer: Peer, status: &Status);

    /// See [`Service::poll`].
    fn poll(
        &mut self,
        call: &mut Self::Call,
        turn: Turn<'_>,
        is_stopping: bool,
        cx: &mut Context<'_>,
    ) -> Progress;

    /// See [`Service::poll_data`].
    fn poll_data(call: &mut Self::Call, cx: &mut Context<'_>) -> Poll<Option<Self::Data>>;

    /// Ends a call by this status, after the responses to requests that were taken. Returns
    /// how many bytes of those were sent.
    fn end(&mut self, call: &mut Self::Call, status: Status, response: &mut Response<'_>) -> usize;

    /// Why a call has ended, where that stands behind data which is not written.
    fn ended(&self, call: &mut Self::Call) -> Option<Status>;

    /// See [`Service::abandoned`].
    fn abandoned(
        &mut self,
        call: &mut Self::Call,
        why: Abandoned,
        written: Option<(&Self::Data, usize)>,
    );

    /// A call takes nothing, and is ended for that. How much of its last data was written is
    /// not known.
    fn stalled(&mut self, call: &mut Self::Call, stall: Stall);

    /// How the log calls a call.
    fn describe(&self, call: &Self::Call) -> String;
}

/// Where a call comes from.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(super) peer: Peer,
    /// Who calls, where that matters.
    pub(super) authorization: Option<Box<Authorization>>,
    /// The caller's span, where it is traced.
    pub(super) parent: Parent,
}

/// Whether the server is stopping. Cheap to clone: all clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopping(Arc<AtomicBool>);

impl Stopping {
    /// Refuses requests from here on. Drivers have to be woken to see it.
    pub(crate) fn set(&self) {
        // Release: pairs with the Acquire in `is_set`; a driver that registers its waker
        // after the wake-up sees it.
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A call of a listener: of one of its own methods, or of gRPC's.
#[derive(Debug)]
pub(crate) enum Call<C> {
    Own(C),
    Standard(Box<StandardCall>),
}

/// A listener's methods as a [`Service`], and gRPC's own beside them.
#[derive(Debug)]
pub(crate) struct Router<M> {
    methods: M,
    health: Health,
    stopping: Stopping,
    /// `None`: anybody may call.
    access: Option<AccessControl>,
}

impl<M: Methods> Router<M> {
    pub(super) fn new(
        methods: M,
        health: Health,
        stopping: Stopping,
        access: Option<AccessControl>,
    ) -> Self {
        Router {
            methods,
            health,
            stopping,
            access,
        }
    }

    /// Made when it is wanted: a connection is the smaller for it.
    fn standard(&self) -> Standard {
        Standard::new(self.health.clone(), M::SERVICES)
    }

    /// Finds out who calls, and begins the call.
    fn begin(&mut self, request: &RequestHead, caller: &Caller) -> Result<Call<M::Call>, Status> {
        let path = &*request.path;
        let authorization = match &self.access {
            Some(access) if !standard::is_open(path) => {
                Some(access.authorize(caller, &request.fields)?)
            }
            _ => None,
        };
        let call = match M::PATHS.contains(&path) {
            true => {
                let origin = Origin {
                    peer: caller.peer,
                    authorization,
                    parent: self.methods.parent(&request.fields),
                };
                self.methods
                    .open(path, &request.fields, origin)?
                    .map(Call::Own)
            }
            false => {
                let call = standard::open(path, authorization)?;
                call.map(Call::Standard)
            }
        };
        call.ok_or_else(unknown_method::<M>)
    }

    /// What holds for every request, whatever its method and whoever calls.
    fn check(&self, request: &RequestHead) -> Result<(), Refusal> {
        if request.method != "POST" {
            let mut refusal = http_refusal(405);
            let allowed = HeaderValue::from_static("POST");
            refusal.fields.insert(header::ALLOW, allowed);
            return Err(refusal);
        }
        let content_type = request.fields.get(header::CONTENT_TYPE);
        if !content_type.is_some_and(|of| is_grpc(of.as_bytes())) {
            return Err(http_refusal(415));
        }
        let path = &*request.path;
        if !M::PATHS.contains(&path) && !standard::PATHS.contains(&path) {
            return Err(status::refusal(&unknown_method::<M>()));
        }
        Ok(())
    }

    /// What holds for every call of a method.
    fn check_call(&self, request: &RequestHead) -> Result<(), Status> {
        status::refuse_compression(&request.fields)?;
        if self.stopping.is_set() && !standard::is_open(&request.path) {
            return Err(status::stopping());
        }
        Ok(())
    }
}

fn unknown_method<M: Methods>() -> Status {
    let paths = [M::PATHS, &standard::PATHS].concat();
    status::unknown_method("this listener", &paths)
}

/// `application/grpc`, also with a message format or parameters behind it: not what merely
/// begins alike, such as `application/grpc-web`.
fn is_grpc(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// A response for peers that do not speak gRPC.
fn http_refusal(code: u16) -> Refusal {
    Refusal {
        code,
        fields: http::HeaderMap::new(),
    }
}

impl<M: Methods> Service for Router<M> {
    type Call = Call<M::Call>;
    type Data = M::Data;

    const LIMITS: Limits = M::LIMITS;
    const REQUEST_TIMEOUT: Duration = M::REQUEST_TIMEOUT;
    const KEPT_OUTPUT_BYTES: usize = M::KEPT_OUTPUT_BYTES;

    fn open(&mut self, request: &RequestHead, caller: &Caller) -> Result<Self::Call, Refusal> {
        self.check(request)?;
        let begun = self
            .check_call(request)
            .and_then(|()| self.begin(request, caller));
        begun.map_err(|status| {
            self.methods.refused(&request.path, caller.peer, &status);
            status::refusal(&status)
        })
    }

    #[inline]
    fn poll(&mut self, call: &mut Self::Call, turn: Turn<'_>, cx: &mut Context<'_>) -> Progress {
        let is_stopping = self.stopping.is_set();
        match call {
            Call::Own(call) => self.methods.poll(call, turn, is_stopping, cx),
            Call::Standard(call) => self.standard().poll(call, turn, is_stopping, cx),
        }
    }

    #[inline]
    fn poll_data(&mut self, call: &mut Self::Call, cx: &mut Context<'_>) -> Poll<Option<M::Data>> {
        match call {
            Call::Own(call) => M::poll_data(call, cx),
            Call::Standard(_) => Poll::Ready(None),
        }
    }

    fn end(&mut self, call: &mut Self::Call, cause: EndCause, mut response: Response<'_>) -> usize {
        let status = match cause {
            EndCause::RequestTimeout => status::request_timeout(M::REQUEST_TIMEOUT),
            EndCause::TooManyLongRequests => status::too_many_long_requests(),
            EndCause::Stalled(stall) => {
                // What is before it is not taken.
                let ended = match call {
                    Call::Own(call) => self.methods.ended(call),
                    Call::Standard(_) => None,
                };
                let status = ended.unwrap_or_else(|| status::stalled(&stall));
                if let Call::Own(call) = call {
                    self.methods.stalled(call, stall);
                }
                status::end(&mut response, &status);
                return 0;
            }
        };
        match call {
            Call::Own(call) => self.methods.end(call, status, &mut response),
            Call::Standard(call) => call.end(&self.standard(), status, &mut response),
        }
    }

    fn abandoned(
        &mut self,
        call: &mut Self::Call,
        why: Abandoned,
        written: Option<(&M::Data, usize)>,
    ) {
        if let Call::Own(call) = call {
            self.methods.abandoned(call, why, written);
        }
    }

    fn describe(&self, call: &Self::Call) -> String {
        match call {
            Call::Own(call) => self.methods.describe(call),
            Call::Standard(call) => call.describe().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::freshness::Freshness;
    use crate::grpc::method::Never;

    /// Two methods of which nothing is polled here.
    #[derive(Debug)]
    struct TwoMethods;

    impl Methods for TwoMethods {
        type Call = String;
        type Data = Never;

        const LIMITS: Limits = super::super::gateways::LIMITS;
        const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
        const KEPT_OUTPUT_BYTES: usize = 0;
        const SERVICES: &'static [&'static str] = &["a.B"];
        const PATHS: &[&str] = &["/a.B/C", "/a.B/D"];

        fn open(
            &mut self,
            path: &str,
            _fields: &HeaderMap,
            _origin: Origin,
        ) -> Result<Option<String>, Status> {
            Ok(Some(path.to_owned()))
        }

        fn parent(&self, _fields: &HeaderMap) -> Parent {
            Parent::none()
        }

        fn refused(&mut self, _path: &str, _peer: Peer, _status: &Status) {}

        fn poll(
            &mut self,
            _call: &mut String,
            _turn: Turn<'_>,
            _is_stopping: bool,
            _cx: &mut Context<'_>,
        ) -> Progress {
            Progress::default()
        }

        fn poll_data(_call: &mut String, _cx: &mut Context<'_>) -> Poll<Option<Never>> {
            Poll::Ready(None)
        }

        fn end(&mut self, _call: &mut String, _status: Status, _: &mut Response<'_>) -> usize {
            0
        }

        fn ended(&self, _call: &mut String) -> Option<Status> {
            None
        }

        fn abandoned(&mut self, _: &mut String, _: Abandoned, _: Option<(&Never, usize)>) {}

        fn stalled(&mut self, _call: &mut String, _stall: Stall) {}

        fn describe(&self, call: &String) -> String {
            call.clone()
        }
    }

    #[test]
    fn a_request_finds_its_method_or_is_refused() {
        let stopping = Stopping::default();
        let engine = crate::engine::Engine::builder().build().unwrap();
        let health = Health::new(&engine, Freshness::default()).unwrap();
        let mut router = Router::new(TwoMethods, health, stopping.clone(), None);
        let mut open = |change: &dyn Fn(&mut RequestHead)| {
            let mut fields = HeaderMap::new();
            let grpc = HeaderValue::from_static("application/grpc+proto");
            fields.insert(header::CONTENT_TYPE, grpc);
            let mut request = RequestHead {
                method: "POST".into(),
                path: "/a.B/D".into(),
                fields,
            };
            change(&mut request);
            router
                .open(&request, &Peer::Unix { uid: None }.into())
                .map(|call| match call {
                    Call::Own(path) => path,
                    Call::Standard(call) => call.describe().to_owned(),
                })
                .map_err(|refusal| {
                    let status = refusal.fields.get("grpc-status").cloned();
                    (refusal.code, status.map(|s| s.to_str().unwrap().to_owned()))
                })
        };
        let status = |code: &str| Err((200, Some(code.to_owned())));
        assert_eq!(open(&|_| {}), Ok("/a.B/D".to_owned()));
        let check = |r: &mut RequestHead| r.path = "/grpc.health.v1.Health/Check".into();
        assert_eq!(open(&check), Ok("Check".to_owned()));
        assert_eq!(open(&|r| r.method = "GET".into()), Err((405, None)));
        assert_eq!(open(&|r| r.fields.clear()), Err((415, None)));
        for (content_type, is_grpc) in [
            ("application/grpc", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web+proto", false),
            ("application/json", false),
        ] {
            let value = HeaderValue::from_static(content_type);
            let opened = open(&|r| drop(r.fields.insert(header::CONTENT_TYPE, value.clone())));
            assert_eq!(opened.is_ok(), is_grpc, "{content_type}");
        }
        assert_eq!(open(&|r| r.path = "/other".into()), status("12"));
        let gzip = HeaderValue::from_static("gzip");
        let compressed = open(&|r| drop(r.fields.insert("grpc-encoding", gzip.clone())));
        assert_eq!(compressed, status("12"));
        stopping.set();
        assert_eq!(open(&|_| {}), status("14"));
        assert_eq!(open(&check), Ok("Check".to_owned()), "it tells of the stop");
    }

    #[test]
    fn a_gateways_call_is_no_larger_for_grpcs_own() {
        type Subscribe = super::super::gateways::Call;
        assert_eq!(size_of::<Call<Subscribe>>(), size_of::<Subscribe>());
    }
}
