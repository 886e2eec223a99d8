//! Syntax against Go's (expected answers are the real Prometheus'), shapes against the automaton.

use proptest::prelude::*;

use super::*;

fn shape(pattern: &str) -> RegexShape {
    RegexMatcher::new(pattern).unwrap().shape
}

fn literals(literals: &[&str]) -> RegexShape {
    RegexShape::Literals(literals.iter().map(|literal| (*literal).to_owned()).collect())
}

#[test]
fn refuses_what_go_refuses_in_its_words() {
    let cases = [
        ("(abc", "missing closing ): `(abc`"),
        ("abc)", "unexpected ): `abc)`"),
        ("a)(b", "unexpected ): `a)(b`"),
        ("[a", "missing closing ]: `[a`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a{1}{2}", "invalid nested repetition operator: `{1}{2}`"),
        ("a+?+", "invalid nested repetition operator: `+?+`"),
        ("a???", "invalid nested repetition operator: `???`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("a|*", "missing argument to repetition operator: `*`"),
        ("(*)", "missing argument to repetition operator: `*`"),
        ("(?i)*", "missing argument to repetition operator: `*`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("a{2,1}", "invalid repeat count: `{2,1}`"),
        ("(a{100}){100}", "invalid repeat count: `{100}`"),
        ("((((a{10}){10}){10}){10})", "invalid repeat count: `{10}`"),
        (r"\C", r"invalid escape sequence: `\C`"),
        (r"\q", r"invalid escape sequence: `\q`"),
        (r"\1", r"invalid escape sequence: `\1`"),
        (r"\Z", r"invalid escape sequence: `\Z`"),
        (r"\é", r"invalid escape sequence: `\é`"),
        (r"\x{110000}", r"invalid escape sequence: `\x{110000`"),
        (r"\xg", r"invalid escape sequence: `\xg`"),
        (r"\x1", r"invalid escape sequence: `\x1`"),
        (r"[a-\d]", r"invalid escape sequence: `\d`"),
        (r"[\b]", r"invalid escape sequence: `\b`"),
        (r"\", "trailing backslash at end of expression: ``"),
        ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
        ("(?i", "invalid or unsupported Perl syntax: `(?i`"),
        ("(?", "invalid or unsupported Perl syntax: `(?`"),
        ("(?-)a", "invalid or unsupported Perl syntax: `(?-)`"),
        ("(?i-)", "invalid or unsupported Perl syntax: `(?i-)`"),
        ("(?P=n)", "invalid or unsupported Perl syntax: `(?P`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?P<a-b>b)", "invalid named capture: `(?P<a-b>`"),
        ("(?P<nb", "invalid named capture: `(?P<nb`"),
        ("(?<n", "invalid named capture: `(?<n`"),
        ("(?P<>a)", "invalid named capture: `(?P<>`"),
        ("[a--b]", "invalid character class range: `a--`"),
        ("[b-a]", "invalid character class range: `b-a`"),
        ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
        (r"\p{Foo}", r"invalid character class range: `\p{Foo}`"),
        (r"\p{greek}", r"invalid character class range: `\p{greek}`"),
        (r"\p{Letter}", r"invalid character class range: `\p{Letter}`"),
        (r"\p{Grek}", r"invalid character class range: `\p{Grek}`"),
        (r"\p{Alphabetic}", r"invalid character class range: `\p{Alphabetic}`"),
        (r"\p", r"invalid character class range: `\p`"),
        (r"\p{", r"invalid character class range: `\p{`"),
        ("[]", "missing closing ]: `[]`"),
        ("[^]", "missing closing ]: `[^]`"),
        ("[[:alpha:", "missing closing ]: `[[:alpha:`"),
        ("(?i:a", "missing closing ): `(?i:a`"),
    ];
    for (pattern, message) in cases {
        let error = RegexMatcher::new(pattern).unwrap_err().to_string();
        assert_eq!(error, format!("error parsing regexp: {message}"), "{pattern}");
    }
}

#[test]
fn accepts_what_go_accepts_with_its_meaning() {
    // Pattern, what matches, what does not.
    let cases: &[(&str, &[&str], &[&str])] = &[
        (r"\b{start}", &[], &["{start}", "start"]),
        (r"a\b{x}", &["a{x}"], &["a{x"]),
        ("(?ii)aB", &["ab", "AB"], &["a"]),
        ("(?)a", &["a"], &["b"]),
        ("(?i-i)a", &["a"], &["A"]),
        ("a(?i)*b", &["b", "aaB"], &["Ab"]),
        ("^*$+", &[""], &["a"]),
        (r"\b?a", &["a"], &["b"]),
        (r"\Qa.b", &["a.b"], &["axb"]),
        (r"\Qa*\E*", &["a", "a***"], &["aa"]),
        ("a{,5}", &["a{,5}"], &["aaa", ""]),
        ("a{01}", &["a{01}"], &["a"]),
        ("x{", &["x{"], &["x"]),
        ("x{1", &["x{1"], &["x"]),
        ("x}]", &["x}]"], &["x"]),
        ("[a&&b]", &["a", "&", "b"], &["ab"]),
        ("[+--b]", &["+", ",", "-", "b"], &["a"]),
        ("[a~~b]", &["a", "~", "b"], &["c"]),
        ("[[a]", &["[", "a"], &["]"]),
        ("[[a]]", &["[]", "a]"], &["a"]),
        ("[]a]", &["]", "a"], &["b"]),
        ("[a-]", &["-", "a"], &["b"]),
        (r"[\d-z]", &["5", "-", "z"], &["y"]),
        ("[a-z-9]", &["q", "-", "9"], &["8"]),
        ("[[:^alpha:]]", &["1", "é"], &["a"]),
        ("[a[:b]", &["a", "[", ":", "b"], &["]"]),
        (r"\08", &["\08"], &["8"]),
        (r"\101\x42\x{43}", &["ABC"], &["abc"]),
        (r"\_\-\/", &["_-/"], &["_"]),
        (r"\a\f\t\n\r\v", &["\u{7}\u{c}\t\n\r\u{b}"], &["a"]),
        (r"\d\D", &["1a", "1٣"], &["٣a", "11"]),
        (r"\w+", &["aZ_9"], &["é"]),
        (r"\s\S", &[" \u{b}", "\nx"], &["\u{b}x", "\u{a0}x"]),
        (r"a\Bb|é\Bé", &["ab", "éé"], &["a"]),
        (r"é\bb", &["éb"], &[]),
        (r"\Aab\z", &["ab"], &["abc"]),
        (r"(?m)a$\n^b", &["a\nb"], &["ab"]),
        ("(?P<n>a)(?P<n>b)(?P<1a>c)(?<m>d)", &["abcd"], &["abc"]),
        (".", &["\n", "é"], &["", "ab"]),
        ("(?-s).", &["a"], &["\n"]),
        ("[^a]", &["\n"], &["a"]),
        (r"\pN\PN\p{^L}\p{Greek}", &["1a1α"], &["aaaa"]),
        (r"\p{Han}\p{Old_Italic}?\p{Nko}?", &["漢"], &["a"]),
        (r"\p{Cs}", &[], &["a", ""]),
        ("(|a)*()", &["", "aa"], &["b"]),
        ("a||b", &["", "a", "b"], &["ab"]),
        ("(?U)a+?", &["aa"], &[""]),
        ("(?:a{10}){10}", &[], &["a"]),
        ("a{1000}", &[], &["a"]),
        ("(?i)k", &["K", "\u{212a}"], &["a"]),
    ];
    for (pattern, matching, others) in cases {
        let matcher = RegexMatcher::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        for (texts, expected) in [(matching, true), (others, false)] {
            for text in *texts {
                assert_eq!(matcher.is_match(text), expected, "{pattern} on {text:?}");
                assert_eq!(matcher.regex().is_match(text), expected, "automaton: {pattern} on {text:?}");
            }
        }
    }
}

#[test]
fn wrapped_patterns_are_checked_with_their_anchors() {
    let error = RegexMatcher::new_wrapped("(abc").unwrap_err();
    assert_eq!(error.to_string(), "error parsing regexp: missing closing ): `^(?s:(abc)$`");
    let matcher = RegexMatcher::new_wrapped("a)|(b").unwrap();
    assert!(matcher.is_match("axx") && matcher.is_match("xb") && !matcher.is_match("xx"));
    assert_eq!(
        RegexMatcher::new_wrapped("(.*):.*").unwrap().replace("h:1", "${1}-$1").as_deref(),
        Some("h-h")
    );
    assert_eq!(RegexMatcher::new_wrapped("(.*):.*").unwrap().replace("h", "x"), None);
}

#[test]
fn shapes() {
    let automaton = |prefix: &str| RegexShape::Automaton { prefix: prefix.to_owned() };
    let cases = [
        ("", literals(&[""])),
        ("abc", literals(&["abc"])),
        ("b|a|a|", literals(&["", "a", "b"])),
        ("api-(a|b)-[0-2]", literals(&["api-a-0", "api-a-1", "api-a-2", "api-b-0", "api-b-1", "api-b-2"])),
        ("5..|x{0,2}", automaton("")),
        ("x{0,2}y?", literals(&["", "x", "xx", "xxy", "xy", "y"])),
        // Anchors within branches are left to the automaton.
        ("^foo$|bar", automaton("")),
        ("^(foo)$", literals(&["foo"])),
        ("(?i)ab", literals(&["AB", "Ab", "aB", "ab"])),
        ("(?i)abcdefghij", automaton("")),
        (".*", RegexShape::Any),
        ("(.*)", RegexShape::Any),
        ("^.*$", RegexShape::Any),
        (".*|a", RegexShape::Any),
        (".+|", RegexShape::Any),
        ("[^a]*", automaton("")),
        (".+", RegexShape::NonEmpty),
        ("(.+).*", RegexShape::NonEmpty),
        (".+.+", automaton("")),
        ("(?-s).*", automaton("")),
        ("(?-s).*a", automaton("")),
        ("abc.*", RegexShape::Prefix("abc".into())),
        ("(a)(b).*", RegexShape::Prefix("ab".into())),
        ("abc.+", automaton("abc")),
        (".*abc", RegexShape::Suffix("abc".into())),
        (".*abc.*", RegexShape::Contains("abc".into())),
        (".*a|b.*", automaton("")),
        ("ab(c|d.*)e", automaton("ab")),
        ("(?:abx+|aby.*)", automaton("ab")),
        ("(ab)+c", automaton("ab")),
        (r"a\d{4}", automaton("a")),
    ];
    for (pattern, expected) in cases {
        assert_eq!(shape(pattern), expected, "{pattern}");
    }
    let many = |count: usize| (0..count).map(|n| format!("host-{n:04}")).collect::<Vec<_>>().join("|");
    assert!(matches!(shape(&many(1000)), RegexShape::Literals(literals) if literals.len() == 1000));
    assert_eq!(shape(&many(1001)), automaton("host-"));
}

#[test]
fn sizes_are_bounded() {
    let error = RegexMatcher::new(r"(\pL{100}|\pN{100}|\pS{100}){10}").unwrap_err();
    assert_eq!(error.to_string(), "error parsing regexp: expression too large");
    let deep = "(".repeat(2000) + &")".repeat(2000);
    assert!(RegexMatcher::new(&deep).unwrap_err().to_string().contains("nests too deeply"));
    // Minutes of work, if it were not refused while it is read.
    let endless = "(".repeat(100_000) + "a" + &")*".repeat(100_000);
    assert!(RegexMatcher::new(&endless).unwrap_err().to_string().contains("nests too deeply"));
    assert!(RegexMatcher::new(&"[a-z]{1,9}".repeat(1000)).is_ok());
}

/// Patterns of a few characters, so that random texts match now and then.
fn patterns() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => "[abé]{1,3}".prop_map(String::from),
        2 => Just(".*".to_owned()),
        1 => Just(".+".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just("[ab]".to_owned()),
        1 => Just("[^a]".to_owned()),
        1 => Just("^".to_owned()),
        1 => Just("$".to_owned()),
        1 => Just("".to_owned()),
        1 => Just("(?i:aB)".to_owned()),
        1 => Just(r"\b".to_owned()),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| format!("({})", parts.join("|"))),
            (inner, prop_oneof![Just("*"), Just("+"), Just("?"), Just("{0,2}"), Just("{2}")])
                .prop_map(|(part, repeat)| format!("(?:{part}){repeat}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn shape_and_automaton_agree(pattern in patterns(), texts in prop::collection::vec("[abéAB\n]{0,6}", 8)) {
        let matcher = RegexMatcher::new(&pattern).unwrap();
        for text in texts.iter().map(String::as_str).chain(["", "a", "ab"]) {
            prop_assert_eq!(matcher.is_match(text), matcher.regex().is_match(text), "{} ({:?}) on {:?}", pattern, matcher.shape(), text);
        }
        if let RegexShape::Literals(literals) = matcher.shape() {
            for literal in literals {
                prop_assert!(matcher.regex().is_match(literal), "{} on {:?}", pattern, literal);
            }
        }
    }

    #[test]
    fn any_text_is_accepted_or_refused(pattern in r"[\[\](){}?*+|\\^$.:<>PpQEi&~,0-9a-c-]{0,12}") {
        if let Ok(matcher) = RegexMatcher::new(&pattern) {
            matcher.is_match("abc");
        }
        prop_assert!(!matches!(RegexMatcher::new(&pattern), Err(error) if error.0.contains("nests too deeply")), "the crate refused {}", pattern);
    }

    #[test]
    fn literal_texts_match_themselves(text in "\\PC{0,10}") {
        let quoted = format!(r"\Q{}\E", text.replace(r"\E", ""));
        let matcher = RegexMatcher::new(&quoted).unwrap();
        let expected = text.replace(r"\E", "");
        prop_assert!(matcher.is_match(&expected));
        prop_assert_eq!(matcher.shape(), &RegexShape::Literals(vec![expected]));
    }
}

#[test]
fn budgets_bound_the_sum() {
    let budget = RegexBudget::new(1 << 20);
    for pattern in ["a.*", "(a|b)+c", "[0-9]{3}-.+", "foo|bar|baz"] {
        let before = budget.left();
        assert!(RegexMatcher::new_within(pattern, &budget).is_ok());
        assert!(before - budget.left() <= 32 << 10, "{pattern}: {}", before - budget.left());
    }
    // What is refused for its own sake costs nothing.
    let left = budget.left();
    let error = RegexMatcher::new_within("(", &budget).unwrap_err();
    assert_eq!((error, budget.left()), (RegexMatcher::new("(").unwrap_err(), left));
    // Each would do alone, and together they do not.
    let large = "[a-z]{500}.{50}";
    assert!(RegexMatcher::new(large).is_ok());
    let fitting = (0..1000).take_while(|_| RegexMatcher::new_within(large, &budget).is_ok()).count();
    assert!((1..20).contains(&fitting), "{fitting}");
    let error = RegexMatcher::new_wrapped_within(large, &budget).unwrap_err();
    let text = "error parsing regexp: expression too large: all in a query may take 1 MiB";
    assert_eq!(error.to_string(), text);
    // What is too large for anybody says so.
    let error = RegexMatcher::new_within("((a{1000}){1000}){1000}", &RegexBudget::new(1 << 30)).unwrap_err();
    assert_eq!(Err(error), RegexMatcher::new("((a{1000}){1000}){1000}").map(|_| ()));
}
