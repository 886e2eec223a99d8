//! How Go prints values: `fmt.Sprint`, `fmt.Sprintf` and `encoding/json`, as far as templates see them.
//!
//! Compared with the output of real Go programs (promtool's template tests), not with `gotmpl`'s own printer: that one
//! writes floats in fixed notation, where Go's `%v` and `%g` turn to an exponent below 1e-4 and from 1e6 or, by the
//! precision asked for, later on (`strconv/ftoa.go`, `%e is used if …`).
//!
//! Texts stop growing soon after [`PRINT_BYTES_MAX`]: lists may share parts, so that small values print large.

use std::fmt::Write as _;

use super::value::{Value, as_object, type_name};
use crate::float;
use crate::labels::Quoted;

/// Where printing stops; callers refuse results of that size.
pub(super) const PRINT_BYTES_MAX: usize = 16 << 20;

/// Most columns that a width or precision may ask for.
const WIDTH_MAX: usize = 10_000;

/// `%v`
pub(super) fn write_value(out: &mut String, value: &Value) {
    if out.len() > PRINT_BYTES_MAX {
        return;
    }
    match value {
        Value::Nil => out.push_str("<nil>"),
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) => push(out, format_args!("{value}")),
        Value::Float(v) => out.push_str(&general(*v, None)),
        Value::String(s) | Value::Safe { s, .. } => out.push_str(s),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push_str("map[");
            for (index, (key, item)) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                push(out, format_args!("{key}:"));
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Function(_) => match as_object(value) {
            Some(object) => out.push_str(&object.print()),
            None => out.push_str("<func>"),
        },
    }
}

/// `%v` as a new text.
pub(super) fn value_text(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

/// `fmt.Sprint`: a space between operands when neither is a string.
pub(super) fn sprint(args: &[Value]) -> String {
    let mut out = String::new();
    let is_text = |value: &Value| matches!(value, Value::String(_) | Value::Safe { .. });
    for (index, arg) in args.iter().enumerate() {
        if index > 0 && !is_text(arg) && !is_text(&args[index - 1]) {
            out.push(' ');
        }
        write_value(&mut out, arg);
    }
    out
}

/// `encoding/json` without indentation, `<`, `>` and `&` escaped.
pub(super) fn write_json(out: &mut String, value: &Value) {
    if out.len() > PRINT_BYTES_MAX {
        return;
    }
    match value {
        Value::Nil => out.push_str("null"),
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) => push(out, format_args!("{value}")),
        Value::Float(v) if v.is_finite() => float::write_api(out, *v),
        Value::Float(_) => out.push_str("null"),
        Value::String(s) | Value::Safe { s, .. } => write_json_text(out, s),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json(out, item);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            for (index, (key, item)) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json_text(out, key);
                out.push(':');
                write_json(out, item);
            }
            out.push('}');
        }
        Value::Function(_) => match as_object(value) {
            Some(object) => out.push_str(&object.json()),
            None => out.push_str("null"),
        },
    }
}

