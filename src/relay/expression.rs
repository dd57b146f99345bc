//! Relay's expressions, which are written between `${` and `}`: `connections.aws.'my-account'`,
//! `secrets['regions.' + parameters.region]`, `concat("a", outputs.build.tag)`.

use std::iter::Peekable;
use std::str::CharIndices;

use serde_json::{Number, Value as Json};

use super::scalar;

/// The deepest nesting of an expression.
const MAX_DEPTH: usize = 32;
/// The most parts of an expression: a chain of dots or operators is a tree as deep as the chain is long.
const MAX_PARTS: usize = 400;

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// A text, number, boolean or null.
    Literal(Json),
    /// A name at the beginning, such as `connections`; in a query, a key of the spec.
    Name(String),
    /// `$`: everything.
    Root,
    /// `of.key`, `of[key]`, `of.(key)`
    Member(Box<Expression>, Box<Expression>),
    /// `[a, 'b']`
    List(Vec<Expression>),
    /// `{'k': v}`
    Map(Vec<(Expression, Expression)>),
    /// `function(argument, name: argument)`
    Call(String, Vec<(Option<String>, Expression)>),
    /// `!x`
    Not(Box<Expression>),
    /// `-x`
    Negative(Box<Expression>),
    /// `left operator right`
    Binary(BinaryOperator, Box<Expression>, Box<Expression>),
}

impl Expression {
    /// True if a part of it refers to a value.
    pub fn is_made_of_values(&self) -> bool {
        match self {
            Self::Literal(_) => false,
            Self::Name(_) | Self::Root => true,
            Self::Member(left, right) | Self::Binary(_, left, right) => {
                left.is_made_of_values() || right.is_made_of_values()
            }
            Self::List(items) => items.iter().any(Self::is_made_of_values),
            Self::Map(entries) => entries
                .iter()
                .any(|(key, value)| key.is_made_of_values() || value.is_made_of_values()),
            Self::Call(_, arguments) => {
                arguments.iter().any(|(_, value)| value.is_made_of_values())
            }
            Self::Not(inner) | Self::Negative(inner) => inner.is_made_of_values(),
        }
    }
}

/// An operator between two expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOperator {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Matches,
    MatchesNot,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
    /// `|>`, which is not implemented: an expression with it is not evaluated.
    Pipe,
}

/// Operators with their precedence. A sign comes before its own prefixes.
const OPERATORS: [(&str, BinaryOperator, u8); 17] = [
    ("|>", BinaryOperator::Pipe, 0),
    ("||", BinaryOperator::Or, 1),
    ("&&", BinaryOperator::And, 2),
    ("==", BinaryOperator::Equal, 3),
    ("!=", BinaryOperator::NotEqual, 3),
    ("=~", BinaryOperator::Matches, 3),
    ("!~", BinaryOperator::MatchesNot, 3),
    ("<=", BinaryOperator::LessOrEqual, 4),
    (">=", BinaryOperator::GreaterOrEqual, 4),
    ("<", BinaryOperator::Less, 4),
    (">", BinaryOperator::Greater, 4),
    ("+", BinaryOperator::Add, 5),
    ("-", BinaryOperator::Subtract, 5),
    ("**", BinaryOperator::Power, 7),
    ("*", BinaryOperator::Multiply, 6),
    ("/", BinaryOperator::Divide, 6),
    ("%", BinaryOperator::Remainder, 6),
];

/// Parses a whole text.
///
/// # Errors
/// The expectation, without a quote of the text.
pub fn parse(text: &str) -> Result<Expression, String> {
    let mut parser = Parser::new(text);
    let expression = parser.expression(0)?;
    parser.expect_end()?;
    Ok(expression)
}

/// Parses an expression at the beginning of a text, up to its `}`. Returns its length in bytes, with the brace.
///
/// # Errors
/// As [`parse`].
pub fn parse_braced(text: &str) -> Result<(Expression, usize), String> {
    let mut parser = Parser::new(text);
    let expression = parser.expression(0)?;
    parser.expect('}')?;
    Ok((expression, parser.offset()))
}

