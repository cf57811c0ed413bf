//! Proof that masking rules match at the same places in all messages that a marked one stands for.
//!
//! ```text
//! "took N ms" ──every number at N──► paths through the rules' automaton ──one match──► proved
//! ```
//!
//! The automata of the rules, one for where matches end and one for where they begin, are run over all
//! of these messages at once. Only where every path leads to the same matches is anything proved. What cannot be
//! decided is not: too many paths, an automaton that grows too large, text beyond ASCII beside a Unicode
//! word boundary. See [`wildcards`](super::wildcards) for what a marked message stands for.

use regex_automata::{
    Anchored, Match, MatchKind, PatternID, Span,
    hybrid::{
        LazyStateID, StartError,
        dfa::{Cache, Config, DFA},
    },
    nfa::thompson,
    util::start,
};

use super::wildcards::{CLASSES, WITNESSES, class, is_witnessed, lengths, witness};

/// Largest automaton before it is turned into states, and most bytes of states kept, each per direction.
const NFA_BYTES_MAX: usize = 16 * 1024 * 1024;
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// Most paths followed at once.
const PATHS_MAX: usize = 512;
/// Digits after which every number has to look like a shorter one.
const NUMBER_DIGITS_MAX: usize = 64;
/// Steps of one proof, some ten milliseconds: a long word in which every rule sees a beginning costs the
/// square of its length.
const STEPS_MAX: usize = 1_000_000;

/// The automata of a set of rules.
#[derive(Debug)]
pub(super) struct Proof {
    ends: Automaton,
    starts: Automaton,
    paths: Paths,
}

#[derive(Debug)]
struct Automaton {
    states: States,
    /// Of each class, the members that the rules tell apart.
    classes: [Vec<u8>; CLASSES.len()],
}

/// The states of an automaton, made as paths come to them.
#[derive(Debug)]
struct States {
    dfa: DFA,
    cache: Cache,
    /// There was no room for another one; it begins anew with the room.
    ran_out: bool,
}

/// Where the messages lead so far, each place once.
#[derive(Debug, Default)]
struct Paths {
    now: Vec<Path>,
    next: Vec<Path>,
    /// Those that leave the number under way.
    left: Vec<Path>,
    /// The byte before was one of an id with witnesses.
    in_id: bool,
    /// Of [`STEPS_MAX`].
    steps_left: usize,
}

/// Where a match may end or begin: between two bytes of a marked message, at twice their place, or inside
/// of what one stands for, at one less or more.
type Bound = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Path {
    state: LazyStateID,
    /// Witnesses that the id under way has so far.
    witnesses: u8,
    /// The last match, and where it ends or begins.
    last: Last,
}

type Last = Option<(PatternID, Bound)>;

impl Proof {
    /// Returns the automata of `patterns`; `None` if they are too large.
    pub(super) fn new(patterns: &[&str]) -> Option<Self> {
        Some(Self {
            ends: Automaton::new(patterns, false)?,
            starts: Automaton::new(patterns, true)?,
            paths: Paths::default(),
        })
    }

    /// Returns whether the rules match every message that `marked` stands for at `found`, where they match
    /// one of them, and nowhere else.
    pub(super) fn holds(&mut self, marked: &[u8], found: &[Match]) -> bool {
        self.paths.steps_left = STEPS_MAX;
        (self.ends.states.ran_out, self.starts.states.ran_out) = (false, false);
        let mut from = 0;
        found.iter().map(Some).chain([None]).all(|one| {
            let is_next = self.is_next(marked, from, one) == Some(true);
            from = one.map_or(from, Match::end);
            is_next
        })
    }

    /// Returns whether it was room that the last proof lacked: the next one has it.
    pub(super) fn ran_out(&self) -> bool {
        self.ends.states.ran_out || self.starts.states.ran_out
    }

    /// Returns whether the next match from a place on is this one, or none; `None` if messages differ.
    fn is_next(&mut self, marked: &[u8], from: usize, found: Option<&Match>) -> Option<bool> {
        let end = self.end_of_next(marked, from)?;
        let Some(found) = found else {
            return Some(end.is_none());
        };
        if end != Some((found.pattern(), 2 * found.end())) {
            return Some(false);
        }
        let span = Span {
            start: from,
            ..found.span()
        };
        Some(self.start_of(marked, span)? == Some((found.pattern(), 2 * found.start())))
    }

