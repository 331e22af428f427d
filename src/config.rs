//! The settings of a server, plain values that are checked once, and the
//! [`Address`]es that it and its clients use.
//!
//! Nothing here reads the command line or the environment: `cli` does, and
//! whoever embeds the server fills in a [`Config`] directly.

#![forbid(unsafe_code)]

mod address;
mod backbone;
mod delivery;
#[cfg(feature = "server")]
pub(crate) mod document;
mod exposure;

use std::path::PathBuf;
use std::time::Duration;

pub use address::{Address, ParseAddressError};
pub use backbone::{ParseStorageError, Storage};
pub use delivery::{Delivery, ParseDeliveryError};
pub use exposure::{Protection, check_exposure, exposures};

use crate::contract::{DEFAULT_MAX_MESSAGE_BYTES, lease};
use crate::cursor::Cursor;

/// How long nothing may be read from a connection before it is sent a ping. Gateways may
/// sit behind NATs and balancers that forget idle connections, some after less than a
/// minute.
#[cfg(feature = "server")]
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long the ping may go without a response.
#[cfg(feature = "server")]
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The default [`delay_bounds`](Config::delay_bounds), in microseconds.
const DEFAULT_DELAY_BOUNDS_US: &[u64] = &[
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// Declares the settings, each with its description and its default, in one place: the
/// fields of [`Config`], [`Config::default`] and [`Setting`] all follow from it.
macro_rules! settings {
    (
        $(#[$attribute:meta])*
        struct Config;
        $(
            $(#[doc = $line:literal])+
            $setting:ident => $field:ident: $type:ty = $default:expr;
        )+
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $(
                $(#[doc = $line])+
                #[doc = concat!("\n\nDefault: `", stringify!($default), "`.")]
                pub $field: $type,
            )+
        }

        impl Default for Config {
            fn default() -> Self {
                Config { $($field: $default,)+ }
            }
        }

        /// The fields of [`Config`], to name one of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "each is the field of `Config` of its name")]
        pub enum Setting {
            $($setting,)+
        }

        impl Setting {
            /// All of them, in the order of [`Config`]'s fields.
            pub const ALL: &'static [Setting] = &[$(Setting::$setting,)+];

            /// The field's name, such as `max_events`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Setting::$setting => stringify!($field),)+
                }
            }

            /// The setting of this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Setting> {
                Self::ALL.iter().copied().find(|setting| setting.name() == name)
            }

            /// What the setting does and what follows from its value: the field's
            /// documentation. Empty lines separate paragraphs; other settings
            /// are named in backticks.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Setting::$setting => concat!($($line, "\n",)+),)+
                }
            }
        }

        impl Config {
            /// The settings whose values are not those of `other`.
            #[must_use]
            pub fn differences(&self, other: &Config) -> Vec<Setting> {
                let mut differ = Vec::new();
                $(
                    if self.$field != other.$field {
                        differ.push(Setting::$setting);
                    }
                )+
                differ
            }

            /// Takes one setting's value over from `other`.
            pub fn take(&mut self, setting: Setting, other: &Config) {
                match setting {
                    $(Setting::$setting => self.$field = other.$field.clone(),)+
                }
            }

            /// Calls `each` with every setting and its value.
            #[cfg(feature = "server")]
            fn each(&self, mut each: impl FnMut(Setting, &dyn std::fmt::Debug)) {
                $(each(Setting::$setting, &self.$field);)+
            }
        }
    };
}

