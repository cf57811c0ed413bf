//! Bytes to [`LogEvent`](crate::event::LogEvent), messages to templates.
//!
//! ```text
//! payload ──json──► LogEvent ──mask──► masked text ──dictionary──► Template (hash, text)
//!    └──► Rejected (reason, detail)  └── shape, if known ──────────────┘
//! ```
//!
//! Pure: no clock, no I/O. Bad input never panics and never disappears: it becomes a [`Rejected`].

mod json;
mod mask;
mod proof;
mod shapes;
mod template;
mod wildcards;

pub use json::{
    Decoded, PAYLOAD_BYTES_MAX, SERVICE_BYTES_MAX, decode, decode_record, from_epoch, parse_label,
    parse_timestamp, service_name,
};
pub use mask::{MaskError, MaskRule, Masker};
pub use template::{DICTIONARY_BYTES_MAX, TEMPLATE_BYTES_MAX, Template, TemplateDictionary};

/// How far ahead of its record's Kafka timestamp an event may be, in milliseconds: one bad clock
/// must not close everyone's windows.
pub const FUTURE_MS_MAX: i64 = 5 * 60 * 1_000;

/// Why a record was not scored. The names are stable: dead letters and metrics carry them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectReason {
    /// The record has no payload.
    Tombstone,
    /// The payload is longer than [`json::PAYLOAD_BYTES_MAX`].
    TooLarge,
    /// The payload is not UTF-8.
    NotUtf8,
    /// The payload is not a JSON object of the event's shape.
    NotJson,
    /// There is no message.
    NoMessage,
    /// The timestamp is in none of the known formats.
    BadTimestamp,
    /// There is neither a timestamp nor a record time.
    NoTimestamp,
    /// The event time is too far ahead of the record's own Kafka timestamp.
    Future,
    /// The event's window was final before it came.
    Late,
    /// A row of a file does not fit the file's header.
    BadRow,
}

impl RejectReason {
    /// Every reason, for metrics that list them.
    pub const ALL: [Self; 10] = [
        Self::Tombstone,
        Self::TooLarge,
        Self::NotUtf8,
        Self::NotJson,
        Self::NoMessage,
        Self::BadTimestamp,
        Self::NoTimestamp,
        Self::Future,
        Self::Late,
        Self::BadRow,
    ];

    /// Returns the reason's stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tombstone => "tombstone",
            Self::TooLarge => "too_large",
            Self::NotUtf8 => "not_utf8",
            Self::NotJson => "not_json",
            Self::NoMessage => "no_message",
            Self::BadTimestamp => "bad_timestamp",
            Self::NoTimestamp => "no_timestamp",
            Self::Future => "future",
            Self::Late => "late",
            Self::BadRow => "bad_row",
        }
    }
}

/// A record that cannot be scored, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The kind of defect.
    pub reason: RejectReason,
    /// What exactly was found, for a person; empty if the reason says it all.
    pub detail: String,
}
