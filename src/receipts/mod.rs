//! Receipts: how far gateways have enforced session invalidations, and whether it is certain that
//! all have.
//!
//! | file | what is in it |
//! |---|---|
//! | `registry` | what each process has reported, and what follows from it |
//! | `waits` | whoever waits until all have enforced something |
//!
//! # Why it is certain
//!
//! A process reports the cursor up to which it has enforced, with a lease. The answer names the head:
//! nothing that was published before is beyond it. The process keeps one rule: *it serves nobody
//! later than a lease after it has sent a report, unless it has enforced up to the head that a later
//! report was answered with.* So, of an invalidation that was published before a moment `t`:
//!
//! - whoever has reported a cursor at or beyond it has enforced it;
//! - whoever has not was last answered, with a head that is before it, before `t`: it refuses everybody
//!   from a lease after `t` at the latest, and from a lease after its last report, if that is sooner;
//! - whoever reports for the first time, or was silent for longer than its lease, is told a head at or
//!   beyond it, and serves nobody until it is there.
//!
//! The server counts from when a report has arrived, which is later than when it was sent, and adds
//! for clocks that do not run alike: a tenth of the lease, and a tenth of a second.
//!
//! The room does no I/O, and is told the time.

#![forbid(unsafe_code)]

mod registry;
#[cfg(test)]
mod tests;
mod waits;

pub(crate) use self::registry::{Lease, Max, Report, ReportError, Who};
pub(crate) use self::waits::{Receipts, TooManyWaits, Wait};
