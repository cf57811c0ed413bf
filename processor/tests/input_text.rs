//! CSV and JSON lines files, as users have them: odd, compressed, damaged.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{
    fs,
    io::Write,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use logguard::source::file::{FileError, FileFormat, FileRow, LogFile, ReadOptions, ReadSummary};
use proptest::prelude::*;
use tempfile::TempDir;

/// A record as text: `line time LEVEL service|message label type`, or
/// `line reason: detail <payload>`.
fn shown(line: u64, row: &FileRow<'_>) -> String {
    match row {
        FileRow::Event {
            event,
            anomaly_type,
        } => format!(
            "{line} {} {} {}|{} {:?} {}",
            event.time.as_millis(),
            event.level.as_str(),
            event.service,
            event.message,
            event.label.map(u8::from),
            anomaly_type.as_deref().unwrap_or("-"),
        ),
        FileRow::Rejected { rejected, payload } => format!(
            "{line} {}: {} <{}>",
            rejected.reason.as_str(),
            rejected.detail,
            String::from_utf8_lossy(payload)
        ),
    }
}

fn read_with(path: &Path, options: &ReadOptions) -> (Vec<String>, Result<ReadSummary, FileError>) {
    let mut rows = Vec::new();
    let result = LogFile::open(path, options).and_then(|file| {
        file.read(&mut |record| {
            rows.push(shown(record.line, &record.row));
            ControlFlow::Continue(())
        })
    });
    (rows, result)
}

fn read(path: &Path) -> (Vec<String>, Result<ReadSummary, FileError>) {
    read_with(path, &ReadOptions::default())
}

