//! What masking made of messages of the same shape: a message whose digits and ids alone are new is not
//! masked again.
//!
//! ```text
//! "took 31 ms over v2" ──digits blinded──► "took 00 ms over v0" ──► digit 16 stays as it is
//!                                          "took 00 ms over v2" ──► hash of "took <num> ms over v<2>"
//! ```
//!
//! A shape is a message with [`wildcards`](super::wildcards). It is learnt when it comes for the second time, and
//! only if the rules are proved to match at the same places in all messages of it
//! ([`Proof`](super::proof::Proof)): what masking makes of one is then a function of the shape and of the
//! wildcards that stay. A message with ids is of several shapes, from the widest to the narrowest, and goes by
//! the first that holds.
//!
//! A table of fixed size in which a new entry takes the place of the one it meets: forgetting costs
//! time, never a result. It keeps hashes and no texts.

use regex_automata::Match;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::{
    Masker,
    proof::Proof,
    wildcards::{blind, is_wildcard, mark_ids, mark_witnessed},
};

/// Places in the table (2 MiB): shapes multiply by the lengths of their numbers, and a busy topic has
/// some ten thousand. A power of two.
const PLACES: usize = 1 << 16;
/// Most wildcards that stay as they are for which an entry is kept: names such as `sha256`, not dumps.
const STAYING_MAX: usize = 32;
/// Longest message looked up, in bytes; positions are kept in 16 bits.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// A position beyond any message.
const NOWHERE: u16 = u16::MAX;

/// What a hash is of: the two kinds must never meet, though the bytes may be the same.
const OF_SHAPE: u64 = 0;
const WITH_STAYING: u64 = 1;

/// What is known of a shape.
#[derive(Clone, Debug, Default)]
enum Known {
    #[default]
    Nothing,
    /// It came once: most of those never come again, and are not worth a proof.
    Seen,
    /// Its messages are masked one by one.
    Varies,
    /// Hash of the template.
    Template(u64),
    /// Where its wildcards stay as they are; the rest is [`NOWHERE`]. An array, so that a place is half a
    /// cache line.
    Staying(Box<[u16; STAYING_MAX]>),
}

#[derive(Clone, Debug, Default)]
struct Place {
    key: u128,
    known: Known,
}

/// What a shape says of the message looked up.
#[derive(Clone, Copy, Debug)]
enum Said {
    Template(u64),
    Varies,
    Unknown(Lesson),
}

/// What there is to learn from the message looked up, under which key.
#[derive(Clone, Copy, Debug)]
enum Lesson {
    /// That its shape came once.
    Seen(u128),
    /// What its shape, which came before, is masked to.
    Shape(u128),
    /// The template of its shape with the wildcards that stay.
    Staying(u128),
}

/// Template hashes by shape.
#[derive(Debug)]
pub(super) struct Shapes {
    places: Vec<Place>,
    proof: Proof,
    /// The message looked up last, marked, and the same with the wildcards that stay as they are.
    marked: Vec<u8>,
    with_staying: Vec<u8>,
    lesson: Option<Lesson>,
}

impl Shapes {
    /// Returns an empty table for the rules of `masker`; `None` if nothing can be proved of them.
    pub(super) fn new(masker: &Masker) -> Option<Self> {
        let patterns: Vec<_> = masker.rules().iter().map(|rule| &*rule.pattern).collect();
        Some(Self {
            places: vec![Place::default(); PLACES],
            proof: Proof::new(&patterns)?,
            marked: Vec::new(),
            with_staying: Vec::new(),
            lesson: None,
        })
    }

    /// Returns the hash of the template of `message`, if a message that masks to the same was learnt.
    pub(super) fn look_up(&mut self, message: &str) -> Option<u64> {
        let message = message.as_bytes();
        self.lesson = None;
        if message.len() > MESSAGE_BYTES_MAX {
            return None;
        }
        self.blind(message);
        let of_digits = self.ask(message);
        if let Said::Template(hash) = of_digits {
            return Some(hash);
        }
        if mark_ids(message, &mut self.marked) {
            let mut said = self.ask(message);
            if matches!(said, Said::Varies) && mark_witnessed(message, &mut self.marked) {
                said = self.ask(message);
            }
            match said {
                Said::Template(hash) => return Some(hash),
                Said::Unknown(lesson) => {
                    self.lesson = Some(lesson);
                    return None;
                }
                Said::Varies => self.blind(message),
            }
        }
        if let Said::Unknown(lesson) = of_digits {
            self.lesson = Some(lesson);
        }
        None
    }

    fn blind(&mut self, message: &[u8]) {
        self.marked.clear();
        self.marked.extend(message.iter().map(|byte| blind(*byte)));
    }

    /// Returns what the shape of `message` as it is marked says of it.
    fn ask(&mut self, message: &[u8]) -> Said {
        let key = xxh3_128_with_seed(&self.marked, OF_SHAPE);
        let staying = match &place(&self.places, key).known {
            Known::Nothing => return Said::Unknown(Lesson::Seen(key)),
            Known::Seen => return Said::Unknown(Lesson::Shape(key)),
            Known::Varies => return Said::Varies,
            Known::Template(hash) => return Said::Template(*hash),
            Known::Staying(positions) => positions,
        };
        self.with_staying.clone_from(&self.marked);
        for position in staying.iter().take_while(|at| **at != NOWHERE) {
            let position = usize::from(*position);
            let places = (self.with_staying.get_mut(position), message.get(position));
            if let (Some(to), Some(from)) = places {
                *to = *from;
            }
        }
        let key = xxh3_128_with_seed(&self.with_staying, WITH_STAYING);
        match place(&self.places, key).known {
            Known::Template(hash) => Said::Template(hash),
            _ => Said::Unknown(Lesson::Staying(key)),
        }
    }

    /// Learns that the rules match the message looked up last at `found`, so that it has the template of
    /// `hash`.
    pub(super) fn learn(&mut self, found: &[Match], hash: u64) {
        let (key, known) = match self.lesson {
            None => return,
            Some(Lesson::Seen(key)) => (key, Known::Seen),
            Some(Lesson::Staying(key)) => (key, Known::Template(hash)),
            // A message with wildcards that stay is looked up with them the next time.
            Some(Lesson::Shape(key)) => (key, self.prove(found, hash)),
        };
        if let Some(place) = self.places.get_mut(index(key)) {
            *place = Place { key, known };
        }
    }

    /// Returns what holds for all messages of the shape of the one looked up last.
    fn prove(&mut self, found: &[Match], hash: u64) -> Known {
        let mut staying = [NOWHERE; STAYING_MAX];
        let mut places = staying.iter_mut();
        for at in self.staying(found) {
            match (places.next(), u16::try_from(at)) {
                (Some(place), Ok(at)) => *place = at,
                _ => return Known::Varies,
            }
        }
        if !self.proof.holds(&self.marked, found) {
            Known::Varies
        } else if staying[0] == NOWHERE {
            Known::Template(hash)
        } else {
            Known::Staying(Box::new(staying))
        }
    }

    /// Returns the wildcards outside of `found`.
    fn staying(&self, found: &[Match]) -> impl Iterator<Item = usize> {
        let starts = found.iter().map(Match::start).chain([self.marked.len()]);
        let ends = [0].into_iter().chain(found.iter().map(Match::end));
        ends.zip(starts)
            .flat_map(|(end, start)| end..start)
            .filter(|at| self.marked.get(*at).is_some_and(|byte| is_wildcard(*byte)))
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
