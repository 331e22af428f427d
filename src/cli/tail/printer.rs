//! The printing half of `tail`, on a thread of its own: writing to standard
//! output blocks for as long as its reader likes.
//!
//! For each event, in this order: its line is written and flushed, then its place
//! is saved. Ended between the two, the next run prints it again.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::{Semaphore, oneshot};

use super::cursor_file::{CursorFile, CursorFileError};
use super::json;
use crate::client::{Completeness, Disconnect, Gap, Resume, Revocations, Start};
use crate::command::{Failure, stderr};
use crate::contract::push::PushEvent;
use crate::cursor::Cursor;

/// How many jobs may wait.
const JOBS_AHEAD: usize = 256;
/// How often, at most, the place is made safe against a power cut.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// What there is to print or to save.
#[derive(Debug)]
pub(super) enum Job {
    Event(Cursor, PushEvent),
    Start(Start),
    Replayed(Cursor),
    Gap(Gap),
    Disconnected(Disconnect, Duration),
}

/// Why printing ended.
#[derive(Debug)]
pub(super) enum End {
    /// There was nothing left to print, or the rest was to be skipped.
    Done,
    /// Nobody reads standard output any more.
    Closed,
    /// Standard output takes no more.
    Stdout(io::Error),
    /// The place cannot be saved.
    CursorFile(CursorFileError),
    /// The thread is gone without a word, which only a defect can cause.
    Panicked,
}

/// The way to the thread.
#[derive(Debug)]
pub(super) struct Jobs {
    queue: mpsc::Sender<Job>,
    /// What bounds the queue: a permit for each job that may still wait.
    room: Arc<Semaphore>,
}

impl Jobs {
    /// Hands a job over, when there is room for it. Returns whether the thread
    /// still takes any.
    pub(super) async fn send(&self, job: Job) -> bool {
        match self.room.acquire().await {
            Ok(permit) => permit.forget(),
            Err(_) => return false,
        }
        self.queue.send(job).is_ok()
    }
}

/// The thread, seen from outside.
#[derive(Debug)]
pub(super) struct Printer {
    end: oneshot::Receiver<End>,
    skip: Arc<AtomicBool>,
}

impl Printer {
    /// Starts it. It prints until the way to it is dropped.
    pub(super) fn start(id: &str, file: Option<CursorFile>) -> Result<(Self, Jobs), Failure> {
        let (queue, jobs) = mpsc::channel();
        let room = Arc::new(Semaphore::new(JOBS_AHEAD));
        let (ended, end) = oneshot::channel();
        let skip = Arc::new(AtomicBool::new(false));
        let press = Press {
            jobs,
            room: Room(Arc::clone(&room)),
            skip: Arc::clone(&skip),
            id: id.to_owned(),
            line: String::new(),
            checkpoints: file.map(Checkpoints::new),
        };
        std::thread::Builder::new()
            .name("printer".to_owned())
            .spawn(move || {
                // Nobody may wait for the end any more.
                let _ = ended.send(press.run());
            })
            .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
        Ok((Printer { end, skip }, Jobs { queue, room }))
    }

    /// Makes it end after the line that it is writing.
    pub(super) fn skip_the_rest(&self) {
        // Relaxed: a hint, which carries no other data.
        self.skip.store(true, Ordering::Relaxed);
    }

    /// Waits until it has ended.
    pub(super) async fn end(&mut self) -> End {
        (&mut self.end).await.unwrap_or(End::Panicked)
    }
}

/// The thread, seen from inside.
struct Press {
    jobs: mpsc::Receiver<Job>,
    room: Room,
    skip: Arc<AtomicBool>,
    id: String,
    line: String,
    checkpoints: Option<Checkpoints>,
}

/// However the thread ends, nobody waits for room after it.
struct Room(Arc<Semaphore>);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Press {
    fn run(mut self) -> End {
        let end = match self.print_all() {
            Ok(()) => End::Done,
            Err(end) => end,
        };
        match self.checkpoints.map(Checkpoints::close) {
            Some(Err(error)) if matches!(end, End::Done) => End::CursorFile(error),
            _ => end,
        }
    }

    fn print_all(&mut self) -> Result<(), End> {
        while let Some(job) = self.next()? {
            if self.skip.load(Ordering::Relaxed) {
                return Ok(());
            }
            match job {
                Job::Event(cursor, event) => {
                    self.print(&event)?;
                    self.save(cursor)?;
                }
                Job::Start(start) => {
                    if start.revocations.is_none() {
                        self.save(start.cursor)?;
                    }
                    let (id, cursor) = (&self.id, start.cursor);
                    match start.resume {
                        Resume::Resumed => {
                            tracing::info!("subscribed as {id:?}, going on after {cursor}");
                        }
                        Resume::Fresh => tracing::info!(
                            "subscribed as {id:?}, fresh after {cursor} ({})",
                            start.reason
                        ),
                    }
                    if let Some(missed) = start.revocations {
                        stderr::say(&describe_replay(&missed));
                    }
                }
                Job::Replayed(cursor) => self.save(cursor)?,
                Job::Gap(gap) => stderr::say(&describe(&gap)),
                Job::Disconnected(cause, retry_in) => {
                    tracing::warn!("disconnected: {cause}; next attempt in {retry_in:.1?}");
                }
            }
        }
        Ok(())
    }