struct Parser<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    depth: usize,
    parts: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, chars: text.char_indices().peekable(), depth: 0, parts: 0 }
    }

    /// The offset of the next character, in bytes.
    fn offset(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(offset, _)| *offset)
    }

    fn rest(&mut self) -> &'a str {
        let offset = self.offset();
        self.text.get(offset..).unwrap_or_default()
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().map(|(_, c)| *c)
    }

    fn skip_space(&mut self) {
        while self.chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
    }

    fn accept(&mut self, wanted: char) -> bool {
        self.skip_space();
        self.chars.next_if(|(_, c)| *c == wanted).is_some()
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        match self.accept(wanted) {
            true => Ok(()),
            false => Err(self.expected(&format!("{wanted:?}"))),
        }
    }

    fn expect_end(&mut self) -> Result<(), String> {
        self.skip_space();
        if self.peek().is_none() { Ok(()) } else { Err(self.expected("an operator or its end")) }
    }

    fn expected(&mut self, what: &str) -> String {
        let before = self.text.get(..self.offset()).unwrap_or_default().chars().count();
        format!("expected {what} at character {} of the expression", before + 1)
    }

    fn count(&mut self) -> Result<(), String> {
        self.parts += 1;
        match self.parts > MAX_PARTS {
            true => Err(format!("an expression of more than {MAX_PARTS} parts")),
            false => Ok(()),
        }
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        match self.depth > MAX_DEPTH {
            true => Err(format!("nested deeper than {MAX_DEPTH}")),
            false => Ok(()),
        }
    }

    /// Parses operands and operators of at least this precedence.
    fn expression(&mut self, least: u8) -> Result<Expression, String> {
        self.deeper()?;
        let mut left = self.unary()?;
        loop {
            self.skip_space();
            let rest = self.rest();
            let found = OPERATORS.iter().find(|(sign, ..)| rest.starts_with(sign));
            let Some((sign, operator, strength)) =
                found.filter(|(.., strength)| *strength >= least)
            else {
                break;
            };
            for _ in sign.chars() {
                self.chars.next();
            }
            self.count()?;
            let right = self.expression(strength + 1)?;
            left = Expression::Binary(*operator, Box::new(left), Box::new(right));
        }
        self.depth -= 1;
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expression, String> {
        // Each sign counts as a level of nesting.
        let sign = match () {
            () if self.accept('!') => Expression::Not as fn(Box<Expression>) -> Expression,
            () if self.accept('-') => Expression::Negative,
            () => return self.postfix(),
        };
        self.deeper()?;
        let inner = self.unary()?;
        self.depth -= 1;
        Ok(sign(Box::new(inner)))
    }

    fn postfix(&mut self) -> Result<Expression, String> {
        let mut expression = self.primary()?;
        loop {
            // No space is allowed before a dot or bracket.
            let key = match self.peek() {
                Some('.') => {
                    self.chars.next();
                    self.member()?
                }
                Some('[') => {
                    self.chars.next();
                    let key = self.expression(0)?;
                    self.expect(']')?;
                    key
                }
                _ => return Ok(expression),
            };
            self.count()?;
            expression = Expression::Member(Box::new(expression), Box::new(key));
        }
    }

    /// The key after a dot.
    fn member(&mut self) -> Result<Expression, String> {
        match self.peek() {
            Some('(') => {
                self.chars.next();
                let key = self.expression(0)?;
                self.expect(')')?;
                Ok(key)
            }
            Some(quote @ ('\'' | '"')) => self.quoted(quote),
            Some(c) if c.is_ascii_digit() => {
                let digits = self.take_while(|c| c.is_ascii_digit());
                let index =
                    digits.parse::<u32>().map_err(|_| "an index is too large".to_owned())?;
                Ok(Expression::Literal(Json::from(index)))
            }
            Some(c) if is_first(c) => {
                Ok(Expression::Literal(Json::from(self.take_while(is_further))))
            }
            _ => Err(self.expected("a name, a text in quotes or a number")),
        }
    }

    fn primary(&mut self) -> Result<Expression, String> {
        self.skip_space();
        self.count()?;
        match self.peek() {
            Some('[') => {
                self.chars.next();
                self.items(']', |parser| parser.expression(0)).map(Expression::List)
            }
            Some('{') => {
                self.chars.next();
                let entry = |parser: &mut Self| {
                    let key = parser.expression(0)?;
                    parser.expect(':')?;
                    Ok((key, parser.expression(0)?))
                };
                self.items('}', entry).map(Expression::Map)
            }
            Some('$') => {
                self.chars.next();
                Ok(Expression::Root)
            }
            Some('(') => {
                self.chars.next();
                let inner = self.expression(0)?;
                self.expect(')')?;
                Ok(inner)
            }
            Some(quote @ ('\'' | '"')) => self.quoted(quote),
            Some(c) if c.is_ascii_digit() => {
                let digits = self.take_while(|c| c.is_ascii_digit() || c == '.');
                let number: Option<Number> = scalar::number(digits);
                number.map(|number| Expression::Literal(Json::Number(number))).ok_or_else(|| {
                    "not a number; a name that starts with a digit needs quotes".to_owned()
                })
            }
            Some(c) if is_first(c) => {
                let name = self.take_while(is_further);
                match name {
                    "true" => Ok(Expression::Literal(Json::Bool(true))),
                    "false" => Ok(Expression::Literal(Json::Bool(false))),
                    "null" => Ok(Expression::Literal(Json::Null)),
                    name if self.peek() == Some('(') => {
                        Ok(Expression::Call(name.to_owned(), self.arguments()?))
                    }
                    name => Ok(Expression::Name(name.to_owned())),
                }
            }
            _ => Err(self.expected("a name, a text in quotes or a number")),
        }
    }

    fn arguments(&mut self) -> Result<Vec<(Option<String>, Expression)>, String> {
        self.expect('(')?;
        self.items(')', |parser| match parser.expression(0)? {
            Expression::Name(name) if parser.accept(':') => Ok((Some(name), parser.expression(0)?)),
            argument => Ok((None, argument)),
        })
    }

    /// The items between commas, up to a closing sign.
    fn items<T>(
        &mut self,
        end: char,
        item: impl Fn(&mut Self) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let mut items = Vec::new();
        if self.accept(end) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.accept(end) {
                return Ok(items);
            }
            self.expect(',')?;
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Expression, String> {
        self.chars.next();
        let mut text = String::new();
        while let Some((_, c)) = self.chars.next() {
            match c {
                c if c == quote => return Ok(Expression::Literal(Json::from(text))),
                '\\' => text.push(self.escaped()?),
                c => text.push(c),
            }
        }
        Err("a text in quotes has no end".to_owned())
    }

    fn escaped(&mut self) -> Result<char, String> {
        match self.chars.next().map(|(_, c)| c) {
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') => {
                let digits: String = self.chars.by_ref().take(4).map(|(_, c)| c).collect();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                code.ok_or_else(|| "\\u is followed by four hexadecimal digits".to_owned())
            }
            Some(c) => Ok(c),
            None => Err("a text in quotes has no end".to_owned()),
        }
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let start = self.offset();
        while self.chars.next_if(|(_, c)| belongs(*c)).is_some() {}
        let end = self.offset();
        self.text.get(start..end).unwrap_or_default()
    }
}

