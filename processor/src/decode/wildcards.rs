//! Which parts of a message may be others without a difference: numbers, and hexadecimal ids.
//!
//! ```text
//! "took 31 ms for 7e48c2d6"  ──narrow──►  "took 00 ms for 0e00c0d0"
//!                            ──wide────►  "took N ms for ########"
//! ```
//!
//! A message so marked stands for many: for itself, and for all that have other members of a wildcard's
//! class in its place. That they are masked alike is not decided here but proved by
//! [`Proof`](super::proof::Proof).

/// Any digit.
const DIGIT: u8 = b'0';
/// The following bytes stand in no UTF-8 text. Any hexadecimal digit.
const HEX_LOWER: u8 = 0xff;
const HEX_UPPER: u8 = 0xfe;
/// Any hexadecimal digit of an id that has all [`WITNESSES`].
const ID_LOWER: u8 = 0xfd;
const ID_UPPER: u8 = 0xfc;
/// Any digits, as many as [`lengths`] says.
const SHORT_NUMBER: u8 = 0xfb;
const LONG_NUMBER: u8 = 0xfa;

/// Digits of a long number, at least: parts of addresses, codes and shares are shorter.
const LONG_NUMBER_DIGITS: usize = 4;
/// Shortest run of hexadecimal digits that is taken for an id.
const ID_BYTES_MIN: usize = 8;
/// Lengths of a UUID's groups.
const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
const UUID_BYTES: usize = 36;

/// What an id may be asked for, as bits: a digit, and a telling letter. `1234567e8`, `123b` and `43d` may be
/// numbers and durations; none of those has an `a`, `c` or `f`.
pub(super) const WITNESSES: u8 = 0b11;

/// Wildcards by the bytes they stand for.
pub(super) const CLASSES: [&[u8]; 3] = [b"0123456789", b"0123456789abcdef", b"0123456789ABCDEF"];

/// Returns the place of a wildcard's class in [`CLASSES`]; `None` for a byte that stands for itself.
pub(super) fn class(marked: u8) -> Option<usize> {
    match marked {
        DIGIT | SHORT_NUMBER | LONG_NUMBER => Some(0),
        HEX_LOWER | ID_LOWER => Some(1),
        HEX_UPPER | ID_UPPER => Some(2),
        _ => None,
    }
}

/// Returns how many bytes of its class a byte of a marked message stands for, at least and at most.
pub(super) fn lengths(marked: u8) -> (usize, Option<usize>) {
    match marked {
        SHORT_NUMBER => (1, Some(LONG_NUMBER_DIGITS - 1)),
        LONG_NUMBER => (LONG_NUMBER_DIGITS, None),
        _ => (1, Some(1)),
    }
}

/// Returns whether a byte of a marked message is of an id that has all [`WITNESSES`].
pub(super) fn is_witnessed(marked: u8) -> bool {
    matches!(marked, ID_LOWER | ID_UPPER)
}

/// Returns the witness that a byte is.
pub(super) fn witness(byte: u8) -> u8 {
    match byte.to_ascii_lowercase() {
        b'0'..=b'9' => 0b01,
        b'a' | b'c' | b'f' => 0b10,
        _ => 0,
    }
}

/// A message with wildcards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marked {
    pub(super) bytes: Vec<u8>,
    /// Where in the message each of them begins; nothing if each stands for one.
    origins: Vec<usize>,
}

impl Marked {
    /// Marks every digit.
    pub(super) fn narrow(&mut self, message: &[u8]) {
        self.origins.clear();
        self.bytes.clear();
        let blind = |byte: &u8| if byte.is_ascii_digit() { DIGIT } else { *byte };
        self.bytes.extend(message.iter().map(blind));
    }

