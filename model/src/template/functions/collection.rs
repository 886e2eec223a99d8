//! Functions on lists, maps and query results.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Functions, count, count_min, text_arg};
use crate::template::run;
use crate::template::value::{Struct, Value, as_object, as_text, labels, list, safe_html, text, type_name};

/// How deep lists may hold lists; deeper ones would exhaust the stack when printed or dropped.
const NESTING_MAX: usize = 16;
/// How many elements of new members are looked at for that.
const NESTING_LOOKS_MAX: usize = 100_000;

const SAMPLE: &str = "*template.sample";

pub(super) fn add_prometheus(functions: Functions) -> Functions {
    functions
        .with("query", |args| {
            count("query", args, 1)?;
            let expr = text_arg(args, 0)?;
            let env = run::env();
            let query = env.query.as_ref().ok_or("no query engine here")?;
            let samples = query(expr, env.now)?;
            Ok(list(samples.iter().map(|(series, value)| {
                Struct::new(SAMPLE)
                    .field("Labels", "Labels", labels(series))
                    .field("Value", "Value", Value::Float(*value))
                    .into_value()
            })))
        })
        .with("first", |args| {
            count("first", args, 1)?;
            match samples(&args[0])? {
                [first, ..] => Ok(first.clone()),
                [] => Err("first() called on vector with no elements".to_owned()),
            }
        })
        .with("label", |args| {
            count("label", args, 2)?;
            let name = text_arg(args, 0)?;
            Ok(text(label(&args[1], name)?))
        })
        .with("value", |args| {
            count("value", args, 1)?;
            field(&args[0], "Value")
        })
        .with("strvalue", |args| {
            count("strvalue", args, 1)?;
            Ok(text(label(&args[0], "__value__")?))
        })
        .with("sortByLabel", |args| {
            count("sortByLabel", args, 2)?;
            let name = text_arg(args, 0)?;
            let mut keyed = Vec::new();
            for sample in samples(&args[1])? {
                keyed.push((label(sample, name)?, sample.clone()));
            }
            keyed.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(list(keyed.into_iter().map(|(_, sample)| sample)))
        })
        .with("args", |args| {
            let entries: BTreeMap<Arc<str>, Value> = args
                .iter()
                .enumerate()
                .map(|(index, arg)| (Arc::from(format!("arg{index}")), arg.clone()))
                .collect();
            check_nesting(args)?;
            Ok(Value::Map(Arc::new(entries)))
        })
        .with("tmpl", |args| {
            count("tmpl", args, 2)?;
            let name = text_arg(args, 0)?;
            let set = run::with(|run| run.template.set.clone()).ok_or("no template is running")?;
            set.execute(name, &args[1], &run::env()).map(safe_html).map_err(|error| error.to_string())
        })
}

pub(super) fn add_alertmanager(functions: Functions) -> Functions {
    functions
        .with("stringSlice", |args| {
            for index in 0..args.len() {
                text_arg(args, index)?;
            }
            Ok(list(args.iter().cloned()))
        })
        .with("list", |args| {
            check_nesting(args)?;
            Ok(list(args.iter().cloned()))
        })
        .with("append", |args| {
            count_min("append", args, 1)?;
            let Value::List(items) = &args[0] else {
                return Err(format!("first argument must be a list, got {}", type_name(&args[0])));
            };
            check_nesting(&args[1..])?;
            Ok(list(items.iter().chain(&args[1..]).cloned()))
        })
        .with("dict", |args| {
            if !args.len().is_multiple_of(2) {
                return Err("dict requires an even number of arguments".to_owned());
            }
            check_nesting(args)?;
            let mut entries = BTreeMap::new();
            for pair in args.chunks_exact(2) {
                let key = as_text(&pair[0]).ok_or("dict keys must be strings")?;
                entries.insert(Arc::from(key), pair[1].clone());
            }
            Ok(Value::Map(Arc::new(entries)))
        })
}

fn samples(value: &Value) -> Result<&[Value], String> {
    match value {
        Value::List(items) => Ok(items),
        other => {
            Err(format!("wrong type for value; expected template.queryResult; got {}", type_name(other)))
        }
    }
}

fn field(value: &Value, name: &str) -> Result<Value, String> {
    as_object(value)
        .filter(|object| object.type_name() == SAMPLE)
        .and_then(|object| object.field(name))
        .ok_or_else(|| format!("wrong type for value; expected *template.sample; got {}", type_name(value)))
}

fn label(sample: &Value, name: &str) -> Result<String, String> {
    match field(sample, "Labels")? {
        Value::Map(entries) => Ok(entries.get(name).and_then(as_text).unwrap_or_default().to_owned()),
        _ => Err("sample without labels".to_owned()),
    }
}

/// Refuses members that are nested too deeply. The list they go into was checked when it was made.
fn check_nesting(members: &[Value]) -> Result<(), String> {
    fn look(value: &Value, depth: usize, looks: &mut usize) -> bool {
        *looks += 1;
        if depth > NESTING_MAX || *looks > NESTING_LOOKS_MAX {
            return false;
        }
        match value {
            Value::List(items) => items.iter().all(|item| look(item, depth + 1, looks)),
            Value::Map(entries) => entries.values().all(|item| look(item, depth + 1, looks)),
            _ => true,
        }
    }
    let mut looks = 0;
    if members.iter().all(|member| look(member, 1, &mut looks)) {
        return Ok(());
    }
    Err("value is nested too deeply or too large".to_owned())
}