/// A JSON string as Go's encoder writes it.
pub(super) fn write_json_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => push(out, format_args!("\\u{:04x}", c as u32)),
            c if (c as u32) < 0x20 => push(out, format_args!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Go's `strconv.FormatFloat(v, 'g', precision, 64)`, with the sign of infinity: `%g`, and `%v` when shortest.
pub(super) fn general(v: f64, precision: Option<usize>) -> String {
    if !v.is_finite() {
        return float::format_fixed(v);
    }
    if v == 0.0 {
        return if v.is_sign_negative() { "-0".to_owned() } else { "0".to_owned() };
    }
    // Digits and decimal exponent, rounded to the precision.
    let scientific = match precision {
        None => format!("{v:e}"),
        Some(precision) => format!("{v:.*e}", precision.max(1) - 1),
    };
    let (mantissa, exponent) = scientific.split_once('e').expect("exponent form has an e");
    let exponent: i32 = exponent.parse().expect("exponent is a small integer");
    let negative = mantissa.starts_with('-');
    let mut digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.truncate(digits.trim_end_matches('0').len().max(1));
    let count = i32::try_from(digits.len()).expect("a float has few digits");
    let exponent_from = match precision {
        // With shortest digits the decision is made as if six were asked for.
        None => 6,
        Some(precision) => {
            let precision = i32::try_from(precision.max(1)).unwrap_or(i32::MAX);
            if precision > count && count > exponent { count.max(exponent + 1) } else { precision }
        }
    };
    let mut out = String::from(if negative { "-" } else { "" });
    if exponent < -4 || exponent >= exponent_from {
        out.push_str(&digits[..1]);
        if digits.len() > 1 {
            out.push('.');
            out.push_str(&digits[1..]);
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        push(&mut out, format_args!("e{sign}{:02}", exponent.unsigned_abs()));
    } else if exponent < 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', exponent.unsigned_abs() as usize - 1));
        out.push_str(&digits);
    } else {
        let whole = exponent as usize + 1;
        if digits.len() <= whole {
            out.push_str(&digits);
            out.extend(std::iter::repeat_n('0', whole - digits.len()));
        } else {
            out.push_str(&digits[..whole]);
            out.push('.');
            out.push_str(&digits[whole..]);
        }
    }
    out
}

/// `%e` with `precision` digits after the point.
fn exponent_form(v: f64, precision: usize) -> String {
    let text = format!("{v:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').expect("exponent form has an e");
    let exponent: i32 = exponent.parse().expect("exponent is a small integer");
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

#[derive(Clone, Copy, Default)]
struct Spec {
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// `fmt.Sprintf`.
pub(super) fn sprintf(format: &str, args: &[Value]) -> String {
    let mut printf = Printf { out: String::new(), args, next: 0, reordered: false };
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if printf.out.len() > PRINT_BYTES_MAX {
            break;
        }
        if c == '%' {
            printf.directive(&mut chars);
        } else {
            printf.out.push(c);
        }
    }
    printf.extra();
    printf.out
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

struct Printf<'a> {
    out: String,
    args: &'a [Value],
    next: usize,
    reordered: bool,
}

impl Printf<'_> {
    fn directive(&mut self, chars: &mut Chars<'_>) {
        let mut spec = Spec::default();
        while let Some(flag) = chars.peek() {
            match flag {
                '+' => spec.plus = true,
                '-' => spec.minus = true,
                '#' => spec.sharp = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                _ => break,
            }
            chars.next();
        }
        let mut index_bad = !self.index(chars);
        if chars.peek() == Some(&'*') {
            chars.next();
            match self.star() {
                Some(width) => {
                    spec.minus |= width < 0;
                    spec.width = Some(clamp(width.unsigned_abs()));
                }
                None => self.out.push_str("%!(BADWIDTH)"),
            }
        } else {
            spec.width = number(chars);
        }
        if chars.peek() == Some(&'.') {
            chars.next();
            index_bad |= !self.index(chars);
            if chars.peek() == Some(&'*') {
                chars.next();
                match self.star() {
                    Some(precision) if precision >= 0 => {
                        spec.precision = Some(clamp(precision.unsigned_abs()))
                    }
                    Some(_) | None => self.out.push_str("%!(BADPREC)"),
                }
            } else {
                spec.precision = Some(number(chars).unwrap_or(0));
            }
        }
        index_bad |= !self.index(chars);
        let Some(verb) = chars.next() else {
            self.out.push_str("%!(NOVERB)");
            return;
        };
        if verb == '%' {
            self.out.push('%');
            return;
        }
        if index_bad {
            push(&mut self.out, format_args!("%!{verb}(BADINDEX)"));
            return;
        }
        let args = self.args;
        let Some(arg) = args.get(self.next) else {
            push(&mut self.out, format_args!("%!{verb}(MISSING)"));
            return;
        };
        self.next += 1;
        self.argument(spec, verb, arg);
    }

    /// `[n]`: false when it is malformed or names no argument.
    fn index(&mut self, chars: &mut Chars<'_>) -> bool {
        if chars.peek() != Some(&'[') {
            return true;
        }
        chars.next();
        self.reordered = true;
        let index = number(chars);
        let closed = chars.next_if_eq(&']').is_some();
        match index {
            Some(index) if closed && (1..=self.args.len()).contains(&index) => {
                self.next = index - 1;
                true
            }
            _ => false,
        }
    }

    fn star(&mut self) -> Option<i64> {
        let arg = self.args.get(self.next)?;
        self.next += 1;
        match arg {
            Value::Int(n) if n.unsigned_abs() <= 1_000_000 => Some(*n),
            _ => None,
        }
    }

    fn extra(&mut self) {
        if self.reordered || self.next >= self.args.len() {
            return;
        }
        self.out.push_str("%!(EXTRA ");
        for (index, arg) in self.args[self.next..].iter().enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            typed(&mut self.out, arg);
        }
        self.out.push(')');
    }

    fn argument(&mut self, spec: Spec, verb: char, arg: &Value) {
        if self.out.len() > PRINT_BYTES_MAX {
            return;
        }
        match (verb, arg) {
            ('T', _) => self.pad(spec, &type_name(arg), false),
            ('v', Value::Nil) => self.pad(spec, "<nil>", false),
            (_, Value::Nil) => push(&mut self.out, format_args!("%!{verb}(<nil>)")),
            (_, Value::List(items)) => self.each(spec, verb, "[", items.iter().map(|item| (None, item))),
            (_, Value::Map(entries)) => {
                self.each(spec, verb, "map[", entries.iter().map(|(key, item)| (Some(&**key), item)));
            }
            ('v' | 't', Value::Bool(b)) => self.pad(spec, &b.to_string(), true),
            (_, Value::Int(n)) => self.integer(spec, verb, i128::from(*n), arg),
            (_, Value::Uint(n)) => self.integer(spec, verb, i128::from(*n), arg),
            (_, Value::Float(v)) => self.float(spec, verb, *v, arg),
            (_, Value::String(s) | Value::Safe { s, .. }) => self.text(spec, verb, s, arg),
            (_, Value::Function(_)) => match as_object(arg) {
                Some(object) => match (verb, object.integer()) {
                    ('d' | 'x' | 'X' | 'o' | 'b' | 'c' | 'U', Some(n)) => {
                        self.integer(spec, verb, i128::from(n), arg)
                    }
                    _ => self.text(spec, verb, &object.print(), arg),
                },
                None => self.bad(spec, verb, arg),
            },
            (_, Value::Bool(_)) => self.bad(spec, verb, arg),
        }
    }

    fn each<'v>(
        &mut self,
        spec: Spec,
        verb: char,
        open: &str,
        items: impl Iterator<Item = (Option<&'v str>, &'v Value)>,
    ) {
        self.out.push_str(open);
        for (index, (key, item)) in items.enumerate() {
            if index > 0 {
                self.out.push(' ');
            }
            if let Some(key) = key {
                self.argument(spec, verb, &super::value::text(key));
                self.out.push(':');
            }
            self.argument(spec, verb, item);
        }
        self.out.push(']');
    }

    fn integer(&mut self, spec: Spec, verb: char, n: i128, arg: &Value) {
        let magnitude = n.unsigned_abs();
        let (digits, prefix) = match verb {
            'v' | 'd' => (magnitude.to_string(), ""),
            'b' => (format!("{magnitude:b}"), "0b"),
            'o' => (format!("{magnitude:o}"), "0"),
            'O' => (format!("{magnitude:o}"), "0o"),
            'x' => (format!("{magnitude:x}"), "0x"),
            'X' => (format!("{magnitude:X}"), "0X"),
            'c' => {
                let c = u32::try_from(n).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
                return self.pad(spec, c.encode_utf8(&mut [0; 4]), false);
            }
            'q' => {
                let c = u32::try_from(n).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
                let quoted = match c {
                    '\'' => "'\\''".to_owned(),
                    '"' => "'\"'".to_owned(),
                    c => {
                        let text = Quoted(c.encode_utf8(&mut [0; 4])).to_string();
                        format!("'{}'", &text[1..text.len() - 1])
                    }
                };
                return self.pad(spec, &quoted, false);
            }
            'U' => return self.pad(spec, &format!("U+{n:04X}"), false),
            _ => return self.bad(spec, verb, arg),
        };
        let mut text = String::new();
        if n < 0 {
            text.push('-');
        } else if spec.plus {
            text.push('+');
        } else if spec.space {
            text.push(' ');
        }
        let sign_len = text.len();
        if verb == 'O' || (spec.sharp && prefix != "0") {
            text.push_str(prefix);
        }
        let digits_min = match (spec.precision, spec.width) {
            (Some(precision), _) => precision,
            (None, Some(width)) if spec.zero && !spec.minus => width.saturating_sub(sign_len),
            _ => 0,
        };
        let digits = format!("{digits:0>digits_min$}");
        if spec.sharp && prefix == "0" && !digits.starts_with('0') {
            text.push('0');
        }
        text.push_str(&digits);
        self.pad(Spec { zero: false, ..spec }, &text, false);
    }

    fn float(&mut self, spec: Spec, verb: char, v: f64, arg: &Value) {
        let finite = |text: &dyn Fn() -> String| if v.is_finite() { text() } else { float::format_fixed(v) };
        let text = match verb {
            'v' | 'g' => general(v, spec.precision),
            'G' => general(v, spec.precision).replace('e', "E"),
            'f' | 'F' => finite(&|| format!("{v:.*}", spec.precision.unwrap_or(6))),
            'e' => finite(&|| exponent_form(v, spec.precision.unwrap_or(6))),
            'E' => finite(&|| exponent_form(v, spec.precision.unwrap_or(6)).replace('e', "E")),
            _ => return self.bad(spec, verb, arg),
        };
        let (sign, digits) = match text.strip_prefix(['-', '+']) {
            Some(digits) => (&text[..1], digits),
            None => ("+", text.as_str()),
        };
        let sign = match sign {
            "+" if spec.plus || v.is_infinite() && !spec.space => "+",
            "+" if spec.space => " ",
            "+" => "",
            other => other,
        };
        match spec.width {
            Some(width) if spec.zero && !spec.minus && v.is_finite() => {
                let digits_min = width.saturating_sub(sign.len());
                push(&mut self.out, format_args!("{sign}{digits:0>digits_min$}"));
            }
            _ => self.pad(Spec { zero: false, ..spec }, &format!("{sign}{digits}"), false),
        }
    }

    fn text(&mut self, spec: Spec, verb: char, text: &str, arg: &Value) {
        let cut = match spec.precision {
            Some(precision) => text.char_indices().nth(precision).map_or(text, |(end, _)| &text[..end]),
            None => text,
        };
        match verb {
            'v' | 's' => self.pad(spec, cut, true),
            'q' if spec.sharp && !cut.contains('`') && !cut.chars().any(|c| c.is_control() && c != '\t') => {
                self.pad(spec, &format!("`{cut}`"), true);
            }
            'q' => self.pad(spec, &Quoted(cut).to_string(), true),
            'x' | 'X' => {
                let bytes = &text.as_bytes()[..spec.precision.unwrap_or(usize::MAX).min(text.len())];
                let mut hex = String::with_capacity(bytes.len() * 2);
                for (index, byte) in bytes.iter().enumerate() {
                    if spec.space && index > 0 {
                        hex.push(' ');
                    }
                    if spec.sharp && (index == 0 || spec.space) {
                        hex.push_str(if verb == 'x' { "0x" } else { "0X" });
                    }
                    if verb == 'x' {
                        push(&mut hex, format_args!("{byte:02x}"));
                    } else {
                        push(&mut hex, format_args!("{byte:02X}"));
                    }
                }
                self.pad(spec, &hex, true);
            }
            _ => self.bad(spec, verb, arg),
        }
    }

    /// Go's mark of a verb that does not fit; width and precision stay in force.
    fn bad(&mut self, spec: Spec, verb: char, arg: &Value) {
        push(&mut self.out, format_args!("%!{verb}({}=", type_name(arg)));
        self.argument(spec, 'v', arg);
        self.out.push(')');
    }

    fn pad(&mut self, spec: Spec, text: &str, zero_allowed: bool) {
        let missing = spec.width.unwrap_or(0).saturating_sub(text.chars().count());
        if spec.minus {
            self.out.push_str(text);
            self.out.extend(std::iter::repeat_n(' ', missing));
        } else {
            let fill = if spec.zero && zero_allowed { '0' } else { ' ' };
            self.out.extend(std::iter::repeat_n(fill, missing));
            self.out.push_str(text);
        }
    }
}

/// `float64=1.5`, as in Go's marks of misuse.
fn typed(out: &mut String, value: &Value) {
    if matches!(value, Value::Nil) {
        out.push_str("<nil>");
        return;
    }
    push(out, format_args!("{}=", type_name(value)));
    write_value(out, value);
}

fn number(chars: &mut Chars<'_>) -> Option<usize> {
    let mut value: Option<u64> = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        value = Some(value.unwrap_or(0).saturating_mul(10).saturating_add(u64::from(digit)));
    }
    value.map(clamp)
}

fn clamp(n: u64) -> usize {
    usize::try_from(n).unwrap_or(WIDTH_MAX).min(WIDTH_MAX)
}

fn push(out: &mut String, args: std::fmt::Arguments<'_>) {
    out.write_fmt(args).expect("writing to a string cannot fail");
}
