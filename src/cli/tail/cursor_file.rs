//! [`CursorFile`]: a place in the stream that survives the process.
//!
//! # What is guaranteed
//!
//! - **Killed at any moment** (`kill -9`, a crash of the process, a machine that
//!   goes on running): the file has the last cursor that was saved. A save is one
//!   small `pwrite` into the page cache, which no signal can tear and which the
//!   process's end does not undo. So whoever prints an event, then saves its
//!   cursor, repeats at most that one event and skips none.
//! - **Power cut, crash of the system:** the file has a cursor that was
//!   checkpointed, the last or the one before, never one that was only saved. So
//!   whoever syncs what he made of the events before each checkpoint skips none,
//!   and repeats at most what came since the checkpoint before the last.
//!
//! # How
//!
//! Two slots, each in a block of its own, each one line with a checksum. One is
//! *live*: saves overwrite it in place. The other holds the last checkpoint,
//! which is on disk; nothing writes to it. A checkpoint syncs the file, which
//! makes what the live slot holds the new checkpoint, and from then on the other
//! slot is the live one. So whatever a power cut does to the slot that was being
//! written, the other is whole.
//!
//! The system may write the live slot to disk at any time, also before the events
//! that it counts as done. Therefore each line names the boot that it was written
//! in. Read in the same boot, the newer line is the truth: what the process did
//! is all there. Read in another boot, only the older one was certainly synced.
//! In both cases the older slot is a synced checkpoint, and saves go on in the
//! newer one.
//!
//! ```text
//! galaxy-push cursor 2 CBSZJPG00007-0000000001A 00000000000000000042 3f0f…-… 9a3b11d0
//!                      cursor, or dashes        generation           boot    crc32
//! ```

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::cursor::Cursor;

/// A slot has a block of its own, so that one write of the disk concerns one.
const SLOT_BYTES: usize = 4096;
const FILE_BYTES: usize = 2 * SLOT_BYTES;
const MAGIC: &str = "galaxy-push cursor 2";
/// Cursors had another form then.
const OUTDATED: &[u8] = b"galaxy-push cursor 1 ";
/// What stands for a cursor where there is none yet.
const NO_CURSOR: &str = "------------------------";

/// An open, locked cursor file.
#[derive(Debug)]
pub(super) struct CursorFile {
    file: File,
    path: PathBuf,
    /// The boot that this process runs in.
    boot: String,
    /// The newest generation in the file.
    generation: u64,
    /// The slot that saves go to.
    live: usize,
    cursor: Option<Cursor>,
}

impl CursorFile {
    /// Opens the file, or makes one without a cursor, and locks it.
    ///
    /// # Errors
    ///
    /// It cannot be opened, made, read or locked, another process has it, or it
    /// is not a cursor file. It is not touched then.
    pub(super) fn open(path: PathBuf) -> Result<Self, CursorFileError> {
        Self::open_in_boot(path, boot())
    }

