//! Operators on two sides.

use std::collections::BTreeMap;

use model::Labels;
use model::histogram::CounterResetHint;
use query::ast::{Binary, BinaryOp, Cardinality, ValueType};
use query::parse::value_type;

use super::rates::equal;
use super::{Failure, Reference, Value, Vector, estimates, unique, without_name};

enum Operated {
    Number(f64),
    Holds(bool),
}

/// An operator on two scalars.
pub(super) fn of_numbers(op: BinaryOp, a: f64, b: f64) -> f64 {
    match operate(op, a, b) {
        Operated::Number(value) => value,
        Operated::Holds(holds) => f64::from(u8::from(holds)),
    }
}

fn operate(op: BinaryOp, a: f64, b: f64) -> Operated {
    match op {
        BinaryOp::Add => Operated::Number(a + b),
        BinaryOp::Sub => Operated::Number(a - b),
        BinaryOp::Mul => Operated::Number(a * b),
        BinaryOp::Div => Operated::Number(a / b),
        BinaryOp::Mod => Operated::Number(a % b),
        BinaryOp::Pow => Operated::Number(a.powf(b)),
        BinaryOp::Atan2 => Operated::Number(a.atan2(b)),
        BinaryOp::Eq => Operated::Holds(a == b),
        BinaryOp::NotEq => Operated::Holds(a != b),
        BinaryOp::Less => Operated::Holds(a < b),
        BinaryOp::LessEq => Operated::Holds(a <= b),
        BinaryOp::Greater => Operated::Holds(a > b),
        BinaryOp::GreaterEq => Operated::Holds(a >= b),
        op => panic!("not covered by the reference: {op}"),
    }
}

/// What becomes of a pair.
enum Outcome {
    /// A value; of a comparison that holds, the left one.
    Value(Value),
    /// A comparison that does not hold.
    Fails,
    /// These do not go together.
    Incompatible,
}

fn changes_meaning(op: BinaryOp) -> bool {
    use BinaryOp::{Add, Atan2, Div, Mod, Mul, Pow, Sub};
    matches!(op, Add | Sub | Mul | Div | Mod | Pow | Atan2)
}

impl Reference {
    fn pair(&self, op: BinaryOp, a: &Value, b: &Value, place: u32) -> Result<Outcome, Failure> {
        let holds = |holds: bool| if holds { Outcome::Value(a.clone()) } else { Outcome::Fails };
        let histogram = |h| Ok(Outcome::Value(Value::Histogram(h)));
        let is_trim = matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
        match (a, b) {
            (Value::Float(a), Value::Float(b)) if !is_trim => {
                return Ok(match operate(op, *a, *b) {
                    Operated::Number(v) => Outcome::Value(Value::Float(v)),
                    Operated::Holds(does) => holds(does),
                });
            }
            (Value::Float(factor), Value::Histogram(h)) | (Value::Histogram(h), Value::Float(factor))
                if op == BinaryOp::Mul =>
            {
                let mut out = h.clone();
                out.scale(*factor);
                return histogram(out.compact());
            }
            (Value::Histogram(h), Value::Float(divisor)) if op == BinaryOp::Div => {
                let mut out = h.clone();
                out.divide(*divisor);
                return histogram(out.compact());
            }
            // What is on this side of no number?
            (Value::Histogram(_), Value::Float(cut)) if is_trim && cut.is_nan() => {
                return Err(Failure::Unclear);
            }
            (Value::Histogram(h), Value::Float(cut)) if is_trim => {
                return histogram(estimates::trimmed(h, *cut, op == BinaryOp::TrimUpper));
            }
            (Value::Histogram(a), Value::Histogram(b)) if matches!(op, BinaryOp::Add | BinaryOp::Sub) => {
                let (sign, name) =
                    if op == BinaryOp::Add { (1.0, "addition") } else { (-1.0, "subtraction") };
                let mut out = a.clone();
                let Ok(found) = out.add(b, sign) else {
                    self.warn(
                        place,
                        format!("incompatible bucket layout encountered for binary operator {op}"),
                    );
                    return Ok(Outcome::Incompatible);
                };
                if found.reconciled {
                    self.reconciled(place, name);
                }
                if found.collision {
                    self.collision(place, name);
                }
                if op == BinaryOp::Sub {
                    out.hint = CounterResetHint::Gauge;
                }
                return histogram(out.compact());
            }
            (Value::Histogram(a), Value::Histogram(b)) if op == BinaryOp::Eq => {
                return Ok(holds(equal(a, b)?));
            }
            (Value::Histogram(a), Value::Histogram(b)) if op == BinaryOp::NotEq => {
                return Ok(holds(!equal(a, b)?));
            }
            _ => {}
        }
        let kind = |value: &Value| if value.float().is_some() { "float" } else { "histogram" };
        self.info(
            place,
            format!(
                "incompatible sample types encountered for binary operator \"{op}\": {} {op} {}",
                kind(a),
                kind(b)
            ),
        );
        Ok(Outcome::Incompatible)
    }

