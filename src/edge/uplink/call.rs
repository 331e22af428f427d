//! One call of a producer: requests out of its body, answers for its response.
//!
//! Nothing here knows of sockets, windows or tasks: a call is given what has arrived of
//! its body, and says what it took.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};

use super::door::{self, Door};
use crate::edge::grpc::{self, PREFIX_BYTES};

/// How long a request may take to arrive: of a stream from its first bytes to its last,
/// and otherwise from its headers on.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// With so many answers left to be sent no further request is taken: a producer that does
/// not take its answers can send no more than its window holds.
const MAX_ANSWER_BYTES: usize = 16 << 10;

/// The methods of `galaxy.push.publisher.v1.Publisher`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// One request, one answer.
    Publish,
    /// Answers to requests, in their order.
    PublishStream,
}

impl Method {
    const PUBLISH: &str = "/galaxy.push.publisher.v1.Publisher/Publish";
    const PUBLISH_STREAM: &str = "/galaxy.push.publisher.v1.Publisher/PublishStream";
    /// The paths of all of them.
    pub(super) const PATHS: [&str; 2] = [Self::PUBLISH, Self::PUBLISH_STREAM];

    /// The method at one of the [paths](Self::PATHS).
    pub(super) fn at(path: &str) -> Self {
        if path == Self::PUBLISH {
            Method::Publish
        } else {
            Method::PublishStream
        }
    }
}

/// What a call has come to.
#[derive(Debug)]
pub(super) struct Call {
    method: Method,
    /// Answers that are to be sent.
    pub(super) answers: Vec<u8>,
    /// How the response ends, after the answers.
    pub(super) end: Option<Status>,
    /// Since when there is a request that has not arrived in full.
    begun: Option<Instant>,
}

/// What a call has done with what has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// So many bytes of the body are done with.
    pub(super) bytes: usize,
    /// So many requests were answered.
    pub(super) requests: u32,
    /// How much is still to come of the request that the rest of the body begins.
    pub(super) missing_bytes: usize,
    /// Whether there are further requests, which wait until answers have been sent.
    pub(super) held: bool,
}

/// What a body begins with.
enum Next {
    /// A request of so many bytes, behind its prefix.
    Request(usize),
    /// A part of one, of which so much is to come.
    Part { missing_bytes: usize },
    /// Nothing, or the beginning of a prefix.
    Nothing,
    /// What ends the call.
    End(Status),
}

impl Call {
    pub(super) fn new(method: Method, now: Instant) -> Self {
        Call {
            method,
            answers: Vec::new(),
            end: None,
            begun: (method == Method::Publish).then_some(now),
        }
    }

    /// Publishes the requests of `body`, and answers them. Afterwards, the rest of the
    /// body is to be given again, with what arrives behind it; `is_received` says that
    /// nothing will.
    pub(super) fn take(
        &mut self,
        body: &[u8],
        is_received: bool,
        door: &mut Door,
        max_request_bytes: usize,
        now: Instant,
    ) -> Taken {
        let mut taken = Taken::default();
        while self.end.is_none() {
            let rest = &body[taken.bytes..];
            let next = match self.method {
                Method::Publish => only(rest, is_received, max_request_bytes),
                Method::PublishStream => next(rest, is_received, max_request_bytes),
            };
            match next {
                Next::Request(_) if self.answers.len() >= MAX_ANSWER_BYTES => {
                    self.begun = None;
                    taken.held = true;
                    break;
                }
                Next::Request(bytes) => {
                    let end = PREFIX_BYTES + bytes;
                    match door.publish(&rest[PREFIX_BYTES..end]) {
                        Ok(published) => {
                            self.answers.extend_from_slice(&door::answer(published));
                            if self.method == Method::Publish {
                                self.end = Some(Status::new(Code::Ok, ""));
                            }
                        }
                        Err(status) => self.end = Some(status),
                    }
                    self.begun = None;
                    taken.bytes += end;
                    taken.requests += 1;
                }
                Next::Part { missing_bytes } => {
                    self.begun.get_or_insert(now);
                    taken.missing_bytes = missing_bytes;
                    break;
                }
                Next::Nothing => {
                    if !rest.is_empty() {
                        self.begun.get_or_insert(now);
                    }
                    break;
                }
                Next::End(status) => self.end = Some(status),
            }
        }
        taken
    }

