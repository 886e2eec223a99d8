//! What templates work on: [`Value`]s, and objects with fields and methods behind them.
//!
//! Scalars, lists and maps are `gotmpl`'s own. Everything that Go would hand out as a struct, a time or a duration is
//! an [`Object`]: it travels through the engine inside of a function value (the only opaque kind that the engine has)
//! and is taken out again by [`as_object`]. Templates never see function values of any other origin.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

pub use gotmpl::{SafeKind, Value};

use super::format;
use crate::labels::Labels;

/// Something with fields or methods: a struct, a time, a duration.
pub trait Object: Send + Sync + 'static {
    /// Go's name of the type, for error texts (`template.Alert`).
    fn type_name(&self) -> &str;

    /// The field `name`, or `None` when there is no such field.
    fn field(&self, name: &str) -> Option<Value>;

    /// Calls method `name`; `None` when there is no such method.
    fn call(&self, _name: &str, _args: &[Value]) -> Option<Result<Value, String>> {
        None
    }

    /// What `{{ . }}` prints.
    fn print(&self) -> String;

    /// What `toJson` prints.
    fn json(&self) -> String;

    /// The number behind it when Go's type is a kind of integer (`time.Duration`).
    fn integer(&self) -> Option<i64> {
        None
    }

    /// The list or map behind it when Go's type is a kind of list or map (`template.Alerts`, `template.KV`): what `range`,
    /// `len`, `index` and `slice` work on, and what makes it false when it is empty.
    fn contents(&self) -> Option<Value> {
        None
    }

    /// For taking the concrete type out again: `self`.
    fn as_any(&self) -> &dyn Any;
}

thread_local! {
    /// Where an object's function value leaves the object for [`as_object`].
    static HANDED_OUT: RefCell<Option<Arc<dyn Object>>> = const { RefCell::new(None) };
}

/// Makes a value of `object`.
pub fn object(object: impl Object) -> Value {
    shared_object(Arc::new(object))
}

/// Makes a value of an object that is shared.
pub fn shared_object(object: Arc<dyn Object>) -> Value {
    Value::Function(Arc::new(move |_| {
        HANDED_OUT.with_borrow_mut(|slot| *slot = Some(Arc::clone(&object)));
        Ok(Value::Nil)
    }))
}

/// The object behind `value`, if it is one.
pub fn as_object(value: &Value) -> Option<Arc<dyn Object>> {
    let Value::Function(hand_out) = value else { return None };
    HANDED_OUT.with_borrow_mut(|slot| *slot = None);
    hand_out(&[]).ok()?;
    HANDED_OUT.with_borrow_mut(Option::take)
}

/// The list or map behind an object, or else the value itself.
pub(super) fn contents(value: &Value) -> Value {
    as_object(value).and_then(|object| object.contents()).unwrap_or_else(|| value.clone())
}

/// A text.
pub fn text(text: impl AsRef<str>) -> Value {
    Value::String(Arc::from(text.as_ref()))
}

/// A text that HTML templates do not escape (Go's `template.HTML`).
pub fn safe_html(text: impl AsRef<str>) -> Value {
    Value::Safe { kind: SafeKind::Html, s: Arc::from(text.as_ref()) }
}

/// A list.
pub fn list(items: impl IntoIterator<Item = Value>) -> Value {
    Value::List(items.into_iter().collect())
}

/// A map from texts to anything. Absent keys read as the empty string if the map has texts, else as nothing.
pub fn map<K: AsRef<str>>(entries: impl IntoIterator<Item = (K, Value)>) -> Value {
    let entries: BTreeMap<Arc<str>, Value> =
        entries.into_iter().map(|(key, value)| (Arc::from(key.as_ref()), value)).collect();
    Value::Map(Arc::new(entries))
}

/// What a key that is not there reads as: the zero value of Go's element type.
pub(super) fn absent_entry(entries: &BTreeMap<Arc<str>, Value>) -> Value {
    match entries.values().next() {
        None | Some(Value::String(_)) => text(""),
        Some(_) => Value::Nil,
    }
}

/// Labels as a map from names to values.
pub fn labels(labels: &Labels) -> Value {
    map(labels.iter().map(|(name, value)| (name, text(value))))
}

/// The text of a string or of trusted content.
pub fn as_text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) | Value::Safe { s: text, .. } => Some(text),
        _ => None,
    }
}

/// Go's name of the kind of `value`, for error texts.
pub fn type_name(value: &Value) -> String {
    match value {
        Value::Map(_) => "map[string]string".to_owned(),
        Value::List(_) => "[]interface {}".to_owned(),
        Value::Safe { .. } => "template.HTML".to_owned(),
        Value::Function(_) => {
            as_object(value).map_or_else(|| "func".to_owned(), |o| o.type_name().to_owned())
        }
        other => other.type_name().to_owned(),
    }
}

/// An [`Object`] with named fields, in Go's order: how Alertmanager's `Data` and `Alert`, `KV`'s `Pair`, and query
/// results are built.
///
/// ```
/// use model::template::{Struct, text};
/// let pair = Struct::new("template.Pair").field("Name", "name", text("job")).field("Value", "value", text("api"));
/// let value = pair.into_value();
/// ```
#[derive(Clone, Debug)]
pub struct Struct {
    type_name: &'static str,
    fields: Vec<(&'static str, &'static str, Value)>,
}

impl Struct {
    /// A struct without fields yet.
    pub fn new(type_name: &'static str) -> Self {
        Self { type_name, fields: Vec::new() }
    }

    /// Adds the field `name`, called `json_name` by `toJson` (empty: left out there).
    #[must_use]
    pub fn field(mut self, name: &'static str, json_name: &'static str, value: Value) -> Self {
        self.fields.push((name, json_name, value));
        self
    }

    /// The struct as a value.
    pub fn into_value(self) -> Value {
        object(self)
    }
}

impl Object for Struct {
    fn type_name(&self) -> &str {
        self.type_name
    }

    fn field(&self, name: &str) -> Option<Value> {
        self.fields.iter().find(|(field, ..)| *field == name).map(|(.., value)| value.clone())
    }

    fn print(&self) -> String {
        let mut out = String::from("{");
        for (index, (.., value)) in self.fields.iter().enumerate() {
            if index > 0 {
                out.push(' ');
            }
            format::write_value(&mut out, value);
        }
        out.push('}');
        out
    }

    fn json(&self) -> String {
        let mut out = String::from("{");
        for (_, json_name, value) in self.fields.iter().filter(|(_, json_name, _)| !json_name.is_empty()) {
            if out.len() > 1 {
                out.push(',');
            }
            format::write_json_text(&mut out, json_name);
            out.push(':');
            format::write_json(&mut out, value);
        }
        out.push('}');
        out
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_out_as_they_went_in() {
        let value = Struct::new("t.Pair").field("Name", "name", text("a")).into_value();
        let object = as_object(&value).unwrap();
        assert_eq!(object.type_name(), "t.Pair");
        assert_eq!(object.field("Name"), Some(text("a")));
        assert_eq!(object.field("name"), None);
        assert!(object.as_any().downcast_ref::<Struct>().is_some());
        assert!(as_object(&text("x")).is_none());
    }
}
