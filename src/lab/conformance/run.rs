//! From a table of promises to a report.

use std::fmt::Display;

use super::promise::{Promise, Unkept};
use super::report::{OutputArgs, Report};
use crate::command::{Failure, signals};

/// Judges each promise in its turn, with what `begin` makes for all of them.
pub(super) fn run<Kit: 'static>(
    output: &OutputArgs,
    mut report: Report,
    promises: &[&Promise<Kit>],
    begin: impl AsyncFnOnce() -> Result<Kit, Failure>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failed("cannot start", &error))?;
    let judged = runtime.block_on(async {
        let stopped = signals::asked_to_stop()?;
        // A terminal that is closed: the kit's children are in groups of their own.
        let mut hung_up = signals::hangups()?;
        let judge = async {
            let mut kit = begin().await?;
            for promise in promises {
                let finding = promise.judge(&mut kit).await;
                report.add(finding)?;
            }
            Ok(())
        };
        tokio::select! {
            judged = judge => judged,
            () = stopped => Err(stopped_early()),
            _ = hung_up.recv() => Err(stopped_early()),
        }
    });
    // Children and sockets end with it; nobody waits for them.
    runtime.shutdown_background();
    judged?;
    report.finish(output)
}

fn stopped_early() -> Failure {
    Failure::failed("stopped before the end: nothing is certain")
}

fn failed(what: &str, error: &dyn Display) -> Failure {
    Failure::failed(format!("{what}: {error}"))
}

/// What the kit needs before the first promise is not there.
pub(super) fn cannot_begin(why: Unkept) -> Failure {
    match why {
        Unkept::Broken(text) | Unkept::Skipped(text) => Failure::failed(text),
    }
}
