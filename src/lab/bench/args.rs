//! The flags of each workload. `plan` makes runs of them.

use std::path::PathBuf;
use std::time::Duration;

use crate::command::{ConnectArgs, value};
use crate::config::Address;
use crate::lab::load::{MAX_PUBLISHERS, Shape};

/// The largest number of gateways that is meant, and not mistyped.
pub(super) const MAX_GATEWAYS: usize = 1_000_000;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Workload {
    Live(Live),
    Replay(Replay),
    Storm(Storm),
    Publish(Publish),
    Idle(Idle),
    Soak(Soak),
}

/// Events at a steady rate to many gateways: latency and cost of a delivery.
///
/// All gateways subscribe. Then publishers send --rate events per second, evenly spaced,
/// for --warm-up and --duration. The latency of an event starts when the schedule says
/// that it is due. It ends when a gateway has received the event.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push bench live
  galaxy-push bench live --gateways 10,100,1000 --rate 1000 --report live.html
  galaxy-push bench live --gateways 10,100,1000 --delivery-rate 100000
  galaxy-push bench live --gateways 100 --stalled 1000 --warm-up 2s
  galaxy-push bench live --rate 20000 --batch 10 --unix --json")]
pub(super) struct Live {
    #[command(flatten)]
    pub(super) gateways: GatewayArgs,
    /// Events per second, all publishers together.
    #[arg(long, default_value = "1000", value_parser = rate)]
    pub(super) rate: f64,

    /// Deliveries per second, all gateways together, instead of --rate. Fewer gateways
    /// then receive more events each.
    #[arg(long, value_parser = rate, conflicts_with = "rate")]
    pub(super) delivery_rate: Option<f64>,

    /// Additional gateways that subscribe and then never read.
    #[arg(
        long,
        default_value = "0",
        value_parser = |text: &str| value::within(text, 0..=MAX_GATEWAYS as u64)
    )]
    pub(super) stalled: u64,

    #[command(flatten)]
    pub(super) events: EventArgs,
    #[command(flatten)]
    pub(super) publishers: PublisherArgs,
    #[command(flatten)]
    pub(super) time: TimeArgs,
    #[command(flatten)]
    pub(super) server: ServerArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

/// Gateways that were away receive the whole ring, all at once.
///
/// A publisher fills the ring. Then all gateways connect, resume from the start of the
/// ring, and read to its end. That repeats until --duration is over. The result is the
/// server's greatest delivery rate, and the cost of each delivery.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push bench replay
  galaxy-push bench replay --gateways 1,8,64 --frame-size 16KiB --json")]
pub(super) struct Replay {
    #[command(flatten)]
    pub(super) gateways: GatewayArgs,
    /// Events that are replayed. The bench sizes the ring of its own server for them,
    /// unless --max-events or --max-bytes is set. A running server's ring must hold them.
    #[arg(
        long,
        default_value = "200000",
        value_parser = |text: &str| value::within(text, 1..=u64::MAX)
    )]
    pub(super) events: u64,

    #[command(flatten)]
    pub(super) shape: EventArgs,
    #[command(flatten)]
    pub(super) time: DurationArgs,
    #[command(flatten)]
    pub(super) server: ServerArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

/// All gateways lose their connections at once and reconnect, again and again.
///
/// Publishers send --rate events per second throughout. After --quiet, every connection
/// is closed. Every gateway reconnects and resumes after its last event. A storm is over
/// when every gateway has received everything published before the last of them
/// reconnected. The next storm starts half of --quiet later, until --duration is over.
/// Publish round trips are measured during storms and between them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push bench storm --gateways 5000
  galaxy-push bench storm --gateways 1000 --rate 5000 --duration 30s --json")]
pub(super) struct Storm {
    #[command(flatten)]
    pub(super) gateways: GatewayArgs,
    /// Events per second, all publishers together.
    #[arg(long, default_value = "100", value_parser = rate)]
    pub(super) rate: f64,

    /// Quiet time before the first storm; half of it between storms.
    #[arg(long, default_value = "2s", value_parser = value::duration)]
    pub(super) quiet: Duration,

