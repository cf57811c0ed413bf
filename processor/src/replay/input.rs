//! What a replay reads, once, whatever the number of models that judge it.

use std::ops::ControlFlow;

use super::{Observer, Side};
use crate::{
    cli::ReplayArgs,
    config::Config,
    evaluate::RunTotals,
    event::EventTime,
    files::{parse_time, read_events},
    progress::CountBar,
    source::{TopicEvent, TopicReader, file::ReadOptions},
};

/// The partition that the lines of files are taken for.
const FILE_PARTITION: i32 = 0;

/// What is read.
pub(super) enum Input<'a> {
    /// Files, one after the other.
    Files(&'a ReplayArgs, Option<EventTime>),
    /// A topic from its beginning to its present end.
    Topic(TopicReader),
}

impl<'a> Input<'a> {
    /// Opens what `args` name.
    pub(super) fn open(config: &Config, args: &'a ReplayArgs) -> anyhow::Result<Self> {
        if !args.from_kafka {
            let since = args.since.as_deref().map(parse_time).transpose()?;
            return Ok(Self::Files(args, since));
        }
        let reader = TopicReader::open(&config.kafka, &config.kafka.input_topic)?;
        Ok(Self::Topic(reader))
    }

    /// Returns how many partitions it has.
    pub(super) fn partitions(&self) -> usize {
        match self {
            Self::Files(..) => 1,
            Self::Topic(reader) => reader.partitions().len(),
        }
    }

    /// Returns its name, for a person.
    pub(super) fn name(&self, config: &Config) -> String {
        match self {
            Self::Topic(_) => format!("topic {}", config.kafka.input_topic),
            Self::Files(args, _) => {
                let names = args.input.iter().map(|path| path.display().to_string());
                names.collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// Hands everything to all `sides`, and what closes to `observer`.
    pub(super) fn read(
        self,
        config: &Config,
        sides: &mut [Side<'_>],
        observer: &mut dyn Observer,
    ) -> anyhow::Result<RunTotals> {
        match self {
            Self::Files(args, since) => read_files(config, (args, since), sides, observer),
            Self::Topic(reader) => read_topic(config, &reader, sides, observer),
        }
    }
}

fn read_files(
    config: &Config,
    (args, since): (&ReplayArgs, Option<EventTime>),
    sides: &mut [Side<'_>],
    observer: &mut dyn Observer,
) -> anyhow::Result<RunTotals> {
    let mut events = 0;
    for side in &mut *sides {
        side.start(FILE_PARTITION, false);
    }
    let options = ReadOptions {
        label_column: args.label_column.clone(),
        ..ReadOptions::default()
    };
    let lateness_ms = i64::from(config.window.lateness_ms);
    let read = read_events(&args.input, &options, lateness_ms, &mut |item| {
        if since.is_some_and(|since| item.event.time < since) {
            return Ok(());
        }
        events += 1;
        let mut counted = true;
        for side in &mut *sides {
            counted = side.event(FILE_PARTITION, &item.event, item.offset);
        }
        observer.closed(sides)?;
        if let Some(name) = item.anomaly_type.filter(|_| counted) {
            observer.anomaly_type(item.event.time, name);
        }
        Ok(())
    })?;
    for side in &mut *sides {
        side.end(FILE_PARTITION);
    }
    observer.closed(sides)?;
    let totals = sides[0].totals;
    Ok(RunTotals {
        events,
        rejected: totals.rejected + read.rejected_count(),
        ..totals
    })
}

fn read_topic(
    config: &Config,
    reader: &TopicReader,
    sides: &mut [Side<'_>],
    observer: &mut dyn Observer,
) -> anyhow::Result<RunTotals> {
    for span in reader.partitions() {
        for side in &mut *sides {
            side.start(span.partition, false);
        }
    }
    let bar = CountBar::new(&config.kafka.input_topic, reader.records_max());
    let (mut failure, mut records) = (None, 0);
    reader.read(&mut |event| {
        match event {
            TopicEvent::Truncated { partition, next } => {
                tracing::warn!(partition, offset = next.0, "earlier records are gone");
                for side in &mut *sides {
                    side.end(partition);
                    side.start(partition, true);
                }
            }
            TopicEvent::Record { partition, record } => {
                records += 1;
                for side in &mut *sides {
                    side.record(partition, record);
                }
            }
            TopicEvent::Progress { passed } => bar.set(passed),
            TopicEvent::PartitionEnd { partition } => {
                for side in &mut *sides {
                    side.end(partition);
                }
            }
        }
        match observer.closed(sides) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    drop(bar);
    if let Some(error) = failure {
        return Err(error);
    }
    let totals = sides[0].totals;
    Ok(RunTotals {
        // What could not be decoded is no event; what came late is one.
        events: records - totals.rejected,
        ..totals
    })
}
