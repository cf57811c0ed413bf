//! The one place that reads the wall clock.

use std::time::SystemTime;

/// Returns the present time: microseconds since the Unix epoch.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn now_us() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_micros()).ok())
        .unwrap_or_default()
}
