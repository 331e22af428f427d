//! galaxy-push beside what a deployment would use in its place, over real sockets.
//! `scripts/compare-edge` runs this and makes a table of it; each line of standard
//! output is one figure, in JSON.
//!
//! | group | what is done | parameter |
//! |---|---|---|
//! | `replay` | eight gateways take 200,000 events that are there | the frames that gateways offer |
//! | `live` | one publisher sends single events at a steady rate | the rate, and how many gateways |
//! | `single` | 50 events a second, one by one: when the first gateway has each, and when the last | to how many gateways |
//! | `fan-out` | 100,000 deliveries a second | to how many gateways |
//! | `stalled` | 500 events a second to 100 gateways, without and with others that are subscribed and never read: the latency for those that do | how many others |
//! | `idle` | gateways are subscribed, and nothing is published | how many |
//! | `storm` | all gateways are cut at once, and all come back for what they missed | how many |
//! | `publish` | one publisher sends as fast as responses come; nobody listens | events to a request |
//! | `tls` | some of these over TLS 1.3 (AES-128-GCM, ECDSA P-256, X25519MLKEM768); in storms gateways come back with a ticket, or without | which |
//!
//! With `--curves` it is `live` to 100 gateways at rates from 100 to 120,000 a second instead,
//! for each system until it is saturated.
//!
//! An event is the same for all: 219 bytes as its publisher makes it, which is a frame of
//! 250 with gRPC's prefix and the cursor. What else a protocol puts around it is its own.
//! *CPU* is processor time of all threads of the server, as the kernel counts it; sending
//! on the loopback interface includes the receiver's half of TCP. *Latency* is from when
//! an event was due until a gateway's `recv` returned with it; *in the server* it is from when
//! the publisher sent it until the kernel had it in a gateway's socket. Of `live`, each
//! tenth of a second is left out in which, or next to which, the machine itself stood still
//! (see `standstill`), which would decide p99.9 of everybody on a machine that is shared; it
//! is run up to six times, until two seconds are left (*quiet for*), and if less than half a
//! second is, no latency is told. The rows of `fan-out` are run three times a round, for
//! less long: they are compared with one another.
//!
//! # Who is compared, and how it is set up
//!
//! Each server is a process of its own, started anew for each measurement; gateways and
//! publishers are the same load generator's for all ([`galaxy_push::lab::load`]), a connection
//! each.
//!
//! | name | what |
//! |---|---|
//! | `galaxy-push` | `galaxy-push serve`, the binary that is shipped, with `--max-events=262144 --max-bytes=80MiB` |
//! | `tonic` | an ordinary tonic service of the same contract: a `tokio::sync::broadcast` of 4,096 events, a queue of the newest for who comes back, each event encoded by prost for each gateway; tonic's defaults, `TCP_NODELAY` |
//! | `tonic-bytes` | the same, but an event is encoded once, and copied into tonic's buffer for each gateway |
//! | `plaintext` | in the rows of `tls`, `galaxy-push` without it |
//! | `tcp` | plain TCP, one thread, one `send` for each event and gateway, the same bytes without HTTP/2; where a gateway has to catch up, 256 KiB to a `send`. Not what anybody would deploy: the floor |
//! | `tcp-gather`, `tcp-rest` | the same where events come faster than one `send` each takes: what arrived during a round of writes is written in the next; `tcp-rest` sleeps between rounds for half as long as one took, as ours does |
//! | `handshake` | the other floor: a connection, HTTP/2's handshake with the h2 crate, a request and its response's head, and nothing after it |
//! | `redis-pubsub`, `redis-streams` | Debian's redis-server; nothing is saved, and a subscriber may be as late as it likes; the rest is as it comes. An event is one PUBLISH or XADD (`MAXLEN ~ 262144`), pipelined; gateways SUBSCRIBE, or ask by XREAD (`COUNT 1000`, blocking) for what follows their newest entry |
//! | `nats`, `jetstream` | Debian's nats-server; a subscriber may be 1 GB and a minute late before it is dropped. JetStream keeps its stream in memory, acknowledges each event, and pushes to an ordered consumer a gateway, with flow control, as NATS' own libraries do |
//!
//! In the rows of `tls`, `tonic` and `handshake` have tokio-rustls before them, with its
//! defaults and tickets; each handshake is a task of its own. `handshake` is then bare
//! handshakes of rustls and of HTTP/2.
//!
//! All that have a history keep the newest 262,144 events, so that each is full, and
//! touches no fresh memory any more, before `publish` is measured. Ours and the two of
//! tonic have mimalloc as their allocator. Tonic has as many threads as there are cores,
//! which is tokio's default, ours one less, which is our own. Redis runs its commands on one
//! thread.
//!
//! # Who is left out
//!
//! - `replay` needs a history: Redis pub/sub and NATS core have none.
//! - `publish` needs responses: NATS core gives none. PUBLISH has one, but keeps nothing.
//! - `storm` is about HTTP/2's gateways, which resume; `handshake` has no events, and its
//!   time is that of as many connections and heads of responses.
//!
//! # What the numbers do not say
//!
//! - Anything about a network: this is the loopback interface, where a `send` does the
//!   work of both ends, and nothing is ever lost.
//! - What a server does with processors of its own: generator and server share what the
//!   machine has. At 10,000 events a second to 100 gateways most servers here are
//!   saturated on two cores; then they write several events at once, their cost for a
//!   delivery falls, and latency shows how far they are behind. Read the two together.
//!   Ours rests on purpose then, for half as long as it wrote, so that it is more events.
//! - What clusters, replicas and disks cost, and what TLS costs Redis and NATS. Redis and NATS can do much that is not
//!   asked of them here, and galaxy-push is one process without a copy.
//! - How good the clients are that people use: all are the generator's own, which do as
//!   little as they can.
//! - Small differences. Others may share the machine, and runs are short: look at the
//!   factors within a round, and at those that are large.

