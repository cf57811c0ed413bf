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
const ROWS_BETWEEN_MAX: u64 = 24;
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
    takeovers: Vec<Duration>,
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
            takeovers: Vec::new(),
        })
    }

    /// Waits for a moment that the seed decides: a number of windows after the group has settled,
    /// or every third time soon, while it has not. Returns who is hit then.
    async fn next_victim(&mut self) -> Victim {
        let mut numbers = self.fleet.numbers();
        self.hits += 1;
        let at_work = self.hits % 3 > 0;
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

    /// Replaces the victim, which is gone since `hit`; if it was at work, once the others have
    /// taken over from it.
    async fn replace(&mut self, victim: &Victim, hit: Instant) {
        if victim.at_work {
            let others = self.fleet.numbers();
            self.fleet.wait_until_owned_by(&others).await;
            self.takeovers.push(hit.elapsed());
        }
        self.fleet.start();
    }

    async fn end(mut self, what: &str, times: usize) {
        self.flow.stop();
        let name = self.fleet.plan.name;
        self.takeovers.sort();
        let what = match (
            self.takeovers.get(self.takeovers.len() / 2),
            self.takeovers.last(),
        ) {
            (Some(median), Some(worst)) => {
                format!("{what} (taken over after {median:.1?}, at worst {worst:.1?})")
            }
            _ => what.to_owned(),
        };
        report(name, times, &what, self.fleet.finish().await);
    }
}

/// Who is hit next.
struct Victim {
    number: usize,
    /// The group has settled, and this one has partitions.
    at_work: bool,
}

async fn kill_again_and_again(plan: Plan, load: Load, kills: usize) {
    let Some(mut drill) = Drill::begin(plan, load).await else {
        return;
    };
    for _ in 0..kills {
        let victim = drill.next_victim().await;
        drill.fleet.kill(victim.number);
        drill.replace(&victim, Instant::now()).await;
    }
    drill.end("kills", kills).await;
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
    kill_again_and_again(plan, Load::default(), times(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn killed_under_the_broker_s_protocol() {
    let plan = Plan {
        name: "kills-kip848",
        settings: &[("LOGGUARD_KAFKA__GROUP_PROTOCOL", "consumer")],
        ..DEFAULT
    };
    kill_again_and_again(plan, Load::default(), times(5)).await;
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
    let Some(mut drill) = Drill::begin(plan, load).await else {
        return;
    };
    let stops = times(30);
    for _ in 0..stops {
        let victim = drill.next_victim().await;
        let mut processor = drill.fleet.take(victim.number);
        let hit = Instant::now();
        processor.terminate();
        drill.replace(&victim, hit).await;
        processor.ends_well(STOPS_WITHIN).await;
    }
    drill.end("stops", stops).await;
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
    drill.end("second signals", signals).await;
}
