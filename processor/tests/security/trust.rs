//! TLS, logins and certificates: what is right works from a record to its row; what is wrong ends
//! with one line that says what, where and what to do.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use crate::{
    TRAINING, broker, common,
    events::{self, Stretch},
    model_dir,
    program::{Running, logguard},
    servers::{Certificates, HOST, PASSWORD, SecureKafka, SecurePostgres, USER},
};

const CONFIG: i32 = 3;
const UNREACHABLE: i32 = 4;
/// Far longer than anything takes here; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(90);
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// Two minutes after the training: four windows, of which some close.
const LIVE: Stretch = Stretch {
    seed: 32,
    from_s: TRAINING.length_s,
    length_s: 120,
    rate_per_s: 5.0,
    anomaly_prob: 0.0,
};

/// Whether servers may be started here; says so if not.
fn servers_may_run() -> bool {
    common::kafka_brokers().is_some() && common::database_url().is_some()
}

/// Adds librdkafka properties to a command.
fn kafka<'a>(command: &'a mut Command, properties: &[(&str, &str)]) -> &'a mut Command {
    for (key, value) in properties {
        command.args(["--kafka", &format!("{key}={value}")]);
    }
    command
}

/// Ends with this code and one line on standard error that names all of `named`, and nothing else
/// but warnings of ours.
fn check_refusal(case: &str, output: &Output, code: i32, named: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{case}: {stderr}");
    let errors: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(errors.len(), 1, "{case}: {stderr}");
    for name in named {
        assert!(
            errors[0].contains(name),
            "{case}: `{name}` is not in: {stderr}"
        );
    }
    assert!(stderr.lines().count() <= 3, "{case}: {stderr}");
    assert!(
        !stderr.contains(PASSWORD) && !stderr.contains("wrong one"),
        "{case}: {stderr}"
    );
}

const SCRAM: [(&str, &str); 3] = [
    ("security.protocol", "SASL_SSL"),
    ("sasl.mechanisms", "SCRAM-SHA-512"),
    ("sasl.username", USER),
];
const PASSWORD_VARIABLE: &str = "LOGGUARD_KAFKA__PROPERTIES__SASL__PASSWORD";

/// `replay` of a topic: the shortest way to a broker and back.
fn read_topic(brokers: &str) -> Command {
    let mut command = logguard(model_dir());
    command.args([
        "replay",
        "--from-kafka",
        "--json",
        "--kafka-brokers",
        brokers,
    ]);
    command.arg("--model-dir").arg(model_dir());
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn kafka_is_trusted_by_its_certificate_and_trusts_a_login_or_a_certificate() {
    if !servers_may_run() {
        return;
    }
    let certificates = Certificates::make();
    let broker = SecureKafka::start(&certificates);
    let (ca, other_ca) = (
        certificates.path("ca.pem"),
        certificates.path("other-ca.pem"),
    );
    let trusting = |ca| [("ssl.ca.location", ca), ("security.protocol", "SSL")];
    let output = |brokers: &str, properties: &[(&str, &str)], password: &str| {
        let mut command = read_topic(brokers);
        kafka(&mut command, properties).env(PASSWORD_VARIABLE, password);
        command.output().unwrap()
    };

    write_live(&broker.plain, Path::new(&certificates.path("live.jsonl")));
    let login = [&SCRAM[..], &[("ssl.ca.location", ca.as_str())]].concat();
    let right = output(&broker.secure, &login, PASSWORD);
    check_read(&right);

    let refused = output(&broker.secure, &login, "wrong one");
    let named = [
        "refuses the login",
        &broker.secure,
        "sasl.password",
        "SCRAM-SHA-512",
    ];
    check_refusal("wrong password", &refused, CONFIG, &named);

    let distrusting = [&SCRAM[..], &[("ssl.ca.location", other_ca.as_str())]].concat();
    let refused = output(&broker.secure, &distrusting, PASSWORD);
    let named = [
        "no trusted TLS",
        &broker.secure,
        "ssl.ca.location",
        "verify failed",
    ];
    check_refusal("another authority", &refused, CONFIG, &named);

    let refused = output(&broker.stranger, &trusting(&ca), "");
    let named = [
        "no trusted TLS",
        &broker.stranger,
        "host name",
        "verify failed",
    ];
    check_refusal("another host", &refused, CONFIG, &named);

    let refused = output(&broker.expired, &trusting(&ca), "");
    let named = ["no trusted TLS", &broker.expired, "verify failed"];
    check_refusal("past certificate", &refused, CONFIG, &named);

    let refused = output(&broker.expired, &[], "");
    let named = [broker.expired.as_str(), "security.protocol"];
    check_refusal("plain text to TLS", &refused, UNREACHABLE, &named);

    let refused = output(&broker.plain, &trusting(&ca), "");
    let named = ["TLS handshake", &broker.plain, "security.protocol"];
    check_refusal("TLS to plain text", &refused, UNREACHABLE, &named);

    let refused = output(&broker.mutual, &trusting(&ca), "");
    check_refusal(
        "no client certificate",
        &refused,
        CONFIG,
        &[&broker.mutual, "certificate"],
    );

    let (cert, key) = (
        certificates.path("client.pem"),
        certificates.path("client.key"),
    );
    let client = [
        ("ssl.certificate.location", cert.as_str()),
        ("ssl.key.location", key.as_str()),
    ];
    let right = output(&broker.mutual, &[&trusting(&ca)[..], &client].concat(), "");
    check_read(&right);
}

fn write_live(brokers: &str, file: &Path) {
    fs::write(file, events::text(&LIVE.lines())).unwrap();
    broker::kcat(brokers, "log-events", 0, file);
}

fn check_read(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["events"], LIVE.lines().len());
}

