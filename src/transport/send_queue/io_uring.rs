//! The queue over io_uring.
//!
//! Every send is tried at its submission, and none is left to the kernel (`MSG_DONTWAIT`):
//! it uses memory and sockets for no longer than one call.

#![allow(
    unsafe_code,
    reason = "the kernel reads memory at an address that it is given"
)]

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::{Arc, Once};

use io_uring::{IoUring, Probe, cqueue, opcode, types};
use rustix::net::SendFlags;

use super::Wire;
use crate::transport::stream::SEND;

/// Writes that are submitted together. More would save little, and the first of them would
/// wait for longer.
const ENTRIES: usize = 32;
/// The longest write that is copied: some dozens of small events.
const MAX_WRITE_BYTES: usize = 8 << 10;
/// What all of them may have together.
const MEMORY_BYTES: usize = 128 << 10;
/// How many turns of tasks the first of them waits for.
const MAX_TURNS: usize = 2 * ENTRIES;

thread_local! {
    static QUEUE: RefCell<Queue> = const { RefCell::new(Queue::None) };
}

/// What a thread has.
enum Queue {
    None,
    /// None, until it writes something.
    Wanted,
    Some(Box<SendQueue>),
}

impl Queue {
    fn make() -> Self {
        match SendQueue::new() {
            Ok(queue) => Queue::Some(Box::new(queue)),
            Err(error) => {
                static LOG: Once = Once::new();
                LOG.call_once(|| {
                    tracing::info!("no io_uring, each write is a system call: {error}");
                });
                Queue::None
            }
        }
    }
}

pub(super) fn enable() {
    QUEUE.set(Queue::Wanted);
}

pub(super) fn submit() {
    with_queue(SendQueue::submit);
}

pub(super) fn turn_ended() {
    with_queue(|queue| {
        if !queue.entries.is_empty() {
            queue.turns += 1;
            if queue.turns > MAX_TURNS {
                queue.submit();
            }
        }
    });
}

