//! The program's own secrets: wherever they come from, they show nowhere; where they lie open,
//! it says so.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    broker,
    common::{fresh_database, kafka_brokers},
    model_dir,
    program::{Running, logguard},
};

const STORE_SECRET: &str = "st0re-hunter2";
const KAFKA_SECRET: &str = "k4fka-hunter2";
const PATIENCE: Duration = Duration::from_secs(60);

/// A way to give both secrets.
struct Way {
    name: &'static str,
    give: fn(&mut Command, &TempDir, &Server),
    /// The command line is where it stands, at the wish of whoever wrote it.
    on_command_line: bool,
    /// It is said to lie open.
    warned: bool,
}

/// Where the services are.
struct Server {
    brokers: String,
    /// `host:port/database` and the superuser, who is let in whatever the password.
    database: String,
    user: String,
}

impl Server {
    fn url(&self) -> String {
        format!("postgres://{}:{STORE_SECRET}@{}", self.user, self.database)
    }
}

fn write(dir: &TempDir, name: &str, content: &str, mode: u32) -> String {
    let file = dir.path().join(name);
    fs::write(&file, content).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    file.display().to_string()
}

fn config_file(server: &Server) -> String {
    format!(
        "[store]\nurl = \"{}\"\n[kafka.properties]\n\"sasl.password\" = \"{KAFKA_SECRET}\"\n",
        server.url()
    )
}

const WAYS: [Way; 7] = [
    Way {
        name: "environment",
        give: |command, _, server| {
            command
                .env("DATABASE_URL", server.url())
                .env("LOGGUARD_KAFKA__PROPERTIES__SASL__PASSWORD", KAFKA_SECRET);
        },
        on_command_line: false,
        warned: false,
    },
    Way {
        name: "environment, with the URL's own name",
        give: |command, _, server| {
            command
                .env("LOGGUARD_STORE__URL", server.url())
                .env("LOGGUARD_KAFKA__PROPERTIES__SASL__PASSWORD", KAFKA_SECRET);
        },
        on_command_line: false,
        warned: false,
    },
    Way {
        name: "files",
        give: |command, dir, server| {
            let url = write(dir, "url", &format!("{}\n", server.url()), 0o600);
            let password = write(dir, "password", KAFKA_SECRET, 0o600);
            command
                .env("LOGGUARD_STORE__URL_FILE", url)
                .env("LOGGUARD_KAFKA__PROPERTIES__SASL__PASSWORD_FILE", password);
        },
        on_command_line: false,
        warned: false,
    },
    Way {
        name: "files that anyone may read",
        give: |command, dir, server| {
            let url = write(dir, "url", &format!("{}\n", server.url()), 0o644);
            let password = write(dir, "password", KAFKA_SECRET, 0o644);
            command
                .env("LOGGUARD_STORE__URL_FILE", url)
                .env("LOGGUARD_KAFKA__PROPERTIES__SASL__PASSWORD_FILE", password);
        },
        on_command_line: false,
        warned: true,
    },
    Way {
        name: "configuration file",
        give: |_, dir, server| {
            write(dir, "logguard.toml", &config_file(server), 0o600);
        },
        on_command_line: false,
        warned: false,
    },
    Way {
        name: "configuration file that anyone may read",
        give: |_, dir, server| {
            write(dir, "logguard.toml", &config_file(server), 0o644);
        },
        on_command_line: false,
        warned: true,
    },
    Way {
        name: "command line",
        give: |command, _, server| {
            let migrates = command.get_args().any(|argument| argument == "migrate");
            command.args(["--database-url", &server.url()]);
            if !migrates {
                command.args(["--kafka", &format!("sasl.password={KAFKA_SECRET}")]);
            }
        },
        on_command_line: true,
        warned: true,
    },
];

