//! The way of spans to the collector: a bounded queue, and threads that deliver nothing.
//!
//! The SDK's batch processor has a thread of its own, which encodes; the connection's tasks run
//! on another one, `spans`. Both are nicer than those that deliver. A collector that is away or
//! slow costs spans, which are counted and logged, and nothing else.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::{WithTonicConfig as _, tonic_types::transport::ClientTlsConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::correlation::Ids;
use super::environment::Environment;

/// How often what was lost is logged.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// How long the last spans have at the end.
const LAST_EXPORT: Duration = Duration::from_secs(2);
/// Which service this is, unless the environment says otherwise.
const SERVICE: &str = "galaxy-push";
/// By how much the threads are nicer than those that deliver: as the admin thread is.
#[cfg(target_os = "linux")]
const NICER: i32 = 10;

/// The SDK's provider, and the thread that its exporter has.
#[derive(Debug)]
pub(super) struct Export {
    pub(super) provider: SdkTracerProvider,
    queue: Arc<Queue>,
    stop: CancellationToken,
}

impl Export {
    /// Starts it.
    pub(super) fn start(environment: &Environment) -> Result<Self, StartError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let queue = Arc::new(Queue::new(environment.queue));
        let stop = CancellationToken::new();
        let (tell, told) = mpsc::sync_channel(1);
        let (environment, ours, stopping) = (environment.clone(), queue.clone(), stop.clone());
        thread::Builder::new()
            .name("spans".to_owned())
            .spawn(move || run(&runtime, &environment, &ours, &stopping, &tell))?;
        let ended = || io::Error::other("it has ended");
        let provider = told.recv().map_err(|_| ended())??;
        Ok(Export {
            provider,
            queue,
            stop,
        })
    }

    /// Exports what is left, for a while, and ends the thread. Blocks.
    pub(super) fn finish(&self) {
        // What cannot be exported is counted.
        let _ = self.provider.shutdown_with_timeout(LAST_EXPORT);
        self.queue.give_up();
        self.queue.report();
        self.stop.cancel();
    }
}

fn run(
    runtime: &Runtime,
    environment: &Environment,
    queue: &Arc<Queue>,
    stop: &CancellationToken,
    tell: &mpsc::SyncSender<Result<SdkTracerProvider, StartError>>,
) {
    step_back();
    runtime.block_on(async {
        // Here, so that the connection's tasks run here, and the processor's thread is as nice.
        let provider = provider(environment, queue);
        let is_started = provider.is_ok();
        if tell.send(provider).is_err() || !is_started {
            return;
        }
        let mut report = interval(REPORT_INTERVAL);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = report.tick() => queue.report(),
            }
        }
    });
}

/// On Linux a nice value is a thread's own, and that of threads it starts; elsewhere it would
/// be the process's.
fn step_back() {
    #[cfg(target_os = "linux")]
    {
        // Should it fail, it shares the processors evenly with those that deliver.
        let _ = rustix::process::nice(NICER);
    }
}

fn provider(
    environment: &Environment,
    queue: &Arc<Queue>,
) -> Result<SdkTracerProvider, StartError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        // The SDK's own choice trusts no CA at all.
        .with_tls_config(ClientTlsConfig::new().with_enabled_roots())
        .build()
        .map_err(|error| StartError::Environment {
            variable: "OTEL_EXPORTER_OTLP_ENDPOINT",
            reason: error.to_string(),
        })?;
    let exporter = Exporter {
        exporter,
        queue: Arc::clone(queue),
    };
    let mut resource = Resource::builder();
    if !environment.names_service {
        resource = resource.with_service_name(SERVICE);
    }
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    Ok(SdkTracerProvider::builder()
        .with_span_processor(Processor {
            batches: BatchSpanProcessor::builder(exporter).build(),
            queue: Arc::clone(queue),
        })
        .with_id_generator(Ids::default())
        .with_resource(resource.with_attribute(version).build())
        .build())
}

/// The spans that have ended and are not exported, and how many were lost.
#[derive(Debug)]
struct Queue {
    limit: usize,
    waiting: AtomicUsize,
    lost: AtomicU64,
    /// Why some were lost last.
    reason: Mutex<Option<String>>,
}

impl Queue {
    fn new(limit: usize) -> Self {
        Queue {
            limit,
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            reason: Mutex::new(None),
        }
    }

    /// Whether there is room for one more; else it is lost.
    fn enter(&self) -> bool {
        // Relaxed, here and below: it counts, and orders nothing.
        let enter = |waiting: usize| (waiting < self.limit).then_some(waiting + 1);
        let entered = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter);
        if entered.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        entered.is_ok()
    }

    /// So many were exported, or lost.
    fn leave(&self, spans: usize, result: &OTelSdkResult) {
        let leave = |waiting: usize| Some(waiting.saturating_sub(spans));
        // It never fails.
        let _ = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, leave);
        if let Err(error) = result {
            self.lost.fetch_add(spans as u64, Ordering::Relaxed);
            let mut reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
            *reason = Some(match error {
                OTelSdkError::InternalFailure(reason) => reason.clone(),
                other => other.to_string(),
            });
        }
    }

    /// What still waits is lost.
    fn give_up(&self) {
        let waiting = self.waiting.swap(0, Ordering::Relaxed) as u64;
        self.lost.fetch_add(waiting, Ordering::Relaxed);
    }

    /// Logs what was lost since the last time.
    fn report(&self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost == 0 {
            return;
        }
        let mut reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = reason
            .take()
            .unwrap_or_else(|| "the collector is too slow".to_owned());
        tracing::warn!(spans = lost, "spans were lost, not exported: {reason}");
    }
}

/// Lets no more spans into the batch processor than its queue holds: it would drop them
/// uncounted.
#[derive(Debug)]
struct Processor {
    batches: BatchSpanProcessor,
    queue: Arc<Queue>,
}

impl SpanProcessor for Processor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.queue.enter() {
            self.batches.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Counts what leaves the queue.
#[derive(Debug)]
struct Exporter {
    exporter: opentelemetry_otlp::SpanExporter,
    queue: Arc<Queue>,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        self.queue.leave(spans, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_or_is_not_exported_is_lost_and_counted() {
        let queue = Queue::new(3);
        let lost = || queue.lost.load(Ordering::Relaxed);
        let entered = (0..5).filter(|_| queue.enter()).count();
        assert_eq!((entered, lost()), (3, 2));
        queue.leave(1, &Ok(()));
        assert_eq!(lost(), 2);
        assert!(queue.enter(), "there is room again");
        queue.leave(2, &Err(OTelSdkError::InternalFailure("away".to_owned())));
        assert_eq!(lost(), 4);
        queue.give_up();
        assert_eq!(lost(), 5);
        queue.report();
        assert_eq!(lost(), 0);
        assert!(queue.reason.lock().unwrap().is_none());
    }
}
