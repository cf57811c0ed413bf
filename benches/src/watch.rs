//! Sees rows and alarms as they come: one thread asks the database for new rows, another reads the
//! alarm file.

use std::{
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, anyhow};

use crate::{
    processor::{Processor, Setup},
    realtime::{Key, Seen, WINDOW_MS},
};

/// How often the database and the alarm file are looked at: what is measured is coarser by as much.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The two threads.
pub(crate) struct Watchers {
    stop: Arc<AtomicBool>,
    rows: JoinHandle<Result<Seen>>,
    alarms: JoinHandle<Result<Seen>>,
}

impl Watchers {
    /// Starts to look for rows of `topic` and alarms of `processor`.
    pub(crate) fn start(setup: &Setup, topic: &str, processor: &Processor) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (url, topic) = (setup.database_url.clone(), topic.to_owned());
        Self {
            rows: watch_rows(url, topic, Arc::clone(&stop)),
            alarms: watch_alarms(processor.alarms.clone(), Arc::clone(&stop)),
            stop,
        }
    }

    /// Stops looking; returns the rows and the alarms that were seen.
    pub(crate) fn finish(self) -> Result<(Seen, Seen)> {
        self.stop.store(true, Ordering::Relaxed);
        let joined = |thread: JoinHandle<Result<Seen>>| {
            thread
                .join()
                .map_err(|_| anyhow!("a watching thread panicked"))?
        };
        Ok((joined(self.rows)?, joined(self.alarms)?))
    }
}

fn watch_rows(url: String, topic: String, stop: Arc<AtomicBool>) -> JoinHandle<Result<Seen>> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
            let connection = tokio::spawn(connection);
            let ask = "select partition, (extract(epoch from window_end) * 1000)::int8 \
                       from anomaly_results where topic = $1 and not provisional and window_start > $2";
            let ask = client.prepare(ask).await?;
            // By the start, which rows are in order of: to look must cost next to nothing.
            let back = Duration::from_millis(3 * WINDOW_MS.unsigned_abs());
            let mut seen = Seen::new();
            while !stop.load(Ordering::Relaxed) {
                // Rows of one window come one by one; those of the last two are asked for again.
                let since = SystemTime::now() - back;
                for row in client.query(&ask, &[&topic, &since]).await? {
                    seen.entry((row.get(0), row.get(1))).or_insert_with(Instant::now);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            connection.abort();
            Ok(seen)
        })
    })
}

fn watch_alarms(path: PathBuf, stop: Arc<AtomicBool>) -> JoinHandle<Result<Seen>> {
    std::thread::spawn(move || {
        let (mut seen, mut read) = (Seen::new(), 0);
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_EVERY);
            let text = read_on(&path, &mut read)?;
            for key in text.lines().filter_map(alarm_key) {
                seen.entry(key).or_insert_with(Instant::now);
            }
        }
        Ok(seen)
    })
}

/// Returns what the file has grown by, whole lines only.
fn read_on(path: &Path, read: &mut u64) -> Result<String> {
    let Ok(mut file) = std::fs::File::open(path) else {
        return Ok(String::new());
    };
    let mut text = String::new();
    file.seek(SeekFrom::Start(*read))?;
    file.read_to_string(&mut text)
        .context("the alarm file is not text")?;
    text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
    *read += text.len() as u64;
    Ok(text)
}

/// Returns the key of an alarm line, `… | Window: <from> to <to> | … | Stream: <topic>/<partition>`.
fn alarm_key(line: &str) -> Option<Key> {
    let field = |name: &str| line.split(" | ").find_map(|field| field.strip_prefix(name));
    let (_, end) = field("Window: ")?.split_once(" to ")?;
    let (_, partition) = field("Stream: ")?.rsplit_once('/')?;
    let end = logguard::decode::parse_timestamp(end)?;
    Some((partition.trim().parse().ok()?, end.as_millis()))
}