    fn open_in_boot(path: PathBuf, boot: String) -> Result<Self, CursorFileError> {
        let failed = |action| {
            let path = path.clone();
            move |source| CursorFileError::Io {
                action,
                path,
                source,
            }
        };
        let file = match File::options().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create(&path, &boot).map_err(failed("create"))?
            }
            Err(error) => return Err(failed("open")(error)),
        };
        let metadata = file.metadata().map_err(failed("read"))?;
        if !metadata.is_file() {
            return Err(CursorFileError::Foreign { path });
        }
        // Locked before it is read: what it says must stay true.
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(CursorFileError::Locked { path }),
            Err(error) => return Err(failed("lock")(error.into())),
        }
        if metadata.len() != FILE_BYTES as u64 {
            return Err(CursorFileError::Foreign { path });
        }
        let mut bytes = vec![0; FILE_BYTES];
        file.read_exact_at(&mut bytes, 0).map_err(failed("read"))?;
        let slots = [0, 1].map(|slot| Record::read(&bytes[slot * SLOT_BYTES..][..SLOT_BYTES]));
        let (older, newer) = match &slots {
            [Some(a), Some(b)] if a.generation <= b.generation => (0, 1),
            [Some(_), Some(_)] => (1, 0),
            [Some(_), None] => (0, 0),
            [None, Some(_)] => (1, 1),
            [None, None] if bytes.starts_with(OUTDATED) => {
                return Err(CursorFileError::Outdated { path });
            }
            [None, None] if bytes.starts_with(b"galaxy-push cursor ") => {
                return Err(CursorFileError::Damaged { path });
            }
            [None, None] => return Err(CursorFileError::Foreign { path }),
        };
        let [older, newer] = [older, newer].map(|slot| (slot, slots[slot].as_ref()));
        let same_boot = newer.1.is_some_and(|record| record.boot == boot);
        let trusted = if same_boot { newer } else { older };
        let mut opened = CursorFile {
            cursor: trusted.1.and_then(|record| record.cursor),
            generation: newer.1.map_or(0, |record| record.generation),
            // The older slot stays as it is. With one slot whole, it is that one.
            live: 1 - older.0,
            file,
            path,
            boot,
        };
        if !same_boot {
            // What the newer slot says beyond the checkpoint must never become
            // one itself.
            opened.write(opened.live)?;
        }
        Ok(opened)
    }

    /// The cursor, or `None` if none was ever saved.
    pub(super) fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// Saves the cursor against the end of this process.
    pub(super) fn save(&mut self, cursor: Cursor) -> Result<(), CursorFileError> {
        self.cursor = Some(cursor);
        self.write(self.live)
    }

    /// Makes what was saved safe against a power cut.
    pub(super) fn checkpoint(&mut self) -> Result<(), CursorFileError> {
        self.sync()?;
        self.live = 1 - self.live;
        Ok(())
    }

    /// Ends with both slots saying the same, so that the next run goes on at the
    /// very place in any boot.
    pub(super) fn close(mut self) -> Result<(), CursorFileError> {
        for slot in [self.live, 1 - self.live] {
            self.write(slot)?;
            self.sync()?;
        }
        Ok(())
    }

    fn write(&mut self, slot: usize) -> Result<(), CursorFileError> {
        // 64 bits of generations do not run out.
        self.generation = self.generation.saturating_add(1);
        let line = Record {
            cursor: self.cursor,
            generation: self.generation,
            boot: self.boot.clone(),
        }
        .line();
        self.file
            .write_all_at(line.as_bytes(), (slot * SLOT_BYTES) as u64)
            .map_err(|source| self.failed("write", source))
    }

    fn sync(&self) -> Result<(), CursorFileError> {
        self.file
            .sync_data()
            .map_err(|source| self.failed("sync", source))
    }

    fn failed(&self, action: &'static str, source: io::Error) -> CursorFileError {
        CursorFileError::Io {
            action,
            path: self.path.clone(),
            source,
        }
    }
}

/// A new file with two slots and no cursor, complete before it has its name.
fn create(path: &Path, boot: &str) -> io::Result<File> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut bytes = vec![0; FILE_BYTES];
    for slot in 0..2 {
        let line = Record {
            cursor: None,
            generation: slot as u64,
            boot: boot.to_owned(),
        }
        .line();
        bytes[slot * SLOT_BYTES..][..line.len()].copy_from_slice(line.as_bytes());
    }
    let mut file = tempfile::Builder::new()
        .prefix(".galaxy-push-cursor-")
        .tempfile_in(directory)?;
    file.write_all(&bytes)?;
    file.as_file().sync_all()?;
    let file = file.persist_noclobber(path)?;
    File::open(directory)?.sync_all()?;
    Ok(file)
}

/// What tells one run of the system from another.
fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let id = id.trim();
    let usual = !id.is_empty()
        && id.len() <= 64
        && id
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    // Where there is none, all boots count as one: safe as long as the power is.
    if usual {
        id.to_owned()
    } else {
        "unknown".to_owned()
    }
}

/// What one slot says.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    cursor: Option<Cursor>,
    generation: u64,
    boot: String,
}

impl Record {
    fn line(&self) -> String {
        let cursor = match self.cursor {
            Some(cursor) => cursor.to_string(),
            None => NO_CURSOR.to_owned(),
        };
        let text = format!("{MAGIC} {cursor} {:020} {}", self.generation, self.boot);
        format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
    }

    /// `None` if the slot is not whole.
    fn read(slot: &[u8]) -> Option<Record> {
        let end = slot.iter().position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(&slot[..end]).ok()?;
        let (text, sum) = line.rsplit_once(' ')?;
        if sum != format!("{:08x}", crc32fast::hash(text.as_bytes())) {
            return None;
        }
        let mut fields = text.strip_prefix(MAGIC)?.strip_prefix(' ')?.split(' ');
        let cursor = match fields.next()? {
            NO_CURSOR => None,
            cursor => Some(Cursor::parse(cursor.as_bytes()).ok()?),
        };
        let generation = fields.next()?.parse().ok()?;
        let boot = fields.next()?.to_owned();
        Some(Record {
            cursor,
            generation,
            boot,
        })
    }
}

