//! The metadata string of a committed offset, to and from [`CommitMetadata`].
//!
//! `{"v":1,"w":30000,"t":1766620000000,"d":1766619990000}`: version, window length (and `"s":true`
//! where services have windows of their own), largest event time before the offset, start of the
//! last window such that it and all before it are done; while windows lack lines also `"p"`, the
//! start of the last such window, or `"f":true` until the first record decides which; while the clock
//! has moved the watermark beyond the offset, `"i"`: the move's offset, time and last window. Whatever is
//! not exactly that is not ours: it decodes to `None`, never to a guess, and never panics.

use serde::{Deserialize, Serialize};

use super::{CommitMetadata, IdleMark};
use crate::event::{EventTime, NextOffset, Partial, WindowGrid};

/// Version written, and the only one read.
const VERSION: u32 = 1;

/// Most bytes of metadata worth looking at: brokers store no more by default
/// (`offset.metadata.max.bytes`).
const METADATA_BYTES_MAX: usize = 4096;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    v: u32,
    w: i64,
    #[serde(default, skip_serializing_if = "is_false")]
    s: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    t: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    p: Option<i64>,
    #[serde(default, skip_serializing_if = "is_false")]
    f: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    i: Option<(i64, i64, i64)>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl CommitMetadata {
    /// Returns the string to commit, well below 200 bytes.
    #[must_use]
    pub fn encode(&self) -> String {
        let wire = Wire {
            v: VERSION,
            w: self.grid.length_ms,
            s: self.grid.by_service,
            t: self.max_event_time.map(EventTime::as_millis),
            d: self.done_through.map(EventTime::as_millis),
            p: match self.partial {
                Partial::Through(start) => Some(start.as_millis()),
                Partial::No | Partial::FromFirstRecord => None,
            },
            f: self.partial == Partial::FromFirstRecord,
            i: self.idle.map(|mark| {
                let (time, through) = (mark.time.as_millis(), mark.through.as_millis());
                (mark.from.0, time, through)
            }),
        };
        // Numbers and flags always serialise; an empty string would read back as "not ours".
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// Returns what `bytes` say, or `None` if they are not what [`encode`](Self::encode) writes.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > METADATA_BYTES_MAX {
            return None;
        }
        let wire: Wire = serde_json::from_slice(bytes).ok()?;
        if wire.v != VERSION || wire.w <= 0 {
            return None;
        }
        let time = |millis: Option<i64>| match millis {
            Some(millis) => EventTime::from_millis(millis).map(Some),
            None => Some(None),
        };
        let partial = match (wire.f, time(wire.p)?) {
            (false, None) => Partial::No,
            (false, Some(start)) => Partial::Through(start),
            (true, None) => Partial::FromFirstRecord,
            (true, Some(_)) => return None,
        };
        let idle = match wire.i {
            None => None,
            Some((from, time, through)) => Some(IdleMark {
                from: NextOffset(from),
                time: EventTime::from_millis(time)?,
                through: EventTime::from_millis(through)?,
            }),
        };
        Some(Self {
            grid: WindowGrid {
                length_ms: wire.w,
                by_service: wire.s,
            },
            max_event_time: time(wire.t)?,
            done_through: time(wire.d)?,
            partial,
            idle,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRID: WindowGrid = WindowGrid {
        length_ms: 30_000,
        by_service: false,
    };
    const MILLIS: std::ops::Range<i64> = -62_135_596_800_000..253_402_300_800_000;

    #[test]
    fn the_written_form_stays() {
        let metadata = CommitMetadata {
            max_event_time: EventTime::from_millis(1_766_620_000_000),
            done_through: EventTime::from_millis(1_766_619_990_000),
            ..CommitMetadata::nothing_done(GRID)
        };
        let text = r#"{"v":1,"w":30000,"t":1766620000000,"d":1766619990000}"#;
        assert_eq!(metadata.encode(), text);
        let mut fresh = CommitMetadata::nothing_done(GRID);
        assert_eq!(fresh.encode(), r#"{"v":1,"w":30000}"#);
        fresh.partial = Partial::FromFirstRecord;
        fresh.grid.by_service = true;
        assert_eq!(fresh.encode(), r#"{"v":1,"w":30000,"s":true,"f":true}"#);
        let mut idle = CommitMetadata::nothing_done(GRID);
        idle.idle = EventTime::from_millis(32_000).map(|time| IdleMark {
            from: NextOffset(7),
            time,
            through: EventTime::default(),
        });
        assert_eq!(idle.encode(), r#"{"v":1,"w":30000,"i":[7,32000,0]}"#);
    }

    #[test]
    fn what_is_not_ours_is_nothing() {
        for bytes in [
            &b""[..],
            b"{}",
            b"null",
            b"offset reset by an operator",
            br#"{"v":1,"t":1}"#,
            br#"{"v":1,"w":0,"t":1}"#,
            br#"{"v":2,"w":30000,"t":1}"#,
            br#"{"v":1,"w":30000,"t":"1"}"#,
            br#"{"v":1,"w":30000,"t":9223372036854775807}"#,
            br#"{"v":1,"w":30000,"x":1}"#,
            br#"{"v":1,"w":30000,"p":1,"f":true}"#,
            br#"{"v":1,"w":30000,"i":[1,2]}"#,
            br#"{"v":1,"w":30000,"i":[1,9223372036854775807,0]}"#,
            b"\xff\xfe\x00",
            &[b' '; METADATA_BYTES_MAX + 1],
        ] {
            assert_eq!(CommitMetadata::decode(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(
            max in prop::option::of(MILLIS),
            done in prop::option::of(MILLIS),
            partial in prop::option::of(MILLIS),
            idle in prop::option::of((any::<i64>(), MILLIS, MILLIS)),
            by_service: bool,
        ) {
            let through = partial.and_then(EventTime::from_millis);
            let metadata = CommitMetadata {
                grid: WindowGrid { by_service, ..GRID },
                max_event_time: max.and_then(EventTime::from_millis),
                done_through: done.and_then(EventTime::from_millis),
                partial: through.map_or(Partial::FromFirstRecord, Partial::Through),
                idle: idle.and_then(|(from, time, through)| Some(IdleMark {
                    from: NextOffset(from),
                    time: EventTime::from_millis(time)?,
                    through: EventTime::from_millis(through)?,
                })),
            };
            prop_assert_eq!(CommitMetadata::decode(metadata.encode().as_bytes()), Some(metadata));
        }

        #[test]
        fn any_bytes_decode_to_something_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(metadata) = CommitMetadata::decode(&bytes) {
                prop_assert_eq!(CommitMetadata::decode(metadata.encode().as_bytes()), Some(metadata));
            }
        }
    }
}
