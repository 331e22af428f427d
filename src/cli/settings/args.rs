//! The flags of the settings.

use std::path::PathBuf;
use std::time::Duration;

use crate::command::value;
use crate::config::{Address, Config, Delivery, Storage};

/// A flag for each setting, and one for the file that has them.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SettingsArgs {
    /// Read settings from a configuration file, in TOML
    ///
    /// Each setting is a key, named as its flag, with underscores: max_events = 1048576. A flag
    /// overrides an environment variable, which overrides the file. Paths in it are relative to
    /// the directory that it is in. SIGHUP reads it again.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

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

    #[arg(long, value_parser = value::count, default_value_t = Config::default().max_revocations)]
    max_revocations: usize,

    #[arg(
        long,
        value_parser = value::duration,
        default_value = value::duration_text(Config::default().revocation_retention)
    )]
    revocation_retention: Duration,

    #[arg(
        long,
        value_parser = value::duration,
        default_value = value::duration_text(Config::default().max_lease)
    )]
    max_lease: Duration,

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

    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    backbone: Vec<String>,

    #[arg(long, value_name = "NAME", default_value_t = Config::default().backbone_stream)]
    backbone_stream: String,

    #[arg(long, value_name = "FILE")]
    backbone_creds: Option<PathBuf>,

    #[arg(long, value_name = "FILE")]
    backbone_tls_ca: Option<PathBuf>,

    #[arg(long, value_parser = value::count, default_value_t = Config::default().backbone_replicas)]
    backbone_replicas: usize,

    #[arg(long, value_name = "WHERE", default_value_t = Config::default().backbone_storage)]
    backbone_storage: Storage,

    #[arg(long, value_parser = value::duration)]
    backbone_max_age: Option<Duration>,

    #[arg(long, value_name = "SIZE", value_parser = value::size)]
    backbone_max_bytes: Option<u64>,

    #[arg(
        long,
        value_parser = value::duration,
        default_value = value::duration_text(Config::default().backbone_stale_after)
    )]
    backbone_stale_after: Duration,

    #[arg(long, value_parser = value::count)]
    worker_threads: Option<usize>,
}

/// Each in its largest unit that gives a whole number: no spaces.
fn durations_text(durations: &[Duration]) -> String {
    let texts = durations.iter().map(|duration| {
        let nanos = duration.as_nanos();
        let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
        let whole = units.into_iter().find(|(unit, _)| nanos % unit == 0);
        let (unit, name) = whole.unwrap_or((1, "ns"));
        format!("{}{name}", nanos / unit)
    });
    texts.collect::<Vec<_>>().join(",")
}

impl SettingsArgs {
    pub(super) fn into_config(self) -> Config {
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
            max_revocations: self.max_revocations,
            revocation_retention: self.revocation_retention,
            max_lease: self.max_lease,
            max_producers: self.max_producers,
            stall_timeout: self.stall_timeout,
            shutdown_grace: self.shutdown_grace,
            shutdown_delay: self.shutdown_delay,
            delay_bounds: self.delay_bounds,
            delivery: self.delivery,
            backbone: self.backbone,
            backbone_stream: self.backbone_stream,
            backbone_creds: self.backbone_creds,
            backbone_tls_ca: self.backbone_tls_ca,
            backbone_replicas: self.backbone_replicas,
            backbone_storage: self.backbone_storage,
            backbone_max_age: self.backbone_max_age,
            backbone_max_bytes: self.backbone_max_bytes,
            backbone_stale_after: self.backbone_stale_after,
            worker_threads: self.worker_threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Serve {
        #[command(flatten)]
        args: SettingsArgs,
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
            "--max-revocations=12",
            "--revocation-retention=13s",
            "--max-lease=14s",
            "--max-producers=10",
            "--stall-timeout=7m",
            "--shutdown-grace=8ms",
            "--shutdown-delay=11s",
            "--delay-bounds=1ms,2s",
            "--delivery=throughput",
            "--backbone=nats://a:1,b",
            "--backbone-stream=S",
            "--backbone-creds=/creds",
            "--backbone-tls-ca=/nats-ca",
            "--backbone-replicas=3",
            "--backbone-storage=memory",
            "--backbone-max-age=15s",
            "--backbone-max-bytes=16B",
            "--backbone-stale-after=17s",
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
            max_revocations: 12,
            revocation_retention: Duration::from_secs(13),
            max_lease: Duration::from_secs(14),
            max_producers: 10,
            stall_timeout: Duration::from_secs(420),
            shutdown_grace: Duration::from_millis(8),
            shutdown_delay: Duration::from_secs(11),
            delay_bounds: vec![Duration::from_millis(1), Duration::from_secs(2)],
            delivery: Delivery::Throughput,
            backbone: vec!["nats://a:1".to_owned(), "b".to_owned()],
            backbone_stream: "S".to_owned(),
            backbone_creds: Some("/creds".into()),
            backbone_tls_ca: Some("/nats-ca".into()),
            backbone_replicas: 3,
            backbone_storage: Storage::Memory,
            backbone_max_age: Some(Duration::from_secs(15)),
            backbone_max_bytes: Some(16),
            backbone_stale_after: Duration::from_secs(17),
            worker_threads: Some(9),
        };
        assert_eq!(serve.args.into_config(), wanted);
    }
}
