//! Tree → JSON: the shapes of `/api/v1/parse_query`, which the query explorer of Prometheus' UI reads.
//!
//! Durations that are no plain literals count 0 there, as in Prometheus; their trees stand beside them (`rangeExpr`,
//! `stepExpr`, `offsetExpr`).

use model::Matcher;
use model::float;
use serde_json::{Map, Value, json};

use super::duration::literal_ms;
use super::print::{duration_operator, sign};
use crate::ast::{
    Aggregate, At, Binary, Call, DurationExpr, DurationKind, Expr, ExprKind, ExtendedRange, MatrixSelector,
    Subquery, TimeModifiers, VectorMatching, VectorSelector,
};

/// `expr` as the API shows it.
pub fn to_json(expr: &Expr) -> Value {
    match &expr.kind {
        ExprKind::Aggregate(aggregate) => aggregate_json(aggregate),
        ExprKind::Binary(binary) => binary_json(binary),
        ExprKind::Call(call) => call_json(call),
        ExprKind::Matrix(matrix) => matrix_json(matrix),
        ExprKind::Vector(vector) => Value::Object(vector_json(vector, "vectorSelector")),
        ExprKind::Subquery(subquery) => subquery_json(subquery),
        ExprKind::Number(number) => {
            json!({"type": "numberLiteral", "val": float::format_fixed(number.value)})
        }
        ExprKind::String(text) => json!({"type": "stringLiteral", "val": text}),
        ExprKind::Paren(inner) => node("parenExpr", [("expr", to_json(inner))]),
        ExprKind::Unary(unary) => {
            node("unaryExpr", [("op", Value::from(sign(unary))), ("expr", to_json(&unary.expr))])
        }
    }
}

/// An object of this type; the macro `json!` would copy the inner values by serialising them.
fn node<const N: usize>(kind: &str, fields: [(&str, Value); N]) -> Value {
    let mut object = Map::new();
    object.insert("type".to_owned(), kind.into());
    object.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(object)
}

fn aggregate_json(aggregate: &Aggregate) -> Value {
    node(
        "aggregation",
        [
            ("op", aggregate.op.as_str().into()),
            ("expr", to_json(&aggregate.expr)),
            ("param", aggregate.param.as_deref().map_or(Value::Null, to_json)),
            ("grouping", aggregate.grouping.clone().into()),
            ("without", aggregate.without.into()),
        ],
    )
}

fn binary_json(binary: &Binary) -> Value {
    node(
        "binaryExpr",
        [
            ("op", binary.op.as_str().into()),
            ("lhs", to_json(&binary.lhs)),
            ("rhs", to_json(&binary.rhs)),
            ("matching", binary.matching.as_ref().map_or(Value::Null, matching_json)),
            ("bool", binary.return_bool.into()),
        ],
    )
}

fn matching_json(matching: &VectorMatching) -> Value {
    json!({
        "card": matching.card.as_str(),
        "labels": matching.labels,
        "on": matching.on,
        "include": matching.include,
        "fillValues": {"lhs": matching.fill.lhs, "rhs": matching.fill.rhs},
    })
}

fn call_json(call: &Call) -> Value {
    let types: Vec<&str> = call.func.args.iter().map(|arg| arg.as_str()).collect();
    let func = json!({
        "name": call.func.name,
        "argTypes": types,
        "variadic": call.func.variadic,
        "returnType": call.func.returns.as_str(),
    });
    node("call", [("func", func), ("args", call.args.iter().map(to_json).collect())])
}

fn vector_json(vector: &VectorSelector, kind: &str) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("type".to_owned(), kind.into());
    object.insert("name".to_owned(), vector.name.as_deref().unwrap_or_default().into());
    object.insert("matchers".to_owned(), vector.matchers.iter().map(matcher_json).collect());
    object.insert("anchored".to_owned(), (vector.extended == Some(ExtendedRange::Anchored)).into());
    object.insert("smoothed".to_owned(), (vector.extended == Some(ExtendedRange::Smoothed)).into());
    put_time(&mut object, &vector.time);
    object
}

fn matrix_json(matrix: &MatrixSelector) -> Value {
    let mut object = vector_json(&matrix.vector, "matrixSelector");
    put_duration(&mut object, "range", Some(&matrix.range));
    Value::Object(object)
}

fn subquery_json(subquery: &Subquery) -> Value {
    let mut object = Map::new();
    object.insert("type".to_owned(), "subquery".into());
    object.insert("expr".to_owned(), to_json(&subquery.expr));
    put_duration(&mut object, "range", Some(&subquery.range));
    put_duration(&mut object, "step", subquery.step.as_ref());
    put_time(&mut object, &subquery.time);
    Value::Object(object)
}

fn put_time(object: &mut Map<String, Value>, time: &TimeModifiers) {
    put_duration(object, "offset", time.offset.as_ref());
    let (timestamp, bound) = match time.at {
        None => (Value::Null, Value::Null),
        Some(At::Time(ms)) => (ms.into(), Value::Null),
        Some(At::Start) => (Value::Null, "start".into()),
        Some(At::End) => (Value::Null, "end".into()),
    };
    object.insert("timestamp".to_owned(), timestamp);
    object.insert("startOrEnd".to_owned(), bound);
}

fn put_duration(object: &mut Map<String, Value>, name: &str, duration: Option<&DurationExpr>) {
    let literal = duration.and_then(DurationExpr::literal);
    object.insert(name.to_owned(), literal.map_or(0, literal_ms).into());
    let tree = match (duration, literal) {
        (Some(duration), None) => duration_json(duration, false),
        _ => Value::Null,
    };
    object.insert(format!("{name}Expr"), tree);
}

/// A duration expression; `wrapped`: within parentheses.
fn duration_json(duration: &DurationExpr, wrapped: bool) -> Value {
    let operation = |op: &str, lhs: Option<&DurationExpr>, rhs: Option<&DurationExpr>| {
        let operand =
            |operand: Option<&DurationExpr>| operand.map_or(Value::Null, |it| duration_json(it, false));
        node(
            "durationExpr",
            [("op", op.into()), ("lhs", operand(lhs)), ("rhs", operand(rhs)), ("wrapped", wrapped.into())],
        )
    };
    match &duration.kind {
        DurationKind::Literal { seconds, is_number } => node(
            "numberLiteral",
            [("val", float::format_fixed(*seconds).into()), ("duration", (!is_number).into())],
        ),
        DurationKind::Step => operation("step", None, None),
        DurationKind::Range => operation("range", None, None),
        DurationKind::MinOf(a, b) => operation("min_of", Some(a), Some(b)),
        DurationKind::MaxOf(a, b) => operation("max_of", Some(a), Some(b)),
        DurationKind::Binary(op, a, b) => operation(duration_operator(*op).trim(), Some(a), Some(b)),
        DurationKind::Negate(inner) => operation("-", None, Some(inner)),
        DurationKind::Plus(inner) => operation("+", None, Some(inner)),
        DurationKind::Paren(inner) => duration_json(inner, true),
    }
}

fn matcher_json(matcher: &Matcher) -> Value {
    json!({"name": matcher.name, "value": matcher.value, "type": matcher.op.as_str()})
}
