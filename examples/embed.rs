//! The backend of a turn-based game, with the engine embedded. Gateways subscribe
//! on the port of the backend's own gRPC service. The game publishes in process.
//!
//! ```sh
//! cargo run --example embed              # or with an address: … -- 127.0.0.1:9000
//! galaxy-push tail --id gateway-1        # in another terminal
//!
//! # Only those whom a file names:
//! cargo run --example embed -- 127.0.0.1:50051 access.toml
//! galaxy-push tail --id gateway-1 --token-file token
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use galaxy_push::access::AccessFile;
use galaxy_push::contract::publisher::{
    PublishRequest, PublishResponse, WaitEnforcedRequest, WaitEnforcedResponse, publisher_server,
};
use galaxy_push::contract::push::push_event::Kind;
use galaxy_push::contract::push::{ClientEvent, PushEvent, SessionInvalidation};
use galaxy_push::engine::{Engine, PublishError, Published, Publisher};
use galaxy_push::event::Event;
use galaxy_push::grpc::{PushService, for_gateways};
use prost::Message;
use tokio::sync::oneshot;
use tokio::time::{interval, timeout};
use tonic::codegen::BoxStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

const PLAYERS: [&str; 3] = ["usr-mira", "usr-oto", "usr-vex"];
const TURN: Duration = Duration::from_millis(500);
/// The time for gateways to receive the last events after a stop.
const GRACE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next();
    let address = address.as_deref().unwrap_or("127.0.0.1:50051").parse()?;
    let access = arguments.next().map(AccessFile::load).transpose()?;

    let engine = Engine::builder()
        .max_bytes(64 << 20)
        .max_subscribers(100)
        .build()?;
    // Wakes parked streams on this runtime, instead of on a thread of the engine.
    tokio::spawn(engine.notifier());

    let incoming = TcpIncoming::bind(address)?.with_nodelay(Some(true));
    println!("listening on {}", incoming.local_addr()?);
    let mut push = PushService::new(engine.clone());
    if let Some(access) = access {
        push = push.with_authenticator(Arc::new(access));
    }
    let moderation = Moderation {
        publisher: engine.publisher(),
    };
    let (stop, stopping) = oneshot::channel::<()>();
    let mut server = tokio::spawn(
        for_gateways(Server::builder())
            .add_service(publisher_server::PublisherServer::new(moderation))
            .add_service(push)
            .serve_with_incoming_shutdown(incoming, async {
                let _ = stopping.await;
            }),
    );

    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        failed = play(engine.publisher()) => failed?,
        ended = &mut server => return Ok(ended??),
    }
    // Streams end after the last event; connections end after their streams.
    engine.close();
    let _ = stop.send(());
    match timeout(GRACE, server).await {
        Ok(ended) => ended??,
        Err(_) => eprintln!("not all gateways took their last events in time"),
    }
    Ok(())
}

/// The game. Each turn is one atomic batch.
async fn play(publisher: Publisher) -> Result<(), Status> {
    let mut clock = interval(TURN);
    for turn in 1_u64.. {
        clock.tick().await;
        let mut events = Vec::from(PLAYERS.map(|player| turn_ready(player, turn)));
        if turn.is_multiple_of(10) {
            events.push(logout(PLAYERS[0]));
        }
        let published = publish(&publisher, events)?;
        println!("turn {turn}: {} to {}", published.first, published.last);
    }
    Ok(())
}

fn turn_ready(player: &str, turn: u64) -> PushEvent {
    let event = ClientEvent {
        user_id: player.into(),
        kind: "turn.ready".into(),
        payload: format!(r#"{{"turn":{turn}}}"#).into(),
        event_id: format!("turn-{turn}-{player}"),
        ..ClientEvent::default()
    };
    PushEvent {
        kind: Some(Kind::ClientEvent(event)),
        ..PushEvent::default()
    }
}

/// Revokes every session of a player.
fn logout(player: &str) -> PushEvent {
    let revoked = SessionInvalidation {
        user_id: player.into(),
        reason: "logout".into(),
        ..SessionInvalidation::default()
    };
    PushEvent {
        kind: Some(Kind::SessionInvalidation(revoked)),
        ..PushEvent::default()
    }
}

/// Encodes and validates the events, and publishes them as one batch.
fn publish(publisher: &Publisher, events: Vec<PushEvent>) -> Result<Published, Status> {
    let encoded: Vec<_> = events.iter().map(Message::encode_to_vec).collect();
    let events: Result<Vec<_>, _> = encoded.iter().map(|bytes| Event::parse(bytes)).collect();
    let events = events.map_err(|error| Status::invalid_argument(error.to_string()))?;
    publisher
        .publish_batch(&events)
        .map_err(|error| match error {
            PublishError::Closed => Status::unavailable("the game is shutting down"),
            _ => Status::invalid_argument(error.to_string()),
        })
}

/// The backend's own service, with which moderators end sessions. It reuses the
/// publishers' contract, so that this example needs no `.proto` of its own.
struct Moderation {
    publisher: Publisher,
}

#[tonic::async_trait]
impl publisher_server::Publisher for Moderation {
    async fn publish(
        &self,
        request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let events = request.into_inner().events;
        let all_allowed = events
            .iter()
            .all(|event| matches!(event.kind, Some(Kind::SessionInvalidation(_))));
        if !all_allowed {
            return Err(Status::permission_denied("moderators only end sessions"));
        }
        let published = publish(&self.publisher, events)?;
        Ok(Response::new(PublishResponse {
            first_cursor: published.first.to_string(),
            last_cursor: published.last.to_string(),
        }))
    }

    type PublishStreamStream = BoxStream<PublishResponse>;

    async fn publish_stream(
        &self,
        _: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        Err(Status::unimplemented("sessions are ended one by one"))
    }

    async fn wait_enforced(
        &self,
        _: Request<WaitEnforcedRequest>,
    ) -> Result<Response<WaitEnforcedResponse>, Status> {
        Err(Status::unimplemented("this backend takes no reports"))
    }
}
