//! `galaxy-push conformance server`: gateways and a publisher that judge a server.
//!
//! Each promise has gateways with ids of its own, on connections of their own. A *witness*
//! subscribes first and sees all that is published: what it has received, byte for byte, is what
//! every other gateway has to receive. That something does not come is known without waiting: what
//! is published next has to come instead.

mod delivery;
mod extras;
mod identity;
mod kit;
mod publisher;
mod publishing;
mod restart;
mod start;
mod stream;

use std::path::PathBuf;
use std::time::Duration;

use super::promise::{Promise, Unkept, promises};
use super::report::{OutputArgs, Report};
use super::run;
use crate::command::{ConnectArgs, Failure, value};
use crate::config::{Address, Config};
use kit::Kit;
use publisher::{Calls, Publisher};

/// Judge a server: whether it keeps the contract with gateways and publishers.
///
/// Any implementation of the contract can be judged. Nobody else may publish meanwhile. Each
/// promise is one line of the report: kept, broken (with what was seen), or skipped (with what is
/// missing to judge it). The exit code is 1 if one is broken.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push conformance server
  galaxy-push conformance server --connect 10.0.0.7:50051 --publish-connect 10.0.0.7:50052
  galaxy-push conformance server --connect 10.0.0.7:50051 --publish-command './publish -'
  galaxy-push conformance server --level contract --format junit --output conformance.xml
  galaxy-push conformance server --only takeover-exact,resume-next-event
  galaxy-push conformance server --list")]
pub(crate) struct Args {
    /// The server's address for gateways: HOST:PORT or unix:PATH.
    #[arg(long, default_value_t = Config::default().listen)]
    connect: Address,

    /// The server's address for publishers: HOST:PORT or unix:PATH.
    #[arg(
        long,
        default_value_t = Config::default().publish_listen,
        conflicts_with = "publish_command"
    )]
    publish_connect: Address,

    /// Publish by this command of the shell instead. It gets an event in each line of its standard input,
    /// in the JSON that `galaxy-push publish -` reads, and has to publish it at once. Payloads are in
    /// `payload_base64`. What is promised about calls of the Publisher service is skipped.
    #[arg(long, value_name = "COMMAND")]
    publish_command: Option<String>,

    /// After how many newer events the server has dropped one from its ring. With it, gateways come back too
    /// late, and are too slow. Sensible up to some thousands: start the server with a small ring.
    #[arg(long, value_name = "NUMBER", value_parser = |text: &str| value::within(text, 64..=20_000))]
    ring_events: Option<u64>,

    /// A command of the shell that restarts the server gracefully, at the same addresses. With it, what is
    /// promised about restarts is judged.
    #[arg(long, value_name = "COMMAND")]
    restart_command: Option<String>,

    /// How long to wait for anything that has to come.
    #[arg(long, default_value = "10s", value_parser = value::duration)]
    timeout: Duration,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    how: ConnectArgs,

    /// The token for the address of publishers. Default: --token-file.
    #[arg(long)]
    publish_token_file: Option<PathBuf>,
}

