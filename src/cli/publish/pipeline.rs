//! Batches onto the wire, many before the first response, and an exact account of
//! what became of each.

use std::ops::RangeInclusive;

use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use tonic::{Code, Status, Streaming};

use super::lines::Batch;
use crate::client::{Connection, error_info, status_line};
use crate::contract::publisher::publisher_client::PublisherClient;
use crate::contract::publisher::{PublishRequest, PublishResponse};
use crate::cursor::Cursor;

/// What became of the events.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// How many are in the ring for certain.
    pub(super) accepted: u64,
    /// The line of the last of them.
    accepted_to: u64,
    /// Why it ended before all were sent and accepted, if it did.
    pub(super) broken: Option<Broken>,
}

/// Sending ended early.
#[derive(Debug)]
pub(super) struct Broken {
    cause: String,
    /// The lines of the batches that were sent, or were being sent, and have no
    /// response.
    pending: Vec<Vec<u64>>,
    /// The server refused the first of `pending`, because of the event on
    /// this line if it said which. Then none of them was published: it handles
    /// them in order, and ended the stream there.
    refused: Option<Option<u64>>,
}

/// Sends all batches, with at most `in_flight` at a time without a response, and calls `accepted`
/// with the first and the last cursor of each, in order.
pub(super) async fn run(
    mut client: PublisherClient<Connection>,
    mut batches: mpsc::Receiver<Batch>,
    in_flight: usize,
    mut accepted: impl FnMut(Cursor, Cursor),
) -> Report {
    // Its capacity bounds the requests in flight: an entry is taken out when its
    // response comes.
    let (sent, mut pending) = mpsc::channel::<Vec<u64>>(in_flight);
    let (requests, outbound) = mpsc::channel::<PublishRequest>(1);
    let (all_sent, mut was_all_sent) = oneshot::channel();
    let sender = tokio::spawn(async move {
        while let Some(Batch { events, lines }) = batches.recv().await {
            // First the account, so that nothing is sent that is not in it.
            let taken = sent.send(lines).await.is_ok();
            if !taken || requests.send(PublishRequest { events }).await.is_err() {
                return;
            }
        }
        // Before the requests end, and so before their responses can.
        let _ = all_sent.send(());
        drop(requests);
    });

    let mut report = Report::default();
    let mut ended = match client.publish_stream(ReceiverStream::new(outbound)).await {
        Ok(responses) => {
            take_responses(
                responses.into_inner(),
                &mut pending,
                &mut report,
                &mut accepted,
            )
            .await
        }
        Err(status) => Err(Cause::Status(Box::new(status))),
    };

    // Whatever the sender was doing, from here on the account does not change.
    sender.abort();
    let _ = sender.await;
    let mut left = Vec::new();
    if let Err(Cause::Response(_, lines)) = &mut ended {
        left.push(std::mem::take(lines));
    }
    while let Ok(lines) = pending.try_recv() {
        left.push(lines);
    }
    let cause = match ended {
        Ok(()) if left.is_empty() && was_all_sent.try_recv().is_ok() => return report,
        Ok(()) => Cause::Ended,
        Err(cause) => cause,
    };
    report.broken = Some(Broken::new(cause, left));
    report
}

enum Cause {
    Status(Box<Status>),
    /// With status `OK`, and batches without a response or not even sent.
    Ended,
    /// A response to no request: what it says, and the lines of the batch
    /// that it seems to be about.
    Response(String, Vec<u64>),
}

async fn take_responses(
    mut responses: Streaming<PublishResponse>,
    pending: &mut mpsc::Receiver<Vec<u64>>,
    report: &mut Report,
    accepted: &mut impl FnMut(Cursor, Cursor),
) -> Result<(), Cause> {
    loop {
        let response = match responses.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return Ok(()),
            Err(status) => return Err(Cause::Status(Box::new(status))),
        };
        let Ok(lines) = pending.try_recv() else {
            return Err(Cause::Response(
                "one response too many".to_owned(),
                Vec::new(),
            ));
        };
        let Some((first, last)) = read_response(&response, lines.len() as u64) else {
            let what = format!(
                "{} events cannot be at {:?} to {:?}",
                lines.len(),
                response.first_cursor,
                response.last_cursor
            );
            return Err(Cause::Response(what, lines));
        };
        accepted(first, last);
        report.accepted += lines.len() as u64;
        // A batch is never empty.
        report.accepted_to = lines.last().copied().unwrap_or(report.accepted_to);
    }
}

/// The cursors of a response to a batch of `events`, if they can be that.
fn read_response(response: &PublishResponse, events: u64) -> Option<(Cursor, Cursor)> {
    let first = Cursor::parse(response.first_cursor.as_bytes()).ok()?;
    let last = Cursor::parse(response.last_cursor.as_bytes()).ok()?;
    let between = last.seq().number().checked_sub(first.seq().number())?;
    (first.epoch() == last.epoch() && between.checked_add(1)? == events).then_some((first, last))
}

