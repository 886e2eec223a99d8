//! Go's builtin template functions, on our values: with objects, and with Go's way of printing floats.
//!
//! `and` and `or` are missing: the engine runs them itself, since they leave out what need not be evaluated.

use std::cmp::Ordering;
use std::sync::Arc;

use super::functions::{count, count_min};
use super::value::{Value, absent_entry, as_object, as_text, contents, text, type_name};
use super::{Functions, format, run};
use crate::labels::Quoted;

pub(super) fn add(functions: Functions) -> Functions {
    functions
        .with("eq", |args| {
            count_min("eq", args, 2)?;
            for other in &args[1..] {
                if equal(&args[0], other)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        })
        .with("ne", |args| {
            count("ne", args, 2)?;
            Ok(Value::Bool(!equal(&args[0], &args[1])?))
        })
        .with("lt", |args| order("lt", args, |order| order == Some(Ordering::Less)))
        .with("le", |args| order("le", args, |order| matches!(order, Some(Ordering::Less | Ordering::Equal))))
        .with("gt", |args| order("gt", args, |order| order == Some(Ordering::Greater)))
        .with("ge", |args| {
            order("ge", args, |order| matches!(order, Some(Ordering::Greater | Ordering::Equal)))
        })
        .with("not", |args| {
            count("not", args, 1)?;
            Ok(Value::Bool(!truth(args)?.is_truthy()))
        })
        .with("print", |args| Ok(text(format::sprint(args))))
        .with("println", |args| {
            let words: Vec<String> = args.iter().map(format::value_text).collect();
            Ok(text(words.join(" ") + "\n"))
        })
        .with("printf", |args| {
            count_min("printf", args, 1)?;
            let Some(format) = as_text(&args[0]) else {
                return Err(format!("wrong type for value; expected string; got {}", type_name(&args[0])));
            };
            Ok(text(format::sprintf(format, &args[1..])))
        })
        .with("len", |args| {
            count("len", args, 1)?;
            let len = match &contents(&args[0]) {
                Value::List(items) => items.len(),
                Value::Map(entries) => entries.len(),
                other => as_text(other).ok_or_else(|| format!("len of type {}", type_name(other)))?.len(),
            };
            Ok(Value::Int(i64::try_from(len).unwrap_or(i64::MAX)))
        })
        .with("index", |args| {
            count_min("index", args, 1)?;
            args[1..].iter().try_fold(args[0].clone(), |value, key| index(&value, key))
        })
        .with("slice", slice)
        .with("call", |_| Err("call of a value that is no function".to_owned()))
        .with("html", |args| Ok(text(gotmpl::html_escape(&escaper_text(args)))))
        .with("js", |args| Ok(text(gotmpl::js_escape(&escaper_text(args)))))
        .with("urlquery", |args| Ok(text(gotmpl::url_encode(&escaper_text(args)))))
}

/// What an action prints. Values that HTML contexts treat by their type stay what they are.
pub(super) fn print_action(args: &[Value]) -> Result<Value, String> {
    let value = args.first().unwrap_or(&Value::Nil);
    Ok(match value {
        Value::Float(_) | Value::List(_) | Value::Map(_) | Value::Function(_) => {
            text(format::value_text(value))
        }
        other => other.clone(),
    })
}

/// What `if`, `with`, `and` and `or` decide on: objects that are a number are false when it is 0, those that are a list
/// or map when it is empty; the engine takes all objects for true.
pub(super) fn truth(args: &[Value]) -> Result<Value, String> {
    let value = args.first().unwrap_or(&Value::Nil);
    let Some(object) = as_object(value) else { return Ok(value.clone()) };
    Ok(match (object.integer(), object.contents()) {
        (Some(0), _) => Value::Bool(false),
        (None, Some(contents)) if !contents.is_truthy() => contents,
        _ => value.clone(),
    })
}

/// What `range` goes over.
pub(super) fn range(args: &[Value]) -> Result<Value, String> {
    let value = args.first().unwrap_or(&Value::Nil);
    match &contents(value) {
        value @ (Value::List(_) | Value::Map(_) | Value::Int(_) | Value::Uint(_) | Value::Nil) => {
            Ok(value.clone())
        }
        _ => Err(format!("range can't iterate over {}", format::value_text(value))),
    }
}

/// Refuses names of templates that do not exist.
pub(super) fn exists(args: &[Value]) -> Result<Value, String> {
    let name = args.first().and_then(as_text).unwrap_or_default();
    let exists = run::with(|run| run.template.set.has(name)).unwrap_or(true);
    if exists { Ok(Value::Nil) } else { Err(format!("template {} not defined", Quoted(name))) }
}

fn escaper_text(args: &[Value]) -> String {
    match args {
        [Value::Nil] => "<no value>".to_owned(),
        args => format::sprint(args),
    }
}

/// A number, when Go's type is a kind of integer.
fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        other => as_object(other)?.integer().map(i128::from),
    }
}

