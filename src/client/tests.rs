//! A gateway against a server that plays a script, one act a subscription.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use prost::Message as _;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::*;
use crate::config::Address;
use crate::contract::details::{DOMAIN, Details};
use crate::contract::gateway_id::GatewayIdError;
use crate::contract::push::push_event::Kind;
use crate::contract::push::push_server::{Push, PushServer};
use crate::contract::push::{ClientEvent, GatewaySubscribeRequest, PushEvent, SessionInvalidation};
use crate::cursor::{Cursor, Epoch, Seq};

/// What the server does with one subscription.
enum Act {
    Refuse(Status),
    Stream(Vec<(&'static str, String)>, Vec<PushEvent>, End),
}

/// How a stream ends after its events.
enum End {
    Open,
    Ok,
    With(Status),
    After(Duration, Status),
}

fn at(seq: u64) -> Cursor {
    at_epoch(1_700_000_000_000, seq)
}

fn at_epoch(millis: u64, seq: u64) -> Cursor {
    Cursor::new(Epoch::new(millis, 0).unwrap(), Seq::new(seq))
}

fn event(cursor: Cursor) -> PushEvent {
    event_of(cursor.to_string(), 1)
}

fn event_of(cursor: String, payload_bytes: usize) -> PushEvent {
    PushEvent {
        kind: Some(Kind::ClientEvent(ClientEvent {
            user_id: "u".to_owned(),
            kind: "turn.ready".to_owned(),
            payload: vec![b'x'; payload_bytes].into(),
            ..ClientEvent::default()
        })),
        cursor,
    }
}

fn metadata(resume: &str, reason: &str, start: Cursor) -> Vec<(&'static str, String)> {
    vec![
        ("push-resume", resume.to_owned()),
        ("push-resume-reason", reason.to_owned()),
        ("push-start-cursor", start.to_string()),
    ]
}

/// A stream that starts at `start` and brings the next `count` events.
fn stream(resume: &str, reason: &str, start: Cursor, count: u64, end: End) -> Act {
    let events = (1..=count)
        .map(|n| {
            event(Cursor::new(
                start.epoch(),
                Seq::new(start.seq().number() + n),
            ))
        })
        .collect();
    Act::Stream(metadata(resume, reason, start), events, end)
}

fn with_missed(act: Act, missed: &str) -> Act {
    let Act::Stream(mut metadata, events, end) = act else {
        panic!("only a stream has metadata");
    };
    metadata.push(("push-missed", missed.to_owned()));
    Act::Stream(metadata, events, end)
}

fn lagged(missed: &str) -> Status {
    let mut trailers = MetadataMap::new();
    trailers.insert("push-missed", missed.parse().unwrap());
    Status::with_metadata(tonic::Code::OutOfRange, "lagged", trailers)
}

/// The server: its script, and the subscriptions that it saw.
#[derive(Clone)]
struct Theatre {
    script: Arc<Mutex<VecDeque<Act>>>,
    requests: Arc<Mutex<Vec<GatewaySubscribeRequest>>>,
    /// `push-heartbeat` of each.
    heartbeats: Arc<Mutex<Vec<Option<String>>>>,
}

#[tonic::async_trait]
impl Push for Theatre {
    type SubscribePushStream = Pin<Box<dyn Stream<Item = Result<PushEvent, Status>> + Send>>;

    async fn subscribe_push(
        &self,
        request: Request<GatewaySubscribeRequest>,
    ) -> Result<Response<Self::SubscribePushStream>, Status> {
        let heartbeat = request.metadata().get("push-heartbeat");
        let heartbeat = heartbeat.map(|value| value.to_str().unwrap().to_owned());
        self.heartbeats.lock().unwrap().push(heartbeat);
        self.requests.lock().unwrap().push(request.into_inner());
        let act = self.script.lock().unwrap().pop_front();
        match act {
            None => Err(Status::unimplemented("the script is over")),
            Some(Act::Refuse(status)) => Err(status),
            Some(Act::Stream(metadata, events, end)) => {
                let events = tokio_stream::iter(events.into_iter().map(Ok));
                let stream: Self::SubscribePushStream = match end {
                    End::Open => Box::pin(events.chain(tokio_stream::pending())),
                    End::Ok => Box::pin(events),
                    End::After(wait, status) => {
                        let end = async move {
                            tokio::time::sleep(wait).await;
                            Err(status)
                        };
                        Box::pin(events.chain(stream_of(end)))
                    }
                    End::With(status) => Box::pin(events.chain(tokio_stream::once(Err(status)))),
                };
                let mut response = Response::new(stream);
                for (key, value) in metadata {
                    response.metadata_mut().insert(key, value.parse().unwrap());
                }
                Ok(response)
            }
        }
    }
}

/// A stream of what this comes to.
fn stream_of<T>(future: impl Future<Output = T>) -> impl Stream<Item = T> {
    let mut future = Box::pin(future);
    let mut is_over = false;
    futures_util::stream::poll_fn(move |cx| {
        if is_over {
            return Poll::Ready(None);
        }
        future.as_mut().poll(cx).map(|item| {
            is_over = true;
            Some(item)
        })
    })
}

impl Theatre {
    fn new(script: impl IntoIterator<Item = Act>) -> Self {
        Theatre {
            script: Arc::new(Mutex::new(script.into_iter().collect())),
            requests: Arc::default(),
            heartbeats: Arc::default(),
        }
    }

    /// Plays on a port of its own, and returns the address.
    async fn open(&self) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        let service = PushServer::new(self.clone());
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpIncoming::from(listener)),
        );
        address
    }

    fn requested_cursors(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|r| r.cursor.clone()).collect()
    }
}

