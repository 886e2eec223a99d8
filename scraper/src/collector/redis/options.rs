//! The `collector_options` of a Redis job.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::config::PromDuration;
use model::{ConfigError, ConfigPath, Secret};
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::collector::glob::Glob;
use crate::collector::queues::{QueueSettings, RawQueueSettings, RawSlo};

/// Keys looked at per collection when scanning, unless configured.
pub const SCAN_BUDGET_DEFAULT: u64 = 10_000;
/// An empty list is reported as 0 for so long after it was last seen with an element, unless configured.
pub const REMEMBER_EMPTY_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// Most databases of one target.
pub(crate) const DATABASES_MAX: usize = 64;

/// The options as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRedisOptions {
    /// ACL user; absent: the default user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// A file with the password, read at each connecting.
    pub password_file: Option<PathBuf>,
    /// Database numbers, or `all` that have keys; default `[0]`.
    pub db: Option<RawDatabases>,
    /// Names or patterns of streams.
    pub streams: Vec<String>,
    /// Lists that are queues: names or patterns, or entries with more about them.
    pub lists: Vec<RawList>,
    /// Patterns of names that are never looked at.
    pub exclude: Vec<String>,
    /// Patterns of names that always get series of their own.
    pub include: Vec<String>,
    /// Queues with series of their own, by ready messages.
    pub max_queues: Option<usize>,
    /// How long an empty list is reported as 0 after it was last seen.
    pub remember_empty: Option<PromDuration>,
    /// Patterns of dead-letter queues.
    pub dead_letter_patterns: Option<Vec<String>>,
    /// Objectives per queue.
    pub slo: Vec<RawSlo>,
    /// Looking for streams and lists by `SCAN`.
    pub scan: RawScan,
}

/// `scan`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawScan {
    /// Whether to scan at all; default: only if `streams` or `lists` hold patterns.
    pub enabled: Option<bool>,
    /// Keys looked at per collection; a larger keyspace is spread over several.
    pub budget: Option<u64>,
}

/// `db`.
#[derive(Clone, Debug)]
pub enum RawDatabases {
    /// `all`
    All,
    /// A list, or one number.
    List(Vec<u32>),
}

/// An entry of `lists`.
#[derive(Clone, Debug, Default)]
pub struct RawList {
    name: String,
    head: Option<String>,
    head_time: Option<String>,
}

/// The options, checked.
#[derive(Clone, Debug)]
pub(crate) struct RedisOptions {
    pub(crate) username: Option<String>,
    pub(crate) password: Password,
    pub(crate) databases: Databases,
    pub(crate) streams: Vec<Glob>,
    pub(crate) lists: Vec<ListPattern>,
    /// Keys looked at per collection; `None`: no scanning.
    pub(crate) scan_budget: Option<u64>,
    pub(crate) remember_empty: Duration,
    pub(crate) queues: QueueSettings,
}

/// Where the password is.
#[derive(Clone, Debug)]
pub(crate) enum Password {
    None,
    Inline(Secret),
    File(PathBuf),
}

/// Which databases are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Databases {
    All,
    These(Vec<u32>),
}

/// Which lists are queues, and how they are used.
#[derive(Clone, Debug)]
pub(crate) struct ListPattern {
    pub(crate) name: Glob,
    pub(crate) head: Head,
    /// The field of the JSON payload that tells when the element was enqueued.
    pub(crate) head_time: Option<String>,
}

/// The end of a list that consumers take from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Head {
    /// Not told: watch both.
    #[default]
    Auto,
    /// `LPOP`: index 0.
    Left,
    /// `RPOP`, `BRPOP`: index -1.
    Right,
}

