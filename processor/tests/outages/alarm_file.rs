//! An alarm file that is full, moved away or deleted, and several processors that share one and
//! die or stop in the midst of an append.

use std::{
    fs::{self, File, TryLockError},
    path::Path,
    process::Command,
    time::Duration,
};

use crate::{
    LOAD,
    fleet::{Fleet, Plan, STOPS_WITHIN},
    flow::Flow,
    probe::metric,
    program::Running,
    store::wait_for_metric,
};

const PARTITIONS: usize = 4;
const FILE: &str = "anomalies.log";
/// Not on every user's path.
const LOGROTATE: &str = "/usr/sbin/logrotate";
const ALARM_FILE: &[&str] = &["\"alarm_file\""];
/// A lock seen held so often in a row is held for long.
const LOOKS: usize = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

async fn prepare(name: &'static str) -> Option<(Fleet, Flow)> {
    prepare_with(name, &[]).await
}

async fn prepare_with(
    name: &'static str,
    settings: &'static [(&'static str, &'static str)],
) -> Option<(Fleet, Flow)> {
    let plan = Plan {
        name,
        partitions: PARTITIONS,
        settings,
    };
    let fleet = Fleet::prepare(plan).await?;
    let flow = fleet.flow(LOAD);
    Some((fleet, flow))
}

/// Returns how many alarms there are, in the file and in those moved away.
fn alarms(fleet: &Fleet) -> usize {
    let text = fs::read_to_string(fleet.all_alarms()).unwrap();
    text.matches("ANOMALY DETECTED").count()
}

async fn wait_for_alarms(fleet: &mut Fleet, more: usize) {
    let enough = alarms(fleet) + more;
    fleet
        .wait_until("more alarms", async |it| {
            let count = alarms(it);
            (count >= enough)
                .then_some(())
                .ok_or(format!("{count} of {enough}"))
        })
        .await;
}

/// Limits the size of every file that the process writes, as a full disk would; `unlimited` lifts
/// the limit.
fn limit_files(processor: &Running, bytes: &str) {
    let mut command = Command::new("prlimit");
    command.arg(format!("--pid={}", processor.id()));
    let status = command.arg(format!("--fsize={bytes}:unlimited")).status();
    assert!(status.unwrap().success(), "{command:?}");
}

