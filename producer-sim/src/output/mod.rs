//! Events and ground truth as bytes: JSON and CSV lines, plain or compressed files.
//!
//! Nothing here decides what happens or when.

pub mod encode;
pub mod file;
pub mod truth;

use chrono::DateTime;

/// Formats times as RFC 3339 with milliseconds, `2025-12-24T23:44:17.636Z`. Keeps the text of the
/// last second: events come in order, and formatting a date costs more than all the rest of a line.
#[derive(Clone, Debug, Default)]
pub struct Stamp {
    second: Option<i64>,
    text: String,
}

impl Stamp {
    /// Length of `2025-12-24T23:44:17`.
    const SECOND_LEN: usize = 19;

    /// Returns the text of `time_us` (microseconds since the Unix epoch), cut to milliseconds.
    pub fn format(&mut self, time_us: i64) -> &str {
        use std::fmt::Write as _;

        let second = time_us.div_euclid(1_000_000);
        if self.second != Some(second) {
            self.second = Some(second);
            self.text.clear();
            let time = DateTime::from_timestamp(second, 0).unwrap_or_default();
            // Writing into a `String` cannot fail.
            write!(self.text, "{}", time.format("%Y-%m-%dT%H:%M:%S")).unwrap_or_default();
        }
        self.text.truncate(Self::SECOND_LEN);
        let millis = time_us.rem_euclid(1_000_000) / 1_000;
        write!(self.text, ".{millis:03}Z").unwrap_or_default();
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_to_milliseconds() {
        let mut stamp = Stamp::default();
        assert_eq!(
            stamp.format(1_766_619_857_636_972),
            "2025-12-24T23:44:17.636Z"
        );
        assert_eq!(
            stamp.format(1_766_619_857_999_999),
            "2025-12-24T23:44:17.999Z"
        );
        assert_eq!(
            stamp.format(1_766_619_858_000_000),
            "2025-12-24T23:44:18.000Z"
        );
        assert_eq!(stamp.format(-1), "1969-12-31T23:59:59.999Z");
    }
}