settings! {
    /// How a server behaves. [`Config::default`] is a server on the loopback
    /// interface that keeps five minutes of events in at most 256 MiB.
    ///
    /// ```
    /// use galaxy_push::config::{Address, Config};
    ///
    /// let config = Config {
    ///     listen: "[::1]:50051".parse()?,
    ///     publish_listen: Address::Unix("/run/galaxy-push.sock".into()),
    ///     ..Config::default()
    /// };
    /// config.check()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    struct Config;

    /// The address at which gateways subscribe: HOST:PORT or unix:PATH. Port 0 takes
    /// any free port; the log names it.
    ///
    /// Without `access`, anyone who reaches it sees the events of every user. An address that
    /// is not on loopback is refused unless it is protected: see `allow_plaintext` and
    /// `allow_anonymous`.
    Listen => listen: Address = Address::Tcp("127.0.0.1:50051".to_owned());

    /// The address at which publishers connect: HOST:PORT or unix:PATH.
    ///
    /// Without `access`, anyone who reaches it can send events to every user and revoke every
    /// session. It is separate from `listen`, so that it can be kept closer.
    PublishListen => publish_listen: Address = Address::Tcp("127.0.0.1:50052".to_owned());

    /// The address of the dashboard, the metrics and the health checks, by HTTP: HOST:PORT,
    /// unix:PATH, or none for no such listener.
    ///
    /// Without `access`, anyone who reaches it may look, and may disconnect gateways.
    AdminListen => admin_listen: Option<Address> = Some(Address::Tcp("127.0.0.1:50053".to_owned()));

    /// Host names under which `admin_listen` may be asked for, separated by commas.
    ///
    /// IP addresses, localhost, and the host of `admin_listen` itself always may. Any other
    /// name is refused, so that no website can reach the listener by a name of its own (DNS
    /// rebinding). A name that begins with *. stands for all names below it.
    AdminHosts => admin_hosts: Vec<String> = Vec::new();

    /// The certificate that peers are shown, in PEM: the server's own first, then those that
    /// lead to its CA. With it, all TCP addresses speak TLS and nothing else.
    ///
    /// Needs `tls_key`. A file that has changed is taken up within 10 s, and at once on
    /// SIGHUP; one that is no good leaves everything as it was.
    TlsCert => tls_cert: Option<PathBuf> = None;

    /// The private key of the first certificate in `tls_cert`, in PEM, not encrypted.
    TlsKey => tls_key: Option<PathBuf> = None;

    /// The CAs of clients' certificates, in PEM.
    ///
    /// With it, every gateway and publisher that connects by TCP has to show a certificate
    /// that one of them has signed; at `admin_listen` a client may. Without it none is asked
    /// for. When the file changes, no client comes back by
    /// an earlier session without a full check.
    TlsClientCa => tls_client_ca: Option<PathBuf> = None;

    /// The access file: who may subscribe and publish.
    ///
    /// With it, whoever it does not name may do nothing. It is read again when it changes,
    /// and on SIGHUP; a file with a mistake in it stops the start, and later leaves the
    /// earlier one in force.
    Access => access: Option<PathBuf> = None;

    /// Permit listeners that others reach without saying who may use them.
    ///
    /// Without it, a TCP listener that is not on loopback needs `access`, or clients'
    /// certificates that are checked.
    AllowAnonymous => allow_anonymous: bool = false;

    /// Permit listeners that others reach without encryption.
    ///
    /// Without it, a TCP listener that is not on loopback needs TLS. It is for networks that
    /// encrypt by themselves, such as a mesh. Tokens, too, are then sent as they are.
    AllowPlaintext => allow_plaintext: bool = false;

    /// The most events that the ring keeps.
    ///
    /// Higher: a gateway can stay away longer and still resume, within `max_bytes` and
    /// `window`. Lower: slow or absent gateways miss events sooner.
    MaxEvents => max_events: u64 = 1_048_576;

    /// The most memory that the ring uses.
    ///
    /// Higher: more events to resume from, and more memory in use. Lower: large events
    /// displace older ones sooner, and a short burst can make a slow gateway miss events.
    MaxBytes => max_bytes: u64 = 256 << 20;

    /// The largest event, encoded, without its cursor.
    ///
    /// Higher: a large event takes longer to send and delays those behind it. More than
    /// 4 MiB less the cursor needs `allow_large_events`. Lower: more events are refused.
    MaxEventBytes => max_event_bytes: usize = 64 << 10;

    /// Permit a `max_event_bytes` over the 4 MiB that gRPC clients accept by default.
    ///
    /// The limit of 4 MiB includes the event's cursor. A gateway whose client refuses an
    /// event reconnects, resumes before that event, and is sent it again, without end.
    /// Raise the message limit of every gateway's client first.
    AllowLargeEvents => allow_large_events: bool = false;

    /// The greatest age of the next event at which a cursor still resumes.
    ///
    /// Higher: a gateway that returns late receives events that may no longer matter.
    /// Lower: it starts fresh sooner, and is told how many events it missed. Zero: only a
    /// gateway that missed nothing resumes. Open streams are not affected.
    Window => window: Duration = Duration::from_secs(5 * 60);

    /// The most gateways that may be subscribed at once.
    ///
    /// Further subscriptions are refused with `RESOURCE_EXHAUSTED`. Higher: a reconnect
    /// storm needs more file descriptors and memory.
    MaxSubscribers => max_subscribers: usize = 10_000;

    /// The most session invalidations that are kept for gateways which were away for longer
    /// than the ring reaches back: the newest of each user and session.
    ///
    /// A gateway that asks for it is told those that it has missed. All together take at most
    /// 128 bytes for each, only while they are there, and 256 KiB at least: where they are longer
    /// than that, fewer are kept. The oldest go first, and gateways that would have to know them
    /// are told so. Zero: none are kept.
    MaxRevocations => max_revocations: usize = 1_000_000;

    /// For how long session invalidations are kept.
    ///
    /// It should be as long as a session can live without being validated anew. Shorter: a
    /// gateway that was away for longer has to validate its sessions.
    RevocationRetention => revocation_retention: Duration = Duration::from_secs(24 * 60 * 60);

    /// The longest lease with which a gateway may report how far it has enforced session
    /// invalidations: for so long it serves on when the server hears nothing more from it.
    ///
    /// 1 second to 10 minutes. Longer: gateways survive longer interruptions, and publishers wait
    /// longer until it is certain that a gateway which cannot be reached serves nobody. It is also
    /// how long after its start a server cannot be certain of anything: after it was lowered, that
    /// is as long as it was before, for gateways that have not come back since.
    MaxLease => max_lease: Duration = Duration::from_secs(60);

    /// The most publishers that may be connected at once.
    ///
    /// Higher: more file descriptors, and more memory for requests that are arriving.
    /// Lower: further publishers are told to go away (GOAWAY) until another one disconnects.
    MaxProducers => max_producers: usize = 512;

    /// The longest time for which a gateway may read nothing while data waits for it.
    ///
    /// Higher: gateways survive longer pauses, and dead ones pin memory for longer.
    /// Lower: dead gateways are found sooner, and slow networks end streams that would
    /// have recovered.
    StallTimeout => stall_timeout: Duration = Duration::from_secs(30);

    /// The longest time that a stop waits for gateways to receive every published event.
    ///
    /// Higher: slow gateways lose nothing at a restart, which takes longer. Lower: the
    /// process ends sooner, and streams that are cut resume elsewhere. Zero: streams end
    /// at once.
    ShutdownGrace => shutdown_grace: Duration = Duration::from_secs(10);

    /// How long a stop waits, with everything still served, after the health checks have
    /// begun to say that the server is stopping.
    ///
    /// Higher: balancers have time to send no more peers here. Zero: connections are told
    /// at once. A second SIGTERM or SIGINT ends it.
    ShutdownDelay => shutdown_delay: Duration = Duration::ZERO;

    /// The upper bounds of the buckets in which the metrics count how long deliveries, publishes
    /// and the enforcement of invalidations take, separated by commas, in increasing order.
    ///
    /// Each bound is one more time series for each of the three.
    DelayBounds => delay_bounds: Vec<Duration> = DEFAULT_DELAY_BOUNDS_US
        .iter()
        .map(|us| Duration::from_micros(*us))
        .collect();

    /// What delivery is for when events arrive faster than gateways can be written to one
    /// by one: latency, throughput or auto.
    ///
    /// To write several events at once costs little more than to write one. latency: every
    /// event is written as soon as there is a thread for it, whatever that costs. auto:
    /// while events accumulate, threads rest for half as long as they wrote. throughput:
    /// they rest longer, also after single events, which takes least processor time.
    Delivery => delivery: Delivery = Delivery::Auto;

    /// Servers of NATS, HOST:PORT separated by commas, over which several replicas of this
    /// server share their events. Without them this process is alone, and keeps its events in
    /// memory.
    ///
    /// With them a publish is answered once JetStream has stored it, every replica has every
    /// event under the same cursor, and a restart loses nothing. They may begin with nats:// or
    /// tls://.
    Backbone => backbone: Vec<String> = Vec::new();

    /// The name of the stream of JetStream that the replicas share. It is made if there is none.
    ///
    /// Its messages have this name with .evt or .inv as their subject.
    BackboneStream => backbone_stream: String = "GALAXY_PUSH".to_owned();

    /// The credentials for NATS: a file as nsc writes it, with a JWT and an NKEY seed.
    BackboneCreds => backbone_creds: Option<PathBuf> = None;

    /// The CAs of the certificates of NATS, in PEM, instead of the system's. With it, nothing is
    /// sent without TLS.
    BackboneTlsCa => backbone_tls_ca: Option<PathBuf> = None;

    /// On how many servers of NATS a stream is stored that is made: 1 to 5.
    ///
    /// 3: what was answered survives the loss of a machine. 1: it does not.
    BackboneReplicas => backbone_replicas: usize = 1;

    /// Where a stream is stored that is made: file or memory.
    ///
    /// memory: when the servers of NATS end, all events do.
    BackboneStorage => backbone_storage: Storage = Storage::File;

    /// For how long a stream that is made keeps events; without it, as long as `window`. It must
    /// not be shorter.
    BackboneMaxAge => backbone_max_age: Option<Duration> = None;

    /// The most bytes that a stream that is made keeps; without it there is no limit but that of
    /// NATS.
    BackboneMaxBytes => backbone_max_bytes: Option<u64> = None;

    /// For how long a replica may not know what was published before it says so: it is not ready,
    /// sends no heartbeats, and takes no reports.
    ///
    /// Shorter: gateways find out sooner that revocations may not come to them, and go to another
    /// replica. Longer: short troubles of NATS are not noticed.
    BackboneStaleAfter => backbone_stale_after: Duration = Duration::from_secs(15);

    /// The number of threads that serve connections. Without it, one less than there are
    /// cores, at least one.
    ///
    /// The core that is left does the kernel's part of deliveries. More threads than cores
    /// only add context switches. The command `serve` starts them; an embedded server runs
    /// on the runtime of its caller.
    WorkerThreads => worker_threads: Option<usize> = None;
}

