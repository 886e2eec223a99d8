//! Functions on texts.

use std::cell::RefCell;

use super::{Functions, count, text_arg};
use crate::regex;
use crate::template::format;
use crate::template::run;
use crate::template::value::{SafeKind, Value, as_text, safe_html, text, type_name};

/// In both tables.
pub(super) fn add_common(functions: Functions) -> Functions {
    functions
        .with("toUpper", |args| one_text("toUpper", args, |s| s.to_uppercase()))
        .with("toLower", |args| one_text("toLower", args, |s| s.to_lowercase()))
        .with("title", |args| one_text("title", args, title))
        .with("match", |args| {
            count("match", args, 2)?;
            let (pattern, s) = (text_arg(args, 0)?, text_arg(args, 1)?);
            Ok(Value::Bool(with_regex(pattern, |regex| regex.is_match(s))?))
        })
        .with("reReplaceAll", |args| {
            count("reReplaceAll", args, 3)?;
            let (pattern, template, s) = (text_arg(args, 0)?, text_arg(args, 1)?, text_arg(args, 2)?);
            let bytes_max = run::with(|run| run.limits.output_bytes).unwrap_or(usize::MAX);
            with_regex(pattern, |regex| replace_all(regex, template, s, bytes_max))?.map(text)
        })
        .with("safeHtml", |args| {
            count("safeHtml", args, 1)?;
            Ok(safe_html(text_arg(args, 0)?))
        })
}

pub(super) fn add_prometheus(functions: Functions) -> Functions {
    functions
        .with("stripPort", |args| one_text("stripPort", args, strip_port))
        .with("stripDomain", |args| one_text("stripDomain", args, strip_domain))
        .with("graphLink", |args| one_text("graphLink", args, |expr| graph_link(expr, 0)))
        .with("tableLink", |args| one_text("tableLink", args, |expr| graph_link(expr, 1)))
        .with("urlQueryEscape", |args| one_text("urlQueryEscape", args, url_query_escape))
        .with("externalURL", |args| {
            count("externalURL", args, 0)?;
            Ok(text(run::env().external_url))
        })
        .with("pathPrefix", |args| {
            count("pathPrefix", args, 0)?;
            Ok(text(url_path(&run::env().external_url)))
        })
}

pub(super) fn add_alertmanager(functions: Functions) -> Functions {
    functions
        .with("trimSpace", |args| one_text("trimSpace", args, |s| s.trim().to_owned()))
        .with("safeUrl", |args| {
            count("safeUrl", args, 1)?;
            Ok(Value::Safe { kind: SafeKind::Url, s: text_arg(args, 0)?.into() })
        })
        .with("urlUnescape", |args| {
            count("urlUnescape", args, 1)?;
            url_query_unescape(text_arg(args, 0)?).map(text)
        })
        .with("base64encode", |args| one_text("base64encode", args, |s| base64_encode(s.as_bytes())))
        .with("base64decode", |args| {
            count("base64decode", args, 1)?;
            base64_decode(text_arg(args, 0)?).map(text)
        })
        .with("toJson", |args| {
            count("toJson", args, 1)?;
            let mut out = String::new();
            format::write_json(&mut out, &args[0]);
            Ok(text(out))
        })
        .with("join", |args| {
            count("join", args, 2)?;
            let separator = text_arg(args, 0)?;
            let Value::List(items) = &args[1] else {
                return Err(format!("wrong type for value; expected []string; got {}", type_name(&args[1])));
            };
            let mut words = Vec::with_capacity(items.len());
            for item in items.iter() {
                words.push(as_text(item).ok_or("wrong type for value; expected []string")?);
            }
            let bytes: usize = words.iter().map(|word| word.len() + separator.len()).sum();
            let bytes_max = run::with(|run| run.limits.output_bytes).unwrap_or(usize::MAX);
            if bytes.saturating_sub(separator.len()) > bytes_max {
                return Err(format!("text exceeds {bytes_max} bytes"));
            }
            Ok(text(words.join(separator)))
        })
}

fn one_text(name: &str, args: &[Value], change: impl Fn(&str) -> String) -> Result<Value, String> {
    count(name, args, 1)?;
    Ok(text(change(text_arg(args, 0)?)))
}

