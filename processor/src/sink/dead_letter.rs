//! Dead letters: records that were not scored, in topic `log-events.dlq`.
//!
//! A letter is one JSON object, readable with any consumer and without headers:
//!
//! ```json
//! {"topic":"log-events","partition":3,"offset":17,"reason":"not_json","detail":"…",
//!  "payload_bytes":12,"payload_encoding":"utf-8","payload":"not an event"}
//! ```
//!
//! The payload is at most 64 KiB of the record's, as text where it is UTF-8 and in base64 where it
//! is not, secrets masked; `payload_bytes` is the record's own length. Nothing is dropped uncounted: late records above the
//! configured rate are counted and acknowledged without a copy, all others are copied.

use std::{
    borrow::Cow,
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};

use super::{
    Ack, DEAD_LETTER_BYTES_MAX, DeadLetter, SinkError,
    metrics::SinkMetrics,
    producer::{self, Encoded, Outgoing, ProducerSetup},
};
use crate::{decode::RejectReason, redact::Redactor};

/// Letters that wait for the broker before reading pauses; 64 KiB each at most.
pub const LETTERS_QUEUE_MAX: usize = 500;
/// Most bytes of a letter's detail.
const DETAIL_BYTES_MAX: usize = 1024;

/// Settings of the dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetterConfig {
    /// Topic that dead letters go to. Default: `log-events.dlq`.
    pub topic: String,
    /// Late records copied per minute at most; beyond it they are only counted. Default: 600, ten a
    /// second: enough to see what is late, too little to double the traffic when a clock is wrong.
    pub late_per_minute_max: u32,
}

impl Default for DeadLetterConfig {
    fn default() -> Self {
        Self {
            topic: "log-events.dlq".to_owned(),
            late_per_minute_max: 600,
        }
    }
}

/// A letter as it stands in the topic.
#[derive(Debug, Serialize)]
struct Envelope<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    reason: &'static str,
    detail: &'a str,
    payload_bytes: usize,
    payload_encoding: &'static str,
    payload: String,
}

impl Outgoing for DeadLetter {
    fn encode(&self) -> Encoded {
        let detail = &self.rejected.detail;
        let (payload_encoding, payload) = encode_payload(&self.payload);
        let envelope = Envelope {
            topic: &self.partition.topic,
            partition: self.partition.partition,
            offset: self.span.first,
            reason: self.rejected.reason.as_str(),
            detail: detail
                .get(..detail.floor_char_boundary(DETAIL_BYTES_MAX))
                .unwrap_or_default(),
            payload_bytes: self.payload_bytes,
            payload_encoding,
            payload,
        };
        Encoded {
            key: format!("{}/{}", self.partition, self.span.first),
            // Strings and numbers always make JSON.
            payload: serde_json::to_vec(&envelope).unwrap_or_default(),
        }
    }

    fn ack(&self) -> Ack {
        Ack::Letter {
            partition: self.partition.clone(),
            assignment: self.assignment,
            offset: self.span.first,
        }
    }
}

/// Returns the payload's encoding and text.
fn encode_payload(payload: &[u8]) -> (&'static str, String) {
    match std::str::from_utf8(payload) {
        Ok(text) => ("utf-8", text.to_owned()),
        Err(_) => ("base64", STANDARD.encode(payload)),
    }
}

impl DeadLetter {
    /// Masks the secrets in payload and detail, then cuts the payload to its length.
    fn redact(&mut self, redactor: &Redactor) {
        let mut cut = self.payload.len() < self.payload_bytes;
        if let Cow::Owned(payload) = redactor.payload(&self.payload) {
            self.payload = payload;
        }
        if let Cow::Owned(detail) = redactor.text(&self.rejected.detail) {
            self.rejected.detail = detail;
        }
        if self.payload.len() > DEAD_LETTER_BYTES_MAX {
            self.payload.truncate(DEAD_LETTER_BYTES_MAX);
            cut = true;
        }
        // A cut payload may end within a character, which then goes as well.
        if let Err(error) = std::str::from_utf8(&self.payload)
            && cut
            && error.error_len().is_none()
        {
            self.payload.truncate(error.valid_up_to());
        }
    }
}

/// Starts the thread that writes dead letters.
pub(super) fn start(
    setup: ProducerSetup<'_>,
    config: &DeadLetterConfig,
    (metrics, redactor): (&SinkMetrics, Redactor),
) -> Result<(Sender<DeadLetter>, thread::JoinHandle<()>), SinkError> {
    let mut limit = LateLimit::new(config.late_per_minute_max, Instant::now());
    let not_copied = metrics.late_not_copied.clone();
    let admit = move |letter: &mut DeadLetter| {
        let admitted = letter.rejected.reason != RejectReason::Late || limit.admits(Instant::now());
        if !admitted {
            not_copied.inc();
            return false;
        }
        letter.redact(&redactor);
        true
    };
    producer::start(setup, Box::new(admit))
}

