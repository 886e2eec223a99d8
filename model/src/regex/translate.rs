//! From Go's regular expressions to the `regex` crate's.
//!
//! A reader of Go's `regexp/syntax` grammar (flags `Perl`), with its errors, that writes the same meaning in the crate's
//! grammar. What differs and is translated: `\d \s \w \b` are ASCII in Go; `{`, `}`, `]` are literals where they close or
//! repeat nothing; classes know no nesting and no `&&`, `--`, `~~`; `\Q…\E`, octal escapes, `\z`; `(?P<n>` may repeat and
//! begin with a digit; flag groups do not come between a repetition and what is repeated. What only the crate knows
//! (`(?x)`, `\b{start}`, `\p{Letter}`, `{,5}`, …) is refused or taken literally, as in Go.

use std::collections::BTreeSet;

use super::RegexError;

/// Groups within groups: as many as Go's parser lets expressions be high. What comes after is not linear in them.
const DEPTH_MAX: usize = 1000;
/// Largest count of a repetition, and of nested repetitions together.
const REPEAT_MAX: u32 = 1000;

/// Categories of Unicode as Go names them; all other names are scripts.
const CATEGORIES: [&str; 37] = [
    "C", "Cc", "Cf", "Co", "Cs", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl",
    "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp", "Zs",
    "Any",
];

const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// A pattern in the crate's syntax.
pub(super) struct Translated {
    pub pattern: String,
    /// Whether `i` is switched on somewhere.
    pub folds_case: bool,
}

/// Translates `pattern`.
///
/// # Errors
/// What Go refuses, in its words.
pub(super) fn translate(pattern: &str) -> Result<Translated, RegexError> {
    let mut translator = Translator {
        whole: pattern,
        rest: pattern,
        out: String::with_capacity(pattern.len() + 16),
        groups: vec![Group { start: 0, product: 1 }],
        atom: None,
        last_repeat: None,
        names: BTreeSet::new(),
        folds_case: false,
    };
    translator.run()?;
    Ok(Translated { pattern: translator.out, folds_case: translator.folds_case })
}

/// An open group (the first is the whole pattern).
struct Group {
    /// Where it begins in the output.
    start: usize,
    /// Largest product of nested repetitions within.
    product: u32,
}

/// What a repetition would apply to.
#[derive(Clone, Copy)]
struct Atom {
    start: usize,
    end: usize,
    product: u32,
}

struct Translator<'a> {
    whole: &'a str,
    rest: &'a str,
    out: String,
    groups: Vec<Group>,
    atom: Option<Atom>,
    /// Where the repetition directly before began, if there is one.
    last_repeat: Option<&'a str>,
    names: BTreeSet<String>,
    folds_case: bool,
}

type Translation = Result<(), RegexError>;

fn error(code: &str, shown: &str) -> RegexError {
    RegexError(format!("{code}: `{shown}`"))
}

/// What `from` has before its end `to`.
fn between<'a>(from: &'a str, to: &str) -> &'a str {
    &from[..from.len() - to.len()]
}

impl<'a> Translator<'a> {
    fn run(&mut self) -> Translation {
        while let Some(c) = self.rest.chars().next() {
            let before = self.rest;
            let last_repeat = self.last_repeat.take();
            match c {
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    self.skip(1);
                    self.out.push('|');
                    self.atom = None;
                }
                '^' | '$' => {
                    self.skip(1);
                    // Grouped, so that a repetition may follow.
                    self.atom(1, |out| out.extend(["(?:", if c == '^' { "^" } else { "$" }, ")"]));
                }
                '.' => {
                    self.skip(1);
                    self.atom(1, |out| out.push('.'));
                }
                '[' => self.class()?,
                '*' | '+' | '?' => {
                    self.skip(1);
                    self.repeat(before, last_repeat, None)?;
                }
                '{' => match repeat_counts(self.rest) {
                    Some((counts, tail)) => {
                        self.rest = tail;
                        self.repeat(before, last_repeat, Some(counts))?;
                    }
                    None => {
                        self.skip(1);
                        self.literal('{');
                    }
                },
                '\\' => self.escape()?,
                c => {
                    self.skip(c.len_utf8());
                    self.literal(c);
                }
            }
        }
        if self.groups.len() > 1 {
            return Err(error("missing closing )", self.whole));
        }
        Ok(())
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    /// Writes something that can be repeated.
    fn atom(&mut self, product: u32, write: impl FnOnce(&mut String)) {
        let start = self.out.len();
        write(&mut self.out);
        self.atom = Some(Atom { start, end: self.out.len(), product });
    }