impl RawRedisOptions {
    /// Checks the options that stand at `path`; relative files start from `dir`.
    pub(crate) fn build(self, path: &ConfigPath, dir: &Path) -> Result<RedisOptions, ConfigError> {
        let password = match (self.password, self.password_file) {
            (Some(_), Some(_)) => {
                let message = "at most one of password and password_file must be set";
                return Err(ConfigError::new(path, message));
            }
            (Some(password), None) => Password::Inline(password),
            (None, Some(file)) => Password::File(dir.join(file)),
            (None, None) if self.username.is_some() => {
                return Err(ConfigError::new(&path.key("username"), "needs password or password_file"));
            }
            (None, None) => Password::None,
        };
        let databases = match self.db {
            None => Databases::These(vec![0]),
            Some(RawDatabases::All) => Databases::All,
            Some(RawDatabases::List(mut numbers)) => {
                numbers.sort_unstable();
                numbers.dedup();
                if numbers.is_empty() || numbers.len() > DATABASES_MAX {
                    let message = format!("needs between 1 and {DATABASES_MAX} databases");
                    return Err(ConfigError::new(&path.key("db"), message));
                }
                Databases::These(numbers)
            }
        };
        let mut streams = crate::collector::queues::globs(&self.streams, &path.key("streams"))?;
        let mut lists = Vec::new();
        for (index, raw) in self.lists.into_iter().enumerate() {
            lists.push(raw.build(&path.key("lists").index(index))?);
        }
        let has_patterns = streams.iter().chain(lists.iter().map(|list| &list.name)).any(is_pattern);
        let enabled = self.scan.enabled.unwrap_or(has_patterns);
        if !enabled && has_patterns {
            let message = "must not be false while streams or lists hold patterns";
            return Err(ConfigError::new(&path.key("scan").key("enabled"), message));
        }
        if enabled && streams.is_empty() && lists.is_empty() {
            let any = Glob::new("*").expect("invariant: a star is a pattern");
            streams.push(any.clone());
            lists.push(ListPattern { name: any, head: Head::Auto, head_time: None });
        }
        let budget = self.scan.budget.unwrap_or(SCAN_BUDGET_DEFAULT);
        if budget == 0 {
            return Err(ConfigError::new(&path.key("scan").key("budget"), "must be at least 1"));
        }
        let queues = RawQueueSettings {
            include: self.include,
            exclude: self.exclude,
            max_queues: self.max_queues,
            dead_letter_patterns: self.dead_letter_patterns,
            slo: self.slo,
        };
        Ok(RedisOptions {
            username: self.username,
            password,
            databases,
            streams,
            lists,
            scan_budget: enabled.then_some(budget),
            remember_empty: self.remember_empty.map_or(REMEMBER_EMPTY_DEFAULT, Duration::from),
            queues: queues.build(path)?,
        })
    }
}

impl RawList {
    fn build(self, path: &ConfigPath) -> Result<ListPattern, ConfigError> {
        let name = Glob::new(&self.name).map_err(|message| ConfigError::new(&path.key("name"), message))?;
        let head = match self.head.as_deref() {
            None | Some("auto") => Head::Auto,
            Some("left") => Head::Left,
            Some("right") => Head::Right,
            Some(other) => {
                let message = format!("unknown end {other:?} (expected left, right or auto)");
                return Err(ConfigError::new(&path.key("head"), message));
            }
        };
        let head_time = match self.head_time.as_deref() {
            None => None,
            Some(text) => match text.strip_prefix("json:").filter(|field| !field.is_empty()) {
                Some(field) => Some(field.to_owned()),
                None => {
                    let message = format!("unknown source {text:?} (expected json:<field>)");
                    return Err(ConfigError::new(&path.key("head_time"), message));
                }
            },
        };
        if head_time.is_some() && head == Head::Auto {
            let message = "needs to know the end consumers take from: set head to left or right";
            return Err(ConfigError::new(&path.key("head_time"), message));
        }
        Ok(ListPattern { name, head, head_time })
    }
}

fn is_pattern(glob: &Glob) -> bool {
    glob.literal().is_none()
}

impl RedisOptions {
    /// How list `name` is used, if it is a queue at all. The first pattern that matches wins.
    pub(crate) fn list(&self, name: &str) -> Option<&ListPattern> {
        self.lists.iter().find(|list| list.name.matches(name))
    }

    /// Whether stream `name` is looked at.
    pub(crate) fn wants_stream(&self, name: &str) -> bool {
        self.streams.iter().any(|glob| glob.matches(name))
    }
}

