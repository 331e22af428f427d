//! A call whose requests are answered one by one, in their order.
//!
//! Nothing here knows of sockets, windows or tasks: a call is given what has arrived of its
//! body, and says what it took.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::{Code, Status};

use super::authorization::Authorization;
use super::message::{self, Next};
use super::method::{Calling, Respond, Responded};
use super::status;
use crate::contract::MESSAGE_PREFIX_BYTES;
use crate::http2::server::Response;
use crate::service::{Progress, Turn};
use crate::spans::Parent;

/// With so many bytes of responses left to be sent no further request is taken: a peer
/// that does not read its responses can send no more than its window holds.
const MAX_UNSENT_BYTES: usize = 16 << 10;
/// With so many responses pending no further request is taken.
const MAX_PENDING: usize = 256;

/// How many requests a call has; and its method's name, for statuses and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cardinality {
    /// One, which counts when it is complete.
    One(&'static str),
    /// A stream of them.
    Many(&'static str),
}

/// A call, with the responses that have not come yet.
#[derive(Debug)]
pub(crate) struct Exchange<M: Respond> {
    cardinality: Cardinality,
    /// Responses that are to be sent.
    unsent: Vec<u8>,
    /// Responses in the order of their requests, from the first that has not come.
    pending: VecDeque<Slot<M>>,
    /// How the response ends, after all of these.
    end: Option<Status>,
    /// Who calls, where it matters.
    authorization: Option<Box<Authorization>>,
    /// The caller's span, where it is traced.
    parent: Parent,
}

/// A response's place in the order.
enum Slot<M: Respond> {
    Pending(M::Pending),
    /// It has come, and an earlier one has not.
    Ready(M::Response),
}

impl<M: Respond> std::fmt::Debug for Slot<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Slot::Pending(_) => "Pending",
            Slot::Ready(_) => "Ready",
        })
    }
}

impl<M: Respond> Exchange<M> {
    pub(super) fn new(cardinality: Cardinality, authorization: Option<Box<Authorization>>) -> Self {
        Exchange {
            authorization,
            cardinality,
            unsent: Vec::new(),
            pending: VecDeque::new(),
            end: None,
            parent: Parent::none(),
        }
    }

    /// The same, of a caller that named this span.
    pub(super) fn with_parent(self, parent: Parent) -> Self {
        Exchange { parent, ..self }
    }