    pub(super) fn binary(&self, binary: &Binary, place: u32, t: i64) -> Result<Vector, Failure> {
        let Some(matching) = &binary.matching else {
            return self.with_number(binary, place, t);
        };
        let (left, right) = (self.vector(&binary.lhs, t)?, self.vector(&binary.rhs, t)?);
        let key = |labels: &Labels| {
            if matching.on {
                labels.only(&matching.labels)
            } else {
                labels.without(&matching.labels).without_name()
            }
        };
        let has = |side: &Vector, labels: &Labels| side.keys().any(|other| key(other) == key(labels));
        match binary.op {
            BinaryOp::And => return Ok(left.into_iter().filter(|(l, _)| has(&right, l)).collect()),
            BinaryOp::Unless => return Ok(left.into_iter().filter(|(l, _)| !has(&right, l)).collect()),
            BinaryOp::Or => {
                let extra: Vector = right.into_iter().filter(|(l, _)| !has(&left, l)).collect();
                return Ok(left.into_iter().chain(extra).collect());
            }
            _ => {}
        }
        let fills = (matching.fill.lhs.map(Value::Float), matching.fill.rhs.map(Value::Float));
        if (left.is_empty() && right.is_empty())
            || ((left.is_empty() || right.is_empty()) && fills.0.is_none() && fills.1.is_none())
        {
            return Ok(Vector::new());
        }
        // With group_right the sides are swapped, but not what stands in for them.
        let swapped = matching.card == Cardinality::OneToMany;
        let (many, one) = if swapped { (&right, &left) } else { (&left, &right) };
        let mut by_key: BTreeMap<Labels, (&Labels, &Value)> = BTreeMap::new();
        for (labels, value) in one {
            if by_key.insert(key(labels), (labels, value)).is_some() {
                return Err(Failure::Fails);
            }
        }
        let mut pairs: Vec<(Labels, &Value, Labels, &Value)> = Vec::new();
        for (labels, value) in many {
            match (by_key.get(&key(labels)), &fills.1) {
                (Some((other_labels, other)), _) => {
                    pairs.push((labels.clone(), value, (*other_labels).clone(), other));
                }
                (None, Some(fill)) => pairs.push((labels.clone(), value, key(labels), fill)),
                (None, None) => {}
            }
        }
        let mut matched: Vec<(Labels, Labels)> = Vec::new();
        let mut out = Vec::new();
        let one_to_one = matching.card == Cardinality::OneToOne;
        type Pair<'a> = (Labels, &'a Value, Labels, &'a Value);
        let mut join = |matched: &mut Vec<(Labels, Labels)>,
                        (labels, value, other_labels, other): Pair<'_>| {
            let (a, b) = if swapped { (other, value) } else { (value, other) };
            let outcome = match self.pair(binary.op, a, b, place)? {
                Outcome::Incompatible => return Ok(()),
                outcome => outcome,
            };
            let mut result = labels.clone();
            if changes_meaning(binary.op) || binary.return_bool {
                result = without_name(&result);
            }
            if one_to_one {
                result = if matching.on {
                    result.only(&matching.labels)
                } else {
                    result.without(&matching.labels)
                };
            }
            for name in &matching.include {
                result = result.with(name, other_labels.value(name));
            }
            let unique_by = if one_to_one { key(&labels) } else { result.clone() };
            if matched.contains(&(key(&labels), unique_by.clone())) {
                return Err(Failure::Fails);
            }
            matched.push((key(&labels), unique_by));
            match outcome {
                _ if binary.return_bool => {
                    let holds = matches!(outcome, Outcome::Value(_));
                    out.push((result, Value::Float(f64::from(u8::from(holds)))));
                }
                Outcome::Value(value) => out.push((result, value)),
                Outcome::Fails | Outcome::Incompatible => {}
            }
            Ok(())
        };
        pairs.into_iter().try_for_each(|pair| join(&mut matched, pair))?;
        if let Some(fill) = &fills.0 {
            // What only met samples it does not go with has met none.
            let met: Vec<Labels> = matched.iter().map(|(key, _)| key.clone()).collect();
            for (labels, value) in one.iter().filter(|(labels, _)| !met.contains(&key(labels))) {
                join(&mut matched, (key(labels), fill, labels.clone(), value))?;
            }
        }
        unique(out)
    }

    fn with_number(&self, binary: &Binary, place: u32, t: i64) -> Result<Vector, Failure> {
        let number_left = value_type(&binary.lhs) == ValueType::Scalar;
        let (vector, number) =
            if number_left { (&binary.rhs, &binary.lhs) } else { (&binary.lhs, &binary.rhs) };
        let number = Value::Float(self.scalar(number, t)?);
        let mut out = Vec::new();
        for (labels, value) in self.vector(vector, t)? {
            let (a, b) = if number_left { (&number, &value) } else { (&value, &number) };
            let outcome = match self.pair(binary.op, a, b, place)? {
                Outcome::Incompatible => continue,
                outcome => outcome,
            };
            let labels =
                if changes_meaning(binary.op) || binary.return_bool { without_name(&labels) } else { labels };
            match outcome {
                _ if binary.return_bool => {
                    let holds = matches!(outcome, Outcome::Value(_));
                    out.push((labels, Value::Float(f64::from(u8::from(holds)))));
                }
                // What a comparison keeps is the vector's.
                Outcome::Value(_) if binary.op.is_comparison() => out.push((labels, value)),
                Outcome::Value(result) => out.push((labels, result)),
                Outcome::Fails | Outcome::Incompatible => {}
            }
        }
        unique(out)
    }
}
