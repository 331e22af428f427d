//! A stream of NATS JetStream as the log that several replicas share.
//!
//! Every replica writes batches into the stream and reads all of it into its own engine. So each
//! event has the same cursor everywhere, and a replica that starts has what the others have.
//!
//! | file | what is in it |
//! |---|---|
//! | `message` | what a message says: events, and headers that number them |
//! | `queue` | appends that wait, joined to messages |
//! | `writer` | messages on their way into the stream, behind a fence |
//! | `reader` | the stream's messages, in order and each once |
//! | `follower` | what was read, into the engine |
//! | `stream` | the stream: made, checked, known by its identity |
//! | `connection` | the way to NATS |
//!
//! `docs/backbone.md` says what follows for those who run it.

mod connection;
mod follower;
mod message;
mod queue;
mod reader;
mod stream;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::Stream as JsStream;
use async_nats::jetstream::{self, Context as JetStreamContext, ErrorCode};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::follower::Follower;
use self::message::{MAX_HEADER_BYTES, Nonce, Position, Stamp, encoded_bytes};
pub use self::queue::Pending;
use self::queue::{Caller, Queue};
use self::reader::{Reader, Source, Stopped, check_identity, first_event};
use self::stream::{End, Identity, Subjects};
use self::writer::{Message, Store, StoreError, Tail, Writer};
use super::{Appended, Log};
use crate::config::Storage;
use crate::cursor::{Cursor, Seq};
use crate::engine::{BuildError, Builder, Engine};
use crate::event::Event;
use crate::freshness::Freshness;

/// How long a stored message may take to be answered, before the same is sent again.
const ANSWER: Duration = Duration::from_secs(1);
/// How often it is tried to say in the stream how many events it had.
const MAX_CHECKPOINTS: u64 = 20;
/// The writer's first attempt, after those of the checkpoints before it.
const FIRST_ATTEMPT: u64 = MAX_CHECKPOINTS;

/// Where the stream is, and what it is to be like.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Servers of NATS, such as `nats://a:4222`. Without a scheme that is `nats://`, without a
    /// port 4222.
    pub servers: Vec<String>,
    /// The stream's name. Its subjects are this name with `.evt` and `.inv`.
    pub stream: String,
    /// A file of credentials, as `nsc` writes them.
    pub credentials: Option<PathBuf>,
    /// CAs of the servers' certificates, in PEM, instead of the system's. With it, connections
    /// have to be encrypted.
    pub tls_ca: Option<PathBuf>,
    /// On how many servers a stream is stored that is made. Default 1.
    pub replicas: usize,
    /// Where a stream is stored that is made. Default: in files.
    pub storage: Storage,
    /// For how long a stream that is made keeps messages; zero: without a limit. Default 5
    /// minutes, as the [`window`](Self::window).
    pub max_age: Duration,
    /// How many bytes a stream that is made keeps. Default: no limit.
    pub max_bytes: Option<u64>,
    /// How old the events are that a replica reads when it starts. Default 5 minutes, as the
    /// engine's.
    pub window: Duration,
    /// After how long without news of the stream a replica is stale. Default 15 s.
    pub stale_after: Duration,
}

impl Options {
    /// The defaults, for a stream of this name at these servers.
    #[must_use]
    pub fn new(servers: Vec<String>, stream: &str) -> Self {
        const WINDOW: Duration = Duration::from_secs(5 * 60);
        Options {
            servers,
            stream: stream.to_owned(),
            credentials: None,
            tls_ca: None,
            replicas: 1,
            storage: Storage::File,
            max_age: WINDOW,
            max_bytes: None,
            window: WINDOW,
            stale_after: Duration::from_secs(15),
        }
    }
}

/// A replica at a stream: an engine that has what its window needs of the stream, and follows it.
///
/// Dropping it ends that; the engine stays, and gets nothing more.
#[derive(Debug)]
pub struct Backbone {
    engine: Engine,
    log: JetStream,
    freshness: Freshness,
    tasks: JoinSet<Lost>,
}

