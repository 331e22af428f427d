//! The same on top of loom.
//!
//! loom takes SeqCst *accesses* for AcqRel; only SeqCst fences have their meaning.
//! What the engine asks of SeqCst accesses is one thing: a store (or a
//! read-modify-write) comes before a later load of *another* word, in an order that
//! all threads agree on. So the atomics here remember that their thread has made a
//! SeqCst store, and put a SeqCst fence before its next SeqCst load. If either of
//! the two is weakened in the engine, the fence is gone, and the models say so.
//!
//! loom also overlooks schedules. To find out which are worth a try, it remembers one
//! access to each word, the last; when two threads have loaded a word and one of them
//! stores to it, the other's load is forgotten, and never tried after the store. So
//! each word has a second one here, which all accesses change first: of changes, the
//! last is enough to remember.

#![allow(unsafe_code, reason = "stands for what the others do")]

use std::ops::{Deref, Range};
use std::sync::{Mutex, PoisonError};

pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::Arc;
pub(crate) use loom::sync::atomic::Ordering;
pub(crate) use loom::thread;

use loom::sync::atomic as weak;

/// Waits for another thread: lets it run.
#[derive(Debug)]
pub(crate) struct Backoff;

impl Backoff {
    pub(crate) fn new() -> Self {
        Backoff
    }

    pub(crate) fn snooze(&self) {
        thread::yield_now();
    }
}

loom::thread_local! {
    /// Whether this thread has made a SeqCst store since its last SeqCst fence.
    static STORED: std::cell::Cell<bool> = std::cell::Cell::new(false);
}

fn before_load(ordering: Ordering) {
    if ordering == Ordering::SeqCst && STORED.with(|stored| stored.replace(false)) {
        weak::fence(Ordering::SeqCst);
    }
}

fn after_store(ordering: Ordering) {
    if ordering == Ordering::SeqCst {
        STORED.with(|stored| stored.set(true));
    }
}

pub(crate) fn fence(ordering: Ordering) {
    if ordering == Ordering::SeqCst {
        STORED.with(|stored| stored.set(false));
    }
    weak::fence(ordering);
}

/// The second word of each word.
#[derive(Debug)]
struct Accesses(weak::AtomicUsize);

impl Accesses {
    fn new() -> Self {
        Accesses(weak::AtomicUsize::new(0))
    }

    fn add(&self) {
        // Relaxed: tells nobody of anything.
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

macro_rules! atomic {
    ($name:ident, $value:ty $(, $generic:ident)?) => {
        #[derive(Debug)]
        pub(crate) struct $name$(<$generic>)? {
            word: weak::$name$(<$generic>)?,
            accesses: Accesses,
        }

        #[allow(dead_code, reason = "each type offers the same")]
        impl$(<$generic>)? $name$(<$generic>)? {
            pub(crate) fn new(value: $value) -> Self {
                $name {
                    word: weak::$name::new(value),
                    accesses: Accesses::new(),
                }
            }

            fn word(&self) -> &weak::$name$(<$generic>)? {
                self.accesses.add();
                &self.word
            }

            pub(crate) fn load(&self, ordering: Ordering) -> $value {
                before_load(ordering);
                self.word().load(ordering)
            }

            pub(crate) fn store(&self, value: $value, ordering: Ordering) {
                self.word().store(value, ordering);
                after_store(ordering);
            }

            pub(crate) fn swap(&self, value: $value, ordering: Ordering) -> $value {
                before_load(ordering);
                let previous = self.word().swap(value, ordering);
                after_store(ordering);
                previous
            }

            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                before_load(success);
                let result = self.word().compare_exchange(current, new, success, failure);
                if result.is_ok() {
                    after_store(success);
                }
                result
            }

            pub(crate) fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }

            pub(crate) fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                update: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                self.word().fetch_update(set, fetch, update)
            }
        }
    };
}

