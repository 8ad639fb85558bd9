//! The parser: one function per rule of the grammar, over the text that is left.

use std::collections::BTreeSet;

use super::{Comparison, Expression, SelectorError};

/// Parentheses may nest so deep; a manifest cannot make us overflow the stack.
const MAX_DEPTH: usize = 64;
/// Characters of a label.
const MAX_LABEL: usize = 512;

/// What went wrong, `left` bytes before the end of the text.
struct Failure {
    left: usize,
    expected: String,
}

type Parsed<T> = Result<T, Failure>;

pub(super) fn parse(text: &str) -> Result<Expression, SelectorError> {
    let mut parser = Parser { rest: text, depth: 0 };
    parser.whole().map_err(|failure| SelectorError {
        text: text.to_owned(),
        column: text[..text.len() - failure.left].chars().count() + 1,
        expected: failure.expected,
    })
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn whole(&mut self) -> Parsed<Expression> {
        self.skip_space();
        if self.rest.is_empty() {
            return Ok(Expression::All);
        }
        let expression = self.or()?;
        if self.rest.is_empty() {
            Ok(expression)
        } else {
            Err(self.failure("expected && or || or the end"))
        }
    }

    fn or(&mut self) -> Parsed<Expression> {
        self.chain("||", Self::and, Expression::Or)
    }

    fn and(&mut self) -> Parsed<Expression> {
        self.chain("&&", Self::unary, Expression::And)
    }

    /// One operand or several with `operator` between them.
    fn chain(
        &mut self,
        operator: &str,
        operand: fn(&mut Self) -> Parsed<Expression>,
        combine: fn(Vec<Expression>) -> Expression,
    ) -> Parsed<Expression> {
        let first = operand(self)?;
        if !self.rest.starts_with(operator) {
            return Ok(first);
        }
        let mut operands = vec![first];
        while self.token(operator) {
            operands.push(operand(self)?);
        }
        Ok(combine(operands))
    }

    fn unary(&mut self) -> Parsed<Expression> {
        let mut negated = false;
        while self.token("!") {
            negated = !negated;
        }
        let operand = self.primary()?;
        Ok(if negated {
            Expression::Not(Box::new(operand))
        } else {
            operand
        })
    }

    fn primary(&mut self) -> Parsed<Expression> {
        if self.rest.starts_with('(') {
            return self.parenthesized();
        }
        for (function, expression) in [("all(", Expression::All), ("global(", Expression::Global)] {
            if self.token(function) {
                self.expect(")")?;
                return Ok(expression);
            }
        }
        if self.token("has(") {
            let label = self.label()?;
            self.expect(")")?;
            return Ok(Expression::Has(label));
        }
        let label = self.label()?;
        self.operation(label)
    }

    fn parenthesized(&mut self) -> Parsed<Expression> {
        if self.depth == MAX_DEPTH {
            return Err(self.failure(format!("parentheses nest deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        self.expect("(")?;
        let inner = self.or()?;
        self.expect(")")?;
        self.depth -= 1;
        Ok(inner)
    }

    fn operation(&mut self, label: String) -> Parsed<Expression> {
        for (words, comparison) in [
            (["==", ""], Comparison::Equal),
            (["!=", ""], Comparison::NotEqual),
            (["contains", ""], Comparison::Contains),
            (["starts", "with"], Comparison::StartsWith),
            (["ends", "with"], Comparison::EndsWith),
        ] {
            if self.words(words) {
                return Ok(Expression::Compare(label, comparison, self.literal()?));
            }
        }
        if self.words(["in", ""]) {
            return Ok(Expression::In(label, self.set()?));
        }
        if self.words(["not", "in"]) {
            return Ok(Expression::NotIn(label, self.set()?));
        }
        Err(self.failure("expected ==, !=, in, not in, contains, starts with or ends with"))
    }

    fn set(&mut self) -> Parsed<BTreeSet<String>> {
        self.expect("{")?;
        let mut set = BTreeSet::new();
        while !self.rest.starts_with('}') {
            set.insert(self.literal()?);
            if !self.token(",") {
                break;
            }
        }
        self.expect("}")?;
        Ok(set)
    }

    fn label(&mut self) -> Parsed<String> {
        let is_label = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
        let end = self.rest.find(|c| !is_label(c)).unwrap_or(self.rest.len());
        match end {
            0 => Err(self.failure("expected a label, has(…), all(), global(), ! or (")),
            1..=MAX_LABEL => Ok(self.take(end).to_owned()),
            _ => Err(self.failure(format!("a label has at most {MAX_LABEL} characters"))),
        }
    }

    fn literal(&mut self) -> Parsed<String> {
        let Some(quote @ ('\'' | '"')) = self.rest.chars().next() else {
            return Err(self.failure("expected a value in quotes"));
        };
        let Some(length) = self.rest[1..].find(quote) else {
            return Err(self.failure("the value lacks its closing quote"));
        };
        Ok(self.take(length + 2)[1..=length].to_owned())
    }

    /// Takes `text` and the space behind it, if it is next.
    fn token(&mut self, text: &str) -> bool {
        let found = self.rest.starts_with(text);
        if found {
            self.take(text.len());
        }
        found
    }

    /// Takes an operator of one or two words; space between two is optional.
    fn words(&mut self, [first, second]: [&str; 2]) -> bool {
        let Some(rest) = self.rest.strip_prefix(first) else {
            return false;
        };
        let Some(rest) = rest.trim_start_matches([' ', '\t']).strip_prefix(second) else {
            return false;
        };
        self.take(self.rest.len() - rest.len());
        true
    }

    fn expect(&mut self, text: &str) -> Parsed<()> {
        if self.token(text) {
            Ok(())
        } else {
            Err(self.failure(format!("expected {text}")))
        }
    }

    /// Takes `length` bytes, which end at a character's end, and the space behind them.
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.skip_space();
        taken
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn failure(&self, expected: impl Into<String>) -> Failure {
        Failure {
            left: self.rest.len(),
            expected: expected.into(),
        }
    }
}
