//! The alarms that a file is known to hold: a bounded set that forgets the oldest first.

use std::collections::{HashSet, VecDeque};

use xxhash_rust::xxh3::xxh3_128;

/// Most alarms remembered, about 5 MB. An alarm can only come again within what is replayed after a
/// restart, which is far less.
const KEYS_MAX: usize = 100_000;

/// Hashes of alarm keys; 128 bits, so that no two alarms are taken for one.
#[derive(Debug, Default)]
pub(super) struct KnownAlarms {
    hashes: HashSet<u128>,
    oldest_first: VecDeque<u128>,
}

impl KnownAlarms {
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.hashes.contains(&xxh3_128(key.as_bytes()))
    }

    pub(super) fn insert(&mut self, key: &str) {
        let hash = xxh3_128(key.as_bytes());
        if !self.hashes.insert(hash) {
            return;
        }
        self.oldest_first.push_back(hash);
        if self.oldest_first.len() > KEYS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.hashes.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        let hash = xxh3_128(key.as_bytes());
        if self.hashes.remove(&hash) {
            self.oldest_first.retain(|it| *it != hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut known = KnownAlarms::default();
        for key in 0..=KEYS_MAX {
            known.insert(&key.to_string());
            known.insert(&key.to_string());
        }
        assert!(!known.contains("0") && known.contains("1"));
        known.remove("1");
        assert!(!known.contains("1") && known.contains("2"));
        assert_eq!(known.oldest_first.len(), known.hashes.len());
    }
}
