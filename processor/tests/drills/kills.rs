//! Processors that end at any moment: by kill -9, by SIGTERM, by a second SIGTERM.

use std::time::{Duration, Instant};

use crate::{
    fleet::{Fleet, Plan, STOPS_WITHIN},
    flow::{Flow, Load, Random},
    report, times,
};

const PARTITIONS: usize = 4;
/// Members at a time.
const MEMBERS: usize = 3;
/// Final windows between two mishaps, at most.
const ROWS_BETWEEN_MAX: u64 = 12;
/// Sometimes the next one comes this soon instead: while the group still settles.
const SOON_MS_MAX: u64 = 600;
/// Exit code after a second signal.
const SECOND_SIGNAL: i32 = 130;

/// The default way to share out partitions.
const DEFAULT: Plan = Plan {
    name: "kills",
    partitions: PARTITIONS,
    settings: &[],
};

/// A fleet at work while lines come.
struct Drill {
    fleet: Fleet,
    flow: Flow,
    random: Random,
    hits: usize,
}

impl Drill {
    async fn begin(plan: Plan, load: Load) -> Option<Self> {
        let mut fleet = Fleet::prepare(plan).await?;
        let flow = fleet.flow(load);
        for _ in 0..MEMBERS {
            fleet.start();
        }
        fleet.wait_for_rows(1).await;
        let random = Random::new(load.seed);
        Some(Self {
            fleet,
            flow,
            random,
            hits: 0,
        })
    }

    /// Waits for a moment that the seed decides: a number of windows after the group has settled,
    /// or every third time soon, while it has not. Returns who is hit then.
    async fn next_victim(&mut self) -> Victim {
        let mut numbers = self.fleet.numbers();
        self.hits += 1;
        let at_work = !self.hits.is_multiple_of(3);
        if at_work {
            self.fleet.wait_until_owned_by(&numbers).await;
            let rows = 1 + self.random.below(ROWS_BETWEEN_MAX);
            self.fleet.wait_for_rows(rows).await;
            // All of them may be on the move again.
            if numbers.iter().any(|it| self.fleet.has_partitions(*it)) {
                numbers.retain(|it| self.fleet.has_partitions(*it));
            }
        } else {
            let soon = Duration::from_millis(self.random.below(SOON_MS_MAX));
            tokio::time::sleep(soon).await;
        }
        let number = numbers[self.random.index(numbers.len())];
        Victim { number, at_work }
    }

    /// Kills processors at such moments and replaces them; returns how that went.
    async fn kill(&mut self, times: usize) -> String {
        let mut takeovers = Vec::new();
        for _ in 0..times {
            let victim = self.next_victim().await;
            let hit = Instant::now();
            self.fleet.kill(victim.number);
            takeovers.extend(self.replace(&victim, hit).await);
        }
        summary(times, "kills", takeovers)
    }

    /// The same, asking them to stop.
    async fn stop(&mut self, times: usize) -> String {
        let mut takeovers = Vec::new();
        for _ in 0..times {
            let victim = self.next_victim().await;
            self.fleet.wait_until_up(victim.number).await;
            let hit = Instant::now();
            let mut processor = self.fleet.take(victim.number);
            processor.terminate();
            takeovers.extend(self.replace(&victim, hit).await);
            processor.ends_well(STOPS_WITHIN).await;
        }
        summary(times, "stops", takeovers)
    }

    /// Replaces the victim; if it was at work, once the others have taken over from it, and returns
    /// how long that took.
    async fn replace(&mut self, victim: &Victim, hit: Instant) -> Option<Duration> {
        let mut takeover = None;
        if victim.at_work {
            let others = self.fleet.numbers();
            self.fleet.wait_until_owned_by(&others).await;
            takeover = Some(hit.elapsed());
        }
        self.fleet.start();
        takeover
    }

    async fn end(self, what: &str) {
        self.flow.stop();
        let name = self.fleet.plan.name;
        report(name, what, self.fleet.finish().await);
    }
}

