//! Checks of a template's source that `gotmpl`'s parser leaves out: blocks that balance, `break` and `else` in their
//! place. Messages are Go's.

use super::TemplateError;

struct Block {
    /// `if`, `with`, `range`, `define`, `block`.
    keyword: &'static str,
    has_else: bool,
}

/// Walks over the actions of `source`.
///
/// # Errors
/// The first block that does not balance. What the lexer refuses anyway (unclosed actions, strings, comments) is left
/// to it.
pub(super) fn check(name: &str, source: &str) -> Result<(), TemplateError> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut position = 0;
    while let Some(start) = source[position..].find("{{") {
        let start = position + start + 2;
        let Some(end) = action_end(source, start) else { return Ok(()) };
        let line = 1 + source[..start].matches('\n').count();
        let action = source[start..end].trim_start_matches("- ").trim_start();
        position = end + 2;
        if action.starts_with("/*") {
            continue;
        }
        let word_len = action.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(action.len());
        let (word, rest) = action.split_at(word_len);
        let open = |keyword| Block { keyword, has_else: false };
        match word {
            "if" => blocks.push(open("if")),
            "with" => blocks.push(open("with")),
            "range" => blocks.push(open("range")),
            "block" => blocks.push(open("block")),
            "define" if blocks.is_empty() => blocks.push(open("define")),
            "define" => return Err(TemplateError::parse(name, line, "unexpected {{define}}")),
            "else" => check_else(name, line, rest, blocks.last_mut())?,
            "end" if blocks.pop().is_none() => {
                return Err(TemplateError::parse(name, line, "unexpected {{end}}"));
            }
            "break" | "continue" => {
                let inner =
                    blocks.iter().rev().take_while(|block| !matches!(block.keyword, "define" | "block"));
                if !inner.into_iter().any(|block| block.keyword == "range") {
                    return Err(TemplateError::parse(
                        name,
                        line,
                        format!("{{{{{word}}}}} outside {{{{range}}}}"),
                    ));
                }
            }
            _ => {}
        }
    }
    if blocks.is_empty() {
        return Ok(());
    }
    Err(TemplateError::parse(name, 1 + source.matches('\n').count(), "unexpected EOF"))
}

fn check_else(name: &str, line: usize, rest: &str, block: Option<&mut Block>) -> Result<(), TemplateError> {
    let Some(block) = block.filter(|block| matches!(block.keyword, "if" | "with" | "range")) else {
        return Err(TemplateError::parse(name, line, "unexpected {{else}}"));
    };
    if block.has_else {
        return Err(TemplateError::parse(name, line, "expected end; found {{else}}"));
    }
    let rest = rest.trim_start();
    let word_len = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
    match (&rest[..word_len], block.keyword) {
        ("if", "if") | ("with", "with") => {}
        (word @ ("if" | "with"), _) => {
            return Err(TemplateError::parse(name, line, format!("unexpected <{word}> in input")));
        }
        _ => block.has_else = true,
    }
    Ok(())
}

/// Where the action that begins at `start` has its `}}`, strings and comments skipped.
fn action_end(source: &str, start: usize) -> Option<usize> {
    let bytes = source.as_bytes();
    let mut at = start;
    let opening = source[start..].trim_start_matches("- ").trim_start();
    if opening.starts_with("/*") {
        at += source[start..].find("*/")? + 2;
        return source[at..].find("}}").map(|end| at + end);
    }
    while at < bytes.len() {
        match bytes[at] {
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            b'`' => at += 1 + source[at + 1..].find('`')?,
            quote @ (b'"' | b'\'') => {
                at += 1;
                while *bytes.get(at)? != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_must_balance_with_gos_words() {
        let cases = [
            ("{{ if true }}x", "template: t:1: unexpected EOF"),
            ("a{{end}}", "template: t:1: unexpected {{end}}"),
            ("\n{{- else }}", "template: t:2: unexpected {{else}}"),
            ("{{ break }}", "template: t:1: {{break}} outside {{range}}"),
            ("{{ define \"x\" }}", "template: t:1: unexpected EOF"),
            ("{{if true}}{{else}}{{else}}{{end}}", "template: t:1: expected end; found {{else}}"),
            ("{{with .}}{{else if .}}{{end}}", "template: t:1: unexpected <if> in input"),
            (
                "{{range .}}{{block \"b\" .}}{{continue}}{{end}}{{end}}",
                "template: t:1: {{continue}} outside {{range}}",
            ),
            ("{{if .}}{{define \"x\"}}{{end}}{{end}}", "template: t:1: unexpected {{define}}"),
        ];
        for (source, message) in cases {
            assert_eq!(check("t", source).unwrap_err().to_string(), message, "{source}");
        }
    }

    #[test]
    fn strings_and_comments_hide_delimiters() {
        let good = [
            "{{ \"}} {{end}} \\\" \" }}",
            "{{/* {{end}} */}}",
            "{{- /* {{if}} */ -}}",
            "{{ `{{if}}` }}",
            "{{ if . }}{{ else if . }}{{ else }}{{ end }}",
            "{{ range . }}{{ if . }}{{ break }}{{ end }}{{ end }}",
            "{{ '\\'' }}{{ endless }}",
            "plain } } {",
        ];
        for source in good {
            assert_eq!(check("t", source), Ok(()), "{source}");
        }
    }
}