fn builder(address: Address) -> Builder {
    let millisecond = Duration::from_millis(1);
    Gateway::builder("g1", address).backoff(Backoff::new(millisecond, millisecond))
}

/// A gateway before a server that plays `script`.
async fn play(cursor: Option<Cursor>, script: impl IntoIterator<Item = Act>) -> (Gateway, Theatre) {
    let theatre = Theatre::new(script);
    let address = theatre.open().await;
    (builder(address).cursor(cursor).build().unwrap(), theatre)
}

/// Everything up to the end, as short words, each event processed when it comes.
async fn told(gateway: &mut Gateway) -> (Vec<String>, Stopped) {
    let mut told = Vec::new();
    loop {
        match gateway.next().await {
            Ok(Item::Event { cursor, .. }) => {
                gateway.processed(cursor);
                told.push(cursor.seq().to_string());
            }
            Ok(Item::Gap(gap)) => told.push(format!("gap {:?} {}", gap.missed, gap.reason)),
            Ok(Item::Connected(start)) => {
                told.push(format!("{:?} {}", start.resume, start.cursor.seq()));
            }
            Ok(Item::Replayed { cursor }) => {
                gateway.processed(cursor);
                told.push(format!("replayed {}", cursor.seq()));
            }
            Ok(Item::Disconnected { cause, .. }) => told.push(match cause {
                Disconnect::Lagged { missed, .. } => format!("lagged {missed:?}"),
                Disconnect::Violation(violation) => violation.to_string(),
                Disconnect::Status(status) => format!("{:?}", status.code()),
                other => other.to_string(),
            }),
            Err(stopped) => return (told, stopped),
        }
    }
}

fn unavailable() -> Status {
    Status::unavailable("stopping")
}

#[tokio::test]
async fn resumes_after_the_last_processed_event() {
    let (mut gateway, theatre) = play(
        None,
        [
            stream("fresh", "no-cursor", at(5), 2, End::With(unavailable())),
            stream("resumed", "requested", at(7), 1, End::Ok),
        ],
    )
    .await;
    let (told, _) = told(&mut gateway).await;
    assert_eq!(
        told,
        [
            "Fresh 5",
            "6",
            "7",
            "Unavailable",
            "Resumed 7",
            "8",
            "the stream ended without a reason"
        ]
    );
    assert_eq!(
        theatre.requested_cursors(),
        ["".to_owned(), at(7).to_string(), at(8).to_string()]
    );
}

#[tokio::test]
async fn a_stream_without_an_event_resumes_at_its_start() {
    let (mut gateway, theatre) =
        play(None, [stream("fresh", "no-cursor", at(5), 0, End::Ok)]).await;
    told(&mut gateway).await;
    assert_eq!(
        theatre.requested_cursors(),
        ["".to_owned(), at(5).to_string()]
    );
    assert_eq!(gateway.cursor(), Some(at(5)));
}

#[tokio::test]
async fn what_was_not_processed_comes_again() {
    let (mut gateway, _theatre) = play(
        None,
        [
            stream("fresh", "no-cursor", at(0), 3, End::Ok),
            stream("resumed", "requested", at(1), 2, End::Open),
        ],
    )
    .await;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        if let Item::Event { cursor, .. } = gateway.next().await.unwrap() {
            if seen.is_empty() {
                gateway.processed(cursor);
            }
            seen.push(cursor.seq().number());
        }
    }
    assert_eq!(seen, [1, 2, 3, 2, 3]);
}

#[tokio::test]
async fn only_what_was_handed_out_can_be_processed() {
    let (mut gateway, _theatre) = play(
        Some(at(10)),
        [stream("resumed", "requested", at(10), 3, End::Open)],
    )
    .await;
    for _ in 0..3 {
        gateway.next().await.unwrap();
    }
    gateway.processed(at(13));
    assert_eq!(gateway.cursor(), Some(at(10)), "13 was not handed out yet");
    gateway.processed(at(12));
    gateway.processed(at(11));
    assert_eq!(gateway.cursor(), Some(at(12)), "never backwards");
    gateway.processed(at_epoch(1, 12));
    gateway.processed(at_epoch(1_800_000_000_000, 1));
    assert_eq!(gateway.cursor(), Some(at(12)), "another stream's");
}