    /// How the log calls it.
    pub(super) fn describe(&self) -> &'static str {
        match self.cardinality {
            Cardinality::One(name) | Cardinality::Many(name) => name,
        }
    }

    /// See [`Service::poll`](crate::service::Service::poll).
    pub(super) fn poll(
        &mut self,
        method: &mut M,
        mut turn: Turn<'_>,
        is_stopping: bool,
        cx: &mut Context<'_>,
    ) -> Progress {
        if self.is_stream() && !turn.response.is_begun() {
            turn.response.head(200, &status::response_fields());
        }
        let before = self.unsent.len();
        let mut progress = Progress::default();
        if (self.is_stream() || !self.pending.is_empty())
            && let Some(authorization) = &mut self.authorization
            && let Some(status) = authorization.poll_ended(cx)
        {
            if !self.is_stream() {
                // Nothing but the answer would come.
                self.pending.clear();
            }
            self.end.get_or_insert(status);
        }
        self.poll_pending(method, cx);
        self.take(method, turn.body, turn.is_complete, &mut progress);
        // What was just appended may be decided by now, and wakes us if not.
        self.poll_pending(method, cx);
        if is_stopping && !progress.is_held && self.end.is_none() {
            self.end = Some(status::stopping());
        }
        if self.end.is_some() {
            progress.awaits_request = false;
            progress.missing_bytes = 0;
        }
        progress.queued_bytes = self.unsent.len() - before;
        if !turn.may_defer || self.is_full() {
            progress.sent_bytes = self.send(method, &mut turn.response);
        }
        progress
    }

    /// Takes no more requests, and ends after the responses to those that were taken.
    /// Returns how many bytes of responses were sent.
    pub(super) fn end(
        &mut self,
        method: &mut M,
        status: Status,
        response: &mut Response<'_>,
    ) -> usize {
        self.end.get_or_insert(status);
        self.send(method, response)
    }

    /// Moves the responses that have come to those that are to be sent.
    fn poll_pending(&mut self, method: &mut M, cx: &mut Context<'_>) {
        while let Some(first) = self.pending.front_mut() {
            let response = match first {
                Slot::Pending(pending) => match Pin::new(pending).poll(cx) {
                    Poll::Pending => return,
                    Poll::Ready(response) => response,
                },
                Slot::Ready(_) => match self.pending.pop_front() {
                    Some(Slot::Ready(response)) => {
                        self.unsent.extend_from_slice(response.as_ref());
                        continue;
                    }
                    _ => return,
                },
            };
            self.pending.pop_front();
            match response {
                Ok(response) => {
                    method.accepted(self.is_stream());
                    self.unsent.extend_from_slice(response.as_ref());
                    self.end_if_unary();
                }
                Err(status) => {
                    // What came after it is decided elsewhere, and nobody is told.
                    self.pending.clear();
                    self.end = Some(status);
                }
            }
        }
    }

    fn end_if_unary(&mut self) {
        if !self.is_stream() {
            self.end = Some(Status::new(Code::Ok, ""));
        }
    }

    /// Takes the requests of `body`. The rest of it is to be given again, with what arrives
    /// behind it.
    fn take(&mut self, method: &mut M, body: &[u8], is_complete: bool, progress: &mut Progress) {
        let max_bytes = method.max_request_bytes();
        while self.end.is_none() {
            let rest = &body[progress.consumed_bytes..];
            let next = match self.cardinality {
                // Its only request was taken, and its response has not come.
                Cardinality::One(_) if !self.pending.is_empty() => return,
                Cardinality::One(name) => message::only(rest, is_complete, max_bytes, name),
                Cardinality::Many(_) => message::next(rest, is_complete, max_bytes),
            };
            match next {
                Ok(Next::Message(_)) if self.is_full() => {
                    progress.is_held = true;
                    return;
                }
                Ok(Next::Message(bytes)) => {
                    let end = MESSAGE_PREFIX_BYTES + bytes;
                    let calling = Calling {
                        authorization: self.authorization.as_deref(),
                        is_stream: self.is_stream(),
                        parent: &self.parent,
                    };
                    match method.respond(&rest[MESSAGE_PREFIX_BYTES..end], calling) {
                        Ok(Responded::Now(response)) if self.pending.is_empty() => {
                            method.accepted(self.is_stream());
                            self.unsent.extend_from_slice(response.as_ref());
                            self.end_if_unary();
                        }
                        Ok(Responded::Now(response)) => {
                            method.accepted(self.is_stream());
                            self.pending.push_back(Slot::Ready(response));
                        }
                        Ok(Responded::Later(pending)) => {
                            self.pending.push_back(Slot::Pending(pending));
                        }
                        Err(status) => self.end = Some(status),
                    }
                    progress.consumed_bytes += end;
                    progress.requests += 1;
                }
                // Memory for the rest of it would be held for as long.
                Ok(Next::Part { .. }) if self.is_full() => {
                    progress.is_held = true;
                    return;
                }
                Ok(Next::Part { missing_bytes }) => {
                    progress.awaits_request = true;
                    progress.missing_bytes = missing_bytes;
                    return;
                }
                Ok(Next::Nothing) => {
                    // Between the requests of a stream there is no hurry.
                    progress.awaits_request = !rest.is_empty() || !self.is_stream();
                    return;
                }
                Ok(Next::End) => self.end = Some(Status::new(Code::Ok, "")),
                Err(status) => self.end = Some(status),
            }
        }
    }

    fn is_stream(&self) -> bool {
        matches!(self.cardinality, Cardinality::Many(_))
    }

    fn is_full(&self) -> bool {
        self.unsent.len() >= MAX_UNSENT_BYTES || self.pending.len() >= MAX_PENDING
    }

    /// Sends what the peer's windows allow, and the end after the last response. Returns how
    /// many bytes of responses were sent.
    fn send(&mut self, method: &mut M, response: &mut Response<'_>) -> usize {
        let mut sent_bytes = 0;
        if !self.unsent.is_empty() {
            if !response.is_begun() {
                response.head(200, &status::response_fields());
            }
            sent_bytes = response.send(&self.unsent);
            self.unsent.drain(..sent_bytes);
        }
        if self.unsent.is_empty()
            && self.pending.is_empty()
            && let Some(status) = self.end.take()
        {
            if status.code() != Code::Ok {
                method.refused(self.is_stream(), status.code());
            }
            status::end(response, &status);
        }
        sent_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::sync::oneshot;

    use super::*;
    use crate::http2::frame::{self, FrameHeader, HEADER_BYTES, PREFACE, flag, kind, setting};
    use crate::http2::server::Connection;

    const REQUEST: &[u8] = b"\0\0\0\0\x03one";
    const MAX_BYTES: usize = 1000;

    /// Answers a request with itself: at once, or when it is told to.
    #[derive(Debug, Default)]
    struct Echo {
        taken: usize,
        answers_later: bool,
        undecided: VecDeque<oneshot::Sender<Result<Vec<u8>, Status>>>,
    }

    #[derive(Debug)]
    struct Later(oneshot::Receiver<Result<Vec<u8>, Status>>);

    impl Future for Later {
        type Output = Result<Vec<u8>, Status>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            Pin::new(&mut self.0).poll(cx).map(Result::unwrap)
        }
    }

    impl Respond for Echo {
        type Response = Vec<u8>;
        type Pending = Later;

        fn max_request_bytes(&self) -> usize {
            MAX_BYTES
        }

        fn respond(
            &mut self,
            request: &[u8],
            _call: Calling<'_>,
        ) -> Result<Responded<Vec<u8>, Later>, Status> {
            if request == b"bad" {
                return Err(Status::invalid_argument("bad"));
            }
            self.taken += 1;
            if self.answers_later {
                let (decide, later) = oneshot::channel();
                self.undecided.push_back(decide);
                return Ok(Responded::Later(Later(later)));
            }
            Ok(Responded::Now(REQUEST.to_vec()))
        }
    }

    /// An exchange on a stream whose peer takes `window` bytes.
    struct Harness {
        exchange: Exchange<Echo>,
        echo: Echo,
        http: Connection<()>,
        is_stopping: bool,
        may_defer: bool,
    }

    impl Harness {
        fn new(cardinality: Cardinality, window: u32) -> Self {
            let mut opening = PREFACE.to_vec();
            frame::write_settings(&mut opening, &[(setting::INITIAL_WINDOW_SIZE, window)]);
            frame::write_window_update(&mut opening, 0, 1 << 20);
            let headers = b"\x83\x86\x84";
            frame::write(&mut opening, kind::HEADERS, flag::END_HEADERS, 1, headers);
            let mut http = Connection::new(crate::grpc::gateways::LIMITS);
            let mut input = &opening[..];
            while http.receive(&mut input, Instant::now()).unwrap().is_some() {}
            http.output().clear();
            Harness {
                exchange: Exchange::new(cardinality, None),
                echo: Echo::default(),
                http,
                is_stopping: false,
                may_defer: false,
            }
        }

        fn stream() -> Self {
            Self::new(Cardinality::Many("Stream"), 1 << 20)
        }

        fn poll(&mut self, body: &[u8], is_complete: bool) -> Progress {
            let turn = Turn {
                body,
                is_complete,
                may_defer: self.may_defer,
                response: self.http.parts(0).expect("an open stream").response,
            };
            let mut cx = Context::from_waker(std::task::Waker::noop());
            self.exchange
                .poll(&mut self.echo, turn, self.is_stopping, &mut cx)
        }

        /// The bytes of responses that were sent since the last call, and the status.
        fn sent(&mut self) -> (usize, Option<String>) {
            let output = std::mem::take(self.http.output());
            let (mut bytes, mut status, mut rest) = (0, None, &output[..]);
            while let Some(header) = FrameHeader::read(rest) {
                let (frame, after) = rest.split_at(HEADER_BYTES + header.payload_bytes as usize);
                match header.kind {
                    kind::DATA => bytes += header.payload_bytes as usize,
                    kind::HEADERS => {
                        let text = String::from_utf8_lossy(frame).into_owned();
                        let at = text.find("grpc-status");
                        status = status.or(at.map(|at| text[at + 12..].chars().next()));
                    }
                    _ => {}
                }
                rest = after;
            }
            (bytes, status.flatten().map(String::from))
        }
    }

    fn some(status: &str) -> Option<String> {
        Some(status.to_owned())
    }

    #[test]
    fn a_stream_answers_each_request_and_leaves_what_is_not_whole() {
        let mut harness = Harness::stream();
        let body = [REQUEST, REQUEST, &REQUEST[..7]].concat();
        let progress = harness.poll(&body, false);
        assert_eq!(progress.consumed_bytes, 2 * REQUEST.len());
        assert_eq!((progress.requests, progress.missing_bytes), (2, 1));
        assert!(progress.awaits_request && !progress.is_held);
        assert_eq!(harness.sent(), (2 * REQUEST.len(), None));
        let progress = harness.poll(REQUEST, true);
        assert!((progress.requests, progress.awaits_request) == (1, false));
        assert_eq!(harness.sent(), (REQUEST.len(), some("0")));
    }

    #[test]
    fn responses_wait_for_more_requests_that_are_at_hand() {
        let mut harness = Harness::stream();
        harness.may_defer = true;
        harness.poll(REQUEST, false);
        harness.poll(REQUEST, false);
        assert_eq!(harness.sent(), (0, None));
        harness.poll(&REQUEST.repeat(MAX_UNSENT_BYTES / REQUEST.len()), false);
        assert!(
            harness.sent().0 >= MAX_UNSENT_BYTES,
            "as long as they are few"
        );
        harness.may_defer = false;
        harness.poll(b"", true);
        assert_eq!(harness.sent(), (0, some("0")));
    }

    #[test]
    fn a_bad_request_ends_a_stream_after_the_responses_before_it() {
        for (bad, status) in [
            (&b"\0\0\0\0\x03bad"[..], "3"),
            (b"\0\0\0\x10\0", "3"),
            (b"\x01\0\0\0\0", "1"),
        ] {
            let mut harness = Harness::stream();
            harness.poll(&[REQUEST, bad, REQUEST].concat(), false);
            assert_eq!(harness.sent(), (REQUEST.len(), some(status)), "{bad:?}");
            assert_eq!(harness.echo.taken, 1, "{bad:?}");
        }
    }

    #[test]
    fn a_peer_that_does_not_read_its_responses_has_no_more_requests_taken() {
        let mut harness = Harness::new(Cardinality::Many("Stream"), 0);
        let all = 2 * MAX_UNSENT_BYTES / REQUEST.len();
        let body = REQUEST.repeat(all);
        let progress = harness.poll(&body, true);
        assert!(progress.is_held && !progress.awaits_request);
        assert_eq!(harness.echo.taken, MAX_UNSENT_BYTES.div_ceil(REQUEST.len()));
        assert_eq!(
            harness.sent(),
            (0, None),
            "there is more, though all has arrived"
        );
        let mut more = Vec::new();
        frame::write_window_update(&mut more, 1, 1 << 20);
        let mut input = &more[..];
        assert!(
            harness
                .http
                .receive(&mut input, Instant::now())
                .unwrap()
                .is_none()
        );
        let rest = &body[progress.consumed_bytes..];
        let held = harness.poll(rest, true);
        assert!(held.is_held && held.consumed_bytes == 0 && held.sent_bytes > 0);
        assert!(!harness.poll(rest, true).is_held);
        assert_eq!(harness.echo.taken, all);
        assert_eq!(harness.sent(), (body.len(), some("0")));
    }

    #[test]
    fn a_unary_call_takes_one_request_when_it_is_complete() {
        let unary = || Harness::new(Cardinality::One("Method"), 1 << 20);
        let mut harness = unary();
        for body in [&b""[..], REQUEST] {
            let progress = harness.poll(body, false);
            assert!(progress.awaits_request && progress.consumed_bytes == 0);
        }
        assert_eq!((harness.echo.taken, harness.sent()), (0, (0, None)));
        let progress = harness.poll(REQUEST, true);
        assert_eq!(
            (progress.consumed_bytes, progress.requests),
            (REQUEST.len(), 1)
        );
        assert_eq!(harness.sent(), (REQUEST.len(), some("0")));
        for (body, status) in [
            (&b""[..], "1"),
            (&REQUEST.repeat(2), "1"),
            (&REQUEST[..4], "1"),
            (&REQUEST[..7], "1"),
        ] {
            let mut harness = unary();
            harness.poll(body, true);
            // UNIMPLEMENTED (12) and INTERNAL (13) begin alike.
            assert_eq!(harness.sent(), (0, some(status)), "{body:?}");
            assert_eq!(harness.echo.taken, 0);
        }
    }

    #[test]
    fn pending_responses_are_sent_in_the_order_of_their_requests() {
        let mut harness = Harness::stream();
        harness.echo.answers_later = true;
        harness.poll(&REQUEST.repeat(3), false);
        harness.echo.answers_later = false;
        harness.poll(REQUEST, true);
        assert_eq!((harness.echo.taken, harness.sent()), (4, (0, None)));
        let decide = |n: usize, harness: &mut Harness| {
            let decide = harness.echo.undecided.remove(n).unwrap();
            decide.send(Ok(vec![n as u8; 10])).unwrap();
            harness.poll(b"", true);
            harness.sent()
        };
        assert_eq!(decide(1, &mut harness), (0, None), "the first is missing");
        assert_eq!(decide(0, &mut harness), (20, None));
        // The third, and the fourth, which was decided at once.
        assert_eq!(decide(0, &mut harness), (10 + REQUEST.len(), some("0")));
    }

    #[test]
    fn a_pending_request_that_fails_ends_the_stream_in_its_turn() {
        let mut harness = Harness::stream();
        harness.echo.answers_later = true;
        harness.poll(&REQUEST.repeat(3), false);
        let undecided = &mut harness.echo.undecided;
        let (first, second) = (
            undecided.pop_front().unwrap(),
            undecided.pop_front().unwrap(),
        );
        second.send(Err(Status::unavailable("gone"))).unwrap();
        harness.poll(b"", false);
        assert_eq!(harness.sent(), (0, None));
        first.send(Ok(vec![0; 10])).unwrap();
        harness.poll(b"", false);
        assert_eq!(harness.sent(), (10, some("1"))); // 14
    }

    #[test]
    fn with_many_responses_pending_no_more_requests_are_taken() {
        let mut harness = Harness::stream();
        harness.echo.answers_later = true;
        let progress = harness.poll(&REQUEST.repeat(2 * MAX_PENDING), false);
        assert!(progress.is_held);
        assert_eq!(harness.echo.taken, MAX_PENDING);
    }

    #[test]
    fn a_unary_call_waits_for_its_pending_response() {
        let mut harness = Harness::new(Cardinality::One("Method"), 1 << 20);
        harness.echo.answers_later = true;
        assert_eq!(harness.poll(REQUEST, true).consumed_bytes, REQUEST.len());
        harness.poll(b"", true);
        assert_eq!(harness.sent(), (0, None), "its request is not missing");
        let decide = harness.echo.undecided.pop_front().unwrap();
        decide.send(Ok(vec![0; 10])).unwrap();
        harness.poll(b"", true);
        assert_eq!(harness.sent(), (10, some("0")));
    }

    #[test]
    fn a_stop_ends_a_stream_between_requests() {
        let mut harness = Harness::stream();
        harness.is_stopping = true;
        harness.poll(&[REQUEST, &REQUEST[..7]].concat(), false);
        assert_eq!(harness.sent(), (REQUEST.len(), some("1"))); // 14
    }
}