    #[command(flatten)]
    pub(super) events: EventArgs,
    #[command(flatten)]
    pub(super) publishers: PublisherArgs,
    #[command(flatten)]
    pub(super) time: DurationArgs,
    #[command(flatten)]
    pub(super) server: ServerArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

/// Publishers send events as fast as the server accepts them, without subscribers.
///
/// Each publisher has up to --in-flight requests in flight, of --batch events each. The
/// result is the rate at which the server accepts events, and the cost of each event.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push bench publish
  galaxy-push bench publish --batch 1,10,100 --json
  galaxy-push bench publish --producers 4 --batch 100 --duration 10s")]
pub(super) struct Publish {
    /// Events in each request. Several numbers, separated by commas, are several runs.
    /// Default: 1,10,100.
    #[arg(long, value_parser = value::count, value_delimiter = ',')]
    pub(super) batch: Vec<usize>,

    /// Size of a payload. The default results in frames of 250 bytes.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = value::size_in_memory,
        default_value_t = Shape::DEFAULT_PAYLOAD_BYTES
    )]
    pub(super) payload: usize,

    #[command(flatten)]
    pub(super) publishers: PublisherArgs,
    #[command(flatten)]
    pub(super) time: TimeArgs,
    #[command(flatten)]
    pub(super) server: ServerArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

/// Subscribed gateways without events: the server's memory for each of them.
///
/// The server's resident memory is read before the first gateway connects. It is read
/// again when all are subscribed and --duration is over. The server must run on this
/// machine.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push bench idle --gateways 5000
  galaxy-push bench idle --gateways 100,1000,5000 --unix")]
pub(super) struct Idle {
    #[command(flatten)]
    pub(super) gateways: GatewayArgs,
    #[command(flatten)]
    pub(super) time: DurationArgs,
    #[command(flatten)]
    pub(super) server: ServerArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

/// A steady rate for a long time to gateways of all kinds; every stream is checked.
///
/// There are five kinds of gateways. Steady ones read everything. Slow ones read half of
/// the rate, so that the ring overtakes them again and again. Stalled ones stop reading
/// until the server ends their stream. Flapping ones disconnect without notice and
/// reconnect. Rivals are pairs that take one id over from each other.
///
/// Every stream is recorded and checked against every guarantee. A stalled, slow or
/// replaced stream may end. A missed event that was not announced is exit code 1.
/// Latencies are those of the steady gateways.
///
/// The started server has a ring of 8MiB and a stall timeout of 5s, unless --max-bytes
/// and --stall-timeout are set, so that all of this happens often. Gateways stall for
/// twice the stall timeout.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push bench soak --duration 10m --report soak.html
  galaxy-push bench soak --gateways 1000 --rate 2000 --stalled 200 --duration 1h")]
pub(super) struct Soak {
    #[command(flatten)]
    pub(super) gateways: GatewayArgs,

    /// Number of slow gateways. Default: one in ten.
    #[arg(long, value_parser = value::count)]
    pub(super) slow: Option<usize>,

    /// Number of gateways that stall. Default: one in ten.
    #[arg(long, value_parser = value::count)]
    pub(super) stalled: Option<usize>,

    /// Number of flapping gateways. Default: one in five.
    #[arg(long, value_parser = value::count)]
    pub(super) flapping: Option<usize>,

    /// Pairs of rivals. Default: one pair in fifty gateways.
    #[arg(long, value_parser = value::count)]
    pub(super) rivals: Option<usize>,

    /// Events per second, all publishers together.
    #[arg(long, default_value = "1000", value_parser = rate)]
    pub(super) rate: f64,

    #[command(flatten)]
    pub(super) events: EventArgs,
    #[command(flatten)]
    pub(super) publishers: PublisherArgs,
    /// Duration of the run.
    #[arg(long, default_value = "1m", value_parser = value::duration)]
    pub(super) duration: Duration,

    #[command(flatten)]
    pub(super) server: ServerArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

/// The gateways, and their HTTP/2 settings.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Gateways")]
pub(super) struct GatewayArgs {
    /// Number of gateways, each on its own connection. Several numbers, separated by
    /// commas, are several runs. Default: live and soak: 100; replay: 8; storm and
    /// idle: 1000.
    #[arg(long, value_parser = value::count, value_delimiter = ',')]
    pub(super) gateways: Vec<usize>,