/// Lets through a bounded number of late records per minute: a bucket that refills evenly.
#[derive(Debug)]
struct LateLimit {
    per_minute: u32,
    allowance: f64,
    refilled_at: Instant,
}

impl LateLimit {
    fn new(per_minute: u32, now: Instant) -> Self {
        Self {
            per_minute,
            allowance: f64::from(per_minute),
            refilled_at: now,
        }
    }

    /// Returns whether another late record may be copied.
    fn admits(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.refilled_at);
        let full = f64::from(self.per_minute);
        let refill = elapsed.as_secs_f64() / Duration::from_secs(60).as_secs_f64() * full;
        self.allowance = (self.allowance + refill).min(full);
        self.refilled_at = now;
        if self.allowance < 1.0 {
            return false;
        }
        self.allowance -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::{
        decode::Rejected,
        event::{OffsetSpan, TopicPartition},
        redact::RedactionConfig,
    };

    fn letter(payload: &[u8], payload_bytes: usize) -> DeadLetter {
        let mut letter = DeadLetter {
            partition: TopicPartition {
                topic: "log-events".into(),
                partition: 3,
            },
            span: OffsetSpan::of(17),
            rejected: Rejected {
                reason: RejectReason::NotJson,
                detail: "expected value at line 1".to_owned(),
            },
            payload: payload.to_vec(),
            payload_bytes,
            assignment: 1,
        };
        letter.redact(&Redactor::new(&RedactionConfig::default()).unwrap());
        letter
    }

    fn text(letter: &DeadLetter) -> String {
        String::from_utf8(letter.encode().payload).unwrap()
    }

    #[test]
    fn text_is_copied_as_it_is() {
        let letter = letter("naïve \"x\"".as_bytes(), 10);
        assert_eq!(letter.encode().key, "log-events/3/17");
        expect![[r#"{"topic":"log-events","partition":3,"offset":17,"reason":"not_json","detail":"expected value at line 1","payload_bytes":10,"payload_encoding":"utf-8","payload":"naïve \"x\""}"#]]
            .assert_eq(&text(&letter));
    }

    #[test]
    fn bytes_are_copied_in_base64() {
        let shown = text(&letter(&[0xff, 0xfe, b'a'], 3));
        assert!(
            shown.ends_with(r#""payload_encoding":"base64","payload":"//5h"}"#),
            "{shown}"
        );
        // Not cut, so the broken character at the end is the producer's.
        let shown = text(&letter(b"a\xc3", 2));
        assert!(shown.contains("base64"), "{shown}");
    }

    #[test]
    fn secrets_are_masked_in_text_and_in_bytes_before_they_are_cut() {
        let shown = text(&letter(br#"{"message":"password=hunter2"#, 28));
        assert!(shown.contains("password=<password>") && !shown.contains("hunter2"));
        let masked = letter(b"\xff password=hunter2", 18).payload;
        assert_eq!(masked, b"\xff password=<password>");
        let mut long = vec![b' '; DEAD_LETTER_BYTES_MAX - 20];
        long.extend_from_slice(b"postgres://u:hunter2hunter2@db/d and more");
        let cut = letter(&long, 10_000_000).payload;
        assert_eq!(cut.len(), DEAD_LETTER_BYTES_MAX);
        assert!(!String::from_utf8(cut).unwrap().contains("hunter2"));
    }

    #[test]
    fn a_cut_character_does_not_make_text_binary() {
        let shown = text(&letter(b"a\xc3", 3));
        assert!(shown.ends_with(r#""payload_bytes":3,"payload_encoding":"utf-8","payload":"a"}"#));
    }

    #[test]
    fn the_largest_letter_fits_a_broker_with_default_limits() {
        // Control characters take six bytes in JSON: the worst case.
        let letter = letter(&vec![1; 10 * DEAD_LETTER_BYTES_MAX], 10_000_000);
        let bytes = letter.encode().payload.len();
        assert!(bytes < 500_000, "{bytes}");
    }

    #[test]
    fn late_records_are_limited_per_minute() {
        let start = Instant::now();
        let mut limit = LateLimit::new(60, start);
        let burst = (0..100).filter(|_| limit.admits(start)).count();
        assert_eq!(burst, 60);
        let second = start + Duration::from_secs(1);
        assert!(limit.admits(second) && !limit.admits(second));
        assert!(!LateLimit::new(0, start).admits(start));
    }
}
