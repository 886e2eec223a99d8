//! Text → tokens.
//!
//! All tokens are made before parsing; the first fault ends them as a [`TokenKind::Fault`] token, and counts once the
//! grammar gets there, so that an earlier mistake is reported first. States and error texts are those of Prometheus'
//! `promql/parser/lex.go` (3.14): brackets begin in a mode of their own (durations), which ends with the first number.
//!
//! Cost is linear in the text.

use model::regex::RegexBudget;
use nom::bytes::complete::{take_till, take_while};
use nom::{IResult, Parser};

use super::error::ParseError;
use super::token::{Keyword, Special, Token, TokenKind, keyword, quoted_char, special, unicode_char};
use crate::ast::{BinaryOp, Span};

/// A text with its tokens. The last token is [`TokenKind::End`] or [`TokenKind::Fault`].
#[derive(Debug)]
pub(super) struct Lexed<'a> {
    pub(super) text: &'a str,
    pub(super) tokens: Vec<Token>,
    /// The error of the last token, if it is [`TokenKind::Fault`].
    pub(super) fault: Option<ParseError>,
    /// What its regular expressions may take.
    pub(super) patterns: RegexBudget,
}

/// Most bytes that the compiled regular expressions of a query's selectors take, and those of its `label_replace`.
pub(crate) const PATTERNS_BYTES_MAX: usize = 32 << 20;

/// Makes tokens of `text`.
pub(super) fn lex(text: &str) -> Lexed<'_> {
    let mut lexer = Lexer {
        text,
        position: 0,
        start: 0,
        tokens: Vec::with_capacity(text.len() / 3 + 1),
        ..Lexer::default()
    };
    let fault = lexer.run().err().map(|message| {
        let span = Span::new(lexer.start, text.len());
        lexer.tokens.push(Token { kind: TokenKind::Fault, span });
        ParseError::new(text, span, message)
    });
    Lexed { text, tokens: lexer.tokens, fault, patterns: RegexBudget::new(PATTERNS_BYTES_MAX) }
}

/// The text of a lexical error; it stands at the lexer's `start`.
type Message = String;

#[derive(Default)]
struct Lexer<'a> {
    text: &'a str,
    /// Next byte to read.
    position: usize,
    /// First byte of the token under way.
    start: usize,
    tokens: Vec<Token>,
    parens: u32,
    in_braces: bool,
    in_brackets: bool,
    /// Within brackets, before the first number.
    in_duration: bool,
    /// A colon stood in the present brackets.
    had_colon: bool,
    /// A duration stood in the present brackets.
    had_duration: bool,
}

impl<'a> Lexer<'a> {
    fn run(&mut self) -> Result<(), Message> {
        loop {
            self.start = self.position;
            if self.in_duration {
                self.duration()?;
            } else {
                self.skip_blank();
                let done = if self.in_braces { self.within_braces()? } else { self.statement()? };
                if done {
                    return Ok(());
                }
            }
        }
    }

    /// Skips spaces and comments with nom; the token under way begins behind them.
    fn skip_blank(&mut self) {
        let rest = &self.text[self.position..];
        let (rest, ()) = blank(rest).unwrap_or((rest, ()));
        self.position = self.text.len() - rest.len();
        self.start = self.position;
    }

    fn peek(&self) -> Option<char> {
        let bytes = self.text.as_bytes();
        match bytes.get(self.position) {
            Some(byte) if byte.is_ascii() => Some(char::from(*byte)),
            Some(_) => self.text[self.position..].chars().next(),
            None => None,
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.position += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, accepted: impl Fn(char) -> bool) -> bool {
        match self.peek() {
            Some(c) if accepted(c) => {
                self.position += c.len_utf8();
                true
            }
            _ => false,
        }
    }

    fn accept_run(&mut self, accepted: impl Fn(char) -> bool) {
        let rest = &self.text[self.position..];
        let taken: IResult<&str, &str> = take_while(accepted).parse(rest);
        if let Ok((_, run)) = taken {
            self.position += run.len();
        }
    }

    fn word(&self) -> &'a str {
        &self.text[self.start..self.position]
    }

    fn emit(&mut self, kind: TokenKind) {
        self.tokens.push(Token { kind, span: Span::new(self.start, self.position) });
        self.start = self.position;
    }

    fn emit_operator(&mut self, op: BinaryOp) {
        self.emit(TokenKind::Operator(op));
    }

