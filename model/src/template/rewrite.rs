//! Checks a parse tree and turns it into one that `gotmpl` can run on our data.
//!
//! - `.A.B args`, `$x.A`, `(f).A` become calls of [`FIELD`], which finds fields and methods.
//! - Every call gets a first argument: its place, as Go would name it in an error (`NAME:LINE:COL: executing "NAME" at
//!   <TEXT>`).
//! - What is printed goes through [`PRINT`], what `if` and `with` decide on an object through its truth.
//! - Unknown functions and variables, and commands that cannot be run, are refused here as Go's parser does.
//!
//! `html` and `urlquery` get no place: the HTML escaper knows them by name and moves them about.

use std::fmt::Write as _;
use std::sync::Arc;

use gotmpl::parse::{
    ActionNode, BranchNode, CommandNode, Expr, ListNode, Node, Number, PipeNode, Pos, SmolStr,
};

use super::{Mode, TemplateError};
use crate::labels::Quoted;

/// Field and method access: place, receiver, names joined by points, arguments.
pub(super) const FIELD: &str = "_field";
/// The printer: place, value.
pub(super) const PRINT: &str = "_print";
/// What `if` and `with` decide on: place, value. Sees through objects that are a number.
pub(super) const TRUTH: &str = "_truth";
/// What `range` goes over: place, value. Refuses what cannot be gone over.
pub(super) const RANGE: &str = "_range";
/// Whether a template exists: place, name. Comes before each `template` action, which knows no place.
pub(super) const EXISTS: &str = "_exists";
/// Functions that the HTML escaper treats by name.
pub(super) const ESCAPERS: [&str; 2] = ["html", "urlquery"];

pub(super) struct Rewriter<'a> {
    /// Name of the source, for errors.
    pub source_name: &'a str,
    /// The source, for columns.
    pub source: &'a str,
    /// Name of the template that is being rewritten.
    pub template_name: &'a str,
    /// Whether a function exists.
    pub knows: &'a dyn Fn(&str) -> bool,
    pub mode: Mode,
    /// Variables in scope; `$` always is.
    pub variables: Vec<SmolStr>,
}

type Checked = Result<(), TemplateError>;