mod clients;
mod measure;
mod options;
mod peers;
mod row;
mod server;
mod standstill;
mod system;
mod target;
mod wire;

use std::io::Write as _;

use clap::Parser as _;

use self::options::Options;
use self::peers::Role;
use self::row::Row;
use self::server::Server;
use self::system::System;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A system of which one delivery in a hundred takes longer is saturated.
const LATE_NS: f64 = 100e6;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if standstill::is_this_process() {
        return Ok(standstill::watch()?);
    }
    if let Some(role) = Role::of_this_process() {
        return role.serve();
    }
    // `cargo bench` says it. Without, `cargo test` only asks whether this starts, with
    // words of its own.
    if !std::env::args().any(|word| word == "--bench") {
        eprintln!("nothing is measured without --bench");
        return Ok(());
    }
    Ok(compare(&Options::parse())?)
}

fn compare(options: &Options) -> std::io::Result<()> {
    raise_open_files();
    let size = options.size();
    let mut rows = if options.curves {
        row::curves()
    } else {
        row::all(&size)
    };
    rows.retain(|row| options.wants_row(row));
    // In a round, all rows of a group take turns too: some are compared with one another.
    // None of them is empty.
    for group in rows.chunk_by(|a, b| a.group == b.group) {
        for round in 1..=size.rounds * group[0].work.runs() {
            let mut saturated = Vec::new();
            for row in group {
                for &system in row.systems.iter().filter(|&&system| options.wants(system)) {
                    if !saturated.contains(&system)
                        && !measure(row, &size, system, round)?
                        && options.curves
                    {
                        saturated.push(system);
                    }
                }
            }
        }
    }
    Ok(())
}

/// One cell of the table, once. What goes wrong with it is said, and does not keep the
/// others from being measured. Returns whether the system has kept up.
fn measure(row: &Row, size: &row::Size, system: System, round: u32) -> std::io::Result<bool> {
    let Row {
        group, parameter, ..
    } = row;
    let server = match Server::start(system, row.security) {
        Ok(server) => server,
        Err(error) => {
            note(system, &error.to_string())?;
            return Ok(false);
        }
    };
    match measure::measure(row.work, size, system, &server) {
        Ok(figures) => {
            let is_late = |of: &measure::Figure| of.measure == "p99" && of.value > LATE_NS;
            let keeps_up = !figures.iter().any(is_late);
            for figure in figures {
                eprintln!(
                    "{group:8} {parameter:16} {system:14} {:20} {:12.1} {}",
                    figure.measure, figure.value, figure.unit
                );
                say(&serde_json::json!({
                    "group": group,
                    "parameter": parameter,
                    "system": system.name(),
                    "round": round,
                    "measure": figure.measure,
                    "unit": figure.unit,
                    "value": figure.value,
                }))?;
            }
            Ok(keeps_up)
        }
        Err(error) => {
            note(system, &format!("{group} {parameter}, {system}: {error}"))?;
            Ok(false)
        }
    }
}

fn note(system: System, text: &str) -> std::io::Result<()> {
    eprintln!("{text}");
    say(&serde_json::json!({ "note": text, "system": system.name() }))
}

/// One line for `scripts/compare-edge`.
fn say(value: &serde_json::Value) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{value}")?;
    stdout.flush()
}

/// Thousands of connections, here and in the servers, which inherit the limit.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // If it cannot be raised, the rows with many gateways say so.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}