    /// The next job, or `None` at the end; checkpoints meanwhile, when one is due.
    fn next(&mut self) -> Result<Option<Job>, End> {
        loop {
            let due = self.checkpoints.as_ref().and_then(Checkpoints::due);
            let job = match due.map(|due| due.saturating_duration_since(Instant::now())) {
                None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(Duration::ZERO) => Err(RecvTimeoutError::Timeout),
                Some(left) => self.jobs.recv_timeout(left),
            };
            match job {
                Ok(job) => {
                    self.room.0.add_permits(1);
                    return Ok(Some(job));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(checkpoints) = &mut self.checkpoints {
                checkpoints.make().map_err(End::CursorFile)?;
            }
        }
    }

    /// One write for one line, so that no reader of a pipe sees a part of a line
    /// that is not larger than the pipe takes at once (4096 bytes on Linux).
    fn print(&mut self, event: &PushEvent) -> Result<(), End> {
        self.line.clear();
        json::write_line(&mut self.line, event);
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(self.line.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => End::Closed,
                _ => End::Stdout(error),
            })
    }

    fn save(&mut self, cursor: Cursor) -> Result<(), End> {
        match &mut self.checkpoints {
            Some(checkpoints) => checkpoints.save(cursor).map_err(End::CursorFile),
            None => Ok(()),
        }
    }
}

fn describe(gap: &Gap) -> String {
    match gap.missed {
        Some(1) => format!("gap: 1 event was missed ({})", gap.reason),
        Some(missed) => format!("gap: {missed} events were missed ({})", gap.reason),
        None => format!(
            "gap: events were missed, nobody knows how many ({})",
            gap.reason
        ),
    }
}

fn describe_replay(missed: &Revocations) -> String {
    let count = match missed.count {
        1 => "1 missed revocation follows".to_owned(),
        count => format!("{count} missed revocations follow"),
    };
    match missed.completeness {
        Completeness::Complete => format!("replay: {count}, which is all"),
        Completeness::Partial => format!("replay: {count}, and some may be lost (partial)"),
    }
}

/// A cursor file, and when it is to be made safe against a power cut.
struct Checkpoints {
    file: CursorFile,
    /// Since when something is saved that no checkpoint covers.
    unsafe_since: Option<Instant>,
    /// Standard output is a file, which a power cut can shorten as well.
    output_is_file: bool,
}

impl Checkpoints {
    fn new(file: CursorFile) -> Self {
        let output_is_file = rustix::fs::fstat(io::stdout().as_fd())
            .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file());
        Checkpoints {
            file,
            unsafe_since: None,
            output_is_file,
        }
    }

    fn save(&mut self, cursor: Cursor) -> Result<(), CursorFileError> {
        self.file.save(cursor)?;
        self.unsafe_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// When the next checkpoint is due, if there is something to cover.
    fn due(&self) -> Option<Instant> {
        self.unsafe_since.map(|since| since + CHECKPOINT_INTERVAL)
    }

    fn make(&mut self) -> Result<(), CursorFileError> {
        self.sync_output();
        self.file.checkpoint()?;
        self.unsafe_since = None;
        Ok(())
    }

    fn close(mut self) -> Result<(), CursorFileError> {
        self.sync_output();
        self.file.close()
    }

    /// The output first: a place must not be safer than the events before it.
    fn sync_output(&mut self) {
        if self.output_is_file && rustix::fs::fdatasync(io::stdout().as_fd()).is_err() {
            tracing::warn!("cannot sync standard output: a power cut may lose what was printed");
            self.output_is_file = false;
        }
    }
}

/// Ends when the reader of standard output has closed it. Otherwise only the next
/// line would find out, and that may be long in coming.
pub(super) async fn stdout_closed() {
    let (closed, noticed) = oneshot::channel();
    let watch = move || {
        let stdout = io::stdout();
        // Errors and hang-ups are reported though no event is asked for.
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        loop {
            match poll(&mut watched, None) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(_)
                    if watched[0]
                        .revents()
                        .intersects(PollFlags::ERR | PollFlags::HUP) =>
                {
                    let _ = closed.send(());
                    return;
                }
                _ => return,
            }
        }
    };
    let watching = std::thread::Builder::new()
        .name("stdout".to_owned())
        .spawn(watch);
    // Where it cannot be watched, the next line finds out.
    if watching.is_err() || noticed.await.is_err() {
        std::future::pending::<()>().await;
    }
}
