//! The expression grammar: operator precedence over an explicit stack, so that no nesting of the text can exhaust the
//! thread's stack. What does not nest is in [`super::pieces`].
//!
//! Order matters for errors, as only the first is reported: a check that Prometheus' yacc parser makes before it reads
//! the next token comes before a lexical fault in that token here, too. A token that fits nowhere is reported in the
//! context of the innermost aggregation around it, as there.

use model::labels::METRIC_NAME;
use model::{Labels, Matcher, Timestamp};
use nom::combinator::opt;
use nom::sequence::{pair, terminated};
use nom::{Err, Parser};

use super::ParseOptions;
use super::duration::DurationParser;
use super::error::{Fault, ParseError};
use super::functions;
use super::lexer::Lexed;
use super::literal;
use super::pieces::{
    AtOperand, BinaryModifiers, aggregate_modifier, at_operand, binary_modifiers, braces, label_set,
    literal_value, metric_name,
};
use super::stream::{Tokens, kind};
use super::token::{Keyword, Token, TokenKind};
use crate::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, DurationExpr, Expr, ExprKind, ExtendedRange,
    Function, MatrixSelector, Number, Span, Subquery, TimeModifiers, Unary, VectorSelector,
};

/// Most levels of the tree; chains of operators count, too. Printing, checking, copying, dropping and evaluating
/// recurse, and must fit a thread's stack of 2 MiB. In debug builds the hungriest here (JSON) takes about 3 KiB a level,
/// so this leaves the evaluator room of its own.
pub(super) const NESTING_MAX: u32 = 500;

/// What is said beyond [`NESTING_MAX`].
pub(super) const NESTING_MESSAGE: &str = "expression too deeply nested";

/// How strongly an operator binds.
pub(super) const fn precedence(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And | BinaryOp::Unless => 2,
        BinaryOp::Eq
        | BinaryOp::NotEq
        | BinaryOp::Less
        | BinaryOp::LessEq
        | BinaryOp::Greater
        | BinaryOp::GreaterEq
        | BinaryOp::TrimUpper
        | BinaryOp::TrimLower => 3,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => UNARY,
        BinaryOp::Pow => 6,
    }
}

/// Signs bind like multiplication.
const UNARY: u8 = 5;

/// An expression with the depth of its tree.
struct Operand {
    expr: Expr,
    depth: u32,
}

/// Something that waits for an expression to end.
enum Frame {
    Paren { left: Token },
    Call { name: Token, args: Args },
    Aggregate { op: AggregateOp, start: Span, modifier: Option<(Vec<String>, bool)>, args: Args },
    Unary { sign: Token },
    Binary { op: BinaryOp, modifiers: Box<BinaryModifiers>, lhs: Operand },
}

#[derive(Default)]
struct Args {
    exprs: Vec<Expr>,
    depth: u32,
}

struct Grammar<'a> {
    tokens: Tokens<'a>,
    options: &'a ParseOptions,
    frames: Vec<Frame>,
}

/// Parses all of `lexed` as one expression; types are not checked yet.
pub(super) fn expression(lexed: &Lexed<'_>, options: &ParseOptions) -> Result<Expr, ParseError> {
    let mut grammar = Grammar { tokens: Tokens::new(lexed), options, frames: Vec::new() };
    grammar.run().map_err(|fault| match fault {
        Fault::Final(error) => *error,
        Fault::Unexpected(token) => {
            let in_aggregate = grammar.frames.iter().any(|frame| matches!(frame, Frame::Aggregate { .. }));
            let context = if in_aggregate { "aggregation" } else { "" };
            ParseError::unexpected(lexed.text, token, context, "")
        }
    })
}

/// Parses all of `lexed` as one selector without time modifiers.
pub(super) fn selector(lexed: &Lexed<'_>) -> Result<Vec<Matcher>, ParseError> {
    let options = ParseOptions::default();
    let mut grammar = Grammar { tokens: Tokens::new(lexed), options: &options, frames: Vec::new() };
    let vector = grammar.selector_alone();
    vector.map_err(|fault| match fault {
        Fault::Final(error) => *error,
        Fault::Unexpected(token) => ParseError::unexpected(lexed.text, token, "", ""),
    })
}

