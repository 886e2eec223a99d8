//! Types: what may stand where. Runs over a parsed tree, reports the first fault in the order Prometheus does, and
//! settles how the sides of binary operators match.

use model::labels::{METRIC_NAME, Quoted};

use super::error::ParseError;
use super::lexer::is_space;
use crate::ast::{
    Aggregate, AggregateOp, Binary, Call, Cardinality, Expr, ExprKind, Span, ValueType, VectorSelector,
};

/// Checks `expr`, which came from `text`, and gives its type.
pub(super) fn check(text: &str, expr: &mut Expr) -> Result<ValueType, ParseError> {
    Checker { text }.expr(expr)
}

struct Checker<'a> {
    text: &'a str,
}

impl Checker<'_> {
    fn error<T>(&self, span: Span, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError::new(self.text, span, message))
    }

    /// One small frame for each level of the tree: the arms that need room are functions of their own.
    fn expr(&self, expr: &mut Expr) -> Result<ValueType, ParseError> {
        let span = expr.span;
        match &mut expr.kind {
            ExprKind::Paren(inner) => self.expr(inner),
            ExprKind::Binary(binary) => self.binary(binary, span),
            ExprKind::Call(call) => self.call(call, span),
            ExprKind::Aggregate(aggregate) => self.aggregate(aggregate),
            ExprKind::Unary(unary) => {
                let found = self.expr(&mut unary.expr)?;
                self.unary(found, span)
            }
            ExprKind::Subquery(subquery) => {
                let found = self.expr(&mut subquery.expr)?;
                self.subquery(found, span)
            }
            ExprKind::Vector(vector) => {
                self.vector(vector, span, false)?;
                Ok(ValueType::Vector)
            }
            ExprKind::Matrix(matrix) => {
                self.vector(&matrix.vector, matrix.vector_span, false)?;
                Ok(ValueType::Matrix)
            }
            ExprKind::Number(_) => Ok(ValueType::Scalar),
            ExprKind::String(_) => Ok(ValueType::String),
        }
    }

    fn unary(&self, found: ValueType, span: Span) -> Result<ValueType, ParseError> {
        if matches!(found, ValueType::Scalar | ValueType::Vector) {
            return Ok(found);
        }
        let found = Quoted(found.documented());
        self.error(
            span,
            format!(
                "unary expression only allowed on expressions of type scalar or instant vector, got {found}"
            ),
        )
    }

    fn subquery(&self, found: ValueType, span: Span) -> Result<ValueType, ParseError> {
        if found == ValueType::Vector {
            return Ok(ValueType::Matrix);
        }
        self.error(span, format!("subquery is only allowed on instant vector, got {found} instead"))
    }

    fn expect(&self, expr: &mut Expr, wanted: ValueType, context: &str) -> Result<(), ParseError> {
        let found = self.expr(expr)?;
        if found == wanted { Ok(()) } else { self.mismatch(expr.span, wanted, context, found) }
    }

    fn mismatch<T>(
        &self,
        span: Span,
        wanted: ValueType,
        context: &str,
        found: ValueType,
    ) -> Result<T, ParseError> {
        let (wanted, found) = (wanted.documented(), found.documented());
        self.error(span, format!("expected type {wanted} in {context}, got {found}"))
    }

    fn aggregate(&self, aggregate: &mut Aggregate) -> Result<ValueType, ParseError> {
        self.expect(&mut aggregate.expr, ValueType::Vector, "aggregation expression")?;
        if let Some(param) = &mut aggregate.param {
            let wanted = match aggregate.op {
                AggregateOp::CountValues => ValueType::String,
                _ => ValueType::Scalar,
            };
            self.expect(param, wanted, "aggregation parameter")?;
        }
        Ok(ValueType::Vector)
    }

    fn binary(&self, binary: &mut Binary, span: Span) -> Result<ValueType, ParseError> {
        let lhs = self.expr(&mut binary.lhs)?;
        let rhs = self.expr(&mut binary.rhs)?;
        self.sides(binary, span, lhs, rhs)
    }

    fn sides(
        &self,
        binary: &mut Binary,
        span: Span,
        lhs: ValueType,
        rhs: ValueType,
    ) -> Result<ValueType, ParseError> {
        const SIDES: &str = "binary expression must contain only scalar and instant vector types";
        let op = binary.op;
        let scalars = lhs == ValueType::Scalar && rhs == ValueType::Scalar;
        if binary.return_bool && !op.is_comparison() {
            return self.at_operator(binary, "bool modifier can only be used on comparison operators");
        }
        if op.is_comparison() && !binary.return_bool && scalars {
            return self.at_operator(binary, "comparisons between scalars must use BOOL modifier");
        }
        if let Some(label) = doubly_used(binary) {
            let message = format!("label {} must not occur in ON and GROUP clause at once", Quoted(label));
            return self.at_operator(binary, &message);
        }
        if !matches!(lhs, ValueType::Scalar | ValueType::Vector) {
            return self.error(binary.lhs.span, SIDES);
        }
        if !matches!(rhs, ValueType::Scalar | ValueType::Vector) {
            return self.error(binary.rhs.span, SIDES);
        }
        self.matching(binary, span, lhs == ValueType::Vector && rhs == ValueType::Vector)?;
        if op.is_set() && (lhs == ValueType::Scalar || rhs == ValueType::Scalar) {
            let op = Quoted(op.as_str());
            return self.error(span, format!("set operator {op} not allowed in binary scalar expression"));
        }
        Ok(if scalars { ValueType::Scalar } else { ValueType::Vector })
    }

    /// Drops the matching unless both sides are vectors; what was written of it must then be nothing.
    fn matching(&self, binary: &mut Binary, span: Span, vectors: bool) -> Result<(), ParseError> {
        let op = binary.op;
        let Some(matching) = &mut binary.matching else {
            return Ok(());
        };
        let has_fill = matching.fill.lhs.is_some() || matching.fill.rhs.is_some();
        if !vectors {
            if !matching.labels.is_empty() {
                return self.error(span, "vector matching only allowed between instant vectors");
            }
            if has_fill {
                return self.error(span, "filling in missing series only allowed between instant vectors");
            }
            binary.matching = None;
        } else if op.is_set() {
            if matching.card != Cardinality::OneToOne {
                let op = Quoted(op.as_str());
                return self.error(span, format!("no grouping allowed for {op} operation"));
            }
            matching.card = Cardinality::ManyToMany;
            if has_fill {
                return self.error(span, "filling in missing series not allowed for set operators");
            }
        }
        Ok(())
    }

    /// A fault placed at the operator between the sides.
    fn at_operator<T>(&self, binary: &Binary, message: &str) -> Result<T, ParseError> {
        let (from, to) = (binary.lhs.span.end as usize, binary.rhs.span.start as usize);
        let between = self.text.get(from..to).unwrap_or_default();
        let start = from + (between.len() - between.trim_start_matches(is_space).len());
        self.error(Span::new(start, from + between.trim_end_matches(is_space).len()), message)
    }

    fn call(&self, call: &mut Call, span: Span) -> Result<ValueType, ParseError> {
        self.argument_count(call, span)?;
        let is_info = call.func.name == "info";
        if is_info && let Some(selector) = call.args.get(1) {
            self.info_selector(selector, span)?;
        }
        for (index, arg) in call.args.iter_mut().enumerate() {
            let Some(wanted) = call.func.args.get(index).or(call.func.args.last()) else {
                break;
            };
            let found = match &arg.kind {
                ExprKind::Vector(vector) if is_info && index == 1 => {
                    self.vector(vector, arg.span, true)?;
                    ValueType::Vector
                }
                _ => self.expr(arg)?,
            };
            if found != *wanted {
                return self.argument_mismatch(call.func.name, arg.span, *wanted, found);
            }
        }
        Ok(call.func.returns)
    }

    fn argument_mismatch<T>(
        &self,
        name: &str,
        span: Span,
        wanted: ValueType,
        found: ValueType,
    ) -> Result<T, ParseError> {
        self.mismatch(span, wanted, &format!("call to function {}", Quoted(name)), found)
    }

    fn argument_count(&self, call: &Call, span: Span) -> Result<(), ParseError> {
        let func = call.func;
        let (named, found) = (func.args.len(), call.args.len());
        let fault = if func.variadic == 0 {
            (named != found).then_some(("", named))
        } else {
            let least = named - 1;
            let most = usize::try_from(func.variadic).ok().map(|further| least + further);
            if found < least {
                Some(("at least ", least))
            } else {
                most.filter(|most| found > *most).map(|most| ("at most ", most))
            }
        };
        match fault {
            None => Ok(()),
            Some((bound, count)) => {
                let name = Quoted(func.name);
                self.error(
                    span,
                    format!("expected {bound}{count} argument(s) in call to {name}, got {found}"),
                )
            }
        }
    }

    /// The second argument of `info`: labels only.
    fn info_selector(&self, selector: &Expr, call: Span) -> Result<(), ParseError> {
        let found = super::value_type(selector);
        if found != ValueType::Vector {
            return self.mismatch(call, ValueType::Vector, "call to function \"info\"", found);
        }
        match &selector.kind {
            ExprKind::Vector(vector) if vector.name.is_none() => Ok(()),
            ExprKind::Vector(_) => {
                self.error(selector.span, "expected label selectors only, got vector selector instead")
            }
            _ => self.error(selector.span, "expected label selectors only"),
        }
    }

    fn vector(&self, vector: &VectorSelector, span: Span, may_be_empty: bool) -> Result<(), ParseError> {
        if let (Some(name), Some((_, braces))) = (&vector.name, vector.matchers.split_last()) {
            let Some(second) = braces.iter().find(|matcher| matcher.name == METRIC_NAME) else {
                return Ok(());
            };
            let (name, second) = (Quoted(name), Quoted(&second.value));
            return self.error(span, format!("metric name must not be set twice: {name} or {second}"));
        }
        if may_be_empty || vector.matchers.iter().any(|matcher| !matcher.matches_empty()) {
            return Ok(());
        }
        self.error(span, "vector selector must contain at least one non-empty matcher")
    }
}

/// A label that is both in `on` and in the group clause.
fn doubly_used(binary: &Binary) -> Option<&str> {
    let matching = binary.matching.as_ref().filter(|matching| matching.on && !matching.include.is_empty())?;
    let included: std::collections::HashSet<&str> = matching.include.iter().map(String::as_str).collect();
    matching.labels.iter().map(String::as_str).find(|label| included.contains(label))
}
