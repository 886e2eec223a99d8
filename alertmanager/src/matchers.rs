//! Matchers as Alertmanager writes them: `label="value"`, `!=`, `=~`, `!~`, with braces and commas.
//!
//! There are two grammars. The *UTF-8* grammar (Alertmanager 0.27) takes any label name, quoted where it holds
//! reserved characters, and Go's string escapes. The *classic* grammar takes names of `[a-zA-Z_:][a-zA-Z0-9_:]*`,
//! values with or without quotes, stray backslashes, and empty values. [`MatcherMode::Fallback`] tries both: what
//! only one accepts is taken from that one, and where they disagree about the meaning the classic one wins, so no
//! old configuration changes its meaning.

use model::labels::{LabelsIter, Quoted};
use model::{Labels, MatchOp, Matcher};
use nom::branch::alt;
use nom::bytes::complete::{tag, take_while1};
use nom::character::complete::{anychar, char, multispace0};
use nom::combinator::{all_consuming, map, opt, recognize, value, verify};
use nom::multi::{many0_count, separated_list0};
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};

/// Most bytes of a text with matchers: such texts come from users over the API too.
pub const MATCHERS_TEXT_MAX: usize = 64 << 10;

/// Which grammar reads matchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MatcherMode {
    /// Both, as the module document tells.
    #[default]
    Fallback,
    /// Only the UTF-8 grammar.
    Utf8Strict,
    /// Only the classic grammar.
    Classic,
}

impl MatcherMode {
    /// Reads a list of matchers, with or without braces; the empty text is the empty list.
    ///
    /// # Errors
    /// A message in Alertmanager's wording.
    pub fn parse_list(self, text: &str) -> Result<Vec<Matcher>, String> {
        check_size(text)?;
        match self {
            Self::Utf8Strict => utf8_list(text),
            Self::Classic => classic_list(text),
            Self::Fallback => match (utf8_list(text), classic_list(text)) {
                (Ok(utf8), Ok(classic)) if utf8 == classic => Ok(utf8),
                (Ok(utf8), Err(_)) => Ok(utf8),
                (_, classic) => classic,
            },
        }
    }

    /// Reads exactly one matcher, without braces: the form of API filters.
    ///
    /// # Errors
    /// A message in Alertmanager's wording.
    pub fn parse_one(self, text: &str) -> Result<Matcher, String> {
        check_size(text)?;
        if self != Self::Classic && (text.starts_with('{') || text.ends_with('}')) {
            return Err(format!("unexpected open or close brace: {text}"));
        }
        let utf8 = || -> Result<Matcher, String> {
            let mut matchers = utf8_list(text)?;
            match (matchers.len(), matchers.pop()) {
                (1, Some(matcher)) => Ok(matcher),
                (0, _) => Err("no matchers".to_owned()),
                (count, _) => Err(format!("expected 1 matcher, found {count}")),
            }
        };
        match self {
            Self::Utf8Strict => utf8(),
            Self::Classic => classic_one(text),
            Self::Fallback => match (utf8(), classic_one(text)) {
                (Ok(utf8), Ok(classic)) if utf8 == classic => Ok(utf8),
                (Ok(utf8), Err(_)) => Ok(utf8),
                (_, classic) => classic,
            },
        }
    }
}

fn check_size(text: &str) -> Result<(), String> {
    if text.len() > MATCHERS_TEXT_MAX {
        return Err(format!("matchers are too long: {} bytes (limit: {MATCHERS_TEXT_MAX})", text.len()));
    }
    Ok(())
}

/// Compiles a matcher. Unlike in PromQL, `.` does not match a line end in Alertmanager's expressions.
///
/// # Errors
/// When `value` is no regular expression.
pub fn compile(op: MatchOp, name: &str, value: &str) -> Result<Matcher, String> {
    if matches!(op, MatchOp::Equal | MatchOp::NotEqual) || !value.contains(['.', '(']) {
        return Matcher::new(op, name, value).map_err(|error| error.to_string());
    }
    // The text is compiled as written first: its errors should quote what was written.
    let written = Matcher::new(op, name, value).map_err(|error| error.to_string())?;
    let mut matcher = Matcher::new(op, name, format!("(?-s:{value})")).unwrap_or(written);
    value.clone_into(&mut matcher.value);
    Ok(matcher)
}