/// Parses all of `lexed` as a metric: a name, labels, or both.
pub(super) fn metric(lexed: &Lexed<'_>) -> Result<Labels, ParseError> {
    let name = opt(metric_name);
    let mut whole = terminated(pair(name, opt(label_set)), kind(TokenKind::End));
    match whole.parse(Tokens::new(lexed)) {
        Ok((_, (name, labels))) => {
            let name = name.map(|name| (METRIC_NAME.to_owned(), name.text(lexed.text).to_owned()));
            Ok(Labels::from_pairs(labels.unwrap_or_default().into_iter().chain(name)))
        }
        Err(Err::Error(fault) | Err::Failure(fault)) => match fault {
            Fault::Final(error) => Err(*error),
            Fault::Unexpected(token) => Err(ParseError::unexpected(lexed.text, token, "", "")),
        },
        Err(Err::Incomplete(_)) => {
            Err(ParseError::new(lexed.text, Span::default(), "unexpected end of input"))
        }
    }
}

impl<'a> Grammar<'a> {
    fn error(&self, span: Span, message: impl Into<String>) -> Fault {
        ParseError::new(self.tokens.text(), span, message).into()
    }

    fn advance(&mut self) {
        self.tokens = self.tokens.advanced();
    }

    /// Runs a nom parser on the tokens.
    fn run_piece<T>(
        &mut self,
        mut parser: impl Parser<Tokens<'a>, Output = T, Error = Fault>,
    ) -> Result<T, Fault> {
        match parser.parse(self.tokens) {
            Ok((rest, parsed)) => {
                self.tokens = rest;
                Ok(parsed)
            }
            Err(Err::Error(fault) | Err::Failure(fault)) => Err(fault),
            Err(Err::Incomplete(_)) => Err(Fault::Unexpected(self.tokens.first())),
        }
    }

    fn run(&mut self) -> Result<Expr, Fault> {
        if self.tokens.peek()?.kind == TokenKind::End {
            return Err(self.error(Span::default(), "no expression found in input"));
        }
        let mut operand = self.operand()?;
        loop {
            let token = self.tokens.peek()?;
            operand = match token.kind {
                TokenKind::LeftBracket => self.brackets(operand)?,
                TokenKind::Keyword(Keyword::Offset) => self.offset(operand)?,
                TokenKind::At => self.at(operand)?,
                TokenKind::Keyword(Keyword::Anchored) => {
                    self.extended(operand, token, ExtendedRange::Anchored)?
                }
                TokenKind::Keyword(Keyword::Smoothed) => {
                    self.extended(operand, token, ExtendedRange::Smoothed)?
                }
                TokenKind::Operator(op) => {
                    let lhs = self.reduce(operand, precedence(op), op != BinaryOp::Pow)?;
                    self.advance();
                    let modifiers = Box::new(self.run_piece(binary_modifiers)?);
                    self.push(Frame::Binary { op, modifiers, lhs }, token.span)?;
                    self.operand()?
                }
                _ => {
                    let done = self.reduce(operand, 0, true)?;
                    match self.close(done, token)? {
                        Closed::Operand(operand) => operand,
                        Closed::Whole(expr) => return Ok(expr),
                    }
                }
            };
        }
    }

    /// Reads up to the end of the next operand that has no operator before it, opening frames on the way.
    fn operand(&mut self) -> Result<Operand, Fault> {
        loop {
            let token = self.tokens.peek()?;
            match token.kind {
                TokenKind::Operator(BinaryOp::Add | BinaryOp::Sub) => {
                    self.advance();
                    self.push(Frame::Unary { sign: token }, token.span)?;
                }
                TokenKind::LeftParen => {
                    self.advance();
                    self.push(Frame::Paren { left: token }, token.span)?;
                }
                TokenKind::Number | TokenKind::Duration => {
                    self.advance();
                    let value = literal_value(self.tokens.text(), token)?;
                    let is_duration = token.kind == TokenKind::Duration;
                    return Ok(leaf(ExprKind::Number(Number { value, is_duration }), token.span));
                }
                TokenKind::String => {
                    self.advance();
                    let value = literal::unquote(token.text(self.tokens.text()));
                    return Ok(leaf(ExprKind::String(value), token.span));
                }
                TokenKind::LeftBrace => return self.vector_selector(),
                TokenKind::Aggregate(op) if self.is_aggregate() => {
                    if let Some(done) = self.open_aggregate(op, token)? {
                        return Ok(done);
                    }
                }
                TokenKind::Identifier | TokenKind::Special(_)
                    if self.tokens.second() == Some(TokenKind::LeftParen) =>
                {
                    self.advance();
                    self.advance();
                    if let Some(right) = self.right_paren()? {
                        return self.call(token, Args::default(), right);
                    }
                    self.push(Frame::Call { name: token, args: Args::default() }, token.span)?;
                }
                _ if token.is_metric_name() => {
                    self.token_behind_name()?;
                    return self.vector_selector();
                }
                _ => return Err(Fault::Unexpected(token)),
            }
        }
    }

