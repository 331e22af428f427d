//! What the room is synchronised with: the standard library, or loom beneath its own code.

#[cfg(not(galaxy_loom))]
pub(super) use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(not(galaxy_loom))]
pub(super) use std::sync::{Mutex, MutexGuard};

#[cfg(galaxy_loom)]
pub(super) use loom::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(galaxy_loom)]
pub(super) use loom::sync::{Mutex, MutexGuard};

// No proof rests on a count of references.
pub(super) use std::sync::Arc;
use std::sync::PoisonError;

/// Locks, also after a panic of another holder: nothing here is left half-way, for no code of
/// others runs under a lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
