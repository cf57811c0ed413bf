//! The command line from outside, without services: what goes where, with which exit code, and
//! that nothing written before is lost when something goes wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "common/events.rs"]
mod events;
#[path = "common/program.rs"]
mod program;
#[path = "cli/replay.rs"]
mod replay;

use std::{fs, net::TcpListener, path::Path, process::Output, sync::OnceLock};

use events::Stretch;
use program::{logguard, run, run_well};
use serde_json::Value;
use tempfile::TempDir;

const USAGE: i32 = 2;
const INPUT: i32 = 3;
const UNREACHABLE: i32 = 4;

/// What `replay --json` promises, in this order.
const PROMISED: [&str; 13] = [
    "events",
    "windows",
    "anomalous_windows",
    "alarms",
    "tp",
    "fp",
    "fn",
    "tn",
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "seconds",
];

/// Six hours to learn from, then one hour more to score.
const HOUR_S: i64 = 3_600;
const TRAINING: Stretch = Stretch {
    seed: 21,
    from_s: 0,
    length_s: 6 * HOUR_S,
    rate_per_s: 1.0,
    anomaly_prob: 0.005,
};
const SCORED: Stretch = Stretch {
    seed: 22,
    from_s: 6 * HOUR_S,
    length_s: HOUR_S,
    rate_per_s: 1.0,
    anomaly_prob: 0.05,
};

/// Returns the text of a trained `model.json`.
fn model() -> &'static str {
    static MODEL: OnceLock<String> = OnceLock::new();
    MODEL.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        write(&dir, "training.jsonl", events::text(&TRAINING.lines()));
        let summary = run_well(dir.path(), ["train", "--input", "training.jsonl", "--json"]);
        let summary: Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(summary["lines"], TRAINING.lines().len());
        fs::read_to_string(dir.path().join("model/model.json")).unwrap()
    })
}

/// Returns a directory with a model and an hour to score.
fn trained() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "model/model.json", model());
    write(&dir, "scored.jsonl", events::text(&SCORED.lines()));
    dir
}

fn write(dir: &TempDir, name: &str, content: impl AsRef<[u8]>) {
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Returns the address of a port of this machine that nobody listens on.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Runs the program and checks that it fails as it should: with `code`, nothing on standard
/// output, and an error on standard error that names all of `named`.
fn check_failure(dir: &Path, args: &[&str], code: i32, named: &[&str]) {
    check_output(&run(dir, args), code, named);
}

fn check_output(output: &Output, code: i32, named: &[&str]) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stdout, "", "standard output is for results");
    let errors: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(errors.len(), 1, "one line says what is wrong:\n{stderr}");
    // The parser of the command line adds its usage; everybody else says it in one line.
    let last = stderr.lines().last().unwrap_or_default();
    assert!(code == USAGE || errors[0] == last, "{stderr}");
    for name in named {
        let told = if code == USAGE { &*stderr } else { errors[0] };
        assert!(told.contains(name), "`{name}` is not in: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn usage_errors_exit_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for (args, named) in [
        (&["fly"][..], "fly"),
        (&["train"], "--input"),
        (&["replay"], "--input"),
        (&["run", "--window", "soon"], "soon"),
        (&["run", "--store", "paper"], "paper"),
        (&["run", "--kafka", "no-value"], "no-value"),
        (&["replay", "--input", "x", "--from-kafka"], "--from-kafka"),
        (
            &["replay", "--from-kafka", "--since", "2025-12-24T00:00:00Z"],
            "--since",
        ),
        (
            &["replay", "--input", "x", "--tolerance", "0.1"],
            "--against",
        ),
        (&["migrate", "--retention", "maybe"], "maybe"),
        (
            &["replay", "--input", "x", "--alarms-per-day", "few"],
            "few",
        ),
        (
            &[
                "replay",
                "--input",
                "x",
                "--against",
                "y",
                "--tolerance",
                "2",
            ],
            "from 0 to 1",
        ),
    ] {
        check_failure(dir.path(), args, USAGE, &[named]);
    }
}

#[test]
fn configuration_errors_say_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "typo.toml", "[window]\nlenght_s = 10\n");
    write(&dir, "broken.toml", "[window\n");
    write(&dir, "range.toml", "[window]\nlength_s = 0\n");
    for (file, named) in [
        ("typo.toml", &["lenght_s", "typo.toml"][..]),
        ("broken.toml", &["broken.toml"]),
        ("range.toml", &["window.length_s is 0"]),
        ("none.toml", &["none.toml", "does not exist"]),
    ] {
        check_failure(
            dir.path(),
            &["--config", file, "config", "check"],
            INPUT,
            named,
        );
    }
    let args = ["config", "check", "--log", "logguard=loud"];
    check_failure(dir.path(), &args, INPUT, &["log.filter"]);
    // The file of the working directory is read without being named.
    write(&dir, "logguard.toml", "[kafka]\nbroker = \"x\"\n");
    check_failure(dir.path(), &["run"], INPUT, &["broker", "logguard.toml"]);
}