#[tokio::test]
async fn a_gap_is_told_before_the_start_that_would_hide_it() {
    let expired = with_missed(stream("fresh", "expired", at(20), 1, End::Ok), "17");
    let (mut gateway, _theatre) = play(Some(at(3)), [expired]).await;
    let (told, _) = told(&mut gateway).await;
    assert_eq!(told[..3], ["gap Some(17) expired", "Fresh 20", "21"]);
}

#[tokio::test]
async fn a_fresh_start_is_a_gap_even_where_nobody_knows_its_size() {
    for reason in ["ahead", "other-epoch", "malformed", "a-word-of-tomorrow"] {
        let other = at_epoch(1_600_000_000_000, 2);
        let (mut gateway, theatre) =
            play(Some(at(3)), [stream("fresh", reason, other, 1, End::Ok)]).await;
        let (told, _) = told(&mut gateway).await;
        assert_eq!(told[..3], [&format!("gap None {reason}"), "Fresh 2", "3"]);
        let third = at_epoch(1_600_000_000_000, 3).to_string();
        assert_eq!(theatre.requested_cursors(), [at(3).to_string(), third]);
    }
}

#[tokio::test]
async fn having_lagged_is_one_gap_counted_when_it_is_final() {
    let (mut gateway, _theatre) = play(
        Some(at(3)),
        [
            stream("resumed", "requested", at(3), 1, End::With(lagged("5"))),
            with_missed(stream("fresh", "expired", at(12), 1, End::Ok), "8"),
        ],
    )
    .await;
    let (told, _) = told(&mut gateway).await;
    assert_eq!(
        told[..6],
        [
            "Resumed 3",
            "4",
            "lagged Some(5)",
            "gap Some(8) expired",
            "Fresh 12",
            "13"
        ]
    );
}

#[tokio::test]
async fn having_lagged_is_no_gap_if_the_cursor_resumes_after_all() {
    let (mut gateway, _theatre) = play(
        Some(at(3)),
        [
            stream("resumed", "requested", at(3), 1, End::With(lagged("5"))),
            stream("resumed", "requested", at(4), 1, End::Ok),
        ],
    )
    .await;
    let (told, _) = told(&mut gateway).await;
    assert_eq!(
        told[..5],
        ["Resumed 3", "4", "lagged Some(5)", "Resumed 4", "5"]
    );
}

#[tokio::test]
async fn a_takeover_stops_it_for_good() {
    let taken = || Status::aborted("a newer subscription");
    let (mut gateway, theatre) = play(
        None,
        [
            stream("fresh", "no-cursor", at(0), 1, End::With(taken())),
            stream("resumed", "requested", at(1), 1, End::Open),
        ],
    )
    .await;
    let (told, stopped) = told(&mut gateway).await;
    assert_eq!(told, ["Fresh 0", "1"]);
    assert!(matches!(stopped, Stopped::TakenOver(_)), "{stopped:?}");
    assert!(matches!(gateway.next().await, Err(Stopped::TakenOver(_))));
    assert_eq!(theatre.requested_cursors().len(), 1);
}

#[tokio::test]
async fn a_takeover_is_retried_if_asked_for() {
    let theatre = Theatre::new([
        Act::Refuse(Status::aborted("a newer subscription")),
        stream("fresh", "no-cursor", at(0), 1, End::Ok),
    ]);
    let mut gateway = builder(theatre.open().await)
        .on_takeover(OnTakeover::Retry)
        .build()
        .unwrap();
    let (told, _) = told(&mut gateway).await;
    assert_eq!(
        told[..3],
        [
            "another gateway has taken over the id: ABORTED: a newer subscription",
            "Fresh 0",
            "1"
        ]
    );
}

#[tokio::test]
async fn what_cannot_get_better_is_not_retried() {
    for status in [
        Status::invalid_argument("gateway_client_id is empty"),
        Status::unimplemented("no such method"),
    ] {
        let wanted = status_line(&status);
        let (mut gateway, theatre) = play(None, [Act::Refuse(status)]).await;
        let (told, stopped) = told(&mut gateway).await;
        assert!(told.is_empty(), "{told:?}");
        assert_eq!(
            stopped.to_string(),
            format!("the server refuses the subscription: {wanted}")
        );
        assert_eq!(theatre.requested_cursors().len(), 1);
    }
}

#[tokio::test]
async fn what_may_get_better_is_retried() {
    let (mut gateway, _theatre) = play(
        None,
        [
            Act::Refuse(unavailable()),
            Act::Refuse(Status::resource_exhausted("10000 subscribers")),
            Act::Refuse(Status::internal("a proxy's mishap")),
            stream("fresh", "no-cursor", at(0), 0, End::Ok),
        ],
    )
    .await;
    let (told, _) = told(&mut gateway).await;
    assert_eq!(
        told[..4],
        ["Unavailable", "ResourceExhausted", "Internal", "Fresh 0"]
    );
}