    /// Returns pattern and end of the first match from a place on.
    fn end_of_next(&mut self, marked: &[u8], from: usize) -> Option<Last> {
        let (before, text) = marked.split_at_checked(from)?;
        let (ends, paths) = (&mut self.ends, &mut self.paths);
        ends.start(paths, before.last(), Anchored::No)?;
        for (byte, at) in text.iter().zip(from..) {
            ends.step(paths, *byte, 2 * at, 2 * at + 1)?;
            if paths.now.iter().all(|path| path.state.is_dead()) {
                return paths.outcome();
            }
        }
        ends.finish(paths, 2 * marked.len())?;
        paths.outcome()
    }

    /// Returns pattern and start of the match that ends where a span does and does not begin before it.
    fn start_of(&mut self, marked: &[u8], span: Span) -> Option<Last> {
        let (before, text) = marked.get(..span.end)?.split_at_checked(span.start)?;
        let (starts, paths) = (&mut self.starts, &mut self.paths);
        starts.start(paths, marked.get(span.end), Anchored::Yes)?;
        for (byte, at) in text.iter().zip(span.start + 1..span.end + 1).rev() {
            starts.step(paths, *byte, 2 * at, 2 * at - 1)?;
        }
        match before.last() {
            Some(byte) => starts.advance(paths, *byte, 2 * span.start)?,
            None => starts.finish(paths, 2 * span.start)?,
        }
        paths.outcome()
    }
}

impl Automaton {
    fn new(patterns: &[&str], reverse: bool) -> Option<Self> {
        let kind = if reverse {
            MatchKind::All
        } else {
            MatchKind::LeftmostFirst
        };
        let config = Config::new()
            .match_kind(kind)
            .unicode_word_boundary(true)
            .cache_capacity(CACHE_BYTES)
            .skip_cache_capacity_check(true)
            // A state must not be forgotten while paths go through it.
            .minimum_cache_clear_count(Some(0));
        let thompson = thompson::Config::new()
            .reverse(reverse)
            .nfa_size_limit(Some(NFA_BYTES_MAX))
            .which_captures(thompson::WhichCaptures::None);
        let mut builder = DFA::builder();
        builder.configure(config).thompson(thompson);
        let dfa = builder.build_many(patterns).ok()?;
        let told_apart = |members: &[u8]| {
            let mut members = members.to_vec();
            let key = |byte: &u8| (dfa.byte_classes().get(*byte), witness(*byte));
            members.sort_by_key(key);
            members.dedup_by_key(|byte| key(byte));
            members
        };
        Some(Self {
            classes: CLASSES.map(told_apart),
            states: States {
                cache: dfa.create_cache(),
                ran_out: false,
                dfa,
            },
        })
    }

    /// Sets out beside a byte, at an end of the text if there is none.
    fn start(&mut self, paths: &mut Paths, beside: Option<&u8>, anchored: Anchored) -> Option<()> {
        let besides = match beside {
            None => vec![None],
            Some(byte) => members(&self.classes, byte)
                .iter()
                .copied()
                .map(Some)
                .collect(),
        };
        paths.next.clear();
        for beside in besides {
            let path = Path {
                state: self.states.start(beside, anchored)?,
                // Of an id that is entered half-way anything may have come before.
                witnesses: WITNESSES,
                last: None,
            };
            add(&mut paths.next, path)?;
        }
        paths.turn(beside.is_some_and(|byte| is_witnessed(*byte)));
        Some(())
    }

    /// Takes all paths on by what a marked byte stands for. A match that its first byte completes ends, or
    /// begins, at `edge`, one that the others complete `inside`.
    fn step(&mut self, paths: &mut Paths, marked: u8, edge: Bound, inside: Bound) -> Option<()> {
        let (least, most) = lengths(marked);
        self.advance(paths, marked, edge)?;
        if most == Some(1) {
            return Some(());
        }
        paths.left.clear();
        for length in 1..=NUMBER_DIGITS_MAX {
            let mut all_known = true;
            for path in paths.now.iter().filter(|_| length >= least) {
                all_known &= paths.left.contains(path);
                add(&mut paths.left, *path)?;
            }
            if most == Some(length) || (length >= least && all_known) {
                std::mem::swap(&mut paths.now, &mut paths.left);
                return Some(());
            }
            self.advance(paths, marked, inside)?;
        }
        None
    }

