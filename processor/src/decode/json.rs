//! JSON payload to [`LogEvent`], borrowing text from the payload wherever JSON allows it.
//!
//! Lenient where producers differ harmlessly (a numeric timestamp, a boolean label, a level in
//! another case), strict where a guess would change a result (no message, an unreadable time).

use std::{borrow::Cow, fmt, marker::PhantomData};

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};
use serde_json::value::RawValue;

use super::{RejectReason, Rejected};
use crate::event::{Deploy, EventTime, Level, LogEvent};

/// Longest payload decoded, in bytes. Brokers refuse more by default; a line that long is a dump,
/// not a log line.
pub const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Longest service name kept, in bytes; longer ones are cut. Names ride in every row key.
pub const SERVICE_BYTES_MAX: usize = 256;

/// The event as it stands in JSON; unknown fields are ignored.
#[derive(Deserialize)]
struct EventJson<'a> {
    #[serde(borrow, default)]
    timestamp: Scalar<'a>,
    #[serde(borrow, default)]
    level: Scalar<'a>,
    #[serde(borrow, default)]
    service: Scalar<'a>,
    #[serde(borrow, default)]
    message: Scalar<'a>,
    #[serde(borrow, default)]
    is_anomaly: Scalar<'a>,
    /// Raw, since other programs may mean something of any shape by these two names.
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    #[serde(borrow, default)]
    version: Option<&'a RawValue>,
}

/// A record decoded: a line, and what else it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The line, which counts like any other.
    pub event: LogEvent<'a>,
    /// The deploy that a line with `"event":"deploy"`, a service and a version tells of.
    pub deploy: Option<Deploy>,
}

/// Returns the event in `payload`; `record_time` stands in for a missing timestamp.
///
/// # Errors
/// Returns what is wrong with the record, for the dead-letter topic.
pub fn decode(
    payload: Option<&[u8]>,
    record_time: Option<EventTime>,
) -> Result<LogEvent<'_>, Rejected> {
    decode_record(payload, record_time).map(|decoded| decoded.event)
}

/// Returns all that `payload` tells; `record_time` stands in for a missing timestamp.
///
/// # Errors
/// As [`decode`].
pub fn decode_record(
    payload: Option<&[u8]>,
    record_time: Option<EventTime>,
) -> Result<Decoded<'_>, Rejected> {
    let payload = payload.ok_or_else(|| reject(RejectReason::Tombstone, ""))?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        let detail = format!(
            "{} bytes, at most {PAYLOAD_BYTES_MAX} are decoded",
            payload.len()
        );
        return Err(reject(RejectReason::TooLarge, detail));
    }
    let event = event_json(payload).map_err(|error| match std::str::from_utf8(payload) {
        Err(utf8) => reject(RejectReason::NotUtf8, utf8.to_string()),
        Ok(_) => reject(RejectReason::NotJson, error.to_string()),
    })?;
    let message = event.message.into_text();
    let message = message.ok_or_else(|| reject(RejectReason::NoMessage, ""))?;
    let (kind, version) = (event.event, event.version);
    let event = LogEvent {
        time: event_time(event.timestamp, record_time)?,
        level: level(event.level),
        service: event
            .service
            .into_text()
            .map(service_name)
            .unwrap_or_default(),
        message,
        label: label(event.is_anomaly),
    };
    Ok(Decoded {
        deploy: deploy(&event, kind, version),
        event,
    })
}

/// The deploy that a line tells of. One without a service or a version is a line and no more.
fn deploy(
    event: &LogEvent<'_>,
    kind: Option<&RawValue>,
    version: Option<&RawValue>,
) -> Option<Deploy> {
    if kind?.get() != r#""deploy""# {
        return None;
    }
    let version = serde_json::from_str::<Scalar<'_>>(version?.get()).ok()?;
    // A version stands in a row key as a service's name does: as short, and without NUL.
    let version = service_name(version.into_text()?);
    let named = !event.service.is_empty() && !version.is_empty();
    named.then(|| Deploy {
        service: event.service.clone().into_owned(),
        version: version.into_owned(),
        at: event.time,
    })
}

fn event_json(payload: &[u8]) -> serde_json::Result<EventJson<'_>> {
    // Serde would take an array for a structure, its items for the fields in their order.
    if payload.trim_ascii_start().first() == Some(&b'[') {
        return Err(de::Error::custom("an array, expected an object"));
    }
    // Checked as a whole it need not be checked text by text. What is no UTF-8 may still be an event, if
    // that is in a member nobody asks for.
    match std::str::from_utf8(payload) {
        Ok(payload) => serde_json::from_str(payload),
        Err(_) => serde_json::from_slice(payload),
    }
}

