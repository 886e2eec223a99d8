//! JSON as Go's `encoding/json` prints it: `<`, `>`, `&`, U+2028 and U+2029 escaped.
//!
//! Receivers of webhooks compare and sign bodies byte for byte, so the escapes of the original are part of the
//! format. Everything else is `serde_json`'s compact form, which agrees with Go's.

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> std::io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, tail) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = tail.chars();
            let escaped: &[u8] = match chars.next() {
                Some('<') => br"\u003c",
                Some('>') => br"\u003e",
                Some('&') => br"\u0026",
                Some('\u{2028}') => br"\u2028",
                _ => br"\u2029",
            };
            writer.write_all(escaped)?;
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// `value` as compact JSON with Go's escapes.
///
/// # Errors
/// When `value` cannot be JSON (a map with keys that are no strings).
pub(crate) fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    let mut out = Vec::with_capacity(256);
    value.serialize(&mut Serializer::with_formatter(&mut out, GoFormatter))?;
    String::from_utf8(out).map_err(<serde_json::Error as serde::ser::Error>::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_go_escapes() {
        let text = "<a href=\"x\">&\u{2028}\u{2029}é\u{8}\u{c}\n\t\u{1}\u{7f}\\/";
        let want =
            r#""\u003ca href=\"x\"\u003e\u0026\u2028\u2029é\b\f\n\t\u0001"#.to_owned() + "\u{7f}" + r#"\\/""#;
        assert_eq!(to_string(text).unwrap(), want);
        let keys = std::collections::BTreeMap::from([("a<", 1), ("b", 2)]);
        assert_eq!(to_string(&keys).unwrap(), r#"{"a\u003c":1,"b":2}"#);
    }
}
