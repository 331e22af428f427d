//! Records, back to back in the order of their sequences.
//!
//! ```text
//! sequence | state | length | the event as it was published
//!    8     |   8   |   4    |            length
//! ```

/// What a chunk holds, unless one record is larger.
pub(super) const BYTES: usize = 4096;
/// What a record takes beside its event.
pub(super) const HEADER_BYTES: usize = 20;

/// The state of a record that a newer one has replaced: the bit, and that one's sequence. Else
/// it is when the record was published, in milliseconds, which have 63 bits.
const REPLACED: u64 = 1 << 63;

/// One invalidation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) seq: u64,
    state: u64,
    pub(super) event: &'a [u8],
}

impl<'a> Record<'a> {
    /// The sequence of what has replaced it.
    pub(super) fn replaced_by(&self) -> Option<u64> {
        (self.state & REPLACED != 0).then_some(self.state & !REPLACED)
    }

    /// When it was published, of one that is not replaced.
    pub(super) fn published_ms(&self) -> u64 {
        self.state & !REPLACED
    }

    /// Whether it was the newest of its session for those who have read up to `head`.
    pub(super) fn is_newest_at(&self, head: u64) -> bool {
        self.seq <= head && self.replaced_by().is_none_or(|newer| newer > head)
    }

    /// What it takes.
    pub(super) fn bytes(&self) -> usize {
        HEADER_BYTES + self.event.len()
    }

    /// The first record in `bytes`, and the rest.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (seq, rest) = bytes.split_first_chunk()?;
        let (state, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (event, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let record = Record {
            seq: u64::from_le_bytes(*seq),
            state: u64::from_le_bytes(*state),
            event,
        };
        Some((record, rest))
    }

    fn write_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        bytes.extend_from_slice(&self.state.to_le_bytes());
        // No event has 4 GiB.
        bytes.extend_from_slice(&(self.event.len() as u32).to_le_bytes());
        bytes.extend_from_slice(self.event);
    }
}

/// A run of records.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    /// Where the first one starts: those before it are gone.
    start: usize,
    /// How many are not replaced.
    newest: u32,
    /// What the replaced ones take.
    replaced: usize,
    /// The oldest sequence that one of them was replaced by, or an older one; 0 if none was.
    replaced_from: u64,
}

impl Chunk {
    /// Appends a record, if it fits in or if there is none yet.
    pub(super) fn push(&mut self, seq: u64, published_ms: u64, event: &[u8]) -> bool {
        let after = self.bytes.len() + HEADER_BYTES + event.len();
        if after > BYTES && !self.bytes.is_empty() {
            return false;
        }
        self.bytes
            .reserve_exact(after.max(BYTES) - self.bytes.len());
        let record = Record {
            seq,
            state: published_ms & !REPLACED,
            event,
        };
        self.add(&record);
        true
    }

    /// There is room for it.
    fn add(&mut self, record: &Record<'_>) {
        record.write_to(&mut self.bytes);
        match record.replaced_by() {
            None => self.newest += 1,
            Some(by) => self.note_replaced(record.bytes(), by),
        }
    }

    fn note_replaced(&mut self, bytes: usize, by: u64) {
        self.replaced += bytes;
        self.replaced_from = match self.replaced_from {
            0 => by,
            from => from.min(by),
        };
    }

    pub(super) fn records(&self) -> Records<'_> {
        Records {
            rest: &self.bytes[self.start..],
        }
    }

    /// The record `seq`, and where it is.
    pub(super) fn find(&self, seq: u64) -> Option<(usize, Record<'_>)> {
        let mut at = self.start;
        loop {
            let (record, _) = Record::split(&self.bytes[at..])?;
            if record.seq == seq {
                return Some((at, record));
            }
            at += record.bytes();
        }
    }

    /// Marks the record at this place as replaced.
    pub(super) fn replace(&mut self, at: usize, by: u64) {
        let Some((record, _)) = Record::split(&self.bytes[at..]) else {
            return;
        };
        let bytes = record.bytes();
        self.newest -= 1;
        self.note_replaced(bytes, by);
        let state = at + size_of::<u64>()..at + 2 * size_of::<u64>();
        self.bytes[state].copy_from_slice(&(REPLACED | by).to_le_bytes());
    }

    /// Removes the first record.
    pub(super) fn pop(&mut self) {
        if let Some((record, _)) = Record::split(&self.bytes[self.start..]) {
            match record.replaced_by() {
                None => self.newest -= 1,
                Some(_) => self.replaced -= record.bytes(),
            }
            self.start += record.bytes();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Whether so much of it is replaced that it is worth to be written anew.
    pub(super) fn is_worn(&self) -> bool {
        8 * self.replaced >= self.len()
    }

    /// How many of its records are not replaced.
    pub(super) fn newest(&self) -> u64 {
        u64::from(self.newest)
    }

    /// Whether one of its records may have been replaced at `horizon` or before.
    pub(super) fn can_be_cleaned(&self, horizon: u64) -> bool {
        (1..=horizon).contains(&self.replaced_from)
    }

    /// What its records take.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Its memory.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Writes it anew, in no more memory than it needs, without those that were replaced at
    /// `horizon` or before.
    pub(super) fn clean(&mut self, horizon: u64) {
        let is_kept = |record: &Record<'_>| record.replaced_by().is_none_or(|by| by > horizon);
        let kept = || self.records().filter(is_kept);
        let mut clean = Chunk::with_room_for(kept().map(|record| record.bytes()).sum());
        kept().for_each(|record| clean.add(&record));
        *self = clean;
    }

    /// Takes in the records of the chunk after it, for which there must be room.
    pub(super) fn merge(&mut self, next: &Chunk) {
        let mut merged = Chunk::with_room_for(self.len() + next.len());
        let all = self.records().chain(next.records());
        all.for_each(|record| merged.add(&record));
        *self = merged;
    }

    fn with_room_for(bytes: usize) -> Self {
        Chunk {
            bytes: Vec::with_capacity(bytes),
            ..Chunk::default()
        }
    }
}

/// The records of a chunk, in their order.
#[derive(Debug)]
pub(super) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (record, rest) = Record::split(self.rest)?;
        self.rest = rest;
        Some(record)
    }
}
