//! Printing a tree and parsing the text gives the tree, for trees made of everything the language has.

#[path = "../../fuzz/src/query.rs"]
#[expect(dead_code, unreachable_pub, reason = "a library, included; the rest is for the fuzzer")]
mod target;

use model::{MatchOp, Matcher};
use proptest::prelude::*;
use query::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, DurationExpr, DurationKind, DurationOp,
    Expr, ExprKind, ExtendedRange, FillValues, MatrixSelector, Number, Span, Subquery, TimeModifiers, Unary,
    ValueType, VectorMatching, VectorSelector,
};
use query::parse::functions::FUNCTIONS;
use query::parse::value_type;

fn at(kind: ExprKind) -> Expr {
    Expr { kind, span: Span::default() }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z]{0,4}", 1 => any::<String>(), 1 => "[\"'`\\\\\n\t$é]{1,3}"]
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-z_][a-z0-9_]{0,3}",
        // Keywords are names of labels, too; others are quoted.
        1 => prop::sample::select(vec!["by", "on", "offset", "bool", "sum", "inf", "nan", "start", "fill", "smoothed"]).prop_map(str::to_owned),
        1 => "[a-zé. \"]{1,4}",
    ]
}

fn labels() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(label(), 0..3)
}

fn matcher() -> BoxedStrategy<Matcher> {
    let exact = (label(), any::<bool>(), text()).prop_map(|(name, equal, value)| {
        let op = if equal { MatchOp::Equal } else { MatchOp::NotEqual };
        Matcher::new(op, &name, &value).expect("no expression to be wrong")
    });
    let regex = (label(), any::<bool>(), "[a-z.*+|]{0,1}[a-z]{1,3}").prop_map(|(name, is, value)| {
        let op = if is { MatchOp::Regex } else { MatchOp::NotRegex };
        let value = value.trim_start_matches(['*', '+']);
        Matcher::new(op, &name, value).expect("a regular expression")
    });
    prop_oneof![3 => exact, 1 => regex].boxed()
}

fn literal(seconds: f64, is_number: bool) -> DurationExpr {
    DurationExpr { kind: DurationKind::Literal { seconds, is_number }, span: Span::default() }
}

/// Seconds as the parser makes them of milliseconds.
fn seconds(ms: i64) -> f64 {
    (ms / 1000) as f64 + ((ms % 1000) * 1_000_000) as f64 / 1e9
}

/// A positive literal as it stands alone: full milliseconds, but full seconds where a float has no room for nanoseconds.
fn whole() -> impl Strategy<Value = DurationExpr> {
    prop_oneof![1i64..100_000, 1i64..4_000_000_000, (1i64..4_000_000_000).prop_map(|s| s * 1000)]
        .prop_map(|ms| literal(seconds(ms), false))
}

/// Duration expressions within brackets or parentheses; not a literal as a whole.
fn arithmetic() -> BoxedStrategy<DurationExpr> {
    fn plain(kind: DurationKind) -> DurationExpr {
        DurationExpr { kind, span: Span::default() }
    }
    fn operand(inner: DurationExpr) -> DurationExpr {
        match inner.kind {
            DurationKind::Binary(..) | DurationKind::Negate(_) => plain(DurationKind::Paren(Box::new(inner))),
            _ => inner,
        }
    }
    let leaf = prop_oneof![
        (1i64..1_000_000).prop_map(|ms| literal(seconds(ms), false)),
        prop_oneof![(1u32..1000).prop_map(f64::from), 0.001f64..1e9].prop_map(|s| literal(s, true)),
        Just(plain(DurationKind::Step)),
        Just(plain(DurationKind::Range)),
    ];
    let tree = leaf.prop_recursive(3, 8, 2, |inner| {
        let op = prop::sample::select(vec![
            DurationOp::Add,
            DurationOp::Sub,
            DurationOp::Mul,
            DurationOp::Div,
            DurationOp::Mod,
            DurationOp::Pow,
        ]);
        prop_oneof![
            3 => (op, inner.clone(), inner.clone()).prop_map(|(op, a, b)| {
                plain(DurationKind::Binary(op, Box::new(operand(a)), Box::new(operand(b))))
            }),
            1 => (any::<bool>(), inner.clone(), inner.clone()).prop_map(|(min, a, b)| {
                let (a, b) = (Box::new(a), Box::new(b));
                plain(if min { DurationKind::MinOf(a, b) } else { DurationKind::MaxOf(a, b) })
            }),
            1 => inner.prop_map(|inner| match operand(inner) {
                // The sign of a literal is part of it.
                literal @ DurationExpr { kind: DurationKind::Literal { .. }, .. } => literal,
                inner => plain(DurationKind::Negate(Box::new(inner))),
            }),
        ]
    });
    tree.prop_filter("literals stand for themselves", |d| d.literal().is_none()).boxed()
}

