//! Requests that are late; and those that are not, because the peer was not read, or
//! because what was missing has come.

use std::sync::Mutex;

use tokio::sync::oneshot;

use super::*;
use crate::backbone::{AppendError, Appended, Log};
use crate::engine;
use crate::telemetry::Telemetry;

/// Windows that never hold up a response.
const WIDE: [(u16, u32); 1] = [(setting::INITIAL_WINDOW_SIZE, 1 << 30)];
/// Requests in one frame: their responses are less than the output takes.
const EACH: usize = 50;
/// A request, short of its end.
const HALF: &[u8] = PUBLISH.split_at(7).0;
const OTHER_HALF: &[u8] = PUBLISH.split_at(7).1;
/// More than the runtime's clock rounds by.
const A_MOMENT: Duration = Duration::from_millis(5);

impl<S> Harness<S>
where
    S: Service + Unpin,
    S::Call: Unpin,
    S::Data: Unpin,
{
    /// Publishes on stream 1 and reads no responses, until the driver does not read either.
    /// What it has read then ends so many bytes after the start of a frame. Returns how many
    /// requests it has taken, and the rest of that frame.
    async fn fill(&mut self, cut: usize) -> (usize, Vec<u8>) {
        let mut frame = Vec::new();
        frame::write(&mut frame, kind::DATA, 0, 1, &PUBLISH.repeat(EACH));
        let rest = frame.split_off(cut);
        self.to_send.extend(&frame);
        let mut taken = 0;
        while !self.driver.is_full() {
            self.to_send.extend([&rest[..], &frame].concat());
            let before = self.driver.handle.reads();
            while self.driver.handle.reads() == before || !self.to_send.is_empty() {
                self.send();
                self.poll();
                tokio::task::yield_now().await;
            }
            taken += EACH;
        }
        (taken, rest)
    }

    /// How a stream has ended by now.
    async fn text(&mut self, stream: u32) -> String {
        self.exchange().await;
        text_on(stream, &self.frames())
    }

    /// How many bytes of data have come on a stream, which goes on.
    async fn bytes(&mut self, stream: u32) -> usize {
        self.exchange().await;
        let (bytes, ended) = data_on(stream, &self.frames());
        assert!(!ended);
        bytes
    }
}

/// Publishers whose windows are wide, with a call on stream 1.
async fn publishing(
    engine: &Engine,
) -> Harness<impl Service<Call: Unpin, Data: Unpin> + Unpin + use<>> {
    let mut harness = Harness::new(publishers(engine), &WIDE);
    frame::write_window_update(&mut harness.to_send, 0, 1 << 30);
    harness.request(1, path::PUBLISH_STREAM);
    assert_eq!(harness.bytes(1).await, 0);
    harness
}

/// The same, and half a request on stream 3.
async fn half_a_request(
    engine: &Engine,
) -> Harness<impl Service<Call: Unpin, Data: Unpin> + Unpin + use<>> {
    let mut harness = publishing(engine).await;
    harness.request(3, path::PUBLISH_STREAM);
    harness.data(3, 0, HALF);
    assert_eq!(harness.bytes(3).await, 0);
    harness
}

#[tokio::test(start_paused = true)]
async fn time_in_which_a_peer_is_not_read_makes_no_request_late() {
    let mut harness = half_a_request(&engine()).await;
    let timeout = request_timeout(&harness);
    advance(timeout / 2).await;
    harness.fill(0).await;
    advance(3 * timeout).await;
    // Its peer reads again, and has the rest of its own time.
    assert_eq!(harness.bytes(3).await, 0);
    advance(timeout / 2 - A_MOMENT).await;
    assert_eq!(harness.bytes(3).await, 0);
    harness.data(3, 0, OTHER_HALF);
    assert_eq!(harness.bytes(3).await, RESPONSE_BYTES);
}

#[tokio::test(start_paused = true)]
async fn time_in_which_a_peer_is_not_read_makes_no_frame_late() {
    let mut harness = publishing(&engine()).await;
    let timeout = request_timeout(&harness);
    let (taken, rest) = harness.fill(5).await;
    assert!(harness.driver.incomplete.is_some());
    advance(3 * timeout).await;
    assert_eq!(harness.bytes(1).await, taken * RESPONSE_BYTES);
    advance(timeout - A_MOMENT).await;
    harness.to_send.extend(rest);
    assert_eq!(harness.bytes(1).await, EACH * RESPONSE_BYTES);
}