#[test]
fn errors_of_the_environment_name_the_setting() {
    let dir = tempfile::tempdir().unwrap();
    for (variable, value, named) in [
        ("LOGGUARD_WINDOW__LENGTH_S", "soon", "LENGTH_S"),
        ("LOGGUARD_WINDOW__LENGHT_S", "10", "lenght_s"),
        (
            "LOGGUARD_MODEL__ALARMS_PER_DAY",
            "-1",
            "model.alarms_per_day",
        ),
        (
            "LOGGUARD_KAFKA__DRAIN_TIMEOUT_MS",
            "9000",
            "kafka.drain_timeout_ms",
        ),
    ] {
        let mut command = logguard(dir.path());
        command.args(["config", "check"]).env(variable, value);
        check_output(&command.output().unwrap(), INPUT, &[named]);
    }
}

#[test]
fn secrets_are_not_printed() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[store]\nurl = \"postgres://u:hunter2@h/d\"\n\
                  [kafka.properties]\n\"sasl.password\" = \"hunter2\"\n\"sasl.username\" = \"me\"\n";
    write(&dir, "logguard.toml", config);
    let printed = run_well(dir.path(), ["config", "print"]);
    assert!(!printed.contains("hunter2"), "{printed}");
    assert!(printed.contains("sasl.username"), "{printed}");
    let mut command = logguard(dir.path());
    command
        .args(["config", "print"])
        .env("DATABASE_URL", "postgres://u:hunter3@h/d");
    let output = command.output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("hunter3"));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter3"));
}

#[test]
fn a_training_that_fails_leaves_the_model_as_it_was() {
    let dir = trained();
    write(&dir, "empty.jsonl", "");
    write(&dir, "noise.jsonl", "this is no JSON\n");
    let text = events::text(&TRAINING.lines());
    write(&dir, "damaged.jsonl.gz", damaged_gzip(text.as_bytes()));
    write(
        &dir,
        "picture.png",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01",
    );
    for (input, named) in [
        ("nowhere.jsonl", &["nowhere.jsonl", "No such file"][..]),
        ("empty.jsonl", &["empty.jsonl", "empty"]),
        ("noise.jsonl", &["no log lines"]),
        ("damaged.jsonl.gz", &["damaged.jsonl.gz", "damaged"]),
        ("picture.png", &["picture.png"]),
        (".", &["`.`"]),
    ] {
        check_failure(dir.path(), &["train", "--input", input], INPUT, named);
        let left = fs::read_to_string(dir.path().join("model/model.json")).unwrap();
        assert!(left == model(), "{input} changed the model");
        let names = fs::read_dir(dir.path().join("model")).unwrap().count();
        assert_eq!(names, 1, "{input} left a file behind");
    }
    let args = ["train", "--input", "scored.jsonl", "--until", "noon"];
    check_failure(dir.path(), &args, INPUT, &["noon"]);
    // A directory of models that cannot be made: there is a file of that name.
    let args = [
        "train",
        "--input",
        "scored.jsonl",
        "--model-dir",
        "scored.jsonl",
    ];
    check_failure(dir.path(), &args, INPUT, &["scored.jsonl"]);
}

/// Returns a gzip file with its middle overwritten.
fn damaged_gzip(content: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    let mut file = encoder.finish().unwrap();
    let middle = file.len() / 2;
    file[middle..middle + 64].fill(0xff);
    file
}

#[test]
fn models_that_cannot_be_used_are_refused() {
    let dir = trained();
    let other_content = model().replacen("\"lines\":", "\"lines\":1", 1);
    write(
        &dir,
        "cut/model.json",
        &model().as_bytes()[..model().len() / 2],
    );
    write(&dir, "empty/model.json", "");
    write(&dir, "changed/model.json", other_content);
    for (model_dir, named) in [
        ("nowhere", "nowhere/model.json"),
        ("cut", "cut/model.json"),
        ("empty", "empty/model.json"),
        ("changed", "changed/model.json"),
    ] {
        let replay = [
            "replay",
            "--input",
            "scored.jsonl",
            "--model-dir",
            model_dir,
        ];
        check_failure(dir.path(), &replay, INPUT, &[named]);
        let show = ["model", "show", "--model-dir", model_dir];
        check_failure(dir.path(), &show, INPUT, &[named]);
        check_failure(
            dir.path(),
            &["run", "--model-dir", model_dir],
            INPUT,
            &[named],
        );
    }
    let args = ["replay", "--input", "scored.jsonl", "--window", "60"];
    check_failure(dir.path(), &args, INPUT, &["30 s", "60 s", "--window 30"]);
}