    /// Outside braces, and within brackets after their first number. True at the end of the text.
    fn statement(&mut self) -> Result<bool, Message> {
        let Some(c) = self.next() else {
            if self.parens != 0 {
                return Err("unclosed left parenthesis".to_owned());
            }
            if self.in_brackets {
                return Err("unclosed left bracket".to_owned());
            }
            self.emit(TokenKind::End);
            return Ok(true);
        };
        match c {
            ',' => self.emit(TokenKind::Comma),
            '*' => self.emit_operator(BinaryOp::Mul),
            '/' => self.emit_operator(BinaryOp::Div),
            '%' => self.emit_operator(BinaryOp::Mod),
            '+' => self.emit_operator(BinaryOp::Add),
            '-' => self.emit_operator(BinaryOp::Sub),
            '^' => self.emit_operator(BinaryOp::Pow),
            '@' => self.emit(TokenKind::At),
            '=' => match self.peek() {
                Some('=') => {
                    self.next();
                    self.emit_operator(BinaryOp::Eq);
                }
                Some('~') => return Err("unexpected character after '=': '~'".to_owned()),
                _ => self.emit(TokenKind::Equal),
            },
            '!' => match self.next() {
                Some('=') => self.emit_operator(BinaryOp::NotEq),
                other => return Err(format!("unexpected character after '!': {}", quoted_char(other))),
            },
            '<' => {
                let op = self.second(BinaryOp::Less, BinaryOp::LessEq, BinaryOp::TrimUpper);
                self.emit_operator(op);
            }
            '>' => {
                let op = self.second(BinaryOp::Greater, BinaryOp::GreaterEq, BinaryOp::TrimLower);
                self.emit_operator(op);
            }
            '0'..='9' => {
                self.position = self.start;
                self.number_or_duration()?;
            }
            '.' if self.peek().is_some_and(|c| c.is_ascii_digit()) => {
                self.position = self.start;
                self.number_or_duration()?;
            }
            '"' | '\'' | '`' => self.string(c)?,
            '(' => {
                self.emit(TokenKind::LeftParen);
                self.parens += 1;
            }
            ')' => self.right_paren()?,
            '{' => {
                self.emit(TokenKind::LeftBrace);
                self.in_braces = true;
            }
            '[' => {
                if self.in_brackets {
                    return Err("unexpected left bracket '['".to_owned());
                }
                self.emit(TokenKind::LeftBracket);
                self.in_brackets = true;
                self.in_duration = true;
                self.had_colon = false;
            }
            ']' => {
                if !self.in_brackets {
                    return Err("unexpected right bracket ']'".to_owned());
                }
                self.emit(TokenKind::RightBracket);
                self.in_brackets = false;
            }
            c if c == ':' || is_alpha(c) => {
                if self.in_brackets {
                    self.word_in_brackets(c)?;
                } else {
                    self.name();
                }
            }
            c => return Err(format!("unexpected character: {}", quoted_char(Some(c)))),
        }
        Ok(false)
    }

    /// An operator of one character, or with `=` or `/` behind it.
    fn second(&mut self, alone: BinaryOp, equal: BinaryOp, slash: BinaryOp) -> BinaryOp {
        match self.peek() {
            Some('=') => {
                self.next();
                equal
            }
            Some('/') => {
                self.next();
                slash
            }
            _ => alone,
        }
    }

    fn right_paren(&mut self) -> Result<(), Message> {
        let Some(parens) = self.parens.checked_sub(1) else {
            self.start = self.position;
            return Err("unexpected right parenthesis ')'".to_owned());
        };
        self.emit(TokenKind::RightParen);
        self.parens = parens;
        Ok(())
    }

    fn word_in_brackets(&mut self, c: char) -> Result<(), Message> {
        if c == ':' {
            if self.had_colon {
                return Err("unexpected colon ':'".to_owned());
            }
            self.emit(TokenKind::Colon);
            self.had_colon = true;
            return Ok(());
        }
        if self.duration_word(c) {
            return Ok(());
        }
        Err(format!("unexpected character: {}, expected ':'", quoted_char(Some(c))))
    }

