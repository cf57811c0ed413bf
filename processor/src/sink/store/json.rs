//! JSON on its way into `jsonb` columns: written once, as text, without the one character that
//! PostgreSQL does not take.

use std::{error::Error as StdError, io};

use bytes::BytesMut;
use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, Serializer};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// What PostgreSQL's binary form of `jsonb` begins with: its version.
const JSONB_VERSION: u8 = 1;

/// A JSON text without NUL, in values and in keys: it becomes the replacement character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Json(String);

impl Json {
    pub(super) fn of(value: &impl Serialize) -> Self {
        let mut text = Vec::new();
        let written = value.serialize(&mut Serializer::with_formatter(&mut text, NulFree));
        // Plain structs of strings and numbers have no map with keys that are not strings, the only
        // thing that cannot be JSON; were it so, null says that it is missing.
        let text = written.ok().and_then(|()| String::from_utf8(text).ok());
        Self(text.unwrap_or_else(|| "null".to_owned()))
    }
}

impl ToSql for Json {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        if *ty == Type::JSONB {
            out.extend_from_slice(&[JSONB_VERSION]);
        }
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB || *ty == Type::JSON
    }

    to_sql_checked!();
}

/// Writes compact JSON with NUL replaced.
struct NulFree;

impl Formatter for NulFree {
    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::AsciiControl(0) => writer.write_all("\u{fffd}".as_bytes()),
            other => CompactFormatter.write_char_escape(writer, other),
        }
    }
}

/// Returns the text with NUL replaced: `text` columns have none either.
pub(super) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nul_is_replaced_wherever_it_hides() {
        let value = json!({"a\0": ["x\0y", {"b": "\0"}], "c": 1});
        let expected = "{\"a\u{fffd}\":[\"x\u{fffd}y\",{\"b\":\"\u{fffd}\"}],\"c\":1}";
        assert_eq!(Json::of(&value).0, expected);
    }

    #[test]
    fn what_only_looks_like_nul_stays() {
        let value = json!({"a": "\\u0000 \u{1} é \u{1f680}"});
        let text = Json::of(&value).0;
        assert_eq!(text, "{\"a\":\"\\\\u0000 \\u0001 é \u{1f680}\"}");
        let back: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back, value);
    }

    #[test]
    fn numbers_that_json_lacks_become_null() {
        assert_eq!(
            Json::of(&[1.0, f64::NAN, f64::INFINITY]).0,
            "[1.0,null,null]"
        );
    }
}
