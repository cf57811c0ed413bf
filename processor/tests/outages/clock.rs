//! Clocks that are wrong: each partition's lines are those of the first one, which has them in
//! order, and something is wrong with their times.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::Value;

use crate::{
    LOAD, broker,
    events::{START_S, Stretch},
    fleet::{Fleet, Plan},
    flow::Random,
};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// The default lateness, and the length of a window.
const LATENESS_MS: i64 = 2_000;
const WINDOW_MS: i64 = 30_000;
/// One line in so many is a wrong one, or one whose time is missing.
const EVERY: usize = 50;
const SEED: u64 = 51;
const PATIENCE: Duration = Duration::from_secs(60);
const LINES: Stretch = Stretch {
    seed: SEED,
    from_s: 86_400,
    length_s: 900,
    rate_per_s: 3.0,
    anomaly_prob: 0.3,
};
/// What of a row must not depend on the order of its lines. Sums of a score may differ in their last
/// digits: they are the same for the same order.
const SAME: &str = "window_start, is_anomaly, round(anomaly_score::numeric, 9) AS anomaly_score, \
                    log_count, error_count, critical_count";

/// What is wrong with a partition's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// Some lines come again, an hour ahead of their time.
    Ahead,
    /// Some lines come again, a day old.
    Old,
    /// Out of order, by less than the lateness.
    Shuffled,
    /// Some have no timestamp: their record's stands in.
    Missing,
    /// Some come far too late.
    Late,
}

/// By partition.
const WRONGS: [Wrong; 6] = [
    Wrong::Nothing,
    Wrong::Ahead,
    Wrong::Old,
    Wrong::Shuffled,
    Wrong::Missing,
    Wrong::Late,
];

/// A line on its way to Kafka.
#[derive(Clone, Debug)]
struct Line {
    event: Value,
    time_ms: i64,
    /// The time that Kafka is told.
    record_ms: i64,
}

fn lines() -> Vec<Line> {
    let line = |text: String| {
        let event: Value = serde_json::from_str(&text).unwrap();
        let time = event["timestamp"].as_str().unwrap();
        let time = chrono::DateTime::parse_from_rfc3339(time).unwrap();
        let time_ms = time.timestamp_millis();
        Line {
            event,
            time_ms,
            record_ms: time_ms,
        }
    };
    LINES.lines().into_iter().map(line).collect()
}

impl Line {
    /// Returns the same line of another time, at the same place.
    fn shifted(&self, by_ms: i64) -> Self {
        let time_ms = self.time_ms + by_ms;
        let time = chrono::DateTime::from_timestamp_millis(time_ms).unwrap();
        let mut shifted = self.clone();
        shifted.event["timestamp"] = time.to_rfc3339().into();
        shifted.time_ms = time_ms;
        shifted
    }
}

impl Wrong {
    fn applied(self, lines: Vec<Line>) -> Vec<Line> {
        let mut random = Random::new(SEED);
        let mut delayed = |most_ms: u64| i64::try_from(random.below(most_ms)).unwrap();
        let mut placed: Vec<(i64, Line)> = Vec::new();
        for (number, mut line) in lines.into_iter().enumerate() {
            let chosen = number % EVERY == EVERY - 1;
            let mut place = line.time_ms;
            match self {
                Self::Nothing => {}
                Self::Ahead if chosen => placed.push((place, line.shifted(HOUR_MS))),
                Self::Old if chosen => placed.push((place, line.shifted(-DAY_MS))),
                Self::Missing if chosen => {
                    line.event.as_object_mut().unwrap().remove("timestamp");
                }
                Self::Late if chosen => place += LATENESS_MS + delayed(60_000),
                Self::Shuffled => place += delayed(LATENESS_MS.unsigned_abs()),
                Self::Ahead | Self::Old | Self::Missing | Self::Late => {}
            }
            placed.push((place, line));
        }
        // Those at one place stay in their order.
        placed.sort_by_key(|(place, _)| *place);
        placed.into_iter().map(|(_, line)| line).collect()
    }

    /// Returns why a line is not counted; `None` if it is.
    fn refusal(line: &Line, newest_ms: i64) -> Option<&'static str> {
        let end = (line.time_ms.div_euclid(WINDOW_MS) + 1) * WINDOW_MS;
        if line.time_ms - line.record_ms > 5 * 60_000 {
            Some("future")
        } else if end <= newest_ms.saturating_sub(LATENESS_MS) {
            Some("late")
        } else {
            None
        }
    }
}

/// A dead letter: partition, offset, reason.
type Letter = (usize, i64, String);

