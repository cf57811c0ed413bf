//! A `logguard run` as a process of its own, watched through its metrics and `/proc`.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::usage::Usage;

/// How long the processor may take to come up, and to stop.
const WITHIN: Duration = Duration::from_secs(60);
/// How often its metrics are read: each reading is work of the process that is measured.
const READ_EVERY: Duration = Duration::from_millis(25);

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The `logguard` program.
    pub(crate) program: PathBuf,
    pub(crate) brokers: String,
    pub(crate) database_url: String,
    /// Directory of `model.json`.
    pub(crate) model: PathBuf,
    /// Where logs and alarm files go.
    pub(crate) dir: PathBuf,
}

/// A running processor; killed when dropped.
#[derive(Debug)]
pub(crate) struct Processor {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
    /// File that alarms are appended to.
    pub(crate) alarms: PathBuf,
}

impl Drop for Processor {
    fn drop(&mut self) {
        // It may have ended already, which is as well.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Processor {
    /// Starts a processor on `topic` with further `arguments`, and waits until it serves metrics.
    /// Without `--consumer-group` among them it joins the default group.
    pub(crate) fn start(setup: &Setup, topic: &str, arguments: &[&str]) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = setup.dir.join(format!("{topic}.log"));
        let alarms = setup.dir.join(format!("{topic}.alarms"));
        let child = Command::new(&setup.program)
            .current_dir(&setup.dir)
            .arg("run")
            .args(["--kafka-brokers", &setup.brokers])
            .args(["--input-topic", topic])
            .args(["--output-topic", &results_topic(topic)])
            .args(["--dead-letter-topic", &letters_topic(topic)])
            .args(["--http-listen", &address.to_string()])
            .arg("--anomaly-log")
            .arg(&alarms)
            .arg("--model-dir")
            .arg(&setup.model)
            .args(arguments)
            .env("DATABASE_URL", &setup.database_url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", setup.program.display()))?;
        let mut processor = Self {
            child,
            address,
            log,
            alarms,
        };
        processor.wait_for("it serves metrics", WITHIN, |_| true)?;
        Ok(processor)
    }

    /// Returns its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns what it has used so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid())
    }

    /// Returns its metrics, each summed over its labels.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: bench\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(Metrics::parse(&text))
    }

    /// Polls the metrics until `holds`.
    pub(crate) fn wait_for(
        &mut self,
        what: &str,
        within: Duration,
        holds: impl Fn(&Metrics) -> bool,
    ) -> Result<Metrics> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "logguard ended with {status} before {what}; see {}",
                    self.log.display()
                );
            }
            if let Ok(metrics) = self.metrics()
                && holds(&metrics)
            {
                return Ok(metrics);
            }
            ensure!(Instant::now() < deadline, "not within {within:?}: {what}");
            std::thread::sleep(READ_EVERY);
        }
    }

    /// Asks it to stop and waits until it has.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = self.pid().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let deadline = Instant::now() + WITHIN;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "logguard does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// Name of the results topic of a measured topic.
pub(crate) fn results_topic(topic: &str) -> String {
    format!("{topic}.results")
}

/// Name of the dead-letter topic of a measured topic.
pub(crate) fn letters_topic(topic: &str) -> String {
    format!("{topic}.dlq")
}

/// Runs `logguard` with `arguments` to its end and returns what it printed.
pub(crate) fn logguard(program: &Path, arguments: &[&str], database_url: &str) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .env("DATABASE_URL", database_url)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    // 1 says that anomalies were found.
    ensure!(
        output.status.success(),
        "logguard {arguments:?} ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// One reading of the metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics(HashMap<String, f64>);

impl Metrics {
    fn parse(text: &str) -> Self {
        let mut sums = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let value = line
                .rsplit(' ')
                .next()
                .and_then(|it| it.parse::<f64>().ok());
            if let Some(value) = value {
                *sums.entry(name.to_owned()).or_default() += value;
            }
        }
        Self(sums)
    }

    /// Returns the sum over all labels of the metric `logguard_<name>`, 0 if there is none.
    pub(crate) fn get(&self, name: &str) -> f64 {
        self.0
            .get(&format!("logguard_{name}"))
            .copied()
            .unwrap_or_default()
    }
}
