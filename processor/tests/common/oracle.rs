//! What a live run must have left behind, whatever happened to it: what `replay` says of the same
//! topic with the same model.
//!
//! Compared are the rows, the final result messages of each window (all of them: they must be the
//! same), the alarm file, and the offsets that the group committed. Left out is what depends on the
//! clock: write times, whether a window came too late to tell anyone (`stale`), windows that the
//! clock made final, and what an alarm says that came before its window was final.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::Path,
};

use serde_json::Value;
use tokio_postgres::Client;

use crate::broker::{self, Record};

/// Differences told in full; the rest is counted.
const TOLD_MAX: usize = 12;
/// The one field that the clock decides.
const STALE: &str = "stale";

/// The fields that depend on the lines alone, not on the streams' past.
const COUNTED: [&str; 6] = [
    "window_end",
    "log_count",
    "error_count",
    "critical_count",
    "labelled_count",
    "next_offset",
];

/// Every row with its features and its alarm, with times as result messages write them and numbers
/// that come back exactly.
const ROWS: &str = r#"
    SELECT (to_jsonb(r) || jsonb_build_object(
        'timestamp',    to_char("timestamp"  AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'window_start', to_char(window_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'window_end',   to_char(window_end   AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'features',     f.features,
        'alarm_id',     a.alarm_id
    ))::text FROM anomaly_results r
    LEFT JOIN window_features f USING (window_start, window_end, stream)
    LEFT JOIN alarms a USING (window_start, window_end, stream)"#;

/// What identifies a window: `stream@window_start`, the key of its message.
type Key = String;

/// What `replay` says of each window.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// Those that the watermark made final.
    closed: BTreeMap<Key, Said>,
    /// Those that were open at the end of the topic.
    open: BTreeMap<Key, Said>,
    open_may_be_missing: bool,
}

#[derive(Debug)]
struct Said {
    text: String,
    message: Value,
}

impl Said {
    fn str(&self, field: &str) -> &str {
        self.message[field].as_str().unwrap()
    }

    fn is_anomaly(&self) -> bool {
        self.message["is_anomaly"] == 1
    }

    /// Its alarm came before it was full.
    fn is_early(&self) -> bool {
        !self.message["early"].is_null()
    }
}

/// What a live run left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Rows of the table, as JSON.
    rows: Vec<Value>,
    /// The results topic.
    messages: Vec<Record>,
    /// The alarm file.
    alarms: String,
}

impl Outcome {
    /// Gathers it.
    pub(crate) async fn gather(
        database: &Client,
        (brokers, results_topic): (&str, &str),
        alarm_file: &Path,
    ) -> Self {
        let rows = database.query(ROWS, &[]).await.unwrap();
        let row = |row: &tokio_postgres::Row| serde_json::from_str(row.get(0)).unwrap();
        Self {
            rows: rows.iter().map(row).collect(),
            messages: broker::read_topic(brokers, results_topic),
            // It is made by the first alarm.
            alarms: fs::read_to_string(alarm_file).unwrap_or_default(),
        }
    }
}

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Windows that are final.
    pub(crate) windows: usize,
    /// Rows that the clock made final.
    pub(crate) by_clock: usize,
    /// Final result messages beyond the first of their window, all equal to it.
    pub(crate) republished: usize,
    /// Alarms in the file.
    pub(crate) alarms: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            windows,
            republished,
            alarms,
            ..
        } = self;
        // A window lost, told twice or told otherwise has failed the comparison.
        write!(
            out,
            "{windows} windows, 0 lost, 0 double, {republished} messages sent again, {alarms} alarms"
        )
    }
}

impl Oracle {
    /// Reads what `replay --results` wrote.
    pub(crate) fn read(results: &Path) -> Self {
        let (mut closed, mut open) = (BTreeMap::new(), BTreeMap::new());
        for line in fs::read_to_string(results).unwrap().lines() {
            let message: Value = serde_json::from_str(line).unwrap();
            let windows = match message["final_by"].as_str() {
                Some("watermark") => &mut closed,
                Some("end") => &mut open,
                other => panic!("replay made a window final by {other:?}"),
            };
            let (key, text) = (key(&message), line.to_owned());
            let before = windows.insert(key, Said { text, message });
            assert!(before.is_none(), "replay told a window twice: {line}");
        }
        Self {
            closed,
            open,
            open_may_be_missing: false,
        }
    }

    /// Returns how many windows are final by the watermark.
    pub(crate) fn closed_count(&self) -> usize {
        self.closed.len()
    }

    /// Returns how many of those are anomalous.
    pub(crate) fn alarm_count(&self) -> usize {
        self.closed
            .values()
            .filter(|said| said.is_anomaly())
            .count()
    }