fn duration() -> BoxedStrategy<DurationExpr> {
    prop_oneof![3 => whole(), 1 => arithmetic()].boxed()
}

/// Offsets are operands, so arithmetic is within parentheses.
fn offset() -> BoxedStrategy<DurationExpr> {
    let negated = whole().prop_map(|d| literal(-d.literal().unwrap_or(1.0), false));
    let arithmetic = arithmetic().prop_map(|d| match d.kind {
        DurationKind::Binary(..) => {
            DurationExpr { kind: DurationKind::Paren(Box::new(d)), span: Span::default() }
        }
        _ => d,
    });
    // Parentheses around the whole are not kept where the whole is an expression, so a sign goes before them.
    let arithmetic = arithmetic.prop_map(|d| match d.kind {
        DurationKind::Paren(_) => {
            DurationExpr { kind: DurationKind::Negate(Box::new(d)), span: Span::default() }
        }
        _ => d,
    });
    prop_oneof![2 => whole(), 1 => negated, 1 => arithmetic].boxed()
}

fn time() -> BoxedStrategy<TimeModifiers> {
    let moment = prop_oneof![
        Just(At::Start),
        Just(At::End),
        (-1_000_000_000_000i64..4_000_000_000_000).prop_map(At::Time)
    ];
    (prop::option::weighted(0.3, offset()), prop::option::weighted(0.2, moment))
        .prop_map(|(offset, at)| TimeModifiers { offset, at })
        .boxed()
}

fn selector(extended: bool) -> BoxedStrategy<VectorSelector> {
    let name = prop::option::weighted(0.7, "[a-z_:][a-z0-9_:]{0,4}");
    let mode = prop::sample::select(vec![
        None,
        None,
        None,
        Some(ExtendedRange::Anchored),
        Some(ExtendedRange::Smoothed),
    ]);
    (name, prop::collection::vec(matcher(), 0..3), time(), mode)
        .prop_map(move |(name, mut matchers, time, mode)| {
            // A word of the language is no name before the braces.
            let name = name.map(|name| format!("m{name}"));
            match &name {
                Some(name) => {
                    matchers.retain(|matcher| matcher.name != "__name__");
                    matchers.push(Matcher::equal("__name__", name));
                }
                None if matchers.iter().all(Matcher::matches_empty) => {
                    matchers.push(Matcher::equal("a", "b"))
                }
                None => {}
            }
            let extended = mode.filter(|mode| extended || *mode == ExtendedRange::Smoothed);
            VectorSelector { name, matchers, time, extended }
        })
        .prop_filter("labels of matchers have names", |s| s.matchers.iter().all(|m| !m.name.is_empty()))
        .boxed()
}

fn number() -> BoxedStrategy<Expr> {
    let plain = prop_oneof![
        (0u32..1000).prop_map(f64::from),
        any::<f64>().prop_filter("numbers carry no sign", |v| v.is_finite() && v.is_sign_positive()),
        Just(f64::INFINITY),
    ];
    prop_oneof![
        4 => plain.prop_map(|value| Number { value, is_duration: false }),
        1 => (1i64..1_000_000_000).prop_map(|ms| Number { value: seconds(ms), is_duration: true }),
    ]
    .prop_map(|number| at(ExprKind::Number(number)))
    .boxed()
}

