//! The newest invalidation of each session, for longer than the ring keeps it.
//!
//! A gateway that was away for longer than the ring reaches back does not know which sessions
//! were revoked meanwhile. Of all that it has missed, this is what it must not go without. So
//! invalidations are kept in a [`Table`], by user and session, the newest of each, as they were
//! published.
//!
//! | file | noun |
//! |---|---|
//! | `table` | what is kept, what is evicted, and what a replay reads |
//! | `chunk` | some kilobytes of records, in the order of their sequences |
//! | `keys` | user and session to sequence |
//!
//! # Exact, while it changes
//!
//! A replay is told its length before it begins, and reads as its gateway takes it. Until it is
//! over, an invalidation that takes the place of an older one leaves that in the table, marked
//! with its own sequence: the replay sees what was newest when it began. Where the memory is too
//! short for that, the replays are given up, and not what the table is to keep.
//!
//! # It must never
//!
//! - forget an invalidation without a mark of it, so that whoever misses it is told;
//! - take more memory than its limits say, whatever is published and however slowly it is read;
//! - work for long at a time: publishers do not wait for it, but readers do.

#![forbid(unsafe_code)]

mod chunk;
mod keys;
mod table;
#[cfg(all(test, not(galaxy_loom)))]
mod tests;

pub(crate) use self::table::{Limits, Replay, Stats, Table};