    /// SETTINGS_MAX_FRAME_SIZE of each gateway (16KiB to 16MiB less a byte). The client
    /// of this program sets 1MiB; most others set 16KiB.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = value::size)]
    pub(super) frame_size: u64,

    /// Flow-control window of each gateway (64KiB less a byte to 2GiB less a byte).
    #[arg(long, value_name = "SIZE", default_value = "8MiB", value_parser = value::size)]
    pub(super) window: u64,
}

/// The events.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Events")]
pub(super) struct EventArgs {
    /// Size of a payload. The default results in frames of 250 bytes.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = value::size_in_memory,
        default_value_t = Shape::DEFAULT_PAYLOAD_BYTES
    )]
    pub(super) payload: usize,

    /// Events in each request, all due at the same time. Default: 1; replay: 100.
    #[arg(long, value_parser = value::count)]
    pub(super) batch: Option<usize>,
}

/// The publishers.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Publishers")]
pub(super) struct PublisherArgs {
    /// Number of publishers, each on its own connection (1 to 256).
    #[arg(
        long = "producers",
        default_value = "1",
        value_parser = |text: &str| value::within(text, 1..=MAX_PUBLISHERS as u64)
    )]
    pub(super) publishers: u64,

    /// Requests that each publisher may have in flight (1 to 4096).
    #[arg(long, default_value = "64", value_parser = |text: &str| value::within(text, 1..=4096))]
    pub(super) in_flight: u64,
}

/// How long to measure.
#[derive(Debug, clap::Args)]
pub(super) struct DurationArgs {
    /// Duration of the run. What repeats is done at least once.
    #[arg(long, default_value = "5s", value_parser = value::duration)]
    pub(super) duration: Duration,
}

/// How long to measure, and after which warm-up.
#[derive(Debug, clap::Args)]
pub(super) struct TimeArgs {
    /// Duration of the measurement.
    #[arg(long, default_value = "5s", value_parser = value::duration)]
    pub(super) duration: Duration,

    /// Time before the measurement starts.
    #[arg(long, default_value = "1s", value_parser = value::duration)]
    pub(super) warm_up: Duration,
}

/// The measured server: one that the bench starts, or one that runs already.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Server")]
pub(super) struct ServerArgs {
    /// The gateways' address of a running server: HOST:PORT or unix:PATH. Without it,
    /// the bench starts a server.
    #[arg(long, requires = "publish_connect")]
    pub(super) connect: Option<Address>,

    /// The publishers' address of that server.
    #[arg(long, requires = "connect")]
    pub(super) publish_connect: Option<Address>,

    /// The process id of that server, if it runs on this machine. Without it, the cost
    /// is not measured.
    #[arg(
        long,
        value_name = "PID",
        value_parser = |text: &str| value::within(text, 1..=i32::MAX as u64),
        requires = "connect"
    )]
    pub(super) server_pid: Option<u64>,

    /// The started server listens on Unix sockets.
    #[arg(long, conflicts_with = "connect")]
    pub(super) unix: bool,

    /// --max-events of the started server.
    #[arg(long, value_parser = value::number, conflicts_with = "connect")]
    pub(super) max_events: Option<u64>,

    /// --max-bytes of the started server.
    #[arg(long, value_name = "SIZE", value_parser = value::size, conflicts_with = "connect")]
    pub(super) max_bytes: Option<u64>,

    /// --stall-timeout of the started server.
    #[arg(long, value_parser = value::duration, conflicts_with = "connect")]
    pub(super) stall_timeout: Option<Duration>,

    /// --worker-threads of the started server.
    #[arg(long, value_parser = value::count, conflicts_with = "connect")]
    pub(super) worker_threads: Option<usize>,

    /// Every TLS connection begins with a full handshake. Default: gateways that come back
    /// resume their sessions.
    #[arg(long)]
    pub(super) no_tls_resumption: bool,

    #[command(flatten)]
    pub(super) how: ConnectArgs,
}

/// The form of the results.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Results")]
pub(super) struct Output {
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(super) json: bool,

    /// Write an HTML page with plots. It loads nothing from elsewhere.
    #[arg(long)]
    pub(super) report: Option<PathBuf>,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(rate) if (0.01..=1e8).contains(&rate) => Ok(rate),
        Ok(_) => Err("it must be from 0.01 to 100000000".to_owned()),
        Err(_) => Err("not a number".to_owned()),
    }
}
