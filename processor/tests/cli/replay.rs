//! `replay` as the harness people evaluate with: the page, two models, two detectors.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    HOUR_S, SCORED, TRAINING, USAGE, check_failure,
    events::{self, START_S, Stretch},
    program::{run, run_well},
    trained, write,
};

const FAILURE: i32 = 1;
const INPUT: i32 = 3;
/// A line that wants to be markup.
const HOSTILE: &str =
    "<script>document.title='owned'</script><img src=x onerror=alert(1)><h1 id=owned>\"'&amp;";

fn replay(dir: &Path, args: &[&str]) -> Output {
    run(dir, [&["replay", "--input", "scored.jsonl"], args].concat())
}

fn printed(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// The hour to score with a hostile line in two normal windows, and one labelled so.
fn with_hostile_lines(dir: &TempDir) {
    let mut lines = SCORED.lines();
    for (minute, anomaly) in [(11, 0), (23, 0), (47, 1)] {
        let seconds = START_S + SCORED.from_s + minute * 60 + 5;
        let time = chrono::DateTime::from_timestamp(seconds, 0).unwrap();
        let time = time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let line = json!({
            "timestamp": time, "level": "ERROR", "service": "<b>auth</b>", "message": HOSTILE,
            "is_anomaly": anomaly, "anomaly_type": "<i>evil</i>",
        });
        // A flood of them: whatever is thought of the line, these windows alarm.
        lines.extend(vec![line.to_string(); 200]);
    }
    let time = |line: &String| -> String {
        let line: Value = serde_json::from_str(line).unwrap();
        line["timestamp"].as_str().unwrap().to_owned()
    };
    lines.sort_by_cached_key(time);
    write(dir, "scored.jsonl", events::text(&lines));
}

/// Returns the browser, `None` with a word on standard error if there is none.
fn chromium() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders)
        .map(|folder| folder.join("chromium"))
        .find(|path| path.exists());
    if found.is_none() {
        let required = std::env::var("LOGGUARD_TEST_REQUIRE_SERVICES").is_ok_and(|it| it == "1");
        assert!(!required, "chromium is not installed");
        eprintln!("SKIPPED: chromium is not installed");
    }
    found
}

