//! The flags of each workload. What they come to is in `plan`.

use std::path::PathBuf;
use std::time::Duration;

use super::super::value;
use super::plan::MAX_GATEWAYS;
use crate::config::Address;
use crate::load::{MAX_PRODUCERS, Shape};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Workload {
    Live(Live),
    Replay(Replay),
    Storm(Storm),
    Publish(Publish),
    Idle(Idle),
    Soak(Soak),
}

/// Events at a steady rate, to many gateways: latency, and what a delivery costs.
///
/// All gateways subscribe. Then producers publish --rate events a second, evenly, for
/// --warm-up and --duration. The latency of an event is from when it was due by that
/// schedule until a gateway had received it.
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
    /// How many events are published in a second, all producers together.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "1000",
        value_parser = rate,
        env = "GALAXY_PUSH_BENCH_RATE",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) rate: f64,

    /// How many deliveries there are in a second, all gateways together, instead of
    /// --rate: the fewer gateways there are, the more events are published.
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = rate,
        conflicts_with = "rate",
        env = "GALAXY_PUSH_BENCH_DELIVERY_RATE",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) delivery_rate: Option<f64>,

    /// How many gateways there are in addition which subscribe, and then never read.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "0",
        value_parser = |text: &str| value::within(text, 0..=MAX_GATEWAYS as u64),
        env = "GALAXY_PUSH_BENCH_STALLED",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) stalled: u64,

    #[command(flatten)]
    pub(super) events: EventArgs,
    #[command(flatten)]
    pub(super) producers: ProducerArgs,
    #[command(flatten)]
    pub(super) time: TimeArgs,
    #[command(flatten)]
    pub(super) server: ServerArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

/// Gateways that were away take everything that the ring has, all at once.
///
/// A producer fills the ring. Then all gateways connect, resume from its start, and
/// take it all; that is repeated until --duration is over. What it shows is how fast a
/// server gets events out when it has them, and what each costs it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push bench replay
  galaxy-push bench replay --gateways 1,8,64 --frame-size 16KiB --json")]
pub(super) struct Replay {
    #[command(flatten)]
    pub(super) gateways: GatewayArgs,
    /// How many events are replayed. The ring of a server that is started here has room
    /// for them, unless --max-events or --max-bytes say otherwise; another server's must.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "200000",
        value_parser = |text: &str| value::within(text, 1..=u64::MAX),
        env = "GALAXY_PUSH_BENCH_EVENTS",
        hide_env_values = true,
        allow_hyphen_values = true
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

/// All gateways are cut at once, and all come back, again and again.
///
/// Producers publish --rate events a second all the time. After --quiet, every
/// connection is cut; every gateway reconnects and resumes after its last event. Whole
/// are they when each has everything that was published until the last one was back.
/// Half of --quiet later the next storm begins, until --duration is over. Publish round
/// trips are measured in storms and between them.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push bench storm --gateways 5000
  galaxy-push bench storm --gateways 1000 --rate 5000 --duration 30s --json")]
pub(super) struct Storm {
    #[command(flatten)]
    pub(super) gateways: GatewayArgs,
    /// How many events are published in a second, all producers together.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "100",
        value_parser = rate,
        env = "GALAXY_PUSH_BENCH_RATE",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) rate: f64,

    /// How long it is quiet before the first storm, and twice as long as between two.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "2s",
        value_parser = value::duration,
        env = "GALAXY_PUSH_BENCH_QUIET",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) quiet: Duration,

    #[command(flatten)]
    pub(super) events: EventArgs,
    #[command(flatten)]
    pub(super) producers: ProducerArgs,
    #[command(flatten)]
    pub(super) time: DurationArgs,
    #[command(flatten)]
    pub(super) server: ServerArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

/// Producers publish as fast as they are accepted, with nobody subscribed.
///
/// Each has up to --in-flight requests without an answer, of --batch events each. What
/// it shows is how many events a server accepts, and what each costs it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push bench publish
  galaxy-push bench publish --batch 1,10,100 --json
  galaxy-push bench publish --producers 4 --batch 100 --duration 10s")]