// ---- UTF-8 grammar ----

fn is_reserved(c: char) -> bool {
    c.is_whitespace() || "{}!=~,\\\"'`".contains(c)
}

fn utf8_list(text: &str) -> Result<Vec<Matcher>, String> {
    let parsed = all_consuming(utf8_matchers).parse(text);
    let (_, raw) = parsed.map_err(|error| {
        let at = match &error {
            nom::Err::Error(e) | nom::Err::Failure(e) => text.len() - e.input.len(),
            nom::Err::Incomplete(_) => text.len(),
        };
        format!("bad matcher format: {text} (at byte {at})")
    })?;
    raw.into_iter()
        .map(|(name, op, value)| {
            let (name, value) = (unquote(name)?, unquote(value)?);
            if name.is_empty() {
                return Err(format!("invalid label name {name:?}"));
            }
            compile(op, &name, &value)
        })
        .collect()
}

type RawMatcher<'a> = (&'a str, MatchOp, &'a str);

fn utf8_matchers(input: &str) -> IResult<&str, Vec<RawMatcher<'_>>> {
    let list = |input| {
        terminated(separated_list0(padded(char(',')), utf8_matcher), opt(padded(char(',')))).parse(input)
    };
    delimited(
        multispace0,
        alt((delimited(padded(char('{')), list, padded(char('}'))), list_without_leading_comma(list))),
        multispace0,
    )
    .parse(input)
}

/// `separated_list0` followed by an optional comma would take a lone comma: an empty list has none.
fn list_without_leading_comma<'a>(
    list: impl Fn(&'a str) -> IResult<&'a str, Vec<RawMatcher<'a>>>,
) -> impl Fn(&'a str) -> IResult<&'a str, Vec<RawMatcher<'a>>> {
    move |input| if input.starts_with(',') { Ok((input, Vec::new())) } else { list(input) }
}

fn padded<'a, O>(
    inner: impl Parser<&'a str, Output = O, Error = nom::error::Error<&'a str>>,
) -> impl Parser<&'a str, Output = O, Error = nom::error::Error<&'a str>> {
    delimited(multispace0, inner, multispace0)
}

fn utf8_matcher(input: &str) -> IResult<&str, RawMatcher<'_>> {
    (padded(utf8_text), operator, padded(utf8_text)).parse(input)
}

fn operator(input: &str) -> IResult<&str, MatchOp> {
    alt((
        value(MatchOp::Regex, tag("=~")),
        value(MatchOp::NotRegex, tag("!~")),
        value(MatchOp::NotEqual, tag("!=")),
        value(MatchOp::Equal, tag("=")),
    ))
    .parse(input)
}

/// A quoted text with its quotes, or a bare word.
fn utf8_text(input: &str) -> IResult<&str, &str> {
    let inside = alt((
        map(preceded(char('\\'), anychar), |_| ()),
        map(verify(anychar, |c| !matches!(c, '"' | '\\' | '\n')), |_| ()),
    ));
    alt((
        recognize(delimited(char('"'), many0_count(inside), char('"'))),
        take_while1(|c: char| !is_reserved(c)),
    ))
    .parse(input)
}

/// Go's `strconv.Unquote` for double quotes; a bare word stays as it is.
fn unquote(text: &str) -> Result<String, String> {
    let Some(inner) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else {
        return Ok(text.to_owned());
    };
    let invalid = || format!("invalid input: {text}");
    let mut out = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    let code = |chars: &mut std::str::Chars<'_>, radix: u32, digits: usize| -> Option<u32> {
        let mut code = 0u32;
        for _ in 0..digits {
            code = code.checked_mul(radix)?.checked_add(chars.next()?.to_digit(radix)?)?;
        }
        Some(code)
    };
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let rest = chars.as_str();
        match chars.next().ok_or_else(invalid)? {
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(11),
            '\\' => out.push(b'\\'),
            '"' => out.push(b'"'),
            'x' => out.push(code(&mut chars, 16, 2).and_then(|c| u8::try_from(c).ok()).ok_or_else(invalid)?),
            '0'..='7' => {
                chars = rest.chars();
                out.push(code(&mut chars, 8, 3).and_then(|c| u8::try_from(c).ok()).ok_or_else(invalid)?);
            }
            kind @ ('u' | 'U') => {
                let digits = if kind == 'u' { 4 } else { 8 };
                let c = code(&mut chars, 16, digits).and_then(char::from_u32).ok_or_else(invalid)?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return Err(invalid()),
        }
    }
    String::from_utf8(out).map_err(|_| invalid())
}

