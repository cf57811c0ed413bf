//! JSON lines: the payload of each line goes through the decoder that `run` uses.

use std::{
    borrow::Cow,
    io::{self, BufRead, Read},
};

use serde_json::{Map, Value};

use super::{
    ANOMALY_TYPE_COLUMN, Delivery, FileError, FileRow, LABEL_COLUMN, ReadOptions,
    input::TextInput,
    row::{reject, too_long},
};
use crate::decode::{decode, parse_label};

/// A JSON lines file, at its beginning.
#[derive(Debug)]
pub(super) struct JsonLinesFile {
    input: TextInput,
    /// `None` for the usual one, which the decoder reads by itself.
    label_column: Option<String>,
    line_bytes_max: usize,
}

/// How a line ended.
enum Line {
    EndOfFile,
    Whole,
    TooLong,
}

impl JsonLinesFile {
    pub(super) fn new(input: TextInput, options: &ReadOptions) -> Self {
        Self {
            input,
            label_column: Some(options.label_column.clone()).filter(|name| name != LABEL_COLUMN),
            line_bytes_max: options.line_bytes_max,
        }
    }

    /// Delivers every line that is not blank.
    pub(super) fn read(mut self, delivery: &mut Delivery<'_, '_>) -> Result<(), FileError> {
        let mut buffer = Vec::new();
        let mut line = 0;
        loop {
            line += 1;
            let row = match read_line(&mut self.input.reader, &mut buffer, self.line_bytes_max) {
                Err(error) => return Err(self.input.damaged(line, error)),
                Ok(Line::EndOfFile) => return Ok(()),
                Ok(Line::TooLong) => too_long(self.line_bytes_max, &buffer),
                Ok(Line::Whole) => {
                    let payload = buffer.strip_prefix(b"\xef\xbb\xbf".as_slice());
                    let payload = payload.filter(|_| line == 1).unwrap_or(&buffer);
                    let payload = payload.trim_ascii();
                    if payload.is_empty() {
                        continue;
                    }
                    to_row(payload, self.label_column.as_deref())
                }
            };
            if delivery.deliver(line, row).is_break() {
                return Ok(());
            }
        }
    }
}

/// Reads the next line into `buffer`, holding at most `bytes_max` (and its line feed) of it.
fn read_line(reader: &mut dyn BufRead, buffer: &mut Vec<u8>, bytes_max: usize) -> io::Result<Line> {
    buffer.clear();
    let limit = u64::try_from(bytes_max)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    if Read::take(&mut *reader, limit).read_until(b'\n', buffer)? == 0 {
        return Ok(Line::EndOfFile);
    }
    if buffer.last() == Some(&b'\n') || buffer.len() <= bytes_max {
        return Ok(Line::Whole);
    }
    skip_line(reader)?;
    Ok(Line::TooLong)
}

fn skip_line(mut reader: &mut dyn BufRead) -> io::Result<()> {
    BufRead::skip_until(&mut reader, b'\n').map(drop)
}

fn to_row<'a>(payload: &'a [u8], label_column: Option<&str>) -> FileRow<'a> {
    let mut event = match decode(Some(payload), None) {
        Ok(event) => event,
        Err(rejected) => return reject(rejected, payload),
    };
    // The decoder reads the fields of the contract only. The line is parsed once more where
    // another label was asked for, and where the anomaly's kind is wanted: anomalous lines are few.
    if label_column.is_none() && event.label != Some(true) {
        return FileRow::Event {
            event,
            anomaly_type: None,
        };
    }
    let fields: Map<String, Value> = serde_json::from_slice(payload).unwrap_or_default();
    if let Some(column) = label_column {
        event.label = fields.get(column).and_then(label);
    }
    let anomaly_type = fields
        .get(ANOMALY_TYPE_COLUMN)
        .and_then(Value::as_str)
        .map(str::trim)
        .filter(|name| event.label == Some(true) && !name.is_empty())
        .map(|name| Cow::Owned(name.to_owned()));
    FileRow::Event {
        event,
        anomaly_type,
    }
}

fn label(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => number.as_f64().map(|value| value != 0.0),
        Value::String(text) => parse_label(text),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
