//! What masking made of messages of the same shape: a message whose digits alone are new is not
//! masked again.
//!
//! ```text
//! "took 31 ms over v2" ──digits blinded──► "took 00 ms over v0" ──► digit 16 stays as it is
//!                                          "took 00 ms over v2" ──► hash of "took <num> ms over v<2>"
//! ```
//!
//! Right only where no rule tells digits apart
//! ([`Masker::is_blind_to_digits_of`](super::Masker::is_blind_to_digits_of)): where they match is then a
//! function of the shape, and what they make of a message one of the shape and of the digits that stay.
//! Other shapes are never learnt.
//!
//! A table of fixed size in which a new entry takes the place of the one it meets: forgetting costs
//! time, never a result. It keeps hashes and no texts.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::{Masker, digits::blind};

/// Places in the table (3 MiB): shapes multiply by the lengths of their numbers, and a busy topic has
/// some ten thousand. A power of two.
const PLACES: usize = 1 << 16;
/// Most digits that stay as they are for which an entry is kept: names such as `sha256`, not dumps.
const STAYING_MAX: usize = 32;
/// Longest message looked up, in bytes; positions are kept in 16 bits.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// What a hash is of: the two kinds must never meet, though the bytes may be the same.
const OF_SHAPE: u64 = 0;
const WITH_STAYING: u64 = 1;

/// What is known of a shape.
#[derive(Clone, Debug, Default)]
enum Known {
    #[default]
    Nothing,
    /// Hash of the template.
    Template(u64),
    /// Where its digits stay as they are.
    Staying(Box<[u16]>),
}

#[derive(Clone, Debug, Default)]
struct Place {
    key: u128,
    known: Known,
}

/// Template hashes by shape.
#[derive(Debug)]
pub(super) struct Shapes {
    places: Vec<Place>,
    /// The message looked up last, its digits blinded but for those that stay.
    blinded: Vec<u8>,
    /// Keys of that message.
    shape: u128,
    with_staying: Option<u128>,
    /// Digits of the message being masked that stay.
    staying: Vec<u16>,
}

impl Shapes {
    pub(super) fn new() -> Self {
        Self {
            places: vec![Place::default(); PLACES],
            blinded: Vec::new(),
            shape: 0,
            with_staying: None,
            staying: Vec::new(),
        }
    }

    /// Returns the hash of the template of `message`, if a message that masks to the same was learnt.
    pub(super) fn look_up(&mut self, message: &str) -> Option<u64> {
        self.staying.clear();
        self.blinded.clear();
        self.blinded.extend(message.bytes().map(blind));
        self.shape = xxh3_128_with_seed(&self.blinded, OF_SHAPE);
        self.with_staying = None;
        let staying = match &place(&self.places, self.shape).known {
            Known::Nothing => return None,
            Known::Template(hash) => return Some(*hash),
            Known::Staying(positions) => positions,
        };
        let message = message.as_bytes();
        for position in staying.iter().map(|it| usize::from(*it)) {
            if let (Some(to), Some(from)) = (self.blinded.get_mut(position), message.get(position))
            {
                *to = *from;
            }
        }
        let key = xxh3_128_with_seed(&self.blinded, WITH_STAYING);
        self.with_staying = Some(key);
        match place(&self.places, key).known {
            Known::Template(hash) => Some(hash),
            _ => None,
        }
    }

    /// Notes that a stretch of the message looked up last is no variable.
    pub(super) fn stays(&mut self, message: &str, stretch: Range<usize>) {
        let bytes = message.as_bytes().get(stretch.clone()).unwrap_or_default();
        for (position, byte) in (stretch.start..).zip(bytes) {
            // One more than are kept is enough to tell that they are too many.
            if byte.is_ascii_digit() && self.staying.len() <= STAYING_MAX {
                self.staying.extend(u16::try_from(position));
            }
        }
    }

    /// Learns that the message looked up last, every stretch of which that stays has been told, has the
    /// template of `hash`.
    pub(super) fn learn(&mut self, message: &str, hash: u64, masker: &Masker) {
        if message.len() > MESSAGE_BYTES_MAX || self.staying.len() > STAYING_MAX {
            return;
        }
        if let Some(key) = self.with_staying {
            return self.put(key, Known::Template(hash));
        }
        if !masker.is_blind_to_digits_of(&self.blinded) {
            return;
        }
        let known = if self.staying.is_empty() {
            Known::Template(hash)
        } else {
            // The next message of this shape is looked up with them.
            Known::Staying(self.staying.as_slice().into())
        };
        self.put(self.shape, known);
    }

    fn put(&mut self, key: u128, known: Known) {
        if let Some(place) = self.places.get_mut(index(key)) {
            *place = Place { key, known };
        }
    }
}

/// Returns what is kept under `key`.
fn place(places: &[Place], key: u128) -> &Place {
    const NONE: &Place = &Place {
        key: 0,
        known: Known::Nothing,
    };
    places
        .get(index(key))
        .filter(|place| place.key == key)
        .unwrap_or(NONE)
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the low bits are what is wanted"
)]
fn index(key: u128) -> usize {
    key as usize % PLACES
}
