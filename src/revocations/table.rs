//! What is kept, what is evicted, and what a replay reads.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::chunk::{self, Chunk, Record};
use super::keys::{Key, Keys};
use crate::event::Invalidation;

/// What a chunk takes beside its records.
const CHUNK_OVERHEAD_BYTES: usize = 96;
/// When it is looked again whether a replay still holds the oldest record, in milliseconds.
const HELD_MS: u64 = 10_000;
/// How many chunks are cleaned at a time that could not be before.
const CLEANED_AT_ONCE: usize = 16;

/// How much a table keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How many invalidations.
    pub(crate) revocations: usize,
    /// How much memory, in bytes: records, keys, and what they are kept in.
    pub(crate) bytes: usize,
    /// For how long, in milliseconds.
    pub(crate) retention_ms: u64,
}

/// The newest invalidation of each session.
#[derive(Debug)]
pub(crate) struct Table {
    limits: Limits,
    /// By a sequence up to which there is no record of theirs, and above which none of the
    /// chunk before.
    chunks: BTreeMap<u64, Chunk>,
    keys: Keys,
    chunk_bytes: usize,
    /// How many are not replaced.
    newest: usize,
    /// The newest sequence that may be one of an invalidation which the table does not have. Who
    /// has processed everything up to there misses nothing.
    lost: u64,
    /// The last one that was evicted.
    evicted: u64,
    /// How many replays of each head are under way.
    replays: BTreeMap<u64, usize>,
    /// Replays of heads below this were given up.
    given_up: u64,
    /// Chunks that would be cleaned, were it not for replays.
    worn: BTreeSet<u64>,
    /// Where among those it goes on.
    clean_from: u64,
    evictions: u64,
    expirations: u64,
}

/// A gateway that reads what it has missed.
#[derive(Debug)]
pub(crate) struct Replay {
    /// It has read up to here.
    after: u64,
    /// It reads up to here.
    head: u64,
    left: u64,
    /// Nothing is lost between where it begins and its head.
    is_complete: bool,
}

/// The table has given the replay up: its gateway is too slow for the memory there is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outrun;

/// A table's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// How many invalidations are kept.
    pub(crate) revocations: usize,
    /// The memory they take, and all around them.
    pub(crate) bytes: usize,
    /// How many were evicted, because there was no room for them.
    pub(crate) evictions: u64,
    /// How many were forgotten, because they were kept for long enough.
    pub(crate) expirations: u64,
    /// How many replays are under way.
    pub(crate) replays: usize,
}

impl Replay {
    /// The same, of a gateway that has missed more than the table can know of.
    pub(crate) fn incomplete(mut self) -> Self {
        self.is_complete = false;
        self
    }

    /// How many are still to be read.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Whether nothing is lost between where it began and its head.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }
}