/// Appends to the stream. Cheap to clone: each clone is a caller of its own, whose batches are
/// stored in their order.
///
/// After a batch has failed, no later one of the same caller is stored before it has seen that.
#[derive(Clone, Debug)]
pub struct JetStream {
    caller: Caller,
}

impl Backbone {
    /// Connects, makes the stream if there is none, and builds an engine with what the stream
    /// has for its window. From then on it follows the stream.
    ///
    /// Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if NATS cannot be reached, the stream is not fit for it, or the engine cannot
    /// be built.
    pub async fn open(options: &Options, builder: Builder) -> Result<Self, OpenError> {
        let (client, monitor) = connection::open(options).await?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(ANSWER);
        let stream = stream::open(&context, options).await?;
        let config = &stream.cached_info().config;
        let identity = Identity::of(stream.cached_info());
        let epoch = identity.epoch().ok_or(OpenError::Created)?;
        let max_message_bytes = max_message_bytes(client.max_payload(), config.max_message_size);
        let keep = (!config.max_age.is_zero()).then_some(config.max_age / 2);
        let store = Stream {
            context,
            subjects: Subjects::of(&options.stream),
        };
        let replica = random()?;
        let began = Instant::now();
        let end = exact_end(&stream, &identity, &store, replica).await?;
        let queue = Arc::new(Queue::new(max_message_bytes));

        let start = async_nats::datetime::now() - options.window;
        let from = DeliverPolicy::ByStartTime { start_time: start };
        let mut source = Source::open(&stream, &identity, from).await?;
        let first = first_event(&mut source).await?;
        let position = match &first {
            Some((message, stamp)) => Position {
                message: number(message)?.saturating_sub(1),
                events: stamp.first - 1,
            },
            None => end.position,
        };
        let origin = Seq::checked_new(position.events).ok_or(OpenError::Exhausted)?;
        let (engine, appender) = builder.origin(origin).build_appended(epoch)?;
        let largest = engine.limits().max_event_bytes;
        if encoded_bytes(largest) > max_message_bytes {
            return Err(OpenError::Setting {
                stream: options.stream.clone(),
                setting: "max_msg_size, or the server's max_payload",
                problem: format!(
                    "{max_message_bytes} bytes are not enough for an event of {largest}"
                ),
            });
        }
        let (sender, tail) = watch::channel(Tail {
            position,
            newest_at: end.age.and_then(|age| began.checked_sub(age)),
            ..Tail::default()
        });
        let freshness = Freshness::until_told(options.stale_after);
        let mut reader = Reader {
            stream,
            identity,
            follower: Follower {
                appender,
                limits: engine.limits(),
                tail: sender,
                replica,
            },
            source: Some(source),
            freshness: freshness.clone(),
            client,
            short_since: None,
        };
        if let Some((message, _)) = &first {
            reader.take(message, began)?;
        }
        reader.read_until(end.position).await?;
        freshness.known_until(began.elapsed());
        let caught_up = reader.follower.position();
        tracing::info!(
            "backbone: {} events were read from the stream {}, up to {}",
            caught_up.events.saturating_sub(origin.number()),
            options.stream,
            Cursor::new(epoch, engine.head().seq())
        );

        let mut tasks = JoinSet::new();
        tasks.spawn(reader.run());
        let writer = Writer {
            store,
            queue: Arc::clone(&queue),
            tail,
            epoch,
            position: caught_up,
            nonce: Nonce {
                replica,
                attempt: FIRST_ATTEMPT,
            },
            keep,
        };
        tasks.spawn(writer.run());
        let monitored = Arc::clone(&queue);
        tasks.spawn(async move { monitor.run(&monitored).await });
        Ok(Backbone {
            engine,
            log: JetStream {
                caller: Caller::new(&queue),
            },
            freshness,
            tasks,
        })
    }

    /// The engine, which gateways subscribe to.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where publishers' batches go.
    #[must_use]
    pub fn log(&self) -> JetStream {
        self.log.clone()
    }

    /// Until when the engine has what was published.
    #[must_use]
    pub(crate) fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Waits until the stream cannot be followed any more. What the engine has then stays
    /// readable, and is all that it will ever have.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn lost(&mut self) -> Lost {
        match self.tasks.join_next().await {
            Some(Ok(lost)) => lost,
            Some(Err(_)) | None => Lost::Closed,
        }
    }
}