/// Why a cursor file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CursorFileError {
    /// The system refuses.
    #[error("cannot {action} the cursor file {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Another process has it.
    #[error("the cursor file {} is in use by another tail", path.display())]
    Locked { path: PathBuf },
    /// It is something else.
    #[error(
        "{} is not a cursor file, it was left as it is; name a file that does not exist to begin a new one",
        path.display()
    )]
    Foreign { path: PathBuf },
    /// It is one of an earlier version.
    #[error(
        "the cursor file {} is of an earlier version, whose cursors had another form; it was left as it is: remove it to begin a new one, and expect a gap",
        path.display()
    )]
    Outdated { path: PathBuf },
    /// It was one, and no slot is whole.
    #[error(
        "the cursor file {} is damaged, it was left as it is; the place in it is lost: remove it to begin a new one, and expect a gap",
        path.display()
    )]
    Damaged { path: PathBuf },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::{Epoch, Seq};

    fn at(seq: u64) -> Cursor {
        Cursor::new(Epoch::new(1_700_000_000_000, 7).unwrap(), Seq::new(seq))
    }

    /// A directory, and the path of a file in it that does not exist.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cursor");
        (directory, path)
    }

    fn open(path: &Path, boot: &str) -> CursorFile {
        CursorFile::open_in_boot(path.to_owned(), boot.to_owned()).unwrap()
    }

    /// What a process of that boot would find. The file itself is left alone.
    fn kept(path: &Path, boot: &str) -> Option<Cursor> {
        let copy = path.with_extension(boot);
        std::fs::copy(path, &copy).unwrap();
        open(&copy, boot).cursor()
    }

    #[test]
    fn a_new_file_has_no_cursor() {
        let (_directory, path) = place();
        assert_eq!(open(&path, "a").cursor(), None);
        assert_eq!(open(&path, "a").cursor(), None, "after it was made");
        assert_eq!(open(&path, "b").cursor(), None);
    }

    #[test]
    fn what_was_saved_is_there_after_a_kill() {
        let (_directory, path) = place();
        for seq in 1..20 {
            // Dropped without `close`, as a kill leaves it.
            let mut file = open(&path, "a");
            assert_eq!(file.cursor(), (seq > 1).then(|| at(seq * 100)));
            file.save(at(seq * 100 + 1)).unwrap();
            if seq % 3 == 0 {
                file.checkpoint().unwrap();
            }
            file.save(at((seq + 1) * 100)).unwrap();
        }
    }

    #[test]
    fn after_a_power_cut_only_a_checkpoint_is_trusted() {
        let (_directory, path) = place();
        let mut file = open(&path, "a");
        file.save(at(1)).unwrap();
        file.checkpoint().unwrap();
        file.save(at(2)).unwrap();
        file.checkpoint().unwrap();
        drop(file);
        let kept_by_b = kept(&path, "b");
        assert!(
            [Some(at(1)), Some(at(2))].contains(&kept_by_b),
            "both were synced"
        );

        let mut file = open(&path, "a");
        file.save(at(3)).unwrap();
        file.save(at(4)).unwrap();
        drop(file);
        assert_eq!(kept(&path, "a"), Some(at(4)));
        let kept_by_b = kept(&path, "b");
        assert!(
            [Some(at(1)), Some(at(2))].contains(&kept_by_b),
            "3 and 4 were only saved"
        );
    }

    #[test]
    fn what_was_only_saved_never_becomes_a_checkpoint_in_the_next_boot() {
        let (_directory, path) = place();
        let mut file = open(&path, "a");
        file.save(at(1)).unwrap();
        file.checkpoint().unwrap();
        file.save(at(9)).unwrap();
        drop(file);
        for boot in ["b", "c", "d"] {
            let mut file = open(&path, boot);
            assert_eq!(file.cursor(), Some(at(1)));
            file.checkpoint().unwrap();
        }
    }

    #[test]
    fn a_slot_that_is_being_written_is_never_the_only_one_that_counts() {
        let (_directory, path) = place();
        let mut file = open(&path, "a");
        file.save(at(1)).unwrap();
        file.checkpoint().unwrap();
        for seq in 2..20 {
            file.save(at(seq)).unwrap();
            // A power cut in the middle of that write.
            let torn = path.with_extension("torn");
            std::fs::copy(&path, &torn).unwrap();
            let copy = File::options().write(true).open(&torn).unwrap();
            copy.write_all_at(&[0; 50], (file.live * SLOT_BYTES) as u64)
                .unwrap();
            drop(copy);
            let safe = open(&torn, "b").cursor();
            assert!(safe >= Some(at(1)) && safe < Some(at(seq)), "{safe:?}");
            match seq % 4 {
                0 => file.checkpoint().unwrap(),
                // Killed, and started again in the same boot.
                2 => {
                    drop(file);
                    file = open(&path, "a");
                    assert_eq!(file.cursor(), Some(at(seq)));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn saving_after_a_power_cut_keeps_the_checkpoint_until_the_next() {
        let (_directory, path) = place();
        let mut file = open(&path, "a");
        file.save(at(1)).unwrap();
        file.checkpoint().unwrap();
        file.save(at(9)).unwrap();
        drop(file);

        let mut file = open(&path, "b");
        assert_eq!(file.cursor(), Some(at(1)));
        file.save(at(2)).unwrap();
        drop(file);
        assert_eq!(kept(&path, "b"), Some(at(2)));
        assert_eq!(kept(&path, "c"), Some(at(1)));
    }

    #[test]
    fn closed_it_says_the_same_in_any_boot() {
        let (_directory, path) = place();
        let mut file = open(&path, "a");
        file.save(at(1)).unwrap();
        file.checkpoint().unwrap();
        file.save(at(2)).unwrap();
        file.close().unwrap();
        assert_eq!(kept(&path, "a"), Some(at(2)));
        assert_eq!(kept(&path, "b"), Some(at(2)));
    }

    #[test]
    fn a_torn_slot_leaves_the_other() {
        for torn in [0, 1] {
            let (_directory, path) = place();
            let mut file = open(&path, "a");
            file.save(at(1)).unwrap();
            file.checkpoint().unwrap();
            file.save(at(2)).unwrap();
            file.file
                .write_all_at(b"\0\0\0\0", (torn * SLOT_BYTES) as u64 + 60)
                .unwrap();
            drop(file);
            let file = open(&path, "a");
            assert!([Some(at(1)), Some(at(2))].contains(&file.cursor()));
        }
    }

    #[test]
    fn a_second_one_is_refused_while_the_first_is_open() {
        let (_directory, path) = place();
        let file = open(&path, "a");
        let error = CursorFile::open(path.clone()).unwrap_err();
        assert!(matches!(error, CursorFileError::Locked { .. }), "{error}");
        drop(file);
        assert!(CursorFile::open(path).is_ok());
    }

    #[test]
    fn what_is_no_cursor_file_is_refused_and_left_as_it_is() {
        let (directory, path) = place();
        let long = "x".repeat(FILE_BYTES);
        for foreign in ["", "CBSZJPG00007-0000000001A\n", &long] {
            std::fs::write(&path, foreign).unwrap();
            let error = CursorFile::open(path.clone()).unwrap_err();
            assert!(matches!(error, CursorFileError::Foreign { .. }), "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), foreign);
        }
        for not_a_file in [directory.path(), Path::new("/dev/null")] {
            CursorFile::open(not_a_file.to_owned()).unwrap_err();
        }
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_as_it_is() {
        let (_directory, path) = place();
        open(&path, "a").save(at(1)).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        for slot in 0..2 {
            bytes[slot * SLOT_BYTES + 30] ^= 1;
        }
        std::fs::write(&path, &bytes).unwrap();
        let error = CursorFile::open(path.clone()).unwrap_err();
        assert!(matches!(error, CursorFileError::Damaged { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn a_file_of_an_earlier_version_is_refused_and_left_as_it_is() {
        let (_directory, path) = place();
        let text = "galaxy-push cursor 1 01HF7YAT00-000000000001A 00000000000000000042 unknown";
        let mut bytes = vec![0; FILE_BYTES];
        for slot in 0..2 {
            let line = format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()));
            bytes[slot * SLOT_BYTES..][..line.len()].copy_from_slice(line.as_bytes());
        }
        std::fs::write(&path, &bytes).unwrap();
        let error = CursorFile::open(path.clone()).unwrap_err();
        assert!(matches!(error, CursorFileError::Outdated { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let record = Record {
            cursor: Some(at(42)),
            generation: 7,
            boot: "3f0f".to_owned(),
        };
        let line = record.line().into_bytes();
        assert_eq!(Record::read(&line), Some(record));
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut changed = line.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(Record::read(&changed), None, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let (_directory, path) = place();
        let error = CursorFile::open(path.join("cursor")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot create the cursor file ")
        );
    }
}
