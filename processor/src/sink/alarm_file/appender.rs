//! Appends alarms to a file that other writers, log rotation and `kill -9` touch as well.
//!
//! Each append happens under the lock: read what others appended, repair a torn end, skip what is
//! known, write each alarm in one call, flush to disk.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use fail::fail_point;
use tracing::{info, warn};

use super::{
    known::KnownAlarms,
    line::{is_torn_sample, may_be_ours},
    lock::{LockFile, LockGuard},
    scan::{Scan, Torn},
};
use crate::sink::metrics::SinkMetrics;

/// Longest wait for the lock: far beyond any append, short against Kafka's timeouts. Past it the
/// alarm is appended all the same, and counted.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
/// How much of the end of a file is read for alarms it holds: hundreds of thousands of them.
const READ_BACK_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A torn end is looked at again after this time before it is repaired: a writer that could not
/// have the lock may be in the midst of it.
const TORN_WAIT: Duration = Duration::from_millis(20);
/// Endings of files that are no alarm file: the lock, and compressed ones.
const NOT_ALARMS: [&str; 5] = ["lock", "gz", "zst", "xz", "bz2"];

/// An alarm's text and what identifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AlarmText {
    pub(super) key: String,
    pub(super) text: String,
}

/// The file as it is open now.
#[derive(Debug)]
struct OpenFile {
    file: File,
    id: (u64, u64),
    /// A pipe, a terminal or another device is written to and no more.
    regular: bool,
    /// Everything before has been read for alarms.
    read_to: u64,
    /// It ends within a line that could not be repaired, for want of the lock.
    torn: bool,
}

/// Writes alarms to one file.
#[derive(Debug)]
pub(super) struct Appender {
    path: PathBuf,
    lock: LockFile,
    open: Option<OpenFile>,
    known: KnownAlarms,
    metrics: SinkMetrics,
}

impl Appender {
    pub(super) fn new(path: &Path, metrics: &SinkMetrics) -> Self {
        Self {
            path: path.to_owned(),
            lock: LockFile::of(path),
            open: None,
            known: KnownAlarms::default(),
            metrics: metrics.clone(),
        }
    }

    /// Closes the file, so that the next append opens whatever stands at its path.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Appends the alarms that the file does not hold and flushes it: on return all of them are
    /// durable. After an error any of them may be, so all are to be given again.
    pub(super) fn append(&mut self, alarms: &[AlarmText]) -> io::Result<()> {
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent)?;
        }
        let guard = self.lock()?;
        fail_point!("alarm_file.locked");
        self.open_current()?;
        self.read_new(guard.is_some())?;
        let mut unlocked = 0;
        for alarm in alarms {
            if self.known.contains(&alarm.key) {
                self.metrics.alarms_known.inc();
                continue;
            }
            unlocked += u64::from(guard.is_none());
            self.write(&alarm.text, guard.is_some())?;
            self.known.insert(&alarm.key);
        }
        let remembered = i64::try_from(self.known.len()).unwrap_or(i64::MAX);
        self.metrics.alarms_remembered.set(remembered);
        let Some(open) = &self.open else {
            return Ok(());
        };
        if open.regular {
            // Known ones as well: their writer may have died before it flushed.
            open.file.sync_data()?;
            self.metrics.alarms_unlocked.inc_by(unlocked);
        }
        Ok(())
    }

    /// Takes the lock; without it alarms may come twice, but they come.
    fn lock(&self) -> io::Result<Option<LockGuard>> {
        match fs::metadata(&self.path) {
            Ok(found) if !found.is_file() => return Ok(None),
            _ => {}
        }
        let guard = self.lock.acquire(LOCK_WAIT_MAX);
        if !matches!(guard, Ok(Some(_))) {
            let error = guard.as_ref().err().map(ToString::to_string);
            warn!(file = %self.path.display(), error, "no lock on the alarm file; appending without it");
        }
        // A full disk has no room for the lock file either; the write itself will tell.
        Ok(guard.unwrap_or(None))
    }

    /// Opens the file at the path, unless it is the one that is open already.
    fn open_current(&mut self) -> io::Result<()> {
        let found = match fs::metadata(&self.path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(open) = &self.open {
            if found.as_ref().is_some_and(|found| id(found) == open.id) {
                return Ok(());
            }
            info!(file = %self.path.display(), "the alarm file was rotated or removed; opening it anew");
            // The last that others wrote to it before it was moved.
            if let Err(error) = self.read_new(false) {
                warn!(%error, "cannot read the end of the rotated alarm file");
            }
            self.open = None;
        }
        let regular = found.as_ref().is_none_or(Metadata::is_file);
        let file = OpenOptions::new()
            .read(regular)
            .append(true)
            .create(true)
            .open(&self.path)?;
        let metadata = file.metadata()?;
        if found.is_none()
            && let Some(parent) = self.path.parent()
        {
            // A file is only as durable as its name. Not every file system can be told so.
            File::open(parent).and_then(|it| it.sync_all()).ok();
        }
        if regular {
            self.read_rotated(&metadata);
        }
        self.open = Some(OpenFile {
            id: id(&metadata),
            regular,
            read_to: 0,
            torn: false,
            file,
        });
        Ok(())
    }

    /// Reads what was appended since the last time, and repairs a torn end if `locked`.
    fn read_new(&mut self, locked: bool) -> io::Result<()> {
        let Some(open) = self.open.as_mut().filter(|open| open.regular) else {
            return Ok(());
        };
        let mut looked = 0;
        loop {
            let length = open.file.metadata()?.len();
            if length < open.read_to {
                // Truncated in place, as `copytruncate` does.
                open.read_to = 0;
            }
            let scan = scan(&open.file, open.read_to, length, &mut self.known)?;
            let Some(torn) = scan.torn() else {
                open.read_to = scan.complete_to();
                open.torn = false;
                return Ok(());
            };
            // What was read is read again then: a torn sample has to find its alarm.
            open.torn = true;
            if !locked {
                return Ok(());
            }
            if looked == length {
                return repair(open, &torn, &mut self.known, &self.metrics);
            }
            looked = length;
            thread::park_timeout(TORN_WAIT);
        }
    }

    /// Writes one alarm in one call.
    fn write(&mut self, text: &str, locked: bool) -> io::Result<()> {
        let Some(open) = &mut self.open else {
            return Err(io::Error::other("the alarm file is not open"));
        };
        let before = open.file.metadata()?.len();
        // Closes a foreign or broken line first, in the same call.
        let closed = if open.torn {
            format!("\n{text}")
        } else {
            text.to_owned()
        };
        fail_point!("alarm_file.before_write", |_| std::process::abort());
        let written = loop {
            match open.file.write(closed.as_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        fail_point!("alarm_file.written", |_| std::process::abort());
        if written < closed.len() {
            fail_point!("alarm_file.torn", |_| std::process::abort());
            if locked && open.regular {
                open.file.set_len(before)?;
            }
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "only a part of the alarm could be written",
            ));
        }
        open.torn = false;
        Ok(())
    }

    /// Reads the file rotated last: an alarm written just before the rotation is not to come again.
    fn read_rotated(&mut self, current: &Metadata) {
        let Some((path, _)) = newest_rotated(&self.path, current) else {
            return;
        };
        let read = File::open(&path).and_then(|file| {
            let length = file.metadata()?.len();
            scan(&file, 0, length, &mut self.known)
        });
        if let Err(error) = read {
            warn!(file = %path.display(), %error, "cannot read the alarm file rotated last");
        }
    }
}

