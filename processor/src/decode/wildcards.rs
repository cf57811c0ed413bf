//! Which bytes of a message may be others without a difference: digits, and the digits of hexadecimal ids.
//!
//! ```text
//! "took 31 ms for 7e48c2d6"  ──digits──►  "took 00 ms for 0e00c0d0"  ──ids──►  "took 00 ms for ########"
//! ```
//!
//! A message so marked stands for many: for itself, and for all that have other members of a wildcard's
//! class in its places. That they are masked alike is not decided here but proved by
//! [`Proof`](super::proof::Proof).

/// Any digit.
const DIGIT: u8 = b'0';
/// Any hexadecimal digit. These four bytes stand in no UTF-8 text.
const HEX_LOWER: u8 = 0xff;
const HEX_UPPER: u8 = 0xfe;
/// Any hexadecimal digit of an id that has a digit and a letter that is in no number and no unit.
const ID_LOWER: u8 = 0xfd;
const ID_UPPER: u8 = 0xfc;

/// Shortest run of hexadecimal digits that is taken for an id.
const ID_BYTES_MIN: usize = 8;
/// Lengths of a UUID's groups.
const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
const UUID_BYTES: usize = 36;

/// What an id has to have, as bits: a digit, and a telling letter. `1234567e8`, `123b` and `43d` may be
/// numbers and durations, `a`, `c` and `f` are in none.
pub(super) const WITNESSES: u8 = 0b11;

/// Returns what stands for a byte when digits are not told apart.
pub(super) fn blind(byte: u8) -> u8 {
    if byte.is_ascii_digit() { DIGIT } else { byte }
}

/// Returns the bytes that a byte of a marked message stands for.
pub(super) fn members(marked: &u8) -> &[u8] {
    match *marked {
        DIGIT => b"0123456789",
        HEX_LOWER | ID_LOWER => b"0123456789abcdef",
        HEX_UPPER | ID_UPPER => b"0123456789ABCDEF",
        _ => std::slice::from_ref(marked),
    }
}

pub(super) fn is_wildcard(marked: u8) -> bool {
    marked == DIGIT || marked >= ID_UPPER
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

/// Marks the ids of a message in `marked`, the same message with its digits blinded; returns whether
/// there are any.
pub(super) fn mark_ids(message: &[u8], marked: &mut [u8]) -> bool {
    let mut any = false;
    let mut at = 0;
    while at < message.len() {
        let rest = &message[at..];
        let length = if is_uuid(rest) {
            UUID_BYTES
        } else {
            let run = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric());
            run.count()
        };
        if let Some(mark) = mark_of(&rest[..length]) {
            any = true;
            for (to, byte) in marked[at..at + length].iter_mut().zip(rest) {
                if *byte != b'-' {
                    *to = mark;
                }
            }
        }
        // What ends a run begins none.
        at += length + 1;
    }
    any
}

/// Marks ids as those that have all witnesses; returns whether all of them do.
pub(super) fn mark_witnessed(message: &[u8], marked: &mut [u8]) -> bool {
    let mut found = WITNESSES;
    let bytes = message.iter().map(Some).chain([None]);
    let marks = marked.iter_mut().map(Some).chain([None]);
    let mut in_id = false;
    for (byte, mark) in bytes.zip(marks) {
        let id = mark.filter(|mark| matches!(**mark, HEX_LOWER | HEX_UPPER));
        match (byte, id) {
            (Some(byte), Some(mark)) => {
                found = if in_id { found } else { 0 } | witness(*byte);
                in_id = true;
                *mark = if *mark == HEX_LOWER {
                    ID_LOWER
                } else {
                    ID_UPPER
                };
            }
            _ => {
                if found != WITNESSES {
                    return false;
                }
                in_id = false;
            }
        }
    }
    true
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

    /// Returns a message with its ids marked: `x` and `X` for any, `w` and `W` for those with witnesses.
    fn marked(message: &str, witnessed: bool) -> Option<String> {
        let mut marked: Vec<u8> = message.bytes().map(blind).collect();
        let any = mark_ids(message.as_bytes(), &mut marked);
        let all = !witnessed || mark_witnessed(message.as_bytes(), &mut marked);
        let shown = marked.iter().map(|byte| match *byte {
            HEX_LOWER => 'x',
            HEX_UPPER => 'X',
            ID_LOWER => 'w',
            ID_UPPER => 'W',
            byte => char::from(byte),
        });
        (any && all).then(|| shown.collect())
    }

    #[test]
    fn ids_are_runs_of_hexadecimal_digits_and_uuids() {
        let found = |message| marked(message, false);
        assert_eq!(
            found("took 31 ms for 7e48c2d6, sess_6179C2D6").as_deref(),
            Some("took 00 ms for xxxxxxxx, sess_XXXXXXXX")
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
        let found = |message| marked(message, true);
        assert_eq!(
            found("7e48c2d6 and 1234567F").as_deref(),
            Some("wwwwwwww and WWWWWWWW")
        );
        assert_eq!(found("7e48c2d6 and 1234567e"), None);
        assert_eq!(found("1234567d"), None);
    }
}