fn with_details(code: tonic::Code, reason: &str, retry_delay: Option<Duration>) -> Status {
    let details = Details {
        error_info: Some(ErrorInfo {
            reason: reason.to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: [("missed".to_owned(), "7".to_owned())].into(),
        }),
        retry_delay,
    };
    let bytes = details.encode(code as i32, "refused");
    Status::with_details(code, "refused", bytes.into())
}

#[tokio::test]
async fn it_waits_as_long_as_the_server_asks_but_not_for_ever() {
    let minute = Duration::from_secs(60);
    for (asked, least, most) in [
        (None, Duration::ZERO, Duration::from_millis(1)),
        (Some(minute), minute, minute),
        (Some(Duration::MAX), 5 * minute, 5 * minute),
    ] {
        let status = with_details(
            tonic::Code::ResourceExhausted,
            "TOO_MANY_SUBSCRIBERS",
            asked,
        );
        let (mut gateway, _theatre) = play(None, [Act::Refuse(status)]).await;
        let Ok(Item::Disconnected { cause, retry_in }) = gateway.next().await else {
            panic!("not disconnected");
        };
        assert!((least..=most).contains(&retry_in), "{retry_in:?}");
        let info = error_info(cause.status().unwrap()).unwrap();
        assert!(info.is(ErrorReason::TooManySubscribers));
    }
}

#[tokio::test]
async fn a_refused_credential_is_tried_again_since_it_may_be_renewed() {
    let (mut gateway, _theatre) = play(
        None,
        [
            Act::Refuse(with_details(
                tonic::Code::Unauthenticated,
                "CREDENTIAL_EXPIRED",
                None,
            )),
            Act::Refuse(with_details(
                tonic::Code::PermissionDenied,
                "SUBSCRIBE_NOT_GRANTED",
                None,
            )),
            stream("fresh", "no-cursor", at(0), 1, End::Ok),
        ],
    )
    .await;
    let (told, _) = told(&mut gateway).await;
    assert_eq!(
        told[..4],
        ["Unauthenticated", "PermissionDenied", "Fresh 0", "1"]
    );
}

#[tokio::test]
async fn only_a_takeover_among_aborted_ends_is_one() {
    let aborted = |reason| with_details(tonic::Code::Aborted, reason, None);
    let (mut gateway, _theatre) = play(
        None,
        [
            Act::Refuse(aborted("DISCONNECTED_BY_OPERATOR")),
            Act::Refuse(aborted("TAKEN_OVER")),
        ],
    )
    .await;
    let (told, stopped) = told(&mut gateway).await;
    assert_eq!(told, ["Aborted"]);
    let text = stopped.to_string();
    assert!(text.ends_with("ABORTED: refused (TAKEN_OVER)"), "{text}");
}

#[tokio::test]
async fn the_count_of_a_lag_is_read_from_the_details_where_there_is_no_other() {
    let lagged = with_details(tonic::Code::OutOfRange, "LAGGED", None);
    let (mut gateway, _theatre) = play(None, [Act::Refuse(lagged)]).await;
    let (told, _) = told(&mut gateway).await;
    assert_eq!(told, ["lagged Some(7)"]);
}

#[tokio::test]
async fn details_that_are_no_base64_harm_nobody() {
    let unreadable = || {
        let mut fields = tonic::codegen::http::HeaderMap::new();
        fields.insert(
            "grpc-status-details-bin",
            "CAE=,not base64".parse().unwrap(),
        );
        let metadata = MetadataMap::from_headers(fields);
        Status::with_metadata(tonic::Code::Unavailable, "stopping", metadata)
    };
    let (mut gateway, _theatre) = play(
        None,
        [
            Act::Refuse(unreadable()),
            stream("fresh", "no-cursor", at(0), 1, End::With(unreadable())),
        ],
    )
    .await;
    let (told, _) = told(&mut gateway).await;
    assert_eq!(told, ["Unavailable", "Fresh 0", "1", "Unavailable"]);
}

#[tokio::test]
async fn a_stream_with_a_hole_is_dropped_and_resumed() {
    for wrong in [at(3), at(1), at_epoch(1, 2)] {
        let holed = Act::Stream(
            metadata("fresh", "no-cursor", at(0)),
            vec![event(at(1)), event(wrong), event(at(4))],
            End::Open,
        );
        let whole = stream("resumed", "requested", at(1), 2, End::Ok);
        let (mut gateway, _theatre) = play(None, [holed, whole]).await;
        let (told, _) = told(&mut gateway).await;
        let violation = format!("the event {wrong} came after {}", at(1));
        assert_eq!(
            told[..6],
            ["Fresh 0", "1", violation.as_str(), "Resumed 1", "2", "3"]
        );
    }
}

#[tokio::test]
async fn an_event_without_a_valid_cursor_is_not_handed_out() {
    let odd = Act::Stream(
        metadata("fresh", "no-cursor", at(0)),
        vec![event_of("2".to_owned(), 1)],
        End::Open,
    );
    let (mut gateway, _theatre) = play(None, [odd]).await;
    let (told, _) = told(&mut gateway).await;
    assert_eq!(
        told[1],
        format!("the event after {} has no valid cursor: \"2\"", at(0))
    );
}

