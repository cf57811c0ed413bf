//! The cells of a CSV or parquet row to what the pipeline takes, by the same rules as JSON.

use std::borrow::Cow;

use super::{FileRow, REJECTED_BYTES_MAX};
use crate::{
    decode::{PAYLOAD_BYTES_MAX, RejectReason, Rejected, parse_timestamp, service_name},
    event::{EventTime, Level, LogEvent},
};

/// Most of an unreadable timestamp shown, in characters.
const SHOWN_CHARS_MAX: usize = 64;

/// What a timestamp cell holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum TimeCell<'a> {
    Missing,
    Text(&'a [u8]),
    /// A number, already converted; `None` if it lies outside the years 1 to 9999.
    Number(Option<EventTime>),
    NotANumber,
}

/// The cells that are read of a row; `None` for null or a missing column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cells<'a> {
    pub(super) time: TimeCell<'a>,
    pub(super) level: Option<&'a [u8]>,
    pub(super) service: Option<&'a [u8]>,
    pub(super) message: Option<&'a [u8]>,
    pub(super) label: Option<bool>,
    pub(super) anomaly_type: Option<&'a [u8]>,
}

impl<'a> Cells<'a> {
    /// Returns the row's event, or why there is none; `payload` is the row as it stands.
    pub(super) fn into_row(self, payload: &'a [u8]) -> FileRow<'a> {
        match self.event() {
            Ok(event) => FileRow::Event {
                anomaly_type: self
                    .anomaly_type
                    .filter(|_| event.label == Some(true))
                    .map(<[u8]>::trim_ascii)
                    .filter(|name| !name.is_empty())
                    .map(String::from_utf8_lossy),
                event,
            },
            Err(rejected) => reject(rejected, payload),
        }
    }

    fn event(&self) -> Result<LogEvent<'a>, Rejected> {
        let message = self
            .message
            .ok_or_else(|| rejected(RejectReason::NoMessage, ""))?;
        if message.len() > PAYLOAD_BYTES_MAX {
            let detail = format!(
                "message of {} bytes, at most {PAYLOAD_BYTES_MAX} are read",
                message.len()
            );
            return Err(rejected(RejectReason::TooLarge, detail));
        }
        let service = text("service", self.service.unwrap_or_default())?;
        let level = text("level", self.level.unwrap_or_default())?;
        Ok(LogEvent {
            time: self.event_time()?,
            level: level.trim().parse().unwrap_or(Level::Info),
            service: service_name(Cow::Borrowed(service)),
            message: Cow::Borrowed(text("message", message)?),
            label: self.label,
        })
    }

    fn event_time(&self) -> Result<EventTime, Rejected> {
        match self.time {
            TimeCell::Missing => Err(rejected(RejectReason::NoTimestamp, "")),
            TimeCell::Number(time) => time
                .ok_or_else(|| rejected(RejectReason::BadTimestamp, "outside the years 1 to 9999")),
            TimeCell::NotANumber => Err(rejected(RejectReason::BadTimestamp, "not a number")),
            TimeCell::Text(bytes) => {
                let shown = text("timestamp", bytes)?;
                parse_timestamp(shown).ok_or_else(|| {
                    let shown: String = shown.chars().take(SHOWN_CHARS_MAX).collect();
                    let detail = format!("`{shown}` is in no known format");
                    rejected(RejectReason::BadTimestamp, detail)
                })
            }
        }
    }
}

/// Returns the reject of a row, with as much of its text as a dead letter keeps.
pub(super) fn reject(rejected: Rejected, payload: &[u8]) -> FileRow<'_> {
    let kept = payload.len().min(REJECTED_BYTES_MAX);
    FileRow::Rejected {
        rejected,
        payload: &payload[..kept],
    }
}

/// Returns the reject of a line or record longer than the cap.
pub(super) fn too_long(line_bytes_max: usize, payload: &[u8]) -> FileRow<'_> {
    let detail = format!("longer than the {line_bytes_max} bytes that are read of a line");
    reject(rejected(RejectReason::TooLarge, detail), payload)
}

pub(super) fn rejected(reason: RejectReason, detail: impl Into<String>) -> Rejected {
    Rejected {
        reason,
        detail: detail.into(),
    }
}

fn text<'a>(column: &str, bytes: &'a [u8]) -> Result<&'a str, Rejected> {
    std::str::from_utf8(bytes)
        .map_err(|error| rejected(RejectReason::NotUtf8, format!("{column}: {error}")))
}
