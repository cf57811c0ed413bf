//! What an alarm is called: the same in the file, the table and the result message, whoever wrote it.

use xxhash_rust::xxh3::xxh3_64;

use crate::model::ScoredWindow;

/// Returns the id of the alarm that `scored` raises, or would raise: 16 hex digits, a hash of its
/// stream and window.
#[must_use]
pub fn alarm_id(scored: &ScoredWindow) -> String {
    let window = &scored.window;
    let bounds = window.bounds;
    // As the table has it, which knows no NUL: two windows of one row have one alarm.
    let stream = window.stream.to_string().replace('\0', "\u{fffd}");
    let key = format!(
        "{stream}\n{}\n{}",
        bounds.start.as_millis(),
        bounds.end.as_millis()
    );
    format!("{:016x}", xxh3_64(key.as_bytes()))
}