fn file(directory: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    path
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Every error of the chain on one line, with the directory's path taken out.
fn message(directory: &TempDir, error: &FileError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text.replace(&format!("{}/", directory.path().display()), "")
}

fn error_of(directory: &TempDir, path: &Path) -> String {
    message(directory, &read(path).1.unwrap_err())
}

#[test]
fn csv_columns_may_come_in_any_order_with_others_between() {
    let directory = TempDir::new().unwrap();
    let path = file(
        &directory,
        "a.csv",
        b"\xef\xbb\xbfid,Message,component,is_anomaly,anomaly_type,level,timestamp\r\n\
          1,\"a, \"\"b\"\"\nc\",auth,1,spike,warning,1970-01-01T00:00:01Z\r\n\
          \r\n\
          2,plain,,0,spike,,2000\r\n\
          3,odd label,auth,maybe,,VERBOSE,1970-01-01 00:00:03.5",
    );
    let (rows, result) = read(&path);
    assert_eq!(
        rows,
        [
            "2 1000 WARN auth|a, \"b\"\nc Some(1) spike",
            "5 2000000 INFO |plain Some(0) -",
            "6 3500 INFO auth|odd label None -",
        ]
    );
    let summary = result.unwrap();
    assert_eq!((summary.events, summary.labelled), (3, 2));
    assert_eq!(summary.first_rejected, None);
}

#[test]
fn other_separators_are_recognised() {
    let directory = TempDir::new().unwrap();
    for (name, separator) in [("a.csv", ";"), ("b.tsv", "\t"), ("c.log", ",")] {
        let text = "timestamp,level,message\n1,ERROR,x\n".replace(',', separator);
        let (rows, result) = read(&file(&directory, name, text.as_bytes()));
        assert_eq!(result.unwrap().rejected, 0, "{name}");
        assert_eq!(rows, ["2 1000 ERROR |x None -"], "{name}");
    }
}

#[test]
fn bad_csv_rows_are_rejected_where_they_stand() {
    let directory = TempDir::new().unwrap();
    let path = file(
        &directory,
        "a.csv",
        b"timestamp,message\n1,x\n1,y,z\nsoon,x\n,x\n2,\n3,\xff\n4,last\n",
    );
    let (rows, result) = read(&path);
    assert_eq!(
        rows,
        [
            "2 1000 INFO |x None -",
            "3 bad_row: 3 fields, the header has 2 <1,y,z>",
            "4 bad_timestamp: `soon` is in no known format <soon,x>",
            "5 no_timestamp:  <,x>",
            "6 no_message:  <2,>",
            "7 not_utf8: message: invalid utf-8 sequence of 1 bytes from index 0 <3,\u{fffd}>",
            "8 4000 INFO |last None -",
        ]
    );
    let summary = result.unwrap();
    assert_eq!((summary.events, summary.rejected), (2, 5));
    assert_eq!(summary.first_rejected, Some(3));
}

#[test]
fn a_quote_left_open_costs_its_line_only() {
    let directory = TempDir::new().unwrap();
    let mut text = "timestamp,message\n1,a\n2,\"open\n".to_owned();
    for second in 3..50_000 {
        text.push_str(&format!("{second},\"line {second}, quoted\"\n"));
    }
    let (rows, result) = read(&file(&directory, "a.csv", text.as_bytes()));
    assert_eq!(rows[0], "2 1000 INFO |a None -");
    assert!(rows[1].starts_with("3 bad_row: "), "{}", rows[1]);
    assert!(rows[1].ends_with("<2,\"open>"), "{}", rows[1]);
    assert_eq!(rows[2], "4 3000 INFO |line 3, quoted None -");
    let last = "50000 49999000 INFO |line 49999, quoted None -";
    assert_eq!(rows.last().unwrap(), last);
    assert_eq!(result.unwrap().rejected, 1);
}

#[test]
fn a_quote_left_open_with_no_other_behind_it_costs_its_line_only() {
    let directory = TempDir::new().unwrap();
    for lines in [3_u64, 300_000] {
        let mut text = "timestamp,message,level\n1,\"open,INFO\n".to_owned();
        for second in 2..lines {
            text.push_str(&format!("{second},line,INFO\n"));
        }
        let (rows, result) = read(&file(&directory, "a.csv", text.as_bytes()));
        assert!(rows[0].starts_with("2 "), "{}", rows[0]);
        assert!(rows[0].ends_with("<1,\"open,INFO>"), "{}", rows[0]);
        assert_eq!(rows[1], "3 2000 INFO |line None -");
        let summary = result.unwrap();
        assert_eq!((summary.events, summary.rejected), (lines - 2, 1));
    }
}

#[test]
fn overlong_lines_are_rejected_and_reading_goes_on() {
    let directory = TempDir::new().unwrap();
    let options = ReadOptions {
        line_bytes_max: 100_000,
        ..ReadOptions::default()
    };
    let long = "x".repeat(2_000_000);
    let almost = "y".repeat(99_900);
    let csv = format!("timestamp,message\n1,a\n2,{long}\n3,\"{long}\"\n4,{almost}\n5,b");
    let json = format!(
        "{{\"timestamp\":1,\"message\":\"a\"}}\n{{\"message\":\"{long}\"}}\n\n{long}\n\
         {{\"timestamp\":5,\"message\":\"b\"}}"
    );
    for (name, text, first, rejected) in [
        ("a.csv", csv, "2 1000 INFO |a None -", [3, 4]),
        ("a.jsonl", json, "1 1000 INFO |a None -", [2, 4]),
    ] {
        let (rows, result) = read_with(&file(&directory, name, text.as_bytes()), &options);
        assert!(rows.iter().all(|row| row.len() < 100_000), "{name}");
        assert_eq!(rows[0], first, "{name}");
        for (row, line) in rows[1..].iter().zip(rejected) {
            let start = format!("{line} too_large: longer than the 100000 bytes that");
            assert!(row.starts_with(&start), "{name}");
        }
        assert!(rows.last().unwrap().contains(" 5000 INFO |b"), "{name}");
        assert_eq!(result.unwrap().rejected, 2, "{name}");
    }
}

#[test]
fn json_lines_go_through_the_decoder() {
    let directory = TempDir::new().unwrap();
    let first = r#"{"timestamp":1,"message":"a","is_anomaly":1,"anomaly_type":"spike"}"#;
    let second = r#"{"timestamp":2,"message":"b","is_anomaly":0,"anomaly_type":"spike"}"#;
    let cut = r#"{"timestamp":3,"message":"cut sho"#;
    let text = format!("\u{feff}{first}\r\n\n  \nnot json\n{second}\n{cut}");
    let (rows, result) = read(&file(&directory, "events.jsonl", text.as_bytes()));
    assert_eq!(rows[0], "1 1000 INFO |a Some(1) spike");
    assert!(rows[1].starts_with("4 not_json: "), "{}", rows[1]);
    assert!(rows[1].ends_with("<not json>"), "{}", rows[1]);
    assert_eq!(rows[2], "5 2000 INFO |b Some(0) -");
    assert!(rows[3].starts_with("6 not_json: "), "{}", rows[3]);
    assert_eq!(rows.len(), 4);
    assert_eq!(result.unwrap().rejected, 2);
}

#[test]
fn another_label_column_can_be_chosen() {
    let directory = TempDir::new().unwrap();
    let options = ReadOptions {
        label_column: "block_anomaly".to_owned(),
        ..ReadOptions::default()
    };
    let csv = b"timestamp,message,is_anomaly,block_anomaly\n1,a,0,1.0\n2,b,1,False\n3,c,1,\n";
    let json = b"{\"timestamp\":1,\"message\":\"a\",\"is_anomaly\":0,\"block_anomaly\":true}\n\
                 {\"timestamp\":2,\"message\":\"b\",\"is_anomaly\":1,\"block_anomaly\":\"0\"}\n\
                 {\"timestamp\":3,\"message\":\"c\",\"is_anomaly\":1}\n";
    for (name, content) in [("a.csv", csv.as_slice()), ("a.jsonl", json.as_slice())] {
        let (rows, _) = read_with(&file(&directory, name, content), &options);
        let labels: Vec<&str> = rows
            .iter()
            .map(|row| row.split_once('|').unwrap().1)
            .collect();
        assert_eq!(labels, ["a Some(1) -", "b Some(0) -", "c None -"], "{name}");
    }
    let path = file(&directory, "b.csv", b"timestamp,message\n1,a\n");
    let error = message(&directory, &read_with(&path, &options).1.unwrap_err());
    let expected = "`b.csv` has no column `block_anomaly`";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn formats_are_told_by_content_and_name() {
    let directory = TempDir::new().unwrap();
    let json = b"{\"timestamp\":1,\"message\":\"x\"}\n";
    let csv = b"timestamp,message\n1,x\n";
    let zstd = |content: &[u8]| zstd::encode_all(content, 3).unwrap();
    let two = [gzip(json), gzip(json)].concat();
    for (name, content, format, events) in [
        ("a.jsonl", json.to_vec(), FileFormat::JsonLines, 1),
        ("a.log", json.to_vec(), FileFormat::JsonLines, 1),
        ("a", csv.to_vec(), FileFormat::Csv, 1),
        ("a.csv.gz", gzip(csv), FileFormat::Csv, 1),
        ("b.csv", gzip(csv), FileFormat::Csv, 1),
        ("a.json.zst", zstd(json), FileFormat::JsonLines, 1),
        ("a.zst", zstd(csv), FileFormat::Csv, 1),
        ("two.gz", two, FileFormat::JsonLines, 2),
    ] {
        let path = file(&directory, name, &content);
        let opened = LogFile::open(&path, &ReadOptions::default()).unwrap();
        assert_eq!(opened.format(), format, "{name}");
        let progress = opened.progress();
        assert_eq!(progress.total(), Some(content.len() as u64), "{name}");
        let summary = opened.read(&mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(summary.events, events, "{name}");
        assert_eq!(Some(progress.done()), progress.total(), "{name}");
    }
}

/// Gives at most so many bytes at a time, as a pipe may.
struct Trickle(std::io::Cursor<Vec<u8>>, usize);

impl std::io::Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let some = buffer.len().min(self.1);
        self.0.read(&mut buffer[..some])
    }
}

/// The messages of the events, or `None` for a reject, from text that comes in small pieces.
fn trickled(content: Vec<u8>, bytes: usize) -> Result<Vec<Option<String>>, FileError> {
    let reader = Trickle(std::io::Cursor::new(content), bytes);
    let file = LogFile::from_reader("pipe", reader, &ReadOptions::default())?;
    assert_eq!(file.progress().total(), None);
    let mut messages = Vec::new();
    let mut line_before = 0;
    file.read(&mut |record| {
        // Not larger: a bare carriage return ends a record, but no line.
        assert!(record.line >= line_before, "{record:?}");
        line_before = record.line;
        messages.push(match record.row {
            FileRow::Event { event, .. } => Some(event.message.into_owned()),
            FileRow::Rejected { .. } => None,
        });
        ControlFlow::Continue(())
    })?;
    Ok(messages)
}

#[test]
fn a_pipe_is_read_like_a_file() {
    let csv = b"timestamp,message\n1,x\n2,\"y\nz\"\n";
    let json = b"{\"timestamp\":1,\"message\":\"x\"}\n{\"timestamp\":2,\"message\":\"y\\nz\"}\n";
    for content in [csv.to_vec(), gzip(csv), json.to_vec(), gzip(json)] {
        let messages = trickled(content, 1).unwrap();
        assert_eq!(messages, [Some("x".to_owned()), Some("y\nz".to_owned())]);
    }
}

proptest! {
    #[test]
    fn what_a_csv_writer_writes_is_read(
        messages in prop::collection::vec("[a\",;\r\n \u{e9}]{1,12}", 1..20),
        bytes in 1_usize..40,
    ) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["message", "timestamp"]).unwrap();
        for message in &messages {
            writer.write_record([message, "1"]).unwrap();
        }
        let read = trickled(writer.into_inner().unwrap(), bytes).unwrap();
        let written: Vec<Option<String>> = messages.into_iter().map(Some).collect();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn no_text_makes_a_reader_panic(
        csv in "[a1\",\r\n\u{e9}]{0,200}",
        json in "[a1\"{}:\r\n\u{e9}]{0,200}",
        bytes in 1_usize..40,
    ) {
        let mut rows = 0;
        for text in [format!("message,timestamp\nx,1\n{csv}"), format!("{{}}\n{json}")] {
            rows += trickled(text.into_bytes(), bytes).unwrap().len();
        }
        prop_assert!(rows >= 2);
    }
}