// Receipts come first: later there are more gateways than a list of missing ones has.
const PROMISES: &[Promise<Kit>] = promises! {
    Extras "receipts": "WaitEnforced knows who has reported an invalidation as enforced, and who has not"
        => extras::receipts;
    Contract "headers-at-once": "the response's headers come before there is an event"
        => start::headers_at_once;
    Contract "start-announced": "the headers say where a stream starts, and why"
        => start::announced;
    Contract "fresh-after-head": "without a cursor, a stream starts after the newest event"
        => start::fresh_after_head;
    Contract "resume-next-event": "with a cursor, a stream goes on with the event after it"
        => start::resumes;
    Contract "resume-while-away": "a gateway that comes and goes receives each event once"
        => start::resumes_while_away;
    Contract "resume-at-head": "the cursor of the newest event resumes"
        => start::resumes_at_head;
    Contract "resume-from-start-cursor": "push-start-cursor resumes"
        => start::resumes_from_start_cursor;
    Contract "ahead-fresh": "a cursor beyond the newest event starts fresh (ahead)"
        => start::ahead;
    Contract "other-epoch-fresh": "a cursor of another epoch starts fresh (other-epoch)"
        => start::other_epoch;
    Contract "malformed-fresh": "a text that is no cursor starts fresh (malformed)"
        => start::malformed;
    Contract "expired-announced": "a cursor that has left the ring starts fresh (expired), with the count of missed events"
        => start::expired;
    Contract "cursor-form": "cursors are 24 characters, and grow as text"
        => delivery::cursor_form;
    Contract "cursor-dense": "sequences have no holes, and one epoch"
        => delivery::cursor_dense;
    Contract "every-gateway": "every gateway receives every event, in the same order, with the same bytes"
        => delivery::every_gateway;
    Contract "fields-verbatim": "texts of an event arrive as they were published"
        => delivery::fields_verbatim;
    Contract "payload-verbatim": "payloads arrive as they were published"
        => delivery::payload_verbatim;
    Contract "invalidation-delivered": "session invalidations arrive with their user, session and reason"
        => delivery::invalidation;
    Contract "burst-complete": "a burst arrives whole and in order, also at a gateway that comes and goes"
        => delivery::burst;
    Contract "slow-gateway-alone": "a gateway that reads nothing holds up nobody"
        => delivery::slow_gateway;
    Contract "lagged-told": "a gateway that is too slow ends with OUT_OF_RANGE and the count of missed events"
        => delivery::lagged;
    Contract "shared-connection": "streams on one connection do not disturb each other"
        => delivery::shared_connection;
    Contract "quiet-unasked": "a gateway that asks for no heartbeats receives events only"
        => extras::silent_without_heartbeats;
    Contract "takeover-ends-older": "a newer subscription of the same id ends the older one with ABORTED"
        => identity::ends_older;
    Contract "takeover-exact": "the older stream brings nothing that was published after the newer one's headers"
        => identity::exact;
    Contract "takeover-of-stuck": "a gateway that reads nothing can be taken over"
        => identity::of_a_stuck_one;
    Contract "takeover-leaves-others": "a takeover ends no stream of another id"
        => identity::leaves_others;
    Contract "id-again": "an id can subscribe again after its stream has ended"
        => identity::again_after_end;
    Contract "id-rules": "an id that is empty, too long or has control characters is refused by name"
        => identity::rules;
    Contract "id-allowed": "every other id is taken"
        => identity::allowed;
    Contract "credential-needed": "without a credential nobody subscribes, nor takes an id over"
        => identity::credential;
    Contract "unknown-method": "a method that there is not is refused with UNIMPLEMENTED"
        => extras::unknown_method;
    Contract "publish-answers": "an answer has the cursors with which gateways receive the events"
        => publishing::answers;
    Contract "publish-atomic": "of a batch with one bad event, nothing is published"
        => publishing::atomic;
    Contract "publish-contiguous": "the events of a batch lie side by side, and a publisher's batches in their order"
        => publishing::contiguous;
    Contract "publish-bytes-verbatim": "an event's bytes arrive as they were sent, unknown fields too, with the cursor behind"
        => publishing::bytes_verbatim;
    Contract "publish-refuses-no-events": "a batch without events is refused"
        => publishing::refuses_no_events;
    Contract "publish-refuses-no-kind": "an event without a kind is refused by index and field"
        => publishing::refuses_no_kind;
    Contract "publish-refuses-empty-user": "an event without a user is refused by index and field"
        => publishing::refuses_empty_user;
    Contract "publish-refuses-empty-kind": "a ClientEvent without its kind is refused by index and field"
        => publishing::refuses_empty_kind;
    Contract "publish-refuses-cursor": "an event that has a cursor is refused by index and field"
        => publishing::refuses_cursor;
    Contract "publish-refuses-not-utf8": "text that is not UTF-8 is refused by index"
        => publishing::refuses_not_utf8;
    Contract "publish-refuses-malformed": "bytes that are no PushEvent are refused by index"
        => publishing::refuses_malformed;
    Contract "publish-stream-order": "PublishStream answers in the order of the requests"
        => publishing::stream_order;
    Contract "publish-stream-bad-request": "a bad request ends PublishStream; earlier answers stand"
        => publishing::stream_bad_request;
    Contract "restart-ends-streams": "a restart delivers what was published, then ends streams with UNAVAILABLE"
        => restart::ends_streams;
    Contract "restart-announced": "after a restart a stream resumes exactly, or says other-epoch"
        => restart::announces;
    Extras "reasons": "refusals and ends carry google.rpc.ErrorInfo"
        => extras::reasons;
    Extras "takeover-instance": "whoever is taken over is told the newer one's push-instance"
        => extras::instance;
    Extras "heartbeats": "a quiet stream brings heartbeats, at the position that it has passed"
        => extras::heartbeats;
    Extras "heartbeat-rules": "an interval that is none, or out of bounds, is refused"
        => extras::heartbeat_rules;
    Extras "revocations": "a fresh stream begins with the invalidations that are kept, in order, and their end mark"
        => extras::revocations;
    Extras "revocations-after-gap": "after a gap, every missed invalidation is among the revocations, and none from before"
        => extras::revocations_after_gap;
    Extras "revocations-other-epoch": "with a cursor of another epoch, revocations are partial and all that are kept"
        => extras::revocations_of_other_epoch;
    Extras "revocations-resumed": "a stream that resumes says where the newest event is"
        => extras::revocations_resumed;
    Extras "revocations-rules": "a value of push-revocations that is none is refused"
        => extras::revocations_rules;
    Extras "health": "grpc.health.v1 says SERVING"
        => extras::health;
};

pub(super) fn judge(args: Args) -> Result<(), Failure> {
    if args.output.list {
        return args.output.list(PROMISES);
    }
    let promises = args.output.select(PROMISES)?;
    let gateways = args.how.connector(&args.connect)?;
    let publish = match &args.publish_token_file {
        Some(path) => args.how.connector_with_token(&args.publish_connect, path)?,
        None => args.how.connector(&args.publish_connect)?,
    };
    let strangers = args.how.has_token().then(|| args.how.without_token());
    let strangers = strangers
        .map(|how| how.connector(&args.connect))
        .transpose()?;
    let report = Report::new("server", &args.connect, &args.output)?;
    run::run(&args.output, report, &promises, async move || {
        let publisher = match args.publish_command {
            Some(line) => Publisher::command(line),
            None => Publisher::Calls(
                Calls::connect(&publish, args.timeout)
                    .await
                    .map_err(run::cannot_begin)?,
            ),
        };
        // Whoever is not there fails now, and not with each promise.
        gateways
            .connect()
            .await
            .map_err(|error| crate::command::connect_failure(&error))?;
        Ok(Kit {
            gateways,
            strangers,
            publisher,
            ring_events: args.ring_events,
            restart: args.restart_command,
            patience: args.timeout,
            run: format!("{:08x}", rand::random::<u32>()),
            count: 0,
        })
    })
}
