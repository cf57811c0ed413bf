//! Parquet files: the types a timestamp or label may have, encodings, nulls, damage.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

use std::{fs, ops::ControlFlow, path::Path, sync::Arc};

use logguard::source::file::{FileError, FileFormat, FileRow, LogFile, ReadOptions, ReadSummary};
use parquet::{
    basic::Compression,
    column::writer::ColumnWriter,
    data_type::{ByteArray, Int96},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use tempfile::TempDir;

/// A column's values; `None` is null.
enum Values {
    Text(Vec<Option<&'static str>>),
    Int64(Vec<Option<i64>>),
    Int32(Vec<Option<i32>>),
    Double(Vec<Option<f64>>),
    Bool(Vec<Option<bool>>),
    Int96(Vec<Option<i64>>),
}

/// Definition levels and the values that are there.
fn split<T: Clone, U>(values: &[Option<T>], convert: impl Fn(T) -> U) -> (Vec<i16>, Vec<U>) {
    let levels = values
        .iter()
        .map(|value| i16::from(value.is_some()))
        .collect();
    let present = values.iter().flatten().cloned().map(convert).collect();
    (levels, present)
}

/// Midnight of the epoch's day as a Julian day number.
const EPOCH_JULIAN_DAY: i64 = 2_440_588;

fn int96(millis: i64) -> Int96 {
    let day = u32::try_from(EPOCH_JULIAN_DAY + millis.div_euclid(86_400_000)).unwrap();
    let nanos = u64::try_from(millis.rem_euclid(86_400_000)).unwrap() * 1_000_000;
    let mut value = Int96::new();
    value.set_data(
        u32::try_from(nanos & 0xffff_ffff).unwrap(),
        u32::try_from(nanos >> 32).unwrap(),
        day,
    );
    value
}

/// Writes each of `groups` as a row group of the columns in `schema`.
fn write(path: &Path, schema: &str, properties: WriterProperties, groups: &[Vec<Values>]) {
    let schema = Arc::new(parse_message_type(&format!("message m {{ {schema} }}")).unwrap());
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for columns in groups {
        let mut group = writer.next_row_group().unwrap();
        for values in columns {
            let mut column = group.next_column().unwrap().unwrap();
            match (column.untyped(), values) {
                (ColumnWriter::ByteArrayColumnWriter(writer), Values::Text(values)) => {
                    let (levels, present) = split(values, ByteArray::from);
                    writer.write_batch(&present, Some(&levels), None).unwrap();
                }
                (ColumnWriter::Int64ColumnWriter(writer), Values::Int64(values)) => {
                    let (levels, present) = split(values, |value| value);
                    writer.write_batch(&present, Some(&levels), None).unwrap();
                }
                (ColumnWriter::Int32ColumnWriter(writer), Values::Int32(values)) => {
                    let (levels, present) = split(values, |value| value);
                    writer.write_batch(&present, Some(&levels), None).unwrap();
                }
                (ColumnWriter::DoubleColumnWriter(writer), Values::Double(values)) => {
                    let (levels, present) = split(values, |value| value);
                    writer.write_batch(&present, Some(&levels), None).unwrap();
                }
                (ColumnWriter::BoolColumnWriter(writer), Values::Bool(values)) => {
                    let (levels, present) = split(values, |value| value);
                    writer.write_batch(&present, Some(&levels), None).unwrap();
                }
                (ColumnWriter::Int96ColumnWriter(writer), Values::Int96(values)) => {
                    let (levels, present) = split(values, int96);
                    writer.write_batch(&present, Some(&levels), None).unwrap();
                }
                _ => panic!("the values do not fit the schema"),
            }
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn plain() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_dictionary_enabled(false)
        .build()
}

fn read_with(path: &Path, options: &ReadOptions) -> (Vec<String>, Result<ReadSummary, FileError>) {
    let mut rows = Vec::new();
    let result = LogFile::open(path, options).and_then(|file| {
        assert_eq!(file.format(), FileFormat::Parquet);
        file.read(&mut |record| {
            rows.push(match record.row {
                FileRow::Event {
                    event,
                    anomaly_type,
                } => format!(
                    "{} {} {} {}|{} {:?} {}",
                    record.line,
                    event.time.as_millis(),
                    event.level.as_str(),
                    event.service,
                    event.message,
                    event.label.map(u8::from),
                    anomaly_type.as_deref().unwrap_or("-"),
                ),
                FileRow::Rejected { rejected, payload } => format!(
                    "{} {}: {} <{}>",
                    record.line,
                    rejected.reason.as_str(),
                    rejected.detail,
                    String::from_utf8_lossy(payload)
                ),
            });
            ControlFlow::Continue(())
        })
    });
    (rows, result)
}

fn read(path: &Path) -> (Vec<String>, Result<ReadSummary, FileError>) {
    read_with(path, &ReadOptions::default())
}

const MESSAGES: [Option<&str>; 3] = [Some("a"), Some("b"), Some("c")];

#[test]
fn columns_in_any_order_with_nulls_and_others_between() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.parquet");
    write(
        &path,
        "optional binary anomaly_type (UTF8); optional int64 row; optional binary message (UTF8);
         optional binary Component (UTF8); optional int64 is_anomaly; optional binary level (UTF8);
         optional binary timestamp (UTF8);",
        plain(),
        &[
            vec![
                Values::Text(vec![Some("spike"), Some("spike"), None]),
                Values::Int64(vec![Some(1), None, None]),
                Values::Text(vec![Some("a"), Some("b"), None]),
                Values::Text(vec![Some("auth"), None, Some("cart")]),
                Values::Int64(vec![Some(1), Some(0), None]),
                Values::Text(vec![Some("critical"), None, Some("?")]),
                Values::Text(vec![Some("1970-01-01T00:00:01.5Z"), Some("2"), Some("3")]),
            ],
            vec![
                Values::Text(vec![Some(" "), None]),
                Values::Int64(vec![None, None]),
                Values::Text(vec![Some("d"), Some("e")]),
                Values::Text(vec![None, None]),
                Values::Int64(vec![Some(1), None]),
                Values::Text(vec![Some("ERROR"), Some("WARN")]),
                Values::Text(vec![None, Some("soon")]),
            ],
        ],
    );
    let (rows, result) = read(&path);
    assert_eq!(
        rows,
        [
            "1 1500 FATAL auth|a Some(1) spike",
            "2 2000 INFO |b Some(0) -",
            "3 no_message:  <>",
            "4 no_timestamp:  <d>",
            "5 bad_timestamp: `soon` is in no known format <e>",
        ]
    );
    let summary = result.unwrap();
    assert_eq!(
        (summary.events, summary.rejected, summary.labelled),
        (2, 3, 2)
    );
    assert_eq!(summary.first_rejected, Some(3));
}

#[test]
fn timestamps_of_every_type_give_the_same_time() {
    let directory = TempDir::new().unwrap();
    let millis = [1_766_619_857_636_i64, -1, 1_766_619_857_637];
    let scaled = |factor: i64| {
        millis
            .map(|value| Some(value * factor + (factor - 1) / 2))
            .to_vec()
    };
    let cases = [
        (
            "int64 timestamp (TIMESTAMP(MILLIS,true))",
            Values::Int64(scaled(1)),
        ),
        (
            "int64 timestamp (TIMESTAMP(MICROS,true))",
            Values::Int64(scaled(1_000)),
        ),
        (
            "int64 timestamp (TIMESTAMP(NANOS,false))",
            Values::Int64(scaled(1_000_000)),
        ),
        (
            "int64 timestamp (TIMESTAMP_MILLIS)",
            Values::Int64(scaled(1)),
        ),
        (
            "int64 timestamp (TIMESTAMP_MICROS)",
            Values::Int64(scaled(1_000)),
        ),
        ("int96 timestamp", Values::Int96(scaled(1))),
    ];
    for (column, values) in cases {
        let path = directory.path().join("a.parquet");
        write(
            &path,
            &format!("optional {column}; optional binary message (UTF8);"),
            plain(),
            &[vec![values, Values::Text(MESSAGES.to_vec())]],
        );
        let (rows, result) = read(&path);
        result.unwrap();
        let expected: Vec<String> = (1..)
            .zip(millis)
            .zip(MESSAGES)
            .map(|((row, time), message)| format!("{row} {time} INFO |{} None -", message.unwrap()))
            .collect();
        assert_eq!(rows, expected, "{column}");
    }
}

#[test]
fn plain_numbers_are_taken_for_unix_time() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.parquet");
    let times = vec![
        Some(1_766_619_857),
        Some(1_766_619_857_000),
        Some(1_766_619_857_000_000),
    ];
    write(
        &path,
        "optional int64 timestamp; optional binary message;",
        plain(),
        &[vec![Values::Int64(times), Values::Text(MESSAGES.to_vec())]],
    );
    let (rows, _) = read(&path);
    assert_eq!(rows.len(), 3);
    assert!(
        rows.iter().all(|row| row.contains(" 1766619857000 INFO |")),
        "{rows:?}"
    );
    let seconds = vec![Some(1.25), Some(f64::NAN), Some(1e300)];
    write(
        &path,
        "optional double timestamp; optional binary message;",
        plain(),
        &[vec![
            Values::Double(seconds),
            Values::Text(MESSAGES.to_vec()),
        ]],
    );
    let (rows, _) = read(&path);
    assert_eq!(rows[0], "1 1250 INFO |a None -");
    assert_eq!(rows[1], "2 bad_timestamp: not a number <b>");
    assert_eq!(rows[2], "3 bad_timestamp: outside the years 1 to 9999 <c>");
}

#[test]
fn labels_of_every_type_are_read() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.parquet");
    let text = Values::Text(vec![Some("1"), Some("false"), Some("")]);
    for (column, values) in [
        (
            "int64 block_anomaly",
            Values::Int64(vec![Some(1), Some(0), None]),
        ),
        (
            "int32 block_anomaly",
            Values::Int32(vec![Some(1), Some(0), None]),
        ),
        (
            "double block_anomaly",
            Values::Double(vec![Some(1.0), Some(0.0), Some(f64::NAN)]),
        ),
        (
            "boolean block_anomaly",
            Values::Bool(vec![Some(true), Some(false), None]),
        ),
        ("binary block_anomaly (UTF8)", text),
    ] {
        write(
            &path,
            &format!("optional int64 timestamp; optional binary message; optional {column};"),
            plain(),
            &[vec![
                Values::Int64(vec![Some(1), Some(2), Some(3)]),
                Values::Text(MESSAGES.to_vec()),
                values,
            ]],
        );
        let options = ReadOptions {
            label_column: "block_anomaly".to_owned(),
            ..ReadOptions::default()
        };
        let (rows, _) = read_with(&path, &options);
        let labels: Vec<&str> = rows
            .iter()
            .map(|row| row.split_once('|').unwrap().1)
            .collect();
        assert_eq!(
            labels,
            ["a Some(1) -", "b Some(0) -", "c None -"],
            "{column}"
        );
        let (rows, _) = read(&path);
        assert_eq!(rows[0], "1 1000 INFO |a None -", "{column}");
    }
}

/// A file of `rows` rows in row groups of `group_rows`, whose messages differ by row.
fn numbered(path: &Path, properties: WriterProperties, rows: i64, group_rows: usize) {
    let messages: Vec<&'static str> = (1..=rows)
        .map(|row| &*Box::leak(format!("message {row} {}", row * 7919 % 10_007).into_boxed_str()))
        .collect();
    let times: Vec<i64> = (1..=rows).collect();
    let groups: Vec<Vec<Values>> = times
        .chunks(group_rows)
        .zip(messages.chunks(group_rows))
        .map(|(times, messages)| {
            vec![
                Values::Int64(times.iter().copied().map(Some).collect()),
                Values::Text(messages.iter().copied().map(Some).collect()),
                Values::Text(
                    times
                        .iter()
                        .map(|time| (time % 3 > 0).then_some("WARN"))
                        .collect(),
                ),
            ]
        })
        .collect();
    let schema =
        "optional int64 timestamp; optional binary message (UTF8); optional binary level (UTF8);";
    write(path, schema, properties, &groups);
}

fn expected_row(row: usize) -> String {
    let level = if row.is_multiple_of(3) {
        "INFO"
    } else {
        "WARN"
    };
    format!(
        "{row} {row}000 {level} |message {row} {} None -",
        row * 7919 % 10_007
    )
}

#[test]
fn every_codec_and_encoding_gives_the_same_rows() {
    let directory = TempDir::new().unwrap();
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::BROTLI(Default::default()),
        Compression::ZSTD(Default::default()),
        Compression::LZ4_RAW,
    ];
    for codec in codecs {
        for dictionary in [false, true] {
            let path = directory.path().join("a.parquet");
            let properties = WriterProperties::builder()
                .set_compression(codec)
                .set_dictionary_enabled(dictionary)
                .build();
            // More rows than a batch, and a last group that is smaller.
            numbered(&path, properties, 10_000, 4_500);
            let file = LogFile::open(&path, &ReadOptions::default()).unwrap();
            let progress = file.progress();
            assert_eq!((progress.done(), progress.total()), (0, Some(10_000)));
            let (rows, result) = read(&path);
            assert_eq!(result.unwrap().events, 10_000);
            for (index, row) in rows.iter().enumerate() {
                assert_eq!(*row, expected_row(index + 1), "{codec} {dictionary}");
            }
        }
    }
}