    /// `step`, `range`, `min_of`, `max_of` within brackets, `c` being their first character.
    fn duration_word(&mut self, c: char) -> bool {
        if !matches!(c, 's' | 'S' | 'm' | 'M' | 'r' | 'R') {
            return false;
        }
        self.accept_run(is_alpha);
        let lower = self.word().to_ascii_lowercase();
        match special(&lower) {
            Some(which @ (Special::Step | Special::Range | Special::MinOf | Special::MaxOf)) => {
                self.had_duration = true;
                self.emit(TokenKind::Special(which));
                true
            }
            _ => false,
        }
    }

    /// Within brackets, before the first number.
    fn duration(&mut self) -> Result<(), Message> {
        self.accept_run(is_space);
        self.start = self.position;
        let Some(c) = self.next() else {
            return Err("unexpected end of input in duration expression".to_owned());
        };
        match c {
            ']' => {
                self.emit(TokenKind::RightBracket);
                self.in_brackets = false;
                self.in_duration = false;
                self.had_colon = false;
            }
            ':' => {
                if !self.had_duration || self.had_colon {
                    self.start = self.position;
                    return Err(if self.had_duration {
                        "unexpected repeated colon in duration expression".to_owned()
                    } else {
                        "unexpected colon before duration in duration expression".to_owned()
                    });
                }
                self.emit(TokenKind::Colon);
                self.had_colon = true;
            }
            '(' => {
                self.emit(TokenKind::LeftParen);
                self.parens += 1;
            }
            ')' => self.right_paren()?,
            '+' => self.emit_operator(BinaryOp::Add),
            '-' => self.emit_operator(BinaryOp::Sub),
            '*' => self.emit_operator(BinaryOp::Mul),
            '/' => self.emit_operator(BinaryOp::Div),
            '%' => self.emit_operator(BinaryOp::Mod),
            '^' => self.emit_operator(BinaryOp::Pow),
            ',' => self.emit(TokenKind::Comma),
            c if c.is_ascii_digit() || (c == '.' && self.peek().is_some_and(|c| c.is_ascii_digit())) => {
                self.position = self.start;
                self.had_duration = true;
                self.in_duration = false;
                self.number_or_duration()?;
            }
            c => {
                if !self.duration_word(c) {
                    return Err(format!(
                        "unexpected character in duration expression: {}",
                        quoted_char(Some(c))
                    ));
                }
            }
        }
        Ok(())
    }

    /// Within braces, where words are labels and never keywords. Never at the end of the text.
    fn within_braces(&mut self) -> Result<bool, Message> {
        let Some(c) = self.next() else {
            return Err("unexpected end of input inside braces".to_owned());
        };
        match c {
            ',' => self.emit(TokenKind::Comma),
            '"' | '\'' | '`' => self.string(c)?,
            '=' => {
                let kind = if self.accept(|c| c == '~') { TokenKind::EqualRegex } else { TokenKind::Equal };
                self.emit(kind);
            }
            '!' => match self.next() {
                Some('~') => self.emit(TokenKind::NotEqualRegex),
                Some('=') => self.emit_operator(BinaryOp::NotEq),
                other => {
                    return Err(format!(
                        "unexpected character after '!' inside braces: {}",
                        quoted_char(other)
                    ));
                }
            },
            '{' => return Err("unexpected left brace '{'".to_owned()),
            '}' => {
                self.emit(TokenKind::RightBrace);
                self.in_braces = false;
            }
            c if is_alpha(c) => {
                self.accept_run(is_alphanumeric);
                self.emit(TokenKind::Identifier);
            }
            c => return Err(format!("unexpected character inside braces: {}", quoted_char(Some(c)))),
        }
        Ok(false)
    }

    /// A keyword or a name; `fill` and its kin are keywords only before a parenthesis.
    fn name(&mut self) {
        self.accept_run(|c| is_alphanumeric(c) || c == ':');
        let word = self.word();
        let kind = match keyword(word) {
            Some(TokenKind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight))
                if !self.text[self.position..].trim_start_matches(is_space).starts_with('(') =>
            {
                TokenKind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => TokenKind::MetricIdentifier,
            None => TokenKind::Identifier,
        };
        self.emit(kind);
    }

    fn number_or_duration(&mut self) -> Result<(), Message> {
        if self.number() {
            self.emit(TokenKind::Number);
            return Ok(());
        }
        if self.rest_of_duration() {
            self.emit(TokenKind::Duration);
            return Ok(());
        }
        Err(format!("bad number or duration syntax: {}", model::labels::Quoted(self.word())))
    }

