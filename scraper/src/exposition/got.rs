//! Errors of text formats in Prometheus' words: which token was found where another one was due, and the line up to it.
//!
//! Its lexers decide by what came before which tokens there can be. Where none fits, the token is `INVALID` and reaches to the
//! byte that fits no more; tokens that fit are shown with the byte that follows them.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::scan::{QuotedRules, name_end, quoted_end};
use super::{EXCERPT_MAX, Format, ParseError, Parser};

/// Words that may follow `#` in OpenMetrics.
const META: [&[u8]; 4] = [b"# HELP ", b"# TYPE ", b"# UNIT ", b"# EOF"];

/// What the lexer can find.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lexer {
    /// Nothing but a name, or a line with `#`.
    Start,
    /// The name of a family.
    Family(QuotedRules),
    /// What is between braces.
    Labels(QuotedRules),
    /// A label value.
    Value(QuotedRules),
    /// What follows a series in classic text.
    Number,
    /// A time in classic text.
    Time,
    /// A space and a word, in OpenMetrics.
    Word,
    /// The end of a line, or a space and a word.
    WordOrEnd,
}

impl Parser<'_> {
    /// An error about the line that began at `start`: at `from` stands something else than what is due.
    pub(super) fn unexpected(
        &self,
        what: impl std::fmt::Display,
        start: usize,
        from: usize,
        lexer: Lexer,
    ) -> ParseError {
        let (end, name) = self.token(from, lexer);
        let got = quoted(&self.shown(from, end));
        ParseError {
            what: Cow::Owned(format!("{what}, got {got} (\"{name}\")")),
            excerpt: quoted(&self.shown(start, end)),
            offset: self.pos,
        }
    }

    /// The bytes from `from` to `to`, shortened. Behind classic text stands a line break that is not there.
    pub(super) fn shown(&self, from: usize, to: usize) -> Vec<u8> {
        let end = to.min(self.page.len());
        let mut shown = self.slice(from, end.min(from + EXCERPT_MAX)).to_vec();
        if to > self.page.len() && self.format == Format::Text && shown.len() < EXCERPT_MAX {
            shown.push(b'\n');
        }
        shown
    }

    /// The token at `from`: where what is shown of it ends, and its name.
    fn token(&self, from: usize, lexer: Lexer) -> (usize, &'static str) {
        let invalid = (from + 1, "INVALID");
        let at = |index: usize| self.page.get(index).copied();
        let quoted = |rules, name| match quoted_end(self.page, from, rules) {
            Some(end) => (end + 1, name),
            None => (quoted_break(self.page, from, rules) + 1, "INVALID"),
        };
        match (lexer, at(from)) {
            (Lexer::Start, Some(b'#')) => {
                let rest = self.page.get(from..).unwrap_or_default();
                let fits = META.map(|word| word.iter().zip(rest).take_while(|(a, b)| a == b).count());
                (from + fits.into_iter().max().unwrap_or(0) + 1, "INVALID")
            }
            (Lexer::Family(rules), Some(b'"')) => quoted(rules, "MNAME"),
            (Lexer::Labels(_), Some(b'=')) => (from + 2, "EQUAL"),
            (Lexer::Labels(_), Some(b',')) => (from + 2, "COMMA"),
            (Lexer::Labels(_), Some(b'}')) => (from + 2, "BCLOSE"),
            (Lexer::Labels(rules), Some(b'"')) => quoted(rules, "QSTRING"),
            (Lexer::Labels(_), _) => {
                name_end(self.page, from, false).map_or(invalid, |end| (end + 1, "LNAME"))
            }
            (Lexer::Value(rules), Some(b'"')) => quoted(rules, "LVALUE"),
            (Lexer::Number, Some(b'{')) => (from + 2, "BOPEN"),
            (Lexer::Time, Some(b'0'..=b'9')) => {
                let digits = self.slice(from, self.page.len()).iter().take_while(|b| b.is_ascii_digit());
                (from + digits.count() + 1, "TIMESTAMP")
            }
            (Lexer::WordOrEnd, Some(b'\n')) => (from + 2, "LINEBREAK"),
            (Lexer::Word | Lexer::WordOrEnd, Some(b' ')) => {
                let word = self.slice(from + 1, self.page.len());
                match word.iter().take_while(|byte| !matches!(byte, b' ' | b'\n' | 0)).count() {
                    0 => (from + 2, "INVALID"),
                    length => (from + length + 2, "TIMESTAMP"),
                }
            }
            _ => invalid,
        }
    }
}