    fn literal(&mut self, c: char) {
        self.atom(1, |out| push_literal(out, c));
    }

    fn open(&mut self) -> Translation {
        let start = self.out.len();
        if !self.rest.starts_with("(?") {
            self.skip(1);
            self.out.push('(');
        } else if self.begins("(?P<") || self.begins("(?<") {
            self.named_group()?;
        } else if !self.flags()? {
            // Only flags: what stood before can still be repeated.
            return Ok(());
        }
        if self.groups.len() > DEPTH_MAX {
            return Err(error("expression nests too deeply", self.whole));
        }
        self.groups.push(Group { start, product: 1 });
        self.atom = None;
        Ok(())
    }

    /// Whether a named group begins here; one without a name's first letter is none to Go.
    fn begins(&self, head: &str) -> bool {
        self.rest.len() > head.len() && self.rest.starts_with(head)
    }

    fn named_group(&mut self) -> Translation {
        let start = self.rest.find('<').expect("checked by the caller") + 1;
        let Some(end) = self.rest.find('>') else {
            return Err(error("invalid named capture", self.rest));
        };
        let (name, group) = (&self.rest[start..end], &self.rest[..=end]);
        if name.is_empty() || !name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()) {
            return Err(error("invalid named capture", group));
        }
        self.skip(end + 1);
        // The crate knows no names that repeat or begin with a digit; such groups go by their number.
        if !name.starts_with(|c: char| c.is_ascii_digit()) && self.names.insert(name.to_owned()) {
            self.out.extend(["(?P<", name, ">"]);
        } else {
            self.out.push('(');
        }
        Ok(())
    }

    /// `(?flags)` or `(?flags:`; true when it opens a group.
    fn flags(&mut self) -> Result<bool, RegexError> {
        let start = self.rest;
        self.skip(2);
        // Per flag what the group says last.
        let mut flags: Vec<(char, bool)> = Vec::new();
        let (mut on, mut seen) = (true, false);
        while let Some(c) = self.rest.chars().next() {
            self.skip(c.len_utf8());
            match c {
                'i' | 'm' | 's' | 'U' => {
                    flags.retain(|(flag, _)| *flag != c);
                    flags.push((c, on));
                    seen = true;
                }
                '-' if on => (on, seen) = (false, false),
                ':' | ')' if on || seen => {
                    self.folds_case |= flags.contains(&('i', true));
                    let chosen =
                        |wanted| flags.iter().filter(move |(_, on)| *on == wanted).map(|(flag, _)| *flag);
                    let (set, cleared): (String, String) = (chosen(true).collect(), chosen(false).collect());
                    if c == ':' || !flags.is_empty() {
                        self.out.extend(["(?", &set]);
                        if !cleared.is_empty() {
                            self.out.extend(["-", &cleared]);
                        }
                        self.out.push(c);
                    }
                    return Ok(c == ':');
                }
                _ => break,
            }
        }
        Err(error("invalid or unsupported Perl syntax", between(start, self.rest)))
    }

    fn close(&mut self) -> Translation {
        if self.groups.len() == 1 {
            return Err(error("unexpected )", self.whole));
        }
        let group = self.groups.pop().expect("more than one group");
        self.skip(1);
        self.out.push(')');
        self.atom = Some(Atom { start: group.start, end: self.out.len(), product: group.product });
        let outer = self.groups.last_mut().expect("the whole pattern is a group");
        outer.product = outer.product.max(group.product);
        Ok(())
    }

    /// Applies a repetition whose text began at `before`; `counts` are those in braces.
    fn repeat(&mut self, before: &'a str, last: Option<&'a str>, counts: Option<Counts>) -> Translation {
        if let Some((low, high)) = counts {
            let valid = low <= REPEAT_MAX && high.is_none_or(|high| low <= high && high <= REPEAT_MAX);
            if !valid {
                return Err(error("invalid repeat count", between(before, self.rest)));
            }
        }
        let operator_end = self.rest;
        if self.rest.starts_with('?') {
            self.skip(1);
        }
        if let Some(last) = last {
            return Err(error("invalid nested repetition operator", between(last, self.rest)));
        }
        let Some(atom) = self.atom else {
            return Err(error("missing argument to repetition operator", between(before, self.rest)));
        };
        let product = match counts {
            None => atom.product,
            // Go counts a repetition without an upper end by its lower one.
            Some((low, high)) => {
                let times = high.unwrap_or(low).max(1);
                let product = atom.product * times;
                if times >= 2 && product > REPEAT_MAX {
                    return Err(error("invalid repeat count", between(before, operator_end)));
                }
                product
            }
        };
        let operator = match counts {
            None => between(before, operator_end).to_owned(),
            Some((low, None)) => format!("{{{low},}}"),
            Some((low, Some(high))) if low == high => format!("{{{low}}}"),
            Some((low, Some(high))) => format!("{{{low},{high}}}"),
        };
        let lazy = if operator_end.len() == self.rest.len() { "" } else { "?" };
        let repeated = format!("(?:{}{operator}{lazy})", &self.out[atom.start..atom.end]);
        // Flags that were set in between stay behind.
        self.out.replace_range(atom.start..atom.end, &repeated);
        self.atom = Some(Atom { start: atom.start, end: atom.start + repeated.len(), product });
        let group = self.groups.last_mut().expect("the whole pattern is a group");
        group.product = group.product.max(product);
        self.last_repeat = Some(before);
        Ok(())
    }

    fn escape(&mut self) -> Translation {
        match self.rest.as_bytes().get(1) {
            Some(b'A') => self.special(2, "(?-m:^)"),
            Some(b'z') => self.special(2, "(?-m:$)"),
            Some(b'b') => self.special(2, r"(?-u:\b)"),
            Some(b'B') => self.special(2, NOT_WORD_BOUNDARY),
            Some(b'C') => return Err(error("invalid escape sequence", r"\C")),
            Some(b'Q') => {
                self.skip(2);
                let (text, tail) = match self.rest.find(r"\E") {
                    Some(end) => (&self.rest[..end], &self.rest[end + 2..]),
                    None => (self.rest, ""),
                };
                for c in text.chars() {
                    self.literal(c);
                }
                self.rest = tail;
            }
            Some(b'p' | b'P') => {
                let class = self.unicode_class()?;
                self.atom(1, |out| out.push_str(&class));
            }
            Some(letter) if perl_class(*letter).is_some() => {
                let class = perl_class(*letter).expect("just checked");
                self.special(2, class);
            }
            _ => {
                let c = self.escaped_char()?;
                self.literal(c);
            }
        }
        Ok(())
    }

    fn special(&mut self, len: usize, written: &str) {
        self.skip(len);
        self.atom(1, |out| out.push_str(written));
    }

    /// `\n`, `\x41`, `\101`, `\.`: one character.
    fn escaped_char(&mut self) -> Result<char, RegexError> {
        let start = self.rest;
        self.skip(1);
        let Some(c) = self.rest.chars().next() else {
            return Err(error("trailing backslash at end of expression", ""));
        };
        self.skip(c.len_utf8());
        let escaped = match c {
            '1'..='7' if !self.rest.starts_with(|c| matches!(c, '0'..='7')) => None,
            '0'..='7' => {
                let mut value = c as u32 - '0' as u32;
                for _ in 1..3 {
                    let Some(digit) = self.rest.chars().next().and_then(|c| c.to_digit(8)) else { break };
                    value = value * 8 + digit;
                    self.skip(1);
                }
                char::from_u32(value)
            }
            'x' => self.hex(),
            'a' => Some('\u{7}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\u{b}'),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(c),
            _ => None,
        };
        escaped.ok_or_else(|| error("invalid escape sequence", between(start, self.rest)))
    }

    fn hex(&mut self) -> Option<char> {
        let next = |this: &mut Self| {
            let c = this.rest.chars().next()?;
            this.skip(c.len_utf8());
            Some(c)
        };
        let first = next(self)?;
        if first != '{' {
            // Go reads both before it judges, which shows in the error.
            let second = next(self)?;
            return char::from_u32(first.to_digit(16)? * 16 + second.to_digit(16)?);
        }
        let mut value = None;
        loop {
            match next(self)? {
                // Surrogates are no characters here; Go takes them and matches nothing valid with them.
                '}' => return char::from_u32(value?),
                c => {
                    value = Some(value.unwrap_or(0) * 16 + c.to_digit(16)?);
                    if value? > char::MAX as u32 {
                        return None;
                    }
                }
            }
        }
    }

    /// `\pL`, `\p{Greek}`, `\P{^L}`.
    fn unicode_class(&mut self) -> Result<String, RegexError> {
        let start = self.rest;
        let refuse = |end: &str| error("invalid character class range", between(start, end));
        let mut negated = start.as_bytes()[1] == b'P';
        self.skip(2);
        let Some(first) = self.rest.chars().next() else { return Err(refuse("")) };
        let name = if first == '{' {
            let Some(end) = self.rest.find('}') else { return Err(refuse("")) };
            let name = &self.rest[1..end];
            self.skip(end + 1);
            name
        } else {
            let name = &self.rest[..first.len_utf8()];
            self.skip(first.len_utf8());
            name
        };
        let name = match name.strip_prefix('^') {
            Some(rest) => {
                negated = !negated;
                rest
            }
            None => name,
        };
        let letter = if negated { 'P' } else { 'p' };
        match name {
            // No string holds surrogates.
            "Cs" => Ok(if negated { r"(?s:.)" } else { r"[^\x{0}-\x{10FFFF}]" }.to_owned()),
            name if CATEGORIES.contains(&name) => Ok(format!(r"\{letter}{{{name}}}")),
            name if is_script(name) => Ok(format!(r"\{letter}{{sc={name}}}")),
            _ => Err(refuse(self.rest)),
        }
    }

    fn class(&mut self) -> Translation {
        let start = self.rest;
        let mut out = String::from("[");
        self.skip(1);
        if self.rest.starts_with('^') {
            self.skip(1);
            out.push('^');
        }
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            if self.rest.is_empty() {
                return Err(error("missing closing ]", start));
            }
            first = false;
            if let Some(name) = self.posix_class()? {
                out.push_str(&name);
                continue;
            }
            let bytes = self.rest.as_bytes();
            if bytes[0] == b'\\' {
                match bytes.get(1) {
                    Some(b'p' | b'P') => {
                        out.push_str(&self.unicode_class()?);
                        continue;
                    }
                    Some(letter) => {
                        if let Some(class) = perl_class(*letter) {
                            out.push_str(class);
                            self.skip(2);
                            continue;
                        }
                    }
                    None => {}
                }
            }
            let range = self.rest;
            let low = self.class_char(start)?;
            let mut high = low;
            if self.rest.len() >= 2 && self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.skip(1);
                high = self.class_char(start)?;
                if high < low {
                    return Err(error("invalid character class range", between(range, self.rest)));
                }
            }
            push_literal_in_class(&mut out, low);
            if high != low {
                out.push('-');
                push_literal_in_class(&mut out, high);
            }
        }
        self.skip(1);
        out.push(']');
        self.atom(1, |written| written.push_str(&out));
        Ok(())
    }

    fn class_char(&mut self, class: &str) -> Result<char, RegexError> {
        match self.rest.chars().next() {
            None => Err(error("missing closing ]", class)),
            Some('\\') => self.escaped_char(),
            Some(c) => {
                self.skip(c.len_utf8());
                Ok(c)
            }
        }
    }

    /// `[:alpha:]` within a class.
    fn posix_class(&mut self) -> Result<Option<String>, RegexError> {
        if !self.rest.starts_with("[:") {
            return Ok(None);
        }
        let Some(end) = self.rest[2..].find(":]") else { return Ok(None) };
        let written = &self.rest[..end + 4];
        let name = &written[2..end + 2];
        if !POSIX_CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(error("invalid character class range", written));
        }
        self.skip(written.len());
        Ok(Some(written.to_owned()))
    }
}

