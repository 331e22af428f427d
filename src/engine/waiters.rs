//! Waking subscribers without the publisher paying for each.
//!
//! A parked subscriber has its waker in a cell and its bit set in a tree of
//! words: 64 bits in a leaf word, 64 leaf words under a middle word, 64 middle
//! words under the top word. A publisher looks at the top word alone; if any bit
//! is set, it schedules the *notifier*, once until that one has started. The
//! notifier clears the tree from the top and wakes what it finds, a chunk at a
//! time.
//!
//! # No wake-up is lost
//!
//! - *Park against publish.* The subscriber sets its bits, then comes a SeqCst fence,
//!   then it looks whether what it waits for has happened. Whoever makes it happen
//!   (moves the head, closes, aborts) does so by a SeqCst operation, then loads the
//!   top word, SeqCst too. In the single order of these, either the fence is first,
//!   and the bits are seen; or it is not, and the subscriber sees what happened.
//! - *Park against the notifier.* The subscriber sets upwards, and leaves out a word
//!   whose bit it finds set; the notifier clears downwards. All that changes a word is
//!   an AcqRel read-modify-write. If the notifier has cleared the leaf before the
//!   subscriber set its bit there, the subscriber sees (Acquire) that the words above
//!   are cleared, and sets them. If not, the notifier will find the bit.
//! - *Publish against the notifier.* The notifier clears `scheduled` before it looks
//!   at the tree. A publisher that finds it set leaves the bits that it saw to a look
//!   that is still to come: had the notifier cleared the top word before a bit was
//!   set that the publisher saw (Acquire), the publisher would see that `scheduled`
//!   is cleared.
//! - *A round that takes more than one turn.* A publisher that schedules the next round
//!   in the middle of one wakes the notifier, which goes on with the one that it is at.
//!   It looks at `scheduled` once more when that is over.
//! - *Taking over* wakes one subscriber by its cell, which both come to by
//!   read-modify-writes: see [`WakerCell`].

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use super::sync::thread::{self, Thread};
use super::sync::{AtomicBool, AtomicU64, Ordering, fence};
use super::waker_cell::WakerCell;

/// How many tasks the notifier wakes before it lets others run.
const CHUNK: usize = if cfg!(galaxy_loom) { 1 } else { 128 };
const FAN_OUT: usize = 64;
/// What three levels can hold.
pub(super) const MAX_SEATS: usize = FAN_OUT * FAN_OUT * FAN_OUT;

/// The place of one subscriber in the tree, until it is
/// [released](Waiters::release).
#[derive(Debug)]
pub(super) struct Seat(u32);

/// All subscribers' wakers, and who of them is parked.
pub(super) struct Waiters {
    top: CachePadded<AtomicU64>,
    middles: Box<[AtomicU64]>,
    leaves: Box<[CachePadded<AtomicU64>]>,
    cells: Box<[WakerCell]>,
    free: ArrayQueue<u32>,
    /// A notification is due, and the notifier has not begun it.
    scheduled: CachePadded<AtomicBool>,
    /// A [`Notifier`] is attached; else the engine's own thread notifies.
    attached: AtomicBool,
    notifier: WakerCell,
    /// `None` if the thread could not be started: then publishers notify.
    thread: OnceLock<Option<Thread>>,
    /// The engine is gone.
    stopped: AtomicBool,
}

impl Waiters {
    /// For at most `seats` subscribers at once, at most [`MAX_SEATS`].
    pub(super) fn new(seats: usize) -> Arc<Self> {
        let seats = seats.min(MAX_SEATS);
        let free = ArrayQueue::new(seats.max(1));
        for seat in 0..seats as u32 {
            // The queue has room for every seat.
            let _ = free.push(seat);
        }
        let words = |n: usize| n.div_ceil(FAN_OUT);
        Arc::new(Waiters {
            top: CachePadded::new(AtomicU64::new(0)),
            middles: (0..words(words(seats)))
                .map(|_| AtomicU64::new(0))
                .collect(),
            leaves: (0..words(seats))
                .map(|_| CachePadded::new(AtomicU64::new(0)))
                .collect(),
            cells: (0..seats).map(|_| WakerCell::new()).collect(),
            free,
            scheduled: CachePadded::new(AtomicBool::new(false)),
            attached: AtomicBool::new(false),
            notifier: WakerCell::new(),
            thread: OnceLock::new(),
            stopped: AtomicBool::new(false),
        })
    }

