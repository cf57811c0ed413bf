//! The values a generator yields: log events with their label, and the incidents behind labels.
//!
//! Plain data; nothing here draws a number, reads a clock or does I/O.

use serde::Serialize;

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Diagnostic detail.
    Debug,
    /// Normal operation.
    Info,
    /// Something to look at.
    Warn,
    /// A failed operation.
    Error,
    /// A failed process.
    Fatal,
}

impl Level {
    /// Every level, in rising order; a level's `as usize` is its place here.
    pub const ALL: [Self; 5] = [
        Self::Debug,
        Self::Info,
        Self::Warn,
        Self::Error,
        Self::Fatal,
    ];

    /// Returns the name used in events.
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
}

/// What an incident is made of. The first five have words of their own; the rest, the hard set,
/// are made of lines that also occur in normal traffic (but for the single new line).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// One service fails many requests at once.
    SpikeError,
    /// A failure that spreads from one service to those that depend on it.
    Cascade,
    /// Memory, disk, connections or descriptors of one service run out.
    Resource,
    /// Password guessing, token replay, injection or scraping.
    Security,
    /// Lines of a form never written before.
    NewPattern,
    /// Hard set: a service's everyday errors, many times over.
    ErrorBurst,
    /// Hard set: everyday errors and warnings of one service after another.
    ServiceCascade,
    /// Hard set: a service's heartbeat stops while its other lines go on.
    MissingHeartbeat,
    /// Hard set: as many lines as ever, of another composition.
    ChangedMix,
    /// Hard set: one everyday warning, slowly more frequent.
    SlowLeak,
    /// Hard set: nothing is written at all.
    Silence,
    /// Hard set: everything is written several times as often, at once.
    Surge,
    /// Hard set: one single line never written before.
    NewLine,
    /// Harmless: a release brings templates that stay.
    Release,
    /// Harmless: a promotion brings more visitors for some hours.
    Promotion,
}

impl IncidentKind {
    /// The kinds of the standard scenario.
    pub const STANDARD: [Self; 5] = [
        Self::SpikeError,
        Self::Cascade,
        Self::Resource,
        Self::Security,
        Self::NewPattern,
    ];

    /// The anomalous kinds of the hard scenario.
    pub const HARD: [Self; 8] = [
        Self::ErrorBurst,
        Self::ServiceCascade,
        Self::MissingHeartbeat,
        Self::ChangedMix,
        Self::SlowLeak,
        Self::Silence,
        Self::Surge,
        Self::NewLine,
    ];

    /// Returns the name used as `anomaly_type` and in the ground truth.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SpikeError => "spike_error",
            Self::Cascade => "cascade",
            Self::Resource => "resource",
            Self::Security => "security",
            Self::NewPattern => "new_pattern",
            Self::ErrorBurst => "error_burst",
            Self::ServiceCascade => "service_cascade",
            Self::MissingHeartbeat => "missing_heartbeat",
            Self::ChangedMix => "changed_mix",
            Self::SlowLeak => "slow_leak",
            Self::Silence => "silence",
            Self::Surge => "surge",
            Self::NewLine => "new_line",
            Self::Release => "release",
            Self::Promotion => "promotion",
        }
    }

    /// Returns whether a detector that alarms on this is right to.
    #[must_use]
    pub const fn is_anomaly(self) -> bool {
        !matches!(self, Self::Release | Self::Promotion)
    }
}

/// One log line with its label. A generator reuses a single value, message buffer included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When the line is written: microseconds since the Unix epoch, UTC.
    pub time_us: i64,
    /// Severity.
    pub level: Level,
    /// The service that writes it.
    pub service: &'static str,
    /// The text, variables filled in.
    pub message: String,
    /// The incident it belongs to; `None` for normal traffic.
    pub anomaly: Option<IncidentKind>,
}

/// Ground truth of one incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// What happened.
    pub kind: IncidentKind,
    /// The services it touched, the one it began in first; empty if it is everywhere.
    pub services: Vec<&'static str>,
    /// When it began: microseconds since the Unix epoch.
    pub start_us: i64,
    /// When it was over: microseconds since the Unix epoch, exclusive.
    pub end_us: i64,
    /// Lines labelled with it; 0 for incidents that consist of lines that are missing.
    pub lines: u64,
}
