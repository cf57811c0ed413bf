//! The template dictionary: masked text to a shared [`Template`].
//!
//! A template's identity is a hash of its masked text, so it is the same in every replica and
//! after every restart. The dictionary is a bounded cache: forgetting an entry costs time, never
//! a result.
//!
//! A template's text is redacted when it is made, once per distinct template: what is shown,
//! stored or learnt of it holds no secrets, whatever masks the model was trained with.

use std::{borrow::Cow, num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use regex_automata::Match;
use xxhash_rust::xxh3::xxh3_64;

use super::{Masker, shapes::Shapes};
use crate::redact::Redactor;

/// Longest part of a message that is masked, in bytes: stack traces are told apart by their tops.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Longest masked text kept, in bytes, cut at a character boundary, so that endless lines cannot
/// fill the dictionary.
pub const TEMPLATE_BYTES_MAX: usize = 2048;

/// Most bytes of masked text a dictionary keeps: endless lines push others out, not the machine.
pub const DICTIONARY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a message is once its variables are masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// XXH3 of the masked text: the identity.
    pub hash: u64,
    /// The masked text, redacted.
    pub text: Box<str>,
}

impl Template {
    /// Returns the template with this masked text.
    #[must_use]
    pub fn new(masked: &str) -> Self {
        Self {
            hash: xxh3_64(masked.as_bytes()),
            text: masked.into(),
        }
    }
}

/// Finds the template of a message; keeps the most recently used ones.
#[derive(Debug)]
pub struct TemplateDictionary {
    masker: Masker,
    redactor: Option<Arc<Redactor>>,
    templates: LruCache<u64, Arc<Template>>,
    masked: String,
    found: Vec<Match>,
    /// Spares masking what differs in numbers and ids only.
    shapes: Option<Shapes>,
    /// Bytes of the texts held.
    bytes: usize,
    evictions: u64,
}

impl TemplateDictionary {
    /// Returns an empty dictionary of at most `capacity` templates.
    #[must_use]
    pub fn new(masker: Masker, capacity: NonZeroUsize) -> Self {
        Self {
            shapes: Shapes::new(&masker),
            masker,
            redactor: None,
            templates: LruCache::new(capacity),
            masked: String::new(),
            found: Vec::new(),
            bytes: 0,
            evictions: 0,
        }
    }

    /// Returns the dictionary with the texts of its templates redacted.
    #[must_use]
    pub fn redacting(self, redactor: Arc<Redactor>) -> Self {
        Self {
            redactor: Some(redactor),
            ..self
        }
    }

    /// Returns the template of `message`.
    pub fn resolve(&mut self, message: &str) -> &Arc<Template> {
        let (head, _) = message.split_at(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        let known = self.shapes.as_mut().and_then(|shapes| shapes.look_up(head));
        // A hash whose template was forgotten leads back to the text.
        let hash = match known.filter(|hash| self.templates.contains(hash)) {
            Some(hash) => hash,
            None => self.mask(head),
        };
        self.templates.get_or_insert(hash, || {
            let text = kept_text(&self.masked, self.redactor.as_deref());
            self.bytes += text.len();
            Arc::new(Template { hash, text })
        })
    }

    /// Masks a message and returns the hash of its template, for which there is room.
    fn mask(&mut self, message: &str) -> u64 {
        let (masked, found) = (&mut self.masked, &mut self.found);
        masked.clear();
        found.clear();
        self.masker
            .mask_telling(message, masked, |one| found.push(one));
        // Cut after masking: before it, the length of a variable would decide what is cut off.
        let hash = xxh3_64(cut(masked).as_bytes());
        if let Some(shapes) = &mut self.shapes {
            shapes.learn(message, found, hash);
        }
        if !self.templates.contains(&hash) {
            self.make_room();
        }
        hash
    }

    /// Forgets the templates least recently used until there is room for one more of any length.
    fn make_room(&mut self) {
        while self.templates.len() == self.templates.cap().get()
            || self.bytes + TEMPLATE_BYTES_MAX > DICTIONARY_BYTES_MAX
        {
            let Some((_, forgotten)) = self.templates.pop_lru() else {
                return;
            };
            self.bytes -= forgotten.text.len();
            self.evictions += 1;
        }
    }

    /// Returns how many bytes of text are held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how many templates are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.templates.len()
    }