    /// Whether a number was read. What is wrong within it may be found later, when its value is made.
    fn number(&mut self) -> bool {
        let initial = self.position;
        let mut hexadecimal = false;
        if self.accept(|c| c == '0') && self.accept(|c| matches!(c, 'x' | 'X')) {
            self.accept(|c| c == '_');
            hexadecimal = true;
        }
        let is_digit = |c: char| if hexadecimal { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
        self.accept(|c| c == '.');
        self.accept(is_digit);
        let (mut had_dot, mut had_exponent) = (false, false);
        while let Some(c) = self.peek() {
            let is_exponent = matches!(c, 'e' | 'E');
            if c == '.' {
                self.next();
                if had_dot || self.accept(|c| matches!(c, '_' | '.')) || hexadecimal {
                    return false;
                }
                had_dot = true;
            } else if is_exponent {
                self.next();
                if had_exponent {
                    return false;
                }
                had_exponent = true;
                self.accept(|c| matches!(c, '+' | '-'));
                if self.accept(|c| matches!(c, '.' | '_' | 'e' | 'E')) || self.peek().is_none() {
                    return false;
                }
            } else if c == '_' {
                self.next();
                if self.accept(|c| matches!(c, '.' | '_' | 'e' | 'E')) || self.peek().is_none() {
                    return false;
                }
            } else if is_digit(c) {
                self.accept_run(is_digit);
            } else {
                break;
            }
        }
        self.position != initial && !self.peek().is_some_and(is_alphanumeric)
    }

    /// Whether what follows the digits just read makes a duration of them.
    fn rest_of_duration(&mut self) -> bool {
        if !self.accept(|c| "smhdwy".contains(c)) {
            return false;
        }
        self.accept(|c| c == 's');
        while self.accept(|c| c.is_ascii_digit()) {
            self.accept_run(|c| c.is_ascii_digit());
            if !self.accept(|c| "smhdw".contains(c)) {
                return false;
            }
            self.accept(|c| c == 's');
        }
        // The character behind is read even when it does not fit: error texts show it.
        if self.peek().is_some_and(is_alphanumeric) {
            self.next();
            return false;
        }
        true
    }

    fn string(&mut self, quote: char) -> Result<(), Message> {
        loop {
            match self.next() {
                Some('\\') if quote != '`' => self.escape(quote)?,
                Some(char::REPLACEMENT_CHARACTER) => return Err("invalid UTF-8 rune".to_owned()),
                None if quote == '`' => return Err("unterminated raw string".to_owned()),
                Some('\n') if quote != '`' => return Err("unterminated quoted string".to_owned()),
                None => return Err("unterminated quoted string".to_owned()),
                Some(c) if c == quote => break,
                Some(_) => {}
            }
        }
        self.emit(TokenKind::String);
        Ok(())
    }

    fn escape(&mut self, quote: char) -> Result<(), Message> {
        const UNTERMINATED: &str = "escape sequence not terminated";
        let (mut digits, base, value_max) = match self.next() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => return Ok(()),
            Some(c) if c == quote => return Ok(()),
            Some('0'..='7') => {
                self.position -= 1;
                (3, 8, 255)
            }
            Some('x') => (2, 16, 255),
            Some('u') => (4, 16, 0x10_ffff),
            Some('U') => (8, 16, 0x10_ffff),
            Some(c) => return Err(format!("unknown escape sequence {}", unicode_char(c))),
            None => return Err(UNTERMINATED.to_owned()),
        };
        let mut value = 0u32;
        while digits > 0 {
            let c = self.next().ok_or_else(|| UNTERMINATED.to_owned())?;
            let digit = c
                .to_digit(base)
                .ok_or_else(|| format!("illegal character {} in escape sequence", unicode_char(c)))?;
            value = value.wrapping_mul(base).wrapping_add(digit);
            digits -= 1;
        }
        if value > value_max || (0xd800..0xe000).contains(&value) {
            return Err("escape sequence is an invalid Unicode code point".to_owned());
        }
        Ok(())
    }
}

/// Spaces and `#` comments up to the end of their line.
fn blank(mut text: &str) -> IResult<&str, ()> {
    loop {
        (text, _) = take_while(is_space).parse(text)?;
        let Some(comment) = text.strip_prefix('#') else {
            return Ok((text, ()));
        };
        (text, _) = take_till(|c| c == '\n' || c == '\r').parse(comment)?;
    }
}

pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_alphanumeric(c: char) -> bool {
    is_alpha(c) || c.is_ascii_digit()
}