/// `\B` of ASCII words, between characters only.
const NOT_WORD_BOUNDARY: &str = r"(?-u:\B)";

/// Classes that Go has for ASCII only.
fn perl_class(letter: u8) -> Option<&'static str> {
    Some(match letter {
        b'd' => "[0-9]",
        b'D' => "[^0-9]",
        b's' => r"[\t\n\x0C\r ]",
        b'S' => r"[^\t\n\x0C\r ]",
        b'w' => "[0-9A-Za-z_]",
        b'W' => "[^0-9A-Za-z_]",
        _ => return None,
    })
}

type Counts = (u32, Option<u32>);

/// `{n}`, `{n,}`, `{n,m}`: the counts (too large ones as `u32::MAX`) and what follows.
fn repeat_counts(rest: &str) -> Option<(Counts, &str)> {
    let (low, rest) = count(rest.strip_prefix('{')?)?;
    if let Some(tail) = rest.strip_prefix('}') {
        return Some(((low, Some(low)), tail));
    }
    let rest = rest.strip_prefix(',')?;
    if let Some(tail) = rest.strip_prefix('}') {
        return Some(((low, None), tail));
    }
    let (high, rest) = count(rest)?;
    Some(((low, Some(high)), rest.strip_prefix('}')?))
}

/// A number without leading zeros.
fn count(text: &str) -> Option<(u32, &str)> {
    let len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(len);
    if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    Some((digits.parse().unwrap_or(u32::MAX), rest))
}

