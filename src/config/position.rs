//! Where in a YAML text a value stands: turns a [`ConfigPath`] into line and column.
//!
//! `serde_yaml` knows positions only while it reads. Errors found later (an undefined receiver, a job name used twice)
//! carry a path; this reads the text once more as events and follows the path. Only done when there is an error to tell.

use model::config::{ConfigPath, PathSegment};
use saphyr_parser::{Event, Parser, Span};

/// A place in a text, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
}

/// The place of `path` in `text`, or of the longest part of it that exists. Keys are located at the key, list elements
/// at the element. `None` when the text is no YAML.
pub(crate) fn locate(text: &str, path: &ConfigPath) -> Option<Position> {
    let mut events = Events { parser: Parser::new_from_str(text) };
    let mut found = None;
    loop {
        match events.next()? {
            (Event::StreamStart | Event::DocumentStart(_), _) => {}
            (event, span) => {
                found = found.or(Some(position(&span)));
                follow(&mut events, &event, path.segments(), &mut found)?;
                return found;
            }
        }
    }
}

struct Events<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        self.parser.next_event()?.ok()
    }

    /// Reads on until the value that began with `first` is over.
    fn skip(&mut self, first: &Event<'_>) -> Option<()> {
        let mut depth = match first {
            Event::MappingStart(..) | Event::SequenceStart(..) => 1,
            _ => return Some(()),
        };
        while depth > 0 {
            match self.next()?.0 {
                Event::MappingStart(..) | Event::SequenceStart(..) => depth += 1,
                Event::MappingEnd | Event::SequenceEnd => depth -= 1,
                _ => {}
            }
        }
        Some(())
    }
}

/// Follows `path` into the value that begins with `first`.
fn follow(
    events: &mut Events<'_>,
    first: &Event<'_>,
    path: &[PathSegment],
    found: &mut Option<Position>,
) -> Option<()> {
    let Some((segment, rest)) = path.split_first() else { return Some(()) };
    match (first, segment) {
        (Event::MappingStart(..), PathSegment::Key(wanted)) => loop {
            let (key, span) = events.next()?;
            if matches!(key, Event::MappingEnd) {
                return Some(());
            }
            let is_wanted = matches!(&key, Event::Scalar(text, ..) if text.as_ref() == wanted);
            events.skip(&key)?;
            let (value, _) = events.next()?;
            if is_wanted {
                *found = Some(position(&span));
                return follow(events, &value, rest, found);
            }
            events.skip(&value)?;
        },
        (Event::SequenceStart(..), PathSegment::Index(wanted)) => {
            let mut index = 0;
            loop {
                let (value, span) = events.next()?;
                if matches!(value, Event::SequenceEnd) {
                    return Some(());
                }
                if index == *wanted {
                    *found = Some(position(&span));
                    return follow(events, &value, rest, found);
                }
                events.skip(&value)?;
                index += 1;
            }
        }
        // The text is of another shape than the path: the place found so far is the nearest.
        _ => Some(()),
    }
}

fn position(span: &Span) -> Position {
    Position { line: span.start.line(), column: span.start.col() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# a comment
global:
  scrape_interval: 15s
scrape_configs:
  - job_name: a
    static_configs:
      - targets: [x, y]
  - job_name: b
    relabel_configs: &anchor
      - {source_labels: [a], regex: '('}
";

    #[test]
    fn follows_keys_and_indices() {
        let root = ConfigPath::root();
        let jobs = root.key("scrape_configs");
        let cases = [
            (root.clone(), (2, 1)),
            (root.key("global").key("scrape_interval"), (3, 3)),
            (jobs.index(1), (8, 5)),
            (jobs.index(0).key("static_configs").index(0).key("targets").index(1), (7, 22)),
            (jobs.index(1).key("relabel_configs").index(0).key("regex"), (10, 30)),
            // What is not there is shown at what is nearest.
            (jobs.index(1).key("absent").key("deeper"), (8, 5)),
            (jobs.index(7), (4, 1)),
        ];
        for (path, (line, column)) in cases {
            assert_eq!(locate(TEXT, &path), Some(Position { line, column }), "{path}");
        }
        assert_eq!(locate("a: [", &root.key("a").index(3)), None);
    }
}