impl Rewriter<'_> {
    pub(super) fn list(&mut self, list: &mut ListNode) -> Checked {
        let scope = self.variables.len();
        for node in &mut list.nodes {
            self.node(node)?;
        }
        self.variables.truncate(scope);
        Ok(())
    }

    fn node(&mut self, node: &mut Node) -> Checked {
        match node {
            Node::Text(_) | Node::Break(_) | Node::Continue(_) | Node::Define(_) => Ok(()),
            Node::List(list) => self.list(list),
            Node::Action(action) => {
                let place = self.place(action.pos, &pipe_text(&action.pipe));
                self.pipe(&mut action.pipe, true)?;
                if action.pipe.decl.is_empty() {
                    self.print(&mut action.pipe, place);
                }
                Ok(())
            }
            Node::If(branch) | Node::With(branch) => self.branch(branch, false),
            Node::Range(branch) => self.branch(branch, true),
            Node::Template(call) => {
                let mut call = call.clone();
                let pos = call.pos;
                let argument =
                    call.pipe.as_ref().map_or_else(String::new, |pipe| format!(" {}", pipe_text(pipe)));
                if let Some(pipe) = &mut call.pipe {
                    self.pipe(pipe, true)?;
                }
                let place = self.place(
                    self.name_of_call(pos),
                    &format!("{{{{template {}{argument}}}}}", Quoted(&call.name)),
                );
                let name = Expr::String(pos, Arc::from(call.name.as_str()));
                let args = vec![Expr::Identifier(pos, SmolStr::new_static(EXISTS)), place, name];
                // A declaration prints nothing, and the HTML escaper leaves it alone.
                let pipe = PipeNode {
                    pos,
                    decl: vec![SmolStr::new_static("$_exists")],
                    commands: vec![CommandNode { pos, args }],
                    is_assign: false,
                };
                let check = Node::Action(ActionNode { pos, pipe });
                *node = Node::List(ListNode { pos, nodes: vec![check, Node::Template(call)] });
                Ok(())
            }
        }
    }

    fn branch(&mut self, branch: &mut BranchNode, is_range: bool) -> Checked {
        let scope = self.variables.len();
        let declared = branch.pipe.decl.clone();
        let assigns = branch.pipe.is_assign;
        let place = self.place(branch.pipe.pos, &pipe_text(&branch.pipe));
        // In `range` the variables exist only in the body.
        self.pipe(&mut branch.pipe, !is_range)?;
        if is_range || declared.is_empty() {
            append(&mut branch.pipe, if is_range { RANGE } else { TRUTH }, place);
        }
        if is_range && !assigns {
            self.variables.extend(declared);
        } else if is_range {
            for name in &declared {
                self.variable(name, branch.pos)?;
            }
        }
        self.list(&mut branch.body)?;
        self.variables.truncate(scope);
        if !is_range && !assigns {
            self.variables.extend(branch.pipe.decl.iter().cloned());
        }
        if let Some(other) = &mut branch.else_body {
            self.list(other)?;
        }
        self.variables.truncate(scope);
        Ok(())
    }

    fn print(&self, pipe: &mut PipeNode, place: Expr) {
        let last = pipe.commands.last().and_then(|command| command.args.first());
        if let Some(Expr::Identifier(_, name)) = last
            && self.mode == Mode::Html
            && ESCAPERS.contains(&name.as_str())
        {
            return;
        }
        append(pipe, PRINT, place);
    }

    fn pipe(&mut self, pipe: &mut PipeNode, declares: bool) -> Checked {
        for (index, command) in pipe.commands.iter_mut().enumerate() {
            self.command(command, index)?;
        }
        if pipe.is_assign {
            for name in &pipe.decl {
                self.variable(name, pipe.pos)?;
            }
        } else if declares {
            self.variables.extend(pipe.decl.iter().cloned());
        }
        Ok(())
    }

    fn command(&mut self, command: &mut CommandNode, stage: usize) -> Checked {
        if stage > 0
            && matches!(
                command.args[0],
                Expr::Bool(..) | Expr::Dot(_) | Expr::Nil(_) | Expr::Number(..) | Expr::String(..)
            )
        {
            let message = format!("non executable command in pipeline stage {}", stage + 1);
            return Err(self.refuse(command.pos, message));
        }
        let text = command_text(command);
        let takes_arguments = command.args.len() > 1 || stage > 0;
        let mut rest = command.args.split_off(1);
        for arg in &mut rest {
            self.argument(arg)?;
        }
        let first = command.args.pop().expect("a command has at least one word");
        let pos = command.pos;
        command.args = match first {
            Expr::Identifier(at, name) => {
                self.function(&name, at)?;
                self.call_words(Expr::Identifier(at, name), pos, &text)
            }
            Expr::Chain(at, inner, fields) if matches!(*inner, Expr::Identifier(..)) && takes_arguments => {
                // `f.Field args` is a method call on the result of f.
                let receiver = self.value(*inner)?;
                self.field_words(at, receiver, &fields, &text)
            }
            Expr::Field(at, fields) => self.field_words(at, Expr::Dot(at), &fields, &text),
            Expr::Variable(at, name, fields) if !fields.is_empty() => {
                self.variable(&name, at)?;
                self.field_words(at, Expr::Variable(at, name, Vec::new()), &fields, &text)
            }
            Expr::Chain(at, inner, fields) => {
                let receiver = self.value(*inner)?;
                self.field_words(at, receiver, &fields, &text)
            }
            other => vec![self.value(other)?],
        };
        if matches!(&command.args[..], [Expr::Identifier(_, name)] if matches!(name.as_str(), "and" | "or")) {
            // The engine decides on each argument itself: let it see through objects.
            rest = rest
                .into_iter()
                .map(|arg| {
                    let at = arg.pos();
                    let place = self.place(at, &expr_text(&arg));
                    call(at, vec![Expr::Identifier(at, SmolStr::new_static(TRUTH)), place, arg])
                })
                .collect();
        }
        command.args.extend(rest);
        Ok(())
    }

    /// A word that is an argument.
    fn argument(&mut self, arg: &mut Expr) -> Checked {
        let pos = arg.pos();
        let taken = std::mem::replace(arg, Expr::Nil(pos));
        *arg = self.value(taken)?;
        Ok(())
    }

    /// A word that stands for its value.
    fn value(&mut self, expr: Expr) -> Result<Expr, TemplateError> {
        let text = expr_text(&expr);
        Ok(match expr {
            Expr::Identifier(at, name) => {
                self.function(&name, at)?;
                call(at, self.call_words(Expr::Identifier(at, name), at, &text))
            }
            Expr::Field(at, fields) => call(at, self.field_words(at, Expr::Dot(at), &fields, &text)),
            Expr::Variable(at, name, fields) => {
                self.variable(&name, at)?;
                let variable = Expr::Variable(at, name, Vec::new());
                if fields.is_empty() {
                    variable
                } else {
                    call(at, self.field_words(at, variable, &fields, &text))
                }
            }
            Expr::Chain(at, inner, fields) => {
                let receiver = self.value(*inner)?;
                call(at, self.field_words(at, receiver, &fields, &text))
            }
            Expr::Pipe(at, mut pipe) => {
                self.pipe(&mut pipe, true)?;
                Expr::Pipe(at, pipe)
            }
            other => other,
        })
    }

    fn call_words(&self, function: Expr, pos: Pos, text: &str) -> Vec<Expr> {
        let placeless = matches!(&function, Expr::Identifier(_, name)
            if ESCAPERS.contains(&name.as_str()) || matches!(name.as_str(), "and" | "or"));
        if placeless { vec![function] } else { vec![function, self.place(pos, text)] }
    }

    fn field_words(&self, at: Pos, receiver: Expr, fields: &[SmolStr], text: &str) -> Vec<Expr> {
        // Go places a chain of fields at its second link.
        let offset = match &receiver {
            Expr::Dot(_) if fields.len() > 1 => fields[0].len() + 1,
            Expr::Variable(_, name, _) => name.len(),
            _ => 0,
        };
        let place = self.place(Pos { offset: at.offset + offset, ..at }, text);
        let names: Arc<str> = fields.join(".").into();
        vec![Expr::Identifier(at, SmolStr::new_static(FIELD)), place, receiver, Expr::String(at, names)]
    }

    fn place(&self, pos: Pos, text: &str) -> Expr {
        let before = self.source.get(..pos.offset).unwrap_or(self.source);
        let line = 1 + before.matches('\n').count();
        let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1);
        let place = format!(
            "template: {}:{line}:{column}: executing {} at <{text}>",
            self.source_name,
            Quoted(self.template_name)
        );
        Expr::String(pos, place.into())
    }

    /// Go places a `template` action at its name.
    fn name_of_call(&self, keyword: Pos) -> Pos {
        let after = self.source.get(keyword.offset..).unwrap_or_default();
        let to_name = after.find(['"', '`']).unwrap_or(0);
        Pos { offset: keyword.offset + to_name, ..keyword }
    }

    fn function(&self, name: &str, pos: Pos) -> Checked {
        if (self.knows)(name) {
            return Ok(());
        }
        Err(self.refuse(pos, format!("function {} not defined", Quoted(name))))
    }

    fn variable(&self, name: &SmolStr, pos: Pos) -> Checked {
        if name == "$" || self.variables.contains(name) {
            return Ok(());
        }
        Err(self.refuse(pos, format!("undefined variable {}", Quoted(name))))
    }

    fn refuse(&self, pos: Pos, message: String) -> TemplateError {
        TemplateError::parse(self.source_name, pos.line, message)
    }
}