impl Broken {
    fn new(cause: Cause, pending: Vec<Vec<u64>>) -> Self {
        let refused = match &cause {
            Cause::Status(status) if status.code() == Code::InvalidArgument => {
                let index = event_index(status);
                Some(index.and_then(|index| pending.first()?.get(index).copied()))
            }
            _ => None,
        };
        Broken {
            cause: match cause {
                Cause::Status(status) => status_line(&status),
                Cause::Ended => "the server ended the stream without a reason".to_owned(),
                Cause::Response(what, _) => format!("the server's response makes no sense: {what}"),
            },
            pending,
            refused,
        }
    }
}

/// The index of the event that a batch is refused for: in the details, or else in the message,
/// as in `events[3].client_event.user_id is empty`.
fn event_index(status: &Status) -> Option<usize> {
    if let Some(info) = error_info(status) {
        return info.metadata.get("index")?.parse().ok();
    }
    let (_, rest) = status.message().split_once("events[")?;
    rest.split_once(']')?.0.parse().ok()
}

impl Report {
    /// For an end that came early: what happened, and what became of which
    /// lines of the input called `name`. On one line.
    pub(super) fn describe(&self, name: &str) -> String {
        let Some(broken) = &self.broken else {
            return format!("{name}: {}", self.accepted());
        };
        let mut text = match broken.refused {
            Some(Some(line)) => format!("{name}, line {line}: refused: {}", broken.cause),
            Some(None) => match broken.pending.first().and_then(|lines| range(lines)) {
                Some(lines) => format!(
                    "{name}, {}: refused as a whole: {}",
                    lines_in_words(&lines),
                    broken.cause
                ),
                None => format!("{name}: refused: {}", broken.cause),
            },
            None => format!("{name}: {}", broken.cause),
        };
        text.push_str("; ");
        text.push_str(&self.accepted());
        let lines: Vec<u64> = broken.pending.concat();
        match range(&lines) {
            _ if broken.refused.is_some() => text.push_str(", and nothing after that"),
            None => text.push_str(", and nothing after that was sent"),
            Some(doubtful) => text.push_str(&format!(
                "; {} in doubt: {}; nothing after that was sent",
                events_in_words(lines.len() as u64, "is", "are"),
                lines_in_words(&doubtful),
            )),
        }
        text
    }

    fn accepted(&self) -> String {
        match self.accepted {
            0 => "no event was accepted".to_owned(),
            events => format!(
                "{} accepted, up to line {}",
                events_in_words(events, "was", "were"),
                self.accepted_to
            ),
        }
    }
}

fn range(lines: &[u64]) -> Option<RangeInclusive<u64>> {
    Some(*lines.first()?..=*lines.last()?)
}

fn lines_in_words(lines: &RangeInclusive<u64>) -> String {
    if lines.start() == lines.end() {
        format!("line {}", lines.start())
    } else {
        format!("lines {} to {}", lines.start(), lines.end())
    }
}

