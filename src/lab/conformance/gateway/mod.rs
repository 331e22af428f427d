//! `galaxy-push conformance gateway`: a backend that misbehaves on purpose, and judges what a gateway
//! does next.
//!
//! A gateway cannot be asked what it does, so the kit looks at it from three sides: at its
//! subscriptions, at what its process writes (`--gateway-command`), and at what clients of it receive
//! (`--session-command`). What is sent carries marks, texts that are nowhere else, by which the kit
//! finds it again in whatever form the gateway forwards it.

mod attempts;
mod backend;
mod cursors;
mod kit;
mod process;
mod sessions;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::promise::{Promise, Unkept, promises};
use super::report::{OutputArgs, Report};
use super::run;
use crate::command::{Failure, value};
use crate::cursor::Epoch;
use backend::Backend;
use kit::Kit;

/// Judge a gateway: serve it as a backend that misbehaves, and see what it does.
///
/// The gateway subscribes here, in plaintext. Its streams have gaps, other epochs, events that come twice,
/// takeovers, silence, and each end that the contract knows. What can be judged depends on the flags:
/// without any, whether and with which cursor the gateway comes back; with --gateway-command what it logs,
/// and whether its cursor survives a kill; with --session-command what its clients receive, and that
/// revoked ones receive nothing more.
///
/// A gateway that ends by itself, since somebody else has its id, is started again by the kit if it has
/// its command, and has to be by you otherwise.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  galaxy-push conformance gateway --listen 127.0.0.1:50051
  galaxy-push conformance gateway --listen 127.0.0.1:0 \\
   --gateway-command './gateway --connect $CONFORMANCE_CONNECT --state state --listen 127.0.0.1:8080' \\
   --session-command 'curl -sfN \"http://127.0.0.1:8080/events?user=$CONFORMANCE_USER&session=$CONFORMANCE_SESSION\"'
  galaxy-push conformance gateway --list")]
pub(crate) struct Args {
    /// Where the gateway subscribes: IP:PORT. With port 0, --gateway-command has to use CONFORMANCE_CONNECT.
    #[arg(long, default_value = "127.0.0.1:50051")]
    listen: SocketAddr,

    /// A command of the shell that runs the gateway, with CONFORMANCE_CONNECT (IP:PORT) in its environment,
    /// and CONFORMANCE_TOKEN_FILE where --gateway-token-file is set. It is killed, and started again.
    #[arg(long, value_name = "COMMAND")]
    gateway_command: Option<String>,

    /// A command of the shell that opens a session at the gateway and writes what arrives, until the session
    /// ends. The environment has its user, CONFORMANCE_USER, and its id, CONFORMANCE_SESSION. It writes a line
    /// once the session is open; `session: ID` if the gateway has given it another id.
    #[arg(long, value_name = "COMMAND")]
    session_command: Option<String>,

    /// After a gap, the gateway asks its backend who is still valid, so that sessions go on. What happens
    /// to sessions after gaps is then not judged.
    #[arg(long)]
    revalidates: bool,

    /// A file for tokens, from which the gateway takes its own. The kit makes it, and writes to it: it
    /// must not be there yet, or be empty.
    #[arg(long)]
    gateway_token_file: Option<PathBuf>,

    /// How long to wait for anything that has to come. It must be longer than the gateway's longest back-off.
    #[arg(long, default_value = "60s", value_parser = value::duration)]
    timeout: Duration,

    #[command(flatten)]
    output: OutputArgs,
}