fn reject(reason: RejectReason, detail: impl Into<String>) -> Rejected {
    Rejected {
        reason,
        detail: detail.into(),
    }
}

fn event_time(
    timestamp: Scalar<'_>,
    record_time: Option<EventTime>,
) -> Result<EventTime, Rejected> {
    let (time, shown) = match timestamp {
        Scalar::Null => {
            return record_time.ok_or_else(|| reject(RejectReason::NoTimestamp, ""));
        }
        Scalar::Text(text) => (parse_timestamp(&text), text.into_owned()),
        Scalar::Integer(number) => (from_epoch(number), number.to_string()),
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the cast saturates, from_millis checks"
        )]
        Scalar::Float(seconds) => (
            EventTime::from_millis((seconds * 1e3) as i64),
            seconds.to_string(),
        ),
        Scalar::Bool(value) => (None, value.to_string()),
    };
    time.ok_or_else(|| {
        let shown: String = shown.chars().take(64).collect();
        reject(
            RejectReason::BadTimestamp,
            format!("`{shown}` is in no known format"),
        )
    })
}

/// A level that is missing or not known counts as `INFO`: the line is worth more than its level.
fn level(level: Scalar<'_>) -> Level {
    level
        .into_text()
        .and_then(|name| name.trim().parse().ok())
        .unwrap_or(Level::Info)
}

/// Returns a service's name as it may stand in row keys: short enough, and without NUL, which
/// PostgreSQL refuses.
#[must_use]
pub fn service_name(name: Cow<'_, str>) -> Cow<'_, str> {
    let name = if name.contains('\0') {
        name.replace('\0', "\u{fffd}").into()
    } else {
        name
    };
    if name.len() <= SERVICE_BYTES_MAX {
        return name;
    }
    let end = name.floor_char_boundary(SERVICE_BYTES_MAX);
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(name.split_at(end).0),
        Cow::Owned(mut name) => {
            name.truncate(end);
            Cow::Owned(name)
        }
    }
}

fn label(label: Scalar<'_>) -> Option<bool> {
    match label {
        Scalar::Bool(value) => Some(value),
        Scalar::Integer(value) => Some(value != 0),
        Scalar::Float(value) => Some(value != 0.0),
        Scalar::Text(text) => parse_label(&text),
        Scalar::Null => None,
    }
}

/// Returns the label that `text` gives: `0`/`1`, `true`/`false`, or a number; `None` for anything
/// else, so that a line without a readable label counts as unlabelled.
#[must_use]
pub fn parse_label(text: &str) -> Option<bool> {
    let text = text.trim();
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => text
            .parse::<f64>()
            .ok()
            .filter(|value| value.is_finite())
            .map(|value| value != 0.0),
    }
}

/// Returns the time that `text` gives, or `None` if it is in no known format.
///
/// Known: RFC 3339; the same without a zone (taken for UTC), with a space for the `T`, with a
/// comma before the fraction; and Unix time in seconds, milliseconds, microseconds or nanoseconds,
/// told apart by magnitude. Fractions of a millisecond are dropped.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<EventTime> {
    const WITHOUT_ZONE: [&str; 3] = [
        "%Y-%m-%dT%H:%M:%S%.f",
        "%Y-%m-%d %H:%M:%S%.f",
        "%Y-%m-%d %H:%M:%S,%3f",
    ];
    if let Some(time) = utc_with_milliseconds(text) {
        return Some(time);
    }
    let text = text.trim();
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return EventTime::from_millis(time.timestamp_millis());
    }
    if let Ok(number) = text.parse::<i64>() {
        return from_epoch(number);
    }
    if let Ok(time) = DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z") {
        return EventTime::from_millis(time.timestamp_millis());
    }
    WITHOUT_ZONE
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .and_then(|time| EventTime::from_millis(time.and_utc().timestamp_millis()))
}