#[test]
fn a_truncated_file_delivers_what_stands_before_the_cut() {
    let directory = TempDir::new().unwrap();
    let mut csv = "timestamp,message\n".to_owned();
    let mut json = String::new();
    // Digits that do not compress away, so that the cut is far into the text.
    let mut state = 1_u64;
    for second in 1..=50_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        csv.push_str(&format!("{second},{state}\n"));
        json.push_str(&format!(
            "{{\"timestamp\":{second},\"message\":\"{state}\"}}\n"
        ));
    }
    let zstd = |content: &str| zstd::encode_all(content.as_bytes(), 1).unwrap();
    for (name, whole, header_lines) in [
        ("a.csv.gz", gzip(csv.as_bytes()), 1),
        ("a.csv.zst", zstd(&csv), 1),
        ("a.jsonl.gz", gzip(json.as_bytes()), 0),
        ("a.jsonl.zst", zstd(&json), 0),
    ] {
        let path = file(&directory, name, &whole[..whole.len() * 3 / 4]);
        let (rows, result) = read(&path);
        assert!(rows.len() > 25_000, "{name}: {}", rows.len());
        for (index, row) in rows.iter().enumerate() {
            let second = index + 1;
            assert!(
                row.contains(&format!(" {second}000 INFO |")),
                "{name}: {row}"
            );
        }
        let error = message(&directory, &result.unwrap_err());
        let line = rows.len() + header_lines + 1;
        let expected =
            format!("`{name}` is cut short or damaged at line {line} (within the first ");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn a_wrong_checksum_is_one_error_after_all_lines() {
    let directory = TempDir::new().unwrap();
    let mut whole = gzip(&b"{\"timestamp\":1,\"message\":\"x\"}\n".repeat(100));
    let end = whole.len();
    whole[end - 6] ^= 0xff;
    let (rows, result) = read(&file(&directory, "a.gz", &whole));
    assert_eq!(rows.len(), 100);
    let error = message(&directory, &result.unwrap_err());
    let expected = "`a.gz` is cut short or damaged at line 101";
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let directory = TempDir::new().unwrap();
    let empty = "is empty: there is no log line to read in it";
    for (name, content, expected) in [
        ("empty.csv", b"".as_slice(), empty),
        ("blank.jsonl", b"\n\n", empty),
        ("header.csv", b"timestamp,message\n", empty),
        (
            "a.json",
            b"[\n{\"timestamp\":1}]",
            "it is a JSON array; write",
        ),
        (
            "a.xz",
            b"\xfd7zXZ\0rest",
            "it is compressed with xz; decompress",
        ),
        ("a.txt", b"\xff\xfet\0i\0", "it is UTF-16 text; convert"),
        (
            "a.parquet",
            b"timestamp,message\n1,x",
            "it is named parquet but does not begin like it",
        ),
        (
            "syslog",
            b"Nov 21 03:00:00 host sshd[1]: hi\n",
            "has no column `timestamp`, `message`; its columns are `Nov 21 03:00:00 host",
        ),
    ] {
        let error = error_of(&directory, &file(&directory, name, content));
        assert!(error.contains(&format!("`{name}`")), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    let empty_gzip = file(&directory, "empty.gz", &gzip(b""));
    assert!(error_of(&directory, &empty_gzip).contains("`empty.gz` is empty"));
    let missing = directory.path().join("missing.csv");
    let error = error_of(&directory, &missing);
    assert!(
        error.starts_with("cannot open `missing.csv`: No such file"),
        "{error}"
    );
    let error = error_of(&directory, directory.path());
    assert!(
        error.ends_with("it is a directory; name the files in it"),
        "{error}"
    );
}

#[test]
fn the_visitor_can_stop_the_reading() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory, "a.csv", b"timestamp,message\n1,a\n2,b\n3,c\n");
    let mut seen = 0;
    let file = LogFile::open(&path, &ReadOptions::default()).unwrap();
    let summary = file
        .read(&mut |_| {
            seen += 1;
            if seen == 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .unwrap();
    assert_eq!((seen, summary.events), (2, 2));
}