const PROMISES: &[Promise<Kit>] = promises! {
    Contract "subscribes": "it subscribes with an id that is one, and a cursor that was issued or none"
        => cursors::subscribes;
    Contract "same-id": "it comes back under the same id"
        => cursors::keeps_id;
    Contract "resumes": "it comes back with the cursor of an event that it has processed"
        => cursors::resumes;
    Contract "resumes-after-each-end": "it comes back with its cursor, however the stream has ended"
        => cursors::after_each_end;
    Contract "one-stream": "it has one stream at a time"
        => cursors::one_stream;
    Contract "durable-cursor": "its cursor survives that it is killed"
        => cursors::durable;
    Contract "follows-epoch": "in another epoch it goes on with that epoch's cursors, also if they are smaller"
        => cursors::follows_epoch;
    Extras "never-back": "a cursor that goes back on a stream does not take it back"
        => cursors::never_back;
    Extras "repeated-event": "an event that comes twice on a stream is forwarded once"
        => cursors::repeated;
    Contract "unknown-messages": "messages of an unknown kind, and large ones, do not stop it"
        => cursors::unknown_messages;
    Contract "quiet-stream": "it keeps a stream on which nothing comes"
        => attempts::quiet;
    Contract "slow-headers": "it waits for a server that is slow to answer, with one call at a time"
        => attempts::slow_headers;
    Contract "backs-off": "it backs off from a server that refuses it"
        => attempts::refused;
    Contract "backs-off-without-progress": "it backs off from a server that accepts it and ends its streams"
        => attempts::without_progress;
    Contract "backs-off-from-crowd": "it backs off where there are too many"
        => attempts::crowded;
    Contract "backs-off-from-takeover": "it stops or backs off where another process has its id"
        => attempts::taken_over;
    Contract "backs-off-when-invalid": "it stops or backs off where its request is not valid"
        => attempts::invalid;
    Contract "credential-renewed": "when its credential ends, it comes back with the renewed one"
        => attempts::credential;
    Contract "reason-logged": "it logs the reason of each invalidation"
        => sessions::reason_logged;
    Contract "forwards-to-user": "an event for a user arrives at each session of that user, and nowhere else"
        => sessions::to_user;
    Contract "forwards-to-session": "an event for one session arrives at that session only"
        => sessions::to_session;
    Contract "forwards-in-order": "events arrive at a session in their order"
        => sessions::in_order;
    Contract "invalidation-ends-session": "an invalidated session ends, and receives nothing that came later"
        => sessions::session_revoked;
    Contract "invalidation-ends-user": "an invalidation of a user ends each session of that user"
        => sessions::user_revoked;
    Contract "invalidation-leaves-others": "an invalidation ends nobody whom it does not name"
        => sessions::others_live;
    Contract "login-after-invalidation": "who was revoked can open a new session"
        => sessions::again_after_revocation;
    Contract "invalidation-while-away": "an invalidation while it was away ends the session once it resumes"
        => sessions::while_away;
    Contract "gap-suspect": "after a gap it serves no session that may have been revoked"
        => sessions::gap;
    Contract "epoch-suspect": "after another epoch it serves no session that may have been revoked"
        => sessions::epoch_gap;
    Contract "no-kind-no-event": "a message without a kind is forwarded to nobody"
        => sessions::heartbeat_is_no_event;
    Extras "start-cursor-kept": "a fresh stream that ends before an event is resumed from its start"
        => cursors::start_cursor;
    Extras "retry-info": "it waits for as long as RetryInfo says"
        => attempts::retry_info;
    Extras "heartbeat-silence": "it drops a stream that brings nothing for two heartbeat intervals"
        => attempts::silence;
    Extras "heartbeats": "heartbeats keep its stream, and its cursor"
        => attempts::heartbeats;
    Extras "replay-enforced": "a complete replay ends the sessions that it names, and no other"
        => sessions::replay;
    Extras "replay-interrupted": "a replay that breaks off is asked for again"
        => cursors::interrupted_replay;
    Extras "receipts": "it reports invalidations as enforced, in order, and none before it was sent"
        => sessions::receipts;
};

/// A file of tokens that holds nobody's token.
fn prepare_tokens(path: &Path) -> Result<(), Failure> {
    if fs::metadata(path).is_ok_and(|file| file.len() > 0) {
        return Err(Failure::usage(format!(
            "--gateway-token-file: {} holds something, and would be overwritten",
            path.display()
        )));
    }
    attempts::write_token(path, "token-at-the-start").map_err(|error| {
        Failure::usage(format!("--gateway-token-file: {}: {error}", path.display()))
    })
}

pub(super) fn judge(args: Args) -> Result<(), Failure> {
    if args.output.list {
        return args.output.list(PROMISES);
    }
    let promises = args.output.select(PROMISES)?;
    let report = Report::new("gateway", &args.listen, &args.output)?;
    run::run(&args.output, report, &promises, async move || {
        let epoch = Epoch::now()
            .map_err(|error| Failure::failed(format!("cannot begin an epoch: {error}")))?;
        if let Some(path) = &args.gateway_token_file {
            prepare_tokens(path)?;
        }
        let backend = Backend::start(args.listen).await?;
        tracing::info!("listening for a gateway on {}", backend.address);
        let mut kit = Kit {
            backend,
            gateway_command: args.gateway_command,
            session_command: args.session_command,
            revalidates: args.revalidates,
            token_file: args.gateway_token_file,
            has_stopped: false,
            keeps_sessions: None,
            patience: args.timeout,
            run: format!("c{:08x}", rand::random::<u32>()),
            count: 0,
            gateway: None,
            live: None,
            epoch,
            log: Vec::new(),
        };
        kit.new_epoch(epoch);
        kit.start_gateway().map_err(run::cannot_begin)?;
        kit.live().await.map_err(run::cannot_begin)?;
        Ok(kit)
    })
}