/// Whether `name` is a script as Go spells it: `Greek`, `Old_Italic`.
fn is_script(name: &str) -> bool {
    let spelled = name.len() > 2
        && name.split('_').all(|word| {
            let mut letters = word.chars();
            letters.next().is_some_and(|c| c.is_ascii_uppercase()) && letters.all(|c| c.is_ascii_alphabetic())
        });
    // The crate takes abbreviations (`Grek`) too, which have four letters; scripts of four letters that are none stay.
    const FOUR: [&str; 8] = ["Cham", "Kawi", "Lisu", "Modi", "Newa", "Thai", "Ahom", "Toto"];
    const SHORT: [&str; 6] = ["Han", "Lao", "Mro", "Vai", "Yi", "Nko"];
    let long_form = name.len() > 4 || FOUR.contains(&name) || SHORT.contains(&name);
    (spelled || name == "Yi")
        && long_form
        && regex_syntax::Parser::new().parse(&format!(r"\p{{sc={name}}}")).is_ok()
}

fn push_literal(out: &mut String, c: char) {
    if regex_syntax::is_meta_character(c) {
        out.push('\\');
    }
    out.push(c);
}

/// Within a class, all that the crate gives a meaning alone or doubled is written as a number.
fn push_literal_in_class(out: &mut String, c: char) {
    if c.is_alphanumeric() {
        out.push(c);
    } else {
        out.push_str(&format!("\\x{{{:X}}}", c as u32));
    }
}