/// Pipes the value on into `function`.
fn append(pipe: &mut PipeNode, function: &'static str, place: Expr) {
    let pos = pipe.pos;
    pipe.commands
        .push(CommandNode { pos, args: vec![Expr::Identifier(pos, SmolStr::new_static(function)), place] });
}

fn call(at: Pos, args: Vec<Expr>) -> Expr {
    let command = CommandNode { pos: at, args };
    Expr::Pipe(at, PipeNode { pos: at, decl: Vec::new(), commands: vec![command], is_assign: false })
}

fn pipe_text(pipe: &PipeNode) -> String {
    let mut out = String::new();
    if !pipe.decl.is_empty() {
        out.push_str(&pipe.decl.join(", "));
        out.push_str(if pipe.is_assign { " = " } else { " := " });
    }
    out.push_str(&pipe.commands.iter().map(command_text).collect::<Vec<_>>().join(" | "));
    out
}

fn command_text(command: &CommandNode) -> String {
    command.args.iter().map(expr_text).collect::<Vec<_>>().join(" ")
}

fn expr_text(expr: &Expr) -> String {
    let chain = |head: String, fields: &[SmolStr]| fields.iter().fold(head, |text, field| text + "." + field);
    match expr {
        Expr::Dot(_) => ".".to_owned(),
        Expr::Field(_, fields) => chain(String::new(), fields),
        Expr::Variable(_, name, fields) => chain(name.to_string(), fields),
        Expr::Identifier(_, name) => name.to_string(),
        Expr::String(_, text) => Quoted(text).to_string(),
        Expr::Number(_, Number::Int(n)) => n.to_string(),
        Expr::Number(_, Number::Uint(n)) => n.to_string(),
        Expr::Number(_, Number::Float(v)) => {
            let mut out = String::new();
            write!(out, "{v}").expect("writing to a string cannot fail");
            out
        }
        Expr::Bool(_, value) => value.to_string(),
        Expr::Nil(_) => "nil".to_owned(),
        Expr::Pipe(_, pipe) => format!("({})", pipe_text(pipe)),
        Expr::Chain(_, inner, fields) => chain(expr_text(inner), fields),
    }
}
