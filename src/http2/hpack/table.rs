//! Fields that have a number: those of the specification, and those that were kept
//! (RFC 7541, section 2.3).

use std::collections::VecDeque;

use super::FIELD_OVERHEAD;

/// The two tables under one index.
#[derive(Debug)]
pub(super) struct Table {
    /// The newest first.
    pub(super) entries: VecDeque<Entry>,
    pub(super) octets: usize,
    pub(super) max_octets: usize,
    /// What was offered to the peer.
    offered_octets: usize,
}

/// A field that was kept.
#[derive(Debug)]
pub(super) struct Entry {
    field: Box<[u8]>,
    name_bytes: usize,
}

impl Entry {
    fn parts(&self) -> (&[u8], &[u8]) {
        self.field.split_at(self.name_bytes)
    }

    pub(super) fn octets(&self) -> usize {
        self.field.len() + FIELD_OVERHEAD
    }
}

/// There is no field of that number, or the table may not be that large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfRange;

impl Table {
    /// Keeps at most so many octets.
    pub(super) fn new(octets: usize) -> Self {
        Table {
            entries: VecDeque::new(),
            octets: 0,
            max_octets: octets,
            offered_octets: octets,
        }
    }

    /// The name and the value of a field.
    pub(super) fn field(&self, index: usize) -> Result<(&[u8], &[u8]), OutOfRange> {
        let index = index.checked_sub(1).ok_or(OutOfRange)?;
        match STATIC_TABLE.get(index) {
            Some((name, value)) => Ok((name.as_bytes(), value.as_bytes())),
            None => {
                let entry = self.entries.get(index - STATIC_TABLE.len());
                entry.map(Entry::parts).ok_or(OutOfRange)
            }
        }
    }

    /// Puts a field at the front.
    pub(super) fn keep(&mut self, name: &[u8], value: &[u8]) {
        let entry = Entry {
            field: [name, value].concat().into(),
            name_bytes: name.len(),
        };
        let room = self.max_octets.checked_sub(entry.octets());
        // What does not even fit by itself empties the table (section 4.4).
        self.evict(room.unwrap_or(0));
        if room.is_some() {
            self.octets += entry.octets();
            self.entries.push_front(entry);
        }
    }

    /// A field that is longer than the table was to be kept.
    pub(super) fn clear(&mut self) {
        self.evict(0);
    }

    /// The peer wants it to be of that size.
    pub(super) fn resize(&mut self, octets: usize) -> Result<(), OutOfRange> {
        if octets > self.offered_octets {
            return Err(OutOfRange);
        }
        self.max_octets = octets;
        self.evict(octets);
        Ok(())
    }

    /// Forgets the oldest entries until no more than `octets` are left.
    fn evict(&mut self, octets: usize) {
        while self.octets > octets
            && let Some(oldest) = self.entries.pop_back()
        {
            self.octets -= oldest.octets();
        }
    }
}

/// Indices of the static table that are written.
pub mod index {
    /// `:method: POST`.
    pub const METHOD_POST: u8 = 3;
    /// `:path`, a name.
    pub const PATH: u8 = 4;
    /// `:scheme: http`.
    pub const SCHEME_HTTP: u8 = 6;
    /// `:status: 200`.
    pub const STATUS_200: u8 = 8;
    /// `:status`, a name.
    pub const STATUS: u8 = 8;
    /// `:authority`, a name.
    pub const AUTHORITY: u8 = 1;
    /// `content-type`, a name.
    pub const CONTENT_TYPE: u8 = 31;
}

/// RFC 7541, appendix A; the first has the index 1.
#[rustfmt::skip]
pub(super) const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""),
    ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""),
    ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""),
    ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
];
