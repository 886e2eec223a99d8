//! `label_replace` and `label_join`: change labels, never look at samples.

use model::labels::METRIC_NAME;
use model::{Labels, LabelsBuilder};

use super::error::QueryError;
use super::eval::{check_every, vector};
use super::state::State;
use super::steps::Steps;
use super::stream::Stream;
use crate::plan::LabelReplacePlan;

fn set(
    state: &State<'_>,
    stream: &mut Stream<'_>,
    destination: &str,
    mut value: impl FnMut(&Labels) -> Option<String>,
) -> Result<(), QueryError> {
    let mut builder = LabelsBuilder::new();
    for (index, head) in stream.heads.iter_mut().enumerate() {
        check_every(state, index)?;
        let Some(value) = value(&head.labels) else { continue };
        builder.reset(&head.labels);
        builder.set(destination, value);
        head.labels = builder.build();
        state.limits.hold_bytes(head.labels.size_bytes())?;
        if destination == METRIC_NAME {
            head.drop_name = false;
        }
    }
    Ok(())
}

pub(crate) fn replace<'q>(
    state: &'q State<'q>,
    plan: &'q LabelReplacePlan,
    steps: Steps,
) -> Result<Stream<'q>, QueryError> {
    let mut stream = vector(state, &plan.arg, steps)?;
    let template = parse_template(&plan.replacement);
    set(state, &mut stream, &plan.destination, |labels| {
        let captures = plan.regex.captures(labels.value(&plan.source))?;
        let mut out = String::new();
        for part in &template {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Number(number) => out.push_str(captures.get(*number).map_or("", |m| m.as_str())),
                Part::Name(name) => out.push_str(captures.name(name).map_or("", |m| m.as_str())),
            }
        }
        Some(out)
    })?;
    stream.merge_equal(state, false)
}

pub(crate) fn join<'q>(
    state: &'q State<'q>,
    mut stream: Stream<'q>,
    destination: &str,
    separator: &str,
    sources: &[String],
) -> Result<Stream<'q>, QueryError> {
    set(state, &mut stream, destination, |labels| {
        let values: Vec<&str> = sources.iter().map(|source| labels.value(source)).collect();
        Some(values.join(separator))
    })?;
    stream.merge_equal(state, false)
}

/// A piece of a replacement.
#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    Number(usize),
    Name(String),
}

/// Go's `Regexp.Expand`: `$1`, `$name`, `${1}`, `${name}`, `$$`; a name is the longest run of letters, digits and `_`,
/// a number only when it is all digits. A `$` that begins none of these stands for itself.
fn parse_template(template: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some(dollar) = rest.find('$') {
        text.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            text.push('$');
            rest = after;
            continue;
        }
        let (name, after) = match rest.strip_prefix('{') {
            Some(braced) => match braced.split_once('}') {
                Some((name, after)) if is_name(name) => (name, after),
                _ => {
                    text.push('$');
                    continue;
                }
            },
            None => {
                rest.split_at(rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len()))
            }
        };
        if name.is_empty() {
            text.push('$');
            continue;
        }
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(match name.parse() {
            Ok(number) if name.bytes().all(|b| b.is_ascii_digit()) => Part::Number(number),
            _ => Part::Name(name.to_owned()),
        });
        rest = after;
    }
    text.push_str(rest);
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    parts
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_gos() {
        let text = |text: &str| Part::Text(text.to_owned());
        let name = |name: &str| Part::Name(name.to_owned());
        let cases = [
            ("a-$1-b", vec![text("a-"), Part::Number(1), text("-b")]),
            ("$1x", vec![name("1x")]),
            ("${1}x", vec![Part::Number(1), text("x")]),
            ("$$1", vec![text("$1")]),
            ("a$", vec![text("a$")]),
            ("${", vec![text("${")]),
            ("$name.$2", vec![name("name"), text("."), Part::Number(2)]),
            ("", vec![]),
        ];
        for (template, parts) in cases {
            assert_eq!(parse_template(template), parts, "{template}");
        }
    }
}
