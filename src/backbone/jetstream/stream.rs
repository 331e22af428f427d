//! The stream that replicas share: made if there is none, checked if there is, and known by when
//! it was created.

use std::time::Duration;

use async_nats::jetstream::context::{Context, GetStreamErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, LastRawMessageError, LastRawMessageErrorKind, RetentionPolicy,
    StorageType, Stream,
};
use async_nats::jetstream::{ErrorCode, stream};
use sha2::{Digest, Sha256};

use super::message::{MAX_EVENTS, Position, Stamp};
use super::{OpenError, Options};
use crate::config::Storage;
use crate::cursor::Epoch;

/// How many bits of an epoch tell apart what began in the same millisecond.
const DISTINCT_BITS: u32 = 18;

/// Which stream it is: one that was deleted and made anew is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    name: String,
    /// When it was created, in nanoseconds since 1970.
    created_ns: i128,
}

impl Identity {
    pub(super) fn of(info: &Info) -> Self {
        Identity {
            name: info.config.name.clone(),
            created_ns: info.created.unix_timestamp_nanos(),
        }
    }

    /// The epoch of its events: the milliseconds of its creation, and 18 bits of a hash (SHA-256)
    /// of the nanoseconds in decimal digits, a line feed, and the stream's name.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        let millis = u64::try_from(self.created_ns / 1_000_000).ok()?;
        let hash = Sha256::digest(format!("{}\n{}", self.created_ns, self.name));
        let head = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        Epoch::new(millis, head >> (u32::BITS - DISTINCT_BITS))
    }
}

/// The subjects of a stream's messages: without an invalidation, and with one.
#[derive(Clone, Debug)]
pub(super) struct Subjects {
    pub(super) events: String,
    pub(super) invalidations: String,
}

impl Subjects {
    pub(super) fn of(stream: &str) -> Self {
        Subjects {
            events: format!("{stream}.evt"),
            invalidations: format!("{stream}.inv"),
        }
    }
}

/// The stream of these options, which is made if there is none.
pub(super) async fn open(context: &Context, options: &Options) -> Result<Stream, OpenError> {
    let name = &options.stream;
    let stream = match context.get_stream(name).await {
        Ok(stream) => stream,
        Err(error) if is_absent(error.kind()) => {
            let made = context.create_stream(wanted(options)).await;
            match made {
                Ok(stream) => stream,
                // Another replica may have made it, with other settings.
                Err(error) => match context.get_stream(name).await {
                    Ok(stream) => stream,
                    Err(_) => {
                        return Err(OpenError::Create {
                            stream: name.clone(),
                            reason: error.to_string(),
                        });
                    }
                },
            }
        }
        Err(error) => {
            return Err(OpenError::JetStream {
                reason: error.to_string(),
            });
        }
    };
    check(&stream.cached_info().config, options)?;
    Ok(stream)
}

fn is_absent(kind: GetStreamErrorKind) -> bool {
    match kind {
        GetStreamErrorKind::JetStream(error) => error.error_code() == ErrorCode::STREAM_NOT_FOUND,
        _ => false,
    }
}

fn wanted(options: &Options) -> Config {
    let subjects = Subjects::of(&options.stream);
    Config {
        name: options.stream.clone(),
        description: Some("the events of galaxy-push, for all of its replicas".to_owned()),
        subjects: vec![subjects.events, subjects.invalidations],
        storage: match options.storage {
            Storage::File => StorageType::File,
            Storage::Memory => StorageType::Memory,
        },
        num_replicas: options.replicas,
        max_age: options.max_age,
        max_bytes: options
            .max_bytes
            .map_or(-1, |bytes| bytes.min(i64::MAX as u64) as i64),
        discard: DiscardPolicy::Old,
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        ..Config::default()
    }
}

