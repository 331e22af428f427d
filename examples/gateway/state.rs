//! Files that survive a restart: each is written anew beside the old one, and takes its place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use galaxy_push::cursor::Cursor;
use rustix::fs::{FlockOperation, flock};

/// A folder for what one gateway has to remember.
#[derive(Clone, Debug)]
pub(crate) struct State {
    folder: PathBuf,
    /// Held for its lock, and to have the names in it on disk.
    handle: Arc<File>,
}

impl State {
    /// The folder, which is made if it is not there: nobody else may look into it, and no other
    /// process may use it.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let opened = || {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made?;
            let handle = File::open(folder)?;
            let about = handle.metadata()?;
            if about.uid() != rustix::process::geteuid().as_raw() || about.mode() & 0o077 != 0 {
                let why = "others may look into it: it must be yours, with mode 0700";
                return Err(io::Error::other(why));
            }
            flock(&handle, FlockOperation::NonBlockingLockExclusive)
                .map_err(|_| io::Error::other("another gateway uses it"))?;
            Ok(handle)
        };
        let handle = opened().map_err(|error| named(folder, &error))?;
        Ok(State {
            folder: folder.to_owned(),
            handle: Arc::new(handle),
        })
    }

    /// What a file holds, if it is there.
    pub(crate) fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.folder.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(&path, &error)),
        }
    }

    /// Writes a file, all of it or nothing.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.folder.join(name);
        let new = self.folder.join(format!("{name}.new"));
        let written = || -> io::Result<()> {
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                // What a process has left that was ended in the middle.
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            fs::rename(&new, &path)?;
            self.handle.sync_all()
        };
        written().map_err(|error| named(&path, &error))
    }
}

/// The error, with the path that it is about.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Where a restart goes on.
#[derive(Debug)]
pub(crate) struct Position {
    state: State,
    saved: Mutex<Option<Cursor>>,
}

impl Position {
    const NAME: &str = "cursor";

    /// The position, and the cursor that an earlier run has left.
    pub(crate) fn load(state: &State) -> io::Result<(Self, Option<Cursor>)> {
        let cursor = match state.read(Self::NAME)? {
            None => None,
            Some(text) => {
                let cursor = Cursor::parse(text.trim_ascii());
                Some(
                    cursor
                        .map_err(|error| io::Error::other(format!("the file cursor: {error}")))?,
                )
            }
        };
        let position = Position {
            state: state.clone(),
            saved: Mutex::new(cursor),
        };
        Ok((position, cursor))
    }

    /// All up to here is processed.
    ///
    /// # Errors
    ///
    /// The one before it stays: what comes after that will come again.
    pub(crate) fn save(&self, cursor: Cursor) -> io::Result<()> {
        let mut saved = self.saved.lock().expect("nothing panics under it");
        if *saved != Some(cursor) {
            self.state
                .write(Self::NAME, cursor.to_string().as_bytes())?;
            *saved = Some(cursor);
        }
        Ok(())
    }
}