// Of the two places from which it is called, one is on every delivery's way.
#[inline]
pub(super) fn push(wire: &Arc<Wire>, slices: &[IoSlice<'_>]) -> bool {
    let bytes = slices.iter().map(|slice| slice.len()).sum();
    if bytes > MAX_WRITE_BYTES {
        return false;
    }
    QUEUE.with_borrow_mut(|queue| {
        if matches!(queue, Queue::Wanted) {
            *queue = Queue::make();
        }
        let Queue::Some(queue) = queue else {
            return false;
        };
        queue.push(wire, slices, bytes);
        true
    })
}

fn with_queue(act: impl FnOnce(&mut SendQueue)) {
    QUEUE.with_borrow_mut(|queue| {
        if let Queue::Some(queue) = queue {
            act(queue);
        }
    });
}

struct SendQueue {
    ring: IoUring,
    /// The bytes of all writes, one after the other.
    memory: Box<[u8]>,
    used_bytes: usize,
    entries: Vec<Entry>,
    /// Turns of tasks since the first of them was queued.
    turns: usize,
}

/// A write.
struct Entry {
    /// Keeps the socket open until it is submitted.
    wire: Arc<Wire>,
    start: usize,
    bytes: usize,
    /// What the kernel said of it.
    result: Option<i32>,
}

impl SendQueue {
    fn new() -> io::Result<Self> {
        let entries = ENTRIES as u32;
        // The kernel may do what belongs to a submission right then, in our thread, and need
        // not interrupt it: since Linux 6.1.
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(entries)
            .or_else(|_| IoUring::new(entries))?;
        // Before Linux 5.6 a send completes with an error, as if the connection were broken.
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Send::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(SendQueue {
            ring,
            memory: vec![0; MEMORY_BYTES].into(),
            used_bytes: 0,
            entries: Vec::with_capacity(ENTRIES),
            turns: 0,
        })
    }

    /// Queues a write of so many bytes.
    fn push(&mut self, wire: &Arc<Wire>, slices: &[IoSlice<'_>], bytes: usize) {
        if bytes > MEMORY_BYTES - self.used_bytes {
            self.submit();
        }
        let start = self.used_bytes;
        for slice in slices {
            let end = self.used_bytes + slice.len();
            self.memory[self.used_bytes..end].copy_from_slice(slice);
            self.used_bytes = end;
        }
        wire.queued();
        self.entries.push(Entry {
            wire: Arc::clone(wire),
            start,
            bytes,
            result: None,
        });
        if self.entries.len() == ENTRIES {
            self.submit();
        }
    }

    fn submit(&mut self) {
        match &mut self.entries[..] {
            [] => return,
            // There is nothing to share.
            [entry] => {
                let bytes = &self.memory[..entry.bytes];
                let sent = entry.wire.stream().try_write(&[IoSlice::new(bytes)]);
                entry.wire.submitted(bytes, sent);
            }
            _ => {
                self.send_all();
                for entry in &self.entries {
                    let bytes = &self.memory[entry.start..][..entry.bytes];
                    entry.wire.submitted(bytes, entry.sent());
                }
            }
        }
        self.entries.clear();
        self.used_bytes = 0;
        self.turns = 0;
    }

    /// Has the kernel try every entry.
    fn send_all(&mut self) {
        let flags = (SEND | SendFlags::DONTWAIT).bits().cast_signed();
        let mut submission = self.ring.submission();
        for (at, entry) in self.entries.iter().enumerate() {
            let socket = types::Fd(entry.wire.stream().as_fd().as_raw_fd());
            let bytes = &self.memory[entry.start..][..entry.bytes];
            let send = opcode::Send::new(socket, bytes.as_ptr(), bytes.len() as u32)
                .flags(flags)
                .build()
                .user_data(at as u64);
            // SAFETY: the kernel uses the bytes and the socket until the send is complete.
            // `submit` keeps both until this function returns, and it returns when all are
            // complete, or aborts.
            let pushed = unsafe { submission.push(&send) };
            // To wait for one that is not there would take for ever.
            assert!(pushed.is_ok(), "there are as many places as entries");
        }
        drop(submission);
        let mut missing = self.entries.len();
        while missing > 0 {
            match self.ring.submit_and_wait(missing) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel is out of memory, and has taken nothing this time.
                Err(error) if is_temporary(&error) => std::thread::yield_now(),
                Err(error) => {
                    // Nobody knows what the kernel has read, and whether it still does.
                    tracing::error!("io_uring failed: {error}");
                    std::process::abort();
                }
            }
            for completion in self.ring.completion() {
                let completion: cqueue::Entry = completion;
                self.entries[completion.user_data() as usize].result = Some(completion.result());
                missing -= 1;
            }
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::AGAIN, Errno::BUSY, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl Entry {
    /// How many bytes the kernel took.
    fn sent(&self) -> io::Result<usize> {
        let result = self.result.unwrap_or(0);
        usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
    }
}

impl Drop for SendQueue {
    fn drop(&mut self) {
        self.submit();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::{Context, Poll, Waker};

    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    use super::*;
    use crate::http2::server::Connection;
    use crate::service::Service as _;
    use crate::transport::call::Served;
    use crate::transport::socket::Socket;
    use crate::transport::test_support::{Feed, Wakes, pair};
    use crate::transport::writer::{Writer, Written};

    /// A thread with a queue; `false` where the kernel has none.
    fn has_queue() -> bool {
        let queue = Queue::make();
        let has_queue = matches!(queue, Queue::Some(_));
        QUEUE.set(queue);
        if !has_queue {
            eprintln!("not tested: the kernel has no io_uring for us");
        }
        has_queue
    }

    fn write(socket: &mut Socket, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut cx = Context::from_waker(Waker::noop());
        socket.poll_write(&mut cx, &[IoSlice::new(bytes)])
    }

    /// What has arrived.
    fn arrived(peer: &UnixStream) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        let read = rustix::net::recv(peer, &mut bytes[..], rustix::net::RecvFlags::empty());
        bytes.truncate(read.map_or(0, |(bytes, _)| bytes));
        bytes
    }

    #[tokio::test]
    async fn short_writes_are_submitted_together() {
        if !has_queue() {
            return;
        }
        let mut pairs: Vec<_> = (0..ENTRIES).map(|_| pair()).collect();
        for (at, (socket, peer)) in pairs.iter_mut().enumerate() {
            let Poll::Ready(Ok(5)) = write(socket, &[at as u8; 5]) else {
                panic!("it takes all");
            };
            let is_last = at + 1 == ENTRIES;
            assert_eq!(!arrived(peer).is_empty(), is_last, "{at}");
        }
        for (at, (_, peer)) in pairs[..ENTRIES - 1].iter().enumerate() {
            assert_eq!(arrived(peer), [at as u8; 5]);
        }
    }

    #[tokio::test]
    async fn writes_for_which_there_is_no_memory_left_are_queued_after_the_others() {
        if !has_queue() {
            return;
        }
        let longest = [7; MAX_WRITE_BYTES];
        let fit = MEMORY_BYTES / MAX_WRITE_BYTES;
        assert!(fit < ENTRIES);
        let mut pairs: Vec<_> = (0..=fit).map(|_| pair()).collect();
        for (socket, _) in &mut pairs {
            assert!(matches!(
                write(socket, &longest),
                Poll::Ready(Ok(MAX_WRITE_BYTES))
            ));
        }
        let lengths: Vec<_> = pairs.iter().map(|(_, peer)| arrived(peer).len()).collect();
        assert_eq!(lengths, [vec![MAX_WRITE_BYTES; fit], vec![0]].concat());
        submit();
        assert_eq!(arrived(&pairs[fit].1), longest);
    }

    #[tokio::test]
    async fn the_order_of_a_sockets_writes_stays() {
        if !has_queue() {
            return;
        }
        let (mut socket, peer) = pair();
        let (mut other, _other_peer) = pair();
        let long = vec![2; MAX_WRITE_BYTES + 1];
        assert!(write(&mut other, b"queued too").is_ready());
        for bytes in [&[1; 3][..], &long, &[3; 3]] {
            assert!(matches!(write(&mut socket, bytes), Poll::Ready(Ok(n)) if n == bytes.len()));
        }
        submit();
        assert_eq!(arrived(&peer), [&[1; 3][..], &long, &[3; 3]].concat());
    }

    #[tokio::test]
    async fn what_a_full_socket_does_not_take_is_written_later_and_nothing_is_lost() {
        if !has_queue() {
            return;
        }
        let (mut socket, mut peer) = pair();
        let (mut other, other_peer) = pair();
        let wakes = Arc::new(Wakes::default());
        socket.handle().register(&wakes.waker());
        let mut sent = Vec::new();
        let mut number = 0u32;
        while !socket.has_left() {
            let bytes = number.to_be_bytes().repeat(MAX_WRITE_BYTES / 4);
            assert!(write(&mut other, b".").is_ready());
            assert!(matches!(
                write(&mut socket, &bytes),
                Poll::Ready(Ok(MAX_WRITE_BYTES))
            ));
            sent.extend(bytes);
            submit();
            number += 1;
        }
        assert_eq!(wakes.count(), 1, "its task is to look at it");
        assert_eq!(arrived(&other_peer).len(), number as usize, "others go on");
        assert!(write(&mut socket, b"!").is_pending());
        assert!(socket.handle().write_block().is_some());
        let written = tokio::spawn(async move {
            poll_fn(|cx| socket.poll_write(cx, &[IoSlice::new(b"!")]))
                .await
                .unwrap();
            submit();
            assert_eq!(socket.handle().write_block(), None);
        });
        sent.push(b'!');
        let mut received = vec![0; sent.len()];
        peer.read_exact(&mut received).await.unwrap();
        assert!(received == sent);
        written.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_left_is_written_though_no_stream_may_send() {
        if !has_queue() {
            return;
        }
        let (mut socket, mut peer) = pair();
        let mut sent = 0;
        while !socket.has_left() {
            assert!(write(&mut socket, &[1; MAX_WRITE_BYTES]).is_ready());
            submit();
            sent += MAX_WRITE_BYTES;
        }
        let mut http: Connection<Option<Served<Feed>>> = Connection::new(Feed::LIMITS);
        http.output().clear();
        let mut writer = Writer::<Arc<[u8]>>::default();
        // It has data, and no stream whose window is open.
        let mut poll =
            |cx: &mut Context<'_>| match writer.poll_write(&mut socket, &mut http, true, cx) {
                Ok(Written::Blocked) => Poll::Pending,
                written => Poll::Ready(written),
            };
        assert!(poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let mut received = vec![0; sent];
        let reading = async { peer.read_exact(&mut received).await };
        let (written, read) = tokio::join!(poll_fn(poll), reading);
        assert!(matches!(written, Ok(Written::All { bytes: 0 })));
        read.unwrap();
    }

    #[tokio::test]
    async fn what_a_socket_has_queued_is_sent_though_it_is_dropped() {
        if !has_queue() {
            return;
        }
        let (mut socket, mut peer) = pair();
        assert!(write(&mut socket, b"last").is_ready());
        drop(socket);
        submit();
        let mut received = Vec::new();
        peer.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"last");
    }

    #[tokio::test]
    async fn a_task_that_has_moved_waits_for_the_thread_that_it_came_from() {
        if !has_queue() {
            return;
        }
        let (mut socket, peer) = pair();
        assert!(write(&mut socket, b"first").is_ready());
        let wakes = Arc::new(Wakes::default());
        let waker = wakes.waker();
        let mut socket = std::thread::spawn(move || {
            let polled =
                socket.poll_write(&mut Context::from_waker(&waker), &[IoSlice::new(b"second")]);
            assert!(polled.is_pending(), "it has another queue, or none");
            socket
        })
        .join()
        .unwrap();
        assert_eq!((wakes.count(), arrived(&peer)), (0, Vec::new()));
        submit();
        assert_eq!((wakes.count(), &arrived(&peer)[..]), (1, &b"first"[..]));
        assert!(write(&mut socket, b"second").is_ready());
    }

    #[tokio::test]
    async fn a_peer_that_has_gone_ends_its_own_socket_alone() {
        if !has_queue() {
            return;
        }
        let (mut socket, peer) = pair();
        let (mut other, other_peer) = pair();
        drop(peer);
        for socket in [&mut socket, &mut other] {
            assert!(write(socket, b"to whom?").is_ready());
        }
        submit();
        assert!(socket.has_left());
        let Poll::Ready(Err(error)) = write(&mut socket, b"more") else {
            panic!("the peer has gone");
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(arrived(&other_peer), b"to whom?");
    }

    #[tokio::test]
    async fn a_queued_write_waits_for_a_bounded_number_of_turns() {
        if !has_queue() {
            return;
        }
        let (mut socket, peer) = pair();
        assert!(write(&mut socket, b"soon").is_ready());
        for _ in 0..MAX_TURNS {
            turn_ended();
            assert!(arrived(&peer).is_empty());
        }
        turn_ended();
        assert_eq!(arrived(&peer), b"soon");
    }
}
