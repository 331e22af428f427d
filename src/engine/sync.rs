//! The atomics and shared pointers that the engine is built from, in one place,
//! so that a model checker can be put under the same code.

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