    /// A name needs the token behind it to be told from a call; that token's fault comes first.
    fn token_behind_name(&self) -> Result<(), Fault> {
        self.tokens.advanced().peek().map(|_| ())
    }

    fn is_aggregate(&self) -> bool {
        matches!(
            self.tokens.second(),
            Some(TokenKind::LeftParen | TokenKind::Keyword(Keyword::By | Keyword::Without))
        )
    }

    /// `sum by (x) (` or `sum(`. Finished at once if nothing is in the parentheses.
    fn open_aggregate(&mut self, op: AggregateOp, token: Token) -> Result<Option<Operand>, Fault> {
        self.advance();
        let start = token.span;
        self.push(Frame::Aggregate { op, start, modifier: None, args: Args::default() }, start)?;
        let modifier = match self.tokens.peek()?.kind {
            TokenKind::LeftParen => None,
            _ => Some(self.run_piece(aggregate_modifier)?),
        };
        let left = self.tokens.peek()?;
        if left.kind != TokenKind::LeftParen {
            return Err(Fault::Unexpected(left));
        }
        self.advance();
        if let Some(Frame::Aggregate { modifier: place, .. }) = self.frames.last_mut() {
            *place = modifier;
        }
        match self.right_paren()? {
            Some(right) => self.close_aggregate(right).map(Some),
            None => Ok(None),
        }
    }

    fn right_paren(&mut self) -> Result<Option<Token>, Fault> {
        let token = self.tokens.peek()?;
        if token.kind != TokenKind::RightParen {
            return Ok(None);
        }
        self.advance();
        Ok(Some(token))
    }

    fn vector_selector(&mut self) -> Result<Operand, Fault> {
        let (selector, span) = self.name_and_braces()?;
        Ok(leaf(ExprKind::Vector(selector), span))
    }

    fn name_and_braces(&mut self) -> Result<(VectorSelector, Span), Fault> {
        let first = self.tokens.peek()?;
        let (mut name, mut matchers, mut span) = (None, Vec::new(), first.span);
        if first.kind != TokenKind::LeftBrace {
            self.advance();
            name = Some(first.text(self.tokens.text()).to_owned());
        }
        if name.is_none() || self.tokens.peek()?.kind == TokenKind::LeftBrace {
            let (found, braces_span) = self.run_piece(braces)?;
            matchers = found;
            span = span.to(braces_span);
        }
        if let Some(name) = &name {
            matchers.push(Matcher::equal(METRIC_NAME, name.as_str()));
        }
        Ok((VectorSelector { name, matchers, time: TimeModifiers::default(), extended: None }, span))
    }

    fn selector_alone(&mut self) -> Result<Vec<Matcher>, Fault> {
        let first = self.tokens.peek()?;
        if first.kind != TokenKind::LeftBrace && !first.is_metric_name() {
            return Err(Fault::Unexpected(first));
        }
        let (selector, _) = self.name_and_braces()?;
        match self.tokens.peek()? {
            Token { kind: TokenKind::End, .. } => Ok(selector.matchers),
            token => Err(Fault::Unexpected(token)),
        }
    }

    /// Ends the signs and operators that bind more strongly than `binding`; as strongly, if `left` is set.
    fn reduce(&mut self, mut operand: Operand, binding: u8, left: bool) -> Result<Operand, Fault> {
        loop {
            let top = match self.frames.last() {
                Some(Frame::Unary { .. }) => UNARY,
                Some(Frame::Binary { op, .. }) => precedence(*op),
                _ => return Ok(operand),
            };
            if top < binding || (top == binding && !left) {
                return Ok(operand);
            }
            operand = match self.frames.pop() {
                Some(Frame::Unary { sign }) => self.unary(sign, operand)?,
                Some(Frame::Binary { op, modifiers, lhs }) => self.binary(op, *modifiers, lhs, operand)?,
                _ => return Ok(operand),
            };
        }
    }

