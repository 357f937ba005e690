//! What went wrong, for the person at the terminal: one message with the cure, and the exit status.

use std::fmt::Write as _;
use std::io;

use millstream_client::Error;
use unicode_width::UnicodeWidthStr;

use crate::sanitise;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    Client(Error),
    /// The selector, to point into when the relay says where it is wrong.
    Selector {
        selector: String,
        error: Error,
    },
    UnknownStream(u64),
    Usage(String),
    /// Said in full already, or in this sentence.
    Failed(String),
    Output(io::Error),
    /// A search has no hits; nothing is said.
    NothingFound,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    /// The failure of a call that carried this selector.
    pub(crate) fn of_selection(error: Error, selector: &str) -> Self {
        match error {
            Error::BadRequest { .. } if !selector.is_empty() => Self::Selector {
                selector: selector.to_owned(),
                error,
            },
            error => Self::Client(error),
        }
    }

    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Selector { .. } => 2,
            Self::Client(Error::Dial(_) | Error::BadRequest { .. }) => 2,
            Self::Client(_)
            | Self::UnknownStream(_)
            | Self::Failed(_)
            | Self::Output(_)
            | Self::NothingFound => 1,
        }
    }
}

/// The message for standard error, ended by a newline.
pub(crate) fn message(failure: &Failure) -> String {
    let mut text = String::from("millstream: ");
    match failure {
        Failure::Client(error) => text.push_str(&sanitise::lines(&error.to_string())),
        Failure::Selector { selector, error } => {
            text.push_str(&sanitise::lines(&error.to_string()));
            text.push_str(&caret(selector, &error.to_string()));
        }
        Failure::UnknownStream(stream_id) => {
            let _ = write!(
                text,
                "there is no stream {stream_id}; `millstream ls streams` lists what there is"
            );
        }
        Failure::Usage(sentence) | Failure::Failed(sentence) => text.push_str(sentence),
        Failure::NothingFound => text.push_str("nothing was found"),
        Failure::Output(error) => {
            let _ = write!(text, "cannot write to standard output: {error}");
        }
    }
    text.push('\n');
    text
}

/// The selector with a caret under the place that the relay names as `position N` (bytes, from 0); nothing
/// when the message is not about the selector or names no place.
fn caret(selector: &str, message: &str) -> String {
    let Some(before) = position(message).and_then(|position| selector.get(..position)) else {
        return String::new();
    };
    let column = sanitise::plain(before).width();
    format!("\n  {}\n  {:column$}^", sanitise::plain(selector), "")
}

fn position(message: &str) -> Option<usize> {
    let (_, after) = message.split_once("selector")?.1.split_once("position ")?;
    let end = after
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(after.len());
    after[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_selector_is_shown_with_a_caret_under_the_place() {
        let error = Error::BadRequest {
            message: "selector: expected `,` at position 7, found `x`; write `host=a,x`".to_owned(),
        };
        let failure = Failure::of_selection(error, "host=a x");
        assert_eq!(
            message(&failure),
            "millstream: the relay refused the request: selector: expected `,` at position 7, found `x`; \
             write `host=a,x`\n  host=a x\n         ^\n"
        );
        assert_eq!(failure.exit_status(), 2);
    }

    #[test]
    fn the_caret_counts_columns_as_a_terminal_shows_them() {
        assert_eq!(caret("日本=x", "selector: at position 6"), "\n  日本=x\n      ^");
        assert_eq!(caret("a\x1b=x", "selector: at position 2"), "\n  a^[=x\n     ^");
        assert_eq!(caret("a", "selector: at position 9"), "");
        assert_eq!(caret("a", "regex: at position 1"), "");
    }
}