    /// Returns the first alarm of a partition that came before its window was full: one past the record that
    /// brought it, and the start of the window.
    pub(crate) fn first_early(&self, partition: i32) -> (usize, String) {
        let of_partition = |said: &&Said| said.is_early() && said.message["partition"] == partition;
        let came = |said: &Said| {
            let next = said.message["early"]["next_offset"].as_u64().unwrap();
            let start = said.str("window_start").to_owned();
            (usize::try_from(next).unwrap(), start)
        };
        let early = self.closed.values().filter(of_partition);
        early.map(came).min().unwrap()
    }

    /// Returns where each partition's committed offset must end up: at the first record of the
    /// windows still open.
    pub(crate) fn committed(&self) -> BTreeMap<i32, i64> {
        let mut committed = BTreeMap::new();
        for said in self.open.values() {
            let partition = said.message["partition"].as_i64().unwrap();
            let partition = i32::try_from(partition).unwrap();
            if let Some(first) = said.message["first_offset"].as_i64() {
                let offset = committed.entry(partition).or_insert(first);
                *offset = first.min(*offset);
            }
        }
        committed
    }

    /// Fails with every difference between what must be there and what is; returns what was
    /// compared.
    pub(crate) fn check(&self, outcome: &Outcome) -> Tally {
        let mut differences = Differences::default();
        let tally = self.compare(outcome, &mut differences);
        differences.fail_if_any();
        tally
    }

    /// The same, where the last lines may not have been read before the stop: windows still open
    /// may be missing.
    pub(crate) fn check_final(&mut self, outcome: &Outcome) -> Tally {
        let mut differences = Differences::default();
        self.open_may_be_missing = true;
        let tally = self.compare(outcome, &mut differences);
        differences.fail_if_any();
        tally
    }

    fn compare(&self, outcome: &Outcome, differences: &mut Differences) -> Tally {
        let mut tally = Tally::default();
        self.compare_rows(&outcome.rows, &mut tally, differences);
        self.compare_messages(&outcome.messages, &mut tally, differences);
        self.compare_alarms(&outcome.alarms, &mut tally, differences);
        tally
    }

    /// Fails unless each row that is complete counts what `replay` counts. To be used where
    /// baselines began anew, so that scores differ.
    pub(crate) fn check_counts(&self, outcome: &Outcome) -> Tally {
        let mut differences = Differences::default();
        let rows: BTreeMap<Key, &Value> = outcome.rows.iter().map(|row| (key(row), row)).collect();
        let mut tally = Tally::default();
        for (key, said) in &self.closed {
            match rows.get(key) {
                None => differences.tell(format!("{key}: its row is missing")),
                Some(row) if row["partial"] == true || said.message["partial"] == true => {}
                Some(row) => {
                    tally.windows += 1;
                    for field in COUNTED {
                        if !same(&said.message[field], &row[field]) {
                            let (found, expected) = (&row[field], &said.message[field]);
                            differences
                                .tell(format!("{key}: {field} is {found}, expected {expected}"));
                        }
                    }
                }
            }
        }
        differences.fail_if_any();
        tally
    }

    fn compare_rows(&self, rows: &[Value], tally: &mut Tally, differences: &mut Differences) {
        let (mut closed, mut open) = (BTreeSet::new(), BTreeSet::new());
        for row in rows {
            let key = key(row);
            match self.expected(&key, row, differences) {
                Expected::Closed(said) => {
                    // A row has more columns than a message has fields.
                    differ(&key, &said.message, row, differences);
                    closed.insert(key);
                }
                Expected::Open(said) => {
                    more_lines(&key, &said.message, row, differences);
                    open.insert(key);
                }
                Expected::ByClock => {
                    tally.by_clock += 1;
                    closed.insert(key.clone());
                    open.insert(key);
                }
                Expected::Superseded => {
                    differences.tell(format!("{key}: its row is still provisional"));
                    closed.insert(key);
                }
                Expected::Nothing => {}
            }
        }
        tally.windows = closed.len();
        missing("row", &self.closed, &closed, differences);
        if !self.open_may_be_missing {
            missing("provisional row", &self.open, &open, differences);
        }
    }

