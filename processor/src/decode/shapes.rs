//! What masking made of messages of the same shape: a message whose numbers and ids alone are new is not
//! masked again.
//!
//! ```text
//! "took 31 ms over v2" ──narrow──► "took 00 ms over v0" ──unknown──► wide ──► "took N ms over vN"
//!                                                 the last N stays as it is ──► hash of "took <num> ms over v<2>"
//! ```
//!
//! A shape is a message with [`wildcards`](super::wildcards). It is learnt when it comes for the second time,
//! and only if the rules are proved to match at the same places in all messages of it
//! ([`Proof`](super::proof::Proof)): what masking makes of one is then a function of the shape and of the
//! wildcards that stay. A message is of several shapes and goes by the widest that holds. The narrow one is the
//! quickest to find, and learns from the wide ones what it need not prove.
//!
//! A table of fixed size in which a new entry takes the place of the one it meets: forgetting costs
//! time, never a result. It keeps hashes and no texts.

use regex_automata::Match;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::{
    Masker,
    proof::Proof,
    template::MESSAGE_BYTES_MAX,
    wildcards::{Marked, class},
};

/// Places in the table (2 MiB): shapes multiply by the lengths of their numbers, and a busy topic has
/// some ten thousand. A power of two.
const PLACES: usize = 1 << 16;
/// Most wildcards that stay as they are for which an entry is kept: names such as `sha256`, not dumps.
const STAYING_MAX: usize = 32;
/// Places of wildcards that stay as they are, in order; the rest is [`NOWHERE`], a place beyond any message.
type Staying = [u16; STAYING_MAX];
const NOWHERE: u16 = u16::MAX;
const _: () = assert!(MESSAGE_BYTES_MAX < NOWHERE as usize);
const NONE_STAYS: Staying = [NOWHERE; STAYING_MAX];

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
    /// Which of its wildcards stay as they are. In a box, so that a place is half a cache line.
    Staying(Box<Staying>),
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
    /// The message looked up last, and the same with the wildcards that stay as they are.
    marked: Marked,
    with_staying: Vec<u8>,
    /// Where digits stay, by the shape asked last.
    stay: Staying,
    lesson: Option<Lesson>,
}

impl Shapes {
    /// Returns an empty table for the rules of `masker`; `None` if nothing can be proved of them.
    pub(super) fn new(masker: &Masker) -> Option<Self> {
        let patterns: Vec<_> = masker.rules().iter().map(|rule| &*rule.pattern).collect();
        Some(Self {
            places: vec![Place::default(); PLACES],
            proof: Proof::new(&patterns)?,
            marked: Marked::default(),
            with_staying: Vec::new(),
            stay: NONE_STAYS,
            lesson: None,
        })
    }

    /// Returns the hash of the template of `message`, which has at most [`MESSAGE_BYTES_MAX`] bytes, if a
    /// message that masks to the same was learnt.
    pub(super) fn look_up(&mut self, message: &str) -> Option<u64> {
        let message = message.as_bytes();
        self.lesson = None;
        self.marked.narrow(message);
        let (narrow, said) = self.ask(message);
        if let Said::Template(hash) = said {
            return Some(hash);
        }
        let has_ids = self.marked.widen(message);
        let (_, mut wide) = self.ask(message);
        if matches!(wide, Said::Varies) && has_ids && self.marked.narrow_ids(message) {
            (_, wide) = self.ask(message);
        }
        match wide {
            Said::Template(hash) => {
                if !has_ids {
                    self.teach_narrow(narrow, message, hash);
                }
                return Some(hash);
            }
            Said::Unknown(lesson) => self.lesson = Some(lesson),
            Said::Varies => {
                self.marked.narrow(message);
                if let Said::Unknown(lesson) = said {
                    self.lesson = Some(lesson);
                }
            }
        }
        None
    }

    /// Returns the key of the shape of `message` as it is marked, and what that says of it.
    fn ask(&mut self, message: &[u8]) -> (u128, Said) {
        let key = xxh3_128_with_seed(&self.marked.bytes, OF_SHAPE);
        self.stay = NONE_STAYS;
        let said = match &place(&self.places, key).known {
            Known::Nothing => Said::Unknown(Lesson::Seen(key)),
            Known::Seen => Said::Unknown(Lesson::Shape(key)),
            Known::Varies => Said::Varies,
            Known::Template(hash) => Said::Template(*hash),
            Known::Staying(staying) => {
                self.stay = **staying;
                let key = self.key_with_staying(message);
                match place(&self.places, key).known {
                    Known::Template(hash) => Said::Template(hash),
                    _ => Said::Unknown(Lesson::Staying(key)),
                }
            }
        };
        (key, said)
    }