/// The first letter of each word as a title has it, the others as they are (`cases.Title` of `golang.org/x/text` with
/// `NoLower`). Words hold letters, digits, `_`, and single marks such as `.`, `:` and apostrophes between letters.
fn title(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut titled = false;
    let mut previous = ' ';
    let mut chars = s.chars().peekable();
    while let Some(c) = chars.next() {
        let joins = matches!(c, '.' | ':' | '\'' | '’' | '·')
            && previous.is_alphabetic()
            && chars.peek().is_some_and(|next| next.is_alphabetic());
        let within = c.is_alphanumeric() || matches!(c, '_' | '\u{ad}' | '\u{300}'..='\u{36f}');
        if !joins && !within {
            titled = false;
        }
        if !titled && (c.is_lowercase() || c.is_uppercase()) {
            titled = true;
            // Some letters become two (`ß` → `Ss`), of which only the first is large.
            let mut upper = c.to_uppercase();
            out.extend(upper.next());
            out.extend(upper.flat_map(char::to_lowercase));
        } else {
            out.push(c);
        }
        previous = c;
    }
    out
}

/// `host:port` and `[v6]:port` without the port.
fn strip_port(host_port: &str) -> String {
    match split_host_port(host_port) {
        Some((host, _)) => host.to_owned(),
        None => host_port.to_owned(),
    }
}

/// The first part of a host name; addresses stay whole.
fn strip_domain(host_port: &str) -> String {
    let (host, port) = match split_host_port(host_port) {
        Some((host, port)) => (host, Some(port)),
        None => (host_port, None),
    };
    if host.parse::<std::net::IpAddr>().is_ok() {
        return host_port.to_owned();
    }
    let host = host.split_once('.').map_or(host, |(first, _)| first);
    match port {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Go's `net.SplitHostPort`.
fn split_host_port(host_port: &str) -> Option<(&str, &str)> {
    let (head, port) = host_port.rsplit_once(':')?;
    if let Some(rest) = head.strip_prefix('[') {
        let host = rest.strip_suffix(']')?;
        return (!host.contains(['[', ']']) && !port.contains(['[', ']'])).then_some((host, port));
    }
    (!head.contains([':', '[', ']']) && !port.contains(['[', ']'])).then_some((head, port))
}

/// A link into the expression browser.
fn graph_link(expr: &str, tab: u8) -> String {
    crate::template::alerting::graph_link(expr, tab)
}

/// Go's `url.QueryEscape`: a space becomes `+`.
pub(in crate::template) fn url_query_escape(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for byte in s.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => {
                out.push('%');
                for nibble in [byte >> 4, byte & 15] {
                    out.push(char::from(b"0123456789ABCDEF"[usize::from(nibble)]));
                }
            }
        }
    }
    out
}

/// Go's `url.QueryUnescape`.
fn url_query_unescape(s: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(s.len());
    let mut bytes = s.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits =
                    s.as_bytes().get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
                let decoded = digits
                    .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                let Some(decoded) = decoded else {
                    let shown: String = s[at..].chars().take(3).collect();
                    return Err(format!("invalid URL escape {}", crate::labels::Quoted(&shown)));
                };
                out.push(decoded);
                bytes.nth(1);
            }
            other => out.push(other),
        }
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// The path of a URL, without a slash at the end.
fn url_path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let rest = &rest[..end];
    let path = rest.find('/').map_or("", |slash| &rest[slash..]);
    if url.contains("://") { path } else { rest }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard base 64 with padding. (Ten lines; not worth a dependency of this crate.)
