//! `galaxy-push serve`: the server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::manager::ServiceManager;
use crate::activation::{InheritError, Inherited};
use crate::command::{Failure, signals, value};
use crate::config::{Address, Config, Delivery, Protection, Setting, check_exposure};
use crate::server::{ServeError, Server, runtime};

/// Run the server: gateways subscribe at one address, publishers connect to another.
///
/// The server keeps the newest events in a ring in memory. A gateway reconnects with the
/// cursor of the last event that it processed. It resumes with the next event if the ring
/// still has that event (--max-events, --max-bytes) and it is not too old (--window).
/// Otherwise the gateway starts fresh, and the response says so. Nothing is written to
/// disk: after a restart every gateway starts fresh.
///
/// SIGTERM and SIGINT stop the server gracefully. It accepts no more events, and delivers
/// the published ones within --shutdown-grace. Then it exits with code 0. SIGHUP has it read
/// its access file and its certificates again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
How a gateway's stream ends, and what the gateway should do:
  ABORTED             a newer subscription uses its id: stop
  OUT_OF_RANGE        it was too slow for the ring; the trailer push-missed is the
                      number of missed events: reconnect, treat sessions as suspect
  DEADLINE_EXCEEDED   it read nothing for --stall-timeout: reconnect
  UNAVAILABLE         the server is stopping: reconnect, here or elsewhere
  RESOURCE_EXHAUSTED  --max-subscribers gateways are subscribed already, or as many as
                      its principal may have: back off
  INVALID_ARGUMENT    the gateway's id is empty, too long, or has control characters
  UNAUTHENTICATED     it shows no credential, or one that is wrong or has expired:
                      renew it, and reconnect
  PERMISSION_DENIED   the access file does not grant it this id (any more), or its
                      credential was revoked

How a request of a publisher can fail:
  INVALID_ARGUMENT    nothing of the request was published; the message names the
                      event's index and the field
  RESOURCE_EXHAUSTED  the connection already has too many long requests under way:
                      try again with fewer calls at once; or the publisher is over
                      its quota: try again later
  UNAUTHENTICATED, PERMISSION_DENIED
                      as above; of a request that has an event of a kind that the
                      publisher may not publish, nothing was published
  UNAVAILABLE         the server is stopping

Sizes: 65536, 512KiB, 256MiB, 1GB. Durations: 300ms, 30s, 5m, 1h.

Examples:
  galaxy-push serve
  galaxy-push serve --publish-listen unix:/run/galaxy-push.sock
  galaxy-push serve --listen 0.0.0.0:50051 --access access.toml --allow-plaintext
  galaxy-push serve --max-bytes 4GiB --max-events 16777216 --window 30m
  GALAXY_PUSH_LISTEN=127.0.0.1:6000 galaxy-push serve")]
pub(super) struct Args {
    #[arg(long, default_value_t = Config::default().listen)]
    listen: Address,

    #[arg(long, default_value_t = Config::default().publish_listen)]
    publish_listen: Address,

