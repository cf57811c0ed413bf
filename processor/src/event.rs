//! The plain values every stage speaks: times, levels, streams, offsets.
//!
//! Nothing here reads a clock, does I/O or allocates behind the reader's back.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// Event time: milliseconds since the Unix epoch, UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EventTime(i64);

impl EventTime {
    /// Years 1 to 9999: what RFC 3339, PostgreSQL and chrono can all express.
    const RANGE_MS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

    /// Returns the time `millis` after the epoch, or `None` outside the years 1 to 9999.
    #[must_use]
    pub fn from_millis(millis: i64) -> Option<Self> {
        Self::RANGE_MS.contains(&millis).then_some(Self(millis))
    }

    /// Returns the milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Returns this time moved by `millis`, kept within the years 1 to 9999.
    #[must_use]
    pub fn saturating_add(self, millis: i64) -> Self {
        Self(
            self.0
                .saturating_add(millis)
                .clamp(*Self::RANGE_MS.start(), *Self::RANGE_MS.end()),
        )
    }

    /// Returns the start of the epoch-aligned window of `length_ms` that this time lies in.
    #[must_use]
    pub fn window_start(self, length_ms: i64) -> Self {
        Self(self.0.div_euclid(length_ms).saturating_mul(length_ms))
    }

    /// Returns the time as chrono's, for databases and formatting.
    #[must_use]
    pub fn to_datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or_default()
    }
}

impl From<DateTime<Utc>> for EventTime {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_millis())
    }
}

/// RFC 3339 with milliseconds, `2025-12-24T23:44:17.636Z`.
impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            &self
                .to_datetime()
                .to_rfc3339_opts(SecondsFormat::Millis, true),
        )
    }
}

/// Severity of a log line, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// Diagnostic detail; `TRACE` counts as this.
    Debug,
    /// Normal operation; `NOTICE` and a missing level count as this.
    Info,
    /// Something to look at; `WARNING` counts as this.
    Warn,
    /// A failed operation.
    Error,
    /// A failed process; `CRITICAL`, `ALERT`, `EMERGENCY` and `PANIC` count as this.
    Fatal,
}

impl Level {
    /// Number of levels; a level's `as usize` is below it.
    pub const COUNT: usize = 5;

    /// Returns the level's name in events and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }

    /// Returns whether lines of this level count as critical (`ERROR` or `FATAL`).
    #[must_use]
    pub fn is_critical(self) -> bool {
        self >= Self::Error
    }
}

/// The name is none of the levels known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown level")]
pub struct UnknownLevel;

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(name: &str) -> Result<Self, UnknownLevel> {
        const NAMES: [(&str, Level); 15] = [
            ("INFO", Level::Info),
            ("DEBUG", Level::Debug),
            ("WARN", Level::Warn),
            ("ERROR", Level::Error),
            ("FATAL", Level::Fatal),
            ("WARNING", Level::Warn),
            ("CRITICAL", Level::Fatal),
            ("TRACE", Level::Debug),
            ("NOTICE", Level::Info),
            ("ALERT", Level::Fatal),
            ("EMERGENCY", Level::Fatal),
            ("PANIC", Level::Fatal),
            ("ERR", Level::Error),
            ("CRIT", Level::Fatal),
            ("INFORMATION", Level::Info),
        ];
        // The names of events, by far the most frequent, before every spelling is compared.
        match name {
            "INFO" => return Ok(Self::Info),
            "DEBUG" => return Ok(Self::Debug),
            "WARN" => return Ok(Self::Warn),
            "ERROR" => return Ok(Self::Error),
            "FATAL" => return Ok(Self::Fatal),
            _ => {}
        }
        NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, level)| *level)
            .ok_or(UnknownLevel)
    }
}

/// One decoded log line. Text is borrowed from the record wherever JSON allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEvent<'a> {
    /// When the line was written, by its own account.
    pub time: EventTime,
    /// Severity.
    pub level: Level,
    /// The service that wrote it; empty if the record named none.
    pub service: Cow<'a, str>,
    /// The text, variables included.
    pub message: Cow<'a, str>,
    /// Ground truth, for lines that carry it.
    pub label: Option<bool>,
}

/// A version of a service was rolled out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deploy {
    /// The service.
    pub service: String,
    /// The version that runs from then on.
    pub version: String,
    /// When.
    pub at: EventTime,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Topic name (Kafka allows letters, digits, `.`, `_`, `-`).
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// The stream a window belongs to: `topic/partition` or `topic/partition/service`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// Where its records come from.
    pub partition: TopicPartition,
    /// The service, where windows are grouped by service.
    pub service: Option<Arc<str>>,
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            None => self.partition.fmt(f),
            Some(service) => write!(f, "{}/{service}", self.partition),
        }
    }
}

/// Exclusive upper bound of what was read or done: the offset of the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NextOffset(pub i64);

impl NextOffset {
    /// Returns the position after the record at `offset`: the only place where 1 is added.
    #[must_use]
    pub const fn after(offset: i64) -> Self {
        Self(offset.saturating_add(1))
    }
}

/// The offsets `[first, next)` that something was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetSpan {
    /// Smallest offset.
    pub first: i64,
    /// One past the largest offset.
    pub next: NextOffset,
}

impl OffsetSpan {
    /// Returns the span of the single record at `offset`.
    #[must_use]
    pub const fn of(offset: i64) -> Self {
        Self {
            first: offset,
            next: NextOffset::after(offset),
        }
    }

    /// Widens the span to hold the record at `offset`.
    pub fn extend(&mut self, offset: i64) {
        self.first = self.first.min(offset);
        self.next = self.next.max(NextOffset::after(offset));
    }
}

/// How windows are laid over a stream of records. What was counted on one grid means nothing on
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowGrid {
    /// Window length in milliseconds, positive.
    pub length_ms: i64,
    /// Each service of a partition has windows of its own.
    pub by_service: bool,
}

/// Windows that may lack lines because reading began in their midst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partial {
    /// None.
    #[default]
    No,
    /// Which ones is decided by the first record that comes.
    FromFirstRecord,
    /// Those that start at this time or before.
    Through(EventTime),
}