/// Wraps what would not stay whole beside an operator, a sign or brackets.
fn operand(expr: Expr) -> Expr {
    match expr.kind {
        ExprKind::Binary(_) | ExprKind::Unary(_) => at(ExprKind::Paren(Box::new(expr))),
        _ => expr,
    }
}

fn subquery_of(expr: Expr, range: DurationExpr, step: Option<DurationExpr>, time: TimeModifiers) -> Expr {
    // Brackets behind a selector would be its own.
    let expr = match operand(expr) {
        selector @ Expr { kind: ExprKind::Vector(_), .. } => at(ExprKind::Paren(Box::new(selector))),
        expr => expr,
    };
    at(ExprKind::Subquery(Subquery { expr: Box::new(expr), range, step, time }))
}

fn binary_of(
    op: BinaryOp,
    lhs: Expr,
    rhs: Expr,
    (on, labels, include, card): (bool, Vec<String>, Vec<String>, u8),
    fill: FillValues,
    return_bool: bool,
) -> Expr {
    let vectors = value_type(&lhs) == ValueType::Vector && value_type(&rhs) == ValueType::Vector;
    let card = match card {
        _ if op.is_set() => Cardinality::ManyToMany,
        0 => Cardinality::ManyToOne,
        1 => Cardinality::OneToMany,
        _ => Cardinality::OneToOne,
    };
    let grouped = matches!(card, Cardinality::ManyToOne | Cardinality::OneToMany);
    let include = if grouped { include } else { Vec::new() };
    let labels: Vec<String> = labels.into_iter().filter(|label| !on || !include.contains(label)).collect();
    let fill = if op.is_set() { FillValues::default() } else { fill };
    let matching = vectors.then_some(VectorMatching { card, labels, on, include, fill });
    let (lhs, rhs) = (Box::new(operand(lhs)), Box::new(operand(rhs)));
    let return_bool = op.is_comparison() && (return_bool || !vectors);
    at(ExprKind::Binary(Binary { op, lhs, rhs, matching, return_bool }))
}

const OPERATORS: [BinaryOp; 18] = [
    BinaryOp::Add,
    BinaryOp::Sub,
    BinaryOp::Mul,
    BinaryOp::Div,
    BinaryOp::Mod,
    BinaryOp::Pow,
    BinaryOp::Atan2,
    BinaryOp::Eq,
    BinaryOp::NotEq,
    BinaryOp::Less,
    BinaryOp::LessEq,
    BinaryOp::Greater,
    BinaryOp::GreaterEq,
    BinaryOp::And,
    BinaryOp::Or,
    BinaryOp::Unless,
    BinaryOp::TrimUpper,
    BinaryOp::TrimLower,
];