    #[arg(
        long,
        value_name = "ADDRESS",
        value_parser = value::optional_address,
        default_value_t = value::OptionalAddress(Config::default().admin_listen)
    )]
    admin_listen: value::OptionalAddress,

    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    admin_hosts: Vec<String>,

    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,

    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,

    #[arg(long)]
    access: Option<PathBuf>,

    #[arg(long)]
    allow_anonymous: bool,

    #[arg(long)]
    allow_plaintext: bool,

    #[arg(long, value_parser = value::number, default_value_t = Config::default().max_events)]
    max_events: u64,

    #[arg(
        long,
        value_name = "SIZE",
        value_parser = value::size,
        default_value = value::size_text(Config::default().max_bytes)
    )]
    max_bytes: u64,

    #[arg(
        long,
        value_name = "SIZE",
        value_parser = value::size_in_memory,
        default_value = value::size_text(Config::default().max_event_bytes as u64)
    )]
    max_event_bytes: usize,

    #[arg(long)]
    allow_large_events: bool,

    #[arg(
        long,
        value_parser = value::duration,
        default_value = value::duration_text(Config::default().window)
    )]
    window: Duration,

    #[arg(long, value_parser = value::count, default_value_t = Config::default().max_subscribers)]
    max_subscribers: usize,

    #[arg(long, value_parser = value::count, default_value_t = Config::default().max_producers)]
    max_producers: usize,

    #[arg(
        long,
        value_parser = value::duration,
        default_value = value::duration_text(Config::default().stall_timeout)
    )]
    stall_timeout: Duration,

    #[arg(
        long,
        value_parser = value::duration,
        default_value = value::duration_text(Config::default().shutdown_grace)
    )]
    shutdown_grace: Duration,

    #[arg(
        long,
        value_parser = value::duration,
        default_value = value::duration_text(Config::default().shutdown_delay)
    )]
    shutdown_delay: Duration,

    #[arg(
        long,
        value_name = "DURATION",
        value_parser = value::duration,
        value_delimiter = ',',
        default_value = durations_text(&Config::default().delay_bounds)
    )]
    delay_bounds: Vec<Duration>,

    #[arg(long, value_name = "GOAL", default_value_t = Config::default().delivery)]
    delivery: Delivery,

    #[arg(long, value_parser = value::count)]
    worker_threads: Option<usize>,
}

fn durations_text(durations: &[Duration]) -> String {
    let texts = durations.iter().map(|one| value::duration_text(*one));
    texts.collect::<Vec<_>>().join(",")
}

impl Args {
    fn into_config(self) -> Config {
        Config {
            listen: self.listen,
            publish_listen: self.publish_listen,
            admin_listen: self.admin_listen.0,
            admin_hosts: self.admin_hosts,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
            tls_client_ca: self.tls_client_ca,
            access: self.access,
            allow_anonymous: self.allow_anonymous,
            allow_plaintext: self.allow_plaintext,
            max_events: self.max_events,
            max_bytes: self.max_bytes,
            max_event_bytes: self.max_event_bytes,
            allow_large_events: self.allow_large_events,
            window: self.window,
            max_subscribers: self.max_subscribers,
            max_producers: self.max_producers,
            stall_timeout: self.stall_timeout,
            shutdown_grace: self.shutdown_grace,
            shutdown_delay: self.shutdown_delay,
            delay_bounds: self.delay_bounds,
            delivery: self.delivery,
            worker_threads: self.worker_threads,
        }
    }
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    // First of all: the sockets may be taken from the environment only while there is no
    // other thread.
    let sockets = Inherited::from_env().map_err(not_taken)?;
    let manager = ServiceManager::from_env()?;
    let config = sockets.settle(args.into_config()).map_err(not_taken)?;
    config
        .check()
        .map_err(|error| Failure::usage(with_flags(&error.to_string())))?;
    check_exposure(&config, Protection::of(&config))
        .map_err(|error| Failure::usage(with_flags(&error.to_string())))?;

    let runtime = runtime(config.worker_threads)
        .map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;

    runtime.block_on(async {
        // Before anything is bound: a stop that is asked for early counts.
        let asked = signals::asked_to_stop()?;
        let mut hangups = signals::hangups()?;
        let (delay, grace) = (config.shutdown_delay, config.shutdown_grace);
        let server = Server::bind_with(config, sockets).await.map_err(failure)?;
        let told = Arc::new(manager.connect(server.engine().clone()));
        let reloader = server.reloader();
        let reloading = Arc::clone(&told);
        let reloading = tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                reloading.reloading();
                reloader.reload();
                reloading.ready();
            }
        });
        let ended = server
            .run(async {
                // Everything is served when this begins.
                told.ready();
                asked.await;
                told.stopping(delay, grace);
            })
            .await;
        reloading.abort();
        // Now nobody else holds it.
        let _ = reloading.await;
        if let Some(told) = Arc::into_inner(told) {
            told.finish().await;
        }
        ended.map_err(failure)
    })
}