    /// Returns the key of the message as it is marked but for the wildcards that stay.
    fn key_with_staying(&mut self, message: &[u8]) -> u128 {
        let Self {
            marked,
            with_staying,
            stay,
            ..
        } = self;
        with_staying.clear();
        let mut from = 0;
        for at in stay.iter().take_while(|at| **at != NOWHERE) {
            let at = usize::from(*at);
            with_staying.extend(marked.bytes.get(from..at).unwrap_or_default());
            let origin = marked.origin_of(at, message);
            with_staying.extend(message.get(origin).unwrap_or_default());
            from = at + 1;
        }
        with_staying.extend(marked.bytes.get(from..).unwrap_or_default());
        xxh3_128_with_seed(with_staying, WITH_STAYING)
    }

    /// Learns of the narrow shape of a message what the wide one, which was asked last, says.
    fn teach_narrow(&mut self, narrow: u128, message: &[u8], hash: u64) {
        let mut stay = NONE_STAYS;
        let mut places = stay.iter_mut();
        for at in self.stay.iter().take_while(|at| **at != NOWHERE) {
            for digit in self.marked.origin_of(usize::from(*at), message) {
                match (places.next(), u16::try_from(digit)) {
                    (Some(place), Ok(digit)) => *place = digit,
                    _ => return,
                }
            }
        }
        if stay == NONE_STAYS {
            return self.put(narrow, Known::Template(hash));
        }
        self.put(narrow, Known::Staying(Box::new(stay)));
        self.marked.narrow(message);
        self.stay = stay;
        let key = self.key_with_staying(message);
        self.put(key, Known::Template(hash));
    }

    fn put(&mut self, key: u128, known: Known) {
        if let Some(place) = self.places.get_mut(index(key)) {
            *place = Place { key, known };
        }
    }

    /// Learns that the rules match the message looked up last at `found`, so that it has the template of
    /// `hash`.
    pub(super) fn learn(&mut self, message: &str, found: &[Match], hash: u64) {
        match self.lesson {
            None => {}
            Some(Lesson::Seen(key)) => self.put(key, Known::Seen),
            Some(Lesson::Staying(key)) => self.put(key, Known::Template(hash)),
            // A message with wildcards that stay is looked up with them the next time.
            Some(Lesson::Shape(key)) => {
                let known = self.prove(message.as_bytes(), found, hash);
                let known = known.unwrap_or(match self.proof.ran_out() {
                    true => Known::Seen,
                    false => Known::Varies,
                });
                self.put(key, known);
            }
        }
    }

    /// Returns what holds for all messages of the shape of the one looked up last; `None` if that cannot
    /// be said in one.
    fn prove(&mut self, message: &[u8], found: &[Match], hash: u64) -> Option<Known> {
        let mut in_shape = Vec::with_capacity(found.len());
        for one in found {
            let place = |at| self.marked.place_of(at, message);
            in_shape.push(Match::new(
                one.pattern(),
                place(one.start())?..place(one.end())?,
            ));
        }
        let mut stay = NONE_STAYS;
        let mut places = stay.iter_mut();
        for at in self.staying(&in_shape) {
            *places.next()? = u16::try_from(at).ok()?;
        }
        let holds = self.proof.holds(&self.marked.bytes, &in_shape);
        holds.then(|| match stay {
            NONE_STAYS => Known::Template(hash),
            stay => Known::Staying(Box::new(stay)),
        })
    }

    /// Returns the wildcards outside of `found`.
    fn staying(&self, found: &[Match]) -> impl Iterator<Item = usize> {
        let bytes = &self.marked.bytes;
        let starts = found.iter().map(Match::start).chain([bytes.len()]);
        let ends = [0].into_iter().chain(found.iter().map(Match::end));
        ends.zip(starts)
            .flat_map(|(end, start)| end..start)
            .filter(|at| bytes.get(*at).is_some_and(|byte| class(*byte).is_some()))
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
