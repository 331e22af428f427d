//! Signals: to stop, and to look at changed files.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;

/// A future that ends with the first SIGTERM or SIGINT from now on. Must be
/// called inside a runtime.
pub(crate) fn asked_to_stop() -> Result<impl Future<Output = ()> + Send, Failure> {
    asked_times(1)
}

/// The same with the second one.
pub(crate) fn asked_again() -> Result<impl Future<Output = ()> + Send, Failure> {
    asked_times(2)
}

fn asked_times(times: u32) -> Result<impl Future<Output = ()> + Send, Failure> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        for _ in 0..times {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
    })
}

/// Every SIGHUP from now on, which then no longer ends the process. Must be called inside a
/// runtime.
pub(crate) fn hangups() -> Result<Signal, Failure> {
    listen(SignalKind::hangup())
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format!("cannot wait for signals: {error}")))
}
