//! The real thing.

use std::cell;
use std::ops::{Deref, Range};

use arc_swap::{ArcSwapOption, Guard};

pub(crate) use crossbeam::utils::Backoff;
pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence,
};
pub(crate) use std::thread;

/// Perhaps an `Arc`, read often and without waiting, exchanged rarely.
#[derive(Debug)]
pub(crate) struct ArcCell<T>(ArcSwapOption<T>);

/// What an [`ArcCell`] held when it was loaded.
pub(crate) struct Loaded<T>(Guard<Option<Arc<T>>>);

impl<T> ArcCell<T> {
    pub(crate) fn empty() -> Self {
        ArcCell(ArcSwapOption::empty())
    }

    /// Acquire: who loads a value sees what was done before it was put there.
    pub(crate) fn load(&self) -> Loaded<T> {
        Loaded(self.0.load())
    }

    /// Puts `new` in the place of what was loaded, and returns that, unless
    /// somebody else was faster. AcqRel.
    pub(crate) fn exchange(&self, current: Loaded<T>, new: Arc<T>) -> Result<Option<Arc<T>>, ()> {
        let previous = self.0.compare_and_swap(&current.0, Some(new));
        let pointer = |arc: &Option<Arc<T>>| arc.as_ref().map(Arc::as_ptr);
        if pointer(&previous) == pointer(&current.0) {
            // So that the caller holds the only reference, if nobody else does.
            drop(current);
            Ok(Guard::into_inner(previous))
        } else {
            Err(())
        }
    }
}

impl<T> Deref for Loaded<T> {
    type Target = Option<Arc<T>>;

    fn deref(&self) -> &Option<Arc<T>> {
        &self.0
    }
}

/// A cell that is accessed by whoever has the right to, one at a time.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        UnsafeCell(cell::UnsafeCell::new(value))
    }

    /// A pointer to the value, for one exclusive access.
    pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}

/// Watches the accesses to a piece of memory when the engine is modelled; here it
/// is nothing.
#[derive(Debug)]
pub(crate) struct Watch;

impl Watch {
    pub(crate) fn over(_bytes: usize) -> Self {
        Watch
    }

    #[inline(always)]
    pub(crate) fn write(&self, _range: Range<usize>) {}

    #[inline(always)]
    pub(crate) fn read(&self, _range: Range<usize>) {}
}
