//! What stands at each sequence of one epoch, by the responses to publishers.
//!
//! One word an event: its fingerprint, and whether a batch begins with it. Pages of
//! words hang in a map, so that a sequence that makes no sense costs one page and
//! not all the memory below it. Publishers write, readers look; both hold on to the
//! page that they used last, and come to the map once in 4096 events.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::fingerprint::Fingerprint;

const PAGE_EVENTS: u64 = 4096;

#[derive(Debug)]
pub(super) struct Ledger {
    pages: RwLock<Pages>,
    /// The last sequence that was there before the record began.
    base: u64,
    /// Whether all events come from publishers whose responses are written here.
    complete: bool,
}

type Pages = BTreeMap<u64, Held>;

#[derive(Debug)]
enum Held {
    Page(Arc<Page>),
    /// It was forgotten, to save memory.
    Forgotten,
}

#[derive(Debug)]
pub(super) struct Page {
    number: u64,
    /// How many of its events were accepted.
    accepted: AtomicU64,
    /// `fingerprint << 1 | begins a batch`; 0 until it is accepted.
    words: Box<[AtomicU64]>,
}

/// The page that a publisher or a reader used last.
pub(super) type Bookmark = Option<Arc<Page>>;

/// What the ledger knows of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A response says that this event stands there.
    Accepted {
        fingerprint: Fingerprint,
        begins_batch: bool,
    },
    /// No response names it, so far.
    Pending,
    /// It was there before the record began, or was forgotten since.
    Forgotten,
}

/// The sequence was given to somebody before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GivenBefore;