    fn unary(&self, sign: Token, operand: Operand) -> Result<Operand, Fault> {
        let negative = sign.kind == TokenKind::Operator(BinaryOp::Sub);
        let span = sign.span.to(operand.expr.span);
        if let ExprKind::Number(Number { value, is_duration }) = operand.expr.kind {
            // Prometheus folds signs into numbers.
            let value = if negative && !value.is_nan() { -value } else { value };
            return Ok(leaf(ExprKind::Number(Number { value, is_duration }), span));
        }
        let unary = Unary { negative, expr: Box::new(operand.expr) };
        self.node(ExprKind::Unary(unary), span, operand.depth)
    }

    fn binary(
        &self,
        op: BinaryOp,
        modifiers: BinaryModifiers,
        lhs: Operand,
        rhs: Operand,
    ) -> Result<Operand, Fault> {
        let span = lhs.expr.span.to(rhs.expr.span);
        let fill = modifiers.matching.fill;
        if !self.options.binop_fill_modifiers && (fill.lhs.is_some() || fill.rhs.is_some()) {
            return Err(self.error(span, "binop fill modifiers are experimental and not enabled"));
        }
        let depth = lhs.depth.max(rhs.depth);
        let binary = Binary {
            op,
            lhs: Box::new(lhs.expr),
            rhs: Box::new(rhs.expr),
            matching: Some(modifiers.matching),
            return_bool: modifiers.return_bool,
        };
        self.node(ExprKind::Binary(binary), span, depth)
    }

    /// Opens a frame. Each will be a level of the tree, so what is too deep is refused without reading on.
    fn push(&mut self, frame: Frame, span: Span) -> Result<(), Fault> {
        if self.frames.len() >= NESTING_MAX as usize {
            return Err(self.error(span, NESTING_MESSAGE));
        }
        self.frames.push(frame);
        Ok(())
    }

    /// A node above a tree of this depth.
    fn node(&self, kind: ExprKind, span: Span, below: u32) -> Result<Operand, Fault> {
        let operand = Operand { expr: Expr { kind, span }, depth: below + 1 };
        if operand.depth > NESTING_MAX { Err(self.error(span, NESTING_MESSAGE)) } else { Ok(operand) }
    }

    /// What a token that continues no expression does to the innermost frame.
    fn close(&mut self, done: Operand, token: Token) -> Result<Closed, Fault> {
        match (self.frames.last_mut(), token.kind) {
            (None, TokenKind::End) => Ok(Closed::Whole(done.expr)),
            (Some(Frame::Paren { left }), TokenKind::RightParen) => {
                let span = left.span.to(token.span);
                self.frames.pop();
                self.advance();
                self.node(ExprKind::Paren(Box::new(done.expr)), span, done.depth).map(Closed::Operand)
            }
            (Some(Frame::Call { args, .. } | Frame::Aggregate { args, .. }), TokenKind::Comma) => {
                args.push(done);
                self.advance();
                if !self.tokens.peek()?.starts_expression() {
                    return Err(self.error(token.span, "trailing commas not allowed in function call args"));
                }
                self.operand().map(Closed::Operand)
            }
            (Some(Frame::Call { args, .. }), TokenKind::RightParen) => {
                args.push(done);
                self.advance();
                match self.frames.pop() {
                    Some(Frame::Call { name, args }) => self.call(name, args, token).map(Closed::Operand),
                    _ => Err(Fault::Unexpected(token)),
                }
            }
            (Some(Frame::Aggregate { args, .. }), TokenKind::RightParen) => {
                args.push(done);
                self.advance();
                self.close_aggregate(token).map(Closed::Operand)
            }
            _ => Err(Fault::Unexpected(token)),
        }
    }

    fn call(&self, name: Token, args: Args, right: Token) -> Result<Operand, Fault> {
        let text = name.text(self.tokens.text());
        let quoted = model::labels::Quoted(text);
        let func: &'static Function = functions::lookup(text)
            .ok_or_else(|| self.error(name.span, format!("unknown function with name {quoted}")))?;
        if func.experimental && !self.options.experimental_functions {
            return Err(self.error(name.span, format!("function {quoted} is not enabled")));
        }
        let span = name.span.to(right.span);
        self.node(ExprKind::Call(Call { func, args: args.exprs }), span, args.depth)
    }