fn is_first(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

/// True for a further character of a name. A name may hold a dash, so subtraction needs spaces.
fn is_further(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(value: impl Into<Json>) -> Expression {
        Expression::Literal(value.into())
    }

    fn member(of: Expression, key: Expression) -> Expression {
        Expression::Member(Box::new(of), Box::new(key))
    }

    #[test]
    fn a_path_is_written_with_dots_quotes_and_brackets() {
        let account =
            member(member(Expression::Name("connections".into()), literal("aws")), literal("my-a"));
        for text in [
            "connections.aws.'my-a'",
            "connections.aws.my-a",
            "connections['aws'][\"my-a\"]",
            " connections.('aws').my-a ",
        ] {
            assert_eq!(parse(text).unwrap(), account, "{text}");
        }
        let item = member(member(Expression::Name("a".into()), literal(0)), literal("b"));
        assert_eq!(parse("a.0.b").unwrap(), item);
        assert_eq!(parse("a[0].b").unwrap(), item);
    }

    #[test]
    fn operators_bind_as_in_arithmetic() {
        let sum = |a, b| Expression::Binary(BinaryOperator::Add, Box::new(a), Box::new(b));
        let product = |a, b| Expression::Binary(BinaryOperator::Multiply, Box::new(a), Box::new(b));
        assert_eq!(parse("1 + 2 * 3").unwrap(), sum(literal(1), product(literal(2), literal(3))));
        assert_eq!(parse("(1 + 2) * 3").unwrap(), product(sum(literal(1), literal(2)), literal(3)));
        assert!(matches!(parse("a-b").unwrap(), Expression::Name(name) if name == "a-b"));
    }

    #[test]
    fn a_malformed_expression_is_refused_with_its_place() {
        for bad in
            ["", "a.", "a[", "a['", "a b", "a..b", "(a", "f(a", "f(a,", "1.2.3", "'\\u00'", "@"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let deep = format!("{}a{}", "(".repeat(500), ")".repeat(500));
        assert!(parse(&deep).is_err());
        assert!(parse(&"!".repeat(500)).is_err());
        assert!(parse(&format!("a{}", ".a".repeat(500))).is_err());
        assert!(parse(&format!("1{}", " + 1".repeat(500))).is_err());
        assert_eq!(
            parse("a b").unwrap_err(),
            "expected an operator or its end at character 3 of the expression"
        );
    }
}