    /// A free seat, if there is one.
    pub(super) fn acquire(&self) -> Option<Seat> {
        self.free.pop().map(Seat)
    }

    /// Gives a seat back. Whoever still knows its number may wake the next holder
    /// for nothing, and no more.
    pub(super) fn release(&self, seat: &Seat) {
        let waker = self.cells[seat.0 as usize].take();
        // Fails never: each seat is in the queue at most once.
        let _ = self.free.push(seat.0);
        // Last, because it is code of the user's.
        drop(waker);
    }

    /// Leaves `waker` to be woken by the next notification. The caller checks
    /// afterwards whether what it waits for has happened meanwhile; no stronger load
    /// than usual is needed for that.
    pub(super) fn park(self: &Arc<Self>, seat: &Seat, waker: &Waker) {
        if !self.attached.load(Ordering::SeqCst) {
            self.start_thread();
        }
        let seat = seat.0 as usize;
        self.cells[seat].register(waker);
        // AcqRel, here and below: see "Park against the notifier".
        self.leaves[seat / FAN_OUT].fetch_or(bit(seat), Ordering::AcqRel);
        let leaf = seat / FAN_OUT;
        set(&self.middles[leaf / FAN_OUT], bit(leaf));
        set(&self.top, bit(leaf / FAN_OUT));
        // SeqCst: see "Park against publish".
        fence(Ordering::SeqCst);
    }

    /// Takes the bit back, to be spared a wake-up for nothing.
    pub(super) fn unpark(&self, seat: &Seat) {
        let seat = seat.0 as usize;
        // AcqRel: hands on what the notifier told whoever sets a bit next.
        self.leaves[seat / FAN_OUT].fetch_and(!bit(seat), Ordering::AcqRel);
    }

    /// Wakes one subscriber.
    pub(super) fn wake(&self, seat: &Seat) {
        self.cells[seat.0 as usize].wake();
    }

    /// Has everybody woken who is parked. Costs one load when nobody is, and the
    /// same however many are.
    ///
    /// What they are woken for was done before, by a SeqCst operation.
    pub(super) fn notify(self: &Arc<Self>) {
        // SeqCst: see "Park against publish", and `Notifier::drop`.
        if self.top.load(Ordering::SeqCst) != 0 && !self.scheduled.swap(true, Ordering::SeqCst) {
            self.schedule();
        }
    }

    fn schedule(self: &Arc<Self>) {
        if self.attached.load(Ordering::SeqCst) {
            // A waker is code of the user's. If it panics, the notifier will not come.
            let woken = catch_unwind(AssertUnwindSafe(|| self.notifier.wake()));
            if woken.is_err() {
                self.notify_all();
            }
        } else if let Some(thread) = self.start_thread() {
            thread.unpark();
        } else {
            self.notify_all();
        }
    }

    /// Wakes everybody who is parked, from this thread.
    fn notify_all(&self) {
        let mut round = Round::default();
        while !self.notify_chunk(&mut round) {}
    }

    /// Wakes up to [`CHUNK`] tasks; returns whether that was all of them. If one of
    /// their wakers panics, the others are still woken.
    fn notify_chunk(&self, round: &mut Round) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.try_notify_chunk(round))).unwrap_or(false)
    }

    fn try_notify_chunk(&self, round: &mut Round) -> bool {
        if round.is_over() {
            // Release, all of them: see "Publish against the notifier".
            self.scheduled.store(false, Ordering::Release);
            round.top = self.top.swap(0, Ordering::AcqRel);
        }
        let mut woken = 0;
        loop {
            if round.leaf != 0 {
                let seat = round.leaf_number * FAN_OUT + take_lowest(&mut round.leaf);
                self.cells[seat].wake();
                woken += 1;
                if woken == CHUNK {
                    return round.is_over();
                }
            } else if round.middle != 0 {
                round.leaf_number = round.middle_number * FAN_OUT + take_lowest(&mut round.middle);
                round.leaf = self.leaves[round.leaf_number].swap(0, Ordering::AcqRel);
            } else if round.top != 0 {
                round.middle_number = take_lowest(&mut round.top);
                round.middle = self.middles[round.middle_number].swap(0, Ordering::AcqRel);
            } else {
                return true;
            }
        }
    }

    /// Lets the notifier end: the engine is gone.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.notifier.wake();
        if let Some(Some(thread)) = self.thread.get() {
            thread.unpark();
        }
    }

    fn start_thread(self: &Arc<Self>) -> Option<&Thread> {
        self.thread
            .get_or_init(|| {
                let waiters = Arc::clone(self);
                thread::Builder::new()
                    .name("push-notifier".to_owned())
                    .spawn(move || waiters.run())
                    .ok()
                    .map(|handle| handle.thread().clone())
            })
            .as_ref()
    }

    /// The engine's own notifier, where no other is attached.
    fn run(&self) {
        while !self.stopped.load(Ordering::SeqCst) {
            if self.scheduled.load(Ordering::SeqCst) && !self.attached.load(Ordering::SeqCst) {
                self.notify_all();
            } else {
                // A token left by `unpark` meanwhile lets this return at once.
                thread::park();
            }
        }
    }
}