/// The stream's end, with how many events there were.
///
/// Where that is only a guess, it is made what holds for all, by a checkpoint: else another
/// replica might go on with other numbers.
async fn exact_end(
    stream: &JsStream,
    identity: &Identity,
    store: &Stream,
    replica: u64,
) -> Result<End, OpenError> {
    for attempt in 0..MAX_CHECKPOINTS {
        let info = check_identity(stream, identity).await?;
        let end = stream::end(stream, &info).await;
        let end = end.map_err(|error| OpenError::JetStream {
            reason: error.to_string(),
        })?;
        if !end.is_guess {
            return Ok(end);
        }
        if end.position.events >= Seq::MAX.number() {
            return Err(OpenError::Exhausted);
        }
        tracing::error!(
            "backbone: the last messages of the stream {} are not in it any more, and nobody knows \
             how many events they had: the numbers go on after {}, which is more than there were",
            info.config.name,
            end.position.events
        );
        let stamp = Stamp {
            first: end.position.events + 1,
            count: 0,
            nonce: Nonce { replica, attempt },
        };
        let checkpoint = Message::checkpoint();
        // Whatever becomes of it: what is in its place tells.
        let _ = store.store(&checkpoint, stamp, end.position.message).await;
    }
    Err(OpenError::JetStream {
        reason: "no checkpoint could be stored".to_owned(),
    })
}

/// The longest payload of a message, in bytes.
fn max_message_bytes(max_payload: usize, max_message_size: i32) -> usize {
    let of_stream = usize::try_from(max_message_size).ok().filter(|it| *it > 0);
    let longest = of_stream.map_or(max_payload, |of_stream| of_stream.min(max_payload));
    longest
        .saturating_sub(MAX_HEADER_BYTES)
        .min(reader::ASKED_BYTES / 2)
}

fn number(message: &jetstream::Message) -> Result<u64, OpenError> {
    let info = message.info().map_err(|error| OpenError::JetStream {
        reason: error.to_string(),
    })?;
    Ok(info.stream_sequence)
}

fn random() -> Result<u64, OpenError> {
    getrandom::u64().map_err(|error| OpenError::Random {
        reason: error.to_string(),
    })
}

impl Reader {
    /// Reads up to the stream's end, as it was.
    async fn read_until(&mut self, end: Position) -> Result<(), OpenError> {
        let is_empty = |source: &Option<Source>| source.as_ref().is_some_and(|it| it.pending == 0);
        if !is_empty(&self.source) {
            self.read(Some(end.message)).await?;
        }
        if self.follower.position().message < end.message {
            self.follower.pass(end);
        }
        Ok(())
    }
}

impl Log for JetStream {
    type Pending = Pending;

