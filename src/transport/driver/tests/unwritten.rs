//! What is left when a socket is full: whether anything waits for it, and who watches that.

use std::io::IoSlice;
use std::sync::atomic::AtomicU64;

use tokio::time::sleep;

use super::*;
use crate::http2::frame::Reason;
use crate::transport::watchdog::Timeouts;

/// So that a connection without a stream is not cut for that, as its listener has no slot left.
const STALL: Duration = Duration::from_secs(2);
const MAX_PINNED_BYTES: u64 = 1000;

impl<S> Harness<S>
where
    S: Service + Unpin,
    S::Call: Unpin,
    S::Data: Unpin,
{
    /// Runs the watchdog over its connection; returns how much it is told to be pinned.
    fn watch(&self, stall: Duration) -> Arc<AtomicU64> {
        let watchdog = &self.driver.shared.watchdog;
        watchdog.watch(Arc::clone(&self.driver.handle));
        let timeouts = Timeouts {
            stall,
            linger: stall,
            max_pinned_bytes: MAX_PINNED_BYTES,
        };
        let pinned_bytes = Arc::new(AtomicU64::new(0));
        let pinned = Arc::clone(&pinned_bytes);
        let run = watchdog.clone();
        tokio::spawn(run.run(move || timeouts, move || pinned.load(Ordering::Relaxed)));
        pinned_bytes
    }

    /// Sends, and takes nothing of what the driver writes, until nothing moves.
    async fn send_only(&mut self) {
        for _ in 0..20 {
            self.send();
            self.poll();
            tokio::task::yield_now().await;
        }
    }

    fn reset(&mut self, stream: u32) {
        let cancel = (Reason::Cancel as u32).to_be_bytes();
        frame::write(&mut self.to_send, kind::RST_STREAM, 0, stream, &cancel);
    }
}

/// A gateway whose windows are wide, with its subscription on stream 1.
async fn subscribed(
    engine: &Engine,
) -> Harness<impl Service<Data: Unpin, Call: Unpin> + Unpin + use<>> {
    let wide = [(setting::INITIAL_WINDOW_SIZE, 1 << 20)];
    let mut harness = Harness::new(gateways(engine), &wide);
    frame::write_window_update(&mut harness.to_send, 0, 1 << 20);
    harness.request(1, path::SUBSCRIBE_PUSH);
    harness.data(1, flag::END_STREAM, &subscribe("gateway"));
    harness.exchange().await;
    harness
}

fn publish(engine: &Engine, payload: usize) {
    let event = large_event(payload);
    let event = Published::parse(&event).unwrap();
    engine.publisher().publish(event).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_socket_stalls_nobody_when_there_is_nothing_to_write() {
    for is_reset in [false, true] {
        let engine = engine();
        let mut harness = subscribed(&engine).await;
        let handle = Arc::clone(&harness.driver.handle);
        harness.watch(STALL);
        // No frame is half written: the socket takes no byte of the next.
        let filler = [IoSlice::new(&[0; 4096])];
        let mut noop = Context::from_waker(Waker::noop());
        let socket = &mut harness.driver.socket;
        while socket.poll_write(&mut noop, &filler).is_ready() {}
        publish(&engine, 1000);
        harness.send_only().await;
        assert!(handle.write_block().is_some() && harness.driver.writer.is_empty());
        if is_reset {
            harness.reset(1);
        }
        harness.send_only().await;
        assert_eq!(engine.stats().subscribers == 0, is_reset);
        assert_eq!(handle.write_block().is_none(), is_reset);
        sleep(2 * STALL).await;
        assert_eq!(handle.is_cut(), !is_reset);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_frame_holds_whose_stream_has_ended_is_let_go_of_when_too_much_is_pinned() {
    let engine = engine();
    let mut harness = subscribed(&engine).await;
    let handle = Arc::clone(&harness.driver.handle);
    // Its full socket alone is waited for.
    let pinned_bytes = harness.watch(Duration::from_secs(3600));
    for _ in 0..40 {
        publish(&engine, 16_000);
    }
    harness.send_only().await;
    assert!(!harness.driver.writer.is_empty(), "a frame is half written");
    harness.reset(1);
    harness.send_only().await;
    assert_eq!(engine.stats().subscribers, 0);
    // A report that nobody can act on does not stop what follows.
    report_stalls(&harness);
    harness.send_only().await;
    sleep(Duration::from_secs(1)).await;
    assert!(!handle.is_cut());

    pinned_bytes.store(2 * MAX_PINNED_BYTES, Ordering::Relaxed);
    sleep(Duration::from_secs(1)).await;
    assert!(handle.is_cut());
}

#[tokio::test(start_paused = true)]
async fn a_frame_whose_stream_has_ended_is_forgotten_when_it_is_written() {
    let engine = engine();
    let mut harness = subscribed(&engine).await;
    let handle = Arc::clone(&harness.driver.handle);
    let pinned_bytes = harness.watch(Duration::from_secs(3600));
    for _ in 0..40 {
        publish(&engine, 16_000);
    }
    harness.send_only().await;
    harness.reset(1);
    harness.send_only().await;
    harness.exchange().await;
    assert!(harness.driver.writer.is_empty());
    pinned_bytes.store(2 * MAX_PINNED_BYTES, Ordering::Relaxed);
    sleep(Duration::from_secs(1)).await;
    assert!(!handle.is_cut(), "it holds nothing any more");
}
