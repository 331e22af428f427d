//! What responses have under way: what was to be written, and has not gone to the peer.
//!
//! Whether a peer takes what it is given is not seen by its connection's reads and
//! writes: HTTP/2 has a window for each stream, and one that is shut holds up that
//! stream alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::connection::{Call, Link};

/// Counts bytes from when they have to wait until they are gone.
#[derive(Debug, Default)]
pub(super) struct Meter {
    given_bytes: AtomicU64,
    gone_bytes: AtomicU64,
}

impl Meter {
    /// `bytes` are given, by somebody who tells when they are gone.
    fn give(&self, bytes: u64) {
        // Relaxed: `under_way` needs no more than that it comes before `go`, which the
        // same task calls.
        self.given_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// `bytes` of what was given are gone.
    fn go(&self, bytes: u64) {
        // Release: pairs with the Acquire in `under_way`.
        self.gone_bytes.fetch_add(bytes, Ordering::Release);
    }

    /// While something is under way: a number that stays the same for as long as
    /// nothing of it has gone.
    pub(super) fn under_way(&self) -> Option<u64> {
        // Acquire: whatever is seen gone is also seen given, so that there never
        // seems to be less than nothing. Pairs with the Release in `go`.
        let gone = self.gone_bytes.load(Ordering::Acquire);
        let given = self.given_bytes.load(Ordering::Relaxed);
        (given > gone).then_some(gone)
    }
}

/// One stream of pieces, watched until it has ended and all of it has gone.
#[derive(Debug)]
pub(super) struct Flow {
    /// What the log calls it.
    name: Box<str>,
    call: Call,
    meter: Arc<Meter>,
    ended: AtomicBool,
}

impl Flow {
    /// A flow of `call`, and what stands for its giving end: dropping that ends
    /// the flow.
    pub(super) fn new(name: Box<str>, call: Call) -> (Arc<Self>, Source) {
        let flow = Arc::new(Flow {
            name,
            call,
            meter: Arc::default(),
            ended: AtomicBool::new(false),
        });
        let source = Source {
            meter: Arc::clone(&flow.meter),
            flow: Arc::clone(&flow),
        };
        (flow, source)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn link(&self) -> &Link {
        self.call.link()
    }

    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Whether it has ended and all of it has gone.
    pub(super) fn is_finished(&self) -> bool {
        self.ended.load(Ordering::Acquire) && self.meter.under_way().is_none()
    }
}

/// The giving end of a [`Flow`].
#[derive(Debug)]
pub(super) struct Source {
    meter: Arc<Meter>,
    flow: Arc<Flow>,
}

impl Drop for Source {
    fn drop(&mut self) {
        // Release, and Acquire in `is_finished`: who sees the end sees everything
        // that was given before it.
        self.flow.ended.store(true, Ordering::Release);
    }
}

/// What is given by somebody who writes to the socket itself, and so knows what has gone.
/// What goes as soon as it is given, nobody need know of.
#[derive(Debug)]
pub(super) struct Load {
    account: Account,
    under_way_bytes: u64,
    /// How much of that the account knows of.
    told_bytes: u64,
}

/// Who watches whether it goes.
#[derive(Debug)]
pub(super) enum Account {
    /// A flow of its own, for a stream that may go on for long.
    Own(Source),
    /// The connection, for one short answer of many.
    Link(Call),
}

impl Account {
    fn meter(&self) -> &Meter {
        match self {
            Account::Own(source) => &source.meter,
            Account::Link(call) => call.link().answers(),
        }
    }
}

impl Load {
    pub(super) fn new(account: Account) -> Self {
        Load {
            account,
            under_way_bytes: 0,
            told_bytes: 0,
        }
    }

    /// So much more is to be written.
    pub(super) fn give(&mut self, bytes: u64) {
        self.under_way_bytes += bytes;
    }

    /// So much was written.
    pub(super) fn go(&mut self, bytes: u64) {
        self.under_way_bytes -= bytes;
        let told = bytes.min(self.told_bytes);
        if told > 0 {
            self.told_bytes -= told;
            self.account.meter().go(told);
        }
    }

    /// What was given and has not gone stays under way for now: from here on it counts
    /// as waiting for the peer.
    pub(super) fn wait(&mut self) {
        let untold = self.under_way_bytes - self.told_bytes;
        if untold > 0 {
            self.told_bytes = self.under_way_bytes;
            self.account.meter().give(untold);
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // What was not written is dropped with it.
        self.account.meter().go(self.told_bytes);
    }
}