#[tokio::test(start_paused = true)]
async fn an_alarm_that_comes_while_a_peer_is_not_read_comes_again_when_it_is() {
    let mut harness = half_a_request(&engine()).await;
    let timeout = request_timeout(&harness);
    harness.fill(0).await;
    // Its time is over, but not by its fault. The task does not turn in circles meanwhile.
    advance(timeout + A_MOMENT).await;
    let wakes = Arc::new(Wakes::default());
    harness.poll_by(&wakes.waker());
    assert!(harness.driver.alarm.is_none(), "it came");
    let woken = wakes.count();
    for _ in 0..5 {
        harness.poll_by(&wakes.waker());
    }
    assert_eq!(wakes.count(), woken);
    assert_eq!(harness.bytes(3).await, 0);

    advance(timeout + A_MOMENT).await;
    let text = harness.text(3).await;
    assert!(text.contains("did not arrive within"), "{text:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_last_piece_is_there_when_the_alarm_comes_is_not_late() {
    let engine = engine();
    let mut harness = half_a_request(&engine).await;
    let wakes = Arc::new(Wakes::default());
    harness.poll_by(&wakes.waker());
    let woken = wakes.count();
    // It arrives in time, and the task runs too late. The request goes on after it, so such
    // a small piece is kept until the call's turn.
    assert!(OTHER_HALF.len() < GATHERED_BYTES);
    harness.data(3, 0, OTHER_HALF);
    harness.send();
    while wakes.count() == woken {
        tokio::task::yield_now().await;
    }
    advance(2 * request_timeout(&harness)).await;
    assert_eq!(harness.bytes(3).await, RESPONSE_BYTES);
    assert_eq!(engine.head().seq().number(), 1);
}

/// A log that has appended at once, and says so when it is told to.
#[derive(Debug)]
struct Slow {
    local: Local,
    undecided: Arc<Mutex<Vec<oneshot::Sender<()>>>>,
}

#[derive(Debug)]
struct Later(engine::Published, oneshot::Receiver<()>);

impl Log for Slow {
    type Pending = Later;

    fn append(&mut self, events: &[Published<'_>]) -> Appended<Later> {
        let Appended::Done(Ok(published)) = self.local.append(events) else {
            panic!("not appended");
        };
        let (decide, decided) = oneshot::channel();
        self.undecided.lock().unwrap().push(decide);
        Appended::Pending(Later(published, decided))
    }
}

impl Future for Later {
    type Output = Result<engine::Published, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let decided = Pin::new(&mut self.1).poll(cx);
        decided.map(|decided| {
            decided.unwrap();
            Ok(self.0)
        })
    }
}

/// What a stream was sent after its response's head: data, the status, and that the rest of
/// the request is not wanted.
#[track_caller]
fn assert_answered_and_late(stream: u32, bytes: usize, frames: &[Received]) {
    let on: Vec<_> = frames
        .iter()
        .filter(|of| of.header.stream == stream)
        .collect();
    let kinds: Vec<_> = on.iter().map(|of| of.header.kind).collect();
    assert_eq!(kinds, [kind::DATA, kind::HEADERS, kind::RST_STREAM]);
    assert_eq!(on[0].payload.len(), bytes);
    let text = text_on(stream, frames);
    assert!(text.contains("did not arrive within"), "{text:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_late_call_has_published_is_answered_when_the_log_does() {
    let engine = engine();
    let log = Slow {
        local: Local::new(&engine),
        undecided: Arc::default(),
    };
    let undecided = Arc::clone(&log.undecided);
    let service = Publishers::router(
        log,
        &engine.limits(),
        &Telemetry::of(&engine),
        Health::new(&engine, Freshness::default()).unwrap(),
        Stopping::default(),
        None,
    );
    let mut harness = Harness::new(service, &[]);
    harness.request(1, path::PUBLISH_STREAM);
    harness.data(1, 0, &[PUBLISH, HALF].concat());
    assert_eq!(harness.bytes(1).await, 0);
    advance(2 * request_timeout(&harness)).await;
    assert_eq!(harness.bytes(1).await, 0, "no status before the response");
    // It is late, and nothing more is taken of it.
    harness.data(1, 0, OTHER_HALF);
    assert_eq!(harness.bytes(1).await, 0);
    assert_eq!(engine.head().seq().number(), 1);

    for decide in undecided.lock().unwrap().drain(..) {
        decide.send(()).unwrap();
    }
    harness.exchange().await;
    assert_answered_and_late(1, RESPONSE_BYTES, &harness.frames());
}

#[tokio::test(start_paused = true)]
async fn what_a_late_call_has_published_is_answered_when_its_window_opens() {
    // One byte less than a response.
    let window = [(setting::INITIAL_WINDOW_SIZE, RESPONSE_BYTES as u32 - 1)];
    let mut harness = Harness::new(publishers(&engine()), &window);
    harness.request(1, path::PUBLISH_STREAM);
    harness.data(1, 0, &[PUBLISH, HALF].concat());
    assert_eq!(harness.bytes(1).await, RESPONSE_BYTES - 1);
    advance(2 * request_timeout(&harness)).await;
    assert_eq!(harness.bytes(1).await, 0, "no status before the response");

    frame::write_window_update(&mut harness.to_send, 1, 1);
    harness.exchange().await;
    assert_answered_and_late(1, 1, &harness.frames());
}