/// Writes the lines of each partition; returns the dead letters that must come of them.
fn write(fleet: &Fleet) -> BTreeSet<Letter> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &fleet.brokers)
        .set("broker.address.family", "v4")
        .set("enable.idempotence", "true")
        .create()
        .unwrap();
    let mut letters = BTreeSet::new();
    for (partition, wrong) in WRONGS.into_iter().enumerate() {
        let mut newest_ms = i64::MIN;
        for (offset, line) in (0..).zip(wrong.applied(lines())) {
            match Wrong::refusal(&line, newest_ms) {
                Some(reason) => drop(letters.insert((partition, offset, reason.to_owned()))),
                None => newest_ms = newest_ms.max(line.time_ms),
            }
            let (topic, payload) = (fleet.own("in"), line.event.to_string());
            let record = BaseRecord::<(), _>::to(&topic)
                .partition(i32::try_from(partition).unwrap())
                .timestamp(line.record_ms)
                .payload(&payload);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
    }
    producer.flush(PATIENCE).unwrap();
    letters
}

fn dead_letters(fleet: &Fleet) -> BTreeSet<Letter> {
    let letter = |(_, text): broker::Record| {
        let letter: Value = serde_json::from_str(&text).unwrap();
        let partition = letter["partition"].as_u64().unwrap();
        let reason = letter["reason"].as_str().unwrap().to_owned();
        let offset = letter["offset"].as_i64().unwrap();
        (usize::try_from(partition).unwrap(), offset, reason)
    };
    let letters = broker::read_topic(&fleet.brokers, &fleet.own("dlq"));
    letters.into_iter().map(letter).collect()
}

/// Returns a partition's final rows, without what tells the partitions apart.
async fn rows(fleet: &Fleet, partition: usize) -> Vec<String> {
    let sql = format!(
        "SELECT (SELECT to_jsonb(same) FROM (SELECT {SAME}) same)::text FROM anomaly_results
         WHERE NOT provisional AND stream LIKE '%/{partition}' ORDER BY window_start"
    );
    let rows = fleet.client.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn wrong_clocks_cost_the_lines_they_stamp_and_no_others() {
    let plan = Plan {
        name: "clocks",
        partitions: WRONGS.len(),
        settings: &[("LOGGUARD_KAFKA__COMMIT_INTERVAL_MS", "50")],
    };
    let Some(mut fleet) = Fleet::prepare(plan).await else {
        return;
    };
    let expected = write(&fleet);
    let mut by_partition: BTreeMap<usize, usize> = BTreeMap::new();
    for (partition, ..) in &expected {
        *by_partition.entry(*partition).or_default() += 1;
    }
    // One line in fifty each, and of the delayed ones those whose window had closed.
    let chosen = lines().len() / EVERY;
    assert_eq!((by_partition[&1], by_partition[&2]), (chosen, chosen));
    assert!(
        by_partition.len() == 3 && by_partition[&5] > chosen / 4,
        "{by_partition:?}"
    );
    // Two that die on the way read some of it twice.
    for _ in 0..2 {
        let number = fleet.start();
        fleet.wait_for_rows(10).await;
        fleet.kill(number);
    }
    fleet.start();
    let oracle = fleet.replay().oracle;
    fleet.wait_for_the_end(&oracle).await;
    assert_eq!(dead_letters(&fleet), expected);
    let in_order = rows(&fleet, 0).await;
    assert!(in_order.len() >= 28, "{}", in_order.len());
    for (partition, wrong) in WRONGS
        .into_iter()
        .enumerate()
        .filter(|it| it.1 != Wrong::Late)
    {
        assert_eq!(rows(&fleet, partition).await, in_order, "{wrong:?}");
    }
    println!("clocks: {by_partition:?} letters, {}", fleet.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_idle_partition_beside_a_busy_one_has_its_say() {
    const IDLE: usize = 1;
    let plan = Plan {
        name: "idle",
        partitions: 2,
        settings: &[],
    };
    let Some(mut fleet) = Fleet::prepare(plan).await else {
        return;
    };
    // Ends within a window.
    let mut lines = LINES.lines();
    let cut_ms = (START_S + LINES.from_s) * 1_000 + 10 * WINDOW_MS + WINDOW_MS / 2;
    let cut = self::lines()
        .iter()
        .filter(|it| it.time_ms < cut_ms)
        .count();
    let rest = lines.split_off(cut);
    fleet.write(IDLE, &lines);
    // To the first partition alone.
    let flow = fleet.flow_to(0..1, LOAD);
    fleet.start();
    let idle = format!("stream LIKE '%/{IDLE}'");
    fleet
        .wait_until("a provisional row of the idle partition", async |it| {
            let open = it.count(&format!("{idle} AND provisional")).await;
            (open == 1).then_some(()).ok_or(format!("{open}"))
        })
        .await;
    // The busy one goes on, and the idle one's windows wait for its own lines, not for others'.
    fleet.wait_for_rows(8).await;
    assert_eq!(
        fleet.count(&format!("{idle} AND NOT provisional")).await,
        10
    );
    fleet.write(IDLE, &rest);
    flow.stop();
    println!("idle: {}", fleet.finish().await);
}