#[tokio::test]
async fn a_response_without_its_metadata_stops_it() {
    for missing in 0..3 {
        let mut metadata = metadata("fresh", "no-cursor", at(0));
        let (key, _) = metadata.remove(missing);
        let (mut gateway, _theatre) =
            play(None, [Act::Stream(metadata, Vec::new(), End::Open)]).await;
        let (_, stopped) = told(&mut gateway).await;
        assert!(
            matches!(stopped, Stopped::Violation(Violation::Metadata { key: k }) if k == key),
            "{stopped:?}"
        );
    }
}

#[tokio::test]
async fn resuming_somewhere_else_stops_it() {
    let (mut gateway, _theatre) = play(
        Some(at(3)),
        [stream("resumed", "requested", at(4), 1, End::Open)],
    )
    .await;
    let (_, stopped) = told(&mut gateway).await;
    assert!(
        matches!(
            stopped,
            Stopped::Violation(Violation::ResumedElsewhere { .. })
        ),
        "{stopped:?}"
    );
}

/// A stream of an event with this size, the cursor included, and of a small one.
fn of_message_bytes(bytes: usize) -> Act {
    let around = event_of(at(1).to_string(), bytes).encoded_len() - bytes;
    let large = event_of(at(1).to_string(), bytes - around);
    assert_eq!(large.encoded_len(), bytes);
    Act::Stream(
        metadata("fresh", "no-cursor", at(0)),
        vec![large, event(at(2))],
        End::Ok,
    )
}

#[tokio::test]
async fn what_every_server_may_send_fits() {
    let (mut gateway, _theatre) = play(None, [of_message_bytes(4 << 20)]).await;
    let (told, _) = told(&mut gateway).await;
    assert_eq!(told[..3], ["Fresh 0", "1", "2"]);
}

#[tokio::test]
async fn an_event_above_the_limit_stops_it() {
    let too_large = of_message_bytes((4 << 20) + 1);
    let (mut gateway, theatre) = play(None, [too_large]).await;
    let (told, stopped) = told(&mut gateway).await;
    assert_eq!(told, ["Fresh 0"]);
    assert!(
        matches!(stopped, Stopped::EventTooLarge { after, limit: 4_194_278 } if after == at(0)),
        "{stopped:?}"
    );
    assert_eq!(theatre.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_limit_is_a_setting() {
    let limit = 5 << 20;
    let script = [of_message_bytes(limit + Cursor::FIELD_BYTES)];
    let address = Theatre::new(script).open().await;
    let mut gateway = builder(address).max_event_bytes(limit).build().unwrap();
    let (told, _) = told(&mut gateway).await;
    assert_eq!(told[..3], ["Fresh 0", "1", "2"]);
}

#[tokio::test]
async fn a_unix_socket_is_tried_until_a_server_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a socket with spaces");
    let mut gateway = builder(Address::Unix(path.clone())).build().unwrap();

    let Item::Disconnected { cause, .. } = gateway.next().await.unwrap() else {
        panic!("there is no server yet");
    };
    assert!(matches!(cause, Disconnect::Unreachable(_)), "{cause:?}");

    let theatre = Theatre::new([stream("fresh", "no-cursor", at(0), 1, End::Ok)]);
    let listener = UnixListener::bind(&path).unwrap();
    let (accepted, incoming) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        while accepted
            .send(listener.accept().await.map(|(socket, _)| socket))
            .await
            .is_ok()
        {}
    });
    tokio::spawn(
        Server::builder()
            .add_service(PushServer::new(theatre))
            .serve_with_incoming(ReceiverStream::new(incoming)),
    );
    loop {
        if let Item::Event { cursor, .. } = gateway.next().await.unwrap() {
            assert_eq!(cursor, at(1));
            break;
        }
    }
}

#[tokio::test]
async fn a_server_that_never_responds_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(silent.local_addr().unwrap().to_string());
    let limit = Duration::from_millis(20);
    let mut gateway = builder(address).response_timeout(limit).build().unwrap();
    let Item::Disconnected { cause, .. } = gateway.next().await.unwrap() else {
        panic!("there was a response");
    };
    assert!(
        matches!(cause, Disconnect::Timeout(at) if at == limit),
        "{cause:?}"
    );
}

#[tokio::test]
async fn an_attempt_outlives_the_call_that_began_it() {
    let (mut gateway, theatre) =
        play(None, [stream("fresh", "no-cursor", at(0), 1, End::Open)]).await;
    let mut items = Vec::new();
    while items.len() < 2 {
        tokio::select! {
            biased;
            item = gateway.next() => items.push(item.unwrap()),
            () = tokio::task::yield_now() => {}
        }
    }
    assert!(matches!(items[1], Item::Event { .. }), "{items:?}");
    assert_eq!(theatre.requested_cursors().len(), 1);
}

