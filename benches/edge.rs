//! What a delivery costs the server, beside an ordinary tonic service.
//!
//! Gateways resume from the start of a full ring, all at once, over real sockets
//! from a process of their own. Each checks that every event arrives, in order.
//! The server's processor time is read from the operating system before and after.
//! The two servers take turns in one run; read the ratios, not the times.
//!
//! Ordinary means: the generated service, a stream of messages, each encoded by
//! prost for each subscriber.
//!
//! `cargo bench --bench edge` (Linux); `EDGE_ROUNDS`, `EDGE_EVENTS` and
//! `EDGE_GATEWAYS` change its size.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use galaxy_push::config::{Address, Config};
use galaxy_push::cursor::{Cursor, Epoch, Seq};
use galaxy_push::event::Event;
use galaxy_push::proto::push::push_client::PushClient;
use galaxy_push::proto::push::push_server::{Push, PushServer};
use galaxy_push::proto::push::{ClientEvent, GatewaySubscribeRequest, PushEvent, push_event};
use galaxy_push::server::Server;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The size that each frame has on the wire.
const FRAME_BYTES: usize = 250;

fn main() -> Result<(), Failure> {
    let role = std::env::var("EDGE_ROLE").unwrap_or_default();
    match role.as_str() {
        "galaxy-push" => runtime()?.block_on(serve_ours()),
        "tonic" => runtime()?.block_on(serve_tonic()),
        _ => runtime()?.block_on(compare()),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

fn setting(name: &str, default: u64) -> u64 {
    let value = std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok());
    value.unwrap_or(default)
}

fn event(number: u64) -> PushEvent {
    // What is around the payload in a frame: 31 bytes of framing, 22 of fields.
    let mut payload = vec![b'x'; FRAME_BYTES - 31 - 22];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    PushEvent {
        kind: Some(push_event::Kind::ClientEvent(ClientEvent {
            user_id: "u1".into(),
            kind: "turn.ready".into(),
            payload: payload.into(),
            ..ClientEvent::default()
        })),
        cursor: String::new(),
    }
}

fn number(event: &PushEvent) -> Option<u64> {
    match &event.kind {
        Some(push_event::Kind::ClientEvent(event)) => {
            Some(u64::from_be_bytes(*event.payload.first_chunk()?))
        }
        _ => None,
    }
}

async fn serve_ours() -> Result<(), Failure> {
    let server = Server::bind(Config {
        listen: Address::Tcp("127.0.0.1:0".into()),
        publish_listen: Address::Tcp("127.0.0.1:0".into()),
        ..Config::default()
    })
    .await?;
    let publisher = server.engine().publisher();
    for n in 1..=setting("EDGE_EVENTS", 200_000) {
        let encoded = event(n).encode_to_vec();
        publisher.publish(Event::parse(&encoded)?)?;
    }
    announce(
        &server.listen_addr().to_string(),
        server.engine().head().epoch(),
    )?;
    server.run(std::future::pending()).await?;
    Ok(())
}

async fn serve_tonic() -> Result<(), Failure> {
    let epoch = Epoch::now().ok_or("the clock is off")?;
    let history = (1..=setting("EDGE_EVENTS", 200_000))
        .map(|n| PushEvent {
            cursor: Cursor::new(epoch, Seq::new(n)).to_string(),
            ..event(n)
        })
        .collect();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(&listener.local_addr()?.to_string(), epoch)?;
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(PushServer::new(Ordinary { history }))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}

fn announce(address: &str, epoch: Epoch) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{address} {}", epoch.millis())?;
    stdout.flush()
}

/// The service as anybody would write it.
struct Ordinary {
    history: Arc<[PushEvent]>,
}

#[tonic::async_trait]
impl Push for Ordinary {
    type SubscribePushStream =
        std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<PushEvent, Status>> + Send>>;