// ---- classic grammar ----

fn classic_list(text: &str) -> Result<Vec<Matcher>, String> {
    let inner = text.strip_prefix('{').unwrap_or(text);
    let inner = inner.strip_suffix('}').unwrap_or(inner);
    let mut tokens: Vec<&str> = Vec::new();
    let (mut quoted, mut escaped, mut start) = (false, false, 0);
    for (at, c) in inner.char_indices() {
        match c {
            ',' if !quoted => {
                tokens.push(&inner[start..at]);
                start = at + 1;
                continue;
            }
            '"' if !escaped => quoted = !quoted,
            '\\' => {
                escaped = !escaped;
                continue;
            }
            _ => {}
        }
        escaped = false;
    }
    let last = inner[start..].trim();
    if !last.is_empty() {
        tokens.push(last);
    }
    tokens.into_iter().map(classic_one).collect()
}

/// The white space of Go's `\s`.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}')
}

fn classic_one(text: &str) -> Result<Matcher, String> {
    let bad = || format!("bad matcher format: {text}");
    let (rest, (name, op)) = classic_head(text).map_err(|_| bad())?;
    let written = rest.trim_matches(is_blank);
    let (raw, mut in_quotes) = match written.strip_prefix('"') {
        Some(raw) => (raw, true),
        None => (written, false),
    };
    let unescaped_quote = || format!("matcher value contains unescaped double quote: {written}");
    let mut value = String::with_capacity(raw.len());
    let mut chars = raw.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                // A backslash before anything else, or at the end, stands for itself.
                Some((_, c)) => value.extend(['\\', c]),
                None => value.push('\\'),
            },
            '"' if in_quotes && at + 1 == raw.len() => in_quotes = false,
            '"' => return Err(unescaped_quote()),
            c => value.push(c),
        }
    }
    if in_quotes {
        return Err(unescaped_quote());
    }
    compile(op, name, &value)
}

fn classic_head(input: &str) -> IResult<&str, (&str, MatchOp)> {
    let name = recognize((
        verify(anychar, |c| c.is_ascii_alphabetic() || matches!(c, '_' | ':')),
        nom::bytes::complete::take_while(|c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':')),
    ));
    let blanks = || nom::bytes::complete::take_while(is_blank);
    (delimited(blanks(), name, blanks()), operator).parse(input)
}

// ---- printing ----

/// Prints matchers as Alertmanager does in route keys: `{a="1",b=~"x"}`.
pub fn format_list(matchers: &[Matcher]) -> String {
    let parts: Vec<String> = matchers.iter().map(format_one).collect();
    format!("{{{}}}", parts.join(","))
}

/// Prints a matcher as Alertmanager does: the name quoted where it holds reserved characters.
pub fn format_one(matcher: &Matcher) -> String {
    if matcher.name.contains(is_reserved) {
        return format!("{}{}{}", Quoted(&matcher.name), matcher.op, Quoted(&matcher.value));
    }
    let value = matcher.value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
    format!("{}{}\"{value}\"", matcher.name, matcher.op)
}

/// The order of matchers in a route key: by name, value, operator.
pub fn sort(matchers: &mut [Matcher]) {
    let rank = |op: MatchOp| match op {
        MatchOp::Equal => 0,
        MatchOp::NotEqual => 1,
        MatchOp::Regex => 2,
        MatchOp::NotRegex => 3,
    };
    matchers.sort_by(|a, b| (&a.name, &a.value, rank(a.op)).cmp(&(&b.name, &b.value, rank(b.op))));
}