/// The program, told how to reach the cluster.
fn with_postgres(
    mut command: Command,
    postgres: &SecurePostgres,
    settings: &[(&str, &str)],
) -> Command {
    command
        .env("LOGGUARD_STORE__HOST", HOST)
        .env("LOGGUARD_STORE__PORT", postgres.port.to_string());
    for (name, value) in settings {
        command.env(format!("LOGGUARD_STORE__{name}"), value);
    }
    command
}

/// `migrate`: the shortest way to the database and back.
fn migrate(postgres: &SecurePostgres, settings: &[(&str, &str)]) -> Output {
    let mut command = logguard(model_dir());
    command.arg("migrate");
    with_postgres(command, postgres, settings).output().unwrap()
}

fn check_migrated(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}

fn full<'a>(ca: &'a str, password: &'a str) -> [(&'a str, &'a str); 3] {
    [
        ("SSLMODE", "verify-full"),
        ("CA_FILE", ca),
        ("PASSWORD", password),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn postgres_is_trusted_by_its_certificate_and_trusts_a_login_or_a_certificate() {
    if !servers_may_run() {
        return;
    }
    let certificates = Certificates::make();
    let postgres = SecurePostgres::start(&certificates).await;
    let (ca, other_ca) = (
        certificates.path("ca.pem"),
        certificates.path("other-ca.pem"),
    );
    let server = format!("{USER}@{HOST}:{}/logguard", postgres.port);

    check_migrated(&migrate(&postgres, &full(&ca, PASSWORD)));
    let unverified = [("SSLMODE", "require"), ("PASSWORD", PASSWORD)];
    check_migrated(&migrate(&postgres, &unverified));

    let refused = migrate(&postgres, &full(&ca, "wrong one"));
    check_refusal(
        "wrong password",
        &refused,
        CONFIG,
        &["refused", &server, "password"],
    );
    let refused = migrate(&postgres, &full(&other_ca, PASSWORD));
    let named = ["no trusted TLS", &server, "ca_file", "verify failed"];
    check_refusal("another authority", &refused, CONFIG, &named);
    let refused = migrate(&postgres, &[("SSLMODE", "disable"), ("PASSWORD", PASSWORD)]);
    let named = ["refused", &server, "sslmode", "no encryption"];
    check_refusal("plain text", &refused, CONFIG, &named);
    check_client_certificate(&postgres, &certificates);

    postgres.show("stranger").await;
    let refused = migrate(&postgres, &full(&ca, PASSWORD));
    let named = ["no trusted TLS", &server, "host name", "mismatch"];
    check_refusal("another host", &refused, CONFIG, &named);
    postgres.show("expired").await;
    let refused = migrate(&postgres, &full(&ca, PASSWORD));
    check_refusal(
        "past certificate",
        &refused,
        CONFIG,
        &["no trusted TLS", &server, "expired"],
    );
}

fn check_client_certificate(postgres: &SecurePostgres, certificates: &Certificates) {
    let [ca, cert, key] = ["ca.pem", "client.pem", "client.key"].map(|it| certificates.path(it));
    let as_client = [
        ("USER", "client"),
        ("SSLMODE", "verify-full"),
        ("CA_FILE", ca.as_str()),
    ];
    let shown = [
        ("CLIENT_CERT_FILE", cert.as_str()),
        ("CLIENT_KEY_FILE", key.as_str()),
    ];
    check_migrated(&migrate(postgres, &[&as_client[..], &shown].concat()));
    let refused = migrate(postgres, &as_client);
    check_refusal(
        "no client certificate",
        &refused,
        CONFIG,
        &["refused", "certificate"],
    );
}

/// The processor against both servers.
fn processor(
    broker: &SecureKafka,
    postgres: &SecurePostgres,
    certificates: &Certificates,
    passwords: [&str; 2],
) -> Command {
    let ca = certificates.path("ca.pem");
    let mut command = logguard(Path::new(&certificates.path("")));
    command.args([
        "run",
        "--kafka-brokers",
        &broker.secure,
        "--http-listen",
        "127.0.0.1:0",
    ]);
    command.arg("--model-dir").arg(model_dir());
    kafka(
        &mut command,
        &[&SCRAM[..], &[("ssl.ca.location", ca.as_str())]].concat(),
    );
    command.env(PASSWORD_VARIABLE, passwords[0]);
    let settings = [
        ("SSLMODE", "verify-full"),
        ("CA_FILE", ca.as_str()),
        ("PASSWORD", passwords[1]),
    ];
    with_postgres(command, postgres, &settings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_record_comes_in_and_a_row_goes_out_over_tls() {
    if !servers_may_run() {
        return;
    }
    let certificates = Certificates::make();
    let (broker, postgres) = (
        SecureKafka::start(&certificates),
        SecurePostgres::start(&certificates).await,
    );
    let run = |passwords| processor(&broker, &postgres, &certificates, passwords);
    let refused = run(["wrong one", PASSWORD]).output().unwrap();
    check_refusal(
        "wrong Kafka password",
        &refused,
        CONFIG,
        &["refuses the login"],
    );
    let refused = run([PASSWORD, "wrong one"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(CONFIG), "{stderr}");
    assert!(stderr.contains("PostgreSQL refused"), "{stderr}");

    let ca = certificates.path("ca.pem");
    let settings = [
        ("SSLMODE", "verify-full"),
        ("CA_FILE", ca.as_str()),
        ("PASSWORD", PASSWORD),
    ];
    check_migrated(&migrate(&postgres, &settings));

    write_live(&broker.plain, Path::new(&certificates.path("live.jsonl")));
    let log = certificates.path("processor.log");
    let mut processor = Running::start(run([PASSWORD, PASSWORD]), log.clone().into());
    let deadline = Instant::now() + PATIENCE;
    let rows = "SELECT count(*)::text FROM anomaly_results WHERE NOT provisional";
    while postgres.query_in("logguard", rows).await == "0" {
        assert!(processor.exited().is_none(), "{}", processor.log_tail());
        assert!(
            Instant::now() < deadline,
            "no row: {}",
            processor.log_tail()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Every connection of the role is encrypted, by the server's own account.
    let plain = "SELECT count(*)::text FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                 WHERE usename = 'logguard' AND NOT ssl";
    assert_eq!(postgres.query(plain).await, "0");
    processor.terminate();
    processor.ends_well(STOPS_WITHIN).await;
    assert!(!broker::read_topic(&broker.plain, "anomaly-results").is_empty());
    assert!(!fs::read_to_string(log).unwrap().contains(PASSWORD));
}
