//! Text into a [`Selector`].

use super::{MAX_BYTES, Operator, Requirement, Selector, Value};

/// Where and why a selector does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "selector error at position {position}: expected {expected}, found {found}; a selector looks like \
     `host=build-*,source in (cargo,npm),branch!=main,job`"
)]
pub struct SelectorError {
    /// Byte offset in the selector, from 0.
    pub position: usize,
    /// What could have stood there.
    pub expected: &'static str,
    /// What stands there.
    pub found: String,
}

pub(super) fn parse(text: &str) -> Result<Selector, SelectorError> {
    if text.len() > MAX_BYTES {
        return Err(SelectorError {
            position: MAX_BYTES,
            expected: "at most 8192 bytes",
            found: format!("{} bytes", text.len()),
        });
    }
    let mut parser = Parser { text, position: 0 };
    let mut requirements = Vec::new();
    parser.skip_blanks();
    while parser.peek().is_some() {
        if !requirements.is_empty() {
            parser.expect(',', "a comma or the end")?;
            parser.skip_blanks();
        }
        requirements.push(parser.requirement()?);
        parser.skip_blanks();
    }
    Ok(Selector { requirements })
}

pub(super) fn is_bare_character(character: char) -> bool {
    !matches!(character, ',' | '(' | ')' | '"' | '=' | '!')
        && !character.is_whitespace()
        && !character.is_control()
}

struct Parser<'a> {
    text: &'a str,
    position: usize,
}

impl Parser<'_> {
    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.take('!') {
            self.skip_blanks();
            return Ok(Requirement {
                label: self.label()?,
                operator: Operator::Missing,
            });
        }
        let label = self.label()?;
        self.skip_blanks();
        let operator = match self.peek() {
            None | Some(',') => Operator::Exists,
            Some('=') => {
                self.take('=');
                self.take('=');
                self.skip_blanks();
                Operator::In(vec![self.value()?])
            }
            Some('!') => {
                if !self.rest().starts_with("!=") {
                    return Err(self.error("an operator: =, !=, in (…) or notin (…)"));
                }
                self.position += 2;
                self.skip_blanks();
                Operator::NotIn(vec![self.value()?])
            }
            Some(_) => {
                if self.take_word("in") {
                    Operator::In(self.values()?)
                } else if self.take_word("notin") {
                    Operator::NotIn(self.values()?)
                } else {
                    return Err(self.error("an operator: =, !=, in (…) or notin (…)"));
                }
            }
        };
        Ok(Requirement { label, operator })
    }

    fn label(&mut self) -> Result<String, SelectorError> {
        let is_label_character =
            |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | '/' | '-');
        let rest = self.rest();
        let end = rest
            .find(|character| !is_label_character(character))
            .unwrap_or(rest.len());
        if end == 0 {
            return Err(self.error("the name of a label"));
        }
        let label = rest[..end].to_owned();
        self.position += end;
        Ok(label)
    }

    fn values(&mut self) -> Result<Vec<Value>, SelectorError> {
        self.skip_blanks();
        self.expect('(', "an opening parenthesis")?;
        let mut values = Vec::new();
        loop {
            self.skip_blanks();
            if self.peek().is_none() {
                return Err(self.error("a value or a closing parenthesis"));
            }
            values.push(self.value()?);
            self.skip_blanks();
            if self.take(')') {
                return Ok(values);
            }
            self.expect(',', "a comma or a closing parenthesis")?;
        }
    }

    fn value(&mut self) -> Result<Value, SelectorError> {
        let begin = self.position;
        if !self.take('"') {
            let rest = self.rest();
            let end = rest
                .find(|character| !is_bare_character(character))
                .unwrap_or(rest.len());
            let text = rest[..end].to_owned();
            self.position += end;
            return self.compile(begin, text, false);
        }
        let mut text = String::new();
        let mut is_escaped = false;
        for (offset, character) in self.text[self.position..].char_indices() {
            match character {
                _ if is_escaped => {
                    text.push(character);
                    is_escaped = false;
                }
                '\\' => is_escaped = true,
                '"' => {
                    self.position += offset + 1;
                    return self.compile(begin, text, true);
                }
                _ => text.push(character),
            }
        }
        self.position = begin;
        Err(self.error("a closing quote for this one"))
    }

    fn compile(&self, position: usize, text: String, is_quoted: bool) -> Result<Value, SelectorError> {
        Value::new(text, is_quoted).map_err(|found| SelectorError {
            position,
            expected: "a glob of * and ?",
            found,
        })
    }

    fn rest(&self) -> &str {
        &self.text[self.position..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.position += wanted.len_utf8();
        }
        found
    }

    /// Takes a keyword that is followed by a blank or a parenthesis.
    fn take_word(&mut self, word: &str) -> bool {
        let found = self.rest().strip_prefix(word).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with(|next: char| next == '(' || next.is_whitespace())
        });
        if found {
            self.position += word.len();
        }
        found
    }

    fn expect(&mut self, wanted: char, expected: &'static str) -> Result<(), SelectorError> {
        if self.take(wanted) {
            Ok(())
        } else {
            Err(self.error(expected))
        }
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.position += rest.len() - rest.trim_start().len();
    }

    fn error(&self, expected: &'static str) -> SelectorError {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(character) => format!("{character:?}"),
        };
        SelectorError {
            position: self.position,
            expected,
            found,
        }
    }
}
