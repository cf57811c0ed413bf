//! The alarm file: what its lines look like, and what several writers, rotation, torn ends and a
//! full disk do to it.
#![allow(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "tests fail by panicking"
)]

mod common;
#[path = "common/sinks.rs"]
mod sinks;
#[path = "common/windows.rs"]
mod windows;

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use chrono::{TimeZone, Utc};
use expect_test::{Expect, expect};
use logguard::{
    event::Level,
    sink::{
        SinkLabel, SinksConfig,
        alarm_file::{AlarmFileConfig, format_alarm},
    },
    window::FinalBy,
};
use sinks::{Harness, until};
use windows::{Spec, job};

fn anomaly() -> Spec {
    Spec {
        is_anomaly: true,
        score: 0.8731,
        lines: vec![
            (Level::Error, "Connection refused to 10.0.0.1", None),
            (Level::Fatal, "Out of memory", None),
            (Level::Info, "fine", None),
        ],
        ..Spec::default()
    }
}

fn window(window: i64) -> Spec {
    Spec {
        window,
        lines: vec![(Level::Error, "boom", None)],
        ..anomaly()
    }
}

fn text(spec: &Spec) -> String {
    let job = job(spec);
    let now = Utc.with_ymd_and_hms(2025, 12, 27, 10, 30, 31).unwrap();
    format_alarm(&job.scored, job.stale, now)
}

fn check(spec: &Spec, expected: &Expect) {
    expected.assert_eq(&text(spec));
}

/// Starts sinks without a store, with the alarm file at `path`.
fn start(path: &Path) -> Harness {
    let config = SinksConfig {
        alarm_file: AlarmFileConfig {
            path: path.to_owned(),
        },
        ..SinksConfig::default()
    };
    Harness::start_with(None, config)
}

