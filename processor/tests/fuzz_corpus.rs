//! The corpus of every fuzz target, and inputs made from it, through the same code without a
//! fuzzer: what once broke a decoder or a loader breaks it no more.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test program"
)]

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::{fs, path::Path};

use proptest::prelude::*;

use bodies::BODIES;

/// A corpus is to stay small: a fuzzer needs seeds, not an archive.
const CORPUS_BYTES_MAX: usize = 64 * 1024;

/// Returns the files of a target's corpus, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    files.sort_unstable();
    files
}

#[test]
fn every_corpus_passes_and_stays_small() {
    for (target, body) in BODIES {
        let files = corpus(target);
        assert!(files.len() > 2, "{target}: {} files", files.len());
        let bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes <= CORPUS_BYTES_MAX, "{target}: {bytes} bytes");
        for (name, bytes) in files {
            eprintln!("{target}/{name}");
            body(&bytes);
        }
    }
}

#[test]
fn there_is_a_target_for_every_body() {
    let manifest = include_str!("../fuzz/Cargo.toml");
    for (target, _) in BODIES {
        let path = format!("path = \"fuzz_targets/{target}.rs\"");
        assert!(manifest.contains(&path), "{target}");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), BODIES.len());
}

/// A change to an input, at a place told as a share of its length.
#[derive(Clone, Debug)]
enum Change {
    Set(f64, u8),
    Insert(f64, Vec<u8>),
    Cut(f64),
    Remove(f64, usize),
    Repeat(f64, usize),
}

impl Change {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a length"
    )]
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let place = |share: &f64| (share * length as f64) as usize;
        match self {
            Self::Set(share, value) => {
                if let Some(byte) = bytes.get_mut(place(share)) {
                    *byte = *value;
                }
            }
            Self::Insert(share, inserted) => {
                let at = place(share);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Self::Cut(share) => bytes.truncate(place(share)),
            Self::Remove(share, count) => {
                let at = place(share);
                bytes.drain(at..length.min(at + count));
            }
            Self::Repeat(share, count) => {
                let at = place(share);
                let piece = bytes[at..length.min(at + count)].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let share = 0.0..1.0_f64;
    let token = prop_oneof![
        Just(b"null".to_vec()),
        Just(b"-1".to_vec()),
        Just(b"1e308".to_vec()),
        Just(b"9223372036854775807".to_vec()),
        Just(b"[[[[".to_vec()),
        Just(b"\"".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\xff\xfe".to_vec()),
        prop::collection::vec(any::<u8>(), 1..8),
    ];
    prop_oneof![
        (share.clone(), any::<u8>()).prop_map(|(share, value)| Change::Set(share, value)),
        (share.clone(), token).prop_map(|(share, bytes)| Change::Insert(share, bytes)),
        share.clone().prop_map(Change::Cut),
        (share.clone(), 1..20_usize).prop_map(|(share, count)| Change::Remove(share, count)),
        (share, 1..200_usize).prop_map(|(share, count)| Change::Repeat(share, count)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_made_from_the_corpus_passes(
        nth: prop::sample::Index,
        changes in prop::collection::vec(change(), 1..6),
    ) {
        for (target, body) in BODIES {
            let files = corpus(target);
            let mut bytes = files[nth.index(files.len())].1.clone();
            for change in &changes {
                change.apply(&mut bytes);
            }
            body(&bytes);
        }
    }

    #[test]
    fn any_bytes_pass(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for (_, body) in BODIES {
            body(&bytes);
        }
    }
}
