//! A peer on the same topic: Kafka Streams counting lines and errors per window, and nothing else.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use crate::{consume::Drained, drain::fresh_topic, processor::Setup, usage::Usage};

/// No drain takes longer.
const WITHIN: Duration = Duration::from_secs(600);

/// Drains the topic with Kafka Streams (`benches/peers/streams`, which prints `records N` now and
/// then).
pub(crate) fn streams(setup: &Setup, classpath: &str, topic: &str, events: u64) -> Result<Drained> {
    let state = setup.dir.join(fresh_topic("streams-state"));
    let mut child = Command::new("java")
        .args(["-Xmx400m", "-cp", classpath, "logguard.peers.WindowedCount"])
        .args([&setup.brokers, topic, &fresh_topic("streams")])
        .arg(&state)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut lines = child
        .stdout
        .take()
        .map(BufReader::new)
        .into_iter()
        .flat_map(BufRead::lines);
    let mut first = None;
    let deadline = Instant::now() + WITHIN;
    let drained = loop {
        let Some(line) = lines.next() else {
            bail!("Kafka Streams ended before it had read the topic");
        };
        let count: u64 = line?.trim_start_matches("records ").parse()?;
        let now = Instant::now();
        let (started, before) = *first.get_or_insert((now, count));
        ensure!(now < deadline, "Kafka Streams takes longer than {WITHIN:?}");
        if count >= events {
            #[allow(clippy::cast_precision_loss, reason = "millions")]
            let share = events as f64 / events.saturating_sub(before).max(1) as f64;
            break Drained {
                events,
                seconds: (now - started).as_secs_f64() * share,
                usage: Usage::of(child.id())?,
            };
        }
    };
    child.kill()?;
    child.wait()?;
    Ok(drained)
}
