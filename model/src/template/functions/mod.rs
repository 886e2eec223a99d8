//! Tables of functions and methods for templates.
//!
//! [`Functions::builtin`] has Go's own, [`prometheus`] and [`alertmanager`] add those of their namesakes. A function
//! gets its arguments (the piped one last) and answers with a value or the text of an error.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::rewrite::{ESCAPERS, FIELD, PRINT};
use super::value::{Value, absent_entry, as_object, as_text, type_name};
use super::{builtins, run};

mod collection;
mod number;
mod text;

pub(super) use text::url_query_escape;
mod time;

type FunctionPointer = fn(&[Value]) -> Result<Value, String>;
type Function = Arc<dyn Fn(&[Value]) -> Result<Value, String> + Send + Sync>;
type Method = Arc<dyn Fn(&Value, &[Value]) -> Option<Result<Value, String>> + Send + Sync>;

/// Functions by name, and methods of lists and maps by name.
#[derive(Clone)]
pub struct Functions {
    functions: BTreeMap<String, Function>,
    methods: BTreeMap<String, Method>,
}

impl Functions {
    /// Go's own: `and call eq ge gt html index js le len lt ne not or print printf println slice urlquery`.
    pub fn builtin() -> Self {
        builtins::add(Self { functions: BTreeMap::new(), methods: BTreeMap::new() })
    }

    /// Adds or replaces function `name`.
    #[must_use]
    pub fn with(
        mut self,
        name: &str,
        function: impl Fn(&[Value]) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        self.functions.insert(name.to_owned(), Arc::new(function));
        self
    }

    /// Adds or replaces method `name` of lists and maps: it gets the receiver and the arguments, and answers `None`
    /// when the receiver is not of its kind. Methods go before the entries of a map, as in Go. Objects have their own
    /// methods.
    #[must_use]
    pub fn with_method(
        mut self,
        name: &str,
        method: impl Fn(&Value, &[Value]) -> Option<Result<Value, String>> + Send + Sync + 'static,
    ) -> Self {
        self.methods.insert(name.to_owned(), Arc::new(method));
        self
    }

    /// Names of all functions, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }

