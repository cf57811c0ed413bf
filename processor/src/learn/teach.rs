//! Learning a first model from the topic itself, on a thread of its own.
//!
//! ```text
//! look (event times, as they come) ─ enough ─► read it all again, in order of time ─► Lesson ─► Bundle
//!                                              ▲ the newest of it, if that is much ─┐
//!                                              └─── twice as far back, if too little ┘
//! ```
//!
//! The topic is the memory: while there is too little nothing is kept but which windows had lines, and
//! a learner that takes over from another begins where that one began. The model is the one that
//! `train --from-kafka` makes of the same records.

use std::{
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use fail::fail_point;

use super::{
    enough::Enough,
    progress::{Progress, Stage},
    suspicion::Suspicion,
};
use crate::{
    clock::Clock,
    config::Config,
    decode,
    event::EventTime,
    model::{Bundle, TrainError},
    source::{RawRecord, TimeRange, Timeline, TopicEvent, TopicReader},
    train::{Judgements, Lesson, Watching, read_topic},
};

/// Records of a topic's past that are learnt from: those written in the last day, if there are as many.
const PAST_MAX: Duration = Duration::from_secs(86_400);
/// Beyond so many records, which are minutes of reading, the newest have to do: as many as it takes
/// to cover the time asked for.
const RECORDS_MAX: u64 = 20_000_000;
/// How often new records are looked for while there are too few.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest sleep before looking whether to go on.
const SLEEP_SLICE: Duration = Duration::from_millis(50);

/// Learns a model for a first start as soon as there is enough; `None` if that was cancelled.
///
/// # Errors
/// Kafka cannot be read, or what was learnt makes no model however much there is.
pub(super) fn teach(
    config: &Config,
    asked: Duration,
    progress: &Progress,
) -> anyhow::Result<Option<Bundle>> {
    let since = before_now(PAST_MAX);
    let mut look = Look::begin(config, (asked, since))?;
    while look.until_enough(progress)?.is_continue() {
        fail_point!("learning.enough");
        match read(config, (asked, since), progress) {
            Ok(read) => return Ok(read),
            Err(error) => match error.downcast_ref::<TrainError>() {
                Some(TrainError::NoLines | TrainError::TooFewWindows { .. }) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "what there is does not make a model yet; waiting for more"
                    );
                    look.enough.ask_for_more(asked);
                }
                _ => return Err(error),
            },
        }
    }
    Ok(None)
}

/// Looks whether the topic holds enough, as its records come.
struct Look {
    reader: TopicReader,
    enough: Enough,
    told_empty: bool,
}

impl Look {
    fn begin(config: &Config, (asked, since): (Duration, EventTime)) -> anyhow::Result<Self> {
        let mut reader = TopicReader::open(&config.kafka, &config.kafka.input_topic)?;
        reader.skip_before(since)?;
        Ok(Self {
            reader,
            enough: Enough::of(asked, config.window.window_config().length_ms),
            told_empty: false,
        })
    }

    /// Breaks off if learning was cancelled.
    fn until_enough(&mut self, progress: &Progress) -> anyhow::Result<ControlFlow<()>> {
        while !self.enough.is_enough() {
            self.read(progress)?;
            self.tell(progress);
            if !self.enough.is_enough() {
                if sleep(LOOK_EVERY, progress).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                self.reader.read_on()?;
            }
        }
        Ok(progress.go_on())
    }

    /// Reads what is new, as far as it is needed.
    fn read(&mut self, progress: &Progress) -> anyhow::Result<()> {
        let enough = &mut self.enough;
        self.reader.read(&mut |event| {
            if let TopicEvent::Record { record, .. } = event
                && let Some(time) = event_time(record)
            {
                enough.add(time);
            }
            match enough.is_enough() {
                true => ControlFlow::Break(()),
                false => progress.go_on(),
            }
        })?;
        Ok(())
    }

    fn tell(&mut self, progress: &Progress) {
        let (covered, asked) = (self.enough.covered(), self.enough.asked());
        progress.set(Stage::Looking { covered, asked });
        if covered.is_zero() && !self.told_empty {
            self.told_empty = true;
            tracing::warn!(
                "the topic holds no log events of the last day; learning begins with the first ones"
            );
        }
    }
}

