//! `galaxy-push bench`: throughput, latency and cost of a server under load.

mod args;
mod certificate;
mod outcome;
mod plan;
mod progress;
mod report;
mod run;
mod server;
mod table;

use std::thread;

use crate::command::{Failure, print, signals, stderr};
use crate::lab::load::Gauge;
use outcome::Outcome;

/// Measure a server: throughput, latency and cost.
///
/// The bench is a process of its own, and uses real gRPC over real sockets. Without
/// --connect, it starts this program as a server on free ports of the loopback interface.
/// Each run has a server of its own, so that no run affects the next.
///
/// Latency starts when an event is due by the schedule of --rate, and ends when a gateway
/// has received it. So a delay in publishing counts for every event that it delays. Cost
/// is the processor time of the server's process for each event and gateway. The load
/// generator's own is shown beside it.
///
/// An event is lost if the server accepted it and a subscribed gateway did not receive it.
/// A lost event is exit code 1, and so is a stream that ends unexpectedly.
///
/// With --tls and without --connect, the started server has TLS, with a certificate that is
/// made for it. A running server needs the flags that any client of it needs. Gateways keep
/// their session tickets, each its own, and resume with them when they come back.
///
/// Progress goes to standard error if that is a terminal.
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = false,
    after_long_help = "\
Examples:
  galaxy-push bench live --gateways 100 --rate 10000 --duration 10s
  galaxy-push bench live --gateways 10,100,1000 --rate 1000 --report live.html
  galaxy-push bench replay --gateways 8 --frame-size 16KiB
  galaxy-push bench storm --gateways 5000
  galaxy-push bench publish --batch 1,10,100 --json
  galaxy-push bench idle --gateways 5000
  galaxy-push bench soak --duration 10m --report soak.html
  galaxy-push bench live --connect 10.0.0.7:50051 --publish-connect 10.0.0.7:50052
  galaxy-push bench storm --gateways 2000 --tls

`galaxy-push help bench WORKLOAD` has details."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    workload: args::Workload,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let bench = args.workload.into_bench()?;
    let gauge = Gauge::default();
    let signals = Signals::watch(&gauge)?;
    let outcome = run::run(&bench, &gauge);
    signals.end();
    let outcome = match outcome {
        Err(_) if gauge.is_stopped() => {
            stderr::say("stopped before the end: nothing was measured");
            return Ok(());
        }
        outcome => outcome?,
    };
    if let Some(path) = &bench.output.report {
        report::write(path, &outcome)?;
    }
    show(&bench.output, &outcome)?;
    outcome.verdict()
}

fn show(output: &args::Output, outcome: &Outcome) -> Result<(), Failure> {
    let text = if output.json {
        let json = serde_json::to_string(outcome);
        json.map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))? + "\n"
    } else {
        table::table(outcome)
    };
    print(&text)
}

/// Ends all runs when SIGTERM or SIGINT comes.
struct Signals {
    /// Dropped at the end, which ends the thread.
    end: tokio::sync::oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Signals {
    fn watch(gauge: &Gauge) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("cannot wait for signals: {error}")))?;
        let asked = {
            let _inside = runtime.enter();
            signals::asked_to_stop()?
        };
        let gauge = gauge.clone();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = asked => gauge.stop(),
                    _ = ended => {}
                }
            });
        });
        Ok(Signals { end, thread })
    }

    fn end(self) {
        drop(self.end);
        // It has nothing to say.
        let _ = self.thread.join();
    }
}
