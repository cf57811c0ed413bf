//! Random logs of a partition: lines that mostly move forward, with late ones, jumps over gaps, and
//! garbage.

#![allow(dead_code, reason = "each test binary uses its own part")]

use logguard::source::RawRecord;
use proptest::prelude::*;

use crate::model::{MESSAGES, SERVICES};

/// Returns a payload as the record at `offset`.
pub(crate) fn record(offset: i64, payload: &str) -> RawRecord<'_> {
    RawRecord {
        offset,
        record_time: None,
        payload: Some(payload.as_bytes()),
    }
}

/// A log, one payload per offset.
pub(crate) fn log() -> impl Strategy<Value = Vec<String>> {
    let line = (
        0_i64..6_000,
        0_i64..50,
        0_usize..3,
        0_usize..5,
        (0_u8..40, 0_i64..4_000),
    );
    prop::collection::vec(line, 50..400).prop_map(|lines| {
        let mut time = 1_000_000_000_000;
        let mut log = Vec::new();
        for (step, kind, service, message, (odd, back)) in lines {
            time += match kind {
                0 => step * 60,
                1 => step * 600,
                _ => step,
            };
            // Half the lines are out of order, some beyond the lateness of 2 s, a few by far.
            let time = match odd {
                0 => time - 45_000,
                1..=20 => time - back,
                _ => time,
            };
            let (service, message) = (SERVICES[service], MESSAGES[message]);
            log.push(if odd == 21 {
                "garbage".to_owned()
            } else {
                format!(
                    r#"{{"timestamp":{time},"level":"INFO","service":"{service}","message":"{message}"}}"#
                )
            });
        }
        log
    })
}