/// Where the string that opens at `from` can go on no more.
fn quoted_break(page: &[u8], from: usize, rules: QuotedRules) -> usize {
    let mut escaped = false;
    for (index, byte) in page.iter().enumerate().skip(from + 1) {
        match byte {
            b'\n' if escaped || !rules.newline => return index,
            0 if !rules.nul => return index,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    page.len()
}

/// As Go's `%q` writes bytes, which need be no text.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let valid = model::labels::Quoted(chunk.valid()).to_string();
        out.push_str(&valid[1..valid.len() - 1]);
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}").expect("writing to a string cannot fail");
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(page: &str, format: Format) -> String {
        let mut parser = Parser::new(page.as_bytes(), format);
        loop {
            match parser.next() {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error.to_string(),
                None => return String::new(),
            }
        }
    }

    /// Observed on Prometheus 3.5.3.
    #[test]
    fn errors_of_classic_text_are_those_of_prometheus() {
        let cases = [
            ("a{b=\"c\" 1\n", r#"expected label name, got "1" ("INVALID") while parsing: "a{b=\"c\" 1""#),
            ("a{b=\"c\n", r#"expected label value, got "\"c\n\n" ("INVALID") while parsing: "a{b=\"c\n\n""#),
            ("a{b", r#"expected equal, got "\n" ("INVALID") while parsing: "a{b\n""#),
            ("a{b=}\n", r#"expected label value, got "}" ("INVALID") while parsing: "a{b=}""#),
            ("a{=}\n", r#"expected label name, got "=}" ("EQUAL") while parsing: "a{=}""#),
            ("a{,}\n", r#"expected label name, got ",}" ("COMMA") while parsing: "a{,}""#),
            ("a", r#"expected value after metric, got "\n" ("INVALID") while parsing: "a\n""#),
            ("a 1 -5\n", r#"expected timestamp or new record, got "-" ("INVALID") while parsing: "a 1 -""#),
            (
                "a 1 5{\n",
                r#"expected next entry after timestamp, got "{" ("INVALID") while parsing: "a 1 5{""#,
            ),
            ("a{}{} 1\n", r#"expected value after metric, got "{}" ("BOPEN") while parsing: "a{}{}""#),
            (
                "{\"a\" \"b\"} 1\n",
                r#"expected equal, got "\"b\"}" ("QSTRING") while parsing: "{\"a\" \"b\"}""#,
            ),
            ("a{\"b\"} 1\n", r#"metric name already set while parsing: "a{\"b\"}""#),
            (
                "# HELP \"a\n",
                r##"expected metric name after HELP, got "\"a\n\n" ("INVALID") while parsing: "# HELP \"a\n\n""##,
            ),
            ("# TYPE a  counter\n", r#"invalid metric type " counter""#),
            ("# TYPE a\n", r#"invalid metric type """#),
            ("é 1\n", r#"expected a valid start token, got "\xc3" ("INVALID") while parsing: "\xc3""#),
            (
                "a 1 2 3\n",
                r#"expected next entry after timestamp, got "3\n" ("TIMESTAMP") while parsing: "a 1 2 3\n""#,
            ),
            (
                "a 1 99999999999999999999\n",
                r#"strconv.ParseInt: parsing "99999999999999999999": value out of range while parsing: "a 1 99999999999999999999""#,
            ),
            ("\t{ } 1\n", r#"metric name not set while parsing: "\t{ } 1""#),
            (
                "a 1\0\n",
                r#"expected timestamp or new record, got "\x00" ("INVALID") while parsing: "a 1\x00""#,
            ),
        ];
        for (page, expected) in cases {
            assert_eq!(error_of(page, Format::Text), expected, "{page:?}");
        }
    }

    #[test]
    fn errors_of_openmetrics_are_those_of_prometheus() {
        let cases = [
            ("a\n", r#"expected value after metric, got "\n" ("INVALID") while parsing: "a\n""#),
            ("a  1\n", r#"expected value after metric, got "  " ("INVALID") while parsing: "a  ""#),
            ("a 1  2\n", r#"expected a valid start token, got " 2\n" ("TIMESTAMP") while parsing: " 2\n""#),
            (
                "a 1 2 3\n",
                r#"expected next entry after timestamp, got " 3\n" ("TIMESTAMP") while parsing: "a 1 2 3\n""#,
            ),
            (
                "a 1 2  \n",
                r#"expected next entry after timestamp, got "  " ("INVALID") while parsing: "a 1 2  ""#,
            ),
            (
                "a{b=\"c\" d=\"e\"} 1\n",
                r#"expected comma or brace close, got " " ("INVALID") while parsing: "a{b=\"c\" ""#,
            ),
            ("a{b} 1\n", r#"metric name already set while parsing: "a{b}""#),
            ("{b=\"c\"} 1\n", r#"metric name not set while parsing: "{b=\"c\"} 1""#),
            (
                "# HELP\n",
                r##"expected a valid start token, got "# HELP\n" ("INVALID") while parsing: "# HELP\n""##,
            ),
            ("# foo\n", r##"expected a valid start token, got "# f" ("INVALID") while parsing: "# f""##),
            ("# HELP a\n", "expected text in HELP"),
            ("# TYPE a foo\n", r#"invalid metric type "foo""#),
            ("# UNIT a_s b\n", r#"unit "b" not a suffix of metric "a_s""#),
            (
                "a 1 # {} \n",
                r##"expected value after exemplar labels, got " \n" ("INVALID") while parsing: "a 1 # {} \n""##,
            ),
            ("a 1 # {b} 1\n", r##"expected label name, got "} " ("BCLOSE") while parsing: "a 1 # {b} ""##),
            ("a 1 # x\n", r#"expected a valid start token, got "x" ("INVALID") while parsing: "x""#),
            (
                "a 1 \n# EOF\n",
                r##"expected a valid start token, got "\n#" ("LINEBREAK") while parsing: "\n#""##,
            ),
            ("\na 1\n", r#"expected a valid start token, got "\n" ("INVALID") while parsing: "\n""#),
        ];
        for (page, expected) in cases {
            assert_eq!(error_of(page, Format::OpenMetrics), expected, "{page:?}");
        }
    }

    #[test]
    fn what_is_shown_is_short() {
        let page = format!("a{{b=\"{}", "x".repeat(10_000));
        assert!(error_of(&page, Format::Text).len() < 400);
        assert!(error_of(&format!("{}=", "a".repeat(10_000)), Format::OpenMetrics).len() < 400);
    }
}
