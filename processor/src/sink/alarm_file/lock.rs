//! The lock that writers of one alarm file share: `<file>.lock`, held for one append.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Pause between two attempts: other writers hold the lock for one append and one flush.
const RETRY: Duration = Duration::from_millis(10);

/// The lock of an alarm file. Dropping the guard releases it; the operating system does so when its
/// process dies, however that happens.
#[derive(Debug)]
pub(super) struct LockFile {
    path: PathBuf,
}

/// Holds the lock.
#[derive(Debug)]
pub(super) struct LockGuard {
    _file: File,
}

impl LockFile {
    pub(super) fn of(file: &Path) -> Self {
        let mut name = file.as_os_str().to_owned();
        name.push(".lock");
        Self { path: name.into() }
    }

    /// Takes the lock, waiting for at most `wait`; `None` if it could not be had.
    pub(super) fn acquire(&self, wait: Duration) -> io::Result<Option<LockGuard>> {
        let deadline = Instant::now() + wait;
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&self.path)?;
            match file.try_lock() {
                // Someone may have deleted the file meanwhile; its lock then locks nothing.
                Ok(()) if self.is_at_path(&file)? => return Ok(Some(LockGuard { _file: file })),
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::park_timeout(RETRY);
        }
    }

    fn is_at_path(&self, file: &File) -> io::Result<bool> {
        let held = file.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (held.dev(), held.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
