//! Environment variables in configuration texts.

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::position::Position;

/// `$VAR` and `${VAR}` as Prometheus expands them in external labels (Go's `os.Expand`): `$$` is a dollar sign, unknown
/// variables are empty. Gives the names of unknown ones, too.
pub(crate) fn expand_label(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> (String, Vec<String>) {
    let mut out = String::with_capacity(text.len());
    let mut unknown = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let (name, after) = if let Some(braced) = tail.strip_prefix('{') {
            let Some(end) = braced.find('}') else {
                rest = tail;
                continue;
            };
            (&braced[..end], &braced[end + 1..])
        } else if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        } else {
            let length = tail.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            tail.split_at(length)
        };
        if !name.is_empty() {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => unknown.push(name.to_owned()),
            }
        }
        rest = after;
    }
    out.push_str(rest);
    (out, unknown)
}

/// `${VAR}` in every scalar of a YAML text (`--config.expand-env`). Only names count (`[A-Za-z_][A-Za-z0-9_]*`), so `${1}` of
/// relabelling stays; `$${` stands for `${`. A value can never change the file's structure: where it could, the scalar is
/// written in quotes. Comments are left alone.
///
/// # Errors
/// The place and name of a variable that is not set.
pub(crate) fn expand_text(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, (Position, String)> {
    let bytes: Vec<usize> = text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect();
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for event in Parser::new_from_str(text) {
        // What is no YAML is told by the reader, with its place.
        let Ok((event, span)) = event else { break };
        let Event::Scalar(value, style, ..) = event else { continue };
        if !value.contains("${") {
            continue;
        }
        let (Some(start), Some(end)) = (bytes.get(span.start.index()), bytes.get(span.end.index())) else {
            break;
        };
        let place = Position { line: span.start.line(), column: span.start.col() + 1 };
        let unset = |name: String| (place, format!("environment variable {name} is not set"));
        let end = start + text[*start..*end].trim_end().len();
        out.push_str(&text[done..*start]);
        done = end;
        if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
            // Within a block everything is text; only a line break could end it.
            let one_line = |name: &str| lookup(name).map(|value| value.replace(['\n', '\r'], " "));
            out.push_str(&expand_value(&text[*start..end], &one_line).map_err(unset)?);
            continue;
        }
        let expanded = expand_value(&value, lookup).map_err(unset)?;
        if style == ScalarStyle::Plain && is_plain(&expanded) {
            out.push_str(&expanded);
        } else {
            out.push_str(&quoted(&expanded));
        }
    }
    out.push_str(&text[done..]);
    Ok(out)
}

fn expand_value(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let tail = &rest[at + 2..];
        let name = tail.find('}').map(|end| &tail[..end]);
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = tail;
        } else if let Some(name) = name.filter(|name| model::labels::is_legacy_label_name(name)) {
            out.push_str(&rest[..at]);
            out.push_str(&lookup(name).ok_or_else(|| name.to_owned())?);
            rest = &tail[name.len() + 1..];
        } else {
            out.push_str(&rest[..at + 2]);
            rest = tail;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether a text means itself without quotes, as a number or a word.
fn is_plain(text: &str) -> bool {
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '.');
    let harmless = |c: char| c.is_ascii_alphanumeric() || "_./-+=".contains(c);
    // A colon followed by anything but a blank is part of the text.
    starts_well && text.chars().all(|c| harmless(c) || c == ':') && !text.ends_with(':')
}

/// A YAML double-quoted scalar; JSON's escapes are a part of YAML's.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("h1".to_owned()),
            "PORT" => Some("9090".to_owned()),
            "ODD" => Some("a\nb: \"c\" # }".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn labels_expand_as_in_go() {
        let cases = [
            ("a-$HOST-${HOST}", "a-h1-h1"),
            ("$$HOST", "$HOST"),
            ("${NONE}x", "x"),
            ("50$", "50"),
            ("${", "{"),
        ];
        for (text, expanded) in cases {
            assert_eq!(expand_label(text, &lookup).0, expanded, "{text}");
        }
        assert_eq!(expand_label("$NONE", &lookup).1, ["NONE"]);
    }

    #[test]
    fn values_never_change_the_structure() {
        let text = "# ${NONE} in a comment\na: ${HOST}:${PORT}\nb: ${PORT} # kept\nc: ['${ODD}', '${1}', '$${HOST}']\nd: |\n  x ${HOST}\ne: 1\n";
        let expanded = expand_text(text, &lookup).unwrap();
        let read: serde_yaml::Value = serde_yaml::from_str(&expanded).unwrap();
        let expected: serde_yaml::Value = serde_yaml::from_str(
            "{a: 'h1:9090', b: 9090, c: [\"a\\nb: \\\"c\\\" # }\", '${1}', '${HOST}'], d: \"x h1\\n\", e: 1}",
        )
        .unwrap();
        assert_eq!(read, expected, "{expanded}");
        let error = expand_text("a: 1\nb: ${NONE}", &lookup).unwrap_err();
        assert_eq!(
            error,
            (Position { line: 2, column: 4 }, "environment variable NONE is not set".to_owned())
        );
    }
}
