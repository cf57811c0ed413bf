//! JSON payload to [`LogEvent`].

use super::Rejected;
use crate::event::{EventTime, LogEvent};

/// Longest payload decoded, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// Returns the event in `payload`; `record_time` stands in for a missing timestamp.
///
/// # Errors
/// Returns what is wrong with the record, for the dead-letter topic.
pub fn decode(
    _payload: Option<&[u8]>,
    _record_time: Option<EventTime>,
) -> Result<LogEvent<'_>, Rejected> {
    unimplemented!()
}

/// Returns the time that `text` gives, or `None` if it is in no known format.
#[must_use]
pub fn parse_timestamp(_text: &str) -> Option<EventTime> {
    unimplemented!()
}