    /// Marks numbers and ids; returns whether there are ids.
    pub(super) fn widen(&mut self, message: &[u8]) -> bool {
        self.origins.clear();
        self.bytes.clear();
        let (mut any, mut at) = (false, 0);
        while at < message.len() {
            let rest = &message[at..];
            let length = if is_uuid(rest) {
                UUID_BYTES
            } else {
                let run = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric());
                run.count().max(1)
            };
            let id = mark_of(&rest[..length]);
            any |= id.is_some();
            for (byte, origin) in rest[..length].iter().zip(at..) {
                match id {
                    Some(mark) if *byte != b'-' => self.push(mark, origin),
                    None if byte.is_ascii_digit() => self.push_digit(message, origin),
                    _ => self.push(*byte, origin),
                }
            }
            at += length;
        }
        any
    }

    fn push(&mut self, byte: u8, origin: usize) {
        self.bytes.push(byte);
        self.origins.push(origin);
    }

    /// Adds a digit to the number that it goes on with, or begins one.
    fn push_digit(&mut self, message: &[u8], at: usize) {
        let goes_on = at > 0 && message[at - 1].is_ascii_digit();
        match (goes_on, self.bytes.last_mut(), self.origins.last()) {
            (true, Some(number), Some(origin)) if matches!(*number, SHORT_NUMBER | LONG_NUMBER) => {
                if at - origin + 1 >= LONG_NUMBER_DIGITS {
                    *number = LONG_NUMBER;
                }
            }
            _ => self.push(SHORT_NUMBER, at),
        }
    }

    /// Marks ids as those that have all witnesses; returns whether all of them do.
    pub(super) fn narrow_ids(&mut self, message: &[u8]) -> bool {
        let mut found = WITNESSES;
        let mut in_id = false;
        for (mark, origin) in self.bytes.iter_mut().zip(&self.origins) {
            if matches!(*mark, HEX_LOWER | HEX_UPPER) {
                let byte = message.get(*origin).map_or(0, |byte| witness(*byte));
                found = if in_id { found } else { 0 } | byte;
                in_id = true;
                *mark = if *mark == HEX_LOWER {
                    ID_LOWER
                } else {
                    ID_UPPER
                };
            } else {
                if found != WITNESSES {
                    return false;
                }
                in_id = false;
            }
        }
        found == WITNESSES
    }

    /// Returns which byte begins at a place in the message; `None` if the place is inside of what one
    /// stands for.
    pub(super) fn place_of(&self, origin: usize, message: &[u8]) -> Option<usize> {
        if origin == message.len() {
            Some(self.bytes.len())
        } else if self.origins.is_empty() {
            Some(origin)
        } else {
            self.origins.binary_search(&origin).ok()
        }
    }

    /// Returns the part of the message that a byte stands for.
    pub(super) fn origin_of(&self, place: usize, message: &[u8]) -> std::ops::Range<usize> {
        if self.origins.is_empty() {
            return place..place + 1;
        }
        let origin = |place| self.origins.get(place).copied().unwrap_or(message.len());
        origin(place)..origin(place + 1)
    }
}

fn is_uuid(text: &[u8]) -> bool {
    let Some(text) = text.get(..UUID_BYTES) else {
        return false;
    };
    text.split(|byte| *byte == b'-')
        .map(|group| {
            group
                .iter()
                .all(u8::is_ascii_hexdigit)
                .then_some(group.len())
        })
        .eq(UUID_GROUPS.map(Some))
}

/// Returns the mark of an id: digits and letters of one case, or a UUID.
fn mark_of(run: &[u8]) -> Option<u8> {
    if run.len() < ID_BYTES_MIN {
        return None;
    }
    let (mut digits, mut lower, mut upper) = (false, false, false);
    for byte in run {
        match byte {
            b'0'..=b'9' => digits = true,
            b'a'..=b'f' => lower = true,
            b'A'..=b'F' => upper = true,
            b'-' => {}
            _ => return None,
        }
    }
    match (digits, lower, upper) {
        (true, true, false) => Some(HEX_LOWER),
        (true, false, true) => Some(HEX_UPPER),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a message with its wildcards: `n` and `N` for short and long numbers, `x` and `X` for ids,
    /// `w` and `W` for those with witnesses.
    fn widened(message: &str, witnessed: bool) -> Option<String> {
        let mut marked = Marked::default();
        let any = marked.widen(message.as_bytes());
        let all = !witnessed || marked.narrow_ids(message.as_bytes());
        let shown = marked.bytes.iter().map(|byte| match *byte {
            HEX_LOWER => 'x',
            HEX_UPPER => 'X',
            ID_LOWER => 'w',
            ID_UPPER => 'W',
            SHORT_NUMBER => 'n',
            LONG_NUMBER => 'N',
            byte => char::from(byte),
        });
        (any && all).then(|| shown.collect())
    }

    #[test]
    fn ids_are_runs_of_hexadecimal_digits_and_uuids() {
        let found = |message| widened(message, false);
        assert_eq!(
            found("took 31 of 1000 ms for 7e48c2d6, sess_6179C2D6").as_deref(),
            Some("took n of N ms for xxxxxxxx, sess_XXXXXXXX")
        );
        assert_eq!(
            found("id 7e482577-5d4d-454a-a74d-b868fd6ed5dc.").as_deref(),
            Some("id xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.")
        );
        for none in [
            "",
            "took 31 ms",
            "12345678",
            "deadbeef",
            "7e48c2d",
            "7e48C2d6",
            "7e48c2d6g",
        ] {
            assert_eq!(found(none), None, "{none}");
        }
    }

    #[test]
    fn witnesses_are_asked_of_every_id() {
        let found = |message| widened(message, true);
        assert_eq!(
            found("7e48c2d6 and 1234567F").as_deref(),
            Some("wwwwwwww and WWWWWWWW")
        );
        assert_eq!(found("7e48c2d6 and 1234567e"), None);
        assert_eq!(found("1234567d"), None);
    }

    #[test]
    fn places_lead_back_to_the_message() {
        let message = b"v12 took 1234 ms";
        let mut marked = Marked::default();
        assert!(!marked.widen(message));
        assert_eq!(marked.bytes.len(), "vn took N ms".len());
        assert_eq!(
            (marked.origin_of(1, message), marked.place_of(3, message)),
            (1..3, Some(2))
        );
        assert_eq!(
            (marked.place_of(2, message), marked.place_of(16, message)),
            (None, Some(12))
        );
        marked.narrow(message);
        assert_eq!(
            (marked.origin_of(1, message), marked.place_of(2, message)),
            (1..2, Some(2))
        );
    }
}