#[test]
fn a_damaged_page_ends_the_file_after_the_rows_before_it() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.parquet");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(Default::default()))
        .set_dictionary_enabled(false)
        .build();
    numbered(&path, properties, 10_000, 5_000);
    let mut bytes = fs::read(&path).unwrap();
    // The second group's messages fill the file's third quarter.
    let at = bytes.len() * 5 / 8;
    bytes[at..at + 4_000].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    let (rows, result) = read(&path);
    assert!(rows.len() >= 5_000, "{}", rows.len());
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(*row, expected_row(index + 1));
    }
    let error = result.unwrap_err().to_string();
    let position = format!("damaged at row {} of 10000 (row group 1)", rows.len() + 1);
    assert!(error.contains(&position), "{error}");
}

#[test]
fn a_file_cut_short_is_named_as_damaged() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.parquet");
    numbered(&path, plain(), 1_000, 1_000);
    let bytes = fs::read(&path).unwrap();
    for kept in [4, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..kept]).unwrap();
        let (rows, result) = read(&path);
        assert!(rows.is_empty());
        let error = result.unwrap_err().to_string();
        assert!(
            error.contains("a.parquet` is cut short or damaged at its footer"),
            "{error}"
        );
    }
}

#[test]
fn flipped_bytes_never_panic() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.parquet");
    for dictionary in [false, true] {
        let properties = WriterProperties::builder()
            .set_compression(Compression::UNCOMPRESSED)
            .set_dictionary_enabled(dictionary)
            .build();
        numbered(&path, properties, 300, 100);
        let whole = fs::read(&path).unwrap();
        let mut state = 42_u64;
        let mut errors = 0;
        for _ in 0..300 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let at = usize::try_from(state >> 33).unwrap() % bytes.len();
                bytes[at] ^= 1 << (state >> 30 & 7);
            }
            fs::write(&path, &bytes).unwrap();
            let mut rows = 0;
            let result = LogFile::open(&path, &ReadOptions::default()).and_then(|file| {
                file.read(&mut |_| {
                    rows += 1;
                    ControlFlow::Continue(())
                })
            });
            errors += usize::from(result.is_err());
        }
        assert!(errors > 20, "{errors}");
    }
}

#[test]
fn columns_that_cannot_be_read_are_named() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a.parquet");
    let numbers = || Values::Int64(vec![Some(1)]);
    let text = || Values::Text(vec![Some("x")]);
    write(
        &path,
        "optional int64 time; optional binary text;",
        plain(),
        &[vec![numbers(), text()]],
    );
    let error = read(&path).1.unwrap_err().to_string();
    let expected = "has no column `timestamp`, `message`; its columns are `time`, `text` ";
    assert!(error.contains(expected), "{error}");
    write(
        &path,
        "optional int64 timestamp; optional int64 message;",
        plain(),
        &[vec![numbers(), numbers()]],
    );
    let error = read(&path).1.unwrap_err().to_string();
    assert!(
        error.contains("it has type INT64, expected text"),
        "{error}"
    );
    write(
        &path,
        "optional int64 timestamp; optional binary message;",
        plain(),
        &[],
    );
    let error = read(&path).1.unwrap_err().to_string();
    assert!(
        error.ends_with("is empty: there is no log line to read in it"),
        "{error}"
    );
}