    /// Takes all paths on by one byte, any that a marked one stands for.
    fn advance(&mut self, paths: &mut Paths, marked: u8, at: Bound) -> Option<()> {
        let in_id = is_witnessed(marked);
        paths.next.clear();
        for path in &paths.now {
            if paths.in_id && !in_id && path.witnesses != WITNESSES {
                continue;
            }
            let so_far = if paths.in_id { path.witnesses } else { 0 };
            for &byte in members(&self.classes, &marked) {
                paths.steps_left = paths.steps_left.checked_sub(1)?;
                let witnesses = if in_id { so_far | witness(byte) } else { 0 };
                let path = Path { witnesses, ..*path };
                add(&mut paths.next, self.states.go(path, Some(byte), at)?)?;
            }
        }
        paths.turn(in_id);
        Some(())
    }

    /// Takes all paths to the end of the text.
    fn finish(&mut self, paths: &mut Paths, at: Bound) -> Option<()> {
        paths.next.clear();
        for path in &paths.now {
            if paths.in_id && path.witnesses != WITNESSES {
                continue;
            }
            add(&mut paths.next, self.states.go(*path, None, at)?)?;
        }
        paths.turn(false);
        Some(())
    }
}

/// Returns the bytes that a marked one stands for, as far as rules tell them apart.
fn members<'a>(classes: &'a [Vec<u8>; CLASSES.len()], marked: &'a u8) -> &'a [u8] {
    let class = class(*marked).and_then(|class| classes.get(class));
    class.map_or(std::slice::from_ref(marked), Vec::as_slice)
}

impl States {
    /// Returns the state in which to set out beside a byte, or at an end of the text.
    fn start(&mut self, beside: Option<u8>, anchored: Anchored) -> Option<LazyStateID> {
        let config = start::Config::new().look_behind(beside).anchored(anchored);
        let state = self.dfa.start_state(&mut self.cache, &config);
        state
            .inspect_err(|error| {
                if matches!(error, StartError::Cache { .. }) {
                    self.begin_anew();
                }
            })
            .ok()
    }

    /// Returns a path taken on by a byte, or to the end of the text, where a match may be completed `at`;
    /// `None` if there is no room for another state, or if the automaton gives up there.
    fn go(&mut self, path: Path, byte: Option<u8>, at: Bound) -> Option<Path> {
        let (dfa, cache) = (&self.dfa, &mut self.cache);
        let state = match byte {
            Some(byte) => dfa.next_state(cache, path.state, byte),
            None => dfa.next_eoi_state(cache, path.state),
        };
        let state = state.inspect_err(|_| self.begin_anew()).ok()?;
        if state.is_quit() {
            return None;
        }
        let last = if state.is_match() {
            Some((self.dfa.match_pattern(&self.cache, state, 0), at))
        } else {
            path.last
        };
        Some(Path {
            state,
            last,
            ..path
        })
    }

    fn begin_anew(&mut self) {
        self.ran_out = true;
        self.cache.reset(&self.dfa);
    }
}

impl Paths {
    fn turn(&mut self, in_id: bool) {
        std::mem::swap(&mut self.now, &mut self.next);
        self.in_id = in_id;
    }

    /// Returns the match that all paths have come by; `None` if they differ.
    fn outcome(&self) -> Option<Last> {
        let (first, others) = self.now.split_first()?;
        let agree = others.iter().all(|path| path.last == first.last);
        agree.then_some(first.last)
    }
}

/// Adds a path that is not there yet; `None` if they are too many.
fn add(paths: &mut Vec<Path>, path: Path) -> Option<()> {
    if paths.contains(&path) {
        return Some(());
    }
    paths.push(path);
    (paths.len() <= PATHS_MAX).then_some(())
}

#[cfg(test)]
mod tests {
    use regex_automata::meta;

    use super::*;
    use crate::decode::wildcards::Marked;

    /// How a message is marked: its digits, its numbers and ids, its ids with witnesses.
    #[derive(Clone, Copy, PartialEq, PartialOrd)]
    enum How {
        Digits,
        Wide,
        Witnessed,
    }

    fn holds(patterns: &[&str], message: &str, how: How) -> bool {
        let regex = meta::Regex::new_many(patterns).unwrap();
        let bytes = message.as_bytes();
        let mut marked = Marked::default();
        marked.narrow(bytes);
        if how >= How::Wide {
            marked.widen(bytes);
        }
        if how == How::Witnessed {
            assert!(marked.narrow_ids(bytes), "{message}");
        }
        let place = |at| marked.place_of(at, bytes);
        let found = regex.find_iter(message).map(|one| {
            Some(Match::new(
                one.pattern(),
                place(one.start())?..place(one.end())?,
            ))
        });
        let found: Option<Vec<Match>> = found.collect();
        found.is_some_and(|found| Proof::new(patterns).unwrap().holds(&marked.bytes, &found))
    }

