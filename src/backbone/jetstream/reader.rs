//! The stream's messages, in order and each once, from a consumer that is made anew whenever it
//! is in doubt.
//!
//! A consumer is asked for only what comes after what was read. It belongs to the stream that is
//! there when it is made: so right after that the stream's identity is checked, and what it
//! delivers then is of that stream, however often connections break.

use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::pull::{self, Config};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::message::Message;
use async_nats::jetstream::stream::{ConsumerError, Info, Stream};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;

use super::follower::{Ended, Follower};
use super::message::Stamp;
use super::stream::{Identity, age, beyond, newest};
use super::{Lost, answer_code};
use crate::freshness::Freshness;

/// How much is asked for at a time, in bytes: what may wait to be taken in.
pub(super) const ASKED_BYTES: usize = 16 << 20;
/// The same in messages.
const ASKED_MESSAGES: usize = 4096;
/// How often the server says that a consumer which has nothing to deliver is there.
const HEARTBEAT: Duration = Duration::from_secs(2);
const EXPIRES: Duration = Duration::from_secs(30);
/// A consumer that nobody asks is forgotten after so long.
const INACTIVE: Duration = Duration::from_secs(60);
/// After so long without a message it is looked whether there is none.
const QUIET: Duration = Duration::from_secs(2);
/// After so long a stream is one that has lost its end.
const SHORT: Duration = Duration::from_secs(5);
/// Before a consumer is made anew: the first time, and at most.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// A consumer, and what it delivers.
pub(super) struct Source {
    messages: pull::Stream,
    /// How many messages it had to deliver when it was made.
    pub(super) pending: u64,
    /// How many it has delivered.
    delivered: u64,
    /// When the next message was waited for.
    asked_at: Instant,
}

/// Why reading does not go on with this consumer.
pub(super) enum Stopped {
    /// Another one may do.
    Interrupted(String),
    Lost(Lost),
}

impl From<Ended> for Stopped {
    fn from(ended: Ended) -> Self {
        Stopped::Lost(match ended {
            Ended::Closed => Lost::Closed,
            Ended::Misnumbered => Lost::Misnumbered,
        })
    }
}

impl Source {
    /// A new consumer of the stream with this identity.
    pub(super) async fn open(
        stream: &Stream,
        identity: &Identity,
        from: DeliverPolicy,
    ) -> Result<Self, Stopped> {
        let config = Config {
            deliver_policy: from,
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..Config::default()
        };
        let consumer = stream.create_consumer(config).await;
        let consumer = consumer.map_err(|error: ConsumerError| interrupted(&error))?;
        // After it was made: so it is a consumer of this stream, or the stream is another one.
        check_identity(stream, identity).await?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(ASKED_MESSAGES)
            .max_bytes_per_batch(ASKED_BYTES)
            .heartbeat(HEARTBEAT)
            .expires(EXPIRES)
            .messages()
            .await;
        Ok(Source {
            messages: messages.map_err(|error| interrupted(&error))?,
            pending: consumer.cached_info().num_pending,
            delivered: 0,
            asked_at: Instant::now(),
        })
    }

    /// The next message. `None`: there was none for a while.
    pub(super) async fn next(&mut self) -> Result<Option<Message>, Stopped> {
        self.asked_at = Instant::now();
        let message = match timeout(QUIET, self.messages.next()).await {
            Err(_) => return Ok(None),
            Ok(None) => return Err(Stopped::Interrupted("the consumer has ended".to_owned())),
            Ok(Some(Err(error))) => return Err(interrupted(&error)),
            Ok(Some(Ok(message))) => message,
        };
        let delivered = message.info().map_err(|error| interrupted(&*error))?;
        self.delivered += 1;
        if delivered.consumer_sequence != self.delivered {
            return Err(Stopped::Interrupted(format!(
                "delivery {} came in the place of {}",
                delivered.consumer_sequence, self.delivered
            )));
        }
        Ok(Some(message))
    }
}

fn interrupted(error: &(impl std::error::Error + ?Sized)) -> Stopped {
    Stopped::Interrupted(error.to_string())
}

/// The stream's state, if it is still the one with this identity.
pub(super) async fn check_identity(stream: &Stream, identity: &Identity) -> Result<Info, Stopped> {
    match stream.get_info().await {
        Ok(info) if Identity::of(&info) == *identity => Ok(info),
        Ok(_) => Err(Stopped::Lost(Lost::OtherStream)),
        Err(error) if answer_code(&error) == Some(ErrorCode::STREAM_NOT_FOUND) => {
            Err(Stopped::Lost(Lost::NoStream))
        }
        Err(error) => Err(interrupted(&error)),
    }
}

