//! How a command is asked to stop, or to read its files again.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;

/// Each SIGHUP from now on. Must be called inside a runtime.
pub(crate) fn hangups() -> Result<Signal, Failure> {
    listen(SignalKind::hangup())
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::failed(format!("cannot wait for signals: {error}")))
}

/// A future that ends with the first SIGTERM or SIGINT from now on. Must be
/// called inside a runtime.
pub(crate) fn asked() -> Result<impl Future<Output = ()> + Send, Failure> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