pub(super) struct Publish {
    /// How many events each request has; several numbers, with commas, are run one after
    /// the other. Default: 1,10,100.
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = value::count,
        value_delimiter = ',',
        env = "GALAXY_PUSH_BENCH_BATCH",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) batch: Vec<usize>,

    /// How large a payload is. The default makes frames of 250 bytes.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = value::size_in_memory,
        default_value_t = Shape::DEFAULT_PAYLOAD_BYTES,
        env = "GALAXY_PUSH_BENCH_PAYLOAD",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) payload: usize,

    #[command(flatten)]
    pub(super) producers: ProducerArgs,
    #[command(flatten)]
    pub(super) time: TimeArgs,
    #[command(flatten)]
    pub(super) server: ServerArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

/// Gateways are connected and subscribed, and nothing is published: what one takes of
/// the server's memory.
///
/// Resident memory is read before the first gateway connects, and when all are
/// subscribed and --duration is over. Needs a server on this machine.
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

/// A steady rate for a long time, to gateways of all kinds, with a record of every
/// stream that is checked against every promise.
///
/// Beside steady gateways there are slow ones, which take half of the rate and are
/// lapped again and again; stalled ones, which stop reading until the server cuts them
/// off; flapping ones, which leave without a word and come back; and pairs of rivals,
/// which take one id from each other. To be cut off, lapped or replaced is allowed; to
/// miss an event without being told its number is not, and is exit code 1. Latencies
/// are those of the steady ones.
///
/// The server that is started has a ring of 8MiB and a stall timeout of 5s, unless
/// --max-bytes and --stall-timeout say otherwise, so that all of this happens often.
/// Gateways stall for twice the stall timeout.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push bench soak --duration 10m --report soak.html
  galaxy-push bench soak --gateways 1000 --rate 2000 --stalled 200 --duration 1h")]
pub(super) struct Soak {
    #[command(flatten)]
    pub(super) gateways: GatewayArgs,

    /// How many of the gateways are slow. Default: one in ten.
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = value::count,
        env = "GALAXY_PUSH_BENCH_SLOW",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) slow: Option<usize>,

    /// How many of the gateways stall. Default: one in ten.
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = value::count,
        env = "GALAXY_PUSH_BENCH_STALLED",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) stalled: Option<usize>,

    /// How many of the gateways flap. Default: one in five.
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = value::count,
        env = "GALAXY_PUSH_BENCH_FLAPPING",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) flapping: Option<usize>,

    /// How many pairs of the gateways are rivals. Default: one pair in fifty gateways.
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = value::count,
        env = "GALAXY_PUSH_BENCH_RIVALS",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) rivals: Option<usize>,

    /// How many events are published in a second, all producers together.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "1000",
        value_parser = rate,
        env = "GALAXY_PUSH_BENCH_RATE",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) rate: f64,

    #[command(flatten)]
    pub(super) events: EventArgs,
    #[command(flatten)]
    pub(super) producers: ProducerArgs,
    /// How long it goes on.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "1m",
        value_parser = value::duration,
        env = "GALAXY_PUSH_BENCH_DURATION",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) duration: Duration,

    #[command(flatten)]
    pub(super) server: ServerArgs,
    #[command(flatten)]
    pub(super) output: Output,
}

/// Who receives, and what they offer.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Gateways")]
pub(super) struct GatewayArgs {
    /// How many gateways there are, each on a connection of its own; several numbers,
    /// with commas, are run one after the other. Default: 100; replay: 8; storm and
    /// idle: 1000; soak: 100.
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = value::count,
        value_delimiter = ',',
        env = "GALAXY_PUSH_BENCH_GATEWAYS",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) gateways: Vec<usize>,

    /// The largest HTTP/2 frame that a gateway takes (16KiB to 16MiB less a byte). The
    /// client of this program offers 1MiB; most others offer 16KiB.
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "1MiB",
        value_parser = value::size,
        env = "GALAXY_PUSH_BENCH_FRAME_SIZE",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) frame_size: u64,

    /// How much a gateway lets be under way (64KiB less a byte to 2GiB less a byte).
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "8MiB",
        value_parser = value::size,
        env = "GALAXY_PUSH_BENCH_WINDOW",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) window: u64,
}

/// What is published.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Events")]
pub(super) struct EventArgs {
    /// How large a payload is. The default makes frames of 250 bytes.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = value::size_in_memory,
        default_value_t = Shape::DEFAULT_PAYLOAD_BYTES,
        env = "GALAXY_PUSH_BENCH_PAYLOAD",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) payload: usize,

    /// How many events each request has, which are due at the same time. Default: 1;
    /// replay: 100.
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = value::count,
        env = "GALAXY_PUSH_BENCH_BATCH",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) batch: Option<usize>,
}