/// What it takes until a running server goes by another value of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TakenUp {
    /// A reload.
    Reload,
    /// A reload, up to the value that the server was started with; beyond that, a restart.
    ReloadUpToStart,
    /// A reload, from one file to another. Whether there is a file at all needs a restart.
    ReloadOfFile,
    /// A restart.
    Restart,
}

impl TakenUp {
    /// In the words of a table.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            TakenUp::Reload => "yes",
            TakenUp::ReloadUpToStart => "up to the value at the start",
            TakenUp::ReloadOfFile => "yes; to have one or none: no",
            TakenUp::Restart => "no",
        }
    }
}

impl Setting {
    /// What it takes until another value of it counts.
    #[must_use]
    pub const fn taken_up(self) -> TakenUp {
        use Setting as S;
        match self {
            S::AdminHosts
            | S::Window
            | S::RevocationRetention
            | S::StallTimeout
            | S::ShutdownGrace
            | S::ShutdownDelay => TakenUp::Reload,
            S::MaxSubscribers => TakenUp::ReloadUpToStart,
            S::TlsCert | S::TlsKey | S::TlsClientCa | S::Access => TakenUp::ReloadOfFile,
            S::Listen
            | S::PublishListen
            | S::MaxLease
            | S::AdminListen
            | S::AllowAnonymous
            | S::AllowPlaintext
            | S::MaxEvents
            | S::MaxBytes
            | S::MaxEventBytes
            | S::AllowLargeEvents
            | S::MaxRevocations
            | S::MaxProducers
            | S::DelayBounds
            | S::Delivery
            | S::Backbone
            | S::BackboneStream
            | S::BackboneCreds
            | S::BackboneTlsCa
            | S::BackboneReplicas
            | S::BackboneStorage
            | S::BackboneMaxAge
            | S::BackboneMaxBytes
            | S::BackboneStaleAfter
            | S::WorkerThreads => TakenUp::Restart,
        }
    }

