//! A fleet of processors on a topic of its own: started, stopped, killed and paused at will, and
//! compared in the end with what `replay` says of the same topic.
//!
//! ```text
//! Flow ─► topic ─┬─► logguard run (as many as the test likes) ─► rows, messages, alarms
//!                └─► logguard replay ─► the oracle that all of it is compared with
//! ```

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File},
    ops::Range,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::{
    broker,
    common::{TestDatabase, fresh_database, kafka_brokers},
    events::{self, Stretch},
    flow::{Flow, Load},
    oracle::{Oracle, Outcome, Tally},
    program::{Running, logguard, run_well},
};

/// What the model learns from: six hours of a system that is mostly well.
const TRAINING: Stretch = Stretch {
    seed: 11,
    from_s: 0,
    length_s: 6 * 3_600,
    rate_per_s: 1.0,
    anomaly_prob: 0.005,
};
/// Far longer than anything takes here; reached only by a test that fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// A processor's own deadlines for a stop are shorter.
pub(crate) const STOPS_WITHIN: Duration = Duration::from_secs(40);
const POLL_EVERY: Duration = Duration::from_millis(20);
/// What every processor of a fleet is told, unless the drill says otherwise: members that died are
/// noticed soon, little is read again, and the clock has no say.
const SETTINGS: [(&str, &str); 4] = [
    ("LOGGUARD_KAFKA__SESSION_TIMEOUT_MS", "2000"),
    ("LOGGUARD_KAFKA__DRAIN_TIMEOUT_MS", "1000"),
    ("LOGGUARD_KAFKA__COMMIT_INTERVAL_MS", "100"),
    ("LOGGUARD_WINDOW__IDLE_FINAL_S", "86400"),
];

/// Returns the directory of a model. It is trained once for all test binaries: a day of lines takes
/// most of a minute in a build for tests.
pub(crate) fn model_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fleet");
        fs::create_dir_all(&dir).unwrap();
        let lock = File::create(dir.join("lock")).unwrap();
        lock.lock().unwrap();
        let program = fs::metadata(env!("CARGO_BIN_EXE_logguard")).unwrap();
        let (made, length) = (program.modified().unwrap(), program.len());
        let trained_by = format!("{made:?}, {length} bytes, on {TRAINING:?}");
        let note = dir.join("trained-by");
        if fs::read_to_string(&note).ok().as_ref() != Some(&trained_by) {
            fs::write(dir.join("training.jsonl"), events::text(&TRAINING.lines())).unwrap();
            run_well(&dir, ["train", "--input", "training.jsonl"]);
            fs::write(note, trained_by).unwrap();
        }
        dir.join("model")
    })
}

/// What a drill is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Its name, unique within the binary.
    pub(crate) name: &'static str,
    /// Partitions of the input topic.
    pub(crate) partitions: usize,
    /// Settings of every processor, as environment variables; they come after the usual ones.
    pub(crate) settings: &'static [(&'static str, &'static str)],
}

/// Processors by number, and all that belongs to them alone.
pub(crate) struct Fleet {
    pub(crate) plan: Plan,
    pub(crate) brokers: String,
    pub(crate) database: TestDatabase,
    pub(crate) client: Client,
    pub(crate) dir: TempDir,
    /// Where processors find the database: at its own address, unless the drill says otherwise.
    pub(crate) database_url: String,
    started: usize,
    running: Vec<(usize, Running)>,
}

/// What a drill has done, to be printed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Processors started.
    pub(crate) started: usize,
    /// Times a processor was given partitions, and times they were taken from it.
    pub(crate) assignments: usize,
    pub(crate) revocations: usize,
    /// Records in the input topic.
    pub(crate) events: u64,
    pub(crate) tally: Tally,
}

/// What `replay` cannot know because the clock decided it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ByClock {
    /// Rows that it made final.
    pub(crate) rows: usize,
    /// Records that came too late only because of it.
    pub(crate) letters: u64,
}

/// What `replay` said.
pub(crate) struct Replayed {
    pub(crate) oracle: Oracle,
    /// Records that were counted in a window.
    events: u64,
    /// Records that are no events or came too late.
    letters: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            started,
            assignments,
            revocations,
            events,
            tally,
        } = self;
        write!(
            out,
            "{started} processors, {assignments} assignments, {revocations} revocations, {events} events, {tally}"
        )
    }
}