#[test]
fn an_id_that_no_server_accepts_is_refused() {
    let build = |id: &str| {
        Gateway::builder(id, Address::Tcp("localhost:1".to_owned()))
            .build()
            .map(drop)
    };
    assert_eq!(build(""), Err(GatewayIdError::Empty.into()));
    assert_eq!(
        build(&"é".repeat(129)),
        Err(GatewayIdError::TooLong { bytes: 258 }.into())
    );
    assert_eq!(
        build("a\nb"),
        Err(GatewayIdError::ControlCharacter { at: 1 }.into())
    );
    assert_eq!(build(&"x".repeat(256)), Ok(()));
}

/// A stream that brings a heartbeat after its first event, and says that it has them if it does.
fn with_heartbeat(act: Act, says_so: bool) -> Act {
    let Act::Stream(mut metadata, mut events, end) = act else {
        panic!("only a stream has heartbeats");
    };
    if says_so {
        metadata.push(("push-heartbeat", "1s".to_owned()));
    }
    let cursor = events[0].cursor.clone();
    events.insert(1, PushEvent { kind: None, cursor });
    Act::Stream(metadata, events, end)
}

#[tokio::test]
async fn a_heartbeat_is_asked_for_and_is_no_item() {
    let act = stream("fresh", "no-cursor", at(5), 2, End::Ok);
    let theatre = Theatre::new([with_heartbeat(act, true)]);
    let builder = builder(theatre.open().await).heartbeat(Duration::from_secs(1));
    let (told, _) = told(&mut builder.build().unwrap()).await;
    let ended = "the stream ended without a reason";
    assert_eq!(told, ["Fresh 5", "6", "7", ended]);
    let asked = theatre.heartbeats.lock().unwrap().clone();
    assert_eq!(asked[0].as_deref(), Some("1s"));
}

#[tokio::test]
async fn a_heartbeat_that_nobody_asked_for_is_a_fault() {
    let act = || stream("fresh", "no-cursor", at(5), 1, End::Open);
    for (asks, says_so) in [(false, true), (true, false)] {
        let theatre = Theatre::new([with_heartbeat(act(), says_so)]);
        let mut builder = builder(theatre.open().await);
        if asks {
            builder = builder.heartbeat(Duration::from_secs(1));
        }
        let (told, _) = told(&mut builder.build().unwrap()).await;
        assert_eq!(told[..2], ["Fresh 5", "6"]);
        let violation = Violation::Order {
            after: at(6),
            cursor: at(6),
        };
        assert_eq!(told[2], violation.to_string());
    }
}

#[tokio::test]
async fn a_stream_whose_heartbeats_stop_is_dropped() {
    let act = stream("fresh", "no-cursor", at(5), 1, End::Open);
    let theatre = Theatre::new([with_heartbeat(act, true)]);
    let builder = builder(theatre.open().await).heartbeat(Duration::from_secs(1));
    let (told, _) = told(&mut builder.build().unwrap()).await;
    assert_eq!(told[..2], ["Fresh 5", "6"]);
    assert!(told[2].starts_with("nothing came for "), "{told:?}");
    assert_eq!(theatre.requested_cursors()[1], at(6).to_string());
}

#[test]
fn an_interval_that_no_server_accepts_is_refused() {
    let address: Address = "127.0.0.1:1".parse().unwrap();
    for ms in [0, 999, 300_001] {
        let built = builder(address.clone()).heartbeat(Duration::from_millis(ms));
        let error = built.build().unwrap_err();
        assert!(matches!(error, BuildError::Heartbeat(_)), "{ms}: {error:?}");
        assert_eq!(
            error.to_string(),
            "the interval of heartbeats is not within 1s and 5m"
        );
    }
}

fn invalidation(cursor: Cursor) -> PushEvent {
    PushEvent {
        kind: Some(Kind::SessionInvalidation(SessionInvalidation {
            user_id: "u".to_owned(),
            ..SessionInvalidation::default()
        })),
        cursor: cursor.to_string(),
    }
}

fn mark(cursor: Cursor) -> PushEvent {
    PushEvent {
        kind: None,
        cursor: cursor.to_string(),
    }
}

/// A fresh stream from 20 on that begins with a replay of so many.
fn replay(count: &str, events: Vec<PushEvent>, end: End) -> Act {
    let mut metadata = metadata("fresh", "expired", at(20));
    metadata.push(("push-revocations", "complete".to_owned()));
    metadata.push(("push-revocations-count", count.to_owned()));
    Act::Stream(metadata, events, end)
}

async fn play_replay(
    cursor: Option<Cursor>,
    script: impl IntoIterator<Item = Act>,
) -> (Gateway, Theatre) {
    let theatre = Theatre::new(script);
    let address = theatre.open().await;
    let gateway = builder(address).cursor(cursor).replay_revocations(true);
    (gateway.build().unwrap(), theatre)
}

