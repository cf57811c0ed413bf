//! The rules of docs/ARCHITECTURE.md that a reader of the code should never have to check: which
//! stage may know which, and where clocks, sockets and prints are absent.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// For each stage the modules of this crate that it may import, itself included.
const MAY_IMPORT: [(&str, &[&str]); 8] = [
    ("event.rs", &[]),
    ("redact", &["redact"]),
    ("decode", &["decode", "event", "redact"]),
    ("window", &["window", "decode", "event"]),
    ("features", &["features", "window", "decode", "event"]),
    ("model", &["model", "features", "window", "decode", "event"]),
    (
        "source",
        &["source", "decode", "event", "metrics", "secret"],
    ),
    (
        "sink",
        &[
            "sink", "model", "features", "window", "decode", "event", "clock", "secret", "metrics",
            "redact",
        ],
    ),
];

/// The stages whose outcome may depend on their input only.
const PURE: [&str; 9] = [
    "event.rs",
    "redact",
    "decode",
    "window",
    "features",
    "model",
    "pipeline.rs",
    "rescore.rs",
    "source/ledger.rs",
];
const IMPURE: [&str; 8] = [
    "tokio::",
    "rdkafka::",
    "crate::clock",
    "SystemTime",
    "Instant::now",
    "Utc::now",
    "rand::",
    "std::net",
];

fn source_files(stage: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src")
        .join(stage);
    if root.is_file() {
        return vec![root];
    }
    let mut files = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "no source files in {stage}");
    files
}

/// The code of a file: neither its unit tests nor its comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The crate's modules that the code names, in `use crate::{…}` or in place.
fn imports(code: &str) -> Vec<String> {
    let mut modules = Vec::new();
    let name = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("crate::") {
        rest = after;
        if before.ends_with(|c: char| c == '$' || c.is_alphanumeric()) {
            continue;
        }
        let Some(group) = rest.strip_prefix('{') else {
            modules.push(name(rest));
            continue;
        };
        let mut depth = 0;
        let mut item = String::new();
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => modules.push(name(&std::mem::take(&mut item))),
                c if depth == 0 => item.push(c),
                _ => {}
            }
        }
        modules.push(name(&item));
    }
    modules.retain(|module| !module.is_empty());
    modules
}

#[test]
fn a_stage_knows_only_what_comes_before_it() {
    for (stage, allowed) in MAY_IMPORT {
        for file in source_files(stage) {
            for module in imports(&code(&file)) {
                assert!(
                    allowed.contains(&module.as_str()),
                    "{}: imports `crate::{module}`, but {stage} may know {allowed:?} only",
                    file.display()
                );
            }
        }
    }
}

#[test]
fn pure_stages_reach_for_nothing_outside() {
    for stage in PURE {
        for file in source_files(stage) {
            let code = code(&file);
            for word in IMPURE {
                assert!(!code.contains(word), "{}: names `{word}`", file.display());
            }
        }
    }
}

#[test]
fn only_the_consumer_commits_offsets() {
    for file in source_files("") {
        let code = code(&file);
        let in_source = file.components().any(|part| part.as_os_str() == "source");
        for word in [".commit(", ".store_offset", "commit_consumer_state"] {
            // PostgreSQL transactions commit too; they are the sinks'.
            let transaction = word == ".commit(" && !code.contains("rdkafka");
            assert!(
                in_source || transaction || !code.contains(word),
                "{}: calls `{word}`",
                file.display()
            );
        }
    }
}

#[test]
fn imports_are_read_from_groups_and_paths() {
    let found = imports("use crate::{a::{B, c}, d, e::F};\nlet x = crate::g::h();");
    assert_eq!(found, ["a", "d", "e", "g"]);
}
