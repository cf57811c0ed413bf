//! The text of an alarm, and finding alarms in text.
//!
//! A line begins `2025-12-27 10:30:31 | WARNING | `; what follows may hold anything that services
//! log, so whatever could end a line, start a field or steer a terminal is escaped.

use chrono::{DateTime, Utc};

use crate::{
    model::ScoredWindow,
    sink::{alarm_id, told::Told},
    window::SAMPLES_MAX,
};

/// What comes after the time in every line.
const LEVEL: &str = " | WARNING | ";
/// What comes after that in the first line of an alarm.
const ALARM: &str = "ANOMALY DETECTED | ";
/// What comes there instead in its other lines, then the sample's number.
const SAMPLE: &str = "  Sample Error ";
/// Shape of the time: `0` stands for a digit.
const TIME_SHAPE: &[u8] = b"0000-00-00 00:00:00";
/// Reasons shown in the line; the table has all.
const REASONS_MAX: usize = 3;
/// Longest reason shown, in characters.
const REASON_CHARS_MAX: usize = 200;

/// Returns the lines of an alarm, each with its newline: a function of the window and of `now`,
/// which stamps them (UTC).
#[must_use]
pub fn format_alarm(scored: &ScoredWindow, stale: bool, now: DateTime<Utc>) -> String {
    let told = Told::of(scored);
    let prefix = format!("{}{LEVEL}", now.format("%Y-%m-%d %H:%M:%S"));
    let mut text = format!(
        "{prefix}{ALARM}Score: {:.3} | {} | Logs: {} | Errors: {} ({:.1}%) | Critical: {} | {} | Alarm: {}",
        told.anomaly_score,
        window_field(scored),
        told.log_count,
        told.error_count,
        told.error_rate * 100.0,
        told.critical_count,
        stream_field(scored),
        alarm_id(scored),
    );
    if let Some(at) = told.early_at {
        text.push_str(&format!(" | Early: {at}"));
    }
    if told.provisional {
        text.push_str(" | Provisional: yes");
    }
    if scored.verdict.learning {
        text.push_str(" | Learning: yes");
    }
    if stale {
        text.push_str(" | Stale: yes");
    }
    let reasons: Vec<String> = told.explanation.reasons[..]
        .iter()
        .take(REASONS_MAX)
        .map(|reason| shortened(reason))
        .collect();
    if !reasons.is_empty() {
        text.push_str(" | Why: ");
        text.push_str(&escaped(&reasons.join("; "), Place::Field));
    }
    text.push('\n');
    for (index, sample) in told.samples.iter().take(SAMPLES_MAX).enumerate() {
        let sample = escaped(sample, Place::LineEnd);
        text.push_str(&format!("{prefix}{SAMPLE}{}: {sample}\n", index + 1));
    }
    text
}

/// Returns what identifies an alarm within a file: its window and stream as they are written.
pub(super) fn alarm_key(scored: &ScoredWindow) -> String {
    format!("{} | {}", window_field(scored), stream_field(scored))
}

/// Returns the key of the alarm that a line opens, `None` for any other line.
pub(super) fn key_in_line(line: &str) -> Option<String> {
    let rest = line.get(TIME_SHAPE.len()..)?;
    if !is_time(line.as_bytes().get(..TIME_SHAPE.len())?) {
        return None;
    }
    let mut fields = rest.strip_prefix(LEVEL)?.strip_prefix(ALARM)?.split(" | ");
    let window = fields.find(|field| field.starts_with("Window: "))?;
    let stream = fields.find(|field| field.starts_with("Stream: "))?;
    Some(format!("{window} | {stream}"))
}

/// Returns whether an unfinished line may be the beginning of one of ours.
pub(super) fn may_be_ours(torn: &[u8]) -> bool {
    let time = &torn[..torn.len().min(TIME_SHAPE.len())];
    let level = torn.get(TIME_SHAPE.len()..).unwrap_or_default();
    is_time(time) && (level.starts_with(LEVEL.as_bytes()) || LEVEL.as_bytes().starts_with(level))
}

/// Returns whether a complete line is a sample of the alarm opened above it.
pub(super) fn is_sample(line: &[u8]) -> bool {
    after_level(line).is_some_and(|rest| rest.starts_with(SAMPLE.as_bytes()))
}

/// Returns whether an unfinished line is certainly the beginning of a sample.
pub(super) fn is_torn_sample(torn: &[u8]) -> bool {
    after_level(torn).is_some_and(|rest| {
        rest.starts_with(SAMPLE.as_bytes())
            || (!rest.is_empty() && SAMPLE.as_bytes().starts_with(rest))
    })
}

fn after_level(line: &[u8]) -> Option<&[u8]> {
    let (time, rest) = line.split_at_checked(TIME_SHAPE.len())?;
    rest.strip_prefix(LEVEL.as_bytes())
        .filter(|_| is_time(time))
}

fn is_time(text: &[u8]) -> bool {
    text.iter()
        .zip(TIME_SHAPE)
        .all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            _ => byte == shape,
        })
}

fn window_field(scored: &ScoredWindow) -> String {
    let bounds = scored.window.bounds;
    format!("Window: {} to {}", bounds.start, bounds.end)
}

fn stream_field(scored: &ScoredWindow) -> String {
    let stream = scored.window.stream.to_string();
    format!("Stream: {}", escaped(&stream, Place::Field))
}

fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(REASON_CHARS_MAX) {
        None => reason.to_owned(),
        Some((end, _)) => format!("{}…", reason.get(..end).unwrap_or_default()),
    }
}

/// Returns a text that ends no line and steers no terminal, for the end of a line.
#[must_use]
pub(crate) fn printable(text: &str) -> String {
    escaped(text, Place::LineEnd)
}

/// Where in a line a text stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between ` | `: it may hold no bar.
    Field,
    /// After everything else.
    LineEnd,
}

fn escaped(text: &str, place: Place) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        if steers(char) || (char == '|' && place == Place::Field) {
            match char {
                '\n' | '\r' | '\t' => safe.extend(char.escape_default()),
                _ => safe.extend(char.escape_unicode()),
            }
        } else {
            safe.push(char);
        }
    }
    safe
}

/// Returns whether a character ends lines, steers terminals or reorders text.
fn steers(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
