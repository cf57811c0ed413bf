//! One event as one line of JSON or CSV, into a buffer that is used again.

use std::io;

use crate::{generator::Event, output::Stamp};

/// The form of an event's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Comma-separated values with a header.
    Csv,
}

/// Columns of the CSV form, in the order of the JSON form's members.
pub const CSV_HEADER: &str = "timestamp,level,service,message,is_anomaly,anomaly_type\n";

/// Appends `event` to `out` as a JSON object, without a line end. `anomaly_type` is there only on
/// labelled lines.
///
/// # Errors
///
/// Never in practice: writing to memory does not fail.
pub fn json(event: &Event, stamp: &mut Stamp, out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(b"{\"timestamp\":\"");
    out.extend_from_slice(stamp.format(event.time_us).as_bytes());
    out.extend_from_slice(b"\",\"level\":\"");
    out.extend_from_slice(event.level.as_str().as_bytes());
    out.extend_from_slice(b"\",\"service\":\"");
    out.extend_from_slice(event.service.as_bytes());
    out.extend_from_slice(b"\",\"message\":");
    serde_json::to_writer(&mut *out, &event.message)?;
    match event.anomaly {
        None => out.extend_from_slice(b",\"is_anomaly\":0}"),
        Some(kind) => {
            out.extend_from_slice(b",\"is_anomaly\":1,\"anomaly_type\":\"");
            out.extend_from_slice(kind.as_str().as_bytes());
            out.extend_from_slice(b"\"}");
        }
    }
    Ok(())
}

/// Appends `event` to `out` as a CSV line, line end included.
pub fn csv(event: &Event, stamp: &mut Stamp, out: &mut Vec<u8>) {
    out.extend_from_slice(stamp.format(event.time_us).as_bytes());
    out.push(b',');
    out.extend_from_slice(event.level.as_str().as_bytes());
    out.push(b',');
    out.extend_from_slice(event.service.as_bytes());
    out.push(b',');
    csv_field(&event.message, out);
    match event.anomaly {
        None => out.extend_from_slice(b",0,"),
        Some(kind) => {
            out.extend_from_slice(b",1,");
            out.extend_from_slice(kind.as_str().as_bytes());
        }
    }
    out.push(b'\n');
}

/// Quotes `text` where RFC 4180 asks for it.
fn csv_field(text: &str, out: &mut Vec<u8>) {
    if !text.contains([',', '"', '\n', '\r']) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::{IncidentKind, Level};

    fn event(anomaly: Option<IncidentKind>) -> Event {
        Event {
            time_us: 1_766_619_857_636_972,
            level: Level::Warn,
            service: "auth-service",
            message: "said \"no\", twice".to_owned(),
            anomaly,
        }
    }

    #[test]
    fn json_escapes_and_labels() {
        let mut out = Vec::new();
        json(&event(None), &mut Stamp::default(), &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"timestamp":"2025-12-24T23:44:17.636Z","level":"WARN","service":"auth-service","message":"said \"no\", twice","is_anomaly":0}"#
        );
        let mut out = Vec::new();
        json(
            &event(Some(IncidentKind::SpikeError)),
            &mut Stamp::default(),
            &mut out,
        )
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.ends_with(r#","is_anomaly":1,"anomaly_type":"spike_error"}"#),
            "{text}"
        );
    }

    #[test]
    fn csv_quotes_and_labels() {
        let mut out = Vec::new();
        csv(
            &event(Some(IncidentKind::Cascade)),
            &mut Stamp::default(),
            &mut out,
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2025-12-24T23:44:17.636Z,WARN,auth-service,\"said \"\"no\"\", twice\",1,cascade\n"
        );
    }
}