/// Reads the stream into the engine.
pub(super) struct Reader {
    pub(super) stream: Stream,
    pub(super) identity: Identity,
    pub(super) follower: Follower,
    pub(super) source: Option<Source>,
    pub(super) freshness: Freshness,
    pub(super) client: Client,
    /// Since when the stream has been shorter than what was read of it.
    pub(super) short_since: Option<Instant>,
}

impl Reader {
    /// Reads, without an end of its own.
    pub(super) async fn run(mut self) -> Lost {
        let [first, longest] = BACK_OFF;
        let mut back_off = first;
        loop {
            let before = self.follower.position();
            // What is asked for without a connection would all be asked for when it is there.
            while self.client.connection_state() != State::Connected {
                sleep(back_off).await;
            }
            match self.read(None).await {
                Ok(()) => {}
                Err(Stopped::Lost(lost)) => return lost,
                Err(Stopped::Interrupted(reason)) => {
                    self.source = None;
                    if self.follower.position() != before {
                        back_off = first;
                    }
                    tracing::warn!("backbone: reading starts again: {reason}");
                    sleep(back_off).await;
                    back_off = (back_off * 2).min(longest);
                }
            }
        }
    }

    /// Reads up to this message, if it is named.
    pub(super) async fn read(&mut self, until: Option<u64>) -> Result<(), Stopped> {
        loop {
            let position = self.follower.position();
            if until.is_some_and(|until| position.message >= until) {
                return Ok(());
            }
            let mut source = match self.source.take() {
                Some(source) => source,
                None => {
                    let from = DeliverPolicy::ByStartSequence {
                        start_sequence: position.message + 1,
                    };
                    Source::open(&self.stream, &self.identity, from).await?
                }
            };
            match source.next().await? {
                Some(message) => self.take(&message, source.asked_at)?,
                None => self.settle().await?,
            }
            self.source = Some(source);
        }
    }

    /// Takes a message that has been waited for since then.
    pub(super) fn take(&mut self, message: &Message, since: Instant) -> Result<(), Stopped> {
        let info = message.info().map_err(|error| interrupted(&*error))?;
        let headers = message.headers.as_ref();
        let age = age(info.published);
        let (number, payload) = (info.stream_sequence, &message.payload);
        self.follower.take(number, headers, payload, age)?;
        // Behind the last one there was nothing.
        let known_until = match info.pending {
            0 => age.min(since.elapsed()),
            _ => age,
        };
        self.freshness.known_until(known_until);
        Ok(())
    }

    /// No message has come for a while: is there none, or are the last ones not in the stream any
    /// more?
    async fn settle(&mut self) -> Result<(), Stopped> {
        let asked_at = Instant::now();
        let info = check_identity(&self.stream, &self.identity).await?;
        let position = self.follower.position();
        let last = info.state.last_sequence;
        if last < position.message {
            // A leader that is new may not have come to its own end yet.
            let since = *self.short_since.get_or_insert(asked_at);
            return match since.elapsed() > SHORT {
                true => Err(Stopped::Lost(Lost::Shortened {
                    last,
                    read: position.message,
                })),
                false => Ok(()),
            };
        }
        self.short_since = None;
        if last == position.message {
            self.freshness.known_until(asked_at.elapsed());
            return Ok(());
        }
        // From the leader: a consumer may be at a server that is behind.
        let newest = newest(&self.stream, &info.config.name).await;
        let newest = newest.map_err(|error| interrupted(&error))?;
        if newest.iter().any(|it| it.sequence > position.message) {
            let reason = format!("message {last} is there, and does not come");
            return Err(Stopped::Interrupted(reason));
        }
        tracing::error!(
            "backbone: the messages from {} to {last} are not in the stream any more, and nobody \
             knows how many events they had",
            position.message + 1
        );
        self.follower.pass(beyond(position, last));
        Ok(())
    }
}

/// The first message from here on that is one of ours. `None`: there are no more.
pub(super) async fn first_event(source: &mut Source) -> Result<Option<(Message, Stamp)>, Stopped> {
    while source.delivered < source.pending {
        let Some(message) = source.next().await? else {
            return Err(Stopped::Interrupted("nothing is delivered".to_owned()));
        };
        if let Ok(stamp) = Stamp::read(message.headers.as_ref()) {
            return Ok(Some((message, stamp)));
        }
    }
    Ok(None)
}