    /// When it will have waited too long for the rest of a request.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.begun
            .filter(|_| self.end.is_none())
            .map(|begun| begun + REQUEST_TIMEOUT)
    }

    /// Lets `time` go by, until `now`, in which nothing was read from the producer.
    pub(super) fn wait(&mut self, time: Duration, now: Instant) {
        if let Some(begun) = &mut self.begun {
            *begun = now.min(*begun + time);
        }
    }

    /// Ends it if the deadline has passed.
    pub(super) fn look_at_clock(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.end = Some(Status::deadline_exceeded(format!(
                "the request did not arrive within {REQUEST_TIMEOUT:?}"
            )));
        }
    }
}

/// What a stream of requests goes on with.
fn next(body: &[u8], is_received: bool, max_request_bytes: usize) -> Next {
    let length = match grpc::message_bytes(body) {
        Ok(length) => length,
        Err(status) => return Next::End(status),
    };
    let missing_bytes = match length {
        Some(length) if length > max_request_bytes => {
            return Next::End(grpc::too_long(length, max_request_bytes));
        }
        Some(length) => match (PREFIX_BYTES + length).checked_sub(body.len()) {
            None | Some(0) => return Next::Request(length),
            Some(missing_bytes) => missing_bytes,
        },
        None => 0,
    };
    match (is_received, body.len()) {
        (true, 0) => Next::End(Status::new(Code::Ok, "")),
        (true, have) => Next::End(grpc::cut_short(have, length)),
        (false, _) if missing_bytes > 0 => Next::Part { missing_bytes },
        (false, _) => Next::Nothing,
    }
}

