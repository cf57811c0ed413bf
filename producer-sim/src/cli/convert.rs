//! From flags to jobs.

use std::{net::SocketAddr, time::Duration};

use super::args::{BrokerArgs, Cli, Command, GenerateArgs, Key, RunArgs};
use crate::{
    broker::Topic,
    generate,
    generator::{MICROS_PER_SECOND, Scenario, Settings},
    run::{self, kafka::KafkaSettings},
};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub enum Task {
    /// Produce to Kafka.
    Run(run::Job),
    /// Write a file.
    Generate(generate::Job),
    /// Hold the broker.
    Broker {
        /// Address to listen on.
        listen: SocketAddr,
        /// Topics to create.
        topics: Vec<Topic>,
    },
}

impl From<Cli> for Task {
    fn from(cli: Cli) -> Self {
        match cli.command {
            None => Self::Run(run_job(cli.run)),
            Some(Command::Run(args)) => Self::Run(run_job(args)),
            Some(Command::Generate(args)) => Self::Generate(generate_job(args)),
            Some(Command::Broker(BrokerArgs { listen, topics })) => Self::Broker { listen, topics },
        }
    }
}

fn run_job(args: RunArgs) -> run::Job {
    run::Job {
        settings: Settings {
            seed: args.seed.unwrap_or_else(rand::random),
            rate_per_s: args.rate,
            anomaly_prob: args.anomaly_prob,
            start_us: 0,
            first_incident_after_us: args.first_incident_after.map(|after| micros(*after)),
            scenario: Scenario::Standard,
        },
        kafka: KafkaSettings {
            brokers: args.kafka_brokers,
            topic: args.topic,
            key_by_service: args.key == Key::Service,
            properties: args.properties,
        },
        events: args.events,
        duration: args.duration.map(Into::into),
        truth: args.truth,
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the flag allows ten years at most"
)]
fn generate_job(args: GenerateArgs) -> generate::Job {
    const DAY_US: f64 = 86_400e6;
    let span_us = args
        .duration
        .map_or((args.days * DAY_US).round() as i64, |duration| {
            micros(*duration)
        });
    let scenario = if args.hard {
        Scenario::Hard { span_us }
    } else {
        Scenario::Standard
    };
    generate::Job {
        settings: Settings {
            seed: args.seed,
            rate_per_s: args.rate,
            anomaly_prob: args.anomaly_prob,
            start_us: args.start.timestamp_micros(),
            first_incident_after_us: args.first_incident_after.map(|after| micros(*after)),
            scenario,
        },
        span_us,
        out: args.out,
        truth: args.truth,
    }
}

/// Converts to microseconds, at most a century.
fn micros(duration: Duration) -> i64 {
    const CENTURY_US: i64 = 36_525 * 86_400 * MICROS_PER_SECOND;
    i64::try_from(duration.as_micros()).map_or(CENTURY_US, |us| us.min(CENTURY_US))
}