/// Returns the time of a record that would be counted.
fn event_time(record: RawRecord<'_>) -> Option<EventTime> {
    let decoded = decode::decode_record(record.payload, record.record_time).ok()?;
    let latest = record
        .record_time
        .map(|it| it.saturating_add(decode::FUTURE_MS_MAX));
    let time = decoded.event.time;
    latest.is_none_or(|latest| time <= latest).then_some(time)
}

/// What was read of a topic.
struct Heard {
    lesson: Lesson,
    suspicion: Suspicion,
    enough: Enough,
}

/// Learns from what the topic holds now; `None` if that was cancelled.
fn read(
    config: &Config,
    (asked, since): (Duration, EventTime),
    progress: &Progress,
) -> anyhow::Result<Option<Bundle>> {
    let mut timeline = open(config, since)?;
    let (mut span, mut from) = (asked.saturating_mul(2), since);
    let records = timeline.records_max();
    if records > records_max() {
        from = before_now(span).max(since);
        tracing::info!(records, since = %from, "more than is needed; reading the newest records");
        timeline = open(config, from)?;
    }
    loop {
        let Some(heard) = hear(config, &timeline, asked, progress)? else {
            return Ok(None);
        };
        if from <= since || heard.enough.is_enough() {
            return finish(heard, progress);
        }
        // The topic was quiet of late, and may stay so: there is nothing to wait for.
        span = span.saturating_mul(2);
        from = before_now(span).max(since);
        tracing::info!(
            since = %from,
            "the newest records do not cover the time asked for; reading further back"
        );
        timeline = open(config, from)?;
    }
}

/// Opens what was written since then.
fn open(config: &Config, since: EventTime) -> anyhow::Result<Timeline> {
    let since = TimeRange {
        since: Some(since),
        until: None,
    };
    let topic = &config.kafka.input_topic;
    Ok(Timeline::open(&config.kafka, topic, since)?)
}

/// Reads a stretch of the topic; `None` if that was cancelled.
fn hear(
    config: &Config,
    timeline: &Timeline,
    asked: Duration,
    progress: &Progress,
) -> anyhow::Result<Option<Heard>> {
    let total = timeline.records_max();
    let mut lesson = Lesson::begin(config, Judgements::default())?.for_first_start();
    let mut suspicion = Suspicion::default();
    let mut enough = Enough::of(asked, config.window.window_config().length_ms);
    let mut watching = Watching {
        closed: &mut |window| {
            suspicion.add(window);
            if window.content.lines() > 0 {
                enough.add(window.bounds.start);
            }
        },
        progress: &mut |passed| {
            progress.set(Stage::Reading { passed, total });
            progress.go_on()
        },
    };
    // The lines of the past may be of any time: what counts is when they were written.
    let read = read_topic(timeline, TimeRange::default(), &mut lesson, &mut watching)?;
    if read.stopped && progress.is_cancelled() {
        return Ok(None);
    }
    Ok(Some(Heard {
        lesson,
        suspicion,
        enough,
    }))
}

/// Makes a model of what was read; `None` if that was cancelled.
fn finish(heard: Heard, progress: &Progress) -> anyhow::Result<Option<Bundle>> {
    for spell in heard.suspicion.spells() {
        tracing::warn!(
            "there seems to be an incident in what the model learns from, and it will be taken for \
             usual: {spell}; train again later with `logguard train --from-kafka`"
        );
    }
    let finished = heard.lesson.finish_or_break(&mut |at| {
        let (windows, total) = (at.windows, at.total);
        progress.set(Stage::Calibrating { windows, total });
        progress.go_on()
    })?;
    Ok(finished.continue_value())
}

/// Returns how many records are read at once; tests have fewer.
fn records_max() -> u64 {
    fail_point!("learning.records_max", |records| {
        let records = records.and_then(|records| records.parse().ok());
        records.unwrap_or(RECORDS_MAX)
    });
    RECORDS_MAX
}

/// Returns the time so long ago.
fn before_now(ago: Duration) -> EventTime {
    let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
    EventTime::from(Clock::system().now()).saturating_add(-ago_ms)
}

/// Sleeps; breaks off when learning is cancelled.
fn sleep(time: Duration, progress: &Progress) -> ControlFlow<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        if progress.is_cancelled() {
            return ControlFlow::Break(());
        }
        thread::park_timeout(SLEEP_SLICE);
    }
    ControlFlow::Continue(())
}