    /// Whether its value is a secret, which no output and no error repeats. Today none is:
    /// secrets are in files that settings name.
    #[must_use]
    pub const fn is_secret(self) -> bool {
        false
    }
}

impl Config {
    /// Above this, [`max_bytes`](Self::max_bytes) is a mistake (16 TiB).
    pub const MAX_BYTES: u64 = 1 << 44;
    /// The largest [`max_event_bytes`](Self::max_event_bytes) (16 MiB).
    pub const MAX_EVENT_BYTES: usize = 16 << 20;
    /// The largest [`max_event_bytes`](Self::max_event_bytes) that every gRPC client
    /// accepts: 4 MiB, which is their default limit for a message, less the event's
    /// cursor.
    pub const MAX_PORTABLE_EVENT_BYTES: usize = DEFAULT_MAX_MESSAGE_BYTES - Cursor::FIELD_BYTES;
    /// The most [`max_revocations`](Self::max_revocations): they take some 12 GiB.
    pub const MAX_REVOCATIONS: usize = 100_000_000;
    /// The most [`delay_bounds`](Self::delay_bounds).
    pub const MAX_DELAY_BOUNDS: usize = 64;
    /// The longest name of a stream (JetStream's own limit is 255).
    pub const MAX_STREAM_NAME_BYTES: usize = 128;
    /// The most [`backbone_replicas`](Self::backbone_replicas), which is JetStream's limit.
    pub const MAX_BACKBONE_REPLICAS: usize = 5;
    /// The longest duration that any setting takes (365 days).
    pub const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    /// The most [`worker_threads`](Self::worker_threads).
    pub const MAX_WORKER_THREADS: usize = 1024;

