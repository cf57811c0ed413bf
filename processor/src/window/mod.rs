//! Event-time tumbling windows of one partition.
//!
//! ```text
//! LogEvent + template ──► Windower ──► ClosedWindow (one per stream and window, in window order)
//! ```
//!
//! Windows are aligned to the epoch. The watermark is the largest event time seen minus the
//! lateness; a window is final once the watermark reaches its end. What comes out is a function
//! of the partition's records in offset order: no clock, no I/O, nothing random.

mod content;
mod windower;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use content::{
    AnomalousLine, PAIRS_MAX, SAMPLE_BYTES_KEPT_MAX, SAMPLE_BYTES_MAX, SAMPLES_MAX, SERVICES_MAX,
    ServiceCount, TemplateCount, WindowContent,
};
pub use windower::{
    EMPTY_ROWS_MAX, FORGET_AFTER_MS, LATENESS_WINDOWS_MAX, OTHER_SERVICES, Placement, Recovered,
    SLOT_PAIRS_MAX, STREAMS_MAX, StreamProgress, WindowConfig, Windower,
};

use crate::event::{EventTime, OffsetSpan, StreamKey};

/// What makes records one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// One stream per partition.
    #[default]
    Partition,
    /// One stream per partition and service.
    Service,
}

/// The half-open time `[start, end)` of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowBounds {
    /// First instant.
    pub start: EventTime,
    /// First instant after.
    pub end: EventTime,
}

/// What made a window final, or that it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinalBy {
    /// The watermark passed its end: a function of the records alone.
    Watermark,
    /// The input ended (replay only).
    End,
    /// The partition fell idle for long and the clock closed it.
    Idle,
    /// Not final: written at shutdown or while idle, to be replaced by the final row.
    Open,
}

impl FinalBy {
    /// Returns the name in rows and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Watermark => "watermark",
            Self::End => "end",
            Self::Idle => "idle",
            Self::Open => "open",
        }
    }
}

/// A window with all that is known of it, on its way to be scored.
#[derive(Clone, Debug)]
pub struct ClosedWindow {
    /// The stream it belongs to.
    pub stream: StreamKey,
    /// Its time. A gap row spans all the empty windows it stands for.
    pub bounds: WindowBounds,
    /// Start of the window whose closing brought this row about: its own start, but for a gap row
    /// that of the window which ended the gap.
    pub slot: EventTime,
    /// What its lines added up to; empty for windows without lines.
    pub content: Arc<WindowContent>,
    /// Where its lines stand in the partition; `None` for windows without lines.
    pub span: Option<OffsetSpan>,
    /// What made it final.
    pub final_by: FinalBy,
    /// It stands for a run of empty windows too long to list.
    pub gap: bool,
    /// The first window of a stream that is new, or was forgotten: its baseline begins here.
    pub first: bool,
    /// Reading began in its midst, so lines may be missing: it never replaces a final row.
    pub partial: bool,
    /// Largest event time of the partition before the window's first record, `None` at the
    /// partition's beginning and for windows without lines: with it, reading the window's offsets
    /// again places every record as the first time.
    pub max_event_time_before: Option<EventTime>,
    /// The stream's row before this one that holds a state, the one this window is scored with;
    /// `None` for the first of a stream. Never a gap row: the row after it has its state.
    pub previous: Option<WindowBounds>,
    /// How far behind the largest event time its records could be, in milliseconds.
    pub lateness_ms: i64,
    /// Where the stream stands after this window; rides in the row, read back on assignment.
    pub progress: StreamProgress,
}