    fn compare_messages(
        &self,
        messages: &[Record],
        tally: &mut Tally,
        differences: &mut Differences,
    ) {
        let mut finals: BTreeMap<&Key, BTreeMap<String, usize>> = BTreeMap::new();
        let (mut closed, mut open) = (BTreeSet::new(), BTreeSet::new());
        for (key, text) in messages {
            let message: Value = serde_json::from_str(text).unwrap();
            match self.expected(key, &message, differences) {
                Expected::Closed(said) => {
                    let fresh = text.replacen("\"stale\":true", "\"stale\":false", 1);
                    let same = finals.entry(key).or_default().entry(fresh).or_default();
                    *same += 1;
                    if *same == 1 {
                        differ(key, &said.message, &message, differences);
                        in_order(key, text, said, differences);
                    }
                    closed.insert(key.clone());
                }
                Expected::Open(_) => {
                    open.insert(key.clone());
                }
                Expected::ByClock => {
                    closed.insert(key.clone());
                    open.insert(key.clone());
                }
                // The topic keeps them all; a reader passes over what is provisional once there is
                // a final one.
                Expected::Superseded | Expected::Nothing => {}
            }
        }
        for (key, texts) in finals {
            tally.republished += texts.values().sum::<usize>() - 1;
            if texts.len() > 1 {
                let times = texts.len();
                differences.tell(format!("{key}: {times} final messages that differ"));
            }
        }
        missing("message", &self.closed, &closed, differences);
        if !self.open_may_be_missing {
            missing("provisional message", &self.open, &open, differences);
        }
    }

    /// Returns what `replay` says of a window that the live run tells of.
    fn expected(&self, key: &Key, found: &Value, differences: &mut Differences) -> Expected<'_> {
        match (
            found["final_by"].as_str(),
            self.closed.get(key),
            self.open.get(key),
        ) {
            (Some("watermark"), Some(said), _) => Expected::Closed(said),
            (Some("open"), _, Some(said)) => Expected::Open(said),
            (Some("idle"), ..) => Expected::ByClock,
            (Some("open"), Some(_), _) => Expected::Superseded,
            (by, closed, open) => {
                let expected = match (closed, open) {
                    (Some(_), _) => "final by the watermark",
                    (None, Some(_)) => "open",
                    (None, None) => "not there",
                };
                let by = by.unwrap_or("nothing");
                differences.tell(format!("{key}: final by `{by}`, expected to be {expected}"));
                Expected::Nothing
            }
        }
    }

    fn compare_alarms(&self, alarms: &str, tally: &mut Tally, differences: &mut Differences) {
        let mut told = told_alarms(alarms, differences);
        tally.alarms = told.len();
        for said in self.closed.values().filter(|said| said.is_anomaly()) {
            let facts = alarm_facts(said);
            match told.remove(&alarm_key(said)).as_deref() {
                Some([alarm]) if alarm.provisional || alarm.facts == facts => {}
                Some([alarm]) => {
                    differences.tell(format!("alarm: {}, expected {facts}", alarm.facts));
                }
                Some(alarms) => {
                    differences.tell(format!("alarm told {} times: {facts}", alarms.len()));
                }
                None => differences.tell(format!("alarm missing: {facts}")),
            }
        }
        // Of a window still open a stop may have come before the record at which it told.
        for said in self.open.values().filter(|said| said.is_early()) {
            let facts = alarm_facts(said);
            for alarm in told.remove(&alarm_key(said)).into_iter().flatten() {
                if !alarm.provisional && alarm.facts != facts {
                    differences.tell(format!("alarm: {}, expected {facts}", alarm.facts));
                }
            }
        }
        for alarm in told.into_values().flatten() {
            // A provisional alarm of a window that came to nothing is the clock's.
            if !alarm.provisional {
                differences.tell(format!("alarm nobody asked for: {}", alarm.facts));
            }
        }
    }
}

/// An alarm of the file.
#[derive(Debug)]
struct Told {
    /// What it says of its window, between its heading and its reasons.
    facts: String,
    /// It came before its window was final.
    provisional: bool,
}

/// Returns the alarms of a file by window and stream.
fn told_alarms(alarms: &str, differences: &mut Differences) -> BTreeMap<String, Vec<Told>> {
    let mut told: BTreeMap<String, Vec<Told>> = BTreeMap::new();
    let mut samples = 0;
    for line in alarms.lines() {
        // The leading time is the clock's.
        let Some((_, rest)) = line.split_once(" | WARNING | ") else {
            differences.tell(format!("alarm file: not a line of an alarm: {line}"));
            continue;
        };
        if let Some(alarm) = rest.strip_prefix("ANOMALY DETECTED | ") {
            samples = 0;
            let (facts, _) = alarm.split_once(" | Why: ").unwrap_or((alarm, ""));
            let facts = facts.strip_suffix(" | Stale: yes").unwrap_or(facts);
            let facts = facts.strip_suffix(" | Learning: yes").unwrap_or(facts);
            let settled = facts.strip_suffix(" | Provisional: yes");
            let of = |name: &str| facts.split(" | ").find(|it| it.starts_with(name));
            let key = format!("{:?} {:?}", of("Window: "), of("Stream: "));
            told.entry(key).or_default().push(Told {
                facts: settled.unwrap_or(facts).to_owned(),
                provisional: settled.is_some(),
            });
        } else {
            samples += 1;
            if samples > 3 || !rest.starts_with(&format!("  Sample Error {samples}: ")) {
                differences.tell(format!("alarm file: a line out of place: {line}"));
            }
        }
    }
    told
}