/// Whether Go's comparisons know the kind of `value`.
fn is_basic(value: &Value) -> bool {
    match value {
        Value::Nil | Value::List(_) | Value::Map(_) => false,
        Value::Function(_) => integer(value).is_some(),
        _ => true,
    }
}

fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    if let (Some(a), Some(b)) = (integer(a), integer(b)) {
        return Ok(a == b);
    }
    match (a, b) {
        (Value::Nil, Value::Nil) => Ok(true),
        (Value::Nil, _) | (_, Value::Nil) => Ok(false),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Float(a), Value::Float(b)) => Ok(a == b),
        (Value::List(_) | Value::Map(_), _) => {
            Err(format!("non-comparable type {}: {}", format::value_text(a), type_name(a)))
        }
        (_, Value::List(_) | Value::Map(_)) => {
            Err(format!("non-comparable type {}: {}", format::value_text(b), type_name(b)))
        }
        (Value::Function(_), Value::Function(_)) if type_name(a) == type_name(b) => {
            Ok(format::value_text(a) == format::value_text(b))
        }
        _ => match (as_text(a), as_text(b)) {
            (Some(a), Some(b)) => Ok(a == b),
            _ => Err(incompatible(a, b)),
        },
    }
}

fn incompatible(a: &Value, b: &Value) -> String {
    format!("incompatible types for comparison: {} and {}", type_name(a), type_name(b))
}

fn order(name: &str, args: &[Value], accept: fn(Option<Ordering>) -> bool) -> Result<Value, String> {
    count(name, args, 2)?;
    let (a, b) = (&args[0], &args[1]);
    if let (Some(a), Some(b)) = (integer(a), integer(b)) {
        return Ok(Value::Bool(accept(Some(a.cmp(&b)))));
    }
    let ordering = match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        _ => match (as_text(a), as_text(b)) {
            (Some(a), Some(b)) => Some(a.cmp(b)),
            _ if [a, b].iter().all(|value| is_basic(value)) && type_name(a) != type_name(b) => {
                return Err(incompatible(a, b));
            }
            _ => return Err("invalid type for comparison".to_owned()),
        },
    };
    Ok(Value::Bool(accept(ordering)))
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match &contents(value) {
        Value::Map(entries) => {
            let Some(key) = as_text(key) else {
                return Err(format!("value has type {}; should be string", type_name(key)));
            };
            Ok(entries.get(key).cloned().unwrap_or_else(|| absent_entry(entries)))
        }
        Value::List(items) => Ok(items[position(key, items.len())?].clone()),
        Value::Nil => Err("index of untyped nil".to_owned()),
        other => match as_text(other) {
            Some(text) => Ok(Value::Int(i64::from(text.as_bytes()[position(key, text.len())?]))),
            None => Err(format!("can't index item of type {}", type_name(other))),
        },
    }
}

fn position(key: &Value, len: usize) -> Result<usize, String> {
    let Some(at) = integer(key) else {
        return Err(format!("cannot index slice/array with type {}", type_name(key)));
    };
    usize::try_from(at).ok().filter(|at| *at < len).ok_or_else(|| format!("index out of range: {at}"))
}

fn slice(args: &[Value]) -> Result<Value, String> {
    count_min("slice", args, 1)?;
    if args.len() > 4 {
        return Err(format!("too many slice indexes: {}", args.len() - 1));
    }
    let whole = contents(&args[0]);
    let len = match &whole {
        Value::List(items) => items.len(),
        other => {
            as_text(other).ok_or_else(|| format!("can't slice item of type {}", type_name(other)))?.len()
        }
    };
    if args.len() == 4 && as_text(&whole).is_some() {
        return Err("cannot 3-index slice a string".to_owned());
    }
    let mut bounds = [0, len, len];
    for (bound, key) in bounds.iter_mut().zip(&args[1..]) {
        let Some(at) = integer(key) else {
            return Err(format!("cannot index slice/array with type {}", type_name(key)));
        };
        *bound = usize::try_from(at)
            .ok()
            .filter(|at| *at <= len)
            .ok_or_else(|| format!("index out of range: {at}"))?;
    }
    let [from, to, max] = bounds;
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    if to > max {
        return Err(format!("invalid slice index: {to} > {max}"));
    }
    match &whole {
        Value::List(items) => Ok(Value::List(Arc::from(&items[from..to]))),
        other => {
            let whole = as_text(other).unwrap_or_default();
            // Go cuts bytes; half a character is refused here.
            let part = whole.get(from..to).ok_or_else(|| "slice within a character".to_owned())?;
            Ok(text(part))
        }
    }
}
