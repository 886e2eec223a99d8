//! The leaves of configuration files: secrets, durations, sizes, and errors that know their place.
//!
//! Configuration has two stages: as written (`Raw…` types, unknown fields refused, errors with line and column from
//! the YAML reader) and as valid (defaults filled, regexes compiled). An error of the second stage names the place by
//! a [`ConfigPath`]; the binary looks the path up in the file and adds line and column.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::duration;

/// What secrets look like in answers and logs.
pub const SECRET_MASK: &str = "<secret>";

/// A text that must not leave the process: prints as `<secret>` in every form.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Secret(String);

impl Secret {
    /// Takes over `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SECRET_MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SECRET_MASK)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SecretVisitor;
        impl Visitor<'_> for SecretVisitor {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::new(text))
            }
        }
        // An error of the reader would quote what it found.
        deserializer
            .deserialize_str(SecretVisitor)
            .map_err(|_| de::Error::custom("a secret must be a text: put it in quotes"))
    }
}

/// A duration in Prometheus' notation (`1m30s`), as YAML value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PromDuration(pub Duration);

impl PromDuration {
    /// From whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Milliseconds.
    pub fn as_millis(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for PromDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration::format(self.0))
    }
}

impl From<PromDuration> for Duration {
    fn from(value: PromDuration) -> Self {
        value.0
    }
}

impl<'de> Deserialize<'de> for PromDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DurationVisitor;
        impl Visitor<'_> for DurationVisitor {
            type Value = PromDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 30s or 1h30m")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PromDuration, E> {
                duration::parse(text).map(PromDuration).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<PromDuration, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(DurationVisitor)
    }
}

/// A size in bytes in Prometheus' notation (`10MB`, `512KiB`, `1GB`): powers of 1024 in either spelling; `0` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// Parses `text`.
    ///
    /// # Errors
    /// A message when `text` is no size.
    pub fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("not a valid size: {text:?} (expected a number with a unit such as 10MB)");
        let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, unit) = text.split_at(digits);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let exponent = match unit {
            "" if number == 0.0 => 0,
            "B" => 0,
            "KB" | "KiB" | "K" => 1,
            "MB" | "MiB" | "M" => 2,
            "GB" | "GiB" | "G" => 3,
            "TB" | "TiB" | "T" => 4,
            "PB" | "PiB" | "P" => 5,
            "EB" | "EiB" | "E" => 6,
            _ => return Err(invalid()),
        };
        let bytes = number * 1024f64.powi(exponent);
        if !(0.0..9.2e18).contains(&bytes) {
            return Err(invalid());
        }
        // In range by the check above.
        Ok(Self(bytes as u64))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 10MB")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                ByteSize::parse(text).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ByteSize, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(SizeVisitor)
    }
}

/// Where in a configuration file something is: keys and list indices from the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfigPath(Vec<PathSegment>);

/// One step of a [`ConfigPath`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathSegment {
    /// Into the value of a key.
    Key(String),
    /// Into an element of a list, counted from 0.
    Index(usize),
}

impl ConfigPath {
    /// The whole file.
    pub fn root() -> Self {
        Self::default()
    }

    /// One key deeper.
    pub fn key(&self, key: impl Into<String>) -> Self {
        let mut path = self.clone();
        path.0.push(PathSegment::Key(key.into()));
        path
    }

    /// One list element deeper.
    pub fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(PathSegment::Index(index));
        path
    }

    /// The steps from the root.
    pub fn segments(&self) -> &[PathSegment] {
        &self.0
    }
}

/// `scrape_configs[2].relabel_configs[0].regex`
impl fmt::Display for ConfigPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                PathSegment::Key(key) if position == 0 => f.write_str(key)?,
                PathSegment::Key(key) => write!(f, ".{key}")?,
                PathSegment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A mistake of the user in a configuration file that is well-formed YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The place.
    pub path: ConfigPath,
    /// What is wrong there: lower case, no full stop, no secret.
    pub message: String,
}

impl ConfigError {
    /// An error at `path`.
    pub fn new(path: &ConfigPath, message: impl Into<String>) -> Self {
        Self { path: path.clone(), message: message.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.segments().is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_print_as_mask() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "<secret> <secret> Some(<secret>)");
        assert_eq!(secret.expose(), "hunter2");
        for text in ["0123", "12345", "true", "1.50"] {
            assert_eq!(serde_yaml::from_str::<Secret>(text).unwrap().expose(), text);
        }
        let error = serde_yaml::from_value::<Secret>(serde_yaml::Value::from(12345)).unwrap_err();
        assert!(!error.to_string().contains("12345"), "{error}");
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(ByteSize::parse("10MB"), Ok(ByteSize(10 << 20)));
        assert_eq!(ByteSize::parse("1.5KiB"), Ok(ByteSize(1536)));
        assert_eq!(ByteSize::parse("0"), Ok(ByteSize(0)));
        for text in ["", "10", "MB", "-1MB", "10XB", "1e3B"] {
            assert!(ByteSize::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_from_yaml_keep_their_error() {
        #[derive(serde::Deserialize, Debug)]
        struct Doc {
            wait: PromDuration,
        }
        let doc: Doc = serde_yaml::from_str("wait: 1m30s").unwrap();
        assert_eq!(doc.wait.as_millis(), 90_000);
        let error = serde_yaml::from_str::<Doc>("a: 1\nwait: 5 minutes").unwrap_err();
        assert!(error.to_string().contains("not a valid duration"), "{error}");
        assert_eq!(error.location().map(|l| (l.line(), l.column())), Some((2, 7)));
    }

    #[test]
    fn paths_read_like_yaml() {
        let path = ConfigPath::root().key("scrape_configs").index(2).key("job_name");
        assert_eq!(ConfigError::new(&path, "is empty").to_string(), "scrape_configs[2].job_name: is empty");
    }
}