/// Whether a stream keeps what is promised. What makes a promise weaker is named in the log, what
/// breaks one is an error.
fn check(config: &Config, options: &Options) -> Result<(), OpenError> {
    let broken = |setting: &'static str, problem: String| {
        Err(OpenError::Setting {
            stream: config.name.clone(),
            setting,
            problem,
        })
    };
    let subjects = Subjects::of(&options.stream);
    for subject in [subjects.events, subjects.invalidations] {
        if !config.subjects.contains(&subject) {
            return broken("subjects", format!("{subject} is not among them"));
        }
    }
    if config.subjects.len() > 2 {
        return broken("subjects", "there are others than ours".to_owned());
    }
    if config.discard != DiscardPolicy::Old {
        return broken(
            "discard",
            "it has to be old: new refuses what is published".to_owned(),
        );
    }
    if config.retention != RetentionPolicy::Limits {
        return broken("retention", "it has to be limits".to_owned());
    }
    if config.no_ack {
        return broken("no_ack", "nobody could know what is stored".to_owned());
    }
    if config.sealed {
        return broken("sealed", "nothing can be stored".to_owned());
    }
    if config.mirror.is_some() {
        return broken("mirror", "nothing can be published to a mirror".to_owned());
    }
    if config.sources.as_ref().is_some_and(|it| !it.is_empty()) {
        return broken(
            "sources",
            "others' messages would come between ours".to_owned(),
        );
    }
    if config.subject_transform.is_some() {
        return broken("subject_transform", "the subjects have to stay".to_owned());
    }
    if config.max_messages_per_subject > 0 {
        return broken(
            "max_msgs_per_subject",
            "there are two subjects, and all messages count".to_owned(),
        );
    }
    if !config.max_age.is_zero() && config.max_age < options.window {
        return broken(
            "max_age",
            format!(
                "{:?} is shorter than --window, {:?}",
                config.max_age, options.window
            ),
        );
    }
    for weakness in weaknesses(config) {
        tracing::warn!("backbone: stream {}: {weakness}", config.name);
    }
    Ok(())
}

/// What makes an answer mean less than it could.
fn weaknesses(config: &Config) -> Vec<String> {
    let mut weaknesses = Vec::new();
    if config.storage == StorageType::Memory {
        weaknesses.push(
            "it is in memory (storage): when its servers end, everything in it is lost".to_owned(),
        );
    }
    if config.num_replicas == 1 {
        weaknesses.push(
            "one server has it (num_replicas 1): when that machine is lost, so is everything \
             in it"
                .to_owned(),
        );
    }
    if matches!(config.persist_mode, Some(stream::PersistenceMode::Async)) {
        weaknesses.push(
            "it answers before it has written (persist_mode async): what was answered can be \
             lost"
                .to_owned(),
        );
    }
    if !config.deny_delete || !config.deny_purge {
        weaknesses.push(
            "messages can be deleted (deny_delete, deny_purge): gateways miss them".to_owned(),
        );
    }
    weaknesses
}

/// The end of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Its last message, and how many events were numbered up to there.
    pub(super) position: Position,
    /// How many events there were is not known, but only how many there may have been.
    pub(super) is_guess: bool,
    /// How long ago the newest message was stored that has numbers.
    pub(super) age: Option<Duration>,
}

/// The end of the stream.
///
/// The numbers are in the messages. Where the last ones are not in the stream any more, each may
/// have had as many events as a message can have: then the next number is beyond all that may
/// have been given.
pub(super) async fn end(stream: &Stream, info: &Info) -> Result<End, LastRawMessageError> {
    let last = info.state.last_sequence;
    let mut known = Position::default();
    let mut known_age = None;
    for message in newest(stream, &info.config.name).await? {
        let Ok(stamp) = Stamp::read(Some(&message.headers)) else {
            continue;
        };
        if message.sequence > known.message {
            known = Position {
                message: message.sequence,
                events: stamp.last(),
            };
            known_age = Some(age(message.time));
        }
    }
    Ok(End {
        position: beyond(known, last),
        is_guess: known.message < last,
        age: known_age,
    })
}