    fn append(&mut self, events: &[Event<'_>]) -> Appended<Pending> {
        match self.caller.append(events) {
            Ok(pending) => Appended::Pending(pending),
            Err(error) => Appended::Done(Err(error)),
        }
    }
}

/// The stream, for the writer.
#[derive(Debug)]
struct Stream {
    context: JetStreamContext,
    subjects: Subjects,
}

impl Store for Stream {
    async fn store(&self, message: &Message, stamp: Stamp, after: u64) -> Result<u64, StoreError> {
        let subject = match message.has_invalidation {
            false => &self.subjects.events,
            true => &self.subjects.invalidations,
        };
        let publish = PublishMessage::build()
            .headers(stamp.write())
            .expected_last_sequence(after)
            .payload(message.payload.clone());
        let sent = self.context.send_publish(subject.clone(), publish).await;
        let answer = match sent {
            Ok(answer) => answer.await,
            // It was not sent.
            Err(error) => match error.kind() {
                PublishErrorKind::TimedOut => return Err(StoreError::Unanswered),
                PublishErrorKind::MaxPayloadExceeded => {
                    return Err(StoreError::Never(error.to_string()));
                }
                _ => return Err(StoreError::NotStored(error.to_string())),
            },
        };
        match answer {
            Ok(stored) => Ok(stored.sequence),
            Err(error) => Err(match error.kind() {
                PublishErrorKind::WrongLastSequence => StoreError::Fenced,
                PublishErrorKind::StreamNotFound => StoreError::NotStored(error.to_string()),
                _ => match answer_code(&error) {
                    Some(code) if IS_TOO_LONG.contains(&code) => {
                        StoreError::Never(error.to_string())
                    }
                    Some(code) if IS_NOT_TAKEN.contains(&code) => {
                        StoreError::NotStored(error.to_string())
                    }
                    // Others may come when some of its servers have stored it.
                    _ => StoreError::Unanswered,
                },
            }),
        }
    }
}

/// JetStream's answers to a message that is longer than the stream takes.
const IS_TOO_LONG: [ErrorCode; 2] = [
    ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM,
    ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM,
];
/// JetStream's answers that come before it stores anything.
const IS_NOT_TAKEN: [ErrorCode; 5] = [
    ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
    ErrorCode::INSUFFICIENT_RESOURCES,
    ErrorCode::STORAGE_RESOURCES_EXCEEDED,
    ErrorCode::MEMORY_RESOURCES_EXCEEDED,
    ErrorCode::STREAM_SEALED,
];

/// What JetStream has answered, where it is an error of its own.
fn answer_code(error: &(dyn std::error::Error + 'static)) -> Option<ErrorCode> {
    let answer = error.source()?.downcast_ref::<jetstream::Error>()?;
    Some(answer.error_code())
}

/// Why a replica cannot be at a stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// NATS cannot be reached, or does not let it in.
    #[error("no connection to NATS at {servers}: {reason}")]
    Connect {
        /// The servers, without what is secret.
        servers: String,
        /// What went wrong.
        reason: String,
    },
    /// A server's address, or a file, is no good.
    #[error("{what}: {reason}")]
    Option {
        /// Which one.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// JetStream does not answer, or with an error.
    #[error("JetStream: {reason}")]
    JetStream {
        /// What it said.
        reason: String,
    },
    /// The stream cannot be made.
    #[error("the stream {stream} cannot be made: {reason}")]
    Create {
        /// Its name.
        stream: String,
        /// What JetStream said.
        reason: String,
    },
    /// The stream that is there cannot keep what is promised.
    #[error("the stream {stream} cannot be used: {setting}: {problem}")]
    Setting {
        /// Its name.
        stream: String,
        /// The setting, as JetStream calls it.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The stream says that it was created before 1970, or too far in the future.
    #[error("the stream's time of creation gives no epoch")]
    Created,
    /// No sequence is left in this epoch.
    #[error("no sequence is left in the stream's epoch: it has to be made anew")]
    Exhausted,
    /// The stream was deleted or made anew meanwhile.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The engine cannot be built with these settings.
    #[error(transparent)]
    Engine(#[from] BuildError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {reason}")]
    Random {
        /// What it said.
        reason: String,
    },
}

impl From<Stopped> for OpenError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Interrupted(reason) => OpenError::JetStream { reason },
            Stopped::Lost(lost) => OpenError::Lost(lost),
        }
    }
}

/// Why a stream cannot be followed any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// It was made anew: its events are others.
    #[error("the stream was deleted and made anew")]
    OtherStream,
    /// It was deleted.
    #[error("the stream was deleted")]
    NoStream,
    /// A message was stored elsewhere than the stream can have stored it.
    #[error("message {stored} was stored where {expected} had to be: the stream is another one")]
    Misplaced {
        /// Where it is, as the stream says.
        stored: u64,
        /// Where it had to be.
        expected: u64,
    },
    /// It is shorter than what was read of it: its servers have lost what they had answered.
    #[error("the stream ends with message {last}, and {read} was read: it has lost messages")]
    Shortened {
        /// Its last message.
        last: u64,
        /// The last one that was read.
        read: u64,
    },
    /// Messages were gone, and another replica knew how many events they had.
    #[error("the events have other numbers than was guessed for messages that are gone")]
    Misnumbered,
    /// The engine is closed.
    #[error("the engine is closed")]
    Closed,
}