#[test]
fn replay_refuses_what_it_cannot_read_or_write() {
    let dir = trained();
    write(&dir, "empty.jsonl", "");
    let text = events::text(&SCORED.lines());
    write(&dir, "damaged.jsonl.gz", damaged_gzip(text.as_bytes()));
    for (args, named) in [
        (&["--input", "nowhere.jsonl"][..], "nowhere.jsonl"),
        (&["--input", "empty.jsonl"], "empty.jsonl"),
        (&["--input", "damaged.jsonl.gz"], "damaged.jsonl.gz"),
        (
            &["--input", "scored.jsonl", "--results", "no/such/r.jsonl"],
            "no/such/r.jsonl",
        ),
        (&["--input", "scored.jsonl", "--since", "noon"], "noon"),
    ] {
        check_failure(dir.path(), &[&["replay"], args].concat(), INPUT, &[named]);
    }
    write(&dir, "results.jsonl", "of an earlier replay");
    let args = [
        "replay",
        "--input",
        "damaged.jsonl.gz",
        "--results",
        "results.jsonl",
    ];
    check_failure(dir.path(), &args, INPUT, &["damaged.jsonl.gz"]);
    let left = fs::read_to_string(dir.path().join("results.jsonl")).unwrap();
    assert_eq!(left, "of an earlier replay");
    let args = [
        "replay",
        "--input",
        "scored.jsonl",
        "--results",
        "/dev/null",
    ];
    run_well(dir.path(), args);
}

#[test]
fn what_does_not_answer_exits_with_4() {
    let dir = trained();
    let address = nobody();
    let run = [
        "run",
        "--store",
        "none",
        "--http-listen",
        "127.0.0.1:0",
        "--kafka-brokers",
    ];
    check_failure(
        dir.path(),
        &[&run[..], &[&address]].concat(),
        UNREACHABLE,
        &[&address],
    );
    let replay = ["replay", "--from-kafka", "--kafka-brokers", &address];
    check_failure(dir.path(), &replay, UNREACHABLE, &[&address]);
    let url = format!("postgres://u:hunter2@{address}/d");
    let output = program::run(dir.path(), ["migrate", "--database-url", &url]);
    check_output(&output, UNREACHABLE, &[&address]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("hunter2"));
}

#[test]
fn a_replay_keeps_its_promises() {
    let dir = trained();
    let replay = |results: &str| {
        let args = [
            "replay",
            "--input",
            "scored.jsonl",
            "--json",
            "--results",
            results,
        ];
        run_well(dir.path(), args)
    };
    let (first, second) = (replay("first.jsonl"), replay("second.jsonl"));
    assert_eq!(first.lines().count(), 1);
    assert_eq!(without_seconds(&first), without_seconds(&second));
    assert_eq!(&keys(&first)[..PROMISED.len()], PROMISED);
    let [results, again] = ["first.jsonl", "second.jsonl"]
        .map(|name| fs::read_to_string(dir.path().join(name)).unwrap());
    assert_eq!(results, again);

    let report: Value = serde_json::from_str(&first).unwrap();
    let number = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(report["events"], SCORED.lines().len());
    assert_eq!(report["windows"], results.lines().count());
    assert_eq!(number("windows"), 120);
    assert_eq!(number("tp") + number("fn"), number("anomalous_windows"));
    assert_eq!(number("tp") + number("fp"), number("alarms"));
    assert_eq!(
        number("alarms") + number("fn") + number("tn"),
        number("windows")
    );
    assert!(number("tp") > 0, "{report}");
    let messages: Vec<Value> = results
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let count = |field: &str| messages.iter().filter(|it| it[field] == 1).count();
    assert_eq!(report["alarms"], count("is_anomaly"));
    assert_eq!(report["anomalous_windows"], count("ground_truth"));
}

/// Returns the names of an object's members in the order in which they are written.
fn keys(object: &str) -> Vec<String> {
    let mut named: Vec<(usize, String)> = serde_json::from_str::<Value>(object)
        .unwrap()
        .as_object()
        .unwrap()
        .keys()
        .map(|key| (object.find(&format!("\"{key}\":")).unwrap(), key.clone()))
        .collect();
    named.sort();
    named.into_iter().map(|(_, key)| key).collect()
}

fn without_seconds(report: &str) -> String {
    let (before, rest) = report.split_once("\"seconds\":").unwrap();
    let (_, after) = rest.split_once(',').unwrap();
    format!("{before}{after}")
}

#[test]
fn the_same_lines_make_the_same_model() {
    let dir = trained();
    write(&dir, "training.jsonl", events::text(&TRAINING.lines()));
    run_well(
        dir.path(),
        ["train", "--input", "training.jsonl", "--model-dir", "again"],
    );
    let again = fs::read_to_string(dir.path().join("again/model.json")).unwrap();
    assert!(again == model(), "training is not a function of its input");
}