fn events_in_words(events: u64, one: &str, many: &str) -> String {
    match events {
        1 => format!("1 event {one}"),
        _ => format!("{events} events {many}"),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};

    use futures_util::{Stream, StreamExt};
    use tonic::transport::Server;
    use tonic::transport::server::TcpIncoming;
    use tonic::{Request, Response};

    use super::*;
    use crate::client::Connector;
    use crate::config::Address;
    use crate::contract::publisher::publisher_server::{Publisher, PublisherServer};
    use crate::contract::publisher::{WaitEnforcedRequest, WaitEnforcedResponse};
    use crate::contract::push::PushEvent;
    use crate::cursor::{Epoch, Seq};

    type Reply = Result<PublishResponse, Status>;

    /// Responds to each request with the next reply, and ends after the last.
    struct Scripted(Mutex<Vec<Reply>>);

    #[tonic::async_trait]
    impl Publisher for Scripted {
        type PublishStreamStream = Pin<Box<dyn Stream<Item = Reply> + Send>>;

        async fn publish(
            &self,
            _: Request<PublishRequest>,
        ) -> Result<Response<PublishResponse>, Status> {
            Err(Status::unimplemented("not in the script"))
        }

        async fn wait_enforced(
            &self,
            _: Request<WaitEnforcedRequest>,
        ) -> Result<Response<WaitEnforcedResponse>, Status> {
            Err(Status::unimplemented("nobody waits here"))
        }

        async fn publish_stream(
            &self,
            requests: Request<Streaming<PublishRequest>>,
        ) -> Result<Response<Self::PublishStreamStream>, Status> {
            let replies = std::mem::take(&mut *self.0.lock().unwrap());
            let requests = requests.into_inner();
            let responses = tokio_stream::iter(replies)
                .zip(requests)
                .map(|(reply, _)| reply);
            Ok(Response::new(Box::pin(responses)))
        }
    }

    fn at(seq: u64) -> Cursor {
        Cursor::new(Epoch::new(1, 0).unwrap(), Seq::new(seq))
    }

    fn accepted(first: u64, last: u64) -> Reply {
        Ok(PublishResponse {
            first_cursor: at(first).to_string(),
            last_cursor: at(last).to_string(),
        })
    }

    /// Publishes batches of these lines to a server with these replies: the
    /// cursors that were printed, and the report.
    async fn publish(batches: &[&[u64]], replies: Vec<Reply>) -> (Vec<(u64, u64)>, Report) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap().to_string());
        tokio::spawn(
            Server::builder()
                .add_service(PublisherServer::new(Scripted(Mutex::new(replies))))
                .serve_with_incoming(TcpIncoming::from(listener)),
        );
        let client = PublisherClient::new(Connector::new(address).connect().await.unwrap());
        let (send, receive) = mpsc::channel(batches.len() + 1);
        for lines in batches {
            let batch = Batch {
                events: vec![PushEvent::default(); lines.len()],
                lines: lines.to_vec(),
            };
            send.send(batch).await.unwrap();
        }
        drop(send);
        let printed = Arc::new(Mutex::new(Vec::new()));
        let report = run(client, receive, 100, |first, last| {
            let seqs = (first.seq().number(), last.seq().number());
            printed.lock().unwrap().push(seqs);
        })
        .await;
        let printed = printed.lock().unwrap().clone();
        (printed, report)
    }

    #[tokio::test]
    async fn with_all_responses_all_is_accepted() {
        let replies = vec![accepted(1, 2), accepted(7, 7)];
        let (printed, report) = publish(&[&[1, 2], &[5]], replies).await;
        assert_eq!(printed, [(1, 2), (7, 7)]);
        assert!(report.broken.is_none());
        assert_eq!(report.accepted, 3);
    }

    #[tokio::test]
    async fn what_was_sent_and_has_no_response_is_in_doubt() {
        let replies = vec![accepted(1, 2), Err(Status::unavailable("stopping"))];
        let (printed, report) = publish(&[&[1, 2], &[5], &[6, 9]], replies).await;
        assert_eq!(printed, [(1, 2)]);
        let text = report.describe("f");
        let begin = "f: UNAVAILABLE: stopping; 2 events were accepted, up to line 2; ";
        assert!(text.starts_with(begin), "{text}");
        // The third batch may or may not have been sent by then.
        let in_doubt = text.strip_prefix(begin).unwrap();
        assert!(
            [
                "1 event is in doubt: line 5; nothing after that was sent",
                "3 events are in doubt: lines 5 to 9; nothing after that was sent",
            ]
            .contains(&in_doubt),
            "{in_doubt}"
        );
    }

    #[tokio::test]
    async fn what_was_refused_is_not_in_doubt() {
        let refusal = Status::invalid_argument("events[1].client_event.user_id is empty");
        let (_, report) = publish(&[&[1], &[3, 5], &[6]], vec![accepted(1, 1), Err(refusal)]).await;
        assert_eq!(
            report.describe("f"),
            "f, line 5: refused: INVALID_ARGUMENT: events[1].client_event.user_id is empty; \
             1 event was accepted, up to line 1, and nothing after that"
        );
    }

    #[tokio::test]
    async fn a_refusal_that_names_no_event_concerns_its_batch() {
        let refusal = Status::invalid_argument("too much");
        let (_, report) = publish(&[&[3, 5], &[6]], vec![Err(refusal)]).await;
        assert_eq!(
            report.describe("f"),
            "f, lines 3 to 5: refused as a whole: INVALID_ARGUMENT: too much; \
             no event was accepted, and nothing after that"
        );
    }

    #[tokio::test]
    async fn a_stream_that_ends_early_is_no_success() {
        let (_, report) = publish(&[&[1], &[2]], vec![accepted(1, 1)]).await;
        let text = report.describe("f");
        // The second batch may or may not have been sent by then.
        let begin =
            "f: the server ended the stream without a reason; 1 event was accepted, up to line 1";
        let rest = text.strip_prefix(begin).unwrap_or_else(|| panic!("{text}"));
        assert!(
            [
                ", and nothing after that was sent",
                "; 1 event is in doubt: line 2; nothing after that was sent",
            ]
            .contains(&rest),
            "{rest}"
        );
    }

    #[tokio::test]
    async fn a_response_that_cannot_be_is_no_success() {
        for (first, last) in [(1, 1), (2, 1), (1, 3)] {
            let (printed, report) = publish(&[&[1, 2]], vec![accepted(first, last)]).await;
            assert!(printed.is_empty());
            let text = report.describe("f");
            assert!(
                text.contains("2 events are in doubt: lines 1 to 2"),
                "{text}"
            );
        }
    }
}
