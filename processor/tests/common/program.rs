//! The `logguard` program as a test runs it: once to its end, or beside the test with its log in a
//! file.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

/// Lines of a log that a failing test shows.
const LOG_TAIL_LINES: usize = 40;
/// How often an exit is looked for.
const POLL_EVERY: Duration = Duration::from_millis(20);

/// Returns the program, to be run in `dir` without any settings from this process's environment.
pub(crate) fn logguard(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logguard"));
    command.current_dir(dir).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("LOGGUARD_") || text == "DATABASE_URL" || text == "KAFKA_BROKERS" {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the program in `dir` to its end.
pub(crate) fn run<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Output {
    logguard(dir).args(args).output().unwrap()
}

/// Runs the program in `dir` to its successful end; returns what it printed.
pub(crate) fn run_well<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> String {
    let output = run(dir, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A program that runs beside the test; killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `command`, with what it prints in the file `log`.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        let child = command
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// Returns its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Ends it as a crash of the machine would.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        self.child.wait().unwrap();
    }

    /// Stops it in its tracks, without its knowing.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on where it was paused.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Asks it to open its alarm file anew.
    pub(crate) fn hang_up(&self) {
        self.signal("HUP");
    }

    /// Returns all that it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has ended, however; returns its exit code, `None` when a signal ended it.
    pub(crate) async fn ends(&mut self, patience: Duration) -> Option<i32> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.exited() {
                return status.code();
            }
            let tail = || self.log_tail();
            assert!(Instant::now() < deadline, "still running:\n{}", tail());
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &command]).status();
        assert!(status.unwrap().success(), "{command}");
    }

    /// Returns how it ended, if it did.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it has ended, well, within `patience`.
    pub(crate) async fn ends_well(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.exited() {
                break status;
            }
            let tail = || self.log_tail();
            assert!(Instant::now() < deadline, "still running:\n{}", tail());
            tokio::time::sleep(POLL_EVERY).await;
        };
        assert!(status.success(), "{status}:\n{}", self.log_tail());
    }

    /// Returns the last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!("{}:\n  {}", self.log.display(), tail.join("\n  "))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Gone already is as good.
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