/// A directory and the path of an alarm file in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("anomalies.log");
    (dir, path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// What the file holds once these windows are written to it by a fresh process.
async fn written(path: &Path, specs: &[Spec]) -> String {
    let mut harness = start(path);
    harness.write(specs.iter().map(job).collect()).await;
    assert!(harness.close().await.is_complete());
    read(path)
}

#[test]
fn a_line_has_the_form_of_the_contract() {
    check(
        &anomaly(),
        &expect![[r#"
            2025-12-27 10:30:31 | WARNING | ANOMALY DETECTED | Score: 0.873 | Window: 2025-12-27T10:30:00.000Z to 2025-12-27T10:30:30.000Z | Logs: 3 | Errors: 1 (33.3%) | Critical: 2 | Stream: log-events/0 | Alarm: 56ed47c287c57407
            2025-12-27 10:30:31 | WARNING |   Sample Error 1: Connection refused to 10.0.0.1
            2025-12-27 10:30:31 | WARNING |   Sample Error 2: Out of memory
        "#]],
    );
}

#[test]
fn stream_staleness_and_reasons_follow() {
    let spec = Spec {
        service: Some("auth-service"),
        stale: true,
        reasons: vec![
            "template never seen",
            "errors 9 (usual 0-2)",
            "third",
            "fourth",
        ],
        lines: vec![],
        ..anomaly()
    };
    check(
        &spec,
        &expect![[r#"
            2025-12-27 10:30:31 | WARNING | ANOMALY DETECTED | Score: 0.873 | Window: 2025-12-27T10:30:00.000Z to 2025-12-27T10:30:30.000Z | Logs: 0 | Errors: 0 (0.0%) | Critical: 0 | Stream: log-events/0/auth-service | Alarm: a0bdda510a8a41fd | Stale: yes | Why: template never seen; errors 9 (usual 0-2); third
        "#]],
    );
}

#[test]
fn no_text_forges_a_line_or_a_field() {
    let spec = Spec {
        service: Some("a | Stream: x\nb"),
        reasons: vec!["r\r\n2025-12-27 10:30:31 | WARNING | ANOMALY DETECTED | Score: 1"],
        lines: vec![
            (
                Level::Error,
                "x\n2025-12-27 10:30:31 | WARNING | ANOMALY DETECTED | Score: 9",
                None,
            ),
            (
                Level::Error,
                "tab\t nul\0 esc\u{1b}[31m nel\u{85} ls\u{2028} rtl\u{202e} \\n | é",
                None,
            ),
        ],
        ..anomaly()
    };
    check(
        &spec,
        &expect![[r#"
            2025-12-27 10:30:31 | WARNING | ANOMALY DETECTED | Score: 0.873 | Window: 2025-12-27T10:30:00.000Z to 2025-12-27T10:30:30.000Z | Logs: 2 | Errors: 2 (100.0%) | Critical: 2 | Stream: log-events/0/a \u{7c} Stream: x\nb | Alarm: 6e6b86654e9f9e80 | Why: r\r\n2025-12-27 10:30:31 \u{7c} WARNING \u{7c} ANOMALY DETECTED \u{7c} Score: 1
            2025-12-27 10:30:31 | WARNING |   Sample Error 1: x\n2025-12-27 10:30:31 | WARNING | ANOMALY DETECTED | Score: 9
            2025-12-27 10:30:31 | WARNING |   Sample Error 2: tab\t nul\u{0} esc\u{1b}[31m nel\u{85} ls\u{2028} rtl\u{202e} \n | é
        "#]],
    );
}

#[tokio::test]
async fn anomalies_that_are_final_are_appended_once() {
    let (dir, _) = place();
    let path = dir.path().join("a/b/anomalies.log");
    let mut harness = start(&path);
    let (one, two) = (window(0), window(1));
    let normal = Spec {
        window: 2,
        ..Spec::default()
    };
    let open = Spec {
        final_by: FinalBy::Open,
        ..window(3)
    };
    for (spec, acks) in [(&one, 2), (&normal, 1), (&open, 1)] {
        assert_eq!(harness.sinks.acks_per_window(&job(spec)), acks);
    }
    harness
        .write([&one, &normal, &two, &open, &one].map(job).into())
        .await;
    assert_eq!(harness.metrics.alarms_known.get(), 1);
    assert!(harness.close().await.is_complete());
    let expected = text(&one) + &text(&two);
    assert_eq!(read(&path), expected);
    // After a restart as well, and for streams whose name has to be escaped.
    let odd = Spec {
        service: Some("a | b\nc"),
        ..window(4)
    };
    assert_eq!(
        written(&path, &[one.clone(), odd.clone()]).await,
        expected.clone() + &text(&odd)
    );
    assert_eq!(
        written(&path, &[odd.clone(), two]).await,
        expected + &text(&odd)
    );
}

#[tokio::test]
async fn a_torn_end_of_ours_is_cut_off_and_the_alarm_comes_again() {
    let (one, two) = (text(&window(0)), text(&window(1)));
    let head = two.find('\n').unwrap() + 1;
    // Cut anywhere but at the end of its first line, which leaves an alarm without its sample.
    for cut in (1..two.len()).filter(|cut| *cut != head) {
        if cut % 23 != 0 && cut.abs_diff(head) > 2 {
            continue;
        }
        let (_dir, path) = place();
        fs::write(&path, format!("{one}{}", &two[..cut])).unwrap();
        let found = written(&path, &[window(0), window(1)]).await;
        let heads = found.matches("ANOMALY DETECTED").count();
        assert_eq!(heads, 2, "cut at {cut}: {found}");
        assert!(
            found.starts_with(&one) && found.ends_with('\n'),
            "cut at {cut}: {found}"
        );
        // A line of samples torn before it shows what it is costs that line at most.
        let sample_unknown =
            (head..head + "2025-12-27 10:30:31 | WARNING | ".len() + 1).contains(&cut);
        if !sample_unknown {
            assert_eq!(found, format!("{one}{two}"), "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn a_torn_end_of_others_is_kept_and_closed() {
    let (_dir, path) = place();
    fs::write(&path, "someone was here").unwrap();
    let found = written(&path, &[window(0)]).await;
    assert_eq!(found, format!("someone was here\n{}", text(&window(0))));
}

#[tokio::test]
async fn rotation_deletion_and_truncation_are_followed() {
    let (dir, path) = place();
    let mut harness = start(&path);
    harness.write(vec![job(&window(0))]).await;
    let rotated = dir.path().join("anomalies.log.1");
    fs::rename(&path, &rotated).unwrap();
    // Another process wrote to it just before it was moved.
    let mut other = fs::OpenOptions::new().append(true).open(&rotated).unwrap();
    other.write_all(text(&window(1)).as_bytes()).unwrap();
    harness
        .write([0, 1, 2].map(|it| job(&window(it))).into())
        .await;
    assert_eq!(read(&path), text(&window(2)));
    fs::remove_file(&path).unwrap();
    harness.write(vec![job(&window(3))]).await;
    assert_eq!(read(&path), text(&window(3)));
    fs::write(&path, "").unwrap();
    harness
        .write([3, 4].map(|it| job(&window(it))).into())
        .await;
    assert_eq!(read(&path), text(&window(4)));
    assert!(harness.close().await.is_complete());
    // A new process reads the file rotated last.
    let found = written(&path, &[window(0), window(1), window(5)]).await;
    assert_eq!(found, text(&window(4)) + &text(&window(5)));
}

#[tokio::test]
async fn a_reopened_file_is_opened_by_its_name() {
    let (dir, path) = place();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    symlink(&old, &path).unwrap();
    let mut harness = start(&path);
    harness.write(vec![job(&window(0))]).await;
    fs::remove_file(&path).unwrap();
    symlink(&new, &path).unwrap();
    harness.running.reopen().request();
    harness.write(vec![job(&window(1))]).await;
    assert_eq!(
        (read(&old), read(&new)),
        (text(&window(0)), text(&window(1)))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_at_once_write_each_alarm_once() {
    const WINDOWS: i64 = 60;
    let (_dir, path) = place();
    let (mut one, mut other) = (start(&path), start(&path));
    // One after the other, so that the writers take turns; in opposite order, so that they meet.
    let forward = async {
        for it in 0..WINDOWS {
            one.write(vec![job(&window(it))]).await;
        }
    };
    let backward = async {
        for it in (0..WINDOWS).rev() {
            other.write(vec![job(&window(it))]).await;
        }
    };
    tokio::join!(forward, backward);
    let known = one.metrics.alarms_known.get() + other.metrics.alarms_known.get();
    assert_eq!(known, u64::try_from(WINDOWS).unwrap());
    let found = read(&path);
    for it in 0..WINDOWS {
        assert_eq!(found.matches(&text(&window(it))).count(), 1, "window {it}");
    }
    let bytes: usize = (0..WINDOWS).map(|it| text(&window(it)).len()).sum();
    assert_eq!(found.len(), bytes);
}

#[tokio::test]
async fn a_lock_that_is_never_released_does_not_stop_alarms() {
    let (_dir, path) = place();
    let lock = fs::File::create(path.with_file_name("anomalies.log.lock")).unwrap();
    lock.lock().unwrap();
    let mut harness = start(&path);
    harness.write(vec![job(&window(0))]).await;
    assert_eq!(harness.metrics.alarms_unlocked.get(), 1);
    assert_eq!(read(&path), text(&window(0)));
}

#[tokio::test]
async fn a_full_disk_holds_up_alarms_and_nothing_else() {
    let (dir, path) = place();
    symlink("/dev/full", &path).unwrap();
    let mut harness = start(&path);
    harness.sinks.try_submit(job(&window(0))).unwrap();
    let label = SinkLabel { sink: "alarm_file" };
    let retries = harness.metrics.retries.get_or_create_owned(&label);
    until("the write fails twice", async || retries.get() >= 2).await;
    assert_eq!(
        harness.acks(1).await.len(),
        1,
        "the result message is acknowledged"
    );
    assert!(harness.acks.is_empty(), "the alarm is not");
    // Room again.
    let real = dir.path().join("real");
    fs::remove_file(&path).unwrap();
    symlink(&real, &path).unwrap();
    harness.acks(1).await;
    assert_eq!(read(&real), text(&window(0)));
}

/// A file system of its own, too small for what is to be written to it.
struct TinyDisk(tempfile::TempDir);

impl TinyDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8k", "tmpfs"])
            .arg(dir.path())
            .status();
        mount.is_ok_and(|it| it.success()).then_some(Self(dir))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let unmount = std::process::Command::new("umount")
            .arg(self.0.path())
            .status();
        assert!(unmount.is_ok_and(|it| it.success()));
    }
}

#[tokio::test]
async fn what_did_not_fit_is_written_whole_once_there_is_room() {
    let Some(disk) = TinyDisk::mount() else {
        let mut stderr = std::io::stderr().lock();
        writeln!(
            stderr,
            "SKIPPED: what_did_not_fit…: no right to mount a tmpfs"
        )
        .unwrap();
        return;
    };
    let path = disk.0.path().join("anomalies.log");
    let ballast = disk.0.path().join("ballast");
    // All but the last page, which the file shares with nothing.
    fs::write(&ballast, [0; 4096]).unwrap();
    let mut harness = start(&path);
    let count = i64::try_from(4096 / text(&window(0)).len()).unwrap() + 1;
    for it in 0..count {
        harness.sinks.try_submit(job(&window(it))).unwrap();
    }
    let label = SinkLabel { sink: "alarm_file" };
    let retries = harness.metrics.retries.get_or_create_owned(&label);
    until("the disk is full", async || retries.get() >= 1).await;
    let found = read(&path);
    assert!(found.ends_with("boom\n"), "no torn end: {found}");
    fs::remove_file(&ballast).unwrap();
    harness.acks(u32::try_from(2 * count).unwrap()).await;
    let expected: String = (0..count).map(|it| text(&window(it))).collect();
    assert_eq!(read(&path), expected);
}
