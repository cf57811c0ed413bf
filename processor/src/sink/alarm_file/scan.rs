//! Finds the alarms in a file, chunk by chunk, and how it ends.

use super::line::{is_sample, key_in_line};

/// Most bytes of a line that are kept: ours are far shorter.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Reads text as it comes.
#[derive(Debug)]
pub(super) struct Scan {
    /// Offset of the line that is not complete yet.
    line_start: u64,
    /// Its first bytes.
    line: Vec<u8>,
    /// Offset of what comes next.
    at: u64,
    /// Reading began within a line, which is passed over.
    skipping: bool,
    /// The alarm that the last complete line opened or belongs to.
    alarm: Option<(u64, String)>,
}

/// An end without a newline.
#[derive(Debug)]
pub(super) struct Torn<'a> {
    /// Where the broken line starts.
    pub(super) start: u64,
    /// The broken line (its first [`LINE_BYTES_MAX`]).
    pub(super) text: &'a [u8],
    /// The alarm it may belong to: where that starts, and its key.
    pub(super) alarm: Option<(u64, &'a str)>,
}

impl Scan {
    pub(super) fn new(start: u64, within_line: bool) -> Self {
        Self {
            line_start: start,
            line: Vec::new(),
            at: start,
            skipping: within_line,
            alarm: None,
        }
    }

    /// Takes the next bytes; `found` is given the key of every alarm.
    pub(super) fn feed(&mut self, bytes: &[u8], mut found: impl FnMut(&str)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.at += part.len() as u64;
            let text = part.strip_suffix(b"\n");
            let kept = text.unwrap_or(part);
            let room = LINE_BYTES_MAX - self.line.len();
            self.line.extend_from_slice(&kept[..kept.len().min(room)]);
            if text.is_some() {
                self.end_line(&mut found);
            }
        }
    }

    fn end_line(&mut self, found: &mut impl FnMut(&str)) {
        if !std::mem::take(&mut self.skipping) {
            let key = key_in_line(&String::from_utf8_lossy(&self.line));
            if let Some(key) = key {
                found(&key);
                self.alarm = Some((self.line_start, key));
            } else if !is_sample(&self.line) {
                self.alarm = None;
            }
        }
        self.line.clear();
        self.line_start = self.at;
    }

    /// Returns the offset up to which lines are complete.
    pub(super) fn complete_to(&self) -> u64 {
        self.line_start
    }

    /// Returns the line without an end, if there is one.
    pub(super) fn torn(&self) -> Option<Torn<'_>> {
        let alarm = self.alarm.as_ref().map(|(at, key)| (*at, key.as_str()));
        (self.at > self.line_start).then_some(Torn {
            start: self.line_start,
            text: &self.line,
            alarm,
        })
    }
}