    #[test]
    fn numbers_are_alike_however_long_where_no_rule_counts() {
        let holds = |pattern, message| holds(&[pattern], message, How::Wide);
        let address = r"(?-u:\b)[0-9]{1,3}\.[0-9]{1,3}(?-u:\b)";
        assert!(holds(address, "from 10.153 to v2"));
        assert!(holds("[0-9]+", "took 10 of 12345 ms"));
        assert!(holds("v[0-9]+x", "v12x 1v2345x"));
        assert!(!holds(r"(?-u:\b)[0-9]{2}(?-u:\b)", "took 10 ms"));
        assert!(!holds("[0-9]{4}-[0-9]{2}", "on 2025-12-24"));
        assert!(
            !holds("[0-9]{4}", "code 12345"),
            "it ends inside of the number"
        );
        assert!(
            !holds("[0-9]$", "code 12345"),
            "it begins inside of the number"
        );
    }

    #[test]
    fn classes_with_all_digits_tell_none_apart() {
        for pattern in [
            "[0-9]{1,3}",
            r"\d+x",
            "(?i)[a-f0-9]{8}",
            "[^x]+",
            r"(?-u:\b)v\w*",
            r"\bjob\b",
        ] {
            assert!(holds(&[pattern], "job 17 v2", How::Digits), "{pattern}");
        }
    }

    #[test]
    fn a_rule_that_tells_digits_apart_does_so_only_where_it_may_match() {
        for pattern in ["[1-9][0-9]*", "x|[0-5]", "(a[02468]b)*7", "7+", "a(0)"] {
            let holds = |message| holds(&[pattern], message, How::Digits);
            assert!(holds("no digit"), "{pattern}");
            assert!(!holds("a1, 0, a4b7"), "{pattern}");
        }
        let patterns = ["0[xX][0-9a-f]+", r"ya29\.[a-z]+", "[0-9]+"];
        let holds = |message| holds(&patterns, message, How::Digits);
        assert!(holds("took 10 ms over v2"));
        assert!(!holds("at 0x1f"));
        assert!(
            !holds("at 7X1f"),
            "a message of its shape may have a 0 there"
        );
        assert!(!holds("token ya31.b"));
    }

    #[test]
    fn ids_are_alike_where_numbers_and_words_are_none_of_them() {
        let id = "id_[0-9a-f]*[0-9][0-9a-f]*|id_[a-f]{8,}";
        let number = r"(?-u:\b)[0-9]+(?:e[0-9]+)?[bd]?(?-u:\b)";
        let hex = r"(?-u:\b)[0-9a-f]{8,}(?-u:\b)";
        assert!(holds(&[id], "id_7e48c2d6", How::Wide));
        let patterns = [number, hex];
        assert!(
            !holds(&patterns, "for 7e48c2d6", How::Wide),
            "it may be a number"
        );
        assert!(holds(&patterns, "for 7e48c2d6", How::Witnessed));
        assert!(holds(&patterns, "7e48c2d6 7e48c2d6", How::Witnessed));
        assert!(!holds(&["c0ffee"], "7e48c2d6", How::Witnessed));
    }

    #[test]
    fn what_begins_inside_a_wildcard_depends_on_it() {
        let patterns = ["[a-c][0-9]+", "[0-9]+"];
        assert!(!holds(&patterns, "7e48c2d6", How::Wide));
        assert!(holds(
            &["(?-u:\\b)[0-9a-f-]+"],
            "7e482577-5d4d-454a-a74d-b868fd6ed5dc",
            How::Wide
        ));
    }

    #[test]
    fn a_word_that_is_all_beginnings_is_not_looked_at_for_long() {
        let patterns = [r"[a-z0-9.]+@[a-z]+", "[0-9]+"];
        let message = "1.a.".repeat(4_000);
        let mut marked = Marked::default();
        marked.narrow(message.as_bytes());
        let found: Vec<Match> = meta::Regex::new_many(&patterns)
            .unwrap()
            .find_iter(&message)
            .collect();
        let mut proof = Proof::new(&patterns).unwrap();
        assert!(!proof.holds(&marked.bytes, &found));
        assert!(proof.paths.steps_left == 0 && !proof.ran_out());
    }

    #[test]
    fn text_beyond_ascii_beside_a_unicode_word_boundary_is_not_decided() {
        assert!(!holds(&[r"\b[0-9]+\b"], "größe 17", How::Digits));
        assert!(holds(&[r"(?-u:\b)[0-9]+"], "größe 17", How::Digits));
    }
}