    async fn subscribe_push(
        &self,
        request: Request<GatewaySubscribeRequest>,
    ) -> Result<Response<Self::SubscribePushStream>, Status> {
        let cursor: Cursor = request
            .into_inner()
            .cursor
            .parse()
            .map_err(|_| Status::invalid_argument("cursor"))?;
        let history = Arc::clone(&self.history);
        let from = cursor.seq().number() as usize;
        let events = (from..history.len()).map(move |i| Ok(history[i].clone()));
        let live = tokio_stream::pending();
        Ok(Response::new(Box::pin(
            tokio_stream::iter(events).chain(live),
        )))
    }
}

/// A server in a process of its own, ended with this value.
struct Running {
    child: Child,
    address: String,
    epoch: Epoch,
}

impl Running {
    fn start(role: &str) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .env("EDGE_ROLE", role)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("the child has an output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let (address, epoch) = line
            .trim()
            .split_once(' ')
            .ok_or("the server did not start")?;
        Ok(Running {
            address: format!("http://{address}"),
            epoch: Epoch::from_millis(epoch.parse()?).ok_or("an epoch")?,
            child,
        })
    }

    /// Processor time of all threads so far, in nanoseconds.
    fn cpu_nanos(&self) -> Result<u64, Failure> {
        let mut total = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
            total += stat.split(' ').next().ok_or("schedstat")?.parse::<u64>()?;
        }
        Ok(total)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn compare() -> Result<(), Failure> {
    let (events, gateways) = (setting("EDGE_EVENTS", 200_000), setting("EDGE_GATEWAYS", 8));
    let rounds = setting("EDGE_ROUNDS", 5).max(1);
    println!(
        "replay: {gateways} gateways resume {events} events of {FRAME_BYTES} bytes, {rounds} rounds"
    );
    let servers = [Running::start("galaxy-push")?, Running::start("tonic")?];
    for (name, frame_bytes) in [("16 KiB", 16 << 10), ("1 MiB", 1 << 20)] {
        let mut costs = [Vec::new(), Vec::new()];
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (i, server) in servers.iter().enumerate() {
                let (before, start) = (server.cpu_nanos()?, Instant::now());
                replay(server, frame_bytes, gateways, events).await?;
                let deliveries = (gateways * events) as f64;
                costs[i].push((server.cpu_nanos()? - before) as f64 / deliveries);
                rates[i].push(deliveries / start.elapsed().as_secs_f64());
            }
        }
        let [ours, theirs] = costs.map(median);
        let [our_rate, their_rate] = rates.map(median);
        println!("client frames of {name}");
        println!(
            "  galaxy-push     {ours:7.1} ns of server CPU a delivery, {our_rate:11.0} deliveries/s"
        );
        println!(
            "  ordinary tonic  {theirs:7.1} ns of server CPU a delivery, {their_rate:11.0} deliveries/s"
        );
        println!("  tonic / ours    {:7.2} times", theirs / ours);
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// All gateways resume from the start; ends when each has every event.
async fn replay(
    server: &Running,
    frame_bytes: u32,
    gateways: u64,
    events: u64,
) -> Result<(), Failure> {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..gateways {
        let endpoint = Endpoint::from_shared(server.address.clone())?
            .max_frame_size(frame_bytes)
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(16 << 20);
        let epoch = server.epoch;
        tasks.spawn(async move { gateway(endpoint, n, epoch, events).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn gateway(endpoint: Endpoint, n: u64, epoch: Epoch, events: u64) -> Result<(), Failure> {
    let mut client = PushClient::new(endpoint.connect().await?);
    let mut stream = client
        .subscribe_push(GatewaySubscribeRequest {
            gateway_client_id: format!("gateway-{n}"),
            cursor: Cursor::new(epoch, Seq::ZERO).to_string(),
        })
        .await?
        .into_inner();
    for expected in 1..=events {
        let event = stream.message().await?.ok_or("the stream ended early")?;
        let cursor: Cursor = event.cursor.parse()?;
        if cursor.seq().number() != expected || number(&event) != Some(expected) {
            return Err(format!("gateway {n} got {cursor} where {expected} was due").into());
        }
    }
    Ok(())
}
