//! Hints to the processor: what memory will be used soon.

#![allow(unsafe_code, reason = "hints to the processor")]

/// Has the processor fetch a cache line that will be written soon. Any address will do.
#[inline(always)]
pub(crate) fn line_to_write(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: it is a hint, which accesses nothing and fails never.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(address.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// Has it fetch all cache lines of a value at once. To wait for them one after the other,
/// as code comes to them, takes many times as long when they are in no cache.
#[inline(always)]
pub(crate) fn value<T: ?Sized>(value: &T) {
    lines((&raw const *value).cast(), size_of_val(value));
}

/// The same of bytes.
#[inline(always)]
pub(crate) fn bytes(bytes: &[u8]) {
    lines(bytes.as_ptr(), bytes.len());
}

#[inline(always)]
fn lines(begin: *const u8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE_BYTES: usize = 64;
        let begin: *const i8 = begin.cast();
        let end = begin.wrapping_add(bytes);
        let mut line = begin.wrapping_sub(begin.addr() % LINE_BYTES);
        while line < end {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
            line = line.wrapping_add(LINE_BYTES);
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (begin, bytes);
}
