//! What the engine is synchronised with, in one place, so that the model checker
//! can be put under the engine's own code.
//!
//! `native` is what everybody runs: the standard library's atomics and `arc-swap`.
//! `modelled` has the same names on top of loom, under `--cfg galaxy_loom` (a cfg
//! of our own: `cfg(loom)` would change tokio in the same build). Besides the
//! orderings, it checks every byte of a segment: who writes it, who reads it, and
//! that one of them knows of the other. `Arc` is the one from here wherever a count
//! of references is part of a proof.

#[cfg(not(galaxy_loom))]
mod native;
#[cfg(not(galaxy_loom))]
pub(crate) use self::native::*;

#[cfg(galaxy_loom)]
mod modelled;
#[cfg(galaxy_loom)]
pub(crate) use self::modelled::*;