/// Has logrotate (the real one) rotate the file.
fn rotate(fleet: &Fleet, directives: &str) {
    let conf = fleet.path("logrotate.conf");
    let file = fleet.path(FILE);
    let text = format!("\"{}\" {{\nrotate 50\n{directives}\n}}\n", file.display());
    fs::write(&conf, text).unwrap();
    let mut command = Command::new(LOGROTATE);
    command
        .arg("-f")
        .arg("-s")
        .arg(fleet.path("logrotate.state"));
    let output = command.arg(&conf).output().unwrap_or_else(|error| {
        panic!("logrotate (a Debian package) cannot be run: {error}");
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(fleet.path("anomalies.log.1").exists(), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_full_disk_holds_up_alarms_and_no_row() {
    let Some((mut fleet, flow)) = prepare("disk-full").await else {
        return;
    };
    let number = fleet.start();
    wait_for_alarms(&mut fleet, 2).await;
    // Within the first words of the next alarm. Its own log is cut off as well, and it lives.
    let size = fs::metadata(fleet.path(FILE)).unwrap().len();
    limit_files(fleet.processor(number), &format!("{}", size + 30));
    let retries = ("logguard_sink_retries_total", ALARM_FILE);
    wait_for_metric(&mut fleet, number, retries, |it| it >= 2.0).await;
    wait_for_metric(&mut fleet, number, ("logguard_sink_up", ALARM_FILE), |it| {
        it == 0.0
    })
    .await;
    let held_up = alarms(&fleet);
    fleet.wait_for_rows(20).await;
    assert_eq!(alarms(&fleet), held_up, "no room, and yet an alarm");
    limit_files(fleet.processor(number), "unlimited");
    wait_for_metric(&mut fleet, number, ("logguard_sink_up", ALARM_FILE), |it| {
        it == 1.0
    })
    .await;
    flow.stop();
    println!("disk-full: {}", fleet.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rotation_and_deletion_under_two_processors_repeat_and_lose_no_alarm() {
    const ROUNDS: usize = 6;
    // An early alarm is as old as its window when that is done: rotated twice meanwhile, which here takes
    // a second, it comes again after a death. Across files alarms come at least once.
    let late = &[("LOGGUARD_MODEL__EARLY_ALARMS", "false")];
    let Some((mut fleet, flow)) = prepare_with("rotation", late).await else {
        return;
    };
    let processors = [fleet.start(), fleet.start()];
    wait_for_alarms(&mut fleet, 1).await;
    for round in 0..ROUNDS {
        match round % 3 {
            // They find out by themselves.
            0 => rotate(&fleet, "create 0644"),
            1 => {
                rotate(&fleet, "nocreate");
                for number in processors {
                    fleet.processor(number).hang_up();
                }
            }
            // A second name, so that what was in the file can be told in the end.
            _ => {
                let kept = fleet.path(&format!("{FILE}~{round}"));
                fs::hard_link(fleet.path(FILE), kept).unwrap();
                fs::remove_file(fleet.path(FILE)).unwrap();
            }
        }
        wait_for_alarms(&mut fleet, 2).await;
    }
    // The next owner of its partitions has an empty file, and the one rotated just before.
    rotate(&fleet, "nocreate");
    fleet.kill(processors[0]);
    fleet.start();
    wait_for_alarms(&mut fleet, 2).await;
    flow.stop();
    println!("rotation: {ROUNDS} rounds, {}", fleet.finish().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_alarm_rotated_away_before_its_commit_does_not_come_again() {
    let Some((mut fleet, flow)) = prepare("rotation-commit").await else {
        return;
    };
    let first = fleet.start_with(&[("LOGGUARD_KAFKA__COMMIT_INTERVAL_MS", "60000")]);
    wait_for_alarms(&mut fleet, 5).await;
    fleet.kill(first);
    let before = alarms(&fleet);
    rotate(&fleet, "nocreate");
    let second = fleet.start();
    let known = ("logguard_alarms_known_total", &[][..]);
    wait_for_metric(&mut fleet, second, known, |it| it >= before as f64).await;
    flow.stop();
    println!(
        "rotation-commit: {before} alarms before, {}",
        fleet.finish().await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_death_inside_an_append_is_repaired_by_those_who_share_the_file() {
    let Some((mut fleet, flow)) = prepare("torn").await else {
        return;
    };
    let number = fleet.start_with(&[("FAILPOINTS", "alarm_file.torn=return")]);
    // Room for an alarm or two, and a part of the next.
    limit_files(fleet.processor(number), "700");
    let mut dying = fleet.take(number);
    assert_eq!(dying.ends(STOPS_WITHIN).await, None, "{}", dying.log_tail());
    let torn = fs::read_to_string(fleet.path(FILE)).unwrap();
    assert!(torn.len() == 700 && !torn.ends_with('\n'), "{torn}");
    let others = [fleet.start(), fleet.start()];
    wait_for_alarms(&mut fleet, 5).await;
    let repaired = |number| {
        let processor = fleet.processor(number);
        metric(processor, "logguard_alarm_tails_repaired_total", &[])
    };
    assert_eq!(others.map(repaired).iter().sum::<f64>(), 1.0);
    flow.stop();
    println!("torn: {}", fleet.finish().await);
}

/// Waits until somebody holds the lock for longer than an append takes.
async fn wait_for_a_long_hold(fleet: &mut Fleet, lock: &Path) {
    fleet
        .wait_until("a lock held for long", async |_| {
            for _ in 0..LOOKS {
                let file = File::open(lock).map_err(|error| error.to_string())?;
                match file.try_lock() {
                    Err(TryLockError::WouldBlock) => {}
                    other => return Err(format!("the lock is free: {other:?}")),
                }
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
            Ok(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stopped_holder_of_the_lock_holds_up_nobody_for_long() {
    let Some((mut fleet, flow)) = prepare("lock-holder").await else {
        return;
    };
    let held = "alarm_file.locked=2*off->1*sleep(4000)->off";
    let holder = fleet.start_with(&[("FAILPOINTS", held)]);
    let other = fleet.start();
    let lock = fleet.path("anomalies.log.lock");
    wait_for_a_long_hold(&mut fleet, &lock).await;
    fleet.processor(holder).pause();
    // The other one takes over its partitions and appends without the lock.
    let unlocked = ("logguard_alarms_unlocked_total", &[][..]);
    wait_for_metric(&mut fleet, other, unlocked, |it| it >= 1.0).await;
    fleet.wait_for_rows(40).await;
    fleet.processor(holder).resume();
    fleet.wait_for_rows(20).await;
    flow.stop();
    println!("lock-holder: {}", fleet.finish().await);
}