#[tokio::test]
async fn a_replay_comes_before_the_stream_and_moves_the_position_as_it_is_processed() {
    let first = vec![invalidation(at(7)), invalidation(at(12))];
    let second = vec![invalidation(at(15)), mark(at(20)), event(at(21))];
    let (mut gateway, theatre) = play_replay(
        Some(at(3)),
        [
            replay("3", first, End::With(unavailable())),
            replay("1", second, End::Ok),
        ],
    )
    .await;
    let (told, _) = told(&mut gateway).await;
    assert_eq!(
        told[..9],
        [
            "gap None expired",
            "Fresh 20",
            "7",
            "12",
            "Unavailable",
            "gap None expired",
            "Fresh 20",
            "15",
            "replayed 20",
        ]
    );
    assert_eq!(told[9], "21");
    let [third, twelfth, last] = [at(3), at(12), at(21)].map(|at| at.to_string());
    assert_eq!(theatre.requested_cursors(), [third, twelfth, last]);
}

/// Its position is one of another stream, or none, until the first of them is processed.
#[tokio::test]
async fn a_replay_that_ends_early_is_asked_for_again() {
    for cursor in [None, Some(at_epoch(1_800_000_000_000, 900))] {
        let (mut gateway, theatre) = play_replay(
            cursor,
            [
                replay("2", vec![], End::Ok),
                replay("2", vec![invalidation(at(7))], End::Ok),
            ],
        )
        .await;
        told(&mut gateway).await;
        let asked = cursor.map_or_else(String::new, |cursor| cursor.to_string());
        let seventh = at(7).to_string();
        assert_eq!(theatre.requested_cursors(), [asked.clone(), asked, seventh]);
    }
}

#[tokio::test]
async fn a_replay_that_is_not_what_was_announced_is_dropped() {
    for (count, events, what) in [
        ("1", vec![mark(at(20))], "there are fewer than so many"),
        (
            "0",
            vec![invalidation(at(7))],
            "there are more than so many",
        ),
        (
            "0",
            vec![mark(at(19))],
            "its end has another cursor than the stream's start",
        ),
        ("1", vec![event(at(7))], "a client event is among them"),
        (
            "1",
            vec![invalidation(at(21))],
            "one of them is not from before the stream's start",
        ),
        (
            "1",
            vec![invalidation(at_epoch(1, 7))],
            "one of them is not from before the stream's start",
        ),
        ("1", vec![invalidation(at(3))], "they are not in order"),
        (
            "2",
            vec![invalidation(at(9)), invalidation(at(9))],
            "they are not in order",
        ),
    ] {
        let (mut gateway, _theatre) =
            play_replay(Some(at(3)), [replay(count, events, End::Open)]).await;
        let (told, _) = told(&mut gateway).await;
        let what = format!("the replay of revocations is not what was announced: {what}");
        assert!(told.contains(&what), "{told:?} {what}");
    }
    for (key, value) in [
        ("push-revocations", "all"),
        ("push-revocations-count", "-1"),
    ] {
        let Act::Stream(mut metadata, ..) = replay("1", vec![], End::Open) else {
            unreachable!("it is a stream");
        };
        metadata.retain(|(other, _)| *other != key);
        metadata.push((key, value.to_owned()));
        let act = Act::Stream(metadata, vec![], End::Open);
        let (mut gateway, _theatre) = play_replay(None, [act]).await;
        let (_, stopped) = told(&mut gateway).await;
        assert!(stopped.to_string().contains(key), "{stopped}");
    }
}

/// What a server sends that was not asked to is no replay.
#[tokio::test]
async fn a_server_without_replays_is_none() {
    let (mut gateway, _theatre) = play_replay(
        Some(at(3)),
        [stream("fresh", "expired", at(20), 1, End::Open)],
    )
    .await;
    gateway.next().await.unwrap();
    let Item::Connected(start) = gateway.next().await.unwrap() else {
        panic!("not connected");
    };
    assert_eq!(start.revocations, None);
    assert_eq!(gateway.cursor(), Some(at(20)));
}

/// Each stream brings one event and breaks: that is progress. Without an event it is none.
#[tokio::test]
async fn waits_start_over_by_progress() {
    let hour = Duration::from_secs(3600);
    for (events, grows) in [(1, false), (0, true)] {
        let acts = (0..6).map(|n| match n {
            0 => stream("fresh", "no-cursor", at(0), events, End::Ok),
            n => stream("resumed", "requested", at(n * events), events, End::Ok),
        });
        let theatre = Theatre::new(acts);
        let address = theatre.open().await;
        let backoff = Backoff::new(Duration::from_millis(4), hour);
        let mut gateway = Gateway::builder("g1", address)
            .backoff(backoff)
            .build()
            .unwrap();
        let mut waits = Vec::new();
        while waits.len() < 6 {
            match gateway.next().await.unwrap() {
                Item::Event { cursor, .. } => gateway.processed(cursor),
                Item::Disconnected { retry_in, .. } => waits.push(retry_in),
                _ => {}
            }
        }
        // The sixth in a row is between 64 and 128 ms.
        let longest = waits.into_iter().max().unwrap();
        assert_eq!(longest > Duration::from_millis(60), grows, "{longest:?}");
    }
}

