//! Every kind of bad record there is a promise about, with what has to become of it.
//!
//! Each kind gets a window of its own. Where it is counted, its time lies in that window; where it
//! speaks of an error it is the window's first, so that its text is what an alarm shows.

use super::shapes::{At, Sent, event, forged_alarm, with};
use chrono::SecondsFormat;

/// What has to become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is a line of its window.
    Counted,
    /// It is a dead letter with this reason.
    Letter(&'static str),
    /// Nobody gets to see it.
    Unread,
}

use Outcome::{Counted, Letter, Unread};

/// A kind of record.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) build: fn(&At) -> Vec<Sent>,
}

const NOT_JSON: Outcome = Letter("not_json");
const NOT_UTF8: Outcome = Letter("not_utf8");
const TOO_LARGE: Outcome = Letter("too_large");
const BAD_TIME: Outcome = Letter("bad_timestamp");
/// Longest payload that is decoded.
const DECODED_BYTES_MAX: usize = 1024 * 1024;
const TEN_MB: usize = 10_000_000;

macro_rules! kinds {
    ($($name:literal, $outcome:expr, $build:expr;)+) => {
        &[$(Kind { name: $name, outcome: $outcome, build: $build }),+]
    };
}

/// Everything, group by group.
pub(crate) fn kinds() -> impl Iterator<Item = &'static Kind> {
    let groups = [SHAPES, ENCODINGS, FIELDS, TIMES, BOMBS, FORGERIES, BROKER];
    groups.into_iter().flatten()
}

fn raw(payload: impl Into<Vec<u8>>) -> Vec<Sent> {
    vec![Sent::of(payload)]
}