    /// Checks every setting, and those that limit one another.
    ///
    /// What can only be known by trying (is the port free, does the ring's
    /// memory suffice for its segments) is found out when the server is bound.
    ///
    /// # Errors
    ///
    /// The first setting that cannot work, and why.
    pub fn check(&self) -> Result<(), ConfigError> {
        match self.faults().into_iter().next() {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    /// Everything that [`check`](Self::check) can find.
    #[must_use]
    pub fn faults(&self) -> Vec<ConfigError> {
        let mut faults = Faults::default();
        self.check_listeners(&mut faults);
        self.check_files(&mut faults);
        self.check_sizes(&mut faults);
        self.check_durations(&mut faults);
        self.check_backbone(&mut faults);
        match self.worker_threads {
            Some(0) => faults.at_least_one(Setting::WorkerThreads, 0),
            Some(threads) if threads > Self::MAX_WORKER_THREADS => faults.add(
                Setting::WorkerThreads,
                format!("more than {} threads", Self::MAX_WORKER_THREADS),
            ),
            _ => {}
        }
        faults.0
    }

    fn check_listeners(&self, faults: &mut Faults) {
        use Setting as S;
        let mut listeners = vec![
            (S::Listen, &self.listen, "gateways subscribe"),
            (S::PublishListen, &self.publish_listen, "publishers connect"),
        ];
        listeners.extend(
            self.admin_listen
                .as_ref()
                .map(|address| (S::AdminListen, address, "")),
        );
        for (at, (setting, address, _)) in listeners.iter().enumerate() {
            if let Err(error) = address.check() {
                faults.add(*setting, error.to_string());
            }
            let any_port = matches!(address, Address::Tcp(at) if at.ends_with(":0"));
            let mut before = listeners.iter().take(at);
            let same = before.find(|(_, other, _)| other == address && !any_port);
            if let Some((other, _, who)) = same {
                faults.add_with(
                    *setting,
                    *other,
                    format!(
                        "{address} is where {who} already: each listener needs an address of its own"
                    ),
                );
            }
        }
        for name in self.admin_hosts.iter().filter(|name| !is_host_name(name)) {
            faults.add(S::AdminHosts, format!("{name:?} is not a host name"));
        }
    }

    fn check_files(&self, faults: &mut Faults) {
        use Setting as S;
        for (setting, file, other, needed) in [
            (S::TlsCert, &self.tls_cert, &self.tls_key, S::TlsKey),
            (S::TlsKey, &self.tls_key, &self.tls_cert, S::TlsCert),
            (
                S::TlsClientCa,
                &self.tls_client_ca,
                &self.tls_cert,
                S::TlsCert,
            ),
        ] {
            if file.is_some() && other.is_none() {
                let needed = needed.name();
                faults.add(setting, format!("it is of no use without {needed}"));
            }
        }
    }

    fn check_sizes(&self, faults: &mut Faults) {
        use Setting as S;
        faults.at_least_one(S::MaxEvents, self.max_events);
        faults.at_least_one(S::MaxBytes, self.max_bytes);
        faults.at_least_one(S::MaxEventBytes, self.max_event_bytes as u64);
        faults.at_least_one(S::MaxSubscribers, self.max_subscribers as u64);
        faults.at_least_one(S::MaxProducers, self.max_producers as u64);
        if self.max_revocations > Self::MAX_REVOCATIONS {
            let most = Self::MAX_REVOCATIONS;
            faults.add(S::MaxRevocations, format!("more than {most} invalidations"));
        }
        if self.max_bytes > Self::MAX_BYTES {
            faults.add(S::MaxBytes, "more than 16TiB cannot be meant");
        }
        if self.max_event_bytes > Self::MAX_EVENT_BYTES {
            faults.add(
                S::MaxEventBytes,
                "more than 16MiB an event is not supported",
            );
        } else if self.max_event_bytes > Self::MAX_PORTABLE_EVENT_BYTES && !self.allow_large_events
        {
            faults.add(
                S::MaxEventBytes,
                format!(
                    "with {} bytes, events could be larger than gateways accept: gRPC clients \
                     take messages of up to {DEFAULT_MAX_MESSAGE_BYTES} bytes by default, which \
                     is an event of {} bytes and its cursor; allow_large_events permits it, for \
                     gateways whose clients are set to take more",
                    self.max_event_bytes,
                    Self::MAX_PORTABLE_EVENT_BYTES,
                ),
            );
        }
        if self.max_bytes > 0 && self.max_event_bytes as u64 > self.max_bytes {
            faults.add_with(
                S::MaxEventBytes,
                S::MaxBytes,
                format!(
                    "one event of {} bytes would not fit into a ring of {} bytes",
                    self.max_event_bytes, self.max_bytes
                ),
            );
        }
    }

    fn check_durations(&self, faults: &mut Faults) {
        use Setting as S;
        for (setting, duration) in [
            (S::Window, self.window),
            (S::RevocationRetention, self.revocation_retention),
            (S::StallTimeout, self.stall_timeout),
            (S::ShutdownGrace, self.shutdown_grace),
            (S::ShutdownDelay, self.shutdown_delay),
        ] {
            if duration > Self::MAX_DURATION {
                faults.add(setting, "longer than 365 days");
            }
        }
        if !lease::is_allowed(&self.max_lease) {
            faults.add(S::MaxLease, "not within 1s and 10m");
        }
        if self.stall_timeout.is_zero() {
            faults.add(S::StallTimeout, "zero would cut every connection");
        }
        if self.delay_bounds.is_empty() || self.delay_bounds.len() > Self::MAX_DELAY_BOUNDS {
            faults.add(
                S::DelayBounds,
                format!("there must be 1 to {} of them", Self::MAX_DELAY_BOUNDS),
            );
        }
        let mut pairs = self.delay_bounds.windows(2);
        let is_zero = self.delay_bounds.first().is_some_and(Duration::is_zero);
        if is_zero || pairs.any(|pair| pair[0] >= pair[1]) {
            faults.add(
                S::DelayBounds,
                "each must be longer than the one before, and the first than zero",
            );
        }
        let mut bounds = self.delay_bounds.iter();
        if bounds.any(|bound| *bound > Self::MAX_DURATION) {
            faults.add(S::DelayBounds, "longer than 365 days");
        }
    }

    /// Tells two configurations apart: the beginning of a SHA-256, in hexadecimal digits. The
    /// same settings have the same digest in the same version of this crate.
    #[cfg(feature = "server")]
    #[must_use]
    pub fn digest(&self) -> String {
        use sha2::{Digest as _, Sha256};
        let mut digest = Sha256::new();
        self.each(|setting, value| {
            digest.update(format!("{} = {value:?}\n", setting.name()));
        });
        let bytes = digest.finalize();
        let digits = bytes.iter().take(8).map(|byte| format!("{byte:02x}"));
        digits.collect()
    }
}

/// What was found wrong.
#[derive(Default)]
struct Faults(Vec<ConfigError>);

impl Faults {
    fn add(&mut self, setting: Setting, reason: impl Into<String>) {
        self.0.push(ConfigError::new(setting, reason));
    }

    /// With the other setting that would have to change.
    fn add_with(&mut self, setting: Setting, other: Setting, reason: String) {
        self.0.push(ConfigError {
            other: Some(other),
            ..ConfigError::new(setting, reason)
        });
    }

    fn at_least_one(&mut self, setting: Setting, number: u64) {
        if number == 0 {
            self.add(setting, "it must be at least 1");
        }
    }
}

/// Whether it may be in a Host header, the `*.` of a pattern aside.
fn is_host_name(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !name.is_empty() && name.len() <= 253 && name.bytes().all(is_byte)
}

/// A [`Config`] that cannot work: which setting, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", setting.name())]
pub struct ConfigError {
    setting: Setting,
    other: Option<Setting>,
    reason: String,
}

impl ConfigError {
    fn new(setting: Setting, reason: impl Into<String>) -> Self {
        ConfigError {
            setting,
            other: None,
            reason: reason.into(),
        }
    }

    /// Another setting that it does not go together with.
    #[must_use]
    pub fn other(&self) -> Option<Setting> {
        self.other
    }

    /// The setting at fault.
    #[must_use]
    pub fn setting(&self) -> Setting {
        self.setting
    }

    /// Why it cannot work, without the setting's name.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_pass() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn every_fault_is_found_and_the_first_is_told() {
        let config = Config {
            max_events: 0,
            stall_timeout: Duration::ZERO,
            tls_cert: Some("c".into()),
            ..Config::default()
        };
        let faults = config.faults();
        let settings: Vec<Setting> = faults.iter().map(ConfigError::setting).collect();
        let wanted = [Setting::TlsCert, Setting::MaxEvents, Setting::StallTimeout];
        assert_eq!(settings, wanted);
        assert_eq!(config.check().as_ref(), Err(&faults[0]));
    }

    #[test]
    fn settings_are_compared_and_taken_over_one_by_one() {
        let (mut config, other) = (
            Config::default(),
            Config {
                window: Duration::from_secs(1),
                max_events: 7,
                ..Config::default()
            },
        );
        let differ = config.differences(&other);
        assert_eq!(differ, [Setting::MaxEvents, Setting::Window]);
        config.take(Setting::Window, &other);
        assert_eq!(config.differences(&other), [Setting::MaxEvents]);
        config.take(Setting::MaxEvents, &other);
        assert_eq!(config, other);
    }

    #[cfg(feature = "server")]
    #[test]
    fn a_digest_is_that_of_the_values() {
        let digest = Config::default().digest();
        assert_eq!(digest.len(), 16);
        assert_eq!(digest, Config::default().digest());
        let other = Config {
            max_events: 7,
            ..Config::default()
        };
        assert_ne!(digest, other.digest());
    }

    #[test]
    fn what_cannot_be_zero_is_refused_by_name() {
        let zero = "it must be at least 1";
        assert_eq!(refused(|c| c.max_events = 0), format!("max_events: {zero}"));
        assert_eq!(refused(|c| c.max_bytes = 0), format!("max_bytes: {zero}"));
        assert_eq!(
            refused(|c| c.max_event_bytes = 0),
            format!("max_event_bytes: {zero}")
        );
        assert_eq!(
            refused(|c| c.max_subscribers = 0),
            format!("max_subscribers: {zero}")
        );
        assert_eq!(
            refused(|c| c.max_producers = 0),
            format!("max_producers: {zero}")
        );
        assert_eq!(
            refused(|c| c.worker_threads = Some(0)),
            format!("worker_threads: {zero}")
        );
        assert!(refused(|c| c.stall_timeout = Duration::ZERO).starts_with("stall_timeout: "));
    }

    #[test]
    fn what_may_be_zero_passes() {
        let config = Config {
            window: Duration::ZERO,
            shutdown_grace: Duration::ZERO,
            ..Config::default()
        };
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn absurd_sizes_and_durations_are_refused() {
        assert!(refused(|c| c.max_bytes = u64::MAX).starts_with("max_bytes: "));
        assert!(refused(|c| c.max_event_bytes = 17 << 20).starts_with("max_event_bytes: "));
        assert!(refused(|c| c.window = Duration::MAX).starts_with("window: "));
        assert!(refused(|c| c.shutdown_grace = Duration::MAX).starts_with("shutdown_grace: "));
        assert!(refused(|c| c.worker_threads = Some(1025)).starts_with("worker_threads: "));
    }

    #[test]
    fn an_event_must_fit_into_the_ring() {
        let error = refused(|c| {
            c.max_bytes = 1000;
            c.max_event_bytes = 1001;
        });
        assert_eq!(
            error,
            "max_event_bytes: one event of 1001 bytes would not fit into a ring of 1000 bytes"
        );
    }

    #[test]
    fn events_that_gateways_may_refuse_need_to_be_allowed() {
        let with = |max_event_bytes, allow_large_events| {
            let config = Config {
                max_event_bytes,
                allow_large_events,
                ..Config::default()
            };
            config.check().map_err(|error| error.to_string())
        };
        // 4 MiB less a tag, a length and 24 characters.
        assert_eq!(Config::MAX_PORTABLE_EVENT_BYTES, 4_194_278);
        assert_eq!(with(4_194_278, false), Ok(()));
        assert_eq!(
            with(4_194_279, false).unwrap_err(),
            "max_event_bytes: with 4194279 bytes, events could be larger than gateways accept: \
             gRPC clients take messages of up to 4194304 bytes by default, which is an event of \
             4194278 bytes and its cursor; allow_large_events permits it, for gateways whose \
             clients are set to take more"
        );
        assert_eq!(with(Config::MAX_EVENT_BYTES, true), Ok(()));
        let too_large = with(Config::MAX_EVENT_BYTES + 1, true).unwrap_err();
        assert!(too_large.contains("more than 16MiB"), "{too_large}");
    }

    #[test]
    fn both_doors_at_one_address_are_refused_unless_the_port_is_chosen_later() {
        assert!(refused(|c| c.publish_listen = c.listen.clone()).starts_with("publish_listen: "));
        let any_port = Address::Tcp("127.0.0.1:0".to_owned());
        let config = Config {
            listen: any_port.clone(),
            publish_listen: any_port,
            ..Config::default()
        };
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn an_address_made_by_hand_is_checked_too() {
        let error = refused(|c| c.listen = Address::Tcp("nowhere".to_owned()));
        assert!(error.starts_with("listen: "), "{error}");
    }
}