/// Lets the browser do something with a page; returns what it printed.
fn browse(browser: &Path, dir: &Path, page: &str, args: &[&str]) -> String {
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args(["--no-first-run", "--disable-background-networking"])
        .args([
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
        ])
        .arg(format!("--user-data-dir={}", dir.join("browser").display()))
        .args(args)
        .arg(format!("file://{}", dir.join(page).display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_page_is_drawn_by_a_browser_and_hostile_lines_stay_text() {
    let dir = trained();
    with_hostile_lines(&dir);
    // So large a budget that lines never seen before alarm by themselves.
    let budget = "--alarms-per-day=100";
    let output = replay(dir.path(), &["--html", "report.html", "--json", budget]);
    let report = printed(&output);
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    for reference in ["http://", "https://", "<script", "<link", "@import", "url("] {
        assert!(!page.contains(reference), "the page has {reference}");
    }
    assert!(page.len() < 400_000, "{} bytes", page.len());
    let Some(browser) = chromium() else {
        return;
    };
    let dom = browse(&browser, dir.path(), "report.html", &["--dump-dom"]);
    let shown = |text: &str| dom.contains(text);
    assert!(
        shown("<title>LogGuard replay: scored.jsonl</title>"),
        "{dom}"
    );
    // As text it is there, as markup it is not.
    assert!(
        shown("&lt;script&gt;document.title"),
        "the hostile line is shown"
    );
    for markup in ["<script", "<img", "id=\"owned\"", "<i>evil", "<b>auth"] {
        assert!(!shown(markup), "{markup} became markup");
    }
    let part = |from: &str, to: &str| {
        let (_, rest) = dom.split_once(from).unwrap_or_else(|| panic!("no {from}"));
        rest.split_once(to).unwrap().0.to_owned()
    };
    let curve = part("<path class=\"curve\" d=\"", "\"");
    assert!(
        curve.starts_with('M') && curve.matches(' ').count() > 3,
        "{curve}"
    );
    assert!(part("<path class=\"area\" d=\"", "\"").matches('L').count() > 200);
    let timeline = part("id=\"timeline\"", "</svg>");
    let marks = |class: &str| timeline.matches(&format!("class=\"{class}\"")).count() as u64;
    assert_eq!(Some(marks("truth")), report["anomalous_windows"].as_u64());
    assert_eq!(Some(marks("found")), report["tp"].as_u64());
    assert_eq!(Some(marks("missed")), report["fn"].as_u64());
    assert_eq!(Some(marks("false")), report["fp"].as_u64());
    let rows = |id: &str| {
        part(&format!("id=\"{id}\""), "</table>")
            .matches("<tr")
            .count()
            - 1
    };
    assert_eq!(rows("sweep"), report["sweep"].as_array().unwrap().len());
    assert_eq!(
        rows("types"),
        report["anomaly_types"].as_array().unwrap().len()
    );
    let falses = part("id=\"false-alarms\"", "</section>");
    let listed = report["worst_false_alarms"].as_array().unwrap().len();
    assert!(
        listed > 0 && falses.matches("<details").count() == listed,
        "{falses}"
    );
    both_themes_are_painted(&browser, dir.path());
}

fn both_themes_are_painted(browser: &Path, dir: &Path) {
    for (theme, file) in [("light", "light.png"), ("dark", "dark.png")] {
        let picture = format!("--screenshot={}", dir.join(file).display());
        let dark = if theme == "dark" {
            "--force-dark-mode"
        } else {
            "--hide-scrollbars"
        };
        let size = "--window-size=1200,1600";
        browse(browser, dir, "report.html", &[&picture, dark, size]);
        let png = fs::read(dir.join(file)).unwrap();
        assert!(
            png.starts_with(b"\x89PNG") && png.len() > 20_000,
            "{theme}: {}",
            png.len()
        );
    }
}

#[test]
fn the_report_says_what_was_missed_and_how_long_it_took() {
    let dir = trained();
    let report = printed(&replay(dir.path(), &["--json"]));
    let number = |value: &Value| value.as_u64().unwrap();
    let incidents = &report["incidents"];
    assert!(number(&incidents["found"]) <= number(&incidents["count"]));
    assert!(number(&incidents["count"]) <= number(&report["anomalous_windows"]));
    let median = incidents["median_s"].as_f64().unwrap();
    assert!((0.0..=60.0).contains(&median), "{incidents}");
    let sweep = report["sweep"].as_array().unwrap();
    let alarms: Vec<u64> = sweep.iter().map(|row| number(&row["alarms"])).collect();
    assert!(alarms.is_sorted(), "{alarms:?}");
    let misses = report["worst_misses"].as_array().unwrap();
    assert_eq!(misses.len() as u64, number(&report["fn"]).min(10));
    let hours = report["alarm_hours"]["per_hour"].as_array().unwrap();
    let hours: u64 = hours.iter().map(number).sum();
    assert_eq!(hours, number(&report["fp"]));
    let table = String::from_utf8(replay(dir.path(), &[]).stdout).unwrap();
    assert!(table.contains("\nbudget a day "), "{table}");
}

/// Trains on `lines` into `name`.
fn train(dir: &TempDir, name: &str, lines: &[String], more: &[&str]) {
    write(dir, "more.jsonl", events::text(lines));
    let args = ["train", "--input", "more.jsonl", "--model-dir", name];
    run_well(dir.path(), [&args[..], more].concat());
}

/// A model that learnt from incidents as if they were usual.
fn jaded(dir: &TempDir) {
    let stretch = Stretch {
        seed: 5,
        length_s: 2 * HOUR_S,
        anomaly_prob: 0.9,
        ..TRAINING
    };
    train(dir, "jaded", &stretch.lines(), &[]);
}

#[test]
fn a_worse_model_is_told_by_the_exit_code() {
    let dir = trained();
    jaded(&dir);
    let against = |other: &str, more: &[&str]| {
        let args = [&["--model", "model", "--json", "--against", other], more].concat();
        let output = replay(dir.path(), &args);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), printed(&output), error)
    };
    let (code, same, _) = against("model", &[]);
    assert_eq!((code, &same["worse"]), (Some(0), &Value::Null), "{same}");
    assert_eq!(same["a"]["f1"], same["b"]["f1"]);
    let agreement = &same["agreement"];
    assert_eq!(agreement["disagreements"], json!([]));
    assert_eq!(
        (&agreement["only_a"], &agreement["only_b"]),
        (&json!(0), &json!(0))
    );
    let alone = printed(&replay(dir.path(), &["--json"]));
    assert_eq!(
        (&same["a"]["f1"], &same["a"]["alarms"]),
        (&alone["f1"], &alone["alarms"])
    );

    let (code, worse, error) = against("jaded", &[]);
    assert_eq!(code, Some(FAILURE), "{worse}");
    assert!(error.contains("jaded") && error.contains("F1"), "{error}");
    let listed = worse["agreement"]["disagreements"].as_array().unwrap();
    assert!(!listed.is_empty() && listed.len() <= 20);
    assert!(
        !listed[0]["a"]["reasons"].as_array().unwrap().is_empty(),
        "{}",
        listed[0]
    );
    let (code, ..) = against("jaded", &["--tolerance", "1"]);
    assert_eq!(code, Some(0));
    // However long the paths are, and however they begin: A and B head the columns.
    let longer = format!("{}/jaded", dir.path().display());
    let table = replay(dir.path(), &["--model", "model", "--against", &longer]);
    let table = String::from_utf8(table.stdout).unwrap();
    let heads: Vec<&str> = table.lines().take(4).collect();
    assert!(
        heads[0].starts_with("A  ") && heads[0].contains("model ("),
        "{table}"
    );
    assert!(heads[1].starts_with(&format!("B  {longer} (")), "{table}");
    let columns: Vec<&str> = heads[3].split_whitespace().collect();
    assert_eq!(columns, ["A", "B"], "{table}");

    // Without labels overlays decide, and always the same ones.
    let unlabelled: Vec<String> = SCORED.lines().iter().map(|line| unlabelled(line)).collect();
    write(&dir, "scored.jsonl", events::text(&unlabelled));
    let (code, same, _) = against("model", &[]);
    assert_eq!(code, Some(0), "{same}");
    assert_eq!(same["a"]["f1"], Value::Null);
    let tried = |of: &Value| -> u64 {
        let kinds = of["overlays"].as_array().unwrap().iter();
        kinds.map(|kind| kind["tried"].as_u64().unwrap()).sum()
    };
    assert!(tried(&same) > 100, "{same}");
    let recall = same["overlay_recall"][0].as_f64().unwrap();
    assert!(recall > 0.5, "{same}");
    let (_, again, _) = against("model", &[]);
    assert_eq!(same, again);
}

fn unlabelled(line: &str) -> String {
    let mut line: Value = serde_json::from_str(line).unwrap();
    let fields = line.as_object_mut().unwrap();
    fields.remove("is_anomaly");
    fields.remove("anomaly_type");
    line.to_string()
}

/// A directory with a model that holds both detectors.
fn with_forest() -> TempDir {
    static MODEL: OnceLock<String> = OnceLock::new();
    let dir = trained();
    let model = MODEL.get_or_init(|| {
        let detector = ["--detector", "isolation-forest"];
        train(&dir, "both", &TRAINING.lines(), &detector);
        fs::read_to_string(dir.path().join("both/model.json")).unwrap()
    });
    write(&dir, "both/model.json", model);
    dir
}

#[test]
fn two_detectors_are_compared_on_the_same_input() {
    let dir = with_forest();
    let compared = printed(&replay(
        dir.path(),
        &["--model-dir", "both", "--compare", "--json"],
    ));
    let [signals, forest] = &compared["detectors"].as_array().unwrap()[..] else {
        panic!("{compared}");
    };
    assert_eq!(signals["name"], "signals");
    // The first detector is none the worse for the second: the same figures as without it.
    let alone = printed(&replay(dir.path(), &["--json"]));
    for figure in ["f1", "roc_auc", "pr_auc", "alarms"] {
        assert_eq!(signals[figure], alone[figure], "{figure}");
    }
    let chosen = [
        "--model-dir",
        "both",
        "--detector",
        "isolation-forest",
        "--json",
    ];
    let chosen = printed(&replay(dir.path(), &chosen));
    for figure in ["f1", "roc_auc", "pr_auc", "alarms"] {
        assert_eq!(forest[figure], chosen[figure], "{figure}");
    }
    let auc = forest["roc_auc"].as_f64().unwrap();
    assert!(auc > 0.7, "better than chance: {forest}");
    let table = replay(dir.path(), &["--model-dir", "both", "--compare"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("isolation forest"), "{table}");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let dir = trained();
    for flag in ["--compare", "--detector=isolation-forest"] {
        let args = ["replay", "--input", "scored.jsonl", flag];
        check_failure(dir.path(), &args, INPUT, &["model", "isolation-forest"]);
    }
    let args = ["replay", "--input", "scored.jsonl", "--against", "nowhere"];
    check_failure(dir.path(), &args, INPUT, &["nowhere/model.json"]);
    for args in [
        &["--against", "model", "--compare"][..],
        &["--against", "model", "--html", "x.html"],
    ] {
        let args = [&["replay", "--input", "scored.jsonl"], args].concat();
        check_failure(dir.path(), &args, USAGE, &["--against"]);
    }
    let unwritable = [
        "replay",
        "--input",
        "scored.jsonl",
        "--html",
        "no/such/r.html",
    ];
    check_failure(
        dir.path(),
        &unwritable,
        INPUT,
        &["no/such/r.html", "--html"],
    );
}

#[test]
fn a_model_lists_its_templates() {
    let dir = trained();
    let listed = run_well(dir.path(), ["model", "templates", "model", "--json"]);
    let summary = run_well(dir.path(), ["model", "show", "--json"]);
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let listed: Vec<Value> = listed
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    assert_eq!(summary["templates"], listed.len());
    let lines: u64 = listed.iter().map(|it| it["lines"].as_u64().unwrap()).sum();
    assert_eq!(summary["lines"], lines);
    assert_eq!(listed[0]["id"].as_str().unwrap().len(), 16);
    check_failure(dir.path(), &["model", "templates"], USAGE, &["MODEL_DIR"]);
}
