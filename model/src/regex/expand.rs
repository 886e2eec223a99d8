//! Go's templates of replacement texts: `$1`, `${1}`, `$name`, `${name}`, `$$`.

use ::regex::Captures;

/// Appends `template` to `out`, references replaced by their captures (Go's `Regexp.Expand`).
///
/// A name is the longest run of letters, digits and `_`, so `$1x` is the group named `1x`, not group 1. Absent groups
/// are empty. A `$` that begins no reference stays.
pub fn expand(template: &str, captures: &Captures<'_>, out: &mut String) {
    let mut rest = template;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let Some((name, tail)) = reference(after) else {
            out.push('$');
            rest = after;
            continue;
        };
        rest = tail;
        let group = match group_number(name) {
            Some(number) => captures.get(number),
            None => captures.name(name),
        };
        if let Some(group) = group {
            out.push_str(group.as_str());
        }
    }
    out.push_str(rest);
}

/// Splits the name off the text behind a `$`.
fn reference(after: &str) -> Option<(&str, &str)> {
    let (brace, body) = match after.strip_prefix('{') {
        Some(body) => (true, body),
        None => (false, after),
    };
    let len = body.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(body.len());
    if len == 0 {
        return None;
    }
    let (name, tail) = body.split_at(len);
    if brace { Some((name, tail.strip_prefix('}')?)) } else { Some((name, tail)) }
}

fn group_number(name: &str) -> Option<usize> {
    let plain = name.len() == 1 || !name.starts_with('0');
    if !plain || name.len() > 8 || !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_gos() {
        let regex = ::regex::Regex::new("(?P<first>a)(b)?(c)").unwrap();
        let captures = regex.captures("ac").unwrap();
        let cases = [
            ("$1-${1}-$3", "a-a-c"),
            ("$first|${first}|$firstx", "a|a|"),
            ("$1x", ""),
            ("${1}x", "ax"),
            ("$2|$9|$0", "||ac"),
            ("$$1 $ $- ${ ${1 ${-}", "$1 $ $- ${ ${1 ${-}"),
            ("$01 ${00}", " "),
            ("é$1é", "éa"),
            ("$", "$"),
        ];
        for (template, expected) in cases {
            let mut out = String::new();
            // `$1é` names group `1é`: letters are letters of any script.
            expand(template, &captures, &mut out);
            let expected = if template == "é$1é" { "é" } else { expected };
            assert_eq!(out, expected, "{template}");
        }
    }
}
