//! Environment variables in configuration texts.

use super::position::Position;

/// `$VAR` and `${VAR}` as Prometheus expands them in external labels (Go's `os.Expand`): `$$` is a dollar sign, unknown variables
/// are empty. Gives the names of unknown ones, too.
pub(crate) fn expand_label(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> (String, Vec<String>) {
    let mut out = String::with_capacity(text.len());
    let mut unknown = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let (name, after) = if let Some(braced) = tail.strip_prefix('{') {
            match braced.find('}') {
                Some(end) => (&braced[..end], &braced[end + 1..]),
                None => {
                    rest = tail;
                    continue;
                }
            }
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

/// `${VAR}` everywhere in the text (`--config.expand-env`). Only names count (`[A-Za-z_][A-Za-z0-9_]*`), so `${1}` of relabelling stays;
/// `$${` stands for `${`.
///
/// # Errors
/// The place and name of a variable that is not set, or whose value has a line break and so could change the file's
/// structure.
pub(crate) fn expand_text(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, (Position, String)> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let escaped = rest[..at].ends_with('$');
        let tail = &rest[at + 2..];
        let name = tail.find('}').map(|end| &tail[..end]).filter(|name| is_name(name));
        match name {
            _ if escaped => {
                out.push_str(&rest[..at - 1]);
                out.push_str("${");
                rest = tail;
            }
            None => {
                out.push_str(&rest[..at + 2]);
                rest = tail;
            }
            Some(name) => {
                let here = || place(text, text.len() - rest.len() + at);
                let value = lookup(name)
                    .ok_or_else(|| (here(), format!("environment variable {name} is not set")))?;
                if value.contains(['\n', '\r']) {
                    return Err((here(), format!("environment variable {name} has a line break")));
                }
                out.push_str(&rest[..at]);
                out.push_str(&value);
                rest = &tail[name.len() + 1..];
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(text: &str) -> bool {
    model::labels::is_legacy_label_name(text)
}

fn place(text: &str, byte: usize) -> Position {
    let before = &text[..byte];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Position { line, column }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("h1".to_owned()),
            "BAD" => Some("a\nb: c".to_owned()),
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
    fn texts_expand_names_only() {
        assert_eq!(
            expand_text("a: ${HOST}\nb: ${1} $${HOST}", &lookup),
            Ok("a: h1\nb: ${1} ${HOST}".to_owned())
        );
        let error = expand_text("a: 1\nb: ${NONE}", &lookup).unwrap_err();
        assert_eq!(
            error,
            (Position { line: 2, column: 4 }, "environment variable NONE is not set".to_owned())
        );
        assert!(expand_text("${BAD}", &lookup).is_err());
    }
}