/// Returns the time that `YYYY-MM-DDTHH:MM:SS.mmmZ` gives, which is how most lines have it and
/// many times faster to read than any format. `None` for anything else, valid or not.
fn utc_with_milliseconds(text: &str) -> Option<EventTime> {
    const FORM: &[u8; 24] = b"0000-00-00T00:00:00.000Z";
    let bytes: &[u8; 24] = text.as_bytes().try_into().ok()?;
    let fits = bytes.iter().zip(FORM).all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        mark => byte == mark,
    });
    let number = |from: usize, to: usize| {
        let digits = bytes.iter().skip(from).take(to - from);
        digits.fold(0_u16, |number, digit| number * 10 + u16::from(digit & 0x0f))
    };
    let two = |from| u32::from(number(from, from + 2));
    // A leap second is left to the general parser.
    let date = NaiveDate::from_ymd_opt(number(0, 4).into(), two(5), two(8)).filter(|_| fits)?;
    let time = NaiveTime::from_hms_milli_opt(two(11), two(14), two(17), number(20, 23).into())?;
    EventTime::from_millis(date.and_time(time).and_utc().timestamp_millis())
}

/// Returns the time of a Unix time whose unit is told by its magnitude: a number of seconds is
/// below 10^11 until the year 5138, one of milliseconds below 10^14, one of microseconds below
/// 10^17. `None` outside the years 1 to 9999.
#[must_use]
pub fn from_epoch(number: i64) -> Option<EventTime> {
    EventTime::from_millis(match number.unsigned_abs() {
        0..100_000_000_000 => number * 1_000,
        100_000_000_000..100_000_000_000_000 => number,
        100_000_000_000_000..100_000_000_000_000_000 => number.div_euclid(1_000),
        _ => number.div_euclid(1_000_000),
    })
}

/// A JSON value that is not an object or array; what is missing counts as `null`.
#[derive(Default)]
enum Scalar<'a> {
    #[default]
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Cow<'a, str>),
}

impl<'a> Scalar<'a> {
    fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Null => None,
            Self::Bool(value) => Some(Cow::Owned(value.to_string())),
            Self::Integer(value) => Some(Cow::Owned(value.to_string())),
            Self::Float(value) => Some(Cow::Owned(value.to_string())),
            Self::Text(text) => Some(text),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor(PhantomData))
    }
}