/// The same where the body is to be one request.
fn only(body: &[u8], is_received: bool, max_request_bytes: usize) -> Next {
    let not_one = |found| Status::unimplemented(format!("Publish takes one request, {found}"));
    match next(body, is_received, max_request_bytes) {
        Next::Request(bytes) if body.len() > PREFIX_BYTES + bytes => {
            Next::End(not_one("several were sent"))
        }
        Next::Request(_) if !is_received => Next::Nothing,
        Next::End(_) if is_received && body.is_empty() => Next::End(not_one("none was sent")),
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;

    /// `PublishRequest { events: [PushEvent { client_event: { user_id: "u", kind: "k" } }] }`
    const REQUEST: &[u8] = b"\0\0\0\0\x0a\x0a\x08\x0a\x06\x0a\x01u\x1a\x01k";
    const MAX_BYTES: usize = 1000;

    /// A call, and what it publishes to.
    struct Desk {
        engine: Engine,
        door: Door,
        call: Call,
        now: Instant,
    }

    impl Desk {
        fn new(method: Method) -> Self {
            let engine = Engine::builder().build().unwrap();
            let door = Door::new(&engine);
            let now = Instant::now();
            Desk {
                engine,
                door,
                call: Call::new(method, now),
                now,
            }
        }

        fn take(&mut self, body: &[u8], is_received: bool) -> Taken {
            self.call
                .take(body, is_received, &mut self.door, MAX_BYTES, self.now)
        }

        fn published(&self) -> u64 {
            self.engine.head().seq().number()
        }

        fn answered(&self) -> usize {
            self.call.answers.len() / door::ANSWER_BYTES
        }

        fn end(&self) -> Option<Code> {
            self.call.end.as_ref().map(Status::code)
        }
    }

    #[test]
    fn a_stream_answers_each_request_and_leaves_what_is_not_whole() {
        let mut desk = Desk::new(Method::PublishStream);
        let body = [REQUEST, REQUEST, &REQUEST[..7]].concat();
        let taken = desk.take(&body, false);
        let wanted = Taken {
            bytes: 2 * REQUEST.len(),
            requests: 2,
            missing_bytes: REQUEST.len() - 7,
            held: false,
        };
        assert_eq!(taken, wanted);
        assert_eq!((desk.published(), desk.answered()), (2, 2));
        assert_eq!(desk.end(), None);
        let taken = desk.take(REQUEST, true);
        assert_eq!((taken.requests, desk.published()), (1, 3));
        assert_eq!(desk.end(), Some(Code::Ok));
    }

    #[test]
    fn a_bad_request_ends_a_stream_after_the_answers_before_it() {
        for (bad, code) in [
            (&b"\0\0\0\0\0"[..], Code::InvalidArgument),
            (b"\0\0\0\x10\0", Code::InvalidArgument),
            (b"\x01\0\0\0\0", Code::Internal),
        ] {
            let mut desk = Desk::new(Method::PublishStream);
            desk.take(&[REQUEST, bad, REQUEST].concat(), false);
            assert_eq!(desk.end(), Some(code), "{bad:?}");
            assert_eq!((desk.published(), desk.answered()), (1, 1), "{bad:?}");
        }
        for cut in [1, 5, REQUEST.len() - 1] {
            let mut desk = Desk::new(Method::PublishStream);
            desk.take(&[REQUEST, &REQUEST[..cut]].concat(), true);
            assert_eq!(desk.end(), Some(Code::Internal), "{cut}");
            assert_eq!(desk.published(), 1);
        }
    }

    #[test]
    fn whose_answers_stay_has_no_more_requests_taken() {
        let mut desk = Desk::new(Method::PublishStream);
        let all = 2 * MAX_ANSWER_BYTES / door::ANSWER_BYTES;
        let body = REQUEST.repeat(all);
        let taken = desk.take(&body, true);
        assert!(taken.held);
        assert_eq!(
            desk.call.deadline(),
            None,
            "it is not the producer who is late"
        );
        assert_eq!(
            desk.answered(),
            MAX_ANSWER_BYTES.div_ceil(door::ANSWER_BYTES)
        );
        assert_eq!(desk.end(), None, "there is more, though all has arrived");
        desk.call.answers.clear();
        let taken = desk.take(&body[taken.bytes..], true);
        assert!(!taken.held);
        assert_eq!((desk.published(), desk.end()), (all as u64, Some(Code::Ok)));
    }

    #[test]
    fn publish_takes_one_request_when_it_has_arrived_in_full() {
        let mut desk = Desk::new(Method::Publish);
        assert_eq!(desk.take(b"", false), Taken::default());
        assert_eq!(desk.take(REQUEST, false), Taken::default());
        assert_eq!(desk.published(), 0);
        let taken = desk.take(REQUEST, true);
        assert_eq!((taken.bytes, taken.requests), (REQUEST.len(), 1));
        assert_eq!((desk.published(), desk.answered()), (1, 1));
        assert_eq!(desk.end(), Some(Code::Ok));
        for (body, code) in [
            (&b""[..], Code::Unimplemented),
            (&REQUEST.repeat(2), Code::Unimplemented),
            (&REQUEST[..4], Code::Internal),
            (&REQUEST[..8], Code::Internal),
        ] {
            let mut desk = Desk::new(Method::Publish);
            desk.take(body, true);
            assert_eq!((desk.end(), desk.published()), (Some(code), 0), "{body:?}");
        }
    }

    #[test]
    fn a_request_that_has_begun_must_arrive_in_time() {
        let mut desk = Desk::new(Method::PublishStream);
        let begun = desk.now;
        desk.take(REQUEST, false);
        assert_eq!(
            desk.call.deadline(),
            None,
            "between requests there is no hurry"
        );
        for have in [1, 5, 8] {
            desk.take(&REQUEST[..have], false);
            assert_eq!(desk.call.deadline(), Some(begun + REQUEST_TIMEOUT));
            desk.now += Duration::from_secs(1);
        }
        desk.take(REQUEST, false);
        assert_eq!(desk.call.deadline(), None);

        let mut desk = Desk::new(Method::Publish);
        desk.take(b"", false);
        desk.call.look_at_clock(desk.now + REQUEST_TIMEOUT / 2);
        assert_eq!(desk.end(), None);
        let unread = Duration::from_secs(7);
        desk.call.wait(unread, desk.now + REQUEST_TIMEOUT / 2);
        desk.call.look_at_clock(desk.now + REQUEST_TIMEOUT);
        assert_eq!(desk.end(), None, "for a while it was not read from");
        desk.call.look_at_clock(desk.now + REQUEST_TIMEOUT + unread);
        assert_eq!(desk.end(), Some(Code::DeadlineExceeded));
    }
}
