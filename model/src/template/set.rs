//! Sets of named templates, compiled templates, and running them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use gotmpl::parse::{ListNode, Parser};

use super::rewrite::Rewriter;
use super::{Env, ErrorKind, Functions, Limits, Mode, TemplateError, Value, run, scan};
use crate::labels::Quoted;

/// The name of the text itself within a compiled template; no `{{ define }}` of a file can have it by accident.
const MAIN: &str = "\u{0}main";

/// Most bytes of one source: larger ones are refused unparsed.
const SOURCE_BYTES_MAX: usize = 4 << 20;

/// Named templates of one mode, with their functions. Cloning is cheap.
#[derive(Clone)]
pub struct TemplateSet {
    mode: Mode,
    functions: Arc<gotmpl::FuncMap>,
    trees: BTreeMap<String, Arc<ListNode>>,
    limits: Limits,
}

impl TemplateSet {
    /// A set without templates.
    pub fn new(mode: Mode, functions: &Functions) -> Self {
        Self { mode, functions: functions.table(), trees: BTreeMap::new(), limits: Limits::default() }
    }

    /// The same with other bounds.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Adds what `source` defines, and the text outside of definitions as template `name`. A definition replaces an
    /// earlier one of its name, unless it is empty. Nothing is added when there is an error.
    ///
    /// # Errors
    /// [`ErrorKind::Parse`] when `source` is malformed.
    pub fn add(&mut self, name: &str, source: &str) -> Result<(), TemplateError> {
        let trees = self.parse(name, name, source)?;
        self.merge(trees);
        Ok(())
    }

    /// Names of all templates, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.trees.keys().map(String::as_str)
    }

    /// Whether template `name` exists.
    pub fn has(&self, name: &str) -> bool {
        self.trees.contains_key(name)
    }

    /// Compiles `text`, which may use (and for itself redefine) the templates of the set. `name` is for error texts.
    ///
    /// # Errors
    /// [`ErrorKind::Parse`] when `text` is malformed.
    pub fn compile(&self, name: &str, text: &str) -> Result<Template, TemplateError> {
        if self.mode == Mode::Text && !text.contains("{{") {
            return Ok(Template { kind: Kind::Plain(Arc::from(text)) });
        }
        let trees = self.parse(name, MAIN, text)?;
        let mut all = self.clone();
        all.merge(trees);
        // An empty text was left out as an empty definition.
        all.trees.entry(MAIN.to_owned()).or_insert_with(|| Arc::new(empty()));
        Ok(Template { kind: Kind::Compiled(Arc::new(all.build(name, MAIN))) })
    }

    /// Runs `text` once.
    ///
    /// # Errors
    /// When it is malformed or fails.
    pub fn expand(&self, text: &str, data: &Value, env: &Env) -> Result<String, TemplateError> {
        self.compile("", text)?.execute(data, env)
    }

    /// Runs template `name` of the set.
    ///
    /// # Errors
    /// When there is no such template, or it fails.
    pub fn execute(&self, name: &str, data: &Value, env: &Env) -> Result<String, TemplateError> {
        if !self.has(name) {
            return Err(TemplateError::execute(format!("template: no template {} associated", Quoted(name))));
        }
        Template { kind: Kind::Compiled(Arc::new(self.build(name, name))) }.execute(data, env)
    }

    fn merge(&mut self, trees: Vec<(String, ListNode)>) {
        for (name, tree) in trees {
            if tree.is_empty_tree() && self.trees.contains_key(&name) {
                continue;
            }
            self.trees.insert(name, Arc::new(tree));
        }
    }

    /// Parses, checks and rewrites `source`: the text itself (as `main_name`, when not empty) and its definitions.
    fn parse(
        &self,
        source_name: &str,
        main_name: &str,
        source: &str,
    ) -> Result<Vec<(String, ListNode)>, TemplateError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(TemplateError::parse(
                source_name,
                1,
                format!("template exceeds {SOURCE_BYTES_MAX} bytes"),
            ));
        }
        scan::check(source_name, source)?;
        let refuse = |error: &gotmpl::TemplateError| parse_error(source_name, error);
        let parser =
            Parser::with_name(Some(source_name), source, "{{", "}}").map_err(|error| refuse(&error))?;
        let (main, definitions) = parser.parse().map_err(|error| refuse(&error))?;
        let mut seen = BTreeSet::new();
        let mut trees = Vec::with_capacity(definitions.len() + 1);
        if !main.is_empty_tree() || (main_name == MAIN && !main.nodes.is_empty()) {
            trees.push((main_name.to_owned(), main));
        }
        for definition in definitions {
            let name = definition.name.to_string();
            if !definition.body.is_empty_tree() && !seen.insert(name.clone()) {
                let message = format!("multiple definition of template {}", Quoted(&name));
                return Err(TemplateError::parse(source_name, definition.pos.line, message));
            }
            trees.push((name, definition.body));
        }
        for (name, tree) in &mut trees {
            let mut rewriter = Rewriter {
                source_name,
                source,
                template_name: if name == MAIN { source_name } else { name },
                knows: &|function| self.functions.contains_key(function) || matches!(function, "and" | "or"),
                mode: self.mode,
                variables: Vec::new(),
            };
            rewriter.list(tree)?;
        }
        Ok(trees)
    }

    fn build(&self, source_name: &str, entry: &str) -> Compiled {
        // The entry is a template call, so that the HTML escaper reports what is wrong with the text instead of
        // leaving it out.
        let call = format!("{{{{ template {} . }}}}", Quoted(entry));
        let invariant = "a template call is well-formed";
        let engine = match self.mode {
            Mode::Text => {
                let template = gotmpl::Template::new("")
                    .max_range_iters(self.limits.iterations)
                    .funcs((*self.functions).clone())
                    .parse(&call)
                    .expect(invariant);
                let add = |template: gotmpl::Template, (name, tree): (&String, &Arc<ListNode>)| {
                    template.add_parse_tree(name, (**tree).clone())
                };
                Engine::Text(self.trees.iter().fold(template, add))
            }
            Mode::Html => {
                let template = gotmpl::html::Template::new("")
                    .max_range_iters(self.limits.iterations)
                    .funcs((*self.functions).clone())
                    .parse(&call)
                    .expect(invariant);
                let add = |template: gotmpl::html::Template, (name, tree): (&String, &Arc<ListNode>)| {
                    template.add_parse_tree(name, (**tree).clone()).expect("nothing was executed yet")
                };
                Engine::Html(self.trees.iter().fold(template, add))
            }
        };
        Compiled { name: source_name.to_owned(), engine, set: self.clone() }
    }
}

