//! Errors of configuration files as people want them: file, line, column, what is wrong, and what may be meant.

use std::fmt;
use std::path::{Path, PathBuf};

use model::ConfigError;

use super::position::{Position, locate};

/// How like a known key an unknown one must be to be taken for a slip: two of five letters may differ.
const SIMILARITY_MIN: f64 = 0.6;

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileError {
    /// The file.
    pub file: PathBuf,
    /// Where in it, if that is known.
    pub position: Option<Position>,
    /// What is wrong.
    pub message: String,
    /// The known key that is most like the unknown one.
    pub suggestion: Option<String>,
}

impl FileError {
    /// An error about the file as a whole.
    pub(crate) fn whole(file: &Path, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), position: None, message: message.into(), suggestion: None }
    }

    /// From the YAML reader.
    pub(crate) fn from_yaml(file: &Path, error: &serde_yaml::Error) -> Self {
        let position = error.location().map(|place| Position { line: place.line(), column: place.column() });
        let text = error.to_string();
        // The reader's own "at line 3 column 5" is ours to tell.
        let message = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]).to_owned();
        let suggestion = suggestion(&message);
        let message = without_values(shortened(message));
        Self { file: file.to_owned(), position, message, suggestion }
    }

    /// From the second stage.
    pub(crate) fn from_config(file: &Path, text: &str, error: &ConfigError) -> Self {
        Self {
            file: file.to_owned(),
            position: locate(text, &error.path),
            message: error.to_string(),
            suggestion: None,
        }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)?;
        match &self.suggestion {
            Some(key) => write!(f, "; did you mean `{key}`?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for FileError {}

/// The known key nearest to the unknown one that serde's message names.
fn suggestion(message: &str) -> Option<String> {
    let (unknown, expected) = unknown_field(message)?;
    expected
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|known| (strsim::normalized_damerau_levenshtein(unknown, known), known))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known.to_owned())
}

/// ``unknown field `x`, expected one of `a`, `b` `` → (`x`, the rest).
fn unknown_field(message: &str) -> Option<(&str, &str)> {
    let start = message.find("unknown field `")? + "unknown field `".len();
    let length = message[start..].find('`')?;
    Some((&message[start..start + length], &message[start + length + 1..]))
}

/// Leaves out the list of all known keys: it is long, and the nearest one is named.
fn shortened(message: String) -> String {
    match unknown_field(&message) {
        Some((unknown, rest)) => {
            let end = message.len() - rest.len();
            debug_assert!(message[..end].contains(unknown), "the unknown key stays in the message");
            message[..end].to_owned()
        }
        None => message,
    }
}

/// Leaves out what the reader found where it expected another type: it may be a password in the wrong place.
fn without_values(message: String) -> String {
    for kind in ["invalid type: ", "invalid value: "] {
        let Some(start) = message.find(kind).map(|at| at + kind.len()) else { continue };
        let Some(end) = message[start..].rfind(", expected ").map(|at| start + at) else { continue };
        let found = message[start..end].split([' ', '`', '"']).next().unwrap_or_default();
        return format!("{}{found}{}", &message[..start], &message[end..]);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Doc {
        #[expect(dead_code, reason = "only its name counts")]
        scrape_interval: Option<String>,
        #[expect(dead_code, reason = "only its name counts")]
        evaluation_interval: Option<String>,
    }

    #[test]
    fn unknown_keys_come_with_their_place_and_the_nearest_known_one() {
        let error = serde_yaml::from_str::<Doc>("# x\nscrape_intervall: 1s\n").unwrap_err();
        let error = FileError::from_yaml(Path::new("a.yml"), &error);
        assert_eq!(
            error.to_string(),
            "a.yml:2:1: unknown field `scrape_intervall`; did you mean `scrape_interval`?"
        );
        let error = serde_yaml::from_str::<Doc>("zzz: 1s\n").unwrap_err();
        assert_eq!(
            FileError::from_yaml(Path::new("a.yml"), &error).to_string(),
            "a.yml:1:1: unknown field `zzz`"
        );
    }

    #[test]
    fn values_in_the_wrong_place_are_not_quoted() {
        #[derive(Debug, serde::Deserialize)]
        struct Auth {
            #[expect(dead_code, reason = "only its type counts")]
            basic_auth: Doc,
        }
        for text in [
            "basic_auth: u:hunter2",
            "basic_auth: 'hunter2, expected x'",
            "basic_auth: {scrape_interval: [hunter2]}",
        ] {
            let error = serde_yaml::from_str::<Auth>(text).unwrap_err();
            let text = FileError::from_yaml(Path::new("a.yml"), &error).to_string();
            assert!(!text.contains("hunter2") && text.contains("expected"), "{text}");
        }
    }

    #[test]
    fn broken_yaml_has_a_place_too() {
        let error = serde_yaml::from_str::<Doc>("scrape_interval: 1s\n- x\n").unwrap_err();
        let text = FileError::from_yaml(Path::new("a.yml"), &error).to_string();
        assert!(text.starts_with("a.yml:2:1: "), "{text}");
        assert!(!text.contains("at line"), "{text}");
    }
}