fn summary(times: usize, what: &str, mut takeovers: Vec<Duration>) -> String {
    takeovers.sort();
    match (takeovers.get(takeovers.len() / 2), takeovers.last()) {
        (Some(median), Some(worst)) => {
            format!("{times} {what} (taken over after {median:.1?}, at worst {worst:.1?})")
        }
        _ => format!("{times} {what}"),
    }
}

/// Who is hit next.
struct Victim {
    number: usize,
    /// The group has settled, and this one has partitions.
    at_work: bool,
}

async fn kill_again_and_again(plan: Plan, load: Load, kills: usize) {
    if let Some(mut drill) = Drill::begin(plan, load).await {
        let killed = drill.kill(kills).await;
        drill.end(&killed).await;
    }
}

async fn kill_and_stop(plan: Plan, load: Load) {
    if let Some(mut drill) = Drill::begin(plan, load).await {
        let killed = drill.kill(times(5)).await;
        let stopped = drill.stop(times(2)).await;
        drill.end(&format!("{killed}, {stopped}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn killed_at_any_moment() {
    kill_again_and_again(DEFAULT, Load::default(), times(30)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn killed_under_cooperative_sticky() {
    let plan = Plan {
        name: "kills-sticky",
        settings: &[("LOGGUARD_KAFKA__ASSIGNMENT_STRATEGY", "cooperative-sticky")],
        ..DEFAULT
    };
    kill_and_stop(plan, Load::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn killed_under_the_broker_s_protocol() {
    let plan = Plan {
        name: "kills-kip848",
        settings: &[("LOGGUARD_KAFKA__GROUP_PROTOCOL", "consumer")],
        ..DEFAULT
    };
    kill_and_stop(plan, Load::default()).await;
}

/// Lines out of order around the ends of windows, some too late: they are as late after a kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn killed_while_lines_are_out_of_order() {
    let plan = Plan {
        name: "kills-disorder",
        ..DEFAULT
    };
    let load = Load {
        seed: 13,
        disorder: true,
        ..Load::default()
    };
    kill_again_and_again(plan, load, times(8)).await;
}

/// With several seconds between commits, much that was late or scored is read again, by service,
/// so that each has its own rolling baseline.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn killed_between_two_commits() {
    let plan = Plan {
        name: "kills-commits",
        settings: &[
            ("LOGGUARD_KAFKA__COMMIT_INTERVAL_MS", "4000"),
            ("LOGGUARD_WINDOW__GROUP_BY", "service"),
        ],
        ..DEFAULT
    };
    let load = Load {
        seed: 14,
        disorder: true,
        ..Load::default()
    };
    kill_again_and_again(plan, load, times(8)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn stopped_at_any_moment() {
    let plan = Plan {
        name: "stops",
        ..DEFAULT
    };
    let load = Load {
        seed: 15,
        ..Load::default()
    };
    if let Some(mut drill) = Drill::begin(plan, load).await {
        let stopped = drill.stop(times(30)).await;
        drill.end(&stopped).await;
    }
}

/// A second signal ends a processor in the midst of its orderly stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_second_signal_ends_at_once() {
    let plan = Plan {
        name: "signals",
        ..DEFAULT
    };
    let load = Load {
        seed: 16,
        ..Load::default()
    };
    let Some(mut drill) = Drill::begin(plan, load).await else {
        return;
    };
    let (signals, mut at_once) = (times(8), 0);
    for _ in 0..signals {
        let victim = drill.next_victim().await;
        drill.fleet.wait_until_up(victim.number).await;
        let mut processor = drill.fleet.take(victim.number);
        processor.terminate();
        let moment = Duration::from_millis(drill.random.below(60));
        tokio::time::sleep(moment).await;
        processor.terminate();
        let code = processor.ends(STOPS_WITHIN).await;
        // Those that were quick had stopped already.
        assert!([Some(SECOND_SIGNAL), Some(0)].contains(&code), "{code:?}");
        at_once += usize::from(code == Some(SECOND_SIGNAL));
        drill.fleet.start();
    }
    assert!(at_once > 0, "no second signal came in time");
    drill.end(&format!("{signals} second signals")).await;
}