/// The newest message of each subject, from the stream's leader.
pub(super) async fn newest(
    stream: &Stream,
    name: &str,
) -> Result<Vec<StreamMessage>, LastRawMessageError> {
    let subjects = Subjects::of(name);
    let mut newest = Vec::new();
    for subject in [subjects.events, subjects.invalidations] {
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => newest.push(message),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(newest)
}

/// The position after message `last`, when those after `known` are not in the stream any more.
pub(super) fn beyond(known: Position, last: u64) -> Position {
    let unknown = last.saturating_sub(known.message);
    Position {
        message: known.message.max(last),
        events: known
            .events
            .saturating_add(unknown.saturating_mul(MAX_EVENTS)),
    }
}

/// How long ago a message was stored, by this machine's clock.
pub(super) fn age(stored: async_nats::datetime::DateTime) -> Duration {
    let age = async_nats::datetime::now().unix_timestamp_nanos() - stored.unix_timestamp_nanos();
    Duration::from_nanos(u64::try_from(age.max(0)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_was_made_anew_has_another_epoch() {
        let identity = |name: &str, created_ns| Identity {
            name: name.to_owned(),
            created_ns,
        };
        let created_ns = 1_764_512_345_678_901_234;
        let epoch = identity("GALAXY_PUSH", created_ns).epoch().unwrap();
        assert_eq!(epoch.millis(), 1_764_512_345_678);
        // printf '1764512345678901234\nGALAXY_PUSH' | sha256sum: the first 18 bits.
        assert_eq!(epoch.distinct(), 42099);
        assert_ne!(identity("GALAXY_PUSH", created_ns + 1).epoch(), Some(epoch));
        assert_ne!(identity("OTHER", created_ns).epoch(), Some(epoch));
        assert_eq!(identity("GALAXY_PUSH", -1_000_000_000).epoch(), None);
    }

    #[test]
    fn the_next_number_is_beyond_all_that_may_have_been_given() {
        let position = |message, events| Position { message, events };
        assert_eq!(beyond(position(0, 0), 0), position(0, 0));
        assert_eq!(beyond(position(7, 20), 7), position(7, 20));
        assert_eq!(beyond(position(7, 20), 9), position(9, 20 + 2 * MAX_EVENTS));
        assert_eq!(beyond(position(0, 0), 3), position(3, 3 * MAX_EVENTS));
    }

    #[test]
    fn a_stream_that_cannot_keep_the_promises_is_refused_by_the_setting() {
        let options = Options {
            window: Duration::from_secs(60),
            max_age: Duration::from_secs(60),
            ..Options::new(Vec::new(), "S")
        };
        let checked = |change: fn(&mut Config)| {
            let mut config = wanted(&options);
            change(&mut config);
            check(&config, &options).map_err(|error| match error {
                OpenError::Setting { setting, .. } => setting,
                error => panic!("{error}"),
            })
        };
        assert_eq!(checked(|_| ()), Ok(()));
        assert_eq!(checked(|it| it.max_age = Duration::ZERO), Ok(()));
        let refused: [(fn(&mut Config), _); 10] = [
            (|it| it.subjects.truncate(1), "subjects"),
            (|it| it.subjects.push("more".to_owned()), "subjects"),
            (|it| it.discard = DiscardPolicy::New, "discard"),
            (|it| it.retention = RetentionPolicy::Interest, "retention"),
            (|it| it.no_ack = true, "no_ack"),
            (|it| it.sealed = true, "sealed"),
            (|it| it.mirror = Some(stream::Source::default()), "mirror"),
            (
                |it| it.sources = Some(vec![stream::Source::default()]),
                "sources",
            ),
            (|it| it.max_messages_per_subject = 1, "max_msgs_per_subject"),
            (|it| it.max_age = Duration::from_secs(59), "max_age"),
        ];
        for (change, setting) in refused {
            assert_eq!(checked(change), Err(setting));
        }
    }

    #[test]
    fn what_makes_an_answer_mean_less_is_named() {
        let config = wanted(&Options::new(Vec::new(), "S"));
        let named = |change: fn(&mut Config)| {
            let mut config = config.clone();
            config.num_replicas = 3;
            change(&mut config);
            weaknesses(&config).join("; ")
        };
        assert_eq!(named(|_| ()), "");
        assert!(named(|it| it.storage = StorageType::Memory).contains("storage"));
        assert!(named(|it| it.num_replicas = 1).contains("num_replicas"));
        assert!(named(|it| it.deny_purge = false).contains("deny_purge"));
        let persist_mode = Some(stream::PersistenceMode::Async);
        let mut config = config.clone();
        config.persist_mode = persist_mode;
        assert!(
            weaknesses(&config)
                .iter()
                .any(|it| it.contains("persist_mode"))
        );
    }
}