impl Fleet {
    /// Prepares database, topics and directory. `None` without services.
    pub(crate) async fn prepare(plan: Plan) -> Option<Self> {
        Some(Self::prepare_at(plan, kafka_brokers()?, fresh_database().await?).await)
    }

    /// Prepares topics and directory on services of the drill's own.
    pub(crate) async fn prepare_at(plan: Plan, brokers: String, database: TestDatabase) -> Self {
        let client = database.client().await;
        let dir = tempfile::tempdir().unwrap();
        model_dir();
        run_well(dir.path(), ["migrate", "--database-url", &database.url]);
        let fleet = Self {
            plan,
            brokers,
            database_url: database.url.clone(),
            database,
            client,
            dir,
            started: 0,
            running: Vec::new(),
        };
        for (topic, partitions) in [("in", plan.partitions), ("out", 1), ("dlq", 1)] {
            let partitions = i32::try_from(partitions).unwrap();
            broker::create_topic(&fleet.brokers, &fleet.own(topic), partitions).await;
        }
        fleet
    }

    /// Returns a name on the broker that only this run of this drill has: `in`, `out` and `dlq`
    /// are its topics, `group` is its group.
    pub(crate) fn own(&self, kind: &str) -> String {
        format!("{}-{}-{kind}", self.plan.name, self.database.name)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Begins to write lines to the input topic.
    pub(crate) fn flow(&self, load: Load) -> Flow {
        self.flow_to(0..self.plan.partitions, load)
    }

    /// Begins to write lines to some partitions of the input topic.
    pub(crate) fn flow_to(&self, partitions: Range<usize>, load: Load) -> Flow {
        Flow::start(&self.brokers, &self.own("in"), partitions, load)
    }

    /// Writes lines to one partition.
    pub(crate) fn write(&self, partition: usize, lines: &[String]) {
        let file = self.path(&format!("{partition}.jsonl"));
        fs::write(&file, events::text(lines)).unwrap();
        broker::kcat(&self.brokers, &self.own("in"), partition, &file);
    }

    /// Starts another processor; returns its number.
    pub(crate) fn start(&mut self) -> usize {
        self.start_with(&[])
    }

    /// Starts another processor with further settings; returns its number.
    pub(crate) fn start_with(&mut self, settings: &[(&str, &str)]) -> usize {
        self.started += 1;
        let mut command = logguard(self.dir.path());
        command
            .arg("run")
            .args(["--kafka-brokers", &self.brokers])
            .args(["--input-topic", &self.own("in")])
            .args(["--output-topic", &self.own("out")])
            .args(["--dead-letter-topic", &self.own("dlq")])
            .args(["--consumer-group", &self.own("group")])
            .args(["--database-url", &self.database_url])
            .args(["--anomaly-log", "anomalies.log"])
            .args(["--http-listen", "127.0.0.1:0"])
            .arg("--model-dir")
            .arg(model_dir())
            .envs(SETTINGS)
            .envs(self.plan.settings.iter().copied())
            .envs(settings.iter().copied());
        let log = self.path(&format!("processor-{}.log", self.started));
        self.running
            .push((self.started, Running::start(command, log)));
        self.started
    }

    /// Returns the numbers of the processors that run, oldest first.
    pub(crate) fn numbers(&self) -> Vec<usize> {
        self.running.iter().map(|(number, _)| *number).collect()
    }

    /// Returns a processor that runs.
    pub(crate) fn processor(&self, number: usize) -> &Running {
        let found = self.running.iter().find(|(it, _)| *it == number);
        &found.unwrap().1
    }

    /// Takes a processor out of the fleet, to see it end.
    pub(crate) fn take(&mut self, number: usize) -> Running {
        let at = self.running.iter().position(|(it, _)| *it == number);
        self.running.remove(at.unwrap()).1
    }

    /// Ends a processor as a crash of its machine would.
    pub(crate) fn kill(&mut self, number: usize) {
        self.take(number).kill();
    }

    /// Waits until a processor takes signals: one that is just being loaded dies of them.
    pub(crate) async fn wait_until_up(&mut self, number: usize) {
        self.wait_for_log(number, "serving /metrics").await;
    }

    /// Stops a processor and waits until it has ended well.
    pub(crate) async fn stop(&mut self, number: usize) {
        self.wait_until_up(number).await;
        let mut processor = self.take(number);
        processor.terminate();
        processor.ends_well(STOPS_WITHIN).await;
    }

    /// Waits until something holds. Fails if that takes too long, or if a processor ends that
    /// nobody stopped.
    pub(crate) async fn wait_until(
        &mut self,
        what: &str,
        reached: impl AsyncFn(&Self) -> Result<(), String>,
    ) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(state) = reached(self).await {
            let ended = self.running.iter_mut().any(|it| it.1.exited().is_some());
            if ended || Instant::now() > deadline {
                let why = if ended {
                    "a processor ended"
                } else {
                    "too long"
                };
                panic!("{what}: {why}; {state}\n{}", self.log_tails());
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    fn log_tails(&self) -> String {
        let tails = self.running.iter().map(|(_, it)| it.log_tail());
        tails.collect::<Vec<_>>().join("\n")
    }

    /// Returns how many windows are final in the table.
    pub(crate) async fn final_rows(&self) -> u64 {
        self.count("NOT provisional").await
    }

    /// Returns how many rows meet an SQL condition.
    pub(crate) async fn count(&self, condition: &str) -> u64 {
        let sql = format!("SELECT count(*) FROM anomaly_results WHERE {condition}");
        let count: i64 = self.client.query_one(&sql, &[]).await.unwrap().get(0);
        u64::try_from(count).unwrap()
    }

    /// Waits until so many more windows are final than there are now.
    pub(crate) async fn wait_for_rows(&mut self, more: u64) {
        let enough = self.final_rows().await + more;
        self.wait_for_total_rows(enough).await;
    }

    /// Waits until so many windows are final.
    pub(crate) async fn wait_for_total_rows(&mut self, enough: u64) {
        self.wait_until("more final rows", async |it| {
            let count = it.final_rows().await;
            (count >= enough)
                .then_some(())
                .ok_or(format!("{count} of {enough}"))
        })
        .await;
    }

    /// Waits until every partition belongs to just one of these processors and its records flow:
    /// one that is late to notice what it has lost may claim it for a while.
    pub(crate) async fn wait_until_owned_by(&mut self, numbers: &[usize]) {
        let partitions = self.plan.partitions;
        self.wait_until("a stable group", async |it| {
            let logs = numbers.iter().map(|number| it.processor(*number).log());
            let owned: Vec<_> = logs.map(|log| partitions_started(&log)).collect();
            let distinct = owned.iter().flatten().collect::<BTreeSet<_>>().len();
            let all = distinct == partitions && owned.iter().flatten().count() == partitions;
            all.then_some(())
                .ok_or_else(|| format!("partitions by processor: {owned:?}"))
        })
        .await;
    }

    /// Tells whether a processor has partitions whose records flow.
    pub(crate) fn has_partitions(&self, number: usize) -> bool {
        !partitions_started(&self.processor(number).log()).is_empty()
    }

    /// Waits until the log of a processor holds a text.
    pub(crate) async fn wait_for_log(&mut self, number: usize, text: &str) {
        self.wait_until(text, async |it| {
            let found = it.processor(number).log().contains(text);
            found.then_some(()).ok_or("not in the log".to_owned())
        })
        .await;
    }

    /// Waits until at least one row meets an SQL condition.
    pub(crate) async fn wait_for_row(&mut self, condition: &str) {
        self.wait_until(condition, async |it| {
            let count = it.count(condition).await;
            (count > 0).then_some(()).ok_or("no such row".to_owned())
        })
        .await;
    }

    /// Says what must have become of the topic as it is now.
    pub(crate) fn replay(&self) -> Replayed {
        let results = self.path("replay.jsonl");
        let mut args = vec!["replay", "--from-kafka", "--json"];
        args.extend(["--kafka-brokers", &self.brokers]);
        let topic = self.own("in");
        args.extend(["--input-topic", &topic]);
        args.extend(["--model-dir", model_dir().to_str().unwrap()]);
        args.extend(["--results", results.to_str().unwrap()]);
        let mut command = logguard(self.dir.path());
        command.args(&args).envs(self.plan.settings.iter().copied());
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", output.status);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let number = |field: &str| report[field].as_u64().unwrap();
        Replayed {
            oracle: Oracle::read(&results),
            events: number("events"),
            letters: number("rejected") + number("late"),
        }
    }

    /// Waits until the group has committed all that can be: what is committed is durable.
    pub(crate) async fn wait_for_the_end(&mut self, oracle: &Oracle) {
        let expected = oracle.committed();
        self.wait_until("the end of the topic", async |it| {
            let committed = broker::committed(&it.brokers, &it.own("group"), &it.own("in"));
            let state = format!("committed {committed:?}, expected {expected:?}");
            (committed == expected).then_some(()).ok_or(state)
        })
        .await;
    }

    /// Waits for the end of the topic, stops all processors, and compares what is there with what
    /// must be.
    pub(crate) async fn finish(self) -> Figures {
        self.finish_with(ByClock::default()).await
    }

    /// The same, where the clock had a say.
    pub(crate) async fn finish_with(mut self, by_clock: ByClock) -> Figures {
        let Replayed {
            mut oracle,
            events,
            letters,
        } = self.replay();
        self.wait_for_the_end(&oracle).await;
        self.stop_all().await;
        let committed = broker::committed(&self.brokers, &self.own("group"), &self.own("in"));
        assert_eq!(committed, oracle.committed(), "a stop moves no offset");
        let tally = oracle.check_final(&self.outcome().await);
        assert_eq!(tally.by_clock, by_clock.rows, "rows that the clock decided");
        self.check_dead_letters(letters + by_clock.letters);
        let logged = |text| self.logs().map(|log| log.matches(text).count()).sum();
        Figures {
            started: self.started,
            assignments: logged("partitions assigned"),
            revocations: logged("partitions revoked"),
            events,
            tally,
        }
    }

    /// Stops all processors at once and waits until they have ended well.
    pub(crate) async fn stop_all(&mut self) {
        for number in self.numbers() {
            self.wait_until_up(number).await;
        }
        let processors = std::mem::take(&mut self.running);
        for (_, processor) in &processors {
            processor.terminate();
        }
        for (_, mut processor) in processors {
            processor.ends_well(STOPS_WITHIN).await;
        }
    }

    /// Gathers what the processors have left behind so far.
    pub(crate) async fn outcome(&self) -> Outcome {
        let out = self.own("out");
        let results = (self.brokers.as_str(), out.as_str());
        Outcome::gather(&self.client, results, &self.all_alarms()).await
    }

    /// Returns a file with what the alarm file and those rotated away from it hold.
    pub(crate) fn all_alarms(&self) -> PathBuf {
        let mut alarms = Vec::new();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("anomalies.log") && !name.ends_with(".lock") {
                alarms.extend(fs::read(entry.path()).unwrap());
            }
        }
        let file = self.path("all-alarms");
        fs::write(&file, alarms).unwrap();
        file
    }

    fn logs(&self) -> impl Iterator<Item = String> {
        let log = |number| self.path(&format!("processor-{number}.log"));
        (1..=self.started).map(move |number| fs::read_to_string(log(number)).unwrap_or_default())
    }

    /// Every record that is no event, and every one that came too late, is in the dead-letter
    /// topic; those read again after a crash may be there again.
    fn check_dead_letters(&self, expected: u64) {
        let mut letters = BTreeSet::new();
        for (_, text) in broker::read_topic(&self.brokers, &self.own("dlq")) {
            let letter: Value = serde_json::from_str(&text).unwrap();
            letters.insert((letter["partition"].as_i64(), letter["offset"].as_i64()));
        }
        assert_eq!(letters.len() as u64, expected, "dead letters: {letters:?}");
    }
}

/// Returns the partitions that a log says have started and were not revoked since.
fn partitions_started(log: &str) -> BTreeSet<String> {
    let mut started = BTreeSet::new();
    for line in log.lines() {
        if line.contains("partition starts") {
            started.extend(field(line, "partition=").map(str::to_owned));
        } else if line.contains("partitions revoked") {
            let (_, list) = line.split_once("partitions=[").unwrap_or_default();
            let (list, _) = list.split_once(']').unwrap_or_default();
            for gone in list.split(", ") {
                started.retain(|it| it.rsplit('/').next() != Some(gone));
            }
        }
    }
    started
}

/// Returns the value of a field in a line of a log.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(name)?;
    rest.split_whitespace().next()
}