/// Returns what [`told_alarms`] files an alarm of the window under.
fn alarm_key(said: &Said) -> String {
    let stream = format!("Stream: {}", said.str("stream"));
    format!("{:?} {:?}", Some(window_field(said)), Some(stream))
}

enum Expected<'a> {
    Closed(&'a Said),
    Open(&'a Said),
    /// The clock made it final, which `replay` cannot know.
    ByClock,
    /// It is final, but what was found is provisional.
    Superseded,
    Nothing,
}

/// Returns what an alarm says of its window, between its heading and its reasons.
fn alarm_facts(said: &Said) -> String {
    let (early, whole) = (&said.message["early"], &said.message);
    let told = if early.is_null() { whole } else { early };
    let number = |field: &str| told[field].as_f64().unwrap();
    let (window, stream) = (window_field(said), said.str("stream"));
    let (alarm, lines) = (said.str("alarm_id"), number("log_count"));
    let came = early["at"].as_str().map(|at| format!(" | Early: {at}"));
    format!(
        "Score: {:.3} | {window} | Logs: {} | Errors: {} ({:.1}%) | Critical: {} | Stream: {stream} \
         | Alarm: {alarm}",
        number("anomaly_score"),
        lines,
        number("error_count"),
        number("error_count") / lines.max(1.0) * 100.0,
        number("critical_count"),
    ) + came.as_deref().unwrap_or_default()
}

fn window_field(said: &Said) -> String {
    format!(
        "Window: {} to {}",
        said.str("window_start"),
        said.str("window_end")
    )
}

fn key(message: &Value) -> Key {
    let field = |name: &str| message[name].as_str().unwrap().to_owned();
    format!("{}@{}", field("stream"), field("window_start"))
}

/// Tells of a message whose fields are right but stand in another order, which is promised too.
fn in_order(key: &Key, text: &str, said: &Said, differences: &mut Differences) {
    let names = |text: &str| {
        let fields: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap();
        let mut at: Vec<(Option<usize>, String)> = fields
            .keys()
            .map(|name| (text.find(&format!("\"{name}\":")), name.clone()))
            .collect();
        at.sort();
        at.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
    };
    if names(text) != names(&said.text) {
        differences.tell(format!(
            "{key}: the message's fields stand in another order"
        ));
    }
}

/// Tells of the fields of `expected` that `found` holds otherwise.
fn differ(key: &Key, expected: &Value, found: &Value, differences: &mut Differences) {
    for (field, value) in expected.as_object().unwrap() {
        if field != STALE && !same(value, &found[field]) {
            let found = &found[field];
            differences.tell(format!("{key}: {field} is {found}, expected {value}"));
        }
    }
}

/// Tells of the counts of a window still open that are above those of all its lines: a stop may
/// come before the last ones are read, but none is counted twice.
fn more_lines(key: &Key, expected: &Value, found: &Value, differences: &mut Differences) {
    for field in [
        "log_count",
        "error_count",
        "critical_count",
        "labelled_count",
    ] {
        let (most, count) = (expected[field].as_i64(), found[field].as_i64());
        if count.is_none() || count > most {
            differences.tell(format!(
                "{key}: {field} is {count:?}, expected at most {most:?}"
            ));
        }
    }
}

/// Equal, where a number is what it is however it is written: PostgreSQL writes 1 for 1.0.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(name, value)| other.get(name).is_some_and(|it| same(value, it)))
        }
        _ => one == other,
    }
}

fn missing(
    what: &str,
    expected: &BTreeMap<Key, Said>,
    found: &BTreeSet<Key>,
    differences: &mut Differences,
) {
    for key in expected.keys().filter(|key| !found.contains(*key)) {
        differences.tell(format!("{key}: its {what} is missing"));
    }
}

/// What is not as it must be.
#[derive(Debug, Default)]
struct Differences {
    told: Vec<String>,
    count: usize,
}

impl Differences {
    fn tell(&mut self, difference: String) {
        self.count += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(difference);
        }
    }

    fn fail_if_any(&self) {
        let (count, told) = (self.count, self.told.join("\n  "));
        assert!(
            count == 0,
            "{count} differences from replay, among them\n  {told}"
        );
    }
}
