//! The windower: places records into windows and closes them as the watermark passes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::GroupBy;
use crate::event::{EventTime, TopicPartition};

/// How windows are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowConfig {
    /// Window length in milliseconds, positive.
    pub length_ms: i64,
    /// How far behind the largest event time a record may be, in milliseconds.
    pub lateness_ms: i64,
    /// What makes records one stream.
    pub group_by: GroupBy,
}

/// Where a stream stands after a window; rides in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamProgress {
    /// End of the stream's last row.
    pub row_end: EventTime,
    /// Empty windows in a row up to there.
    pub empty_run: u32,
    /// End of the last window that had lines.
    pub seen_until: EventTime,
}

/// What a restarted partition begins with.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Largest event time before the first record that will be read.
    pub max_event_time: Option<EventTime>,
    /// Start of the last window that is done.
    pub done_through: Option<EventTime>,
    /// The first windows may lack lines.
    pub partial: bool,
    /// Known streams, by service name (`None` when grouped by partition).
    pub streams: Vec<(Option<Arc<str>>, StreamProgress)>,
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Into an open window.
    Counted,
    /// Nowhere: its window was final.
    Late,
    /// Nowhere: its window was done before the restart and has counted it.
    AlreadyDone,
}

/// The windows of one partition.
#[derive(Debug)]
pub struct Windower {
    #[allow(dead_code)]
    config: WindowConfig,
    #[allow(dead_code)]
    partition: TopicPartition,
}
