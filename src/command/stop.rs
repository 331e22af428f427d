//! How a command is asked to stop.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;

/// A future that ends with the first SIGTERM or SIGINT from now on. Must be
/// called inside a runtime.
pub(crate) fn asked() -> Result<impl Future<Output = ()> + Send, Failure> {
    let listen = |kind| {
        signal(kind).map_err(|error| Failure::failed(format!("cannot wait for signals: {error}")))
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
