//! Files as one stream of events for `train` and `replay`: progress, warnings and the counting of
//! what was rejected, so that the two commands agree on all of it.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use crate::{
    config::ConfigError,
    decode::{RejectReason, parse_timestamp},
    event::{EventTime, LogEvent},
    source::file::{FileRow, LogFile, ReadBar, ReadOptions, TimeOrder},
};

/// Rejected rows told one by one on standard error; the rest is counted.
const REJECTS_SHOWN_MAX: u64 = 5;

/// One event of a file.
#[derive(Debug)]
pub struct FileEvent<'a> {
    /// The line.
    pub event: LogEvent<'a>,
    /// Its number over all files, from 0; what an offset is in a partition.
    pub offset: i64,
    /// The kind of anomaly that its row names.
    pub anomaly_type: Option<&'a str>,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct FileTotals {
    /// Events delivered.
    pub events: u64,
    /// Rows that could not be decoded, by reason.
    pub rejected: BTreeMap<RejectReason, u64>,
}

impl FileTotals {
    /// Returns how many rows could not be decoded.
    #[must_use]
    pub fn rejected_count(&self) -> u64 {
        self.rejected.values().sum()
    }
}

/// Returns the time of a `--since` or `--until`.
///
/// # Errors
/// Returns an error that shows what is expected.
pub fn parse_time(text: &str) -> Result<EventTime, ConfigError> {
    parse_timestamp(text).ok_or_else(|| {
        let example = "expected something like 2025-12-24T23:44:17Z";
        ConfigError::from(format!("`{text}` is not a time; {example}"))
    })
}

/// Returns the time of a `--since` or `--until` that may also be a duration before `now`.
///
/// # Errors
/// Returns an error that shows what is expected.
pub fn parse_bound(text: &str, now: EventTime) -> Result<EventTime, ConfigError> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Ok(now.saturating_add(-ago_ms));
    }
    parse_timestamp(text).ok_or_else(|| {
        let example = "expected something like 24h or 2025-12-24T23:44:17Z";
        ConfigError::from(format!(
            "`{text}` is neither a duration nor a time; {example}"
        ))
    })
}

/// Hands every event of `paths` to `visit`, in order. Rejected rows are counted, the first few
/// told on standard error. `lateness_ms` only decides whether to warn of files out of order.
///
/// # Errors
/// Returns an error if a file cannot be opened or is damaged; all that stands before the damage
/// has been delivered. The first error of `visit` ends the reading.
pub fn read_events(
    paths: &[PathBuf],
    options: &ReadOptions,
    lateness_ms: i64,
    visit: &mut dyn FnMut(FileEvent<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<FileTotals> {
    let mut totals = FileTotals::default();
    let mut order = TimeOrder::new(lateness_ms);
    for path in paths {
        read_file(path, options, (&mut totals, &mut order), visit)?;
    }
    if let Some(warning) = order.warning() {
        tracing::warn!("{warning}");
    }
    let rejected = totals.rejected_count();
    if rejected > REJECTS_SHOWN_MAX {
        tracing::warn!(rejected, by_reason = ?totals.rejected, "rows rejected");
    }
    Ok(totals)
}

fn read_file(
    path: &Path,
    options: &ReadOptions,
    (totals, order): (&mut FileTotals, &mut TimeOrder),
    visit: &mut dyn FnMut(FileEvent<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let file = LogFile::open(path, options)?;
    let name = file.name().to_owned();
    let mut bar = ReadBar::new(&format!("reading {name}"), file.progress());
    let mut failure = None;
    file.read(&mut |record| {
        bar.refresh();
        match record.row {
            FileRow::Event {
                event,
                anomaly_type,
            } => {
                order.observe(event.time);
                let offset = i64::try_from(totals.events).unwrap_or(i64::MAX);
                totals.events += 1;
                let anomaly_type = anomaly_type.as_deref();
                if let Err(error) = visit(FileEvent {
                    event,
                    offset,
                    anomaly_type,
                }) {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            }
            FileRow::Rejected { rejected, .. } => {
                *totals.rejected.entry(rejected.reason).or_default() += 1;
                if totals.rejected_count() <= REJECTS_SHOWN_MAX {
                    let (reason, detail) = (rejected.reason.as_str(), rejected.detail);
                    tracing::warn!(file = name, line = record.line, reason, detail, "rejected");
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    failure.map_or(Ok(()), Err)
}