/// Not JSON, or not an object.
const SHAPES: &[Kind] = kinds! {
    "tombstone", Letter("tombstone"), |_| vec![Sent::tombstone()];
    "empty payload", NOT_JSON, |_| raw("");
    "blank payload", NOT_JSON, |_| raw(" \t\r\n");
    "plain text", NOT_JSON, |_| raw("2025-12-24 23:44:17 ERROR out of memory");
    "a string", NOT_JSON, |_| raw(r#""out of memory""#);
    "a number", NOT_JSON, |_| raw("17");
    "null", NOT_JSON, |_| raw("null");
    "true", NOT_JSON, |_| raw("true");
    "an empty array", NOT_JSON, |_| raw("[]");
    "fields in an array", NOT_JSON, |at| raw(format!(r#"["{}","ERROR","s","m",0]"#, at.iso()));
    "an event in an array", NOT_JSON, |at| raw(format!("[{}]", event(at)));
    "an empty object", Letter("no_message"), |_| raw("{}");
    "cut in half", NOT_JSON, |at| raw(&event(at).as_bytes()[..40]);
    "cut within an escape", NOT_JSON, |_| raw(r#"{"message":"a\u00"#);
    "cut within a character", NOT_UTF8, |_| raw(&"{\"message\":\"é".as_bytes()[..13]);
    "text after the event", NOT_JSON, |at| raw(format!("{} x", event(at)));
    "two events", NOT_JSON, |at| raw(format!("{}\n{}", event(at), event(at)));
    "a line feed after the event", Counted, |at| raw(format!("{}\r\n", event(at)));
    "a NUL after the event", NOT_JSON, |at| raw(format!("{}\0", event(at)));
    "NUL bytes", NOT_JSON, |_| raw(vec![0; 64]);
    "single quotes", NOT_JSON, |_| raw("{'message':'x'}");
    "a trailing comma", NOT_JSON, |_| raw(r#"{"message":"x",}"#);
    "a comment", NOT_JSON, |_| raw("{\"message\":\"x\" /* y */}");
    "a bare key", NOT_JSON, |_| raw(r#"{message:"x"}"#);
    "NaN", NOT_JSON, |at| raw(with(at, "timestamp", "NaN"));
    "Infinity", NOT_JSON, |at| raw(with(at, "other", "-Infinity"));
    "a number beyond floats", NOT_JSON, |at| raw(with(at, "timestamp", "1e999"));
    "a leading zero", NOT_JSON, |at| raw(with(at, "timestamp", "017"));
    "a raw line feed in a string", NOT_JSON, |at| raw(with(at, "message", "\"a\nb\""));
    "a raw NUL in a string", NOT_JSON, |at| raw(with(at, "message", "\"a\0b\""));
    "an unknown escape", NOT_JSON, |at| raw(with(at, "message", r#""\x41""#));
    "the message twice", NOT_JSON, |at| raw(event(at).replace('{', r#"{"message":"y","#));
    "an unknown field twice", Counted, |at| raw(event(at).replace('{', r#"{"x":1,"x":2,"#));
    "gzip", NOT_UTF8, |_| raw(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xabV*\xc8".as_slice());
    "zstd", NOT_UTF8, |_| raw(b"\x28\xb5\x2f\xfd\x04\x58\x11\x00\x00{}".as_slice());
    "avro with a schema id", NOT_JSON, |_| raw(b"\x00\x00\x00\x00\x07\x0aERROR".as_slice());
};

/// Bytes that are no UTF-8, and text that looks like it.
const ENCODINGS: &[Kind] = kinds! {
    "a lone continuation byte", NOT_UTF8, |at| raw(bytes_in_message(at, b"\x80"));
    "an overlong slash", NOT_UTF8, |at| raw(bytes_in_message(at, b"\xc0\xaf"));
    "an encoded surrogate", NOT_UTF8, |at| raw(bytes_in_message(at, b"\xed\xa0\x80"));
    "beyond the last character", NOT_UTF8, |at| raw(bytes_in_message(at, b"\xf4\x90\x80\x80"));
    "a cut emoji", NOT_UTF8, |at| raw(bytes_in_message(at, b"\xf0\x9f\x98"));
    "Latin-1", NOT_UTF8, |at| raw(bytes_in_message(at, b"caf\xe9"));
    "the byte 0xff", NOT_UTF8, |at| raw(bytes_in_message(at, b"\xff"));
    "UTF-16 with its mark", NOT_UTF8, |at| raw(utf16(at, b"\xff\xfe"));
    "UTF-16 without a mark", NOT_JSON, |at| raw(utf16(at, b""));
    "a byte order mark", NOT_JSON, |at| raw(format!("\u{feff}{}", event(at)));
    "a lone surrogate", NOT_JSON, |at| raw(with(at, "message", r#""a\ud800b""#));
    "a surrogate pair", Counted, |at| raw(with(at, "message", r#""a\ud83d\ude00b""#));
    "an escaped NUL", Counted, |at| raw(with(at, "message", r#""a\u0000b""#));
    "a NUL in a name", Counted, |at| raw(with(at, "a\\u0000b", "1"));
};

fn bytes_in_message(at: &At, bytes: &[u8]) -> Vec<u8> {
    let event = event(at);
    let (head, tail) = event.split_once("poison").unwrap();
    [head.as_bytes(), bytes, tail.as_bytes()].concat()
}

fn utf16(at: &At, mark: &[u8]) -> Vec<u8> {
    let units = event(at).encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    [mark, &units].concat()
}

/// Fields that are missing or of another type.
const FIELDS: &[Kind] = kinds! {
    "no message", Letter("no_message"), |at| raw(with(at, "message", ""));
    "a null message", Letter("no_message"), |at| raw(with(at, "message", "null"));
    "an upper-case name", Letter("no_message"), |at| raw(event(at).replace("\"message", "\"Message"));
    "an empty message", Counted, |at| raw(with(at, "message", r#""""#));
    "a numeric message", Counted, |at| raw(with(at, "message", "17"));
    "a true message", Counted, |at| raw(with(at, "message", "true"));
    "an object for a message", NOT_JSON, |at| raw(with(at, "message", r#"{"text":"x"}"#));
    "an array for a message", NOT_JSON, |at| raw(with(at, "message", r#"["x"]"#));
    "no service", Counted, |at| raw(with(at, "service", ""));
    "a null service", Counted, |at| raw(with(at, "service", "null"));
    "a numeric service", Counted, |at| raw(with(at, "service", "-0.5e-7"));
    "an object for a service", NOT_JSON, |at| raw(with(at, "service", r#"{"name":"x"}"#));
    "an array for a service", NOT_JSON, |at| raw(with(at, "service", "[]"));
    "an endless service", Counted, |at| raw(with(at, "service", &quoted(&"é".repeat(100_000))));
    "a NUL in the service", Counted, |at| raw(with(at, "service", r#""a\u0000b""#));
    "the name of the rest", Counted, |at| raw(with(at, "service", r#""(other)""#));
    "slashes in the service", Counted, |at| raw(with(at, "service", r#""../0/x""#));
    "no level", Counted, |at| raw(with(at, "level", ""));
    "a null level", Counted, |at| raw(with(at, "level", "null"));
    "an unknown level", Counted, |at| raw(with(at, "level", r#""LOUD""#));
    "a numeric level", Counted, |at| raw(with(at, "level", "3"));
    "an object for a level", NOT_JSON, |at| raw(with(at, "level", "{}"));
    "a label that is text", Counted, |at| raw(with(at, "is_anomaly", r#""maybe""#));
    "a label that is NaN", Counted, |at| raw(with(at, "is_anomaly", r#""NaN""#));
    "a negative label", Counted, |at| raw(with(at, "is_anomaly", "-7"));
    "a label beyond integers", Counted, |at| raw(with(at, "is_anomaly", "1e300"));
    "an array for a label", NOT_JSON, |at| raw(with(at, "is_anomaly", "[1]"));
};

/// Times in every format read, in others, in none, and out of range.
const TIMES: &[Kind] = kinds! {
    "time: RFC 3339", Counted, |at| raw(timed(at, &at.time().to_rfc3339_opts(SecondsFormat::Nanos, true)));
    "time: an offset", Counted, |at| raw(timed(at, &at.east("%Y-%m-%dT%H:%M:%S%.3f%:z")));
    "time: a compact offset", Counted, |at| raw(timed(at, &at.east("%Y-%m-%dT%H:%M:%S%.3f%z")));
    "time: no zone", Counted, |at| raw(timed(at, &at.text("%Y-%m-%dT%H:%M:%S%.6f")));
    "time: a space", Counted, |at| raw(timed(at, &at.text("%Y-%m-%d %H:%M:%S")));
    "time: a comma", Counted, |at| raw(timed(at, &at.text("%Y-%m-%d %H:%M:%S,%3f")));
    "time: seconds", Counted, |at| raw(with(at, "timestamp", &(at.ms() / 1_000).to_string()));
    "time: milliseconds", Counted, |at| raw(with(at, "timestamp", &at.ms().to_string()));
    "time: microseconds", Counted, |at| raw(with(at, "timestamp", &(at.ms() * 1_000).to_string()));
    "time: nanoseconds", Counted, |at| raw(with(at, "timestamp", &(at.ms() * 1_000_000).to_string()));
    "time: broken seconds", Counted, |at| raw(with(at, "timestamp", &format!("{}.25", at.ms() / 1_000)));
    "time: digits in a string", Counted, |at| raw(timed(at, &at.ms().to_string()));
    "time: none", Counted, |at| raw(with(at, "timestamp", ""));
    "time: null", Counted, |at| raw(with(at, "timestamp", "null"));
    "time: empty", BAD_TIME, |at| raw(timed(at, ""));
    "time: words", BAD_TIME, |at| raw(timed(at, "yesterday"));
    "time: syslog", BAD_TIME, |at| raw(timed(at, &at.text("%b %d %H:%M:%S")));
    "time: RFC 2822", BAD_TIME, |at| raw(timed(at, &at.time().to_rfc2822()));
    "time: month 13", BAD_TIME, |at| raw(timed(at, "2025-13-01T00:00:00Z"));
    "time: hour 25", BAD_TIME, |at| raw(timed(at, "2025-12-24T25:00:00Z"));
    "time: year 10000", BAD_TIME, |at| raw(timed(at, "+10000-01-01T00:00:00Z"));
    "time: escapes", BAD_TIME, |at| raw(with(at, "timestamp", r#""\u001b[2J\n\u202e""#));
    "time: true", BAD_TIME, |at| raw(with(at, "timestamp", "true"));
    "time: 10^30", BAD_TIME, |at| raw(with(at, "timestamp", "1000000000000000000000000000000"));
    "time: -10^300", BAD_TIME, |at| raw(with(at, "timestamp", "-1e300"));
    "time: an object", NOT_JSON, |at| raw(with(at, "timestamp", r#"{"$date":1}"#));
    "time: an array", NOT_JSON, |at| raw(with(at, "timestamp", "[2025,12,24]"));
    "time: the largest integer", Letter("future"), |at| raw(with(at, "timestamp", "18446744073709551615"));
    "time: year 9999", Letter("future"), |at| raw(timed(at, "9999-12-31T23:59:59Z"));
    "time: six minutes ahead", Letter("future"), |at| raw(with(at, "timestamp", &(at.ms() + 360_000).to_string()));
    "time: the epoch", Letter("late"), |at| raw(with(at, "timestamp", "0"));
    "time: before the epoch", Letter("late"), |at| raw(with(at, "timestamp", "-1"));
    "time: year 1", Letter("late"), |at| raw(timed(at, "0001-01-01T00:00:00Z"));
    "time: a minute late", Letter("late"), |at| raw(with(at, "timestamp", &(at.ms() - 60_000).to_string()));
};

fn timed(at: &At, text: &str) -> String {
    with(at, "timestamp", &quoted(text))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// Records made to cost more than they are worth.
const BOMBS: &[Kind] = kinds! {
    "deep arrays, never closed", NOT_JSON, |at| raw(with(at, "x", &"[".repeat(400_000)));
    "deep objects in the message", NOT_JSON, |at| raw(with(at, "message", &nested("{\"a\":", "1", "}", 100_000)));
    "deep arrays in an unknown field", Counted, |at| raw(with(at, "x", &nested("[", "", "]", 100_000)));
    "a wide array", Counted, |at| raw(with(at, "x", &format!("[0{}]", ",0".repeat(400_000))));
    "a wide object", Counted, |at| raw(wide(at));
    "as long as can be", Counted, |at| raw(padded(at, DECODED_BYTES_MAX));
    "a byte too long", TOO_LARGE, |at| raw(padded(at, DECODED_BYTES_MAX + 1));
    "10 MB in one line", TOO_LARGE, |at| raw(padded(at, TEN_MB));
    "10 MB of bytes", TOO_LARGE, |_| raw(vec![0xff; TEN_MB]);
    "10 MB of control characters", TOO_LARGE, |_| raw(vec![1; TEN_MB]);
    "a megabyte of digits", Counted, |at| raw(with(at, "message", &quoted(&"1".repeat(1_000_000))));
    "a megabyte of quotes", Counted, |at| raw(with(at, "message", &quoted(&"'\"".repeat(300_000))));
    "a megabyte of addresses", Counted, |at| raw(with(at, "message", &quoted(&"a@a.".repeat(250_000))));
    "a hundred thousand paths", Counted, |at| raw(with(at, "message", &quoted(&"/a".repeat(400_000))));
};

fn nested(open: &str, within: &str, close: &str, depth: usize) -> String {
    format!("{}{within}{}", open.repeat(depth), close.repeat(depth))
}

fn wide(at: &At) -> String {
    let fields: String = (0..50_000).map(|number| format!("\"f{number}\":0,")).collect();
    event(at).replacen('{', &format!("{{{fields}"), 1)
}

fn padded(at: &At, length: usize) -> String {
    let event = event(at);
    let padding = "x".repeat(length - event.len());
    event.replace("poison\"}", &format!("poison{padding}\"}}"))
}

/// Texts that would write into the alarm file what no alarm says.
const FORGERIES: &[Kind] = kinds! {
    "a line feed before an alarm", Counted, |at| raw(says(at, &format!("x\n{}", forged_alarm())));
    "a carriage return before an alarm", Counted, |at| raw(says(at, &format!("x\r{}", forged_alarm())));
    "both before an alarm", Counted, |at| raw(says(at, &format!("x\r\n{}\r\n", forged_alarm())));
    "a line separator before an alarm", Counted, |at| raw(says(at, &format!("x\u{2028}{}", forged_alarm())));
    "a next-line character before an alarm", Counted, |at| raw(says(at, &format!("x\u{85}{}", forged_alarm())));
    "a form feed before an alarm", Counted, |at| raw(says(at, &format!("x\u{c}\u{b}{}", forged_alarm())));
    "an alarm for a message", Counted, |at| raw(says(at, &forged_alarm()));
    "a stream in the message", Counted, |at| raw(says(at, "x | Stream: forged/0 | Window: a to b"));
    "a terminal's escapes", Counted, |at| raw(says(at, "\u{1b}[2J\u{1b}[1;31mforged\u{1b}]0;title\u{7}"));
    "a C1 escape", Counted, |at| raw(says(at, "\u{9b}2J\u{9d}52;c;Zm9yZ2Vk\u{9c}"));
    "backspaces", Counted, |at| raw(says(at, "forged\u{8}\u{8}\u{8}\u{8}\u{8}\u{8}\u{7f}"));
    "text from right to left", Counted, |at| raw(says(at, "a\u{202e}degrof\u{202c}\u{2066}b\u{2069}\u{200f}"));
    "a service that is an alarm", Counted, |at| raw(with(at, "service", &quoted(&format!("x\n{}", forged_alarm()))));
    "a service with bars", Counted, |at| raw(with(at, "service", &quoted("x | Stream: forged/0 | y")));
    "a service with escapes", Counted, |at| raw(with(at, "service", &quoted("\u{1b}[2Jx\u{202e}\u{85}")));
};

fn says(at: &At, message: &str) -> String {
    with(at, "message", &quoted(message))
}

/// What a producer and a broker can do to records that are well in themselves.
const BROKER: &[Kind] = kinds! {
    "a batch in gzip", Counted, |at| batch(at, "gzip");
    "a batch in snappy", Counted, |at| batch(at, "snappy");
    "a batch in lz4", Counted, |at| batch(at, "lz4");
    "a batch in zstd", Counted, |at| batch(at, "zstd");
    "bad records in zstd", NOT_JSON, |_| vec![Sent::of("x".repeat(500)).compressed("zstd"); 20];
    "10 MB in gzip", TOO_LARGE, |at| vec![Sent::of(padded(at, TEN_MB)).compressed("gzip")];
    "a key of 64 KiB", Counted, |at| vec![Sent::of(event(at)).key(vec![0xff; 65_536])];
    "a key without a payload", Letter("tombstone"), |_| vec![Sent::tombstone().key("user-17")];
    "a thousand headers", Counted, |at| vec![Sent::of(event(at)).headers(1_000)];
    "a committed transaction", Counted, |at| vec![Sent::of(event(at)).transaction(true); 3];
    "an aborted transaction", Unread, |at| vec![Sent::of(event(at)).transaction(false); 3];
    "bad records, aborted", Unread, |_| vec![Sent::of("x").transaction(false); 3];
};

fn batch(at: &At, codec: &'static str) -> Vec<Sent> {
    vec![Sent::of(event(at)).compressed(codec); 25]
}