fn not_taken(error: InheritError) -> Failure {
    Failure::usage(with_flags(&error.to_string()))
}

/// A setting that cannot work is the caller's to correct; anything else just did
/// not work.
fn failure(error: ServeError) -> Failure {
    match error {
        ServeError::Config(_)
        | ServeError::Engine(_)
        | ServeError::Inherit(_)
        | ServeError::Access(_)
        | ServeError::Tls(_) => Failure::usage(with_flags(&error.to_string())),
        other => Failure::failed(other.to_string()),
    }
}

/// A message about settings, with the flags' names for theirs. A setting whose name is
/// an everyday word, such as `window`, counts only at the message's start.
fn with_flags(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    let of_names = |c: char| c.is_ascii_lowercase() || c == '_';
    for part in message.split_inclusive(|c| !of_names(c)) {
        let name = part.trim_end_matches(|c| !of_names(c));
        let is_setting = Setting::ALL.iter().any(|setting| setting.name() == name);
        if is_setting && (name.contains('_') || text.is_empty()) {
            text.push_str("--");
            text.push_str(&name.replace('_', "-"));
            text.push_str(&part[name.len()..]);
        } else {
            text.push_str(part);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Serve {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn no_flags_are_the_default_config() {
        let serve = Serve::try_parse_from(["serve"]).unwrap();
        assert_eq!(serve.args.into_config(), Config::default());
    }

    #[test]
    fn every_flag_reaches_its_setting() {
        let serve = Serve::try_parse_from([
            "serve",
            "--listen=unix:/a",
            "--publish-listen=[::1]:1",
            "--admin-listen=none",
            "--admin-hosts=a,*.b",
            "--tls-cert=/c",
            "--tls-key=/k",
            "--tls-client-ca=/ca",
            "--access=/access.toml",
            "--allow-anonymous",
            "--allow-plaintext",
            "--max-events=2",
            "--max-bytes=3KiB",
            "--max-event-bytes=4B",
            "--allow-large-events",
            "--window=5s",
            "--max-subscribers=6",
            "--max-producers=10",
            "--stall-timeout=7m",
            "--shutdown-grace=8ms",
            "--shutdown-delay=11s",
            "--delay-bounds=1ms,2s",
            "--delivery=throughput",
            "--worker-threads=9",
        ])
        .unwrap();
        let wanted = Config {
            listen: Address::Unix("/a".into()),
            publish_listen: Address::Tcp("[::1]:1".to_owned()),
            admin_listen: None,
            admin_hosts: vec!["a".to_owned(), "*.b".to_owned()],
            tls_cert: Some("/c".into()),
            tls_key: Some("/k".into()),
            tls_client_ca: Some("/ca".into()),
            access: Some("/access.toml".into()),
            allow_anonymous: true,
            allow_plaintext: true,
            max_events: 2,
            max_bytes: 3072,
            max_event_bytes: 4,
            allow_large_events: true,
            window: Duration::from_secs(5),
            max_subscribers: 6,
            max_producers: 10,
            stall_timeout: Duration::from_secs(420),
            shutdown_grace: Duration::from_millis(8),
            shutdown_delay: Duration::from_secs(11),
            delay_bounds: vec![Duration::from_millis(1), Duration::from_secs(2)],
            delivery: Delivery::Throughput,
            worker_threads: Some(9),
        };
        assert_eq!(serve.args.into_config(), wanted);
    }

    #[test]
    fn settings_are_named_as_flags() {
        for (message, wanted) in [
            ("max_bytes is 1", "--max-bytes is 1"),
            ("window: longer", "--window: longer"),
            (
                "max_event_bytes: large; allow_large_events permits it",
                "--max-event-bytes: large; --allow-large-events permits it",
            ),
            ("max_bytes: the window", "--max-bytes: the window"),
            ("the clock is wrong", "the clock is wrong"),
        ] {
            assert_eq!(with_flags(message), wanted);
        }
    }
}