fn base64_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..4 {
            if position <= chunk.len() {
                out.push(char::from(BASE64[(group >> (18 - 6 * position) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

fn base64_decode(s: &str) -> Result<String, String> {
    let symbols: Vec<u8> = s.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
    let mut out = Vec::with_capacity(symbols.len() / 4 * 3);
    let groups = symbols.chunks(4).count();
    for (number, chunk) in symbols.chunks(4).enumerate() {
        let padding = chunk.iter().rev().take_while(|byte| **byte == b'=').count();
        let illegal = || format!("illegal base64 data at input byte {}", number * 4);
        if chunk.len() < 4 || padding > 2 || (padding > 0 && number + 1 < groups) {
            return Err(illegal());
        }
        let mut group = 0u32;
        for byte in &chunk[..4 - padding] {
            let value = BASE64.iter().position(|symbol| symbol == byte).ok_or_else(illegal)?;
            group = group << 6 | u32::try_from(value).expect("a symbol has six bits");
        }
        group <<= 6 * padding;
        out.extend(&group.to_be_bytes()[1..4 - padding]);
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Go's `Regexp.ReplaceAllString`, bounded.
fn replace_all(regex: &::regex::Regex, template: &str, s: &str, bytes_max: usize) -> Result<String, String> {
    let mut out = String::with_capacity(s.len());
    let mut copied = 0;
    for captures in regex.captures_iter(s) {
        let whole = captures.get(0).expect("group 0 always matches");
        out.push_str(&s[copied..whole.start()]);
        regex::expand(template, &captures, &mut out);
        copied = whole.end();
        if out.len() > bytes_max {
            return Err(format!("text exceeds {bytes_max} bytes"));
        }
    }
    out.push_str(&s[copied..]);
    Ok(out)
}

/// Compiled expressions that are kept per thread: templates use the same few again and again.
const REGEX_CACHE_MAX: usize = 64;

fn with_regex<R>(pattern: &str, use_it: impl FnOnce(&::regex::Regex) -> R) -> Result<R, String> {
    thread_local! {
        static CACHE: RefCell<Vec<(String, ::regex::Regex)>> = const { RefCell::new(Vec::new()) };
    }
    let cached =
        CACHE.with_borrow(|cache| cache.iter().find(|(p, _)| p == pattern).map(|(_, regex)| regex.clone()));
    let regex = match cached {
        Some(regex) => regex,
        None => {
            let regex = regex::compile_search(pattern).map_err(|error| error.to_string())?;
            CACHE.with_borrow_mut(|cache| {
                if cache.len() == REGEX_CACHE_MAX {
                    cache.remove(0);
                }
                cache.push((pattern.to_owned(), regex.clone()));
            });
            regex
        }
    };
    Ok(use_it(&regex))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected texts are those of the real Prometheus.
    #[test]
    fn titles_like_go() {
        let cases = [
            ("aa bB-cc_dd 1ab ab1cd", "Aa BB-Cc_dd 1Ab Ab1cd"),
            ("don't a.b a:b a·b o’x", "Don't A.b A:b A·b O’x"),
            ("a,b a..b a;b x/y a@b 'a' .a a. b", "A,B A..B A;B X/Y A@B 'A' .A A. B"),
            ("1.a a.1 1:a 3.5a", "1.A A.1 1:A 3.5A"),
            ("_a a_ __name__ a-_b", "_A A_ __Name__ A-_B"),
            ("ßa ﬁx éa 日本a АБв гд", "Ssa Fix Éa 日本A АБв Гд"),
        ];
        for (plain, expected) in cases {
            assert_eq!(title(plain), expected);
        }
    }

    #[test]
    fn ports_and_domains_come_off() {
        assert_eq!(strip_port("a.b:9090"), "a.b");
        assert_eq!(strip_port("[::1]:9090"), "::1");
        assert_eq!(strip_port("::1"), "::1");
        assert_eq!(strip_port("a.b"), "a.b");
        assert_eq!(strip_domain("a.b.c:9090"), "a:9090");
        assert_eq!(strip_domain("10.0.0.1:80"), "10.0.0.1:80");
        assert_eq!(strip_domain("a"), "a");
    }

    #[test]
    fn base64_and_url_round_trip() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64_encode(plain.as_bytes()), coded);
            assert_eq!(base64_decode(coded).as_deref(), Ok(plain));
        }
        for bad in ["Z", "Zg=", "Zg==Zg==", "Z===", "Zm9*"] {
            assert!(base64_decode(bad).is_err(), "{bad}");
        }
        assert_eq!(url_query_escape("a b/ü&"), "a+b%2F%C3%BC%26");
        assert_eq!(url_query_unescape("a+b%2F%C3%BC%26").as_deref(), Ok("a b/ü&"));
        assert_eq!(url_query_unescape("%zz").unwrap_err(), "invalid URL escape \"%zz\"");
        assert_eq!(url_query_unescape("%").unwrap_err(), "invalid URL escape \"%\"");
        assert_eq!(url_path("http://host:9090/prefix?x"), "/prefix");
        assert_eq!(url_path("http://host:9090"), "");
    }
}