    /// The aggregation on top of the frames, whose parenthesis `right` has just been read.
    fn close_aggregate(&mut self, right: Token) -> Result<Operand, Fault> {
        let mut end = right.span;
        let has_modifier = matches!(self.frames.last(), Some(Frame::Aggregate { modifier: Some(_), .. }));
        if !has_modifier
            && matches!(self.tokens.peek()?.kind, TokenKind::Keyword(Keyword::By | Keyword::Without))
        {
            let before = self.tokens;
            let found = self.run_piece(aggregate_modifier)?;
            end = before.last_before(self.tokens);
            if let Some(Frame::Aggregate { modifier, .. }) = self.frames.last_mut() {
                *modifier = Some(found);
            }
        }
        let Some(Frame::Aggregate { op, start, modifier, args }) = self.frames.pop() else {
            return Err(Fault::Unexpected(right));
        };
        let span = start.to(end);
        let (grouping, without) = modifier.unwrap_or_default();
        let Args { mut exprs, depth } = args;
        if exprs.is_empty() {
            return Err(self.error(span, "no arguments for aggregate expression provided"));
        }
        if op.is_experimental() && !self.options.experimental_functions {
            let message = format!(
                "{op}() is experimental and must be enabled with --enable-feature=promql-experimental-functions"
            );
            return Err(self.error(span, message));
        }
        let wanted = if op.has_param() { 2 } else { 1 };
        let found = exprs.len();
        let (expr, param) = match (exprs.pop(), exprs.pop()) {
            (Some(expr), param) if found == wanted => (Box::new(expr), param.map(Box::new)),
            _ => {
                let message = format!(
                    "wrong number of arguments for aggregate expression provided, expected {wanted}, got {found}"
                );
                return Err(self.error(span, message));
            }
        };
        self.node(ExprKind::Aggregate(Aggregate { op, expr, param, grouping, without }), span, depth)
    }

    /// `[5m]` or `[1h:5m]` behind an expression.
    fn brackets(&mut self, operand: Operand) -> Result<Operand, Fault> {
        let text = self.tokens.text();
        let left = self.tokens.peek()?;
        self.advance();
        let range = self.duration(|durations| durations.positive()).map_err(|fault| {
            fault.within(text, "subquery or range selector", "number, duration, step(), or range()")
        })?;
        let next = self.tokens.peek()?;
        match next.kind {
            TokenKind::RightBracket => {
                self.advance();
                self.matrix(operand, range, left.span.to(next.span))
            }
            TokenKind::Colon => {
                self.advance();
                let step = self.subquery_step()?;
                let right = self.tokens.peek()?;
                if right.kind != TokenKind::RightBracket {
                    return Err(Fault::Unexpected(right).within(text, "subquery selector", "\"]\""));
                }
                self.advance();
                let span = operand.expr.span.to(right.span);
                let time = TimeModifiers::default();
                let subquery = Subquery { expr: Box::new(operand.expr), range, step, time };
                self.node(ExprKind::Subquery(subquery), span, operand.depth)
            }
            _ => Err(Fault::Unexpected(next).within(text, "subquery or range", "\":\" or \"]\"")),
        }
    }

    fn subquery_step(&mut self) -> Result<Option<DurationExpr>, Fault> {
        if self.tokens.peek()?.kind == TokenKind::RightBracket {
            return Ok(None);
        }
        let text = self.tokens.text();
        self.duration(|durations| durations.positive()).map(Some).map_err(|fault| {
            fault.within(text, "subquery selector", "number, duration, step(), range(), or \"]\"")
        })
    }

