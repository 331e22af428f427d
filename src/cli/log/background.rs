//! Lines are written by a thread of their own, from a queue with a bound. When the reader is
//! too slow, further lines are lost and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

/// How many lines may wait to be written.
const MAX_LINES: usize = 8 << 10;
/// And how many bytes: some texts of peers are long.
const MAX_BYTES: u64 = 8 << 20;
/// How often lost lines are told while there are always lines that wait.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How long the end of the process waits for the reader.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A thread that writes lines.
pub(super) struct Background {
    writer: Writer,
    lost: Lost,
    written: Arc<AtomicU64>,
    /// Ends the thread.
    guard: Mutex<Option<WorkerGuard>>,
}

impl Background {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub(super) fn start(to: impl Write + Send + 'static) -> io::Result<Self> {
        // The library panics where there is no thread.
        std::thread::Builder::new().spawn(|| ())?;
        let written = Arc::new(AtomicU64::new(0));
        let queued_bytes = Arc::new(AtomicU64::new(0));
        let lost = Lost::default();
        let (lines, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(MAX_LINES)
            .thread_name("log")
            .finish(Telling {
                to,
                written: Arc::clone(&written),
                queued_bytes: Arc::clone(&queued_bytes),
                lost: lost.clone(),
                told: 0,
                told_at: Instant::now(),
            });
        let _ = lost.for_their_number.set(lines.error_counter());
        Ok(Background {
            writer: Writer {
                lines,
                given: Arc::default(),
                queued_bytes,
                lost: lost.clone(),
            },
            lost,
            written,
            guard: Mutex::new(Some(guard)),
        })
    }

    /// What puts lines into the queue.
    pub(super) fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// Waits until all lines are written, but not for a reader that takes nothing. Later lines
    /// may be lost.
    pub(super) fn finish(&self) {
        let mut last = (self.written(), Instant::now());
        while !self.is_done() {
            if self.written() != last.0 {
                last = (self.written(), Instant::now());
            }
            if last.1.elapsed() > LAST_LINES {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        match guard.take() {
            Some(guard) if self.is_done() => drop(guard),
            // Dropped with a full queue, it prints to standard output. The thread ends with
            // the process.
            Some(guard) => std::mem::forget(guard),
            None => {}
        }
    }

    /// Whether every line is written or lost.
    fn is_done(&self) -> bool {
        let given = self.writer.given.load(Ordering::Relaxed);
        self.written() + self.lost.lines() >= given
    }

    fn written(&self) -> u64 {
        // Relaxed, here and at the additions: the counts guard nothing but themselves. Who
        // waits for its own lines has counted them itself.
        self.written.load(Ordering::Relaxed)
    }
}

/// Puts lines into the queue.
#[derive(Clone)]
pub(super) struct Writer {
    lines: NonBlocking,
    /// How many there were.
    given: Arc<AtomicU64>,
    /// The bytes of those that wait.
    queued_bytes: Arc<AtomicU64>,
    lost: Lost,
}

/// Lines that were lost.
#[derive(Clone, Default)]
struct Lost {
    /// Because too many waited.
    for_their_number: Arc<OnceLock<ErrorCounter>>,
    /// Because those that waited were too long.
    for_their_bytes: Arc<AtomicU64>,
}

impl Lost {
    fn lines(&self) -> u64 {
        let counter = self.for_their_number.get();
        let for_their_number = counter.map_or(0, |of| of.dropped_lines() as u64);
        for_their_number + self.for_their_bytes.load(Ordering::Relaxed)
    }
}

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.given.fetch_add(1, Ordering::Relaxed);
        let bytes = line.len() as u64;
        if self.queued_bytes.load(Ordering::Relaxed) + bytes > MAX_BYTES {
            self.lost.for_their_bytes.fetch_add(1, Ordering::Relaxed);
            return Ok(line.len());
        }
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let dropped = |lost: &Lost| lost.for_their_number.get().map(ErrorCounter::dropped_lines);
        let before = dropped(&self.lost);
        let written = self.lines.write(line);
        if dropped(&self.lost) != before {
            // It may have been another's: then the bound is a little looser, until all are
            // written.
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Writer;

    fn make_writer(&'a self) -> Writer {
        self.clone()
    }
}

/// Writes lines, and logs how many were lost before them.
struct Telling<W> {
    to: W,
    written: Arc<AtomicU64>,
    queued_bytes: Arc<AtomicU64>,
    lost: Lost,
    /// How many of them were told.
    told: u64,
    told_at: Instant,
}

impl<W> Telling<W> {
    /// It is a line of the log like others. It goes to the target that is least likely to be
    /// off: some of what was lost belongs there.
    fn tell(&mut self) {
        let lost = self.lost.lines();
        let more = lost.saturating_sub(self.told);
        if more > 0 {
            self.told = lost;
            self.told_at = Instant::now();
            tracing::error!(
                target: "galaxy_push::audit",
                lines = more,
                since_start = lost,
                "lines of the log were lost: standard error was read too slowly"
            );
        }
    }
}

impl<W: Write> Write for Telling<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // An error ends nothing: standard error may be read again.
        let _ = self.to.write_all(line);
        self.written.fetch_add(1, Ordering::Relaxed);
        let bytes = line.len() as u64;
        let less = |queued: u64| Some(queued.saturating_sub(bytes));
        let _ = self
            .queued_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if self.told_at.elapsed() > TELL_EVERY {
            self.tell();
        }
        Ok(line.len())
    }

    /// Called when no line waits: what was lost belongs here.
    fn flush(&mut self) -> io::Result<()> {
        self.tell();
        let _ = self.to.flush();
        Ok(())
    }
}