    /// The functions as the engine calls them: with their place, a count, and a bound on their result.
    pub(super) fn table(&self) -> Arc<gotmpl::FuncMap> {
        let mut table = gotmpl::FuncMap::new();
        for (name, function) in &self.functions {
            let (function, called) = (Arc::clone(function), name.clone());
            let placed = !ESCAPERS.contains(&name.as_str());
            let entry = move |args: &[Value]| {
                let (place, args) = if placed { placed_args(args) } else { ("template: ", args) };
                let result = bounded(|| function(args));
                result.map_err(|error| {
                    // Go finds these before it calls.
                    let before_call = ["wrong number of args", "wrong type for value"];
                    if before_call.iter().any(|beginning| error.starts_with(beginning)) {
                        return fail(format!("{place}: {error}"));
                    }
                    fail(format!("{place}: error calling {called}: {error}"))
                })
            };
            table.insert(name.clone(), Arc::new(entry));
        }
        let methods = Arc::new(self.methods.clone());
        let field = move |args: &[Value]| {
            let (place, args) = placed_args(args);
            bounded(|| access(&methods, args)).map_err(|error| fail(format!("{place}: {error}")))
        };
        table.insert(FIELD.to_owned(), Arc::new(field));
        let internal: [(&str, FunctionPointer); 4] = [
            (PRINT, builtins::print_action),
            (super::rewrite::TRUTH, builtins::truth),
            (super::rewrite::RANGE, builtins::range),
            (super::rewrite::EXISTS, builtins::exists),
        ];
        for (name, function) in internal {
            let entry = move |args: &[Value]| {
                let (place, args) = placed_args(args);
                bounded(|| function(args)).map_err(|error| fail(format!("{place}: {error}")))
            };
            table.insert(name.to_owned(), Arc::new(entry));
        }
        Arc::new(table)
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// The functions of Prometheus' rules: Go's, and `query first label value sortByLabel strvalue humanize humanize1024
/// humanizeDuration humanizePercentage humanizeTimestamp toTime toDuration now title toUpper toLower stripPort
/// stripDomain match reReplaceAll graphLink tableLink parseDuration urlQueryEscape args tmpl safeHtml externalURL
/// pathPrefix`.
pub fn prometheus() -> Functions {
    let functions = Functions::builtin();
    let functions = text::add_prometheus(text::add_common(functions));
    let functions = number::add_prometheus(functions);
    let functions = time::add_prometheus(functions);
    collection::add_prometheus(functions)
}

/// The functions of Alertmanager's templates that need nothing of the Alertmanager itself: Go's, and `append
/// base64decode base64encode date dict humanizeDuration join list match mustToDate now reReplaceAll safeHtml safeUrl
/// since stringSlice title toDate toJson toLower toUpper trimSpace tz urlUnescape`.
pub fn alertmanager() -> Functions {
    let functions = Functions::builtin();
    let functions = text::add_alertmanager(text::add_common(functions));
    let functions = number::add_alertmanager(functions);
    let functions = time::add_alertmanager(functions);
    collection::add_alertmanager(functions)
}

fn fail(message: String) -> gotmpl::TemplateError {
    gotmpl::TemplateError::Exec(message)
}

fn placed_args(args: &[Value]) -> (&str, &[Value]) {
    match args.split_first() {
        Some((Value::String(place), rest)) => (place, rest),
        _ => ("template: ", args),
    }
}

fn bounded(call: impl FnOnce() -> Result<Value, String>) -> Result<Value, String> {
    if !run::step() {
        return Err("too many function calls".to_owned());
    }
    let value = call()?;
    let bytes_max = run::with(|run| run.limits.output_bytes).unwrap_or(usize::MAX);
    match as_text(&value) {
        Some(text) if text.len() > bytes_max => Err(format!("text exceeds {bytes_max} bytes")),
        _ => Ok(value),
    }
}

/// `receiver.a.b args`: `args` belong to the last name.
fn access(methods: &BTreeMap<String, Method>, args: &[Value]) -> Result<Value, String> {
    let [receiver, Value::String(names), args @ ..] = args else {
        return Err("field access without a receiver".to_owned());
    };
    let mut value = receiver.clone();
    let mut names = names.split('.').peekable();
    while let Some(name) = names.next() {
        let args = if names.peek().is_none() { args } else { &[] };
        value = access_one(methods, &value, name, args)?;
    }
    Ok(value)
}

fn access_one(
    methods: &BTreeMap<String, Method>,
    receiver: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, String> {
    let field = match receiver {
        Value::Function(_) => {
            let Some(object) = as_object(receiver) else { return Err("function has no fields".to_owned()) };
            if let Some(answer) = object.call(name, args) {
                return answer.map_err(|error| format!("error calling {name}: {error}"));
            }
            object.field(name)
        }
        Value::List(_) | Value::Map(_) => {
            if let Some(answer) = methods.get(name).and_then(|method| method(receiver, args)) {
                return answer.map_err(|error| format!("error calling {name}: {error}"));
            }
            match receiver {
                Value::Map(entries) => {
                    Some(entries.get(name).cloned().unwrap_or_else(|| absent_entry(entries)))
                }
                _ => None,
            }
        }
        Value::Nil => return Ok(Value::Nil),
        _ => None,
    };
    match field {
        Some(_) if !args.is_empty() => {
            let what = if matches!(receiver, Value::Map(_)) { "is not a method but" } else { "" };
            Err(format!("{name} {what} has arguments").replace("  ", " "))
        }
        Some(value) => Ok(value),
        None => Err(format!("can't evaluate field {name} in type {}", type_name(receiver))),
    }
}

/// Checks the number of arguments with Go's words.
pub(super) fn count(name: &str, args: &[Value], expected: usize) -> Result<(), String> {
    if args.len() == expected {
        return Ok(());
    }
    Err(format!("wrong number of args for {name}: want {expected} got {}", args.len()))
}

/// Checks the least number of arguments with Go's words.
pub(super) fn count_min(name: &str, args: &[Value], expected: usize) -> Result<(), String> {
    if args.len() >= expected {
        return Ok(());
    }
    Err(format!("wrong number of args for {name}: want at least {expected} got {}", args.len()))
}

/// The argument at `index` as a text, with Go's words when it is something else.
pub(super) fn text_arg(args: &[Value], index: usize) -> Result<&str, String> {
    match args.get(index) {
        Some(value) => as_text(value)
            .ok_or_else(|| format!("wrong type for value; expected string; got {}", type_name(value))),
        None => Err(format!("wrong number of args: want {} got {}", index + 1, args.len())),
    }
}
