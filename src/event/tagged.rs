//! An event's bytes and its kind, in two words: a batch of events is walked over more than
//! once, and its publisher pays for each word.

#![allow(unsafe_code, reason = "a slice, taken apart and put together")]

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;

/// The bit of a size that marks a `session_invalidation`.
const IS_INVALIDATION: u64 = 1 << 32;

/// Bytes, and whether they are a `session_invalidation`.
#[derive(Clone, Copy)]
pub(super) struct Tagged<'a> {
    start: NonNull<u8>,
    /// The length in the lower half, which costs nothing to take out, and the mark above it.
    size: u64,
    bytes: PhantomData<&'a [u8]>,
}

// SAFETY: it is a shared slice of bytes, and a number.
unsafe impl Send for Tagged<'_> {}
// SAFETY: as above.
unsafe impl Sync for Tagged<'_> {}

impl<'a> Tagged<'a> {
    /// `None` if there are 4 GiB or more.
    #[inline]
    pub(super) fn new(bytes: &'a [u8], is_invalidation: bool) -> Option<Self> {
        let length = u32::try_from(bytes.len()).ok()?;
        let mark = if is_invalidation { IS_INVALIDATION } else { 0 };
        Some(Tagged {
            start: NonNull::from(bytes).cast(),
            size: u64::from(length) | mark,
            bytes: PhantomData,
        })
    }

    #[inline]
    pub(super) const fn bytes(self) -> &'a [u8] {
        let length = self.size as u32 as usize;
        // SAFETY: `new` has taken both from a slice that lives as long.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), length) }
    }

    #[inline]
    pub(super) const fn is_invalidation(self) -> bool {
        self.size & IS_INVALIDATION != 0
    }

    /// The length; of an invalidation it is more than any length.
    #[inline]
    pub(super) const fn size(self) -> u64 {
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_mark_are_kept() {
        for is_invalidation in [false, true] {
            for bytes in [&b""[..], b"event"] {
                let tagged = Tagged::new(bytes, is_invalidation).unwrap();
                assert_eq!(tagged.bytes(), bytes);
                assert_eq!(tagged.is_invalidation(), is_invalidation);
                assert_eq!(tagged.size() > u64::from(u32::MAX), is_invalidation);
            }
        }
        assert_eq!(size_of::<Tagged<'_>>(), 16);
    }
}