impl fmt::Debug for Waiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiters")
            .field("seats", &self.cells.len())
            .field("scheduled", &self.scheduled)
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}

/// How far a notification has come: what is still to be looked at.
#[derive(Debug, Default)]
struct Round {
    top: u64,
    middle: u64,
    middle_number: usize,
    leaf: u64,
    leaf_number: usize,
}

impl Round {
    fn is_over(&self) -> bool {
        self.top | self.middle | self.leaf == 0
    }
}

fn bit(number: usize) -> u64 {
    1 << (number % FAN_OUT)
}

/// Sets a bit, without taking the cache line where it is set.
fn set(word: &AtomicU64, bit: u64) {
    // Relaxed: the leaf was set with Acquire, so what is found set is still to be
    // cleared.
    if word.load(Ordering::Relaxed) & bit == 0 {
        word.fetch_or(bit, Ordering::AcqRel);
    }
}

fn take_lowest(word: &mut u64) -> usize {
    let lowest = word.trailing_zeros() as usize;
    *word &= *word - 1;
    lowest
}

/// Wakes the engine's parked subscribers from a task of the caller's runtime,
/// instead of from the engine's own thread: waking from a worker is cheaper, and
/// the woken tasks run where the runtime balances them.
///
/// A future that ends when the engine is gone. An engine has one notifier at a
/// time: while one is attached, a second one does nothing and ends at once. When
/// it is dropped, the engine's own thread takes over again.
#[must_use = "until it is polled, nobody is woken"]
pub struct Notifier {
    /// `None` for a second one.
    waiters: Option<Arc<Waiters>>,
    round: Round,
}

impl Notifier {
    pub(super) fn attach(waiters: &Arc<Waiters>) -> Self {
        let first = !waiters.attached.swap(true, Ordering::SeqCst);
        Notifier {
            waiters: first.then(|| Arc::clone(waiters)),
            round: Round::default(),
        }
    }

    /// Waits until something was published while subscribers are parked, and then wakes
    /// all of them: a *round*. `Ready(true)` when they are woken, `Ready(false)` when the
    /// engine is gone, or for a second notifier.
    ///
    /// For a task that wants to know what a round took, or to let some time pass between
    /// two of them: what is published until the next call waits for it. Whoever only
    /// wants subscribers to be woken awaits the notifier itself.
    pub fn poll_round(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Notifier { waiters, round } = self;
        let Some(waiters) = waiters else {
            return Poll::Ready(false);
        };
        waiters.notifier.register(cx.waker());
        if waiters.stopped.load(Ordering::SeqCst) {
            return Poll::Ready(false);
        }
        if round.is_over() && !waiters.scheduled.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        if waiters.notify_chunk(round) {
            return Poll::Ready(true);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether a round has begun and not all of them are woken: of many, a part is woken by
    /// each call of [`poll_round`](Self::poll_round), which lets those run.
    #[must_use]
    pub fn is_waking(&self) -> bool {
        !self.round.is_over()
    }
}

impl Future for Notifier {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.poll_round(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(false) => Poll::Ready(()),
            Poll::Ready(true) => {
                // Who schedules the next round in the middle of this one wakes us for
                // what is left of this one, and no more.
                let again = |waiters: &Arc<Waiters>| waiters.scheduled.load(Ordering::SeqCst);
                if self.waiters.as_ref().is_some_and(again) {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        let Some(waiters) = &self.waiters else {
            return;
        };
        waiters.attached.store(false, Ordering::SeqCst);
        // What this one was in the middle of, and what was left to it: publishers
        // that found it attached set `scheduled` before.
        while !self.round.is_over() {
            waiters.notify_chunk(&mut self.round);
        }
        // From here, whatever runtime is ending: the engine's thread is started by
        // those alone whose engine is not gone.
        if waiters.scheduled.load(Ordering::SeqCst) {
            waiters.notify_all();
        }
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}