    /// Returns whether no template is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }

    /// Returns how many templates were forgotten for lack of room.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evictions
    }
}

/// Returns what is kept of a masked text. Redacted before it is cut: half a secret may not look like one.
fn kept_text(masked: &str, redactor: Option<&Redactor>) -> Box<str> {
    match redactor.map(|redactor| redactor.text(masked)) {
        Some(Cow::Owned(redacted)) => cut(&redacted).into(),
        _ => cut(masked).into(),
    }
}

fn cut(masked: &str) -> &str {
    let end = masked.floor_char_boundary(TEMPLATE_BYTES_MAX);
    masked.split_at(end).0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{decode::MaskRule, redact::RedactionConfig};

    #[test]
    fn what_the_masks_of_an_old_model_leave_is_redacted_without_a_new_identity() {
        let masks = Masker::default_rules();
        let dictionary =
            || TemplateDictionary::new(Masker::new(&masks).unwrap(), NonZeroUsize::MIN);
        let redactor = Redactor::new(&RedactionConfig::default()).unwrap();
        let mut redacting = dictionary().redacting(Arc::new(redactor));
        let message = "login 17 password=hunter2";
        let shown = Arc::clone(redacting.resolve(message));
        assert_eq!(&*shown.text, "login <num> password=<password>");
        assert_eq!(shown.hash, dictionary().resolve(message).hash);
        let long = format!(
            "{} password=hunter2",
            "x ".repeat(TEMPLATE_BYTES_MAX / 2 - 8)
        );
        assert!(!redacting.resolve(&long).text.contains("hun"));
    }

    #[test]
    fn a_variable_early_in_a_long_message_does_not_move_where_it_is_cut() {
        let masker = Masker::new(&Masker::default_rules()).unwrap();
        let mut dictionary = TemplateDictionary::new(masker, NonZeroUsize::MIN);
        let trace = "at frame of some module ".repeat(200);
        let mut hash = |number: &str| dictionary.resolve(&format!("job {number} {trace}")).hash;
        assert_eq!(hash("1"), hash("1234567"));
    }

    /// Returns the texts that a dictionary finds for `messages`, one after the other, three times.
    fn texts(masker: &Masker, messages: &[String], shapes: bool) -> Vec<Box<str>> {
        let masker = Masker::new(masker.rules()).unwrap();
        let mut dictionary = TemplateDictionary::new(masker, NonZeroUsize::new(50).unwrap());
        if !shapes {
            dictionary.shapes = None;
        }
        // A shape is seen, then proved, then looked up.
        let thrice = [messages; 3].into_iter().flatten();
        thrice
            .map(|message| dictionary.resolve(message).text.clone())
            .collect()
    }

    /// Fills a line: `D` is a digit, `N` a number, `H` a hexadecimal digit, `C` one in capitals.
    fn filled(line: &str, mut seed: u64) -> String {
        let mut draw = |digits: &str| {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let at = usize::try_from(seed >> 33).unwrap() % digits.len();
            char::from(digits.as_bytes()[at])
        };
        let mut filled = String::new();
        for c in line.chars() {
            match c {
                'D' => filled.push(draw("0123456789")),
                'N' => {
                    let length = draw("11122333445f").to_digit(16).unwrap();
                    filled.extend((0..length).map(|_| draw("0123456789")));
                }
                // Numbers and words come as well.
                'H' => filled.push(draw("000123456789abcdefbbddee")),
                'C' => filled.push(draw("0123456789ABCDEFEE")),
                c => filled.push(c),
            }
        }
        filled
    }

    /// Returns the masks of a trained model: those that find secrets, then the usual ones.
    fn trained() -> Masker {
        let redactor = Redactor::new(&RedactionConfig::default()).unwrap();
        let rule = |(name, pattern): &(String, String)| MaskRule {
            name: name.clone(),
            pattern: pattern.clone(),
        };
        let secrets = redactor.masks().iter().map(rule);
        let rules: Vec<_> = secrets.chain(Masker::default_rules()).collect();
        Masker::new(&rules).unwrap()
    }

    fn rules(patterns: &[&str]) -> Masker {
        let rule = |pattern: &&str| MaskRule {
            name: "x".to_owned(),
            pattern: (*pattern).to_owned(),
        };
        Masker::new(&patterns.iter().map(rule).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn digits_that_stay_tell_templates_of_one_shape_apart() {
        let masker = Masker::new(&Masker::default_rules()).unwrap();
        let messages = ["http2 took 17 ms", "http3 took 18 ms", "http2 took 19 ms"];
        let texts = texts(&masker, &messages.map(str::to_owned), true);
        assert_eq!(&*texts[0], "http2 took <num> ms");
        assert_eq!(&*texts[1], "http3 took <num> ms");
        assert_eq!((&texts[2], &texts[3..6]), (&texts[0], &texts[..3]));
        assert_eq!(&texts[6..], &texts[..3]);
    }

    #[test]
    fn rules_that_tell_digits_apart_are_asked_every_time() {
        let messages = ["job 10", "job 01"].map(str::to_owned);
        let texts = texts(&rules(&["[1-9][0-9]*"]), &messages, true);
        let texts: Vec<_> = texts.iter().map(|it| &**it).collect();
        assert_eq!(texts, ["job <x>", "job 0<x>"].repeat(3));
    }

    proptest! {
        // Each case compiles its rules three times.
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// What a dictionary says never depends on what it was asked before.
        #[test]
        fn shapes_change_no_template(
            lines in prop::collection::vec(
                "(md5|v|took |job |id_|0x|x|é|D{1,3}|N|N|N\\.N|C{8}-C{4}-C{4}-C{4}-C{12}|H{4}|H{8}|H{12} |C{9}|H{8}-H{4}-H{4}-H{4}-H{12}|sess_H{8}|ms|[ .:/\"-]){0,7}",
                1..5,
            ),
            seed in any::<u64>(),
            which in 0_usize..5,
        ) {
            let masker = match which {
                0 => Masker::new(&Masker::default_rules()).unwrap(),
                1 => rules(&[r"(?-u:\b)[0-9]{2}(?-u:\b)", "id_[0-9]+", "[0-9]+e[0-9]+|[a-f]+x"]),
                2 => rules(&["7+", "[0-9]{3}", "d{2}"]),
                3 => rules(&[r"\b[0-9a-f]{8}\b", "(?i)c[0-9]"]),
                _ => trained(),
            };
            let messages: Vec<_> = (0..40_u64)
                .flat_map(|round| lines.iter().map(move |line| filled(line, seed ^ round)))
                .collect();
            prop_assert_eq!(texts(&masker, &messages, true), texts(&masker, &messages, false));
        }
    }

    #[test]
    fn a_message_whose_id_alone_is_new_is_not_masked_again() {
        let masker = trained();
        for line in [
            "budget 21654 bytes left for request HHHHHHHH-HHHH-HHHH-HHHH-HHHHHHHHHHHH",
            "token issued for user DDDDD, session sess_HHHHHHHH",
            "commit HHHHHHHHHHHHHHHH took DD ms",
        ] {
            let mut shapes = Shapes::new(&masker).unwrap();
            let mut known = 0;
            for round in 0..300 {
                let message = filled(line, round);
                if shapes.look_up(&message).is_some() {
                    known += 1;
                    continue;
                }
                let (mut masked, mut found) = (String::new(), Vec::new());
                masker.mask_telling(&message, &mut masked, |one| found.push(one));
                shapes.learn(&message, &found, xxh3_64(masked.as_bytes()));
            }
            // Ids that may be numbers stay on their own.
            assert!(
                known > 240,
                "{known} of 300 were known by their shape: {line}"
            );
        }
    }

    #[test]
    fn endless_lines_push_others_out_before_the_count_does() {
        let capacity = NonZeroUsize::new(1_000_000).unwrap();
        let mut dictionary = TemplateDictionary::new(Masker::new(&[]).unwrap(), capacity);
        let most = DICTIONARY_BYTES_MAX / TEMPLATE_BYTES_MAX;
        for number in 0..most + 100 {
            let mut line = format!("{number:08} ");
            line.extend(std::iter::repeat_n('x', TEMPLATE_BYTES_MAX));
            dictionary.resolve(&line);
        }
        assert_eq!((dictionary.len(), dictionary.evictions()), (most, 100));
        assert_eq!(dictionary.bytes(), most * TEMPLATE_BYTES_MAX);
        dictionary.resolve("short");
        assert_eq!((dictionary.len(), dictionary.evictions()), (most, 101));
    }
}