/// Who publishes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Producers")]
pub(super) struct ProducerArgs {
    /// How many producers there are, each on a connection of its own (1 to 256).
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "1",
        value_parser = |text: &str| value::within(text, 1..=MAX_PRODUCERS as u64),
        env = "GALAXY_PUSH_BENCH_PRODUCERS",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) producers: u64,

    /// How many requests each may have without an answer (1 to 4096).
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "64",
        value_parser = |text: &str| value::within(text, 1..=4096),
        env = "GALAXY_PUSH_BENCH_IN_FLIGHT",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) in_flight: u64,
}

/// How long it is measured.
#[derive(Debug, clap::Args)]
pub(super) struct DurationArgs {
    /// How long it goes on. What repeats is done once at least.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5s",
        value_parser = value::duration,
        env = "GALAXY_PUSH_BENCH_DURATION",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) duration: Duration,
}

/// How long it is measured, and when it begins.
#[derive(Debug, clap::Args)]
pub(super) struct TimeArgs {
    /// How long it is measured.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5s",
        value_parser = value::duration,
        env = "GALAXY_PUSH_BENCH_DURATION",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) duration: Duration,

    /// How long it runs before that.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "1s",
        value_parser = value::duration,
        env = "GALAXY_PUSH_BENCH_WARM_UP",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) warm_up: Duration,
}

/// What is measured: a server that is started, or one that runs.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Server")]
pub(super) struct ServerArgs {
    /// Where the gateways of a running server subscribe: HOST:PORT or unix:PATH. Default:
    /// a server is started.
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "publish_connect",
        env = "GALAXY_PUSH_BENCH_CONNECT",
        hide_env_values = true
    )]
    pub(super) connect: Option<Address>,

    /// Where the producers of that server publish.
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "connect",
        env = "GALAXY_PUSH_BENCH_PUBLISH_CONNECT",
        hide_env_values = true
    )]
    pub(super) publish_connect: Option<Address>,

    /// The process of that server, if it is on this machine: without it, what it costs
    /// is not known.
    #[arg(
        long,
        value_name = "PID",
        value_parser = |text: &str| value::within(text, 1..=i32::MAX as u64),
        requires = "connect",
        env = "GALAXY_PUSH_BENCH_SERVER_PID",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) server_pid: Option<u64>,

    /// Let the server that is started listen on Unix sockets.
    #[arg(
        long,
        value_parser = clap::builder::BoolishValueParser::new(),
        conflicts_with = "connect",
        env = "GALAXY_PUSH_BENCH_UNIX",
        hide_env_values = true
    )]
    pub(super) unix: bool,

    /// How many events the started server's ring keeps.
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = value::number,
        conflicts_with = "connect",
        env = "GALAXY_PUSH_BENCH_MAX_EVENTS",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) max_events: Option<u64>,

    /// How much memory the started server's ring takes.
    #[arg(
        long,
        value_name = "SIZE",
        value_parser = value::size,
        conflicts_with = "connect",
        env = "GALAXY_PUSH_BENCH_MAX_BYTES",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) max_bytes: Option<u64>,

    /// How long a gateway of the started server may take nothing.
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = value::duration,
        conflicts_with = "connect",
        env = "GALAXY_PUSH_BENCH_STALL_TIMEOUT",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) stall_timeout: Option<Duration>,

    /// How many threads of the started server serve connections.
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = value::count,
        conflicts_with = "connect",
        env = "GALAXY_PUSH_BENCH_WORKER_THREADS",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub(super) worker_threads: Option<usize>,
}

/// Where results go.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Results")]
pub(super) struct Output {
    /// Print JSON instead of a table.
    #[arg(
        long,
        value_parser = clap::builder::BoolishValueParser::new(),
        env = "GALAXY_PUSH_BENCH_JSON",
        hide_env_values = true
    )]
    pub(super) json: bool,

    /// Write a page with plots, which needs nothing but a browser.
    #[arg(
        long,
        value_name = "FILE",
        env = "GALAXY_PUSH_BENCH_REPORT",
        hide_env_values = true
    )]
    pub(super) report: Option<PathBuf>,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(rate) if (0.01..=1e8).contains(&rate) => Ok(rate),
        Ok(_) => Err("it must be from 0.01 to 100000000".to_owned()),
        Err(_) => Err("not a number".to_owned()),
    }
}
