//! A Kafka broker or a PostgreSQL server of a drill's own, to be stopped, killed and frozen.
//!
//! It is started with the script that starts those of all other tests, in a temporary directory.
//! However the test process ends, a shell that waits for the end of a pipe stops the service.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::common::{database_url, kafka_brokers};

/// Far longer than a process takes to die.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(20);
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");
/// Stops the service once its input ends, be it because the test process is gone.
const WATCH: &str = r#"trap '' HUP INT TERM; read -r _; "$0" stop --dir "$1""#;

/// A service and its directory.
#[derive(Debug)]
pub(crate) struct Service {
    script: PathBuf,
    dir: TempDir,
    /// What the script says of its address, and its port.
    answer: String,
    port: String,
    watch: Child,
}

impl Service {
    /// Starts a Kafka broker. `None` where tests are run without services.
    pub(crate) fn kafka() -> Option<Self> {
        kafka_brokers().map(|_| Self::start("kafka.sh"))
    }

    /// Starts a PostgreSQL server. `None` where tests are run without services.
    pub(crate) fn postgres() -> Option<Self> {
        database_url().map(|_| Self::start("postgres.sh"))
    }

    fn start(script: &str) -> Self {
        let script = Path::new(SCRIPTS).join(script);
        let dir = tempfile::tempdir().unwrap();
        // Run by root, PostgreSQL belongs to another user, who must get through.
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let watch = Command::new("bash")
            .args(["-c", WATCH])
            .arg(&script)
            .arg(dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut service = Self {
            script,
            dir,
            answer: String::new(),
            port: String::new(),
            watch,
        };
        service.answer = service.run(&["start", "--test"]);
        let port = service.answer.split_once("127.0.0.1:").unwrap().1;
        let end = port.find(|it: char| !it.is_ascii_digit()).unwrap();
        service.port = port.split_at(end).0.to_owned();
        service
    }

    /// Returns what the script printed after `name=`.
    pub(crate) fn address(&self, name: &str) -> String {
        let prefix = format!("{name}=");
        let line = |line: &str| line.strip_prefix(&prefix).map(str::to_owned);
        self.answer.lines().find_map(line).unwrap()
    }

    /// Stops it in order.
    pub(crate) fn stop(&self) {
        self.run(&["stop"]);
    }

    /// Starts it again at the same address, with what it had.
    pub(crate) fn start_again(&self) {
        self.run(&["start", "--test", "--port", &self.port]);
    }

    /// Ends all its processes at once, and waits until they and their port are gone: the threads of
    /// a process may outlive it for a moment.
    pub(crate) fn kill(&self) {
        let processes = self.processes();
        self.signal("KILL");
        let port = self.port.parse().unwrap();
        let answers = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        let deadline = Instant::now() + PATIENCE;
        while !processes.iter().all(|it| is_gone(it)) || answers() {
            assert!(Instant::now() < deadline, "{processes:?} do not go away");
            thread::park_timeout(POLL_EVERY);
        }
    }

    /// Stops all its processes in their tracks.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    fn run(&self, args: &[&str]) -> String {
        let mut command = Command::new(&self.script);
        command.args(args).arg("--dir").arg(self.dir.path());
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn signal(&self, name: &str) {
        let processes = self.processes();
        assert!(!processes.is_empty(), "{:?} does not run", self.script);
        let mut command = Command::new("kill");
        command.arg("-s").arg(name).args(&processes);
        // Some may have ended meanwhile, of themselves or since the first did.
        command.stderr(Stdio::null()).status().unwrap();
    }

    /// Returns the service's processes, parents first.
    fn processes(&self) -> Vec<String> {
        let pid_file = match self.script.file_name().and_then(|it| it.to_str()) {
            Some("kafka.sh") => self.dir.path().join("kafka.pid"),
            _ => self.dir.path().join("data/postmaster.pid"),
        };
        let text = fs::read_to_string(pid_file).unwrap_or_default();
        let mut processes: Vec<String> = text.lines().take(1).map(str::to_owned).collect();
        let mut next = 0;
        while let Some(parent) = processes.get(next) {
            let children = format!("/proc/{parent}/task/{parent}/children");
            let children = fs::read_to_string(children).unwrap_or_default();
            processes.extend(children.split_whitespace().map(str::to_owned));
            next += 1;
        }
        processes
    }
}

/// Returns whether a process is gone, or only its parent knows of it still.
fn is_gone(process: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    matches!(state.flatten(), None | Some('Z' | 'X'))
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.watch.stdin.take() {
            // It may have been ended with this process's group.
            stdin.write_all(b"\n").ok();
        }
        self.watch.wait().ok();
    }
}