/// Prints a label set as Go's `model.LabelSet` does in group keys: names are never quoted.
pub fn format_labels(labels: &Labels) -> String {
    let pairs: LabelsIter<'_> = labels.iter();
    let parts: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", Quoted(value))).collect();
    format!("{{{}}}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(text: &str) -> String {
        match MatcherMode::Fallback.parse_list(text) {
            Ok(matchers) => format_list(&matchers),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn reads_both_grammars() {
        let cases = [
            ("", "{}"),
            ("{}", "{}"),
            ("a=b", r#"{a="b"}"#),
            (r#"a = "1""#, r#"{a="1"}"#),
            (r#"{a="1",b=~"x.*",}"#, r#"{a="1",b=~"x.*"}"#),
            ("g!=", r#"{g!=""}"#),
            (r#"h!~"""#, r#"{h!~""}"#),
            (r#""with.dot"="1""#, r#"{with.dot="1"}"#),
            (r#""with space"="a\"b""#, r#"{"with space"="a\"b"}"#),
            (r#"a="\d""#, r#"{a="\\d"}"#),
            (r#"a="x,y""#, r#"{a="x,y"}"#),
            ("a=~f.*", r#"{a=~"f.*"}"#),
            ("ключ=значение", r#"{ключ="значение"}"#),
            (r#"a="\u00fc""#, r#"{a="\\u00fc"}"#),
            (r#"a="\n""#, r#"{a="\n"}"#),
        ];
        for (text, want) in cases {
            assert_eq!(list(text), want, "{text}");
        }
        for text in ["a", "=b", ",", "a=\"b", "a==", "{a=b", "a=~\"(\"", "a=b c=d \"", "\"\"=x"] {
            // `{a=b` and `a=b c` are what the classic grammar takes, so they are no errors there.
            let parsed = MatcherMode::Utf8Strict.parse_list(text);
            assert!(parsed.is_err(), "{text}: {parsed:?}");
        }
    }

    #[test]
    fn single_matchers_have_no_braces() {
        let one = |text| MatcherMode::Fallback.parse_one(text).map(|m| format_one(&m));
        assert_eq!(one("alertname=A"), Ok(r#"alertname="A""#.to_owned()));
        assert_eq!(one("a=").unwrap(), r#"a="""#);
        assert_eq!(one("").unwrap_err(), "bad matcher format: ");
        assert_eq!(one("alertname").unwrap_err(), "bad matcher format: alertname");
        let braces = r#"{a="b",i="1"}"#;
        assert_eq!(one(braces).unwrap_err(), format!("unexpected open or close brace: {braces}"));
        assert!(one("i=~\"(\"").is_err());
    }

    #[test]
    fn dots_do_not_match_line_ends() {
        let accepts = |pattern: &str, value| compile(MatchOp::Regex, "a", pattern).unwrap().matches(value);
        assert!(accepts("p.?", "px") && !accepts("p.?", "p\n"));
        assert!(accepts("(?s)p.?", "p\n") && accepts("p\\n", "p\n"));
        assert_eq!(compile(MatchOp::Regex, "a", "p.?").unwrap().to_string(), r#"a=~"p.?""#);
        assert!(compile(MatchOp::Regex, "a", "(").is_err());
    }

    #[test]
    fn classic_grammar_wins_where_the_two_disagree() {
        // In the UTF-8 grammar `\x41` is an A; in the classic one it is four characters.
        assert_eq!(list(r#"a="\x41""#), r#"{a="\\x41"}"#);
        let strict = MatcherMode::Utf8Strict.parse_list(r#"a="\x41""#).unwrap();
        assert_eq!(format_list(&strict), r#"{a="A"}"#);
    }

    proptest! {
        #[test]
        fn never_panics_and_prints_what_it_reads(text in "[a-c\"\\\\=!~{},. \n]{0,20}") {
            for mode in [MatcherMode::Fallback, MatcherMode::Utf8Strict, MatcherMode::Classic] {
                if let Ok(matchers) = mode.parse_list(&text) {
                    let printed = format_list(&matchers);
                    let again = MatcherMode::Fallback.parse_list(&printed);
                    prop_assert_eq!(again.as_ref().ok(), Some(&matchers), "{} → {}", text, printed);
                }
                let _ = mode.parse_one(&text);
            }
        }
    }
}