impl Ledger {
    pub(super) fn new(base: u64, complete: bool) -> Self {
        Ledger {
            pages: RwLock::default(),
            base,
            complete,
        }
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Writes that a response names `seq`, which is at least 1.
    pub(super) fn accept(
        &self,
        bookmark: &mut Bookmark,
        seq: u64,
        fingerprint: Fingerprint,
        begins_batch: bool,
    ) -> Result<(), GivenBefore> {
        let (number, index) = place(seq);
        if bookmark.as_ref().is_none_or(|page| page.number != number) {
            let mut pages = self.write();
            let held = pages
                .entry(number)
                .or_insert_with(|| Held::Page(Arc::new(Page::new(number))));
            match held {
                Held::Page(page) => *bookmark = Some(Arc::clone(page)),
                Held::Forgotten if self.complete => return Err(GivenBefore),
                Held::Forgotten => return Ok(()),
            }
        }
        let Some(page) = bookmark else {
            unreachable!("it was filled above")
        };
        let word = fingerprint.number() << 1 | u64::from(begins_batch);
        // Relaxed, here and in `look`: the word is all there is to see.
        page.words[index]
            .compare_exchange(0, word, Ordering::Relaxed, Ordering::Relaxed)
            .map_err(|_| GivenBefore)?;
        // Relaxed: the count only ever grows, and to see it late does no harm.
        page.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// What is known of `seq`.
    pub(super) fn look(&self, bookmark: &mut Bookmark, seq: u64) -> Entry {
        if seq <= self.base {
            return Entry::Forgotten;
        }
        let (number, index) = place(seq);
        if bookmark.as_ref().is_none_or(|page| page.number != number) {
            match self.read().get(&number) {
                Some(Held::Page(page)) => *bookmark = Some(Arc::clone(page)),
                Some(Held::Forgotten) => return Entry::Forgotten,
                None => return Entry::Pending,
            }
        }
        match bookmark {
            Some(page) => page.entry(index),
            None => Entry::Pending,
        }
    }

    /// Gives the memory of all pages back that end before `seq`. In a complete
    /// ledger, a page that lacks a response stays: it is needed to judge the event
    /// that stands there.
    pub(super) fn forget_before(&self, seq: u64) {
        let (until, _) = place(seq.max(1));
        for held in self.write().range_mut(..until).map(|(_, held)| held) {
            if matches!(held, Held::Page(page) if page.is_full() || !self.complete) {
                *held = Held::Forgotten;
            }
        }
    }

    /// The runs of sequences up to `top` that no response names; none in a
    /// ledger that is not complete.
    pub(super) fn holes(&self, top: u64) -> Vec<RangeInclusive<u64>> {
        if !self.complete {
            return Vec::new();
        }
        let mut holes = Holes {
            runs: Vec::new(),
            next: self.base.saturating_add(1),
        };
        for (number, held) in self.read().iter() {
            let first = number * PAGE_EVENTS + 1;
            let last = first.saturating_add(PAGE_EVENTS - 1);
            match held {
                Held::Page(page) if !page.is_full() => {
                    for (seq, index) in (first..=last).zip(0..) {
                        if page.entry(index) != Entry::Pending {
                            holes.taken(seq, seq, top);
                        }
                    }
                }
                Held::Page(_) | Held::Forgotten => holes.taken(first, last, top),
            }
        }
        holes.up_to(top);
        holes.runs
    }

    fn read(&self) -> RwLockReadGuard<'_, Pages> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pages> {
        self.pages.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The page of `seq` and its place there.
fn place(seq: u64) -> (u64, usize) {
    let index = seq - 1;
    (index / PAGE_EVENTS, (index % PAGE_EVENTS) as usize)
}

impl Page {
    fn new(number: u64) -> Self {
        Page {
            number,
            accepted: AtomicU64::new(0),
            words: (0..PAGE_EVENTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn is_full(&self) -> bool {
        self.accepted.load(Ordering::Relaxed) == PAGE_EVENTS
    }

    fn entry(&self, index: usize) -> Entry {
        match self.words[index].load(Ordering::Relaxed) {
            0 => Entry::Pending,
            word => Entry::Accepted {
                fingerprint: Fingerprint::from_number(word >> 1),
                begins_batch: word & 1 == 1,
            },
        }
    }
}

/// Collects what lies between accepted sequences.
struct Holes {
    runs: Vec<RangeInclusive<u64>>,
    /// The first sequence that has not been looked at.
    next: u64,
}

impl Holes {
    fn taken(&mut self, first: u64, last: u64, top: u64) {
        self.up_to(top.min(first - 1));
        self.next = self.next.max(last.saturating_add(1));
    }

    fn up_to(&mut self, last: u64) {
        if self.next <= last {
            self.runs.push(self.next..=last);
            self.next = last.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(ledger: &Ledger, seqs: RangeInclusive<u64>) {
        let mut bookmark = None;
        for seq in seqs {
            let event = Fingerprint::of(&seq.to_le_bytes());
            ledger.accept(&mut bookmark, seq, event, true).unwrap();
        }
    }

    #[test]
    fn what_was_accepted_is_found_again() {
        let ledger = Ledger::new(0, true);
        accept(&ledger, 1..=10_000);
        let mut bookmark = None;
        for seq in [1u64, 4096, 4097, 10_000, 1] {
            let accepted = Entry::Accepted {
                fingerprint: Fingerprint::of(&seq.to_le_bytes()),
                begins_batch: true,
            };
            assert_eq!(ledger.look(&mut bookmark, seq), accepted);
        }
        for seq in [10_001, 20_000, u64::MAX] {
            assert_eq!(ledger.look(&mut bookmark, seq), Entry::Pending);
        }
    }

    #[test]
    fn a_sequence_is_given_once() {
        let ledger = Ledger::new(0, true);
        let event = Fingerprint::of(b"event");
        accept(&ledger, 1..=4096);
        let again = |seq| ledger.accept(&mut None, seq, event, false);
        assert_eq!(again(4096), Err(GivenBefore));
        ledger.forget_before(4097);
        assert_eq!(again(1), Err(GivenBefore), "forgotten is not free");
        assert_eq!(again(u64::MAX), Ok(()));
    }

    #[test]
    fn full_pages_are_forgotten_and_others_stay() {
        let ledger = Ledger::new(0, true);
        accept(&ledger, 1..=4096);
        accept(&ledger, 4098..=12_288);
        ledger.forget_before(12_289);
        let look = |seq| ledger.look(&mut None, seq);
        assert_eq!(look(1), Entry::Forgotten);
        assert_eq!(look(4097), Entry::Pending);
        assert!(matches!(look(4098), Entry::Accepted { .. }));
        assert_eq!(look(12_288), Entry::Forgotten);
        assert_eq!(ledger.holes(12_290), [4097..=4097, 12_289..=12_290]);
    }

    #[test]
    fn holes_are_what_no_response_names() {
        let ledger = Ledger::new(5, true);
        assert_eq!(ledger.holes(5), []);
        assert_eq!(ledger.holes(7), [6..=7]);
        accept(&ledger, 7..=9);
        accept(&ledger, 20_000..=20_001);
        assert_eq!(ledger.holes(9), [6..=6]);
        assert_eq!(ledger.holes(8), [6..=6]);
        assert_eq!(ledger.holes(20_001), [6..=6, 10..=19_999]);
        assert_eq!(ledger.look(&mut None, 5), Entry::Forgotten);
    }

    #[test]
    fn with_other_publishers_nothing_is_a_hole() {
        let ledger = Ledger::new(0, false);
        accept(&ledger, 7..=9);
        assert_eq!(ledger.holes(9), []);
        ledger.forget_before(4097);
        assert_eq!(ledger.look(&mut None, 6), Entry::Forgotten);
        accept(&ledger, 5..=6);
    }
}