struct ScalarVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for ScalarVisitor<'a> {
    type Value = Scalar<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number, a boolean or null")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Integer(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Integer(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Float(value))
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(payload: &[u8]) -> RejectReason {
        decode(Some(payload), None)
            .expect_err("must be rejected")
            .reason
    }

    fn time_of(text: &str) -> Option<String> {
        parse_timestamp(text).map(|time| time.to_string())
    }

    #[test]
    fn the_contract_event_is_decoded_without_copies() {
        let payload = br#"{"timestamp":"2025-12-24T23:44:17.636Z","level":"WARN","service":"auth",
            "message":"hello","is_anomaly":1,"extra":{"a":[1,2]}}"#;
        let event = decode(Some(payload), None).unwrap();
        assert_eq!(event.time.to_string(), "2025-12-24T23:44:17.636Z");
        assert_eq!(event.level, Level::Warn);
        assert!(matches!(event.service, Cow::Borrowed("auth")));
        assert!(matches!(event.message, Cow::Borrowed("hello")));
        assert_eq!(event.label, Some(true));
    }

    #[test]
    fn timestamps_are_read_in_many_formats() {
        let expected = Some("2025-12-24T23:44:17.636Z".to_owned());
        for text in [
            "2025-12-24T23:44:17.636Z",
            "2025-12-24T23:44:17.636972Z",
            "2025-12-25T00:44:17.636+01:00",
            "2025-12-25T00:44:17.636+0100",
            "2025-12-24 23:44:17.636",
            "2025-12-24T23:44:17.636",
            "2025-12-24 23:44:17,636",
            "1766619857636",
            "1766619857636972",
            "1766619857636972123",
        ] {
            assert_eq!(time_of(text), expected, "{text}");
        }
        assert_eq!(
            time_of("1766619857"),
            Some("2025-12-24T23:44:17.000Z".to_owned())
        );
        for text in [
            "",
            "yesterday",
            "2025-13-01T00:00:00Z",
            "99999999999999999999",
        ] {
            assert_eq!(time_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_missing_timestamp_takes_the_record_time() {
        let record_time = EventTime::from_millis(5_000);
        let event = decode(Some(br#"{"message":"x"}"#), record_time).unwrap();
        assert_eq!(Some(event.time), record_time);
        assert_eq!(event.level, Level::Info);
        assert_eq!(event.service, "");
        assert_eq!(event.label, None);
        assert_eq!(reason(br#"{"message":"x"}"#), RejectReason::NoTimestamp);
    }

    #[test]
    fn defects_are_told_apart() {
        assert_eq!(
            decode(None, None).unwrap_err().reason,
            RejectReason::Tombstone
        );
        assert_eq!(reason(b"plain text"), RejectReason::NotJson);
        assert_eq!(reason(b" []"), RejectReason::NotJson);
        assert_eq!(
            reason(br#"[1766619857636,"ERROR","auth","fields without names",0]"#),
            RejectReason::NotJson
        );
        assert_eq!(
            reason(b"{\"message\":\"\xff\",\"timestamp\":1}"),
            RejectReason::NotUtf8
        );
        assert_eq!(reason(br#"{"timestamp":1}"#), RejectReason::NoMessage);
        assert_eq!(
            reason(br#"{"timestamp":1,"message":null}"#),
            RejectReason::NoMessage
        );
        assert_eq!(
            reason(br#"{"timestamp":1,"message":{"a":1}}"#),
            RejectReason::NotJson
        );
        assert_eq!(
            reason(br#"{"timestamp":"soon","message":"x"}"#),
            RejectReason::BadTimestamp
        );
        assert_eq!(
            reason(&vec![b' '; PAYLOAD_BYTES_MAX + 1]),
            RejectReason::TooLarge
        );
        let bomb = format!(
            r#"{{"timestamp":1,"message":"x","z":{}"#,
            "[".repeat(500_000)
        );
        assert_eq!(reason(bomb.as_bytes()), RejectReason::NotJson);
    }

    #[test]
    fn a_line_that_says_so_tells_of_a_deploy() {
        let deploy = |fields: &str| {
            let payload = format!(r#"{{"timestamp":5,"message":"m",{fields}}}"#);
            let decoded = decode_record(Some(payload.as_bytes()), None).unwrap();
            assert_eq!(decoded.event.message, "m", "it counts as a line");
            decoded.deploy.map(|it| (it.service, it.version, it.at))
        };
        let at = EventTime::from_millis(5_000).unwrap();
        let told = |version: &str| Some(("auth".to_owned(), version.to_owned(), at));
        assert_eq!(
            deploy(r#""event":"deploy","service":"auth","version":"1.4.0""#),
            told("1.4.0")
        );
        assert_eq!(
            deploy(r#""version":17,"service":"auth","event":"deploy""#),
            told("17")
        );
        for fields in [
            r#""service":"auth","version":"1.4.0""#,
            r#""event":"login","service":"auth","version":"1""#,
            r#""event":"deploy","version":"1.4.0""#,
            r#""event":"deploy","service":"auth""#,
            r#""event":"deploy","service":"auth","version":null"#,
            r#""event":"deploy","service":"auth","version":"""#,
            r#""event":"deploy","service":"auth","version":{"major":1}"#,
            r#""event":{"deploy":[1]},"service":"auth","version":["1"]"#,
            r#""event":null,"service":"auth","version":"1""#,
        ] {
            assert_eq!(deploy(fields), None, "{fields}");
        }
    }

    #[test]
    fn long_service_names_are_cut_at_a_character() {
        let payload = format!(
            r#"{{"timestamp":1,"message":"x","service":"{}"}}"#,
            "é".repeat(200)
        );
        let event = decode(Some(payload.as_bytes()), None).unwrap();
        assert_eq!(event.service.len(), SERVICE_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn the_usual_form_of_a_timestamp_means_what_it_means_to_chrono(
            date in (0_u32..10_000, 0_u32..15, 0_u32..35),
            time in (0_u32..26, 0_u32..62, 0_u32..63, 0_u32..1_000),
        ) {
            let ((year, month, day), (hour, minute, second, milli)) = (date, time);
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z");
            let expected = DateTime::parse_from_rfc3339(&text).ok();
            let expected = expected.and_then(|time| EventTime::from_millis(time.timestamp_millis()));
            prop_assert_eq!(parse_timestamp(&text), expected);
            prop_assert_eq!(utc_with_milliseconds(&text).is_some(), expected.is_some() && second < 60);
        }

        #[test]
        fn arbitrary_bytes_never_panic(payload: Vec<u8>) {
            drop(decode(Some(&payload), EventTime::from_millis(0)));
        }

        #[test]
        fn arbitrary_timestamps_never_panic(text: String, number: i64) {
            for time in [parse_timestamp(&text), from_epoch(number)].into_iter().flatten() {
                prop_assert_eq!(EventTime::from_millis(time.as_millis()), Some(time));
            }
        }
    }
}