fn check_hidden(way: &Way, place: &str, text: &str) {
    for secret in [STORE_SECRET, KAFKA_SECRET] {
        assert!(!text.contains(secret), "{}: in {place}: {text}", way.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn secrets_show_nowhere_however_they_are_given() {
    let (Some(brokers), Some(database)) = (kafka_brokers(), fresh_database().await) else {
        return;
    };
    let topics = ["in", "out", "dlq"].map(|kind| format!("secrets-{}-{kind}", database.name));
    for topic in &topics {
        broker::create_topic(&brokers, topic, 1).await;
    }
    let parsed: tokio_postgres::Config = database.url.parse().unwrap();
    let tokio_postgres::config::Host::Tcp(host) = &parsed.get_hosts()[0] else {
        panic!("the test server has no address");
    };
    let server = Server {
        brokers,
        database: format!("{host}:{}/{}", parsed.get_ports()[0], database.name),
        user: parsed.get_user().unwrap().to_owned(),
    };
    for way in &WAYS {
        check_way(way, &server, &topics).await;
    }
}

async fn check_way(way: &Way, server: &Server, topics: &[String; 3]) {
    let dir = tempfile::tempdir().unwrap();
    let given = |arguments: &[&str]| {
        let mut command = logguard(dir.path());
        command.args(arguments);
        (way.give)(&mut command, &dir, server);
        command
    };
    let output_of = |mut command: Command| {
        let output = command.output().unwrap();
        let all = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8(all).unwrap())
    };
    let (status, printed) = output_of(given(&["config", "print"]));
    assert!(status.success(), "{}: {printed}", way.name);
    check_hidden(way, "config print", &printed);
    let open = printed.matches("may read it").count() + printed.matches("can read it").count();
    assert_eq!(open > 0, way.warned, "{}: {printed}", way.name);

    let mut unreachable = given(&["migrate"]);
    unreachable.env("LOGGUARD_STORE__SSLMODE", "verify-full");
    let (status, said) = output_of(unreachable);
    assert!(!status.success(), "{}: {said}", way.name);
    check_hidden(way, "an error", &said);

    let (status, said) = output_of(given(&["migrate"]));
    assert!(status.success(), "{}: {said}", way.name);
    check_hidden(way, "migrate", &said);

    let mut run = given(&["run", "--kafka-brokers", &server.brokers, "--log", "debug"]);
    run.args(["--input-topic", &topics[0], "--output-topic", &topics[1]])
        .args([
            "--dead-letter-topic",
            &topics[2],
            "--http-listen",
            "127.0.0.1:0",
        ])
        .args(["--kafka", "debug=security,broker,conf"])
        .arg("--model-dir")
        .arg(model_dir());
    check_running(way, run, &dir).await;
}

async fn check_running(way: &Way, run: Command, dir: &TempDir) {
    let file = dir.path().join("run.log");
    let mut running = Running::start(run, file.clone());
    let deadline = Instant::now() + PATIENCE;
    let log = || fs::read_to_string(&file).unwrap();
    while !log().contains("partition starts") {
        assert!(
            running.exited().is_none(),
            "{}: {}",
            way.name,
            running.log_tail()
        );
        assert!(
            Instant::now() < deadline,
            "{}: {}",
            way.name,
            running.log_tail()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let arguments = fs::read(format!("/proc/{}/cmdline", running.id())).unwrap();
    let arguments = String::from_utf8(arguments).unwrap();
    if !way.on_command_line {
        check_hidden(way, "the arguments", &arguments);
    }
    let metrics = scrape(&log());
    assert!(metrics.contains("# EOF"), "{metrics}");
    check_hidden(way, "the metrics", &metrics);
    running.terminate();
    running.ends_well(PATIENCE).await;
    check_hidden(way, "the log", &log());
    check_dir(way, dir.path());
}

/// Nothing that the program wrote holds a secret.
fn check_dir(way: &Way, dir: &Path) {
    let ours = ["url", "password", "logguard.toml"];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            check_dir(way, &path);
        } else if !ours.contains(&name) {
            let content = fs::read(&path).unwrap();
            check_hidden(way, name, &String::from_utf8_lossy(&content));
        }
    }
}

/// Returns what `/metrics` answers, at the address that the log names.
pub(crate) fn scrape(log: &str) -> String {
    let address = log.split("address=").nth(1).unwrap();
    let address = address.split_whitespace().next().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