    fn duration<T>(
        &mut self,
        read: impl FnOnce(&mut DurationParser<'a>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut durations =
            DurationParser { tokens: self.tokens, arithmetic: self.options.duration_expressions };
        let value = read(&mut durations)?;
        self.tokens = durations.tokens;
        Ok(value)
    }

    fn matrix(&self, operand: Operand, range: DurationExpr, brackets: Span) -> Result<Operand, Fault> {
        let Expr { kind: ExprKind::Vector(vector), span } = operand.expr else {
            return Err(self.error(brackets, "ranges only allowed for vector selectors"));
        };
        let constant_offset = vector.time.offset.as_ref().is_some_and(|offset| offset.literal().is_some());
        if constant_offset {
            return Err(self.error(brackets, "no offset modifiers allowed before range"));
        }
        if matches!(vector.time.at, Some(At::Time(_))) {
            return Err(self.error(brackets, "no @ modifiers allowed before range"));
        }
        let matrix = MatrixSelector { vector, vector_span: span, range };
        Ok(leaf(ExprKind::Matrix(matrix), span.to(brackets)))
    }

    fn offset(&mut self, mut operand: Operand) -> Result<Operand, Fault> {
        const MESSAGE: &str = "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery";
        let text = self.tokens.text();
        let before = self.tokens;
        self.advance();
        let offset = self
            .duration(|durations| durations.offset())
            .map_err(|fault| fault.within(text, "offset", "number, duration, step(), or range()"))?;
        let span = operand.expr.span;
        let Some(time) = time_modifiers(&mut operand.expr) else {
            return Err(self.error(span, MESSAGE));
        };
        if time.offset.is_some() {
            return Err(self.error(span, "offset may not be set multiple times"));
        }
        time.offset = offset;
        operand.expr.span = span.to(before.last_before(self.tokens));
        Ok(operand)
    }

    fn at(&mut self, mut operand: Operand) -> Result<Operand, Fault> {
        const MESSAGE: &str = "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery";
        self.advance();
        let (at, end) = self.run_piece(at_operand)?;
        let span = operand.expr.span;
        let at = match at {
            AtOperand::Bound(at) => at,
            AtOperand::Seconds(seconds) => At::Time(timestamp(seconds).ok_or_else(|| {
                let shown = if seconds.is_finite() {
                    format!("{seconds:.6}")
                } else {
                    model::float::format_fixed(seconds)
                };
                self.error(span, format!("timestamp out of bounds for @ modifier: {shown}"))
            })?),
        };
        let Some(time) = time_modifiers(&mut operand.expr) else {
            return Err(self.error(span, MESSAGE));
        };
        if time.at.is_some() {
            return Err(self.error(span, "@ <timestamp> may not be set multiple times"));
        }
        time.at = Some(at);
        operand.expr.span.end = end;
        Ok(operand)
    }

    fn extended(
        &mut self,
        mut operand: Operand,
        token: Token,
        extended: ExtendedRange,
    ) -> Result<Operand, Fault> {
        self.advance();
        let span = operand.expr.span;
        let name = extended.as_str();
        if !self.options.extended_range_selectors {
            return Err(self.error(span, format!("{name} modifier is experimental and not enabled")));
        }
        let vector = match &mut operand.expr.kind {
            ExprKind::Vector(vector) => vector,
            ExprKind::Matrix(matrix) => &mut matrix.vector,
            ExprKind::Subquery(_) => {
                return Err(self.error(span, format!("{name} modifier is not supported for subqueries")));
            }
            _ => return Err(self.error(span, format!("{name} modifier not implemented"))),
        };
        if vector.extended.is_some_and(|present| present != extended) {
            return Err(self.error(span, "anchored and smoothed modifiers cannot be used together"));
        }
        vector.extended = Some(extended);
        operand.expr.span = span.to(token.span);
        Ok(operand)
    }
}

/// What [`Grammar::close`] leaves.
enum Closed {
    Operand(Operand),
    Whole(Expr),
}

impl Args {
    fn push(&mut self, operand: Operand) {
        self.depth = self.depth.max(operand.depth);
        self.exprs.push(operand.expr);
    }
}

fn leaf(kind: ExprKind, span: Span) -> Operand {
    Operand { expr: Expr { kind, span }, depth: 1 }
}

fn time_modifiers(expr: &mut Expr) -> Option<&mut TimeModifiers> {
    match &mut expr.kind {
        ExprKind::Vector(vector) => Some(&mut vector.time),
        ExprKind::Matrix(matrix) => Some(&mut matrix.vector.time),
        ExprKind::Subquery(subquery) => Some(&mut subquery.time),
        _ => None,
    }
}

/// Milliseconds of the operand of `@`, if they fit. (Prometheus lets some overflow.)
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the bounds are checked")]
fn timestamp(seconds: f64) -> Option<Timestamp> {
    let ms = (seconds * 1000.0).round();
    (ms.abs() < i64::MAX as f64).then_some(ms as Timestamp)
}