impl Table {
    pub(crate) fn new(limits: Limits) -> Self {
        Table {
            keys: Keys::new(limits.revocations),
            limits,
            chunks: BTreeMap::new(),
            chunk_bytes: 0,
            newest: 0,
            lost: 0,
            evicted: 0,
            replays: BTreeMap::new(),
            given_up: 0,
            worn: BTreeSet::new(),
            clean_from: 0,
            evictions: 0,
            expirations: 0,
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Takes in the event `seq`, an invalidation, which is newer than all before it.
    pub(crate) fn take(&mut self, seq: u64, published_ms: u64, event: &[u8]) {
        let Some(invalidation) = Invalidation::of(event) else {
            return;
        };
        let key = key_of(&invalidation);
        let hash = self.keys.hash(key);
        let chunks = &self.chunks;
        let mut place = None;
        let is_it = |seq| {
            let Some((chunk, at, record)) = locate(chunks, seq) else {
                return false;
            };
            place = Some((chunk, at));
            Invalidation::of(record.event).is_some_and(|it| key_of(&it) == key)
        };
        match self.keys.find(hash, is_it) {
            Some(newest) => {
                *newest = seq;
                if let Some((chunk, at)) = place {
                    self.replace(chunk, at, seq);
                }
            }
            None => {
                self.newest += 1;
                self.keys.insert(hash, seq, |keys, seq| {
                    // One that is not there is not found any more, wherever it is put.
                    key_at(chunks, seq).map_or(0, |key| keys.hash(key))
                });
            }
        }
        self.append(seq, published_ms, event);
        self.clean_worn();
        self.fit();
    }

    /// The invalidations up to `seq` may not all be known.
    pub(crate) fn lose(&mut self, seq: u64) {
        self.lost = self.lost.max(seq);
    }

    /// Forgets what was published longer ago than the retention, up to so many of them. Returns
    /// whether there is more.
    pub(crate) fn expire(&mut self, now_ms: u64, most: usize) -> bool {
        for _ in 0..most {
            match self.oldest_ms() {
                Some(oldest) if now_ms.saturating_sub(oldest) > self.limits.retention_ms => {
                    self.pop();
                    self.expirations += 1;
                }
                _ => return false,
            }
        }
        true
    }

    /// Changes for how long they are kept, in milliseconds.
    pub(crate) fn set_retention(&mut self, retention_ms: u64) {
        self.limits.retention_ms = retention_ms;
    }

    /// How long until the oldest is forgotten, in milliseconds.
    pub(crate) fn until_expiry_ms(&mut self, now_ms: u64) -> Option<u64> {
        match self.oldest_ms() {
            Some(oldest_ms) => {
                let expiry = oldest_ms.saturating_add(self.limits.retention_ms);
                Some(expiry.saturating_add(1).saturating_sub(now_ms))
            }
            // A replay holds the oldest, and nobody tells when it ends.
            None if !self.chunks.is_empty() => Some(HELD_MS),
            None => None,
        }
    }

    /// Begins a replay of what lies beyond `after`, for a gateway that goes on with the event
    /// after `head`: the last one of which the table knows, or a later one.
    pub(crate) fn begin(&mut self, after: u64, head: u64) -> Replay {
        *self.replays.entry(head).or_default() += 1;
        Replay {
            after: after.max(self.evicted),
            head,
            left: self.newest_after(after),
            is_complete: after >= self.lost,
        }
    }

    /// Hands the next ones to `each`, until that returns `false` or nothing is left. The last
    /// one for which it has returned `false` is among those that were read.
    pub(crate) fn read(
        &self,
        replay: &mut Replay,
        mut each: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<(), Outrun> {
        if replay.left == 0 {
            return Ok(());
        }
        if replay.head < self.given_up || replay.after < self.evicted {
            return Err(Outrun);
        }
        for record in self.records_after(replay.after) {
            if !record.is_newest_at(replay.head) {
                continue;
            }
            replay.after = record.seq;
            replay.left -= 1;
            if !each(record.seq, record.event) || replay.left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// A replay is over, or was left.
    pub(crate) fn end(&mut self, replay: &Replay) {
        if let Some(count) = self.replays.get_mut(&replay.head) {
            *count -= 1;
            if *count == 0 {
                self.replays.remove(&replay.head);
            }
        }
        self.clean_worn();
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            revocations: self.newest,
            bytes: self.bytes(),
            evictions: self.evictions,
            expirations: self.expirations,
            replays: self.replays.values().sum(),
        }
    }

    fn bytes(&self) -> usize {
        self.chunk_bytes + self.keys.bytes()
    }

    /// What was replaced up to here, no replay needs.
    fn horizon(&self) -> u64 {
        let oldest = self.replays.range(self.given_up..).next();
        oldest.map_or(u64::MAX, |(head, _)| *head)
    }

    fn records_after(&self, after: u64) -> impl Iterator<Item = Record<'_>> {
        let first = match self.chunks.range(..=after).next_back() {
            Some((key, _)) => *key,
            None => 0,
        };
        self.chunks
            .range(first..)
            .flat_map(|(_, chunk)| chunk.records())
            .skip_while(move |record| record.seq <= after)
    }

    /// How many that are not replaced come after this sequence.
    fn newest_after(&self, after: u64) -> u64 {
        let Some((key, chunk)) = self.chunks.range(..=after).next_back() else {
            return self.newest as u64;
        };
        let records = chunk.records();
        let in_it = records.filter(|it| it.seq > after && it.replaced_by().is_none());
        let later = (Bound::Excluded(*key), Bound::Unbounded);
        let later = self.chunks.range(later).map(|(_, chunk)| chunk.newest());
        in_it.count() as u64 + later.sum::<u64>()
    }

    fn append(&mut self, seq: u64, published_ms: u64, event: &[u8]) {
        if let Some(mut last) = self.chunks.last_entry() {
            let before = last.get().capacity();
            if last.get_mut().push(seq, published_ms, event) {
                self.chunk_bytes += last.get().capacity() - before;
                return;
            }
        }
        let mut chunk = Chunk::default();
        chunk.push(seq, published_ms, event);
        self.chunk_bytes += chunk.capacity() + CHUNK_OVERHEAD_BYTES;
        self.chunks.insert(seq, chunk);
    }

    fn replace(&mut self, key: u64, at: usize, by: u64) {
        if let Some(chunk) = self.chunks.get_mut(&key) {
            chunk.replace(at, by);
            if chunk.is_worn() {
                self.worn.insert(key);
            }
        }
    }

    /// Cleans some of the chunks that are worth it and can be, by turns.
    fn clean_worn(&mut self) {
        let horizon = self.horizon();
        for _ in 0..CLEANED_AT_ONCE {
            let Some(key) = self.worn.range(self.clean_from..).next().copied() else {
                self.clean_from = 0;
                return;
            };
            self.clean_from = key + 1;
            let chunk = self.chunks.get(&key);
            if chunk.is_some_and(|chunk| chunk.can_be_cleaned(horizon)) {
                self.clean(key, horizon);
            }
        }
    }

    /// Cleans the chunk `key`, and merges it with the next one where both are small.
    fn clean(&mut self, key: u64, horizon: u64) {
        self.worn.remove(&key);
        let Some(chunk) = self.chunks.get_mut(&key) else {
            return;
        };
        let before = chunk.capacity();
        chunk.clean(horizon);
        self.chunk_bytes = self.chunk_bytes + chunk.capacity() - before;
        if chunk.is_empty() {
            self.drop_chunk(key);
            return;
        }
        if chunk.is_worn() {
            self.worn.insert(key);
        }
        let after = (Bound::Excluded(key), Bound::Unbounded);
        let length = chunk.len();
        let next = self.chunks.range(after).next();
        let Some(next) = next
            .filter(|(_, next)| length + next.len() <= chunk::BYTES)
            .map(|(next, _)| *next)
        else {
            return;
        };
        let Some(taken) = self.drop_chunk(next) else {
            return;
        };
        if let Some(chunk) = self.chunks.get_mut(&key) {
            let before = chunk.capacity();
            chunk.merge(&taken);
            self.chunk_bytes = self.chunk_bytes + chunk.capacity() - before;
            if chunk.is_worn() {
                self.worn.insert(key);
            }
        }
    }

    /// Cleans all that is worth it and can be; if that is too little, without regard to replays:
    /// what slow ones hold goes before what the table is to keep.
    fn clean_all(&mut self) {
        let mut horizon = self.horizon();
        loop {
            let can_be = |key: &u64| {
                let chunk = self.chunks.get(key);
                chunk.is_none_or(|chunk| chunk.can_be_cleaned(horizon))
            };
            let worn: Vec<_> = self.worn.iter().copied().filter(can_be).collect();
            let is_all = worn.is_empty();
            for key in worn {
                self.clean(key, horizon);
            }
            if self.worn.is_empty() || self.bytes() <= self.limits.bytes {
                return;
            }
            if is_all {
                let newest = self.replays.keys().next_back();
                self.given_up = newest.map_or(self.given_up, |head| head + 1);
                // From now on all can be.
                horizon = u64::MAX;
            }
        }
    }

    fn drop_chunk(&mut self, key: u64) -> Option<Chunk> {
        self.worn.remove(&key);
        let chunk = self.chunks.remove(&key)?;
        self.chunk_bytes -= chunk.capacity() + CHUNK_OVERHEAD_BYTES;
        Some(chunk)
    }

    /// Makes it fit its limits.
    fn fit(&mut self) {
        while self.newest > self.limits.revocations || self.bytes() > self.limits.bytes {
            if self.bytes() > self.limits.bytes && !self.worn.is_empty() {
                self.clean_all();
                continue;
            }
            let before = self.newest;
            if !self.pop() {
                return;
            }
            self.evictions += (before - self.newest) as u64;
        }
    }

    /// When the oldest was published that is not replaced; those before it are gone then.
    fn oldest_ms(&mut self) -> Option<u64> {
        let horizon = self.horizon();
        loop {
            let (_, chunk) = self.chunks.first_key_value()?;
            let record = chunk.records().next()?;
            match record.replaced_by() {
                None => return Some(record.published_ms()),
                Some(by) if by <= horizon => {
                    self.pop();
                }
                Some(_) => return None,
            }
        }
    }

    /// Removes the oldest record. Returns whether there was one.
    fn pop(&mut self) -> bool {
        let horizon = self.horizon();
        let Some(mut first) = self.chunks.first_entry() else {
            return false;
        };
        let Some(record) = first.get().records().next() else {
            return false;
        };
        let seq = record.seq;
        match record.replaced_by() {
            None => {
                if let Some(invalidation) = Invalidation::of(record.event) {
                    let hash = self.keys.hash(key_of(&invalidation));
                    self.keys.remove(hash, seq);
                }
                self.newest -= 1;
                self.lost = self.lost.max(seq);
                self.evicted = seq;
            }
            // A replay may have counted it.
            Some(by) if by > horizon => self.evicted = seq,
            Some(_) => {}
        }
        first.get_mut().pop();
        if first.get().is_empty() {
            let key = *first.key();
            self.drop_chunk(key);
        }
        true
    }
}

fn key_of<'a>(invalidation: &Invalidation<'a>) -> Key<'a> {
    (invalidation.user_id, invalidation.device_session_id)
}

fn key_at(chunks: &BTreeMap<u64, Chunk>, seq: u64) -> Option<Key<'_>> {
    let (_, _, record) = locate(chunks, seq)?;
    Some(key_of(&Invalidation::of(record.event)?))
}

/// The record `seq`: its chunk's key, where it is in there, and what it is.
fn locate(chunks: &BTreeMap<u64, Chunk>, seq: u64) -> Option<(u64, usize, Record<'_>)> {
    let (key, chunk) = chunks.range(..=seq).next_back()?;
    let (at, record) = chunk.find(seq)?;
    Some((*key, at, record))
}