fn taken_over(instance: Option<&str>) -> Status {
    let peer = ("peer".to_owned(), "10.0.0.1:1".to_owned());
    let instance = instance.map(|text| ("instance".to_owned(), text.to_owned()));
    let details = Details {
        error_info: Some(ErrorInfo {
            reason: "TAKEN_OVER".to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: instance.into_iter().chain([peer]).collect(),
        }),
        retry_delay: None,
    };
    let details = details.encode(tonic::Code::Aborted as i32, "taken over");
    Status::with_details(tonic::Code::Aborted, "taken over", details.into())
}

/// The response to a renewal is lost, which has taken the id all the same.
#[tokio::test]
async fn a_renewal_whose_response_is_lost_does_not_stop_the_gateway() {
    let soon = Duration::from_millis(300);
    for (by, stops) in [
        (taken_over(Some("this one")), false),
        (taken_over(Some("other")), true),
        (taken_over(None), true),
        // A server that does not say by whom.
        (Status::aborted("taken over"), false),
    ] {
        let theatre = Theatre::new([
            stream("fresh", "no-cursor", at(5), 1, End::After(soon, by)),
            Act::Refuse(Status::unknown("the connection broke")),
            stream("resumed", "requested", at(6), 1, End::Open),
        ]);
        let gateway = builder(theatre.open().await).instance("this one");
        let mut gateway = gateway.build().unwrap();
        gateway.next().await.unwrap();
        let Item::Event { cursor, .. } = gateway.next().await.unwrap() else {
            panic!("not an event");
        };
        gateway.processed(cursor);
        gateway.renew();
        let next = gateway.next().await;
        assert_eq!(gateway.stats().failed_renewals, 1);
        if stops {
            assert!(matches!(next, Err(Stopped::TakenOver(_))), "{next:?}");
            continue;
        }
        let Ok(Item::Disconnected { cause, .. }) = next else {
            panic!("{next:?}");
        };
        assert!(matches!(cause, Disconnect::TakenOver(_)), "{cause:?}");
        let next = gateway.next().await.unwrap();
        assert!(matches!(next, Item::Connected(_)), "{next:?}");
    }
}

/// It had no cursor, and yet a place: where its stream started.
#[tokio::test]
async fn a_gap_after_a_replay_that_was_not_finished_is_told() {
    let Act::Stream(mut later, ..) = replay("0", vec![], End::Open) else {
        unreachable!("it is a stream");
    };
    later.retain(|(key, _)| *key != "push-start-cursor");
    later.push(("push-start-cursor", at(29).to_string()));
    let (mut gateway, theatre) = play_replay(
        None,
        [
            replay("2", vec![], End::Ok),
            Act::Stream(later, vec![mark(at(29))], End::Open),
        ],
    )
    .await;
    let mut gaps = Vec::new();
    while gateway.stats().subscriptions < 2 {
        if let Item::Gap(gap) = gateway.next().await.unwrap() {
            gaps.push(gap.missed);
        }
    }
    assert_eq!(gaps, [Some(9)]);
    assert_eq!(theatre.requested_cursors(), ["", ""]);
    // Of none nothing is to be processed first.
    assert_eq!(gateway.cursor(), Some(at(29)));
}

/// The server is behind the place where the gateway was.
#[tokio::test]
async fn a_replay_may_come_from_before_the_position() {
    let events = vec![invalidation(at(7)), mark(at(20)), event(at(21))];
    let (mut gateway, theatre) = play_replay(Some(at(900)), [replay("1", events, End::Ok)]).await;
    let (told, _) = told(&mut gateway).await;
    assert_eq!(
        told[..5],
        ["gap None expired", "Fresh 20", "7", "replayed 20", "21"]
    );
    let asked = [at(900), at(21)].map(|at| at.to_string());
    assert_eq!(theatre.requested_cursors(), asked);
}

/// Two servers that accept and drop are not asked in turn without a wait.
#[tokio::test]
async fn servers_that_accept_and_drop_are_spared() {
    let acts = || (0..10).map(|_| stream("fresh", "no-cursor", at(0), 0, End::Ok));
    let (one, other) = (Theatre::new(acts()), Theatre::new(acts()));
    let hour = Duration::from_secs(3600);
    let mut gateway = Gateway::builder("g1", one.open().await)
        .or_at(other.open().await)
        .backoff(Backoff::new(Duration::from_secs(1), hour))
        .build()
        .unwrap();
    let mut waits = Vec::new();
    while waits.len() < 2 {
        if let Item::Disconnected { retry_in, .. } = gateway.next().await.unwrap() {
            waits.push(retry_in);
        }
    }
    assert!(waits[0] <= Duration::from_millis(200), "{waits:?}");
    assert!(waits[1] >= Duration::from_millis(500), "{waits:?}");
}