/// Scalars and instant vectors.
fn expr() -> BoxedStrategy<Expr> {
    let leaf = prop_oneof![
        3 => selector(false).prop_map(|selector| at(ExprKind::Vector(selector))),
        1 => number(),
    ];
    leaf.prop_recursive(5, 24, 3, |inner| {
        let vector = inner
            .clone()
            .prop_map(|expr| match value_type(&expr) {
                ValueType::Vector => expr,
                _ => call("vector", vec![expr]),
            })
            .boxed();
        let scalar = inner
            .clone()
            .prop_map(|expr| match value_type(&expr) {
                ValueType::Scalar => expr,
                _ => call("scalar", vec![expr]),
            })
            .boxed();
        let matrix = prop_oneof![
            (selector(true), duration()).prop_map(|(vector, range)| {
                at(ExprKind::Matrix(MatrixSelector { vector, vector_span: Span::default(), range }))
            }),
            (vector.clone(), duration(), prop::option::of(duration()), time())
                .prop_map(|(expr, range, step, time)| subquery_of(expr, range, step, time)),
        ]
        .boxed();
        let string = text().prop_map(|text| at(ExprKind::String(text))).boxed();
        let function =
            prop::sample::select(FUNCTIONS.iter().filter(|f| f.name != "info").collect::<Vec<_>>());
        let arguments = (
            prop::collection::vec(vector.clone(), 3),
            prop::collection::vec(scalar.clone(), 3),
            prop::collection::vec(string.clone(), 5),
            matrix,
        );
        let calls = (function, arguments, 0usize..3).prop_map(|(function, args, extra)| {
            let (mut vectors, mut scalars, mut strings, matrix) = args;
            let mut matrix = Some(matrix);
            let least = function.args.len() - usize::from(function.variadic != 0);
            let most = match function.variadic {
                0 => least,
                further => least + extra.min(usize::try_from(further).unwrap_or(2)),
            };
            let kinds = function.args.iter().chain(function.args.last().into_iter().cycle().take(9));
            let args = kinds.take(most).map_while(|kind| match kind {
                ValueType::Vector => vectors.pop(),
                ValueType::Scalar => scalars.pop(),
                ValueType::String => strings.pop(),
                ValueType::Matrix => matrix.take(),
                ValueType::None => None,
            });
            let args: Vec<Expr> = args.collect();
            if args.len() < least {
                at(ExprKind::Number(Number { value: 1.0, is_duration: false }))
            } else {
                call(function.name, args)
            }
        });
        let aggregation = (
            prop::sample::select(AggregateOp::ALL.to_vec()),
            vector.clone(),
            scalar,
            string,
            labels(),
            any::<bool>(),
        )
            .prop_map(|(op, expr, scalar, string, grouping, without)| {
                let param = match op {
                    AggregateOp::CountValues => Some(Box::new(string)),
                    op if op.has_param() => Some(Box::new(scalar)),
                    _ => None,
                };
                at(ExprKind::Aggregate(Aggregate { op, expr: Box::new(expr), param, grouping, without }))
            });
        let fill =
            prop::option::weighted(0.2, prop_oneof![Just(0.0), Just(-1.5), Just(f64::NAN), 1e6f64..1e9]);
        let matching = (any::<bool>(), labels(), labels(), 0u8..6);
        let binary = (
            prop::sample::select(OPERATORS.to_vec()),
            inner.clone(),
            inner.clone(),
            matching,
            (fill.clone(), fill),
            any::<bool>(),
        )
            .prop_map(|(op, lhs, rhs, matching, (left, right), return_bool)| {
                let scalar = |e: &Expr| value_type(e) == ValueType::Scalar;
                let op = if op.is_set() && (scalar(&lhs) || scalar(&rhs)) { BinaryOp::Add } else { op };
                binary_of(op, lhs, rhs, matching, FillValues { lhs: left, rhs: right }, return_bool)
            });
        let unary = (any::<bool>(), inner.clone()).prop_map(|(negative, expr)| match operand(expr) {
            // The sign of a number is part of it.
            number @ Expr { kind: ExprKind::Number(_), .. } => number,
            expr => at(ExprKind::Unary(Unary { negative, expr: Box::new(expr) })),
        });
        let paren = inner.prop_map(|expr| at(ExprKind::Paren(Box::new(expr))));
        prop_oneof![
            3 => calls.boxed(),
            2 => aggregation.boxed(),
            3 => binary.boxed(),
            1 => unary.boxed(),
            1 => paren.boxed(),
        ]
        .boxed()
    })
    .boxed()
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    at(ExprKind::Call(Call { func: query::parse::lookup(name).expect("a function"), args }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(256), ..ProptestConfig::default() })]

    #[test]
    fn a_printed_tree_parses_as_the_tree(expr in expr()) {
        target::means_the_same(&expr);
    }
}
