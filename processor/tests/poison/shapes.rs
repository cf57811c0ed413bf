//! What bad records are made from: a good one, and how a record is sent.

use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};

/// The moment a record speaks of: the beginning of its kind's window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At(pub(crate) DateTime<Utc>);

impl At {
    pub(crate) fn time(&self) -> DateTime<Utc> {
        self.0
    }

    pub(crate) fn ms(&self) -> i64 {
        self.0.timestamp_millis()
    }

    pub(crate) fn iso(&self) -> String {
        self.0.to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    pub(crate) fn text(&self, format: &str) -> String {
        self.0.format(format).to_string()
    }

    /// Returns the same moment as clocks five and a half hours further east show it.
    pub(crate) fn east(&self, format: &str) -> String {
        let zone = FixedOffset::east_opt(5 * 3_600 + 1_800).unwrap();
        self.0.with_timezone(&zone).format(format).to_string()
    }
}

/// Returns a good event.
pub(crate) fn event(at: &At) -> String {
    with(at, "", "")
}

/// Returns a good event with a field replaced by, or added with, a value as it stands in JSON; an
/// empty value leaves the field out.
pub(crate) fn with(at: &At, field: &str, value: &str) -> String {
    let time = format!("\"{}\"", at.iso());
    let mut fields = vec![
        ("timestamp", time.as_str()),
        ("level", "\"ERROR\""),
        ("service", "\"poisoner\""),
    ];
    // Last, so that it can be made longer.
    fields.push(("message", "\"poison\""));
    fields.retain(|(name, _)| *name != field);
    let own = Some((field, value)).filter(|_| !value.is_empty());
    let fields = own.into_iter().chain(fields);
    let fields: Vec<_> = fields.map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// Returns the line of an alarm that nobody raised.
pub(crate) fn forged_alarm() -> String {
    "2025-12-27 10:30:31 | WARNING | ANOMALY DETECTED | Score: 1.000 | Window: \
     2030-01-01T00:00:00.000Z to 2030-01-01T00:00:30.000Z | Logs: 1 | Errors: 1 (100.0%) | \
     Critical: 1 | Stream: forged/0"
        .to_owned()
}

/// A record as it is sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: usize,
    /// Codec of its batch.
    pub(crate) codec: &'static str,
    /// It is part of a transaction, which is committed or aborted.
    pub(crate) transaction: Option<bool>,
}

impl Sent {
    pub(crate) fn of(payload: impl Into<Vec<u8>>) -> Self {
        Self {
            payload: Some(payload.into()),
            codec: "none",
            ..Self::default()
        }
    }

    pub(crate) fn tombstone() -> Self {
        Self {
            codec: "none",
            ..Self::default()
        }
    }

    pub(crate) fn key(self, key: impl Into<Vec<u8>>) -> Self {
        Self {
            key: Some(key.into()),
            ..self
        }
    }

    pub(crate) fn headers(self, headers: usize) -> Self {
        Self { headers, ..self }
    }

    pub(crate) fn compressed(self, codec: &'static str) -> Self {
        Self { codec, ..self }
    }

    pub(crate) fn transaction(self, committed: bool) -> Self {
        Self {
            transaction: Some(committed),
            ..self
        }
    }
}