impl<'de> Deserialize<'de> for RawDatabases {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DatabasesVisitor;
        impl<'de> Visitor<'de> for DatabasesVisitor {
            type Value = RawDatabases;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of database numbers, or all")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawDatabases, E> {
                match text {
                    "all" => Ok(RawDatabases::All),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<RawDatabases, E> {
                let number = u32::try_from(number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))?;
                Ok(RawDatabases::List(vec![number]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawDatabases, A::Error> {
                let mut numbers = Vec::new();
                while let Some(number) = seq.next_element()? {
                    numbers.push(number);
                }
                Ok(RawDatabases::List(numbers))
            }
        }
        deserializer.deserialize_any(DatabasesVisitor)
    }
}

impl<'de> Deserialize<'de> for RawList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = RawList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or pattern, or a map with name, head, head_time")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawList, E> {
                Ok(RawList { name: text.to_owned(), ..RawList::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawList, A::Error> {
                const FIELDS: &[&str] = &["name", "head", "head_time"];
                let mut list = RawList::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "name" => list.name = map.next_value()?,
                        "head" => list.head = map.next_value()?,
                        "head_time" => list.head_time = map.next_value()?,
                        unknown => {
                            let error = de::Error::unknown_field(unknown, FIELDS);
                            map.next_value::<IgnoredAny>()?;
                            return Err(error);
                        }
                    }
                }
                if list.name.is_empty() {
                    return Err(de::Error::missing_field("name"));
                }
                Ok(list)
            }
        }
        deserializer.deserialize_any(ListVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(yaml: &str) -> Result<RedisOptions, String> {
        let raw: RawRedisOptions = serde_yaml::from_str(yaml).map_err(|error| error.to_string())?;
        let path = ConfigPath::root().key("collector_options");
        raw.build(&path, Path::new("/etc/nilometer")).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_look_at_nothing_but_the_node() {
        let options = build("{}").unwrap();
        assert_eq!(options.databases, Databases::These(vec![0]));
        assert_eq!(options.scan_budget, None);
        assert!(options.streams.is_empty() && options.lists.is_empty());
        assert_eq!(options.remember_empty, REMEMBER_EMPTY_DEFAULT);
    }

    #[test]
    fn scanning_happens_when_asked_or_when_patterns_need_it() {
        let options = build("scan: {enabled: true, budget: 50}\ndb: all").unwrap();
        assert_eq!((options.scan_budget, options.databases.clone()), (Some(50), Databases::All));
        assert!(options.wants_stream("x") && options.list("y").is_some());
        let options = build("streams: ['orders:*']\nscan: {enabled: true}").unwrap();
        assert_eq!(options.scan_budget, Some(SCAN_BUDGET_DEFAULT));
        assert!(options.list("y").is_none(), "only what was named is looked for");
        assert_eq!(build("streams: [orders, mail]").unwrap().scan_budget, None);
        assert_eq!(build("lists: ['q:*']").unwrap().scan_budget, Some(SCAN_BUDGET_DEFAULT));
    }

    #[test]
    fn lists_may_say_how_they_are_used() {
        let options = build(
            "lists:\n- mail\n- {name: 'rq:*', head: left, head_time: 'json:at'}\nusername: mon\npassword_file: pw\ndb: [3, 1, 3]",
        )
        .unwrap();
        let list = options.list("rq:x").unwrap();
        assert_eq!((list.head, list.head_time.as_deref()), (Head::Left, Some("at")));
        assert_eq!(options.list("mail").unwrap().head, Head::Auto);
        assert_eq!(options.databases, Databases::These(vec![1, 3]));
        assert!(matches!(options.password, Password::File(file) if file == Path::new("/etc/nilometer/pw")));
    }

    #[test]
    fn mistakes_are_told_with_their_place_and_without_secrets() {
        for (yaml, expected) in [
            ("stream: [a]", "unknown field `stream`"),
            ("lists: [{nam: x}]", "unknown field `nam`"),
            ("lists: [{head: left}]", "missing field `name`"),
            ("lists: [{name: x, head: top}]", "collector_options.lists[0].head: unknown end \"top\""),
            (
                "lists: [{name: x, head_time: 'json:a'}]",
                "collector_options.lists[0].head_time: needs to know",
            ),
            ("lists: [{name: x, head: left, head_time: a}]", "lists[0].head_time: unknown source \"a\""),
            ("streams: ['a[']", "collector_options.streams[0]: pattern"),
            ("streams: ['a*']\nscan: {enabled: false}", "collector_options.scan.enabled: must not be false"),
            ("scan: {enabled: true, budget: 0}", "collector_options.scan.budget: must be at least 1"),
            ("scan: {enable: true}", "unknown field `enable`"),
            ("db: []", "collector_options.db: needs between 1 and 64"),
            ("db: some", "all"),
            ("db: [-1]", "db"),
            ("max_queues: 0", "collector_options.max_queues: must be between"),
            ("username: mon", "collector_options.username: needs password"),
            ("password: hunter2\npassword_file: x", "at most one of password and password_file"),
            ("slo: [{queue: a, lag: 3}]", "unknown field `lag`"),
        ] {
            let error = build(yaml).unwrap_err();
            assert!(error.contains(expected), "{yaml}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(!format!("{:?}", build("password: hunter2").unwrap()).contains("hunter2"));
    }
}