macro_rules! arithmetic {
    ($name:ident, $value:ty, $($method:ident)*) => {
        #[allow(dead_code, reason = "each type offers the same")]
        impl $name {
            $(pub(crate) fn $method(&self, value: $value, ordering: Ordering) -> $value {
                before_load(ordering);
                let previous = self.word().$method(value, ordering);
                after_store(ordering);
                previous
            })*
        }
    };
}

atomic!(AtomicBool, bool);
atomic!(AtomicU64, u64);
atomic!(AtomicUsize, usize);
atomic!(AtomicPtr, *mut T, T);
arithmetic!(AtomicU64, u64, fetch_add fetch_sub fetch_or fetch_and fetch_max);
arithmetic!(AtomicUsize, usize, fetch_add fetch_sub fetch_or fetch_and);

impl<T> Default for AtomicPtr<T> {
    fn default() -> Self {
        AtomicPtr::new(std::ptr::null_mut())
    }
}

/// As its native namesake: a load sees the newest value (arc-swap looks twice, to
/// be sure), and an exchange succeeds only on what was loaded.
#[derive(Debug)]
pub(crate) struct ArcCell<T> {
    /// Counts the exchanges. All that loom knows of the cell is this word.
    version: weak::AtomicU64,
    value: Mutex<Option<Held<T>>>,
}

/// Shared by the cell and by whoever has loaded it; it has one reference to the
/// value, whichever of them there are.
type Held<T> = std::sync::Arc<Arc<T>>;

pub(crate) struct Loaded<T> {
    version: u64,
    held: Option<Held<T>>,
    value: Option<Arc<T>>,
}

impl<T> ArcCell<T> {
    pub(crate) fn empty() -> Self {
        ArcCell {
            version: weak::AtomicU64::new(0),
            value: Mutex::new(None),
        }
    }

    pub(crate) fn load(&self) -> Loaded<T> {
        // A read-modify-write, for the newest version, but without a Release.
        let version = self.version.fetch_add(0, Ordering::Acquire);
        let held = self.held().clone();
        let value = held.as_deref().cloned();
        Loaded {
            version,
            held,
            value,
        }
    }

    pub(crate) fn exchange(&self, current: Loaded<T>, new: Arc<T>) -> Result<Option<Arc<T>>, ()> {
        let next = current.version + 1;
        self.version
            .compare_exchange(current.version, next, Ordering::AcqRel, Ordering::Acquire)
            .map_err(drop)?;
        let previous = self.held().replace(std::sync::Arc::new(new));
        drop(current);
        Ok(previous.map(|held| match std::sync::Arc::try_unwrap(held) {
            Ok(only) => only,
            Err(held) => Arc::clone(&held),
        }))
    }

    /// No thread of a model is interrupted while it has this.
    fn held(&self) -> std::sync::MutexGuard<'_, Option<Held<T>>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Loaded<T> {
    fn drop(&mut self) {
        // The reference of its own first: what is left is what the cell has.
        self.value = None;
        self.held = None;
    }
}

impl<T> Deref for Loaded<T> {
    type Target = Option<Arc<T>>;

    fn deref(&self) -> &Option<Arc<T>> {
        &self.value
    }
}

#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(loom::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        UnsafeCell(loom::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        self.0.with_mut(access)
    }
}

/// Checks each access to a piece of memory, byte by byte: a write must know of all
/// accesses before it, a read of all writes.
#[derive(Debug)]
pub(crate) struct Watch(Box<[loom::cell::UnsafeCell<()>]>);

impl Watch {
    pub(crate) fn over(bytes: usize) -> Self {
        Watch(
            (0..bytes)
                .map(|_| loom::cell::UnsafeCell::new(()))
                .collect(),
        )
    }

    pub(crate) fn write(&self, range: Range<usize>) {
        for byte in &self.0[range] {
            byte.with_mut(|_| ());
        }
    }

    pub(crate) fn read(&self, range: Range<usize>) {
        for byte in &self.0[range] {
            byte.with(|_| ());
        }
    }
}

// SAFETY: there is nothing in the cells, and loom checks each access.
unsafe impl Sync for Watch {}