impl fmt::Debug for TemplateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TemplateSet")
            .field("mode", &self.mode)
            .field("names", &self.names().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// A text that was checked and can be run many times, from many threads. Cloning is cheap.
#[derive(Clone)]
pub struct Template {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// Without any action.
    Plain(Arc<str>),
    Compiled(Arc<Compiled>),
}

enum Engine {
    Text(gotmpl::Template),
    Html(gotmpl::html::Template),
}

pub(super) struct Compiled {
    name: String,
    engine: Engine,
    /// What it was built of, for `tmpl`.
    pub(super) set: TemplateSet,
}

impl Template {
    /// Runs the template with `data` as dot.
    ///
    /// # Errors
    /// [`ErrorKind::Execute`] when a function fails, a field does not exist, or a bound is reached.
    pub fn execute(&self, data: &Value, env: &Env) -> Result<String, TemplateError> {
        let compiled = match &self.kind {
            Kind::Plain(text) => return Ok(text.to_string()),
            Kind::Compiled(compiled) => compiled,
        };
        let limits = compiled.set.limits;
        let mut out = Bounded { text: String::new(), bytes_max: limits.output_bytes };
        let guard = run::begin(env.clone(), limits, Arc::clone(compiled));
        let result = match &compiled.engine {
            Engine::Text(template) => template.execute_fmt(&mut out, data),
            Engine::Html(template) => template.execute_fmt(&mut out, data),
        };
        drop(guard);
        match result {
            Ok(()) => Ok(out.text),
            Err(error) => Err(execute_error(&compiled.name, &error, limits)),
        }
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Plain(text) => write!(f, "Template({text:?})"),
            Kind::Compiled(compiled) => write!(f, "Template({:?})", compiled.name),
        }
    }
}

struct Bounded {
    text: String,
    bytes_max: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.text.len() + text.len() > self.bytes_max {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

fn empty() -> ListNode {
    ListNode { pos: gotmpl::parse::Pos::new(0, 1), nodes: Vec::new() }
}

fn parse_error(source_name: &str, error: &gotmpl::TemplateError) -> TemplateError {
    match error {
        gotmpl::TemplateError::Parse { line, message, .. }
        | gotmpl::TemplateError::Lex { line, message, .. } => {
            TemplateError::parse(source_name, (*line).max(1), go_words(message))
        }
        other => TemplateError::parse(source_name, 1, other),
    }
}

/// Go's words for the parser's frequent complaints.
fn go_words(message: &str) -> &str {
    match message {
        "unterminated string" => "unterminated quoted string",
        "empty command" => "missing value for command",
        message if message.starts_with("expected RightParen") => "unclosed left paren",
        message if message.starts_with("expected closing delimiter, got RightParen") => {
            "unexpected right paren"
        }
        message => message,
    }
}

fn execute_error(name: &str, error: &gotmpl::TemplateError, limits: Limits) -> TemplateError {
    use gotmpl::TemplateError as Gotmpl;
    let message = match error {
        // Ours, with its place.
        Gotmpl::Exec(message) if message.starts_with("template: ") => message.clone(),
        Gotmpl::Exec(message) => format!("template: {name}: {message}"),
        Gotmpl::UndefinedTemplate(missing) => {
            format!("template: {name}: template {} not defined", Quoted(missing))
        }
        Gotmpl::RecursionLimit => format!("template: {name}: exceeded maximum template depth"),
        Gotmpl::RangeIterLimit => {
            format!("template: {name}: more than {} rounds of range", limits.iterations)
        }
        Gotmpl::Write => format!("template: {name}: output exceeds {} bytes", limits.output_bytes),
        Gotmpl::Escape { .. } => error.to_string(),
        other => format!("template: {name}: {other}"),
    };
    TemplateError { kind: ErrorKind::Execute, message }
}