/// Notes the alarms in `[from, to)` of a file, or in as much of its end as is read at most.
fn scan(file: &File, from: u64, to: u64, known: &mut KnownAlarms) -> io::Result<Scan> {
    let start = from.max(to.saturating_sub(READ_BACK_BYTES_MAX));
    let mut scan = Scan::new(start, start > from);
    let mut chunk = vec![0; 64 * 1024];
    let mut at = start;
    while at < to {
        let wanted = usize::try_from(to - at).map_or(chunk.len(), |left| left.min(chunk.len()));
        let read = file.read_at(&mut chunk[..wanted], at)?;
        if read == 0 {
            break;
        }
        scan.feed(&chunk[..read], |key| known.insert(key));
        at += read as u64;
    }
    Ok(scan)
}

/// Repairs a torn end, with the lock held. What a killed process of ours began is cut off: it was
/// never acknowledged and comes again. Anything else is not ours to take away and gets its newline.
fn repair(
    open: &mut OpenFile,
    torn: &Torn<'_>,
    known: &mut KnownAlarms,
    metrics: &SinkMetrics,
) -> io::Result<()> {
    metrics.alarm_tails_repaired.inc();
    warn!(
        bytes = torn.text.len(),
        text = %String::from_utf8_lossy(torn.text).escape_debug(),
        "the alarm file ends within a line; repairing it"
    );
    if may_be_ours(torn.text) {
        let mut cut = torn.start;
        if is_torn_sample(torn.text)
            && let Some((start, key)) = torn.alarm
        {
            known.remove(key);
            cut = start;
        }
        open.file.set_len(cut)?;
        open.read_to = cut;
        open.torn = false;
    }
    // Otherwise the next write begins with the newline.
    Ok(())
}

fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Returns the newest file beside `path` that a rotation may have made of it: `name.1`,
/// `name-20251227` and the like, uncompressed.
fn newest_rotated(path: &Path, current: &Metadata) -> Option<(PathBuf, SystemTime)> {
    let name = path.file_name()?.to_str()?;
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    let entries = fs::read_dir(parent.unwrap_or_else(|| Path::new("."))).ok()?;
    let rotated = entries.flatten().filter_map(|entry| {
        let found = entry.file_name();
        let rest = found.to_str()?.strip_prefix(name)?;
        let path = entry.path();
        let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default();
        let metadata = entry.metadata().ok()?;
        let is_alarms = (rest.starts_with('.') || rest.starts_with('-'))
            && !NOT_ALARMS.contains(&ending)
            && metadata.is_file()
            && id(&metadata) != id(current);
        Some((path, metadata.modified().ok()?)).filter(|_| is_alarms)
    });
    rotated.max_by_key(|(_, modified)| *modified)
}
